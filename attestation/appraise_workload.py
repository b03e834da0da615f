"""Check 14 of :mod:`attestation.appraise`: the jobs that were measured into the TPM since it was started.

Every evidence continues the sequence that is proven already, and a renewal's own job is in it. It is made on every
host: an agent that measures nothing cannot renew a lease.
"""

from dataclasses import replace

from attestation.bench import Bench
from attestation.tpm.identity import verify_ak
from attestation.workload import Granted, Proven, read_entries, verify_workload


def workload(bench: Bench) -> None:
    """(14) The sequence of jobs of this boot, by the numbered checks of :mod:`attestation.workload`."""
    subject, known = bench.subject, bench.progress
    intent = subject.intent
    proven = verify_workload(
        bench.record.workload,
        ak=verify_ak(subject.node.ak_public),
        qualifying=bench.qualifying,
        boot=known.boot,
        proven=Proven(known.boot, known.workload_count, known.workload_value),
        granted=None if subject.grant is None else Granted(subject.grant, intent.code, intent.environment),
    )
    bench.progress = replace(known, workload_count=proven.count, workload_value=proven.value)
    bench.facts["workload.jobs"] = str(proven.count)
    shown = () if bench.record.workload is None else read_entries(bench.record.workload.entries)
    bench.jobs = shown[len(shown) - (proven.count - known.workload_count) :]
