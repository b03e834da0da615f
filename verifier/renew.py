"""Renew: is it still true? Fresh evidence for a running job is judged like the first, and gives the next lease or none.

1. The evidence is read strictly, and not believed yet. It names its grant, the log remembers what that grant was for.
2. Evidence and facts are judged anew (:mod:`verifier.judge`, in the steps of :mod:`verifier.authorize`), under the
   policy, the policy key, the reference values and what others say about the devices now. Every job that was measured
   since has to be one that was granted.
3. The grant still lives: not revoked, not ended, not past its time or its number of renewals, its last lease ended no
   longer ago than the hold time, its host is still in the boot that was granted, and no GPU or switch answers that
   did not when it was granted: another one may be as genuine, and the job never ran on it.
4. The lease is in the log, durable, then it is signed. Its place in the chain is checked in the same transaction.
5. The same evidence once more, because the answer was lost on its way, has the same answer: no lease is skipped. Only
   while the job lives, and the node is in force with the very key that has signed it: nothing is signed for another.
6. Where nothing is wrong but that others' words about the devices are not at hand, nobody is refused: the verifier is
   unwell. The job runs to the end of its lease and is frozen; it goes on if the words come within the hold time.

A late or used challenge is a problem and no denial: an honest host asks for another one. Every other refusal is a
denial, whose class tells the host how to stop.
"""

from collections.abc import Mapping

from attestation.claims import Appraisal, identities
from attestation.decision import DRAIN, HARD, UNAVAILABLE
from attestation.errors import Malformed, Untrusted
from attestation.evidence import read_evidence
from attestation.lease import Lease
from attestation.log import Record
from attestation.problem import Denial
from verifier.deny import deny, reconsider
from verifier.gather import gather, note_used
from verifier.issue import lease_unit, make_lease, sign
from verifier.judge import Case, Judgement, judge
from verifier.ledger import Reserved
from verifier.measured import only_granted
from verifier.permit import check_policy_key
from verifier.rehearse import rehearse
from verifier.secrets import asked_for
from verifier.state import Granted, Unwell, Verifier
from verifier.store import Job


async def renew(verifier: Verifier, token: bytes) -> bytes | Denial:
    """The next lease token of the grant that the evidence names. Raises as :func:`verifier.authorize.authorize`."""
    evidence, envelope = read_evidence(token)  # (1)
    if evidence.grant is None:
        raise Malformed("renew.grant", "evidence for a renewal names its grant")
    cti = evidence.grant
    first, granted = verifier.job(cti), verifier.granted(cti)
    gathered = await gather(verifier, evidence, envelope)
    await rehearse(verifier, evidence, envelope, granted.intent, cti)

    def look() -> Judgement:
        challenge, node = verifier.asked(evidence.nonce)
        check_policy_key(verifier.keys, node)
        if node.name != first.node:
            raise Untrusted("challenge.node", f"the challenge is {node.name}'s, the grant is {first.node}'s")
        at = verifier.clock.now()
        case = Case(
            action="renew",
            at=at,
            challenge=challenge,
            node=node,
            intent=granted.intent,
            signed_intent=granted.signed,
            kid=first.submitter,
            submitter=verifier.submitter(first.submitter),
            evidence=evidence,
            signed_evidence=envelope,
            usage=verifier.usage(Reserved(first.submitter, first.tenant, node.name), at=at, without=cti),
            force=verifier.in_force(),
            grant=cti,
            collateral=gathered.collateral,
            known=verifier.known(evidence.nonce, node),
            secrets=asked_for(verifier, granted.intent),
        )
        judged = only_granted(verifier, judge(case, verifier.id))  # (2)
        return _still_granted(judged, verifier.job(cti), granted)  # (3)

    answer = await reconsider(verifier, look, lambda judged: _settle(verifier, judged, verifier.job(cti)))
    if not isinstance(answer, Denial):
        note_used(verifier, gathered)
    return answer


async def _settle(verifier: Verifier, judged: Judgement, job: Job) -> bytes | Denial:
    late = [reason for reason in judged.decision.reasons if reason.startswith("challenge.")]
    if late:
        return _repeat(verifier, judged, job, late[0])  # (5)
    if _is_unavailable(judged):  # (6)
        raise Unwell("collateral.unavailable", "; ".join(judged.details.values()))
    if not judged.decision.allow:
        return await deny(verifier, judged, job.cti)
    if job.lease_sequence is None or job.lease_digest is None:
        raise Untrusted("grant.ended", "a denied request has no lease")
    lease = make_lease(judged, job.cti, sequence=job.lease_sequence + 1, previous=job.lease_digest)
    (logged,) = await verifier.commit(lease_unit(judged, lease, job))  # (4)
    verifier.close_challenge(judged.case.challenge.nonce)
    verifier.metrics.allowed("renew")
    verifier.metrics.appraised(judged.claims)
    return sign(verifier.keys, lease, judged.case.node.ak_public, logged.receipt)


def _is_unavailable(judged: Judgement) -> bool:
    """Whether collateral that is missing or has run out is all that stands against the next lease."""
    reasons = set(judged.decision.reasons) - {"policy.required.gpu"}
    return bool(reasons) and reasons <= UNAVAILABLE


def _still_granted(judged: Judgement, job: Job, granted: Granted) -> Judgement:
    """Step 3: what the grant itself says."""
    at, limits = judged.case.at, granted.grant.limits
    if job.state == "revoked":
        klass, _, why = (job.revoked or HARD).partition(" ")
        judged = judged.refuse("grant.revoked", why, klass=klass)
    elif job.state not in ("issued", "running"):
        judged = judged.refuse("grant.ended", f"the job is {job.state}")
    elif at > (job.lease_end or 0) + judged.case.force.policy.settings.hold_seconds:
        judged = judged.refuse("lease.lapsed", f"the last lease ended {at - (job.lease_end or 0)} s ago")
    if (job.lease_sequence or 0) >= limits.renewals:
        judged = judged.refuse("limit.renewals", f"{limits.renewals} renewals were granted", klass=DRAIN)
    if at >= granted.grant.expires:
        judged = judged.refuse("limit.seconds", "the time that was asked for is over", klass=DRAIN)
    then, now = _boot(granted.grant.submods), _boot(judged.appraised.submods)
    if now and now != then:
        judged = judged.refuse("tpm.clock.rebooted", f"boot {now}, granted in {then}")
    strange = identities(judged.appraised.submods) - identities(granted.grant.submods)
    if strange:
        judged = judged.refuse("lease.devices", f"not those of the grant: {', '.join(sorted(strange))}")
    return judged


def _boot(submods: Mapping[str, Appraisal]) -> str:
    """Resets and restarts that the TPM counted; empty where a quote did not prove them."""
    facts = submods["tpm"].facts
    return f"{facts['resets']}.{facts['restarts']}" if "resets" in facts else ""


def _repeat(verifier: Verifier, judged: Judgement, job: Job, reason: str) -> bytes:
    """The lease that this very evidence has got already (5); else ``Untrusted`` with ``reason``."""
    case = judged.case
    live = job.state in ("issued", "running") and case.node.state == "active" and judged.signed
    lease = None if job.lease_digest is None or not live else Lease.from_bytes(verifier.document(job.lease_digest))
    if lease is None or (lease.nonce, lease.evidence) != (case.challenge.nonce, case.evidence.digest):
        raise Untrusted(reason, "ask for a fresh challenge")
    for entry in reversed(verifier.store.records_of(job.cti)):
        if Record.from_bytes(entry.record).digests.get("lease") == job.lease_digest:
            return sign(verifier.keys, lease, case.node.ak_public, verifier.receipt(entry.index))
    raise Untrusted(reason, "ask for a fresh challenge")
