"""Credential activation: rows 19 and 20. The other side is written independently in fixtures.attester, and is a real
TPM in tests/agent/test_tpm.py."""

import hashlib

import pytest

from agent.devices import DeviceError
from attestation.errors import Untrusted
from attestation.tpm.credential import Credential, make_credential, verify_secret
from attestation.tpm.identity import Ek, verify_ak, verify_ek
from attestation.tpm.structures import ALG_SHA256
from attestation.tpm.wrapping import ENTROPY_SIZE, kdfa
from fixtures.attester import SoftTpm
from tests.attestation.tpm.stand import AT, CA

TPMS = {kind: SoftTpm(CA, ek=kind) for kind in ("p256", "p384", "rsa2048")}
SECRET = bytes(range(32))
ENTROPY = bytes(range(100, 100 + ENTROPY_SIZE))


def ek_of(tpm: SoftTpm) -> Ek:
    return verify_ek(tpm.ek_certificate(), tpm.ek_public(), CA.intermediates, [CA.anchor], at=AT)


def credential(tpm: SoftTpm, *, named: SoftTpm | None = None, entropy: bytes = ENTROPY) -> Credential:
    return make_credential(ek_of(tpm), verify_ak((named or tpm).create_ak().public), SECRET, entropy=entropy)


@pytest.mark.parametrize("kind", TPMS)
@pytest.mark.parametrize("entropy", [ENTROPY, bytes(ENTROPY_SIZE), b"\xff" * ENTROPY_SIZE])
def test_the_tpm_it_was_made_for_opens_it(kind: str, entropy: bytes) -> None:
    made = credential(TPMS[kind], entropy=entropy)
    answer = TPMS[kind].activate_credential(made.id_object, made.encrypted_secret)
    verify_secret(answer, SECRET)
    assert answer == SECRET


@pytest.mark.parametrize("kind", TPMS)
def test_row_19_not_with_another_ak(kind: str) -> None:
    made = credential(TPMS[kind], named=SoftTpm(CA))
    with pytest.raises(DeviceError):
        TPMS[kind].activate_credential(made.id_object, made.encrypted_secret)


@pytest.mark.parametrize("kind", TPMS)
def test_row_20_not_by_another_ek(kind: str) -> None:
    made = credential(TPMS[kind])
    stranger = SoftTpm(CA, ek=kind)
    stranger.ak = TPMS[kind].ak
    with pytest.raises(DeviceError):
        stranger.activate_credential(made.id_object, made.encrypted_secret)


@pytest.mark.parametrize("at", [2, 33, 34, -1])
def test_row_20_not_once_it_was_changed(at: int) -> None:
    made = credential(TPMS["p256"])
    changed = bytearray(made.id_object)
    changed[at] ^= 1
    with pytest.raises(DeviceError):
        TPMS["p256"].activate_credential(bytes(changed), made.encrypted_secret)


@pytest.mark.parametrize("answer", [b"", SECRET[:-1], SECRET + b"\0", bytes(32), SECRET[::-1]])
def test_row_20_a_wrong_secret_is_refused(answer: bytes) -> None:
    with pytest.raises(Untrusted) as refusal:
        verify_secret(answer, SECRET)
    assert refusal.value.reason == "tpm.credential.secret"


@pytest.mark.parametrize(
    ("secret", "entropy"),
    [(b"", ENTROPY), (bytes(33), ENTROPY), (SECRET, b""), (SECRET, ENTROPY[:-1]), (SECRET, ENTROPY + b"\0")],
)
def test_secret_and_entropy_have_their_sizes(secret: bytes, entropy: bytes) -> None:
    with pytest.raises(ValueError, match=r"ENTROPY_SIZE|1 to 32"):
        make_credential(ek_of(TPMS["p256"]), verify_ak(TPMS["p256"].ak.to_bytes()), secret, entropy=entropy)


def test_the_ephemeral_key_is_never_nought() -> None:
    """Entropy 0 gives the scalar 1, and so does the order of the curve less one: the generator is what is sent."""
    generator = bytes.fromhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
    less_one = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632550
    for entropy in (0, less_one, 2 * less_one):
        made = credential(TPMS["p256"], entropy=entropy.to_bytes(ENTROPY_SIZE, "big"))
        assert made.encrypted_secret[2:34] == generator


@pytest.mark.parametrize("size", [1, 31, 32])
def test_a_short_secret_comes_back(size: int) -> None:
    tpm = TPMS["p256"]
    made = make_credential(ek_of(tpm), verify_ak(tpm.create_ak().public), SECRET[:size], entropy=ENTROPY)
    assert tpm.activate_credential(made.id_object, made.encrypted_secret) == SECRET[:size]


def test_other_entropy_gives_another_credential() -> None:
    assert credential(TPMS["p256"]) == credential(TPMS["p256"])
    assert credential(TPMS["p256"]).id_object != credential(TPMS["p256"], entropy=bytes(ENTROPY_SIZE)).id_object


def test_kdfa_is_one_hmac_over_counter_label_context_and_length() -> None:
    expected = hashlib.sha256  # SP 800-108 in counter mode, spelled out
    block = bytes(64)
    inner = bytes(b ^ 0x36 for b in block) + b"\0\0\0\1STORAGE\0name\0\0\0\x80"
    outer = bytes(b ^ 0x5C for b in block) + expected(inner).digest()
    assert kdfa(ALG_SHA256, bytes(32), b"STORAGE", b"name", 128) == expected(outer).digest()[:16]
