"""What only one TPM can open: a seed shared with its endorsement key, and the protection that is derived from it.

Source: TCG TPM 2.0 Library rev 1.59, Part 1: 11.4.10.2 (KDFa), 11.4.10.3 (KDFe), 23.3.2.3 (outer wrapper), 24.4
(credential), annexes B.10.3 (RSA: OAEP) and C.6.3 (ECC: one-pass ECDH). A credential (`credential`) and a sealed secret
(`sealing`) differ in their label and in what they name; the rest is the same:

    seed      = random, OAEP-encrypted to an RSA key; or KDFe(ECDH(ephemeral, key), label, ephemeral.x, key.x)
    symmetric = KDFa(seed, "STORAGE", name)          encrypts TPM2B(content) with AES-CFB, IV 0
    hmac      = KDFa(seed, "INTEGRITY")              over ciphertext || name

Randomness is an argument (but for the padding inside the library's OAEP).
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from attestation.tpm.structures import ALG_SHA256, ALG_SHA384, Public, digest, sized

ENTROPY_SIZE = 56
"""48 bytes for the seed or the scalar of the widest curve, and 64 bits more so that reducing it has no bias."""

_HASHES: dict[int, hashes.HashAlgorithm] = {ALG_SHA256: hashes.SHA256(), ALG_SHA384: hashes.SHA384()}
_NAMES = {ALG_SHA256: "sha256", ALG_SHA384: "sha384"}
_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
}


def kdfa(alg: int, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1, 11.4.10.2): HMAC in counter mode, SP 800-108. `bits` is at most that of one HMAC."""
    message = (1).to_bytes(4, "big") + label + b"\x00" + context + bits.to_bytes(4, "big")
    return hmac.digest(key, message, _NAMES[alg])[: bits // 8]


def share_seed(parent: Public, label: bytes, entropy: bytes) -> tuple[bytes, bytes]:
    """A seed as long as the name hash of `parent`, and the form in which only its TPM can recover it.

    `parent`: a restricted decryption key; `label` ("IDENTITY", "DUPLICATE"): for what; `entropy`: ENTROPY_SIZE fresh
    random bytes. ValueError for another length, Untrusted("tpm.key.*") for a key that is too weak.
    """
    if len(entropy) != ENTROPY_SIZE:
        raise ValueError("exactly ENTROPY_SIZE bytes of entropy are taken")
    alg, key, terminated = parent.name_alg, parent.crypto_key(), label + b"\x00"
    if not isinstance(key, ec.EllipticCurvePublicKey):
        seed = entropy[: _HASHES[alg].digest_size]
        oaep = padding.OAEP(padding.MGF1(_HASHES[alg]), _HASHES[alg], terminated)
        return seed, key.encrypt(seed, oaep)
    scalar = 1 + int.from_bytes(entropy, "big") % (_ORDERS[key.curve.name] - 1)
    ephemeral = ec.derive_private_key(scalar, key.curve)
    point, width = ephemeral.public_key().public_numbers(), (key.key_size + 7) // 8
    x, y = point.x.to_bytes(width, "big"), point.y.to_bytes(width, "big")
    other = key.public_numbers().x.to_bytes(width, "big")
    # KDFe (Part 1, 11.4.10.3): one hash is as long as the seed, so the counter stays at 1
    seed = digest(alg, (1).to_bytes(4, "big") + ephemeral.exchange(ec.ECDH(), key) + terminated + x + other)
    return seed, sized(x) + sized(y)


def wrap(parent: Public, seed: bytes, name: bytes, content: bytes) -> bytes:
    """TPM2B hmac, then the encrypted TPM2B `content`: opened by the TPM that has `seed`, for the object `name`."""
    alg = parent.name_alg
    key = kdfa(alg, seed, b"STORAGE", name, parent.parameters.symmetric.bits)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    hidden = encryptor.update(sized(content)) + encryptor.finalize()
    mac = hmac.digest(kdfa(alg, seed, b"INTEGRITY", b"", 8 * _HASHES[alg].digest_size), hidden + name, _NAMES[alg])
    return sized(mac) + hidden
