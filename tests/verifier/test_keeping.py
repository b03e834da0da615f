"""What the verifier does beside deciding: baselines from what was proven, keeping house, showing results."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from attestation.reference import References
from tests.verifier.hall import Hall, allowed, denied
from verifier import janitor
from verifier.ledger import Ledger, Reserved
from verifier.show import show
from verifier.store import Unavailable


@pytest.fixture
def hall(tmp_path: Path) -> Any:
    with Hall(tmp_path) as made:
        yield made


def test_a_denied_host_gives_the_baseline_that_it_needs(hall: Hall) -> None:
    """After a kernel update the quote is genuine, and only the values are new."""
    host = hall.run(hall.furnish())
    host.tpm.extend(4, bytes(32))
    assert "tpm.pcr.mismatch" in denied(hall.run(host.ask(hall.intent()))).codes
    made = hall.run(hall.command("refs.from-node", node="host", name="new kernel", activate=True))
    assert made["pcrs"]["sha256"]["4"] == [host.tpm.pcrs[0x000B][4].hex()]
    assert "evidence recorded at index" in made["provenance"]
    allowed(hall.run(host.ask(hall.intent())))


def test_evidence_from_before_an_enrolment_gives_no_baseline(hall: Hall) -> None:
    host = hall.run(hall.furnish())
    allowed(hall.run(host.ask(hall.intent())))
    hall.hands.time += 10
    host.tpm.clear()
    token = hall.run(hall.command("token.create", node="host", reenrol=True))["token"]
    hall.run(host.enrol(token))
    made = hall.run(hall.command("refs.from-node", node="host", name="again"))
    assert made["provenance"] == "host, enrolment"


def test_forged_evidence_gives_no_baseline(hall: Hall) -> None:
    """A denial whose quote was not believed proves nothing, whatever values it claimed."""
    host = hall.run(hall.furnish())
    denied(hall.run(host.ask(hall.intent(), grant=bytes(16))))
    made = hall.run(hall.command("refs.from-node", node="host", name="again"))
    assert made["provenance"] == "host, enrolment"


def test_an_enrolment_is_found_however_long_the_log_is(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.run(hall.furnish())
    monkeypatch.setattr("verifier.refs.proven._PAGE", 2)
    for number in range(7):
        hall.run(hall.command("refs.approve", kind="code", digest=bytes([number] * 32).hex()))
    assert hall.run(hall.command("refs.from-node", node="host", name="again"))["provenance"] == "host, enrolment"


def test_a_first_approval_needs_no_policy(hall: Hall) -> None:
    hall.run(hall.command("refs.approve", kind="code", digest="11" * 32))
    (approval,) = hall.run(hall.command("refs.list"))["approvals"]
    assert approval["state"] == "active"
    assert References.MAX_SIZE > 0


# --- keeping house ----------------------------------------------------------------------------------------------------


def test_the_house_is_kept_until_it_is_told_to_stop(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is met again the next time; nothing but its end ends it."""
    hall.run(hall.load())
    monkeypatch.setattr(janitor, "EVERY_SECONDS", 0)
    rounds: list[int] = []
    tidy = janitor.tidy

    async def counting(verifier: Any) -> int:
        rounds.append(1)
        if len(rounds) == 1:
            raise Unavailable("log.unavailable", "disk full")
        if len(rounds) == 3:
            tasks[0].cancel()
        return await tidy(verifier)

    monkeypatch.setattr(janitor, "tidy", counting)

    tasks: list[asyncio.Task[None]] = []

    async def go() -> None:
        tasks.append(asyncio.create_task(janitor.keep_house(hall.verifier)))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    hall.run(go())
    assert len(rounds) == 3


def test_a_house_without_a_policy_has_nothing_to_give_up(hall: Hall) -> None:
    assert hall.run(janitor.tidy(hall.verifier)) == 0


def test_a_job_that_reports_at_that_very_moment_is_not_given_up(hall: Hall) -> None:
    async def go() -> tuple[int, bytes]:
        host = await hall.furnish()
        grant, _ = allowed(await host.ask(hall.intent()))
        hall.hands.time += 1000
        report = asyncio.create_task(host.report(grant))
        await asyncio.sleep(0)
        return await janitor.tidy(hall.verifier), await report

    given_up, receipt = hall.run(go())
    assert given_up == 0
    assert receipt


def test_old_challenges_are_forgotten_and_stay_refused(hall: Hall) -> None:
    host = hall.run(hall.furnish())
    challenge = hall.run(hall.verifier.challenge("host"))
    hall.hands.time += janitor.KEEP_SECONDS + 60
    hall.run(janitor.tidy(hall.verifier))
    assert hall.verifier.store.challenge(challenge.nonce) is None
    assert host.name == "host"


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_reservations_count_for_whom_they_are(hall: Hall) -> None:
    async def go() -> None:
        ledger, one, other = Ledger(), Reserved(b"a", "t", "n"), Reserved(b"b", "t", "m")
        used = hall.verifier.store.usage(b"a", "t", "n", without=None, since=0)
        assert not await ledger.settled()
        with ledger.reserving(one), ledger.reserving(other):
            seen = ledger.added_to(used, one)
            assert (seen.submitter_jobs, seen.tenant_jobs, seen.node_jobs) == (1, 2, 1)
        assert ledger.added_to(used, one) == used

    hall.run(go())


# --- showing ----------------------------------------------------------------------------------------------------------

SHOWN: dict[str, tuple[Any, str]] = {
    "text": ("done", "done"),
    "nothing": ([], "none"),
    "texts": (["a", "b"], "a\nb"),
    "a moment": ({"expires": 0}, "1970-01-01 00:00:00 UTC"),
    "yes and no": ({"a": True, "b": False}, "yes"),
    "nothing known": ({"a": None}, "-"),
    "a map in a map": ({"a": {"b": 1}}, "b: 1"),
    "an empty map": ({"a": {}}, "a  -"),
    "lists in maps in a map": ({"pcrs": {"sha256": {"0": ["f0"], "1": ["f1", "f2"]}}}, "sha256: 0: f0, 1: f1 f2"),
    "a table in a map": ({"a": [{"name": "x"}]}, "name"),
    "a long digest": ([{"kid": "f" * 64}], "ffffffffffff…"),
    "a long sentence": ([{"why": "word " * 20}], "…"),
    "markup is not obeyed": ({"a": "[red]x[/red]"}, "[red]x[/red]"),
}


@pytest.mark.parametrize(("result", "part"), SHOWN.values(), ids=SHOWN)
def test_results_for_people(result: Any, part: str) -> None:
    output = io.StringIO()
    show(Console(file=output, width=100), result, as_json=False)
    assert part in output.getvalue()
