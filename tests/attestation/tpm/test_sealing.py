"""Sealed secrets: the other side is written independently in fixtures.soft_seal, and is a real TPM in
tests/agent/test_tpm_seal.py."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from agent.devices import DeviceError
from attestation.errors import Malformed
from attestation.tpm.sealing import MOST, SEALING_ENTROPY_SIZE, SealedSecret, seal_secret
from attestation.tpm.structures import Public
from fixtures.attester import SoftTpm
from fixtures.soft_seal import opened
from tests.attestation.tpm.stand import CA

TPMS = {kind: SoftTpm(CA, ek=kind) for kind in ("p256", "p384", "rsa2048")}
POLICY = bytes(range(32))
SECRET = b"the key of the weights, 32 bytes"
ENTROPY = bytes(range(120, 120 + SEALING_ENTROPY_SIZE))


def opened_by(tpm: SoftTpm, secret: SealedSecret) -> bytes:
    return opened(tpm.ek_key, tpm.ek, secret)


def sealed(tpm: SoftTpm, secret: bytes = SECRET, *, policy: bytes = POLICY, entropy: bytes = ENTROPY) -> SealedSecret:
    return seal_secret(Public.from_bytes(tpm.ek_public()), policy, secret, entropy=entropy)


@pytest.mark.parametrize("kind", TPMS)
@pytest.mark.parametrize("secret", [b"x", SECRET, bytes(MOST)])
def test_the_tpm_it_was_made_for_opens_it(kind: str, secret: bytes) -> None:
    assert opened_by(TPMS[kind], sealed(TPMS[kind], secret)) == secret


def test_the_public_area_is_sealed_data_that_only_its_policy_opens() -> None:
    public = sealed(TPMS["p256"]).public
    assert public[:8] == bytes.fromhex("0008 000b 00000480")  # KEYEDHASH, SHA-256, adminWithPolicy, noDA
    assert public[8:42] == b"\x00\x20" + POLICY
    assert public[42:46] == bytes.fromhex("0010 0020")  # no scheme, a unique of 32 bytes


@pytest.mark.parametrize("kind", TPMS)
def test_another_tpm_does_not_open_it(kind: str) -> None:
    with pytest.raises(DeviceError):
        opened_by(SoftTpm(CA, ek=kind), sealed(TPMS[kind]))


@pytest.mark.parametrize("field", ["policy", "attributes", "unique"])
def test_a_changed_public_area_does_not_open(field: str) -> None:
    made = sealed(TPMS["p256"])
    public = bytearray(made.public)
    public[{"attributes": 7, "policy": 12, "unique": -1}[field]] ^= 1
    with pytest.raises(DeviceError):
        opened_by(TPMS["p256"], SealedSecret(public=bytes(public), duplicate=made.duplicate, seed=made.seed))


@pytest.mark.parametrize("at", [2, 33, 34, -1])
def test_a_changed_duplicate_does_not_open(at: int) -> None:
    made = sealed(TPMS["p256"])
    changed = bytearray(made.duplicate)
    changed[at] ^= 1
    with pytest.raises(DeviceError):
        opened_by(TPMS["p256"], SealedSecret(public=made.public, duplicate=bytes(changed), seed=made.seed))


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
