"""Facts come from where they are proven: the adapter from claims, intent, records and usage."""

from dataclasses import replace
from typing import Any

import pytest

from attestation import claims as ear
from attestation.claims import Appraisal, Check, Claims, VerifierId
from attestation.decision import Facts, decide, facts_from
from attestation.intent import Children, GpuRequest, Intent, Limits
from attestation.node import NodeRecord, Submitter
from tests.attestation.facts import POLICY, USAGE


def appraisal(*checks: Check, status: int = ear.AFFIRMING, **facts: str) -> Appraisal:
    named = {name.replace("_", "."): value for name, value in facts.items()}
    return Appraisal(status=status, vector={}, checks=checks, facts=named, anchors=(), references=())


TPM = appraisal(baseline_state="active")
WORKLOAD = appraisal(code_state="active", environment_state="obsolete", status=ear.WARNING)


def claims(submods: dict[str, Appraisal] | None = None, **changes: Any) -> Claims:
    made = Claims(
        issued=0,
        profile=ear.PROFILE,
        submods={"tpm": TPM, "workload": WORKLOAD} if submods is None else submods,
        verifier=VerifierId(developer="interlock", build="0"),
        assurance="hardware",
        binding="L1",
    )
    return replace(made, **changes)


INTENT = Intent(
    job="digits",
    tenant="vision",
    code=bytes(32),
    argv=("python", "train.py"),
    environment=bytes(32),
    environment_variables={"LD_PRELOAD": bytes(32)},
    inputs={},
    outputs=(),
    gpus=GpuRequest(count=2, mode="none", memory_mb=11),
    limits=Limits(seconds=60, memory_mb=12, processes=13, renewals=14),
    secrets=("key",),
    children=Children(depth=1, count=15),
    nonce=bytes(32),
    issued=0,
)
SUBMITTER = Submitter(spki=b"", tenant="vision", roles=("evaluator", "trainer"), state="active", name="ada")
NODE = NodeRecord(
    name="node-1",
    pool="training",
    state="active",
    ek_digest=bytes(32),
    ek_certificate=b"",
    ek_public=b"",
    ak_public=b"",
    holder_public=b"",
    firmware=0,
    anchor="vendor",
    assurance="hardware",
    enrolled=0,
)
MONDAY_2026_06_01_0730_UTC = 1_780_299_000


def adapted(made: Claims, submitter: Submitter | None = SUBMITTER, at: int = MONDAY_2026_06_01_0730_UTC) -> Facts:
    return facts_from(made, INTENT, submitter, kid=b"\xab" * 32, node=NODE, usage=USAGE, at=at)


def test_facts_come_from_where_they_are_proven() -> None:
    assert adapted(claims()) == Facts(
        affirming=True,
        submitter="ab" * 32,
        submitter_state="active",
        submitter_tenant="vision",
        roles=("evaluator", "trainer"),
        tenant="vision",
        node="node-1",
        node_state="active",
        pool="training",
        baseline="active",
        code="active",
        environment="obsolete",
        assurance="hardware",
        binding=0,
        hour=7,
        weekday=0,
        gpus=2,
        gpu_memory_mb=11,
        seconds=60,
        memory_mb=12,
        processes=13,
        renewals=14,
        secrets=("key",),
        children_depth=1,
        children_count=15,
        usage=USAGE,
        command="script",
        steering=("LD_PRELOAD",),
    )


def test_the_action_is_passed_on() -> None:
    facts = facts_from(claims(), INTENT, SUBMITTER, kid=b"", node=NODE, usage=USAGE, at=0, action="renew")
    assert facts.action == "renew"


@pytest.mark.parametrize(
    ("at", "hour", "weekday"),
    [
        (0, 0, 3),
        (3599, 0, 3),
        (3600, 1, 3),
        (86_399, 23, 3),
        (86_400, 0, 4),
        (3 * 86_400, 0, 6),
        (4 * 86_400, 0, 0),
        (MONDAY_2026_06_01_0730_UTC - 86_400, 7, 6),
    ],
)
def test_hour_and_weekday_in_utc(at: int, hour: int, weekday: int) -> None:
    facts = adapted(claims(), at=at)
    assert (facts.hour, facts.weekday) == (hour, weekday)


def test_an_unknown_submitter_has_nothing() -> None:
    facts = adapted(claims(), submitter=None)
    assert (facts.submitter_state, facts.submitter_tenant, facts.roles) == ("unknown", "", ())
    assert decide(facts, POLICY).reasons == ("authz.submitter",)


@pytest.mark.parametrize("status", [ear.NONE, ear.CONTRAINDICATED, 33, 3, 1])
def test_only_affirming_and_warning_count(status: int) -> None:
    facts = adapted(claims({"tpm": TPM, "workload": replace(WORKLOAD, status=status)}))
    assert not facts.affirming
    assert decide(facts, POLICY).reasons == ("claims.unproven",)


def test_failures_are_told_once_and_sorted() -> None:
    bad = Check(name="tpm.quote", outcome=ear.FAIL, reason="tpm.quote.nonce")
    worse = Check(name="workload.code", outcome=ear.FAIL, reason="code.unknown")
    failed = {
        "tpm": appraisal(bad, status=ear.CONTRAINDICATED, baseline_state="active"),
        "workload": appraisal(worse, bad, status=ear.CONTRAINDICATED, code_state="active", environment_state="active"),
    }
    facts = adapted(claims(failed))
    assert facts.failures == ("code.unknown", "tpm.quote.nonce")
    assert decide(facts, POLICY).reasons == ("code.unknown", "tpm.quote.nonce")


def test_what_no_submodule_states_is_unknown() -> None:
    facts = adapted(claims({"other": TPM}))
    assert (facts.baseline, facts.code, facts.environment) == ("unknown", "unknown", "unknown")
    assert decide(facts, POLICY).reasons == ("code.unknown", "environment.unknown")


def test_binding_needs_an_appraised_gpu() -> None:
    with_gpu = {"tpm": TPM, "workload": WORKLOAD, "gpu0": TPM}
    assert adapted(claims(with_gpu)).binding == 1
    assert adapted(claims(with_gpu, binding="L4")).binding == 4
    assert adapted(claims(binding="L4")).binding == 0


def test_a_named_check_passes_only_where_it_passed_everywhere() -> None:
    def outcomes(*words: str) -> tuple[str, ...]:
        submods = {f"gpu{i}": appraisal(Check(name="gpu", outcome=word)) for i, word in enumerate(words)}
        return adapted(claims({"tpm": TPM, "workload": WORKLOAD, **submods})).passed

    assert outcomes("pass") == outcomes("pass", "pass") == ("gpu",)
    assert outcomes() == outcomes("not-run") == outcomes("n/a") == outcomes("pass", "not-run") == ()


def test_checks_of_other_names_are_no_named_checks() -> None:
    others = appraisal(Check(name="tpm.quote", outcome=ear.PASS), Check(name="tpm.ima", outcome=ear.PASS))
    assert adapted(claims({"tpm": others, "workload": WORKLOAD})).passed == ("ima",)
