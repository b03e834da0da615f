"""The scene of the TPM-enforced lease: a verifier that is gone, a TPM that refuses, a permit, a report that is late."""

from dataclasses import dataclass
from typing import Any, Final

import httpx

from fixtures.beats import BeatLab
from fixtures.held import Thief
from fixtures.ledger import Ledger
from fixtures.outside import wait_for
from tests.flow.scenes import goes_on, status, wait_delivered

HOLD_SECONDS: Final = 20
LEASE_AND_MORE: Final = 40.0


@dataclass
class Lapse:
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
    answer = httpx.get(f"https://127.0.0.1:{lab.port}/metrics", verify=False, timeout=5)  # noqa: S501 - the lab's own
    (line,) = [line for line in answer.text.splitlines() if line.startswith("interlock_permits_total")]
    return float(line.split()[1])


def play_lapse() -> Lapse:
    """The verifier goes away twice: once the job is thawed, once it is killed. Then the host boots anew."""
    with BeatLab(hold_seconds=HOLD_SECONDS) as lab:
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
        return Lapse(
            in_time, after, len(thief.leases), ending, given, killed, undelivered, reported, rebooted, bool(last.tpm)
        )
