"""Appraise: Evidence becomes Claims. A pure function: the same inputs give the same bytes.

The checks, in the order in which they are made. Each has the number that the code, the claims and
docs/threat-model.md use. In ``tpm`` each check stands on the ones before it, so the first failure ends it and later
checks are recorded as not run; in ``workload`` they do not, and all are made.

``tpm``
 1. evidence.envelope: a strict COSE_Sign1 of the evidence type, signed by the holder key *of the enrolment record*.
 2. evidence.nonce: it answers this challenge.
 3. evidence.intent: it is for this intent.
 4. evidence.grant: it renews this grant, or none where a new grant is asked for.
 5. evidence.records: one TPM record, at most one of the host's own words, well-formed, and no record of a kind that
    nobody here can appraise.
 6. tpm.holder: the holder key is the enrolled one and certified by the enrolled attestation key; tpm-lease: it obeys
    TPM-enforced leases, by the policy key of the enrolment record. (Not applicable: it is a plain key.)
 7. tpm.quote: the quote, by the numbered checks of :func:`attestation.tpm.quote.verify_quote`.
 8. tpm.clock: resets, restarts and the clock have not gone back since the last accepted evidence.
 9. tpm.firmware: the TPM's firmware version is the enrolled one.
10. tpm.baseline: the PCR values equal a usable baseline of the node's pool, PCR 10 aside. A pool without baselines
    (pending ones count as none) has to have boot references.
11. tpm.event-log: the boot event log explains the quoted PCRs.
12. tpm.boot: what it proves meets a usable boot reference of the pool.
13. tpm.ima: the measurement list leads to the quoted PCR 10, and the pool's IMA reference allows all that is in it.
14. tpm.workload: the jobs that were measured into the TPM continue what is proven of this boot, and a renewal's own job
    is one of them (:mod:`attestation.appraise_workload`).

Checks 11 to 13 are recorded as not applicable where the pool has no such reference (:mod:`attestation.appraise_boot`).

``gpu<n>``, ``switch<n>``, ``gpus``
    Where the host shows devices, the numbered checks of :mod:`attestation.gpu.checks` on each of them and those of
    :mod:`attestation.gpu.fleet` on all together. They are made once checks 1 to 5 have passed: before that nobody knows
    whose words they are.

``workload``
15. workload.code: the intent's code tree is approved.
16. workload.environment: the intent's environment is approved.
17. workload.intent: a new job is asked for within a day of the intent's signature. (A renewal is not asked again.)

Not checked here, on purpose: the age of the challenge (redeeming it is a durable act of the verifier).
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from attestation import appraise_boot, appraise_workload
from attestation import claims as ear
from attestation.bench import Bench, Read, Subject
from attestation.challenge import EVENT_LOG, IMA
from attestation.claims import Appraisal, Check, Claims, VerifierId
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.evidence import (
    HOST,
    HOST_TYPE,
    TPM,
    TPM_TYPE,
    Cmw,
    HostRecord,
    TpmRecord,
    gpu_nonce,
    qualifying_data,
    read_evidence,
)
from attestation.gpu.appraise import GpuResult, GpuSubject, appraise_gpus, kind_of
from attestation.intent import AHEAD_SECONDS, LIFETIME_SECONDS
from attestation.keys import PublicKey
from attestation.progress import HostProgress, boot_of
from attestation.reference import Baseline
from attestation.tpm.clock import check_clock, check_firmware
from attestation.tpm.enforced import CHECK as TPM_LEASE
from attestation.tpm.identity import verify_ak, verify_holder
from attestation.tpm.quote import verify_quote
from attestation.tpm.structures import Public
from attestation.workload import WorkloadEntry

__all__ = ["NO_DEVICES", "Followed", "Read", "Subject", "appraise", "appraise_and_follow"]

NO_DEVICES = GpuResult(submods={}, binding="L0", assurance="hardware")
"""No GPU has shown anything: whatever the host says of its GPUs is asserted (architecture, section 5)."""


Step = Callable[[Bench], str | None]
"""Raises when the check fails; returns an outcome where it is not "pass"."""

_WEAKEST_FIRST = ("test", "hardware")


def appraise(token: bytes | Read, subject: Subject, *, verifier: VerifierId) -> Claims:
    """Appraise one evidence token, or what ``read_evidence`` made of it.

    Never raises for what the host sent: a failed check is part of the claims.
    """
    return appraise_and_follow(token, subject, verifier=verifier).claims


@dataclass(frozen=True, slots=True)
class Followed:
    """Claims; what is proven of the host by now; the event log that explains its quote, where one was looked at; and
    the jobs that were measured since, whose grants only the verifier knows.

    There is no progress where a check of the host failed, and only who accepts the claims may keep it.
    """

    claims: Claims
    progress: HostProgress | None = None
    event_log: bytes | None = None
    jobs: tuple[WorkloadEntry, ...] = ()


def appraise_and_follow(token: bytes | Read, subject: Subject, *, verifier: VerifierId) -> Followed:
    """As :func:`appraise`, for who asks the host again: it need not show again what it has proven in this boot."""
    bench = Bench(token, subject)
    tpm = _run(_TPM_STEPS, bench, ear.INSTANCE_IDENTITY, ear.HARDWARE, chained=True)
    devices = _appraise_devices(bench.devices, subject)
    workload = _run(_WORKLOAD_STEPS, Bench(token, subject), ear.EXECUTABLES, chained=False)
    claims = Claims(
        issued=subject.at,
        profile=ear.PROFILE,
        submods={"tpm": tpm, "workload": workload, **devices.submods},
        verifier=verifier,
        assurance=min(subject.node.assurance, devices.assurance, key=_WEAKEST_FIRST.index),
        binding=devices.binding,
    )
    return Followed(claims) if tpm.failures else Followed(claims, bench.progress, bench.log, bench.jobs)


def _appraise_devices(records: Sequence[tuple[str, Cmw]], subject: Subject) -> GpuResult:
    """What the GPUs and switches of the host prove, which answered the nonce that this challenge leads to."""
    if not records:
        return NO_DEVICES
    node, intent = subject.node, subject.intent
    nonce = gpu_nonce(
        nonce=subject.challenge.nonce, ak_name=Public.from_bytes(node.ak_public).name, intent=intent.digest
    )
    asked = GpuSubject(
        nonce=nonce,
        at=subject.at,
        pool=node.pool,
        count=intent.gpus.count,
        mode=intent.gpus.mode,
        policy=subject.gpus,
        collateral=subject.collateral,
        pinned=node.gpus or (),
    )
    return appraise_gpus(records, asked)


def _run(steps: Sequence[tuple[str, Step]], bench: Bench, *vector: int, chained: bool) -> Appraisal:
    checks: list[Check] = []
    for name, step in steps:
        if chained and bench.status == ear.CONTRAINDICATED:
            checks.append(Check(name=name, outcome=ear.NOT_RUN))
            continue
        try:
            outcome = step(bench) or ear.PASS
        except InterlockError as error:
            bench.status = ear.CONTRAINDICATED
            checks.append(Check(name=name, outcome=ear.FAIL, reason=error.reason, detail=error.detail[:2048]))
        else:
            checks.append(_unfailed(name, outcome))
    return Appraisal(
        status=bench.status,
        vector=dict.fromkeys(vector, bench.status),
        checks=tuple(checks),
        facts=bench.facts,
        anchors=(bench.subject.node.anchor,),
        references=tuple(sorted(bench.references)),
    )


@cache
def _unfailed(name: str, outcome: str) -> Check:
    """A check that did not fail says nothing but its name and outcome, so one object does for all."""
    return Check(name=name, outcome=outcome)


def _envelope(bench: Bench) -> None:
    bench.holder = Public.from_bytes(bench.subject.node.holder_public)
    evidence, envelope = read_evidence(bench.token) if isinstance(bench.token, bytes) else bench.token
    envelope.verify(bench.holder.key)
    bench.evidence = evidence


def _nonce(bench: Bench) -> None:
    if not hmac.compare_digest(bench.evidence.nonce, bench.subject.challenge.nonce):
        raise Untrusted("evidence.nonce", "the evidence answers another challenge")


def _intent(bench: Bench) -> None:
    if not hmac.compare_digest(bench.evidence.intent, bench.subject.intent.digest):
        raise Untrusted("evidence.intent", "the evidence was collected for another intent")


def _grant(bench: Bench) -> None:
    if bench.evidence.grant != bench.subject.grant:
        raise Untrusted("evidence.grant", "the evidence is for another grant")


def _records(bench: Bench) -> None:
    collection = bench.evidence.collection
    unknown = sorted(name for name in collection.keys() - {TPM, HOST} if kind_of(name) is None)
    if unknown:
        raise Untrusted("evidence.unknown-record", f"nothing here appraises {', '.join(unknown)}")
    if TPM not in collection or collection[TPM].type != TPM_TYPE:
        raise Malformed("evidence.record", "there must be one TPM record, of its type")
    if HOST in collection:
        if collection[HOST].type != HOST_TYPE:
            raise Malformed("evidence.record", "the host's record is not of its type")
        HostRecord.from_bytes(collection[HOST].value)
    bench.record = TpmRecord.from_bytes(collection[TPM].value)
    bench.devices = bench.evidence.gpu_records()


def _holder(bench: Bench) -> None:
    if not hmac.compare_digest(bench.record.holder_public, bench.subject.node.holder_public):
        raise Untrusted("tpm.holder.unknown", "the holder key is not the enrolled one")
    ak = verify_ak(bench.subject.node.ak_public)
    record, policy = bench.record, bench.subject.node.policy
    verify_holder(
        record.holder_public,
        record.certify,
        record.certify_signature,
        record.creation,
        ak=ak,
        policy=None if policy is None else PublicKey.from_spki(policy),
    )


def _tpm_lease(bench: Bench) -> str | None:
    return ear.NOT_APPLICABLE if bench.subject.node.policy is None else None


def _quote(bench: Bench) -> None:
    subject, record, evidence = bench.subject, bench.record, bench.evidence
    bench.qualifying = qualifying_data(
        nonce=subject.challenge.nonce,
        intent=subject.intent.digest,
        holder=bench.holder.key.thumbprint,
        gpus=evidence.gpu_records(),
        logs=(record.event_log, record.ima),
    )
    if record.bank != subject.challenge.bank:
        raise Untrusted("tpm.pcr.bank", f"bank {record.bank:#06x}, asked for {subject.challenge.bank:#06x}")
    bench.quote = verify_quote(
        record.quote,
        record.signature,
        ak=verify_ak(subject.node.ak_public),
        qualifying=bench.qualifying,
        bank=subject.challenge.bank,
        pcrs=subject.challenge.pcrs,
        values=record.pcrs,
    )
    bench.facts["bank"] = str(record.bank)
    sent = {EVENT_LOG: record.event_log, IMA: record.ima}
    bench.facts["logs"] = ", ".join(name for name, data in sent.items() if data is not None) or "none"
    bench.facts.update({f"pcr.{index}": digest.hex() for index, digest in sorted(record.pcrs.items())})


def _clock(bench: Bench) -> None:
    last = bench.subject.node.clock
    now = bench.quote.clock
    check_clock(now, None if last is None else last.info)
    bench.facts |= {"clock": str(now.clock), "resets": str(now.reset_count), "restarts": str(now.restart_count)}
    bench.facts["safe"] = str(now.safe).lower()
    here, known = boot_of(now.reset_count, now.restart_count), bench.subject.progress
    bench.progress = known if known is not None and known.boot == here else HostProgress(boot=here)


def _firmware(bench: Bench) -> None:
    check_firmware(bench.quote.firmware, bench.subject.node.firmware)
    bench.facts["firmware"] = f"{bench.quote.firmware:#018x}"


def _baseline(bench: Bench) -> str | None:
    subject = bench.subject
    if not subject.references.has_baseline(subject.node.pool) and subject.references.boots_of(subject.node.pool):
        return ear.NOT_APPLICABLE
    found = subject.references.match(subject.node.pool, subject.challenge.bank, bench.record.pcrs, at=subject.at)
    if not isinstance(found, Baseline):
        if not found:
            raise Untrusted("ref.none", f"pool {subject.node.pool!r} has no baseline in this bank")
        raise Untrusted("tpm.pcr.mismatch", "; ".join(m.text for m in found))
    bench.use(found, "baseline")
    return None


def _approved(kind: str) -> Step:
    def step(bench: Bench) -> None:
        intent = bench.subject.intent
        digest = intent.code if kind == "code" else intent.environment
        bench.facts[kind] = digest.hex()
        found = bench.subject.references.approval(kind, digest)
        if found is None:
            raise Untrusted(f"{kind}.unknown", f"{kind} digest {digest.hex()} is not approved")
        bench.use(found, kind)

    return step


def _signed_lately(bench: Bench) -> None:
    age = bench.subject.at - bench.subject.intent.issued
    if bench.subject.grant is None and not -AHEAD_SECONDS <= age <= LIFETIME_SECONDS:
        raise Untrusted("intent.time", f"signed {age} s ago; it is good for {LIFETIME_SECONDS} s")


_TPM_STEPS: tuple[tuple[str, Step], ...] = (
    ("evidence.envelope", _envelope),  # (1)
    ("evidence.nonce", _nonce),  # (2)
    ("evidence.intent", _intent),  # (3)
    ("evidence.grant", _grant),  # (4)
    ("evidence.records", _records),  # (5)
    ("tpm.holder", _holder),  # (6)
    (TPM_LEASE, _tpm_lease),  # (6)
    ("tpm.quote", _quote),  # (7)
    ("tpm.clock", _clock),  # (8)
    ("tpm.firmware", _firmware),  # (9)
    ("tpm.baseline", _baseline),  # (10)
    ("tpm.event-log", appraise_boot.event_log),  # (11)
    ("tpm.boot", appraise_boot.boot),  # (12)
    ("tpm.ima", appraise_boot.ima),  # (13)
    ("tpm.workload", appraise_workload.workload),  # (14)
)
_WORKLOAD_STEPS: tuple[tuple[str, Step], ...] = (
    ("workload.code", _approved("code")),  # (15)
    ("workload.environment", _approved("environment")),  # (16)
    ("workload.intent", _signed_lately),  # (17)
)
