"""``interlock-agent``: the command of people who run hosts."""

import json
import logging
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agent import screen
from agent.connect import connect
from agent.devices import DeviceError
from agent.environment import Cache, measure_environment
from agent.messages import Question
from agent.settings import DEFAULT_FILE, DEFAULT_SOCKET, Settings
from agent.tree import Tree
from agent.tree import measure as measure_tree
from attestation.errors import InterlockError, Malformed, Untrusted

_HELP = "The service on a GPU host: proves what the host is, and holds its jobs to what was granted."
app = typer.Typer(no_args_is_help=True, add_completion=False, help=_HELP, rich_markup_mode=None)

_MAX_TOKEN = 4096
File = Annotated[Path, typer.Option("--settings", help="The settings file.", dir_okay=False)]
Socket = Annotated[Path, typer.Option("--agent", help="The agent's socket.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


def main() -> None:
    """Entry point of the command."""
    app()


@app.command()
def serve(settings: File = DEFAULT_FILE) -> None:
    """Run the agent until SIGTERM."""
    from agent.daemon import until_signalled
    from agent.gpu import NvmlGpus
    from agent.host import Host
    from agent.tpm import EsysTpm

    logging.basicConfig(level=logging.INFO, format="interlock-agent: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with _explaining():
        chosen = Settings.load(settings)
        tpm, gpus = EsysTpm(chosen.tcti), NvmlGpus()
        try:
            host = Host.open(chosen, tpm, gpus)
        except BaseException:
            tpm.close()
            gpus.close()
            raise
        try:
            until_signalled(host)
        finally:
            host.close()


@app.command()
def enroll(
    token_file: Annotated[Path, typer.Option(help="The one-time token, in a file of mode 0600.", dir_okay=False)],
    verifier: Annotated[str | None, typer.Option(help="The verifier's URL, where the token's does not lead.")] = None,
    settings: File = DEFAULT_FILE,
    *,
    as_json: Json = False,
) -> None:
    """Make this host a node of a verifier, and pin that verifier's keys. Not while the agent runs."""
    from agent.enrol import enrol
    from agent.state import State, only_one
    from agent.tpm import EsysTpm
    from attestation.tpm.structures import Public

    with _explaining(as_json=as_json):
        chosen = Settings.load(settings)
        text, state = _read_token(token_file), State(chosen.state)
        with only_one(state.path), closing(EsysTpm(chosen.tcti)) as tpm:
            enrolment, enrolled = enrol(text, verifier, tpm, state, tpm_lease=chosen.tpm_lease)
        facts = {
            "node": enrolment.node,
            "pool": enrolment.pool,
            "state": enrolled.state,
            "verifier": enrolment.url,
            "fingerprint": enrolment.keys.fingerprint.hex(),
            "tpm_lease": not Public.from_bytes(enrolment.holder_public).has_user_auth,
        }
        _print(facts, as_json=as_json)


def _read_token(path: Path) -> str:
    """The token's text. ``Untrusted("enrol.token-file")`` where others could have read it."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise Untrusted("enrol.token-file", f"{path} can be read by others")
            return file.read(_MAX_TOKEN).decode("ascii", "replace")
    except OSError as error:
        raise Untrusted("enrol.token-file", f"{path}: {error.strerror}") from error


@app.command()
def status(
    agent: Annotated[Path, typer.Option("--agent", help="The agent's socket.")] = DEFAULT_SOCKET,
    *,
    as_json: Json = False,
) -> None:
    """Show the node, the counters and the running jobs of the agent on this host."""
    with _explaining(as_json=as_json), connect(agent) as connection:
        connection.send(Question(topic="status", name=""))
        text, _ = connection.answer()
        _print(json.loads(text), as_json=as_json)


@app.command()
def doctor(settings: File = DEFAULT_FILE, *, as_json: Json = False) -> None:
    """Check what this host needs, and say how to fix what is missing. Exit code 1 where something is."""
    from agent import doctor as checks

    findings = checks.examine(settings)
    if as_json:
        typer.echo(screen.dumps({"ok": checks.healthy(findings), "checks": [each.to_json() for each in findings]}))
    else:
        for each in findings:
            typer.echo(each.line())
    raise typer.Exit(0 if checks.healthy(findings) else 1)


@app.command()
def measure(
    path: Annotated[Path, typer.Argument(help="Code, or a virtual environment.", file_okay=False, exists=True)],
    kind: Annotated[str, typer.Option(help="code or environment.")] = "code",
    *,
    as_json: Json = False,
) -> None:
    """Print the digest of a code tree or an environment, as it is approved and granted."""
    with _explaining(as_json=as_json):
        tree = _measure(path.resolve(), kind)
        facts = {"kind": kind, "path": str(path), "digest": tree.digest.hex(), "entries": len(tree.entries)}
        _print(facts, as_json=as_json)


def _measure(path: Path, kind: str) -> Tree:
    if kind == "code":
        return measure_tree(path)
    if kind != "environment":
        raise Malformed("submit.option", f"--kind is code or environment, not {kind!r}")
    with tempfile.TemporaryDirectory() as folder:  # nothing is remembered: this is the digest that gets approved
        return measure_environment(path, Cache(Path(folder) / "hashes.db"))


def _print(facts: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        typer.echo(screen.dumps(dict(facts)))
        return
    for name, value in facts.items():
        shown = value if isinstance(value, str | int) else json.dumps(value)
        typer.echo(f"{name:20} {shown}")


@contextmanager
def _explaining(*, as_json: bool = False) -> Iterator[None]:
    """Turn a refusal into its explanation and exit code 1."""
    try:
        yield
    except (InterlockError, DeviceError) as error:
        _refused(error.reason, error.detail, as_json=as_json)
    except OSError as error:
        _refused("system.refused", str(error), as_json=as_json)


def _refused(reason: str, detail: str, *, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(screen.dumps(screen.refusal(reason, detail)))
        raise typer.Exit(1)
    known = screen.known_reason(reason)
    typer.echo(f"interlock-agent: {reason}: {known.what}", err=True)
    typer.echo(f"  seen     {detail}\n  fix      {known.fix}", err=True)
    raise typer.Exit(1)
