"""The agent's side of one job: start it under a deadman, pass leases on, stop it, and see it gone.

Rules (design: architecture, "Fail closed"; control, "Hold" and "Stop"):
1. The deadman decides about leases; this side only delivers. Neither side can make a job outlive its lease.
2. Each watches the other. The deadman kills when this side's channel ends. This side kills when the deadman ended
   without a final word, and ends a deadman that misses its own deadline by more than two seconds.
3. After the last word the control group is killed once more, seen empty and removed: only that is `cgroup_empty`. What
   the job was given as secrets is emptied, whether the deadman has done so or not.
4. A grant's control group is made once. Where it exists the grant was used, and nothing is started.

The deadman is started from the files that this agent runs from, never from what an upgrade has put beside them.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from agent import memory, protocol
from agent.cgroup import Cgroup, Stuck
from agent.clock import SECOND, Timer, now_ns
from agent.protocol import Channel, Event
from attestation.errors import Malformed, Untrusted
from attestation.wire import Wire

_ROOT: Final = str(Path(__file__).resolve().parent.parent)
_ENTRY: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from agent.deadman import main; main()"
_PATIENCE_NS: Final = 2 * SECOND
_LONGEST_COMMAND: Final = 1 << 17  # a packet has room for that and a lease
_START_NS: Final = 10 * SECOND


@dataclass(frozen=True)
class Limits:
    """Bounds of a run: seconds from its start, memory in MB, tasks, and seconds to end in when asked to."""

    seconds: int
    memory_mb: int
    processes: int
    grace_seconds: float = 30.0


@dataclass(frozen=True)
class JobSpec:
    """Everything that a deadman is told about a job. `code` is staged, `environment` a venv, `out` the job's own."""

    cti: bytes
    argv: tuple[str, ...]
    env: Mapping[str, str]
    uid: int
    gid: int
    code: Path
    environment: Path
    out: Path
    limits: Limits
    hold_seconds: float
    verifier_key_spki: bytes
    stdio: tuple[int, int, int]
    groups: tuple[int, ...] = ()
    secrets: Mapping[str, int] = field(default_factory=dict)
    """The memory file of each secret (agent.memory), filled. The descriptors stay the caller's, who may close them."""


@dataclass(frozen=True)
class Halt:
    """One stop of a job, times in ns of CLOCK_BOOTTIME. Dead or thawed, or neither where a drained job left by itself.

    `klass` is hard, drain or stale; `cause_ns` is when the reason arose, and the rest what was measured.
    """

    klass: str
    reason: str
    cause_ns: int
    frozen_ns: int | None = None
    dead_ns: int | None = None
    thawed_ns: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `refused` (reason, detail) where it never started; `exit_code` where it ended by itself."""

    exit_code: int | None
    halts: tuple[Halt, ...]
    applied: tuple[str, ...]
    cgroup_empty: bool
    leftover: int = 0
    refused: tuple[str, str] | None = None


class Hold:
    """A started job. Events come from a thread of this object, one at a time; every method returns at once."""

    def __init__(self, spec: JobSpec, group: Cgroup, on_event: Callable[[Event], None]) -> None:
        self._spec = spec
        self._group = group
        self._on_event = on_event
        self._outcome = Outcome(None, (), (), cgroup_empty=False)
        self._final = False
        self._halting = False
        self._frozen = False
        self._until_ns = 0
        self._init_pid: int | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()  # no descriptor is used after it was closed
        self._closed = False

    @classmethod
    def start(
        cls, spec: JobSpec, lease_token: bytes, asked_at_ns: int, cgroup_root: Path, on_event: Callable[[Event], None]
    ) -> "Hold":
        """Start the job of `spec` under its first lease. Its descriptors may be closed when this returns.

        Untrusted("grant.replayed"): the grant has a control group already (rule 4). Untrusted("launch.command"): it is
        too long. Every other refusal is the event
        `Refused`, and in `Outcome.refused`. OSError: the host has no room for another process.
        """
        hold = cls(spec, Cgroup.of(cgroup_root, spec.cti), on_event)
        hold._start(lease_token, asked_at_ns)
        return hold

    def _start(self, lease_token: bytes, asked_at_ns: int) -> None:
        spec = self._spec
        if sum(len(each.encode()) for each in (*spec.argv, *spec.env, *spec.env.values())) > _LONGEST_COMMAND:
            raise Untrusted("launch.command", f"arguments and variables have more than {_LONGEST_COMMAND} bytes")
        try:
            self._group.create()
        except FileExistsError as error:
            raise Untrusted("grant.replayed", f"{self._group.path} exists") from error
        try:
            limited = self._group.limit(spec.limits.memory_mb, spec.limits.processes)
            self._deadman, self._channel = _spawn()
        except OSError:
            self._group.remove()
            raise
        self._watch = Timer()
        self._watch.arm(now_ns() + _START_NS)
        secrets = (spec.secrets[name] for name in sorted(spec.secrets))
        self._secrets = tuple(map(os.dup, secrets))
        self._send(self._message(lease_token, asked_at_ns, limited), (*spec.stdio, *self._secrets))
        threading.Thread(target=self._listen, name=f"hold-{spec.cti.hex()[:8]}", daemon=True).start()

    def _message(self, lease_token: bytes, asked_at_ns: int, limited: tuple[str, ...]) -> protocol.Start:
        spec, limits = self._spec, self._spec.limits
        return protocol.Start(
            cgroup=str(self._group.path),
            grant=spec.cti,
            argv=spec.argv,
            env=spec.env,
            uid=spec.uid,
            gid=spec.gid,
            groups=spec.groups,
            code=str(spec.code),
            environment=str(spec.environment),
            out=str(spec.out),
            seconds=limits.seconds,
            memory_mb=limits.memory_mb,
            processes=limits.processes,
            limited=limited,
            hold_ns=int(spec.hold_seconds * SECOND),
            grace_ns=int(limits.grace_seconds * SECOND),
            key=spec.verifier_key_spki,
            lease=lease_token,
            asked_at_ns=asked_at_ns,
            secrets=tuple(sorted(spec.secrets)),
        )

    # --- what the agent asks for -------------------------------------------------------------------------------

    @property
    def deadman_pid(self) -> int:
        """The deadman's process."""
        return self._deadman.pid

    @property
    def init_pid(self) -> int | None:
        """The job's init, PID 1 of its namespace; None until the job started."""
        return self._init_pid

    @property
    def group(self) -> Cgroup:
        """The job's control group."""
        return self._group

    def renew(self, token: bytes, asked_at_ns: int) -> None:
        """Deliver the next lease; answered by the event `Renewed` or `LeaseRefused`."""
        self._send(protocol.LeaseUpdate(token=token, asked_at_ns=asked_at_ns))

    def filled(self) -> None:
        """Say that the secrets of a frozen job are back under the lease that it has now; answered by `Thawed`."""
        self._send(protocol.Filled())

    def halt(self, klass: str, reason: str, cause_ns: int) -> None:
        """Stop the job, `hard` or `drain`. After a hard halt the event `Dead` comes within moments, or rule 2 acts."""
        with self._lock:
            if klass == protocol.HARD and not self._closed:
                self._halting = True
                self._watch.arm(now_ns() + _PATIENCE_NS)
        self._send(protocol.Halt(klass=klass, reason=reason, cause_ns=cause_ns))

    def drain(self, reason: str) -> None:
        """Ask the job to end: SIGTERM, and the grace time of its limits."""
        self.halt(protocol.DRAIN, reason, now_ns())

    def signal(self, number: int) -> None:
        """Hand a signal to the job's main process; ValueError for one that is not handed on."""
        if number not in protocol.FORWARDED:
            raise ValueError(f"signal {number} is not handed on")
        self._send(protocol.Signal(number=int(number)))

    def wait(self, timeout: float | None = None) -> Outcome:
        """How it ended. TimeoutError where it has not yet."""
        if not self._done.wait(timeout):
            raise TimeoutError(f"the job did not end within {timeout} s")
        return self._outcome

    def _send(self, message: Wire, descriptors: tuple[int, ...] = ()) -> None:
        with self._lock:
            if self._closed:
                return  # it is over: nobody is there to be told
            try:
                self._channel.send(message, descriptors)
            except OSError:  # it ended, which the listening thread sees too, or does not read what it is told (rule 2)
                self._deadman.kill()

    # --- what the deadman says ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            with contextlib.suppress(Malformed):  # a deadman that talks nonsense is treated as one that died
                while (event := self._next()) is not None:
                    self._take(event)
                    self._on_event(event)
        finally:
            self._finish()

    def _next(self) -> Event | None:
        poll = select.poll()
        poll.register(self._watch, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        if self._channel.fileno() not in dict(poll.poll()):
            self._watch.arm(None)
            self._deadman.kill()  # rule 2: it is late; its end is seen in the next line
        received = self._channel.receive()
        if received is None:
            return None
        if not isinstance(received[0], Event):
            raise Malformed("deadman.protocol", type(received[0]).__name__)
        return received[0]

    def _expect_word(self, at_ns: int) -> None:
        """Rule 2: something must be heard soon after `at_ns`. A hard halt leaves no later time."""
        if not self._halting:
            self._watch.arm(at_ns + _PATIENCE_NS)

    def _take(self, event: Event) -> None:
        if isinstance(event, protocol.Dead | protocol.Exited | protocol.Refused):
            self._last(event)
        match event:
            case protocol.Started():
                self._init_pid = event.pid
                self._outcome = replace(self._outcome, applied=event.applied)
                self._expect_word(event.until_ns)
            case protocol.Renewed():
                self._until_ns = event.until_ns
                if not self._frozen:  # it says nothing at the end of a lease while it is
                    self._expect_word(event.until_ns)
            case protocol.Draining():
                self._add(Halt(protocol.DRAIN, event.reason, event.cause_ns))
            case protocol.Frozen():
                self._frozen = True
                self._expect_word(event.until_ns)
                self._add(Halt(protocol.STALE, event.reason, event.cause_ns, event.frozen_ns))
            case protocol.Thawed():
                self._frozen = False
                self._expect_word(self._until_ns)
                *before, last = self._outcome.halts
                self._outcome = replace(self._outcome, halts=(*before, replace(last, thawed_ns=event.at_ns)))

    def _last(self, event: protocol.Dead | protocol.Exited | protocol.Refused) -> None:
        self._final = True
        self._watch.arm(None)
        match event:
            case protocol.Exited():
                self._outcome = replace(self._outcome, exit_code=event.code, leftover=event.leftover)
            case protocol.Refused():
                self._outcome = replace(self._outcome, refused=(event.reason, event.detail))
            case protocol.Dead():
                self._dead(event)

    def _add(self, halt: Halt) -> None:
        self._outcome = replace(self._outcome, halts=(*self._outcome.halts, halt))

    def _dead(self, dead: protocol.Dead) -> None:
        """The last halt: it completes the one that is open where it is the same, else it ends that one too."""
        halts = list(self._outcome.halts)
        if halts and halts[-1].thawed_ns is None:
            halts[-1] = replace(halts[-1], dead_ns=dead.dead_ns)
        same = halts and (halts[-1].klass, halts[-1].reason) == (dead.klass, dead.reason)
        if not same:
            halts.append(Halt(dead.klass, dead.reason, dead.cause_ns, dead.frozen_ns, dead.dead_ns))
        self._outcome = replace(self._outcome, halts=tuple(halts))

    def _finish(self) -> None:
        """Rule 3, and rule 2 where there was no last word."""
        cause_ns, dead_ns = now_ns(), None
        if not self._final:
            self._deadman.kill()
        with contextlib.suppress(Stuck):
            dead_ns = self._group.kill_and_wait()
            with contextlib.suppress(OSError):
                self._group.remove()
        for each in self._secrets:
            memory.empty(each)
            os.close(each)
        if not self._final:
            dead = protocol.Dead(klass=protocol.HARD, reason="deadman.died", cause_ns=cause_ns, dead_ns=dead_ns)
            self._last(dead)
            self._on_event(dead)
        self._outcome = replace(self._outcome, cgroup_empty=dead_ns is not None)
        self._done.set()
        self._deadman.wait()
        with self._lock:
            self._closed = True
            self._channel.close()
            self._watch.close()


def _spawn() -> "tuple[subprocess.Popen[bytes], Channel]":
    """A deadman, and this side of its channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            deadman = subprocess.Popen(
                [sys.executable, "-I", "-c", _ENTRY, _ROOT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    return deadman, Channel(ours)
