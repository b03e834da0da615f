"""``interlock-audit``: is a bundle true, what does it say, and what would another policy have decided? Offline.

========== ================================================================================================ ==========
verify     all checks of :mod:`attestation.audit`, as a table; the first one that fails is explained        exit 0, 1
explain    every record of the job in words. Nothing is verified                                           exit 0
replay     every decision again on its archived facts, under another policy; tells where it differs        exit 0, 1
========== ================================================================================================ ==========

``--json`` prints one document for machines instead. A file that cannot be read is exit code 2.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attestation.audit import NOT_RUN, Check, verify_bundle
from attestation.bundle import Bundle, Root
from attestation.errors import InterlockError
from attestation.log import Record
from attestation.policy import Policy
from attestation.reasons import explain as explain_reason
from attestation.rederive import ACCEPTED, Archive, decide_again, is_judgement

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check Interlock's records offline.")

File = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle of a job.", exists=True, dir_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document for machines.")]

_LAST_SECOND = 253_402_300_799  # 9999-12-31
_COLOURS: Mapping[str, str] = {"pass": "green", "fail": "bold red", NOT_RUN: "dim", "n/a": "dim"}


@app.command("verify")
def verify(
    bundle: File,
    *,
    root: Annotated[Path, typer.Option(help="root.pem: the verifier's public keys, as you pinned them.", exists=True)],
    as_json: Json = False,
) -> None:
    """Check everything in a bundle against two pinned keys. Exit code 0 only if every check passes."""
    with _readable(root):
        checks = verify_bundle(bundle.read_bytes(), Root.from_pem(root.read_bytes()))
    good = all(check.ok for check in checks)
    if as_json:
        rows = [{**asdict(check), "ok": check.ok} for check in checks]
        _print_json({"bundle": str(bundle), "ok": good, "checks": rows})
    else:
        _show_checks(checks)
    raise typer.Exit(0 if good else 1)


@app.command("explain")
def explain(bundle: File, *, as_json: Json = False) -> None:
    """Tell what a bundle says, record by record. Nothing is verified: see verify."""
    with _readable(bundle):
        read = Bundle.from_bytes(bundle.read_bytes())
        records = [(leaf.index, Record.from_bytes(leaf.record)) for leaf in read.leaves]
    if as_json:
        _print_json({"job": read.job.hex(), "records": [_plain(index, record) for index, record in records]})
        return
    table = Table("entry", "time (UTC)", "what", "outcome", "why", title=f"job {read.job.hex()}")
    for index, record in records:
        why = "\n".join([*map(_why, record.reasons), *record.determining, record.detail or ""]).strip()
        table.add_row(str(index), _time(record.time), record.kind, escape(record.outcome), escape(why))
    _console().print(table)


@app.command("replay")
def replay(
    bundle: File,
    *,
    policy: Annotated[Path, typer.Option(help="An encoded policy bundle to decide under.", exists=True)],
    as_json: Json = False,
) -> None:
    """Decide again, on the archived facts, under another policy. Exit code 0 only if nothing would change."""
    with _readable(policy):
        other = Policy.from_bytes(policy.read_bytes())
    with _readable(bundle):
        rows = _replay(Bundle.from_bytes(bundle.read_bytes()), other)
    changed = [row for row in rows if row["changed"]]
    if as_json:
        _print_json({"changed": len(changed), "decisions": rows})
    else:
        table = Table("record", "then", "now", "reasons now")
        for row in rows:
            style = "bold yellow" if row["changed"] else None
            table.add_row(str(row["sequence"]), row["then"], row["now"], escape(", ".join(row["reasons"])), style=style)
        _console().print(table)
        _console().print(f"{len(changed)} of {len(rows)} decisions would change")
    raise typer.Exit(1 if changed else 0)


def _replay(bundle: Bundle, other: Policy) -> list[dict[str, Any]]:
    """One row for each judgement of a bundle: its sequence, then and now, the reasons now."""
    rows, archive = [], Archive(bundle.blobs())
    for leaf in bundle.leaves:
        record = Record.from_bytes(leaf.record)
        if is_judgement(record):
            decision = decide_again(archive, record, other)
            then, now = ("allow" if allowed else "deny" for allowed in (record.outcome in ACCEPTED, decision.allow))
            rows.append(
                {
                    "sequence": record.sequence,
                    "then": then,
                    "now": now,
                    "changed": then != now,
                    "reasons": list(decision.reasons),
                }
            )
    return rows


def _show_checks(checks: Sequence[Check]) -> None:
    table = Table("", "check", "", "seen")
    for check in checks:
        colour = _COLOURS[check.outcome]
        seen = escape(f"{check.reason}: {check.detail}" if check.reason else check.detail)
        table.add_row(str(check.number), check.name, f"[{colour}]{check.outcome}[/]", seen)
    console = _console()
    console.print(table)
    failed = next((check for check in checks if not check.ok), None)
    if failed is None:
        console.print(f"[green]{len(checks)} checks, nothing speaks against this bundle.[/]")
    else:
        console.print(f"[bold red]Check {failed.number}, {failed.name}, fails.[/] {failed.meaning}")
        console.print(escape(_why(failed.reason or "")))


def _why(code: str) -> str:
    """A reason code in words."""
    try:
        known = explain_reason(code)
    except KeyError:
        return code
    return f"{code}: {known.what} {known.fix}"


def _time(seconds: int) -> str:
    """Unix seconds for people, where people have a date for them."""
    if seconds > _LAST_SECOND:
        return f"@{seconds}"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _plain(index: int, record: Record) -> dict[str, Any]:
    """A record with its byte strings in hexadecimal, for JSON."""
    plain = {"index": index, **asdict(record), "digests": {name: value.hex() for name, value in record.digests.items()}}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in plain.items()}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say that a file is not what it should be, and end with exit code 2."""
    try:
        yield
    except InterlockError as error:
        typer.echo(f"{path}: {error}", err=True)
        raise typer.Exit(2) from error


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


def _console() -> Console:
    return Console(highlight=False)


def main() -> None:
    """The console command."""
    app(prog_name="interlock-audit")


if __name__ == "__main__":
    main()
