"""The DER of TPM certificates, revocation lists and the names in them, refused as what they are.

The order of a SET, encoded defaults and other lapses of genuine certificates are the caller's business, who reads only
what it needs.
"""

from __future__ import annotations

from attestation import der
from attestation.der import BIT_STRING, BOOLEAN, INTEGER, OCTET_STRING, OID, SEQUENCE, SET, Element
from attestation.errors import Malformed

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "CODE",
    "INTEGER",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "SET",
    "Element",
    "elements",
    "inside",
    "only",
]

CODE, TRUNCATED = "tpm.ek.certificate", "tpm.ek.certificate.truncated"


def elements(contents: bytes) -> list[Element]:
    """The elements that `contents` consist of. Raises Malformed("tpm.ek.certificate...")."""
    return der.elements(contents, CODE, TRUNCATED)


def inside(contents: bytes, tags: tuple[int, ...]) -> list[Element]:
    """The elements of `contents`, which have these tags in this order. Raises Malformed("tpm.ek.certificate")."""
    found = elements(contents)
    if tuple(tag for tag, _, _ in found) != tags:
        raise Malformed(CODE, "elements are missing, too many, or of another type")
    return found


def only(data: bytes, tag: int) -> bytes:
    """The contents of the one element in `data`."""
    return inside(data, (tag,))[0].contents
