"""Sealed secrets: the other side is written here from the specification, independently of what made them.

It is a real TPM in tests/agent/test_tpm_seal.py.
"""

import hashlib
import hmac
from hashlib import sha256

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from attestation.errors import Malformed
from attestation.tpm.sealing import MOST, SEALING_ENTROPY_SIZE, SealedSecret, seal_secret
from attestation.tpm.structures import Public
from fixtures.attester import SoftTpm
from tests.attestation.tpm.stand import CA

TPMS = {kind: SoftTpm(CA, ek=kind) for kind in ("p256", "p384", "rsa2048")}
POLICY = bytes(range(32))
SECRET = b"the key of the weights, 32 bytes"
ENTROPY = bytes(range(120, 120 + SEALING_ENTROPY_SIZE))
NAMES = {0x000B: ("sha256", hashes.SHA256()), 0x000C: ("sha384", hashes.SHA384())}


class Refused(Exception):
    """The TPM refuses."""


def opened(tpm: SoftTpm, sealed: SealedSecret) -> bytes:
    """TPM2_Import and what TPM2_Load checks, from Part 1, 23.3 and Part 3, 13.3; the sealed data."""
    name_hash, algorithm = NAMES[tpm.ek.name_alg]
    size = algorithm.digest_size
    seed = recovered(tpm, sealed.seed, algorithm)
    name = b"\x00\x0b" + sha256(sealed.public).digest()

    def kdf(label: bytes, context: bytes, bits: int) -> bytes:
        message = b"\x00\x00\x00\x01" + label + context + bits.to_bytes(4, "big")
        return hmac.new(seed, message, name_hash).digest()[: bits // 8]

    mac, hidden = sealed.duplicate[2 : 2 + size], sealed.duplicate[2 + size :]
    if not hmac.compare_digest(mac, hmac.digest(kdf(b"INTEGRITY\0", b"", 8 * size), hidden + name, name_hash)):
        raise Refused("integrity")
    key = kdf(b"STORAGE\0", name, tpm.ek.parameters.symmetric.bits)
    decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
    sensitive = decryptor.update(hidden) + decryptor.finalize()
    assert int.from_bytes(sensitive[:2], "big") == len(sensitive) - 2
    assert sensitive[2:6] == b"\x00\x08\x00\x00"  # KEYEDHASH, no authValue
    blinding, data = sensitive[8:40], sensitive[42:]
    assert sealed.public[-32:] == sha256(blinding + data).digest()
    return data


def recovered(tpm: SoftTpm, encrypted: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    key = tpm.ek_key
    if isinstance(key, rsa.RSAPrivateKey):
        try:
            return key.decrypt(encrypted, padding.OAEP(padding.MGF1(algorithm), algorithm, b"DUPLICATE\0"))
        except ValueError as error:
            raise Refused("seed") from error
    width = (key.key_size + 7) // 8
    x, y = encrypted[2 : 2 + width], encrypted[4 + width :]
    point = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), key.curve)
    shared = key.exchange(ec.ECDH(), point.public_key())
    own = key.public_key().public_numbers().x.to_bytes(width, "big")
    return hashlib.new(algorithm.name, b"\0\0\0\1" + shared + b"DUPLICATE\0" + x + own).digest()


def sealed(tpm: SoftTpm, secret: bytes = SECRET, *, policy: bytes = POLICY, entropy: bytes = ENTROPY) -> SealedSecret:
    return seal_secret(Public.from_bytes(tpm.ek_public()), policy, secret, entropy=entropy)


@pytest.mark.parametrize("kind", TPMS)
@pytest.mark.parametrize("secret", [b"x", SECRET, bytes(MOST)])
def test_the_tpm_it_was_made_for_opens_it(kind: str, secret: bytes) -> None:
    assert opened(TPMS[kind], sealed(TPMS[kind], secret)) == secret


def test_the_public_area_is_sealed_data_that_only_its_policy_opens() -> None:
    public = sealed(TPMS["p256"]).public
    assert public[:8] == bytes.fromhex("0008 000b 00000400")  # KEYEDHASH, SHA-256, noDA and nothing else
    assert public[8:42] == b"\x00\x20" + POLICY
    assert public[42:46] == bytes.fromhex("0010 0020")  # no scheme, a unique of 32 bytes


@pytest.mark.parametrize("kind", TPMS)
def test_another_tpm_does_not_open_it(kind: str) -> None:
    with pytest.raises(Refused):
        opened(SoftTpm(CA, ek=kind), sealed(TPMS[kind]))


@pytest.mark.parametrize("field", ["policy", "attributes", "unique"])
def test_a_changed_public_area_does_not_open(field: str) -> None:
    made = sealed(TPMS["p256"])
    public = bytearray(made.public)
    public[{"attributes": 7, "policy": 12, "unique": -1}[field]] ^= 1
    with pytest.raises(Refused):
        opened(TPMS["p256"], SealedSecret(public=bytes(public), duplicate=made.duplicate, seed=made.seed))


@pytest.mark.parametrize("at", [2, 33, 34, -1])
def test_a_changed_duplicate_does_not_open(at: int) -> None:
    made = sealed(TPMS["p256"])
    changed = bytearray(made.duplicate)
    changed[at] ^= 1
    with pytest.raises(Refused):
        opened(TPMS["p256"], SealedSecret(public=made.public, duplicate=bytes(changed), seed=made.seed))


def test_a_credential_is_no_sealed_secret() -> None:
    """The label of the seed differs: what proves an AK cannot be presented as a secret, nor the other way round."""
    tpm = TPMS["rsa2048"]
    algorithm = hashes.SHA256()
    with pytest.raises(ValueError, match="Decryption"):
        tpm.ek_key.decrypt(  # type: ignore[union-attr]
            sealed(tpm).seed, padding.OAEP(padding.MGF1(algorithm), algorithm, b"IDENTITY\0")
        )


def test_nothing_outside_shows_the_secret_or_that_two_are_the_same() -> None:
    first, second = sealed(TPMS["p256"]), sealed(TPMS["p256"], entropy=bytes(SEALING_ENTROPY_SIZE))
    assert SECRET not in first.to_bytes()
    assert sha256(SECRET).digest() not in first.to_bytes()
    assert first.public != second.public
    assert first.seed != second.seed
    assert sealed(TPMS["p256"]) == first


@pytest.mark.parametrize(
    ("secret", "policy", "entropy"),
    [
        (b"", POLICY, ENTROPY),
        (bytes(MOST + 1), POLICY, ENTROPY),
        (SECRET, b"", ENTROPY),
        (SECRET, POLICY + b"\0", ENTROPY),
        (SECRET, POLICY, ENTROPY[:-1]),
        (SECRET, POLICY, ENTROPY + b"\0"),
    ],
    ids=["empty", "too long", "no policy", "policy too long", "little entropy", "much entropy"],
)
def test_secret_policy_and_entropy_have_their_sizes(secret: bytes, policy: bytes, entropy: bytes) -> None:
    with pytest.raises(ValueError, match=r"SHA-256|ENTROPY_SIZE"):
        sealed(TPMS["p256"], secret, policy=policy, entropy=entropy)


@pytest.mark.parametrize("kind", TPMS)
def test_it_is_written_and_read_back(kind: str) -> None:
    made = sealed(TPMS[kind], bytes(MOST))
    assert SealedSecret.from_bytes(made.to_bytes()) == made
    with pytest.raises(Malformed):
        SealedSecret.from_bytes(made.to_bytes() + b"\0")
