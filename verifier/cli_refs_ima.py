"""``interlock-verifier refs ima``: which files the kernels of a pool may have measured."""

import base64
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from attestation.errors import Malformed
from attestation.tpm.ima.policy import ImaPolicy
from verifier.cli_refs import Activate, In, Name, Pools, Replace, fetch, span
from verifier.refs import imadoc, sources, spool
from verifier.refs.listing import Listing
from verifier.settings import read_settings
from verifier.show import show
from verifier.terminal import HOME, Dir, Json, call, out

ima = typer.Typer(no_args_is_help=True, help="IMA references: which files a kernel may have measured.")

Rules = Annotated[
    Path | None, typer.Option("--rules", help="Rules, keys and words beside the files (TOML, docs/references.md).")
]
With = Annotated[
    list[str] | None, typer.Option("--with", metavar="NAME", help="All that this IMA reference lists, too; repeat.")
]
Every = Annotated[bool, typer.Option("--all", help="All regular files, not only what is executed, mapped or loaded.")]
_SHOWN = 4


@ima.command("from-node")
def ima_from_node(
    node: Annotated[str, typer.Argument(metavar="NODE")],
    *,
    name: Name,
    pool: Pools = None,
    rules: Rules = None,
    with_: With = None,
    activate: Activate = False,
    replace: Replace = False,
    in_: In = "",
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Allow what NODE has measured since its boot, as far as its TPM proved it. The node's own pool is included."""
    common = _common(name, pool, with_, in_, activate=activate, replace=replace)
    show(out, _put(dir_, Listing(), "", rules, common | {"node": node}), as_json=as_json)


@ima.command("from-list")
def ima_from_list(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Measurement lists, ascii or binary.")],
    *,
    name: Name,
    pool: Pools = None,
    rules: Rules = None,
    with_: With = None,
    activate: Activate = False,
    replace: Replace = False,
    in_: In = "",
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Allow what the measurement lists in files name. No quote proves them."""
    found = Listing()
    for file in files:
        found.add(sources.from_list(file))
    common = _common(name, pool, with_, in_, activate=activate, replace=replace)
    show(out, _put(dir_, found, _provenance("list", files), rules, common), as_json=as_json)


@ima.command("from-image")
def ima_from_image(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="A root file system, or several layers.")],
    *,
    name: Name,
    everything: Every = False,
    pool: Pools = None,
    rules: Rules = None,
    with_: With = None,
    activate: Activate = False,
    replace: Replace = False,
    in_: In = "",
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Allow the files of a root file system: what is executable, libraries, modules and firmware."""
    found = Listing()
    for directory in directories:
        found.add(sources.from_image(directory, everything=everything))
    provenance = f"image {', '.join(map(str, directories))}: {found.count} files"
    common = _common(name, pool, with_, in_, activate=activate, replace=replace)
    show(out, _put(dir_, found, provenance, rules, common), as_json=as_json)


@ima.command("from-debs")
def ima_from_debs(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.deb...", help="Debian packages.")],
    *,
    name: Name,
    everything: Every = False,
    pool: Pools = None,
    rules: Rules = None,
    with_: With = None,
    activate: Activate = False,
    replace: Replace = False,
    in_: In = "",
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Allow the files of Debian packages: what is executable, libraries, modules and firmware."""
    found = Listing()
    for file in files:
        found.add(sources.from_package(file, everything=everything))
    common = _common(name, pool, with_, in_, activate=activate, replace=replace)
    show(out, _put(dir_, found, _provenance("package", files), rules, common), as_json=as_json)


@ima.command("show")
def ima_show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    files: Annotated[bool, typer.Option("--files", help="Every file, one on a line: digest and path.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Print the rules, keys and words of an IMA reference as TOML, or the files that it lists."""
    found, policy = fetch(dir_, name)
    if not isinstance(policy, ImaPolicy):
        raise Malformed("ref.taken", f"{name} is a boot reference")
    listed = [
        (f"{each.algorithm}:{digest.hex()}", imadoc.shown(path))
        for each in policy.files
        for path, digest in each.pairs()
    ]
    if as_json:
        rest = {key: value for key, value in found.items() if key not in {"data", "size"}}
        rows = [{"path": path, "digest": digest} for digest, path in listed] if files else len(listed)
        show(out, rest | {"files": rows, "demands": imadoc.write(policy)}, as_json=True)
    elif files:
        sys.stdout.writelines(f"{digest}  {path}\n" for digest, path in listed)
    else:
        sys.stdout.write(f"# {name}, {found['state']}: {found['provenance']}\n# {len(listed)} files\n")
        sys.stdout.write(imadoc.write(policy))


def _common(
    name: str, pools: list[str] | None, with_: list[str] | None, in_: str, *, activate: bool, replace: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "pools": pools or [],
        "with": with_ or [],
        "seconds": span(in_),
        "activate": activate,
        "replace": replace,
    }


def _provenance(what: str, files: Sequence[Path]) -> str:
    """What a reference was made of, in a line; where these are many, the first, and a digest over all."""
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    if len(files) <= _SHOWN:
        return ", ".join(
            f"{what} {file.name} (SHA-256 {digest[:16]})" for file, digest in zip(files, digests, strict=True)
        )
    over = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    names = ", ".join(file.name for file in files[:_SHOWN])
    return f"{len(files)} {what}s: {names} ... (SHA-256 over their digests, sorted, a line each: {over})"


def _put(directory: Path, found: Listing, provenance: str, rules: Path | None, common: dict[str, Any]) -> Any:
    """Leave what was found for the service, and have it made a reference."""
    demands = "" if rules is None else base64.b64encode(imadoc.load(rules).to_bytes()).decode()
    home = read_settings(directory).directory
    left = spool.leave(home, found.carrier().to_bytes()) if provenance else ""
    try:
        result = call(directory, "refs.ima.put", policy=left, rules=demands, provenance=provenance, **common)
    finally:
        if left:
            spool.forget(home, left)
    result["left_out"] = {**result["left_out"], **found.skipped}
    result["violations"] = sorted({*result["violations"], *found.violations})
    return result
