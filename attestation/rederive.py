"""Making a judgement again from what was archived: the same pure functions, the same inputs, hence the same bytes.

A record that names ``claims`` and ``context`` is of a judgement; all its inputs are archived under the names below.

============== =====================================================================================================
intent         the signed intent (a token); its signer's record is ``submitter``, where the signer was known
evidence       the signed evidence (a token)
challenge      the challenge that it answers, as it was issued
node           the node's record, with the TPM counters that were known when the challenge was issued
references     the reference values in force, ``policy`` the policy bundle in force
collateral     what others said about the devices in the evidence, as it was at hand; only where it has devices
progress       what was proven of the host when the challenge was issued; only where something was
event-log      the boot event log: the one that was kept, for evidence that sends none, or the one that it sent
ima-policy     the policy that the pool's IMA reference names; only where it has one
claims         what :func:`attestation.appraise.appraise` made of it, at the record's time
context        the facts that :func:`attestation.decision.decide` decided on, with the usage of that moment
============== =====================================================================================================
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeVar

from attestation.appraise import Subject, appraise
from attestation.asking import is_still_asked
from attestation.challenge import Challenge
from attestation.claims import Claims
from attestation.decision import Decision, Facts, decide, facts_from
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.evidence import read_evidence
from attestation.gpu.collateral import EMPTY, Collateral
from attestation.intent import read_intent, verify_intent
from attestation.keys import PublicKey
from attestation.log import Record
from attestation.node import NodeRecord, Submitter
from attestation.policy import Policy
from attestation.progress import HostProgress
from attestation.reference import ReferenceSet
from attestation.tpm.ima.policy import CompiledPolicy, ImaPolicy, compile_policy
from attestation.tpm.structures import Public

ACCEPTED = ("allow", "issued")

T = TypeVar("T")


class Archive:
    """The archived bytes of a job by SHA-256, and what they say. What is large is read once."""

    def __init__(self, blobs: Mapping[bytes, bytes]) -> None:
        self.blobs = blobs
        self.policy = self._reader("policy", Policy.from_bytes)
        self.references = self._reader("references", ReferenceSet.from_bytes)
        self.node = self._reader("node", NodeRecord.from_bytes)
        self.collateral = self._reader("collateral", Collateral.from_bytes)
        self._progress = self._reader("progress", HostProgress.from_bytes)
        self._policy = self._reader("ima-policy", lambda data: compile_policy(ImaPolicy.from_bytes(data)))

    def named(self, record: Record, name: str) -> bytes:
        """The bytes that a record calls ``name``. Raises ``Malformed("bundle.unnamed")`` where it names none."""
        data = self.blobs.get(record.digests.get(name, b""))
        if data is None:
            raise Malformed("bundle.unnamed", f"record {record.sequence} names no {name}")
        return data

    def progress(self, record: Record) -> HostProgress | None:
        """What was known of the host, where something was."""
        return self._progress(record) if "progress" in record.digests else None

    def event_log(self, record: Record) -> bytes | None:
        """The host's boot event log, where one was looked at."""
        return self.named(record, "event-log") if "event-log" in record.digests else None

    def ima_policy(self, record: Record) -> CompiledPolicy | None:
        """What files the host's kernel may have measured, where that was looked at."""
        return self._policy(record) if "ima-policy" in record.digests else None

    def holder(self, record: Record) -> PublicKey:
        """The holder key of the node that a record names."""
        return Public.from_bytes(self.node(record).holder_public).key

    def _reader(self, name: str, read: Callable[[bytes], T]) -> Callable[[Record], T]:
        remembered = lru_cache(maxsize=64)(read)
        return lambda record: remembered(self.named(record, name))


def is_judgement(record: Record) -> bool:
    """Whether a record is of a judgement that came as far as claims and facts."""
    return {"claims", "context"} <= record.digests.keys()


def verify_challenge(archive: Archive, record: Record) -> Challenge:
    """The archived challenge, if the evidence answers it, and what was accepted rests on what the policy asks for.

    Raises ``Untrusted("bundle.challenge")``. It comes before appraisal, which sees no more than the challenge asks for.
    """
    challenge = Challenge.from_bytes(archive.named(record, "challenge"))
    if challenge.nonce != read_evidence(archive.named(record, "evidence"))[0].nonce:
        raise Untrusted("bundle.challenge", f"record {record.sequence}: the evidence answers another challenge")
    asked = is_still_asked(
        challenge,
        archive.node(record),
        settings=archive.policy(record).settings,
        references=archive.references(record),
        progress=archive.progress(record),
    )
    if record.outcome in ACCEPTED and not asked:
        raise Untrusted(
            "bundle.challenge", f"record {record.sequence}: the policy asks for something else than was asked"
        )
    return challenge


def verify_claims(archive: Archive, record: Record) -> Claims:
    """The archived claims, if the evidence gives them again; else ``Untrusted("bundle.claims")``."""
    archived = archive.named(record, "claims")
    claims = Claims.from_bytes(archived)
    token = archive.named(record, "evidence")
    challenge, node = verify_challenge(archive, record), archive.node(record)
    intent = read_intent(archive.named(record, "intent"))[0]
    grant = record.job if record.kind == "lease" else None
    subject = Subject(
        intent=intent,
        challenge=challenge,
        node=node,
        references=archive.references(record),
        at=record.time,
        grant=grant,
        gpus=archive.policy(record).gpu,
        collateral=read_collateral(archive, record),
        event_log=archive.event_log(record),
        ima=archive.ima_policy(record),
        progress=archive.progress(record),
    )
    again = appraise(token, subject, verifier=claims.verifier)
    if again.to_bytes() != archived:
        parts = _differences(claims, again) or "the envelope"
        made = f"made by {claims.verifier.developer} {claims.verifier.build}"
        raise Untrusted("bundle.claims", f"record {record.sequence}, {made}, appraised again differs in {parts}")
    return claims


def read_collateral(archive: Archive, record: Record) -> Collateral:
    """The archived collateral, where the evidence has devices; they cannot be appraised again without.

    Raises ``Malformed("bundle.unnamed")`` where it is missing.
    """
    evidence, _ = read_evidence(archive.named(record, "evidence"))
    return archive.collateral(record) if evidence.gpu_records() else EMPTY


def _differences(one: Claims, other: Claims) -> str:
    """Where two claims differ: their submodules, and the checks in them."""
    names = sorted(one.submods.keys() | other.submods.keys())
    differ = [name for name in names if one.submods.get(name) != other.submods.get(name)]
    failed = [check.name for check in other.failures if check not in one.failures]
    return ", ".join([*differ, *(f"{name} fails" for name in failed)])


def verify_facts(archive: Archive, record: Record, claims: Claims) -> Facts:
    """The archived facts, if claims, intent, records and usage give them again; else ``Untrusted("bundle.facts")``."""
    archived = archive.named(record, "context")
    facts = Facts.from_bytes(archived)
    known = "submitter" in record.digests
    again = facts_from(
        claims,
        read_intent(archive.named(record, "intent"))[0],
        Submitter.from_bytes(archive.named(record, "submitter")) if known else None,
        kid=record.submitter or b"",
        node=archive.node(record),
        usage=facts.usage,
        at=record.time,
        action="renew" if record.kind == "lease" else "run",
    )
    if again.to_bytes() != archived:
        raise Untrusted("bundle.facts", f"record {record.sequence}: other facts than the ones that were decided on")
    return facts


def verify_decision(record: Record, decision: Decision) -> tuple[str, ...]:
    """The reasons of a record beyond those of ``decision``, if the two agree; else ``Untrusted("bundle.decision")``.

    A denial may have further reasons, which are facts of its moment: a grant that was revoked, an intent used before.
    """
    allowed = record.outcome in ACCEPTED
    further = tuple(sorted(set(record.reasons) - set(decision.reasons)))
    agree = set(decision.reasons) <= set(record.reasons) and allowed == (decision.allow and not further)
    if not agree or record.determining != (decision.determining if allowed or not decision.allow else ()):
        told = "allow" if decision.allow else ", ".join(decision.reasons)
        raise Untrusted("bundle.decision", f"record {record.sequence} says {record.outcome}, decided again: {told}")
    return further


def verify_refusal(archive: Archive, record: Record) -> None:
    """Check a denial that nothing was appraised for: the intent's signature fails, for the reason that it states.

    Raises ``Untrusted("bundle.decision")`` where it does not fail, or otherwise; what :func:`verify_challenge` raises.
    """
    verify_challenge(archive, record)
    submitter = Submitter.from_bytes(archive.named(record, "submitter"))
    try:
        verify_intent(archive.named(record, "intent"), PublicKey.from_spki(submitter.spki))
    except InterlockError as error:
        if error.reason in record.reasons:
            return
    raise Untrusted("bundle.decision", f"record {record.sequence}: nothing in the archive explains the denial")


def decide_again(archive: Archive, record: Record, policy: Policy | None = None) -> Decision:
    """The decision on a record's archived facts under the archived policy, or under another one."""
    return decide(Facts.from_bytes(archive.named(record, "context")), policy or archive.policy(record))
