"""The test table: the delivered one passes and misses nothing; a case that tests nothing is refused."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.errors import Malformed
from attestation.policy import Policy
from verifier.policycases import decide_cases, read_cases, run_cases
from verifier.policyfiles import load, statements

DELIVERED = Path(__file__).parents[2] / "policies"
CASES = read_cases(DELIVERED / "cases.toml")
DEFAULTS = (DELIVERED / "cases.toml").read_text().split("# ---- allowed")[0]
ALLOWED = '[[case]]\nname = "a"\nexpect = "allow"\ndetermining = ["base.train"]\n'


def test_the_delivered_table_passes_and_determines_every_policy() -> None:
    table = run_cases(DELIVERED)
    assert [f"{r.case.name}: {r.differs}" for r in table.failures] == []
    assert table.passed
    assert table.uncovered == ()


def test_the_delivered_table_is_mostly_denials() -> None:
    allows = sum(case.allow for case in CASES)
    assert len(CASES) >= 40
    assert len(CASES) - allows >= 5 * allows


def test_every_denial_of_the_table_has_advice() -> None:
    policy = Policy(load(DELIVERED))
    for result in decide_cases(CASES, policy).results:
        advice = policy.advice(result.decision.reasons, result.decision.determining)
        assert {code for code, _ in advice} == set(result.decision.reasons)
        assert all(fix and "\n" not in fix for _, fix in advice)


@pytest.mark.parametrize("id_", Policy(load(DELIVERED)).rules)
def test_a_case_fails_when_a_policy_is_removed(id_: str) -> None:
    bundle = load(DELIVERED)
    operator, protected = (
        "".join(s.text for s in statements(text) if f'@id("{id_}")' not in s.text)
        for text in (bundle.operator, bundle.protected)
    )
    assert (operator, protected) != (bundle.operator, bundle.protected)
    pin = hashlib.sha256(protected.encode()).digest()
    without = Policy(replace(bundle, operator=operator, protected=protected, protected_pin=pin))
    assert id_ not in without.rules
    assert not decide_cases(CASES, without).passed


def table(tmp_path: Path, cases: str) -> Path:
    directory = Path(shutil.copytree(DELIVERED, tmp_path / "policies"))
    (directory / "cases.toml").write_text(DEFAULTS + cases)
    return directory


NINE = 'facts = { gpus = 9, hour = 1 }\nexpect = "deny"\n'
DIFFERENT: dict[str, tuple[str, str]] = {
    "denied instead of allowed": (
        NINE.replace("deny", "allow"),
        "answer: expected allow, got deny; reasons: expected none, got limit.gpus; determining: expected none, got",
    ),
    "allowed instead of denied": (
        'expect = "deny"\nreasons = ["limit.x"]',
        "answer: expected deny, got allow; reasons: expected limit.x, got none",
    ),
    "for another reason": (
        NINE + 'reasons = ["limit.gpu"]\ndetermining = ["base.gpus"]',
        "reasons: expected limit.gpu, got limit.gpus",
    ),
    "for one reason less": (
        NINE + 'reasons = ["limit.gpus", "limit.x"]\ndetermining = ["base.gpus"]',
        "reasons: expected limit.gpus, limit.x, got limit.gpus",
    ),
    "by a policy that is not named": (
        NINE + 'reasons = ["limit.gpus"]',
        "determining: expected none, got base.gpus",
    ),
    "by another policy": (
        'expect = "allow"\ndetermining = ["base.evaluate"]',
        "determining: expected base.evaluate, got base.train",
    ),
    "of another class": (
        'facts = { code = "revoked" }\nexpect = "deny"\nreasons = ["code.revoked"]\ndenial = "drain"',
        "denial: expected drain, got hard",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_told(tmp_path: Path, name: str) -> None:
    change, differs = DIFFERENT[name]
    (result,) = (found := run_cases(table(tmp_path, f'[[case]]\nname = "n"\n{change}\n'))).results
    assert not found.passed
    assert found.failures == (result,)
    assert result.differs.startswith(differs)


def test_policies_without_a_case_are_told_and_do_not_fail(tmp_path: Path) -> None:
    found = run_cases(table(tmp_path, ALLOWED))
    assert found.passed
    assert "base.role" in found.uncovered
    assert "base.train" not in found.uncovered
    assert list(found.uncovered) == sorted(found.uncovered)


def test_sets_may_be_written_in_any_order(tmp_path: Path) -> None:
    (case,) = read_cases(table(tmp_path, ALLOWED + 'facts = { roles = ["z", "a", "z"] }\n') / "cases.toml")
    assert case.facts.roles == ("a", "z")


ONE = DEFAULTS + ALLOWED
REFUSED: dict[str, str] = {
    "nothing": "",
    "no case": DEFAULTS,
    "unknown table": "[other]\nx = 1\n" + ONE,
    "misspelt table": ONE.replace("[[case]]", "[[cases]]"),
    "case is no list": DEFAULTS + ALLOWED.replace("[[case]]", "[case]"),
    "cases are numbers": "case = [1]\n" + DEFAULTS,
    "defaults are no table": "defaults = 1\n" + ALLOWED,
    "no name": ONE.replace('name = "a"\n', ""),
    "name is a number": ONE.replace('"a"', "1"),
    "name twice": ONE + ALLOWED,
    "unknown key": ONE + 'expects = "deny"\n',
    "no expectation": ONE.replace('expect = "allow"\n', ""),
    "unknown expectation": ONE.replace('"allow"', '"maybe"'),
    "expectation is a list": ONE.replace('"allow"', '["allow"]'),
    "allow with reasons": ONE + 'reasons = ["limit.gpus"]\n',
    "denial without reasons": ONE.replace('"allow"', '"deny"'),
    "reasons are no list": ONE.replace('"allow"', '"deny"') + 'reasons = "limit.gpus"\n',
    "reasons are numbers": ONE.replace('"allow"', '"deny"') + "reasons = [1]\n",
    "determining is no list": ONE.replace('["base.train"]', '"base.train"'),
    "unknown denial": ONE + 'denial = "none"\n',
    "facts are no table": ONE + "facts = 1\n",
    "unknown fact": ONE + "facts = { gpu = 1 }\n",
    "usage as a whole": ONE + "facts = { usage = 1 }\n",
    "missing fact": ONE.replace("gpus = 4\n", ""),
    "fact of another kind": ONE + 'facts = { gpus = "1" }\n',
    "fact out of range": ONE + "facts = { hour = 24 }\n",
    "usage out of range": ONE + "facts = { node_jobs = -1 }\n",
    "roles are no list": ONE + 'facts = { roles = "trainer" }\n',
    "roles of mixed kinds": ONE + 'facts = { roles = ["trainer", 1] }\n',
    "unknown action": ONE + 'facts = { action = "walk" }\n',
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_tests_nothing_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cases.toml"
    path.write_text(REFUSED[name])
    with pytest.raises(Malformed) as caught:
        read_cases(path)
    assert caught.value.reason == "policy.case"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Malformed) as caught:
        read_cases(tmp_path / "cases.toml")
    assert caught.value.reason == "policy.file"


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "cases.toml").write_text("[[case")
    with pytest.raises(Malformed) as caught:
        read_cases(tmp_path / "cases.toml")
    assert caught.value.reason == "policy.file"
