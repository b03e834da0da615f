"""Who a TPM is: endorsement key, attestation key, holder key, and what each must prove before it is believed.

Sources: TCG TPM 2.0 Library rev 1.59, Part 1, 16 (Names) and Part 2, 8.3 (TPMA_OBJECT); TCG EK Credential Profile
2.5, sections 2 and 3; RFC 5280, 4.2.1.3 (key usage).

The chain of belief: the manufacturer's root -> EK certificate (`verify_ek`) -> credential activation, which proves
that the AK lives beside that EK (`credential`) -> AK (`verify_ak`) -> holder key (`verify_holder`). An AK is believed
only from the enrolment record, never from evidence.

Absent on purpose: the authorisation policy of the EK. It is not covered by its certificate, and a TPM with other
attributes or policy would have derived another key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation import cose
from attestation.chain import Anchor, verify_chain
from attestation.errors import Untrusted
from attestation.tpm.attest import Attest, CreationInfo
from attestation.tpm.creation import CreationData
from attestation.tpm.ekcert import UntrustedEkCertificate, trim_der
from attestation.tpm.manufacturer import Description
from attestation.tpm.policy import holder_auth_policy
from attestation.tpm.roca import is_roca
from attestation.tpm.roles import EK, role_of
from attestation.tpm.structures import (
    ADMIN_WITH_POLICY,
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_ECDSA,
    ALG_RSASSA,
    ALG_SHA256,
    ALG_SHA384,
    DECRYPT,
    ECC_P256,
    FIXED_PARENT,
    FIXED_TPM,
    NO_DA,
    RESTRICTED,
    RH_OWNER,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
    USER_WITH_AUTH,
    Codes,
    CryptoKey,
    EccParameters,
    Public,
    Scheme,
    Signature,
    Symmetric,
    attribute_names,
    digest,
    verify_signature,
)
from attestation.tpm.vendors import check_hardware

_RESIDENT = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN
EK_ATTRIBUTES = _RESIDENT | ADMIN_WITH_POLICY | RESTRICTED | DECRYPT
EK_HIGH_RANGE_ATTRIBUTES = EK_ATTRIBUTES | USER_WITH_AUTH
AK_ATTRIBUTES = _RESIDENT | USER_WITH_AUTH | NO_DA | RESTRICTED | SIGN
HOLDER_ATTRIBUTES = _RESIDENT | NO_DA | SIGN
"""A holder key under the TPM-enforced lease: nothing but its policy permits its use (attestation.tpm.policy)."""
PLAIN_HOLDER_ATTRIBUTES = HOLDER_ATTRIBUTES | USER_WITH_AUTH
"""A holder key that whoever controls the agent can use at any time."""

ECDSA_SHA256, RSASSA_SHA256 = Scheme(ALG_ECDSA, ALG_SHA256), Scheme(ALG_RSASSA, ALG_SHA256)
EK_SYMMETRIC = (Symmetric(ALG_AES, 128, ALG_CFB), Symmetric(ALG_AES, 256, ALG_CFB))

CERTIFY_CODES = Codes(
    magic="tpm.certify.magic",
    type="tpm.certify.type",
    scheme="tpm.certify.scheme",
    signature="tpm.certify.signature",
    signer="tpm.certify.signer",
)


@dataclass(frozen=True, slots=True)
class Ek:
    """A verified endorsement key: its public area, its certificate (trimmed DER) and the anchor that it rests on.

    `description`: what the certificate says of the TPM, under the anchor's authority.
    """

    public: Public
    certificate: bytes
    anchor: Anchor
    description: Description

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key as SubjectPublicKeyInfo: one TPM, one number, whatever template it was asked with."""
        key = self.public.crypto_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@dataclass(frozen=True, slots=True)
class Ak:
    """A verified attestation key: everything a check of its signatures needs, computed once."""

    public: Public
    name: bytes
    qualified_name: bytes
    key: CryptoKey
    scheme: Scheme


@dataclass(frozen=True, slots=True)
class Holder:
    """A verified holder key: resident in the TPM of the AK that certified it, in the owner hierarchy."""

    public: Public
    name: bytes
    key: cose.PublicKey


def verify_ek(
    certificate: bytes,
    ek_public: bytes,
    intermediates: Sequence[bytes],
    anchors: Sequence[Anchor],
    *,
    at: datetime,
    crls: Sequence[bytes] = (),
) -> Ek:
    """Return the endorsement key that `certificate` (DER, as read from NV) and `ek_public` (TPMT_PUBLIC) speak of.

    (1) the certificate parses; bytes after it are padding                       tpm.ek.certificate*
    (2) its key is of a kind and size that is believed, and not one that a weak generator made
                                                                                 tpm.key.*
    (3) it chains to an anchor at the time `at`, not revoked by `crls`           chain.*
    (4) it is an end entity whose key usage is that of an EK: keyEncipherment for RSA, keyAgreement for ECC, and no
        signing; an extended key usage, where there is one, names the EK         tpm.ek.usage
    (5) where the anchor assures hardware, the TPM is no software                tpm.ek.software, tpm.ek.manufacturer
    (6) the public area parses and its key is the certificate's                  tpm.ek.mismatch
    (7) the public area is a restricted decryption key that cannot leave the TPM tpm.ek.attributes, tpm.ek.template

    The intermediates may come with the TPM or from the operator: only the anchors are trusted (`issuers` chooses).
    """
    der = trim_der(certificate)
    read = UntrustedEkCertificate.from_bytes(der)  # (1) (2)
    _check_generator(read.key)  # (2)
    anchor = verify_chain(der, intermediates, anchors, at=at, crls=crls)  # (3)
    role = role_of(read)  # (4)
    if role != EK:
        raise Untrusted("tpm.ek.usage", f"key usage 0x{read.usage:02x}: this is the certificate of: {role}")
    check_hardware(read.description, anchor)  # (5)
    public = Public.from_bytes(ek_public)
    if public.crypto_key() != read.key:  # (6)
        raise Untrusted("tpm.ek.mismatch", "the public area's key is not the key of the certificate")
    _check_ek_template(public)  # (7)
    return Ek(public, der, anchor, read.description)


def _check_generator(key: CryptoKey) -> None:
    if isinstance(key, rsa.RSAPublicKey) and is_roca(key.public_numbers().n):
        raise Untrusted("tpm.key.roca", "the RSA modulus bears the fingerprint of CVE-2017-15361")


def _check_ek_template(public: Public) -> None:
    """Check (7): the default templates L-1 to L-2 and H-1 to H-7 of the TCG EK Credential Profile, section 2.2.1."""
    if public.attributes not in (EK_ATTRIBUTES, EK_HIGH_RANGE_ATTRIBUTES):
        raise Untrusted("tpm.ek.attributes", f"attributes are {attribute_names(public.attributes)}")
    parameters = public.parameters
    kdf = parameters.kdf if isinstance(parameters, EccParameters) else Scheme()
    if (parameters.scheme, kdf) != (Scheme(), Scheme()):
        raise Untrusted("tpm.ek.template", "an endorsement key has no scheme, and derives by none")
    if (public.name_alg, parameters.symmetric) not in zip((ALG_SHA256, ALG_SHA384), EK_SYMMETRIC, strict=True):
        shown = f"nameAlg 0x{public.name_alg:04x} with {parameters.symmetric}"
        raise Untrusted("tpm.ek.template", f"{shown}: SHA-256 goes with AES-128-CFB, SHA-384 with AES-256-CFB")


@lru_cache(maxsize=4096)
def verify_ak(public: bytes) -> Ak:
    """Return the attestation key whose TPMT_PUBLIC is `public`, if the TPM itself confines it to attesting.

    (1) the public area parses                                                        tpm.public.*
    (2) nameAlg is SHA-256                                                            tpm.ak.name-alg
    (3) attributes are exactly fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign
                                                                                      tpm.ak.attributes
    (4) no policy: an authorisation by policy could be anybody's                      tpm.ak.policy
    (5) P-256 with ECDSA-SHA256 or RSA with RSASSA-SHA256, no symmetric or KDF        tpm.ak.scheme
    (6) the key is on its curve, or of 2048 bits or more with an odd exponent, and not made by a weak generator
                                                                                      tpm.key.*

    That the key is a primary key of the endorsement hierarchy shows in `qualified_name`, which each quote must carry.
    """
    parsed = Public.from_bytes(public)  # (1)
    if parsed.name_alg != ALG_SHA256:  # (2)
        raise Untrusted("tpm.ak.name-alg", f"nameAlg is 0x{parsed.name_alg:04x}, not SHA-256")
    if parsed.attributes != AK_ATTRIBUTES:  # (3)
        raise Untrusted("tpm.ak.attributes", f"attributes are {attribute_names(parsed.attributes)}")
    if parsed.policy:  # (4)
        raise Untrusted("tpm.ak.policy", "an attestation key has no authorisation policy")
    _check_signing_scheme(parsed, "tpm.ak.scheme")  # (5)
    key = parsed.crypto_key()  # (6)
    _check_generator(key)
    return Ak(parsed, parsed.name, parsed.qualified_name(), key, parsed.parameters.scheme)


def verify_holder(
    public: bytes, attest: bytes, signature: bytes, creation: bytes, *, ak: Ak, policy: cose.PublicKey | None = None
) -> Holder:
    """Return the holder key `public` (TPMT_PUBLIC) that TPM2_CertifyCreation by `ak` vouches for.

    `attest` and `signature` are the TPM's answer, `creation` the TPMS_CREATION_DATA of the key. `policy` is the
    verifier's policy key where the key obeys a TPM-enforced lease, None for a plain one.

    (1) the certification parses, is made by a TPM and is one of a creation  tpm.attest.*, tpm.certify.magic, .type
    (2) it is signed by `ak`, with its scheme          tpm.signature.*, tpm.certify.scheme, tpm.certify.signature
    (3) qualifiedSigner is the Qualified Name of `ak`                      tpm.certify.signer
    (4) the public area is an unrestricted P-256 ECDSA-SHA256 signing key that was made in the TPM and cannot leave
        it                                                                 tpm.holder.attributes, .scheme, .name-alg
    (5) its use: with `policy`, only by the policy that this key authorises for this TPM; without, by anybody on the
        host, and by no policy                                             tpm.holder.attributes, tpm.holder.policy
    (6) the certified Name is that of `public`                             tpm.holder.name
    (7) the certified hash is that of `creation`                           tpm.holder.creation
    (8) which says: a primary key of the *owner* hierarchy, which TPM2_Clear destroys
                                                                           tpm.creation.*, tpm.holder.hierarchy

    Absent on purpose: extraData. Residence in a TPM does not change with time; freshness is the quote's affair.
    """
    parsed, signed = _read_certification(attest, signature)  # (1)
    verify_signature(ak.key, ak.scheme, signed, attest, CERTIFY_CODES)  # (2)
    if parsed.qualified_signer != ak.qualified_name:  # (3)
        raise Untrusted(CERTIFY_CODES.signer, "qualifiedSigner is not the Qualified Name of the attestation key")
    holder = Public.from_bytes(public)
    _check_holder(holder, ak, policy)  # (4) (5)
    if parsed.info.name != holder.name:  # (6)
        raise Untrusted("tpm.holder.name", "the certified Name is not that of this key")
    if parsed.info.creation_hash != digest(holder.name_alg, creation):  # (7)
        raise Untrusted("tpm.holder.creation", "the creation data are not those that the TPM certified")
    if not CreationData.from_bytes(creation).is_primary_of(RH_OWNER):  # (8)
        raise Untrusted("tpm.holder.hierarchy", "the key is not a primary key of the owner hierarchy")
    return Holder(holder, holder.name, holder.key)


@lru_cache(maxsize=4096)
def _read_certification(attest: bytes, signature: bytes) -> tuple[Attest[CreationInfo], Signature]:
    """Read, and believed no more than before. Remembered: a host sends the same certification with every quote."""
    return Attest.from_bytes(attest, CreationInfo, CERTIFY_CODES), Signature.from_bytes(signature, CERTIFY_CODES)


def _check_holder(public: Public, ak: Ak, policy: cose.PublicKey | None) -> None:
    """Checks (4) and (5) of `verify_holder`."""
    if public.name_alg != ALG_SHA256:
        raise Untrusted("tpm.holder.name-alg", f"nameAlg is 0x{public.name_alg:04x}, not SHA-256")
    if public.attributes != (PLAIN_HOLDER_ATTRIBUTES if policy is None else HOLDER_ATTRIBUTES):
        raise Untrusted("tpm.holder.attributes", f"attributes are {attribute_names(public.attributes)}")
    if public.type != ALG_ECC:
        raise Untrusted("tpm.holder.scheme", "the holder key is not an ECC key")
    _check_signing_scheme(public, "tpm.holder.scheme")
    if public.policy != (b"" if policy is None else holder_auth_policy(policy, ak.name)):  # (5)
        raise Untrusted("tpm.holder.policy", f"the key obeys the policy {public.policy.hex() or 'of nobody'}")


def _check_signing_scheme(public: Public, reason: str) -> None:
    parameters = public.parameters
    if isinstance(parameters, EccParameters):
        fits = (parameters.scheme, parameters.curve, parameters.kdf) == (ECDSA_SHA256, ECC_P256, Scheme())
    else:
        fits = parameters.scheme == RSASSA_SHA256
    if not fits or parameters.symmetric != Symmetric():
        raise Untrusted(reason, "the signing scheme is neither ECDSA on P-256 nor RSASSA, with SHA-256")
