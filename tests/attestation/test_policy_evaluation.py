"""What the policy wrapper never lets through, whatever it is asked."""

from dataclasses import replace
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import Malformed
from attestation.policy import Policy, Principal, Resource
from tests.attestation.policies import (
    BIG,
    CONTEXT,
    ILL_PLACED,
    ILL_TYPED,
    OVERFLOW,
    PERMIT,
    SCHEMA,
    WHERE,
    WHO,
    annotated,
    bundle,
)


def test_allows_and_names_the_permits_sorted() -> None:
    policy = Policy(bundle(PERMIT + PERMIT.replace("may", "also") + BIG))
    verdict = policy.evaluate(WHO, WHERE, CONTEXT)
    assert verdict.allow
    assert verdict.determining == ("also", "may")
    assert verdict.reasons == verdict.errors == ()


def test_one_forbid_overrides_permits() -> None:
    verdict = Policy(bundle(PERMIT + BIG)).evaluate(WHO, WHERE, {**CONTEXT, "gpus": 9})
    assert (verdict.allow, verdict.determining, verdict.reasons) == (False, ("big",), ("limit.gpus",))
    assert not verdict.hard


def test_all_forbids_are_told_and_one_hard_makes_it_hard() -> None:
    verdict = Policy(bundle(PERMIT + BIG)).evaluate(WHO, WHERE._replace(pool="forbidden"), {**CONTEXT, "gpus": 9})
    assert verdict.determining == ("big", "protected.lab")
    assert verdict.reasons == ("limit.gpus", "trust.pool")
    assert verdict.hard


def test_reasons_are_a_set() -> None:
    verdict = Policy(bundle(PERMIT + BIG + BIG.replace('"big"', '"huge"'))).evaluate(WHO, WHERE, {**CONTEXT, "gpus": 9})
    assert verdict.determining == ("big", "huge")
    assert verdict.reasons == ("limit.gpus",)


def test_nothing_permits() -> None:
    verdict = Policy(bundle()).evaluate(WHO._replace(roles=("guest",)), WHERE, CONTEXT)
    assert (verdict.allow, verdict.determining, verdict.reasons) == (False, (), ("policy.no-permit",))


def test_the_trap_a_forbid_that_errors_is_skipped_by_cedar() -> None:
    """With 2 GPUs the forbid overflows; Cedar alone would answer Allow, for the permit is all that is left."""
    policy = Policy(bundle(PERMIT + OVERFLOW))
    assert policy.evaluate(WHO, WHERE, {**CONTEXT, "gpus": 0}).allow
    verdict = policy.evaluate(WHO, WHERE, {**CONTEXT, "gpus": 2})
    assert (verdict.allow, verdict.determining, verdict.reasons) == (False, (), ("policy.error",))
    assert "overflow" in verdict.errors[0]


def test_a_permit_that_errors_denies_although_another_permits() -> None:
    broken = '@id("broken") permit (principal, action, resource) when { context.gpus * 9223372036854775807 > 3 };'
    assert Policy(bundle(PERMIT + broken)).evaluate(WHO, WHERE, {**CONTEXT, "gpus": 2}).reasons == ("policy.error",)


UNFIT: dict[str, dict[str, Any]] = {
    "attribute missing": {"context": {"gpus": 1, "flag": False}},
    "attribute unknown": {"context": {**CONTEXT, "extra": 1}},
    "context empty": {"context": {}},
    "string for a number": {"context": {**CONTEXT, "gpus": "1"}},
    "boolean for a number": {"context": {**CONTEXT, "gpus": True}},
    "number for a boolean": {"context": {**CONTEXT, "flag": 0}},
    "float": {"context": {**CONTEXT, "gpus": 1.5}},
    "not a number": {"context": {**CONTEXT, "gpus": float("nan")}},
    "null": {"context": {**CONTEXT, "gpus": None}},
    "beyond 64 bits": {"context": {**CONTEXT, "gpus": 2**63}},
    "beyond what prints": {"context": {**CONTEXT, "gpus": 10**5000}},
    "set of numbers": {"context": {**CONTEXT, "secrets": [1]}},
    "bytes": {"context": {**CONTEXT, "secrets": b"x"}},
    "entity smuggled in": {"context": {**CONTEXT, "secrets": [{"__entity": {"type": "Node", "id": "n"}}]}},
    "extension smuggled in": {"context": {**CONTEXT, "gpus": {"__extn": {"fn": "decimal", "arg": "1.0"}}}},
    "role that is no string": {"principal": ILL_TYPED._replace(roles=(1,))},
    "roles that are no tuple": {"principal": ILL_TYPED._replace(roles=["trainer"])},
    "tenant that is no string": {"principal": ILL_TYPED._replace(tenant=None)},
    "id that is no string": {"principal": ILL_TYPED._replace(id=3)},
    "lone surrogate": {"principal": WHO._replace(id="\ud800")},
    "pool that is no string": {"resource": ILL_PLACED._replace(pool=0)},
    "action unknown": {"action": "walk"},
    "action empty": {"action": ""},
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_request_that_does_not_fit_is_denied(name: str) -> None:
    asked: dict[str, Any] = {"principal": WHO, "resource": WHERE, "context": CONTEXT, "action": "run", **UNFIT[name]}
    verdict = Policy(bundle(PERMIT)).evaluate(
        asked["principal"], asked["resource"], asked["context"], action=asked["action"]
    )
    assert (verdict.allow, verdict.determining, verdict.reasons) == (False, (), ("policy.error",))
    assert verdict.errors


@pytest.mark.parametrize("decision", ["NoDecision", "Allow", "Deny"])
@pytest.mark.parametrize("errors", [[], ["engine trouble"]])
def test_no_decision_is_an_error_even_without_a_complaint(decision: str, errors: list[str]) -> None:
    answer = cedarpy.AuthzResult({"decision": decision, "diagnostics": {"errors": errors}})
    verdict = Policy(bundle())._verdict(answer)
    failed = decision == "NoDecision" or bool(errors)
    assert (verdict.reasons == ("policy.error",)) == failed
    assert verdict.allow == (decision == "Allow" and not failed)


def test_a_schema_that_knows_other_entities_denies() -> None:
    other = SCHEMA.replace("Submitter", "Person")
    policy = Policy(bundle('@id("may") permit (principal, action, resource);', schema=other))
    assert policy.evaluate(WHO, WHERE, CONTEXT).reasons == ("policy.error",)


def test_actions_are_told_apart() -> None:
    policy = Policy(bundle(PERMIT + BIG.replace("action,", 'action == Action::"run",')))
    big = {**CONTEXT, "gpus": 9}
    assert not policy.evaluate(WHO, WHERE, big).allow
    assert policy.evaluate(WHO, WHERE, big, action="renew").allow


def test_entities_of_one_request_do_not_leak_into_the_next() -> None:
    policy = Policy(bundle())
    guest = WHO._replace(roles=("guest",))
    verdicts = [policy.evaluate(who, WHERE, CONTEXT).allow for who in (WHO, guest, WHO, guest)]
    assert verdicts == [True, False, True, False]


def test_an_operator_comment_does_not_swallow_a_protected_policy() -> None:
    policy = Policy(bundle(PERMIT + "// the end"))
    assert not policy.evaluate(WHO, WHERE._replace(pool="forbidden"), CONTEXT).allow


# ---- advice --------------------------------------------------------------------------------------------------------


def test_advice_is_the_operators_where_a_policy_decided() -> None:
    policy = Policy(bundle(PERMIT + BIG + BIG.replace('"big"', '"huge"').replace("less", "8")))
    advice = policy.advice(("limit.gpus",), ("big", "huge"))
    assert advice == (("limit.gpus", "Ask for 8."), ("limit.gpus", "Ask for less."))


def test_advice_is_the_registrys_elsewhere() -> None:
    ((code, fix),) = Policy(bundle()).advice(("authz.tenant",), ())
    assert code == "authz.tenant"
    assert "tenant" in fix


def test_advice_on_an_allow_is_empty() -> None:
    assert Policy(bundle()).advice((), ("may",)) == ()


def test_advice_for_an_unknown_reason_is_our_bug() -> None:
    with pytest.raises(KeyError):
        Policy(bundle()).advice(("no.such.code",), ())


# ---- properties ----------------------------------------------------------------------------------------------------

POLICY_TEXTS = [
    PERMIT,
    PERMIT.replace("may", "also").replace("trainer", "evaluator"),
    BIG,
    OVERFLOW.replace('"big"', '"overflow"'),
    annotated('@id("flagged") @reason("policy.forbid.flagged") @fix("Unset it.")').removeprefix(PERMIT),
]


@settings(max_examples=50, deadline=None)
@given(
    order=st.permutations(POLICY_TEXTS),
    roles=st.lists(st.sampled_from(["trainer", "evaluator", "guest", "ü", '"'])),
    gpus=st.integers(0, 20),
    flag=st.booleans(),
    shuffle=st.randoms(use_true_random=False),
)
def test_order_of_policies_and_roles_does_not_matter(
    order: list[str], roles: list[str], gpus: int, flag: bool, shuffle: Any
) -> None:
    context = {**CONTEXT, "gpus": gpus, "flag": flag}
    mixed = list(roles)
    shuffle.shuffle(mixed)
    one = Policy(bundle("\n".join(POLICY_TEXTS))).evaluate(WHO._replace(roles=tuple(roles)), WHERE, context)
    two = Policy(bundle("\n".join(order))).evaluate(WHO._replace(roles=tuple(mixed)), WHERE, context)
    assert replace(one, errors=()) == replace(two, errors=())
    assert one.allow == (one.reasons == ())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
COMPILED = Policy(bundle(PERMIT + OVERFLOW))


@settings(max_examples=100, deadline=None)
@given(
    context=st.dictionaries(st.sampled_from([*CONTEXT, "extra"]), VALUES),
    id_=st.text(max_size=8),
    roles=st.lists(st.text(max_size=8)),
    action=st.sampled_from(["run", "renew", "walk", "\0"]),
)
def test_no_exception_escapes_and_every_denial_has_a_reason(
    context: dict[str, object], id_: str, roles: list[str], action: str
) -> None:
    verdict = COMPILED.evaluate(Principal(id_, "t", tuple(roles)), Resource(id_, id_), context, action=action)
    assert verdict.allow == (not verdict.reasons)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_hostile_texts_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Policy(bundle(BIG + text))
