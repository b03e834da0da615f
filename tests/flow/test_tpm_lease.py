"""The TPM-enforced lease from end to end: a job, a verifier that is gone, a TPM that refuses, a permit, and it goes on.

Everything is real but the hardware: `interlock-verifier` and `interlock-agent` as they are installed, swtpm.
"""

import pytest

from tests.flow.scenes_lease import Lapse

pytestmark = pytest.mark.root


def test_leases_are_enforced_by_the_tpm(lapse: Lapse) -> None:
    assert lapse.enforced
    assert lapse.in_time == "", "in time the TPM signs, for a thief too: that is what a lease permits"


def test_after_the_end_the_tpm_itself_refuses_every_lease(lapse: Lapse) -> None:
    assert len(lapse.after) >= 1
    for refusal in lapse.after:
        assert refusal.startswith("tpm.device.policy")
        assert "0x126" in refusal


def test_the_job_is_thawed_by_a_permit_and_ends_well(lapse: Lapse) -> None:
    assert (lapse.ending["code"], lapse.ending["event"]) == (0, "finished")
    assert lapse.permits[0] == 1.0, "the first request of the boot"
    assert lapse.permits[1] >= 1.0, "the thaw, at a verifier that was started again"


def test_the_report_of_a_job_that_was_killed_in_silence_is_delivered_by_permit(lapse: Lapse) -> None:
    assert lapse.killed["reason"] == "lease.hold"
    assert lapse.undelivered == [1, 0]
    assert lapse.reported == ["lease.expired,lease.hold"] or lapse.reported == ["lease.hold"]
    assert lapse.permits[2] >= 1.0


def test_after_a_reboot_the_leases_of_the_boot_before_are_void(lapse: Lapse) -> None:
    assert lapse.rebooted.startswith("tpm.device.policy")
