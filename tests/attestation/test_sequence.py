"""The jobs beside one job, laid together from all its evidence: one sequence, or the auditor says so."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from attestation.bundle import Bundle
from attestation.errors import InterlockError
from attestation.evidence import TpmRecord
from attestation.log import Record
from attestation.progress import boot_of
from attestation.rederive import Archive
from attestation.report import sign_report
from attestation.sequence import Measured, sequence, verify_sequence
from attestation.workload import WorkloadEntry
from tests.attestation.examples import HOLDER, REPORT
from tests.attestation.forge import story
from tests.attestation.world import World

GRANT = b"g" * 16
JOBS = tuple(WorkloadEntry(bytes([n]) * 16, bytes([n]) * 32, bytes(32)) for n in range(1, 5))


@dataclass
class Audited:
    """As much of an audit as the sequence looks at."""

    bundle: Bundle
    archive: Archive
    records: list[Record]


def audited(*tokens: bytes, outcome: str = "issued", report: int | str | None = "") -> Audited:
    """An audit of a job with this evidence, and a report that gives it this place (``""``: no report)."""
    blobs = {hashlib.sha256(token).digest(): token for token in tokens}
    records = [
        Record(kind="lease", time=1, outcome=outcome, digests={"evidence": hashlib.sha256(token).digest()})
        for token in tokens
    ]
    if report != "":
        made = sign_report(replace(REPORT, entry=report), HOLDER)  # type: ignore[arg-type]
        blobs[hashlib.sha256(made).digest()] = made
        named = {"report": hashlib.sha256(made).digest()}
        records.append(Record(kind="report", time=2, outcome="ended", digests=named))
    return Audited(replace(Bundle.from_bytes(story().run), job=GRANT), Archive(blobs), records)


def shown(world: World, start: int = 0) -> bytes:
    """Evidence of a host that shows its jobs from number ``start`` on."""
    return world.evidence(world.record(workload=world.jobs.record(world.qualifying(), start)))


def host(jobs: Sequence[WorkloadEntry]) -> World:
    made = World()
    for job in jobs:
        made.jobs.start(job)
    return made


def test_parts_of_one_sequence_are_laid_together() -> None:
    world = host(JOBS[:2])
    first = shown(world)
    world.jobs.start(JOBS[2])
    second = shown(world, 1)
    world.jobs.ensure(GRANT, bytes(32), bytes(32))
    third = shown(world, 3)
    made = audited(first, second, third, report=4)
    own = WorkloadEntry(GRANT, bytes(32), bytes(32))
    expected = tuple(Measured(boot_of(1, 0), n, job) for n, job in enumerate((*JOBS[:3], own), 1))
    assert sequence(made.archive, made.records) == expected
    assert verify_sequence(made) == "job 4 of its boot, 4 are shown"


def test_boots_are_told_apart() -> None:
    world = host(JOBS[:1])
    first = shown(world)
    world.tpm.reboot()
    world.jobs.start(JOBS[1])
    found = sequence((made := audited(first, shown(world))).archive, made.records)
    assert [(each.boot, each.number, each.entry) for each in found] == [
        (boot_of(1, 0), 1, JOBS[0]),
        (boot_of(2, 0), 1, JOBS[1]),
    ]


@pytest.mark.parametrize("report", [None, ""], ids=["a report without a place", "no report"])
def test_where_this_job_is_not_shown(report: str | None) -> None:
    assert verify_sequence(audited(shown(host(JOBS[:2])), report=report)) == (
        "2 jobs of its boot are shown, this one is not"
    )
    assert verify_sequence(audited(World().evidence(), report=report)).startswith("0 jobs")
    assert verify_sequence(audited(World().evidence(collection={}))).startswith("0 jobs")


def test_denied_evidence_counts_for_nothing() -> None:
    made = audited(shown(host(JOBS)), outcome="deny")
    assert sequence(made.archive, made.records) == ()


def _others(world: World) -> bytes:
    """A host whose index was undefined and defined again."""
    world.jobs.entries.clear()
    world.tpm.define_workload()
    for job in (JOBS[0], JOBS[3]):
        world.jobs.start(job)
    return shown(world)


def _own_elsewhere(world: World) -> bytes:
    world.jobs.entries.clear()
    world.tpm.define_workload()
    world.jobs.ensure(GRANT, bytes(32), bytes(32))
    return shown(world)


@pytest.mark.parametrize("later", [_others, _own_elsewhere])
def test_two_sequences_in_one_boot_are_found(later: Any) -> None:
    world = host(JOBS[:2])
    made = audited(shown(world), later(world))
    with pytest.raises(InterlockError) as refused:
        verify_sequence(made)
    assert refused.value.reason == "bundle.workload"


@pytest.mark.parametrize("place", [1, 3, 99])
def test_a_report_that_gives_the_job_another_place_is_found(place: int) -> None:
    world = host(JOBS[:1])
    world.jobs.ensure(GRANT, bytes(32), bytes(32))
    assert verify_sequence(audited(shown(world), report=2)) == "job 2 of its boot, 2 are shown"
    assert verify_sequence(audited(shown(world), report=None)) == "job 2 of its boot, 2 are shown"
    with pytest.raises(InterlockError) as refused:
        verify_sequence(audited(shown(world), report=place))
    assert refused.value.reason == "bundle.workload"


BROKEN = {
    "attestation": ("tpm.attest.truncated", {"attest": b"\xffTCG\x80\x14"}),
    "entries": ("tpm.workload.entries.truncated", {"entries": bytes(79)}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_evidence_that_cannot_be_taken_apart_is_found(name: str) -> None:
    reason, changes = BROKEN[name]
    world = host(JOBS[:1])
    record: TpmRecord = world.record(workload=world.workload(**changes))
    with pytest.raises(InterlockError) as refused:
        verify_sequence(audited(world.evidence(record)))
    assert refused.value.reason == reason
