"""Jobs are measured into the TPM before they start, and the sequence cannot be changed behind the verifier's back."""

from collections.abc import Callable, Iterator

import pytest

from agent import codes
from agent.devices import DeviceError
from attestation.report import Report
from attestation.workload import WorkloadEntry, replay
from fixtures.attester import SoftTpm
from tests.agent.house import House, Submission
from tests.agent.test_run import nothing_ran, reports, running

pytestmark = pytest.mark.root


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as made:
        yield made


def measured(house: House) -> list[WorkloadEntry]:
    """What the agent has measured in this boot."""
    return house.host.workloads._sequence.entries


def entry_of(house: House, job: Submission) -> tuple[WorkloadEntry, Report]:
    """The entry of a job that has ended, and its report."""
    ended = job.end()
    assert ended.grant is not None
    return WorkloadEntry(ended.grant, house.code_digest(), house.environment_digest), reports(house, ended.grant)


def test_two_jobs_one_after_the_other_are_in_the_tpm_in_this_order(house: House) -> None:
    (first, one), (second, two) = (entry_of(house, house.submit()) for _ in range(2))
    assert (one.entry, two.entry) == (1, 2)
    assert measured(house) == [first, second]
    assert house.tpm.nv_contents == replay([first, second])
    assert house.host.counters.as_dict()["jobs_measured"] == 2


def test_a_job_that_is_not_what_was_granted_is_not_measured(house: House) -> None:
    job = house.submit(code=bytes(32))
    assert job.end().exit_code == codes.DENIED
    assert (measured(house), house.tpm.nv) == ([], None)


def test_where_the_tpm_fails_no_job_starts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_measurement: bytes) -> None:
        raise DeviceError("tpm.device.io", "the connection broke")

    monkeypatch.setattr(house.tpm, "extend_workload", fail)
    job = house.submit()
    ended = job.end()
    assert (ended.exit_code, ended.event, ended.reason) == (codes.FAILED, "halted", "tpm.device.io")
    assert nothing_ran(house, job)
    assert reports(house, ended.grant).entry is None


def test_where_somebody_else_used_the_index_no_job_starts(house: House) -> None:
    house.submit().end()
    house.tpm.extend_workload(bytes(32))
    job = house.submit()
    ended = job.end()
    assert ended.reason == "tpm.workload.contents", "the request's own evidence shows it already"
    assert ended.exit_code == codes.DENIED


def _undefined(tpm: SoftTpm, entries: list[WorkloadEntry]) -> None:
    tpm.nv = tpm.nv_contents = None


def _defined_again(tpm: SoftTpm, entries: list[WorkloadEntry]) -> None:
    tpm.define_workload()


def _defined_again_and_extended(tpm: SoftTpm, entries: list[WorkloadEntry]) -> None:
    tpm.define_workload()
    tpm.extend_workload(bytes(32))


def _own_entry_repeated_alone(tpm: SoftTpm, entries: list[WorkloadEntry]) -> None:
    tpm.define_workload()
    tpm.extend_workload(entries[-1].measurement)
    del entries[:-1]


def _extended(tpm: SoftTpm, entries: list[WorkloadEntry]) -> None:
    tpm.extend_workload(bytes(32))


def _listed_otherwise(tpm: SoftTpm, entries: list[WorkloadEntry]) -> None:
    entries[-1] = WorkloadEntry(entries[-1].grant, bytes(32), bytes(32))


ATTACKS: dict[str, tuple[Callable[[SoftTpm, list[WorkloadEntry]], None], str]] = {
    "undefines the index": (_undefined, "tpm.workload.absent"),
    "undefines and redefines it": (_defined_again, "tpm.workload.absent"),
    "redefines it and extends something": (_defined_again_and_extended, "tpm.workload.contents"),
    "redefines it for this job alone": (_own_entry_repeated_alone, "tpm.workload.rollback"),
    "extends something of its own": (_extended, "tpm.workload.contents"),
    "lists another code": (_listed_otherwise, "tpm.workload.rewritten"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_root_on_the_host(house: House, name: str) -> None:
    """Whoever has root on the host does this while a job runs: the next renewal is a hard denial."""
    attack, reason = ATTACKS[name]
    house.submit().end()
    job, governed = running(house)
    governed.hurry()
    job.until("lease")
    attack(house.tpm, measured(house))
    governed.hurry()
    ended = job.end()
    assert (ended.exit_code, ended.event, ended.reason) == (codes.DRIFT, "halted", reason)
    assert [halt.klass for halt in reports(house, ended.grant).halts] == ["hard"]


def test_renewals_go_on_while_other_jobs_come_and_go(house: House) -> None:
    job, governed = running(house)
    for _ in range(3):
        house.submit().end()
        governed.hurry()
        job.until("lease")
    assert len(measured(house)) == 4
    job.close()
