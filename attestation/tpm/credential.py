"""TPM2_MakeCredential in software: a secret that only one TPM, holding one EK *and* one AK, can open.

Source: TCG TPM 2.0 Library rev 1.59, Part 1, 24 (Credential Protection); Part 2, 12.4 (TPMS_ID_OBJECT). How it is
protected is in `wrapping`, with the label "IDENTITY" and the Name of the AK.

The TPM opens it only for the object whose Name went in, so a secret that comes back proves that this AK lives in the
TPM of this EK. Randomness is an argument. The secret must be fresh per attempt, used once, and answered soon: that is
the caller's part (`verify_secret` compares it).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from attestation.errors import Untrusted
from attestation.tpm.identity import Ak, Ek
from attestation.tpm.wrapping import share_seed, wrap


@dataclass(frozen=True, slots=True)
class Credential:
    """What TPM2_ActivateCredential takes. Both are the contents of their TPM2B, without its length.

    | id_object        | TPMS_ID_OBJECT (12.4.2)        | TPM2B hmac, then the encrypted TPM2B secret |
    | encrypted_secret | TPM2B_ENCRYPTED_SECRET (11.4.6) | RSA ciphertext, or TPMS_ECC_POINT           |
    """

    id_object: bytes
    encrypted_secret: bytes


def make_credential(ek: Ek, ak: Ak, secret: bytes, *, entropy: bytes) -> Credential:
    """Return `secret` so that only the TPM of `ek` can read it, and only while it holds `ak`.

    `secret`: 1 to 32 bytes, fresh; `entropy`: ENTROPY_SIZE fresh random bytes. ValueError for other lengths. The
    Name comes from the verified key, so that no other Name can be offered (refusal matrix, row 19).
    """
    if not 1 <= len(secret) <= 32:
        raise ValueError("a credential takes a secret of 1 to 32 bytes")
    seed, encrypted_seed = share_seed(ek.public, b"IDENTITY", entropy)
    return Credential(wrap(ek.public, seed, ak.name, secret), encrypted_seed)


def verify_secret(answer: bytes, secret: bytes) -> None:
    """Compare in constant time: Untrusted("tpm.credential.secret") where the TPM did not open the credential."""
    if not hmac.compare_digest(answer, secret):
        raise Untrusted("tpm.credential.secret", "the credential was not opened by the TPM it was made for")
