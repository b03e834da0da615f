"""What a submitter's command and the agent say to each other, over a Unix socket of type SOCK_SEQPACKET.

One packet is one message: the deterministic CBOR array ``[kind, map]``. Descriptors travel beside it (SCM_RIGHTS).

==== ========= ============= ============================================================================
kind message   sent by       descriptors
==== ========= ============= ============================================================================
1    Measure   command       -
2    Start     command       standard input, output, error; the code directory
3    Signal    command       -
4    Question   command      - (status, watch, explain, bundle)
5    Fetched    command      - (after Ended: the outputs were copied)
16   Measured  agent         -
17   Progress  agent         -
18   Ended     agent         the output directory, where there is one
19   Answer    agent         a memory file with the bytes asked for, where they are many
20   Refused   agent         -
==== ========= ============= ============================================================================

A connection carries one request. Who is asking is what the kernel says (SO_PEERCRED), never what a message says.
"""

import array
import contextlib
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from attestation import cbor
from attestation.errors import Malformed
from attestation.intent import MAX_SIZE as MAX_INTENT
from attestation.wire import Wire, label, wire

MAX_MESSAGE: Final = 160 << 10
MAX_VARIABLES: Final = 64 << 10
MAX_DESCRIPTORS: Final = 4
PATIENCE_SECONDS: Final = 10.0
_INT: Final = struct.calcsize("i")

QUESTIONS: Final = ("status", "watch", "explain", "bundle")


@wire
class Measure(Wire):
    """Asks for the digest of the environment (a virtual environment's absolute path) that jobs can run in."""

    environment: str = label(1, most=4096)


@wire
class Start(Wire):
    """Asks for a run: the signed intent, the values of its environment variables, and the environment's path."""

    intent: bytes = label(1, most=MAX_INTENT)
    variables: Mapping[str, str] = label(2, most=MAX_VARIABLES)
    environment: str = label(3, most=4096)


@wire
class Signal(Wire):
    """Passes a signal on to the running job."""

    number: int = label(1, low=1, high=64)


@wire
class Question(Wire):
    """Asks about jobs: ``topic`` is one of :data:`QUESTIONS`, ``name`` a job name, grant id or reason code."""

    topic: str = label(1, most=16)
    name: str = label(2, most=128)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown topic."""
        if self.topic not in QUESTIONS:
            raise Malformed("agent.message.topic", f"{self.topic!r} is not one of {', '.join(QUESTIONS)}")


@wire
class Fetched(Wire):
    """Says that the outputs have been copied, ``count`` files, so that the agent need not keep them."""

    count: int = label(1)


@wire
class Measured(Wire):
    """The digest asked for, and how many files it covers."""

    digest: bytes = label(1, size=32)
    entries: int = label(2)


@wire
class Progress(Wire):
    """Something happened on the way: a stable word, a line for people, and the grant's id once there is one."""

    event: str = label(1, most=32)
    text: str = label(2, most=512)
    grant: bytes | None = label(3, size=16, default=None)


@wire
class Ended(Wire):
    """How a request came out, as the screen shows it (:mod:`agent.screen`).

    ``exit_code`` as :mod:`agent.codes` says, ``receipt`` the index in the log of the record that says so, ``outputs``
    whether each is quarantined, ``frozen_us`` and ``dead_us`` microseconds since the cause, ``also`` further reasons.
    """

    MAX_SIZE = MAX_MESSAGE

    exit_code: int = label(1, high=255)
    event: str = label(2, most=32)
    job: str = label(3, most=128)
    reason: str | None = label(4, most=128, default=None)
    what: str | None = label(5, most=512, default=None)
    detail: str | None = label(6, most=2048, default=None)
    fix: str | None = label(7, most=512, default=None)
    retry: bool = label(8, default=False)
    ask: str | None = label(9, most=64, default=None)
    grant: bytes | None = label(10, size=16, default=None)
    receipt: int | None = label(11, default=None)
    node: str = label(12, most=128)
    seconds: int = label(13)
    leases: int = label(14)
    outputs: Mapping[str, bool] = label(15, most=1024)
    frozen_us: int | None = label(16, default=None)
    dead_us: int | None = label(17, default=None)
    assurance: str | None = label(18, most=16, default=None)
    also: tuple[str, ...] = label(19, most=128, default=())


@wire
class Answer(Wire):
    """JSON text for people and programs, or the size of the memory file that came with it."""

    text: str = label(1, most=MAX_MESSAGE)
    size: int | None = label(2, default=None)


@wire
class Refused(Wire):
    """The request was not understood or not allowed; ``reason`` is a registered code."""

    reason: str = label(1, most=128)
    detail: str = label(2, most=2048)


_KINDS: Final[dict[int, type[Wire]]] = {
    1: Measure,
    2: Start,
    3: Signal,
    4: Question,
    5: Fetched,
    16: Measured,
    17: Progress,
    18: Ended,
    19: Answer,
    20: Refused,
}
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}


def to_packet(message: Wire) -> bytes:
    """The one encoding of ``message`` with its kind."""
    return cbor.encode([_NUMBERS[type(message)], message.to_value()])


def from_packet(packet: bytes) -> Wire:
    """Read one message. Raises ``Malformed``."""
    value = cbor.decode(packet, max_size=MAX_MESSAGE)
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int or value[0] not in _KINDS:
        raise Malformed("agent.message.kind", "a message is [kind, map] of a known kind")
    return _KINDS[value[0]].from_value(value[1])


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel saw it when the connection was made (unix(7))."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def of(cls, connection: socket.socket) -> Self:
        """SO_PEERCRED and SO_PEERGROUPS of a connected Unix socket.

        ``OSError`` for a peer in more than 256 groups: Python reads no longer answers.
        """
        pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        return cls(pid, uid, gid, tuple(array.array("I", raw)))


_SO_PEERGROUPS: Final = 59


class Channel:
    """Sends and receives messages over a connected SOCK_SEQPACKET socket, which it owns."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def deadline(self, seconds: float | None) -> None:
        """How long a receive may take; ``TimeoutError`` afterwards."""
        self._socket.settimeout(seconds)

    def send(self, message: Wire, descriptors: Sequence[int] = (), *, patience: float = PATIENCE_SECONDS) -> None:
        """Send one message, waiting at most ``patience`` seconds for room. ``OSError`` where nobody takes it."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        packet, flags = [to_packet(message)], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
        try:
            self._socket.sendmsg(packet, rights, flags)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT)
            poll.poll(patience * 1000)
            self._socket.sendmsg(packet, rights, flags)

    def receive(self) -> tuple[Wire, list[int]] | None:
        """The next message and the descriptors beside it, which are the caller's to close; None at the end.

        Raises ``Malformed("agent.message.*")``; descriptors of a refused message are closed.
        """
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT)
        packet, ancillary, flags, _ = self._socket.recvmsg(MAX_MESSAGE + 1, space, socket.MSG_CMSG_CLOEXEC)
        descriptors = _descriptors(ancillary)
        try:
            if flags & socket.MSG_TRUNC or len(packet) > MAX_MESSAGE:
                raise Malformed("agent.message.size", f"a message has at most {MAX_MESSAGE} bytes")
            if flags & socket.MSG_CTRUNC:
                raise Malformed("agent.message.descriptors", f"a message brings at most {MAX_DESCRIPTORS} descriptors")
            if not packet:
                close_all(descriptors)
                return None
            return from_packet(packet), descriptors
        except Malformed:
            close_all(descriptors)
            raise

    def close(self) -> None:
        """Close the connection, also for a thread that is waiting for a message on it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.extend(struct.unpack(f"{len(data) // _INT}i", data[: len(data) // _INT * _INT]))
    return found


def close_all(descriptors: Sequence[int]) -> None:
    """Close every one of them."""
    for descriptor in descriptors:
        os.close(descriptor)
