"""The agent's sequence of jobs: what crashes leave behind, what other boots begin anew, and what is never repaired."""

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from agent.devices import Attested, DeviceError, NvIndex, Tpm
from agent.tpm import EsysTpm
from agent.workload import FILE, Workloads
from attestation.challenge import Challenge
from attestation.errors import Untrusted
from attestation.progress import boot_of
from attestation.tpm.identity import verify_ak
from attestation.tpm.nv import CLEAR_STCLEAR, WORKLOAD
from attestation.tpm.structures import ALG_SHA256
from attestation.workload import (
    MOST,
    Granted,
    Proven,
    WorkloadEntry,
    WorkloadRecord,
    read_entries,
    replay,
    verify_workload,
)
from fixtures.attester import SoftTpm
from fixtures.swtpm import Swtpm
from tests.agent.tpms import CA

QUALIFYING = bytes(range(32))
CHALLENGE = Challenge(expires_in=30, bank=ALG_SHA256, audience="v", pcrs=(0,), issued=1, nonce=b"n" * 32)
JOBS = tuple(WorkloadEntry(bytes([n]) * 16, bytes([n]) * 32, bytes([n + 100]) * 32) for n in range(1, 7))


def boot(tpm: Tpm) -> bytes:
    now = tpm.clock()
    return boot_of(now.reset_count, now.restart_count)


def proven(tpm: Tpm, workloads: Workloads, known: Proven | None = None, job: WorkloadEntry | None = None) -> Proven:
    """What a verifier that knows this much makes of what is shown now, to renew ``job`` where there is one."""
    asked = (
        CHALLENGE
        if known is None or not known.count
        else replace(CHALLENGE, workload_boot=known.boot, workload_next=known.count)
    )
    return verify_workload(
        workloads.record(QUALIFYING, asked, None if job is None else job.grant),
        ak=verify_ak(tpm.create_ak().public),
        qualifying=QUALIFYING,
        boot=boot(tpm),
        proven=known,
        granted=None if job is None else Granted(job.grant, job.code, job.environment),
    )


def entries(record: WorkloadRecord | None) -> tuple[WorkloadEntry, ...]:
    assert record is not None
    return read_entries(record.entries)


@pytest.mark.parametrize("kind", ["swtpm", "soft"])
def test_two_jobs_one_after_the_other(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    emulator: Swtpm | None = request.getfixturevalue("swtpm") if kind == "swtpm" else None
    tpm: Tpm = SoftTpm(CA) if emulator is None else EsysTpm(emulator.tcti, deadline=5)
    workloads = Workloads(tpm, tmp_path / FILE)
    nothing = proven(tpm, workloads)
    assert nothing.count == 0
    assert workloads.measure(JOBS[0]) == 1
    one = proven(tpm, workloads, nothing, JOBS[0])
    assert workloads.measure(JOBS[1]) == 2
    two = proven(tpm, workloads, one, JOBS[1])
    assert (one.count, two.count) == (1, 2)
    assert two.value == replay(JOBS[:2])
    assert proven(tpm, workloads, two, JOBS[0]) == two, "the first job's renewal, after the second is known"
    again = Workloads(tpm, tmp_path / FILE)
    assert proven(tpm, again, two) == two, "a restarted agent knows what was"
    assert again.measure(JOBS[2]) == 3
    tpm.close()


def test_what_is_kept_is_for_the_agent_alone(tmp_path: Path) -> None:
    Workloads(SoftTpm(CA), tmp_path / FILE).measure(JOBS[0])
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_renewal_shows_what_is_new_and_its_own_entry(tmp_path: Path) -> None:
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    for job in JOBS:
        workloads.measure(job)

    def shown(known: int, grant: bytes | None, of: bytes = boot(tpm)) -> tuple[WorkloadEntry, ...]:
        asked = replace(CHALLENGE, workload_boot=of, workload_next=known)
        return entries(workloads.record(QUALIFYING, asked, grant))

    assert shown(4, None) == JOBS
    assert shown(4, JOBS[5].grant) == JOBS[4:]
    assert shown(4, JOBS[1].grant) == JOBS[1:]
    assert shown(6, JOBS[5].grant) == JOBS[5:]
    assert shown(6, bytes(16)) == ()
    assert shown(9, bytes(16)) == ()
    assert shown(4, JOBS[5].grant, boot_of(0, 0)) == JOBS


def test_a_long_sequence_is_not_shown_anew_with_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.workload._ALL", 5)
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    for job in JOBS:
        workloads.measure(job)
    asked = replace(CHALLENGE, workload_boot=boot(tpm), workload_next=4)
    assert entries(workloads.record(QUALIFYING, asked, None)) == JOBS[4:]


@pytest.mark.parametrize("attributes", [WORKLOAD.attributes, WORKLOAD.attributes & ~CLEAR_STCLEAR])
def test_whatever_somebody_extends_before_the_first_job_is_made_anew(tmp_path: Path, attributes: int) -> None:
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    tpm.define_workload()
    tpm.extend_workload(bytes(32))
    assert workloads.record(QUALIFYING, CHALLENGE, None) is None
    tpm.nv = replace(WORKLOAD, attributes=attributes)
    tpm.extend_workload(bytes(32))
    assert workloads.measure(JOBS[0]) == 1
    assert proven(tpm, workloads, None, JOBS[0]).count == 1


# --- crashes ---------------------------------------------------------------------------------------------------


class Dies(SoftTpm):
    """A TPM whose agent dies around an extend: ``before`` it or after it."""

    before: bool | None = None

    @override
    def extend_workload(self, measurement: bytes) -> None:
        if self.before is True:
            raise DeviceError("tpm.device.io", "died")
        super().extend_workload(measurement)
        if self.before is False:
            raise DeviceError("tpm.device.timeout", "died")


@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "same agent"])
@pytest.mark.parametrize("first", [0, 2], ids=["first job", "third job"])
@pytest.mark.parametrize("before", [True, False], ids=["before the extend", "behind the extend"])
def test_a_crash_around_the_extend_is_resolved(tmp_path: Path, before: bool, first: int, restarted: bool) -> None:
    tpm = Dies(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    for job in JOBS[:first]:
        workloads.measure(job)
    known = proven(tpm, workloads)
    tpm.before = before
    with pytest.raises(DeviceError):
        workloads.measure(JOBS[first])
    tpm.before = None
    if restarted:
        workloads = Workloads(tpm, tmp_path / FILE)
    held = first if before else first + 1
    assert proven(tpm, workloads, known).count == held, "what is shown fits what the TPM holds"
    assert workloads.measure(JOBS[5]) == held + 1
    assert proven(tpm, workloads, known, JOBS[5]).count == held + 1
    assert proven(tpm, Workloads(tpm, tmp_path / FILE), known, JOBS[5]).count == held + 1


def test_a_full_disk_starts_no_job_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    workloads.measure(JOBS[0])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            workloads.measure(JOBS[1])
    assert tpm.nv_contents == replay(JOBS[:1])
    assert proven(tpm, workloads).count == 1
    assert workloads.measure(JOBS[2]) == 2


def test_a_killed_agent_leaves_a_sequence_that_goes_on(swtpm: Swtpm, tmp_path: Path) -> None:
    """A real process, killed between the entry on the disk and the extend."""
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    workloads = Workloads(tpm, tmp_path / FILE)
    workloads.measure(JOBS[0])
    known = proven(tpm, workloads)
    tpm.close()
    child = os.fork()
    if child == 0:

        class Killed(EsysTpm):
            @override
            def extend_workload(self, measurement: bytes) -> None:
                os.kill(os.getpid(), 9)

        Workloads(Killed(swtpm.tcti, deadline=5), tmp_path / FILE).measure(JOBS[1])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    again = Workloads(tpm, tmp_path / FILE)
    assert proven(tpm, again, known) == known
    assert again.measure(JOBS[2]) == 2
    assert proven(tpm, again, known, JOBS[2]).value == replay((JOBS[0], JOBS[2]))
    tpm.close()


# --- other boots -----------------------------------------------------------------------------------------------


def _rebooted(tpm: SoftTpm) -> None:
    tpm.reboot()


def _resumed(tpm: SoftTpm) -> None:
    tpm.restart_count += 1


def _cleared(tpm: SoftTpm) -> None:
    tpm.clear()


@pytest.mark.parametrize("other", [_rebooted, _resumed, _cleared])
def test_another_boot_begins_anew(tmp_path: Path, other: Callable[[SoftTpm], None]) -> None:
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    workloads.measure(JOBS[0])
    known = proven(tpm, workloads)
    other(tpm)
    assert workloads.measure(JOBS[1]) == 1
    now = proven(tpm, workloads, known, JOBS[1])
    assert (now.boot, now.count, now.value) == (boot(tpm), 1, replay([JOBS[1]]))


@pytest.mark.parametrize("other", [_rebooted, _resumed, _cleared])
@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "same agent"])
def test_what_is_shown_before_the_first_job_of_another_boot(
    tmp_path: Path,
    other: Callable[[SoftTpm], None],
    restarted: bool,
) -> None:
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    workloads.measure(JOBS[0])
    known = proven(tpm, workloads)
    other(tpm)
    if restarted:
        workloads = Workloads(tpm, tmp_path / FILE)
    assert proven(tpm, workloads, known).count == 0
    assert workloads.measure(JOBS[1]) == 1
    assert proven(tpm, workloads, known, JOBS[1]).count == 1


def test_a_host_that_lost_its_state_begins_anew_where_nobody_knows_of_it(tmp_path: Path) -> None:
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    workloads.measure(JOBS[0])
    known = proven(tpm, workloads)
    again = Workloads(tpm, tmp_path / "another")
    with pytest.raises(Untrusted) as denied:
        proven(tpm, again, known)
    assert denied.value.reason == "tpm.workload.absent"
    assert proven(tpm, again).count == 0
    assert again.measure(JOBS[1]) == 1
    assert proven(tpm, again, None, JOBS[1]).count == 1


@pytest.mark.parametrize("orderly", [True, False], ids=["shutdown", "power failure"])
def test_a_reset_of_a_real_index_begins_anew(swtpm: Swtpm, tmp_path: Path, orderly: bool) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    workloads = Workloads(tpm, tmp_path / FILE)
    workloads.measure(JOBS[0])
    known = proven(tpm, workloads)
    swtpm.reset(orderly=orderly)
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    again = Workloads(tpm, tmp_path / FILE)
    assert proven(tpm, again, known).count == 0
    assert again.measure(JOBS[1]) == 1
    assert proven(tpm, again, known, JOBS[1]).count == 1
    tpm.close()


# --- strangers -------------------------------------------------------------------------------------------------


def _extended(tpm: SoftTpm) -> None:
    tpm.extend_workload(bytes(32))


def _undefined(tpm: SoftTpm) -> None:
    tpm.nv = tpm.nv_contents = None


def _emptied(tpm: SoftTpm) -> None:
    tpm.define_workload()


def _defined_otherwise(tpm: SoftTpm) -> None:
    tpm.nv = replace(WORKLOAD, attributes=WORKLOAD.attributes & ~CLEAR_STCLEAR)


BROKEN: dict[str, tuple[Callable[[SoftTpm], None], str]] = {
    "extended": (_extended, "tpm.workload.contents"),
    "undefined": (_undefined, "tpm.workload.absent"),
    "undefined and defined again": (_emptied, "tpm.workload.absent"),
    "defined otherwise": (_defined_otherwise, "tpm.workload.attributes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_index_that_somebody_else_changed_is_shown_and_starts_no_job(tmp_path: Path, name: str) -> None:
    change, reason = BROKEN[name]
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    for job in JOBS[:2]:
        workloads.measure(job)
    known = proven(tpm, workloads)
    change(tpm)
    for each in (workloads, Workloads(tpm, tmp_path / FILE)):
        with pytest.raises(Untrusted) as refused:
            each.measure(JOBS[2])
        assert refused.value.reason == "tpm.workload.broken"
        with pytest.raises(Untrusted) as denied:
            proven(tpm, each, known, JOBS[1])
        assert denied.value.reason == reason


def test_what_others_left_in_the_index_before_the_first_job_is_removed(tmp_path: Path) -> None:
    tpm = SoftTpm(CA)
    _defined_otherwise(tpm)
    _extended(tpm)
    assert Workloads(tpm, tmp_path / FILE).measure(JOBS[0]) == 1
    assert tpm.nv == WORKLOAD


class Meddling(SoftTpm):
    """Somebody extends beside the agent, in the moment between."""

    @override
    def extend_workload(self, measurement: bytes) -> None:
        super().extend_workload(measurement)
        super().extend_workload(bytes(32))


def test_what_the_index_holds_is_looked_at_before_the_job_starts(tmp_path: Path) -> None:
    with pytest.raises(Untrusted) as refused:
        Workloads(Meddling(CA), tmp_path / FILE).measure(JOBS[0])
    assert refused.value.reason == "tpm.workload.broken"


def test_as_many_jobs_as_a_verifier_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.workload.MOST", 2)
    workloads = Workloads(SoftTpm(CA), tmp_path / FILE)
    for job in JOBS[:2]:
        workloads.measure(job)
    with pytest.raises(Untrusted) as refused:
        workloads.measure(JOBS[2])
    assert refused.value.reason == "tpm.workload.full"


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\xa2\x01\x48" + bytes(8) + b"\x02\x41\x00"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    with pytest.raises(Untrusted) as refused:
        Workloads(SoftTpm(CA), tmp_path / FILE)
    assert refused.value.reason == "agent.state"


# --- at the same time ------------------------------------------------------------------------------------------


class Slow(SoftTpm):
    """A TPM that lets others run in the middle of things."""

    @override
    def extend_workload(self, measurement: bytes) -> None:
        threading.Event().wait(0.001)
        super().extend_workload(measurement)

    @override
    def workload(self) -> NvIndex | None:
        threading.Event().wait(0.001)
        return super().workload()

    @override
    def certify_workload(self, qualifying: bytes) -> tuple[bytes, Attested] | None:
        certified = super().certify_workload(qualifying)
        threading.Event().wait(0.001)
        return certified


def test_jobs_that_start_and_renew_at_once_do_not_interleave(tmp_path: Path) -> None:
    tpm = Slow(CA)
    workloads = Workloads(tpm, tmp_path / FILE)
    jobs = [replace(JOBS[0], grant=bytes([n]) * 16) for n in range(24)]

    def live(job: WorkloadEntry) -> tuple[int, Any]:
        number = workloads.measure(job)
        return number, proven(tpm, workloads, None, job)

    with ThreadPoolExecutor(8) as pool:
        lived = list(pool.map(live, jobs))
    assert sorted(number for number, _ in lived) == list(range(1, 25))
    assert all(seen.count >= number for number, seen in lived)
    assert proven(tpm, workloads).count == len(jobs)
    assert len(jobs) < MOST
