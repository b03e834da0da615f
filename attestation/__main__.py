"""``interlock-audit``: is a bundle true, what does it say, and what would another policy have decided? Offline.

========== ================================================================================================ ==========
verify     all checks of :mod:`attestation.audit`, as a table; the first one that fails is explained        exit 0, 1
explain    every record of the job in words. Nothing is verified                                           exit 0
replay     every decision again on its archived facts, under another policy; tells where it differs        exit 0, 1
extract    quotes, tokens, records and archive as files for other tools. Nothing is verified                exit 0
========== ================================================================================================ ==========

``--json`` prints one document for machines instead. A file that cannot be read, or is not of its kind, is exit code 2,
and one screen says which file, what is wrong with it, and what to do.
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
from attestation.bundle import MAX_SIZE, Bundle, Root
from attestation.errors import InterlockError, Malformed
from attestation.extract import extract as extract_files
from attestation.log import Record
from attestation.policy import Policy
from attestation.reasons import explain as explain_reason
from attestation.rederive import ACCEPTED, Archive, decide_again, is_judgement
from attestation.sequence import Measured, sequence

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check Interlock's records offline.")

File = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle of a job.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document for machines.")]

_MAX_ROOT = 1 << 16
_BUNDLE = "A bundle is written by: interlock-verifier bundle GRANT -o FILE; or by: interlock bundle JOB -o FILE."
_ROOT = "root.pem is made by interlock-verifier init, in its keys directory: first the grant key, then the log key."
_POLICY = "A policy directory becomes such a file by: interlock-verifier policy bundle DIR -o FILE."
_LAST_SECOND = 253_402_300_799  # 9999-12-31
_COLOURS: Mapping[str, str] = {"pass": "green", "fail": "bold red", NOT_RUN: "dim", "n/a": "dim"}


@app.command("verify")
def verify(
    bundle: File,
    *,
    root: Annotated[Path, typer.Option(help="root.pem: the verifier's public keys, as you pinned them.")],
    as_json: Json = False,
) -> None:
    """Check everything in a bundle against two pinned keys. Exit code 0 only if every check passes."""
    with _usable(root, _ROOT, as_json=as_json):
        keys = Root.from_pem(_read(root, _MAX_ROOT))
    with _usable(bundle, _BUNDLE, as_json=as_json):
        data = _read(bundle)
    checks = verify_bundle(data, keys)
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
    with _usable(bundle, _BUNDLE, as_json=as_json):
        read = Bundle.from_bytes(_read(bundle))
        records = [(leaf.index, Record.from_bytes(leaf.record)) for leaf in read.leaves]
        jobs = sequence(Archive(read.blobs()), (record for _, record in records))
    if as_json:
        rows = [_plain(index, record) for index, record in records]
        _print_json({"job": read.job.hex(), "records": rows, "jobs": [_measured(each) for each in jobs]})
        return
    table = Table("entry", "time (UTC)", "what", "outcome", "why", title=f"job {read.job.hex()}")
    for index, record in records:
        why = "\n".join([*map(_why, record.reasons), *record.determining, record.detail or ""]).strip()
        table.add_row(str(index), _time(record.time), record.kind, escape(record.outcome), escape(why))
    _console().print(table)
    if jobs:
        _show_jobs(jobs, read.job)


@app.command("replay")
def replay(
    bundle: File,
    *,
    policy: Annotated[
        Path, typer.Option(help="The policy to decide under, from interlock-verifier policy bundle DIR -o FILE.")
    ],
    as_json: Json = False,
) -> None:
    """Decide again, on the archived facts, under another policy. Exit code 0 only if nothing would change."""
    with _usable(policy, _POLICY, as_json=as_json):
        other = Policy.from_bytes(_read(policy))
    with _usable(bundle, _BUNDLE, as_json=as_json):
        rows = _replay(Bundle.from_bytes(_read(bundle)), other)
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


@app.command("extract")
def extract(
    bundle: File, directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that is made for it.")]
) -> None:
    """Write what is in a bundle as files for other tools: quotes, tokens, records, archive. Nothing is verified."""
    with _usable(bundle, _BUNDLE):
        files = dict(extract_files(Bundle.from_bytes(_read(bundle))))
    with _usable(directory, "Name a directory that does not exist yet."):
        (directory / "archive").mkdir(parents=True)
        for name, data in files.items():
            (directory / name).write_bytes(data)
    typer.echo(f"{len(files)} files in {directory}")


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


def _show_jobs(jobs: Sequence[Measured], own: bytes) -> None:
    """The jobs of the boots that a host showed, this one marked."""
    table = Table("boot", "job", "grant", "code", "environment", title="jobs that the TPM certified, in their order")
    for each in jobs:
        row = _measured(each)
        columns = (row["boot"], str(row["number"]), row["grant"], row["code"][:16], row["environment"][:16])
        table.add_row(*columns, style="bold" if each.entry.grant == own else None)
    _console().print(table)


def _measured(job: Measured) -> dict[str, Any]:
    """One measured job, for JSON: its boot as resets and restarts, its number in it, what was measured."""
    resets, restarts = int.from_bytes(job.boot[:4], "big"), int.from_bytes(job.boot[4:], "big")
    entry = {"grant": job.entry.grant, "code": job.entry.code, "environment": job.entry.environment}
    return {"boot": f"{resets}.{restarts}", "number": job.number} | {name: v.hex() for name, v in entry.items()}


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


def _read(path: Path, limit: int = MAX_SIZE) -> bytes:
    """The bytes of a file. Raises ``OSError``, ``Malformed("audit.empty")``, ``Malformed("audit.large")``."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if not data:
        raise Malformed("audit.empty", "0 bytes")
    if len(data) > limit:
        raise Malformed("audit.large", f"more than {limit} bytes")
    return data


@contextmanager
def _usable(path: Path, hint: str, *, as_json: bool = False) -> Iterator[None]:
    """Say that a file cannot be read or is not what it should be, where it comes from, and end with exit code 2."""
    try:
        yield
    except (InterlockError, OSError) as error:
        known = error if isinstance(error, InterlockError) else _trouble(error)
        reason = explain_reason(known.reason)
        told = {
            "file": str(path),
            "reason": known.reason,
            "what": reason.what,
            "detail": known.detail,
            "fix": f"{reason.fix} {hint}",
        }
        if as_json:
            _print_json({"ok": False, "error": told})
        else:
            lines = f"cannot use {path}: {known.reason}", reason.what, known.detail, f"-> {reason.fix}", f"   {hint}"
            typer.echo("\n".join(lines), err=True)
        raise typer.Exit(2) from None


def _trouble(error: OSError) -> InterlockError:
    """What the system says about a file, with a reason code."""
    return Malformed("audit.directory" if isinstance(error, IsADirectoryError) else "audit.file", error.strerror or "")


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


def _console() -> Console:
    return Console(highlight=False)


def main() -> None:
    """The console command."""
    app(prog_name="interlock-audit")


if __name__ == "__main__":
    main()
