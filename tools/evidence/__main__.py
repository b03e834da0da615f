"""``./dev evidence gpu|tpm [--dir DIR] [--json] [--mutate N [--seed S]]``: recorded evidence with stated verdicts.

``gpu`` is for directories with a ``case.json`` each, ``tpm`` for one with a ``manifest.json``
(:mod:`tools.evidence.tpm`).
Without ``--mutate`` every case of DIR is looked at, check by check, at its stated time; exit status 1 on any
disagreement. With it, genuine evidence is changed N times at random, and nothing but a refusal may come of a change
that means something (:mod:`tools.evidence.mutations`).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tools.evidence import gpu, manifest, mutations, show, tpm
from tools.evidence.case import DEFAULT, Unreadable, read_cases, read_roots

DIRECTORIES = {"gpu": DEFAULT, "tpm": manifest.DEFAULT}
WIDTH = 220
"""Columns where the table does not go to a terminal."""


def main(arguments: Sequence[str]) -> int:
    """0 when everything agrees, 1 when something does not, 2 when the cases cannot be read."""
    chosen = _parse(arguments)
    try:
        if chosen.mutate or chosen.only is not None:
            return mutations.main(chosen)
        return _table(chosen)
    except Unreadable as error:
        print(f"./dev evidence: {error}", file=sys.stderr)
        return 2


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev evidence", description="Recorded evidence and its stated verdicts.")
    parser.add_argument("kind", choices=sorted(DIRECTORIES), help="what kind of evidence")
    parser.add_argument("--dir", type=Path, help="where the evidence lies (default: beside the repository)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--mutate", type=int, default=0, metavar="N", help="change genuine evidence N times instead")
    parser.add_argument("--seed", default="1", help="of the changes (default: 1)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make just this change, and say what came of it")
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: one for each core)")
    chosen = parser.parse_args(arguments)
    chosen.dir = chosen.dir or DIRECTORIES[chosen.kind]
    return chosen


def _table(chosen: argparse.Namespace) -> int:
    began = time.monotonic()
    rows = tpm.table(chosen.dir) if chosen.kind == "tpm" else _gpu(chosen.dir)
    seconds = time.monotonic() - began
    if chosen.json:
        print(show.as_json(rows, seconds))
    else:
        console = Console()
        show.as_table(rows, seconds, console if console.is_terminal else Console(width=WIDTH))
    return int(show.counts(rows)[show.DISAGREE] > 0)


def _gpu(folder: Path) -> list[show.Row]:
    roots = read_roots(folder)
    return [row for case in read_cases(folder) for row in gpu.rows(case, roots)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
