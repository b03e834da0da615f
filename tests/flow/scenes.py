"""Scenes that last as long as leases do. Each plays in its own lab and returns what was seen; tests judge it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from agent.cgroup import Cgroup
from agent.clock import now_ns
from fixtures.beats import Beating, BeatLab
from fixtures.cgroup_watch import CgroupWatch
from fixtures.lab import TENANT
from fixtures.ledger import Ledger
from fixtures.outside import held_secret, pause, wait_for
from fixtures.program import LabError

Ending = dict[str, Any]
HOLD_SECONDS: Final = 20
"""Of the scene of silence: time enough for a verifier to start again on a machine that has other things to do."""
_LEASE_AND_MORE: Final = 40.0
SECRET: Final = bytes(range(32))
_STILL: Final = 0.7
"""So long a frozen job is left alone, that the gap in its beats is plain to see."""


@dataclass
class Silence:
    """What became of jobs whose verifier was killed and then hung. Times are ns of boot time."""

    job: Beating
    ending: Ending
    limited: Ending
    away: Ending
    refused: list[Beating]
    frozen: list[bool]
    back_ns: int
    frozen_ns: int
    dead_ns: int
    leases: int
    undelivered: list[int]
    violations: list[str]


def play_silence() -> Silence:
    """SIGKILL: frozen at the lease's end, thawed in the hold time. SIGSTOP: killed when the hold time is over."""
    with BeatLab(hold_seconds=HOLD_SECONDS) as lab:
        job = lab.beat("--escape", name="silent")
        limited = lab.beat(name="limited", options=("--seconds", "2"))
        away = lab.beat("--seconds", "3", name="away")
        for each in (job, limited, away):
            each.wait_beat()
        ledger = Ledger(lab)
        violations = ledger.look()
        group = Cgroup(lab.cgroup_of(job.grant or ""))
        lab.stop_verifier()
        refused = [lab.beat(name="refused")]
        refused[0].program.wait(_LEASE_AND_MORE)
        job.wait_event("frozen", _LEASE_AND_MORE)
        frozen = [group.is_frozen()]
        undelivered = [status(lab)["undelivered_reports"]]
        pause(_STILL)
        back_ns = now_ns()
        lab.start_verifier()
        goes_on(job)
        leases = len(job.events("lease"))
        process = running(lab, "verifier")
        process.send_signal(signal.SIGSTOP)
        refused.append(lab.beat(name="unanswered"))
        with CgroupWatch(group.path) as watch:
            job.program.wait_line('"event":"frozen"', _LEASE_AND_MORE, after=len(job.program.lines))
            frozen.append(group.is_frozen())
            watch.wait_dead(_LEASE_AND_MORE)
        ending = job.end(_LEASE_AND_MORE)
        refused[1].program.wait(_LEASE_AND_MORE)
        process.send_signal(signal.SIGCONT)
        wait_delivered(lab)
        undelivered.append(status(lab)["undelivered_reports"])
        violations += ledger.look()
        endings = limited.end(), away.end()
        return Silence(
            job=job,
            ending=ending,
            limited=endings[0],
            away=endings[1],
            refused=refused,
            frozen=frozen,
            back_ns=back_ns,
            frozen_ns=watch.frozen_ns or 0,
            dead_ns=watch.dead_ns or 0,
            leases=leases,
            undelivered=undelivered,
            violations=violations,
        )


@dataclass
class Host:
    """What became of jobs whose host failed in one way after the other."""

    job: Beating
    ending: Ending
    frozen: list[bool] = field(default_factory=list)
    reset: Ending = field(default_factory=dict)
    rebooted: Ending = field(default_factory=dict)


def play_host() -> Host:
    """TPM hung, agent stopped, a PCR extended, TPM reset under a running job."""
    with BeatLab() as lab:
        if lab.tpm is None:
            raise LabError("the host is not booted")
        job = lab.beat("--escape", name="unlucky").wait_beat()
        group, seen = Cgroup(lab.cgroup_of(job.grant or "")), Host(job, {})
        lab.tpm.hang()
        job.wait_event("frozen", _LEASE_AND_MORE)
        seen.frozen.append(group.is_frozen())
        pause(_STILL)
        lab.tpm.resume()
        goes_on(job)
        agent = running(lab, "agent")
        agent.send_signal(signal.SIGSTOP)
        group._wait("frozen 1", _LEASE_AND_MORE)
        seen.frozen.append(group.is_frozen())
        pause(_STILL)
        lines = len(job.program.lines)
        agent.send_signal(signal.SIGCONT)
        goes_on(job, after=lines)
        lab.extend_pcr(4)
        seen.ending = job.end(_LEASE_AND_MORE)
        lab.reboot_host()
        second = lab.beat(name="reset").wait_beat()
        lab.boot_host()
        seen.reset = second.end(_LEASE_AND_MORE)
        lab.stop_agent()
        lab.start_agent()
        seen.rebooted = lab.beat("--seconds", "0.1", name="rebooted").end()
        return seen


class SmallDisk(BeatLab):
    """A lab whose verifier has a disk of its own, of a few megabytes."""

    @override
    def make_verifier(self) -> None:
        self.verifier_dir.mkdir(mode=0o700)
        options = "size=8m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "interlock-test", str(self.verifier_dir)], check=True)
        super().make_verifier()

    @override
    def close(self) -> None:
        super().close()
        subprocess.run(["umount", str(self.verifier_dir)], check=True)
        shutil.rmtree(self.dir)

    @property
    def ballast(self) -> Path:
        """The file that takes the room."""
        return self.verifier_dir / "ballast"

    def fill(self) -> None:
        """Leave no room at all."""
        with contextlib.suppress(OSError), self.ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))


@dataclass
class Disk:
    """What became of jobs whose verifier could not write its log."""

    job: Beating
    ending: Ending
    refused: Beating
    refusal: Ending
    sizes: tuple[int, int]
    health: dict[str, str]
    later: Ending
    violations: list[str]


def play_disk() -> Disk:
    """Somebody fills the disk of the verifier's log, and makes room on it again."""
    with SmallDisk() as lab:
        job = lab.beat("--escape", name="patient").wait_beat()
        ledger = Ledger(lab)
        violations = ledger.look()
        lab.fill()
        before = ledger.size
        refused = lab.beat(name="refused")
        refusal = refused.end()
        job.wait_event("frozen", _LEASE_AND_MORE)
        health = lab.operator("status")["trust"]
        violations += ledger.look()
        sizes = before, ledger.size
        lab.ballast.unlink()
        goes_on(job)
        job.signal()
        ending = job.end()
        later = lab.beat("--seconds", "0.1", name="later").end()
        violations += ledger.look()
        return Disk(job, ending, refused, refusal, sizes, health, later, violations)


@dataclass
class Secret:
    """What a job's descriptor of a secret held: while it ran, was frozen, went on, and when it had ended."""

    held: list[bytes]
    ending: Ending
    leases: int


def play_secret() -> Secret:
    """The agent is stopped until the lease is over, and goes on; a real TPM opens the secret each time."""
    with BeatLab() as lab:
        value = lab.dir / "value"
        value.write_bytes(SECRET)
        lab.operator("secret", "add", "weights", "--tenant", TENANT, "--file", str(value))
        lab.make_submitter("grace", roles=("trainer", "secret-reader"))
        job = lab.beat(name="holder", options=("--secret", "weights"), key="grace").wait_beat()
        group = Cgroup(lab.cgroup_of(job.grant or ""))
        descriptor = held_secret(group.path, "weights")

        def look() -> bytes:
            return os.pread(descriptor, 128, 0)

        held, agent = [look()], running(lab, "agent")
        agent.send_signal(signal.SIGSTOP)
        group._wait("frozen 1", _LEASE_AND_MORE)
        wait_for(lambda: not look() or None, 1.0)
        held.append(look())
        lines = len(job.program.lines)
        agent.send_signal(signal.SIGCONT)
        goes_on(job, after=lines)
        held.append(look())
        job.signal()
        ending = job.end()
        held.append(look())
        os.close(descriptor)
        return Secret(held, ending, len(job.events("lease")))


SCENES: Final[dict[str, Callable[[], Any]]] = {
    "silence": play_silence,
    "host": play_host,
    "disk": play_disk,
    "secret": play_secret,
}
"""Each scene by the name of its fixture."""


# --- small helpers ---------------------------------------------------------------------------------------------------


def running(lab: BeatLab, name: str) -> "subprocess.Popen[str]":
    """The process of the lab's verifier or agent."""
    program = lab.verifier if name == "verifier" else lab.agent
    if program is None:
        raise LabError(f"no {name} runs")
    return program.process


def status(lab: BeatLab) -> dict[str, Any]:
    """What ``interlock-agent status`` says."""
    found: dict[str, Any] = json.loads(lab.command("interlock-agent", "status", "--agent", str(lab.socket), "--json"))
    return found


def goes_on(job: Beating, *, after: int = 0) -> None:
    """Wait until a frozen job was thawed, its new lease was told, and it beats (behind line number ``after``)."""
    for event in ("thawed", "lease"):
        job.program.wait_line(f'"event":"{event}"', _LEASE_AND_MORE, after=after)
    job.wait_beat(after=len(job.program.lines))


def is_frozen_soon(group: Cgroup) -> bool:
    """Whether the kernel says that the group is frozen, at the latest after its lease."""
    return wait_for(lambda: group.is_frozen() or None, _LEASE_AND_MORE) is True


def wait_delivered(lab: BeatLab, seconds: float = 15.0) -> None:
    """Wait until the agent has no report left to deliver; ``LabError`` where it keeps one."""
    if wait_for(lambda: not status(lab)["undelivered_reports"] or None, seconds) is None:
        raise LabError("a report was not delivered")
