"""The refusal matrix: 60 rows, each with one named test and the reason code that its path gives.

Here are rows 1-23, 27 and 28. Rows 1-17 go through :func:`attestation.appraise.appraise`: what the verifier would
record. Rows 18 on are about enrolment. Single structures are tested in depth in tests/attestation/tpm. :data:`MATRIX`
has the other rows from where their tests are; docs/threat-model.md lists the same, and a test keeps both lists equal.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent.devices import DeviceError
from attestation.claims import FAIL
from attestation.errors import InterlockError
from attestation.evidence import Cmw, TpmRecord, read_evidence
from attestation.node import ClockRecord
from attestation.reasons import explain
from attestation.tpm.attest import CertifyInfo, PcrSelection, QuoteInfo
from attestation.tpm.credential import make_credential, verify_secret
from attestation.tpm.identity import verify_ak, verify_ek
from attestation.tpm.structures import (
    ALG_ECDSA,
    ALG_NULL,
    ALG_SHA1,
    ALG_SHA256,
    ALG_SHA384,
    RESTRICTED,
    RH_OWNER,
    ST_CERTIFY,
    Signature,
    digest,
)
from attestation.tpm.wrapping import ENTROPY_SIZE
from fixtures.attester import SoftTpm, public_of
from fixtures.ca import NOT_BEFORE, TestCa, ek_profile
from tests.attestation.examples import PCRS, SHA256
from tests.attestation.tpm import test_eventlog_matrix, test_ima_matrix
from tests.attestation.tpm.test_weak import weak_key
from tests.attestation.world import CA, World, booted
from tests.verifier import test_refusal_rows

ROOT = Path(__file__).parents[2]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _quoted(world: World, *selections: PcrSelection, **attest: object) -> TpmRecord:
    """An honest record around a quote of ``selections``, truly signed by the attestation key."""
    values = b"".join(world.tpm.pcrs[s.bank][pcr] for s in selections for pcr in s.pcrs)
    body = QuoteInfo(selections, digest(ALG_SHA256, values)).to_bytes()
    made = world.tpm.signed(**{"extra": world.qualifying(), "body": body, **attest})  # type: ignore[arg-type]
    return world.record(quote=made.attest, signature=made.signature)


SELECTED = PcrSelection.of(SHA256, PCRS)


def _signature(world: World, r: int, s: int) -> bytes:
    made = Signature(ALG_ECDSA, ALG_SHA256, (r.to_bytes(32, "big"), s.to_bytes(32, "big")))
    return world.evidence(world.record(signature=made.to_bytes()))


def _asked(world: World, pcrs: tuple[int, ...]) -> World:
    world.challenge = replace(world.challenge, pcrs=pcrs)
    return world


def _values(world: World, **changes: object) -> bytes:
    return world.evidence(world.record(**changes))


def _clock(world: World, **last: object) -> bytes:
    world.node = replace(world.node, clock=replace(ClockRecord(clock=1, resets=1, restarts=0, safe=True), **last))  # type: ignore[arg-type]
    return world.evidence()


def _unsafe(world: World) -> bytes:
    world.tpm.safe = False
    return world.evidence()


def _firmware(world: World) -> bytes:
    world.tpm.firmware -= 1
    return world.evidence()


def _type_confusion(world: World) -> bytes:
    public = world.tpm.holders[world.tpm.holder or b""][1]
    info = CertifyInfo(public.name, public.qualified_name(RH_OWNER)).to_bytes()
    return world.evidence(_quoted(world, kind=ST_CERTIFY, body=info))


def _relay(world: World) -> bytes:
    """Another genuine, enrolled TPM quotes for this host's question; this host signs the envelope."""
    other = booted(SoftTpm(CA))
    quote = other.quote(world.qualifying(), SHA256, PCRS)
    return world.evidence(world.record(quote=quote.attest, signature=quote.signature))


def _weaker_bank(world: World) -> bytes:
    world.challenge = replace(world.challenge, bank=ALG_SHA1)
    world.tpm.pcrs[ALG_SHA1] = dict.fromkeys(range(24), bytes(20))
    return world.evidence()


def _resettable(world: World) -> bytes:
    _asked(world, (*PCRS, 16))
    return world.evidence()


def _uncovered(world: World) -> bytes:
    return _values(world, pcrs={**world.tpm.read_pcrs(SHA256, PCRS), 8: bytes(32)})


def _short_value(world: World) -> bytes:
    values = dict(world.tpm.read_pcrs(SHA256, PCRS))
    values[0], values[1] = values[0] + values[1][:1], values[1][1:]
    return _values(world, pcrs=values)


EVIDENCE_ROWS: dict[int, tuple[str, Callable[[World], bytes], str]] = {
    1: ("invalid signature", lambda w: _signature(w, 1, 1), "tpm.quote.signature"),
    2: ("magic is not TPM_GENERATED", lambda w: w.evidence(_quoted(w, SELECTED, magic=0)), "tpm.quote.magic"),
    3: ("a certification presented as a quote", _type_confusion, "tpm.quote.type"),
    4: (
        "another selection than asked for",
        lambda w: w.evidence(_quoted(w, PcrSelection.of(SHA256, PCRS[:-1]))),
        "tpm.pcr.selection",
    ),
    5: ("no PCR selected", lambda w: w.evidence(_quoted(w, PcrSelection.of(SHA256, ()))), "tpm.pcr.empty"),
    6: ("two selections of one bank", lambda w: w.evidence(_quoted(w, SELECTED, SELECTED)), "tpm.pcr.selection"),
    7: ("a value that is not covered", _uncovered, "tpm.pcr.uncovered"),
    8: ("a weaker bank", _weaker_bank, "tpm.pcr.bank"),
    9: ("a value of the wrong length", _short_value, "tpm.pcr.digest"),
    10: ("a resettable PCR as evidence", _resettable, "tpm.pcr.resettable"),
    11: (
        "a nonce that is a prefix",
        lambda w: w.evidence(_quoted(w, SELECTED, extra=w.qualifying()[:-1])),
        "tpm.quote.nonce",
    ),
    12: ("the quote of another machine", _relay, "tpm.quote.signature"),
    13: ("resetCount fell", lambda w: _clock(w, resets=2), "tpm.clock.reset"),
    14: ("firmware changed", _firmware, "tpm.firmware.changed"),
    15: (
        "qualifiedSigner of another key",
        lambda w: w.evidence(_quoted(w, SELECTED, signer=b"\x00\x0b" + bytes(32))),
        "tpm.quote.signer",
    ),
    16: (
        "trailing bytes after the attestation",
        lambda w: _values(w, quote=w.record().quote + b"\0"),
        "tpm.attest.trailing",
    ),
    17: ("r at the order of the curve", lambda w: _signature(w, P256_ORDER, 1), "tpm.quote.signature"),
}
MORE: dict[str, tuple[Callable[[World], bytes], str]] = {
    "row 1: the null scheme": (
        lambda w: _values(w, signature=ALG_NULL.to_bytes(2, "big")),
        "tpm.quote.scheme",
    ),
    "row 1: no signature": (lambda w: _values(w, signature=b""), "tpm.signature.truncated"),
    "row 8: a bank that was not asked for": (
        lambda w: w.evidence(_quoted(w, PcrSelection.of(ALG_SHA384, PCRS))),
        "tpm.pcr.bank",
    ),
    "row 13: the clock stood still": (lambda w: _clock(w, clock=10**12), "tpm.clock.backwards"),
    "row 13: the clock became unsafe": (_unsafe, "tpm.clock.unsafe"),
    "row 17: r is zero": (lambda w: _signature(w, 0, 1), "tpm.quote.signature"),
}


@pytest.mark.parametrize("row", EVIDENCE_ROWS, ids=lambda row: f"row {row}: {EVIDENCE_ROWS[row][0]}")
def test_evidence_row(row: int) -> None:
    _, spoil, reason = EVIDENCE_ROWS[row]
    world = World()
    failed = world.failure(spoil(world))
    assert (failed.outcome, failed.reason) == (FAIL, reason)


@pytest.mark.parametrize("name", MORE)
def test_evidence_variant(name: str) -> None:
    spoil, reason = MORE[name]
    world = World()
    assert world.failure(spoil(world)).reason == reason


# --- enrolment, rows 18 on --------------------------------------------------------------------------------------------


def _ek(tpm: SoftTpm, *, certificate: bytes | None = None, public: bytes | None = None) -> object:
    return verify_ek(
        certificate or tpm.ek_certificate(),
        public or tpm.ek_public(),
        CA.intermediates,
        [CA.anchor],
        at=NOT_BEFORE.replace(year=2026),
    )


def _opened(tpm: SoftTpm, other: SoftTpm) -> bytes:
    """The secret of a credential made for ``tpm``, as opened by ``other``."""
    ek = verify_ek(
        tpm.ek_certificate(), tpm.ek_public(), CA.intermediates, [CA.anchor], at=NOT_BEFORE.replace(year=2026)
    )
    ak = verify_ak(tpm.create_ak().public)
    made = make_credential(ek, ak, bytes(32), entropy=bytes(range(ENTROPY_SIZE)))
    return other.activate_credential(made.id_object, made.encrypted_secret)


def _row_18() -> object:
    ak = SoftTpm(CA).ak
    return verify_ak(replace(ak, attributes=ak.attributes & ~RESTRICTED).to_bytes())


def _row_19() -> object:
    """The AK that is offered is not the one that the credential was made for."""
    tpm = SoftTpm(CA)
    ak, tpm.ak = tpm.ak, SoftTpm(CA).ak
    assert ak.name != tpm.ak.name
    ek = verify_ek(
        tpm.ek_certificate(), tpm.ek_public(), CA.intermediates, [CA.anchor], at=NOT_BEFORE.replace(year=2026)
    )
    made = make_credential(ek, verify_ak(ak.to_bytes()), bytes(32), entropy=bytes(ENTROPY_SIZE))
    return tpm.activate_credential(made.id_object, made.encrypted_secret)


def _row_21() -> object:
    tpm, other = SoftTpm(CA), SoftTpm(CA)
    return _ek(tpm, public=other.ek_public())


def _row_22() -> object:
    """The certificate of an attestation key that carries the extended key usage of an EK."""
    tpm = SoftTpm(CA)
    usage = replace(ek_profile(tpm.ek.crypto_key()), usages=frozenset({"digital_signature"}))
    return _ek(tpm, certificate=CA.issue_ek(tpm.ek.crypto_key(), usage))


def _row_23() -> object:
    """TRUE in the key usage's criticality, as BER may write it: the same meaning, other bytes than were signed."""
    tpm = SoftTpm(CA)
    return _ek(tpm, certificate=tpm.certificate.replace(b"\x55\x1d\x0f\x01\x01\xff", b"\x55\x1d\x0f\x01\x01\x01"))


def _row_27() -> object:
    """An RSA key whose private half can be computed (ROCA)."""
    tpm = SoftTpm(CA, ek="rsa2048")
    public = public_of(weak_key(), tpm.ek)
    return _ek(tpm, certificate=CA.issue_ek(weak_key().public_key()), public=public.to_bytes())


def _row_28() -> object:
    """swtpm under a root that stands for hardware."""
    tpm = SoftTpm(CA)
    hardware = replace(CA.anchor, assurance="hardware")
    return verify_ek(tpm.certificate, tpm.ek_public(), CA.intermediates, [hardware], at=NOT_BEFORE.replace(year=2026))


ENROLMENT_ROWS: dict[int, tuple[str, Callable[[], object], str]] = {
    18: ("an attestation key that is not restricted", _row_18, "tpm.ak.attributes"),
    19: ("another attestation key than the credential names", _row_19, "tpm.device.refused"),
    20: ("a wrong activation secret", lambda: verify_secret(bytes(32), bytes(31) + b"\1"), "tpm.credential.secret"),
    21: ("an EK that is not the certificate's", _row_21, "tpm.ek.mismatch"),
    22: ("an attestation key's certificate in the place of an EK's", _row_22, "tpm.ek.usage"),
    23: ("a certificate written otherwise than it was signed", _row_23, "chain.signature"),
    27: ("a key that can be computed", _row_27, "tpm.key.roca"),
    28: ("a software TPM where hardware is required", _row_28, "tpm.ek.software"),
}


@pytest.mark.parametrize("row", ENROLMENT_ROWS, ids=lambda row: f"row {row}: {ENROLMENT_ROWS[row][0]}")
def test_enrolment_row(row: int) -> None:
    _, act, reason = ENROLMENT_ROWS[row]
    with pytest.raises((InterlockError, DeviceError), match=f"^{re.escape(reason)}") as caught:
        act()
    assert str(caught.value).partition(":")[0] == reason


def test_a_credential_opens_on_its_own_tpm_only() -> None:
    tpm, other = SoftTpm(CA), SoftTpm(CA)
    assert _opened(tpm, tpm) == bytes(32)
    with pytest.raises(DeviceError):
        _opened(tpm, other)


def test_an_honest_ek_is_accepted_and_a_foreign_root_is_not() -> None:
    tpm = SoftTpm(CA)
    _ek(tpm)
    with pytest.raises(InterlockError, match=r"chain\."):
        verify_ek(
            tpm.ek_certificate(),
            tpm.ek_public(),
            CA.intermediates,
            [TestCa("another root").anchor],
            at=NOT_BEFORE.replace(year=2026),
        )


# --- all of them -----------------------------------------------------------------------------------------------------

NOT_APPLICABLE = {58: "-", 59: "-"}
"""Evidence of a CPU's own (SEV-SNP, TDX, virtual TPMs bound to them): nothing appraises it, so nothing rests on it."""

PLACES: tuple[Mapping[int, tuple[str, object, str]], ...] = (
    EVIDENCE_ROWS,
    ENROLMENT_ROWS,
    test_eventlog_matrix.ROWS,
    test_ima_matrix.ROWS,
    test_refusal_rows.ROWS,
)
MATRIX = {row: reason for place in PLACES for row, (_, _, reason) in place.items()} | NOT_APPLICABLE


def test_every_row_is_in_one_place_and_its_reason_is_explained() -> None:
    assert sum(map(len, PLACES)) + len(NOT_APPLICABLE) == len(MATRIX) == 60
    assert sorted(MATRIX) == list(range(1, 61))
    assert all(explain(reason).fix for row, reason in MATRIX.items() if row not in NOT_APPLICABLE)


def test_what_is_not_applicable_is_refused_as_unknown() -> None:
    """A report of a CPU's own in the evidence is never left out in silence."""
    world = World()
    honest, _ = read_evidence(world.evidence())
    for name in ("snp", "tdx", "cpu0"):
        collection = {**honest.collection, name: Cmw("application/octet-stream", b"report")}
        failed = world.failure(world.evidence(collection=collection))
        assert failed.reason == "evidence.unknown-record"


def test_the_threat_model_lists_the_same_rows() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \|.*\| (?:`([a-z0-9.-]+)`|-) \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in listed] == list(range(1, 61))
    assert {int(number): reason or "-" for number, reason in listed} == MATRIX
