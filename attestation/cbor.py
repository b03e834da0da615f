"""Deterministic CBOR: RFC 8949, core deterministic encoding (section 4.2.1), one accepted encoding per value.

What is accepted, and nothing else:

| Major type (RFC 8949 section 3.1) | Python | Limit |
|---|---|---|
| 0, 1 integers | `int` | -2^64 .. 2^64-1 |
| 2 byte string | `bytes` | |
| 3 text string | `str` | valid UTF-8 |
| 4 array | `list` | `max_depth` |
| 5 map | `dict` | keys are integers, byte strings or text strings; `max_depth` |
| 6 tag | `Tagged` | only the tags the caller names |
| 7 simple | `False`, `True`, `None` | no floats, no undefined, no other simple value |

A map is ordered by the bytes of its encoded keys: integers from 0 up, then -1 and down, then byte strings, then text
strings, shorter before longer. (cbor2's `canonical=True` is the older RFC 7049 order and is not used.)

What a message costs to read must follow from its size. So a message above 4 KiB is first walked head by head, before
anything is built from it, and refused if a container or tag is a key, or if it has too many items.

`decode` lets cbor2 do the reading with its limits switched on, then checks types, and last that the value encodes back
to exactly the bytes that arrived. That last check is what makes the encoding unique: it refuses long forms of
integers and lengths, unordered maps and trailing bytes without a rule for each.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import cbor2
from cbor2 import CBORTag as Tagged

from attestation.errors import Malformed

Value: TypeAlias = "int | bytes | str | bool | list[Value] | dict[Key, Value] | Tagged | None"
Key: TypeAlias = int | bytes | str
K = TypeVar("K", bound=Key)

__all__ = [
    "ARRAY",
    "BYTES",
    "MAP",
    "MAX_ITEMS",
    "UNSIGNED",
    "Key",
    "Tagged",
    "Unencodable",
    "Value",
    "byte_string",
    "decode",
    "encode",
    "encode_in_order",
    "encode_members",
    "head",
    "in_order",
    "remembered_order",
]

# Tags that cbor2 6.3 would turn into Python objects (dates, regular expressions, bignums, shared references ...).
_BUILT_IN_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100),
    *(256, 258, 260, 261, 1004, 43000, 55799),
)
UNSIGNED, BYTES, ARRAY, MAP = 0, 2, 4, 5
"""Major types (RFC 8949 section 3.1)."""
MAX_ITEMS = 65536
"""How many items a message may have, where nobody says otherwise: about a tenth of a second of reading."""


class Unencodable(TypeError):
    """A value has no place in this profile of CBOR. When it is one of ours, that is a bug, hence a `TypeError`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def encode(value: object) -> bytes:
    """Encode `value` deterministically (RFC 8949 section 4.2.1).

    Takes None, bool, int, bytes, str, list or tuple, dict with int, bytes or str keys, and `Tagged`, nested at will.
    Raises `Unencodable` for every other type, and for integers beyond 64 bits.
    """
    return cbor2.dumps(_normal(value, None))


def encode_in_order(value: object) -> bytes:
    """Encode a value whose maps are in order already (`in_order`) and whose types are those of `encode`.

    Nothing is checked: it is for what the caller's own types guarantee, at a third of the time of `encode`.
    """
    return cbor2.dumps(value)


def encode_members(members: dict[int, Any]) -> bytes:
    """What a map of at most 255 members, in order already, encodes to behind its head."""
    return cbor2.dumps(members)[1 if len(members) < _SHORT else 2 :]


@lru_cache(maxsize=256)
def head(major: int, count: int) -> bytes:
    """The head of an item of this major type and count, in its shortest form (RFC 8949 section 3)."""
    if count < _SHORT:
        return (major << 5 | count).to_bytes(1, "big")
    power = (count > 0xFF) + (count > 0xFFFF) + (count > 0xFFFFFFFF)
    return (major << 5 | _SHORT + power).to_bytes(1, "big") + count.to_bytes(1 << power, "big")


def byte_string(data: bytes) -> bytes:
    """A byte string, encoded: where the parts of an array are put together by hand, which is faster."""
    return head(BYTES, len(data)) + data


def decode(
    data: bytes,
    *,
    max_size: int,
    max_depth: int = 10,
    max_items: int = MAX_ITEMS,
    tags: frozenset[int] = frozenset(),
) -> Value:
    """Decode `data`, at most `max_size` bytes with containers and tags nested at most `max_depth` deep.

    `max_items` counts everything that has a head: numbers, strings, containers, tags. `tags` are the tag numbers
    allowed, anywhere in the value. Raises `Malformed`: `cbor.size`, `cbor.items`, `cbor.syntax` (not CBOR, a limit
    exceeded, an indefinite length, a duplicate key), `cbor.tag`, `cbor.type`, `cbor.range`, `cbor.key`, and
    `cbor.not-deterministic` when the same value has another, shorter or better ordered, encoding.
    """
    if len(data) > max_size:
        raise Malformed("cbor.size", f"{len(data)} bytes, {max_size} allowed")
    if len(data) > _HARMLESS:
        _refuse_hostile_shapes(data, max_items)
    try:
        raw: object = cbor2.loads(
            data,
            semantic_decoders=_DENIED,
            max_depth=max_depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
        value: Value = raw if _is_plain(raw) else _normal(raw, tags)  # type: ignore[assignment]  # that is what it says
    except cbor2.CBORDecodeError as error:
        if isinstance(error.__cause__, Unencodable):
            raise Malformed(error.__cause__.reason, error.__cause__.detail) from error
        raise Malformed("cbor.syntax", str(error)) from error
    except Unencodable as error:
        raise Malformed(error.reason, error.detail) from error
    if cbor2.dumps(value) != data:
        raise Malformed("cbor.not-deterministic", "the value has another encoding than the bytes that arrived")
    return value


def _refuse_hostile_shapes(data: bytes, max_items: int) -> None:
    """Walk the heads of all items (RFC 8949 section 3); refuse a key of major type 4, 5 or 6, and too many items.

    Everything else that is wrong with `data` is left to cbor2: the walk just ends there.
    """
    position = items = 0
    open_items = [1]  # how many items each open array or map still holds
    is_map = [False]
    while open_items and position < len(data):
        items += 1
        if items > max_items:
            raise Malformed("cbor.items", f"more than {max_items} items")
        major, info = divmod(data[position], 32)
        if is_map[-1] and open_items[-1] % 2 == 0 and major in (4, 5, 6):
            raise Malformed("cbor.key", "a map key that is neither integer nor string")
        width = 1 << info - 24 if info >= 24 else 0
        argument = int.from_bytes(data[position + 1 : position + 1 + width], "big") if width else info
        position += 1 + width
        open_items[-1] -= 1
        if major in (2, 3):
            position += argument
        elif major in (4, 5, 6):
            open_items.append(1 if major == 6 else argument * (major - 3))
            is_map.append(major == 5)
        while open_items and not open_items[-1]:
            open_items.pop()
            is_map.pop()


def _is_plain(value: Any) -> bool:
    """Whether there is nothing but atoms, lists, and maps in order: then `_normal` would only make a copy."""
    kind = type(value)
    items: Collection[Any] = ()
    if kind is list:
        items = value
    elif kind is dict:
        if value and not _is_in_order(tuple(value)):
            return False
        items = value.values()
    elif kind not in _ATOMS:
        return False
    for item in items:  # noqa: SIM110  # a generator would cost as much as the checks
        if type(item) not in _ATOMS and not _is_plain(item):
            return False
    return True


def _is_in_order(keys: tuple[Any, ...]) -> bool:
    """Whether map keys that arrived are keys, in the order of their encodings. Of these, only labels are remembered."""
    for key in keys:
        if type(key) is not int:
            if len(keys) == 1:
                return type(key) in _KEYS
            return _KEYS.issuperset(map(type, keys)) and tuple(in_order(keys)) == keys
    return remembered_order(keys) == keys


def _normal(value: Any, tags: frozenset[int] | None) -> Any:
    """Copy `value` with its types checked and every map in the order of its encoded keys; `tags` None allows all."""
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is int:
        if not -_BEYOND <= value < _BEYOND:
            raise Unencodable("cbor.range", "integer beyond 64 bits")
        return value
    if kind is list or kind is tuple:
        return [item if type(item) in _LEAVES else _normal(item, tags) for item in value]
    if kind in _MAPS:
        if not value:
            return {}
        if not _KEYS.issuperset(map(type, value)):
            raise Unencodable("cbor.key", "a map key that is neither integer nor string")
        return {key: item if type(item := value[key]) in _LEAVES else _normal(item, tags) for key in in_order(value)}
    if kind is Tagged:
        if tags is not None and value.tag not in tags:
            raise Unencodable("cbor.tag", f"tag {value.tag} is not expected here")
        return Tagged(value.tag, _normal(value.value, tags))
    raise Unencodable("cbor.type", f"{kind.__name__} is not allowed")


def remembered_order(keys: tuple[K, ...]) -> tuple[K, ...]:
    """`in_order`, remembered for short rows of keys: the maps of one kind mostly have the same ones."""
    return _remembered(keys) if len(keys) <= _FEW else tuple(in_order(keys))


@lru_cache(maxsize=4096)
def _remembered(keys: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(in_order(keys))


def in_order(keys: Collection[K]) -> list[K]:
    """Sort map keys by the bytes of their encodings. Raises `Unencodable` for an integer beyond 64 bits."""
    kinds = set(map(type, keys))
    if kinds == {int}:
        if not -_BEYOND <= min(keys) <= max(keys) < _BEYOND:  # type: ignore[operator]  # all integers
            raise Unencodable("cbor.range", "integer beyond 64 bits")
        return sorted(keys, key=_integer_order)  # type: ignore[arg-type]
    if kinds == {str}:
        return sorted(keys, key=_text_order)  # type: ignore[arg-type]
    ordered = sorted(keys, key=cbor2.dumps)
    _normal(ordered[-1:], None)  # an integer beyond 64 bits would encode as a tag, which sorts last
    return ordered


def _text_order(key: str) -> tuple[int, bytes]:
    """The shorter before the longer, because the length stands first in the encoding."""
    encoded = key.encode()
    return len(encoded), encoded


def _integer_order(key: int) -> int:
    """From 0 up, then -1 and down: what the encodings of integers sort by."""
    return key if key >= 0 else _BEYOND - key


def _deny(*_: object) -> object:
    raise Unencodable("cbor.tag", "a tag that is not expected here")


_BEYOND = 1 << 64
_SHORT = 24  # up to here a head holds its number itself
_FEW = 64
_HARMLESS = 4096  # whatever its shape, a message of this size is read in well below a millisecond
_DENIED = dict.fromkeys(_BUILT_IN_TAGS, _deny)
_LEAVES = frozenset({bytes, str, bool, type(None)})
_ATOMS = _LEAVES | {int}
_KEYS = frozenset({int, bytes, str})
_MAPS = frozenset({dict, type(cbor2.loads(b"\xa0", immutable=True))})  # inside a tag cbor2 builds frozendict
