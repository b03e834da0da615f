"""What one decision costs, and how much of that is not OpenSSL.

A full decision is everything between the bytes of the request and the signed answer: strict decoding, the submitter's
and the host's signatures, quote and certification, appraisal, Cedar, the unit that archives and records it, its share
of the commit on disk, grant and lease with their receipts. It is the CPU time of all threads of the process, pinned to
one core, while 64 requests are under way at once. Hosts are software TPMs whose evidence is made beforehand.

The raw operations are those same decisions' OpenSSL calls (ECDSA and Ed25519 signatures made and verified, SHA-256),
timed in place: in a loop of their own they would run on warm caches, which no verifier ever has. Every round measures
both on the same kind of requests; ratios are medians over the rounds.
"""

import asyncio
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from attestation.api import AuthorizationRequest
from attestation.grant import Authorization
from attestation.intent import sign_intent
from tests.bench.registry import bench
from tests.verifier.hall import Hall, Host
from verifier.authorize import authorize
from verifier.changes import EndJob, Unit
from verifier.service import settle

ROUNDS, REQUESTS, AT_ONCE = 7, 128, 64
HOSTS = 16
MICRO = 1e6
_OPENSSL = ("openssl.ec.", "openssl.ed25519", "_hashlib")
_LIMITS = {"submitter_jobs >= 8": "submitter_jobs >= 80000", "tenant_jobs >= 32": "tenant_jobs >= 80000"}


@bench("decision.cpu_us", unit="us", bar=None)
def decision_cpu() -> tuple[float, str]:
    """CPU of a full decision."""
    total, raw, _ = _measured()
    return total, f"median of {ROUNDS} rounds of {REQUESTS} decisions on one core; OpenSSL's part {raw:.0f} us"


@bench("decision.total_over_raw", unit="ratio", bar=4)
def total_over_raw() -> tuple[float, str]:
    """A full decision over its own OpenSSL operations."""
    total, raw, ratio = _measured()
    return ratio, f"{total:.0f} us over {raw:.0f} us of OpenSSL calls, timed in place in the same run"


@lru_cache(maxsize=1)
def _measured() -> tuple[float, float, float]:
    """Median total and raw microseconds of a decision, and the median of their ratios."""
    rounds = []
    with tempfile.TemporaryDirectory() as directory, _one_core(), Hall(Path(directory)) as hall:
        _many_jobs(hall)
        hosts = hall.run(_hosts(hall))
        hall.run(_decide(hall, hall.run(_requests(hall, hosts))))
        settle()
        for _ in range(ROUNDS):
            total = _total(hall, hall.run(_requests(hall, hosts)))
            raw = _raw(hall, hall.run(_requests(hall, hosts)))
            rounds.append((total, raw, total / raw))
    total, raw, ratio = (statistics.median(values) for values in zip(*rounds, strict=True))
    return total, raw, ratio


def _total(hall: Hall, bodies: list[bytes]) -> float:
    began = time.process_time()
    hall.run(_decide(hall, bodies))
    return (time.process_time() - began) / len(bodies) * MICRO


def _raw(hall: Hall, bodies: list[bytes]) -> float:
    """The time inside OpenSSL calls on the deciding thread (the checkpoint's signature, on the other, is left out)."""
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    hall.run(_decide(hall, bodies))
    profile.disable()
    calls = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # documented, not in the stubs
    inside = sum(row[2] for (_, _, name), row in calls.items() if any(part in name for part in _OPENSSL))
    return float(inside) / len(bodies) * MICRO


async def _decide(hall: Hall, bodies: list[bytes]) -> None:
    for start in range(0, len(bodies), AT_ONCE):
        requests = map(AuthorizationRequest.from_bytes, bodies[start : start + AT_ONCE])
        answers = await asyncio.gather(*(authorize(hall.verifier, request) for request in requests))
        if not all(isinstance(answer, Authorization) for answer in answers):
            raise RuntimeError("a request of the benchmark was denied")


async def _requests(hall: Hall, hosts: list[Host]) -> list[bytes]:
    """Fresh requests of all hosts; the jobs of the round before are ended first."""
    for job in hall.verifier.store.jobs(live=True):
        await hall.verifier.commit(Unit((EndJob(job.cti, 0),)))
    bodies = []
    for number in range(REQUESTS):
        host, intent = hosts[number % HOSTS], hall.intent()
        evidence = host.evidence(await hall.verifier.challenge(host.name), intent)
        request = AuthorizationRequest(intent=sign_intent(intent, hall.person), evidence=evidence)
        bodies.append(request.to_bytes())
    return bodies


async def _hosts(hall: Hall) -> list[Host]:
    first = await hall.furnish()
    return [first, *[await hall.add_host(f"host{number}") for number in range(1, HOSTS)]]


def _many_jobs(hall: Hall) -> None:
    """The policies, without the limits that a benchmark runs into."""
    path = hall.policies / "base.cedar"
    text = path.read_text(encoding="utf-8")
    for old, new in {**_LIMITS, "node_jobs >= 4": "node_jobs >= 40000"}.items():
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@contextmanager
def _one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
