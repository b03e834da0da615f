"""``interlock``: the command of people who run jobs.

It runs as the submitter, holds nothing but the submitter's key, and talks to the agent of this host only. The job gets
this process's own standard input, output and error; signals are passed on; the job's exit code is this command's own,
or one of 71-77 (:mod:`agent.codes`) with a screen that says why.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agent import keyfile, request, screen
from agent.codes import FAILED
from agent.connect import connect
from agent.messages import Ended, Fetched, Measure, Measured, Progress, Question, Start
from agent.outputs import fetch
from agent.settings import DEFAULT_SOCKET
from attestation.errors import InterlockError
from attestation.intent import sign_intent

_HELP = "Run jobs under a grant, and only as long as the machine under them proves what it is."
app = typer.Typer(no_args_is_help=True, add_completion=False, help=_HELP, rich_markup_mode=None)

_DAY = 86_400
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line instead of text.")]
Key = Annotated[Path, typer.Option(help="Signing key, made by `interlock keygen`.")]
Socket = Annotated[Path, typer.Option("--agent", envvar="INTERLOCK_AGENT", help="The agent's socket.")]
JobName = Annotated[str, typer.Argument(help="A job's name, or its id as the screens show it.", metavar="JOB")]


def main() -> None:
    """Entry point of the command."""
    app()


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="What to run, after --.", metavar="-- COMMAND...")],
    *,
    job: Annotated[str, typer.Option(help="The job's name; the default is the code directory's.")] = "",
    tenant: Annotated[str, typer.Option(help="For whom the job runs.")] = "default",
    gpus: Annotated[int, typer.Option(min=0, max=64, help="How many GPUs.")] = 0,
    gpu_mode: Annotated[str, typer.Option(help="Confidential-computing mode: none, spt, mpt or ppcie.")] = "none",
    seconds: Annotated[int, typer.Option(min=1, help="The longest that the job may run.")] = _DAY,
    memory: Annotated[int, typer.Option(min=1, help="Megabytes of memory.")] = 4096,
    processes: Annotated[int, typer.Option(min=1, help="Processes and threads.")] = 1024,
    code: Annotated[Path, typer.Option(help="The code to stage and run in.", file_okay=False, exists=True)] = Path(),
    environment: Annotated[Path | None, typer.Option(help="Virtual environment; default: that of `python`.")] = None,
    env_var: Annotated[list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="Repeatable.")] = None,
    output: Annotated[list[str] | None, typer.Option(metavar="PATH", help="Below $INTERLOCK_OUT. Repeatable.")] = None,
    secret: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A secret to be released. Repeatable.")
    ] = None,
    fetch_to: Annotated[Path, typer.Option(help="Where outputs are put at the end.", file_okay=False)] = Path(),
    key: Key = keyfile.DEFAULT,
    agent: Socket = DEFAULT_SOCKET,
    as_json: Json = False,
) -> None:
    """Run a command under a grant, and only as long as the machine proves what it is."""
    name = job or code.resolve().name or "job"
    try:
        options = request.Options(
            argv=tuple(command),
            job=name,
            tenant=tenant,
            gpus=gpus,
            gpu_mode=gpu_mode,
            seconds=seconds,
            memory_mb=memory,
            processes=processes,
            outputs=request.outputs_of(output or []),
            variables=request.variables_of(env_var or []),
            secrets=tuple(secret or ()),
        )
        ended = _run(options, code, request.find_environment(environment), key, agent, fetch_to, as_json=as_json)
    except InterlockError as error:
        ended = screen.refused(error, job=name, exit_code=FAILED)
    _show(ended, as_json=as_json)
    raise typer.Exit(ended.exit_code)


def _run(
    options: request.Options, code: Path, environment: Path, key: Path, agent: Path, into: Path, *, as_json: bool
) -> Ended:
    signer = keyfile.load(key.expanduser())
    tree = os.open(code, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        measured = _measure(agent, environment)
        intent = request.make_intent(options, code=request.code_digest(tree), environment=measured)
        start = Start(intent=sign_intent(intent, signer), variables=options.variables, environment=str(environment))
        with connect(agent) as connection, connection.passing_signals():
            connection.send(start, (0, 1, 2, tree))
            ended, out = connection.follow(lambda progress: _tell(progress, as_json=as_json))
            if out is not None:
                connection.send(Fetched(count=len(fetch(out, ended.outputs, into))))
    finally:
        os.close(tree)
    return ended


def _measure(agent: Path, environment: Path) -> bytes:
    with connect(agent) as connection:
        connection.send(Measure(environment=str(environment)))
        return connection.expect(Measured).digest


def _tell(progress: Progress, *, as_json: bool) -> None:
    """Say what happens, on standard error: standard output is the job's."""
    if as_json:
        grant = None if progress.grant is None else progress.grant.hex()
        print(screen.dumps({"event": progress.event, "text": progress.text, "grant": grant}), file=sys.stderr)
    elif sys.stderr.isatty():
        print(f"interlock: {progress.text}", file=sys.stderr)


def _show(ended: Ended, *, as_json: bool) -> None:
    if as_json:
        print(screen.dumps(screen.to_json(ended)), file=sys.stderr)
        return
    for line in screen.lines(ended):
        print(line, file=sys.stderr)


@app.command()
def watch(job: JobName, agent: Socket = DEFAULT_SOCKET, *, as_json: Json = False) -> None:
    """Follow a job of yours that is running, until its end."""
    with _explaining(as_json=as_json), connect(agent) as connection:
        connection.send(Question(topic="watch", name=job))
        ended, _ = connection.follow(lambda progress: _line(progress, as_json=as_json))
        _line(ended, as_json=as_json)


def _line(message: Progress | Ended, *, as_json: bool) -> None:
    if isinstance(message, Ended):
        facts = screen.to_json(message)
        text = "\n".join(screen.lines(message)) or f"{message.job} ended with {message.exit_code}"
    else:
        facts, text = {"event": message.event, "text": message.text}, message.text
    print(screen.dumps(facts) if as_json else text, flush=True)


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="A job's name, its id, or a reason code.", metavar="JOB|REASON")],
    agent: Socket = DEFAULT_SOCKET,
    *,
    as_json: Json = False,
) -> None:
    """Say how a job of yours came out and why, or what a reason code means."""
    known = screen.reason_text(name)
    if known:
        print(screen.dumps(screen.reason_json(name)) if as_json else "\n".join(known))
        return
    text, _ = _ask(agent, Question(topic="explain", name=name), as_json=as_json)
    facts = json.loads(text)
    print(text if as_json else "\n".join(_explained(facts)))


def _explained(facts: dict[str, Any]) -> Iterator[str]:
    """A stored ending as lines of ``name: value``, without what is empty."""
    return (f"{name:10} {value}" for name, value in facts.items() if value not in (None, [], {}, ""))


@app.command()
def bundle(
    job: JobName,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", dir_okay=False)],
    agent: Socket = DEFAULT_SOCKET,
    *,
    as_json: Json = False,
) -> None:
    """Fetch everything an auditor needs about a job: interlock-audit verify FILE checks it offline."""
    _, data = _ask(agent, Question(topic="bundle", name=job), as_json=as_json)
    output.write_bytes(data or b"")
    facts = {"file": str(output), "bytes": len(data or b"")}
    print(screen.dumps(facts) if as_json else f"{output}: {len(data or b'')} bytes; interlock-audit verify {output}")


@app.command()
def keygen(key: Key = keyfile.DEFAULT, *, as_json: Json = False) -> None:
    """Make a signing key and print its public half, which the operator registers."""
    with _explaining(as_json=as_json):
        signer = keyfile.create(key.expanduser())
        public, name = signer.public.to_pem().decode("ascii"), signer.public.kid.hex()
        print(screen.dumps({"key": str(key), "kid": name, "public": public}) if as_json else f"{public}kid {name}")


def _ask(agent: Path, question: Question, *, as_json: bool) -> tuple[str, bytes | None]:
    with _explaining(as_json=as_json), connect(agent) as connection:
        connection.send(question)
        message, data = connection.answer()
    return message, data


@contextmanager
def _explaining(*, as_json: bool) -> Iterator[None]:
    """Turn a refusal into its explanation and exit code 1."""
    try:
        yield
    except InterlockError as error:
        if as_json:
            print(screen.dumps(screen.refusal(error.reason, error.detail)))
            raise typer.Exit(1) from error
        known = screen.known_reason(error.reason)
        print(
            f"interlock: {error.reason}: {known.what}\n  seen     {error.detail}\n  fix      {known.fix}",
            file=sys.stderr,
        )
        raise typer.Exit(1) from error
