"""A job under a deadman: started, renewed, frozen, thawed, drained, halted - real processes, real kills."""

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import launch, protocol
from agent.cgroup import Cgroup, sweep
from agent.clock import SECOND, Timer, now_ns
from agent.hold import Halt, Hold, Limits
from agent.protocol import DRAIN, HARD, STALE
from attestation.cose import ES256, SoftwareSigner
from attestation.errors import Untrusted
from attestation.lease import Lease, sign_lease
from tests.agent.holding import ROOT, UID, Chain, Job, ago

pytestmark = pytest.mark.root

Make = Callable[..., Job]
FREEZE_BOUND_NS = SECOND // 4

TICK = "import time\nprint('up\\n', end='')\nwhile True: print('tick'); time.sleep(0.01)"
IDLE = "import signal\nprint('up\\n', end='')\nwhile True: signal.pause()"
DEAF = "import signal\nfor n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)\n" + IDLE
ESCAPEES = {
    "plain": IDLE,
    "ignores every signal": DEAF,
    "forked twice, own session": f"import os\nif os.fork() == 0:\n os.setsid()\n os.fork() and os._exit(0)\n{IDLE}",
    "fork bomb": "import os\nprint('up\\n', end='')\nwhile True:\n try: os.fork()\n except OSError: pass",
    "busy on every core": f"import os\n[os.fork() for _ in range(3)]\n{IDLE.replace('signal.pause()', 'pass')}",
    "stops itself": f"import os, signal\nif os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\n{IDLE}",
}


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Make]:
    made: list[Job] = []

    def make(source: str = IDLE, limits: Limits | None = None, **changes: object) -> Job:
        new = Job(tmp_path / str(len(made)), source, changes=changes)
        new.limits = limits or new.limits
        made.append(new)
        return new

    yield make
    for each in made:
        if hasattr(each, "hold"):
            each.hold.halt(HARD, "agent.gone", now_ns())
            assert each.hold.wait(10).cgroup_empty
            assert not each.hold.group.path.exists()
            each.output.close()
        else:
            each.close()
    if ROOT.exists():
        sweep(ROOT, set())
        ROOT.rmdir()


# --- start -----------------------------------------------------------------------------------------------------

INSIDE = """
import json, os, sys
fds = os.listdir('/proc/self/fd')
print(json.dumps({
    'uid': os.getresuid(), 'gid': os.getresgid(), 'groups': os.getgroups(), 'cwd': os.getcwd(), 'env': dict(os.environ),
    'fds': fds, 'pids': sorted(n for n in os.listdir('/proc') if n.isdigit()), 'pid': os.getpid(), 'sid': os.getsid(0),
    'run': sorted(os.listdir('/run/interlock')), 'tmp': os.listdir('/tmp'), 'shm': os.listdir('/dev/shm'),
    'argv': sys.argv, 'executable': sys.executable, 'code': open('/run/interlock/code/train.py').read(),
    'mounts': {line.split()[4]: line.split()[5] for line in open('/proc/self/mountinfo')},
    'status': dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines()),
}))
"""


def test_what_a_job_finds_itself_in(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PYTHONSTARTUP", "/evil.py")
    made = job(INSIDE, env={"EPOCHS": "3"}, groups=(4712,))
    hold = made.start()
    found = json.loads(made.line())
    outcome = hold.wait(10)
    assert (outcome.exit_code, outcome.halts, outcome.refused, outcome.leftover) == (0, (), None, 0)
    assert found["uid"] == found["gid"] == [UID] * 3
    assert found["groups"] == [4712]
    assert found["cwd"] == "/run/interlock/code"
    del found["env"]["LC_CTYPE"]  # the interpreter's own
    assert found["env"] == {
        "EPOCHS": "3",
        "HOME": "/run/interlock/out",
        "PATH": "/run/interlock/env/bin:/usr/local/bin:/usr/bin:/bin",
        "INTERLOCK_OUT": "/run/interlock/out",
    }
    assert sorted(found["fds"]) == ["0", "1", "2", "3"]  # the last one is the listing's
    assert found["pids"] == ["1", str(found["pid"])]
    assert found["sid"] == found["pid"]
    assert (found["run"], found["tmp"], found["shm"]) == (["code", "env", "out"], [], [])
    assert (found["argv"], found["executable"]) == (["-c"], "/run/interlock/env/bin/python")
    assert found["code"] == "print('train')\n"
    options = {path: set(text.split(",")) & {"ro", "rw", "nosuid", "nodev"} for path, text in found["mounts"].items()}
    for path in ("env", "code"):
        assert options[f"/run/interlock/{path}"] == {"ro", "nosuid", "nodev"}
    for path in ("/run/interlock/out", "/tmp", "/dev/shm"):
        assert options[path] == {"rw", "nosuid", "nodev"}
    status = found["status"]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "SigBlk", "SigPnd")} == {"0" * 16}
    assert int(status["SigIgn"], 16) & ~(1 << 12 | 1 << 24) == 0  # the interpreter ignores SIGPIPE and SIGXFSZ
    started = made.events.wait(protocol.Started)
    assert started.applied == outcome.applied
    assert {"no_new_privs", "seccomp", "rlimit.core"} <= set(outcome.applied)


ATTEMPTS = """
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    if libc.syscall(*args) == -1: raise OSError(ctypes.get_errno(), 'refused')
def write(path):
    with open(path, 'w') as file: file.write('1')
deadman, group = int(sys.argv[1]), sys.argv[2]
attempts = {
    'write to the staged code': lambda: write('/run/interlock/code/train.py'),
    'add to the staged code': lambda: write('/run/interlock/code/new.py'),
    'write to the environment': lambda: write('/run/interlock/env/pyvenv.cfg'),
    'add beside them': lambda: write('/run/interlock/new'),
    'leave the cgroup': lambda: write(os.path.dirname(os.path.dirname(group)) + '/cgroup.procs'),
    'thaw itself': lambda: write(group + '/cgroup.freeze'),
    'make a cgroup': lambda: os.mkdir(group + '/inner'),
    'signal the deadman': lambda: os.kill(deadman, signal.SIGKILL),
    'signal init': lambda: os.kill(1, signal.SIGKILL),
    'trace init': lambda: call(101, 16, 1, 0, 0),
    'read the memory of init': lambda: open('/proc/1/mem', 'rb'),
    'new user namespace': lambda: call(272, 0x10000000),
    'clone with a namespace': lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0),
    'clone3': lambda: call(435, 0, 0),
    'io_uring': lambda: call(425, 1, 0),
    'mount': lambda: call(165, b'none', b'/tmp', b'tmpfs', 0, 0),
    'unmount': lambda: call(166, b'/run/interlock/code', 2),
    'mount again, new interface': lambda: call(428, -100, b'/', 1),
    'keyring': lambda: call(250, 0, -3, 0),
    'bpf': lambda: call(321, 0, 0, 0),
    'type on a terminal': lambda: call(16, 0, 0x5412, b'x'),
    'write to a home': lambda: write('/var/tmp/interlock-escape'),
    'more memory than asked for': lambda: bytearray(1 << 30),
    'lift a limit': lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
    'a core file': lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
    'setuid': lambda: os.setuid(0),
}
for name, attempt in attempts.items():
    try: attempt()
    except (OSError, MemoryError, ValueError) as error: continue
    print(name)
write('/run/interlock/out/checkpoint'); write('/tmp/x'); write('/dev/shm/x'); write('/dev/null')
os.rename('/run/interlock/out/checkpoint', '/run/interlock/out/best')
print('end')
"""


def test_what_a_job_cannot_do(job: Make) -> None:
    made = job()
    arguments = (str(os.getpid()), str(Cgroup.of(ROOT, made.chain.cti).path))
    made.changes["argv"] = ("python", "-I", "-S", "-u", "-c", ATTEMPTS, *arguments)
    hold = made.start()
    assert made.output.read().splitlines() == ["end"]
    assert hold.wait(10).exit_code == 0
    assert (made.place / "out" / "best").read_text() == "1"
    assert (made.place / "out" / "best").stat().st_uid == UID
    assert (made.place / "code" / "train.py").read_text() == "print('train')\n"


@pytest.mark.parametrize(
    ("source", "code"),
    [("", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 15)", -15), ("import os; os.abort()", -6)],
)
def test_the_exit_code_is_the_jobs_own(job: Make, source: str, code: int) -> None:
    made = job(source)
    assert made.start().wait(10).exit_code == code
    assert made.events.wait(protocol.Exited).code == code


def test_what_the_main_process_leaves_behind_dies_with_it(job: Make) -> None:
    source = "import os, signal\nfor _ in range(3):\n if os.fork() == 0:\n  os.setsid()\n  while True: signal.pause()"
    outcome = job(source).start().wait(10)
    assert (outcome.exit_code, outcome.leftover, outcome.cgroup_empty) == (0, 3, True)


def test_programs_of_the_environment_run_under_its_interpreter(job: Make) -> None:
    made = job()
    program = made.place / "env" / "bin" / "torchrun"
    program.write_text("#!/nowhere/bin/python\nimport sys; print(sys.prefix, sys.argv)\n")
    program.chmod(0o755)
    made.changes["argv"] = ("torchrun", "train.py")
    made.start()
    assert made.line() == "/run/interlock/env ['/run/interlock/env/bin/torchrun', 'train.py']"


def test_programs_of_the_host_and_of_the_code(job: Make) -> None:
    made = job(argv=("echo", "hello"))
    made.start()
    assert made.line() == "hello"
    made = job(argv=("/run/interlock/code/run.sh",))
    (made.place / "code" / "run.sh").write_text("#!/bin/sh\necho $0 $PATH\n")
    (made.place / "code" / "run.sh").chmod(0o555)
    made.changes["env"] = {"PATH": "/bin", "INTERLOCK_OUT": "/elsewhere"}
    made.start()
    assert made.line() == "/run/interlock/code/run.sh /bin"


REFUSED_SPECS: dict[str, tuple[str, dict[str, object]]] = {
    "root": ("launch.user", {"uid": 0}),
    "group root": ("launch.user", {"gid": 0}),
    "supplementary group root": ("launch.user", {"groups": (4712, 0)}),
    "no command": ("launch.command", {"argv": ()}),
    "empty command": ("launch.command", {"argv": ("",)}),
    "NUL in an argument": ("launch.command", {"argv": ("python", "a\0b")}),
    "NUL in a variable": ("launch.command", {"env": {"A": "\0"}}),
    "variable with =": ("launch.command", {"env": {"A=B": "c"}}),
    "variable without a name": ("launch.command", {"env": {"": "c"}}),
    "no such program": ("launch.command", {"argv": ("pythonista",)}),
    "no such path": ("launch.command", {"argv": ("/run/interlock/code/nothing",)}),
    "not executable": ("launch.command", {"argv": ("/run/interlock/code/train.py",)}),
    "no such environment": ("launch.setup", {"environment": Path("/nonexistent")}),
    "no such code": ("launch.setup", {"code": Path("/nonexistent")}),
    "output is not the job's": ("launch.setup", {"out": Path("/root")}),
    "key is none": ("key.encoding", {"verifier_key_spki": b"\0"}),
}


@pytest.mark.parametrize(("reason", "changes"), REFUSED_SPECS.values(), ids=REFUSED_SPECS.keys())
def test_refused_jobs_never_run(job: Make, reason: str, changes: dict[str, object]) -> None:
    made = job("print('ran')", **changes)
    outcome = made.start().wait(10)
    assert outcome.refused is not None
    assert outcome.refused[0] == reason, outcome.refused
    assert outcome.exit_code is None
    assert made.output.read() == ""


def forged(lease: Lease) -> bytes:
    return sign_lease(lease, SoftwareSigner.generate(ES256), ())


def tampered(chain: Chain) -> bytes:
    token = bytearray(chain.token())
    token[-1] ^= 1
    return bytes(token)


FIRST: dict[str, tuple[str, Callable[[Chain], bytes], float]] = {
    "expired": ("lease.expired", lambda chain: chain.token(), 10),
    "asked for in the future": ("lease.clock", lambda chain: chain.token(), -1),
    "of another grant": ("lease.grant", lambda chain: chain.token(grant=bytes(16)), 0),
    "not the first": ("lease.sequence", lambda chain: chain.token(sequence=1), 0),
    "chained to another": ("lease.chain", lambda chain: chain.token(previous=b"\1" * 32), 0),
    "signed by somebody else": ("cose.kid", lambda chain: forged(chain.lease()), 0),
    "tampered with": ("cose.signature", tampered, 0),
    "not a lease": ("cbor.syntax", lambda chain: b"\xff", 0),
}


@pytest.mark.parametrize(("reason", "token", "age"), FIRST.values(), ids=FIRST.keys())
def test_no_start_without_a_first_lease(job: Make, reason: str, token: Callable[[Chain], bytes], age: float) -> None:
    made = job("print('ran')")
    outcome = made.start(ago(age), token(made.chain)).wait(10)
    assert outcome.refused is not None
    assert outcome.refused[0] == reason, outcome.refused
    assert made.output.read() == ""


def test_a_grant_starts_one_run(job: Make) -> None:
    made = job()
    hold = made.start()
    assert made.line() == "up"
    with pytest.raises(Untrusted, match=r"grant\.replayed"):
        Hold.start(replace(made.spec(), stdio=(0, 1, 2)), b"", now_ns(), ROOT, made.events)
    assert not hold.group.is_empty()


def test_a_start_that_fails_leaves_nothing(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(argv=("python", "x" * 200_000))
    with pytest.raises(Untrusted, match=r"launch\.command"):
        Hold.start(made.spec(), made.chain.token(), now_ns(), ROOT, made.events)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    made = job()
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        Hold.start(made.spec(), made.chain.token(), now_ns(), ROOT, made.events)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(ROOT.glob("*/")) == []


# --- leases ----------------------------------------------------------------------------------------------------


def test_leases_follow_one_another(job: Make) -> None:
    made = job(TICK)
    made.start(ago(5))
    first = made.events.wait(protocol.Started).until_ns
    for sequence in range(1, 5):
        made.renew(ago(4))
        renewed = made.events.wait(protocol.Renewed, sequence)
        assert renewed.sequence == sequence
        assert renewed.until_ns > first
    assert not [each for each in made.events.seen if isinstance(each, protocol.Frozen)]


Renewal = Callable[[Job], tuple[bytes, int]]
RENEWALS: dict[str, tuple[str, Renewal]] = {
    "the same again": ("lease.sequence", lambda made: (made.first, now_ns())),
    "one left out": ("lease.sequence", lambda made: (sign(made, sequence=2), now_ns())),
    "an older one": ("lease.sequence", lambda made: (sign(made, sequence=0), now_ns())),
    "of another grant": ("lease.grant", lambda made: (sign(made, grant=bytes(16)), now_ns())),
    "not chained": ("lease.chain", lambda made: (sign(made, previous=bytes(32)), now_ns())),
    "signed by somebody else": ("cose.kid", lambda made: (forged(made.chain.lease()), now_ns())),
    "tampered with": ("cose.signature", lambda made: (sign(made)[:-1] + b"\0", now_ns())),
    "from the future": ("lease.clock", lambda made: (sign(made), ago(-5))),
    "not a lease": ("cbor.syntax", lambda made: (b"\xff", now_ns())),
}


def sign(made: Job, **changes: object) -> bytes:
    return sign_lease(made.chain.lease(**changes), made.chain.signer, ())


@pytest.mark.parametrize(("reason", "renewal"), RENEWALS.values(), ids=RENEWALS.keys())
def test_a_lease_that_is_not_believed_changes_nothing(job: Make, reason: str, renewal: Renewal) -> None:
    made = job()
    made.first = made.chain.token()
    hold = made.start(token=made.first)
    assert made.line() == "up"
    hold.renew(*renewal(made))
    assert made.events.wait(protocol.LeaseRefused).reason == reason
    made.renew()
    assert made.events.wait(protocol.Renewed).sequence == 1


def test_a_lease_that_comes_too_late_gives_no_time_but_the_next_one_follows_it(job: Make) -> None:
    made = job()
    hold = made.start(ago(7.5))
    assert made.line() == "up"
    made.renew(ago(10))
    assert made.events.wait(protocol.LeaseRefused).reason == "lease.expired"
    frozen = made.events.wait(protocol.Frozen)
    made.renew()
    assert made.events.wait(protocol.Renewed).sequence == 2
    assert made.events.wait(protocol.Thawed).at_ns > frozen.frozen_ns
    assert not hold.group.is_frozen()


def test_silence_freezes_at_the_end_of_the_lease_and_a_fresh_lease_thaws(job: Make) -> None:
    made = job(TICK)
    hold = made.start()
    lease = made.run_out()
    frozen = made.events.wait(protocol.Frozen)
    assert (frozen.reason, frozen.cause_ns) == ("lease.expired", lease.until_ns)
    assert 0 <= frozen.frozen_ns - frozen.cause_ns <= FREEZE_BOUND_NS
    assert hold.group.is_frozen()
    while select.select([made.output], [], [], 0.1)[0]:  # what it printed before; then nothing
        os.read(made.output.fileno(), 65536)
    held = made.chain.last
    hold.renew(made.chain.token(sequence=7), now_ns())
    made.events.wait(protocol.LeaseRefused)
    assert hold.group.is_frozen()
    made.chain.last = held
    made.renew()
    thawed = made.events.wait(protocol.Thawed)
    assert made.line().endswith("tick")
    hold.halt(HARD, "tpm.pcr.mismatch", now_ns())
    outcome = hold.wait(10)
    stale, hard = outcome.halts
    assert stale == Halt(STALE, "lease.expired", frozen.cause_ns, frozen.frozen_ns, None, thawed.at_ns)
    assert (hard.klass, hard.reason) == (HARD, "tpm.pcr.mismatch")


@pytest.mark.parametrize("source", ["agent", "lease"])
def test_after_the_hold_time_the_job_is_killed(job: Make, source: str) -> None:
    made = job(DEAF)
    if source == "agent":
        made.changes["hold_seconds"] = 0.2
    else:
        made.chain.hold = 0
    hold = made.start()
    made.run_out()
    outcome = hold.wait(10)
    hold_ns = SECOND // 5 if source == "agent" else 0
    first, last = outcome.halts
    assert (first.reason, last.klass, last.reason) == ("lease.expired", STALE, "lease.hold")
    assert last.cause_ns == first.cause_ns + hold_ns
    assert last.dead_ns is not None
    assert last.dead_ns == first.dead_ns
    assert last.dead_ns - last.cause_ns < FREEZE_BOUND_NS
    assert outcome.exit_code is None


# --- stop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ESCAPEES.values(), ids=ESCAPEES.keys())
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_hard_halt_leaves_nobody(job: Make, source: str, frozen: bool) -> None:
    made = job(source)
    hold = made.start()
    assert made.line() == "up"
    if frozen:
        made.run_out()
        made.events.wait(protocol.Frozen)
    cause = now_ns()
    hold.halt(HARD, "tpm.pcr.mismatch", cause)
    dead = made.events.wait(protocol.Dead)
    assert (dead.klass, dead.reason, dead.cause_ns) == (HARD, "tpm.pcr.mismatch", cause)
    assert dead.frozen_ns is not None
    assert dead.dead_ns is not None
    assert dead.frozen_ns < dead.dead_ns < cause + SECOND
    outcome = hold.wait(10)
    assert outcome.cgroup_empty
    assert outcome.exit_code is None
    assert outcome.halts[-1] == Halt(HARD, "tpm.pcr.mismatch", cause, dead.frozen_ns, dead.dead_ns)


def test_a_drained_job_that_checkpoints_in_time_leaves_by_itself(job: Make) -> None:
    made = job(
        "import os, signal, sys\n"
        "def end(*_): open(os.environ['INTERLOCK_OUT'] + '/checkpoint', 'w').close(); sys.exit(5)\n"
        "signal.signal(15, end)\n" + IDLE
    )
    hold = made.start()
    assert made.line() == "up"
    hold.drain("grant.revoked")
    outcome = hold.wait(10)
    assert (outcome.exit_code, outcome.cgroup_empty) == (5, True)
    [halt] = outcome.halts
    assert (halt.klass, halt.reason, halt.frozen_ns, halt.dead_ns) == (DRAIN, "grant.revoked", None, None)
    assert (made.place / "out" / "checkpoint").exists()


def test_a_drained_job_that_does_not_listen_is_killed_when_its_grace_is_over(job: Make) -> None:
    made = job(DEAF, Limits(seconds=60, memory_mb=512, processes=40, grace_seconds=0.2))
    hold = made.start()
    assert made.line() == "up"
    hold.drain("grant.revoked")
    hold.drain("grant.revoked")  # saying it twice gives no more time
    outcome = hold.wait(10)
    [halt] = outcome.halts
    assert (halt.klass, halt.reason, outcome.exit_code) == (DRAIN, "grant.revoked", None)
    assert halt.dead_ns is not None
    assert SECOND // 5 <= halt.dead_ns - halt.cause_ns < SECOND // 5 + FREEZE_BOUND_NS


def test_a_drain_never_goes_beyond_the_lease(job: Make) -> None:
    made = job(DEAF)
    hold = made.start()
    assert made.line() == "up"
    until = made.run_out(0.4).until_ns
    hold.drain("grant.revoked")
    [halt] = hold.wait(10).halts
    assert halt.dead_ns is not None
    assert until <= halt.dead_ns < until + FREEZE_BOUND_NS


def test_a_lease_during_a_drain_counts(job: Make) -> None:
    made = job(DEAF, Limits(seconds=60, memory_mb=512, processes=40, grace_seconds=0.6))
    hold = made.start()
    assert made.line() == "up"
    made.run_out(0.4)
    hold.drain("grant.revoked")
    made.renew()
    [halt] = hold.wait(10).halts
    assert halt.dead_ns is not None
    assert halt.dead_ns - halt.cause_ns >= SECOND * 6 // 10


def test_a_frozen_job_cannot_be_drained_and_is_killed(job: Make) -> None:
    made = job()
    hold = made.start()
    made.run_out()
    made.events.wait(protocol.Frozen)
    hold.drain("grant.revoked")
    outcome = hold.wait(10)
    assert [each.reason for each in outcome.halts] == ["lease.expired", "grant.revoked"]
    assert all(each.dead_ns for each in outcome.halts)


def test_the_seconds_of_the_grant_end_in_a_drain(job: Make) -> None:
    made = job("import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\n" + IDLE, Limits(1, 512, 40, 5))
    hold = made.start()
    outcome = hold.wait(10)
    [halt] = outcome.halts
    assert (halt.klass, halt.reason, outcome.exit_code) == (DRAIN, "limit.seconds", 0)


def test_signals_are_handed_to_the_main_process(job: Make) -> None:
    made = job("import signal\nsignal.signal(10, lambda *_: print('usr1'))\n" + IDLE)
    hold = made.start()
    assert made.line() == "up"
    hold.signal(signal.SIGUSR1)
    assert made.line() == "usr1"
    hold.signal(signal.SIGINT)
    assert hold.wait(10).exit_code in {1, -2}
    with pytest.raises(ValueError, match="not handed on"):
        hold.signal(signal.SIGKILL)
    hold.signal(signal.SIGTERM)  # after the end: nobody is there to be told
    with pytest.raises(TimeoutError):
        Hold(made.spec(), hold.group, made.events).wait(0)


# --- faults ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [IDLE, DEAF, ESCAPEES["forked twice, own session"]])
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_killed_deadman_takes_the_job_along(job: Make, source: str, frozen: bool) -> None:
    made = job(source)
    hold = made.start()
    assert made.line() == "up"
    if frozen:
        made.run_out()
        made.events.wait(protocol.Frozen)
    cause = now_ns()
    os.kill(hold.deadman_pid, signal.SIGKILL)
    outcome = hold.wait(10)
    assert outcome.cgroup_empty
    last = outcome.halts[-1]
    assert (last.klass, last.reason) == (HARD, "deadman.died")
    assert last.dead_ns is not None
    assert last.dead_ns - cause < SECOND
    assert made.events.wait(protocol.Dead).reason == "deadman.died"


@pytest.mark.parametrize("after_ms", range(0, 120, 10))
def test_a_deadman_killed_at_any_moment_of_the_start_leaves_nobody(job: Make, after_ms: int) -> None:
    made = job(ESCAPEES["forked twice, own session"])
    hold = made.start()
    timer = Timer()
    timer.arm(now_ns() + after_ms * SECOND // 1000)
    assert select.select([timer], [], [], 5)[0]
    timer.close()
    os.kill(hold.deadman_pid, signal.SIGKILL)
    outcome = hold.wait(10)
    assert (outcome.halts[-1].reason, outcome.cgroup_empty) == ("deadman.died", True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_deadman_that_is_told_to_end_ends_its_job(job: Make, number: int) -> None:
    made = job(DEAF)
    hold = made.start()
    assert made.line() == "up"
    os.kill(hold.deadman_pid, number)
    [halt] = hold.wait(10).halts
    assert (halt.klass, halt.reason) == (HARD, "deadman.signal")


def test_a_hung_deadman_is_ended_when_it_misses_a_halt(job: Make) -> None:
    made = job()
    hold = made.start()
    assert made.line() == "up"
    os.kill(hold.deadman_pid, signal.SIGSTOP)
    hold.halt(HARD, "tpm.pcr.mismatch", now_ns())
    outcome = hold.wait(10)
    assert outcome.cgroup_empty
    assert outcome.halts[-1].reason == "deadman.died"


def test_a_hung_deadman_is_ended_when_its_lease_is_over(job: Make) -> None:
    made = job()
    hold = made.start()
    until = made.run_out().until_ns
    os.kill(hold.deadman_pid, signal.SIGSTOP)
    outcome = hold.wait(10)
    assert outcome.cgroup_empty
    [halt] = outcome.halts
    assert halt.dead_ns is not None
    assert halt.dead_ns - until < 3 * SECOND


def test_a_killed_init_is_the_end(job: Make) -> None:
    made = job(ESCAPEES["forked twice, own session"])
    hold = made.start()
    assert made.line() == "up"
    os.kill(made.events.wait(protocol.Started).pid, signal.SIGKILL)
    outcome = hold.wait(10)
    assert (outcome.exit_code, outcome.cgroup_empty) == (-signal.SIGKILL, True)


AGENT = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.agent.holding import *
made = Job(Path(sys.argv[2]), sys.argv[3])
made.start()
made.line() == 'up' or sys.exit(1)
if sys.argv[4] == 'frozen':
    made.run_out()
    made.events.wait(protocol.Frozen)
print(made.hold.group.path, made.hold.deadman_pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("state", ["running", "frozen"])
@pytest.mark.parametrize("source", [DEAF, ESCAPEES["forked twice, own session"]])
def test_a_killed_agent_takes_the_job_along(tmp_path: Path, source: str, state: str) -> None:
    here = str(Path(__file__).parent.parent.parent)
    program = AGENT.replace("import *", "import *; from agent import protocol")
    agent = subprocess.Popen(
        [sys.executable, "-I", "-c", program, here, str(tmp_path / "job"), source, state],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout is not None
    path, deadman = agent.stdout.readline().split()
    group, watched = Cgroup(Path(path)), os.pidfd_open(int(deadman))
    assert not group.is_empty()
    agent.send_signal(signal.SIGKILL)
    agent.communicate()
    assert select.select([watched], [], [], 5)[0]
    os.close(watched)
    assert group.is_empty()
    assert sweep(group.path.parent, set()) == [bytes.fromhex(group.path.name)]
    group.path.parent.rmdir()


def test_an_agent_that_errs_in_its_own_callback_ends_the_job(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job()

    def err(event: protocol.Event) -> None:
        if isinstance(event, protocol.Renewed):
            raise ConnectionError("ours")

    caught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", caught.append)
    hold = made.start(on_event=err)
    hold.renew(made.chain.token(), now_ns())
    outcome = hold.wait(10)
    assert (outcome.cgroup_empty, outcome.halts[-1].reason) == (True, "deadman.died")
    for thread in threading.enumerate():
        if thread.name.startswith("hold-"):
            thread.join(10)
    assert len(caught) == 1


# --- commands --------------------------------------------------------------------------------------------------


def test_how_a_command_is_found(tmp_path: Path) -> None:
    programs, host = tmp_path / "env", tmp_path / "host"
    for path, text in {
        programs / "python": "\x7fELF",
        programs / "torchrun": "#!/old/bin/python3.11\n",
        programs / "tool": "#!/bin/sh\n",
        programs / "empty": "",
        host / "torchrun": "#!/bin/sh\n",
        host / "script": "#!/usr/bin/python3\n",
        host / "data": "",
    }.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o644 if path.name == "data" else 0o755)
    found = {
        ("python", "-I", "x"): [f"{programs}/python", "-I", "x"],
        ("torchrun", "x"): [f"{programs}/python", f"{programs}/torchrun", "x"],
        ("tool",): [f"{programs}/tool"],
        ("empty",): [f"{programs}/empty"],
        ("script",): [f"{host}/script"],
        (f"{host}/torchrun",): [f"{host}/torchrun"],
    }
    for argv, command in found.items():
        assert launch.resolve(argv, str(host), programs) == command
    for name in ("data", "nothing", f"{host}/data", f"{host}/nothing", str(host)):
        with pytest.raises(Untrusted, match=r"launch\.command"):
            launch.resolve((name,), str(host), programs)
