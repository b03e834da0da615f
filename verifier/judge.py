"""Judging one request: everything it is judged on is a :class:`Case`, what came out is a :class:`Judgement`.

1. The intent is signed by the submitter whose key it names. (An unknown submitter is a reason to deny, not an error:
   nothing is asked of the signature then, because there is no key to ask.)
2. The evidence is appraised (:func:`attestation.appraise.appraise`).
3. The facts are decided on (:func:`attestation.decision.decide`).
4. A request for what is not given yet is refused: child jobs, inputs that the host would have to verify. Secrets are
   given where each is kept for the request's own tenant, to hosts whose leases are enforced by their TPM.
5. A challenge that asked for other PCRs or logs than would be asked for now is refused: it was issued under another
   policy, or other reference values.

A judgement changes nothing. It can archive itself: the bytes of all its inputs, named as the log's records name them,
so that an auditor makes the same judgement again. What an allow has proven of the host is kept with it: the host does
not show that again in this boot.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from attestation.appraise import Subject, appraise_and_follow
from attestation.asking import is_still_asked
from attestation.challenge import Challenge
from attestation.claims import PASS, Claims, VerifierId
from attestation.cose import UntrustedSign1
from attestation.decision import DRAIN, HARD, Decision, Facts, Usage, decide, facts_from
from attestation.errors import InterlockError
from attestation.evidence import HOST, Evidence, HostRecord
from attestation.gpu.collateral import EMPTY, Collateral
from attestation.intent import Intent
from attestation.keys import PublicKey
from attestation.node import ClockRecord, NodeRecord, Submitter
from attestation.problem import Refusal
from attestation.progress import HostProgress
from attestation.tpm.enforced import is_enforced
from attestation.tpm.structures import Public
from attestation.workload import WorkloadEntry
from verifier.changes import (
    Change,
    ExpectActive,
    ExpectNode,
    ExpectSecret,
    ExpectSubmitter,
    RedeemChallenge,
    TouchClock,
    TouchProgress,
)
from verifier.known import STRANGER, KnownHost
from verifier.ledger import Reserved
from verifier.state import InForce, digests_of
from verifier.store import Secret


@dataclass(frozen=True, slots=True)
class Case:
    """One request and all that it is judged on; ``grant`` is the one that is to be renewed, at ``at`` Unix seconds."""

    action: str
    at: int
    challenge: Challenge
    node: NodeRecord
    intent: Intent
    signed_intent: UntrustedSign1
    kid: bytes
    submitter: Submitter | None
    evidence: Evidence
    signed_evidence: UntrustedSign1
    usage: Usage
    force: InForce
    grant: bytes | None = None
    collateral: Collateral = EMPTY
    known: KnownHost = STRANGER
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    """What is kept under the names that the intent asks for; those that are not kept are not in it."""

    @property
    def holder(self) -> PublicKey:
        """The node's holder key."""
        return Public.from_bytes(self.node.holder_public).key

    @property
    def job(self) -> Reserved:
        """Whose job it would be."""
        return Reserved(self.kid, self.intent.tenant, self.node.name)

    @property
    def expected(self) -> tuple[Change, ...]:
        """That everything an allow of this case relied on is still so when it becomes durable."""
        node, submitter, force = self.node, self.submitter, self.force
        return (
            ExpectActive("policy", force.policy.digest),
            ExpectActive("references", force.references.digest),
            ExpectNode(node.name, node.state, self.holder.thumbprint, node.gpus or ()),
            *(() if submitter is None else (ExpectSubmitter(self.kid, submitter.to_bytes()),)),
            *(ExpectSecret(kept.name, kept.tenant, kept.sealed) for kept in self.secrets.values()),
        )


_UNUSABLE = frozenset({"challenge.redeemed", "challenge.expired", "challenge.node", "challenge.unknown"})
"""Why a challenge could not be used up: all other denials burn it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came out of a case. ``details`` says what was seen, by reason code; ``burns`` that the challenge is used.

    ``progress`` is what is proven of the host by now, ``event_log`` the log that explains its quote, ``jobs`` what its
    TPM has measured since the progress that was known.
    """

    case: Case
    decision: Decision
    claims: Claims | None = None
    facts: Facts | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    burns: bool = True
    progress: HostProgress | None = None
    event_log: bytes | None = None
    jobs: tuple[WorkloadEntry, ...] = ()

    @property
    def proven(self) -> bool:
        """Whether the evidence is certainly the node's own and new: signed by its holder key, for this challenge."""
        return self._passed("evidence.envelope") and self._passed("evidence.nonce")

    @property
    def signed(self) -> bool:
        """Whether the evidence carries the signature of its node's holder key."""
        try:
            self.case.signed_evidence.verify(self.case.holder)
        except InterlockError:
            return False
        return True

    @property
    def stops(self) -> bool:
        """Whether this denial of a renewal is final: the host itself proved that something is wrong with it."""
        ended = any(reason.startswith("grant.") for reason in self.decision.reasons)
        return self.proven and self.decision.denial == HARD and not ended

    @property
    def appraised(self) -> Claims:
        """The claims of a case that was appraised, as every allow was; ``ValueError`` for one that was not."""
        if self.claims is None:
            raise ValueError("the evidence of this case was not appraised")
        return self.claims

    @property
    def uses(self) -> tuple[Change, ...]:
        """What is used up whatever came out: the challenge, and the moment that the TPM's counters have reached.

        What an allow has proven of the host beyond what was known is remembered.
        """
        case = self.case
        uses: list[Change] = []
        if self.burns:
            uses.append(RedeemChallenge(case.challenge.nonce, case.node.name, case.at))
        if self.claims is not None and self._passed("tpm.clock") and "node.clock" not in self.decision.reasons:
            facts = self.claims.submods["tpm"].facts
            now = (int(facts[name]) for name in ("clock", "resets", "restarts"))
            clock, resets, restarts = now
            reached = ClockRecord(clock=clock, resets=resets, restarts=restarts, safe=facts["safe"] == "true")
            uses.append(TouchClock(case.node.name, reached))
        if self.decision.allow and self.progress is not None and self.progress != case.known.progress:
            uses.append(TouchProgress(case.node.name, self.progress.to_bytes()))
        return tuple(uses)

    def _passed(self, name: str) -> bool:
        checks = () if self.claims is None else self.claims.submods["tpm"].checks
        return any(check.name == name and check.outcome == PASS for check in checks)

    def refuse(self, reason: str, detail: str = "", *, klass: str = HARD) -> "Judgement":
        """This judgement as a denial for one more reason; ``klass`` counts unless it is hard already."""
        known = self.decision
        decision = replace(
            known,
            allow=False,
            reasons=tuple(sorted({*known.reasons, reason})),
            determining=known.determining if not known.allow else (),
            denial=HARD if HARD in (klass, known.denial) else DRAIN,
        )
        used = reason in _UNUSABLE
        details = {**self.details, reason: detail}
        return replace(self, decision=decision, details=details, burns=self.burns and not used)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Every reason of a denial explained: the operator's own advice where a policy decided.

        That a required check was not passed comes last: where it failed, another reason says what was seen.
        """
        advice = self.case.force.policy.advice(self.decision.reasons, self.decision.determining)
        advice = tuple(sorted(advice, key=lambda pair: (pair[0].startswith("policy.required."), pair)))
        return tuple(Refusal.of(code, detail=self.details.get(code, ""), fix=fix) for code, fix in advice)

    def archive(self) -> dict[str, bytes]:
        """The inputs of this judgement by the names that records use, without policy and reference values."""
        case = self.case
        blobs = {
            "intent": case.signed_intent.token,
            "evidence": case.signed_evidence.token,
            "challenge": case.challenge.to_bytes(),
            "node": case.node.to_bytes(),
            "submitter": None if case.submitter is None else case.submitter.to_bytes(),
            "claims": None if self.claims is None else self.claims.to_bytes(),
            "context": None if self.facts is None else self.facts.to_bytes(),
            "collateral": case.collateral.to_bytes() if case.evidence.gpu_records() else None,
            "progress": None if case.known.progress is None else case.known.progress.to_bytes(),
            "event-log": None if self.event_log is case.known.event_log else self.event_log,
        }
        return {name: data for name, data in blobs.items() if data is not None}

    def digests(self, archive: Mapping[str, bytes]) -> dict[str, bytes]:
        """What a record of this judgement names: the archive, and what was archived before."""
        force, known = self.case.force, self.case.known
        kept = {} if known.ima is None else {"ima-policy": known.ima.digest}
        if known.event_log is not None and known.progress is not None and known.progress.log is not None:
            kept["event-log"] = known.progress.log
        kept |= {"policy": force.policy.digest, "references": force.references.digest}
        return kept | digests_of(archive)


@lru_cache(maxsize=4096)
def _key(spki: bytes) -> PublicKey:
    return PublicKey.from_spki(spki)


_NOT_YET: dict[str, Callable[[Intent], bool]] = {
    "intent.parent": lambda intent: intent.parent is not None,
    "intent.inputs": lambda intent: bool(intent.inputs),
}


def judge(case: Case, verifier: VerifierId) -> Judgement:
    """Judge ``case`` by the numbered steps of this module. Pure; never raises for what was sent."""
    # (1)
    try:
        if case.submitter is not None:
            case.signed_intent.verify(_key(case.submitter.spki))
    except InterlockError as error:
        return Judgement(case, _no_decision(case)).refuse(error.reason, error.detail)
    # (2)
    subject = Subject(
        case.intent,
        case.challenge,
        case.node,
        case.force.references,
        case.at,
        case.grant,
        case.force.policy.gpu,
        case.collateral,
        case.known.event_log,
        case.known.ima,
        case.known.progress,
    )
    followed = appraise_and_follow((case.evidence, case.signed_evidence), subject, verifier=verifier)
    claims = followed.claims
    # (3)
    facts = facts_from(
        claims,
        case.intent,
        case.submitter,
        kid=case.kid,
        node=case.node,
        usage=case.usage,
        at=case.at,
        action=case.action,
    )
    details = dict.fromkeys(_ABOUT_GPUS, _of_gpus(case)) | _details(claims)
    judged = Judgement(
        case,
        decide(facts, case.force.policy),
        claims,
        facts,
        details,
        progress=followed.progress,
        event_log=followed.event_log,
        jobs=followed.jobs,
    )
    for reason, asked in _NOT_YET.items():  # (4)
        if asked(case.intent):
            return judged.refuse(reason)
    judged = _with_secrets(judged, claims)
    force = case.force
    asked_now = is_still_asked(  # (5)
        case.challenge,
        case.node,
        settings=force.policy.settings,
        references=force.references,
        progress=case.known.progress,
    )
    return judged if asked_now else judged.refuse("challenge.outdated")


def _with_secrets(judged: Judgement, claims: Claims) -> Judgement:
    """The judgement, as a denial where an allowed request asks for a secret that it cannot have.

    Who is denied anyway is not told which secrets there are. A running job whose secret was taken away has time for a
    checkpoint.
    """
    case = judged.case
    if not judged.decision.allow:
        return judged
    for name in case.intent.secrets:
        kept = case.secrets.get(name)
        if kept is None:
            judged = judged.refuse("secret.unknown", f"no secret is called {name!r}", klass=DRAIN)
        elif kept.tenant != case.intent.tenant:
            judged = judged.refuse("secret.tenant", f"{name!r} is not kept for {case.intent.tenant!r}", klass=DRAIN)
    if case.intent.secrets and not is_enforced(claims.submods["tpm"]):
        judged = judged.refuse("secret.lease", f"the holder key of {case.node.name} signs without a lease")
    return judged


def _details(claims: Claims) -> dict[str, str]:
    """What each failed check saw, by its reason."""
    return {check.reason: check.detail or "" for check in claims.failures if check.reason is not None}


_ABOUT_GPUS = ("trust.binding", "policy.required.gpu")
"""Reasons that stand where GPUs are asked for and none were shown: no check has seen anything then."""


def _of_gpus(case: Case) -> str:
    """What is known where GPUs are wanted and none were shown: what the host says of them, which nothing proves."""
    if not case.intent.gpus.count or case.evidence.gpu_records():
        return ""
    record = case.evidence.collection.get(HOST)
    try:
        facts = {} if record is None else HostRecord.from_bytes(record.value).facts
    except InterlockError:
        facts = {}
    return f"no GPU was shown; the host says of its GPUs: {facts.get('gpus', 'nothing')}"


def _no_decision(case: Case) -> Decision:
    """The decision before anything was decided: a denial that waits for its reason."""
    policy = case.force.policy
    return Decision(
        allow=False,
        reasons=(),
        determining=(),
        unchecked=policy.settings.unchecked,
        denial=HARD,
        policy=policy.digest,
    )
