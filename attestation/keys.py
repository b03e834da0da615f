"""Public keys as Interlock names them, and what signs for them.

A key is its algorithm and its SubjectPublicKeyInfo (RFC 5480, RFC 8410), in the one encoding of the table:

| `alg` (RFC 9053) | kty, crv | SPKI prefix names | coordinates | signature |
|---|---|---|---|---|
| ES256 -7 | EC2 2, P-256 1 | id-ecPublicKey, prime256v1, uncompressed point | x, y of 32 bytes | r, s of 32 bytes |
| ES384 -35 | EC2 2, P-384 2 | id-ecPublicKey, secp384r1, uncompressed point | x, y of 48 bytes | r, s of 48 bytes |
| EdDSA -8 | OKP 1, Ed25519 6 | id-Ed25519 | x of 32 bytes | 64 bytes (RFC 8032) |

The algorithm belongs to the key, never to a message: one curve has one algorithm and one hash. Everything else, RSA
and ES256 with P-384 included, is `Untrusted("key.unsupported")`. The name of a key (`kid`) is its COSE key thumbprint
(RFC 9679): the SHA-256 of the deterministic COSE_Key with its required members only.

ECDSA signatures travel as r || s of fixed width (RFC 9053 section 2.1). (r, n-s) verifies as well as (r, s): a
signature is malleable, so nothing may use its bytes, or a hash over them, as an identity.

Not here: which keys are trusted. A `PublicKey` is a name and a verifier of signatures, never a permission.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Protocol, Self, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from attestation import cbor, p384
from attestation.errors import Malformed, Untrusted

ES256 = -7
ES384 = -35
EDDSA = -8

_DER = serialization.Encoding.DER
_PEM = serialization.Encoding.PEM
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo

_Usable: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class _Kind:
    """One row of the module's table. `order` is the order n of the curve's group (SP 800-186), 0 where not used."""

    kty: int
    crv: int
    width: int
    coordinates: int
    prefix: bytes
    order: int = 0

    @property
    def spki_size(self) -> int:
        return len(self.prefix) + self.width * self.coordinates


_KINDS = {
    ES256: _Kind(
        kty=2,
        crv=1,
        width=32,
        coordinates=2,
        prefix=bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
        order=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    ES384: _Kind(
        kty=2,
        crv=2,
        width=48,
        coordinates=2,
        prefix=bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
        order=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF_C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
    EDDSA: _Kind(kty=1, crv=6, width=32, coordinates=1, prefix=bytes.fromhex("302a300506032b6570032100")),
}
_ECDSA = {ES256: ec.ECDSA(hashes.SHA256()), ES384: ec.ECDSA(hashes.SHA384())}
_LABELS = (-2, -3)  # x, y of a COSE_Key (RFC 9053 sections 7.1, 7.2)


@dataclass(frozen=True)
class PublicKey:
    """A public key: `alg` is the COSE algorithm it is used with, `spki` its DER SubjectPublicKeyInfo.

    The constructor trusts nothing: it raises as `from_spki` does, and `Untrusted("key.unsupported")` for an `alg`
    that is not the one of the key's curve.
    """

    alg: int
    spki: bytes
    _usable: _Usable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.alg != _alg_of(self.spki):
            raise Untrusted("key.unsupported", f"algorithm {self.alg} is not the one of this key's curve")
        object.__setattr__(self, "_usable", _load(self.spki))

    @classmethod
    def from_spki(cls, der: bytes) -> Self:
        """Read a DER SubjectPublicKeyInfo of the table above.

        Raises `Malformed("key.encoding")` when it is not one, `Malformed("key.point")` for a point that is not on its
        curve, `Untrusted("key.unsupported")` for a key of another kind or in another encoding.
        """
        return cls(_alg_of(der), der)

    @classmethod
    def from_pem(cls, data: bytes) -> Self:
        """Read one PEM "PUBLIC KEY". Raises as `from_spki`."""
        try:
            return cls.from_crypto(serialization.load_pem_public_key(data))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed("key.encoding", "not a PEM public key") from error

    @classmethod
    def from_crypto(cls, key: PublicKeyTypes) -> Self:
        """Take a key of the `cryptography` library. Raises `Untrusted("key.unsupported")` if it is of another kind."""
        return cls.from_spki(key.public_bytes(_DER, _SPKI))

    @classmethod
    def from_cose_key(cls, members: Mapping[int, object]) -> Self:
        """Read a COSE_Key (RFC 9052 section 7) that has exactly the required members: kty 1, crv -1, x -2, y -3.

        Raises `Malformed("key.cose")` for other members or coordinates of another length, and as `from_spki` does.
        """
        for kind in _KINDS.values():
            if (members.get(1), members.get(-1)) == (kind.kty, kind.crv):
                return cls.from_spki(kind.prefix + _coordinates(members, kind))
        raise Untrusted("key.unsupported", "a COSE_Key of this type and curve is not used here")

    @cached_property
    def thumbprint(self) -> bytes:
        """The COSE key thumbprint, 32 bytes: SHA-256 of the deterministic COSE_Key (RFC 9679 section 3)."""
        return sha256(cbor.encode(self.to_cose_key())).digest()

    @property
    def kid(self) -> bytes:
        """The name of this key in COSE headers: its thumbprint."""
        return self.thumbprint

    def to_cose_key(self) -> dict[int, cbor.Value]:
        """Return the COSE_Key with its required members only."""
        kind = _KINDS[self.alg]
        body = self.spki[len(kind.prefix) :]
        parts = (body[start : start + kind.width] for start in range(0, len(body), kind.width))
        return {1: kind.kty, -1: kind.crv, **dict(zip(_LABELS, parts, strict=False))}

    def to_pem(self) -> bytes:
        """Return the key as PEM "PUBLIC KEY"."""
        return self._usable.public_bytes(_PEM, _SPKI)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Verify `signature` (r || s, or Ed25519) of `message`. Returns nothing; a bad signature raises.

        1. The length is the one of the key's algorithm (RFC 9053 section 2.1): `Untrusted("cose.signature.form")`.
        2. r and s are in 1 .. n-1 (FIPS 186-5 section 6.4.2): `Untrusted("cose.signature.form")`.
        3. The signature verifies: `Untrusted("cose.signature")`.
        """
        kind = _KINDS[self.alg]
        if len(signature) != 2 * kind.width:  # (1)
            raise Untrusted("cose.signature.form", f"{len(signature)} bytes, {2 * kind.width} expected")
        try:
            if isinstance(self._usable, ed25519.Ed25519PublicKey):
                self._usable.verify(signature, message)  # (3)
            elif self.alg == ES384:
                if not p384.is_signed(self.spki, _to_der(signature, kind.order), message):  # (2) (3)
                    raise InvalidSignature
            else:
                self._usable.verify(_to_der(signature, kind.order), message, _ECDSA[self.alg])  # (2) (3)
        except InvalidSignature as error:
            raise Untrusted("cose.signature", "the signature does not verify with this key") from error


class Signer(Protocol):
    """Whatever signs: a software key, a TPM, an HSM."""

    @property
    def public(self) -> PublicKey:
        """The public key that verifies what `sign` returns."""

    def sign(self, message: bytes) -> bytes:
        """Sign `message`: r || s of fixed width, or an Ed25519 signature."""


class SoftwareSigner:
    """A signer whose private key is in this process's memory."""

    def __init__(self, private_key: PrivateKey) -> None:
        self._private_key = private_key
        self._public = PublicKey.from_crypto(private_key.public_key())

    @classmethod
    def generate(cls, alg: int) -> Self:
        """Make a new key for `alg` (ES256, ES384 or EDDSA); another number is a `ValueError`. Draws randomness."""
        if alg == EDDSA:
            return cls(ed25519.Ed25519PrivateKey.generate())
        if alg == ES256:
            return cls(ec.generate_private_key(ec.SECP256R1()))
        if alg == ES384:
            return cls(ec.generate_private_key(ec.SECP384R1()))
        raise ValueError(f"no such algorithm: {alg}")

    @classmethod
    def from_pem(cls, data: bytes) -> Self:
        """Read an unencrypted PEM private key.

        Raises `Malformed("key.encoding")` when it is not one, `Untrusted("key.unsupported")` for another kind of key.
        """
        try:
            key = serialization.load_pem_private_key(data, None)
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            raise Malformed("key.encoding", "not an unencrypted PEM private key") from error
        if not isinstance(key, PrivateKey):
            raise Untrusted("key.unsupported", "this kind of private key is not used here")
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS #8 PEM."""
        return self._private_key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    @property
    def public(self) -> PublicKey:
        """The public key that verifies what `sign` returns."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Sign `message`, as `Signer.sign`. Draws randomness for ECDSA."""
        if isinstance(self._private_key, ed25519.Ed25519PrivateKey):
            return self._private_key.sign(message)
        r, s = decode_dss_signature(self._private_key.sign(message, _ECDSA[self._public.alg]))
        width = _KINDS[self._public.alg].width
        return r.to_bytes(width, "big") + s.to_bytes(width, "big")


@lru_cache(maxsize=4096)
def _alg_of(spki: bytes) -> int:
    """Return the algorithm of the kind that `spki` has the prefix and the length of. Remembered, as `_load` is."""
    for alg, kind in _KINDS.items():
        if spki.startswith(kind.prefix) and len(spki) == kind.spki_size:
            return alg
    try:
        serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("key.encoding", "not a SubjectPublicKeyInfo") from error
    raise Untrusted("key.unsupported", "this kind or encoding of key is not used here")


@lru_cache(maxsize=4096)
def _load(spki: bytes) -> _Usable:
    """Parse an `spki` whose prefix and length fit; what can still be wrong is the point."""
    try:
        return serialization.load_der_public_key(spki)  # type: ignore[return-value]  # the prefix says which
    except ValueError as error:
        raise Malformed("key.point", "the point is not on its curve") from error


def _coordinates(members: Mapping[int, object], kind: _Kind) -> bytes:
    """Join the coordinates of a COSE_Key, each of exactly the curve's width."""
    labels = _LABELS[: kind.coordinates]
    parts = [part for label in labels if isinstance(part := members.get(label), bytes) and len(part) == kind.width]
    if len(parts) != kind.coordinates or members.keys() != {1, -1, *labels}:
        raise Malformed("key.cose", "exactly kty, crv and full coordinates are expected")
    return b"".join(parts)


def _to_der(signature: bytes, order: int) -> bytes:
    """Turn r || s into the DER form that `cryptography` wants; both must be in 1 .. order-1."""
    middle = len(signature) // 2
    r, s = int.from_bytes(signature[:middle], "big"), int.from_bytes(signature[middle:], "big")
    if not (0 < r < order and 0 < s < order):
        raise Untrusted("cose.signature.form", "r or s is out of range")
    return encode_dss_signature(r, s)
