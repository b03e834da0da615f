"""What the agent, the deadman and a job's init say to each other.

Rules (design: control, "Hold"): one AF_UNIX SOCK_SEQPACKET pair between each two of them, so that one packet is one
message and the end of either side is seen at once. A packet is deterministic CBOR: [kind, map]. Times are nanoseconds
of CLOCK_BOOTTIME. File descriptors travel with `Start` only.
"""

import array
import contextlib
import fcntl
import os
import socket
from collections.abc import Mapping
from typing import Final, TypeAlias

from attestation import cbor
from attestation.errors import Malformed
from attestation.intent import MOST_SECRETS
from attestation.wire import Wire, label, wire

MAX_SIZE: Final = 1 << 18
_TOKEN: Final = 16384
_UID: Final = 2**32 - 2

HARD: Final = "hard"
DRAIN: Final = "drain"
STALE: Final = "stale"
FORWARDED: Final = (1, 2, 3, 10, 12, 15, 18, 20, 28)  # HUP INT QUIT USR1 USR2 TERM CONT TSTP WINCH


@wire
class Start(Wire):
    """Agent to deadman, once, with the job's three standard descriptors and one memory file for each of ``secrets``, in
    their order. Paths are those of the host."""

    cgroup: str = label(1)
    grant: bytes = label(2, size=16)
    argv: tuple[str, ...] = label(3, most=131_072)
    env: Mapping[str, str] = label(4, most=131_072)
    uid: int = label(5, high=_UID)
    gid: int = label(6, high=_UID)
    groups: tuple[int, ...] = label(7, high=_UID)
    code: str = label(8)
    environment: str = label(9)
    out: str = label(10)
    seconds: int = label(11, low=1)
    memory_mb: int = label(12, low=1)
    processes: int = label(13, low=1)
    limited: tuple[str, ...] = label(14)
    hold_ns: int = label(15)
    grace_ns: int = label(16)
    key: bytes = label(17)
    lease: bytes = label(18, most=_TOKEN)
    asked_at_ns: int = label(19)
    secrets: tuple[str, ...] = label(20, most=64, ordered=True, default=())

    def check(self) -> None:
        """Raise ``Malformed`` for more secrets than descriptors travel beside a message."""
        if len(self.secrets) > MOST_SECRETS:
            raise Malformed("deadman.protocol", f"a job has at most {MOST_SECRETS} secrets")


@wire
class LeaseUpdate(Wire):
    """Agent to deadman: a further lease; `asked_at_ns` is when its challenge was asked for."""

    token: bytes = label(1, most=_TOKEN)
    asked_at_ns: int = label(2)


@wire
class Halt(Wire):
    """Agent to deadman: stop the job, `hard` or `drain`."""

    klass: str = label(1)
    reason: str = label(2)
    cause_ns: int = label(3)

    def check(self) -> None:
        """Raise ``Malformed`` for a class that nobody can order."""
        if self.klass not in {HARD, DRAIN}:
            raise Malformed("deadman.protocol", f"a halt is hard or drain, not {self.klass!r}")


@wire
class Signal(Wire):
    """Agent to deadman: hand this signal to the job's main process."""

    number: int = label(1)

    def check(self) -> None:
        """Raise ``Malformed`` for a signal that is not handed on."""
        if self.number not in FORWARDED:
            raise Malformed("deadman.protocol", f"signal {self.number} is not handed on")


@wire
class Filled(Wire):
    """Agent to deadman: the secrets of a frozen job are back, unsealed under the lease that it has now."""


@wire
class Started(Wire):
    """Deadman to agent: the job executes. `pid` is its init's; `applied` names what confines it."""

    pid: int = label(1)
    applied: tuple[str, ...] = label(2)
    until_ns: int = label(3)
    at_ns: int = label(4)


@wire
class Refused(Wire):
    """Deadman to agent, final: the job did not start."""

    reason: str = label(1)
    detail: str = label(2)


@wire
class Renewed(Wire):
    """Deadman to agent: a lease was verified; the job may run until `until_ns`."""

    sequence: int = label(1)
    until_ns: int = label(2)


@wire
class LeaseRefused(Wire):
    """Deadman to agent: a lease was not believed; the one before it stays in force."""

    reason: str = label(1)
    detail: str = label(2)


@wire
class Frozen(Wire):
    """Deadman to agent: the lease ended and the job stands still; it is killed at `until_ns`."""

    reason: str = label(1)
    cause_ns: int = label(2)
    frozen_ns: int = label(3)
    until_ns: int = label(4)


@wire
class Thawed(Wire):
    """Deadman to agent: a fresh lease came in time and the job goes on."""

    at_ns: int = label(1)


@wire
class Draining(Wire):
    """Deadman to agent: the job was asked to end and has until `until_ns` at most."""

    reason: str = label(1)
    cause_ns: int = label(2)
    until_ns: int = label(3)


@wire
class Dead(Wire):
    """Deadman to agent, final: the job was ended and its group is empty since `dead_ns`."""

    klass: str = label(1)
    reason: str = label(2)
    cause_ns: int = label(3)
    frozen_ns: int | None = label(4, default=None)
    dead_ns: int | None = label(5, default=None)


@wire
class Exited(Wire):
    """Deadman to agent, final: the job ended by itself. `code` is negative for a signal, as in `subprocess`."""

    code: int = label(1, low=-64, high=255)
    leftover: int = label(2)
    at_ns: int = label(3)


@wire
class Applied(Wire):
    """Init to deadman: the next instruction is the job's own."""

    names: tuple[str, ...] = label(1)


@wire
class Failed(Wire):
    """Init to deadman: the job could not be started."""

    reason: str = label(1)
    detail: str = label(2)


@wire
class Left(Wire):
    """Init to deadman: the main process ended with `code` and left `leftover` others behind."""

    code: int = label(1, low=-64, high=255)
    leftover: int = label(2)


Event: TypeAlias = Started | Refused | Renewed | LeaseRefused | Frozen | Thawed | Draining | Dead | Exited
KINDS: Final[Mapping[int, type[Wire]]] = dict(
    enumerate(
        (
            *(Start, LeaseUpdate, Halt, Signal),
            *(Started, Refused, Renewed, LeaseRefused, Frozen, Thawed, Draining, Dead, Exited),
            *(Applied, Failed, Left, Filled),
        ),
        start=1,
    )
)
_NUMBERS: Final = {kind: number for number, kind in KINDS.items()}


def to_packet(message: Wire) -> bytes:
    """The packet of a message."""
    return cbor.encode([_NUMBERS[type(message)], message.to_value()])


def from_packet(data: bytes) -> Wire:
    """The message of a packet. Malformed: `cbor.*`, `wire.*`, or `deadman.protocol` where the kind is unknown."""
    value = cbor.decode(data, max_size=MAX_SIZE)
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int or value[0] not in KINDS:
        raise Malformed("deadman.protocol", "the packet is no [kind, map] of a known kind")
    return KINDS[value[0]].from_value(value[1])


_ROOM: Final = socket.CMSG_LEN((3 + MOST_SECRETS) * array.array("i").itemsize)


class Channel:
    """One end of a socket pair that carries messages."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> "tuple[Channel, Channel]":
        """Two ends; both close on exec."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def above(self, lowest: int) -> "Channel":
        """This end under another descriptor, ``lowest`` or higher; this object's own is closed."""
        descriptor = fcntl.fcntl(self._socket, fcntl.F_DUPFD_CLOEXEC, lowest)
        self._socket.close()
        return Channel(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """For selectors and for handing the end to a child."""
        return self._socket.fileno()

    def send(self, message: Wire, descriptors: tuple[int, ...] = ()) -> None:
        """Send without ever waiting. BrokenPipeError: nobody is there; BlockingIOError: nobody listens."""
        # socket.send_fds and recv_fds take flags and ignore them
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([to_packet(message)], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def tell(self, message: Wire) -> None:
        """Send where the other side still wants to know."""
        with contextlib.suppress(OSError):
            self.send(message)

    def receive(self) -> tuple[Wire, tuple[int, ...]] | None:
        """Wait for the next message and its descriptors; None at the end. Malformed as `from_packet`."""
        try:
            data, rights, flags, _ = self._receive()
        except ConnectionResetError:
            return None
        descriptors = array.array("i", b"".join(each for _, _, each in rights))
        if not data:
            return None
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise Malformed("deadman.protocol", "the packet is too long")
            return from_packet(data), tuple(descriptors)
        except Malformed:
            for each in descriptors:
                os.close(each)
            raise

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        """One packet. The other side may have ended without reading all it was told: the kernel says so once, before it
        gives out what that side said last (unix(7)), and that is not to be lost."""
        try:
            return self._socket.recvmsg(MAX_SIZE, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return self._socket.recvmsg(MAX_SIZE, _ROOM, socket.MSG_CMSG_CLOEXEC)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
