"""TPM 2.0 numbers, keys and signatures as they are on the wire. Format only: nothing in here is believed yet.

Source: TCG TPM 2.0 Library, Part 2 "Structures", rev 1.59; the section stands above each parser. Names are Part 1,
16. Every type obeys `X.from_bytes(b).to_bytes() == b` or raises. Only ECC and RSA objects exist for Interlock;
keyed-hash and symmetric objects are refused as unsupported. The caller of a parser of signed material names the
reason codes (`Codes`), so that a refusal says what was presented.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestation.cose import PublicKey
from attestation.errors import Untrusted
from attestation.reader import Reader

# TPM_GENERATED_VALUE (6.2), TPM_ALG_ID (6.3), TPM_ECC_CURVE (6.4), TPM_ST (6.9), TPM_RH (7.4)
GENERATED = 0xFF544347
ALG_RSA, ALG_SHA1, ALG_AES = 0x0001, 0x0004, 0x0006
ALG_SHA256, ALG_SHA384, ALG_SHA512 = 0x000B, 0x000C, 0x000D
ALG_NULL, ALG_SM3 = 0x0010, 0x0012
ALG_RSASSA, ALG_RSAPSS, ALG_OAEP, ALG_ECDSA, ALG_ECDH, ALG_ECC = 0x0014, 0x0016, 0x0017, 0x0018, 0x0019, 0x0023
ALG_CFB = 0x0043
ECC_P256, ECC_P384 = 0x0003, 0x0004
ST_NV, ST_CERTIFY, ST_QUOTE, ST_CREATION = 0x8014, 0x8017, 0x8018, 0x801A
RH_OWNER, RH_ENDORSEMENT = 0x40000001, 0x4000000B

HASHES = {ALG_SHA1: "sha1", ALG_SHA256: "sha256", ALG_SHA384: "sha384", ALG_SHA512: "sha512"}


def sized(data: bytes) -> bytes:
    """TPM2B: a 16-bit length and the bytes (Part 2, 10.4.1)."""
    return len(data).to_bytes(2, "big") + data


def digest(alg: int, data: bytes) -> bytes:
    """Hash `data` with the TPM_ALG_ID `alg`; Untrusted("tpm.hash") for an algorithm that is not in `HASHES`."""
    if alg not in HASHES:
        raise Untrusted("tpm.hash", f"hash algorithm 0x{alg:04x} is not supported")
    return hashlib.new(HASHES[alg], data, usedforsecurity=True).digest()


@dataclass(frozen=True, slots=True)
class Codes:
    """The reason codes under which one kind of signed attestation is refused."""

    magic: str
    type: str
    scheme: str
    signature: str
    signer: str


# TPMA_OBJECT (8.3)
FIXED_TPM, ST_CLEAR, FIXED_PARENT, SENSITIVE_DATA_ORIGIN = 1 << 1, 1 << 2, 1 << 4, 1 << 5
USER_WITH_AUTH, ADMIN_WITH_POLICY, NO_DA, ENCRYPTED_DUPLICATION = 1 << 6, 1 << 7, 1 << 10, 1 << 11
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18

ATTRIBUTE_NAMES = {
    FIXED_TPM: "fixedTPM",
    ST_CLEAR: "stClear",
    FIXED_PARENT: "fixedParent",
    SENSITIVE_DATA_ORIGIN: "sensitiveDataOrigin",
    USER_WITH_AUTH: "userWithAuth",
    ADMIN_WITH_POLICY: "adminWithPolicy",
    NO_DA: "noDA",
    ENCRYPTED_DUPLICATION: "encryptedDuplication",
    RESTRICTED: "restricted",
    DECRYPT: "decrypt",
    SIGN: "sign",
}

_HASHES: dict[int, hashes.HashAlgorithm] = {ALG_SHA256: hashes.SHA256(), ALG_SHA384: hashes.SHA384()}
_ECDSA = {alg: ec.ECDSA(algorithm) for alg, algorithm in _HASHES.items()}
_CURVES: dict[int, ec.EllipticCurve] = {ECC_P256: ec.SECP256R1(), ECC_P384: ec.SECP384R1()}
RSA_BITS = (2048, 3072, 4096)
DEFAULT_EXPONENT = 65537

CryptoKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def attribute_names(attributes: int, known: Mapping[int, str] = ATTRIBUTE_NAMES) -> str:
    """The set bits of a TPMA_OBJECT (or of what `known` names) in words, for people; other bits as a number."""
    names = [name for bit, name in known.items() if attributes & bit]
    rest = attributes & ~sum(known)
    return ", ".join(names + [f"0x{rest:08x}"] * bool(rest)) or "none"


@dataclass(frozen=True, slots=True)
class Symmetric:
    """TPMT_SYM_DEF_OBJECT (11.1.7): algorithm, and unless it is NULL keyBits and mode. NULL or AES."""

    alg: int = ALG_NULL
    bits: int = 0
    mode: int = ALG_NULL

    @classmethod
    def read(cls, reader: Reader) -> Self:
        alg = reader.u16()
        if alg == ALG_NULL:
            return cls()
        if alg != ALG_AES:
            raise Untrusted("tpm.public.unsupported", f"symmetric algorithm 0x{alg:04x}")
        return cls(alg, reader.u16(), reader.u16())

    def to_bytes(self) -> bytes:
        words = (self.alg,) if self.alg == ALG_NULL else (self.alg, self.bits, self.mode)
        return b"".join(word.to_bytes(2, "big") for word in words)


@dataclass(frozen=True, slots=True)
class Scheme:
    """TPMT_ASYM_SCHEME or TPMT_KDF_SCHEME (11.2.3): algorithm, and unless it is NULL a hash algorithm."""

    alg: int = ALG_NULL
    hash: int = ALG_NULL

    @classmethod
    def read(cls, reader: Reader) -> Self:
        alg = reader.u16()
        return cls() if alg == ALG_NULL else cls(alg, reader.u16())

    def to_bytes(self) -> bytes:
        words = (self.alg,) if self.alg == ALG_NULL else (self.alg, self.hash)
        return b"".join(word.to_bytes(2, "big") for word in words)


@dataclass(frozen=True, slots=True)
class EccParameters:
    """TPMS_ECC_PARMS (12.2.3.6) and the unique field TPMS_ECC_POINT (11.2.5.2).

    | symmetric | TPMT_SYM_DEF_OBJECT |
    | scheme    | TPMT_ECC_SCHEME     |
    | curveID   | TPMI_ECC_CURVE      |
    | kdf       | TPMT_KDF_SCHEME     |
    | x, y      | TPM2B_ECC_PARAMETER |
    """

    symmetric: Symmetric
    scheme: Scheme
    curve: int
    kdf: Scheme
    x: bytes
    y: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        symmetric, scheme = Symmetric.read(reader), Scheme.read(reader)
        return cls(symmetric, scheme, reader.u16(), Scheme.read(reader), reader.sized16(), reader.sized16())

    def to_bytes(self) -> bytes:
        head = self.symmetric.to_bytes() + self.scheme.to_bytes() + self.curve.to_bytes(2, "big")
        return head + self.kdf.to_bytes() + sized(self.x) + sized(self.y)

    def key(self) -> CryptoKey:
        """Raises Untrusted("tpm.key.curve") for any curve but P-256 and P-384, ("tpm.key.point") off the curve."""
        return _ecc_key(self.curve, int.from_bytes(self.x, "big"), int.from_bytes(self.y, "big"))


@dataclass(frozen=True, slots=True)
class RsaParameters:
    """TPMS_RSA_PARMS (12.2.3.5) and the unique field TPM2B_PUBLIC_KEY_RSA (11.2.4.5).

    | symmetric | TPMT_SYM_DEF_OBJECT |
    | scheme    | TPMT_RSA_SCHEME     |
    | keyBits   | TPMI_RSA_KEY_BITS   |
    | exponent  | UINT32, 0 means 65537 |
    | n         | TPM2B_PUBLIC_KEY_RSA |
    """

    symmetric: Symmetric
    scheme: Scheme
    bits: int
    exponent: int
    n: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        symmetric, scheme = Symmetric.read(reader), Scheme.read(reader)
        return cls(symmetric, scheme, reader.u16(), reader.u32(), reader.sized16())

    def to_bytes(self) -> bytes:
        head = self.symmetric.to_bytes() + self.scheme.to_bytes()
        return head + self.bits.to_bytes(2, "big") + self.exponent.to_bytes(4, "big") + sized(self.n)

    def key(self) -> CryptoKey:
        """Raises Untrusted("tpm.key.size") or ("tpm.key.exponent"), see `check_rsa`."""
        n, e = int.from_bytes(self.n, "big"), self.exponent or DEFAULT_EXPONENT
        check_rsa(n.bit_length(), e)
        if n.bit_length() != self.bits or n % 2 == 0:
            raise Untrusted("tpm.key.size", f"the modulus is not an odd number of {self.bits} bits")
        return rsa.RSAPublicNumbers(e, n).public_key()


@dataclass(frozen=True)
class Public:
    """TPMT_PUBLIC (12.2.4).

    | type             | TPMI_ALG_PUBLIC  | RSA 0x0001 or ECC 0x0023             |
    | nameAlg          | TPMI_ALG_HASH    | the hash of the Name                 |
    | objectAttributes | TPMA_OBJECT      |                                      |
    | authPolicy       | TPM2B_DIGEST     |                                      |
    | [type]parameters | TPMU_PUBLIC_PARMS | with                                |
    | [type]unique     | TPMU_PUBLIC_ID   | in `parameters`                      |
    """

    type: int
    name_alg: int
    attributes: int
    policy: bytes
    parameters: EccParameters | RsaParameters

    @classmethod
    def from_bytes(cls, data: bytes) -> Public:
        """Raises Malformed("tpm.public...") or Untrusted("tpm.public.unsupported") for other key types.

        Remembered: a host sends the same public areas with every quote.
        """
        return _read_public(data)

    def to_bytes(self) -> bytes:
        words = self.type.to_bytes(2, "big") + self.name_alg.to_bytes(2, "big") + self.attributes.to_bytes(4, "big")
        return words + sized(self.policy) + self.parameters.to_bytes()

    @cached_property
    def name(self) -> bytes:
        """Name of the object: nameAlg and the hash of TPMT_PUBLIC (Part 1, 16). Untrusted("tpm.hash") if unknown."""
        return self.name_alg.to_bytes(2, "big") + digest(self.name_alg, self.to_bytes())

    def qualified_name(self, hierarchy: int = RH_ENDORSEMENT) -> bytes:
        """Qualified Name of this object as a primary object of `hierarchy` (Part 1, 16.4): H(handle || Name)."""
        return self.name_alg.to_bytes(2, "big") + digest(self.name_alg, hierarchy.to_bytes(4, "big") + self.name)

    @property
    def has_user_auth(self) -> bool:
        """Whether the authorisation value alone permits using the key (userWithAuth)."""
        return bool(self.attributes & USER_WITH_AUTH)

    def crypto_key(self) -> CryptoKey:
        """The key itself, strong enough and on its curve. Raises Untrusted("tpm.key.*")."""
        return self.parameters.key()

    @cached_property
    def key(self) -> PublicKey:
        """The key as COSE sees it. Untrusted("tpm.key.*"), or ("key.unsupported") for RSA."""
        return PublicKey.from_crypto(self.parameters.key())


@lru_cache(maxsize=4096)
def _read_public(data: bytes) -> Public:
    reader = Reader(data, "tpm.public")
    kind, name_alg, attributes, policy = reader.u16(), reader.u16(), reader.u32(), reader.sized16()
    parameters: EccParameters | RsaParameters
    if kind == ALG_ECC:
        parameters = EccParameters.read(reader)
    elif kind == ALG_RSA:
        parameters = RsaParameters.read(reader)
    else:
        raise Untrusted("tpm.public.unsupported", f"object type 0x{kind:04x} is neither RSA nor ECC")
    reader.done()
    return Public(kind, name_alg, attributes, policy, parameters)


@lru_cache(maxsize=4096)
def _ecc_key(number: int, x: int, y: int) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(number)
    if curve is None:
        raise Untrusted("tpm.key.curve", f"curve 0x{number:04x} is not P-256 or P-384")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise Untrusted("tpm.key.point", "the point is not on the curve") from error


def check_key(key: object) -> CryptoKey:
    """Return `key` where it is one that Interlock accepts from a TPM: RSA of 2048 bits or more, P-256 or P-384.

    Raises Untrusted("tpm.key.size"), ("tpm.key.exponent"), ("tpm.key.curve") or ("tpm.key.type").
    """
    if isinstance(key, rsa.RSAPublicKey):
        check_rsa(key.key_size, key.public_numbers().e)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            raise Untrusted("tpm.key.curve", f"curve {key.curve.name} is not P-256 or P-384")
        return key
    raise Untrusted("tpm.key.type", f"{type(key).__name__} is neither RSA nor ECC")


def check_rsa(bits: int, exponent: int) -> None:
    """Raise Untrusted("tpm.key.size") or ("tpm.key.exponent") for an RSA key that is too weak to believe."""
    if bits not in RSA_BITS:
        raise Untrusted("tpm.key.size", f"an RSA modulus of {bits} bits is not accepted")
    if exponent < 3 or exponent % 2 == 0:
        raise Untrusted("tpm.key.exponent", f"RSA exponent {exponent} is not an odd number above 1")


@dataclass(frozen=True, slots=True)
class Signature:
    """TPMT_SIGNATURE (11.3.4) of the two schemes that are accepted anywhere.

    | sigAlg    | TPMI_ALG_SIG_SCHEME | RSASSA 0x0014 or ECDSA 0x0018         |
    | hash      | TPMI_ALG_HASH       |                                       |
    | sig       | TPM2B_PUBLIC_KEY_RSA | RSASSA (11.3.1)                      |
    | signatureR, signatureS | TPM2B_ECC_PARAMETER | ECDSA (11.3.2)            |
    """

    scheme: int
    hash: int
    values: tuple[bytes, ...]

    @classmethod
    def from_bytes(cls, data: bytes, codes: Codes) -> Self:
        """Raises Malformed("tpm.signature...") or, for any other scheme, Untrusted(codes.scheme)."""
        reader = Reader(data, "tpm.signature")
        scheme = reader.u16()
        if scheme not in (ALG_ECDSA, ALG_RSASSA):
            raise Untrusted(codes.scheme, f"signature scheme 0x{scheme:04x} is not accepted")
        hash_alg = reader.u16()
        values = tuple(reader.sized16() for _ in range(2 if scheme == ALG_ECDSA else 1))
        reader.done()
        return cls(scheme, hash_alg, values)

    def to_bytes(self) -> bytes:
        body = b"".join(sized(value) for value in self.values)
        return self.scheme.to_bytes(2, "big") + self.hash.to_bytes(2, "big") + body


def verify_signature(key: CryptoKey, scheme: Scheme, signature: Signature, message: bytes, codes: Codes) -> None:
    """Check `signature` over `message`: the scheme is the key's own, and only then the mathematics.

    Raises Untrusted(codes.scheme) where algorithm or hash are not those of `scheme`, Untrusted(codes.signature) where
    the signature is not by `key` (which includes empty, zero and out-of-range values).
    """
    if (signature.scheme, signature.hash) != (scheme.alg, scheme.hash):
        raise Untrusted(codes.scheme, f"signed with 0x{signature.scheme:04x}/0x{signature.hash:04x}")
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            r, s = (int.from_bytes(value, "big") for value in signature.values)
            key.verify(encode_dss_signature(r, s), message, _ECDSA[scheme.hash])
        else:
            key.verify(signature.values[0], message, padding.PKCS1v15(), _HASHES[scheme.hash])
    except InvalidSignature as error:
        raise Untrusted(codes.signature, "the signature is not by this key over these bytes") from error
