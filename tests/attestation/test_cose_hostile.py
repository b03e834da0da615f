"""Hostile COSE_Sign1 messages: each has one defect, is signed by the right key nevertheless, and is refused for it.

The rows are grouped by the numbers of the reader's list in `attestation/cose.py`. Messages are put together here with
cbor2 alone, so that every wrong form can be made; `signed` signs the bytes as they stand.
"""

from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cbor2 import CBORTag

from attestation.cose import (
    ALG,
    CRIT,
    CTY,
    EDDSA,
    ES256,
    ES384,
    KID,
    RECEIPTS,
    TYP,
    SoftwareSigner,
    read_sign1,
    verify_sign1,
)
from attestation.errors import InterlockError, Malformed, Untrusted

TYPE = "application/interlock-test+cose"
PAYLOAD = b"what is signed"
SIGNER = SoftwareSigner.generate(ES256)
OTHER = SoftwareSigner.generate(ES256)
LARGE = SoftwareSigner.generate(ES384)
EDWARDS = SoftwareSigner.generate(EDDSA)
KEY = SIGNER.public
GOOD: dict[Any, Any] = {ALG: ES256, KID: KEY.kid, TYP: TYPE}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def signature_over(header: bytes, payload: bytes | None = PAYLOAD, signer: SoftwareSigner = SIGNER) -> bytes:
    return signer.sign(cbor2.dumps(["Signature1", header, b"", payload or PAYLOAD]))


def elements(header: Any = None, outside: Any = None, payload: Any = PAYLOAD) -> list[Any]:
    """The four elements, rightly signed."""
    protected = header if isinstance(header, bytes) else cbor2.dumps(GOOD if header is None else header)
    return [protected, {} if outside is None else outside, payload, signature_over(protected)]


def message(header: Any = None, outside: Any = None, payload: Any = PAYLOAD) -> bytes:
    return cbor2.dumps(CBORTag(18, elements(header, outside, payload)))


def with_signature(change: Callable[[bytes], bytes]) -> bytes:
    protected, outside, payload, signature = elements()
    return cbor2.dumps(CBORTag(18, [protected, outside, payload, change(signature)]))


def raw(unsigned: str, header: bytes | None = None) -> bytes:
    """A message as hex text: {h} the header, {p} the payload, {s} the signature, each as an encoded byte string."""
    header = cbor2.dumps(GOOD) if header is None else header
    parts = {"h": header, "p": PAYLOAD, "s": signature_over(header)}
    return bytes.fromhex(unsigned.format(**{name: cbor2.dumps(part).hex() for name, part in parts.items()}))


def without(label: int) -> dict[Any, Any]:
    return {key: value for key, value in GOOD.items() if key != label}


def signed_by(signer: SoftwareSigner, header: dict[Any, Any]) -> bytes:
    protected = cbor2.dumps(header)
    return cbor2.dumps(CBORTag(18, [protected, {}, PAYLOAD, signature_over(protected, signer=signer)]))


def shifted(signature: bytes) -> bytes:
    """The same r and s with 33 and 31 bytes: the right length in all, both wrong."""
    return b"\0" + signature[:32] + signature[33:]


# name: (message, kind, reason)
HOSTILE: dict[str, tuple[bytes, type[InterlockError], str]] = {
    # (1) size
    "larger than the type allows": (message(payload=bytes(1000)), Malformed, "cbor.size"),
    # (2) CBOR within limits
    "empty": (b"", Malformed, "cbor.syntax"),
    "cut short by one byte": (message()[:-1], Malformed, "cbor.syntax"),
    "an indefinite array": (raw("d29f{h}a0{p}{s}ff"), Malformed, "cbor.syntax"),
    "an indefinite unprotected header": (raw("d284{h}bfff{p}{s}"), Malformed, "cbor.syntax"),
    "an indefinite payload": (raw("d284{h}a05f{p}ff{s}"), Malformed, "cbor.syntax"),
    "an indefinite protected header": (
        message(bytes.fromhex("bf") + cbor2.dumps(GOOD)[1:] + b"\xff"),
        Malformed,
        "cbor.syntax",
    ),
    "alg twice in the protected header": (
        message(bytes.fromhex("a40126") + cbor2.dumps(GOOD)[1:]),
        Malformed,
        "cbor.syntax",
    ),
    "a label twice in the unprotected header": (raw("d284{h}a21880001880 00{p}{s}"), Malformed, "cbor.syntax"),
    "a header eleven deep": (
        message({**GOOD, CTY: [[[[[[[[[[[]]]]]]]]]]]}),
        Malformed,
        "cbor.syntax",
    ),
    "an unprotected header eleven deep": (message(outside={RECEIPTS: [[[[[[[[[[]]]]]]]]]]}), Malformed, "cbor.syntax"),
    "a CWT tag around": (cbor2.dumps(CBORTag(61, CBORTag(18, elements()))), Malformed, "cbor.tag"),
    "self-described": (bytes.fromhex("d9d9f7") + message(), Malformed, "cbor.tag"),
    "tag 98, COSE_Sign": (cbor2.dumps(CBORTag(98, elements())), Malformed, "cbor.tag"),
    "tag 17, COSE_Mac0": (cbor2.dumps(CBORTag(17, elements())), Malformed, "cbor.tag"),
    "tag 998": (cbor2.dumps(CBORTag(998, elements())), Malformed, "cbor.tag"),
    "a tagged payload": (raw("d284{h}a0d818{p}{s}"), Malformed, "cbor.tag"),
    "a bignum in the header": (message({**GOOD, CTY: 2**64}), Malformed, "cbor.tag"),
    "a float in the header": (message({**GOOD, CTY: 0.5}), Malformed, "cbor.type"),
    "an array as label": (message({**GOOD, (1, 2): 0}), Malformed, "cbor.key"),
    # (3) one encoding
    "a byte after the end": (message() + b"\0", Malformed, "cbor.not-deterministic"),
    "a second message after the end": (message() + message(), Malformed, "cbor.not-deterministic"),
    "a long tag": (raw("d81284{h}a0{p}{s}"), Malformed, "cbor.not-deterministic"),
    "a long array head": (raw("d29804{h}a0{p}{s}"), Malformed, "cbor.not-deterministic"),
    "a long unprotected header": (raw("d284{h}b800{p}{s}"), Malformed, "cbor.not-deterministic"),
    "protected labels out of order": (
        message({KID: KEY.kid, ALG: ES256, TYP: TYPE}),
        Malformed,
        "cbor.not-deterministic",
    ),
    "a long integer in the protected header": (
        message(bytes.fromhex("a3013806") + cbor2.dumps(GOOD)[3:]),
        Malformed,
        "cbor.not-deterministic",
    ),
    "a byte after the protected header": (message(cbor2.dumps(GOOD) + b"\0"), Malformed, "cbor.not-deterministic"),
    # (4) tag 18, four elements
    "no tag": (cbor2.dumps(elements()), Malformed, "cose.structure"),
    "tag 18 twice": (cbor2.dumps(CBORTag(18, CBORTag(18, elements()))), Malformed, "cose.structure"),
    "three elements": (cbor2.dumps(CBORTag(18, elements()[:3])), Malformed, "cose.structure"),
    "five elements": (cbor2.dumps(CBORTag(18, [*elements(), b""])), Malformed, "cose.structure"),
    "no elements": (cbor2.dumps(CBORTag(18, [])), Malformed, "cose.structure"),
    "a map instead": (cbor2.dumps(CBORTag(18, dict(enumerate(elements())))), Malformed, "cose.structure"),
    "a byte string instead": (cbor2.dumps(CBORTag(18, message())), Malformed, "cose.structure"),
    "the protected header as a map": (
        cbor2.dumps(CBORTag(18, [GOOD, *elements()[1:]])),
        Malformed,
        "cose.structure",
    ),
    "the unprotected header wrapped": (message(outside=cbor2.dumps({})), Malformed, "cose.structure"),
    "the unprotected header absent": (raw("d284{h}f6{p}{s}"), Malformed, "cose.structure"),
    "the payload as text": (message(payload="what is signed"), Malformed, "cose.structure"),
    "the payload as a map": (message(payload={1: 2}), Malformed, "cose.structure"),
    "the signature absent": (raw("d284{h}a0{p}f6"), Malformed, "cose.structure"),
    "the signature as [r, s]": (raw("d284{h}a0{p}82{s}{s}"), Malformed, "cose.structure"),
    # (5) protected header
    "an empty protected header": (message(b"", outside=GOOD), Malformed, "cose.header.missing"),
    "the protected header an array": (message(cbor2.dumps([ALG, ES256])), Malformed, "cose.header.form"),
    "the protected header wrapped twice": (message(cbor2.dumps(cbor2.dumps(GOOD))), Malformed, "cose.header.form"),
    "the protected header null": (message(b"\xf6"), Malformed, "cose.header.form"),
    "a text label": (message({**GOOD, "alg": ES256}), Malformed, "cose.header.form"),
    "a byte string label": (message({**GOOD, b"\1": ES256}), Malformed, "cose.header.form"),
    "a label that is not known": (message({**GOOD, 99: 0}), Malformed, "cose.header.label"),
    "a private label": (message({**GOOD, -70001: 0}), Malformed, "cose.header.label"),
    "a content type": (message({ALG: ES256, CTY: 0, KID: KEY.kid, TYP: TYPE}), Malformed, "cose.header.label"),
    "a certificate chain": (message({**GOOD, 33: [b"cert"]}), Malformed, "cose.header.label"),
    "crit where it is not allowed": (
        message({ALG: ES256, CRIT: [ALG], KID: KEY.kid, TYP: TYPE}),
        Malformed,
        "cose.header.label",
    ),
    # (6) no label twice
    "alg in both headers": (message(outside={ALG: ES256}), Malformed, "cose.header.twice"),
    "another alg unprotected": (message(outside={ALG: EDDSA}), Malformed, "cose.header.twice"),
    "kid in both headers": (message(outside={KID: OTHER.public.kid}), Malformed, "cose.header.twice"),
    "typ in both headers": (message(outside={TYP: TYPE}), Malformed, "cose.header.twice"),
    # (7) unprotected header
    "alg unprotected only": (message(without(ALG), {ALG: ES256}), Malformed, "cose.header.unprotected"),
    "kid unprotected only": (message(without(KID), {KID: KEY.kid}), Malformed, "cose.header.unprotected"),
    "typ unprotected only": (message(without(TYP), {TYP: TYPE}), Malformed, "cose.header.unprotected"),
    "a receipt where none belongs": (message(outside={RECEIPTS: [b""]}), Malformed, "cose.header.unprotected"),
    "a countersignature": (message(outside={11: b""}), Malformed, "cose.header.unprotected"),
    "a text label unprotected": (message(outside={"alg": ES256}), Malformed, "cose.header.form"),
    # (8) alg and kid
    "no alg": (message(without(ALG)), Malformed, "cose.header.missing"),
    "no kid": (message(without(KID)), Malformed, "cose.header.missing"),
    "alg as text": (message({ALG: "ES256", KID: KEY.kid, TYP: TYPE}), Malformed, "cose.header.missing"),
    "alg null": (message({ALG: None, KID: KEY.kid, TYP: TYPE}), Malformed, "cose.header.missing"),
    "alg true": (message({ALG: True, KID: KEY.kid, TYP: TYPE}), Malformed, "cose.header.missing"),
    "kid as text": (message({ALG: ES256, KID: KEY.kid.hex(), TYP: TYPE}), Malformed, "cose.header.missing"),
    "kid null": (message({ALG: ES256, KID: None, TYP: TYPE}), Malformed, "cose.header.missing"),
    "kid empty": (message({**GOOD, KID: b""}), Malformed, "cose.header.kid"),
    "kid shortened": (message({**GOOD, KID: KEY.kid[:16]}), Malformed, "cose.header.kid"),
    "kid longer than the log has room for": (message({**GOOD, KID: KEY.kid + b"\0"}), Malformed, "cose.header.kid"),
    # (9) typ
    "no typ": (message(without(TYP)), Malformed, "cose.typ"),
    "another typ": (message({**GOOD, TYP: "application/interlock-grant+cose"}), Malformed, "cose.typ"),
    "typ in other case": (message({**GOOD, TYP: TYPE.upper()}), Malformed, "cose.typ"),
    "typ with a parameter": (message({**GOOD, TYP: TYPE + "; v=1"}), Malformed, "cose.typ"),
    "typ as a number": (message({**GOOD, TYP: 18}), Malformed, "cose.typ"),
    "typ as bytes": (message({**GOOD, TYP: TYPE.encode()}), Malformed, "cose.typ"),
    # (10) payload
    "a detached payload": (message(payload=None), Malformed, "cose.payload"),
    # (12) algorithm from the key record
    "alg of another hash": (message({**GOOD, ALG: ES384}), Untrusted, "cose.alg"),
    "alg none": (message({**GOOD, ALG: 0}), Untrusted, "cose.alg"),
    "alg HMAC": (message({**GOOD, ALG: 5}), Untrusted, "cose.alg"),
    "alg fully specified ESP256": (message({**GOOD, ALG: -9}), Untrusted, "cose.alg"),
    "alg EdDSA signed by an Ed25519 key": (signed_by(EDWARDS, {**GOOD, ALG: EDDSA}), Untrusted, "cose.alg"),
    # (13) kid
    "kid of another key": (message({**GOOD, KID: OTHER.public.kid}), Untrusted, "cose.kid"),
    "kid of the signer, another key": (
        signed_by(OTHER, {**GOOD, KID: OTHER.public.kid}),
        Untrusted,
        "cose.kid",
    ),
    # (14) signature
    "signed by another key": (signed_by(OTHER, GOOD), Untrusted, "cose.signature"),
    "signed by a P-384 key": (signed_by(LARGE, GOOD), Untrusted, "cose.signature.form"),
    "signed by an Ed25519 key": (signed_by(EDWARDS, GOOD), Untrusted, "cose.signature"),
    "an empty signature": (with_signature(lambda _: b""), Untrusted, "cose.signature.form"),
    "a signature of 63 bytes": (with_signature(lambda value: value[:-1]), Untrusted, "cose.signature.form"),
    "a signature of 65 bytes": (with_signature(lambda value: value + b"\0"), Untrusted, "cose.signature.form"),
    "a DER signature": (with_signature(lambda value: b"\x30\x44\x02\x20" + value), Untrusted, "cose.signature.form"),
    "all zero": (with_signature(lambda _: bytes(64)), Untrusted, "cose.signature.form"),
    "r is zero": (with_signature(lambda value: bytes(32) + value[32:]), Untrusted, "cose.signature.form"),
    "s is zero": (with_signature(lambda value: value[:32] + bytes(32)), Untrusted, "cose.signature.form"),
    "r is n": (
        with_signature(lambda value: ORDER.to_bytes(32, "big") + value[32:]),
        Untrusted,
        "cose.signature.form",
    ),
    "s is n": (
        with_signature(lambda value: value[:32] + ORDER.to_bytes(32, "big")),
        Untrusted,
        "cose.signature.form",
    ),
    "r and s of all ones": (with_signature(lambda _: b"\xff" * 64), Untrusted, "cose.signature.form"),
    "r and s are 1": (with_signature(lambda _: (bytes(31) + b"\1") * 2), Untrusted, "cose.signature"),
    "r and s exchanged": (with_signature(lambda value: value[32:] + value[:32]), Untrusted, "cose.signature"),
    "little-endian": (with_signature(lambda value: value[31::-1] + value[:31:-1]), Untrusted, "cose.signature"),
    "shifted by a byte": (with_signature(shifted), Untrusted, "cose.signature"),
    "of another payload": (
        cbor2.dumps(CBORTag(18, [*elements()[:2], b"what is sold", elements()[3]])),
        Untrusted,
        "cose.signature",
    ),
    "with another context": (
        with_signature(lambda _: SIGNER.sign(cbor2.dumps(["Signature", cbor2.dumps(GOOD), b"", PAYLOAD]))),
        Untrusted,
        "cose.signature",
    ),
    "with external data": (
        with_signature(lambda _: SIGNER.sign(cbor2.dumps(["Signature1", cbor2.dumps(GOOD), b"x", PAYLOAD]))),
        Untrusted,
        "cose.signature",
    ),
    "of the payload alone": (with_signature(lambda _: SIGNER.sign(PAYLOAD)), Untrusted, "cose.signature"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(name: str) -> None:
    token, kind, reason = HOSTILE[name]
    with pytest.raises(kind) as caught:
        verify_sign1(token, KEY, typ=TYPE, max_size=400)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in HOSTILE.items() if kind is Malformed])
def test_a_wrong_form_is_refused_without_a_key(name: str) -> None:
    token, _, reason = HOSTILE[name]
    with pytest.raises(Malformed) as caught:
        read_sign1(token, typ=TYPE, max_size=400)
    assert caught.value.reason == reason


def test_the_message_without_a_defect_is_accepted() -> None:
    assert verify_sign1(message(), KEY, typ=TYPE, max_size=400).payload == PAYLOAD


# (11) crit, for a type whose allow-list has it
CRITICAL = {
    "empty": [],
    "not a list": ALG,
    "text": "alg",
    "null": None,
    "a label that is not there": [CTY],
    "a label that is not known": [99],
    "a text label": ["alg"],
    "one known, one not": [ALG, 99],
    "true for 1": [True],
}


@pytest.mark.parametrize("name", CRITICAL)
def test_crit_is_refused(name: str) -> None:
    token = message({ALG: ES256, CRIT: CRITICAL[name], KID: KEY.kid, TYP: TYPE})
    with pytest.raises(Malformed) as caught:
        verify_sign1(token, KEY, typ=TYPE, max_size=400, protected=frozenset({CRIT}))
    assert caught.value.reason == "cose.crit"


def test_crit_that_is_understood_is_accepted() -> None:
    token = message({ALG: ES256, CRIT: [ALG, TYP], KID: KEY.kid, TYP: TYPE})
    assert verify_sign1(token, KEY, typ=TYPE, max_size=400, protected=frozenset({CRIT})).payload == PAYLOAD


def test_a_text_label_unprotected_is_refused_even_where_labels_are_allowed() -> None:
    token = message(outside={RECEIPTS: [b""], "x": 0})
    with pytest.raises(Malformed) as caught:
        verify_sign1(token, KEY, typ=TYPE, max_size=400, unprotected=frozenset({RECEIPTS}))
    assert caught.value.reason == "cose.header.form"
