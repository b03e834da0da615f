"""Keys: one encoding each, names by RFC 9679, and signatures of fixed width.

The example of RFC 9679 section 6 and key material of RFC 9053/8032 are the known answers; `cryptography` is the other
side everywhere else.
"""

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import Malformed, Untrusted
from attestation.keys import EDDSA, ES256, ES384, PublicKey, SoftwareSigner

ALGORITHMS = [ES256, ES384, EDDSA]
SIGNERS = {alg: SoftwareSigner.generate(alg) for alg in ALGORITHMS}
DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PKCS8 = serialization.PrivateFormat.PKCS8
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)

# RFC 9679 section 6: the COSE key, and its thumbprint with SHA-256.
RFC9679_X = bytes.fromhex("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d")
RFC9679_Y = bytes.fromhex("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c")
RFC9679_THUMBPRINT = bytes.fromhex("496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec")

# RFC 8032 section 7.1, test 2.
RFC8032_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC8032_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC8032_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_the_thumbprint_of_rfc_9679() -> None:
    key = PublicKey.from_cose_key({1: 2, -1: 1, -2: RFC9679_X, -3: RFC9679_Y})
    assert key.thumbprint == key.kid == RFC9679_THUMBPRINT


def test_the_signature_of_rfc_8032() -> None:
    key = PublicKey.from_cose_key({1: 1, -1: 6, -2: RFC8032_PUBLIC})
    key.verify(b"\x72", RFC8032_SIGNATURE)
    signer = SoftwareSigner(ed25519.Ed25519PrivateKey.from_private_bytes(RFC8032_SEED))
    assert (signer.public, signer.sign(b"\x72")) == (key, RFC8032_SIGNATURE)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_all_forms_are_the_same_key(alg: int) -> None:
    key = SIGNERS[alg].public
    assert key.alg == alg
    assert PublicKey(alg, key.spki) == key
    assert PublicKey.from_spki(key.spki) == key
    assert PublicKey.from_pem(key.to_pem()) == key
    assert PublicKey.from_cose_key(key.to_cose_key()) == key
    assert len(key.thumbprint) == 32
    assert hash(PublicKey.from_spki(key.spki)) == hash(key)
    assert SoftwareSigner.from_pem(SIGNERS[alg].to_pem()).public == key


def test_other_keys_have_other_names() -> None:
    assert len({signer.public.kid for signer in SIGNERS.values()}) == 3
    assert SoftwareSigner.generate(ES256).public != SIGNERS[ES256].public


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_verifies_with_its_key_only(alg: int) -> None:
    signature = SIGNERS[alg].sign(b"message")
    assert len(signature) == {ES256: 64, ES384: 96, EDDSA: 64}[alg]
    SIGNERS[alg].public.verify(b"message", signature)
    with pytest.raises(Untrusted, match=r"cose\.signature"):
        SIGNERS[alg].public.verify(b"massage", signature)
    with pytest.raises(Untrusted, match=r"cose\.signature"):
        SoftwareSigner.generate(alg).public.verify(b"message", signature)


@pytest.mark.parametrize(("alg", "digest"), [(ES256, hashes.SHA256()), (ES384, hashes.SHA384())])
def test_what_cryptography_signs_verifies(alg: int, digest: hashes.HashAlgorithm) -> None:
    """The hash belongs to the curve, and small r or s keep their width."""
    width = {ES256: 32, ES384: 48}[alg]
    private = serialization.load_pem_private_key(SIGNERS[alg].to_pem(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    for _ in range(20):
        r, s = decode_dss_signature(private.sign(b"message", ec.ECDSA(digest)))
        SIGNERS[alg].public.verify(b"message", r.to_bytes(width, "big") + s.to_bytes(width, "big"))


def test_a_small_r_is_signed_at_full_width() -> None:
    """One signature in 256 has an r below 2^248; it is written with its leading zero."""
    signatures = (SIGNERS[ES256].sign(bytes([n % 256, n // 256])) for n in range(20000))
    small = next(signature for signature in signatures if signature[0] == 0)
    assert len(small) == 64


def test_signatures_are_malleable_so_they_identify_nothing() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signature = SIGNERS[ES256].sign(b"message")
    other = signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    assert other != signature
    SIGNERS[ES256].public.verify(b"message", other)


ORDERS = {
    ES256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ES384: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


@pytest.mark.parametrize("alg", [ES256, ES384])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", ["zero", "order", "order and one", "ones"])
def test_r_and_s_are_within_the_group(alg: int, which: int, value: str) -> None:
    width = {ES256: 32, ES384: 48}[alg]
    number = {"zero": 0, "order": ORDERS[alg], "order and one": ORDERS[alg] + 1, "ones": (1 << 8 * width) - 1}[value]
    parts = [b"\0" * (width - 1) + b"\1"] * 2
    parts[which] = number.to_bytes(width, "big")
    with pytest.raises(Untrusted) as caught:
        SIGNERS[alg].public.verify(b"message", b"".join(parts))
    assert caught.value.reason == "cose.signature.form"


@pytest.mark.parametrize("alg", [ES256, ES384])
def test_the_largest_r_and_s_are_in_range_and_do_not_verify(alg: int) -> None:
    part = (ORDERS[alg] - 1).to_bytes({ES256: 32, ES384: 48}[alg], "big")
    with pytest.raises(Untrusted) as caught:
        SIGNERS[alg].public.verify(b"message", part + part)
    assert caught.value.reason == "cose.signature"


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("change", [-64, -1, 1, 64])
def test_the_length_of_a_signature_is_the_key_s(alg: int, change: int) -> None:
    signature = (SIGNERS[alg].sign(b"message") + bytes(64))[: {ES256: 64, ES384: 96, EDDSA: 64}[alg] + change]
    with pytest.raises(Untrusted) as caught:
        SIGNERS[alg].public.verify(b"message", signature)
    assert caught.value.reason == "cose.signature.form"
    assert caught.value.detail == f"{len(signature)} bytes, {len(signature) - change} expected"


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(DER, SPKI)
    return encoded


P256 = SIGNERS[ES256].public.spki
P256_COMPRESSED = (
    bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + bytes([2 + P256[-1] % 2]) + P256[-64:-32]
)

UNSUPPORTED = {
    "RSA": spki(RSA),
    "P-521": spki(ec.generate_private_key(ec.SECP521R1())),
    "P-224": spki(ec.generate_private_key(ec.SECP224R1())),
    "secp256k1": spki(ec.generate_private_key(ec.SECP256K1())),
    "Ed448": spki(ed448.Ed448PrivateKey.generate()),
    "X25519, as long as Ed25519": spki(x25519.X25519PrivateKey.generate()),
    "P-256 with a compressed point": P256_COMPRESSED,
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_another_kind_of_key_is_not_used(name: str) -> None:
    with pytest.raises(Untrusted) as caught:
        PublicKey.from_spki(UNSUPPORTED[name])
    assert caught.value.reason == "key.unsupported"


NO_KEY = {
    "nothing": (b"", "key.encoding"),
    "text": (b"-----BEGIN PUBLIC KEY-----", "key.encoding"),
    "cut short": (P256[:-1], "key.encoding"),
    "a byte after the end": (P256 + b"\0", "key.encoding"),
    "only the prefix": (P256[:27], "key.encoding"),
    "a long length": (b"\x30\x81" + P256[1:], "key.encoding"),
    "a point that is not on the curve": (P256[:-1] + bytes([P256[-1] ^ 1]), "key.point"),
    "zero for a point": (P256[:-64] + bytes(64), "key.point"),
    "coordinates of all ones": (P256[:-64] + b"\xff" * 64, "key.point"),
    "a P-384 point that is not on the curve": (SIGNERS[ES384].public.spki[:-96] + bytes(96), "key.point"),
}


@pytest.mark.parametrize("name", NO_KEY)
def test_what_is_no_key_is_refused(name: str) -> None:
    data, reason = NO_KEY[name]
    with pytest.raises(Malformed) as caught:
        PublicKey.from_spki(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("alg", "key"), [(ES384, ES256), (ES256, ES384), (EDDSA, ES256), (ES256, EDDSA), (0, ES256)])
def test_the_algorithm_is_the_one_of_the_curve(alg: int, key: int) -> None:
    with pytest.raises(Untrusted) as caught:
        PublicKey(alg, SIGNERS[key].public.spki)
    assert caught.value.reason == "key.unsupported"


X, Y = P256[-64:-32], P256[-32:]
COSE_KEYS: dict[str, tuple[dict[int, object], str]] = {
    "no members": ({}, "key.unsupported"),
    "no curve": ({1: 2, -2: X, -3: Y}, "key.unsupported"),
    "an unknown curve": ({1: 2, -1: 9, -2: X, -3: Y}, "key.unsupported"),
    "P-521": ({1: 2, -1: 3, -2: X, -3: Y}, "key.unsupported"),
    "the type of another curve": ({1: 1, -1: 1, -2: X, -3: Y}, "key.unsupported"),
    "the type as text": ({1: "EC2", -1: 1, -2: X, -3: Y}, "key.unsupported"),
    "a symmetric key": ({1: 4, -1: X}, "key.unsupported"),
    "no y": ({1: 2, -1: 1, -2: X}, "key.cose"),
    "y as a sign": ({1: 2, -1: 1, -2: X, -3: True}, "key.cose"),
    "no x": ({1: 2, -1: 1, -3: Y}, "key.cose"),
    "x without its leading byte": ({1: 2, -1: 1, -2: X[1:], -3: Y}, "key.cose"),
    "x with a leading zero": ({1: 2, -1: 1, -2: b"\0" + X, -3: Y}, "key.cose"),
    "a byte moved from y to x": ({1: 2, -1: 1, -2: X + Y[:1], -3: Y[1:]}, "key.cose"),
    "an algorithm": ({1: 2, -1: 1, -2: X, -3: Y, 3: ES256}, "key.cose"),
    "a key id": ({1: 2, -1: 1, -2: X, -3: Y, 2: b"id"}, "key.cose"),
    "a private key": ({1: 2, -1: 1, -2: X, -3: Y, -4: X}, "key.cose"),
    "P-384 with the coordinates of P-256": ({1: 2, -1: 2, -2: X, -3: Y}, "key.cose"),
    "Ed25519 with y": ({1: 1, -1: 6, -2: X, -3: Y}, "key.cose"),
    "Ed25519 without x": ({1: 1, -1: 6}, "key.cose"),
    "Ed25519 of 31 bytes": ({1: 1, -1: 6, -2: X[1:]}, "key.cose"),
    "not on the curve": ({1: 2, -1: 1, -2: X, -3: X}, "key.point"),
}


@pytest.mark.parametrize("name", COSE_KEYS)
def test_a_cose_key_has_exactly_its_members(name: str) -> None:
    members, reason = COSE_KEYS[name]
    with pytest.raises((Malformed, Untrusted)) as caught:
        PublicKey.from_cose_key(members)
    assert caught.value.reason == reason


def private_pem(key: Any, encryption: serialization.KeySerializationEncryption | None = None) -> bytes:
    encoded: bytes = key.private_bytes(PEM, PKCS8, encryption or serialization.NoEncryption())
    return encoded


def test_pem_of_another_form_is_refused() -> None:
    for data in (b"", b"no key", SIGNERS[ES256].to_pem(), P256):
        with pytest.raises(Malformed, match=r"key\.encoding"):
            PublicKey.from_pem(data)
    with pytest.raises(Untrusted, match=r"key\.unsupported"):
        PublicKey.from_pem(RSA.public_key().public_bytes(PEM, SPKI))


def test_a_private_key_of_another_form_is_refused() -> None:
    locked = private_pem(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"secret"))
    for data in (b"", b"no key", SIGNERS[ES256].public.to_pem(), locked):
        with pytest.raises(Malformed, match=r"key\.encoding"):
            SoftwareSigner.from_pem(data)
    for key in (RSA, ed448.Ed448PrivateKey.generate()):
        with pytest.raises(Untrusted, match=r"key\.unsupported: this kind of private key"):
            SoftwareSigner.from_pem(private_pem(key))
    with pytest.raises(Untrusted, match=r"key\.unsupported"):
        SoftwareSigner.from_pem(private_pem(ec.generate_private_key(ec.SECP521R1())))


@pytest.mark.parametrize("alg", [0, -9, -257, 5, -7.5])
def test_no_key_is_made_for_another_algorithm(alg: Any) -> None:
    with pytest.raises(ValueError, match="no such algorithm"):
        SoftwareSigner.generate(alg)


@settings(max_examples=50)
@given(st.sampled_from(ALGORITHMS), st.data())
def test_a_changed_byte_never_gives_the_same_key(alg: int, data: st.DataObject) -> None:
    key = SIGNERS[alg].public
    changed = bytearray(key.spki)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = PublicKey.from_spki(bytes(changed))
    except (Malformed, Untrusted):
        return
    assert other.spki == bytes(changed)
    assert other.kid != key.kid
