"""Authorize: may this person run this code on this machine now? Read this and ``agent/run.py``, and you know Interlock.

1. Intent and evidence are read strictly, and not believed yet.
2. What others say about the devices in the evidence is gathered (:mod:`verifier.gather`). A long measurement list is
   looked at beside what else goes on (:mod:`verifier.rehearse`).
3. The challenge that the evidence answers tells the node, whose holder key has to obey the policy key of now
   (:mod:`verifier.permit`); the intent's header tells the submitter.
4. Signatures, quote, devices, the host's state and the policy are judged (:mod:`verifier.judge`): a pure function.
   Every job that the host's TPM has measured has to be one that was granted (:mod:`verifier.measured`).
5. One unit, all or nothing: the challenge and the intent are used up, all inputs are archived, and the decision is in
   the log, durable. What the judgement relied on must still be so at that moment, else it is made again.
6. Only then, and only for an allow, are grant and first lease signed, each with the receipt of its record. The policy
   key signs what the lease lets the host's TPM do, and secrets go with them, sealed to that TPM.

A denial takes the same way: it burns the challenge and is in the log before it is answered (:mod:`verifier.deny`).
Whatever goes wrong on our side before (6) leaves nothing signed.
"""

from attestation.api import AuthorizationRequest
from attestation.evidence import read_evidence
from attestation.grant import Authorization, sign_grant
from attestation.intent import read_intent
from attestation.problem import Denial
from verifier.deny import deny, reconsider
from verifier.gather import gather, note_used
from verifier.issue import grant_unit, make_grant, make_lease, sign
from verifier.judge import Case, Judgement, judge
from verifier.ledger import Reserved
from verifier.measured import only_granted
from verifier.permit import check_policy_key
from verifier.rehearse import rehearse
from verifier.secrets import asked_for, release
from verifier.state import Verifier


async def authorize(verifier: Verifier, asked: AuthorizationRequest) -> Authorization | Denial:
    """Decide on one request. Raises ``Malformed`` or ``Untrusted`` where it names no node, ``Unwell`` where we fail."""
    intent, header = read_intent(asked.intent)  # (1)
    evidence, envelope = read_evidence(asked.evidence)
    cti = verifier.entropy(16)
    gathered = await gather(verifier, evidence, envelope)  # (2)
    await rehearse(verifier, evidence, envelope, intent)

    def look() -> Judgement:
        challenge, node = verifier.asked(evidence.nonce)  # (3)
        check_policy_key(verifier.keys, node)
        at = verifier.clock.now()
        case = Case(
            action="run",
            at=at,
            challenge=challenge,
            node=node,
            intent=intent,
            signed_intent=header,
            kid=header.kid,
            submitter=verifier.submitter(header.kid),
            evidence=evidence,
            signed_evidence=envelope,
            usage=verifier.usage(Reserved(header.kid, intent.tenant, node.name), at=at),
            force=verifier.in_force(),
            collateral=gathered.collateral,
            known=verifier.known(evidence.nonce, node),
            secrets=asked_for(verifier, intent),
        )
        return only_granted(verifier, judge(case, verifier.id))  # (4)

    answer = await reconsider(verifier, look, lambda judged: settle(verifier, judged, cti))
    if not isinstance(answer, Denial):
        note_used(verifier, gathered)
    return answer


async def settle(verifier: Verifier, judged: Judgement, cti: bytes) -> Authorization | Denial:
    """Make a judgement durable, then sign what it permits. Raises ``Conflict`` where it does not hold any more."""
    if not judged.decision.allow:
        return await deny(verifier, judged, cti)
    released = release(verifier, judged.case.node, judged.case.secrets.values())
    grant, lease = make_grant(judged, verifier.settings.issuer, cti), make_lease(judged, cti)
    with verifier.ledger.reserving(judged.case.job):
        decided, leased = await verifier.commit(grant_unit(judged, grant, lease))  # (5)
    verifier.close_challenge(judged.case.challenge.nonce)
    verifier.metrics.allowed("run")
    verifier.metrics.appraised(judged.claims)
    verifier.metrics.secrets.labels("released").inc(len(released))
    return Authorization(  # (6)
        grant=sign_grant(grant, verifier.keys.grant, (decided.receipt,)),
        record=decided.record,
        lease=sign(verifier.keys, lease, judged.case.node.ak_public, leased.receipt),
        secrets=released,
    )
