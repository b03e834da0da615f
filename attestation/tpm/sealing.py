"""A secret sealed to one TPM from afar: what TPM2_Import takes, made in software.

Source: TCG TPM 2.0 Library rev 1.59, Part 1, 23.3 (duplication: outer wrapper only); Part 2, 12.2.4 (TPMT_PUBLIC),
12.3.2.4 (TPMT_SENSITIVE), 11.1.14 (TPM2B_SENSITIVE_DATA). How it is protected is in `wrapping`, with the label
"DUPLICATE" and the Name of the sealed object; its parent is the endorsement key.

The object has no userWithAuth: its policy alone opens it. With the policy of a TPM-enforced lease (`policy`), the TPM
gives the secret out only while a lease that the verifier signed is in force; before, afterwards and after a reset it
refuses. The object cannot be moved on to another TPM: that too would need the verifier's signature, over a policy that
it never signs (Part 1, 23.3: duplication is authorised by a policy that names TPM2_Duplicate).
"""

from __future__ import annotations

from attestation.tpm.structures import ADMIN_WITH_POLICY, ALG_NULL, ALG_SHA256, NO_DA, Public, digest, sized
from attestation.tpm.wrapping import ENTROPY_SIZE, share_seed, wrap
from attestation.wire import Wire, label, wire

ALG_KEYEDHASH = 0x0008
MOST = 128
"""The most bytes that a TPM seals: MAX_SYM_DATA."""
SEALED_ATTRIBUTES = NO_DA | ADMIN_WITH_POLICY
"""No fixedTPM and no fixedParent, as for everything that was imported; nothing but the policy opens or changes it."""
_DIGEST_SIZE = 32
SEALING_ENTROPY_SIZE = _DIGEST_SIZE + ENTROPY_SIZE


@wire
class SealedSecret(Wire):
    """What TPM2_Import and TPM2_Load take; each the contents of its TPM2B, without its length.

    | public    | TPMT_PUBLIC (12.2.4)            | KEYEDHASH, SHA-256, no scheme, the lease policy      |
    | duplicate | TPM2B_PRIVATE (12.3.7)          | TPM2B hmac, then the encrypted TPM2B_SENSITIVE        |
    | seed      | TPM2B_ENCRYPTED_SECRET (11.4.6) | RSA ciphertext, or TPMS_ECC_POINT                     |
    """

    MAX_SIZE = 2048

    public: bytes = label(1, most=256)
    duplicate: bytes = label(2, most=512)
    seed: bytes = label(3, most=512)


def seal_secret(ek: Public, policy: bytes, secret: bytes, *, entropy: bytes) -> SealedSecret:
    """Return `secret` so that only the TPM of `ek` can read it, and only in a session that satisfies `policy`.

    `ek`: the endorsement key, verified at enrolment; `policy`: the authPolicy, 32 bytes; `secret`: 1 to MOST bytes;
    `entropy`: SEALING_ENTROPY_SIZE fresh random bytes. ValueError for other lengths.
    """
    if not 1 <= len(secret) <= MOST or len(policy) != _DIGEST_SIZE:
        raise ValueError(f"a TPM seals 1 to {MOST} bytes, under a policy of SHA-256")
    blinding, rest = entropy[:_DIGEST_SIZE], entropy[_DIGEST_SIZE:]
    public = _public(policy, digest(ALG_SHA256, blinding + secret))
    seed, encrypted_seed = share_seed(ek, b"DUPLICATE", rest)
    name = ALG_SHA256.to_bytes(2, "big") + digest(ALG_SHA256, public)
    return SealedSecret(
        public=public, duplicate=wrap(ek, seed, name, _sensitive(blinding, secret)), seed=encrypted_seed
    )


def _public(policy: bytes, unique: bytes) -> bytes:
    """TPMT_PUBLIC of sealed data. `unique` is H(seedValue || data): it tells nothing of the data without the seed."""
    words = (ALG_KEYEDHASH, 2), (ALG_SHA256, 2), (SEALED_ATTRIBUTES, 4)
    head = b"".join(number.to_bytes(size, "big") for number, size in words)
    return head + sized(policy) + ALG_NULL.to_bytes(2, "big") + sized(unique)


def _sensitive(blinding: bytes, secret: bytes) -> bytes:
    """TPMT_SENSITIVE: the type, no authValue, seedValue, the data."""
    return ALG_KEYEDHASH.to_bytes(2, "big") + sized(b"") + sized(blinding) + sized(secret)
