"""How many running jobs one core of a verifier keeps attested: the steady state of a fleet.

One attestation is what an agent does every few seconds: it asks for a challenge, and renews with fresh evidence (a
quote, the proof of the holder key, the measured jobs); the answer is the next lease, once that is durable in the log.
Nothing is left out: it is judged like the first request. The verifier is a process of its own, as in production, pinned
to one core; requests come over TLS on connections that stay open, of many hosts at once, so that commits are shared.
Hosts are software TPMs in this process, on the other core; they verify each lease as an agent does.

The value is attestations over the CPU seconds that the verifier's process took for them, all its threads and its time
in the kernel included. What hosts and network take does not count, and neither does what else keeps the machine busy.
"""

import asyncio
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attestation import api
from attestation.challenge import Challenge
from attestation.cose import RECEIPTS, read_sign1
from attestation.grant import MAX_SIZE, TYP, Authorization, Grant
from attestation.intent import Intent
from attestation.lease import Lease, verify_lease
from tests.bench.registry import bench
from tests.verifier.hall import Hall, Host
from verifier.keys import CERTIFICATE

HOSTS, ROUNDS, EACH = 64, 5, 16
"""Hosts at once, rounds that count, attestations of each host in a round."""
_SERVE = "from verifier.cli import main; main()"
_LIMITS = {"submitter_jobs >= 8": "submitter_jobs >= 80000", "tenant_jobs >= 32": "tenant_jobs >= 80000"}


@bench("attest.per_s_per_core", unit="1/s", bar=500, better="higher")
def attestations() -> tuple[float, str]:
    """Renewals with their challenges that one core of the verifier answers, over TLS, durably."""
    before = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:  # a disk, where /tmp may be memory
        hall = Hall(Path(directory), lease_seconds=300, hold_seconds=900)
        with hall:
            _many_jobs(hall)
            jobs = hall.run(_jobs(hall))
        try:
            os.sched_setaffinity(0, {min(before)})
            with _verifier(hall, max(before)) as (pid, port):
                rounds = asyncio.run(_rounds(hall, jobs, pid, port))
        finally:
            os.sched_setaffinity(0, before)
    per_core, per_second = (statistics.median(HOSTS * EACH / row[column] for row in rounds) for column in (0, 1))
    note = f"{1e6 / per_core:.0f} us of the verifier's CPU each; {per_second:.0f}/s, {HOSTS} hosts at once"
    return per_core, f"median of {ROUNDS} rounds of {HOSTS * EACH}; {note}"


@dataclass(eq=False)
class Job:
    """A job that runs: its host, what was asked, its grant, and the lease that it has."""

    host: Host
    intent: Intent
    grant: bytes
    lease: Lease


class Line:
    """A connection to the verifier that stays open: HTTP/1.1, one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def post(self, path: str, body: bytes, kind: str) -> bytes:
        """The body of the answer, which must be a yes."""
        head = f"POST {path} HTTP/1.1\r\nhost: verifier\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        status, *headers = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in headers if line.startswith("content-length:"))
        answer = await self._reader.readexactly(length)
        if " 200 " not in status:
            raise RuntimeError(f"the verifier says {status}: {answer!r}")
        return answer

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def _rounds(hall: Hall, jobs: list[Job], pid: int, port: int) -> list[tuple[float, float]]:
    """CPU seconds of the process ``pid`` and seconds that passed, of each round; the first one warms up."""
    trust = ssl.create_default_context(cafile=str(hall.settings.keys / CERTIFICATE))
    lines = [Line(*await asyncio.open_connection("127.0.0.1", port, ssl=trust)) for _ in jobs]
    measured = []
    for _ in range(ROUNDS + 1):
        cpu, wall = time.clock_gettime(_cpu_clock(pid)), time.monotonic()
        await asyncio.gather(*(_attest(hall, line, job) for line, job in zip(lines, jobs, strict=True)))
        measured.append((time.clock_gettime(_cpu_clock(pid)) - cpu, time.monotonic() - wall))
    for line in lines:
        line.close()
    return measured[1:]


async def _attest(hall: Hall, line: Line, job: Job) -> None:
    """One host's share of a round."""
    asked = api.ChallengeRequest(node=job.host.name).to_bytes()
    for _ in range(EACH):
        challenge = Challenge.from_bytes(await line.post(api.CHALLENGE, asked, api.CBOR_TYPE))
        evidence = job.host.evidence(challenge, job.intent, grant=job.grant)
        token = await line.post(api.RENEW, evidence, api.COSE_TYPE)
        key = hall.verifier.keys.grant.public
        job.lease = verify_lease(token, key=key, grant=job.grant, previous=job.lease, nonce=challenge.nonce)


async def _jobs(hall: Hall) -> list[Job]:
    """One job on each of the hosts, granted while the verifier is still in this process."""
    first = await hall.furnish()
    hosts = [first, *[await hall.add_host(f"host{number}") for number in range(1, HOSTS)]]
    return [await _start(hall, host, hall.intent()) for host in hosts]


async def _start(hall: Hall, host: Host, intent: Intent) -> Job:
    answer = await host.ask(intent)
    if not isinstance(answer, Authorization):
        raise TypeError(f"a request of the benchmark was denied: {answer.reasons}")
    read = read_sign1(answer.grant, typ=TYP, max_size=MAX_SIZE, unprotected=frozenset({RECEIPTS}))
    grant = Grant.from_bytes(read.unverified_payload or b"").id
    lease = verify_lease(answer.lease, key=hall.verifier.keys.grant.public, grant=grant, previous=None)
    return Job(host, intent, grant, lease)


def _many_jobs(hall: Hall) -> None:
    """The policies, without the limits that a benchmark runs into."""
    path = hall.policies / "base.cedar"
    text = path.read_text(encoding="utf-8")
    for old, new in _LIMITS.items():
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@contextmanager
def _verifier(hall: Hall, core: int) -> Iterator[tuple[int, int]]:
    """The verifier as a process on this core: its id and its port."""
    command = [sys.executable, "-c", _SERVE, "serve", str(hall.directory), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        os.sched_setaffinity(process.pid, {core})
        ready = process.stdout.readline() if process.stdout else ""
        yield process.pid, int(ready.rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate()


def _cpu_clock(pid: int) -> int:
    """The clock of the CPU time of a process, all threads (clock_getcpuclockid(3), as the kernel numbers them)."""
    return ~pid << 3 | 2
