"""The ways in which genuine TPM evidence is changed at random.

Half of the changes know the format: events of a log and entries of a list are exchanged, left out, put in twice, moved,
taken from another machine, and changed in one field with all lengths made to fit (register, type, digest, algorithm,
template, name, data, number of the first entry). The others are edits of bytes (:mod:`tools.evidence.edits`).
"""

import hashlib
import random
import struct
from collections.abc import Callable, Sequence

from attestation.tpm.boot import kinds
from attestation.tpm.structures import HASHES
from tools.evidence.edits import PLAIN, Operation, splice
from tools.evidence.target import Target

WEIGHTS = {"log": 5, "ima": 4, "quote": 2, "ek": 1}
"""How often each kind of part is changed; the parts of a kind share it equally."""

_SIZES = {0x4: 20, 0xB: 32, 0xC: 48, 0xD: 64}
_HEAD = struct.Struct("<II")
_TYPES = (*kinds.NAMES, 0, 2, 0xFFFFFFFF)
_TEMPLATES = (b"ima", b"ima-ng", b"ima-sig", b"ima-buf", b"ima-ngv2", b"ima-sigv2", b"ima-modsig", b"ima-new")
_ALGORITHMS = (b"sha1", b"sha256", b"sha384", b"sha512", b"md5", b"verity:sha256", b"ima:sha256", b"crc32")
_BINARY_TEMPLATE = 28
"""Where a binary entry has its template's name: after PCR, digest and length."""

Units = list[bytes]
Move = Callable[[random.Random, Units, Sequence[bytes]], None]
Edit = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


# --- units as wholes --------------------------------------------------------------------------------------------------


def exchange(rng: random.Random, units: Units, _others: Sequence[bytes]) -> None:
    """Two in each other's place, often neighbours."""
    a = rng.randrange(len(units))
    b = min(a + 1, len(units) - 1) if rng.random() < 0.5 else rng.randrange(len(units))
    units[a], units[b] = units[b], units[a]


def drop(rng: random.Random, units: Units, _others: Sequence[bytes]) -> None:
    """One, or some in a row."""
    at = rng.randrange(len(units))
    del units[at : at + rng.choice((1, 1, 1, 3))]


def repeat(rng: random.Random, units: Units, _others: Sequence[bytes]) -> None:
    """One twice, beside itself or elsewhere."""
    at = rng.randrange(len(units))
    units.insert(at + 1 if rng.random() < 0.5 else rng.randrange(len(units) + 1), units[at])


def move(rng: random.Random, units: Units, _others: Sequence[bytes]) -> None:
    """One to another place."""
    units.insert(rng.randrange(len(units)), units.pop(rng.randrange(len(units))))


def turn(rng: random.Random, units: Units, _others: Sequence[bytes]) -> None:
    """Some in reverse."""
    at, count = rng.randrange(len(units)), rng.choice((2, 3, 8))
    units[at : at + count] = reversed(units[at : at + count])


def foreign(rng: random.Random, units: Units, others: Sequence[bytes]) -> None:
    """One of another machine's, in the place of one or beside it."""
    at = rng.randrange(len(units))
    units[at : at + rng.randrange(2)] = [rng.choice(others)]


def graft(rng: random.Random, units: Units, others: Sequence[bytes]) -> None:
    """The end of another machine's behind the beginning of this one's."""
    units[rng.randrange(len(units)) :] = others[rng.randrange(len(others)) :]


def shorten(rng: random.Random, units: Units, _others: Sequence[bytes]) -> None:
    """The end away."""
    del units[rng.randrange(len(units)) :]


# --- one event --------------------------------------------------------------------------------------------------------


def _fields(unit: bytes) -> tuple[int, int, list[tuple[int, bytes]], bytes] | None:
    """Register, type, digests and data of an event of the crypto-agile format; None for anything else."""
    if len(unit) < 16:
        return None
    pcr, kind = _HEAD.unpack_from(unit)
    count, at = int.from_bytes(unit[8:12], "little"), 12
    digests = []
    for _ in range(min(count, 8)):
        alg = int.from_bytes(unit[at : at + 2], "little")
        size = _SIZES.get(alg, 0)
        digests.append((alg, unit[at + 2 : at + 2 + size]))
        at += 2 + size
    data = unit[at + 4 :]
    whole = len(digests) == count and int.from_bytes(unit[at : at + 4], "little") == len(data)
    return (pcr, kind, digests, data) if whole else None


def _event(pcr: int, kind: int, digests: Sequence[tuple[int, bytes]], data: bytes) -> bytes:
    listed = b"".join(alg.to_bytes(2, "little") + digest for alg, digest in digests)
    return _HEAD.pack(pcr, kind) + len(digests).to_bytes(4, "little") + listed + _sized(data)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def register(rng: random.Random, unit: bytes, _others: Sequence[bytes]) -> bytes:
    """An event of another register."""
    return rng.choice((rng.randrange(24), rng.randrange(8), 0xFFFFFFFF)).to_bytes(4, "little") + unit[4:]


def kind(rng: random.Random, unit: bytes, _others: Sequence[bytes]) -> bytes:
    """An event of another type: types are not measured."""
    return unit[:4] + rng.choice(_TYPES).to_bytes(4, "little") + unit[8:]


def data(rng: random.Random, unit: bytes, others: Sequence[bytes]) -> bytes:
    """Other data, with the length that they have: changed, cut, grown, or another event's."""
    fields = _fields(unit)
    if fields is None:
        return unit
    pcr, kind_, digests, found = fields
    match rng.randrange(4):
        case 0:
            changed = bytearray(found or b"\0")
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            found = bytes(changed)
        case 1:
            found = found[: rng.randrange(len(found) + 1)]
        case 2:
            found += rng.choice((b"\0", b"\0\0", b" ", rng.randbytes(8)))
        case _:
            other = _fields(rng.choice(others))
            found = other[3] if other else found
    return _event(pcr, kind_, digests, found)


def digest(rng: random.Random, unit: bytes, others: Sequence[bytes]) -> bytes:
    """Other digests: of the data, of zeroes, of another event, fewer, twice, of each other's banks."""
    fields = _fields(unit)
    if fields is None or not fields[2]:
        return unit
    pcr, kind_, digests, found = fields
    match rng.randrange(6):
        case 0:
            digests = [(alg, hashlib.new(HASHES[alg], found).digest()) for alg, _ in digests if alg in HASHES]
        case 1:
            digests = [(alg, bytes(len(value))) for alg, value in digests]
        case 2:
            other = _fields(rng.choice(others))
            digests = other[2] if other else digests
        case 3:
            digests = digests[1:]
        case 4:
            digests = [*digests, rng.choice(digests)]
        case _:
            values = [value for _, value in digests]
            digests = [(alg, value) for (alg, _), value in zip(digests, reversed(values), strict=True)]
    return _event(pcr, kind_, digests, found)


def silent(rng: random.Random, unit: bytes, others: Sequence[bytes]) -> bytes:
    """An event that extends nothing beside this one: a copy of it or of another, or a startup locality."""
    fields, other = _fields(unit), _fields(rng.choice(others))
    if fields is None:
        return unit
    told = rng.choice((fields[3], b"StartupLocality\0" + bytes([rng.choice((0, 3, 4))]), other[3] if other else b""))
    zero = [(alg, bytes(len(value))) for alg, value in fields[2]]
    made = _event(rng.choice((fields[0], 0, 7)), kinds.NO_ACTION, zero, told)
    return rng.choice((made + unit, unit + made, made))


# --- one entry --------------------------------------------------------------------------------------------------------


def line(rng: random.Random, unit: bytes, others: Sequence[bytes]) -> bytes:
    """One field of an ascii entry: another entry's, another case, zeroes, ones, a known word."""
    words, other = unit.rstrip(b"\n").split(b" "), rng.choice(others).rstrip(b"\n").split(b" ")
    if len(words) < 5 or len(other) < 5:
        return unit
    at = rng.randrange(len(words))
    algorithm, _, value = words[3].rpartition(b":")
    words[at] = rng.choice(
        (
            other[min(at, len(other) - 1)],
            words[at].upper(),
            b"0" * len(words[at]),
            b"f" * len(words[at]),
            words[at] + rng.choice((b" ", b"\0", b"0", b"/../x")),
            rng.choice((b"10", b"11", b"13", b"010")) if at == 0 else words[at][1:],
            rng.choice(_TEMPLATES) if at == 2 else words[at][:-1],
            rng.choice(_ALGORITHMS) + b":" + value if at == 3 else algorithm,
        )
    )
    if rng.random() < 0.3:  # a template digest that fits, of the template ima-ng at least
        name = rng.choice(_ALGORITHMS) if rng.random() < 0.2 else words[3].rpartition(b":")[0]
        fields = name + b":\0" + _unhex(words[3].rpartition(b":")[2]), words[4] + b"\0"
        words[1] = hashlib.sha1(b"".join(map(_sized, fields))).hexdigest().encode()  # noqa: S324 - as the kernel does
    return b" ".join(words) + b"\n"


def _unhex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return b""


def entry(rng: random.Random, unit: bytes, others: Sequence[bytes]) -> bytes:
    """One field of a binary entry, with the template digest that fits half of the time."""
    size = int.from_bytes(unit[24:28], "little")
    start = _BINARY_TEMPLATE + size
    if len(unit) < start + 4:
        return unit
    pcr, given, template, body = unit[:4], unit[4:24], unit[_BINARY_TEMPLATE:start], unit[start + 4 :]
    other = rng.choice(others)
    match rng.randrange(6):
        case 0:
            pcr = rng.choice((9, 10, 11, 13, 0x0A000000)).to_bytes(4, "little")
        case 1:
            given = rng.choice((bytes(20), b"\xff" * 20, other[4:24].ljust(20, b"\0")))
        case 2:
            template = rng.choice(_TEMPLATES)
        case 3:
            body = other[start + 4 :]
        case 4:
            changed = bytearray(body or b"\0")
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            body = bytes(changed)
        case _:
            body = body + rng.choice((b"\0", _sized(b""), _sized(b"x")))
    if rng.random() < 0.5:
        given = hashlib.sha1(body).digest()  # noqa: S324 - as the kernel does
    return pcr + given + _sized(template) + _sized(body)


def begin(rng: random.Random, unit: bytes, _others: Sequence[bytes]) -> bytes:
    """Another number of the first entry."""
    return max(0, int.from_bytes(unit[:8], "big") + rng.choice((-1, 1, 5, 1 << 20, -(1 << 20)))).to_bytes(8, "big")


# --- a change ---------------------------------------------------------------------------------------------------------

MOVES: Sequence[Move] = (exchange, exchange, drop, repeat, move, turn, foreign, graft, shorten)
LOG: Sequence[Edit] = (register, kind, kind, kind, data, data, digest, silent)
"""Of an event. A type is the one field that nothing covers, so it is changed more often than others."""


def _of_units(rng: random.Random, target: Target, others: Sequence[Target]) -> tuple[bytes, str]:
    """One operation on the units of a target."""
    units, pool = list(target.units), rng.choice(others).units or target.units
    if rng.random() < 0.4 or target.kind == "ek":
        operation = rng.choice(MOVES)
        operation(rng, units, pool)
        return b"".join(units), operation.__name__
    at = rng.randrange(len(units))
    if target.kind == "log":
        edit: Edit = rng.choice(LOG)
    elif at == 0:
        edit = begin
    else:
        edit = entry if b"\0" in units[at][:4] else line
    units[at] = edit(rng, units[at], pool)
    return b"".join(units), edit.__name__


BYTES: Sequence[Operation] = (*PLAIN, *(splice,) * 2)


def change(seed: str, number: int, targets: Sequence[Target]) -> tuple[Target, bytes, str]:
    """The part that is changed, its changed bytes, and the names of the operations."""
    rng = random.Random(f"tpm/{seed}/{number}")  # noqa: S311 - it has to come again
    kinds_ = sorted({target.kind for target in targets})
    (chosen,) = rng.choices(kinds_, [WEIGHTS[kind] for kind in kinds_])
    alike = [t for t in targets if t.kind == chosen]
    target = rng.choice(alike)
    others = [t for t in alike if t is not target] or [target]
    changed, names = bytearray(target.data), list[str]()
    if target.units and rng.random() < 0.6:
        made, name = _of_units(rng, target, others)
        changed[:] = made
        names.append(name)
    wanted = rng.choice((1, 1, 1, 2, 3)) if not names or rng.random() < 0.1 else 0
    while wanted > 0 or changed == target.data:  # two equal bytes were swapped, or the like
        operation = rng.choice(BYTES)
        names.append(operation.__name__)
        if changed:
            operation(rng, changed, target, rng.choice(others).data)
        else:
            changed += target.data[:1]
        wanted -= 1
    return target, bytes(changed), "+".join(names)
