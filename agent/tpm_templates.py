"""The public templates of the keys that the agent asks a TPM to make.

EK: TCG EK Credential Profile 2.5, annex B: L-1 (RSA 2048), L-2 (P-256), H-3 (P-384), by the NV index of their
certificate. AK and holder key: docs/design of Interlock; the verifier checks every field of them
(`attestation.tpm.identity`).
"""

from __future__ import annotations

from attestation.tpm.identity import (
    AK_ATTRIBUTES,
    ECDSA_SHA256,
    EK_ATTRIBUTES,
    EK_HIGH_RANGE_ATTRIBUTES,
    EK_SYMMETRIC,
    HOLDER_ATTRIBUTES,
    PLAIN_HOLDER_ATTRIBUTES,
)
from attestation.tpm.structures import (
    ALG_ECC,
    ALG_RSA,
    ALG_SHA256,
    ALG_SHA384,
    ECC_P256,
    ECC_P384,
    EccParameters,
    Public,
    RsaParameters,
    Scheme,
    Symmetric,
)

POLICY_A_SHA256 = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(TPM_RH_ENDORSEMENT): EK Credential Profile, B.6.2."""
POLICY_B_SHA384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
"""PolicyOR(PolicyA, PolicyAuthorizeNV(I-4)): EK Credential Profile, B.6.3."""

AES_128, AES_256 = EK_SYMMETRIC
NULL = Scheme()

EK_P256 = Public(
    ALG_ECC,
    ALG_SHA256,
    EK_ATTRIBUTES,
    POLICY_A_SHA256,
    EccParameters(AES_128, NULL, ECC_P256, NULL, bytes(32), bytes(32)),
)
EK_P384 = Public(
    ALG_ECC,
    ALG_SHA384,
    EK_HIGH_RANGE_ATTRIBUTES,
    POLICY_B_SHA384,
    EccParameters(AES_256, NULL, ECC_P384, NULL, b"", b""),
)
EK_RSA2048 = Public(
    ALG_RSA, ALG_SHA256, EK_ATTRIBUTES, POLICY_A_SHA256, RsaParameters(AES_128, NULL, 2048, 0, bytes(256))
)

EKS = {0x01C0000A: EK_P256, 0x01C00016: EK_P384, 0x01C00002: EK_RSA2048}
"""Template of the EK by the NV index of its certificate, in order of preference (fastest first)."""

EK_CHAIN = 0x01C00100
"""NV index of the certificates between the EK's and the root: EK Credential Profile, 2.2.1.5.2 (the first of them)."""


def _signing(attributes: int, unique: bytes, policy: bytes = b"") -> Public:
    parameters = EccParameters(Symmetric(), ECDSA_SHA256, ECC_P256, NULL, unique, b"")
    return Public(ALG_ECC, ALG_SHA256, attributes, policy, parameters)


AK = _signing(AK_ATTRIBUTES, b"")


def holder_template(unique: bytes, policy: bytes = b"") -> Public:
    """A holder key of its own for each `unique` (32 random bytes, not secret).

    `policy` is its authorisation policy (`attestation.tpm.policy.holder_auth_policy`); empty for a plain key.
    """
    return _signing(HOLDER_ATTRIBUTES if policy else PLAIN_HOLDER_ATTRIBUTES, unique, policy)
