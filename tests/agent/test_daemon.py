"""``interlock-agent serve``: the socket, restarts, the end, and what happens beside the requests."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent import codes
from agent.cgroup import Cgroup
from agent.connect import connect
from agent.daemon import Daemon
from agent.deliver import bury, deliver
from agent.journal import Run
from agent.messages import Channel, Measure, Measured, Question
from attestation.errors import InterlockError, Untrusted
from tests.agent.holding import UID
from tests.agent.house import House
from tests.agent.test_run import IDLE, POLITE, reports

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as made:
        yield made


@contextmanager
def running(house: House) -> Iterator[Daemon]:
    """The daemon in a thread; afterwards it was told to stop, and has ended."""
    daemon = Daemon(house.host)
    thread = threading.Thread(target=daemon.run, name="daemon")
    thread.start()
    try:
        _wait_for(house.settings.socket)
        yield daemon
    finally:
        daemon.stop()
        thread.join(60)
        house.host.stopping.clear()
        assert not thread.is_alive()


def _wait_for(path: Path) -> None:
    """Connect as soon as somebody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        for _ in range(1000):
            try:
                probe.connect(str(path))
            except OSError:
                threading.Event().wait(0.01)
            else:
                return
    raise AssertionError(f"nobody listens at {path}")


def status(path: Path) -> str:
    with connect(path) as connection:
        connection.send(Question(topic="status", name=""))
        return connection.answer()[0]


def test_anybody_may_connect_and_the_kernel_says_who(house: House) -> None:
    with running(house):
        assert house.settings.socket.stat().st_mode & 0o777 == 0o666
        assert '"node":"host"' in status(house.settings.socket)
        with connect(house.settings.socket) as connection:  # this process is root
            connection.send(Measure(environment=str(house.environment)))
            with pytest.raises(InterlockError) as refused:
                connection.expect(Measured)
            assert refused.value.reason == "submitter.uid"
    assert not house.settings.socket.exists()


PROGRAM = """
import os, socket, sys
from agent.connect import connect
from agent.messages import Measure, Measured, Start
from pathlib import Path
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[3]))
with connect(Path(sys.argv[1])) as connection:
    connection.send(Measure(environment=sys.argv[2]))
    print(connection.expect(Measured).digest.hex())
"""


def test_a_submitter_is_known_by_its_uid(house: House) -> None:
    house.directory.chmod(0o755)
    for parent in house.directory.parents[:2]:
        parent.chmod(0o755)
    with running(house):
        arguments = [str(house.settings.socket), str(house.environment), str(UID)]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.strip() == house.environment_digest.hex(), done.stderr
        arguments[2] = str(UID + 1)
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, cwd=ROOT)
        assert "submitter.uid" in done.stderr


def test_only_one_agent_uses_a_directory(house: House) -> None:
    with running(house):
        with pytest.raises(Untrusted) as refused:
            Daemon(house.host).run()
        assert refused.value.reason == "agent.running"
        assert status(house.settings.socket), "the first one is not disturbed"


def test_who_comes_too_many_is_turned_away(house: House) -> None:
    with running(house) as daemon:
        taken = 64 + 4 * house.settings.jobs
        for _ in range(taken):
            assert daemon._places.acquire(timeout=5)
        with pytest.raises(Untrusted) as refused:
            status(house.settings.socket)
        assert refused.value.reason == "agent.gone"
        daemon._places.release(taken)
        assert status(house.settings.socket)


def test_a_connection_that_says_nothing_is_closed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.serve.FIRST_MESSAGE_SECONDS", 0.1)
    with running(house), connect(house.settings.socket) as connection:
        with pytest.raises(Untrusted) as refused:
            connection.answer()
        assert refused.value.reason == "agent.gone"


@pytest.mark.parametrize("packet", [b"\xff", b"\x80", bytes(1000)])
def test_garbage_is_refused(house: House, packet: bytes) -> None:
    with running(house), connect(house.settings.socket) as connection:
        connection._socket.send(packet)
        with pytest.raises(InterlockError):
            connection.answer()
        assert status(house.settings.socket)


def test_the_end_of_the_agent_asks_the_jobs_to_end(house: House) -> None:
    with running(house) as daemon:
        job = house.submit(POLITE)
        job.until("started")
        daemon.stop()
        ended = job.end()
    assert (ended.exit_code, ended.reason) == (codes.DRAINED, "agent.stopped")
    assert reports(house, ended.grant).halts[-1].klass == "drain"


def test_a_job_that_begins_while_the_agent_ends_is_asked_to_end(house: House) -> None:
    house.host.stopping.set()
    try:
        ended = house.submit(POLITE).end()
    finally:
        house.host.stopping.clear()
    assert (ended.exit_code, ended.reason) == (codes.DRAINED, "agent.stopped")


def test_a_revocation_is_heard_at_once(house: House) -> None:
    with running(house):
        job = house.submit(IDLE)
        granted = job.until("started")
        assert granted.grant is not None
        house.command("revoke", grant=granted.grant.hex())
        ended = job.end()
    assert (ended.exit_code, ended.reason) == (codes.REVOKED, "grant.revoked")
    assert house.host.counters.as_dict()["hints"] >= 1


# --- after the death of an agent --------------------------------------------------------------------------------------


def cut_off(house: House) -> Run:
    """A run of which the journal knows only the beginning, as after SIGKILL to the agent; with an output."""
    job = house.submit("import os\nopen(os.environ['INTERLOCK_OUT'] + '/result.txt', 'w').write('42')")
    finish = house.host.journal.finish
    house.host.journal.finish = lambda cti, report: None  # type: ignore[method-assign]  # it died before
    try:
        ended = job.end()
    finally:
        house.host.journal.finish = finish  # type: ignore[method-assign]
    assert ended.grant is not None
    (run,) = house.host.journal.unfinished()
    assert run.cti == ended.grant
    return run


def test_a_run_that_was_cut_off_is_reported_at_the_next_start(house: House) -> None:
    run = cut_off(house)
    with running(house):
        status(house.settings.socket)
    report = reports(house, run.cti)
    assert [halt.reason for halt in report.halts] == ["agent.died"]
    assert report.exit_code == codes.FAILED
    assert report.outputs["result.txt"].quarantined
    assert house.host.journal.unfinished() == []
    assert run.cti in house.host.journal, "a burned grant stays burned"


def test_a_job_left_behind_is_killed_and_not_revived(house: House) -> None:
    group = Cgroup.of(house.host.cgroups, b"l" * 16)
    group.create()
    with subprocess.Popen(["sleep", "600"]) as left:
        group.add(left.pid)
        with running(house):
            status(house.settings.socket)
        assert left.wait(10) == -9
    assert not group.path.exists()


def test_without_a_tpm_the_reports_wait(house: House) -> None:
    run = cut_off(house)
    house.tpm.closed = True
    try:
        with running(house):
            status(house.settings.socket)
    finally:
        house.tpm.closed = False
    assert (house.host.journal.unfinished(), house.host.journal.undelivered()) == ([], [])
    assert [cti for cti, _ in house.host.journal.unsigned()] == [run.cti]
    assert deliver(house.host)
    assert [halt.reason for halt in reports(house, run.cti).halts] == ["agent.died"]


def test_a_report_is_kept_until_the_verifier_is_back(house: House) -> None:
    job = house.submit(POLITE)
    job.until("started")
    (here,) = house.host.jobs.all()
    house.close_verifier()
    try:
        assert here.governed is not None
        here.governed.signal(15)
        ended = job.end()
        assert [cti for cti, _ in house.host.journal.undelivered()] == [ended.grant]
        assert not deliver(house.host)
    finally:
        house.open_verifier()
    assert deliver(house.host)
    assert reports(house, ended.grant).exit_code == 0


def test_reports_are_sent_beside_the_requests(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.daemon._RETRY_SECONDS", 0.05)
    run = cut_off(house)
    house.close_verifier()
    try:
        assert bury(house.host) == [run.cti]
        assert house.host.journal.undelivered() != []
    finally:
        house.open_verifier()
    with running(house):
        for _ in range(200):
            if not house.host.journal.undelivered():
                break
            threading.Event().wait(0.05)
    assert house.host.journal.undelivered() == []


def test_a_report_that_is_rejected_is_not_sent_for_ever(house: House) -> None:
    house.host.journal.burn(Run(b"z" * 16, "nothing", UID, bytes(32), ("x",), 1))
    assert bury(house.host) == [b"z" * 16]
    assert house.host.journal.undelivered() == []
    assert house.host.counters.as_dict()["reports_rejected"] == 1


def test_old_workspaces_are_removed(house: House) -> None:
    old, new = house.host.state.jobs / "old", house.host.state.jobs / "new"
    for path in (old, new):
        (path / "code").mkdir(parents=True)
    os.utime(old, (1, 1))
    bury(house.host)
    assert not old.exists()
    assert new.exists()
    assert not (new / "code").exists()


def test_a_channel_that_is_closed_wakes_who_waits_on_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours)

    def wait() -> None:
        with suppress(OSError):
            channel.receive()

    waiting = threading.Thread(target=wait)
    waiting.start()
    channel.close()
    waiting.join(5)
    theirs.close()
    assert not waiting.is_alive()
