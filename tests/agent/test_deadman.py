"""The deadman spoken to directly: nonsense, broken agents, and a slow host (agent/deadman.py)."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import memory, protocol
from agent.cgroup import Cgroup
from agent.clock import SECOND, Timer, now_ns
from agent.protocol import Channel
from attestation.wire import Wire
from tests.agent.holding import ROOT, Job, ago

pytestmark = pytest.mark.root

HERE = str(Path(__file__).parent.parent.parent)
IDLE = "import signal\nprint('up\\n', end='')\nwhile True: signal.pause()"
MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from agent import deadman\n{before}\ndeadman.main()"


@dataclass
class Keeper:
    """A deadman and this side of its channel."""

    channel: Channel
    end: socket.socket
    process: "subprocess.Popen[bytes]"
    group: Cgroup
    job: Job

    def start(
        self, asked_at_ns: int | None = None, descriptors: tuple[int, ...] = (0, 1, 2), secrets: tuple[str, ...] = ()
    ) -> None:
        hold = self.job.spec()
        self.channel.send(
            protocol.Start(
                cgroup=str(self.group.path),
                grant=hold.cti,
                argv=hold.argv,
                env={},
                uid=hold.uid,
                gid=hold.gid,
                groups=(),
                code=str(hold.code),
                environment=str(hold.environment),
                out=str(hold.out),
                seconds=60,
                memory_mb=512,
                processes=40,
                limited=("cgroup.memory.max", "cgroup.pids.max"),
                hold_ns=SECOND,
                grace_ns=SECOND,
                key=hold.verifier_key_spki,
                lease=self.job.chain.token(),
                asked_at_ns=asked_at_ns or now_ns(),
                secrets=secrets,
            ),
            descriptors,
        )

    def begin(self, *, frozen: bool) -> protocol.Frozen | None:
        """Start, and let the lease run out where it shall be frozen."""
        self.start()
        assert isinstance(self.hear(), protocol.Started)
        if not frozen:
            return None
        self.channel.send(protocol.LeaseUpdate(token=self.job.chain.token(), asked_at_ns=ago(9.8)))
        assert isinstance(self.hear(), protocol.Renewed)
        heard = self.hear()
        assert isinstance(heard, protocol.Frozen)
        return heard

    def hear(self) -> Wire:
        received = self.channel.receive()
        assert received is not None
        return received[0]


Spawn = Callable[..., Keeper]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    made: list[Keeper] = []

    def begin(before: str = "") -> Keeper:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        job = Job(tmp_path / "job", IDLE)
        group = Cgroup.of(ROOT, job.chain.cti)
        group.create()
        command = [sys.executable, "-I", "-c", MAIN.format(before=before), HERE, str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL)
        made.append(Keeper(Channel(ours), ours, process, group, job))
        return made[-1]

    yield begin
    for each in made:
        each.channel.close()
        each.process.wait(10)
        assert each.group.is_empty()
        each.group.remove()
        each.job.close()
    ROOT.rmdir()


def test_no_start_no_job(spawn: Spawn) -> None:
    keeper = spawn()
    keeper.channel.close()
    assert keeper.process.wait(10) == 0


BEFORE: dict[str, Callable[[Keeper], object]] = {
    "nonsense": lambda keeper: keeper.end.send(b"\xff"),
    "a lease before the start": lambda keeper: keeper.channel.send(protocol.LeaseUpdate(token=b"", asked_at_ns=0)),
    "a halt before the start": lambda keeper: keeper.channel.send(
        protocol.Halt(klass="hard", reason="drift.pcr", cause_ns=0)
    ),
    "two descriptors": lambda keeper: keeper.start(descriptors=(0, 1)),
    "no descriptors": lambda keeper: keeper.start(descriptors=()),
    "a secret without its file": lambda keeper: keeper.start(secrets=("weights",)),
    "a file without its secret": lambda keeper: keeper.start(descriptors=(0, 1, 2, 0)),
}


@pytest.mark.parametrize("act", BEFORE.values(), ids=BEFORE.keys())
def test_a_broken_agent_starts_nothing(spawn: Spawn, act: Callable[[Keeper], object]) -> None:
    keeper = spawn()
    act(keeper)
    assert keeper.channel.receive() is None
    assert keeper.process.wait(10) != 0


DURING: dict[str, Callable[[Keeper], object]] = {
    "nonsense": lambda keeper: keeper.end.send(b"\xff"),
    "a second start": lambda keeper: keeper.start(),
    "an event": lambda keeper: keeper.channel.send(protocol.Thawed(at_ns=0)),
    "a signal that is not handed on": lambda keeper: keeper.end.send(bytes.fromhex("8204a10109")),
}


@pytest.mark.parametrize("act", DURING.values(), ids=DURING.keys())
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_broken_agent_ends_its_job(spawn: Spawn, act: Callable[[Keeper], object], frozen: bool) -> None:
    keeper = spawn()
    keeper.begin(frozen=frozen)
    act(keeper)
    dead = keeper.hear()
    assert isinstance(dead, protocol.Dead)
    assert (dead.klass, dead.reason) == ("hard", "deadman.protocol")
    assert keeper.group.is_empty()
    assert keeper.process.wait(10) == os.EX_SOFTWARE


@pytest.mark.parametrize("act", [DURING["nonsense"], lambda keeper: keeper.channel.close()], ids=["broken", "gone"])
def test_the_deadman_alone_empties_the_secrets(spawn: Spawn, act: Callable[[Keeper], object]) -> None:
    """Whatever ended the agent: nobody else is there to do it."""
    keeper, given = spawn(), memory.make("weights")
    memory.fill(given, bytearray(b"the key of the weights"))
    keeper.start(descriptors=(0, 1, 2, given), secrets=("weights",))
    assert isinstance(keeper.hear(), protocol.Started)
    act(keeper)
    keeper.process.wait(10)
    left = os.pread(given, 99, 0)
    os.close(given)
    assert left == b""


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_the_end_of_the_channel_ends_the_job(spawn: Spawn, frozen: bool) -> None:
    keeper = spawn()
    keeper.begin(frozen=frozen)
    before = now_ns()
    keeper.channel.close()
    assert keeper.group._wait("populated 0", 5) - before < SECOND
    assert keeper.process.wait(10) == 0


ESCAPED = f"import os\nif os.fork() == 0:\n os.setsid()\n os.fork() and os._exit(0)\n{IDLE}"


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_killed_deadman_takes_the_job_along_without_any_agent(spawn: Spawn, frozen: bool) -> None:
    """The kernel alone: the parent-death signal, then the PID namespace. Nobody writes cgroup.kill."""
    keeper = spawn()
    keeper.job.source = ESCAPED
    keeper.begin(frozen=frozen)
    assert keeper.group.is_frozen() == frozen
    before = now_ns()
    keeper.process.kill()
    assert keeper.group._wait("populated 0", 5) - before < SECOND


def test_an_error_of_its_own_ends_the_job(spawn: Spawn) -> None:
    keeper = spawn("deadman.Cgroup.freeze = lambda *_: 1 / 0")
    keeper.start()
    assert isinstance(keeper.hear(), protocol.Started)
    keeper.channel.send(protocol.Halt(klass="hard", reason="drift.pcr", cause_ns=now_ns()))
    dead = keeper.hear()
    assert isinstance(dead, protocol.Dead)
    assert (dead.klass, dead.reason) == ("hard", "deadman.failed")
    assert keeper.group.is_empty()
    assert keeper.process.wait(10) == os.EX_SOFTWARE


def test_a_group_that_does_not_freeze_is_killed(spawn: Spawn) -> None:
    keeper = spawn("def stuck(*_): raise deadman.Stuck('a page that never arrives')\ndeadman.Cgroup.freeze = stuck")
    keeper.begin(frozen=False)
    keeper.channel.send(protocol.LeaseUpdate(token=keeper.job.chain.token(), asked_at_ns=ago(9.8)))
    assert isinstance(keeper.hear(), protocol.Renewed)
    dead = keeper.hear()
    assert isinstance(dead, protocol.Dead)
    assert (dead.klass, dead.reason, dead.frozen_ns) == ("stale", "lease.expired", None)
    assert keeper.group.is_empty()


WAIT = """
import select
from agent.clock import Timer, now_ns
spawn = deadman.launch.spawn
def late(*arguments):
    timer = Timer()
    timer.arm(now_ns() + 500_000_000)
    select.select([timer], [], [])
    return spawn(*arguments)
deadman.launch.spawn = late
"""
UNCOUNTED = "deadman.Cgroup.processes = lambda *_: []"
LATE = {
    "the lease ends while the job is made ready": (WAIT, 9.7, "lease.expired"),
    "init is not counted in the group": (UNCOUNTED, 0, "launch.setup"),
}


@pytest.mark.parametrize(("before", "age", "reason"), LATE.values(), ids=LATE.keys())
def test_the_barrier_stays_shut(spawn: Spawn, before: str, age: float, reason: str) -> None:
    keeper = spawn(before)
    keeper.start(ago(age))
    refused = keeper.hear()
    assert isinstance(refused, protocol.Refused)
    assert refused.reason == reason
    assert keeper.channel.receive() is None
    assert keeper.process.wait(10) == 0


def test_a_group_that_is_not_there(spawn: Spawn) -> None:
    keeper = spawn()
    keeper.group.remove()
    keeper.start()
    refused = keeper.hear()
    assert isinstance(refused, protocol.Refused)
    assert refused.reason == "launch.setup"


def test_a_lease_that_is_only_read_after_the_hold_time_does_not_thaw(spawn: Spawn) -> None:
    keeper = spawn()
    frozen = keeper.begin(frozen=True)
    assert frozen is not None
    os.kill(keeper.process.pid, signal.SIGSTOP)
    keeper.channel.send(protocol.LeaseUpdate(token=keeper.job.chain.token(), asked_at_ns=now_ns()))
    timer = Timer()
    timer.arm(frozen.until_ns)
    assert select.select([timer], [], [], 5)[0]
    timer.close()
    os.kill(keeper.process.pid, signal.SIGCONT)
    dead = keeper.hear()
    assert isinstance(dead, protocol.Dead)
    assert (dead.klass, dead.reason) == ("stale", "lease.hold")
