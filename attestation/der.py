"""DER taken apart, without putting it together again: the one loop that reads it (ITU-T X.690, 8.1 and 10.1).

One accepted encoding: low tag numbers, definite lengths in their shortest form. What is read are slices of the bytes
received: nothing is ever re-encoded, so what a signature covers is what was read. Contents are whatever they are; what
belongs where is the caller's business, who also says by which reason code what is not DER is refused.
"""

from typing import Final, NamedTuple

from attestation.errors import Malformed

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x01, 0x02, 0x03, 0x04, 0x06
UTF8_STRING, SEQUENCE, SET = 0x0C, 0x30, 0x31
CONTEXT, CONSTRUCTED = 0x80, 0x20

_HIGH_TAG: Final = 0x1F
_LONG: Final = 0x80


class Element(NamedTuple):
    """One element: its identifier octet, its contents, and all of it as it stood there."""

    tag: int
    contents: bytes
    whole: bytes


def elements(data: bytes, code: str, truncated: str) -> list[Element]:
    """All elements in `data`, one after another. Raises `Malformed(code)`, and `Malformed(truncated)` where bytes are
    missing.
    """
    found: list[Element] = []
    start, size = 0, len(data)
    while start < size:
        head = start + 2
        if head > size:
            raise Malformed(truncated, "a tag without length")
        tag, length = data[start], data[start + 1]
        if tag & _HIGH_TAG == _HIGH_TAG:
            raise Malformed(code, "a tag number above 30")
        if length & _LONG:
            octets = data[head : head + (length & ~_LONG)]
            length = _long_length(length & ~_LONG, octets, code, truncated)
            head += len(octets)
        end = head + length
        if end > size:
            raise Malformed(truncated, f"{length} bytes wanted, {size - head} left")
        found.append(Element(tag, data[head:end], data[start:end]))
        start = end
    return found


def _long_length(count: int, octets: bytes, code: str, truncated: str) -> int:
    """A length of more than one octet: definite, and in its shortest form (10.1)."""
    if len(octets) < count:
        raise Malformed(truncated, "a length is cut short")
    length = int.from_bytes(octets, "big")
    if length < _LONG or octets[0] == 0:
        raise Malformed(code, "a length is indefinite or not in its shortest form")
    return length
