"""The socket between command and agent: one encoding, limits, descriptors, and who is asking."""

import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.connect import Connection
from agent.messages import (
    MAX_MESSAGE,
    Answer,
    Channel,
    Ended,
    Fetched,
    Measure,
    Measured,
    Peer,
    Progress,
    Question,
    Refused,
    Signal,
    Start,
    from_packet,
    to_packet,
)
from attestation import cbor
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.wire import Wire

SO_SNDBUFFORCE = 32  # socket(7); the socket module does not name it
ENDED = Ended(exit_code=0, event="finished", job="j", node="n", seconds=1, leases=2, outputs={"a": False})
GOOD: list[Wire] = [
    Measure(environment="/venv"),
    Start(intent=b"i", variables={"A": "1"}, environment="/venv"),
    Signal(number=15),
    Question(topic="status", name=""),
    Fetched(count=0),
    Measured(digest=bytes(32), entries=1),
    Progress(event="lease", text="..."),
    Progress(event="lease", text="...", grant=bytes(16)),
    ENDED,
    Answer(text="{}"),
    Answer(text="", size=3),
    Refused(reason="agent.busy", detail=""),
]
BAD = {
    "nothing": ("cbor.syntax", b""),
    "not CBOR": ("cbor.syntax", b"\xff"),
    "a map": ("agent.message.kind", cbor.encode({1: 2})),
    "an empty array": ("agent.message.kind", cbor.encode([])),
    "a kind alone": ("agent.message.kind", cbor.encode([1])),
    "an unknown kind": ("agent.message.kind", cbor.encode([99, {}])),
    "a kind that is true": ("agent.message.kind", cbor.encode([True, {}])),
    "a kind by name": ("agent.message.kind", cbor.encode(["Start", {}])),
    "no map": ("wire.type", cbor.encode([1, []])),
    "a missing field": ("wire.missing", cbor.encode([1, {}])),
    "an unknown field": ("wire.unknown", cbor.encode([1, {1: "/venv", 2: 3}])),
    "signal 0": ("wire.range", cbor.encode([3, {1: 0}])),
    "signal 65": ("wire.range", cbor.encode([3, {1: 65}])),
    "a topic that is unknown": ("agent.message.topic", cbor.encode([4, {1: "secrets", 2: ""}])),
    "an intent too long": ("wire.size", cbor.encode([2, {1: bytes(65537), 2: {}, 3: "/venv"}])),
    "trailing bytes": ("cbor.not-deterministic", to_packet(Signal(number=1)) + b"\0"),
    "a long form of a number": ("cbor.not-deterministic", b"\x82\x18\x03\xa1\x01\x01"),
    "too long": ("cbor.size", bytes(MAX_MESSAGE + 1)),
}


@pytest.fixture
def pair() -> Iterator[tuple[Connection, Channel]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here, there = Connection(ours), Channel(theirs)
    here.deadline(5)
    there.deadline(5)
    yield here, there
    here.close()
    there.close()


@pytest.mark.parametrize("message", GOOD, ids=str)
def test_what_is_written_is_read(message: Wire) -> None:
    packet = to_packet(message)
    assert from_packet(packet) == message
    assert to_packet(from_packet(packet)) == packet


@pytest.mark.parametrize(("reason", "packet"), BAD.values(), ids=BAD.keys())
def test_a_broken_message_is_refused(reason: str, packet: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        from_packet(packet)
    assert refused.value.reason == reason


@given(st.binary(max_size=200))
def test_only_malformed_escapes(packet: bytes) -> None:
    try:
        message = from_packet(packet)
    except Malformed:
        return
    assert to_packet(message) == packet


def test_descriptors_travel_beside(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    read, write = os.pipe()
    here.send(Fetched(count=1), (write,))
    received = there.receive()
    assert received is not None
    message, (copy,) = received
    assert message == Fetched(count=1)
    assert not os.get_inheritable(copy)
    os.write(copy, b"x")
    assert os.read(read, 1) == b"x"
    for each in (read, write, copy):
        os.close(each)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count


@pytest.mark.parametrize("count", [5, 100])
def test_too_many_descriptors_are_refused_and_closed(pair: tuple[Connection, Channel], count: int) -> None:
    here, there = pair
    before = open_descriptors()
    here.send(Fetched(count=1), [1] * count)
    with pytest.raises(Malformed) as refused:
        there.receive()
    assert refused.value.reason == "agent.message.descriptors"
    assert open_descriptors() == before


def test_a_long_packet_is_refused_and_its_descriptors_closed(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    before = open_descriptors()
    here._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 1))]
    here._socket.sendmsg([bytes(MAX_MESSAGE + 1)], rights)
    with pytest.raises(Malformed) as refused:
        there.receive()
    assert refused.value.reason == "agent.message.size"
    assert open_descriptors() == before


def test_garbage_closes_its_descriptors(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    before = open_descriptors()
    here._socket.sendmsg([b"\xff"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 1))])
    with pytest.raises(Malformed):
        there.receive()
    assert open_descriptors() == before


def test_the_end_is_none(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    here.close()
    assert there.receive() is None


def test_who_does_not_listen_is_not_waited_for(pair: tuple[Connection, Channel]) -> None:
    _, there = pair
    there.deadline(None)

    def flood() -> None:
        while True:
            there.send(Progress(event="lease", text="x" * 500), patience=0.01)

    with pytest.raises(BlockingIOError):
        flood()


def test_the_kernel_says_who_is_there() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert Peer.of(ours) == Peer(os.getpid(), os.getuid(), os.getgid(), tuple(os.getgroups()))


# --- the command's side -----------------------------------------------------------------------------------------------


def test_a_run_is_followed_to_its_end(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    seen: list[Progress] = []
    there.send(Progress(event="granted", text="ok"))
    there.send(ENDED)
    assert here.follow(seen.append) == (ENDED, None)
    assert [each.event for each in seen] == ["granted"]


def test_a_refusal_is_raised(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    there.send(Refused(reason="agent.busy", detail="16 jobs"))
    with pytest.raises(InterlockError) as refused:
        here.follow(lambda _: None)
    assert (refused.value.reason, refused.value.detail) == ("agent.busy", "16 jobs")


def test_an_agent_that_goes_away_is_told(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    there.close()
    with pytest.raises(Untrusted) as refused:
        here.follow(lambda _: None)
    assert refused.value.reason == "agent.gone"


ASKS: list[Callable[[Connection], object]] = [
    lambda c: c.follow(lambda _: None),
    lambda c: c.expect(Measured),
    lambda c: c.answer(),
]


@pytest.mark.parametrize("ask", ASKS, ids=["follow", "expect", "answer"])
def test_an_answer_of_another_kind_is_refused(
    pair: tuple[Connection, Channel], ask: Callable[[Connection], object]
) -> None:
    here, there = pair
    there.send(Signal(number=1), (1,))
    before = open_descriptors()
    with pytest.raises(Malformed) as refused:
        ask(here)
    assert refused.value.reason == "agent.message.kind"
    assert open_descriptors() == before


def test_bytes_come_in_a_memory_file(pair: tuple[Connection, Channel]) -> None:
    here, there = pair
    memory = os.memfd_create("bytes")
    os.write(memory, b"12345")
    there.send(Answer(text="{}", size=5), (memory,))
    os.close(memory)
    assert here.answer() == ("{}", b"12345")
    there.send(Answer(text="{}"))
    assert here.answer() == ("{}", None)
