"""The sequence of jobs end to end: an auditor reads it from a bundle, and root on the host cannot change it unseen."""

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from attestation.tpm.nv import WORKLOAD
from attestation.tpm.structures import RH_OWNER, sized
from fixtures.beats import Beating, BeatLab
from fixtures.swtpm import PASSWORD, Swtpm
from fixtures.tpm_proxy import SESSIONS
from tests.flow.test_halted import DRIFT, admin

pytestmark = pytest.mark.root
CC_UNDEFINE, CC_DEFINE, CC_EXTEND = 0x122, 0x12A, 0x136


@pytest.fixture(scope="module")
def measured() -> Iterator[BeatLab]:
    """A lab whose TPM others meddle with; each test begins with a boot of its own."""
    with BeatLab() as made:
        yield made


def swtpm(lab: BeatLab) -> Swtpm:
    assert lab.tpm is not None
    return lab.tpm


def undefine(tpm: Swtpm) -> None:
    """TPM2_NV_UndefineSpace by somebody else with the owner's authorisation."""
    tpm.proxy.command(CC_UNDEFINE, struct.pack(">LL", RH_OWNER, WORKLOAD.index) + PASSWORD, tag=SESSIONS)


def define(tpm: Swtpm) -> None:
    """TPM2_NV_DefineSpace."""
    body = struct.pack(">L", RH_OWNER) + PASSWORD + sized(b"") + sized(WORKLOAD.to_bytes())
    tpm.proxy.command(CC_DEFINE, body, tag=SESSIONS)


def extend(tpm: Swtpm) -> None:
    """TPM2_NV_Extend."""
    body = struct.pack(">LL", RH_OWNER, WORKLOAD.index) + PASSWORD + sized(bytes(32))
    tpm.proxy.command(CC_EXTEND, body, tag=SESSIONS)


def redefine_and_extend(tpm: Swtpm) -> None:
    for act in (undefine, define, extend):
        act(tpm)


def renew(lab: BeatLab, job: Beating) -> None:
    """Have every lease renewed now, without changing anything."""
    admin(lab, "node.set-state", node=lab.node, state="active")


def finish(job: Beating) -> str:
    """End a job in peace; its grant."""
    job.signal()
    assert job.end()["code"] == 0
    assert job.grant is not None
    return job.grant


def explained(lab: BeatLab, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``interlock-audit`` verifies and explains of a job's bundle."""
    path = lab.home / f"{name}.bundle"
    lab.command("interlock", "bundle", name, "-o", str(path), "--agent", str(lab.socket), **lab.as_submitter)
    told = [
        json.loads(lab.command("interlock-audit", *arguments, str(path), "--json", *more))
        for arguments, more in ((("verify",), ("--root", str(lab.root_pem))), (("explain",), ()))
    ]
    return told[0], told[1]


def test_the_sequence_of_two_boots_is_in_the_evidence(measured: BeatLab) -> None:
    grants = [finish(measured.beat(name=name).wait_beat()) for name in ("first", "second")]
    third = measured.beat(name="third").wait_beat()
    renew(measured, third)
    third.wait_event("lease")
    grants.append(finish(third))
    verified, told = explained(measured, "third")
    assert verified["ok"], verified
    assert verified["checks"][-1]["detail"] == "job 3 of its boot, 3 are shown"
    assert [(job["number"], job["grant"]) for job in told["jobs"]] == list(enumerate(grants, 1))
    assert len({job["boot"] for job in told["jobs"]}) == 1
    measured.reboot_host()
    fourth = measured.beat(name="fourth").wait_beat()
    renew(measured, fourth)
    fourth.wait_event("lease")
    grant = finish(fourth)
    verified, again = explained(measured, "fourth")
    assert verified["ok"], verified
    assert [(job["number"], job["grant"]) for job in again["jobs"]] == [(1, grant)]
    assert again["jobs"][0]["boot"] != told["jobs"][0]["boot"]


def test_the_sequence_goes_on_when_the_agent_is_killed(measured: BeatLab) -> None:
    measured.reboot_host()
    first = finish(measured.beat(name="before").wait_beat())
    killed = measured.beat(name="killed").wait_beat()
    lost = killed.grant
    measured.stop_agent(9)  # type: ignore[arg-type]  # SIGKILL
    killed.program.wait(30)
    measured.start_agent()
    job = measured.beat(name="after").wait_beat()
    renew(measured, job)
    job.wait_event("lease")
    last = finish(job)
    verified, told = explained(measured, "after")
    assert verified["ok"], verified
    assert [each["grant"] for each in told["jobs"]] == [first, lost, last]


ATTACKS: dict[str, tuple[Callable[[Swtpm], None], str]] = {
    "undefines the index": (undefine, "tpm.workload.absent"),
    "undefines it, defines it again and extends it": (redefine_and_extend, "tpm.workload.contents"),
    "extends something of its own": (extend, "tpm.workload.contents"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_root_on_the_host_meddles_with_the_index(measured: BeatLab, name: str) -> None:
    """The next renewal is a hard denial, no further job starts, and a reboot begins anew."""
    attack, reason = ATTACKS[name]
    measured.reboot_host()
    job = measured.beat(name="victim").wait_beat()
    renew(measured, job)
    job.wait_event("lease")
    attack(swtpm(measured))
    renew(measured, job)
    ending = job.end(15)
    assert (ending["code"], ending["reason"], ending["event"]) == (DRIFT, reason, "halted")
    assert not measured.cgroup_of(job.grant or "").exists()
    refused = measured.beat(name="refused").end()
    assert refused["reason"] == reason
    measured.reboot_host()
    finish(measured.beat(name="anew").wait_beat())
