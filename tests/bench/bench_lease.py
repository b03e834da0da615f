"""What the TPM-enforced lease costs where it is paid: the TPM's part of a renewal, on swtpm."""

import hashlib
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from agent.clock import now_ns
from agent.collect import Collector
from agent.holder import Holder
from agent.tpm import EsysTpm
from agent.workload import FILE, Workloads
from attestation.challenge import Challenge
from attestation.cose import ES256, SoftwareSigner
from attestation.lease import FIRST_PREVIOUS, Lease, TpmLease
from attestation.tpm.enforced import terms_of
from attestation.tpm.policy import approval
from attestation.tpm.structures import ALG_SHA256
from attestation.workload import WorkloadEntry
from fixtures.ca import TestCa
from fixtures.swtpm import Swtpm, manufacture
from tests.bench.registry import bench, interleave

RENEWALS = 400
ROUNDS = 50
PCRS = (0, 1, 2, 3, 4, 5, 7, 8, 9)
STILL = tuple(pcr for pcr in PCRS if pcr < 8)
MS = 1_000_000
GRANT = bytes(16)


@contextmanager
def enrolled(policy: SoftwareSigner, *, enforced: bool) -> Iterator[tuple[EsysTpm, Holder, Collector]]:
    """An emulator with a holder key, and one job measured into it: what a host has while a job runs."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        with Swtpm.start(state=manufacture(TestCa(), directory / "tpm")) as emulator:
            tpm = EsysTpm(emulator.tcti)
            key = tpm.create_holder(policy.public if enforced else None)
            holder = Holder(tpm, key, policy=policy.public)
            workloads = Workloads(tpm, directory / FILE)
            workloads.measure(WorkloadEntry(grant=GRANT, code=bytes(32), environment=bytes(32)))
            try:
                yield tpm, holder, Collector(tpm, holder, workloads=workloads)
            finally:
                tpm.close()


def leased(tpm: EsysTpm, holder: Holder, policy: SoftwareSigner, number: int) -> None:
    """Put the next lease of ten seconds in force, as a renewal's answer does."""
    clock, values = tpm.clock(), tpm.read_pcrs(ALG_SHA256, STILL)
    said = TpmLease(
        bank=ALG_SHA256,
        pcrs=STILL,
        pcr_digest=hashlib.sha256(b"".join(values[pcr] for pcr in STILL)).digest(),
        until=clock.clock + 10_000 + number,
        resets=clock.reset_count,
        restarts=clock.restart_count,
    )
    lease = Lease(
        expires=10,
        issued=0,
        grant=GRANT,
        nonce=bytes(32),
        evidence=bytes(32),
        sequence=number,
        duration=10,
        previous=FIRST_PREVIOUS,
        hold=60,
        tpm=said,
    )
    holder.adopt(lease, policy.sign(approval(terms_of(said), tpm.create_ak().name)))


def challenge(number: int) -> Challenge:
    """A fresh question."""
    nonce = number.to_bytes(32, "big")
    return Challenge(expires_in=30, bank=ALG_SHA256, audience="bench", pcrs=PCRS, issued=1, nonce=nonce)


@cache
def renewals() -> list[float]:
    """Milliseconds that the host needs to make the evidence of a renewal, each under the lease before it."""
    policy, spans = SoftwareSigner.generate(ES256), []
    with enrolled(policy, enforced=True) as (tpm, holder, collector):
        for number in range(RENEWALS):
            leased(tpm, holder, policy, number)
            asked = challenge(number)
            began = now_ns()
            collector.answer(asked, bytes(32), GRANT)
            spans.append((now_ns() - began) / MS)
    return sorted(spans)


@bench("renewal.tpm_ms", unit="ms", bar=20)
def renewal() -> tuple[float, str]:
    """PCRs read, quoted, the workload certified, the new lease's policy verified by the TPM, and signed under it."""
    spans = renewals()
    p50, p99 = statistics.median(spans), spans[-(-len(spans) * 99 // 100) - 1]
    return p50, f"p50 of {len(spans)} renewals on swtpm; p99 {p99:.1f} ms, worst {spans[-1]:.1f} ms"


@bench("renewal.policy_ms", unit="ms")
def policy() -> tuple[float, str]:
    """What the policy alone adds to a signature by the holder key."""
    key = SoftwareSigner.generate(ES256)
    with enrolled(key, enforced=True) as bound, enrolled(key, enforced=False) as plain:
        count = iter(range(10**6))

        def under() -> float:
            leased(bound[0], bound[1], key, next(count))
            return _signed(bound[1])

        enforced, alone = interleave(under, lambda: _signed(plain[1]), ROUNDS)
    return enforced - alone, f"medians of {ROUNDS} signatures each: {enforced:.1f} and {alone:.1f} ms, in turn"


def _signed(holder: Holder) -> float:
    began = now_ns()
    holder.sign(b"evidence")
    return (now_ns() - began) / MS
