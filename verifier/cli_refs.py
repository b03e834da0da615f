"""``interlock-verifier refs``: reference values of every kind; their states, ends and differences.

Boot references are in :mod:`verifier.cli_refs_boot`, IMA references in :mod:`verifier.cli_refs_ima`.
"""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from attestation.errors import Malformed, Untrusted
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.policy import ImaPolicy
from verifier.refs import diff
from verifier.show import show
from verifier.terminal import HOME, Dir, Json, Why, call, out

refs = typer.Typer(no_args_is_help=True, help="Reference values: how hosts boot, what they and their jobs may run.")

Name = Annotated[str, typer.Option("--name", help="What people will call it.")]
Pools = Annotated[list[str] | None, typer.Option("--pool", help="A pool that it is for; repeat for more.")]
Activate = Annotated[bool, typer.Option("--activate", help="It counts at once.")]
Replace = Annotated[bool, typer.Option("--replace", help="Retire the IMA reference that the pool has now.")]
In = Annotated[str, typer.Option("--in", metavar="TIME", help="It ends after this: 90d, 12h, 30m.")]
_LINES = 40
_SPAN = re.compile(r"([1-9][0-9]{0,5})([dhm])")
_UNITS = {"d": 86_400, "h": 3600, "m": 60}


def span(text: str) -> int:
    """Seconds of a time like ``90d``; 0 for none. Raises ``Malformed("ref.time")``."""
    found = _SPAN.fullmatch(text)
    if text and found is None:
        raise Malformed("ref.time", f"{text!r} is no time like 90d, 12h or 30m")
    return int(found[1]) * _UNITS[found[2]] if found else 0


def moment(text: str) -> int:
    """Unix seconds of a moment as RFC 3339 has it; a day alone is its beginning, in UTC. Raises ``Malformed``."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed("ref.time", f"{text!r} is no moment like 2027-01-31T12:00:00Z") from error
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())


def fetch(directory: Path, name: str) -> tuple[dict[str, Any], BootPolicy | ImaPolicy]:
    """A boot or IMA reference and its policy, from the running service or directly."""
    found = call(directory, "refs.policy", name=name)
    data = base64.b64decode(found["data"])
    while len(data) < found["size"]:
        more = call(directory, "refs.policy", name=name, offset=len(data))
        if more["policy"] != found["policy"]:
            raise Untrusted("ref.changed", f"{name} was replaced while it was fetched")
        data += base64.b64decode(more["data"])
    return found, (BootPolicy if found["kind"] == "boot" else ImaPolicy).from_bytes(data)


@refs.command("list")
def refs_list(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """All reference values with their states, where they come from, and when they end."""
    show(out, call(dir_, "refs.list"), as_json=as_json)


@refs.command("from-node")
def refs_from_node(
    node: Annotated[str, typer.Argument(metavar="NODE")],
    *,
    name: Name,
    pool: Annotated[list[str] | None, typer.Option(help="Pools beside the node's own; repeat for more.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="It matches at once.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Record how a node booted, as its TPM proved it last, as a baseline of PCR values."""
    result = call(dir_, "refs.from-node", node=node, name=name, pools=pool or [], activate=activate)
    show(out, result, as_json=as_json)


@refs.command("set-state")
def refs_set_state(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A reference value's name, or an approved digest.")],
    state: Annotated[str, typer.Argument(metavar="STATE", help="pending, active, obsolete, retired or revoked.")],
    *,
    replace: Replace = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Move a reference value to another state. Running jobs are judged anew at once."""
    show(out, call(dir_, "refs.set-state", name=name, state=state, replace=replace), as_json=as_json)


@refs.command("expire")
def refs_expire(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A reference value's name, or an approved digest.")],
    *,
    at: Annotated[str, typer.Option("--at", metavar="MOMENT", help="It ends then: 2027-01-31T12:00:00Z.")] = "",
    in_: In = "",
    never: Annotated[bool, typer.Option("--never", help="It has no end.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Set when a reference value ends. From then on it counts no more, and refusals say so."""
    if sum(map(bool, (at, in_, never))) != 1:
        raise Malformed("ref.time", "one of --at, --in and --never")
    ends = {"expires": moment(at)} if at else {"seconds": span(in_)}
    show(out, call(dir_, "refs.expire", name=name, never=never, **ends), as_json=as_json)


@refs.command("diff")
def refs_diff(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The name of a boot or IMA reference.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another one of the same kind.")],
    *,
    every: Annotated[bool, typer.Option("--all", help="Every file, not only the first of each sort.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """What AFTER has more than BEFORE, has no more, and has otherwise: by path, or by fact."""
    old, new = fetch(dir_, before)[1], fetch(dir_, after)[1]
    if isinstance(old, BootPolicy) and isinstance(new, BootPolicy):
        found = diff.boot_diff(old, new)
    elif isinstance(old, ImaPolicy) and isinstance(new, ImaPolicy):
        found = diff.ima_diff(old, new)
    else:
        raise Malformed("ref.taken", f"{before} and {after} are not of one kind")
    if as_json:
        show(out, found, as_json=True)
        return
    for line in list(diff.lines(found, len(str(found)) if every else _LINES)) or ["no difference"]:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _approve(kind: str, text: str) -> None:
    def command(
        digest: Annotated[str, typer.Argument(metavar="DIGEST", help="SHA-256, hexadecimal.")],
        *,
        name: Name = "",
        why: Why = "",
        dir_: Dir = HOME,
        as_json: Json = False,
    ) -> None:
        show(out, call(dir_, "refs.approve", kind=kind, digest=digest, name=name, why=why), as_json=as_json)

    refs.command(f"approve-{kind}", help=text)(command)


_approve("code", "Let a code tree run, by the digest that interlock-agent measure gives.")
_approve("environment", "Let an interpreter with its packages run, by its digest.")
