"""The ways in which genuine evidence is changed at random: each operation is one edit of a file's bytes.

Most know nothing of the format. Some do, so that changes reach behind the first check of a form: PEM blocks and XML
elements are moved as wholes, certificates are changed behind their base64, a report's lengths are made to fit, white
space goes where the format has some.
"""

import random
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence

from tools.evidence.edits import PLAIN, Operation, delete, double, flip, insert, set_byte, splice, swap
from tools.evidence.target import Target

WEIGHTS = {"report": 4, "chain": 3, "rim": 2, "ocsp": 1}
"""How often each kind of file is changed; the files of a kind share it equally."""

_SPACES = (b" ", b"\n", b"\t", b"\r", b"\r\n", b"  ", b"\x0b", b"\xc2\xa0")
_SPACED = {
    "chain": (b"\n", b"-----"),
    "rim": (b'" ', b"/>", b"><", b">\n", b"\n", b"M", b"="),
    "report": (),
    "ocsp": (),
}
_UNITS = {
    "chain": re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL),
    "rim": re.compile(rb"<[\w:]+[^<>]*/>|<ds:X509Certificate>[^<]*</ds:X509Certificate>|<[^<>]+>"),
}
_BASE64 = re.compile(rb"(?:-----BEGIN CERTIFICATE-----\n|X509Certificate>)([A-Za-z0-9+/=\s]{64,}?)(?=\n-----END|<)")
_OPAQUE, _SIGNATURE = 79, 96  # where the opaque data begins behind the record, and what follows it


def _move_unit(rng: random.Random, data: bytearray, target: Target, other: bytes) -> None:
    """Whole PEM blocks or XML tags: moved, doubled, dropped, or taken from another file."""
    pattern = _UNITS.get(target.kind)
    units = [found.span() for found in pattern.finditer(data)] if pattern else []
    if not units or pattern is None:
        return swap(rng, data, target, other)
    start, end = rng.choice(units)
    to = rng.choice(units)[0]
    foreign = pattern.findall(other)
    match rng.randrange(4):
        case 0:
            unit = bytes(data[start:end])
            data[to:to] = unit
        case 1:
            del data[start:end]
        case 2:
            data[start:end] = rng.choice(foreign)
        case _:
            a, b = sorted([(start, end), rng.choice(units)])
            first, second = bytes(data[a[0] : a[1]]), bytes(data[b[0] : b[1]])
            if a[1] <= b[0]:
                data[b[0] : b[1]] = first
                data[a[0] : a[1]] = second
    return None


def _space(rng: random.Random, data: bytearray, target: Target, other: bytes) -> None:
    """White space near where the format has some, put in or taken out."""
    marks = _SPACED[target.kind]
    if not marks:
        return set_byte(rng, data, target, other)
    mark = rng.choice(marks)
    at = data.find(mark, rng.randrange(len(data)))
    if at < 0:
        return None
    if rng.random() < 0.25 and mark == b"\n":
        del data[at]
    else:
        to = at + len(mark) * rng.randrange(2)
        data[to:to] = rng.choice(_SPACES)
    return None


def _inside(rng: random.Random, data: bytearray, target: Target, other: bytes) -> None:
    """A byte of a certificate, behind its base64, which is written again as it was."""
    found = list(_BASE64.finditer(data))
    if not found:
        return _fit(rng, data, target, other)
    text = rng.choice(found)
    try:
        der = bytearray(a2b_base64(text[1]))
    except ValueError:
        return None  # an operation before this one has broken it
    rng.choice((flip, set_byte, swap))(rng, der, target, other)
    written = b2a_base64(der, newline=False)
    lines = [written[at : at + 64] for at in range(0, len(written), 64)] if b"\n" in text[1] else [written]
    data[text.start(1) : text.end(1)] = b"\n".join(lines)
    return None


def _fit(rng: random.Random, data: bytearray, target: Target, other: bytes) -> None:
    """A report's opaque data with a byte more or less, and the length that says so."""
    record = int.from_bytes(data[42:45], "little")
    at = _OPAQUE + record
    if target.kind != "report" or not at < len(data) - _SIGNATURE:
        return flip(rng, data, target, other)
    body = bytearray(data[at:-_SIGNATURE])
    rng.choice((insert, delete, double, swap))(rng, body, target, other)
    data[at:-_SIGNATURE] = body
    data[at - 2 : at] = (len(body) & 0xFFFF).to_bytes(2, "little")
    return None


OPERATIONS: Sequence[Operation] = (*PLAIN, *(splice,) * 2, _move_unit, *(_space,) * 2, *(_inside,) * 4)


def _operate(rng: random.Random, data: bytearray, target: Target, others: Sequence[bytes]) -> str:
    """One operation, and its name."""
    operation = rng.choice(OPERATIONS)
    if data:
        operation(rng, data, target, rng.choice(others))
    return operation.__name__.lstrip("_")


def change(seed: str, number: int, targets: Sequence[Target]) -> tuple[Target, bytes, str]:
    """The file that is changed, its changed bytes, and the names of the operations."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - it has to come again
    kinds = sorted({target.kind for target in targets})
    (kind,) = rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])
    target = rng.choice([t for t in targets if t.kind == kind])
    others = [t.data for t in targets if t.kind == kind and t is not target] or [target.data]
    data = bytearray(target.data)
    names = [_operate(rng, data, target, others) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    while data == target.data:  # two equal bytes were swapped, or the like
        names.append(_operate(rng, data, target, others))
    return target, bytes(data), "+".join(names)
