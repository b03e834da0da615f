"""COSE_Sign1: what is written is read, by this reader and by pycose; what pycose writes strictly is read here."""

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycose import headers
from pycose.algorithms import EdDSA, Es256, Es384
from pycose.keys.ec2 import EC2Key
from pycose.keys.okp import OKPKey
from pycose.messages.sign1message import Sign1Message

from attestation import cose
from attestation.cose import (
    ALG,
    EDDSA,
    ES256,
    ES384,
    KID,
    RECEIPTS,
    TYP,
    VDP,
    VDS,
    Sign1,
    SoftwareSigner,
    UntrustedSign1,
    read_sign1,
    sign1,
    verify_sign1,
)
from attestation.errors import InterlockError, Malformed, Untrusted

TYPE = "application/interlock-test+cose"
ALGORITHMS = [ES256, ES384, EDDSA]
SIGNERS = {alg: SoftwareSigner.generate(alg) for alg in ALGORITHMS}
SIZE = 10_000


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_what_is_signed_is_verified(alg: int) -> None:
    signer = SIGNERS[alg]
    token = sign1(signer, typ=TYPE, payload=b"payload")
    verified = verify_sign1(token, signer.public, typ=TYPE, max_size=SIZE)
    header: dict[int, Any] = {ALG: alg, KID: signer.public.kid, TYP: TYPE}
    assert verified == Sign1(token, header, {}, b"payload", signer.public.kid)


def test_the_bytes_are_those_of_rfc_9052() -> None:
    """Written out by hand: tag 18, [bstr header, {}, bstr payload, bstr signature]."""
    signer = SIGNERS[ES256]
    token = sign1(signer, typ="a/b", payload=b"hi")
    header = bytes.fromhex("a3" + "0126" + "045820") + signer.public.kid + bytes.fromhex("10" + "63") + b"a/b"
    assert token[:-64] == bytes.fromhex("d284" + f"58{len(header):02x}") + header + bytes.fromhex(
        "a0" + "42"
    ) + b"hi" + bytes.fromhex("5840")
    signed = (
        bytes.fromhex("84" + "6a")
        + b"Signature1"
        + bytes.fromhex(f"58{len(header):02x}")
        + header
        + bytes.fromhex("40" + "42")
        + b"hi"
    )
    signer.public.verify(signed, token[-64:])


def test_unverified_is_another_type_and_says_so() -> None:
    signer = SIGNERS[ES256]
    token = sign1(signer, typ=TYPE, payload=b"payload")
    unverified = read_sign1(token, typ=TYPE, max_size=SIZE)
    assert type(unverified) is UntrustedSign1
    assert not isinstance(unverified, Sign1)
    assert (unverified.kid, unverified.unverified_payload) == (signer.public.kid, b"payload")
    assert unverified.verify(signer.public) == verify_sign1(token, signer.public, typ=TYPE, max_size=SIZE)


def test_an_empty_payload_is_attached() -> None:
    token = sign1(SIGNERS[ES256], typ=TYPE, payload=b"")
    assert verify_sign1(token, SIGNERS[ES256].public, typ=TYPE, max_size=SIZE).payload == b""


def test_a_detached_payload() -> None:
    signer = SIGNERS[EDDSA]
    root = bytes(32)
    token = sign1(
        signer,
        typ=TYPE,
        payload=root,
        protected={VDS: 1},
        unprotected={VDP: {-1: [b"proof"]}},
        detached=True,
    )
    allowed: Any = {"typ": TYPE, "max_size": SIZE, "protected": frozenset({VDS}), "unprotected": frozenset({VDP})}
    verified = verify_sign1(token, signer.public, payload=root, **allowed)
    assert (verified.payload, verified.protected[VDS], verified.unprotected) == (root, 1, {VDP: {-1: [b"proof"]}})
    assert read_sign1(token, detached=True, **allowed).unverified_payload is None
    with pytest.raises(Untrusted, match=r"cose\.signature"):
        verify_sign1(token, signer.public, payload=b"\1" * 32, **allowed)
    with pytest.raises(Untrusted, match=r"cose\.signature"):
        verify_sign1(token, signer.public, payload=b"", **allowed)
    with pytest.raises(Malformed, match=r"cose\.payload"):
        read_sign1(token, **allowed)
    with pytest.raises(Malformed, match=r"cose\.payload"):
        verify_sign1(token, signer.public, **allowed)


def test_an_attached_payload_where_a_detached_one_is_expected() -> None:
    token = sign1(SIGNERS[ES256], typ=TYPE, payload=b"payload")
    with pytest.raises(Malformed, match=r"cose\.payload"):
        verify_sign1(token, SIGNERS[ES256].public, typ=TYPE, max_size=SIZE, payload=b"payload")


def test_exactly_one_payload_is_verified() -> None:
    """To call `verify` with the wrong payload is a bug of ours, never a way to pass."""
    key = SIGNERS[ES256].public
    attached = sign1(SIGNERS[ES256], typ=TYPE, payload=b"payload")
    detached = sign1(SIGNERS[ES256], typ=TYPE, payload=b"payload", detached=True)
    with pytest.raises(ValueError, match="exactly one payload"):
        read_sign1(attached, typ=TYPE, max_size=SIZE).verify(key, b"payload")
    with pytest.raises(ValueError, match="exactly one payload"):
        read_sign1(detached, typ=TYPE, max_size=SIZE, detached=True).verify(key)


def test_headers_pass_where_the_type_allows_them() -> None:
    signer = SIGNERS[ES256]
    token = sign1(signer, typ=TYPE, payload=b"", protected={15: {1: "iss"}}, unprotected={RECEIPTS: [b"receipt"]})
    verified = verify_sign1(
        token, signer.public, typ=TYPE, max_size=SIZE, protected=frozenset({15}), unprotected=frozenset({RECEIPTS})
    )
    assert (verified.protected[15], verified.unprotected) == ({1: "iss"}, {RECEIPTS: [b"receipt"]})
    with pytest.raises(Malformed, match=r"cose\.header\.label"):
        verify_sign1(token, signer.public, typ=TYPE, max_size=SIZE, unprotected=frozenset({RECEIPTS}))
    with pytest.raises(Malformed, match=r"cose\.header\.unprotected"):
        verify_sign1(token, signer.public, typ=TYPE, max_size=SIZE, protected=frozenset({15}))


def test_the_unprotected_header_is_not_signed() -> None:
    """A receipt is added after signing: it may change, and nothing else may rest on it."""
    signer = SIGNERS[ES256]
    token = sign1(signer, typ=TYPE, payload=b"", unprotected={RECEIPTS: [b"one"]})
    changed = token.replace(b"\x43one", b"\x43two")
    verified = verify_sign1(changed, signer.public, typ=TYPE, max_size=SIZE, unprotected=frozenset({RECEIPTS}))
    assert verified.unprotected == {RECEIPTS: [b"two"]}


@pytest.mark.parametrize(
    ("protected", "unprotected"),
    [({ALG: 0}, {}), ({KID: b""}, {}), ({TYP: "x"}, {}), ({}, {ALG: 0}), ({}, {KID: b""}), ({5: 0}, {5: 0})],
)
def test_the_writer_writes_no_label_twice(protected: Any, unprotected: Any) -> None:
    with pytest.raises(ValueError, match="given twice"):
        sign1(SIGNERS[ES256], typ=TYPE, payload=b"", protected=protected, unprotected=unprotected)


def test_a_token_is_no_identity() -> None:
    """Two tokens of one payload differ (ECDSA draws randomness), and so does a malleated one that still verifies."""
    signer = SIGNERS[ES256]
    first, second = (sign1(signer, typ=TYPE, payload=b"payload") for _ in range(2))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    third = first[:-32] + (order - int.from_bytes(first[-32:], "big")).to_bytes(32, "big")
    assert len({first, second, third}) == 3
    read = [verify_sign1(token, signer.public, typ=TYPE, max_size=SIZE) for token in (first, second, third)]
    assert len({(sign.payload, sign.kid) for sign in read}) == 1


def test_every_name_of_the_module_is_importable_from_it() -> None:
    assert all(hasattr(cose, name) for name in cose.__all__)


@settings(max_examples=50)
@given(
    st.sampled_from(ALGORITHMS),
    st.text(min_size=1, max_size=40),
    st.binary(max_size=300),
    st.dictionaries(st.integers(17, 2**32), st.binary(max_size=20), max_size=4),
    st.booleans(),
)
def test_round_trip(alg: int, typ: str, payload: bytes, more: dict[int, Any], detached: bool) -> None:
    signer = SIGNERS[alg]
    token = sign1(signer, typ=typ, payload=payload, protected=more, detached=detached)
    verified = verify_sign1(
        token,
        signer.public,
        typ=typ,
        max_size=len(token),
        protected=frozenset(more),
        payload=payload if detached else None,
    )
    assert verified.payload == payload
    assert verified.protected == {ALG: alg, KID: signer.public.kid, TYP: typ, **more}


MUTATED = {alg: sign1(SIGNERS[alg], typ=TYPE, payload=b"what is signed") for alg in ALGORITHMS}


@settings(max_examples=100)
@given(st.sampled_from(ALGORITHMS), st.data())
def test_a_changed_byte_never_verifies(alg: int, data: st.DataObject) -> None:
    token = bytearray(MUTATED[alg])
    token[data.draw(st.integers(0, len(token) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InterlockError):
        verify_sign1(bytes(token), SIGNERS[alg].public, typ=TYPE, max_size=SIZE)


def test_no_single_bit_can_be_changed() -> None:
    token = MUTATED[EDDSA]
    for place in range(len(token)):
        for bit in range(8):
            changed = token[:place] + bytes([token[place] ^ 1 << bit]) + token[place + 1 :]
            with pytest.raises(InterlockError):
                verify_sign1(changed, SIGNERS[EDDSA].public, typ=TYPE, max_size=SIZE)


def test_no_byte_can_be_left_out_or_doubled() -> None:
    token = MUTATED[ES256]
    for place in range(len(token)):
        for changed in (token[:place] + token[place + 1 :], token[:place] + token[place : place + 1] + token[place:]):
            if changed != token:
                with pytest.raises(InterlockError):
                    verify_sign1(changed, SIGNERS[ES256].public, typ=TYPE, max_size=SIZE)


# --- pycose as the other implementation -------------------------------------------------------------------------

PYCOSE_ALGORITHMS = {ES256: Es256, ES384: Es384, EDDSA: EdDSA}


def pycose_key(alg: int) -> Any:
    """The private key of a signer as pycose's key object."""
    private: Any = SIGNERS[alg]._private_key
    public: dict[int, Any] = dict(SIGNERS[alg].public.to_cose_key())
    if alg == EDDSA:
        return OKPKey(crv="ED25519", x=public[-2], d=private.private_bytes_raw())
    d = private.private_numbers().private_value.to_bytes({ES256: 32, ES384: 48}[alg], "big")
    return EC2Key(crv={ES256: "P_256", ES384: "P_384"}[alg], x=public[-2], y=public[-3], d=d)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_pycose_verifies_what_is_signed_here(alg: int) -> None:
    """pycose's `decode` does not work with cbor2 6 (tagged arrays are tuples there), so its parts are given to it."""
    protected, unprotected, payload, signature = cbor2.loads(sign1(SIGNERS[alg], typ=TYPE, payload=b"payload")).value
    message = Sign1Message.from_cose_obj(
        [protected, dict(unprotected), payload, signature], allow_unknown_attributes=True
    )
    message.key = pycose_key(alg)
    assert message.verify_signature()
    message.payload = b"another"
    assert not message.verify_signature()


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_what_pycose_signs_is_verified_here(alg: int) -> None:
    """pycose keeps the order in which its headers were given: this is the one order."""
    kid = SIGNERS[alg].public.kid
    message = Sign1Message(
        phdr={headers.Algorithm: PYCOSE_ALGORITHMS[alg], headers.KID: kid, TYP: TYPE},
        payload=b"payload",
        key=pycose_key(alg),
    )
    verified = verify_sign1(message.encode(), SIGNERS[alg].public, typ=TYPE, max_size=SIZE)
    assert (verified.payload, verified.kid) == (b"payload", kid)


def test_what_pycose_writes_in_another_order_is_refused() -> None:
    kid = SIGNERS[ES256].public.kid
    message = Sign1Message(
        phdr={headers.KID: kid, headers.Algorithm: Es256, TYP: TYPE}, payload=b"", key=pycose_key(ES256)
    )
    with pytest.raises(Malformed, match=r"cbor\.not-deterministic"):
        verify_sign1(message.encode(), SIGNERS[ES256].public, typ=TYPE, max_size=SIZE)
