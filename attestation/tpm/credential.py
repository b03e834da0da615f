"""TPM2_MakeCredential in software: a secret that only one TPM, holding one EK *and* one AK, can open.

Source: TCG TPM 2.0 Library rev 1.59, Part 1, 24 (Credential Protection), 11.4.10.2 (KDFa), 11.4.10.3 (KDFe), and
annexes B.10.3 (RSA: OAEP, label "IDENTITY") and C.6.3 (ECC: one-pass ECDH); Part 2, 12.4 (TPMS_ID_OBJECT).

    seed      = random, OAEP-encrypted to an RSA EK; or KDFe(ECDH(ephemeral, EK), "IDENTITY", ephemeral.x, EK.x)
    symmetric = KDFa(seed, "STORAGE", AK name)       encrypts TPM2B(secret) with AES-CFB, IV 0
    hmac      = KDFa(seed, "INTEGRITY")              over ciphertext || AK name

The TPM opens it only for the object whose Name went in, so a secret that comes back proves that this AK lives in the
TPM of this EK. Randomness is an argument (but for the padding inside the library's OAEP). The secret must be fresh
per attempt, used once, and answered soon: that is the caller's part (`verify_secret` compares it).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from attestation.errors import Untrusted
from attestation.tpm.identity import Ak, Ek
from attestation.tpm.structures import ALG_SHA256, ALG_SHA384, digest, sized

ENTROPY_SIZE = 56
"""48 bytes for the seed or the scalar of the widest curve, and 64 bits more so that reducing it has no bias."""

_LABEL = b"IDENTITY\x00"
_HASHES: dict[int, hashes.HashAlgorithm] = {ALG_SHA256: hashes.SHA256(), ALG_SHA384: hashes.SHA384()}
_NAMES = {ALG_SHA256: "sha256", ALG_SHA384: "sha384"}
_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
}


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
    if not 1 <= len(secret) <= 32 or len(entropy) != ENTROPY_SIZE:
        raise ValueError("a credential takes a secret of 1 to 32 bytes and exactly ENTROPY_SIZE bytes of entropy")
    alg = ek.public.name_alg
    seed, encrypted_seed = _share_seed(ek, entropy)
    size = _HASHES[alg].digest_size
    key = kdfa(alg, seed, b"STORAGE", ak.name, ek.public.parameters.symmetric.bits)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(sized(secret)) + encryptor.finalize()
    mac = hmac.digest(kdfa(alg, seed, b"INTEGRITY", b"", 8 * size), identity + ak.name, _NAMES[alg])
    return Credential(sized(mac) + identity, encrypted_seed)


def verify_secret(answer: bytes, secret: bytes) -> None:
    """Compare in constant time: Untrusted("tpm.credential.secret") where the TPM did not open the credential."""
    if not hmac.compare_digest(answer, secret):
        raise Untrusted("tpm.credential.secret", "the credential was not opened by the TPM it was made for")


def kdfa(alg: int, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1, 11.4.10.2): HMAC in counter mode, SP 800-108. `bits` is at most that of one HMAC."""
    message = (1).to_bytes(4, "big") + label + b"\x00" + context + bits.to_bytes(4, "big")
    return hmac.digest(key, message, _NAMES[alg])[: bits // 8]


def _share_seed(ek: Ek, entropy: bytes) -> tuple[bytes, bytes]:
    """A seed as long as the EK's name hash, and the form in which only the EK can recover it."""
    alg, key = ek.public.name_alg, ek.public.crypto_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        seed = entropy[: _HASHES[alg].digest_size]
        oaep = padding.OAEP(padding.MGF1(_HASHES[alg]), _HASHES[alg], _LABEL)
        return seed, key.encrypt(seed, oaep)
    scalar = 1 + int.from_bytes(entropy, "big") % (_ORDERS[key.curve.name] - 1)
    ephemeral = ec.derive_private_key(scalar, key.curve)
    point, width = ephemeral.public_key().public_numbers(), (key.key_size + 7) // 8
    x, y = point.x.to_bytes(width, "big"), point.y.to_bytes(width, "big")
    other = key.public_numbers().x.to_bytes(width, "big")
    # KDFe (Part 1, 11.4.10.3): one hash is as long as the seed, so the counter stays at 1
    seed = digest(alg, (1).to_bytes(4, "big") + ephemeral.exchange(ec.ECDH(), key) + _LABEL + x + other)
    return seed, sized(x) + sized(y)
