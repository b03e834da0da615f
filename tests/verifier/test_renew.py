"""verifier.renew and verifier.reports: the lease chain, what ends it, and how a run is closed."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from attestation.cose import ES256, SoftwareSigner
from attestation.errors import InterlockError, Untrusted
from attestation.evidence import MAX_SIZE
from attestation.grant import Grant
from attestation.intent import Intent, Limits
from attestation.lease import Lease, verify_lease
from attestation.log import Record, leaf_hash, verify_receipt
from attestation.problem import Denial
from attestation.report import HaltRecord, sign_report
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA, CODE, Hall, Host, allowed, denied, ended, leased
from verifier.janitor import tidy
from verifier.renew import renew
from verifier.reports import report


@dataclass
class Run:
    """A job under a grant."""

    hall: Hall
    host: Host
    intent: Intent
    grant: Grant
    lease: Lease

    def renew(self, **changes: Any) -> Any:
        self.hall.hands.time += 1
        return self.hall.run(self.host.renew(self.grant, self.intent, **changes))

    def records(self) -> list[Record]:
        return [Record.from_bytes(e.record) for e in self.hall.verifier.store.records_of(self.grant.id)]

    @property
    def state(self) -> str:
        return self.hall.verifier.job(self.grant.id).state


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with Hall(tmp_path) as made:
        yield made


@pytest.fixture
def run(hall: Hall) -> Run:
    host = hall.run(hall.furnish())
    return start(hall, host)


def start(hall: Hall, host: Host, **changes: Any) -> Run:
    intent = hall.intent(**changes)
    return Run(hall, host, intent, *allowed(hall.run(host.ask(intent))))


def test_leases_follow_one_another(run: Run) -> None:
    last, key = run.lease, run.hall.verifier.keys.grant.public
    for number in range(1, 5):
        token = run.renew()
        last = verify_lease(token, key=key, grant=run.grant.id, previous=last)
        assert (last.sequence, last.duration) == (number, 30)
    assert [record.outcome for record in run.records()] == ["allow"] + ["issued"] * 5
    assert [record.sequence for record in run.records()] == list(range(6))


def test_a_lease_counts_from_the_moment_its_challenge_was_issued(run: Run) -> None:
    async def go() -> Any:
        challenge = await run.hall.verifier.challenge("host")
        run.hall.hands.time += 7
        return challenge.issued, await renew(
            run.hall.verifier, run.host.evidence(challenge, run.intent, grant=run.grant.id)
        )

    issued, token = run.hall.run(go())
    assert leased(token).expires == issued + 30


def test_the_record_of_a_lease_names_all_that_was_judged(run: Run) -> None:
    lease = leased(run.renew())
    record = run.records()[-1]
    assert record.digests["lease"] == lease.digest
    inputs = {"policy", "references", "intent", "evidence", "challenge", "node", "submitter"}
    names = inputs | {"claims", "context", "lease", "progress"}
    assert set(record.digests) == names
    assert all(run.hall.verifier.store.blob(d) is not None for d in record.digests.values())


def test_leases_go_on_after_a_restart(run: Run) -> None:
    leased(run.renew())
    run.hall.reopen()
    assert leased(run.renew()).sequence == 2


def test_a_lost_answer_is_answered_again(run: Run) -> None:
    verifier = run.hall.verifier
    challenge = run.hall.run(verifier.challenge("host"))
    evidence = run.host.evidence(challenge, run.intent, grant=run.grant.id)
    first = leased(run.hall.run(renew(verifier, evidence)))
    run.hall.reopen()
    second = run.hall.run(renew(run.hall.verifier, evidence))
    assert leased(second) == first
    assert len(run.records()) == 3
    assert leased(run.renew()).sequence == 2


OVER: dict[str, Callable[[Run], Any]] = {
    "job ended": lambda r: r.host.report(r.grant),
    "grant revoked": lambda r: r.hall.command("revoke", grant=r.grant.id.hex()),
    "node quarantined": lambda r: r.hall.command("node.set-state", node="host", state="quarantined"),
    "node enrolled again, with other keys": lambda r: anew(r),
}


async def anew(run: Run) -> None:
    """The same TPM under its name once more, with another holder key."""
    token = await run.hall.command("token.create", node="host", pool="lab", activate=True, reenrol=True)
    run.host.tpm.clear()
    await run.host.enrol(token["token"])


@pytest.mark.parametrize("over", OVER.values(), ids=OVER)
def test_a_lost_answer_is_not_given_again_to_whom_no_lease_would_be_given_now(
    run: Run, over: Callable[[Run], Any]
) -> None:
    challenge = run.hall.run(run.hall.verifier.challenge("host"))
    evidence = run.host.evidence(challenge, run.intent, grant=run.grant.id)
    leased(run.hall.run(renew(run.hall.verifier, evidence)))
    run.hall.run(over(run))
    with pytest.raises(Untrusted, match=r"challenge\.redeemed"):
        run.hall.run(renew(run.hall.verifier, evidence))


def test_a_challenge_of_another_policy_is_no_use_and_no_denial(run: Run) -> None:
    """The host asks again; it has done nothing that its job should be stopped for."""
    challenge = run.hall.run(run.hall.verifier.challenge("host"))
    evidence = run.host.evidence(challenge, run.intent, grant=run.grant.id)
    run.hall.run(run.hall.ask_for(0, 1))
    with pytest.raises(Untrusted, match=r"challenge\.outdated"):
        run.hall.run(renew(run.hall.verifier, evidence))
    assert len(run.records()) == 2


@pytest.mark.parametrize("restarted", [False, True])
def test_two_jobs_of_one_host_renew_at_the_same_time(run: Run, restarted: bool) -> None:
    """Whichever quote is younger arrives first: the other one is no replay, nor is it after a restart."""
    second = start(run.hall, run.host)
    challenges = [run.hall.run(run.hall.verifier.challenge("host")) for _ in range(2)]
    older = run.host.evidence(challenges[0], run.intent, grant=run.grant.id)
    younger = run.host.evidence(challenges[1], second.intent, grant=second.grant.id)
    if restarted:
        run.hall.reopen()
    leased(run.hall.run(renew(run.hall.verifier, younger)))
    leased(run.hall.run(renew(run.hall.verifier, older)))


def test_a_job_does_not_outlive_the_boot_it_was_granted_in(run: Run) -> None:
    """The same system has booted again: good for a new grant, not for the old one."""
    leased(run.renew())
    pcrs = run.host.tpm.pcrs
    run.host.tpm.reboot()
    run.host.tpm.pcrs = pcrs
    assert_denied(run, run.renew(), "tpm.clock.rebooted", "hard")
    assert start(run.hall, run.host).lease.sequence == 0


# --- what ends it -----------------------------------------------------------------------------------------------------


def assert_denied(run: Run, answer: Any, reason: str, klass: str) -> Denial:
    denial = denied(answer)
    assert reason in denial.codes, [(r.code, r.detail) for r in denial.reasons]
    assert denial.klass == klass
    record = Record.from_bytes(denial.record)
    assert (record.kind, record.outcome, record.job) == ("lease", "deny", run.grant.id)
    verify_receipt(denial.receipt, leaf_hash(denial.record), run.hall.verifier.keys.log.public)
    return denial


COMMANDS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "node quarantined": ("node.set-state", {"node": "host", "state": "quarantined"}, "node.quarantined", "hard"),
    "node retired": ("node.set-state", {"node": "host", "state": "retired"}, "node.retired", "drain"),
    "submitter disabled": ("submitter.disable", {"submitter": "ada"}, "authz.submitter", "drain"),
    "code revoked": ("refs.set-state", {"name": CODE.hex(), "state": "revoked"}, "code.revoked", "hard"),
    "environment retired": (
        "refs.set-state",
        {"name": "environment", "state": "retired"},
        "environment.retired",
        "drain",
    ),
    "baseline withdrawn": ("refs.set-state", {"name": "boot", "state": "retired"}, "ref.retired", "drain"),
    "node revoked": ("revoke", {"node": "host"}, "node.quarantined", "hard"),
    "submitter revoked": ("revoke", {"submitter": "ada"}, "grant.revoked", "hard"),
    "job revoked": ("revoke", {"job": "digits"}, "grant.revoked", "hard"),
    "job drained": ("revoke", {"job": "digits", "drain": True}, "grant.revoked", "drain"),
}


@pytest.mark.parametrize(("command", "arguments", "reason", "klass"), COMMANDS.values(), ids=COMMANDS)
def test_what_an_operator_changes_ends_running_jobs(
    run: Run, command: str, arguments: dict[str, Any], reason: str, klass: str
) -> None:
    run.hall.run(run.hall.command(command, **arguments))
    assert_denied(run, run.renew(), reason, klass)


def test_a_role_that_is_taken_away_drains_the_job(run: Run) -> None:
    run.hall.run(run.hall.add_person(run.hall.person, roles=("visitor",)))
    assert_denied(run, run.renew(), "authz.role", "drain")


def test_an_obsolete_baseline_only_stops_new_jobs(run: Run) -> None:
    run.hall.run(run.hall.command("refs.set-state", name="boot", state="obsolete"))
    leased(run.renew())
    denial = denied(run.hall.run(run.host.ask(run.hall.intent())))
    assert denial.codes == ("trust.baseline",)


def test_a_host_that_changed_is_stopped_for_good(run: Run) -> None:
    run.host.tpm.extend(5, bytes(32))
    assert_denied(run, run.renew(), "tpm.pcr.mismatch", "hard")
    assert run.state == "revoked"
    run.host.tpm.reboot()
    assert_denied(run, run.renew(), "grant.revoked", "hard")


def test_a_stranger_cannot_stop_a_job_with_bad_evidence(run: Run) -> None:
    """Anybody may ask for a challenge in the host's name; only the host's own evidence ends its job."""
    stranger = Host(run.hall, "host", SoftTpm(CA))
    stranger.tpm.create_holder(run.hall.verifier.keys.policy.public)
    run.hall.hands.time += 1
    assert_denied(run, run.hall.run(stranger.renew(run.grant, run.intent)), "cose.kid", "hard")
    assert run.state == "running"
    leased(run.renew())


def test_a_host_that_was_silent_too_long_gets_no_lease(run: Run) -> None:
    run.hall.hands.time += 30 + 60
    leased(run.renew()) if run.hall.hands.time - run.lease.expires < 60 else None
    run.hall.hands.time += 95
    assert_denied(run, run.renew(), "lease.lapsed", "hard")


def test_a_frozen_job_is_thawed_within_the_hold_time(run: Run) -> None:
    run.hall.hands.time += 30 + 55
    assert leased(run.renew()).sequence == 1


def test_renewals_are_counted(hall: Hall) -> None:
    host = hall.run(hall.furnish())
    run = start(hall, host, limits=Limits(seconds=600, memory_mb=1, processes=1, renewals=2))
    leased(run.renew())
    leased(run.renew())
    assert_denied(run, run.renew(), "limit.renewals", "drain")


def test_a_grant_ends_with_its_time(hall: Hall) -> None:
    host = hall.run(hall.furnish())
    run = start(hall, host, limits=Limits(seconds=10, memory_mb=1, processes=1, renewals=100))
    while hall.hands.time < run.grant.expires - 25:
        hall.hands.time += 24
        leased(run.renew())
    hall.hands.time += 24
    assert_denied(run, run.renew(), "limit.seconds", "drain")


def test_a_job_that_reported_gets_no_lease(run: Run) -> None:
    run.hall.run(run.host.report(run.grant))
    assert_denied(run, run.renew(), "grant.ended", "hard")


PROBLEMS: dict[str, tuple[Callable[[Run], bytes], str]] = {
    "no grant named": (lambda r: evidence(r, grant=None), "renew.grant"),
    "unknown grant": (lambda r: evidence(r, grant=bytes(16)), "grant.unknown"),
    "unknown challenge": (lambda r: evidence(r, nonce=bytes(32)), "challenge.unknown"),
    "not evidence": (lambda r: b"\xa0", "cose.structure"),
    "nothing": (lambda r: b"", "cbor.syntax"),
    "too large": (lambda r: bytes(MAX_SIZE + 1), "cbor.size"),
    "used challenge": (lambda r: used(r), "challenge.redeemed"),
    "late": (lambda r: late(r), "challenge.expired"),
    "challenge of another node": (lambda r: of_another_node(r), "challenge.node"),
}


def evidence(run: Run, **changes: Any) -> bytes:
    challenge = run.hall.run(run.hall.verifier.challenge("host"))
    return run.host.evidence(challenge, run.intent, **{"grant": run.grant.id, **changes})


def used(run: Run) -> bytes:
    challenge = run.hall.run(run.hall.verifier.challenge("host"))
    token = run.host.evidence(challenge, run.intent, grant=run.grant.id)
    leased(run.hall.run(renew(run.hall.verifier, token)))
    return run.host.evidence(challenge, run.intent, grant=run.grant.id)


def late(run: Run) -> bytes:
    token = evidence(run)
    run.hall.hands.time += 31
    return token


def of_another_node(run: Run) -> bytes:
    run.hall.run(run.hall.add_host("second"))
    challenge = run.hall.run(run.hall.verifier.challenge("second"))
    return run.host.evidence(challenge, run.intent, grant=run.grant.id)


@pytest.mark.parametrize(("make", "reason"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be_judged_is_a_problem_and_costs_nothing(
    run: Run, make: Callable[[Run], bytes], reason: str
) -> None:
    token = make(run)
    count = len(run.records())
    with pytest.raises(InterlockError) as caught:
        run.hall.run(renew(run.hall.verifier, token))
    assert caught.value.reason == reason
    assert len(run.records()) == count
    assert run.state == "running"


def test_a_denied_request_cannot_be_renewed(hall: Hall) -> None:
    host = hall.run(hall.furnish())
    record = Record.from_bytes(denied(hall.run(host.ask(hall.intent(tenant="other")))).record)
    challenge = hall.run(hall.verifier.challenge("host"))
    token = host.evidence(challenge, hall.intent(), grant=record.job)
    with pytest.raises(InterlockError, match=r"grant\.unknown"):
        hall.run(renew(hall.verifier, token))


def test_of_two_renewals_at_once_both_have_their_place(run: Run) -> None:
    async def go() -> list[Any]:
        return await asyncio.gather(*(run.host.renew(run.grant, run.intent) for _ in range(3)))

    leases = sorted((leased(token) for token in run.hall.run(go())), key=lambda lease: lease.sequence)
    assert [lease.sequence for lease in leases] == [1, 2, 3]
    for one, two in pairwise(leases):
        assert two.previous == one.digest


# --- reports ----------------------------------------------------------------------------------------------------------


def test_a_report_ends_the_job_and_is_in_the_log(run: Run) -> None:
    halts = (HaltRecord(klass="hard", reason="tpm.pcr.mismatch", frozen_us=900, dead_us=9000),)
    receipt = run.hall.run(run.host.report(run.grant, halts=halts, exit_code=74))
    entry = run.hall.verifier.store.records_of(run.grant.id)[-1]
    record = Record.from_bytes(entry.record)
    assert (record.kind, record.outcome, record.reasons) == ("report", "ended", ("tpm.pcr.mismatch",))
    verify_receipt(receipt, leaf_hash(entry.record), run.hall.verifier.keys.log.public)
    assert run.state == "ended"


def test_the_same_report_again_gets_a_receipt_again(run: Run) -> None:
    token = sign_report(ended(run.grant), run.host.holder)
    run.hall.run(report(run.hall.verifier, token))
    receipt = run.hall.run(report(run.hall.verifier, token))
    entry = run.hall.verifier.store.records_of(run.grant.id)[-1]
    verify_receipt(receipt, leaf_hash(entry.record), run.hall.verifier.keys.log.public)
    assert [record.kind for record in run.records()].count("report") == 1


def test_the_same_report_twice_at_once_is_one_record(run: Run) -> None:
    token = sign_report(ended(run.grant), run.host.holder)

    async def go() -> Any:
        return await asyncio.gather(*(report(run.hall.verifier, token) for _ in range(3)))

    run.hall.run(go())
    assert [record.kind for record in run.records()].count("report") == 1


def test_a_second_report_is_refused(run: Run) -> None:
    run.hall.run(run.host.report(run.grant))
    with pytest.raises(InterlockError, match=r"report\.second"):
        run.hall.run(run.host.report(run.grant, exit_code=1))


def test_a_silent_job_is_given_up_and_may_still_report(run: Run) -> None:
    run.hall.hands.time += 30 + 59
    assert run.hall.run(tidy(run.hall.verifier)) == 0
    run.hall.hands.time += 2
    assert run.hall.run(tidy(run.hall.verifier)) == 1
    assert (run.state, run.records()[-1].outcome) == ("ended", "lapsed")
    run.hall.run(run.host.report(run.grant))
    assert run.records()[-1].kind == "report"


def _flipped(token: bytes) -> bytes:
    """The token with the last bit of its signature changed."""
    return token[:-1] + bytes([token[-1] ^ 1])


REPORTS: dict[str, tuple[Callable[[Run], bytes], str]] = {
    "another key": (lambda r: sign_report(ended(r.grant), SoftwareSigner.generate(ES256)), "cose.kid"),
    "unknown grant": (lambda r: sign_report(ended(replace(r.grant, id=bytes(16))), r.host.holder), "grant.unknown"),
    "evidence instead": (lambda r: evidence(r), "cose.typ"),
    "altered": (lambda r: _flipped(sign_report(ended(r.grant), r.host.holder)), "cose.signature"),
    "nothing": (lambda r: b"", "cbor.syntax"),
}


@pytest.mark.parametrize(("make", "reason"), REPORTS.values(), ids=REPORTS)
def test_reports_that_are_refused(run: Run, make: Callable[[Run], bytes], reason: str) -> None:
    with pytest.raises(InterlockError) as caught:
        run.hall.run(report(run.hall.verifier, make(run)))
    assert caught.value.reason == reason
    assert run.state == "running"
