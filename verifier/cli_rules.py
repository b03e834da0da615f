"""``interlock-verifier policy | revoke | job | bundle``: what decides, and the jobs it decided on."""

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from attestation.errors import Malformed
from verifier.show import show
from verifier.terminal import HOME, Dir, Json, Why, call, out

policy = typer.Typer(no_args_is_help=True, help="Policies and trust anchors.")
job = typer.Typer(no_args_is_help=True, help="Grants and their jobs.")

Folder = Annotated[Path, typer.Argument(metavar="PATH", help="The policy directory.", exists=True, file_okay=False)]


# --- policies ---------------------------------------------------------------------------------------------------------


@policy.command("lint")
def policy_lint(path: Folder, *, as_json: Json = False) -> None:
    """Say what is wrong with a policy directory, by file and line. Exit code 1 where anything is."""
    from verifier import policyfiles

    found = policyfiles.lint(path)
    if as_json or not found:
        show(out, [asdict(finding) for finding in found] if as_json else "nothing to correct", as_json=as_json)
    else:
        for finding in found:
            place = f"{finding.file}:{finding.line}" if finding.line else finding.file
            show(out, f"{place}: {finding.code}: {finding.problem}\n    -> {finding.fix}", as_json=False)
    if found:
        raise typer.Exit(1)


@policy.command("test")
def policy_test(path: Folder, *, as_json: Json = False) -> None:
    """Decide the cases of cases.toml and compare. Exit code 1 where one differs."""
    from verifier import policycases

    table = policycases.run_cases(path)
    rows = [
        {"case": r.case.name, "allow": r.decision.allow, "as expected": not r.differs, "differs": r.differs}
        for r in table.results
    ]
    wrong = [row for row in rows if row["differs"]]
    if as_json:
        show(out, {"cases": rows, "uncovered": list(table.uncovered)}, as_json=True)
    else:
        show(out, wrong or f"{len(rows)} cases as expected", as_json=False)
        if table.uncovered:
            show(out, f"policies that no case decides by: {', '.join(table.uncovered)}", as_json=False)
    if wrong:
        raise typer.Exit(1)


@policy.command("load")
def policy_load(path: Folder, *, dir_: Dir = HOME, as_json: Json = False) -> None:
    """Put a policy directory and its trust anchors in force. Refused, and nothing changes, unless it lints clean."""
    from attestation.policy import Policy
    from verifier import policyfiles
    from verifier.anchors import load_anchors

    bundle, anchors = Policy(policyfiles.load(path)).bundle, load_anchors(path)
    for found in policyfiles.lint(path):
        raise Malformed(found.code, f"{found.file}:{found.line}: {found.problem}")
    encoded = {"policy": _base64(bundle.to_bytes()), "anchors": _base64(anchors.to_bytes())}
    show(out, call(dir_, "policy.load", **encoded), as_json=as_json)


@policy.command("bundle")
def policy_bundle(
    path: Folder,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Write a policy directory as one file, for interlock-audit replay. Refused unless it can be put in force."""
    from attestation.policy import Policy
    from verifier import policyfiles

    made = Policy(policyfiles.load(path)).bundle
    data = made.to_bytes()
    output.write_bytes(data)
    show(out, {"file": str(output), "bytes": len(data), "digest": made.digest.hex()}, as_json=as_json)


@policy.command("show")
def policy_show(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """What is in force."""
    show(out, call(dir_, "policy.show"), as_json=as_json)


# --- jobs -------------------------------------------------------------------------------------------------------------


@job.command("list")
def job_list(
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that ended.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Jobs that run now."""
    show(out, call(dir_, "job.list", all=every), as_json=as_json)


def revoke(  # one parameter per option
    *,
    grant: Annotated[str, typer.Option(help="One grant, by its id.")] = "",
    job: Annotated[str, typer.Option(help="Jobs of this name.")] = "",
    node: Annotated[str, typer.Option(help="All jobs of a node; the node is quarantined.")] = "",
    submitter: Annotated[str, typer.Option(help="All jobs of a submitter, who is disabled.")] = "",
    drain: Annotated[bool, typer.Option("--drain", help="Give jobs time for a checkpoint.")] = False,
    why: Why = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Only show what would stop.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Stop jobs, at once or with time for a checkpoint. Shows first what stops, and asks."""
    aim: dict[str, Any] = {"grant": grant, "job": job, "node": node, "submitter": submitter}
    stopping = call(dir_, "revoke.preview", **aim)
    if preview or not (yes or as_json):
        show(out, stopping, as_json=as_json)
    if preview:
        return
    if not (yes or as_json):
        typer.confirm(f"Stop these {len(stopping)} jobs?", abort=True)
    show(out, call(dir_, "revoke", **aim, drain=drain, why=why), as_json=as_json)


def bundle(
    grant: Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id, or the name of a job.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Write everything about a job into one file, for interlock-audit."""
    data = base64.b64decode(call(dir_, "bundle", grant=grant)["bundle"])
    output.write_bytes(data)
    show(out, {"file": str(output), "bytes": len(data)}, as_json=as_json)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
