"""The deadman: one small process per job, which stops the job when no valid lease is held. It needs to be told nothing.

`python -I ... agent.deadman DESCRIPTOR`, where DESCRIPTOR is its end of a channel to the agent (agent/protocol.py).

Rules (design: architecture, "Fail closed"; control, "Hold" and "Stop"):
1. Every lease is verified here: signed under the pinned key, of this grant, next in sequence, chained to the last.
2. A lease runs from the moment its challenge was asked for, on CLOCK_BOOTTIME. At its end the job is frozen; a fresh
   lease within the hold time thaws it; else it is killed. The hold time is the shorter of the agent's and the lease's.
3. A hard halt freezes, then kills. A drain is SIGTERM and time, never beyond the lease, then kills.
4. The end of the channel, SIGTERM, SIGINT, and any error of its own kill the job at once.
5. Dead means that the kernel calls the control group empty.
6. A job's secrets are emptied here when it is frozen and when it has ended. A job with secrets is thawed by `Filled`
   alone: the agent has them back, and a lease is in force then. Its hold time counts from when it was frozen. Where a
   lease ends while it waits for that word they are emptied once more: the agent may have filled them and hang.

| State | Start | LeaseUpdate | Filled | Halt hard | Halt drain | Signal | lease ends | seconds, hold, grace over |
|---|---|---|---|---|---|---|---|---|
| waiting | running | - | - | - | - | - | | |
| running | - | running | running | ended | draining | handed on | frozen | draining by seconds |
| frozen | - | running (6) | running | ended | ended | handed on | frozen (6) | ended by hold |
| draining | - | draining | draining | ended | draining | handed on | ended | ended by grace |

"-" is a broken agent (rule 4). The end of init ends every state.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Final

from agent import launch, memory
from agent.cgroup import Cgroup, Stuck
from agent.clock import SECOND, Timer, now_ns
from agent.protocol import (
    DRAIN,
    HARD,
    STALE,
    Applied,
    Channel,
    Dead,
    Draining,
    Exited,
    Failed,
    Filled,
    Frozen,
    Halt,
    LeaseRefused,
    LeaseUpdate,
    Left,
    Refused,
    Renewed,
    Signal,
    Start,
    Started,
    Thawed,
)
from attestation.cose import PublicKey
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.lease import Lease, verify_lease
from attestation.wire import Wire

_HARD_FREEZE_S: Final = 0.1


class State(Enum):
    """Where a job stands; the table is in the module's docstring."""

    RUNNING = auto()
    FROZEN = auto()
    DRAINING = auto()
    ENDED = auto()


class Held:
    """The lease in force: verifies the next one against it (rules 1 and 2)."""

    def __init__(self, start: Start) -> None:
        self._grant = start.grant
        self._key = PublicKey.from_spki(start.key)
        self._hold_ns = start.hold_ns
        self._lease: Lease | None = None
        self.until_ns = 0
        self.accept(start.lease, start.asked_at_ns)

    def accept(self, token: bytes, asked_at_ns: int) -> Lease:
        """Put the next lease in force. Malformed or Untrusted where it is none; then there is no more time.

        A lease that came too late gives no time, but it is a link of the chain: the next one follows it.
        """
        lease = verify_lease(token, key=self._key, grant=self._grant, previous=self._lease)
        now = now_ns()
        if asked_at_ns > now:
            raise Untrusted("lease.clock", f"asked for {asked_at_ns - now} ns from now")
        self._lease = lease
        until_ns = asked_at_ns + lease.duration * SECOND
        if now >= until_ns:
            raise Untrusted("lease.expired", f"it ended {(now - until_ns) / SECOND:.3f} s ago")
        self.until_ns = until_ns
        self.hold_until_ns = until_ns + min(self._hold_ns, lease.hold * SECOND)
        return lease


Source = Timer | socket.socket | int | Channel


class Deadman:
    """The event loop of one job, from its barrier to its end."""

    def __init__(
        self, channel: Channel, start: Start, held: Held, init: launch.Init, secrets: Sequence[int] = ()
    ) -> None:
        self._state = State.RUNNING
        self._secrets, self._is_empty = secrets, False
        self._channel = channel
        self._held = held
        self._init = init
        self._group = Cgroup(Path(start.cgroup))
        self._timer = Timer()
        self._limit_ns = now_ns() + start.seconds * SECOND
        self._grace_ns = start.grace_ns
        self._draining = Draining(reason="", cause_ns=0, until_ns=0)
        self._frozen_ns: int | None = None
        self._hold_until_ns = 0
        self._last: Failed | Left | None = None
        self._selector = selectors.DefaultSelector()

    def begin(self) -> None:
        """Count init in the job's group, look at the lease once more, and open the barrier."""
        self._group.add(self._init.pid)
        if now_ns() >= self._held.until_ns:
            raise Untrusted("lease.expired", "it ended while the job was made ready")
        self._init.release()

    def run(self, wake: socket.socket) -> None:
        """Serve until the job has ended; `wake` is readable when a signal came."""
        sources: Mapping[Source, Callable[[], None]] = {
            self._timer: self._tick,
            wake: lambda: self._end(HARD, "deadman.signal", now_ns()),
            self._init.pidfd: self._gone,
            self._init.status: self._status,
            self._channel: self._message,
        }
        for source, handler in sources.items():
            self._selector.register(source, selectors.EVENT_READ, handler)
        while not self._ended():
            self._arm()
            for key, _ in self._selector.select():
                if not self._ended():
                    key.data()

    def _ended(self) -> bool:
        return self._state is State.ENDED

    def refuse(self, refused: Refused) -> None:
        """The job does not start: nothing of it has run, and nothing will."""
        self._init.kill()
        os.waitpid(self._init.pid, 0)
        self._empty()
        self._channel.tell(refused)
        self._state = State.ENDED

    def fail(self, error: BaseException) -> None:
        """Rule 4, last clause: both ways to kill, each also where the other one fails."""
        cause_ns, dead_ns = now_ns(), None
        with contextlib.suppress(OSError):
            self._init.kill()
        with contextlib.suppress(OSError):
            dead_ns = self._group.kill_and_wait()
        with contextlib.suppress(OSError):
            self._empty()
        reason = "deadman.protocol" if isinstance(error, Malformed) else "deadman.failed"
        self._channel.tell(Dead(klass=HARD, reason=reason, cause_ns=cause_ns, dead_ns=dead_ns))

    # --- what arrives -----------------------------------------------------------------------------------------

    def _message(self) -> None:
        received = self._channel.receive()
        match received and received[0]:
            case None:
                self._end(HARD, "agent.gone", now_ns())
            case LeaseUpdate() as update:
                self._lease(update)
            case Filled():
                self._filled()
            case Halt(klass="hard") as halt:
                self._end(HARD, halt.reason, halt.cause_ns)
            case Halt() as halt:
                self._drain(halt.reason, halt.cause_ns)
            case Signal() as request:
                self._hand_on(request.number)
            case other:
                raise Malformed("deadman.protocol", f"{type(other).__name__} while {self._state.name.lower()}")

    def _lease(self, update: LeaseUpdate) -> None:
        if self._state is State.FROZEN and now_ns() >= self._hold_until_ns:
            return  # too late by a moment: the timer is due
        try:
            lease = self._held.accept(update.token, update.asked_at_ns)
        except InterlockError as error:
            self._channel.tell(LeaseRefused(reason=error.reason, detail=error.detail))
            return
        self._is_empty = False  # from here on the agent may fill them
        self._channel.tell(Renewed(sequence=lease.sequence, until_ns=self._held.until_ns))
        if self._state is State.FROZEN and not self._secrets:
            self._thaw()

    def _filled(self) -> None:
        """Rule 6. Anybody but a frozen job has its secrets anyway; where the lease ended meanwhile they go again."""
        if self._state is not State.FROZEN:
            return
        if now_ns() < self._held.until_ns:
            self._thaw()
        else:
            self._empty()

    def _thaw(self) -> None:
        self._group.thaw()
        self._frozen_ns = None
        self._state = State.RUNNING
        self._channel.tell(Thawed(at_ns=now_ns()))

    def _status(self) -> None:
        received = self._init.status.receive()
        if received is None:
            self._selector.unregister(self._init.status)  # init is ending: its pidfd follows
        else:
            self._note(received[0])

    def _note(self, message: Wire) -> None:
        match message:
            case Applied() as applied:
                at, until = now_ns(), self._held.until_ns
                self._channel.tell(Started(pid=self._init.pid, applied=applied.names, until_ns=until, at_ns=at))
            case Failed() | Left() as last:
                self._last = self._last or last  # a failure comes before what init leaves with

    def _gone(self) -> None:
        """Init ended, and its namespace with it."""
        for received in iter(self._init.status.receive, None):
            self._note(received[0])
        code = os.waitstatus_to_exitcode(os.waitpid(self._init.pid, 0)[1])
        at_ns = self._group.kill_and_wait()
        self._empty()
        last = self._last or Left(code=code, leftover=0)
        if isinstance(last, Failed):
            self._channel.tell(Refused(reason=last.reason, detail=last.detail))
        else:
            self._channel.tell(Exited(code=last.code, leftover=last.leftover, at_ns=at_ns))
        self._state = State.ENDED

    # --- what is done -----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        held = self._held
        ends = self._hold_until_ns if self._is_empty else min(held.until_ns, self._hold_until_ns)
        due = {
            State.RUNNING: min(held.until_ns, self._limit_ns),
            State.FROZEN: ends,
            State.DRAINING: min(held.until_ns, self._draining.until_ns),
        }
        self._timer.arm(due[self._state])

    def _tick(self) -> None:
        self._timer.drain()
        now, held = now_ns(), self._held
        if self._state is State.DRAINING and now >= min(held.until_ns, self._draining.until_ns):
            self._end(DRAIN, self._draining.reason, self._draining.cause_ns)
        elif self._state is State.FROZEN and now >= self._hold_until_ns:
            self._end(STALE, "lease.hold", self._hold_until_ns)
        elif self._state is State.FROZEN and now >= held.until_ns:
            self._empty()
        elif self._state is State.RUNNING and now >= held.until_ns:
            self._freeze(held.until_ns)
        elif self._state is State.RUNNING and now >= self._limit_ns:
            self._drain("limit.seconds", self._limit_ns)

    def _freeze(self, cause_ns: int) -> None:
        try:
            self._frozen_ns = self._group.freeze()
        except Stuck:
            self._end(STALE, "lease.expired", cause_ns)
            return
        self._empty()
        self._state = State.FROZEN
        until, frozen = self._held.hold_until_ns, self._frozen_ns
        self._hold_until_ns = until
        self._channel.tell(Frozen(reason="lease.expired", cause_ns=cause_ns, frozen_ns=frozen, until_ns=until))

    def _drain(self, reason: str, cause_ns: int) -> None:
        if self._state is State.FROZEN:
            self._end(DRAIN, reason, cause_ns)
        elif self._state is State.RUNNING:
            self._state = State.DRAINING
            self._hand_on(signal.SIGTERM)
            self._draining = Draining(reason=reason, cause_ns=cause_ns, until_ns=now_ns() + self._grace_ns)
            self._channel.tell(self._draining)

    def _hand_on(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it is ending
            signal.pidfd_send_signal(self._init.pidfd, number)

    def _end(self, klass: str, reason: str, cause_ns: int) -> None:
        """Kill everything, see it gone, say so (rules 3 and 5)."""
        if klass == HARD and self._frozen_ns is None:
            with contextlib.suppress(Stuck):
                self._frozen_ns = self._group.freeze(_HARD_FREEZE_S)
        dead_ns = self._group.kill_and_wait()
        os.waitpid(self._init.pid, 0)
        self._empty()
        frozen_ns = self._frozen_ns
        self._channel.tell(Dead(klass=klass, reason=reason, cause_ns=cause_ns, frozen_ns=frozen_ns, dead_ns=dead_ns))
        self._state = State.ENDED

    def _empty(self) -> None:
        """Rule 6."""
        self._is_empty = True
        for each in self._secrets:
            memory.empty(each)


def _wake_on_signals() -> socket.socket:
    """A socket that is readable when SIGTERM or SIGINT came."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # noqa: FBT003 - the library's signature
    signal.set_wakeup_fd(theirs.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return ours


def _prefer_this_process() -> None:
    """First to get the processor, last to be killed for memory; a host that refuses this is no reason to stop."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")


def serve(channel: Channel) -> int:
    """Wait for `Start`, then keep the job; the exit status."""
    received = channel.receive()
    if received is None:
        return os.EX_OK  # there is no job
    start, descriptors = received
    if not isinstance(start, Start) or len(descriptors) != 3 + len(start.secrets):
        raise Malformed("deadman.protocol", f"{type(start).__name__} with {len(descriptors)} descriptors as the start")
    stdio, secrets = launch.raised(descriptors[:3]), launch.raised(descriptors[3:])
    wake = _wake_on_signals()
    try:
        launch.check_start(start)
        held = Held(start)
        init = launch.spawn(start, (stdio[0], stdio[1], stdio[2]), secrets)
    except (InterlockError, OSError) as error:
        channel.tell(_refused(error))
        return os.EX_OK
    for each in stdio:
        os.close(each)
    deadman = Deadman(channel, start, held, init, secrets)
    try:
        try:
            deadman.begin()
        except (InterlockError, OSError) as error:
            deadman.refuse(_refused(error))
        else:
            deadman.run(wake)
    except Exception as error:  # noqa: BLE001 - rule 4: whatever it is, the job does not outlive it
        deadman.fail(error)
        return os.EX_SOFTWARE
    return os.EX_OK


def _refused(error: InterlockError | OSError) -> Refused:
    if isinstance(error, InterlockError):
        return Refused(reason=error.reason, detail=error.detail)
    return Refused(reason="launch.setup", detail=str(error))


def main() -> None:
    """Entry point: the descriptor of the channel is the only argument."""
    _prefer_this_process()
    sys.exit(serve(Channel(socket.socket(fileno=int(sys.argv[1])))))


if __name__ == "__main__":
    main()
