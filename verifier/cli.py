"""``interlock-verifier``: make a verifier, run it, and administer it.

Every command takes ``--dir`` (or INTERLOCK_VERIFIER_DIR) and ``--json``. Exit codes: 0 done; 1 refused, with the reason
code, what it means and what to do; 2 the command line is wrong.
"""

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.reasons import explain
from verifier import cli_anchors, cli_collateral, cli_refs, cli_refs_boot, cli_refs_ima, cli_rules, cli_secrets
from verifier.keys import POLICY, ROOT, create_keys, create_policy_key
from verifier.settings import ServiceSettings, read_settings, write_settings
from verifier.show import show
from verifier.terminal import HOME, Dir, Json, Why, call, err, out

Node = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
token = typer.Typer(no_args_is_help=True, help="One-time enrolment tokens.")
node = typer.Typer(no_args_is_help=True, help="Hosts.")
submitter = typer.Typer(no_args_is_help=True, help="People and schedulers who may sign intents.")
log = typer.Typer(no_args_is_help=True, help="The Merkle log.")
app.add_typer(token, name="token")
app.add_typer(node, name="node")
app.add_typer(submitter, name="submitter")
app.add_typer(log, name="log")
cli_refs.refs.add_typer(cli_refs_boot.boot, name="boot")
cli_refs.refs.add_typer(cli_refs_ima.ima, name="ima")
app.add_typer(cli_refs.refs, name="refs")
app.add_typer(cli_rules.policy, name="policy")
app.add_typer(cli_rules.job, name="job")
app.add_typer(cli_anchors.anchors, name="anchors")
app.add_typer(cli_collateral.collateral, name="collateral")
app.add_typer(cli_secrets.secret, name="secret")
app.command("revoke")(cli_rules.revoke)
app.command("bundle")(cli_rules.bundle)


def main() -> None:
    """The console command. A refusal is one screen (with --json one value): what, why, what to do; and exit code 1."""
    try:
        app()
    except InterlockError as error:
        _refused(error)
    except OSError as error:  # a port in use, a directory of somebody else, a disk that is full
        _refused(Untrusted("system.refused", str(error)))


def _refused(error: InterlockError) -> NoReturn:
    known = explain(error.reason)
    if "--json" in sys.argv:
        told = {"reason": error.reason, "what": known.what, "detail": error.detail, "fix": known.fix}
        show(out, {"ok": False, "error": told}, as_json=True)
        raise SystemExit(1) from None
    err.print(f"[bold red]refused[/bold red]  {error.reason}", highlight=False)
    err.print(known.what, markup=False, highlight=False)
    if error.detail:
        err.print(error.detail, markup=False, highlight=False, soft_wrap=True)
    err.print(f"-> {known.fix}", markup=False, highlight=False)
    raise SystemExit(1) from None


# --- the verifier -----------------------------------------------------------------------------------------------------


@app.command()
def init(  # one parameter per option
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The same as --dir.")] = None,
    *,
    dir_: Dir = HOME,
    host: Annotated[list[str], typer.Option("--host", help="Name or address that hosts connect to; more than one.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8443,
    bind: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0",  # noqa: S104  # a service
    issuer: Annotated[str, typer.Option(help="The verifier's name in grants; default: the first host.")] = "",
    as_json: Json = False,
) -> None:
    """Make a verifier: directory, settings and keys. Nothing is overwritten."""
    path = (directory or dir_).absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = issuer or host[0]
    where = f"[{host[0]}]" if ":" in host[0] else host[0]
    settings = ServiceSettings(path, name, f"{name}/log", f"https://{where}:{port}", bind, port)
    try:
        write_settings(settings)
        keys = create_keys(settings.keys, host, at=datetime.now(UTC))
    except FileExistsError as error:
        raise Malformed("service.exists", str(error.filename)) from error
    public = keys.public(settings.issuer, settings.origin)
    result = {
        "directory": str(path),
        "url": settings.url,
        "issuer": name,
        "fingerprint": public.fingerprint.hex(),
        "root": str(settings.keys / ROOT),
    }
    show(out, result, as_json=as_json)


@app.command("make-policy-key")
def make_policy_key(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """Give a verifier of an earlier release its policy key. Every host has to enrol again, and pins it then."""
    settings = read_settings(dir_)
    try:
        public = create_policy_key(settings.keys)
    except FileExistsError as error:
        raise Malformed("service.exists", str(error.filename)) from error
    show(out, {"key": str(settings.keys / POLICY), "kid": public.kid.hex()}, as_json=as_json)


@app.command("serve")
def serve_(
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The same as --dir.")] = None,
    *,
    dir_: Dir = HOME,
    bind: Annotated[str, typer.Option(help="Instead of the address in settings.toml.")] = "",
    port: Annotated[int, typer.Option(min=-1, max=65535, help="Instead of the port; 0 takes any.")] = -1,
) -> None:
    """Run the service until SIGTERM. One line on standard output says when it is ready."""
    from verifier.service import serve

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = read_settings(directory or dir_)
    changes = {**({"bind": bind} if bind else {}), **({"port": port} if port >= 0 else {})}
    serve(settings.with_(changes), _announce)


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@app.command()
def status(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """Whether the verifier is ready and may be trusted, and how much it holds."""
    show(out, call(dir_, "status"), as_json=as_json)


@log.command("checkpoint")
def log_checkpoint(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """The newest signed checkpoint of the log."""
    result = call(dir_, "log.checkpoint")
    if as_json:
        show(out, result, as_json=True)
    else:
        sys.stdout.write(result["checkpoint"])


# --- hosts ------------------------------------------------------------------------------------------------------------


@token.command("create")
def token_create(
    *,
    name: Annotated[str, typer.Option("--node", help="The name that the host will have.")] = "",
    pool: Annotated[str, typer.Option(help="The pool that it will be in.")] = "",
    reenrol: Annotated[str, typer.Option(help="Enrol this node again: its TPM was cleared.")] = "",
    activate: Annotated[bool, typer.Option(help="The node is active at once.")] = False,
    hours: Annotated[int, typer.Option(min=1, max=720)] = 24,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Make an enrolment token. It is shown once and kept only as a hash."""
    result = call(
        dir_,
        "token.create",
        node=name or reenrol,
        pool=pool,
        reenrol=bool(reenrol),
        activate=activate,
        seconds=hours * 3600,
    )
    show(out, result, as_json=as_json)


@node.command("list")
def node_list(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """All nodes."""
    show(out, call(dir_, "node.list"), as_json=as_json)


@node.command("show")
def node_show(name: Node, *, dir_: Dir = HOME, as_json: Json = False) -> None:
    """One node and its live jobs."""
    show(out, call(dir_, "node.show", node=name), as_json=as_json)


def _move(verb: str, state: str, text: str) -> None:
    def command(name: Node, *, why: Why = "", dir_: Dir = HOME, as_json: Json = False) -> None:
        show(out, call(dir_, "node.set-state", node=name, state=state, why=why), as_json=as_json)

    node.command(verb, help=text)(command)


_move("activate", "active", "Let jobs run on the node.")
_move("quarantine", "quarantined", "No new job, and running ones are halted, until it is activated again.")
_move("retire", "retired", "For good: the node never comes back.")


@node.command("gpus")
def node_gpus(
    name: Node,
    *,
    pin_from: Annotated[
        str, typer.Option(metavar="JOB", help="Those that this job's host showed; grant or name.")
    ] = "",
    device: Annotated[list[str] | None, typer.Option(metavar="IDENTITY", help="One device; repeat for more.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Any that are genuine.")] = False,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Show or set the GPUs and switches that belong to a node. Running jobs are judged anew at once."""
    result = call(dir_, "node.gpus", node=name, pin_from=pin_from, devices=device or [], clear=clear)
    show(out, result, as_json=as_json)


# --- people -----------------------------------------------------------------------------------------------------------


@submitter.command("add")
def submitter_add(
    *,
    name: Annotated[str, typer.Option()],
    tenant: Annotated[str, typer.Option()],
    key: Annotated[Path, typer.Option(help="Public key, PEM.", exists=True, dir_okay=False)],
    role: Annotated[list[str] | None, typer.Option(help="One role; repeat for more.")] = None,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """Register a signing key with a tenant and roles, or change what is registered for it."""
    pem = key.read_text(encoding="ascii", errors="replace")
    show(out, call(dir_, "submitter.add", name=name, tenant=tenant, roles=role or [], key=pem), as_json=as_json)


@submitter.command("list")
def submitter_list(*, dir_: Dir = HOME, as_json: Json = False) -> None:
    """All submitters."""
    show(out, call(dir_, "submitter.list"), as_json=as_json)


@submitter.command("disable")
def submitter_disable(
    who: Annotated[str, typer.Argument(metavar="SUBMITTER", help="Name or key id.")],
    *,
    dir_: Dir = HOME,
    as_json: Json = False,
) -> None:
    """No new job, and no further lease for running ones."""
    show(out, call(dir_, "submitter.disable", submitter=who), as_json=as_json)
