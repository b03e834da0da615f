"""The coverage gates: 100 % of lines and branches in ``attestation/``, 90 % in ``agent/`` and ``verifier/``."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GATES = {"attestation": 100.0, "agent": 90.0, "verifier": 90.0}


@dataclass(frozen=True)
class Share:
    """How much of a package was executed: statements and branches, counted together."""

    covered: int
    total: int

    @property
    def percent(self) -> float:
        """In percent; a package of which nothing was measured counts as not executed."""
        return 100.0 * self.covered / self.total if self.total else 0.0


def share(files: Mapping[str, Any], package: str) -> Share:
    """Sum the ``summary`` of coverage's JSON report over the files of one package."""
    summaries = [entry["summary"] for name, entry in files.items() if name.split("/")[0] == package]
    return Share(
        covered=sum(s["covered_lines"] + s["covered_branches"] for s in summaries),
        total=sum(s["num_statements"] + s["num_branches"] for s in summaries),
    )


def main(report: Path) -> int:
    """Print the verdict on coverage's JSON report to stderr; 1 if any package misses its bar."""
    files = json.loads(report.read_text())["files"]
    failed = 0
    for package, bar in GATES.items():
        found = share(files, package)
        missed = found.percent < bar
        failed |= missed
        print(
            f"coverage {package}: {found.percent:.2f} % (bar {bar:.0f} %){' MISSED' if missed else ''}", file=sys.stderr
        )
        for line in _gaps(files, package) if missed else []:
            print(f"  {line}", file=sys.stderr)
    return int(failed)


def _gaps(files: Mapping[str, Any], package: str) -> list[str]:
    return [
        f"{name}: {_spans(entry)}"
        for name, entry in sorted(files.items())
        if name.split("/")[0] == package and (entry["missing_lines"] or entry["missing_branches"])
    ]


def _spans(entry: Mapping[str, Any]) -> str:
    """What a file misses, as ``3-5, 9, 12->14``: lines, then the branches between lines that were executed."""
    lines: list[int] = entry["missing_lines"]
    starts = [line for line in lines if line - 1 not in lines]
    ends = [line for line in lines if line + 1 not in lines]
    spans = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    branches = [f"{a}->{b}" for a, b in entry["missing_branches"] if a not in lines and b not in lines]
    return ", ".join(spans + branches)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
