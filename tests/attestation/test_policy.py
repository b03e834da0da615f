"""What the policy wrapper refuses to compile, and the bundle's one encoding."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.gpu.policy import Expected, GpuAnchor, GpuPolicy
from attestation.log import Record
from attestation.policy import BANKS, CHECKS, Policy, PolicyBundle, Settings, read_rules
from attestation.problem import Denial, Refusal
from tests.attestation.policies import (
    BIG,
    CONTEXT,
    FORBID,
    PERMIT,
    PROTECTED,
    SCHEMA,
    SETTINGS,
    WHERE,
    WHO,
    annotated,
    bundle,
)

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
    "id longer than a record has room for": (bundle(annotated(f'@id("{"a" * 65}") {OK}')), "policy.id"),
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
    "forbid with a fix that moves the cursor": (
        bundle(annotated('@id("a") @reason("limit.x") @fix("Ask.\\u{1b}[2J")')),
        "policy.annotation",
    ),
    "forbid with a fix longer than a denial has room for": (
        bundle(annotated(f'@id("a") @reason("limit.x") @fix("{"x" * 513}")')),
        "policy.annotation",
    ),
    "more policies than a record has room for": (
        bundle(PERMIT + "".join(BIG.replace('"big"', f'"big.{n}"') for n in range(127))),
        "policy.many",
    ),
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


ANCHOR = GpuAnchor(name="root", certificate=b"DER", use="device", assurance="test")
GPU = GpuPolicy(
    anchors=(ANCHOR, replace(ANCHOR, name="RIM root", use="rim")),
    expected=(Expected(pool="lab", gpus=8, switches=4, mode="ppcie"),),
    minimum_driver="",
    minimum_vbios={},
    denied_drivers=(),
    denied_vbios=(),
    denied_devices=(),
    rim_pins={},
    superseded_rims=(),
    revocation={"hold": "deny", "missing": "deny", "stale": "warn", "unknown": "deny"},
    stale_seconds=0,
)


def test_the_demands_on_gpus_are_part_of_the_policy() -> None:
    made = replace(bundle(), gpu=GPU)
    assert Policy.from_bytes(made.to_bytes()).gpu == GPU
    assert Policy(bundle()).gpu is None


@pytest.mark.parametrize(
    "other",
    [
        bundle(PERMIT + BIG),
        bundle(protected=PROTECTED + "\n"),
        bundle(schema=SCHEMA + "\n"),
        bundle(lease_seconds=31),
        bundle(checks={**SETTINGS.checks, "ima": "required"}),
        replace(bundle(), gpu=GPU),
        replace(bundle(), gpu=replace(GPU, denied_drivers=("550.90.07",))),
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
        (6, "gpu"),
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
    assert mixed.unchecked == ("ek-revocation", "gpu", "tpm-lease")


def test_defaults() -> None:
    assert (SETTINGS.lease_seconds, SETTINGS.hold_seconds, SETTINGS.bank) == (30, 900, 0x000B)


def test_the_longest_policies_fit_into_a_record_and_a_denial() -> None:
    fix, ids = "x" * 512, [f"{'a' * 61}{n:03}" for n in range(126)]
    forbids = (f'@id("{i}") @reason("policy.forbid.{i}") @fix("{fix}") {FORBID_ALL}' for i in ids)
    policy = Policy(bundle(PERMIT + "".join(forbids)))
    verdict = policy.evaluate(WHO, WHERE, CONTEXT)
    record = Record(
        kind="decision", time=1, outcome="deny", reasons=verdict.reasons, determining=verdict.determining, digests={}
    )
    assert len(Record.from_bytes(record.to_bytes()).determining) == len(ids)
    refusals = tuple(Refusal.of(code, fix=told) for code, told in policy.advice(verdict.reasons, verdict.determining))
    denial = Denial(record=record.to_bytes(), receipt=b"", klass="drain", reasons=refusals)
    assert Denial.from_bytes(denial.to_bytes()) == denial


def test_rules_are_read_with_their_annotations() -> None:
    (rule,) = read_rules(PROTECTED)
    assert (rule.id, rule.permits, rule.reason, rule.fix, rule.hard) == (
        "protected.lab",
        False,
        "trust.pool",
        "Ask elsewhere.",
        True,
    )


CHANGED_QUESTIONS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "the same": (WHO, WHERE, {}),
    "more GPUs": (WHO, WHERE, {"gpus": 9}),
    "true for one": (WHO, WHERE, {"gpus": True}),
    "text for a number": (WHO, WHERE, {"gpus": "1"}),
    "an attribute more": (WHO, WHERE, {"more": 1}),
    "another pool": (WHO, WHERE._replace(pool="lab2"), {}),
    "another node": (WHO, WHERE._replace(id="other"), {}),
    "other roles": (WHO._replace(roles=()), WHERE, {}),
    "another tenant": (WHO._replace(tenant="other"), WHERE, {}),
    "another person": (WHO._replace(id="ff" * 32), WHERE, {}),
    "what is no JSON": (WHO, WHERE, {"gpus": b"1"}),
}


def test_a_renewal_gets_the_answer_of_its_own_question() -> None:
    """Each after each of the others, so that what is remembered of one would be noticed in another."""
    policy = Policy(bundle(PERMIT + FORBID + "when { context.gpus > 8 };"))
    for first in CHANGED_QUESTIONS.values():
        for who, where, changes in (first, *CHANGED_QUESTIONS.values()):
            asked = who, where, {**CONTEXT, **changes}
            fresh = Policy(policy.bundle).evaluate(*asked, action="renew")
            assert policy.evaluate(*asked, action="renew") == fresh
            assert policy.evaluate(*asked, action="run").reasons == fresh.reasons


def test_actions_are_told_apart() -> None:
    policy = Policy(bundle(PERMIT + FORBID.replace("action", 'action == Action::"renew"') + ";"))
    for _ in range(2):
        assert policy.evaluate(WHO, WHERE, CONTEXT, action="run").allow
        assert not policy.evaluate(WHO, WHERE, CONTEXT, action="renew").allow
        assert policy.evaluate(WHO, WHERE, CONTEXT, action="walk").reasons == ("policy.error",)
