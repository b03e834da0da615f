"""The benchmark registry: bars, selection, interleaving. The numbers themselves are ``./dev bench``'s business."""

import json
from typing import Literal

import pytest

from tests.bench import __main__ as command
from tests.bench.registry import Benchmark, Result, UnknownBenchmark, bench, interleave, select


def sample(value: float, bar: float | None, better: Literal["lower", "higher"]) -> Result:
    return Benchmark("sample", "us", bar, better, lambda: (value, "made up")).run()


@pytest.mark.parametrize(
    ("value", "bar", "better", "ok"),
    [
        (9.9, 10, "lower", True),
        (10, 10, "lower", True),
        (10.1, 10, "lower", False),
        (10.1, 10, "higher", True),
        (10, 10, "higher", True),
        (9.9, 10, "higher", False),
        (1e9, None, "lower", True),
    ],
)
def test_bar(value: float, bar: float | None, better: Literal["lower", "higher"], ok: bool) -> None:
    assert sample(value, bar, better) == Result("sample", value, "us", bar, ok, "made up")


def test_a_name_belongs_to_one_benchmark() -> None:
    declare = bench("test.registry", unit="us")
    declare(lambda: (1.0, ""))
    with pytest.raises(ValueError, match=r"two benchmarks are called test\.registry"):
        declare(lambda: (2.0, ""))


def test_selection() -> None:
    every = {name: Benchmark(name, "us", None, "lower", lambda: (0.0, "")) for name in ("a", "b", "c")}
    assert [b.name for b in select(every, [])] == ["a", "b", "c"]
    assert [b.name for b in select(every, ["c", "a"])] == ["c", "a"]
    with pytest.raises(UnknownBenchmark, match="no benchmark is called x; there are: a, b, c"):
        select(every, ["a", "x"])


def test_interleaving_alternates_and_gives_medians() -> None:
    order: list[str] = []
    values = iter([1.0, 100.0, 300.0, 2.0, 3.0, 200.0])

    def take(name: str) -> float:
        order.append(name)
        return next(values)

    assert interleave(lambda: take("a"), lambda: take("b"), 3) == (2.0, 200.0)
    assert "".join(order) == "abbaab"


def test_the_command_prints_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    bench("test.met", unit="us", bar=2)(lambda: (1.5, "fine"))
    bench("test.missed", unit="us", bar=1)(lambda: (1.5, "slow"))
    assert command.main(["--json", "test.met"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "test.met", "value": 1.5, "unit": "us", "bar": 2, "ok": True, "note": "fine"}
    ]
    assert command.main(["test.met", "test.missed"]) == 1
    assert "MISSED" in capsys.readouterr().out
    assert command.main(["test.nowhere"]) == 2
    assert "no benchmark is called test.nowhere" in capsys.readouterr().err
