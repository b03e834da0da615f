"""Rules of single objects that go beyond their fields' types: each refused with its reason code."""

from dataclasses import replace

import pytest

from attestation import claims as ear
from attestation.claims import CONTRAINDICATED, NONE, WARNING
from attestation.errors import Malformed, Untrusted
from attestation.evidence import Cmw, Evidence, gpu_nonce, qualifying_data, read_evidence, sign_evidence
from attestation.intent import read_intent, sign_intent, verify_intent
from attestation.reference import Baseline, References, ReferenceSet
from attestation.wire import Wire
from tests.attestation.examples import (
    APPRAISAL,
    BASELINE,
    BOOT,
    BOOT_POLICY,
    BOOT_REFERENCE,
    CHALLENGE,
    CLAIMS,
    CODE,
    ENVIRONMENT,
    EVIDENCE,
    FAILED,
    FOLLOWING,
    GRANT,
    HOLDER,
    IMA_REFERENCE,
    INTENT,
    LEASE,
    MEASURING,
    NODE,
    NONCE,
    PASSED,
    PCRS,
    REFERENCES,
    REFERENCES_OF_BOOTS,
    REPORT,
    SHA256,
    SUBMITTER,
    VALUES,
    digest,
    spoil,
)

NOW = CHALLENGE.issued


def test_a_retired_ima_reference_stands_beside_its_successor() -> None:
    both = (replace(IMA_REFERENCE, name="older", state="retired"), IMA_REFERENCE)
    references = replace(REFERENCES_OF_BOOTS, lists=both)
    assert References.from_bytes(references.to_bytes()) == references


def test_references_without_boots_are_written_as_they_always_were() -> None:
    assert REFERENCES.to_value().keys() == {1, 2, 3}
    assert CHALLENGE.to_value().keys() == {1, 2, 3, 4, 6, 10}


REFUSED: dict[str, tuple[type[Wire], bytes, str]] = {
    "intent without a job name": (type(INTENT), spoil(INTENT, job=""), "intent.empty"),
    "intent without a command": (type(INTENT), spoil(INTENT, argv=()), "intent.empty"),
    "intent whose job name moves the cursor": (type(INTENT), spoil(INTENT, job="x\x1b[2J"), "intent.name"),
    "intent whose tenant reads backwards": (type(INTENT), spoil(INTENT, tenant="lab\u202e"), "intent.name"),
    "intent with an output of two lines": (type(INTENT), spoil(INTENT, outputs=("a\nb",)), "intent.name"),
    "intent with an input of two lines": (type(INTENT), spoil(INTENT, inputs={"a\nb": NONCE}), "intent.name"),
    "intent with a secret of two lines": (type(INTENT), spoil(INTENT, secrets=("a\nb",)), "intent.name"),
    "intent with a secret and its value": (type(INTENT), spoil(INTENT, secrets=("weights=hunter2",)), "secret.name"),
    "intent with a secret without a name": (type(INTENT), spoil(INTENT, secrets=("",)), "secret.name"),
    "intent with a variable of two lines": (
        type(INTENT),
        spoil(INTENT, environment_variables={"a\nb": NONCE}),
        "intent.name",
    ),
    "intent with an unknown GPU mode": (
        type(INTENT),
        spoil(INTENT, gpus=replace(INTENT.gpus, mode="all")),
        "intent.gpus",
    ),
    "intent without time": (type(INTENT), spoil(INTENT, limits=replace(INTENT.limits, seconds=0)), "wire.range"),
    "challenge without PCRs": (type(CHALLENGE), spoil(CHALLENGE, pcrs=()), "challenge.empty"),
    "challenge that wants an unknown log": (type(CHALLENGE), spoil(CHALLENGE, wants=("core",)), "challenge.wants"),
    "challenge that knows a log it does not want": (
        type(CHALLENGE),
        spoil(FOLLOWING, wants=("ima",)),
        "challenge.wants",
    ),
    "challenge that knows a list it does not want": (
        type(CHALLENGE),
        spoil(FOLLOWING, wants=("event-log",)),
        "challenge.wants",
    ),
    "challenge with a boot and no entry": (type(CHALLENGE), spoil(FOLLOWING, ima_next=None), "challenge.wants"),
    "challenge with an entry of no boot": (type(CHALLENGE), spoil(FOLLOWING, ima_boot=None), "challenge.wants"),
    "challenge with jobs of no boot": (type(CHALLENGE), spoil(MEASURING, workload_boot=None), "challenge.wants"),
    "challenge with a boot and no job": (type(CHALLENGE), spoil(MEASURING, workload_next=None), "challenge.wants"),
    "challenge with no job of a boot": (type(CHALLENGE), spoil(MEASURING, workload_next=0), "wire.range"),
    "challenge with half a boot": (type(CHALLENGE), spoil(FOLLOWING, ima_boot=BOOT[:4]), "wire.size"),
    "challenge with PCR 24": (type(CHALLENGE), spoil(CHALLENGE, pcrs=(24,)), "wire.range"),
    "node in an unknown state": (type(NODE), spoil(NODE, state="fine"), "node.state"),
    "baseline in an unknown state": (type(BASELINE), spoil(BASELINE, state="good"), "ref.state"),
    "baseline without banks": (type(BASELINE), spoil(BASELINE, pcrs={}), "ref.empty"),
    "baseline with an empty bank": (type(BASELINE), spoil(BASELINE, pcrs={SHA256: {}}), "ref.empty"),
    "approval in an unknown state": (type(CODE), spoil(CODE, state="good"), "ref.state"),
    "approval of something else": (type(CODE), spoil(CODE, kind="gpu"), "ref.kind"),
    "boot reference in an unknown state": (
        type(BOOT_REFERENCE),
        spoil(BOOT_REFERENCE, state="good"),
        "ref.state",
    ),
    "boot reference without demands": (
        type(BOOT_REFERENCE),
        spoil(
            BOOT_REFERENCE,
            policy=replace(
                BOOT_POLICY,
                secure_boot=False,
                dma_protection=False,
                no_debug=False,
                accepted=("tpm.boot.exit-missing",),
            ),
        ),
        "ref.empty",
    ),
    "IMA reference in an unknown state": (type(IMA_REFERENCE), spoil(IMA_REFERENCE, state="good"), "ref.state"),
    "IMA reference with half a digest": (type(IMA_REFERENCE), spoil(IMA_REFERENCE, policy=BOOT), "wire.size"),
    "a boot reference with a baseline's name": (
        type(REFERENCES),
        spoil(REFERENCES, boots=(replace(BOOT_REFERENCE, name=BASELINE.name),)),
        "ref.duplicate",
    ),
    "an IMA reference with a boot reference's name": (
        type(REFERENCES),
        spoil(REFERENCES_OF_BOOTS, lists=(replace(IMA_REFERENCE, name=BOOT_REFERENCE.name),)),
        "ref.duplicate",
    ),
    "two usable IMA references of one pool": (
        type(REFERENCES),
        spoil(
            REFERENCES_OF_BOOTS,
            lists=(IMA_REFERENCE, replace(IMA_REFERENCE, name="other", pools=("a", "lab"), state="obsolete")),
        ),
        "ref.duplicate",
    ),
    "two baselines of one name": (type(REFERENCES), spoil(REFERENCES, baselines=(BASELINE, BASELINE)), "ref.duplicate"),
    "one digest approved twice": (
        type(REFERENCES),
        spoil(REFERENCES, approvals=(CODE, replace(CODE, state="revoked"))),
        "ref.duplicate",
    ),
    "check with an unknown outcome": (type(FAILED), spoil(FAILED, outcome="ok"), "claims.outcome"),
    "check with an unknown outcome and no reason": (type(PASSED), spoil(PASSED, outcome="ok"), "claims.outcome"),
    "failed check without a reason": (type(FAILED), spoil(FAILED, reason=None), "claims.outcome"),
    "passed check with a reason": (type(FAILED), spoil(FAILED, outcome=ear.PASS), "claims.outcome"),
    "claims of another profile": (type(CLAIMS), spoil(CLAIMS, profile="x"), "claims.profile"),
    "claims of an unknown level": (type(CLAIMS), spoil(CLAIMS, binding="L9"), "claims.level"),
    "claims of an unknown assurance": (type(CLAIMS), spoil(CLAIMS, assurance="full"), "claims.level"),
    "claims about nothing": (type(CLAIMS), spoil(CLAIMS, submods={}), "claims.empty"),
    "grant without conditions": (
        type(GRANT),
        spoil(GRANT, conditions=replace(GRANT.conditions, pcrs={})),
        "grant.conditions",
    ),
    "grant with a lease too short": (type(GRANT), spoil(GRANT, lease=9), "wire.range"),
    "lease too long": (type(LEASE), spoil(LEASE, duration=301), "wire.range"),
    "lease that disagrees with itself": (type(LEASE), spoil(LEASE, expires=LEASE.expires + 1), "lease.duration"),
    "report with an unknown class": (
        type(REPORT),
        spoil(REPORT, halts=(replace(REPORT.halts[0], klass="soft"),)),
        "report.halt",
    ),
    "report with a reason that is no code": (
        type(REPORT),
        spoil(REPORT, halts=(replace(REPORT.halts[0], reason="drift\x1b[2J"),)),
        "report.halt",
    ),
    "report with more reasons than a record holds": (
        type(REPORT),
        spoil(REPORT, halts=tuple(replace(REPORT.halts[0], reason=f"drift.{n}") for n in range(129))),
        "report.halt",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    cls, data, reason = REFUSED[name]
    with pytest.raises(Malformed) as caught:
        cls.from_bytes(data)
    assert caught.value.reason == reason


def test_submitter_in_an_unknown_state() -> None:
    from attestation.node import Submitter

    data = Submitter(spki=b"k", tenant="t", roles=(), state="root", name="n").to_bytes()
    with pytest.raises(Malformed, match=r"submitter\.state"):
        Submitter.from_bytes(data)


# --- intent -----------------------------------------------------------------------------------------------------------


def test_intent_is_read_unbelieved_and_verified_by_its_key() -> None:
    token = sign_intent(INTENT, SUBMITTER)
    read, unverified = read_intent(token)
    assert read == INTENT
    assert unverified.kid == SUBMITTER.public.kid
    assert verify_intent(token, SUBMITTER.public) == INTENT
    with pytest.raises(Untrusted, match=r"cose\.kid"):
        verify_intent(token, HOLDER.public)


def test_evidence_is_no_intent() -> None:
    with pytest.raises(Malformed, match=r"cose\.typ"):
        read_intent(sign_evidence(EVIDENCE, HOLDER))


@pytest.mark.parametrize("bound", ["seconds", "memory_mb", "processes", "renewals"])
def test_limits_within_looks_at_every_bound(bound: str) -> None:
    limits = INTENT.limits
    assert limits.within(limits)
    assert not replace(limits, **{bound: getattr(limits, bound) + 1}).within(limits)


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_is_read_unbelieved() -> None:
    read, unverified = read_evidence(sign_evidence(EVIDENCE, HOLDER))
    assert read == EVIDENCE
    assert unverified.kid == HOLDER.public.kid


@pytest.mark.parametrize(
    "record",
    [
        {},
        ["tpm", b""],
        ["tpm", b"", 4, 0],
        [1, b"", 4],
        ["tpm", "", 4],
        ["tpm", b"", True],
        ["tpm", b"", 2],
        ["t" * 129, b"", 4],
        ["tpm", bytes(Cmw.MAX_VALUE + 1), 4],
        {"tpm": 0, b"": 0, 4: 0},
    ],
    ids=[
        "map",
        "short",
        "long",
        "number as type",
        "text as value",
        "bool",
        "endorsement",
        "type",
        "value",
        "keys of a map",
    ],
)
def test_refuses_what_is_no_cmw_record(record: object) -> None:
    with pytest.raises(Malformed, match=r"evidence\.record"):
        Cmw.from_value(record)


def _with_gpus(*names: str) -> Evidence:
    return replace(EVIDENCE, collection={n: Cmw("gpu", n.encode()) for n in names} | dict(EVIDENCE.collection))


def test_gpu_records_are_in_name_order() -> None:
    assert [n for n, _ in _with_gpus("gpu1", "switch0", "gpu0").gpu_records()] == ["gpu0", "gpu1", "switch0"]


BOUND = {"nonce": NONCE, "intent": digest("i"), "holder": digest("h"), "gpus": (), "logs": (None, None)}
GPU0, GPU1 = ("gpu0", Cmw("gpu", b"0")), ("gpu0", Cmw("gpu", b"1"))


@pytest.mark.parametrize(
    "other",
    [
        {"nonce": bytes(32)},
        {"intent": digest("j")},
        {"holder": digest("g")},
        {"gpus": (GPU0,)},
        {"gpus": (GPU1,)},
        {"logs": (b"", None)},
        {"logs": (None, b"")},
        {"logs": (b"log", b"ima")},
        {"logs": (b"logi", b"ma")},
    ],
    ids=str,
)
def test_the_quote_commits_to_every_part(other: dict[str, object]) -> None:
    base = qualifying_data(**BOUND)  # type: ignore[arg-type]
    assert len(base) == 32
    assert qualifying_data(**{**BOUND, **other}) != base  # type: ignore[arg-type]
    assert qualifying_data(**{**BOUND, **other}) != qualifying_data(**{**BOUND, "gpus": (GPU0, GPU1)})  # type: ignore[arg-type]


def test_bindings_are_the_documented_bytes() -> None:
    # Computed once by hand from docs/formats.md, "Bindings": the formula is part of the wire format.
    assert qualifying_data(**BOUND).hex() == _QUALIFYING  # type: ignore[arg-type]
    assert gpu_nonce(nonce=NONCE, ak_name=b"\x00\x0b" + bytes(32), intent=digest("i")).hex() == _GPU_NONCE


_QUALIFYING = "2b6504bfa51a7430869876ad3f6a0152bd94f7da936701c5362fa8378076c8fe"
_GPU_NONCE = "16c8f36d5013168aec2763e250fcbdadd731a2f634b20ffff7e37430b6fdc1eb"


# --- claims -----------------------------------------------------------------------------------------------------------


def test_the_worst_status_counts() -> None:
    good, bad = replace(APPRAISAL, status=WARNING), replace(APPRAISAL, status=CONTRAINDICATED, checks=(FAILED,))
    assert replace(CLAIMS, submods={"tpm": APPRAISAL, "workload": good}).status == WARNING
    claims = replace(CLAIMS, submods={"workload": good, "tpm": bad})
    assert claims.status == CONTRAINDICATED
    assert claims.failures == (FAILED,)
    assert replace(CLAIMS, submods={"tpm": replace(APPRAISAL, status=NONE)}).status == CONTRAINDICATED


# --- reference values -------------------------------------------------------------------------------------------------

WRONG = {**VALUES, 4: digest("other kernel")}


def _set(*baselines: Baseline) -> ReferenceSet:
    return ReferenceSet(replace(REFERENCES, baselines=baselines))


def test_references_are_read_as_written() -> None:
    refs = ReferenceSet(REFERENCES)
    again = ReferenceSet.from_bytes(refs.encoded)
    assert (again.references, again.digest) == (REFERENCES, refs.digest)


def test_approvals_are_found_by_kind_and_digest() -> None:
    refs = _set(BASELINE)
    assert refs.approval("code", CODE.digest) == CODE
    assert refs.approval("environment", ENVIRONMENT.digest) == ENVIRONMENT
    assert refs.approval("environment", CODE.digest) is None


def test_a_baseline_matches_its_pool_bank_and_values() -> None:
    assert _set(BASELINE).match("lab", SHA256, VALUES, at=NOW) == BASELINE


@pytest.mark.parametrize(
    ("pool", "bank", "baselines"),
    [("lab", SHA256, ()), ("other", SHA256, (BASELINE,)), ("lab", 0x0C, (BASELINE,))],
    ids=["no baseline", "other pool", "other bank"],
)
def test_without_a_baseline_nothing_matches(pool: str, bank: int, baselines: tuple[Baseline, ...]) -> None:
    assert _set(*baselines).match(pool, bank, VALUES, at=NOW) == ()


def test_a_mismatch_names_the_pcr_of_the_nearest_baseline() -> None:
    far = replace(BASELINE, name="far", pcrs={SHA256: dict.fromkeys(PCRS, (digest("x"),))})
    for baselines in ((far, BASELINE), (BASELINE, far)):
        found = _set(*baselines).match("lab", SHA256, WRONG, at=NOW)
        assert isinstance(found, tuple)
        assert [(m.baseline, m.index) for m in found] == [("debian-12", 4)]
        assert found[0].text == (
            f"PCR 4: expected {VALUES[4].hex()} (baseline debian-12), seen {digest('other kernel').hex()}"
        )


@pytest.mark.parametrize(
    "values", [{i: v for i, v in VALUES.items() if i != 7}, {**VALUES, 8: digest("8")}], ids=["fewer", "more"]
)
def test_other_pcrs_than_the_baseline_names_do_not_match(values: dict[int, bytes]) -> None:
    found = _set(BASELINE).match("lab", SHA256, values, at=NOW)
    assert isinstance(found, tuple)
    assert len(found) == 1


def test_an_unexpected_pcr_is_shown_without_expectation() -> None:
    found = _set(BASELINE).match("lab", SHA256, {**VALUES, 8: digest("8")}, at=NOW)
    assert isinstance(found, tuple)
    assert "expected no value" in found[0].text


def test_a_match_that_holds_comes_before_one_that_expired_and_a_revoked_one_before_both() -> None:
    old, new = replace(BASELINE, name="old", expires=NOW), replace(BASELINE, name="new", state="retired")
    for baselines in ((old, new), (new, old)):
        assert _set(*baselines).match("lab", SHA256, VALUES, at=NOW) == new
    bad = replace(BASELINE, name="bad", state="revoked", expires=NOW)
    assert _set(old, new, bad).match("lab", SHA256, VALUES, at=NOW) == bad


def test_a_report_may_halt_often_for_the_same_reasons() -> None:
    halts = tuple(replace(REPORT.halts[0], reason=f"drift.{n % 128}") for n in range(1024))
    report = replace(REPORT, halts=halts)
    assert type(REPORT).from_bytes(report.to_bytes()) == report


def test_references_have_room_for_a_fleet() -> None:
    many = tuple(replace(CODE, digest=digest(str(n)), expires=NOW) for n in range(10_000))
    references = replace(REFERENCES, approvals=many)
    assert type(REFERENCES).from_bytes(references.to_bytes()) == references


def test_a_node_keeps_a_certificate_as_long_as_enrolment_takes() -> None:
    node = replace(NODE, ek_certificate=bytes(8192))
    assert type(NODE).from_bytes(node.to_bytes()) == node


def test_of_several_matches_the_revoked_one_wins_then_the_best() -> None:
    states = ("retired", "pending", "obsolete", "active", "revoked")
    for count in range(1, len(states) + 1):
        baselines = [replace(BASELINE, name=s, state=s) for s in states[:count]]
        found = _set(*baselines).match("lab", SHA256, VALUES, at=NOW)
        assert isinstance(found, Baseline)
        assert found.state == states[count - 1]
