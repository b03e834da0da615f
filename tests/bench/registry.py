"""How a benchmark is declared, found and judged.

A benchmark is a function in some ``tests/bench/bench_*.py``::

    @bench("log.durable_appends_per_s", unit="1/s", bar=20_000, better="higher")
    def durable_appends() -> tuple[float, str]:
        '''Appends with group commit, one writer.'''
        return statistics.median(runs), "median of 5 runs of 20,000 records"

It repeats by itself, interleaves what it compares (:func:`interleave`) and quotes medians; the registry only judges
the value against the bar. A bar of None is a number without a promise.
"""

import importlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Better = Literal["lower", "higher"]
Measure = Callable[[], tuple[float, str]]


@dataclass(frozen=True)
class Benchmark:
    """A named measurement and the bar it is held to."""

    name: str
    unit: str
    bar: float | None
    better: Better
    measure: Measure

    def run(self) -> "Result":
        """Measure now; raises whatever the measurement raises."""
        value, note = self.measure()
        return Result(self.name, value, self.unit, self.bar, self._meets(value), note)

    def _meets(self, value: float) -> bool:
        if self.bar is None:
            return True
        return value <= self.bar if self.better == "lower" else value >= self.bar


@dataclass(frozen=True)
class Result:
    """One row of ``./dev bench --json``: the contract for every benchmark, present and later."""

    name: str
    value: float
    unit: str
    bar: float | None
    ok: bool
    note: str


class UnknownBenchmark(KeyError):
    """A name that no ``bench_*.py`` declares."""


_REGISTRY: dict[str, Benchmark] = {}


def bench(name: str, *, unit: str, bar: float | None = None, better: Better = "lower") -> Callable[[Measure], Measure]:
    """Declare the decorated function as benchmark ``name`` in ``unit``, held to ``bar``; it returns (value, note)."""

    def declare(measure: Measure) -> Measure:
        if name in _REGISTRY:
            raise ValueError(f"two benchmarks are called {name}")
        _REGISTRY[name] = Benchmark(name, unit, bar, better, measure)
        return measure

    return declare


def discover(folder: Path = Path(__file__).parent) -> dict[str, Benchmark]:
    """Import every ``bench_*.py`` of this folder; all declared benchmarks by name, in order of their names."""
    for module in sorted(folder.glob("bench_*.py")):
        importlib.import_module(f"tests.bench.{module.stem}")
    return dict(sorted(_REGISTRY.items()))


def select(benchmarks: dict[str, Benchmark], names: list[str]) -> list[Benchmark]:
    """The named ones in the order asked for, all without names; raises :class:`UnknownBenchmark`."""
    unknown = [name for name in names if name not in benchmarks]
    if unknown:
        raise UnknownBenchmark(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(benchmarks)}")
    return [benchmarks[name] for name in names or benchmarks]


def interleave(a: Callable[[], float], b: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Run a b, b a, a b, ... so that a slow phase of the machine meets both; the two medians of what they return."""
    results: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            results[which].append((a, b)[which]())
    return statistics.median(results[0]), statistics.median(results[1])
