"""The TPM-enforced lease from end to end: a job, a verifier that is gone, a TPM that refuses, a permit, and it goes on.

Everything is real but the hardware: `interlock-verifier` and `interlock-agent` as they are installed, swtpm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fixtures.beats import BeatLab
from fixtures.held import Thief
from fixtures.ledger import Ledger
from fixtures.outside import wait_for
from tests.flow.scenes import goes_on, status, wait_delivered

pytestmark = pytest.mark.root

HOLD = 12
LEASE_AND_MORE = 40.0


@dataclass
class Seen:
    """What was seen, in order."""

    in_time: str
    after: list[str]
    leases: int
    ending: dict[str, Any]
    permits: list[float]
    killed: dict[str, Any]
    undelivered: list[int]
    reported: list[str]
    rebooted: str
    enforced: bool


def permits(lab: BeatLab) -> float:
    """How many permits this run of the verifier has given."""
    import httpx

    answer = httpx.get(f"https://127.0.0.1:{lab.port}/metrics", verify=False, timeout=5)  # noqa: S501 - the lab's own
    (line,) = [line for line in answer.text.splitlines() if line.startswith("interlock_permits_total")]
    return float(line.split()[1])


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    with BeatLab(hold_seconds=HOLD) as lab:
        job = lab.beat(name="held").wait_beat()
        thief = Thief(lab, job.grant or "")
        in_time = thief.refusal(thief.look())
        given = [permits(lab)]
        lab.stop_verifier()
        job.wait_event("frozen", LEASE_AND_MORE)
        last = thief.look()
        until = 0 if last.tpm is None else last.tpm.until
        wait_for(lambda: thief.clock().clock >= until or None, LEASE_AND_MORE)
        after = [thief.refusal(lease) for lease in thief.leases]
        lab.start_verifier()
        goes_on(job)
        given.append(permits(lab))
        job.signal()
        ending = job.end()
        gone = lab.beat(name="gone").wait_beat()
        lab.stop_verifier()
        killed = gone.end(LEASE_AND_MORE)
        undelivered = [status(lab)["undelivered_reports"]]
        lab.start_verifier()
        wait_delivered(lab)
        given.append(permits(lab))
        undelivered.append(status(lab)["undelivered_reports"])
        ledger = Ledger(lab)
        ledger.look()
        reported = [
            ",".join(record.reasons)
            for record in ledger.records
            if record.kind == "report" and record.job == bytes.fromhex(gone.grant or "")
        ]
        last = Thief(lab, gone.grant or "").look()
        lab.reboot_host()
        thief = Thief(lab, gone.grant or "")
        rebooted = thief.refusal(thief.look())
        yield Seen(
            in_time, after, len(thief.leases), ending, given, killed, undelivered, reported, rebooted, bool(last.tpm)
        )


def test_leases_are_enforced_by_the_tpm(seen: Seen) -> None:
    assert seen.enforced
    assert seen.in_time == "", "in time the TPM signs, for a thief too: that is what a lease permits"


def test_after_the_end_the_tpm_itself_refuses_every_lease(seen: Seen) -> None:
    assert len(seen.after) >= 1
    for refusal in seen.after:
        assert refusal.startswith("tpm.device.policy")
        assert "0x126" in refusal


def test_the_job_is_thawed_by_a_permit_and_ends_well(seen: Seen) -> None:
    assert (seen.ending["code"], seen.ending["event"]) == (0, "finished")
    assert seen.permits[0] == 1.0, "the first request of the boot"
    assert seen.permits[1] >= 1.0, "the thaw, at a verifier that was started again"


def test_the_report_of_a_job_that_was_killed_in_silence_is_delivered_by_permit(seen: Seen) -> None:
    assert seen.killed["reason"] == "lease.hold"
    assert seen.undelivered == [1, 0]
    assert seen.reported == ["lease.expired,lease.hold"] or seen.reported == ["lease.hold"]
    assert seen.permits[2] >= 1.0


def test_after_a_reboot_the_leases_of_the_boot_before_are_void(seen: Seen) -> None:
    assert seen.rebooted.startswith("tpm.device.policy")
