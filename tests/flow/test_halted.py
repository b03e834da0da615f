"""What stops a running job from the verifier's side, and from the host's: each with its class and exit code."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SECOND, now_ns
from fixtures.beats import BEAT, Beating, BeatLab
from fixtures.cgroup_watch import CgroupWatch
from fixtures.lab import SUBMITTER_UID
from fixtures.ledger import Ledger
from fixtures.outside import command, processes_below, read, wait_for
from verifier.admin import ask

pytestmark = pytest.mark.root

DRAINED, DRIFT, REVOKED = 73, 74, 75


def admin(lab: BeatLab, command: str, **arguments: Any) -> Any:
    return ask(lab.verifier_dir / "admin.sock", command, arguments)


# --- by word of the verifier -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Withdrawn:
    """What the operator does while a job runs, what comes of it, and how the lab is set right again.

    A job that is ``asked`` gets SIGTERM and time; any other one is killed.
    """

    reason: str
    code: int
    asked: bool
    act: Callable[[BeatLab, Beating], Any]
    undo: Callable[[BeatLab], Any] = lambda lab: None


def revoke(lab: BeatLab, job: Beating, *, drain: bool) -> None:
    admin(lab, "revoke", grant=job.grant, drain=drain, why="a test")


def state(name: str, value: str) -> Callable[..., Any]:
    return lambda lab, *_: admin(lab, "refs.set-state", name=name.format(node=lab.node), state=value)


def node(value: str) -> Callable[..., Any]:
    return lambda lab, *_: admin(lab, "node.set-state", node=lab.node, state=value)


def roles(*names: str) -> Callable[..., Any]:
    def act(lab: BeatLab, *_: Beating) -> None:
        public = (lab.dir / "ada.pub").read_text()
        admin(lab, "submitter.add", name="ada", tenant="lab", roles=list(names), key=public)

    return act


def disable(lab: BeatLab, _job: Beating) -> None:
    admin(lab, "submitter.disable", submitter="ada")


BOOT = "{node}-boot"
WITHDRAWN = {
    "grant revoked": Withdrawn("grant.revoked", REVOKED, False, lambda lab, job: revoke(lab, job, drain=False)),
    "grant revoked in peace": Withdrawn("grant.revoked", REVOKED, True, lambda lab, job: revoke(lab, job, drain=True)),
    "role removed": Withdrawn("authz.role", DRAINED, True, roles(), roles("trainer")),
    "submitter disabled": Withdrawn("authz.submitter", DRAINED, True, disable, roles("trainer")),
    "code retired": Withdrawn(
        "code.retired", DRAINED, True, state("beat-code", "retired"), state("beat-code", "active")
    ),
    "boot state retired": Withdrawn("ref.retired", DRAINED, True, state(BOOT, "retired"), state(BOOT, "active")),
    "node in quarantine": Withdrawn("node.quarantined", DRIFT, False, node("quarantined"), node("active")),
}


@pytest.mark.parametrize("withdrawn", WITHDRAWN.values(), ids=WITHDRAWN)
def test_what_is_withdrawn_stops_the_job(lab: BeatLab, withdrawn: Withdrawn) -> None:
    ledger = Ledger(lab)
    job = lab.beat("--escape").wait_beat()
    try:
        withdrawn.act(lab, job)
        ending = job.end(15)
    finally:
        withdrawn.undo(lab)
    assert (ending["code"], ending["reason"], ending["event"]) == (withdrawn.code, withdrawn.reason, "halted")
    assert ("signal 15" in job.program.lines) == withdrawn.asked
    assert not lab.cgroup_of(job.grant or "").exists()
    assert ledger.look() == []
    mine = [record for record in ledger.records if record.job == bytes.fromhex(job.grant or "")]
    assert (mine[-1].kind, mine[-1].outcome) == ("report", "ended")
    assert withdrawn.reason in mine[-1].reasons
    assert any(record.outcome == "deny" for record in mine)


def test_revoked_is_frozen_within_a_second(lab: BeatLab) -> None:
    job = lab.beat("--escape", "--deaf").wait_beat()
    with CgroupWatch(lab.cgroup_of(job.grant or "")) as watch:
        began = now_ns()
        revoke(lab, job, drain=False)
        watch.wait_dead(10)
    assert job.end()["code"] == REVOKED
    assert watch.dead_ns is not None
    assert (watch.dead_ns - began) / SECOND < 1
    assert max(job.beats()) < began + SECOND


def test_a_deaf_job_is_killed_when_its_time_to_end_is_over(lab: BeatLab) -> None:
    """A drain asks, but never beyond the lease."""
    job = lab.beat("--escape", "--deaf").wait_beat()
    revoke(lab, job, drain=True)
    job.wait_event("draining")
    ending = job.end(20)
    assert (ending["code"], ending["reason"]) == (REVOKED, "grant.revoked")
    assert job.outlived() == []


def test_other_jobs_go_on(lab: BeatLab) -> None:
    stays, goes = lab.beat(name="stays").wait_beat(), lab.beat(name="goes").wait_beat()
    revoke(lab, goes, drain=False)
    assert goes.end()["code"] == REVOKED
    stays.wait_event("lease", 10)  # the revocation has everybody renew
    stays.signal()
    assert stays.end()["code"] == 0


# --- by what the host sees -------------------------------------------------------------------------------------------


def change_code(lab: BeatLab, job: Beating) -> None:
    staged = lab.agent_dir / "jobs" / (job.grant or "") / "code" / "beat.py"
    staged.chmod(0o644)
    staged.write_text((BEAT / "beat.py").read_text() + "# changed where it is staged\n")


def add_code(lab: BeatLab, job: Beating) -> None:
    (lab.agent_dir / "jobs" / (job.grant or "") / "code" / "more.py").write_text("")


def intrude(lab: BeatLab, job: Beating) -> None:
    """A process that is nobody's child joins the job's control group."""
    stranger = lab.program(["sleep", "30"], "stranger", user=SUBMITTER_UID)
    (lab.cgroup_of(job.grant or "") / "cgroup.procs").write_text(str(stranger.process.pid))


DRIFTS = {
    "staged file changed": ("drift.code", change_code),
    "staged file added": ("drift.code", add_code),
    "a stranger in the group": ("drift.process", intrude),
}


@pytest.mark.parametrize(("reason", "act"), DRIFTS.values(), ids=DRIFTS)
def test_drift_halts_the_job(lab: BeatLab, reason: str, act: Callable[[BeatLab, Beating], None]) -> None:
    job = lab.beat("--escape").wait_event("started").wait_beat()
    began = now_ns()
    act(lab, job)
    ending = job.end(15)
    assert (ending["code"], ending["reason"]) == (DRIFT, reason)
    assert ending["dead_us"] < 2_000_000
    assert max(job.beats()) < began + 2 * SECOND


# --- by the death of its keepers -------------------------------------------------------------------------------------


def test_the_job_dies_with_the_agent_and_is_not_revived(lab: BeatLab) -> None:
    ledger = Ledger(lab)
    job = lab.beat("--escape", "--deaf").wait_beat()
    group = lab.cgroup_of(job.grant or "")
    killed_ns = now_ns()
    lab.stop_agent(signal.SIGKILL)
    ending = job.end()
    assert (ending["code"], ending["reason"]) == (77, "agent.gone")
    assert max(job.beats()) < killed_ns + SECOND
    lab.start_agent()
    assert not group.exists()
    assert ledger.look() == []
    mine = [record for record in ledger.records if record.job == bytes.fromhex(job.grant or "")]
    assert (mine[-1].kind, mine[-1].reasons) == ("report", ("agent.died",))
    assert job.begins == 1


def test_the_job_dies_with_its_deadman(lab: BeatLab) -> None:
    job = lab.beat("--escape", "--deaf").wait_beat()
    init = min(processes_below(lab.cgroup_of(job.grant or "")))
    keeper = int(read(Path(f"/proc/{init}/stat")).rpartition(")")[2].split()[1])
    assert "agent.deadman" in command(keeper)
    killed_ns = now_ns()
    os.kill(keeper, signal.SIGKILL)
    ending = job.end()
    assert (ending["code"], ending["reason"]) == (77, "deadman.died")
    assert max(job.beats()) < killed_ns + SECOND


def test_the_job_ends_with_its_submitter(lab: BeatLab) -> None:
    job = lab.beat("--escape").wait_beat()
    group = lab.cgroup_of(job.grant or "")
    job.program.process.kill()
    assert wait_for(lambda: not group.exists() or None, 5)
    assert "signal 15" in job.program.lines


def test_a_stopping_agent_asks_its_jobs_to_end(lab: BeatLab) -> None:
    job = lab.beat("--escape").wait_beat()
    lab.stop_agent()
    ending = job.end()
    lab.start_agent()
    assert (ending["code"], ending["reason"]) == (DRAINED, "agent.stopped")
    assert "signal 15" in job.program.lines


def test_a_report_waits_for_the_next_agent(lab: BeatLab) -> None:
    """Job and agent end while the verifier is away; the report arrives when both are back."""
    ledger = Ledger(lab)
    job = lab.beat().wait_beat()
    lab.stop_verifier()
    job.signal()
    assert job.end()["code"] == 0
    lab.stop_agent(signal.SIGKILL)
    lab.start_verifier()
    lab.start_agent()
    cti = bytes.fromhex(job.grant or "")

    def reported() -> bool | None:
        return any(r.kind == "report" and r.job == cti for r in ledger.records) if not ledger.look() else None

    assert wait_for(lambda: reported() or None, 15)


def test_a_hung_agent_is_seen_from_outside(lab: BeatLab) -> None:
    """A command that finds the agent's process stopped waits; once it goes on, so does the command."""
    agent = lab.agent
    assert agent is not None
    agent.process.send_signal(signal.SIGSTOP)
    job = lab.beat("--seconds", "0.05")
    assert wait_for(lambda: job.program.process.poll(), 1.0) is None
    assert job.begins == 0
    agent.process.send_signal(signal.SIGCONT)
    assert job.end()["code"] == 0
