"""The operator's test table: what the policies must answer, case by case, and which policies no case needs.

cases.toml::

    [defaults]                  # facts of every case; all fields of attestation.decision.Facts must be known in the end
    roles = ["trainer"]
    ...

    [[case]]
    name = "nine GPUs"          # unique
    facts = { gpus = 9 }        # what differs from the defaults
    expect = "deny"             # or "allow"
    reasons = ["limit.gpus"]    # for a denial: exactly these, in any order
    determining = ["base.gpus"] # exactly these policies, in any order; may be empty
    denial = "drain"            # optional: the class of the denial

Facts have the names of :class:`attestation.decision.Facts`, those of its usage stand beside them. A key that is not
known, a missing fact and a value of the wrong kind are refused: a case that tests nothing must not look like one that
passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestation.decision import Decision, Facts, Usage, decide
from attestation.errors import Malformed
from attestation.policy import Policy
from verifier.policyfiles import load, read_toml

FILE = "cases.toml"

_KEYS = frozenset({"name", "facts", "expect", "reasons", "determining", "denial"})
_SETS = frozenset({"failures", "passed", "roles", "secrets", "steering"})


@dataclass(frozen=True, slots=True)
class Case:
    """One row: the facts, and the answer that is expected. ``denial`` is empty where the class does not matter."""

    name: str
    facts: Facts
    allow: bool
    reasons: tuple[str, ...]
    determining: tuple[str, ...]
    denial: str


@dataclass(frozen=True, slots=True)
class Result:
    """A case, the decision that was made, and how it differs from what was expected (empty when it does not)."""

    case: Case
    decision: Decision
    differs: str

    @property
    def passed(self) -> bool:
        """Whether the decision is the expected one."""
        return not self.differs


@dataclass(frozen=True, slots=True)
class Table:
    """The whole table: the results in the order of the file, and the policies that no case determines, sorted."""

    results: tuple[Result, ...]
    uncovered: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every case passed. Policies without a case do not fail the table; they are shown."""
        return all(result.passed for result in self.results)

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results that are not as expected."""
        return tuple(result for result in self.results if not result.passed)


def run_cases(directory: Path) -> Table:
    """Decide every case of ``directory``'s cases.toml under its policies. Raises ``Malformed`` or ``Untrusted``."""
    return decide_cases(read_cases(directory / FILE), Policy(load(directory)))


def decide_cases(cases: tuple[Case, ...], policy: Policy) -> Table:
    """Decide ``cases`` under ``policy``."""
    results = tuple(_result(case, decide(case.facts, policy)) for case in cases)
    determined = {id_ for result in results for id_ in result.decision.determining}
    return Table(results, tuple(sorted(policy.rules.keys() - determined)))


def read_cases(path: Path) -> tuple[Case, ...]:
    """The rows of a cases file. Raises ``Malformed`` (``policy.file``, ``policy.case``)."""
    table = read_toml(path)
    defaults, rows = table.pop("defaults", {}), table.pop("case", [])
    if table or not isinstance(defaults, dict) or not isinstance(rows, list) or not rows:
        raise Malformed("policy.case", "a cases file has [defaults] and at least one [[case]], and nothing else")
    cases = tuple(_case(row, defaults) for row in rows)
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise Malformed("policy.case", f"named twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    return cases


def _case(row: object, defaults: Mapping[str, Any]) -> Case:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise Malformed("policy.case", "every case has a name")
    name = row["name"]
    unknown = sorted(row.keys() - _KEYS)
    if unknown:
        raise Malformed("policy.case", f"{name}: unknown key {', '.join(unknown)}")
    expect, facts, denial = row.get("expect"), row.get("facts", {}), row.get("denial", "")
    if expect not in ("allow", "deny") or not isinstance(facts, dict) or denial not in ("", "drain", "hard"):
        raise Malformed("policy.case", f"{name}: expect is allow or deny, denial drain or hard, facts a table")
    reasons, determining = _words(row, "reasons", name), _words(row, "determining", name)
    if (expect == "allow") != (not reasons):
        raise Malformed("policy.case", f"{name}: a denial names its reasons, an allow has none")
    return Case(name, _facts(name, {**defaults, **facts}), expect == "allow", reasons, determining, denial)


def _words(row: Mapping[str, Any], key: str, name: str) -> tuple[str, ...]:
    words = row.get(key, [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Malformed("policy.case", f"{name}: {key} is a list of strings")
    return tuple(sorted(set(words)))


def _facts(name: str, values: Mapping[str, Any]) -> Facts:
    usage = {label: field for label, field, *_ in Usage.layout()}
    direct = {label: field for label, field, *_ in Facts.layout() if field != "usage"}
    given = {"action": "run", "failures": [], "passed": [], **values}
    known = {*usage.values(), *direct.values()}
    if given.keys() != known:
        raise Malformed("policy.case", f"{name}: facts unknown or missing: {', '.join(sorted(given.keys() ^ known))}")
    value = {label: _sorted(field, given[field]) for label, field in direct.items()}
    (nested,) = (label for label, field, *_ in Facts.layout() if field == "usage")
    value[nested] = {label: given[field] for label, field in usage.items()}
    try:
        return Facts.from_value(value)
    except Malformed as error:
        raise Malformed("policy.case", f"{name}: {error.detail}") from error


def _sorted(field: str, value: Any) -> Any:
    """Sets may be written in any order; a list of mixed kinds is left to the reader to refuse."""
    if field in _SETS and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(set(value))
    return value


def _result(case: Case, decision: Decision) -> Result:
    wanted = {"answer": "allow" if case.allow else "deny", "reasons": case.reasons, "determining": case.determining}
    got: dict[str, object] = {
        "answer": "allow" if decision.allow else "deny",
        "reasons": decision.reasons,
        "determining": decision.determining,
    }
    if case.denial:
        wanted["denial"], got["denial"] = case.denial, decision.denial
    wrong = [
        f"{key}: expected {_show(wanted[key])}, got {_show(got[key])}" for key in wanted if wanted[key] != got[key]
    ]
    return Result(case, decision, "; ".join(wrong))


def _show(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, tuple) else str(value)
