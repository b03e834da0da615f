"""COSE_Sign1 (RFC 9052 section 4.2): one strict reader, one writer.

    COSE_Sign1 = #6.18([
        protected: bstr .cbor header_map, unprotected: header_map, payload: bstr / nil, signature: bstr
    ])

What `read_sign1` and then `UntrustedSign1.verify` check, in this order; `verify_sign1` is both:

 1. The token is no longer than the type allows.
 2. It is CBOR within limits: no indefinite lengths, no duplicate keys, shallow, no tag but 18.
 3. It encodes back to the same bytes, so that the token has one encoding.
 4. It is tag 18 around exactly four elements of the right types.
 5. The protected header is a non-empty byte string: a map, in its one encoding (2, 3), whose labels are integers on
    the allow-list of this type (`alg`, `kid` and `typ` are always on it).
 6. No label is in both headers.
 7. The unprotected header is empty, or its labels are on the allow-list (a receipt, 394, where one belongs).
 8. `alg` and `kid` are protected; `kid` has the length of a key's thumbprint, so that it fits wherever it is kept.
 9. `typ` equals the type expected: a token of one kind never passes for another.
10. The payload is attached, or detached, as expected.
11. There is no `crit`, or it is protected, well formed and names only labels that passed 5, which are understood.
12. The algorithm comes from the *key record* and equals the header's `alg`.
13. `kid` names that key.
14. The signature has the length of the key's curve and verifies over the Sig_structure of the bytes that arrived.

Checks 1-11 are about form and raise `Malformed`; 12-14 are about belief and raise `Untrusted`. Whether the key may
sign this type is the caller's check: it chose the key.

The signed bytes are kept and verified; nothing is serialised again to verify it. A token is not an identity, because
ECDSA signatures are malleable: identify an object by what its payload says (its `cti`), never by a hash of the token.
Absent on purpose: external_aad (always empty), countersignatures, COSE_Sign, x5chain (trust is in pinned keys).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from attestation import cbor
from attestation.errors import Malformed, Untrusted
from attestation.keys import EDDSA, ES256, ES384, PrivateKey, PublicKey, Signer, SoftwareSigner

__all__ = [
    "ALG",
    "CRIT",
    "CTY",
    "CWT_CLAIMS",
    "EDDSA",
    "ES256",
    "ES384",
    "KID",
    "RECEIPTS",
    "TYP",
    "VDP",
    "VDS",
    "PrivateKey",
    "PublicKey",
    "Sign1",
    "Signer",
    "SoftwareSigner",
    "UntrustedSign1",
    "read_sign1",
    "sign1",
    "verify_sign1",
]

# Header labels: IANA COSE Header Parameters (RFC 9052, RFC 9596, RFC 9597, RFC 9942).
ALG = 1
CRIT = 2
CTY = 3
KID = 4
CWT_CLAIMS = 15
TYP = 16
RECEIPTS = 394
VDS = 395
VDP = 396

KID_SIZE = 32
"""A key id is a SHA-256 thumbprint (RFC 9679)."""

_TAG = 18
_MAX_HEADER = 4096
_TAGS = frozenset({_TAG})
_ALWAYS = frozenset({ALG, KID, TYP})
_NONE: frozenset[int] = frozenset()
_TAGGED_ARRAY = cbor.encode(cbor.Tagged(_TAG, [None] * 4))[:2]
_SIGNATURE1 = cbor.head(cbor.ARRAY, 4) + cbor.encode("Signature1")
_NO_AAD, _NULL = cbor.encode(b""), cbor.encode(None)

Header = dict[int, cbor.Value]


@dataclass(frozen=True)
class Sign1:
    """A COSE_Sign1 whose signature was verified. `payload` is the content signed, attached or detached."""

    token: bytes
    protected: Header
    unprotected: Header
    payload: bytes
    kid: bytes


@dataclass(frozen=True)
class UntrustedSign1:
    """A COSE_Sign1 that has the right form. Nothing in it is verified: it says which key to look up, no more."""

    token: bytes
    kid: bytes
    unverified_protected: Header
    unverified_unprotected: Header
    unverified_payload: bytes | None
    _signed_header: bytes = field(repr=False)
    _signature: bytes = field(repr=False)

    def verify(self, key: PublicKey, payload: bytes | None = None) -> Sign1:
        """Verify the signature with `key`, over the attached payload or over the detached `payload` given.

        Raises `Untrusted`: `cose.alg`, `cose.kid`, `cose.signature.form`, `cose.signature`. To give a detached payload
        for an attached one, or none for a detached one, is a `ValueError`.
        """
        content = self.unverified_payload if payload is None else payload
        if content is None or (payload is not None and self.unverified_payload is not None):
            raise ValueError("exactly one payload is needed, the attached or the detached one")
        if self.unverified_protected[ALG] != key.alg:  # (12)
            raise Untrusted("cose.alg", f"header says {self.unverified_protected[ALG]!r}, the key is for {key.alg}")
        if self.kid != key.kid:  # (13)
            raise Untrusted("cose.kid", "the header names another key")
        key.verify(_to_be_signed(self._signed_header, content), self._signature)  # (14)
        return Sign1(self.token, self.unverified_protected, self.unverified_unprotected, content, self.kid)


def sign1(
    signer: Signer,
    *,
    typ: str,
    payload: bytes,
    protected: Mapping[int, cbor.Value] | None = None,
    unprotected: Mapping[int, cbor.Value] | None = None,
    detached: bool = False,
) -> bytes:
    """Sign `payload` and return the token: tag 18, `alg`, `kid` and `typ` protected.

    `protected` and `unprotected` are further header members; `detached` leaves the payload out of the token. Members
    that the writer sets itself, or that are in both headers, are a `ValueError`.
    """
    more, outside, public = protected or {}, dict(unprotected or {}), signer.public
    if not more.keys().isdisjoint(_ALWAYS) or not outside.keys().isdisjoint(_ALWAYS | more.keys()):
        raise ValueError("a header member is given twice")
    if all(type(value) is int for value in more.values()):
        signed_header = _short_header(public.alg, public.kid, typ, *more.items())
    else:
        signed_header = cbor.encode({ALG: public.alg, KID: public.kid, TYP: typ, **more})
    signature = signer.sign(_to_be_signed(signed_header, payload))
    return b"".join(
        (
            _TAGGED_ARRAY,
            cbor.byte_string(signed_header),
            cbor.encode(outside) if len(outside) > 1 else cbor.encode_in_order(outside),
            _NULL if detached else cbor.byte_string(payload),
            cbor.byte_string(signature),
        )
    )


def read_sign1(
    token: bytes,
    *,
    typ: str,
    max_size: int,
    protected: frozenset[int] = _NONE,
    unprotected: frozenset[int] = _NONE,
    detached: bool = False,
) -> UntrustedSign1:
    """Check the form of `token`, at most `max_size` bytes: checks 1-11 of this module.

    `typ` is the media type expected; `protected` and `unprotected` are the header labels allowed beyond `alg`, `kid`
    and `typ`; `detached` says where the payload is expected. Raises `Malformed` (`cbor.*`, `cose.*`).
    """
    message = cbor.decode(token, max_size=max_size, tags=_TAGS)  # (1) (2) (3)
    signed_header, outside, payload, signature = _elements(message)  # (4)
    header = _protected_header(signed_header, _ALWAYS | protected)  # (5)
    if header.keys() & outside.keys():  # (6)
        raise Malformed("cose.header.twice", "a label is in both headers")
    if not outside.keys() <= unprotected:  # (7)
        raise Malformed("cose.header.unprotected", f"labels allowed here: {sorted(unprotected)}")
    kid = header.get(KID)
    if type(header.get(ALG)) is not int or not isinstance(kid, bytes):  # (8)
        raise Malformed("cose.header.missing", "alg and kid must be protected")
    if len(kid) != KID_SIZE:  # (8)
        raise Malformed("cose.header.kid", f"{len(kid)} bytes, a thumbprint has {KID_SIZE}")
    if header.get(TYP) != typ:  # (9)
        raise Malformed("cose.typ", f"{header.get(TYP)!r:.80}, {typ!r} expected")
    if detached != (payload is None):  # (10)
        raise Malformed("cose.payload", "detached payload expected" if detached else "attached payload expected")
    if CRIT in header and not _is_crit(header[CRIT], header):  # (11)
        raise Malformed("cose.crit", "crit must list protected labels that are understood")
    return UntrustedSign1(token, kid, header, outside, payload, signed_header, signature)


def verify_sign1(
    token: bytes,
    key: PublicKey,
    *,
    typ: str,
    max_size: int,
    protected: frozenset[int] = _NONE,
    unprotected: frozenset[int] = _NONE,
    payload: bytes | None = None,
) -> Sign1:
    """Read `token` and verify it with `key`: all checks of this module, 1-14.

    Arguments as for `read_sign1`; `payload` given means that the token's payload is detached and this is the content.
    Raises `Malformed` for 1-11, `Untrusted` for 12-14.
    """
    unverified = read_sign1(
        token,
        typ=typ,
        max_size=max_size,
        protected=protected,
        unprotected=unprotected,
        detached=payload is not None,
    )
    return unverified.verify(key, payload)


@lru_cache(maxsize=256)
def _short_header(alg: int, kid: bytes, typ: str, *more: tuple[int, int]) -> bytes:
    """A protected header whose further members are integers: a key writes the same one in all tokens of a type."""
    return cbor.encode({ALG: alg, KID: kid, TYP: typ, **dict(more)})


def _to_be_signed(signed_header: bytes, payload: bytes) -> bytes:
    """Return the Sig_structure of a COSE_Sign1 with empty external_aad (RFC 9052 section 4.4)."""
    return b"".join((_SIGNATURE1, cbor.byte_string(signed_header), _NO_AAD, cbor.byte_string(payload)))


def _elements(message: cbor.Value) -> tuple[bytes, Header, bytes | None, bytes]:
    """Take the four elements out of tag 18; unprotected labels are integers."""
    value = message.value if isinstance(message, cbor.Tagged) else None  # the tag can only be 18: (2) let no other pass
    if isinstance(value, list) and len(value) == 4:
        header, outside, payload, signature = value
        fits = isinstance(header, bytes) and (payload is None or isinstance(payload, bytes))
        if fits and isinstance(outside, dict) and isinstance(signature, bytes):
            return header, _labels(outside), payload, signature
    raise Malformed("cose.structure", "tag 18 around [bstr, map, bstr or nil, bstr] is expected")


def _protected_header(data: bytes, allowed: frozenset[int]) -> Header:
    """Read a protected header: a map with integer labels, all of them `allowed`."""
    if not data:
        raise Malformed("cose.header.missing", "the protected header is empty")
    header = dict(_read_header(data))
    if not header.keys() <= allowed:
        raise Malformed("cose.header.label", f"labels not understood: {sorted(header.keys() - allowed)}")
    return header


@lru_cache(maxsize=4096)
def _read_header(data: bytes) -> Header:
    """A protected header by its bytes: one signer sends the same one with every message of a kind."""
    return _labels(cbor.decode(data, max_size=_MAX_HEADER))


def _labels(header: cbor.Value) -> Header:
    if not isinstance(header, dict) or not all(type(label) is int for label in header):
        raise Malformed("cose.header.form", "a header is a map with integer labels")
    return header  # type: ignore[return-value]  # checked above


def _is_crit(crit: cbor.Value, header: Header) -> bool:
    """Tell whether `crit` is a non-empty list of labels of the header (RFC 9052 section 3.1)."""
    return isinstance(crit, list) and bool(crit) and all(type(label) is int and label in header for label in crit)
