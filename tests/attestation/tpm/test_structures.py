"""Every TPM structure has one encoding: what parses writes itself back, and nothing but a refusal escapes."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InterlockError, Untrusted
from attestation.tpm.attest import Attest, CertifyInfo, CreationInfo, Info, PcrSelection, QuoteInfo
from attestation.tpm.clock import CLOCK_MAX, ClockInfo
from attestation.tpm.creation import CreationData
from attestation.tpm.quote import CODES
from attestation.tpm.structures import (
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_ECDSA,
    ALG_NULL,
    ALG_RSA,
    ALG_RSASSA,
    ALG_SHA256,
    EccParameters,
    Public,
    RsaParameters,
    Scheme,
    Signature,
    Symmetric,
    verify_signature,
)
from fixtures.attester import build_attest, sign

short = st.binary(max_size=70)
word = st.integers(0, 0xFFFF)
wide = st.integers(0, 0xFFFFFFFF)
clocks = st.builds(ClockInfo, st.integers(0, CLOCK_MAX), wide, wide, st.booleans())
selections = st.builds(PcrSelection, word, st.binary(max_size=5))
infos = st.one_of(
    st.builds(QuoteInfo, st.lists(selections, max_size=16).map(tuple), short),
    st.builds(CertifyInfo, short, short),
    st.builds(CreationInfo, short, short),
)
schemes = st.one_of(st.just(Scheme()), st.builds(Scheme, word.filter(lambda alg: alg != ALG_NULL), word))
symmetrics = st.one_of(st.just(Symmetric()), st.builds(Symmetric, st.just(ALG_AES), word, st.just(ALG_CFB)))
eccs = st.builds(EccParameters, symmetrics, schemes, word, schemes, short, short)
rsas = st.builds(RsaParameters, symmetrics, schemes, word, wide, short)
publics = st.one_of(
    st.builds(Public, st.just(ALG_ECC), word, wide, short, eccs),
    st.builds(Public, st.just(ALG_RSA), word, wide, short, rsas),
)
signatures = st.one_of(
    st.builds(Signature, st.just(ALG_ECDSA), word, st.tuples(short, short)),
    st.builds(Signature, st.just(ALG_RSASSA), word, st.tuples(short)),
)


@given(infos, short, short, clocks, st.integers(0, 2**64 - 1))
def test_an_attestation_writes_itself_back(
    info: QuoteInfo | CertifyInfo | CreationInfo, signer: bytes, extra: bytes, clock: ClockInfo, firmware: int
) -> None:
    written = build_attest(
        kind=info.TYPE, signer=signer, extra=extra, clock=clock, firmware=firmware, body=info.to_bytes()
    )
    kind: type[Info] = type(info)
    attest = Attest.from_bytes(written, kind, CODES)
    assert attest.raw == attest.to_bytes() == written
    assert (attest.info, attest.qualified_signer, attest.extra_data) == (info, signer, extra)
    assert (attest.clock, attest.firmware) == (clock, firmware)


@given(publics)
def test_a_public_area_writes_itself_back(public: Public) -> None:
    assert Public.from_bytes(public.to_bytes()) == public


@given(signatures)
def test_a_signature_writes_itself_back(signature: Signature) -> None:
    assert Signature.from_bytes(signature.to_bytes(), CODES) == signature


ATTEST = build_attest(body=QuoteInfo((PcrSelection.of(11, (0, 7)),), bytes(32)).to_bytes(), signer=bytes(34))
ECC = Public(ALG_ECC, 11, 0x50472, b"", EccParameters(Symmetric(), Scheme(0x18, 11), 3, Scheme(), bytes(32), bytes(32)))
SAMPLES: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "attest": (ATTEST, lambda data: Attest.from_bytes(data, QuoteInfo, CODES).to_bytes()),
    "creation": (
        CreationData((PcrSelection.of(11, (0, 7)),), bytes(32), 1, 0x10, bytes(4), bytes(4), b"").to_bytes(),
        lambda data: CreationData.from_bytes(data).to_bytes(),
    ),
    "public": (ECC.to_bytes(), lambda data: Public.from_bytes(data).to_bytes()),
    "signature": (
        Signature(ALG_ECDSA, 11, (bytes(32), bytes(32))).to_bytes(),
        lambda data: Signature.from_bytes(data, CODES).to_bytes(),
    ),
}


def test_sixteen_selections_are_as_many_as_there_may_be() -> None:
    info = QuoteInfo((PcrSelection.of(11, (0,)),) * 16, bytes(32))
    assert Attest.from_bytes(build_attest(body=info.to_bytes()), QuoteInfo, CODES).info == info


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_a_changed_structure_is_refused_or_writes_itself_back(name: str, data: st.DataObject) -> None:
    sample, again = SAMPLES[name]
    at = data.draw(st.integers(0, len(sample)))
    changed = sample[:at] + data.draw(st.binary(max_size=3)) + sample[at + data.draw(st.integers(0, 3)) :]
    try:
        written = again(changed)
    except InterlockError:
        return
    assert written == changed


@pytest.mark.parametrize(
    ("bitmap", "pcrs"),
    [
        (b"", ()),
        (b"\0\0\0", ()),
        (b"\x01\0\0", (0,)),
        (b"\0\x80\x01", (15, 16)),
        (b"\0\0\x80", (23,)),
        (b"\0\0\0\1", (24,)),
    ],
)
def test_a_bitmap_names_its_pcrs(bitmap: bytes, pcrs: tuple[int, ...]) -> None:
    assert PcrSelection(11, bitmap).pcrs == pcrs


@pytest.mark.parametrize("kind", ["ecdsa", "rsassa"])
def test_a_signature_is_by_its_key_over_its_bytes(kind: str) -> None:
    make = (lambda: rsa.generate_private_key(65537, 2048)) if kind == "rsassa" else _p256
    key, other = make(), make()
    scheme = Scheme(ALG_RSASSA if kind == "rsassa" else ALG_ECDSA, ALG_SHA256)
    signature = Signature.from_bytes(sign(key, b"message"), CODES)
    verify_signature(key.public_key(), scheme, signature, b"message", CODES)
    for wrong, message in ((other, b"message"), (key, b"massage")):
        with pytest.raises(Untrusted, match=CODES.signature):
            verify_signature(wrong.public_key(), scheme, signature, message, CODES)


def _p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
