"""Facts and decisions have one encoding, within bounds, with labels for ever."""

from dataclasses import replace
from typing import Any

import pytest

from attestation.decision import Decision, Facts, Usage, decide
from attestation.errors import Malformed
from attestation.wire import Wire
from tests.attestation.facts import FACTS, POLICY


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
    " renewals secrets children_depth children_count usage command steering",
}


@pytest.mark.parametrize("format_", LABELS)
def test_labels_are_for_ever(format_: type[Wire]) -> None:
    assert [row[:2] for row in format_.layout()] == list(enumerate(LABELS[format_].split(), start=1))


TEXTS = {
    **dict.fromkeys(
        ("action", "submitter_state", "node_state", "baseline", "code", "environment", "assurance", "command"), 16
    ),
    **dict.fromkeys(("submitter", "submitter_tenant", "tenant", "node", "pool"), 128),
}
SETS = {"failures": 128, "passed": 64, "roles": 128, "secrets": 256, "steering": 256}
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
