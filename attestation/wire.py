"""Declarative CBOR maps with integer labels: one accepted encoding per object.

Every object of Interlock is a frozen dataclass whose fields name their label; this module derives the reader and
the writer from them, so that no format has a hand-written parser and all refuse the same way:

* a map with exactly the labels of the class: a label that is not known is refused, and so is a missing one;
* each value of exactly the declared type and within the declared bounds (``bool`` is not an ``int``);
* an optional field (``X | None``) is absent when it is ``None``, never CBOR null;
* a collection declared ``sparse`` is absent when it is empty, never an empty array or map: so a class gains a
  collection and older documents keep their one encoding;
* a tuple declared ``ordered`` is strictly ascending, so a set has one encoding;
* the bytes are deterministic CBOR, enforced by :mod:`attestation.cbor`.

Encoding: RFC 8949 section 4.2.1. Labels: docs/formats.md.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import partial
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, TypeAlias, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from attestation import cbor
from attestation.errors import Malformed

_INT_MAX = 2**63 - 1

T = TypeVar("T", bound="Wire")

type_ = type
_blank = object.__new__


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a field accepts beyond its type: ``low..high`` for integers, ``size`` (exact) or ``most`` for lengths."""

    low: int = 0
    high: int = _INT_MAX
    size: int | None = None
    most: int = 4096
    ordered: bool = False
    sparse: bool = False


def label(
    number: int,
    *,
    default: Any = MISSING,
    low: int = 0,
    high: int = _INT_MAX,
    size: int | None = None,
    most: int = 4096,
    ordered: bool = False,
    sparse: bool = False,
) -> Any:
    """Declare a field's integer label and bounds.

    ``size`` is the exact and ``most`` the greatest length of a byte or text string (in bytes or characters) or of a
    collection (in members); the bounds of a collection's members are those of the same declaration. The
    ``default`` of a ``sparse`` collection is the empty one.
    """
    bounds = Bounds(low, high, size, most, ordered, sparse)
    metadata = {"label": number, "bounds": bounds}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


Read: TypeAlias = Callable[[Any], Any]
"""Reads one decoded CBOR value, or raises ``Malformed`` that names its field."""


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one type is written to a CBOR value, and what reads it for the field that ``reads`` is given the name of.

    ``join`` encodes a collection of wire objects from what each of them encodes to, which it remembers.
    """

    write: Callable[[Any], Any]
    reads: Callable[[str], Read]
    join: Callable[[Any], bytes] | None = None


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    label: int
    write: Callable[[Any], Any]
    read: Read
    optional: bool
    where: str
    put: Callable[[Any, Any], None]
    absent: Any
    join: Callable[[Any], bytes] | None


def _same(value: Any) -> Any:
    return value


def _wrong(where: str, wanted: str, value: object) -> Malformed:
    return Malformed("wire.type", f"{where}: expected {wanted}, got {type_(value).__name__}")


def _int(bounds: Bounds) -> _Codec:
    low, high = bounds.low, bounds.high

    def reads(where: str) -> Read:
        def read(value: Any) -> Any:
            if type_(value) is not int:
                raise _wrong(where, "an integer", value)
            if not low <= value <= high:
                raise Malformed("wire.range", f"{where}: {value} is outside {low}..{high}")
            return value

        return read

    return _Codec(_same, reads)


def _bool(_bounds: Bounds) -> _Codec:
    def reads(where: str) -> Read:
        def read(value: Any) -> Any:
            if type_(value) is not bool:
                raise _wrong(where, "true or false", value)
            return value

        return read

    return _Codec(_same, reads)


def _string(kind: type[bytes] | type[str], wanted: str) -> Callable[[Bounds], _Codec]:
    def build(bounds: Bounds) -> _Codec:
        size = bounds.size
        least, most = (0, bounds.most) if size is None else (size, min(size, bounds.most))

        def reads(where: str) -> Read:
            def read(value: Any) -> Any:
                if type_(value) is not kind:
                    raise _wrong(where, wanted, value)
                if not least <= len(value) <= most:
                    bound = f"at most {most}" if size is None else f"must be {size}"
                    raise Malformed("wire.size", f"{where}: length {len(value)}, {bound}")
                return value

            return read

        return _Codec(_same, reads)

    return build


def _tuple(tp: Any, bounds: Bounds) -> _Codec:
    member = _codec(get_args(tp)[0], bounds)
    most, ordered = bounds.most, bounds.ordered

    def write(value: tuple[Any, ...]) -> list[Any]:
        return list(value) if member.write is _same else [member.write(item) for item in value]

    def reads(where: str) -> Read:
        read_member = member.reads(where)

        def read(value: Any) -> Any:
            if type_(value) is not list:
                raise _wrong(where, "an array", value)
            if len(value) > most:
                raise Malformed("wire.size", f"{where}: {len(value)} members, at most {most}")
            items = tuple([read_member(item) for item in value])
            if ordered and any(a >= b for a, b in itertools.pairwise(items)):
                raise Malformed("wire.order", f"{where}: members must be ascending, without repetition")
            return items

        return read

    return _Codec(write, reads, _join_array if _is_wire(get_args(tp)[0]) else None)


def _mapping(tp: Any, bounds: Bounds) -> _Codec:
    key_type, value_type = get_args(tp)
    key = _codec(key_type, Bounds(low=-_INT_MAX, most=256))
    member = _codec(value_type, bounds)
    most = bounds.most

    def write(value: Mapping[Any, Any]) -> dict[Any, Any]:
        keys = cbor.remembered_order(tuple(value)) if len(value) > 1 else value
        return {key: member.write(value[key]) for key in keys}

    def reads(where: str) -> Read:
        read_key, read_member = key.reads(where), member.reads(where)

        def read(value: Any) -> Any:
            if type_(value) is not dict:
                raise _wrong(where, "a map", value)
            if len(value) > most:
                raise Malformed("wire.size", f"{where}: {len(value)} members, at most {most}")
            return {read_key(k): read_member(v) for k, v in value.items()}

        return read

    return _Codec(write, reads, _join_map if _is_wire(value_type) else None)


def _is_wire(tp: Any) -> bool:
    return isinstance(tp, type_) and issubclass(tp, Wire)


def _join_array(items: "tuple[Wire, ...]") -> bytes:
    return b"".join((cbor.head(cbor.ARRAY, len(items)), *[item.to_bytes() for item in items]))


def _join_map(items: "Mapping[Any, Wire]") -> bytes:
    pieces = [cbor.head(cbor.MAP, len(items))]
    for key in cbor.remembered_order(tuple(items)) if len(items) > 1 else items:
        pieces += cbor.encode_in_order(key), items[key].to_bytes()
    return b"".join(pieces)


def _unless_empty(read: Read, where: str) -> Read:
    def read_some(value: Any) -> Any:
        items = read(value)
        if not items:
            raise Malformed("wire.size", f"{where}: empty, so it has to be left out")
        return items

    return read_some


def _nested(cls: Any) -> _Codec:
    write = _shared_value if issubclass(cls, Wire) else cls.to_value
    return _Codec(write, lambda where: partial(cls.from_value, where=where))


def _shared_value(value: "Wire") -> Any:
    """The value of an object that is part of others, made once and given to nobody who changes it."""
    try:
        return value._value  # noqa: SLF001 - a part of the class, out here so that codecs can name it
    except AttributeError:
        made = value.to_value()
        object.__setattr__(value, "_value", made)
        return made


_SCALARS: dict[Any, Callable[[Bounds], _Codec]] = {
    int: _int,
    bool: _bool,
    bytes: _string(bytes, "a byte string"),
    str: _string(str, "a text string"),
}


def _codec(tp: Any, bounds: Bounds) -> _Codec:
    if tp in _SCALARS:
        return _SCALARS[tp](bounds)
    origin = get_origin(tp)
    if origin is tuple:
        return _tuple(tp, bounds)
    if origin is Mapping:
        return _mapping(tp, bounds)
    if hasattr(tp, "from_value"):
        return _nested(tp)
    raise TypeError(f"no wire encoding for {tp!r}")


def _optional(tp: Any) -> tuple[Any, bool]:
    if get_origin(tp) is UnionType:
        inner = [arg for arg in get_args(tp) if arg is not NoneType]
        return inner[0], True
    return tp, False


class Wire:
    """Base of every wire object; see the module's rules. ``MAX_SIZE`` is checked before anything is parsed, and so is
    ``MAX_ITEMS`` (:func:`attestation.cbor.decode`) where the bytes are many.

    A class may have a method ``check()``: rules that join several fields. It raises ``Malformed`` and is called after
    every read.
    """

    __slots__ = ("_encoded", "_value")

    MAX_SIZE: ClassVar[int] = 65536
    MAX_ITEMS: ClassVar[int] = cbor.MAX_ITEMS
    _members: ClassVar[tuple[_Member, ...]] = ()
    _by_label: ClassVar[dict[int, _Member]] = {}
    _written: ClassVar[tuple[tuple[int, str, Callable[[Any], Any]], ...]] = ()
    _sparse: ClassVar[frozenset[int]] = frozenset()
    _joins: ClassVar[Mapping[int, tuple[bytes, Callable[[Any], bytes]]]] = {}
    _encoded: bytes
    _value: Any
    _check: ClassVar[Callable[[Any], None] | None] = None

    def to_value(self) -> dict[int, Any]:
        """The object as a CBOR map: labels to values, in the order of their encoding."""
        value: dict[int, Any] = {}
        for number, name, write in self._written:
            item = getattr(self, name)
            if item is not None and (item or number not in self._sparse):
                value[number] = item if write is _same else write(item)
        return value

    def to_bytes(self) -> bytes:
        """The one encoding of this object, deterministic CBOR; made once, because nothing in it changes."""
        try:
            return self._encoded
        except AttributeError:
            encoded = self._joined() if self._joins else cbor.encode_in_order(self.to_value())
            object.__setattr__(self, "_encoded", encoded)
            return encoded

    def _joined(self) -> bytes:
        """The encoding of an object that has collections of others: from theirs, which are made once."""
        joins, count = self._joins, 0
        pieces, run = [b""], {}
        for number, name, write in self._written:
            item = getattr(self, name)
            if item is None or (not item and number in self._sparse):
                continue
            count += 1
            if number not in joins:
                run[number] = item if write is _same else write(item)
                continue
            encoded_label, join = joins[number]
            pieces += cbor.encode_members(run), encoded_label, join(item)
            run = {}
        pieces[0] = cbor.head(cbor.MAP, count)
        pieces.append(cbor.encode_members(run))
        return b"".join(pieces)

    @classmethod
    def from_value(cls, value: Any, where: str = "") -> Self:
        """Read a decoded CBOR map. Raises ``Malformed`` with the path of the first field that is wrong."""
        if type_(value) is not dict:
            raise _wrong(where or cls.__name__, "a map", value)
        made, by_label = _blank(cls), cls._by_label
        for number, item in value.items():
            member = by_label.get(number)
            if member is None:
                raise Malformed("wire.unknown", f"{cls.__name__}: no field has label {number!r}")
            member.put(made, member.read(item))
        if len(value) != len(by_label):
            for member in cls._members:
                if member.label not in value:
                    if not member.optional:
                        raise Malformed("wire.missing", f"{member.where} is missing")
                    member.put(made, member.absent)
        if cls._check is not None:
            cls._check(made)
        return made

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the one encoding of this object, and keep it: there is no other. Raises ``Malformed``."""
        made = cls.from_value(cbor.decode(data, max_size=cls.MAX_SIZE, max_items=cls.MAX_ITEMS))
        object.__setattr__(made, "_encoded", data)
        return made

    @classmethod
    def layout(cls) -> list[tuple[int, str, Any, Bounds, bool]]:
        """(label, name, type, bounds, optional) of each field, in label order: what docs/formats.md is made from."""
        hints = get_type_hints(cls)
        rows = [(f.metadata["label"], f.name, *_optional(hints[f.name]), f.metadata["bounds"]) for f in _declared(cls)]
        return sorted(((n, name, tp, b, opt or b.sparse) for n, name, tp, opt, b in rows), key=lambda row: row[0])


def _declared(cls: type[Wire]) -> tuple[Field[Any], ...]:
    return fields(cls)  # type: ignore[arg-type]  # every subclass is made a dataclass by @wire


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(label,))
def wire(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen keyword-only dataclass and derive its codec. Two fields with one label are a TypeError."""
    made = dataclass(frozen=True, kw_only=True, slots=True)(cls)
    hints = get_type_hints(made)
    members = []
    for f in _declared(made):
        tp, optional = _optional(hints[f.name])
        bounds = f.metadata["bounds"]
        codec, where = _codec(tp, bounds), f"{made.__name__}.{f.name}"
        read, put = codec.reads(where), getattr(made, f.name).__set__
        absent = f.default if bounds.sparse else None
        if bounds.sparse:
            read, optional = _unless_empty(read, where), True
        members.append(
            _Member(f.name, f.metadata["label"], codec.write, read, optional, where, put, absent, codec.join)
        )
    by_label = {m.label: m for m in members}
    if len(by_label) != len(members):
        raise TypeError(f"{made.__name__}: two fields have the same label")
    made._members, made._by_label = tuple(members), by_label  # noqa: SLF001 - the decorator makes the class
    written = [by_label[number] for number in cbor.in_order(by_label)]
    made._written = tuple((m.label, m.name, m.write) for m in written)  # noqa: SLF001
    made._sparse = frozenset(f.metadata["label"] for f in _declared(made) if f.metadata["bounds"].sparse)  # noqa: SLF001
    made._joins = {m.label: (cbor.encode(m.label), m.join) for m in written if m.join is not None}  # noqa: SLF001
    made._check = getattr(made, "check", None)  # noqa: SLF001
    return made
