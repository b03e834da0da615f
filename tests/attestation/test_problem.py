"""attestation.problem: what is refused of problems and denials, and how reasons explain themselves."""

from dataclasses import replace

import pytest

from attestation.errors import Malformed, Untrusted
from attestation.problem import DRAIN, HARD, Denial, Problem, Refusal

KNOWN = Refusal.of("challenge.expired", detail="5 s late")
OTHER = Refusal.of("code.unknown", fix="Ask Ada.")
DENIAL = Denial(record=b"record", receipt=b"receipt", klass=HARD, reasons=(KNOWN,))


def test_a_problem_names_its_reason_and_says_what_to_do() -> None:
    problem = Problem.of_error(403, Untrusted("challenge.expired", "5 s late"))
    assert (problem.status, problem.reason, problem.detail, problem.retry) == (
        403,
        "challenge.expired",
        "5 s late",
        True,
    )
    assert problem.title
    assert problem.fix
    assert Problem.from_bytes(problem.to_bytes()) == problem


def test_a_problem_is_concise_problem_details() -> None:
    value = Problem.of(404, "http.path").to_value()
    assert value[-4] == 404  # RFC 9290, section 2: response code
    assert -2 not in value  # no detail, no label
    assert min(value) <= -75200  # ours are private


@pytest.mark.parametrize("status", [399, 600, 200])
def test_a_problem_is_an_error(status: int) -> None:
    value = {**Problem.of(404, "http.path").to_value(), -4: status}
    with pytest.raises(Malformed, match=r"wire\.range"):
        Problem.from_value(value)


def test_an_unregistered_reason_is_our_mistake() -> None:
    with pytest.raises(KeyError):
        Problem.of(500, "no.such.reason")
    with pytest.raises(KeyError):
        Refusal.of("no.such.reason")


def test_a_long_detail_is_cut() -> None:
    assert Problem.of(400, "http.path", "x" * 5000).detail == "x" * 2048
    assert Refusal.of("http.path", detail="x" * 5000).detail == "x" * 2048


def test_an_operators_fix_replaces_ours() -> None:
    assert OTHER.fix == "Ask Ada."
    assert Refusal.of("code.unknown").fix != "Ask Ada."


def test_a_denial_reads_back() -> None:
    assert Denial.from_bytes(DENIAL.to_bytes()) == DENIAL
    assert DENIAL.codes == ("challenge.expired",)


@pytest.mark.parametrize("klass", ["", "stale", "Hard", "none"])
def test_a_denial_has_a_class(klass: str) -> None:
    with pytest.raises(Malformed, match=r"denial\.class"):
        Denial.from_bytes(replace(DENIAL, klass=klass).to_bytes())


def test_a_denial_says_why() -> None:
    with pytest.raises(Malformed, match=r"denial\.empty"):
        Denial.from_bytes(replace(DENIAL, klass=DRAIN, reasons=()).to_bytes())


def test_a_retry_helps_where_every_reason_says_so() -> None:
    assert DENIAL.retry
    assert not replace(DENIAL, reasons=(KNOWN, OTHER)).retry
