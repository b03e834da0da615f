"""What a person who runs jobs feels of the agent, and how fast it acts: in the lab, through the production commands.

Moments are seen from outside: the control group's own files, the job's own clock, the kernel's account of the agent.
"""

import json
import os
import statistics
import subprocess
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from agent.clock import SECOND, now_ns
from fixtures.beats import BeatLab
from fixtures.cgroup_watch import CgroupWatch
from fixtures.lab import Lab
from fixtures.outside import pause
from tests.bench.registry import bench, interleave

ROUNDS, JOBS = 10, 5
STARTS = 15
TRAININGS = 5
EPOCHS = "10"
PCR = 4
MS = 1_000_000
WATCHED_SECONDS = 30.0


@cache
def drifts() -> dict[str, list[float]]:
    """Milliseconds from before a PCR is extended until each of five running jobs is frozen, and until it is dead."""
    measured: dict[str, list[float]] = {"frozen": [], "dead": []}
    with BeatLab() as lab:
        for _ in range(ROUNDS):
            _drift(lab, measured)
            lab.reboot_host()
    return measured


def _drift(lab: BeatLab, measured: dict[str, list[float]]) -> None:
    jobs = [lab.beat(name=f"drift-{number}") for number in range(JOBS)]
    groups = [lab.cgroup_of(job.wait_beat().grant or "") for job in jobs]
    with ExitStack() as stack:
        watches = [stack.enter_context(CgroupWatch(group)) for group in groups]
        if lab.tpm is None:
            raise RuntimeError("the host is not booted")
        cause_ns = now_ns()
        lab.tpm.extend(PCR, bytes(32))
        for watch in watches:
            watch.wait_dead(10)
    for watch in watches:
        if watch.dead_ns is None:
            raise RuntimeError("a job outlived the drift by ten seconds")
        measured["dead"].append((watch.dead_ns - cause_ns) / MS)
        measured["frozen"].append(((watch.frozen_ns or watch.dead_ns) - cause_ns) / MS)
    for job in jobs:
        job.end()


def p99(name: str) -> tuple[float, str]:
    """The 99th percentile, with the median in the note."""
    values = sorted(drifts()[name])
    note = f"p50 {statistics.median(values):.0f} ms of {len(values)} jobs, {JOBS} at a time; a look every 500 ms"
    return values[-(-len(values) * 99 // 100) - 1], note


@bench("drift.frozen_p99_ms", unit="ms", bar=1000)
def drift_frozen() -> tuple[float, str]:
    """From a changed PCR to a job that stands still."""
    return p99("frozen")


@bench("drift.dead_p99_ms", unit="ms", bar=1000)
def drift_dead() -> tuple[float, str]:
    """From a changed PCR to an empty control group."""
    return p99("dead")


@bench("grant.first_instruction_ms", unit="ms")
def first_instruction() -> tuple[float, str]:
    """From the word that the grant is there to the job's first line: staging, measuring, deadman, interpreter."""
    spans = []
    with BeatLab() as lab:
        for _ in range(STARTS):
            job = lab.beat("--seconds", "0.1")
            job.end()
            ((granted, _),) = job.events("granted")
            spans.append((job.beats()[0] - granted) / MS)
    return statistics.median(spans), f"median of {len(spans)} starts, worst {max(spans):.0f} ms; a small environment"


@bench("training.overhead_pct", unit="%", bar=1)
def overhead() -> tuple[float, str]:
    """Time per training step under Interlock against the same script alone, one after the other in turn."""
    with Lab() as lab:
        code = lab.code()
        python = str(lab.environment / "bin" / "python")
        command = ("train.py", "--epochs", EPOCHS)

        def bare() -> float:
            out = {"cwd": str(code), "env": {"INTERLOCK_OUT": str(lab.home)}}
            options = lab.as_submitter | out
            done = subprocess.run([python, *command], capture_output=True, text=True, check=True, **options)
            return _step(done.stdout.splitlines())

        def governed() -> float:
            job = lab.run("python", *command)
            job.wait(300)
            return _step(job.lines)

        alone, under = interleave(bare, governed, TRAININGS)
    note = f"medians of {TRAININGS} trainings each: {alone * 1000:.3f} and {under * 1000:.3f} ms per step, in turn"
    return (under / alone - 1) * 100, note


def _step(lines: list[str]) -> float:
    (result,) = [json.loads(line) for line in lines if line.startswith('{"accuracy"')]
    return float(result["step_s"])


@cache
def cost() -> tuple[float, float]:
    """Megabytes resident and percent of one core that the agent takes while it holds one job."""
    with BeatLab() as lab:
        job = lab.beat().wait_beat()
        if lab.agent is None:
            raise RuntimeError("there is no agent")
        pid = lab.agent.process.pid
        began, used = now_ns(), _cpu_seconds(pid)
        pause(WATCHED_SECONDS)
        used, wall = _cpu_seconds(pid) - used, (now_ns() - began) / SECOND
        resident = _resident_mb(pid)
        job.signal()
        job.end()
    return resident, used / wall * 100


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process (proc(5), stat: fields 14 and 15)."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines() if "VmRSS" in line]
    return int(line.split()[1]) / 1024


@bench("agent.resident_mb", unit="MB", bar=150)
def resident() -> tuple[float, str]:
    """The agent's memory while it holds one job."""
    return cost()[0], f"after {WATCHED_SECONDS:.0f} s with one job"


@bench("agent.cpu_pct", unit="%", bar=0.5)
def cpu() -> tuple[float, str]:
    """The agent's share of one core while it holds one job: leases of 10 s, a look every 500 ms."""
    return cost()[1], f"over {WATCHED_SECONDS:.0f} s with one job, renewed every 3.3 s"
