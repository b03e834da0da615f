"""What a verifier keeps of the jobs that a host's TPM has measured, and what it does with a host that shows others."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from attestation.audit import Check, verify_bundle
from attestation.bundle import Root
from attestation.decision import HARD
from attestation.grant import Grant
from attestation.intent import Intent
from attestation.log import Record
from attestation.problem import Denial
from attestation.progress import boot_of
from attestation.workload import WorkloadEntry, replay
from tests.verifier.hall import CODE, ENVIRONMENT, Hall, Host, allowed, denied
from verifier.bundles import make_bundle
from verifier.renew import renew

Making = Callable[[Hall, Host, Grant], Awaitable[WorkloadEntry]]


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with Hall(tmp_path) as made:
        yield made


async def granted(hall: Hall, host: Host) -> tuple[Grant, Intent]:
    intent = hall.intent()
    grant, _ = allowed(await host.ask(intent))
    return grant, intent


async def renewed(hall: Hall, host: Host, grant: Grant, intent: Intent) -> bytes:
    hall.hands.time += 5
    answer = await host.renew(grant, intent)
    assert isinstance(answer, bytes), answer
    return answer


async def refused(hall: Hall, host: Host, grant: Grant, intent: Intent) -> Denial:
    hall.hands.time += 5
    return denied(await host.renew(grant, intent))


def audited(hall: Hall, job: bytes) -> list[Check]:
    """The checks of an auditor on a job's bundle, all of which pass."""
    checks = verify_bundle(make_bundle(hall.verifier, job), Root.from_pem(hall.verifier.keys.root))
    assert [check for check in checks if not check.ok] == []
    return checks


def entry(grant: Grant) -> WorkloadEntry:
    return WorkloadEntry(grant.id, CODE, ENVIRONMENT)


def test_the_sequence_grows_with_the_leases_and_the_next_challenge_knows_it(hall: Hall) -> None:
    async def act() -> None:
        host = await hall.furnish()
        assert (await hall.verifier.challenge(host.name)).workload_next is None
        first, intent = await granted(hall, host)
        await renewed(hall, host, first, intent)
        second, other = await granted(hall, host)
        await renewed(hall, host, second, other)
        await renewed(hall, host, first, intent)
        asked = await hall.verifier.challenge(host.name)
        assert (asked.workload_boot, asked.workload_next) == (boot_of(1, 0), 2)
        assert host.jobs.entries == [entry(first), entry(second)]

    hall.run(act())


def test_a_renewal_that_was_asked_for_before_another_was_accepted_takes_nothing_back(hall: Hall) -> None:
    """Two jobs of one host renew at the same time: each is judged from what was known when it asked."""

    async def act() -> None:
        host = await hall.furnish()
        (first, intent), (second, other) = await granted(hall, host), await granted(hall, host)
        hall.hands.time += 5
        early = await hall.verifier.challenge(host.name)
        evidence = host.evidence(early, intent, grant=first.id)
        await renewed(hall, host, second, other)
        assert isinstance(await renew(hall.verifier, evidence), bytes)
        assert (await hall.verifier.challenge(host.name)).workload_next == 2
        await renewed(hall, host, first, intent)

    hall.run(act())


def test_it_outlives_a_restart_of_the_verifier(hall: Hall) -> None:
    async def before() -> tuple[Host, Grant, Intent]:
        host = await hall.furnish()
        grant, intent = await granted(hall, host)
        await renewed(hall, host, grant, intent)
        return host, grant, intent

    host, grant, intent = hall.run(before())
    hall.reopen()

    async def after() -> None:
        host.jobs.entries.clear()
        host.tpm.define_workload()
        host.jobs.start(WorkloadEntry(bytes(16), CODE, ENVIRONMENT))
        host.jobs.start(entry(grant))
        denial = await refused(hall, host, grant, intent)
        assert (denial.codes, denial.klass) == (("tpm.workload.rewritten",), HARD)
        assert audited(hall, grant.id)[-1].detail == "job 1 of its boot, 1 are shown", (
            "denied evidence counts for nothing"
        )

    hall.run(after())


def test_a_denied_renewal_proves_nothing(hall: Hall) -> None:
    async def act() -> None:
        host = await hall.furnish()
        grant, intent = await granted(hall, host)
        await renewed(hall, host, grant, intent)
        host.jobs.start(WorkloadEntry(bytes(16), CODE, ENVIRONMENT))
        pcrs = dict(host.tpm.pcrs[0xB])
        host.tpm.extend(4, bytes(32))
        assert (await refused(hall, host, grant, intent)).codes == ("tpm.pcr.mismatch",)
        host.tpm.pcrs[0xB].update(pcrs)
        assert (await hall.verifier.challenge(host.name)).workload_next == 1

    hall.run(act())


def test_after_a_reboot_the_sequence_begins_anew(hall: Hall) -> None:
    async def act() -> None:
        host = await hall.furnish()
        first, intent = await granted(hall, host)
        await renewed(hall, host, first, intent)
        host.tpm.reboot()
        second, other = await granted(hall, host)
        await renewed(hall, host, second, other)
        asked = await hall.verifier.challenge(host.name)
        assert (asked.workload_boot, asked.workload_next) == (boot_of(2, 0), 1)
        assert host.tpm.nv_contents == replay([entry(second)])

    hall.run(act())


@pytest.mark.parametrize("hidden", ["undefined", "not measured", "code"])
def test_a_host_that_hides_its_job_is_denied_hard(hall: Hall, hidden: str) -> None:
    reasons = {
        "undefined": "tpm.workload.absent",
        "not measured": "tpm.workload.missing",
        "code": "tpm.workload.measured",
    }

    async def act() -> None:
        host = await hall.furnish()
        grant, intent = await granted(hall, host)
        if hidden == "undefined":
            await renewed(hall, host, grant, intent)
            host.tpm.nv = host.tpm.nv_contents = None
            host.jobs.ensure = lambda *_: None  # type: ignore[method-assign]
        elif hidden == "not measured":
            host.jobs.start(WorkloadEntry(bytes(16), CODE, ENVIRONMENT))
            host.jobs.ensure = lambda *_: None  # type: ignore[method-assign]
        else:
            host.jobs.start(WorkloadEntry(grant.id, bytes(32), ENVIRONMENT))
        denial = await refused(hall, host, grant, intent)
        assert (denial.codes, denial.klass) == ((reasons[hidden],), HARD)
        assert hall.verifier.job(grant.id).state not in ("issued", "running"), "a hard denial is final"

    hall.run(act())


async def unknown(hall: Hall, host: Host, grant: Grant) -> WorkloadEntry:
    return WorkloadEntry(b"u" * 16, CODE, ENVIRONMENT)


async def of_a_denied_request(hall: Hall, host: Host, grant: Grant) -> WorkloadEntry:
    denial = denied(await host.ask(hall.intent(code=bytes(32))))
    job = Record.from_bytes(denial.record).job
    assert job is not None
    return WorkloadEntry(job, bytes(32), ENVIRONMENT)


async def of_another_host(hall: Hall, host: Host, grant: Grant) -> WorkloadEntry:
    other = await hall.add_host("other")
    theirs, _ = await granted(hall, other)
    return entry(theirs)


async def of_other_code(hall: Hall, host: Host, grant: Grant) -> WorkloadEntry:
    second, _ = await granted(hall, host)
    return WorkloadEntry(second.id, bytes(32), ENVIRONMENT)


async def of_another_environment(hall: Hall, host: Host, grant: Grant) -> WorkloadEntry:
    second, _ = await granted(hall, host)
    return WorkloadEntry(second.id, CODE, bytes(32))


@pytest.mark.parametrize("action", ["run", "renew"])
@pytest.mark.parametrize("made", [unknown, of_a_denied_request, of_another_host, of_other_code, of_another_environment])
def test_a_job_that_was_not_granted_is_found_whoever_listed_it(hall: Hall, made: Making, action: str) -> None:
    """An agent in other hands measures, and lists, a job of its own."""

    async def act() -> None:
        host = await hall.furnish()
        grant, intent = await granted(hall, host)
        await renewed(hall, host, grant, intent)
        host.jobs.start(await made(hall, host, grant))
        if action == "renew":
            denial = await refused(hall, host, grant, intent)
        else:
            denial = denied(await host.ask(hall.intent()))
        assert (denial.codes, denial.klass) == (("tpm.workload.unknown",), HARD)
        assert (await hall.verifier.challenge(host.name)).workload_next == 1, "nothing of it is kept"
        job = grant.id if action == "renew" else Record.from_bytes(denial.record).job or b""
        assert "tpm.workload.unknown" in audited(hall, job)[15].detail, (
            "a fact of the moment, which the auditor is told"
        )

    hall.run(act())
