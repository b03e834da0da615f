"""``interlock-verifier secret``: what jobs are given beside their code, such as the key of encrypted weights.

A value comes from a file or standard input, never from the command line, which every user of the machine can read. It
is shown by no command.
"""

import base64
import sys
from pathlib import Path
from typing import Annotated

import typer

from attestation.errors import Malformed
from attestation.tpm.sealing import MOST
from verifier.show import show
from verifier.terminal import HOME, Dir, Json, call, out

secret = typer.Typer(no_args_is_help=True, help="Secrets that grants release, sealed to the TPM of the host.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What jobs ask for: interlock run --secret NAME.")]


@secret.command("add")
def secret_add(
    name: Name,
    *,
    tenant: Annotated[str, typer.Option(help="Whose jobs may be given it.")],
    file: Annotated[str, typer.Option(metavar="FILE|-", help=f"1 to {MOST} bytes, taken as they are; - is stdin.")],
    replace: Annotated[bool, typer.Option("--replace", help="In place of an earlier value.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Keep a secret, encrypted. Longer ones: encrypt the data with a key of 32 bytes, and keep the key here."""
    value = base64.b64encode(_read(file)).decode()
    show(out, call(dir_, "secret.add", name=name, tenant=tenant, value=value, replace=replace), as_json=as_json)


@secret.command("list")
def secret_list(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """All secrets by name, without their values, and how many running jobs hold each."""
    show(out, call(dir_, "secret.list"), as_json=as_json)


@secret.command("remove")
def secret_remove(name: Name, *, dir_: Dir = HOME, as_json: Json = False) -> None:
    """Forget a secret. Running jobs that hold it (see list) are drained: they get no further lease."""
    show(out, call(dir_, "secret.remove", name=name), as_json=as_json)


def _read(file: str) -> bytes:
    """At most one byte more than can be kept, which the service refuses."""
    if file == "-":
        return sys.stdin.buffer.read(MOST + 1)
    try:
        with Path(file).open("rb") as source:
            return source.read(MOST + 1)
    except OSError as error:
        raise Malformed("secret.file", f"{file}: {error.strerror}") from error
