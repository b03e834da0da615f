"""What all administration commands share: where the verifier is, how a command gets there, where results go."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from verifier.admin import ask
from verifier.settings import ServiceSettings, read_settings

HOME = Path("/var/lib/interlock-verifier")
Dir = Annotated[Path, typer.Option("--dir", envvar="INTERLOCK_VERIFIER_DIR", help="The verifier's directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Why = Annotated[str, typer.Option("--why", help="For the record.")]

out, err = Console(), Console(stderr=True)


def call(directory: Path, command: str, **arguments: Any) -> Any:
    """The result of an administration command, by the running service or directly (:mod:`verifier.admin`)."""
    settings = read_settings(directory)
    try:
        return ask(settings.admin_socket, command, arguments)
    except (FileNotFoundError, ConnectionRefusedError):
        return asyncio.run(_directly(settings, command, arguments))


async def _directly(settings: ServiceSettings, command: str, arguments: Mapping[str, Any]) -> Any:
    # only here: most commands ask the running service, and the service's own modules take a second to import
    from verifier.commands import run_command
    from verifier.service import opened

    with opened(settings) as service:
        return await run_command(service.verifier, service.health, command, arguments)
