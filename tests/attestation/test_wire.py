"""attestation.wire: what every object refuses, shown on a small one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import cbor
from attestation.errors import Malformed
from attestation.wire import Wire, label, wire
from tests.attestation.examples import EXAMPLES


@wire
class Inner(Wire):
    """A nested object."""

    flag: bool = label(1)


@wire
class Sample(Wire):
    """One field of every kind."""

    number: int = label(1, low=-5, high=10)
    blob: bytes = label(2, size=2)
    text: str = label(3, most=3)
    inner: Inner = label(4)
    names: tuple[str, ...] = label(5, most=3, ordered=True)
    table: Mapping[int, tuple[bytes, ...]] = label(6, most=2)
    maybe: int | None = label(-70000, default=None)
    more: tuple[int, ...] = label(7, most=2, sparse=True, default=())


GOOD: dict[int, Any] = {1: -5, 2: b"ab", 3: "abc", 4: {1: True}, 5: ["a", "b"], 6: {-1: [b"x"]}}

REFUSED: dict[str, tuple[dict[int, Any], str]] = {
    "unknown label": ({**GOOD, 9: 1}, "wire.unknown"),
    "text label": ({**GOOD, "number": 1}, "wire.unknown"),  # type: ignore[dict-item]
    "missing field": ({k: v for k, v in GOOD.items() if k != 4}, "wire.missing"),
    "bool as int": ({**GOOD, 1: True}, "wire.type"),
    "int as bool": ({**GOOD, 4: {1: 1}}, "wire.type"),
    "text as bytes": ({**GOOD, 2: "ab"}, "wire.type"),
    "bytes as text": ({**GOOD, 3: b"abc"}, "wire.type"),
    "array as map": ({**GOOD, 4: []}, "wire.type"),
    "map as array": ({**GOOD, 5: {}}, "wire.type"),
    "text as table": ({**GOOD, 6: "x"}, "wire.type"),
    "null for absent": ({**GOOD, -70000: None}, "wire.type"),
    "below the range": ({**GOOD, 1: -6}, "wire.range"),
    "above the range": ({**GOOD, 1: 11}, "wire.range"),
    "key out of range": ({**GOOD, 6: {"a": [b"x"]}}, "wire.type"),
    "short blob": ({**GOOD, 2: b"a"}, "wire.size"),
    "long blob": ({**GOOD, 2: b"abc"}, "wire.size"),
    "long text": ({**GOOD, 3: "abcd"}, "wire.size"),
    "too many names": ({**GOOD, 5: ["a", "b", "c", "d"]}, "wire.size"),
    "too many rows": ({**GOOD, 6: {1: [], 2: [], 3: []}}, "wire.size"),
    "long nested member": ({**GOOD, 6: {1: [b"xxx"]}}, "wire.size"),
    "unordered names": ({**GOOD, 5: ["b", "a"]}, "wire.order"),
    "empty where it should be absent": ({**GOOD, 7: []}, "wire.size"),
    "too many of what may be absent": ({**GOOD, 7: [1, 2, 3]}, "wire.size"),
    "repeated name": ({**GOOD, 5: ["a", "a"]}, "wire.order"),
}


@wire
class Shelf(Wire):
    """Collections of objects, in the middle of other fields, one of them left out where it is empty."""

    number: int = label(1)
    row: tuple[Inner, ...] = label(2, most=300)
    table: Mapping[str, Inner] = label(24, most=300)
    maybe: int | None = label(25, default=None)
    more: tuple[Inner, ...] = label(-1, most=2, sparse=True, default=())
    last: str = label(-2)


YES, NO = Inner(flag=True), Inner(flag=False)
SHELVES = {
    "empty": Shelf(number=1, row=(), table={}, last=""),
    "one of each": Shelf(number=1, row=(YES,), table={"a": NO}, maybe=3, more=(YES,), last="z"),
    "not in order": Shelf(number=1, row=(NO, YES), table={"bb": YES, "c": NO, "a": YES}, last="z"),
    "many": Shelf(number=1, row=(YES,) * 300, table={str(n): NO for n in range(300)}, last="z"),
}


@pytest.mark.parametrize("name", SHELVES)
def test_what_is_joined_from_encoded_parts_is_the_encoding_of_the_whole(name: str) -> None:
    shelf = SHELVES[name]
    assert shelf.to_bytes() == cbor.encode(shelf.to_value())
    assert Shelf.from_bytes(shelf.to_bytes()) == shelf


def test_reads_what_it_writes() -> None:
    sample = Sample.from_bytes(cbor.encode(GOOD))
    assert sample == Sample(
        number=-5, blob=b"ab", text="abc", inner=Inner(flag=True), names=("a", "b"), table={-1: (b"x",)}
    )
    assert sample.to_bytes() == cbor.encode(GOOD)
    assert Sample.from_bytes(cbor.encode({**GOOD, -70000: 3})).maybe == 3
    assert replace(sample, more=(1,)).to_bytes() == cbor.encode({**GOOD, 7: [1]})
    assert Sample.from_bytes(cbor.encode({**GOOD, 7: [1]})).more == (1,)


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    value, reason = REFUSED[name]
    with pytest.raises(Malformed) as caught:
        Sample.from_bytes(cbor.encode(value))
    assert caught.value.reason == reason


def test_refuses_what_is_no_map() -> None:
    with pytest.raises(Malformed, match=r"wire\.type: Sample"):
        Sample.from_bytes(cbor.encode([]))


def test_size_is_checked_before_parsing() -> None:
    with pytest.raises(Malformed) as caught:
        Sample.from_bytes(b"\xff" * (Sample.MAX_SIZE + 1))
    assert caught.value.reason == "cbor.size"


def test_two_fields_with_one_label_are_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="same label"):

        @wire
        class Twice(Wire):
            a: int = label(1)
            b: int = label(1)


def test_a_type_without_encoding_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="no wire encoding"):

        @wire
        class Odd(Wire):
            a: float = label(1)


def test_layout_is_in_label_order() -> None:
    rows = Sample.layout()
    assert [(number, name, optional) for number, name, _, _, optional in rows][:2] == [
        (-70000, "maybe", True),
        (1, "number", False),
    ]
    assert rows[2][3].size == 2
    assert rows[-1][1:2] + rows[-1][4:] == ("more", True)


def _again(read: Wire) -> Wire:
    """A copy, which has to encode itself again."""
    return replace(read)  # type: ignore[type-var]  # every wire object is a dataclass


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_object_has_one_encoding(name: str) -> None:
    example = EXAMPLES[name]
    data = example.to_bytes()
    assert type(example).from_bytes(data) == example
    assert _again(type(example).from_bytes(data)).to_bytes() == data


@pytest.mark.parametrize("name", EXAMPLES)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_is_another_object(name: str, position: int, bit: int) -> None:
    example = EXAMPLES[name]
    data = bytearray(example.to_bytes())
    data[position % len(data)] ^= 1 << bit
    try:
        read = type(example).from_bytes(bytes(data))
    except Malformed:
        return
    assert read != example
    assert _again(read).to_bytes() == bytes(data)
