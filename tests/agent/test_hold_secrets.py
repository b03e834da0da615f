"""Secrets under a deadman: a job reads them while it may run, and nothing is left of them when it may not."""

import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import memory, protocol
from agent.cgroup import sweep
from agent.clock import SECOND, now_ns
from agent.hold import Limits
from agent.protocol import DRAIN, HARD
from tests.agent.holding import ROOT, Job, ago

pytestmark = pytest.mark.root

KEY, TOKEN = b"the key of the weights", b"another"
TELL = """
import json, os, signal, sys
given = os.environ.get("INTERLOCK_SECRETS", "")
pairs = dict(each.rsplit(":", 1) for each in given.split(",") if each)
def tell(*_):
    print(json.dumps({name: os.pread(int(n), 128, 0).decode() for name, n in pairs.items()}), flush=True)
signal.signal(signal.SIGUSR1, tell)
print(given, flush=True)
tell()
while True: signal.pause()
"""

Make = Callable[..., "Holder"]


class Holder:
    """A job with secrets, whose memory files this process keeps, as the agent does."""

    def __init__(self, place: Path, source: str, limits: Limits | None = None) -> None:
        self.files = {"weights": memory.make("weights"), "api": memory.make("api")}
        self.fill()
        self.job = Job(place, source, changes={"secrets": self.files})
        self.job.limits = limits or self.job.limits

    def fill(self) -> None:
        memory.fill(self.files["weights"], bytearray(KEY))
        memory.fill(self.files["api"], bytearray(TOKEN))

    @property
    def held(self) -> dict[str, bytes]:
        return {name: os.pread(each, 256, 0) for name, each in self.files.items()}

    def told(self) -> dict[str, str]:
        """What the job reads now."""
        self.job.hold.signal(signal.SIGUSR1)
        found: dict[str, str] = json.loads(self.job.line())
        return found

    def started(self) -> "Holder":
        self.job.start()
        assert self.job.line() == "api:3,weights:4"
        assert json.loads(self.job.line()) == {"api": TOKEN.decode(), "weights": KEY.decode()}
        return self

    def frozen(self) -> protocol.Frozen:
        """Let the lease run out."""
        count = sum(isinstance(each, protocol.Frozen) for each in self.job.events.seen)
        self.job.run_out()
        return self.job.events.wait(protocol.Frozen, count + 1)


EMPTY = {"weights": b"", "api": b""}


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Make]:
    made: list[Holder] = []

    def make(source: str = TELL, limits: Limits | None = None) -> Holder:
        made.append(Holder(tmp_path / str(len(made)), source, limits))
        return made[-1]

    yield make
    for each in made:
        each.job.hold.halt(HARD, "agent.gone", now_ns())
        assert each.job.hold.wait(10).cgroup_empty
        assert each.held == EMPTY
        each.job.output.close()
        for descriptor in each.files.values():
            os.close(descriptor)
    if ROOT.exists():
        sweep(ROOT, set())
        ROOT.rmdir()


ALONE = """
import json, os
def tried(act):
    try: act()
    except OSError: return False
    return True
print(json.dumps({
    "fds": sorted(os.listdir("/proc/self/fd")),
    "written": tried(lambda: os.pwrite(3, b"x", 0)),
    "shrunk": tried(lambda: os.ftruncate(3, 0)),
    "opened to write": tried(lambda: os.open("/proc/self/fd/3", os.O_RDWR)),
    "sealed": tried(lambda: __import__("fcntl").fcntl(3, 1033, 2)),
    "links": [os.readlink(f"/proc/self/fd/{n}") for n in (3, 4)],
}))
"""


def test_a_job_reads_its_secrets_and_can_do_nothing_else_with_them(holder: Make) -> None:
    made = holder(ALONE)
    made.job.start()
    found = json.loads(made.job.line())
    assert found.pop("fds") == ["0", "1", "2", "3", "4", "5"]  # the last one is the listing's
    assert found.pop("links") == ["/memfd:interlock:api (deleted)", "/memfd:interlock:weights (deleted)"]
    assert not any(found.values()), found
    assert made.job.hold.wait(10).exit_code == 0


def test_a_memory_file_cannot_be_sealed_against_being_emptied() -> None:
    descriptor = memory.make("weights")
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)
    os.close(descriptor)


def test_what_somebody_keeps_of_its_pages_is_overwritten() -> None:
    """A pipe into which the file was spliced holds the page itself, also when the file is cut."""
    descriptor, (reading, writing) = memory.make("weights"), os.pipe()
    memory.fill(descriptor, bytearray(KEY))
    assert os.splice(descriptor, writing, len(KEY), offset_src=0) == len(KEY)
    memory.empty(descriptor)
    assert os.read(reading, 99) == bytes(len(KEY))
    for each in (descriptor, reading, writing):
        os.close(each)


def test_a_program_that_the_job_starts_inherits_what_it_wants_to_hand_on(holder: Make) -> None:
    source = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-I', '-S', '-c', 'import os; print(os.pread(4, 99, 0).decode())']\n"
        "subprocess.run(command, pass_fds=(4,))"
    )
    made = holder(source)
    made.job.start()
    assert made.job.line() == KEY.decode()


def test_a_worker_reads_them_from_its_parent(holder: Make) -> None:
    """As torchrun's workers do: their descriptors are closed, and the launcher's are in /proc."""
    worker = "import os; print(os.pread(os.open(f'/proc/{os.getppid()}/fd/4', os.O_RDONLY), 99, 0).decode())"
    source = f'import subprocess, sys\nsubprocess.run([sys.executable, "-I", "-S", "-c", {worker!r}])'
    made = holder(source)
    made.job.start()
    assert made.job.line() == KEY.decode()


def test_what_was_mapped_is_gone_with_the_freeze(holder: Make) -> None:
    source = TELL.replace(
        "def tell(", "import mmap\nmapped = mmap.mmap(int(pairs['weights']), 0, prot=mmap.PROT_READ)\ndef tell("
    ).replace("signal.signal(signal.SIGUSR1, tell)", "signal.signal(signal.SIGUSR1, lambda *_: print(mapped[:3]))")
    made = holder(source).started()
    made.frozen()
    made.job.renew()
    made.job.events.wait(protocol.Renewed, 2)
    made.job.hold.filled()
    made.job.events.wait(protocol.Thawed)
    made.job.hold.signal(signal.SIGUSR1)
    assert made.job.hold.wait(10).exit_code == -signal.SIGBUS


def test_frozen_they_are_gone_and_thawed_they_are_back(holder: Make) -> None:
    made = holder().started()
    made.frozen()
    assert made.held == EMPTY
    made.job.renew()
    made.job.events.wait(protocol.Renewed, 2)
    made.fill()
    assert not [each for each in made.job.events.seen if isinstance(each, protocol.Thawed)]
    made.job.hold.filled()
    made.job.events.wait(protocol.Thawed)
    assert made.told() == {"api": TOKEN.decode(), "weights": KEY.decode()}


def test_a_fresh_lease_alone_does_not_thaw(holder: Make) -> None:
    """Nor does it prolong how long a frozen job is kept, whoever says that the secrets are back too late."""
    made = holder()
    made.job.changes["hold_seconds"] = 1.5
    made.started()
    until = made.frozen().until_ns
    made.job.renew()
    made.job.events.wait(protocol.Renewed, 2)
    dead = made.job.events.wait(protocol.Dead)
    assert (dead.klass, dead.reason) == ("stale", "lease.hold")
    assert dead.dead_ns is not None
    assert 0 <= dead.dead_ns - until < SECOND


def test_secrets_that_come_back_after_the_lease_go_again(holder: Make) -> None:
    made = holder().started()
    made.frozen()
    made.job.renew(ago(9.9))
    made.job.events.wait(protocol.Renewed, 2)
    made.fill()
    while now_ns() < made.job.events.wait(protocol.Renewed, 2).until_ns:
        signal.sigtimedwait((), 0.02)
    made.job.hold.filled()
    made.job.renew()
    made.job.events.wait(protocol.Renewed, 3)  # so the word before it was read
    assert made.held == EMPTY
    assert not [each for each in made.job.events.seen if isinstance(each, protocol.Thawed)]
    made.fill()
    made.job.hold.filled()
    made.job.events.wait(protocol.Thawed)
    assert made.told()["weights"] == KEY.decode()


def test_secrets_that_came_back_and_nobody_says_so_go_with_the_lease(holder: Make) -> None:
    """An agent that hangs between filling and saying so leaves them to whoever reads /proc, until the lease ends."""
    made = holder().started()
    made.frozen()
    made.job.renew(ago(9.0))
    until = made.job.events.wait(protocol.Renewed, 2).until_ns
    made.fill()
    assert made.held["weights"] == KEY
    while now_ns() < until + SECOND // 4:
        signal.sigtimedwait((), 0.02)
    assert made.held == EMPTY
    made.job.renew()  # and it goes on as ever
    made.job.events.wait(protocol.Renewed, 3)
    made.fill()
    made.job.hold.filled()
    made.job.events.wait(protocol.Thawed)
    assert made.told()["weights"] == KEY.decode()


def test_the_word_that_they_are_back_changes_nothing_for_a_running_job(holder: Make) -> None:
    made = holder().started()
    made.job.hold.filled()
    assert made.told()["weights"] == KEY.decode()


def test_a_frozen_job_with_secrets_is_not_taken_for_a_dead_deadman(holder: Make) -> None:
    """Between a lease and the word `Filled` the deadman has nothing to say, however long that takes."""
    made = holder().started()
    made.frozen()
    made.job.renew(ago(9.9))  # its end passes unheard
    made.job.events.wait(protocol.Renewed, 2)
    signal.sigtimedwait((), 2.5)
    made.job.renew()
    made.job.events.wait(protocol.Renewed, 3)
    made.fill()
    made.job.hold.filled()
    made.job.events.wait(protocol.Thawed)


ENDS: dict[str, Callable[[Holder], object]] = {
    "halted": lambda made: made.job.hold.halt(HARD, "drift.pcr", now_ns()),
    "drained": lambda made: made.job.hold.halt(DRAIN, "agent.stopped", now_ns()),
    "ended by a signal": lambda made: made.job.hold.signal(signal.SIGINT),
    "the deadman is killed": lambda made: os.kill(made.job.hold.deadman_pid, signal.SIGKILL),
    "frozen, then halted": lambda made: made.job.hold.halt(HARD, "drift.pcr", made.frozen().cause_ns),
    "frozen, then drained": lambda made: made.job.hold.halt(DRAIN, "agent.stopped", made.frozen().cause_ns),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_nothing_is_left_at_the_end(holder: Make, end: Callable[[Holder], object]) -> None:
    made = holder().started()
    end(made)
    assert made.job.hold.wait(10).cgroup_empty
    assert made.held == EMPTY


@pytest.mark.parametrize("name", [name for name in ENDS if "deadman" not in name])
def test_the_deadman_has_emptied_them_when_it_says_its_last_word(holder: Make, name: str) -> None:
    made, seen = holder(), list[dict[str, bytes]]()

    def listen(event: protocol.Event) -> None:  # the agent empties them after the last event, and not before
        if isinstance(event, protocol.Dead | protocol.Exited):
            seen.append(made.held)
        made.job.events(event)

    made.job.start(on_event=listen)
    made.job.events.wait(protocol.Started)
    assert made.job.line().startswith("api:3")
    ENDS[name](made)
    made.job.hold.wait(10)
    assert seen == [EMPTY]


def test_descriptors_that_were_closed_meanwhile_are_nobody_elses(holder: Make, tmp_path: Path) -> None:
    """Who closes theirs while the job runs finds no other file emptied that has the number by then."""
    made = holder().started()
    number = made.files.pop("api")
    os.close(number)
    other = tmp_path / "journal.db"
    other.write_bytes(b"not a secret")
    descriptor = os.open(other, os.O_RDWR)
    assert descriptor == number
    made.job.hold.halt(HARD, "drift.pcr", now_ns())
    assert made.job.hold.wait(10).cgroup_empty
    os.close(descriptor)
    assert other.read_bytes() == b"not a secret"
    made.files["api"] = memory.make("api")


def test_nothing_is_left_of_a_job_that_was_refused(holder: Make) -> None:
    made = holder()
    made.job.changes["argv"] = ("pythonista",)
    made.job.start()
    assert made.job.hold.wait(10).refused
    assert made.held == EMPTY


@pytest.mark.parametrize("name", ["a:b", "a,b", "", "a\nb", "a\0b"], ids=repr)
def test_a_name_that_cannot_stand_in_the_variable_is_refused(holder: Make, name: str) -> None:
    made = holder()
    made.files[name] = made.files.pop("api")
    made.job.start()
    refused = made.job.hold.wait(10).refused
    assert refused is not None
    assert refused[0] == "launch.command"
    made.files["api"] = made.files.pop(name)
