"""Logs in a real lab: references made from the node, renewals that send nothing old, and a file that nobody knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SECOND, now_ns
from attestation.evidence import TPM, TpmRecord, read_evidence
from fixtures.beats import Beating, BeatLab
from fixtures.cgroup_watch import CgroupWatch
from fixtures.ledger import Ledger
from tests.flow.scenes import status

pytestmark = pytest.mark.root

DENIED, DRIFT = 71, 74
LEASE_SECONDS = 10


@pytest.fixture(scope="module")
def lab() -> Iterator[BeatLab]:
    """A lab whose host measures, with references made of what it proved."""
    with BeatLab(lease_seconds=LEASE_SECONDS, logs=True) as made:
        made.refer("python", "beat.py", code="beat")
        yield made


def measure(lab: BeatLab, path: str, content: bytes = b"") -> None:
    assert lab.logs is not None
    lab.logs.read(path, content)


def shown(lab: BeatLab, grant: str) -> list[TpmRecord]:
    """What the host's TPM showed for a grant, in order."""
    ledger = Ledger(lab)
    ledger.look()
    named = [record.digests.get("evidence") for record in ledger.records if record.job == bytes.fromhex(grant)]
    found = []
    for digest in dict.fromkeys(named):  # the first lease rests on the same evidence as the decision
        if digest is not None:
            evidence, _ = read_evidence(ledger.document(digest))
            found.append(TpmRecord.from_bytes(evidence.collection[TPM].value))
    return found


def leases(job: Beating, count: int) -> Beating:
    """Wait until the job has been told of so many leases."""
    seen = 0
    while len(job.events("lease")) < count:
        job.program.wait_line('"event":"lease"', 3.0 * LEASE_SECONDS, after=seen)
        seen = len(job.program.lines)
    return job


def test_the_references_are_of_what_the_node_proved(lab: BeatLab) -> None:
    listed = lab.operator("refs", "list")
    (boot,), (files,) = listed["boots"], listed["lists"]
    assert (boot["state"], files["state"], listed["baselines"]) == ("active", "active", [])
    assert files["provenance"].startswith(f"{lab.node}, 222 entries, evidence recorded at index")


def test_a_renewal_sends_no_log_and_no_old_entry_and_a_file_that_is_known_is_no_matter(lab: BeatLab) -> None:
    assert lab.logs is not None
    assert lab.logs.measured is not None
    job = lab.beat(name="quiet").wait_beat()
    leases(job, 1)
    known = lab.logs.measured.entries[5]
    lab.logs.measured.measure(known)
    grant = job.grant or ""
    leases(job, 3)
    job.signal()
    job.end()
    first, *renewals = shown(lab, grant)
    assert len(first.event_log or b"") == len(lab.logs.event_log.read_bytes())
    assert len(renewals) >= 3
    assert [record.event_log for record in renewals] == [None] * len(renewals)
    assert sum(len(record.ima or b"") for record in renewals) == len(known)
    assert all(len(record.to_bytes()) < 4096 for record in renewals)


def test_an_unknown_file_stops_the_job_at_once_and_is_named(lab: BeatLab) -> None:
    job = lab.beat("--escape", name="stranger").wait_beat()
    leases(job, 1)
    with CgroupWatch(lab.cgroup_of(job.grant or "")) as watch:
        cause_ns = now_ns()
        measure(lab, "/usr/local/bin/stranger", b"nobody knows this")
        watch.wait_dead(3 * LEASE_SECONDS)
    ending = job.end()
    assert ending["code"] == DRIFT
    assert ending["reason"] == "tpm.ima.unlisted"
    assert "/usr/local/bin/stranger" in ending["detail"]
    assert status(lab)["counters"]["renewals_hurried"] >= 1
    assert watch.frozen_ns is not None
    assert (watch.frozen_ns - cause_ns) / SECOND < LEASE_SECONDS / 3, "a renewal that was due anyway comes no later"


def test_the_host_stays_denied_until_the_file_is_known(lab: BeatLab, tmp_path: Path) -> None:
    denied = lab.beat(name="denied").end()
    assert denied["code"] == DENIED
    assert (denied["reason"], "/usr/local/bin/stranger" in denied["detail"]) == ("tpm.ima.unlisted", True)
    name = f"{lab.node}-files"
    made: dict[str, Any] = lab.operator(
        "refs", "ima", "from-node", lab.node, "--name", name, "--with", name, "--activate"
    )
    assert made["files"] > 0
    job = lab.beat(name="allowed").wait_beat()
    job.signal()
    job.end()


def test_another_boot_is_refused_and_says_what_booted(lab: BeatLab) -> None:
    policy = lab.dir / "boot.toml"
    name = f"{lab.node}-boot"
    text = lab.command("interlock-verifier", "refs", "boot", "show", name, "--dir", str(lab.verifier_dir))
    policy.write_text(text.replace("secure_boot = false", "secure_boot = true"))
    lab.operator("refs", "boot", "edit", name, "--file", str(policy))
    denied = lab.beat(name="insecure").end()
    assert denied["code"] == DENIED
    assert denied["reason"] == "tpm.boot.absent", "its firmware measures no Secure Boot at all"
    policy.write_text(text)
    lab.operator("refs", "boot", "edit", name, "--file", str(policy))


def test_the_log_holds(lab: BeatLab) -> None:
    ledger = Ledger(lab)
    assert ledger.look() == []
