"""attestation.appraise: each numbered check fails alone, ends its submodule, and is named with its reason."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from attestation import claims as ear
from attestation.claims import FAIL, NOT_APPLICABLE, NOT_RUN, PASS
from attestation.evidence import Cmw, HostRecord
from attestation.intent import AHEAD_SECONDS, LIFETIME_SECONDS, sign_intent
from attestation.node import ClockRecord
from attestation.reference import Baseline
from fixtures.attester import SoftTpm
from tests.attestation.examples import CHALLENGE, CODE, ENVIRONMENT, HOLDER, ID, NONCE, SHA256, digest
from tests.attestation.world import CA, World, booted

TPM_CHECKS = (
    "evidence.envelope",
    "evidence.nonce",
    "evidence.intent",
    "evidence.grant",
    "evidence.records",
    "tpm.holder",
    "tpm-lease",
    "tpm.quote",
    "tpm.clock",
    "tpm.firmware",
    "tpm.baseline",
    "tpm.event-log",
    "tpm.boot",
    "tpm.ima",
    "tpm.workload",
)
NOT_HELD_TO = TPM_CHECKS[-4:-1]
WORKLOAD_CHECKS = ("workload.code", "workload.environment", "workload.intent")


def test_honest_evidence_affirms() -> None:
    world = World()
    claims = world.appraise()
    assert claims.status == ear.AFFIRMING
    assert tuple(c.name for c in claims.submods["tpm"].checks) == TPM_CHECKS
    assert tuple(c.name for c in claims.submods["workload"].checks) == WORKLOAD_CHECKS
    checks = [check for part in claims.submods.values() for check in part.checks]
    assert all(check.outcome == (NOT_APPLICABLE if check.name in NOT_HELD_TO else PASS) for check in checks)
    assert (claims.assurance, claims.binding, claims.issued) == ("test", "L0", world.at)


def test_facts_are_what_was_proven() -> None:
    world = World()
    tpm = world.appraise().submods["tpm"]
    assert tpm.facts["pcr.4"] == world.tpm.pcrs[SHA256][4].hex()
    assert tpm.facts["logs"] == "none"
    assert (tpm.facts["baseline.name"], tpm.facts["baseline.state"]) == ("debian-12", "active")
    assert (tpm.facts["resets"], tpm.facts["restarts"], tpm.facts["safe"]) == ("1", "0", "true")
    assert int(tpm.facts["firmware"], 16) == world.tpm.firmware
    assert (tpm.anchors, tpm.references) == (("test root",), ("debian-12",))
    workload = world.appraise().submods["workload"]
    assert workload.facts["code.name"] == "digits"
    assert workload.references == ("digits", "torch-2.13")


def test_the_same_inputs_give_the_same_bytes() -> None:
    world = World()
    token = world.evidence()
    assert world.appraise(token).to_bytes() == world.appraise(token).to_bytes()
    assert ear.Claims.from_bytes(world.appraise(token).to_bytes()) == world.appraise(token)


def test_the_first_evidence_of_a_node_has_nothing_before_it() -> None:
    world = World()
    world.node = replace(world.node, clock=None)
    assert world.appraise().status == ear.AFFIRMING


def test_logs_are_bound_to_the_quote_and_named() -> None:
    world = World(event_log=b"log", ima=(0, b"list"))
    assert world.appraise().submods["tpm"].facts["logs"] == "event-log, ima"
    for other in ({"event_log": b"gol"}, {"ima": b"tsil"}, {"event_log": None}, {"ima": None}):
        assert world.failure(world.evidence(world.record(**other))).reason == "tpm.quote.nonce"


def test_a_renewal_names_its_grant() -> None:
    world = World(grant=ID)
    assert world.appraise().status == ear.AFFIRMING


Spoil = Callable[[World], bytes]


def _node(**changes: object) -> Spoil:
    def spoil(world: World) -> bytes:
        world.node = replace(world.node, **changes)  # type: ignore[arg-type]
        return world.evidence()

    return spoil


def _baseline(**changes: object) -> Spoil:
    def spoil(world: World) -> bytes:
        baseline: Baseline = replace(world.baseline, **changes)  # type: ignore[arg-type]
        world.references = replace(world.references, baselines=(baseline,))
        return world.evidence()

    return spoil


def _approvals(*approvals: object) -> Spoil:
    def spoil(world: World) -> bytes:
        world.references = replace(world.references, approvals=approvals)  # type: ignore[arg-type]
        return world.evidence()

    return spoil


def _another_holder(world: World) -> bytes:
    """The TPM has a second holder key, truly certified, that was not enrolled."""
    other = world.tpm.create_holder().public
    certified = world.tpm.certify_holder(b"")
    record = world.record(holder_public=other, certify=certified.attest, certify_signature=certified.signature)
    world.tpm.load_holder(next(iter(world.tpm.holders)))
    return world.evidence(record)


def _certified_elsewhere(world: World) -> bytes:
    other = SoftTpm(CA)
    other.create_holder()
    certified = other.certify_holder(b"")
    return world.evidence(world.record(certify=certified.attest, certify_signature=certified.signature))


def _extended(world: World) -> bytes:
    world.tpm.extend(4, digest("rootkit"))
    return world.evidence()


def _with_records(**records: Cmw) -> Spoil:
    def spoil(world: World) -> bytes:
        honest = {"tpm": Cmw("application/interlock-tpm+cbor", world.record().to_bytes())}
        return world.evidence(collection={**honest, **records})

    return spoil


def _signed(seconds: int) -> Spoil:
    def spoil(world: World) -> bytes:
        world.intent = replace(world.intent, issued=world.at + seconds)
        return world.evidence()

    return spoil


def _other_bank(world: World) -> bytes:
    return world.evidence(world.record(bank=0x000C))


def _other_type(world: World) -> bytes:
    return world.evidence(collection={"tpm": Cmw("application/interlock-host+cbor", world.record().to_bytes())})


REFUSED: dict[str, tuple[Spoil, str, str]] = {
    "signed by another key": (lambda w: w.evidence(signer=HOLDER), "evidence.envelope", "cose.kid"),
    "not a token": (lambda _: b"\xff", "evidence.envelope", "cbor.syntax"),
    "cut short": (lambda w: w.evidence()[:-1], "evidence.envelope", "cbor.syntax"),
    "an enrolled key that is none": (_node(holder_public=b"\0"), "evidence.envelope", "tpm.public.truncated"),
    "another challenge": (lambda w: w.evidence(nonce=bytes(32)), "evidence.nonce", "evidence.nonce"),
    "another intent": (lambda w: w.evidence(intent=digest("other")), "evidence.intent", "evidence.intent"),
    "a grant where none is renewed": (lambda w: w.evidence(grant=ID), "evidence.grant", "evidence.grant"),
    "no TPM record": (lambda w: w.evidence(collection={}), "evidence.records", "evidence.record"),
    "a TPM record of another type": (_other_type, "evidence.records", "evidence.record"),
    "a TPM record that is none": (
        _with_records(tpm=Cmw("application/interlock-tpm+cbor", b"\xa0")),
        "evidence.records",
        "wire.missing",
    ),
    "a record of unknown kind": (_with_records(tee=Cmw("tee", b"")), "evidence.records", "evidence.unknown-record"),
    "a host record of another type": (
        _with_records(host=Cmw("text/plain", HostRecord(facts={}).to_bytes())),
        "evidence.records",
        "evidence.record",
    ),
    "a host record that is none": (
        _with_records(host=Cmw("application/interlock-host+cbor", b"\xa0")),
        "evidence.records",
        "wire.missing",
    ),
    "a holder key that was not enrolled": (_another_holder, "tpm.holder", "tpm.holder.unknown"),
    "a certification by another TPM": (_certified_elsewhere, "tpm.holder", "tpm.certify.signature"),
    "an AK that is none": (_node(ak_public=b"\0"), "tpm.holder", "tpm.public.truncated"),
    "another bank": (_other_bank, "tpm.quote", "tpm.pcr.bank"),
    "values that were not quoted": (
        lambda w: w.evidence(w.record(pcrs={**w.record().pcrs, 4: digest("x")})),
        "tpm.quote",
        "tpm.pcr.digest",
    ),
    "a clock that went back": (
        _node(clock=ClockRecord(clock=10**9, resets=1, restarts=0, safe=True)),
        "tpm.clock",
        "tpm.clock.backwards",
    ),
    "another firmware": (_node(firmware=7), "tpm.firmware", "tpm.firmware.changed"),
    "another boot": (_extended, "tpm.baseline", "tpm.pcr.mismatch"),
    "a pool without baseline": (_node(pool="prod"), "tpm.baseline", "ref.none"),
    "an expired baseline": (_baseline(expires=CODE.expires or 1), "tpm.baseline", "ref.expired"),
    "a pending baseline": (_baseline(state="pending"), "tpm.baseline", "ref.pending"),
    "a retired baseline": (_baseline(state="retired"), "tpm.baseline", "ref.retired"),
    "a revoked baseline": (_baseline(state="revoked"), "tpm.baseline", "ref.revoked"),
    "a revoked baseline that expired as well": (
        _baseline(state="revoked", expires=1),
        "tpm.baseline",
        "ref.revoked",
    ),
    "a baseline that expires now": (_baseline(expires=CHALLENGE.issued), "tpm.baseline", "ref.expired"),
    "unknown code": (_approvals(ENVIRONMENT), "workload.code", "code.unknown"),
    "revoked code": (_approvals(replace(CODE, state="revoked"), ENVIRONMENT), "workload.code", "code.revoked"),
    "retired code": (_approvals(replace(CODE, state="retired"), ENVIRONMENT), "workload.code", "code.retired"),
    "pending code": (_approvals(replace(CODE, state="pending"), ENVIRONMENT), "workload.code", "code.pending"),
    "code approved until yesterday": (
        _approvals(replace(CODE, expires=1), ENVIRONMENT),
        "workload.code",
        "code.expired",
    ),
    "revoked code whose approval expired as well": (
        _approvals(replace(CODE, state="revoked", expires=1), ENVIRONMENT),
        "workload.code",
        "code.revoked",
    ),
    "code approved as an environment": (
        _approvals(replace(CODE, kind="environment"), ENVIRONMENT),
        "workload.code",
        "code.unknown",
    ),
    "unknown environment": (_approvals(CODE), "workload.environment", "environment.unknown"),
    "revoked environment": (
        _approvals(CODE, replace(ENVIRONMENT, state="revoked")),
        "workload.environment",
        "environment.revoked",
    ),
    "an intent of the day before yesterday": (_signed(-LIFETIME_SECONDS - 1), "workload.intent", "intent.time"),
    "an intent from the future": (_signed(AHEAD_SECONDS + 1), "workload.intent", "intent.time"),
    "environment approved until yesterday": (
        _approvals(CODE, replace(ENVIRONMENT, expires=1)),
        "workload.environment",
        "environment.expired",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    spoil, check, reason = REFUSED[name]
    world = World()
    claims = world.appraise(spoil(world))
    (failed,) = claims.failures
    assert (failed.name, failed.reason) == (check, reason)
    assert claims.status == ear.CONTRAINDICATED
    submod = claims.submods["workload" if check.startswith("workload") else "tpm"]
    outcomes = [c.outcome for c in submod.checks]
    place = outcomes.index(FAIL)
    after = NOT_RUN if submod is claims.submods["tpm"] else PASS
    assert outcomes == [PASS] * place + [FAIL] + [after] * (len(outcomes) - place - 1)
    assert set(submod.vector.values()) == {ear.CONTRAINDICATED}


def test_every_check_has_a_test_that_fails_it() -> None:
    assert {check for _, check, _ in REFUSED.values()} == {*TPM_CHECKS, *WORKLOAD_CHECKS} - {
        *NOT_HELD_TO,
        "tpm.workload",
        "tpm-lease",
    }


@pytest.mark.parametrize(
    ("spoil", "submod"),
    [(_baseline(state="obsolete"), "tpm"), (_approvals(replace(CODE, state="obsolete"), ENVIRONMENT), "workload")],
    ids=["baseline", "code"],
)
def test_an_obsolete_reference_value_is_a_warning(spoil: Spoil, submod: str) -> None:
    world = World()
    claims = world.appraise(spoil(world))
    assert claims.failures == ()
    assert claims.submods[submod].status == claims.status == ear.WARNING
    assert {s.status for n, s in claims.submods.items() if n != submod} == {ear.AFFIRMING}


@pytest.mark.parametrize("seconds", [-LIFETIME_SECONDS, AHEAD_SECONDS], ids=["yesterday", "an hour ahead"])
def test_an_intent_is_good_for_a_day(seconds: int) -> None:
    world = World()
    assert world.appraise(_signed(seconds)(world)).failures == ()


def test_a_job_is_renewed_however_long_ago_it_was_asked_for() -> None:
    world = World(grant=ID)
    assert world.appraise(_signed(-30 * LIFETIME_SECONDS)(world)).failures == ()


def test_what_the_host_says_of_itself_is_no_reason_to_refuse_and_no_fact() -> None:
    world = World()
    said = Cmw("application/interlock-host+cbor", HostRecord(facts={"kernel": "6.1", "baseline.state": "x"}).to_bytes())
    claims = world.appraise(_with_records(host=said)(world))
    assert claims.failures == ()
    assert claims.submods["tpm"].facts["baseline.state"] == "active"


def test_a_reference_value_counts_until_it_expires() -> None:
    world = World()
    assert world.appraise(_baseline(expires=world.at + 1)(world)).failures == ()


def test_an_expired_baseline_does_not_hide_one_that_holds() -> None:
    world = World()
    old, new = replace(world.baseline, name="a", expires=world.at), replace(world.baseline, name="b", state="obsolete")
    world.references = replace(world.references, baselines=(old, new))
    assert world.appraise().submods["tpm"].facts["baseline.name"] == "b"


def test_claims_have_room_for_every_name_that_may_occur_in_them() -> None:
    world, long = World(), "n" * 128
    world.node = replace(world.node, anchor=long)
    world.references = replace(
        world.references,
        baselines=(replace(world.baseline, name=long),),
        approvals=(replace(CODE, name=long), ENVIRONMENT),
    )
    claims = world.appraise()
    assert ear.Claims.from_bytes(claims.to_bytes()) == claims


def test_everything_that_failed_independently_is_told() -> None:
    world = World()
    world.references = replace(world.references, approvals=())
    claims = world.appraise(_extended(world))
    assert [c.reason for c in claims.failures] == ["tpm.pcr.mismatch", "code.unknown", "environment.unknown"]


def test_a_warning_does_not_excuse_a_failure() -> None:
    world = World()
    claims = world.appraise(_approvals(replace(ENVIRONMENT, state="obsolete"))(world))
    assert [c.reason for c in claims.failures] == ["code.unknown"]
    assert claims.submods["workload"].status == ear.CONTRAINDICATED


def test_a_mismatch_names_the_pcr() -> None:
    world = World()
    failed = world.failure(_extended(world))
    assert failed.detail is not None
    assert failed.detail.startswith("PCR 4: expected ")


def test_evidence_of_another_enrolled_host_does_not_pass() -> None:
    world, other = World(), World(tpm=booted(SoftTpm(CA)))
    assert world.failure(other.evidence()).reason == "cose.kid"


def test_the_quote_of_an_enrolment_is_no_evidence() -> None:
    """It carries the nonce as it is; evidence carries a hash over everything that it is for."""
    world = World()
    quote = world.tpm.quote(world.challenge.nonce, world.challenge.bank, world.challenge.pcrs)
    record = world.record(quote=quote.attest, signature=quote.signature)
    assert world.failure(world.evidence(record)).reason == "tpm.quote.nonce"


def test_a_grant_must_be_renewed_where_one_is_asked_for() -> None:
    world = World(grant=ID)
    assert world.failure(world.evidence(grant=None)).reason == "evidence.grant"
    assert world.failure(world.evidence(grant=NONCE[:16][::-1])).reason == "evidence.grant"


def test_evidence_of_another_type_is_refused() -> None:
    world = World()
    assert world.failure(sign_intent(world.intent, world.signer)).reason == "cose.typ"
