"""Reports: how a run ended, signed by its host. A report burns its grant and closes the job's part of the log.

1. The report is read, and not believed yet: it names its grant, the grant names the node.
2. It is signed by the holder key of that node's enrolment.
3. It is archived and recorded, and the job is over; one unit. The same report once more gets its receipt again; a
   second, different one is refused.

A report may come late, when the job has been given up here (:mod:`verifier.janitor`): it is recorded all the same.
"""

from attestation.cose import read_sign1
from attestation.errors import Untrusted
from attestation.log import Record
from attestation.report import MAX_SIZE, TYP, Report, verify_report
from attestation.tpm.structures import Public
from verifier.changes import Change, EndJob, Unit
from verifier.issue import put_blobs
from verifier.state import Verifier, digests_of
from verifier.store import Conflict, Job


async def report(verifier: Verifier, token: bytes) -> bytes:
    """The receipt of the report's record. Raises ``Malformed`` or ``Untrusted``."""
    unverified = read_sign1(token, typ=TYP, max_size=MAX_SIZE)  # (1)
    job = verifier.job(Report.from_bytes(unverified.unverified_payload or b"").grant)
    holder = Public.from_bytes(verifier.node(job.node).holder_public).key
    ended = verify_report(token, holder=holder, grant=job.cti)  # (2)
    try:
        return await _close(verifier, verifier.job(job.cti), ended, token)  # (3)
    except Conflict:
        return await _close(verifier, verifier.job(job.cti), ended, token)


async def _close(verifier: Verifier, job: Job, ended: Report, token: bytes) -> bytes:
    archive = {"report": token}
    named = digests_of(archive)
    for entry in verifier.store.records_of(job.cti):
        known = Record.from_bytes(entry.record)
        if known.kind == "report" and known.digests == named:
            return verifier.receipt(entry.index)
        if known.kind == "report":
            raise Untrusted("report.second", "another report about this grant is in the log")
    now, end = verifier.clock.now(), _gpu_seconds(job, ended)
    changes: tuple[Change, ...] = put_blobs(archive, named)
    if job.state not in ("ended", "denied"):
        changes += (EndJob(job.cti, end),)
    record = Record(
        kind="report",
        time=now,
        job=job.cti,
        outcome="ended",
        reasons=tuple(sorted({halt.reason for halt in ended.halts})),
        digests=named,
        node=job.node,
        submitter=job.submitter,
        detail=f"exit {ended.exit_code}, leases {ended.leases}, cgroup empty: {ended.cgroup_empty}",
    )
    (logged,) = await verifier.commit(Unit(changes, (record,)))
    return logged.receipt


def _gpu_seconds(job: Job, ended: Report) -> int:
    """What the job used, by the host's account, but never less than what its leases already covered."""
    return max(job.gpu_seconds, job.gpus * max(0, ended.ended - ended.started))
