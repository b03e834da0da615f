"""The DER in the extensions that device certificates carry (ITU-T X.690).

Integers in their shortest form, bit strings without set unused bits, and nothing after the last element. Everything
else is `Malformed("gpu.chain.der")`, bytes missing or left over are `gpu.chain.der.truncated` and
`gpu.chain.der.trailing`. Certificates themselves are parsed by `cryptography`.
"""

from attestation import der
from attestation.der import CONSTRUCTED, CONTEXT, INTEGER, OCTET_STRING, OID, SEQUENCE, UTF8_STRING, Element
from attestation.errors import Malformed

__all__ = [
    "CONSTRUCTED",
    "CONTEXT",
    "INTEGER",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "UTF8_STRING",
    "Element",
    "bits",
    "contents",
    "elements",
    "inside",
    "unsigned",
]

_CODE, _TRUNCATED, _TRAILING = "gpu.chain.der", "gpu.chain.der.truncated", "gpu.chain.der.trailing"
_MOST_NUMBER = 8


def elements(data: bytes) -> tuple[Element, ...]:
    """All elements in `data`, one after another. Raises `Malformed("gpu.chain.der...")`."""
    return tuple(der.elements(data, _CODE, _TRUNCATED))


def inside(data: bytes, tag: int) -> tuple[Element, ...]:
    """The elements inside the one element, of type `tag`, that `data` is. Raises `Malformed("gpu.chain.der...")`."""
    return elements(contents(data, tag))


def contents(data: bytes, tag: int) -> bytes:
    """The contents of the one element, of type `tag`, that `data` is. Raises `Malformed("gpu.chain.der...")`."""
    found = elements(data)
    if not found:
        raise Malformed(_TRUNCATED, "there is no element")
    if len(found) > 1:
        raise Malformed(_TRAILING, f"{len(found) - 1} elements after the one that belongs here")
    if found[0].tag != tag:
        raise Malformed(_CODE, f"type {found[0].tag:#04x} where {tag:#04x} belongs")
    return found[0].contents


def unsigned(octets: bytes) -> int:
    """The number in the contents of an INTEGER, from 0 to 2^63 - 1. Raises `Malformed("gpu.chain.der")`."""
    if not octets or octets[0] & 0x80 or (octets[0] == 0 and len(octets) > 1 and not octets[1] & 0x80):
        raise Malformed("gpu.chain.der", "an integer is negative or not in its shortest form")
    if len(octets) > _MOST_NUMBER:
        raise Malformed("gpu.chain.der", f"an integer of {len(octets)} octets, {_MOST_NUMBER} allowed")
    return int.from_bytes(octets, "big")


def bits(octets: bytes) -> frozenset[int]:
    """The bits set in the contents of a BIT STRING, 0 being the first. Raises `Malformed("gpu.chain.der")`."""
    if not octets or octets[0] > 7:
        raise Malformed("gpu.chain.der", "a bit string without its count of unused bits")
    unused, value = octets[0], int.from_bytes(octets[1:], "big")
    if value & ((1 << unused) - 1) or (unused and len(octets) == 1):
        raise Malformed("gpu.chain.der", "unused bits of a bit string are set, or there are none")
    last = 8 * (len(octets) - 1) - 1
    return frozenset(last - shift for shift in range(last + 1) if value >> shift & 1)
