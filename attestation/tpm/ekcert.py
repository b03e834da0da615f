"""EK certificates as TPM vendors really write them: just enough DER to read the key and what it is for.

Sources: RFC 5280, 4.1 (Certificate) and 4.2.1 (extensions); ITU-T X.690, 8.1.3 and 10.1 (lengths); TCG EK Credential
Profile 2.5, 2.2.1.5 and 3.2.

Genuine certificates break strict parsers in places that decide nothing: Nuvoton's order of a SET in a name, Intel's
encoded defaults, STMicroelectronics' image padded to 1600 octets. So names, times and serial number are skipped over
here, unread. That is safe because nothing is ever re-encoded: `attestation.chain` has OpenSSL check the signature over
the very bytes that this module reads, and what is read decides only after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from attestation.errors import Malformed, Untrusted
from attestation.reader import Reader
from attestation.tpm.structures import CryptoKey, check_key

_CODE = "tpm.ek.certificate"
_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING, _OID, _SEQUENCE = 0x01, 0x02, 0x03, 0x04, 0x06, 0x30
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_TBS_HEAD = (_VERSION, _INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE)
_UNIQUE_IDS = (0x81, 0x82)

# id-ce-keyUsage, id-ce-basicConstraints, id-ce-extKeyUsage, tcg-kp-EKCertificate (2.23.133.8.1), contents only
_KEY_USAGE, _BASIC_CONSTRAINTS, _EXT_KEY_USAGE = (bytes.fromhex(oid) for oid in ("551d0f", "551d13", "551d25"))
EKU_EK_CERTIFICATE = bytes.fromhex("6781050801")

# KeyUsage (RFC 5280, 4.2.1.3), first octet
DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KEY_AGREEMENT, KEY_CERT_SIGN, CRL_SIGN = 0x80, 0x20, 0x08, 0x04, 0x02

Element = tuple[int, bytes, bytes]
"""Tag, contents, and the whole of one DER element."""


def split_der(data: bytes) -> tuple[bytes, ...]:
    """The DER certificates in `data`, one after another, as NV holds a chain (EK Credential Profile, 2.2.1.5.2).

    NV images are padded to a fixed size with 0xFF or 0x00. Format only: what is returned are sequences of 256 to
    65535 octets. Raises Malformed("tpm.ek.certificate").
    """
    certificates = []
    while data.strip(b"\xff") and data.strip(b"\x00"):
        size = 4 + int.from_bytes(data[2:4], "big")
        if data[:2] != b"\x30\x82" or size > len(data):
            raise Malformed(_CODE, "not a DER certificate")
        certificates.append(data[:size])
        data = data[size:]
    return tuple(certificates)


def trim_der(data: bytes) -> bytes:
    """The one DER certificate in `data`. Raises Malformed("tpm.ek.certificate") where there is none or another."""
    certificates = split_der(data)
    if len(certificates) != 1:
        raise Malformed(_CODE, f"{len(certificates)} certificates in the place of one")
    return certificates[0]


@dataclass(frozen=True, slots=True)
class UntrustedEkCertificate:
    """What a certificate says of its key, before anybody has checked who says so.

    `usage`: first octet of KeyUsage, 0 where there is none; `extended`: contents of the OIDs of the extended key
    usage, None where there is none; `ca`: whether it is an authority's.
    """

    key: CryptoKey
    usage: int
    extended: tuple[bytes, ...] | None
    ca: bool

    @classmethod
    def from_bytes(cls, der: bytes) -> Self:
        """Read one certificate (trimmed). Raises Malformed("tpm.ek.certificate...") or Untrusted("tpm.key.*")."""
        tbs, _, _ = _inside(_only(der, _SEQUENCE), (_SEQUENCE, _SEQUENCE, _BIT_STRING))
        fields = _elements(tbs[1])
        if tuple(tag for tag, _, _ in fields[:7]) != _TBS_HEAD:
            raise Malformed(_CODE, "not a version 3 certificate")
        rest = [field for field in fields[7:] if field[0] not in _UNIQUE_IDS]
        extensions = _extensions(rest)
        basic = _elements(_only(extensions.get(_BASIC_CONSTRAINTS, b"\x30\x00"), _SEQUENCE))
        extended = extensions.get(_EXT_KEY_USAGE)
        return cls(
            key=_key(fields[6][2]),
            usage=_usage(extensions.get(_KEY_USAGE)),
            extended=None if extended is None else tuple(oid for _, oid, _ in _elements(_only(extended, _SEQUENCE))),
            ca=any(tag == _BOOLEAN and any(value) for tag, value, _ in basic),
        )


def _element(reader: Reader) -> Element:
    """One DER element: a definite length, in its shortest form."""
    tag, first = reader.u8(), reader.u8()
    octets = reader.take(first & 0x7F if first & 0x80 else 0)
    length = int.from_bytes(octets, "big") if first & 0x80 else first
    if first & 0x80 and (length < 0x80 or octets[0] == 0):
        raise Malformed(_CODE, "a length is indefinite or not in its shortest form")
    contents = reader.take(length)
    return tag, contents, bytes([tag, first]) + octets + contents


def _elements(contents: bytes) -> list[Element]:
    reader = Reader(contents, "tpm.ek.certificate")
    found = []
    while reader.remaining:
        found.append(_element(reader))
    return found


def _inside(contents: bytes, tags: tuple[int, ...]) -> list[Element]:
    found = _elements(contents)
    if tuple(tag for tag, _, _ in found) != tags:
        raise Malformed(_CODE, "elements are missing, too many, or of another type")
    return found


def _only(data: bytes, tag: int) -> bytes:
    """The contents of the one element in `data`."""
    return _inside(data, (tag,))[0][1]


def _extensions(fields: list[Element]) -> dict[bytes, bytes]:
    """Extensions by the contents of their OID. One that stands there twice is refused."""
    found: dict[bytes, bytes] = {}
    for tag, contents, _ in fields:
        if tag != _EXTENSIONS:
            raise Malformed(_CODE, "an unknown field follows the key")
        for _, extension, _ in _elements(_only(contents, _SEQUENCE)):
            parts = [part for part in _elements(extension) if part[0] != _BOOLEAN]
            if [part[0] for part in parts] != [_OID, _OCTET_STRING] or parts[0][1] in found:
                raise Malformed(_CODE, "an extension is malformed, or there twice")
            found[parts[0][1]] = parts[1][1]
    return found


def _usage(value: bytes | None) -> int:
    if value is None:
        return 0
    bits = _only(value, _BIT_STRING)
    if len(bits) < 2:
        raise Malformed(_CODE, "an empty key usage")
    return bits[1]


def _key(spki: bytes) -> CryptoKey:
    try:
        return check_key(load_der_public_key(spki))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Untrusted("tpm.key.type", str(error)) from error
