"""Cedar behind a wrapper that fails closed: a PolicyBundle is archived, a Policy is compiled from it and evaluates.

A :class:`PolicyBundle` is the one encoding of everything that a decision depends on beside its facts: the operator's
policies, the protected policies with their pinned digest, the schema and the settings. Compiling refuses it unless

1.  it is the one encoding of itself, and its settings name every check as ``required`` or ``unchecked``;
2.  no text hides characters that a reviewer cannot see (controls, bidirectional overrides);
3.  the protected text has the pinned SHA-256;
4.  schema and policies parse, and there is no template (a template decides nothing until somebody links it);
5.  policies are valid under the schema, and none uses ``has``: every attribute of the schema is required, so that
    ``has`` could only hide a misspelt name and switch the policy off;
6.  every policy has an ``@id`` of 1 to 64 of ``a-z 0-9 . -``, all ids differ, and no annotation is unknown;
7.  the protected policies only forbid, and at least one operator policy permits;
8.  every ``forbid`` says ``@reason`` and ``@fix``; the reason is ``policy.forbid.<its id>`` or a registered code of the
    families in :data:`FAMILIES` (such as ``authz.role``). ``@halt("hard")`` makes its denial a hard one.
9.  there are no more policies, and no longer ids and fixes, than the log's records and denials have room for.

Evaluation denies unless Cedar allows without a single complaint:

1.  the schema is passed on every call, so that a request that does not fit is an error and not a surprise;
2.  any evaluation error, ``NoDecision`` or exception of the engine denies with ``policy.error``. Cedar *skips* a policy
    that errors, so a ``forbid`` that overflows would otherwise let the request through;
3.  one forbid overrides all permits; a denial without a forbid is ``policy.no-permit``;
4.  ids and reasons are sorted, so the same question has the same answer, byte for byte;
5.  so the answer to a renewal is remembered, and given again where the next renewal asks the very same: a host that
    runs on as it did. A new job never asks what the one before it did, because that one counts.

Semantics: Cedar policy language, https://docs.cedarpolicy.com (authorization, policy validation).
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import cedarpy

from attestation.errors import Malformed, Untrusted
from attestation.gpu.policy import GpuPolicy
from attestation.reasons import explain
from attestation.wire import Wire, label, wire

CHECKS = ("ek-revocation", "event-log", "gpu", "ima", "tpm-lease")
REQUIRED = "required"
UNCHECKED = "unchecked"
RENEW = "renew"
BANKS = {"sha256": 0x000B, "sha384": 0x000C}
FAMILIES = ("authz.", "limit.", "quota.", "trust.")

MOST_RULES = 128
MOST_FIX = 512

_ID = re.compile(r"[a-z0-9.-]{1,64}")
_ANNOTATIONS = frozenset({"id", "reason", "fix", "halt"})
_ENGINE_ERRORS = (ValueError, TypeError, KeyError, OverflowError, RuntimeError)
_REMEMBERED = 4096

T = TypeVar("T")


@wire
class Settings(Wire):
    """What the verifier does with an allow, and which checks it insists on.

    ``lease_seconds`` and ``hold_seconds`` are durations; ``bank`` is the TPM_ALG_ID and ``pcrs`` the PCR indexes that
    every quote covers; ``checks`` gives each name of :data:`CHECKS` the word ``required`` or ``unchecked``.
    """

    lease_seconds: int = label(1, low=10, high=300, default=30)
    hold_seconds: int = label(2, high=86_400, default=900)
    bank: int = label(3, high=0xFFFF, default=BANKS["sha256"])
    pcrs: tuple[int, ...] = label(4, high=23, most=24, ordered=True)
    checks: Mapping[str, str] = label(5, most=64)

    def check(self) -> None:
        """Raise ``Malformed("policy.settings")`` for an unknown bank, no PCR at all, or a check left unnamed."""
        if self.bank not in BANKS.values():
            raise Malformed("policy.settings", f"bank {self.bank:#x} is not one of {', '.join(BANKS)}")
        if not self.pcrs:
            raise Malformed("policy.settings", "name at least one PCR: a quote of none proves nothing")
        if set(self.checks) != set(CHECKS):
            wrong = ", ".join(sorted(set(self.checks) ^ set(CHECKS)))
            raise Malformed("policy.settings", f"every check is named, and no other: {wrong}")
        for name, word in sorted(self.checks.items()):
            if word not in (REQUIRED, UNCHECKED):
                raise Malformed("policy.settings", f"check {name} is {word!r}, must be {REQUIRED} or {UNCHECKED}")

    @property
    def required(self) -> tuple[str, ...]:
        """The checks that must have passed, sorted."""
        return tuple(sorted(name for name, word in self.checks.items() if word == REQUIRED))

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The checks that the operator decided to leave out, sorted; every decision shows them."""
        return tuple(sorted(name for name, word in self.checks.items() if word == UNCHECKED))


@wire
class PolicyBundle(Wire):
    """Everything that a decision depends on beside its facts; archived whole. Texts are Cedar, the pin is SHA-256.

    ``gpu`` is what is demanded of GPUs; without it no GPU evidence is appraised, so none counts.
    """

    MAX_SIZE = 1 << 20

    operator: str = label(1, most=1 << 18)
    protected: str = label(2, most=1 << 18)
    schema: str = label(3, most=1 << 16)
    settings: Settings = label(4)
    protected_pin: bytes = label(5, size=32)
    gpu: GpuPolicy | None = label(6, default=None)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoded bundle: the name of this policy in grants and records."""
        return hashlib.sha256(self.to_bytes()).digest()


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy as its annotations describe it. ``reason`` and ``fix`` are empty for a permit."""

    id: str
    permits: bool
    reason: str
    fix: str
    hard: bool


class Principal(NamedTuple):
    """The submitter as Cedar sees it: ``Submitter::"<id>"``. The order of ``roles`` does not matter."""

    id: str
    tenant: str
    roles: tuple[str, ...]


class Resource(NamedTuple):
    """The node as Cedar sees it: ``Node::"<id>"``."""

    id: str
    pool: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Cedar's answer: determining policy ids and reason codes, sorted. ``errors`` is text for people, not stable."""

    allow: bool
    determining: tuple[str, ...]
    reasons: tuple[str, ...]
    hard: bool = False
    errors: tuple[str, ...] = ()


class Policy:
    """A bundle compiled for evaluation; immutable, and safe to share between threads."""

    def __init__(self, bundle: PolicyBundle) -> None:
        """Compile ``bundle``. Raises ``Malformed`` or ``Untrusted`` by the module's numbered rules."""
        self.bundle = PolicyBundle.from_bytes(bundle.to_bytes())  # (1)
        self.settings = self.bundle.settings
        self.required, self.unchecked = self.settings.required, self.settings.unchecked
        self.gpu = self.bundle.gpu
        self.digest = self.bundle.digest
        for text in (self.bundle.operator, self.bundle.protected, self.bundle.schema):
            check_visible(text)  # (2)
        if hashlib.sha256(self.bundle.protected.encode()).digest() != self.bundle.protected_pin:  # (3)
            raise Untrusted("policy.pin", "the protected policies are not those whose digest is pinned")
        self._schema = parse_schema(self.bundle.schema)
        operator, protected = read_rules(self.bundle.operator), read_rules(self.bundle.protected)  # (4) (6) (8) (9)
        check_valid(self.bundle.operator, self._schema)  # (5)
        check_valid(self.bundle.protected, self._schema)
        _check_effects(operator, protected)  # (7)
        self.rules = _by_id((*operator, *protected))  # (6)
        if len(self.rules) > MOST_RULES:  # (9)
            raise Malformed("policy.many", f"{len(self.rules)} policies, {MOST_RULES} at most")
        self._set = cedarpy.PolicySet.from_str(f"{self.bundle.operator}\n{self.bundle.protected}")
        self._entities = lru_cache(maxsize=_REMEMBERED)(self._build_entities)
        self._answered = lru_cache(maxsize=_REMEMBERED)(self._ask)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Policy":
        """Compile an encoded bundle. Raises ``Malformed`` or ``Untrusted``."""
        return cls(PolicyBundle.from_bytes(data))

    def evaluate(
        self, principal: Principal, resource: Resource, context: Mapping[str, object], *, action: str = "run"
    ) -> Verdict:
        """Ask Cedar whether ``principal`` may ``action`` on ``resource``; never raises for what it is given.

        ``context`` has exactly the attributes of the schema, as booleans, 64-bit integers, strings and lists of these.
        """
        ask = self._answered if action == RENEW else self._ask  # (5)
        try:
            return ask(principal, action, resource, json.dumps(context))
        except _ENGINE_ERRORS as error:  # (2)
            return _failed([f"{type(error).__name__}: {error}"])

    def _ask(self, principal: Principal, action: str, resource: Resource, context: str) -> Verdict:
        """What Cedar answers; raises what it raises."""
        request = {
            "principal": {"type": "Submitter", "id": principal.id},
            "action": {"type": "Action", "id": action},
            "resource": {"type": "Node", "id": resource.id},
            "context": context,
        }
        return self._verdict(
            cedarpy.is_authorized(request, self._set, self._entities(principal, resource), self._schema)
        )

    def advice(self, reasons: Iterable[str], determining: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """``(reason code, one-line fix)`` pairs for a denial, sorted: the operator's ``@fix`` where a policy decided.

        Raises ``KeyError`` for a reason that is neither registered nor given by a policy that determined.
        """
        pairs = {(rule.reason, rule.fix) for rule in map(self.rules.__getitem__, determining) if not rule.permits}
        told = {reason for reason, _ in pairs}
        return tuple(sorted(pairs | {(code, explain(code).fix) for code in reasons if code not in told}))

    def _verdict(self, result: cedarpy.AuthzResult) -> Verdict:
        diagnostics = result.diagnostics
        if diagnostics.errors or result.decision is cedarpy.Decision.NoDecision:  # (2)
            return _failed(diagnostics.errors)
        ids = tuple(sorted(diagnostics.id_annotations_by_reason.values()))  # (4)
        if result.allowed:
            return Verdict(allow=True, determining=ids, reasons=())
        if not ids:  # (3)
            return Verdict(allow=False, determining=(), reasons=("policy.no-permit",))
        rules = [self.rules[id_] for id_ in ids]
        reasons = tuple(sorted({rule.reason for rule in rules}))
        return Verdict(allow=False, determining=ids, reasons=reasons, hard=any(rule.hard for rule in rules))

    def _build_entities(self, principal: Principal, resource: Resource) -> cedarpy.Entities:
        """The two entities of a request, checked against the schema; remembered, since hosts and people recur."""
        who = {"tenant": principal.tenant, "roles": list(principal.roles)}
        entities = [
            {"uid": {"type": "Submitter", "id": principal.id}, "attrs": who, "parents": []},
            {"uid": {"type": "Node", "id": resource.id}, "attrs": {"pool": resource.pool}, "parents": []},
        ]
        return cedarpy.Entities.from_json_str(json.dumps(entities), self._schema)


def read_rules(text: str) -> tuple[Rule, ...]:
    """The policies of one Cedar text by their annotations, in the engine's order.

    Raises ``Malformed`` (``policy.parse``, ``policy.template``, ``policy.attribute``, ``policy.id``,
    ``policy.annotation``, ``policy.reason``).
    """
    parsed: dict[str, Any] = json.loads(_parse("policy.parse", cedarpy.policies_to_json_str, text))
    if parsed["templates"]:
        raise Malformed("policy.template", "a policy has a ?principal or ?resource slot")
    return tuple(_rule(policy) for _, policy in sorted(parsed["staticPolicies"].items()))


def parse_schema(text: str) -> cedarpy.Schema:
    """The schema, parsed. Raises ``Malformed("policy.schema")``."""
    return _parse("policy.schema", cedarpy.Schema.from_str, text)


def check_visible(text: str) -> None:
    """Raise ``Malformed("policy.text")`` for a character that a reviewer cannot see (Unicode Cc, Cf, Co, Zl, Zp)."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Co", "Zl", "Zp") and character not in "\n\t":
            raise Malformed("policy.text", f"U+{ord(character):04X} cannot be seen by a reviewer")


def check_valid(text: str, schema: cedarpy.Schema) -> None:
    """Raise ``Malformed("policy.schema")``, naming the policies, where ``text`` is not valid under ``schema``."""
    result = cedarpy.validate_policies(text, schema)
    if not result.validation_passed:
        names = result.id_annotations_by_policy_id
        found = sorted({f"{names.get(e.policy_id, e.policy_id)}: {e.error}" for e in result.errors})
        raise Malformed("policy.schema", "; ".join(found))


def _rule(policy: Mapping[str, Any]) -> Rule:
    annotations: Mapping[str, str | None] = policy.get("annotations", {})
    id_ = annotations.get("id") or ""
    if _ID.fullmatch(id_) is None:
        raise Malformed("policy.id", f"@id {id_!r} must be 1 to 64 of a-z 0-9 . -")
    unknown = sorted(annotations.keys() - _ANNOTATIONS)
    if unknown:
        raise Malformed("policy.annotation", f"{id_}: unknown annotation @{', @'.join(unknown)}")
    if _uses_has(policy["conditions"]):
        raise Malformed("policy.attribute", f"{id_}: every attribute is required, so 'has' hides a misspelt one")
    permits = policy["effect"] == "permit"
    texts = {name: annotations.get(name) or "" for name in ("reason", "fix", "halt")}
    _check_annotations(id_, texts, permits=permits)
    return Rule(id_, permits, texts["reason"], texts["fix"], hard=texts["halt"] == "hard")


def _check_annotations(id_: str, texts: Mapping[str, str], *, permits: bool) -> None:
    if permits:
        if any(texts.values()):
            raise Malformed("policy.annotation", f"{id_}: @reason, @fix and @halt belong to a forbid")
        return
    if not texts["reason"] or not texts["fix"].strip() or not texts["fix"].isprintable():
        raise Malformed("policy.annotation", f"{id_}: a forbid says @reason and, in one line, @fix")
    if len(texts["fix"]) > MOST_FIX:  # (9)
        raise Malformed("policy.annotation", f"{id_}: @fix has {len(texts['fix'])} characters, {MOST_FIX} at most")
    if texts["halt"] not in ("", "hard", "drain"):
        raise Malformed("policy.annotation", f"{id_}: @halt is hard or drain")
    if texts["reason"] != f"policy.forbid.{id_}" and not _is_registered(texts["reason"]):
        raise Malformed(
            "policy.reason", f"{id_}: @reason is policy.forbid.{id_} or a registered code of {' '.join(FAMILIES)}"
        )


def _is_registered(reason: str) -> bool:
    if not reason.startswith(FAMILIES) or _ID.fullmatch(reason) is None:
        return False
    try:
        explain(reason)
    except KeyError:
        return False
    return True


def _uses_has(node: object) -> bool:
    """Whether a Cedar JSON expression has an operator ``has`` anywhere (nesting is limited by Cedar's own parser)."""
    if isinstance(node, dict):
        return "has" in node or any(_uses_has(child) for child in node.values())
    return isinstance(node, list) and any(_uses_has(child) for child in node)


def _check_effects(operator: tuple[Rule, ...], protected: tuple[Rule, ...]) -> None:
    permitting = [rule.id for rule in protected if rule.permits]
    if permitting:
        raise Malformed("policy.protected", f"protected policies only forbid: {', '.join(sorted(permitting))}")
    if not any(rule.permits for rule in operator):
        raise Malformed("policy.empty", "no policy permits anything")


def _by_id(rules: Iterable[Rule]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for rule in rules:
        if rule.id in found:
            raise Malformed("policy.id", f"@id {rule.id!r} occurs twice")
        found[rule.id] = rule
    return found


def _parse(reason: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise Malformed(reason, str(error)) from error


def _failed(errors: Iterable[str]) -> Verdict:
    return Verdict(allow=False, determining=(), reasons=("policy.error",), errors=tuple(sorted(errors)))
