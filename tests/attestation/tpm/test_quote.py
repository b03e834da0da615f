"""verify_quote: rows 1 to 11 and 15 to 17 of the refusal matrix, each as named bad inputs."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.node import ClockRecord
from attestation.tpm.attest import Attest, CertifyInfo, CreationInfo, PcrSelection, QuoteInfo
from attestation.tpm.clock import ClockInfo
from attestation.tpm.quote import CODES
from attestation.tpm.structures import (
    ALG_ECDSA,
    ALG_RSAPSS,
    ALG_RSASSA,
    ALG_SHA1,
    ALG_SHA256,
    ALG_SHA384,
    ALG_SM3,
    RH_OWNER,
    ST_CERTIFY,
    ST_CREATION,
    Signature,
    digest,
    sized,
)
from fixtures.attester import FIRMWARE, SoftTpm, build_attest, sign
from tests.attestation.tpm.stand import CA, NONCE, PCRS, TPM, VALUES, ak, check, quote_body

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
GOOD = TPM.signed(extra=NONCE, body=quote_body(), clock=ClockInfo(5, 1, 0, True))
R, S = Signature.from_bytes(GOOD.signature, CODES).values
OTHER = SoftTpm(CA)


def signature(scheme: int = ALG_ECDSA, alg: int = ALG_SHA256, *values: bytes) -> bytes:
    return Signature(scheme, alg, values).to_bytes()


def ecdsa(r: int, s: int) -> bytes:
    return signature(ALG_ECDSA, ALG_SHA256, r.to_bytes(40, "big"), s.to_bytes(40, "big"))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_good_quote_is_believed() -> None:
    quote = check(*GOOD)
    assert (quote.attest, quote.signature) == (GOOD.attest, GOOD.signature)
    assert (quote.ak_name, quote.qualifying, quote.bank) == (TPM.ak.name, NONCE, ALG_SHA256)
    assert quote.pcrs == VALUES
    assert (quote.clock, quote.firmware) == (ClockInfo(5, 1, 0, True), FIRMWARE)


def test_a_quote_over_the_sha384_bank_is_hashed_with_the_signing_hash() -> None:
    TPM.pcrs[ALG_SHA384][7] = b"\x07" * 48
    quote = check(*TPM.quote(NONCE, ALG_SHA384, [7]), bank=ALG_SHA384, pcrs=[7], values={7: b"\x07" * 48})
    assert quote.pcrs == {7: b"\x07" * 48}


# row 1 (and 17: r or s out of range)
BAD_SIGNATURES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "tpm.signature.truncated"),
    "zero bytes": (bytes(72), "tpm.quote.scheme"),
    "cut short": (GOOD.signature[:-1], "tpm.signature.truncated"),
    "one byte more": (GOOD.signature + b"\0", "tpm.signature.trailing"),
    "no integers": (signature(ALG_ECDSA, ALG_SHA256, b"", b""), "tpm.quote.signature"),
    "r is 0": (ecdsa(0, int.from_bytes(S, "big")), "tpm.quote.signature"),
    "s is 0": (ecdsa(int.from_bytes(R, "big"), 0), "tpm.quote.signature"),
    "r and s are 0": (ecdsa(0, 0), "tpm.quote.signature"),
    "r is the order": (ecdsa(ORDER, int.from_bytes(S, "big")), "tpm.quote.signature"),
    "s is the order": (ecdsa(int.from_bytes(R, "big"), ORDER), "tpm.quote.signature"),
    "r plus the order": (ecdsa(int.from_bytes(R, "big") + ORDER, int.from_bytes(S, "big")), "tpm.quote.signature"),
    "r and s exchanged": (signature(ALG_ECDSA, ALG_SHA256, S, R), "tpm.quote.signature"),
    "flipped": (flipped(GOOD.signature, -1 + len(GOOD.signature)), "tpm.quote.signature"),
    "another key": (sign(OTHER.ak_key, GOOD.attest), "tpm.quote.signature"),
    "another curve": (sign(ec.generate_private_key(ec.SECP384R1()), GOOD.attest), "tpm.quote.signature"),
    "over other bytes": (sign(TPM.ak_key, GOOD.attest + b"\0"), "tpm.quote.signature"),
    "scheme NULL": (b"\x00\x10", "tpm.quote.scheme"),
    "scheme RSASSA": (signature(ALG_RSASSA, ALG_SHA256, R + S), "tpm.quote.scheme"),
    "scheme RSAPSS": (signature(ALG_RSAPSS, ALG_SHA256, R), "tpm.quote.scheme"),
    "scheme HMAC": (b"\x00\x05\x00\x0b" + bytes(32), "tpm.quote.scheme"),
    "hash SHA-1": (signature(ALG_ECDSA, ALG_SHA1, R, S), "tpm.quote.scheme"),
    "hash SHA-384": (signature(ALG_ECDSA, ALG_SHA384, R, S), "tpm.quote.scheme"),
    "hash unknown": (signature(ALG_ECDSA, 0xFFFF, R, S), "tpm.quote.scheme"),
}


@pytest.mark.parametrize("name", BAD_SIGNATURES)
def test_row_1_signature(name: str) -> None:
    bad, reason = BAD_SIGNATURES[name]
    with pytest.raises(InterlockError) as refusal:
        check(GOOD.attest, bad)
    assert refusal.value.reason == reason


def test_row_1_a_refusal_with_empty_text_is_still_a_refusal() -> None:
    """CVE-2023-3674: an exception whose text was empty counted as success."""
    with pytest.raises(Untrusted) as refusal:
        raise Untrusted("tpm.quote.signature")
    assert str(refusal.value) == "tpm.quote.signature"


def bodies(kind: int) -> bytes:
    name = TPM.ak.name
    return {ST_CERTIFY: CertifyInfo(name, name).to_bytes(), ST_CREATION: CreationInfo(name, bytes(32)).to_bytes()}[kind]


def truncated() -> bytes:
    return GOOD.attest[:-1]


# rows 2 to 11, 15, 16: everything here is signed by the right key
SIGNED: dict[str, tuple[dict[str, Any], str]] = {
    # row 2
    "magic 0": ({"magic": 0, "body": quote_body()}, "tpm.quote.magic"),
    "magic off by one": ({"magic": 0xFF544346, "body": quote_body()}, "tpm.quote.magic"),
    "magic byte-swapped": ({"magic": 0x474354FF, "body": quote_body()}, "tpm.quote.magic"),
    # row 3
    "a certification": ({"kind": ST_CERTIFY, "body": bodies(ST_CERTIFY)}, "tpm.quote.type"),
    "a creation": ({"kind": ST_CREATION, "body": bodies(ST_CREATION)}, "tpm.quote.type"),
    "time": ({"kind": 0x8019, "body": bytes(25)}, "tpm.quote.type"),
    "NV": ({"kind": 0x8014, "body": quote_body()}, "tpm.quote.type"),
    "session audit": ({"kind": 0x8016, "body": quote_body()}, "tpm.quote.type"),
    "a certification called a quote": ({"body": bodies(ST_CERTIFY)}, "tpm.attest.value"),
    # row 4
    "a subset": ({"body": quote_body(pcrs=(0, 1))}, "tpm.pcr.selection"),
    "a superset": ({"body": quote_body(pcrs=(*PCRS, 8), values={**VALUES, 8: bytes(32)})}, "tpm.pcr.selection"),
    "another index": (
        {"body": quote_body(pcrs=(0, 1, 2, 3), values=dict.fromkeys(range(8), b""))},
        "tpm.pcr.selection",
    ),
    # row 5
    "no selection": ({"body": (0).to_bytes(4, "big") + sized(bytes(32))}, "tpm.pcr.empty"),
    "an empty bitmap": (
        {"body": quote_body(selections=(PcrSelection(ALG_SHA256, bytes(3)),))},
        "tpm.pcr.empty",
    ),
    "no octets": ({"body": quote_body(selections=(PcrSelection(ALG_SHA256, b""),))}, "tpm.pcr.empty"),
    # row 6
    "one bank twice": (
        {"body": quote_body(selections=(PcrSelection.of(ALG_SHA256, PCRS),) * 2)},
        "tpm.pcr.selection",
    ),
    "one bank in two parts": (
        {"body": quote_body(selections=(PcrSelection.of(ALG_SHA256, (0, 1)), PcrSelection.of(ALG_SHA256, (2, 7))))},
        "tpm.pcr.selection",
    ),
    "sizeofSelect 1": (
        {"body": quote_body(selections=(PcrSelection(ALG_SHA256, b"\x87"),))},
        "tpm.pcr.selection",
    ),
    "sizeofSelect 4": (
        {"body": quote_body(selections=(PcrSelection(ALG_SHA256, b"\x87\0\0\0"),))},
        "tpm.pcr.selection",
    ),
    "PCR 24": (
        {"body": quote_body(selections=(PcrSelection(ALG_SHA256, b"\x87\0\0\1"),))},
        "tpm.pcr.selection",
    ),
    "17 selections": (
        {"body": quote_body(selections=(PcrSelection.of(ALG_SHA256, PCRS),) * 17)},
        "tpm.attest.value",
    ),
    # row 8
    "the sha1 bank": ({"body": quote_body(bank=ALG_SHA1)}, "tpm.pcr.bank"),
    "the sha384 bank": ({"body": quote_body(bank=ALG_SHA384)}, "tpm.pcr.bank"),
    "the SM3 bank": ({"body": quote_body(bank=ALG_SM3)}, "tpm.pcr.bank"),
    "mixed banks": (
        {"body": quote_body(selections=(PcrSelection.of(ALG_SHA256, PCRS), PcrSelection.of(ALG_SHA1, PCRS)))},
        "tpm.pcr.selection",
    ),
    # row 9
    "digest by another hash": (
        {"body": quote_body(pcr_digest=digest(ALG_SHA384, b"".join(VALUES.values())))},
        "tpm.pcr.digest",
    ),
    "no digest": ({"body": quote_body(pcr_digest=b"")}, "tpm.pcr.digest"),
    "digest cut short": (
        {"body": quote_body(pcr_digest=digest(ALG_SHA256, b"".join(VALUES.values()))[:20])},
        "tpm.pcr.digest",
    ),
    "digest of other values": ({"body": quote_body(values=dict.fromkeys(PCRS, bytes(32)))}, "tpm.pcr.digest"),
    # row 11
    "nonce missing": ({"extra": b"", "body": quote_body()}, "tpm.quote.nonce"),
    "another nonce": ({"extra": bytes(32), "body": quote_body()}, "tpm.quote.nonce"),
    "a prefix of the nonce": ({"extra": NONCE[:31], "body": quote_body()}, "tpm.quote.nonce"),
    "the nonce and more": ({"extra": NONCE + b"\0", "body": quote_body()}, "tpm.quote.nonce"),
    "the nonce in hex": ({"extra": NONCE.hex().encode(), "body": quote_body()}, "tpm.quote.nonce"),
    # row 15
    "no signer": ({"signer": b"", "body": quote_body()}, "tpm.quote.signer"),
    "signer is the Name": ({"signer": TPM.ak.name, "body": quote_body()}, "tpm.quote.signer"),
    "AK of the owner hierarchy": (
        {"signer": TPM.ak.qualified_name(RH_OWNER), "body": quote_body()},
        "tpm.quote.signer",
    ),
    "another AK": ({"signer": OTHER.ak.qualified_name(), "body": quote_body()}, "tpm.quote.signer"),
    # row 16
    "a byte after the quote": ({"body": quote_body() + b"\0"}, "tpm.attest.trailing"),
    "the quote cut short": ({"body": quote_body()[:-1]}, "tpm.attest.truncated"),
    "no body": ({"body": b""}, "tpm.attest.truncated"),
    "a length beyond the end": (
        {"body": quote_body()[:-34] + b"\xff\xff" + bytes(32)},
        "tpm.attest.truncated",
    ),
}


@pytest.mark.parametrize("name", SIGNED)
def test_rows_2_to_16_signed_by_the_right_key(name: str) -> None:
    parts, reason = SIGNED[name]
    with pytest.raises(InterlockError) as refusal:
        check(*TPM.signed(**{"extra": NONCE, **parts}))
    assert refusal.value.reason == reason


@pytest.mark.parametrize("size", range(len(GOOD.attest)))
def test_row_16_every_truncation_is_malformed(size: int) -> None:
    with pytest.raises(Malformed) as refusal:
        check(GOOD.attest[:size], GOOD.signature)
    assert refusal.value.reason == "tpm.attest.truncated"


@pytest.mark.parametrize("clock", [2**63, 2**64 - 1])
def test_a_clock_that_nothing_can_keep_is_malformed(clock: int) -> None:
    quote = build_attest(clock=ClockInfo(clock, 1, 0, True))
    with pytest.raises(Malformed, match=r"tpm\.attest\.value: a clock of"):
        Attest.from_bytes(quote, QuoteInfo, CODES)


def test_the_highest_clock_that_can_be_kept_is_read() -> None:
    info = ClockInfo(2**63 - 1, 1, 0, True)
    body = QuoteInfo((), b"").to_bytes()
    assert Attest.from_bytes(build_attest(clock=info, body=body), QuoteInfo, CODES).clock == info
    record = ClockRecord(clock=info.clock, resets=1, restarts=0, safe=True)
    assert ClockRecord.from_bytes(record.to_bytes()) == record


def test_a_safe_flag_that_is_neither_yes_nor_no_is_malformed() -> None:
    attest = build_attest(extra=NONCE, signer=TPM.ak.qualified_name(), body=quote_body())
    at = len(attest) - len(quote_body()) - 9
    attest = attest[:at] + b"\x02" + attest[at + 1 :]
    with pytest.raises(Malformed) as refusal:
        check(attest, sign(TPM.ak_key, attest))
    assert refusal.value.reason == "tpm.attest.value"


# what is asked for, rows 4 to 10
ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"pcrs": (), "values": {}}, "tpm.pcr.empty"),  # row 5
    "another order": ({"pcrs": (7, 2, 1, 0)}, "tpm.pcr.selection"),  # row 4
    "one twice": ({"pcrs": (0, 0, 1, 2, 7)}, "tpm.pcr.selection"),
    "more than was quoted": ({"pcrs": (*PCRS, 8), "values": {**VALUES, 8: bytes(32)}}, "tpm.pcr.selection"),
    "a value that is not covered": ({"values": {**VALUES, 8: bytes(32)}}, "tpm.pcr.uncovered"),  # row 7
    "a value that is missing": ({"values": {pcr: VALUES[pcr] for pcr in PCRS[:-1]}}, "tpm.pcr.uncovered"),
    "a value under another index": (
        {"values": {3: VALUES[0]} | {pcr: VALUES[pcr] for pcr in PCRS[1:]}},
        "tpm.pcr.uncovered",
    ),
    "the sha1 bank": ({"bank": ALG_SHA1}, "tpm.pcr.bank"),  # row 8
    "the sha384 bank": ({"bank": ALG_SHA384}, "tpm.pcr.bank"),
    "two values exchanged": ({"values": {**VALUES, 0: VALUES[1], 1: VALUES[0]}}, "tpm.pcr.digest"),  # row 9
    "bytes moved to the neighbour": (
        {"values": {**VALUES, 0: VALUES[0] + VALUES[1][:1], 1: VALUES[1][1:]}},
        "tpm.pcr.digest",
    ),
    "one value": ({"values": {**VALUES, 7: bytes(32)}}, "tpm.pcr.digest"),
}


@pytest.mark.parametrize("name", ASKED)
def test_rows_4_to_9_what_was_asked_and_what_was_claimed(name: str) -> None:
    parts, reason = ASKED[name]
    with pytest.raises(InterlockError) as refusal:
        check(*GOOD, **parts)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("pcr", range(16, 24))
def test_row_10_a_resettable_pcr_proves_nothing(pcr: int) -> None:
    pcrs = (0, pcr)
    values = dict(TPM.read_pcrs(ALG_SHA256, pcrs))
    with pytest.raises(Untrusted) as refusal:
        check(*TPM.quote(NONCE, ALG_SHA256, pcrs), pcrs=pcrs, values=values)
    assert refusal.value.reason == "tpm.pcr.resettable"


@pytest.mark.parametrize("bank", [ALG_SHA1, ALG_SM3])
def test_row_8_a_weak_bank_is_refused_even_where_it_was_asked_for(bank: int) -> None:
    with pytest.raises(Untrusted) as refusal:
        check(*TPM.signed(extra=NONCE, body=quote_body(bank=bank)), bank=bank)
    assert refusal.value.reason == "tpm.pcr.bank"


def test_pcr_15_is_the_last_one_that_proves_something() -> None:
    pcrs = tuple(range(16))
    values = dict(TPM.read_pcrs(ALG_SHA256, pcrs))
    assert check(*TPM.quote(NONCE, ALG_SHA256, pcrs), pcrs=pcrs, values=values).pcrs == values


def test_row_12_a_quote_of_another_genuine_tpm_is_refused() -> None:
    for pcr, value in VALUES.items():
        OTHER.pcrs[ALG_SHA256][pcr] = value
    with pytest.raises(Untrusted) as refusal:
        check(*OTHER.quote(NONCE, ALG_SHA256, PCRS))
    assert refusal.value.reason == "tpm.quote.signature"


def test_the_body_of_a_quote_has_one_encoding() -> None:
    info = QuoteInfo((PcrSelection.of(ALG_SHA256, PCRS),), bytes(32))
    assert info.selections[0].pcrs == PCRS
    assert ak().name == TPM.ak.name
