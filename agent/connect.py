"""The command's side of the agent's socket: connect, ask, follow a run to its end, pass signals on."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from typing_extensions import override

from agent.messages import PATIENCE_SECONDS, Answer, Channel, Ended, Progress, Refused, Signal, close_all
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.wire import Wire

M = TypeVar("M", bound=Wire)

PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def connect(path: Path) -> Iterator["Connection"]:
    """A connection to the agent at ``path``. Raises ``Untrusted("agent.unreachable")``."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise Untrusted("agent.unreachable", f"{path}: {error.strerror}") from error
        yield Connection(connection)


class Connection(Channel):
    """A channel to the agent that turns its refusals, and its silence, into errors."""

    @override
    def send(self, message: Wire, descriptors: Sequence[int] = (), *, patience: float = PATIENCE_SECONDS) -> None:
        """Send one message. Raises ``Untrusted("agent.gone")`` where the agent does not take it."""
        try:
            super().send(message, descriptors, patience=patience)
        except OSError as error:
            raise self._gone(error) from error

    @contextmanager
    def passing_signals(self) -> Iterator[None]:
        """Send the job what this process is sent, instead of acting on it."""

        def pass_on(number: int, _frame: FrameType | None) -> None:
            with suppress(InterlockError):  # the agent is gone: follow() is about to say so
                self.send(Signal(number=number))

        before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def follow(self, tell: Callable[[Progress], None]) -> tuple[Ended, int | None]:
        """Hand every progress on, until the end: what came out, and the output directory's descriptor if there is one.

        Raises ``Untrusted("agent.gone")`` where the agent dies, and the reason of a refusal.
        """
        while True:
            message, descriptors = self._next()
            if isinstance(message, Ended):
                close_all(descriptors[1:])
                return message, descriptors[0] if descriptors else None
            close_all(descriptors)
            if not isinstance(message, Progress):
                raise Malformed("agent.message.kind", f"{type(message).__name__} has no place in a run")
            tell(message)

    def expect(self, kind: type[M]) -> M:
        """The next message, which must be of ``kind``. Raises as :meth:`follow` does."""
        message, descriptors = self._next()
        close_all(descriptors)
        if not isinstance(message, kind):
            raise Malformed("agent.message.kind", f"expected {kind.__name__}, got {type(message).__name__}")
        return message

    def answer(self) -> tuple[str, bytes | None]:
        """The text of an answer, and the bytes that came with it as a memory file."""
        message, descriptors = self._next()
        try:
            if not isinstance(message, Answer):
                raise Malformed("agent.message.kind", f"expected Answer, got {type(message).__name__}")
            if message.size is None or not descriptors:
                return message.text, None
            return message.text, os.pread(descriptors[0], message.size, 0)
        finally:
            close_all(descriptors)

    def _next(self) -> tuple[object, list[int]]:
        try:
            received = self.receive()
        except OSError as error:
            raise self._gone(error) from error
        if received is None:
            raise Untrusted("agent.gone", "the agent closed the connection")
        if isinstance(received[0], Refused):
            close_all(received[1])
            raise InterlockError(received[0].reason, received[0].detail)
        return received

    def _gone(self, error: OSError) -> InterlockError:
        """Why the connection broke: the refusal that the agent left behind; the kernel gives it out after the break."""
        if isinstance(error, ConnectionError):
            with suppress(OSError, Malformed):
                received = self.receive()
                close_all(received[1] if received is not None else ())
                if received is not None and isinstance(received[0], Refused):
                    return InterlockError(received[0].reason, received[0].detail)
        return Untrusted("agent.gone", error.strerror or "it does not listen")
