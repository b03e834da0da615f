"""``interlock-verifier anchors``: vendors' roots for a policy directory. Nothing is in force before ``policy load``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from attestation.claims import ASSURANCES
from attestation.errors import Malformed
from verifier.show import show
from verifier.terminal import Json, out

anchors = typer.Typer(no_args_is_help=True, help="Vendors' roots and issuers in a policy directory.")

Policies = Annotated[
    Path, typer.Option("--policies", metavar="DIR", help="The policy directory.", exists=True, file_okay=False)
]


@anchors.command("import")
def anchors_import(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="PEM or DER.", exists=True, dir_okay=False)],
    *,
    policies: Policies = Path("policies"),
    name: Annotated[str, typer.Option("--name", help="What people will call a root that is not known.")] = "",
    assurance: Annotated[str, typer.Option("--assurance", help="hardware or test. A known root has its own.")] = "",
    as_json: Json = False,
) -> None:
    """Put roots, the authorities below them and revocation lists into a policy directory, and say whose they are."""
    from verifier.anchorfiles import Given, keep, look

    if assurance and assurance not in ASSURANCES:
        raise Malformed("anchor.assurance", f"{assurance!r} is not one of {', '.join(ASSURANCES)}")
    items = look(files, policies, Given(name, assurance), at=datetime.now(UTC))
    rows = keep(items, policies)
    show(out, rows, as_json=as_json)


@anchors.command("list")
def anchors_list(*, policies: Policies = Path("policies"), as_json: Json = False) -> None:
    """The anchors of a policy directory, and how many issuers and revocation lists are kept beside them."""
    from verifier.anchors import load_anchors

    found = load_anchors(policies)
    rows = [{"name": entry.name, "assurance": entry.assurance} for entry in found.entries]
    summary = {"anchors": rows, "issuers": len(found.issuers or ()), "lists": len(found.crls or ())}
    show(out, summary, as_json=as_json)
