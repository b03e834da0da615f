"""Decide is pure, fails closed, and says why; each rule has a case that fails when the rule is removed."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation import claims as ear
from attestation.claims import Appraisal, Check, Claims, VerifierId
from attestation.decision import Decision, Facts, Usage, context_of, decide, facts_from
from attestation.errors import Malformed
from attestation.intent import Children, GpuRequest, Intent, Limits
from attestation.node import NodeRecord, Submitter
from attestation.policy import CHECKS, Policy, PolicyBundle, Settings
from attestation.wire import Wire

ROOT = Path(__file__).parents[2]
SCHEMA = (ROOT / "policies" / "schema.cedarschema").read_text()
OPERATOR = """
@id("may") permit (principal, action, resource) when { principal.roles.contains("trainer") };
@id("gpus") @reason("limit.gpus") @fix("Ask for less.")
forbid (principal, action == Action::"run", resource) when { context.gpus > 8 };
"""
PROTECTED = """
@id("roots") @reason("trust.assurance") @fix("Use genuine hardware.") @halt("hard")
forbid (principal, action, resource) when { context.assurance != "hardware" };
"""


def policy(operator: str = OPERATOR, **checks: str) -> Policy:
    named = dict.fromkeys(CHECKS, "unchecked") | {name.replace("_", "-"): word for name, word in checks.items()}
    pin = hashlib.sha256(PROTECTED.encode()).digest()
    made = Settings(pcrs=(0,), checks=named)
    return Policy(PolicyBundle(operator=operator, protected=PROTECTED, schema=SCHEMA, settings=made, protected_pin=pin))


def forbid(name: str, condition: str) -> str:
    says = f'@id("{name}") @reason("policy.forbid.{name}") @fix("Do not.")'
    return f"{says} forbid (principal, action, resource) when {{ {condition} }};"


POLICY = policy()
USAGE = Usage(submitter_jobs=1, tenant_jobs=2, node_jobs=3, gpu_seconds=4)
FACTS = Facts(
    affirming=True,
    submitter="ab" * 32,
    submitter_state="active",
    submitter_tenant="vision",
    roles=("trainer",),
    tenant="vision",
    node="node-1",
    node_state="active",
    pool="training",
    baseline="active",
    code="active",
    environment="active",
    assurance="hardware",
    binding=0,
    hour=12,
    weekday=2,
    gpus=0,
    gpu_memory_mb=0,
    seconds=3600,
    memory_mb=1024,
    processes=16,
    renewals=100,
    secrets=(),
    children_depth=0,
    children_count=0,
    usage=USAGE,
)

DENIED: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "claims fail": (
        {"affirming": False, "failures": ("tpm.pcr.mismatch", "tpm.quote.nonce")},
        ("tpm.pcr.mismatch", "tpm.quote.nonce"),
        "hard",
    ),
    "claims affirm nothing and name nothing": ({"affirming": False}, ("claims.unproven",), "hard"),
    "claims affirm and fail": ({"failures": ("tpm.clock.safe",)}, ("tpm.clock.safe",), "hard"),
    "reference retired": ({"affirming": False, "failures": ("ref.retired",)}, ("ref.retired",), "drain"),
    "reference expired": ({"affirming": False, "failures": ("ref.expired",)}, ("ref.expired",), "drain"),
    "reference pending": ({"affirming": False, "failures": ("ref.pending",)}, ("ref.pending",), "drain"),
    "reference revoked": ({"affirming": False, "failures": ("ref.revoked",)}, ("ref.revoked",), "hard"),
    "submitter unknown": ({"submitter_state": "unknown", "submitter_tenant": ""}, ("authz.submitter",), "drain"),
    "submitter disabled": ({"submitter_state": "disabled"}, ("authz.submitter",), "drain"),
    "submitter in no known state": ({"submitter_state": "Active"}, ("authz.submitter",), "drain"),
    "another tenant": ({"tenant": "speech"}, ("authz.tenant",), "drain"),
    "no tenant": ({"tenant": ""}, ("authz.tenant",), "drain"),
    "node pending": ({"node_state": "pending"}, ("node.pending",), "drain"),
    "node quarantined": ({"node_state": "quarantined"}, ("node.quarantined",), "hard"),
    "node retired": ({"node_state": "retired"}, ("node.retired",), "drain"),
    "node in no known state": ({"node_state": "ACTIVE"}, ("node.unknown",), "hard"),
    "code unknown": ({"code": "unknown"}, ("code.unknown",), "hard"),
    "code pending": ({"code": "pending"}, ("code.pending",), "hard"),
    "code retired": ({"code": "retired"}, ("code.retired",), "drain"),
    "code revoked": ({"code": "revoked"}, ("code.revoked",), "hard"),
    "code in no known state": ({"code": ""}, ("code.unknown",), "hard"),
    "environment unknown": ({"environment": "unknown"}, ("environment.unknown",), "hard"),
    "environment pending": ({"environment": "pending"}, ("environment.pending",), "hard"),
    "environment retired": ({"environment": "retired"}, ("environment.retired",), "drain"),
    "environment revoked": ({"environment": "revoked"}, ("environment.revoked",), "hard"),
    "two drains stay a drain": (
        {"code": "retired", "node_state": "retired"},
        ("code.retired", "node.retired"),
        "drain",
    ),
    "one hard reason makes it hard": (
        {"code": "revoked", "node_state": "retired"},
        ("code.revoked", "node.retired"),
        "hard",
    ),
    "everything at once, sorted": (
        {
            "failures": ("tpm.quote.nonce",),
            "submitter_state": "disabled",
            "tenant": "speech",
            "node_state": "quarantined",
            "code": "unknown",
            "environment": "revoked",
        },
        ("authz.submitter", "code.unknown", "environment.revoked", "node.quarantined", "tpm.quote.nonce"),
        "hard",
    ),
}


@pytest.mark.parametrize("name", DENIED)
def test_rules_that_no_policy_overrides(name: str) -> None:
    changes, reasons, denial = DENIED[name]
    decision = decide(replace(FACTS, **changes), policy('@id("all") permit (principal, action, resource);'))
    assert (decision.allow, decision.reasons, decision.determining) == (False, reasons, ())
    assert decision.denial == denial


def test_allows() -> None:
    assert decide(FACTS, POLICY) == Decision(
        allow=True,
        reasons=(),
        determining=("may",),
        unchecked=tuple(sorted(CHECKS)),
        denial="none",
        policy=POLICY.digest,
    )


@pytest.mark.parametrize("kind", ["baseline", "code", "environment"])
def test_obsolete_is_left_to_the_policy(kind: str) -> None:
    changes: dict[str, Any] = {kind: "obsolete"}
    obsolete = replace(FACTS, **changes)
    assert decide(obsolete, POLICY).allow
    never = forbid("old", f'context.{kind} == "obsolete"')
    assert decide(obsolete, policy(OPERATOR + never)).reasons == ("policy.forbid.old",)
    assert decide(FACTS, policy(OPERATOR + never)).allow


@pytest.mark.parametrize("check", CHECKS)
def test_a_required_check_must_have_passed(check: str) -> None:
    strict = policy(**{check: "required"})
    denied = decide(FACTS, strict)
    assert denied.reasons == (f"policy.required.{check}",)
    assert denied.denial == "drain"
    assert denied.unchecked == tuple(sorted(set(CHECKS) - {check}))
    others = tuple(name for name in CHECKS if name != check)
    assert not decide(replace(FACTS, passed=others), strict).allow
    assert decide(replace(FACTS, passed=(check,)), strict).allow


def test_cedar_denials_have_their_class() -> None:
    drained = decide(replace(FACTS, gpus=9), POLICY)
    assert (drained.reasons, drained.determining, drained.denial) == (("limit.gpus",), ("gpus",), "drain")
    hard = decide(replace(FACTS, assurance="test"), POLICY)
    assert (hard.reasons, hard.determining, hard.denial) == (("trust.assurance",), ("roots",), "hard")
    nobody = decide(replace(FACTS, roles=()), POLICY)
    assert (nobody.reasons, nobody.determining, nobody.denial) == (("policy.no-permit",), (), "drain")


def test_a_policy_that_errors_denies() -> None:
    overflow = forbid("overflow", "context.gpus * 9223372036854775807 > 3")
    decision = decide(replace(FACTS, gpus=2), policy(OPERATOR + overflow))
    assert (decision.allow, decision.reasons, decision.denial) == (False, ("policy.error",), "drain")


def test_renewal_is_another_action() -> None:
    big = replace(FACTS, gpus=9)
    assert not decide(big, POLICY).allow
    assert decide(replace(big, action="renew"), POLICY).allow
    assert decide(replace(big, action="walk"), POLICY).reasons == ("policy.error",)


SEEN: dict[str, tuple[dict[str, Any], str]] = {
    "tenant": ({"submitter_tenant": "speech", "tenant": "speech"}, 'principal.tenant == "speech"'),
    "submitter": ({"submitter": "cd"}, 'principal == Submitter::"cd"'),
    "node": ({"node": "node-2"}, 'resource == Node::"node-2"'),
    "pool": ({"pool": "shared"}, 'resource.pool == "shared"'),
    "roles": ({"roles": ("night", "trainer")}, 'principal.roles.contains("night")'),
    "binding": ({"binding": 2}, "context.binding == 2"),
    "hour": ({"hour": 23}, "context.hour == 23"),
    "weekday": ({"weekday": 6}, "context.weekday == 6"),
    "gpus": ({"gpus": 1}, "context.gpus == 1"),
    "gpu_memory_mb": ({"gpu_memory_mb": 80_000}, "context.gpu_memory_mb == 80000"),
    "seconds": ({"seconds": 60}, "context.seconds == 60"),
    "memory_mb": ({"memory_mb": 7}, "context.memory_mb == 7"),
    "processes": ({"processes": 7}, "context.processes == 7"),
    "renewals": ({"renewals": 7}, "context.renewals == 7"),
    "secrets": ({"secrets": ("key",)}, 'context.secrets.contains("key")'),
    "children_depth": ({"children_depth": 1}, "context.children_depth == 1"),
    "children_count": ({"children_count": 1}, "context.children_count == 1"),
    "submitter_jobs": ({"usage": replace(USAGE, submitter_jobs=9)}, "context.submitter_jobs == 9"),
    "tenant_jobs": ({"usage": replace(USAGE, tenant_jobs=9)}, "context.tenant_jobs == 9"),
    "node_jobs": ({"usage": replace(USAGE, node_jobs=9)}, "context.node_jobs == 9"),
    "gpu_seconds_used": ({"usage": replace(USAGE, gpu_seconds=9)}, "context.gpu_seconds_used == 9"),
    "gpu_seconds_requested": ({"gpus": 2, "seconds": 60}, "context.gpu_seconds_requested == 120"),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_policy_sees(name: str) -> None:
    changes, condition = SEEN[name]
    sighted = policy(OPERATOR + forbid("seen", condition))
    assert decide(FACTS, sighted).allow
    assert decide(replace(FACTS, **changes), sighted).reasons == ("policy.forbid.seen",)


def test_the_context_has_no_more_than_the_schema() -> None:
    assert all(f"    {name}:" in SCHEMA for name in context_of(FACTS))


# ---- encodings -----------------------------------------------------------------------------------------------------


def test_facts_and_decisions_have_one_encoding() -> None:
    assert Facts.from_bytes(FACTS.to_bytes()) == FACTS
    for decision in (decide(FACTS, POLICY), decide(replace(FACTS, code="unknown"), POLICY)):
        assert Decision.from_bytes(decision.to_bytes()) == decision


@pytest.mark.parametrize(
    "changes",
    [
        {"reasons": ("limit.x",)},
        {"denial": "drain"},
        {"denial": "soft"},
        {"allow": False},
        {"allow": False, "reasons": ("limit.x",)},
        {"allow": False, "denial": "hard"},
        {"allow": False, "reasons": ("limit.x",), "denial": "soft"},
        {"allow": False, "reasons": ("limit.x",), "denial": ""},
        {"reasons": ("limit.x",), "denial": "hard"},
    ],
)
def test_a_decision_that_contradicts_itself_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as caught:
        Decision.from_bytes(replace(decide(FACTS, POLICY), **changes).to_bytes())
    assert caught.value.reason == "decision.contradiction"


LABELS = {
    Usage: "submitter_jobs tenant_jobs node_jobs gpu_seconds",
    Decision: "allow reasons determining unchecked denial policy",
    Facts: "action affirming failures passed submitter submitter_state submitter_tenant roles tenant node node_state"
    " pool baseline code environment assurance binding hour weekday gpus gpu_memory_mb seconds memory_mb processes"
    " renewals secrets children_depth children_count usage",
}


@pytest.mark.parametrize("format_", LABELS)
def test_labels_are_for_ever(format_: type[Wire]) -> None:
    assert [row[:2] for row in format_.layout()] == list(enumerate(LABELS[format_].split(), start=1))


TEXTS = {
    **dict.fromkeys(("action", "submitter_state", "node_state", "baseline", "code", "environment", "assurance"), 16),
    **dict.fromkeys(("submitter", "submitter_tenant", "tenant", "node", "pool"), 128),
}
SETS = {"failures": 128, "passed": 64, "roles": 128, "secrets": 256}
NUMBERS = {"binding": 4, "hour": 23, "weekday": 6}
RESULTS = {"reasons": 128, "determining": 1024, "unchecked": 64}


def many(count: int) -> tuple[str, ...]:
    return tuple(f"{n:05}" for n in range(count))


FITS: dict[str, dict[str, Any]] = {
    **{f"{name} in full": {name: "x" * most} for name, most in TEXTS.items() if name != "action"},
    **{f"{name} in full": {name: many(most)} for name, most in SETS.items()},
    **{f"{name} at most": {name: most} for name, most in NUMBERS.items()},
}
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    **{f"{name} too long": ({name: "x" * (most + 1)}, "wire.size") for name, most in TEXTS.items()},
    **{f"{name} too many": ({name: many(most + 1)}, "wire.size") for name, most in SETS.items()},
    **{f"{name} unordered": ({name: ("b", "a")}, "wire.order") for name in SETS},
    **{f"{name} repeated": ({name: ("a", "a")}, "wire.order") for name in SETS},
    **{f"{name} too large": ({name: most + 1}, "wire.range") for name, most in NUMBERS.items()},
    **{f"{name} negative": ({name: -1}, "wire.range") for name in (*NUMBERS, "gpus", "seconds")},
}


@pytest.mark.parametrize("name", FITS)
def test_facts_within_bounds(name: str) -> None:
    facts = replace(FACTS, **FITS[name])
    assert Facts.from_bytes(facts.to_bytes()) == facts


@pytest.mark.parametrize("name", UNFIT)
def test_facts_out_of_bounds_are_malformed(name: str) -> None:
    changes, reason = UNFIT[name]
    with pytest.raises(Malformed) as caught:
        Facts.from_bytes(replace(FACTS, **changes).to_bytes())
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", RESULTS)
def test_bounds_of_a_decision(name: str) -> None:
    denied = replace(decide(FACTS, POLICY), allow=False, reasons=("limit.x",), denial="drain")
    full: dict[str, Any] = {name: many(RESULTS[name])}
    assert Decision.from_bytes(replace(denied, **full).to_bytes()) == replace(denied, **full)
    for value, reason in ((many(RESULTS[name] + 1), "wire.size"), (("b", "a"), "wire.order")):
        beyond: dict[str, Any] = {name: value}
        with pytest.raises(Malformed) as caught:
            Decision.from_bytes(replace(denied, **beyond).to_bytes())
        assert caught.value.reason == reason


def test_a_class_of_denial_is_a_short_word() -> None:
    with pytest.raises(Malformed) as caught:
        Decision.from_bytes(replace(decide(FACTS, POLICY), denial="x" * 9).to_bytes())
    assert caught.value.reason == "wire.size"


def test_facts_of_another_action_are_malformed() -> None:
    with pytest.raises(Malformed) as caught:
        Facts.from_bytes(replace(FACTS, action="walk").to_bytes())
    assert caught.value.reason == "decision.action"


# ---- properties ----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["active", "obsolete", "pending", "retired", "revoked", "unknown", "quarantined", "disabled", ""]
)
NAMES = st.lists(st.text(max_size=6), max_size=4).map(lambda names: tuple(sorted(set(names))))
ANY_FACTS = st.builds(
    Facts,
    action=st.sampled_from(["run", "renew"]),
    affirming=st.booleans(),
    failures=st.just(()) | NAMES,
    passed=NAMES,
    submitter=st.text(max_size=8),
    submitter_state=WORDS,
    submitter_tenant=st.sampled_from(["a", "b"]),
    roles=st.just(("trainer",)) | NAMES,
    tenant=st.sampled_from(["a", "b"]),
    node=st.text(max_size=8),
    node_state=WORDS,
    pool=st.text(max_size=8),
    baseline=WORDS,
    code=WORDS,
    environment=WORDS,
    assurance=st.sampled_from(["hardware", "test", ""]),
    binding=st.integers(0, 4),
    hour=st.integers(0, 23),
    weekday=st.integers(0, 6),
    gpus=st.integers(0, 2**62),
    gpu_memory_mb=st.integers(0, 2**62),
    seconds=st.integers(0, 2**62),
    memory_mb=st.integers(0, 2**62),
    processes=st.integers(0, 2**62),
    renewals=st.integers(0, 2**62),
    secrets=NAMES,
    children_depth=st.integers(0, 16),
    children_count=st.integers(0, 4096),
    usage=st.builds(
        Usage,
        submitter_jobs=st.integers(0, 2**62),
        tenant_jobs=st.integers(0, 2**62),
        node_jobs=st.integers(0, 2**62),
        gpu_seconds=st.integers(0, 2**62),
    ),
)


@settings(max_examples=100, deadline=None)
@given(ANY_FACTS)
def test_same_facts_same_bytes_and_every_denial_is_explained(facts: Facts) -> None:
    decision = decide(facts, POLICY)
    again = decide(Facts.from_bytes(facts.to_bytes()), Policy.from_bytes(POLICY.bundle.to_bytes()))
    assert again.to_bytes() == decision.to_bytes()
    assert Decision.from_bytes(decision.to_bytes()) == decision
    if decision.allow:
        assert facts.affirming
        assert facts.submitter_state == facts.node_state == "active"
        assert facts.tenant == facts.submitter_tenant
        assert "trainer" in facts.roles


@settings(max_examples=25, deadline=None)
@given(st.permutations(["trainer", "night", "trainer", "a"]))
def test_order_and_repetition_of_roles_do_not_matter(roles: list[str]) -> None:
    assert decide(replace(FACTS, roles=tuple(roles)), POLICY) == decide(FACTS, POLICY)


# ---- the adapter ---------------------------------------------------------------------------------------------------


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
    argv=("train.py",),
    environment=bytes(32),
    environment_variables={},
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
    others = appraisal(Check(name="tpm.quote", outcome=ear.PASS), Check(name="ima", outcome=ear.PASS))
    assert adapted(claims({"tpm": others, "workload": WORKLOAD})).passed == ("ima",)
