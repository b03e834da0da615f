"""The COSE working group's examples (cose-wg/Examples) for COSE_Sign1, and the CWT of RFC 8392.

None lies within this project's profile: they leave `kid` unprotected or out, and have no `typ`. So each message is
used in three ways. The strict reader refuses it, with the code that the table gives. Its signature is checked on its
own, over the Sig_structure of the message: the genuine ones verify, the tampered ones do not. And its content, signed
again with the example's own key within the profile, is accepted.
"""

import json
from base64 import urlsafe_b64decode
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from attestation import cose
from attestation.cose import PublicKey, SoftwareSigner, read_sign1, sign1, verify_sign1
from attestation.errors import Malformed, Untrusted
from tests import vectors

CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}

# file: (what the strict reader says, why that is on purpose, what the signature check says: good, bad or a code)
TABLE = {
    "sign1-tests/sign-pass-01.json": ("cose.header.unprotected", "alg and kid are unprotected", "good"),
    "sign1-tests/sign-pass-02.json": ("cose.header.unprotected", "kid is unprotected; external data", "good"),
    "sign1-tests/sign-pass-03.json": ("cose.structure", "no tag 18", "good"),
    "sign1-tests/sign-fail-01.json": ("cbor.tag", "tag 998, and nothing else is wrong", "good"),
    "sign1-tests/sign-fail-02.json": ("cose.header.unprotected", "kid is unprotected; payload changed", "bad"),
    "sign1-tests/sign-fail-03.json": ("cose.header.unprotected", "kid is unprotected; alg changed to -999", "bad"),
    "sign1-tests/sign-fail-04.json": ("cose.header.unprotected", "kid is unprotected; alg changed to text", "bad"),
    "sign1-tests/sign-fail-06.json": ("cose.header.label", "a protected header was added", "bad"),
    "sign1-tests/sign-fail-07.json": ("cose.header.unprotected", "a protected header was removed", "bad"),
    "ecdsa-examples/ecdsa-sig-01.json": ("cose.header.label", "a content type; kid is unprotected", "good"),
    "ecdsa-examples/ecdsa-sig-02.json": ("cose.header.unprotected", "P-384; kid is unprotected", "good"),
    "ecdsa-examples/ecdsa-sig-03.json": ("cose.header.unprotected", "P-521 is not used here", "key.unsupported"),
    "ecdsa-examples/ecdsa-sig-04.json": ("cose.header.unprotected", "P-256 with SHA-512: one curve, one hash", "bad"),
    "eddsa-examples/eddsa-sig-01.json": ("cose.header.label", "a content type; kid is unprotected", "good"),
    "eddsa-examples/eddsa-sig-02.json": ("cose.header.unprotected", "Ed448 is not used here", "key.unsupported"),
    "CWT/A_3.json": ("cose.header.missing", "no kid", "good"),
}
# COSE_Sign (tag 98), encryption and MAC: messages that this project neither writes nor reads.
OTHER_KINDS = {
    "ecdsa-examples/ecdsa-01.json",
    "ecdsa-examples/ecdsa-02.json",
    "ecdsa-examples/ecdsa-03.json",
    "ecdsa-examples/ecdsa-04.json",
    "eddsa-examples/eddsa-01.json",
    "eddsa-examples/eddsa-02.json",
    "CWT/A_4.json",
    "CWT/A_5.json",
    "CWT/A_6.json",
    "CWT/A_7.json",
}


def load(name: str) -> dict[str, Any]:
    example: dict[str, Any] = json.loads((vectors.path("vectors/cose") / name).read_text())
    return example


def token_of(example: dict[str, Any]) -> bytes:
    return bytes.fromhex(example["output"]["cbor"])


def number(key: dict[str, str], name: str) -> bytes:
    """A member of an example's key: base64url, or hex where the name ends so."""
    if name in key:
        return urlsafe_b64decode(key[name] + "==")
    return bytes.fromhex(key[name + "_hex"])


def public_key(example: dict[str, Any]) -> PublicKey:
    key = example["input"]["sign0"]["key"]
    if key["crv"] == "Ed448":
        return PublicKey.from_crypto(ed448.Ed448PublicKey.from_public_bytes(number(key, "x")))
    if key["crv"] == "Ed25519":
        return PublicKey.from_crypto(ed25519.Ed25519PublicKey.from_public_bytes(number(key, "x")))
    x, y = (int.from_bytes(number(key, name), "big") for name in "xy")
    return PublicKey.from_crypto(ec.EllipticCurvePublicNumbers(x, y, CURVES[key["crv"]]).public_key())


def signer_of(example: dict[str, Any]) -> SoftwareSigner:
    key = example["input"]["sign0"]["key"]
    if key["crv"] == "Ed25519":
        return SoftwareSigner(ed25519.Ed25519PrivateKey.from_private_bytes(number(key, "d")))
    return SoftwareSigner(ec.derive_private_key(int.from_bytes(number(key, "d"), "big"), CURVES[key["crv"]]))


def elements_of(example: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and signature, read without any of our code."""
    message = cbor2.loads(token_of(example))
    protected, _, payload, signature = getattr(message, "value", message)
    return b"" if protected == b"\xa0" else protected, payload, signature


def signed_bytes(example: dict[str, Any]) -> bytes:
    """The Sig_structure of the message as it stands, with the example's external data."""
    protected, payload, _ = elements_of(example)
    external = bytes.fromhex(example["input"]["sign0"].get("external", ""))
    return cbor2.dumps(["Signature1", protected, external, payload])


def test_every_example_is_accounted_for() -> None:
    root = vectors.path("vectors/cose")
    assert {path.relative_to(root).as_posix() for path in root.glob("*/*.json")} == TABLE.keys() | OTHER_KINDS


@pytest.mark.parametrize("name", TABLE)
def test_the_strict_reader_refuses_it(name: str) -> None:
    reason, why, _ = TABLE[name]
    with pytest.raises(Malformed) as caught:
        read_sign1(token_of(load(name)), typ="application/cwt", max_size=1000)
    assert caught.value.reason == reason, why


@pytest.mark.parametrize("name", TABLE)
def test_its_signature(name: str) -> None:
    _, why, outcome = TABLE[name]
    example = load(name)
    if outcome == "good":
        public_key(example).verify(signed_bytes(example), elements_of(example)[2])
        return
    with pytest.raises(Untrusted) as caught:
        public_key(example).verify(signed_bytes(example), elements_of(example)[2])
    assert caught.value.reason == ("cose.signature" if outcome == "bad" else outcome), why


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[2] == "good"])
def test_what_is_signed_here_are_the_bytes_of_the_example(name: str) -> None:
    example = load(name)
    if "external" not in example["input"]["sign0"]:  # never used here
        protected, payload, _ = elements_of(example)
        assert cose._to_be_signed(protected, payload) == bytes.fromhex(example["intermediates"]["ToBeSign_hex"])


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[2] != "key.unsupported"])
def test_the_same_content_within_the_profile_is_accepted(name: str) -> None:
    example = load(name)
    payload, signer = elements_of(example)[1], signer_of(example)
    assert signer.public == public_key(example)
    token = sign1(signer, typ="application/cwt", payload=payload)
    assert verify_sign1(token, signer.public, typ="application/cwt", max_size=1000).payload == payload


@pytest.mark.parametrize("name", sorted(OTHER_KINDS))
def test_a_message_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_sign1(token_of(load(name)), typ="application/cwt", max_size=1000)
    assert caught.value.reason == "cbor.tag"
