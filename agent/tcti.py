"""The wire to a TPM with a deadline: a TPM Command Transmission Interface over a character device or a socket.

The C transports block for ever when a TPM hangs. This one waits at most `deadline` seconds for an answer and then
fails; the ESAPI object above it is dead afterwards, as after any I/O error, and the caller makes a new one.

A response begins with tag (2 bytes), size (4 bytes) and code (4 bytes): TPM 2.0 Library Part 1, 18.1. A kernel
device hands over a whole response per read; a socket may need several.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time

from tpm2_pytss import PyTCTI  # type: ignore[import-untyped]  # tpm2-pytss ships no types

from agent.devices import DeviceError, DeviceTimeout

HEADER = 10
MAX_RESPONSE = 4096


def open_stream(tcti: str) -> int:
    """Open `device:PATH` or `unix:PATH` and return the file descriptor. DeviceError("tpm.device.open")."""
    kind, _, path = tcti.partition(":")
    try:
        if kind == "device":
            return _open_device(path)
        if kind == "unix":
            return _connect(path)
    except OSError as error:
        raise DeviceError("tpm.device.open", f"{path}: {error.strerror}") from error
    raise DeviceError("tpm.device.open", f"{tcti!r} is neither device:PATH nor unix:PATH")


def _open_device(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DeviceError("tpm.device.open", f"{path} is not a character device")
    return descriptor


def _connect(path: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        descriptor = connection.detach()
    os.set_blocking(descriptor, False)
    return descriptor


class StreamTcti(PyTCTI):  # type: ignore[misc]  # tpm2-pytss ships no types
    """One command, one response, over `descriptor`, which this object owns. `deadline`: seconds for each response.

    The C library between this object and its caller turns exceptions into a number: `failure` keeps the real one.
    """

    def __init__(self, descriptor: int, deadline: float) -> None:
        super().__init__(max_size=MAX_RESPONSE)
        self._descriptor = descriptor
        self._deadline = deadline
        self.failure: DeviceError | None = None

    def do_transmit(self, command: bytes) -> None:
        """Send the whole command. DeviceTimeout("tpm.device.timeout"), DeviceError("tpm.device.io")."""
        end = time.monotonic() + self._deadline
        while command:
            self._wait(select.POLLOUT, end)
            try:
                command = command[os.write(self._descriptor, command) :]
            except OSError as error:
                raise self._failed(DeviceError("tpm.device.io", f"write: {error.strerror}")) from error

    def do_receive(self, timeout: int) -> bytes:  # noqa: ARG002 - the deadline is ours, not the library's
        """Read one whole response. DeviceTimeout("tpm.device.timeout"), DeviceError("tpm.device.io")."""
        end = time.monotonic() + self._deadline
        response = self._read(end)
        while len(response) < HEADER or len(response) < int.from_bytes(response[2:6], "big"):
            response += self._read(end)
        return response

    def do_finalize(self) -> None:
        """Close the descriptor; a resource manager then flushes what this connection left behind."""
        os.close(self._descriptor)

    def _read(self, end: float) -> bytes:
        self._wait(select.POLLIN, end)
        try:
            data = os.read(self._descriptor, MAX_RESPONSE)
        except OSError as error:
            raise self._failed(DeviceError("tpm.device.io", f"read: {error.strerror}")) from error
        if not data:
            raise self._failed(DeviceError("tpm.device.io", "the TPM closed the connection"))
        return data

    def _wait(self, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(self._descriptor, event)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise self._failed(DeviceTimeout("tpm.device.timeout", f"no answer within {self._deadline:g} s"))

    def _failed(self, error: DeviceError) -> DeviceError:
        self.failure = error
        return error
