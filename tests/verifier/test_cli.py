"""interlock-verifier as an operator uses it: every command, both ways to the store, every exit code."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attestation.__main__ import app as audit
from attestation.bundle import Bundle
from attestation.cose import ES256, SoftwareSigner
from attestation.enrol import EnrolToken
from attestation.errors import InterlockError, Malformed, Untrusted
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA, CODE, Hall, Host, allowed
from verifier import admin
from verifier.cli import app
from verifier.keys import KeyRing
from verifier.settings import read_settings

COMMAND = [sys.executable, "-c", "from verifier.cli import main; main()"]


def run(*arguments: str, dir_: Path | None = None, **options: Any) -> Result:
    """One command in this process."""
    where = ["--dir", str(dir_)] if dir_ else []
    return CliRunner().invoke(app, [*arguments, *where], **options)


def ask(*arguments: str, dir_: Path) -> Any:
    """What a command answers with ``--json``."""
    result = run(*arguments, "--json", dir_=dir_)
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout)


def refused(*arguments: str, dir_: Path) -> str:
    """The reason for which a command is refused."""
    result = run(*arguments, dir_=dir_)
    assert isinstance(result.exception, InterlockError), result.output
    return result.exception.reason


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    """A verifier that nobody runs."""
    made = Hall(tmp_path)
    ask("policy", "load", str(made.policies), dir_=made.directory)
    return made


def test_init_makes_a_verifier_and_overwrites_none(tmp_path: Path) -> None:
    made = ask("init", "--host", "v.example", "--host", "::1", "--issuer", "me", dir_=tmp_path / "v")
    settings = read_settings(tmp_path / "v")
    assert (settings.issuer, settings.origin, settings.url) == ("me", "me/log", "https://v.example:8443")
    keys = KeyRing.load(settings.keys)
    assert made["fingerprint"] == keys.public("me", "me/log").fingerprint.hex()
    assert (tmp_path / "v").stat().st_mode & 0o777 == 0o700
    assert refused("init", "--host", "other", dir_=tmp_path / "v") == "service.exists"
    assert read_settings(tmp_path / "v") == settings


def test_a_verifier_of_an_earlier_release_is_told_how_to_make_its_policy_key(tmp_path: Path) -> None:
    ask("init", "--host", "v", dir_=tmp_path / "v")
    keys = read_settings(tmp_path / "v").keys
    before = KeyRing.load(keys).public("me", "me/log").fingerprint
    assert refused("make-policy-key", dir_=tmp_path / "v") == "service.exists"
    (keys / "policy.pem").unlink()
    assert refused("status", dir_=tmp_path / "v") == "service.policy-key"
    made = ask("make-policy-key", dir_=tmp_path / "v")
    ring = KeyRing.load(keys)
    assert (made["key"], made["kid"]) == (str(keys / "policy.pem"), ring.policy.public.kid.hex())
    assert (keys / "policy.pem").stat().st_mode & 0o777 == 0o600
    assert ring.public("me", "me/log").fingerprint != before
    assert ring.root == (keys / "root.pem").read_bytes()


def test_init_with_the_directory_as_an_argument(tmp_path: Path) -> None:
    assert run("init", str(tmp_path / "v"), "--host", "::1").exit_code == 0
    assert read_settings(tmp_path / "v").url == "https://[::1]:8443"


def test_a_fresh_verifier_says_what_it_lacks(tmp_path: Path) -> None:
    ask("init", "--host", "v", dir_=tmp_path / "v")
    status = ask("status", dir_=tmp_path / "v")
    assert (status["ready"], status["log_size"]) == (False, 1)
    assert status["missing"].startswith("policy.none")


def test_a_token_names_url_and_keys(hall: Hall) -> None:
    made = ask("token", "create", "--node", "n1", "--pool", "lab", dir_=hall.directory)
    token = EnrolToken.from_text(made["token"])
    keys = KeyRing.load(hall.settings.keys).public("hall", "hall/log")
    assert (token.url, token.fingerprint) == (hall.settings.url, keys.fingerprint)
    assert refused("token", "create", "--reenrol", "n1", dir_=hall.directory) == "node.unknown"


def enrolled(hall: Hall) -> Host:
    token = ask("token", "create", "--node", "n1", "--pool", "lab", dir_=hall.directory)["token"]
    host = Host(hall, "n1", SoftTpm(CA))
    with hall:
        hall.run(host.enrol(token))
    return host


def test_nodes(hall: Hall) -> None:
    enrolled(hall)
    (node,) = ask("node", "list", dir_=hall.directory)
    assert (node["name"], node["pool"], node["state"], node["assurance"]) == ("n1", "lab", "pending", "test")
    for verb, state in (("activate", "active"), ("quarantine", "quarantined"), ("retire", "retired")):
        assert ask("node", verb, "n1", "--why", "a test", dir_=hall.directory)["state"] == state
        assert ask("node", "show", "n1", dir_=hall.directory)["state"] == state
    assert refused("node", "activate", "n1", dir_=hall.directory) == "node.retired"
    assert refused("node", "show", "n2", dir_=hall.directory) == "node.unknown"


def test_submitters(hall: Hall, tmp_path: Path) -> None:
    key = tmp_path / "ada.pub"
    key.write_bytes(SoftwareSigner.generate(ES256).public.to_pem())
    who = ("--name", "ada", "--tenant", "lab", "--key", str(key))
    made = ask("submitter", "add", *who, "--role", "trainer", "--role", "evaluator", dir_=hall.directory)
    assert made["roles"] == ["evaluator", "trainer"]
    assert ask("submitter", "add", *who, dir_=hall.directory)["roles"] == []
    assert ask("submitter", "disable", "ada", dir_=hall.directory)["state"] == "disabled"
    (listed,) = ask("submitter", "list", dir_=hall.directory)
    assert (listed["state"], listed["kid"]) == ("disabled", made["kid"])
    assert refused("submitter", "disable", "eve", dir_=hall.directory) == "authz.submitter"
    key.write_text("not a key")
    assert refused("submitter", "add", *who, dir_=hall.directory) == "key.encoding"


def test_reference_values(hall: Hall) -> None:
    host = enrolled(hall)
    made = ask("refs", "from-node", "n1", "--name", "boot", "--pool", "spare", dir_=hall.directory)
    assert (made["state"], made["pools"], made["provenance"]) == ("pending", ["lab", "spare"], "n1, enrolment")
    assert made["pcrs"]["sha256"]["0"] == [host.tpm.pcrs[0x000B][0].hex()]
    for state in ("active", "obsolete", "retired", "revoked"):
        ask("refs", "set-state", "boot", state, dir_=hall.directory)
        assert ask("refs", "list", dir_=hall.directory)["baselines"][0]["state"] == state
    ask("refs", "approve-code", CODE.hex(), "--name", "digits", "--why", "reviewed", dir_=hall.directory)
    ask("refs", "approve-environment", CODE.hex(), dir_=hall.directory)
    listed = ask("refs", "list", dir_=hall.directory)
    assert [(a["kind"], a["name"]) for a in listed["approvals"]] == [
        ("code", "digits"),
        ("environment", CODE.hex()[:16]),
    ]
    assert listed["version"] == 7
    assert refused("refs", "set-state", "boot", "splendid", dir_=hall.directory) == "ref.state"
    assert refused("refs", "set-state", "other", "active", dir_=hall.directory) == "ref.unknown"
    assert refused("refs", "approve-code", "xyz", dir_=hall.directory) == "admin.argument"
    assert refused("refs", "approve-code", "00", dir_=hall.directory) == "wire.size"
    assert refused("refs", "from-node", "n2", "--name", "x", dir_=hall.directory) == "node.unknown"


def test_policies(hall: Hall) -> None:
    assert run("policy", "lint", str(hall.policies)).exit_code == 0
    shown = ask("policy", "show", dir_=hall.directory)
    assert (shown["lease_seconds"], shown["bank"]) == (30, "sha256")
    assert shown["anchors"] == [{"name": "hall", "assurance": "test"}]
    before = ask("status", dir_=hall.directory)["log_size"]
    assert ask("policy", "load", str(hall.policies), dir_=hall.directory)["policy"] == shown["policy"]
    assert ask("status", dir_=hall.directory)["log_size"] == before
    (hall.policies / "extra.cedar").write_text("permit (principal, action, resource);")
    assert run("policy", "lint", str(hall.policies)).exit_code == 1
    assert json.loads(run("policy", "lint", str(hall.policies), "--json").stdout)[0]["code"] == "policy.id"
    assert refused("policy", "load", str(hall.policies), dir_=hall.directory) == "policy.id"
    assert ask("policy", "show", dir_=hall.directory)["policy"] == shown["policy"]


def test_what_does_not_lint_is_not_put_in_force(hall: Hall) -> None:
    before = ask("policy", "show", dir_=hall.directory)["policy"]
    settings = hall.policies / "settings.toml"
    settings.write_text(settings.read_text().replace('ima = "unchecked"', 'ima = "required"'))
    assert json.loads(run("policy", "lint", str(hall.policies), "--json").stdout)[0]["code"] == "tpm.ima.unquoted"
    assert refused("policy", "load", str(hall.policies), dir_=hall.directory) == "tpm.ima.unquoted"
    assert ask("policy", "show", dir_=hall.directory)["policy"] == before


def test_a_policy_becomes_a_file_that_an_audit_replays(working: tuple[Hall, str], tmp_path: Path) -> None:
    hall, grant = working
    ask("bundle", grant, "-o", str(tmp_path / "job"), dir_=hall.directory)
    made = json.loads(run("policy", "bundle", str(hall.policies), "-o", str(tmp_path / "policy"), "--json").stdout)
    assert made["digest"] == hashlib.sha256((tmp_path / "policy").read_bytes()).hexdigest()
    assert made["digest"] == ask("policy", "show", dir_=hall.directory)["policy"]
    replayed = CliRunner().invoke(audit, ["replay", str(tmp_path / "job"), "--policy", str(tmp_path / "policy")])
    assert (replayed.exit_code, "0 of 1 decisions would change" in replayed.output) == (0, True)


def test_the_delivered_policy_cases() -> None:
    policies = Path(__file__).parents[2] / "policies"
    result = run("policy", "test", str(policies))
    assert result.exit_code == 0, result.output
    assert "as expected" in result.stdout
    assert all(row["as expected"] for row in json.loads(run("policy", "test", str(policies), "--json").stdout)["cases"])


def test_a_policy_case_that_differs(hall: Hall) -> None:
    """The lab permits what the delivered cases say is denied."""
    result = run("policy", "test", str(hall.policies))
    assert result.exit_code == 1


@pytest.fixture
def working(hall: Hall) -> tuple[Hall, str]:
    """A verifier with one live job, not running; the job's grant."""
    with hall:
        host = hall.run(hall.furnish())
        grant, _ = allowed(hall.run(host.ask(hall.intent())))
    return hall, grant.id.hex()


@pytest.mark.parametrize("aim", ["--grant", "--job", "--node", "--submitter"])
def test_revoke_shows_first_what_stops(working: tuple[Hall, str], aim: str) -> None:
    hall, grant = working
    value = {"--grant": grant, "--job": "digits", "--node": "host", "--submitter": "ada"}[aim]
    assert grant[:20] in run("revoke", aim, value, "--preview", dir_=hall.directory).stdout
    refused_by_hand = run("revoke", aim, value, dir_=hall.directory, input="n\n")
    assert refused_by_hand.exit_code == 1
    (job,) = ask("job", "list", dir_=hall.directory)
    assert job["state"] == "running"
    assert run("revoke", aim, value, "--yes", "--why", "a test", dir_=hall.directory).exit_code == 0
    (job,) = ask("job", "list", dir_=hall.directory)
    assert job["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    {
        "nothing": ((), "admin.argument"),
        "two aims": (("--job", "a", "--node", "host"), "admin.argument"),
        "unknown grant": (("--grant", "00" * 16), "grant.unknown"),
        "grant that is none": (("--grant", "zz"), "admin.argument"),
        "unknown node": (("--node", "n9"), "node.unknown"),
        "unknown submitter": (("--submitter", "eve"), "authz.submitter"),
    }.values(),
)
def test_revocations_that_are_refused(working: tuple[Hall, str], arguments: tuple[str, ...], reason: str) -> None:
    hall, _ = working
    assert refused("revoke", *arguments, "--yes", dir_=hall.directory) == reason


def test_a_bundle_is_one_file(working: tuple[Hall, str], tmp_path: Path) -> None:
    hall, grant = working
    made = ask("bundle", grant, "-o", str(tmp_path / "job.bundle"), dir_=hall.directory)
    bundle = Bundle.from_bytes((tmp_path / "job.bundle").read_bytes())
    assert (bundle.job.hex(), len(bundle.leaves)) == (grant, 2)
    assert made["bytes"] == (tmp_path / "job.bundle").stat().st_size
    assert refused("bundle", "00" * 16, "-o", str(tmp_path / "x"), dir_=hall.directory) == "grant.unknown"


def test_every_listing_has_a_form_for_people(working: tuple[Hall, str]) -> None:
    hall, _ = working
    for words in (
        "status",
        "node list",
        "node show host",
        "submitter list",
        "refs list",
        "policy show",
        "job list --all",
    ):
        result = run(*words.split(), dir_=hall.directory)
        assert result.exit_code == 0, words
        assert result.stdout.strip()
    assert "hall/log" in run("log", "checkpoint", dir_=hall.directory).stdout
    assert ask("log", "checkpoint", dir_=hall.directory)["size"] > 1


def test_every_change_is_in_the_log(working: tuple[Hall, str]) -> None:
    from attestation.log import Record

    hall, _ = working
    with hall:
        store = hall.verifier.store
        records = [Record.from_bytes(e.record) for e in store.records(0, store.head().size)]
    outcomes = [record.outcome for record in records if record.kind == "admin"]
    for outcome in ("policy loaded", "anchors loaded", "references loaded", "token created", "submitter added"):
        assert outcome in outcomes


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def serving(hall: Hall) -> Iterator[subprocess.Popen[str]]:
    """The service as a process of its own."""
    arguments = ["serve", "--dir", str(hall.directory), "--bind", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: hall on https://127.0.0.1:")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_commands_reach_the_running_service_and_its_end_is_clean(hall: Hall) -> None:
    with serving(hall) as process:
        ask("token", "create", "--node", "n1", "--pool", "lab", dir_=hall.directory)
        size = ask("status", dir_=hall.directory)["log_size"]
        assert hall.settings.admin_socket.stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not hall.settings.admin_socket.exists()
    assert ask("status", dir_=hall.directory)["log_size"] == size


def test_after_a_kill_commands_work_and_the_service_starts_again(hall: Hall) -> None:
    with serving(hall) as process:
        size = ask("status", dir_=hall.directory)["log_size"]
        process.kill()
        process.wait(10)
    assert hall.settings.admin_socket.exists()
    assert ask("status", dir_=hall.directory)["log_size"] == size
    with serving(hall):
        assert ask("status", dir_=hall.directory)["log_size"] == size


def test_a_second_service_does_not_start(hall: Hall) -> None:
    with serving(hall):
        second = subprocess.run(
            [*COMMAND, "serve", "--dir", str(hall.directory)], capture_output=True, text=True, timeout=30, check=False
        )
    assert second.returncode == 1
    assert "admin.busy" in second.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    {
        "refused": (["status", "--dir", "/nowhere"], 1),
        "unknown command": (["fly"], 2),
        "unknown option": (["status", "--colour"], 2),
        "host missing": (["init", "--dir", "/nowhere"], 2),
        "help": (["--help"], 0),
    }.values(),
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    if code == 1:
        assert "service.file" in done.stderr
        assert "->" in done.stderr


def test_a_refusal_is_one_value_for_machines(tmp_path: Path) -> None:
    command = [*COMMAND, "status", "--dir", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["ok"]) == (1, "", False)
    assert told["error"].keys() == {"reason", "what", "detail", "fix"}
    assert told["error"]["reason"] == "service.file"


# --- the socket -------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_held_is_not_waited_for(tmp_path: Path) -> None:
    with (
        admin.locked(tmp_path / "lock"),
        pytest.raises(Untrusted, match=r"admin\.busy"),
        admin.locked(tmp_path / "lock"),
    ):
        pass


LINES = {
    "not JSON": b"hello\n",
    "no object": b"[]\n",
    "no arguments": b'{"command": "status"}\n',
    "command of another type": b'{"command": 1, "arguments": {}}\n',
    "cut short": b'{"command": "status", "argu',
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_lines_that_are_no_command(hall: Hall, line: bytes) -> None:
    with serving(hall), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(hall.settings.admin_socket))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        answer = json.loads(connection.makefile("rb").readline())
    assert answer["reason"] == "admin.argument"


@pytest.mark.parametrize(
    ("command", "arguments", "reason"),
    {
        "no such command": ("fly", {}, "admin.command"),
        "argument missing": ("node.show", {}, "admin.argument"),
        "argument of another type": ("node.show", {"node": 1}, "admin.argument"),
        "list of numbers": ("submitter.add", {"key": "x", "roles": [1]}, "key.encoding"),
        "flag as text": ("job.list", {"all": "yes"}, "admin.argument"),
        "unknown state": ("node.set-state", {"node": "host", "state": "lost"}, "node.state"),
        "policy not base64": ("policy.load", {"policy": "?"}, "admin.argument"),
        "policy that is none": ("policy.load", {"policy": "AAAA"}, "cbor.not-deterministic"),
    }.values(),
)
def test_commands_that_are_refused(
    working: tuple[Hall, str], command: str, arguments: dict[str, Any], reason: str
) -> None:
    hall, _ = working
    with hall, pytest.raises(InterlockError) as caught:
        hall.run(hall.command(command, **arguments))
    assert caught.value.reason == reason


def test_roles_are_texts(hall: Hall) -> None:
    pem = SoftwareSigner.generate(ES256).public.to_pem().decode()
    with hall, pytest.raises(Malformed, match=r"admin\.argument"):
        hall.run(hall.command("submitter.add", key=pem, name="a", tenant="t", roles=[1]))


@pytest.mark.root
def test_another_user_is_not_heard(hall: Hall) -> None:
    """Even where the socket is opened up by mistake, the kernel's word on who connects counts."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"command": "status", "arguments": {}}\\n\'); print(s.makefile().readline())'
    )
    with serving(hall):
        path = hall.settings.admin_socket
        path.chmod(0o666)
        for parent in [path.parent, *path.parent.parents]:
            if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        done = subprocess.run(
            ["/usr/bin/python3", "-c", script, str(path)], user=65534, capture_output=True, text=True, check=False
        )
    assert done.stdout.strip() == ""


def test_a_deep_directory_is_no_obstacle(tmp_path: Path) -> None:
    """The address of a Unix socket has 108 bytes; a path may have more."""
    deep = tmp_path.joinpath(*["d" * 40] * 4)
    deep.mkdir(parents=True)
    hall = Hall(deep)
    with serving(hall):
        assert ask("status", dir_=hall.directory)["issuer"] == "hall"


def test_a_service_that_closes_the_connection_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with pytest.raises((Untrusted, ConnectionError)):
            admin.ask(path, "status", {})
        thread.join()


def test_an_answer_may_be_longer_than_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle with a whole measurement list is larger than anything that is asked."""
    monkeypatch.setattr(admin, "MAX_LINE", 1 << 10)

    async def dispatch(command: str, _: Mapping[str, Any]) -> str:
        return command * 1000

    async def answered() -> Any:
        async with await admin.serve_commands(tmp_path / "s", dispatch):
            return await asyncio.to_thread(admin.ask, tmp_path / "s", "bundle", {})

    assert asyncio.run(answered()) == "bundle" * 1000
