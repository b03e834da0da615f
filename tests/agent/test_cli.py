"""``interlock-agent`` against a real verifier and an emulated TPM."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import doctor
from agent.cli import app
from agent.connect import connect
from agent.messages import Question
from agent.settings import Settings
from agent.state import FILE, Enrolment
from agent.tpm import EsysTpm
from attestation.errors import InterlockError
from attestation.tpm.nv import CLEAR_STCLEAR, WORKLOAD
from fixtures.swtpm import Swtpm, manufacture
from tests.agent.holding import UID, environment
from tests.agent.house import House
from tests.agent.test_tpm_nv import define, undefine
from tests.verifier.hall import CA

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with Swtpm.start(manufacture(CA, tmp_path_factory.mktemp("tpm"))) as made:
        yield made


class Agent:
    """Settings in a file, and the command that reads them."""

    def __init__(self, house: House, folder: Path, tcti: str) -> None:
        self.house, self.folder = house, folder
        self.values: dict[str, Any] = {
            "state": str(folder / "state"),
            "run": str(folder / "run"),
            "tcti": tcti,
            "cgroup": house.settings.cgroup,
            "uids": [UID],
        }
        self.file = folder / "agent.toml"
        self.write()

    def write(self, **changes: Any) -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in (self.values | changes).items()]
        self.file.write_text("\n".join(lines))

    @property
    def socket(self) -> Path:
        return Settings.load(self.file).socket

    def __call__(self, command: str, *arguments: str) -> int:
        return agent(command, "--settings", str(self.file), *arguments)

    def token(self, name: str, text: str | None = None) -> Path:
        made = text or self.house.command("token.create", node=name, pool="lab", activate=True)["token"]
        path = self.folder / "token"
        path.write_text(made)
        path.chmod(0o600)
        return path

    def enrol(self, name: str, *more: str) -> int:
        url = f"https://127.0.0.1:{self.house.port}"
        return self("enroll", "--token-file", str(self.token(name)), "--verifier", url, *more)


def agent(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else 0


@pytest.fixture
def host(house: House, swtpm: Swtpm, tmp_path: Path) -> Agent:
    return Agent(house, tmp_path, swtpm.tcti)


STATUS = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from agent.cli import main
sys.argv[1:] = ["status", "--agent", sys.argv[1]]
main()
"""


def found(name: str, text: str) -> dict[str, str]:
    (finding,) = [each for each in json.loads(text)["checks"] if each["name"] == name]
    return {key: str(value) for key, value in finding.items()}


def test_from_enrolment_to_service(host: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    assert host("doctor", "--json") == 1
    out = capfd.readouterr().out
    assert found("tpm", out)["level"] == found("ek", out)["level"] == found("cgroup", out)["level"] == "ok"
    assert found("enrolment", out)["level"] == "fail"

    assert host.enrol("served", "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["node"], facts["pool"], facts["state"]) == ("served", "lab", "active")
    enrolment = Enrolment.from_bytes((host.folder / "state" / FILE).read_bytes())
    assert enrolment.keys.fingerprint.hex() == facts["fingerprint"]
    assert facts["tpm_lease"] is True

    assert host("doctor", "--json") == 0
    out = capfd.readouterr().out
    assert found("verifier", out)["level"] == found("tpm-lease", out)["level"] == "ok"
    assert host("doctor") == 0
    assert "node served of pool lab" in capfd.readouterr().out

    seen: list[str] = []

    def ask() -> None:
        for _ in range(500):
            try:
                with connect(host.socket) as connection:
                    connection.send(Question(topic="status", name=""))
                    seen.append(connection.answer()[0])
                    break
            except InterlockError:  # it does not listen yet
                threading.Event().wait(0.02)
        program = [sys.executable, "-I", "-c", STATUS, str(host.socket)]
        seen.append(subprocess.run(program, capture_output=True, text=True).stdout)
        os.kill(os.getpid(), signal.SIGTERM)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert host("serve") == 0
    finally:
        asking.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert json.loads(seen[0])["node"] == "served"
    assert "node                 served\n" in seen[1]


def test_one_tpm_cannot_become_two_nodes(host: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    assert host.enrol("second") == 1
    assert "node." in capfd.readouterr().err


def test_without_an_enrolment_nothing_is_served(host: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    assert host("serve") == 1
    assert "agent.enrolment" in capfd.readouterr().err


def test_without_a_tpm_nothing_is_served(host: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    host.write(tcti="unix:/nowhere")
    assert host("doctor", "--json") == 1
    assert found("tpm", capfd.readouterr().out)["level"] == "fail"
    assert host.enrol("nobody") == 1
    assert "tpm.device.open" in capfd.readouterr().err


TOKENS = {
    "no token": "hello",
    "half a token": "interlock1.oWF",
    "empty": "",
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_none_is_refused(host: Agent, capfd: pytest.CaptureFixture[str], name: str) -> None:
    path = host.token("x", TOKENS[name] or " ")
    assert host("enroll", "--token-file", str(path)) == 1
    assert "interlock-agent: " in capfd.readouterr().err
    assert not (host.folder / "state" / FILE).exists()


def test_a_token_file_that_others_can_read_is_refused(host: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    path = host.token("x", "interlock1.x")
    path.chmod(0o644)
    assert host("enroll", "--token-file", str(path)) == 1
    assert "enrol.token-file" in capfd.readouterr().err
    assert host("enroll", "--token-file", "/nowhere/token") == 1
    assert "enrol.token-file" in capfd.readouterr().err


def test_a_verifier_with_other_keys_is_refused(host: Agent, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    with House(tmp_path / "other") as other:
        token = host.token("x")
        url = f"https://127.0.0.1:{other.port}"
        assert host("enroll", "--token-file", str(token), "--verifier", url) == 1
    assert "enrol.fingerprint" in capfd.readouterr().err


def test_nobody_answers(host: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    assert agent("status", "--agent", "/nowhere") == 1
    assert "agent.unreachable" in capfd.readouterr().err
    assert host("doctor", "--settings", "/nowhere") == 1


def test_digests_are_measured_as_they_are_granted(host: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    house = host.house
    assert agent("measure", str(house.code), "--json") == 0
    assert json.loads(capfd.readouterr().out)["digest"] == house.code_digest().hex()
    assert agent("measure", str(house.environment), "--kind", "environment", "--json") == 0
    assert json.loads(capfd.readouterr().out)["digest"] == house.environment_digest.hex()
    assert agent("measure", str(house.code), "--kind", "environment") == 1
    assert "tree.environment" in capfd.readouterr().err
    assert agent("measure", str(house.code), "--kind", "data") == 1
    assert "submit.option" in capfd.readouterr().err


# --- the doctor -------------------------------------------------------------------------------------------------------


def test_a_settings_file_that_is_broken_is_the_first_thing_to_put_right(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("sate = 1")
    (finding,) = doctor.examine(file)
    assert (finding.name, finding.level) == ("settings", "fail")
    assert not doctor.healthy([finding])
    assert finding.fix in finding.line()


def levels(settings: Path) -> dict[str, str]:
    return {each.name: each.level for each in doctor.examine(settings)}


def test_a_host_where_nobody_may_submit_is_warned(host: Agent) -> None:
    host.write(uids=[])
    assert levels(host.file)["settings"] == "warn"


def test_what_the_doctor_finds_wrong(host: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.doctor._FREE_MB", 1 << 40)
    monkeypatch.setattr("agent.doctor._SAFE_CLOCK", 1 << 40)
    host.write(cgroup="no/such")
    seen = levels(host.file)
    assert seen == {"settings": "fail"}
    host.write(event_log_file="/proc/self/status", ima_file="/proc/self/status")
    seen = levels(host.file)
    assert (seen["disk"], seen["clock"], seen["ima"], seen["event-log"]) == ("fail", "fail", "ok", "ok")
    monkeypatch.setattr("agent.doctor._SAFE_CLOCK", 0)
    monkeypatch.setattr("agent.doctor._SYNCHRONISED", Path("/proc/self/status"))
    host.write(event_log=False)
    seen = levels(host.file)
    assert (seen["clock"], seen["event-log"]) == ("ok", "warn")
    host.write(event_log_file="/no/log", ima_file="/no/list")
    text = {each.name: each.seen for each in doctor.examine(host.file)}
    assert (text["event-log"], text["ima"]) == ("no /no/log", "no /no/list")


def test_a_host_without_control_groups_cannot_run_jobs(host: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise FileNotFoundError("no cgroup v2")

    monkeypatch.setattr("agent.doctor.find_root", none)
    assert levels(host.file)["cgroup"] == "fail"


def test_what_a_kernel_lacks(host: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.doctor.landlock_abi", lambda: 0)
    monkeypatch.setattr("agent.doctor._NAMESPACES", ("pid", "nonesuch"))
    monkeypatch.setattr("agent.doctor._CGROUP_FILES", ("cgroup.nonesuch",))
    seen = levels(host.file)
    assert (seen["landlock"], seen["namespaces"], seen["cgroup"]) == ("warn", "fail", "fail")


def test_limits_that_hold_by_the_control_group_are_no_finding(host: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.doctor._LIMIT_FILES", ("cgroup.procs",))
    assert "limits" not in levels(host.file)
    monkeypatch.setattr("agent.doctor._LIMIT_FILES", ("nonesuch.max",))
    assert levels(host.file)["limits"] == "warn"


def test_the_index_that_jobs_are_measured_in(tmp_path: Path, house: House) -> None:
    others = replace(WORKLOAD, attributes=WORKLOAD.attributes & ~CLEAR_STCLEAR)
    with Swtpm.start() as blank:
        file, tpm = Agent(house, tmp_path, blank.tcti).file, EsysTpm(blank.tcti)

        def seen() -> tuple[str, str]:
            (finding,) = [each for each in doctor.examine(file) if each.name == "jobs"]
            return finding.level, finding.seen

        assert seen() == ("ok", "NV index 0x01800100 is made with the first job")
        tpm.define_workload()
        assert seen() == ("ok", "NV index 0x01800100 holds nothing yet")
        tpm.extend_workload(bytes(32))
        assert seen()[1].endswith(hashlib.sha256(bytes(64)).hexdigest())
        undefine(blank)
        define(blank, others)
        assert seen() == ("warn", "NV index 0x01800100 is not the agent's")
        tpm.close()


def test_a_tpm_without_a_certificate_cannot_be_enrolled(tmp_path: Path, house: House) -> None:
    with Swtpm.start() as blank:
        assert levels(Agent(house, tmp_path, blank.tcti).file)["ek"] == "fail"


def test_the_doctor_knows_who_is_asking(host: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert levels(host.file)["user"] == "fail"


def test_the_doctor_asks_the_verifier(host: Agent) -> None:
    house = host.house
    state = host.folder / "state"
    state.mkdir(mode=0o700)

    def seen(**changes: Any) -> str:
        (state / FILE).write_bytes(replace(house.host.enrolment, **changes).to_bytes())
        return levels(host.file)["verifier"]

    assert seen() == "ok"
    assert seen(url="https://127.0.0.1:1") == "fail"
    assert seen(certificate=b"not a certificate") == "fail"
    assert seen(url=f"https://127.0.0.1:{house.port}/nowhere") == "fail"
    keys = house.host.enrolment.keys
    assert seen(keys=replace(keys, log=keys.grant)) == "fail"


def test_the_command_as_it_is_installed() -> None:
    done = subprocess.run([sys.executable, "-m", "agent", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    for command in ("serve", "enroll", "status", "doctor", "measure"):
        assert f"\n  {command}" in done.stdout


def test_an_environment_elsewhere_is_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = environment(tmp_path / "env")
    assert agent("measure", str(made), "--kind", "environment") == 0
    assert "digest" in capfd.readouterr().out
