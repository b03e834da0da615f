"""Which jobs a host ran beside one job, as its evidence proves it: for the auditor (:mod:`attestation.workload`).

Every evidence shows entries of the sequence of its boot, numbered from 1, and what it shows was certified by the TPM;
that is part of the claims, which the auditor derives again. Here the entries of all accepted evidence of one job are
laid beside each other: they have to be parts of one sequence, whatever the verifier said that it knew.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from attestation.bundle import Bundle
from attestation.cose import read_sign1
from attestation.errors import Untrusted
from attestation.evidence import TPM, TpmRecord, read_evidence
from attestation.log import Record
from attestation.progress import boot_of
from attestation.rederive import ACCEPTED, Archive
from attestation.report import MAX_SIZE, TYP, Report
from attestation.tpm.attest import Attest, NvCertifyInfo
from attestation.workload import CODES, WorkloadEntry, read_entries


@dataclass(frozen=True, slots=True)
class Measured:
    """One job that was measured: the boot, its number in it, and what was measured."""

    boot: bytes
    number: int
    entry: WorkloadEntry


def sequence(archive: Archive, records: Iterable[Record]) -> tuple[Measured, ...]:
    """The jobs that the accepted evidence of one job shows, by boot and number.

    Raises ``Untrusted("bundle.workload")`` where two pieces of evidence show different jobs under one number, and
    ``Malformed`` for evidence that cannot be taken apart.
    """
    found: dict[tuple[bytes, int], WorkloadEntry] = {}
    for record in records:
        if record.outcome not in ACCEPTED or "evidence" not in record.digests:
            continue
        evidence, _ = read_evidence(archive.named(record, "evidence"))
        shown = TpmRecord.from_bytes(evidence.collection[TPM].value).workload if TPM in evidence.collection else None
        if shown is None:
            continue
        clock = Attest.from_bytes(shown.attest, NvCertifyInfo, CODES).clock
        boot = boot_of(clock.reset_count, clock.restart_count)
        for number, entry in enumerate(read_entries(shown.entries), shown.start + 1):
            if found.setdefault((boot, number), entry) != entry:
                raise Untrusted("bundle.workload", f"record {record.sequence} shows another job {number}")
    return tuple(Measured(boot, number, entry) for (boot, number), entry in sorted(found.items(), key=lambda x: x[0]))


class Audited(Protocol):
    """What an audit has established before it looks at the jobs."""

    bundle: Bundle
    archive: Archive
    records: list[Record]


def verify_sequence(audit: Audited) -> str:
    """What there is to say of the jobs beside the one that is audited.

    Raises as :func:`sequence`, and ``Untrusted("bundle.workload")`` where the report gives the job another number.
    """
    job, jobs = audit.bundle.job, sequence(audit.archive, audit.records)
    own = [measured.number for measured in jobs if measured.entry.grant == job]
    if not own:
        return f"{len(jobs)} jobs of its boot are shown, this one is not"
    for record in audit.records:
        if record.kind == "report" and _report(audit.archive, record).entry not in (None, *own):
            raise Untrusted("bundle.workload", f"the report gives it another number, the TPM {own[0]}")
    return f"job {own[0]} of its boot, {len(jobs)} are shown"


def _report(archive: Archive, record: Record) -> Report:
    token = read_sign1(archive.named(record, "report"), typ=TYP, max_size=MAX_SIZE)
    return Report.from_bytes(token.unverified_payload or b"")
