"""How fast a job starts, freezes and dies under its deadman, with idle and with busy jobs in turn; and how long a
torch environment takes to measure when it was measured before."""

import os
import statistics
import tempfile
import time
from collections import defaultdict
from functools import cache
from pathlib import Path

from agent import protocol
from agent.clock import now_ns
from agent.environment import Cache, measure_environment
from agent.protocol import HARD
from tests.agent.holding import ROOT, Job
from tests.bench.registry import bench

RUNS = 50
TELL = "import os, signal, time\nos.write(1, b'%d\\n' % time.clock_gettime_ns(time.CLOCK_BOOTTIME))\n"
SOURCES = (TELL + "while True: signal.pause()", TELL + "[os.fork() for _ in range(3)]\nwhile True: pass")
MS = 1_000_000


@cache
def rounds() -> dict[str, list[float]]:
    """Measured milliseconds by name."""
    measured = defaultdict(list)
    for number in range(RUNS):
        with tempfile.TemporaryDirectory() as place:
            for name, value in one(Job(Path(place) / "job", SOURCES[number % len(SOURCES)])).items():
                measured[name].append(value / MS)
    ROOT.rmdir()
    return measured


def one(job: Job) -> dict[str, int]:
    """One job: started, frozen at the end of its lease, thawed, halted; in ns."""
    asked = now_ns()
    hold = job.start()
    first = int(job.line())
    job.run_out(0.1)
    frozen = job.events.wait(protocol.Frozen)
    job.renew()
    job.events.wait(protocol.Thawed)
    cause = now_ns()
    hold.halt(HARD, "drift.pcr", cause)
    dead = job.events.wait(protocol.Dead)
    hold.wait(10)
    job.output.close()
    return {
        "start": first - asked,
        "lease": frozen.frozen_ns - frozen.cause_ns,
        "frozen": (dead.frozen_ns or 0) - cause,
        "dead": (dead.dead_ns or 0) - cause,
    }


def p99(name: str) -> tuple[float, str]:
    """The 99th percentile, with the median in the note."""
    values = sorted(rounds()[name])
    note = f"median {statistics.median(values):.1f} ms of {len(values)} jobs, every other one busy on every core"
    return values[-(-len(values) * 99 // 100) - 1], note


@bench("hold.start_ms", unit="ms", bar=250)
def start() -> tuple[float, str]:
    """From asking for the start to the job's first instruction, the interpreter's own start included."""
    values = rounds()["start"]
    return statistics.median(values), f"median of {len(values)} jobs, worst {max(values):.0f} ms"


@bench("hold.lease_end_to_frozen_p99_ms", unit="ms", bar=250)
def lease_end() -> tuple[float, str]:
    """From the end of a lease to the kernel's word that the job stands still."""
    return p99("lease")


@bench("hold.halt_to_frozen_p99_ms", unit="ms", bar=250)
def halt_frozen() -> tuple[float, str]:
    """From the order of a hard halt to the kernel's word that the job stands still."""
    return p99("frozen")


@bench("hold.halt_to_dead_p99_ms", unit="ms", bar=1000)
def halt_dead() -> tuple[float, str]:
    """From the order of a hard halt to an empty control group."""
    return p99("dead")


@bench("environment.warm_ms", unit="ms", bar=500)
def environment() -> tuple[float, str]:
    """Measuring the example job's torch environment when all of it is remembered, sample included."""
    root = Path(os.environ.get("INTERLOCK_JOB", "/var/lib/interlock-dev/job")).resolve()
    with tempfile.TemporaryDirectory() as place:
        cache_file = Cache(Path(place) / "cache")
        began = time.perf_counter()
        tree = measure_environment(root, cache_file)
        cold = time.perf_counter() - began
        times = []
        for _ in range(5):
            began = time.perf_counter()
            measure_environment(root, cache_file)
            times.append((time.perf_counter() - began) * 1000)
    size = sum(each.size for each in tree.entries) / 1e9
    return statistics.median(times), f"median of 5; {len(tree.entries)} entries, {size:.2f} GB; cold {cold:.1f} s"
