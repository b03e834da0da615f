"""Check 14: the sequence of measured jobs in the appraisal, from what was known when the challenge was issued."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from attestation.appraise import Followed, appraise_and_follow
from attestation.bench import Subject
from attestation.claims import FAIL, NOT_RUN, PASS
from attestation.decision import HARD, decide
from attestation.progress import HostProgress, boot_of
from attestation.workload import WorkloadEntry, replay
from tests.attestation.facts import FACTS, POLICY
from tests.attestation.world import VERIFIER, World

GRANT = b"g" * 16
OTHERS = tuple(WorkloadEntry(bytes([n]) * 16, bytes([n]) * 32, bytes(32)) for n in range(1, 4))
BOOT = boot_of(1, 0)


def knowing(count: int, boot: bytes = BOOT) -> HostProgress:
    """A verifier that has seen so many of the others."""
    return HostProgress(boot=boot, workload_count=count, workload_value=replay(OTHERS[:count]))


def world(count: int = 3, grant: bytes | None = None) -> World:
    """A host that has let so many others start, and the job of ``grant``."""
    made = World(grant=grant)
    for job in OTHERS[:count]:
        made.jobs.start(job)
    return made


def followed(host: World, known: HostProgress | None, token: bytes | None = None) -> Followed:
    subject: Subject = replace(host.subject, progress=known)
    return appraise_and_follow(host.evidence() if token is None else token, subject, verifier=VERIFIER)


@pytest.mark.parametrize("grant", [None, GRANT], ids=["a new grant", "a renewal"])
@pytest.mark.parametrize("known", [None, knowing(0), knowing(2), knowing(3), knowing(2, boot_of(0, 4))])
def test_what_is_proven_goes_on(known: HostProgress | None, grant: bytes | None) -> None:
    host = world(grant=grant)
    found = followed(host, known)
    count = 3 if grant is None else 4
    assert found.claims.submods["tpm"].facts["workload.jobs"] == str(count)
    seen = 0 if known is None or known.boot != BOOT else known.workload_count
    assert found.jobs == tuple(host.jobs.entries[seen:]), "what is new, for the verifier to look up"
    assert found.progress == HostProgress(boot=BOOT, workload_count=count, workload_value=replay(host.jobs.entries))


def test_a_host_that_has_run_nothing_shows_nothing() -> None:
    found = followed(World(), None)
    assert found.claims.failures == ()
    assert (found.progress, found.jobs) == (HostProgress(boot=BOOT), ())


Spoil = Callable[[World], bytes]


def _absent(host: World) -> bytes:
    return host.evidence(host.record(workload=None))


def _redefined(host: World) -> bytes:
    host.jobs.entries.clear()
    host.tpm.define_workload()
    host.jobs.start(OTHERS[2])
    return host.evidence()


def _extended(host: World) -> bytes:
    host.tpm.extend_workload(bytes(32))
    return host.evidence()


def _other_code(host: World) -> bytes:
    host.jobs.start(WorkloadEntry(GRANT, bytes(32), host.intent.environment))
    return host.evidence()


def _not_measured(host: World) -> bytes:
    shown = host.jobs.record(host.qualifying())
    return host.evidence(host.record(workload=shown))


def _of_another_answer(host: World) -> bytes:
    host.jobs.ensure(GRANT, host.intent.code, host.intent.environment)
    return host.evidence(host.record(workload=host.jobs.record(bytes(32))))


REFUSED: dict[str, tuple[bytes | None, Spoil, str]] = {
    "a renewal that shows nothing": (GRANT, _absent, "tpm.workload.absent"),
    "a request that shows nothing any more": (None, _absent, "tpm.workload.absent"),
    "the index was undefined and defined again": (None, _redefined, "tpm.workload.rollback"),
    "the index was undefined and defined again under a job": (GRANT, _redefined, "tpm.workload.rewritten"),
    "something was extended": (GRANT, _extended, "tpm.workload.contents"),
    "other code was measured than granted": (GRANT, _other_code, "tpm.workload.measured"),
    "the job was not measured": (GRANT, _not_measured, "tpm.workload.missing"),
    "the certification is of another answer": (GRANT, _of_another_answer, "tpm.workload.nonce"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_continued_is_refused(name: str) -> None:
    grant, spoil, reason = REFUSED[name]
    host = world(grant=grant)
    found = followed(host, knowing(2), spoil(host))
    (failed,) = found.claims.failures
    assert (failed.name, failed.reason) == ("tpm.workload", reason)
    assert (found.progress, found.jobs) == (None, ())


def test_it_is_not_made_where_an_earlier_check_failed() -> None:
    host = world(grant=GRANT)
    host.tpm.extend(4, bytes(32))
    outcomes = {check.name: check.outcome for check in host.appraise().submods["tpm"].checks}
    assert (outcomes["tpm.baseline"], outcomes["tpm.workload"]) == (FAIL, NOT_RUN)
    assert {check.name: check.outcome for check in world().appraise().submods["tpm"].checks}["tpm.workload"] == PASS


@pytest.mark.parametrize("reason", sorted({reason for _, _, reason in REFUSED.values()}))
def test_the_denial_is_hard(reason: str) -> None:
    decision = decide(replace(FACTS, affirming=False, failures=(reason,)), POLICY)
    assert (decision.denial, decision.reasons) == (HARD, (reason,))
