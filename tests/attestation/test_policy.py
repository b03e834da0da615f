"""The policy wrapper fails closed: what it refuses to compile, and what it never lets through."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.policy import BANKS, CHECKS, Policy, PolicyBundle, Principal, Resource, Settings, read_rules

SCHEMA = """
entity Submitter = { tenant: String, roles: Set<String> };
entity Node = { pool: String };
action run, renew appliesTo {
  principal: [Submitter], resource: [Node], context: { gpus: Long, flag: Bool, secrets: Set<String> }
};
"""
PERMIT = '@id("may") permit (principal, action, resource) when { principal.roles.contains("trainer") };'
FORBID = '@id("big") @reason("limit.gpus") @fix("Ask for less.") forbid (principal, action, resource) '
BIG = FORBID + "when { context.gpus > 8 };"
OVERFLOW = FORBID + "when { context.gpus * 9223372036854775807 > 3 };"
PROTECTED = (
    '@id("protected.lab") @reason("trust.pool") @fix("Ask elsewhere.") @halt("hard")\n'
    'forbid (principal, action, resource) when { resource.pool == "forbidden" };\n'
)
SETTINGS = Settings(pcrs=(0, 7), checks=dict.fromkeys(CHECKS, "unchecked"))

WHO = Principal("ab" * 32, "vision", ("trainer",))
WHERE = Resource("node-1", "training")
ILL_TYPED: Any = WHO  # for what the type checker would not let through
ILL_PLACED: Any = WHERE
CONTEXT: Mapping[str, object] = {"gpus": 1, "flag": False, "secrets": []}


def bundle(
    operator: str = PERMIT, *, protected: str = PROTECTED, pin: bytes | None = None, **more: Any
) -> PolicyBundle:
    return PolicyBundle(
        operator=operator,
        protected=protected,
        schema=more.pop("schema", SCHEMA),
        settings=replace(SETTINGS, **more),
        protected_pin=hashlib.sha256(protected.encode()).digest() if pin is None else pin,
    )


def annotated(annotations: str, body: str = "forbid (principal, action, resource) when { context.flag };") -> str:
    return f"{PERMIT}\n{annotations} {body}"


FORBID_ALL = "forbid (principal, action, resource);"
OK = '@reason("limit.x") @fix("Ask.")'

REFUSED: dict[str, tuple[PolicyBundle, str]] = {
    "operator text does not parse": (bundle("permit (principal"), "policy.parse"),
    "protected text does not parse": (bundle(protected="forbid ("), "policy.parse"),
    "misspelt keyword": (bundle(PERMIT.replace("when", "whn")), "policy.parse"),
    "annotation twice": (bundle(annotated(f'@id("a") @id("b") {OK}')), "policy.parse"),
    "schema does not parse": (bundle(schema="entity"), "policy.schema"),
    "schema is empty": (bundle(schema=""), "policy.schema"),
    "unknown attribute": (bundle(PERMIT.replace("roles", "rols")), "policy.schema"),
    "unknown attribute in a protected policy": (
        bundle(protected=PROTECTED.replace("resource.pool", "resource.pol")),
        "policy.schema",
    ),
    "wrong type": (bundle(FORBID + 'when { context.gpus == "8" };' + PERMIT), "policy.schema"),
    "unknown action": (bundle(PERMIT.replace("action,", 'action == Action::"walk",')), "policy.schema"),
    "unknown entity type": (bundle(PERMIT.replace("principal,", "principal is Person,")), "policy.schema"),
    "has hides a misspelt attribute": (
        bundle(PERMIT + FORBID + "when { context has gpu && context.gpu > 8 };"),
        "policy.attribute",
    ),
    "has deep inside": (
        bundle(PERMIT + FORBID + "unless { [1, 2].contains(if context has gpus then 1 else 3) };"),
        "policy.attribute",
    ),
    "template": (bundle(PERMIT + "permit (principal == ?principal, action, resource);"), "policy.template"),
    "forbid template": (
        bundle(PERMIT + FORBID.replace("principal,", "principal == ?principal,") + ";"),
        "policy.template",
    ),
    "no id": (bundle(annotated(OK)), "policy.id"),
    "empty id": (bundle(annotated(f"@id {OK}")), "policy.id"),
    "id in capitals": (bundle(annotated(f'@id("Big") {OK}')), "policy.id"),
    "id with a space": (bundle(annotated(f'@id("a b") {OK}')), "policy.id"),
    "id with a newline": (bundle(annotated(f'@id("a\\n") {OK}')), "policy.id"),
    "id twice": (bundle(PERMIT + BIG + BIG), "policy.id"),
    "id twice, once protected": (bundle(PERMIT + BIG.replace('"big"', '"protected.lab"')), "policy.id"),
    "permit among the protected": (bundle(protected=PERMIT.replace("may", "sneak")), "policy.protected"),
    "no policy": (bundle(""), "policy.empty"),
    "no permit": (bundle(BIG), "policy.empty"),
    "protected text changed": (bundle(pin=hashlib.sha256(b"").digest()), "policy.pin"),
    "protected text emptied": (
        bundle(protected="", pin=hashlib.sha256(PROTECTED.encode()).digest()),
        "policy.pin",
    ),
    "forbid without reason": (bundle(annotated('@id("a") @fix("Ask.")')), "policy.annotation"),
    "forbid without fix": (bundle(annotated('@id("a") @reason("limit.x")')), "policy.annotation"),
    "forbid with a blank fix": (bundle(annotated('@id("a") @reason("limit.x") @fix(" ")')), "policy.annotation"),
    "forbid with a fix of two lines": (
        bundle(annotated('@id("a") @reason("limit.x") @fix("Ask.\\nBeg.")')),
        "policy.annotation",
    ),
    "protected forbid without fix": (
        bundle(protected=f'@id("p") @reason("trust.x") {FORBID_ALL}'),
        "policy.annotation",
    ),
    "unknown annotation": (bundle(annotated(f'@id("a") {OK} @hlat("hard")')), "policy.annotation"),
    "unknown class of halt": (bundle(annotated(f'@id("a") {OK} @halt("soft")')), "policy.annotation"),
    "permit with a reason": (bundle('@reason("authz.ok") ' + PERMIT), "policy.annotation"),
    "permit with a fix": (bundle('@fix("None.") ' + PERMIT), "policy.annotation"),
    "permit with a halt": (bundle('@halt("hard") ' + PERMIT), "policy.annotation"),
    "reason of no family": (bundle(annotated('@id("a") @reason("tpm.quote") @fix("Ask.")')), "policy.reason"),
    "reason of another policy": (
        bundle(annotated('@id("a") @reason("policy.forbid.b") @fix("Ask.")')),
        "policy.reason",
    ),
    "reason that only looks like a family": (
        bundle(annotated('@id("a") @reason("limits.x") @fix("Ask.")')),
        "policy.reason",
    ),
    "reason with a space": (bundle(annotated('@id("a") @reason("limit.a b") @fix("Ask.")')), "policy.reason"),
    "right-to-left override": (bundle(PERMIT + "// \u202e trainer"), "policy.text"),
    "zero-width space": (bundle(protected=PROTECTED + "// \u200b"), "policy.text"),
    "carriage return": (bundle(schema=SCHEMA + "\r"), "policy.text"),
    "line separator": (bundle(PERMIT + "// \u2028" + FORBID_ALL), "policy.text"),
    "lease too short": (bundle(lease_seconds=9), "wire.range"),
    "lease too long": (bundle(lease_seconds=301), "wire.range"),
    "hold too long": (bundle(hold_seconds=86_401), "wire.range"),
    "bank of no known hash": (bundle(bank=4), "policy.settings"),
    "no PCR": (bundle(pcrs=()), "policy.settings"),
    "PCR beyond 23": (bundle(pcrs=(24,)), "wire.range"),
    "PCRs out of order": (bundle(pcrs=(7, 0)), "wire.order"),
    "check left unnamed": (bundle(checks=dict.fromkeys(CHECKS[1:], "unchecked")), "policy.settings"),
    "no check named": (bundle(checks={}), "policy.settings"),
    "check that nobody knows": (
        bundle(checks={**dict.fromkeys(CHECKS, "unchecked"), "phase-of-moon": "required"}),
        "policy.settings",
    ),
    "check with another word": (bundle(checks=dict.fromkeys(CHECKS, "off")), "policy.settings"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_to_compile(name: str) -> None:
    refused, reason = REFUSED[name]
    with pytest.raises(InterlockError) as caught:
        Policy(refused)
    assert caught.value.reason == reason
    assert isinstance(caught.value, Untrusted) == (reason == "policy.pin")


def test_refuses_a_family_without_a_registered_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attestation.policy.FAMILIES", ("nowhere.", "trust."))
    with pytest.raises(Malformed) as caught:
        Policy(bundle(annotated('@id("a") @reason("nowhere.x") @fix("Ask.")')))
    assert caught.value.reason == "policy.reason"


def test_a_schema_error_names_the_policy() -> None:
    with pytest.raises(Malformed, match=r"may: .*rols"):
        Policy(bundle(PERMIT.replace("roles", "rols")))


def test_bundle_has_one_encoding_and_a_digest() -> None:
    made = bundle()
    assert PolicyBundle.from_bytes(made.to_bytes()) == made
    assert made.digest == hashlib.sha256(made.to_bytes()).digest()
    assert Policy.from_bytes(made.to_bytes()).digest == made.digest
    with pytest.raises(Malformed):
        Policy.from_bytes(made.to_bytes() + b"\0")


@pytest.mark.parametrize(
    "other",
    [
        bundle(PERMIT + BIG),
        bundle(protected=PROTECTED + "\n"),
        bundle(schema=SCHEMA + "\n"),
        bundle(lease_seconds=31),
        bundle(checks={**SETTINGS.checks, "ima": "required"}),
    ],
)
def test_digest_covers_everything(other: PolicyBundle) -> None:
    assert Policy(other).digest != Policy(bundle()).digest


def test_labels_are_for_ever() -> None:
    assert [row[:2] for row in Settings.layout()] == [
        (1, "lease_seconds"),
        (2, "hold_seconds"),
        (3, "bank"),
        (4, "pcrs"),
        (5, "checks"),
    ]
    assert [row[:2] for row in PolicyBundle.layout()] == [
        (1, "operator"),
        (2, "protected"),
        (3, "schema"),
        (4, "settings"),
        (5, "protected_pin"),
    ]


FULL: dict[str, dict[str, int]] = {
    "operator": {"operator": 1 << 18},
    "protected": {"protected": 1 << 18},
    "schema": {"schema": 1 << 16},
    "all": {"operator": 1 << 18, "protected": 1 << 18, "schema": 1 << 16},
}


@pytest.mark.parametrize("name", FULL)
def test_texts_may_be_so_long_and_no_longer(name: str) -> None:
    texts: dict[str, Any] = {field: " " * size for field, size in FULL[name].items()}
    full = replace(bundle(), **texts)
    assert PolicyBundle.from_bytes(full.to_bytes()) == full
    for field, size in FULL[name].items():
        over: Any = {field: " " * (size + 1)}
        with pytest.raises(Malformed) as caught:
            PolicyBundle.from_bytes(replace(full, **over).to_bytes())
        assert caught.value.reason == "wire.size"


@pytest.mark.parametrize(
    "changes", [{"lease_seconds": 10}, {"lease_seconds": 300}, {"hold_seconds": 86_400}, {"hold_seconds": 0}]
)
def test_durations_within_bounds(changes: dict[str, Any]) -> None:
    made = bundle(**changes)
    assert Policy(made).bundle == made


@pytest.mark.parametrize(("name", "number"), [("sha256", 0x000B), ("sha384", 0x000C)])
def test_banks_have_their_tpm_alg_id(name: str, number: int) -> None:
    assert BANKS[name] == number
    assert Policy(bundle(bank=number)).settings.bank == number


@pytest.mark.parametrize(("size", "reason"), [(2**20, "cbor.not-deterministic"), (2**20 + 1, "cbor.size")])
def test_a_bundle_is_at_most_a_mebibyte(size: int, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        PolicyBundle.from_bytes(bytes(size))
    assert caught.value.reason == reason


def test_all_pcrs_may_be_asked_for() -> None:
    assert Policy(bundle(pcrs=tuple(range(24)))).settings.pcrs == tuple(range(24))


def test_settings_split_checks() -> None:
    mixed = replace(SETTINGS, checks={**SETTINGS.checks, "ima": "required", "event-log": "required"})
    assert mixed.required == ("event-log", "ima")
    assert mixed.unchecked == ("ek-revocation", "gpu")


def test_defaults() -> None:
    assert (SETTINGS.lease_seconds, SETTINGS.hold_seconds, SETTINGS.bank) == (30, 900, 0x000B)


def test_rules_are_read_with_their_annotations() -> None:
    (rule,) = read_rules(PROTECTED)
    assert (rule.id, rule.permits, rule.reason, rule.fix, rule.hard) == (
        "protected.lab",
        False,
        "trust.pool",
        "Ask elsewhere.",
        True,
    )


# ---- evaluation ----------------------------------------------------------------------------------------------------


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
