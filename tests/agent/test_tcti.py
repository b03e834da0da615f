"""The wire to the TPM: whole responses, deadlines, and errors that keep their names."""

import os
import socket
from collections.abc import Iterator

import pytest

from agent.devices import DeviceError, DeviceTimeout
from agent.tcti import StreamTcti

RESPONSE = bytes.fromhex("80010000000c00000000abcd")


@pytest.fixture
def wire() -> Iterator[tuple[StreamTcti, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    tcti = StreamTcti(ours.detach(), deadline=0.2)
    with theirs:
        yield tcti, theirs
    tcti.do_finalize()


def test_a_command_and_its_response(wire: tuple[StreamTcti, socket.socket]) -> None:
    tcti, tpm = wire
    tcti.do_transmit(b"command")
    assert tpm.recv(100) == b"command"
    tpm.sendall(RESPONSE)
    assert tcti.do_receive(-1) == RESPONSE
    assert tcti.failure is None


@pytest.mark.parametrize("first", [1, 9, 10, 11])
def test_a_response_in_two_parts(first: int) -> None:
    """A stream may cut a response anywhere: after its first byte, in its header, in its body."""
    import threading

    ours, theirs = socket.socketpair()
    tcti = StreamTcti(ours.detach(), deadline=5)
    theirs.sendall(RESPONSE[:first])
    with theirs:
        later = threading.Timer(0.02, theirs.sendall, [RESPONSE[first:]])
        later.start()
        assert tcti.do_receive(-1) == RESPONSE
        later.join()
    tcti.do_finalize()


def test_half_a_response_is_a_timeout(wire: tuple[StreamTcti, socket.socket]) -> None:
    tcti, tpm = wire
    tpm.sendall(RESPONSE[:-1])
    with pytest.raises(DeviceTimeout) as failure:
        tcti.do_receive(-1)
    assert (failure.value.reason, tcti.failure) == ("tpm.device.timeout", failure.value)


def test_a_tpm_that_takes_no_commands_is_a_timeout(wire: tuple[StreamTcti, socket.socket]) -> None:
    tcti, _ = wire
    with pytest.raises(DeviceTimeout):
        tcti.do_transmit(bytes(16 << 20))


def test_a_closed_connection_is_an_error_either_way(wire: tuple[StreamTcti, socket.socket]) -> None:
    tcti, tpm = wire
    tpm.close()
    with pytest.raises(DeviceError, match="closed") as failure:
        tcti.do_receive(-1)
    assert failure.value.reason == "tpm.device.io"
    with pytest.raises(DeviceError, match="write") as failure:
        tcti.do_transmit(b"command")
    assert failure.value.reason == "tpm.device.io"


def test_a_connection_reset_is_an_error(wire: tuple[StreamTcti, socket.socket]) -> None:
    tcti, tpm = wire
    tcti.do_transmit(b"never read")
    tpm.close()
    with pytest.raises(DeviceError, match="read") as failure:
        tcti.do_receive(-1)
    assert failure.value.reason == "tpm.device.io"


def test_the_descriptor_is_closed_once() -> None:
    ours, theirs = socket.socketpair()
    number = ours.detach()
    StreamTcti(number, deadline=1).do_finalize()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    theirs.close()
