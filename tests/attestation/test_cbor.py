"""Deterministic CBOR: what is accepted is known by bytes, and everything else is refused with the code expected.

Known answers are from RFC 8949, appendix A and section 4.2.1.
"""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attestation import cbor
from attestation.cbor import Tagged, Unencodable
from attestation.errors import Malformed

TAGS = frozenset({1, 18, 23, 24, 32, 37, 1668547091})

# RFC 8949 appendix A: the rows that this profile has, encoding first.
KNOWN: dict[str, Any] = {
    "00": 0,
    "01": 1,
    "0a": 10,
    "17": 23,
    "1818": 24,
    "1819": 25,
    "1864": 100,
    "1903e8": 1000,
    "1a000f4240": 1000000,
    "1b000000e8d4a51000": 1000000000000,
    "1bffffffffffffffff": 18446744073709551615,
    "3bffffffffffffffff": -18446744073709551616,
    "20": -1,
    "29": -10,
    "3863": -100,
    "3903e7": -1000,
    "f4": False,
    "f5": True,
    "f6": None,
    "40": b"",
    "4401020304": bytes.fromhex("01020304"),
    "60": "",
    "6161": "a",
    "6449455446": "IETF",
    "62225c": '"\\',
    "62c3bc": "\u00fc",
    "63e6b0b4": "\u6c34",
    "64f0908591": "\U00010151",
    "80": [],
    "83010203": [1, 2, 3],
    "8301820203820405": [1, [2, 3], [4, 5]],
    "98190102030405060708090a0b0c0d0e0f101112131415161718181819": list(range(1, 26)),
    "a0": {},
    "a201020304": {1: 2, 3: 4},
    "a26161016162820203": {"a": 1, "b": [2, 3]},
    "826161a161626163": ["a", {"b": "c"}],
    "a56161614161626142616361436164614461656145": {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"},
    "d74401020304": Tagged(23, bytes.fromhex("01020304")),
    "d818456449455446": Tagged(24, bytes.fromhex("6449455446")),
    "d82076687474703a2f2f7777772e6578616d706c652e636f6d": Tagged(32, "http://www.example.com"),
    # section 4.2.1, without the keys that are arrays and booleans
    "a50a001864002000617a00626161" + "00": {10: 0, 100: 0, -1: 0, "z": 0, "aa": 0},
    "a4" + "3818" + "00" + "3901ff" + "00" + "4100" + "00" + "420000" + "00": {-25: 0, -512: 0, b"\0": 0, b"\0\0": 0},
    "d284" + "40" + "a1" + "19018a" + "8140" + "f6" + "40": Tagged(18, [b"", {394: [b""]}, None, b""]),
    "da63740213" + "a1" + "616100": Tagged(1668547091, {"a": 0}),
}


@pytest.mark.parametrize("encoded", KNOWN)
def test_known_answers(encoded: str) -> None:
    data, value = bytes.fromhex(encoded), KNOWN[encoded]
    decoded = cbor.decode(data, max_size=100, tags=TAGS)
    assert decoded == value
    assert type(decoded) is type(value)
    assert cbor.encode(value) == data


# name: (bytes, reason)
REFUSED = {
    # size and syntax
    "too large": ("00" * 101, "cbor.size"),
    "nothing": ("", "cbor.syntax"),
    "a head cut short": ("19", "cbor.syntax"),
    "an argument cut short": ("1a0000", "cbor.syntax"),
    "a string cut short": ("4401", "cbor.syntax"),
    "an array cut short": ("8301", "cbor.syntax"),
    "a map without its last value": ("a101", "cbor.syntax"),
    "an array of 2^64-1": ("9bffffffffffffffff", "cbor.syntax"),
    "a map of 2^64-1": ("bbffffffffffffffff", "cbor.syntax"),
    "a string of 2^63-1": ("5b7fffffffffffffff", "cbor.syntax"),
    "a string of 2^64-1": ("7bffffffffffffffff", "cbor.syntax"),
    "a break alone": ("ff", "cbor.syntax"),
    "reserved additional information 28": ("1c", "cbor.syntax"),
    "reserved additional information 30": ("9e00", "cbor.syntax"),
    "text that is not UTF-8": ("62c328", "cbor.syntax"),
    "text that is an overlong form": ("62c080", "cbor.syntax"),
    "text with a surrogate": ("63eda080", "cbor.syntax"),
    "eleven arrays deep": ("81" * 11 + "00", "cbor.syntax"),
    "eleven maps deep": ("a100" * 11 + "00", "cbor.syntax"),
    "eleven tags deep": ("d2" * 11 + "00", "cbor.syntax"),
    "ninety arrays deep": ("81" * 90 + "00", "cbor.syntax"),
    # indefinite lengths
    "an indefinite byte string": ("5f4101ff", "cbor.syntax"),
    "an indefinite text string": ("7f6161ff", "cbor.syntax"),
    "an indefinite array": ("9f01ff", "cbor.syntax"),
    "an indefinite map": ("bf0102ff", "cbor.syntax"),
    "an indefinite array inside": ("81" + "9fff", "cbor.syntax"),
    # duplicate keys
    "the same key twice": ("a201000100", "cbor.syntax"),
    "the same key in two forms": ("a20100180100", "cbor.syntax"),
    "one and true": ("a20100f500", "cbor.syntax"),
    # types
    "a half float": ("f93c00", "cbor.type"),
    "a float": ("fa47c35000", "cbor.type"),
    "a double": ("fb3ff199999999999a", "cbor.type"),
    "infinity": ("f97c00", "cbor.type"),
    "not a number": ("f97e00", "cbor.type"),
    "a float in a map": ("a101f90000", "cbor.type"),
    "undefined": ("f7", "cbor.type"),
    "undefined in an array": ("81f7", "cbor.type"),
    "simple value 0": ("e0", "cbor.type"),
    "simple value 16": ("f0", "cbor.type"),
    "simple value 255": ("f8ff", "cbor.type"),
    # keys
    "an array as key": ("a1810100", "cbor.key"),
    "a map as key": ("a1a000", "cbor.key"),
    "null as key": ("a1f600", "cbor.key"),
    "true as key": ("a1f500", "cbor.key"),
    "a float as key": ("a1f93c0000", "cbor.key"),
    "a tag as key": ("a1d20000", "cbor.key"),
    # tags
    "a tag that is not expected": ("d901020200", "cbor.tag"),
    "tag 16 where 18 is": ("d000", "cbor.tag"),
    "a date as text": ("c074323031332d30332d32315432303a30343a30305a", "cbor.tag"),
    "a date as number, though 1 is on the list": ("c11a514b67b0", "cbor.tag"),
    "a bignum": ("c249010000000000000000", "cbor.tag"),
    "a small bignum": ("c24101", "cbor.tag"),
    "a negative bignum": ("c349010000000000000000", "cbor.tag"),
    "a bignum as key": ("a1c2410100", "cbor.tag"),
    "a decimal fraction": ("c48221196ab3", "cbor.tag"),
    "a bigfloat with a huge exponent": ("c5821b7fffffffffffffff03", "cbor.tag"),
    "a regular expression": ("d8236161", "cbor.tag"),
    "a MIME message": ("d8246161", "cbor.tag"),
    "a set": ("d901028101", "cbor.tag"),
    "an address": ("d83444c00a0a01", "cbor.tag"),
    "self-described": ("d9d9f700", "cbor.tag"),
    "shared value that contains itself": ("d81c81d81d00", "cbor.tag"),
    "a reference to a string": ("d9010082" + "6161" + "d81900", "cbor.tag"),
    # one encoding
    "one in two bytes": ("1801", "cbor.not-deterministic"),
    "one in nine bytes": ("1b0000000000000001", "cbor.not-deterministic"),
    "minus one in two bytes": ("3800", "cbor.not-deterministic"),
    "a long length of a string": ("580161", "cbor.not-deterministic"),
    "a long length of an array": ("980101", "cbor.not-deterministic"),
    "a long length of a map": ("b8010102", "cbor.not-deterministic"),
    "a long tag number": ("d81200", "cbor.not-deterministic"),
    "keys in falling order": ("a202000100", "cbor.not-deterministic"),
    "negative before positive": ("a220000100", "cbor.not-deterministic"),
    "RFC 7049 order, shorter first": ("a3" + "20006161001864" + "00", "cbor.not-deterministic"),
    "an inner map out of order": ("81a202000100", "cbor.not-deterministic"),
    "a map inside a tag out of order": ("d281a202000100", "cbor.not-deterministic"),
    "a byte after the end": ("0100", "cbor.not-deterministic"),
    "a break after the end": ("80ff", "cbor.not-deterministic"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    encoded, reason = REFUSED[name]
    with pytest.raises(Malformed) as caught:
        cbor.decode(bytes.fromhex(encoded), max_size=100, tags=TAGS)
    assert caught.value.reason == reason


def test_size_and_depth_are_the_callers() -> None:
    ten_deep = bytes.fromhex("81" * 10 + "00")
    assert cbor.decode(ten_deep, max_size=11)
    with pytest.raises(Malformed, match=r"cbor\.size"):
        cbor.decode(ten_deep, max_size=10)
    with pytest.raises(Malformed, match=r"cbor\.syntax"):
        cbor.decode(ten_deep, max_size=11, max_depth=9)


@pytest.mark.parametrize("tag", [0, 18, 24, 55799, 1668547091])
def test_no_tag_is_allowed_unless_named(tag: int) -> None:
    with pytest.raises(Malformed, match=r"cbor\.tag"):
        cbor.decode(cbor.encode(Tagged(tag, b"")), max_size=100)


def test_every_tag_that_cbor2_would_interpret_is_denied() -> None:
    """A tag becomes `Tagged` or nothing: no date, no regular expression, no number is ever built from one."""
    for tag in [*range(70000), 2**32 - 1, 2**64 - 1]:
        data = cbor2.dumps(Tagged(tag, b"\1"))
        if tag in cbor._BUILT_IN_TAGS:
            with pytest.raises(Malformed, match=r"cbor\.tag"):
                cbor.decode(data, max_size=100, tags=frozenset({tag}))
        else:
            assert cbor.decode(data, max_size=100, tags=frozenset({tag})) == Tagged(tag, b"\1")


UNENCODABLE: dict[str, tuple[Any, str]] = {
    "a float": (1.0, "cbor.type"),
    "a float inside": ([{1: 0.5}], "cbor.type"),
    "a set": ({1, 2}, "cbor.type"),
    "a bytearray": (bytearray(b"x"), "cbor.type"),
    "a time": (datetime(2026, 1, 1, tzinfo=UTC), "cbor.type"),
    "a decimal": (Decimal("1.5"), "cbor.type"),
    "a fraction": (Fraction(1, 3), "cbor.type"),
    "undefined": (cbor2.undefined, "cbor.type"),
    "an object": (object(), "cbor.type"),
    "a type": (int, "cbor.type"),
    "2^64": (2**64, "cbor.range"),
    "-2^64-1": (-(2**64) - 1, "cbor.range"),
    "2^64 in a tag": (Tagged(18, [2**64]), "cbor.range"),
    "2^64 as key": ({2**64: 0, "a": 0, -1: 0}, "cbor.range"),
    "-2^64-1 as key": ({-(2**64) - 1: 0, "a": 0, 1: 0}, "cbor.range"),
    "2^64 among integer keys": ({2**64: 0, 1: 0}, "cbor.range"),
    "a tuple as key": ({(1, 2): 0}, "cbor.key"),
    "None as key": ({None: 0}, "cbor.key"),
    "True as key": ({True: 0}, "cbor.key"),
    "a float as key": ({1.5: 0}, "cbor.key"),
}


@pytest.mark.parametrize("name", UNENCODABLE)
def test_what_cannot_be_encoded_is_our_bug(name: str) -> None:
    value, reason = UNENCODABLE[name]
    with pytest.raises(Unencodable) as caught:
        cbor.encode(value)
    assert caught.value.reason == reason
    assert str(caught.value) == f"{reason}: {caught.value.detail}"
    assert isinstance(caught.value, TypeError)


def test_tuples_are_arrays_and_maps_are_put_in_order() -> None:
    assert cbor.encode((1, (2,))) == cbor.encode([1, [2]])
    assert cbor.encode({"a": 0, -1: 0, 2: 0, b"": 0, 1: 0}) == bytes.fromhex(
        "a5" + "0100" + "0200" + "2000" + "4000616100"
    )


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_a_head_is_that_of_the_array_or_map_with_so_many_members(count: int) -> None:
    array, members = cbor.encode([0] * count), dict.fromkeys(range(count), 0)
    assert cbor.head(cbor.ARRAY, count) == array[: len(array) - count]
    encoded = cbor.encode(members)
    assert encoded.startswith(cbor.head(cbor.MAP, count))
    if count < 256:
        assert cbor.head(cbor.MAP, count) + cbor.encode_members(members) == encoded


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_the_head_of_a_number_is_the_number(number: int) -> None:
    assert cbor.head(cbor.UNSIGNED, number) == cbor.encode(number)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_a_byte_string_by_hand(length: int) -> None:
    assert cbor.byte_string(bytes(length)) == cbor.encode(bytes(length))


def test_what_was_decoded_can_be_kept() -> None:
    """Inside a tag cbor2 builds tuples and frozendicts; what comes out has plain types everywhere."""
    token = Tagged(18, [b"", {1: [2, {3: 4}]}, None])
    decoded = cbor.decode(cbor.encode(token), max_size=100, tags=frozenset({18}))
    assert isinstance(decoded, Tagged)
    assert type(decoded.value) is list
    assert type(decoded.value[1]) is dict
    assert type(decoded.value[1][1]) is list
    assert type(decoded.value[1][1][1]) is dict


# --- shapes that are refused before anything is built ----------------------------------------------------------

WIDE = "5913880000" + "00" * 4998  # a byte string of 5000 bytes: enough for the walk to start

WALKED = {
    "an array as key": "a2" + "01" + WIDE + "810000",
    "an empty array as key": "a2" + "01" + WIDE + "8000",
    "a map as key": "a2" + "01" + WIDE + "a10000" + "00",
    "a tag as key": "a2" + "01" + WIDE + "d20100",
    "first key": "a1" + "8101" + WIDE,
    "deep below": "82" + WIDE + "8281a10182a0a181" + "00" * 2 + "00",
    "after a tag": "82" + WIDE + "d2a1d20000",
    "after a tagged value": "82" + WIDE + "a2" + "01d200" + "8000",
    "after floats": "86" + WIDE + "f93c00fa47c35000fb3ff199999999999af8ffa18100" + "00",
    "after integers of every width": "86" + WIDE + "18ff19ffff1affffffff1bffffffffffffffff" + "a18000",
    "with a long length": "a2" + "01" + WIDE + "9b000000000000000100" + "00",
}


@pytest.mark.parametrize("name", WALKED)
def test_a_container_as_key_of_a_large_message_is_refused_before_cbor2_sees_it(name: str) -> None:
    data = bytes.fromhex(WALKED[name])
    with pytest.raises(Malformed) as caught:
        cbor._refuse_hostile_shapes(data, 100)
    assert caught.value.reason == "cbor.key"
    with pytest.raises(Malformed):
        cbor.decode(data, max_size=10_000, tags=TAGS)


@pytest.mark.parametrize(("size", "reason"), [(4096, "cbor.syntax"), (4097, "cbor.key")])
def test_the_walk_is_for_messages_above_4_kib(size: int, reason: str) -> None:
    """An array as key, and a break where the last value belongs: whoever looks first names what it sees."""
    data = bytes.fromhex("a2" + "8000" + "59") + (size - 7).to_bytes(2, "big") + bytes(size - 7) + b"\xff"
    assert len(data) == size
    with pytest.raises(Malformed) as caught:
        cbor.decode(data, max_size=size)
    assert caught.value.reason == reason


LARGE: dict[str, Any] = {
    "a long string": b"x" * 5000,
    "containers as values": {1: b"x" * 5000, 2: [{}], 3: {}, 4: {5: {6: []}}, "a": [[]]},
    "tags": [b"x" * 5000, Tagged(18, {1: Tagged(18, {2: []})}), {1: Tagged(18, [])}],
    "empty containers": [b"x" * 5000, [], {}, [[], {}], {1: []}],
    "integers of every width": {n: [n, -n - 1] for k in range(64) for n in (2**k - 1, 2**k)} | {"": b"x" * 5000},
    "many keys": {n: {str(n): n} for n in range(2000)},
}


@pytest.mark.parametrize("name", LARGE)
def test_large_messages_are_read_like_small_ones(name: str) -> None:
    data = cbor.encode(LARGE[name])
    assert len(data) > cbor._HARMLESS
    assert cbor.decode(data, max_size=100_000, tags=TAGS) == LARGE[name]


@pytest.mark.parametrize("tail", ["", "19", "1a00", "9b00", "a2", "ff", "9f", "5b7fffffffffffffff", "1c"])
def test_a_large_message_cut_short_is_left_to_cbor2(tail: str) -> None:
    with pytest.raises(Malformed) as caught:
        cbor.decode(bytes.fromhex("83" + WIDE + tail), max_size=10_000)
    assert caught.value.reason == "cbor.syntax"


@pytest.mark.parametrize("item", [{}, [], 0, "", b""], ids=repr)
def test_a_large_message_of_many_small_items_is_refused_before_cbor2_sees_it(item: Any) -> None:
    """Of four million it would make objects for seconds, and hold hundreds of megabytes."""
    data = cbor2.dumps([item] * cbor.MAX_ITEMS)
    with pytest.raises(Malformed, match=r"cbor\.items"):
        cbor.decode(data, max_size=len(data))
    fewer = cbor2.dumps([item] * (cbor.MAX_ITEMS - 1))
    assert cbor.decode(fewer, max_size=len(fewer)) == [item] * (cbor.MAX_ITEMS - 1)


def test_the_number_of_items_is_the_callers() -> None:
    data = cbor.encode([b"x" * 5000, {1: 2}])
    assert cbor.decode(data, max_size=len(data), max_items=5) == [b"x" * 5000, {1: 2}]
    with pytest.raises(Malformed) as caught:
        cbor.decode(data, max_size=len(data), max_items=4)
    assert caught.value.reason == "cbor.items"


# --- properties ------------------------------------------------------------------------------------------------

INTEGERS = st.integers(-(2**64), 2**64 - 1)
KEYS = INTEGERS | st.binary(max_size=6) | st.text(max_size=6)
LEAVES = st.none() | st.booleans() | INTEGERS | st.binary(max_size=30) | st.text(max_size=30)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(KEYS, inner, max_size=5)
        | inner.map(lambda value: Tagged(18, value))
    ),
    max_leaves=15,
)


@settings(max_examples=100)
@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data, max_size=len(data), max_depth=40, tags=TAGS) == value


@settings(max_examples=50)
@given(st.dictionaries(KEYS, st.just(0), max_size=12))
def test_keys_are_in_the_order_of_their_bytes(value: dict[Any, int]) -> None:
    body = cbor.encode(value)[1:]
    encoded = sorted(cbor.encode(key) for key in value)
    assert body == b"".join(key + b"\0" for key in encoded)


@settings(max_examples=100)
@given(st.binary(max_size=40))
@example(bytes.fromhex("a2" + "f97e00" + "00" + "f97e00" + "00"))  # two NaN keys are no duplicates to a dict
def test_whatever_arrives_is_refused_or_is_the_one_encoding(data: bytes) -> None:
    try:
        value = cbor.decode(data, max_size=40, tags=TAGS)
    except Malformed:
        return
    assert cbor.encode(value) == data


@settings(max_examples=60)
@given(VALUES, st.data())
def test_a_changed_byte_is_refused_or_changes_the_value(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(cbor.encode(value))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = cbor.decode(bytes(encoded), max_size=len(encoded), max_depth=40, tags=TAGS)
    except Malformed:
        return
    assert cbor.encode(changed) == bytes(encoded) != cbor.encode(value)
