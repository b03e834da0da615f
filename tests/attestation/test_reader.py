"""The cursor: every read is exact or refused, and what is left over is refused."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import Malformed
from attestation.reader import Reader

BYTES = bytes.fromhex("0102030405060708090a")

READS: dict[str, tuple[Callable[[Reader], object], object, int]] = {
    "u8": (Reader.u8, 0x01, 1),
    "u16": (Reader.u16, 0x0102, 2),
    "u32": (Reader.u32, 0x01020304, 4),
    "u64": (Reader.u64, 0x0102030405060708, 8),
    "u16le": (Reader.u16le, 0x0201, 2),
    "u32le": (Reader.u32le, 0x04030201, 4),
    "take": (lambda reader: reader.take(3), bytes.fromhex("010203"), 3),
    "take nothing": (lambda reader: reader.take(0), b"", 0),
    "rest": (Reader.rest, BYTES, 10),
}


@pytest.mark.parametrize("name", READS)
def test_reads_exactly_what_it_says(name: str) -> None:
    read, value, size = READS[name]
    reader = Reader(BYTES, "test")
    assert read(reader) == value
    assert reader.remaining == len(BYTES) - size


def test_sized16_reads_its_length_first() -> None:
    reader = Reader(bytes.fromhex("0003aabbccdd"), "test")
    assert (reader.sized16(), reader.rest()) == (bytes.fromhex("aabbcc"), bytes.fromhex("dd"))
    reader.done()


TRUNCATED: dict[str, tuple[str, Callable[[Reader], object]]] = {
    "u8 of nothing": ("", Reader.u8),
    "u16 of one byte": ("00", Reader.u16),
    "u32 of three bytes": ("000000", Reader.u32),
    "u64 of seven bytes": ("00000000000000", Reader.u64),
    "u16le of one byte": ("00", Reader.u16le),
    "u32le of three bytes": ("000000", Reader.u32le),
    "more than there is": ("0000", lambda reader: reader.take(3)),
    "a negative count": ("0000", lambda reader: reader.take(-1)),
    "a size without content": ("0001", Reader.sized16),
    "a size beyond the end": ("0003aabb", Reader.sized16),
    "half a size": ("00", Reader.sized16),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_read_beyond_the_end_is_refused(name: str) -> None:
    data, read = TRUNCATED[name]
    with pytest.raises(Malformed) as caught:
        read(Reader(bytes.fromhex(data), "tpm.attest"))
    assert caught.value.reason == "tpm.attest.truncated"


def test_a_refused_read_says_where() -> None:
    reader = Reader(BYTES, "test")
    reader.take(4)
    with pytest.raises(Malformed, match="7 bytes wanted at offset 4, 6 left"):
        reader.take(7)


def test_bytes_left_over_are_refused() -> None:
    reader = Reader(BYTES, "tpm.attest")
    reader.take(9)
    with pytest.raises(Malformed) as caught:
        reader.done()
    assert caught.value.reason == "tpm.attest.trailing"
    reader.u8()
    reader.done()


@settings(max_examples=50)
@given(st.binary(max_size=40), st.lists(st.integers(0, 12), max_size=8))
def test_what_is_read_is_what_was_there(data: bytes, counts: list[int]) -> None:
    reader = Reader(data, "test")
    parts = [reader.take(min(count, reader.remaining)) for count in counts]
    assert b"".join(parts) + reader.rest() == data
    reader.done()
