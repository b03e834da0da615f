"""``interlock-verifier refs boot``: what a boot event log has to prove."""

import base64
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from attestation.errors import InterlockError, Malformed
from attestation.policy import BANKS
from attestation.tpm.boot.policy import BootPolicy
from verifier.cli_refs import Activate, In, Name, Pools, fetch, span
from verifier.refs import bootdoc, bootmade
from verifier.show import show
from verifier.terminal import HOME, Dir, Json, call, out

boot = typer.Typer(no_args_is_help=True, help="Boot references: what a boot event log has to prove.")

Accept = Annotated[
    list[str] | None, typer.Option("--accept", metavar="FINDING", help="Put up with it; repeat for more.")
]
Without = Annotated[
    list[str] | None, typer.Option("--without", metavar="DEMAND", help="Do not demand it; repeat for more.")
]
_EDITOR = "vi"


@boot.command("from-node")
def boot_from_node(
    node: Annotated[str, typer.Argument(metavar="NODE")],
    *,
    name: Name,
    pool: Pools = None,
    accept: Accept = None,
    without: Without = None,
    activate: Activate = False,
    in_: In = "",
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Demand of other boots what the boot log of NODE proved last. The node's own pool is included."""
    arguments = {"node": node, "accepted": accept or [], "without": without or []}
    show(out, call(dir_, "refs.boot.from-node", **arguments, **_common(name, pool, in_, activate)), as_json=as_json)


@boot.command("from-log")
def boot_from_log(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A boot event log, as firmware wrote it.")],
    *,
    name: Name,
    pool: Pools = None,
    accept: Accept = None,
    without: Without = None,
    bank: Annotated[str, typer.Option(help=f"The PCR bank: {', '.join(sorted(BANKS))}.")] = "sha256",
    activate: Activate = False,
    in_: In = "",
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Demand of boots what the log in FILE says. No quote proves it: it is worth what you know of the file."""
    data = _read(file)
    if bank not in BANKS:
        raise Malformed("admin.argument", f"bank must be one of {', '.join(sorted(BANKS))}")
    try:
        state = bootmade.proven_state(data, BANKS[bank], None, accept or ())
        policy = bootmade.policy_of(state, accepted=accept or (), without=without or ())
    except InterlockError as error:
        raise type(error)(error.reason, f"{file}: {error.detail}") from error
    provenance = f"boot log {file.name}, SHA-256 {hashlib.sha256(data).hexdigest()}, proven by no quote"
    show(out, _put(dir_, policy, provenance, _common(name, pool, in_, activate)), as_json=as_json)


@boot.command("load")
def boot_load(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A boot policy in TOML, as refs boot show writes it.")],
    *,
    name: Name,
    pool: Pools = None,
    activate: Activate = False,
    in_: In = "",
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Make a boot reference of a document."""
    policy = _document(_read(file), file.name)
    show(out, _put(dir_, policy, f"document {file.name}", _common(name, pool, in_, activate)), as_json=as_json)


@boot.command("show")
def boot_show(name: Annotated[str, typer.Argument(metavar="NAME")], *, dir_: Dir = HOME, as_json: Json = False) -> None:
    """Print a boot reference as TOML."""
    found, policy = _fetched(dir_, name)
    if as_json:
        show(out, found | {"demands": bootdoc.to_table(policy)}, as_json=True)
    else:
        sys.stdout.write(f"# {name}, {found['state']}: {found['provenance']}\n{bootdoc.write(policy)}")


@boot.command("edit")
def boot_edit(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Take this document instead of opening an editor.")
    ] = None,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Change a boot reference: opens $VISUAL or $EDITOR on its TOML. State, pools and end stay as they are."""
    found, before = _fetched(dir_, name)
    after = _document(_read(file), file.name) if file is not None else _edited(name, bootdoc.write(before))
    if after == before:
        show(out, found, as_json=as_json)
        return
    common = {"name": name, "keep": True}
    show(out, _put(dir_, after, f"{found['provenance']}; edited", common, found["policy"]), as_json=as_json)


def _common(name: str, pools: list[str] | None, in_: str, activate: bool) -> dict[str, Any]:  # noqa: FBT001 - as given
    return {"name": name, "pools": pools or [], "seconds": span(in_), "activate": activate}


def _put(directory: Path, policy: BootPolicy, provenance: str, common: dict[str, Any], expected: str = "") -> Any:
    encoded = base64.b64encode(policy.to_bytes()).decode()
    return call(directory, "refs.boot.put", policy=encoded, provenance=provenance, expected=expected, **common)


def _fetched(directory: Path, name: str) -> tuple[dict[str, Any], BootPolicy]:
    found, policy = fetch(directory, name)
    if not isinstance(policy, BootPolicy):
        raise Malformed("ref.taken", f"{name} is an IMA reference")
    return {key: value for key, value in found.items() if key not in {"data", "size"}}, policy


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Malformed("ref.source", str(error)) from error


def _document(data: bytes, where: str) -> BootPolicy:
    try:
        return bootdoc.read(data.decode(), where)
    except UnicodeDecodeError as error:
        raise Malformed("ref.document", f"{where}: not UTF-8 at byte {error.start}") from error


def _edited(name: str, text: str) -> BootPolicy:
    """The document after the operator's editor had it. What cannot be read is kept, and the refusal says where."""
    handle, path = tempfile.mkstemp(prefix="interlock-", suffix=".toml")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _EDITOR
    done = subprocess.run([*shlex.split(editor), path], check=False)
    if done.returncode:
        raise Malformed("ref.document", f"{name}: {editor} ended with {done.returncode}")
    policy = _document(Path(path).read_bytes(), path)
    Path(path).unlink()
    return policy
