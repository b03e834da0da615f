"""``./dev bench [NAME...] [--json]``: run benchmarks, show their values beside their bars.

Exit status: 0 when every bar is met, 1 when one is missed, 2 for a name that does not exist. With ``--json`` stdout
is one JSON list of ``{name, value, unit, bar, ok, note}``; progress goes to stderr either way.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict

from rich.console import Console
from rich.table import Column, Table

from tests.bench.registry import Benchmark, Result, UnknownBenchmark, discover, select


def main(arguments: list[str]) -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="Run benchmarks and hold them to their bars.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all of them without a name")
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    chosen = parser.parse_args(arguments)
    try:
        benchmarks = select(discover(), chosen.names)
    except UnknownBenchmark as unknown:
        print(f"./dev bench: {unknown.args[0]}", file=sys.stderr)
        return 2
    results = [_run(benchmark) for benchmark in benchmarks]
    if chosen.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        Console().print(table(results))
    return 0 if all(result.ok for result in results) else 1


def _run(benchmark: Benchmark) -> Result:
    print(f"{benchmark.name} ...", end="", file=sys.stderr, flush=True)
    began = time.monotonic()
    result = benchmark.run()
    print(f" {result.value:,.4g} {result.unit} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
    return result


def table(results: list[Result]) -> Table:
    """The results as people read them."""
    shown = Table(Column("benchmark", no_wrap=True, min_width=32), "value", "unit", "bar", "", "note")
    for row in results:
        bar = "-" if row.bar is None else f"{row.bar:,.4g}"
        verdict = "[green]ok[/]" if row.ok else "[red]MISSED[/]"
        shown.add_row(row.name, f"{row.value:,.4g}", row.unit, bar, verdict, row.note)
    return shown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
