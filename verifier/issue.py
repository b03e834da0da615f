"""Making what is signed: the grant of a judgement that allows, the leases of a grant, and the records that name them.

A payload is made first, then the record that names its digest, and only when that record is durable is the payload
signed, with the receipt of the record in the unprotected header.
"""

from collections.abc import Mapping

from attestation.claims import Appraisal
from attestation.grant import PROFILE, Conditions, Confirmation, Grant, holder_key
from attestation.lease import FIRST_PREVIOUS, Lease, sign_lease
from attestation.log import Record
from attestation.reference import IMA_PCR
from attestation.tpm.enforced import is_enforced, terms_of, tpm_lease
from attestation.tpm.policy import approval
from attestation.tpm.structures import Public
from verifier.changes import AdvanceLease, Change, PutBlobs, PutJob, RevokeJob, Unit, UseIntent
from verifier.judge import Case, Judgement
from verifier.keys import KeyRing
from verifier.state import digests_of
from verifier.store import Job

SCOPE = "run"
START_SECONDS = 300
"""What a grant lives longer than its job may run: time for staging before it and the last report after it."""

_PCR = "pcr."


def make_grant(judged: Judgement, issuer: str, cti: bytes) -> Grant:
    """The grant that an allow permits, neither signed nor logged yet.

    It expires when its job, had it been frozen once for the whole hold time, must have ended.
    """
    case, claims = judged.case, judged.appraised
    settings, limits = case.force.policy.settings, case.intent.limits
    return Grant(
        issuer=issuer,
        node=case.node.name,
        job=case.intent.job,
        expires=case.at + START_SECONDS + limits.seconds + settings.hold_seconds,
        not_before=case.at,
        issued=case.at,
        id=cti,
        confirmation=Confirmation(key=holder_key(case.holder)),
        scope=SCOPE,
        nonce=case.challenge.nonce,
        profile=PROFILE,
        submods=claims.submods,
        intent=case.intent.digest,
        policy=case.force.policy.digest,
        references=case.force.references.digest,
        evidence=case.evidence.digest,
        limits=limits,
        conditions=_conditions(claims.submods["tpm"], case.challenge.bank),
        root=cti,
        depth=0,
        assurance=claims.assurance,
        binding=claims.binding,
        lease=settings.lease_seconds,
        hold=settings.hold_seconds,
        unchecked=judged.decision.unchecked,
        secrets=case.intent.secrets,
        tpm_lease=is_enforced(claims.submods["tpm"]),
    )


def _conditions(tpm: Appraisal, bank: int) -> Conditions:
    """The PCR values that this evidence proved: they have to stay as they are, but for PCR 10, which IMA extends."""
    pcrs = {int(name.removeprefix(_PCR)): bytes.fromhex(v) for name, v in tpm.facts.items() if name.startswith(_PCR)}
    return Conditions(bank=bank, pcrs={index: value for index, value in pcrs.items() if index != IMA_PCR})


def make_lease(judged: Judgement, cti: bytes, *, sequence: int = 0, previous: bytes = FIRST_PREVIOUS) -> Lease:
    """The lease that answers this case's challenge. Its time counts from the moment the challenge was issued.

    Where the holder key obeys leases, it says what the TPM has to enforce, from what the quote has proven.
    """
    case = judged.case
    settings, issued = case.force.policy.settings, case.challenge.issued
    return Lease(
        expires=issued + settings.lease_seconds,
        issued=issued,
        grant=cti,
        nonce=case.challenge.nonce,
        evidence=case.evidence.digest,
        sequence=sequence,
        duration=settings.lease_seconds,
        previous=previous,
        hold=settings.hold_seconds,
        tpm=tpm_lease(judged.appraised.submods["tpm"], issued=issued, at=case.at, duration=settings.lease_seconds),
    )


def sign(keys: KeyRing, lease: Lease, ak_public: bytes, receipt: bytes) -> bytes:
    """The lease as a token, with the receipt of its record, and for a TPM-enforced one what its TPM asks to see.

    Only for a lease that is durable in the log. ``ak_public`` is the node's attestation key (TPMT_PUBLIC).
    """
    approved = None
    if lease.tpm is not None:
        approved = keys.policy.sign(approval(terms_of(lease.tpm), Public.from_bytes(ak_public).name))
    return sign_lease(lease, keys.grant, (receipt,), approved)


def grant_unit(judged: Judgement, grant: Grant, lease: Lease) -> Unit:
    """What happens when ``grant`` and its first lease come into being: everything used up, archived and recorded."""
    case, archive = judged.case, judged.archive()
    issued = {"grant": grant.to_bytes(), "lease": lease.to_bytes()}
    named = judged.digests(archive) | digests_of(issued)
    decision = make_record(judged, "decision", grant.id, {k: v for k, v in named.items() if k != "lease"})
    first = make_record(judged, "lease", grant.id, {k: named[k] for k in ("evidence", "grant", "lease")})
    changes = (
        *judged.uses,
        UseIntent(case.intent.nonce, case.at),
        *case.expected,
        *put_blobs(archive | issued, named),
        put_job(case, grant.id, "issued"),
        AdvanceLease(grant.id, 0, None, lease.digest, lease.expires, 0),
    )
    return Unit(changes, (decision, first))


def lease_unit(judged: Judgement, lease: Lease, job: Job) -> Unit:
    """What happens when a job gets its next lease."""
    case, archive = judged.case, judged.archive() | {"lease": lease.to_bytes()}
    named = judged.digests(archive)
    record = make_record(judged, "lease", job.cti, named)
    used = case.intent.gpus.count * max(0, case.at - job.at)
    advance = AdvanceLease(job.cti, lease.sequence, job.lease_digest, lease.digest, lease.expires, used)
    return Unit((*judged.uses, *case.expected, *put_blobs(archive, named), advance), (record,))


def denial_unit(judged: Judgement, cti: bytes) -> Unit:
    """What happens when a request is denied. A job whose host proved that something is wrong gets no lease any more."""
    case, archive = judged.case, judged.archive()
    running, named = case.grant is not None, judged.digests(archive)
    record = make_record(judged, "lease" if running else "decision", cti, named)
    changes: tuple[Change, ...] = (*judged.uses, *put_blobs(archive, named))
    if not running:
        changes += (put_job(case, cti, "denied"),)
    elif judged.stops:
        changes += (RevokeJob(cti, f"hard {judged.decision.reasons[0]}"),)
    return Unit(changes, (record,))


def put_job(case: Case, cti: bytes, state: str) -> PutJob:
    """The job of a new grant, or of a request that was denied."""
    return PutJob(
        cti=cti,
        node=case.node.name,
        submitter=case.kid,
        tenant=case.intent.tenant,
        intent=case.intent.digest,
        state=state,
        gpus=case.intent.gpus.count,
        now=case.at,
    )


def put_blobs(archive: Mapping[str, bytes], named: Mapping[str, bytes]) -> tuple[PutBlobs]:
    """The change that archives ``archive``, whose digests ``named`` holds among others."""
    return (PutBlobs(tuple([(named[name], data) for name, data in archive.items()])),)


def make_record(judgement: Judgement, kind: str, cti: bytes, digests: dict[str, bytes]) -> Record:
    """The record of a judgement: ``kind`` is ``decision`` or ``lease``. The log gives it its number in the job."""
    case, decision = judgement.case, judgement.decision
    allowed = "allow" if kind == "decision" else "issued"
    return Record(
        kind=kind,
        time=case.at,
        job=cti,
        outcome=allowed if decision.allow else "deny",
        reasons=decision.reasons,
        determining=decision.determining,
        digests=digests,
        node=case.node.name,
        submitter=case.kid,
    )
