"""``interlock`` from its options to its exit code, against a real agent and a real verifier."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import keyfile
from agent.codes import DENIED, FAILED
from agent.submit import app
from attestation.cose import PublicKey
from tests.agent.holding import environment
from tests.agent.house import House, door

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as made:
        (made.directory / "key.pem").write_bytes(made.person.to_pem())
        (made.directory / "key.pem").chmod(0o600)
        yield made


@pytest.fixture
def agent(house: House) -> Iterator[Path]:
    with door(house) as path:
        yield path


def interlock(*arguments: str) -> int:
    """The exit code of the command, run in this process."""
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    code = ended.value.code
    return code if isinstance(code, int) else 0


class Run:
    """``interlock run`` with the options that every test needs."""

    def __init__(self, house: House, agent: Path, into: Path) -> None:
        self.house = house
        self.options = {
            "--agent": str(agent),
            "--key": str(house.directory / "key.pem"),
            "--tenant": "lab",
            "--code": str(house.code),
            "--environment": str(house.environment),
            "--fetch-to": str(into),
            "--memory": "512",
            "--seconds": "600",
        }

    def __call__(self, source: str, *more: str, **options: str) -> int:
        chosen = self.options | {f"--{name}": value for name, value in options.items()}
        flat = [word for pair in chosen.items() for word in pair]
        return interlock("run", *flat, *more, "--", "python", "-I", "-S", "-c", source)


@pytest.fixture
def run(house: House, agent: Path, tmp_path: Path) -> Run:
    return Run(house, agent, tmp_path)


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def test_the_job_has_our_output_and_our_exit_code(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("print('hello'); raise SystemExit(3)") == 3
    out, err = capfd.readouterr()
    assert (out, err) == ("hello\n", ""), "standard error is no terminal here: nothing is told"


def test_a_person_at_a_terminal_is_told_what_happens(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    before = os.dup(2)
    os.dup2(theirs, 2)
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(2), "w", buffering=1))
    try:
        assert run("pass") == 0
        sys.stderr.close()
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "interlock: granted for 600 s, assurance test" in shown


def test_outputs_are_fetched(run: Run, tmp_path: Path) -> None:
    source = "import os; o = os.environ['INTERLOCK_OUT']; os.mkdir(o + '/d'); open(o + '/d/x', 'w').write('42')"
    assert run(source, "--output", "d", "--output", "missing") == 0
    assert (tmp_path / "d" / "x").read_text() == "42"
    assert not (tmp_path / "missing").exists()


def test_variables_are_passed_by_value_and_by_name(
    run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMED", "by name")
    source = "import os; print(os.environ['NAMED'], os.environ['GIVEN'], 'HOME' in os.environ, 'SHELL' in os.environ)"
    assert run(source, "--env-var", "NAMED", "--env-var", "GIVEN=a=b") == 0
    assert capfd.readouterr().out == "by name a=b True False\n"


def test_programs_get_json(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("print('hello')", "--json", job="named") == 0
    out, err = capfd.readouterr()
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events] == ["evidence", "granted", "staged", "started", "finished"]
    assert (events[-1]["exit_code"], events[-1]["job"], events[-1]["node"]) == (0, "named", "host")
    assert events[-1]["grant"] == events[1]["grant"]
    assert out == "hello\n"


def test_a_denial_is_one_screen(run: Run, house: House, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "evil.py").write_text("print('evil')")
    assert run("print('no')", code=str(tmp_path / "code")) == DENIED
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 5 <= len(lines) < 10
    assert lines[0] == "interlock: denied (exit 71)"
    words = [line.split()[0] for line in lines[1:]]
    assert {"job", "because", "fix", "retry", "ask", "receipt"} <= set(words)
    assert "code.unknown: " in err


def test_signals_of_the_command_reach_the_job(run: Run) -> None:
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    source = "import signal, os\nsignal.signal(15, lambda *_: os._exit(9))\nwhile True: signal.pause()"
    before = signal.getsignal(signal.SIGTERM)
    assert run(source) == 9
    assert signal.getsignal(signal.SIGTERM) == before


REFUSED: dict[str, tuple[str, dict[str, str]]] = {
    "no agent": ("agent.unreachable", {"agent": "/nowhere/agent.sock"}),
    "no key": ("key.file", {"key": "/nowhere/key.pem"}),
    "no environment": ("submit.environment", {"environment": "/usr"}),
    "a variable that is not set": ("submit.option", {"env-var": "NO_SUCH_VARIABLE_HERE"}),
    "a variable without a name": ("submit.option", {"env-var": "=x"}),
    "an output elsewhere": ("submit.option", {"output": "/etc/passwd"}),
    "an output above": ("submit.option", {"output": "../x"}),
    "a GPU mode that is none": ("intent.gpus", {"gpu-mode": "fast"}),
    "a name that is too long": ("wire.size", {"job": "x" * 129}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_explained(run: Run, capfd: pytest.CaptureFixture[str], name: str) -> None:
    reason, options = REFUSED[name]
    assert run("pass", "--json", **options) == FAILED
    shown = last_json(capfd.readouterr().err)
    assert (shown["reason"], shown["event"]) == (reason, "refused")
    assert shown["fix"]


def test_the_environment_is_that_of_python(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = environment(tmp_path / "other")
    (other / "bin" / "python").unlink()
    (other / "bin" / "python").symlink_to("/usr/bin/python3.11")
    monkeypatch.setenv("PATH", f"{other}/bin:{os.environ['PATH']}")
    del run.options["--environment"]
    (other / "extra.py").write_text("")
    assert run("pass", "--json") == DENIED
    assert last_json(capfd.readouterr().err)["reason"] == "environment.unknown"
    monkeypatch.setenv("PATH", "/nowhere")
    assert run("pass", "--json") == FAILED
    assert last_json(capfd.readouterr().err)["reason"] == "submit.environment"


# --- the other commands -----------------------------------------------------------------------------------------------


def test_an_ending_is_explained(run: Run, agent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("raise SystemExit(4)", job="four") == 4
    assert interlock("explain", "four", "--agent", str(agent)) == 0
    shown = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert (shown["exit_code"], shown["job"]) == ("4", "four")
    assert interlock("explain", "four", "--agent", str(agent), "--json") == 0
    assert last_json(capfd.readouterr().out)["exit_code"] == 4


def test_a_reason_is_explained_without_an_agent(capfd: pytest.CaptureFixture[str]) -> None:
    assert interlock("explain", "drift.pcr", "--agent", "/nowhere") == 0
    assert capfd.readouterr().out.splitlines()[0] == "drift.pcr"
    assert interlock("explain", "drift.pcr", "--agent", "/nowhere", "--json") == 0
    assert last_json(capfd.readouterr().out)["code"] == "drift.pcr"
    assert interlock("explain", "policy.required.gpu", "--agent", "/nowhere") == 0, "a member of an open family"
    assert capfd.readouterr().out.splitlines()[0] == "policy.required.gpu"


def test_what_nobody_knows_is_refused(agent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in (("explain", "nothing"), ("watch", "nothing"), ("bundle", "nothing", "-o", "/dev/null")):
        assert interlock(*command, "--agent", str(agent)) == 1
        assert "agent.unknown-job" in capfd.readouterr().err
        assert interlock(*command, "--agent", str(agent), "--json") == 1
        told = last_json(capfd.readouterr().out)
        assert (told["ok"], told["error"]["reason"]) == (False, "agent.unknown-job")


def test_a_bundle_is_written(run: Run, agent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("pass", job="bundled") == 0
    file = tmp_path / "job.bundle"
    assert interlock("bundle", "bundled", "-o", str(file), "--agent", str(agent)) == 0
    assert str(file.stat().st_size) in capfd.readouterr().out
    assert interlock("bundle", "bundled", "-o", str(file), "--agent", str(agent), "--json") == 0
    assert last_json(capfd.readouterr().out)["bytes"] == file.stat().st_size > 1000


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_running_job_is_watched(
    run: Run, house: House, agent: Path, capfd: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    job = house.submit("import signal, os\nsignal.signal(10, lambda *_: os._exit(6))\nwhile True: signal.pause()")
    job.until("started")
    (here,) = house.host.jobs.all()
    assert here.governed is not None
    timer = threading.Timer(0.5, here.governed.signal, (10,))
    timer.start()
    assert interlock("watch", "digits", "--agent", str(agent), *more) == 0
    timer.join()
    assert job.end().exit_code == 6
    out = capfd.readouterr().out
    assert '"exit_code":6' in out if more else "digits ended with 6" in out


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_key_is_made_and_its_public_half_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    path = tmp_path / "key.pem"
    assert interlock("keygen", "--key", str(path), *more) == 0
    out = capfd.readouterr().out
    text = json.loads(out)["public"] if more else out
    assert PublicKey.from_pem(text.encode()) == keyfile.load(path).public
    assert interlock("keygen", "--key", str(path)) == 1
    assert "key.exists" in capfd.readouterr().err


def test_the_command_as_it_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from agent.submit import main; main()", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in ("run", "watch", "explain", "bundle", "keygen"):
        assert f"\n  {command}" in done.stdout
