"""The packets between agent, deadman and init (agent/protocol.py)."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import protocol
from agent.protocol import Channel, from_packet, to_packet
from attestation import cbor
from attestation.errors import Malformed
from attestation.wire import Wire

START = protocol.Start(
    cgroup="/sys/fs/cgroup/interlock/00",
    grant=bytes(16),
    argv=("python", "train.py"),
    env={"EPOCHS": "3"},
    uid=4711,
    gid=4711,
    groups=(27,),
    code="/code",
    environment="/venv",
    out="/out",
    seconds=60,
    memory_mb=512,
    processes=40,
    limited=("cgroup.pids.max",),
    hold_ns=10**9,
    grace_ns=10**9,
    key=b"spki",
    lease=bytes(16384),
    asked_at_ns=1,
)
MESSAGES: tuple[Wire, ...] = (
    START,
    protocol.LeaseUpdate(token=b"lease", asked_at_ns=2),
    protocol.Halt(klass="drain", reason="limit.seconds", cause_ns=3),
    protocol.Signal(number=15),
    protocol.Started(pid=7, applied=("seccomp",), until_ns=8, at_ns=7),
    protocol.Refused(reason="lease.expired", detail=""),
    protocol.Renewed(sequence=1, until_ns=9),
    protocol.LeaseRefused(reason="lease.sequence", detail="expected 3"),
    protocol.Frozen(reason="lease.expired", cause_ns=1, frozen_ns=2, until_ns=3),
    protocol.Thawed(at_ns=5),
    protocol.Draining(reason="limit.seconds", cause_ns=1, until_ns=2),
    protocol.Dead(klass="hard", reason="drift.pcr", cause_ns=1, frozen_ns=None, dead_ns=4),
    protocol.Exited(code=-9, leftover=2, at_ns=5),
    protocol.Applied(names=("seccomp", "landlock.7")),
    protocol.Failed(reason="launch.setup", detail="mount"),
    protocol.Left(code=255, leftover=0),
    protocol.Filled(),
)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_every_kind_has_an_example() -> None:
    assert [type(each) for each in MESSAGES] == list(protocol.KINDS.values())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_sent_is_what_arrives(pair: tuple[Channel, Channel], message: Wire) -> None:
    ours, theirs = pair
    ours.send(message)
    assert theirs.receive() == (message, ())
    assert to_packet(from_packet(to_packet(message))) == to_packet(message)


def packed(number: object, **changes: object) -> bytes:
    value = replace(START, **changes).to_value()  # type: ignore[arg-type]
    return cbor.encode([number, value])


REFUSED = {
    "not CBOR": b"\xff",
    "empty array": b"\x80",
    "a map": cbor.encode({}),
    "three elements": cbor.encode([4, {1: 15}, 0]),
    "kind 0": cbor.encode([0, {1: 15}]),
    "kind beyond the last": cbor.encode([18, {}]),
    "kind is true": cbor.encode([True, START.to_value()]),
    "kind is text": cbor.encode(["Signal", {1: 15}]),
    "body is no map": cbor.encode([4, [15]]),
    "trailing byte": to_packet(protocol.Signal(number=15)) + b"\0",
    "missing field": cbor.encode([4, {}]),
    "unknown field": cbor.encode([4, {1: 15, 2: 0}]),
    "SIGKILL to be handed on": cbor.encode([4, {1: 9}]),
    "SIGSTOP to be handed on": cbor.encode([4, {1: 19}]),
    "a halt of class stale": cbor.encode([3, {1: "stale", 2: "x", 3: 0}]),
    "a halt before time began": cbor.encode([3, {1: "hard", 2: "x", 3: -1}]),
    "grant of 15 bytes": packed(1, grant=bytes(15)),
    "lease too long": packed(1, lease=bytes(16385)),
    "no seconds": packed(1, seconds=0),
    "seventeen secrets": packed(1, secrets=tuple(f"s{n:02}" for n in range(17))),
    "secrets not in order": packed(1, secrets=("b", "a")),
    "a secret twice": packed(1, secrets=("a", "a")),
    "uid -1": packed(1, uid=2**32 - 1),
}


@pytest.mark.parametrize("packet", REFUSED.values(), ids=REFUSED.keys())
def test_refused_packets(packet: bytes) -> None:
    with pytest.raises(Malformed):
        from_packet(packet)


@given(st.binary(max_size=64) | st.builds(lambda n, b: cbor.encode([n, {1: b}]), st.integers(0, 20), st.binary()))
def test_only_malformed_escapes_and_what_is_read_writes_back(data: bytes) -> None:
    try:
        message = from_packet(data)
    except Malformed:
        return
    assert to_packet(message) == data


def test_descriptors_travel_and_close_on_exec(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    read, write = os.pipe()
    ours.send(START, (read, write, 2))
    received = theirs.receive()
    assert received is not None
    message, descriptors = received
    assert message == START
    assert [os.get_inheritable(each) for each in descriptors] == [False] * 3
    os.write(descriptors[1], b"x")
    assert os.read(read, 1) == b"x"
    for each in (*descriptors, read, write):
        os.close(each)


def test_descriptors_of_a_bad_packet_are_closed() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for payload, count in (
        (b"\xff", 2),
        (b"x" * 10, 4),
        (b"x" * 10, 20),
    ):  # nonsense; and more descriptors than there is room for
        socket.send_fds(left, [payload], [0] * count)
        with pytest.raises(Malformed):
            Channel(right).receive()
    left.send(b"x" * (protocol.MAX_SIZE // 2))
    with pytest.raises(Malformed):
        Channel(right).receive()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    left.close()
    right.close()


def test_the_end_is_seen(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.send(protocol.Signal(number=1))
    ours.close()
    assert theirs.receive() == (protocol.Signal(number=1), ())
    assert theirs.receive() is None
    with pytest.raises(BrokenPipeError):
        theirs.send(protocol.Signal(number=1))
    theirs.tell(protocol.Signal(number=1))


def fill(channel: Channel) -> None:
    while True:
        channel.send(START)


def test_nobody_waits_for_a_reader(pair: tuple[Channel, Channel]) -> None:
    ours, _ = pair
    with pytest.raises(BlockingIOError):
        fill(ours)


def test_the_last_word_is_heard_from_a_side_that_did_not_listen_to_the_end() -> None:
    ours, theirs = Channel.pair()
    ours.send(protocol.LeaseUpdate(token=b"t", asked_at_ns=1))
    theirs.send(protocol.Dead(klass="hard", reason="drift.pcr", cause_ns=1))
    theirs.close()
    received = ours.receive()
    assert received is not None
    assert received[0] == protocol.Dead(klass="hard", reason="drift.pcr", cause_ns=1)
    assert ours.receive() is None
    ours.close()
