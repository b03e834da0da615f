"""Audit: is a bundle true? With the two pinned keys, without network, account or clock.

The checks, in order. The first one that fails ends the audit: what is behind it rests on it, and is *not run*. A check
that has nothing to look at (a denied request has no grant) says so, and passes.

 1. parse: the file is a bundle, in its one encoding, with at least one record.
 2. checkpoint: the pinned log key has signed the checkpoint.
 3. records: each record is one, and belongs to this job.
 4. inclusion: each record is in the log of that checkpoint, where the bundle says.
 5. sequence: they are numbered from 0 without a gap, in the order of the log, and as many as the last one counts.
 6. archive: every digest that a record names is that of bytes in the archive, and the archive holds nothing else.
 7. intent: the submitter whom the record names has signed the intent.
 8. evidence: the holder key of the node has signed each evidence that was accepted; no two answer one challenge.
 9. grant: the pinned grant key has signed the grant that the decision names; a denied request has none.
10. receipt: the log has promised that decision in the grant, and beside it each record that issued nothing.
11. agreement: grant, decision, intent and evidence name the same intent, policy, references, node, keys, secrets
    and challenge.
12. leases: signed, in the log, each following the one before, each for evidence that answers its challenge, and each
    counted from the moment that this challenge was issued.
13. consistency: each tree that a receipt speaks of is a prefix of the checkpoint's: the log was not rewritten since.
14. report: the holder key has signed the report, about this grant and the code that was granted.
15. appraisal: each evidence answers its archived challenge, which asked for the PCRs and logs that policy, references
    and progress ask for; appraised again, with the archived event log, progress and IMA policy, it gives the archived
    claims, byte for byte. The grant states these and nothing better, and no lease is for GPUs or
    switches that the grant is not for. A lease has the TPM enforce what its evidence proved: PCRs, boot, time.
16. decision: decided again, the claims give the archived facts, and the outcome that the record states. (A request
    that was denied before it was appraised was denied because its intent is not signed by who it names.)
17. jobs: what the accepted evidence shows of the jobs of a boot is one sequence; the report names this job's place.

Not checked, because it cannot be offline: that a challenge was drawn at random and redeemed once; facts of the moment
(what else ran, that a grant was revoked or an intent used before), which a denial may rest on and which are listed;
what was proven of the host before this job or by another of its jobs, which it need not show again (the progress that a
record names is taken as archived); the EK certificate behind the node's keys, which enrolment checked and the node's
record names; whether the job went on after the last record, where that is no report; and whether the checkpoint is the
newest one, or the one that others were shown (whoever keeps another one, or a receipt, can ask the log for
consistency).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attestation import grant as grants
from attestation import merkle, rederive
from attestation.audited import Audited, Nothing
from attestation.bundle import Bundle, Root
from attestation.challenge import Challenge
from attestation.cose import RECEIPTS, Header, verify_sign1
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.evidence import MAX_SIZE as MAX_EVIDENCE
from attestation.evidence import TYP as EVIDENCE
from attestation.evidence import Evidence
from attestation.grant import Grant, holder_key
from attestation.intent import verify_intent
from attestation.keys import PublicKey
from attestation.lease import Lease, read_lease, verify_lease
from attestation.log import Checkpoint, Note, Promise, Record, leaf_hash, verify_checkpoint, verify_receipt
from attestation.node import Submitter
from attestation.rederive import ACCEPTED, Archive
from attestation.report import verify_report
from attestation.sequence import verify_sequence
from attestation.stated import verify_grant_stated, verify_lease_stated

PASS, FAIL, NOT_RUN, NOTHING = "pass", "fail", "not run", "n/a"
_ISSUING = ("decision", "lease")


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check: its outcome, the reason code of a failure, and what was seen."""

    number: int
    name: str
    outcome: str
    detail: str
    meaning: str
    reason: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the bundle here; a check that was not run speaks for nothing."""
        return self.outcome in (PASS, NOTHING)


def verify_bundle(data: bytes, root: Root) -> list[Check]:
    """All numbered checks of the bundle with these bytes, in order. Never raises for what is in the bundle."""
    audit, checks, failed = Audited(data, root), list[Check](), False
    for number, (name, step, meaning) in enumerate(_STEPS, 1):
        if failed:
            checks.append(Check(number, name, NOT_RUN, "", meaning))
            continue
        try:
            detail = step(audit)
        except InterlockError as error:
            failed = True
            checks.append(Check(number, name, FAIL, error.detail, meaning, error.reason))
        else:
            checks.append(Check(number, name, NOTHING if isinstance(detail, Nothing) else PASS, detail, meaning))
    return checks


def _parse(audit: Audited) -> str:
    audit.bundle = Bundle.from_bytes(audit.data)
    return f"job {audit.bundle.job.hex()}, {len(audit.data)} bytes"


def _checkpoint(audit: Audited) -> str:
    note = audit.bundle.checkpoint
    origin = Checkpoint.from_bytes(Note.from_bytes(note).text.encode()).origin
    audit.checkpoint = verify_checkpoint(note, audit.root.log, origin)
    return f"log {origin}, {audit.checkpoint.size} entries"


def _records(audit: Audited) -> str:
    audit.records = [Record.from_bytes(leaf.record) for leaf in audit.bundle.leaves]
    for record in audit.records:
        if record.job != audit.bundle.job:
            raise Untrusted("bundle.job", "a record is about another job than the bundle")
    return f"{len(audit.records)} records"


def _inclusion(audit: Audited) -> str:
    size, root = audit.checkpoint.size, audit.checkpoint.root
    for number, leaf in enumerate(audit.bundle.leaves):
        try:
            merkle.verify_inclusion(leaf_hash(leaf.record), leaf.index, size, leaf.path, root)
        except InterlockError as error:
            raise Untrusted(error.reason, f"record {number}: {error.detail}") from error
    return f"{len(audit.records)} of {len(audit.records)} records are in the log"


def _sequence(audit: Audited) -> str:
    numbers = [record.sequence or 0 for record in audit.records]
    total = max(numbers) + 1
    missing = sorted(set(range(min(total, len(numbers)))) - set(numbers))
    if total > len(set(numbers)):
        raise Untrusted("bundle.missing", f"missing {total - len(set(numbers))} of {total}; the first is {missing[0]}")
    indexes = [leaf.index for leaf in audit.bundle.leaves]
    if numbers != sorted(set(numbers)) or indexes != sorted(set(indexes)):
        raise Untrusted("bundle.sequence", "the records are not in the order of the log, each once")
    last = audit.records[-1]
    return f"{total} without a gap; the last is {last.kind}: {last.outcome}"


def _archive(audit: Audited) -> str:
    audit.archive = Archive(audit.bundle.blobs())
    named = {digest: name for record in audit.records for name, digest in record.digests.items()}
    missing = sorted(name for digest, name in named.items() if digest not in audit.archive.blobs)
    if missing:
        raise Untrusted("bundle.archive", f"not there, or altered: {', '.join(sorted(set(missing)))}")
    if len(named) != len(audit.archive.blobs):
        raise Untrusted("bundle.archive", f"{len(audit.archive.blobs) - len(named)} pieces that no record names")
    return f"{len(named)} pieces"


def _intent(audit: Audited) -> str:
    believed = [r for r in audit.records if {"intent", "submitter", "claims"} <= r.digests.keys()]
    for record in believed:
        submitter = Submitter.from_bytes(audit.archive.named(record, "submitter"))
        key = PublicKey.from_spki(submitter.spki)
        if key.kid != record.submitter:
            raise Untrusted("bundle.submitter", "the archived submitter has another key than the record names")
        audit.intent = verify_intent(audit.archive.named(record, "intent"), key)
    if len({record.digests["intent"] for record in believed}) > 1:
        raise Untrusted("bundle.intent", "the records of one job are about more than one intent")
    return "signed by the submitter that the records name" if believed else Nothing("no known submitter")


def _evidence(audit: Audited) -> str:
    seen: dict[bytes, bytes] = {}
    asked = (audit.archive.named(record, "challenge") for record in audit.records if "challenge" in record.digests)
    audit.challenges = {challenge.nonce: challenge for challenge in map(Challenge.from_bytes, asked)}
    for _, record in (*audit.accepted("decision"), *audit.accepted("lease")):
        token = audit.archive.named(record, "evidence")
        if token in seen.values():
            continue
        signed = verify_sign1(token, audit.archive.holder(record), typ=EVIDENCE, max_size=MAX_EVIDENCE)
        nonce = Evidence.from_bytes(signed.payload).nonce
        if nonce in seen:
            raise Untrusted("bundle.nonce", "two pieces of evidence answer one challenge")
        seen[nonce] = token
    return f"{len(seen)} pieces, each for its own challenge" if seen else Nothing("no evidence was accepted")


def _grant(audit: Audited) -> str:
    token, granting = audit.bundle.grant, audit.granting
    if token is None or granting is None:
        if token is not None or granting is not None or audit.bundle.leases:
            raise Untrusted("bundle.grant", "grant or leases without a decision that allows, or the other way round")
        return Nothing("no grant: the request was denied")
    signed = verify_sign1(
        token, audit.root.grant, typ=grants.TYP, max_size=grants.MAX_SIZE, unprotected=frozenset({RECEIPTS})
    )
    grant = Grant.from_bytes(signed.payload)
    if grant.id != audit.bundle.job or grant.digest != granting[1].digests.get("grant"):
        raise Untrusted("bundle.grant", "the grant is not the one that the decision names")
    audit.grant, audit.receipts = grant, signed.unprotected
    return f"issued by {grant.issuer} to {grant.node}, assurance {grant.assurance}, binding {grant.binding}"


def _receipt(audit: Audited) -> str:
    for place, (leaf, record) in enumerate(zip(audit.bundle.leaves, audit.records, strict=True)):
        carried = record.kind in _ISSUING and record.outcome in ACCEPTED
        if carried == (leaf.receipt is not None):
            raise Malformed("bundle.receipt", f"record {place} has its receipt in what it issued, or beside it")
        if leaf.receipt is not None:
            _verify_receipt(audit, leaf.receipt, place)
    if audit.granting is None:
        return f"{len(audit.records)} records, each with its receipt"
    promise = _verify_receipt(audit, _only_receipt(audit.receipts), audit.granting[0])
    return f"entry {promise.entry} of a log of {promise.size}"


def _only_receipt(header: Header) -> bytes:
    """The one receipt in the unprotected header of a grant or lease."""
    match header.get(RECEIPTS):
        case [bytes(receipt)]:
            return receipt
        case _:
            raise Malformed("grant.receipt", "a grant or lease carries exactly one receipt")


def _verify_receipt(audit: Audited, receipt: bytes, place: int) -> Promise:
    """What a receipt for the record at a place in the bundle says; its tree is remembered for the consistency check."""
    leaf = audit.bundle.leaves[place]
    promise = verify_receipt(receipt, leaf_hash(leaf.record), audit.root.log)
    if promise.entry != leaf.index:
        raise Untrusted("bundle.receipt", f"the receipt is for entry {promise.entry}, the record is entry {leaf.index}")
    if audit.trees.setdefault(promise.size, promise.root) != promise.root:
        raise Untrusted("merkle.consistency", f"the log has signed two trees of {promise.size} entries")
    return promise


def _agreement(audit: Audited) -> str:
    if audit.grant is None or audit.granting is None:
        return Nothing("no grant: the request was denied")
    grant, record = audit.grant, audit.granting[1]
    evidence = audit.evidence(record)
    asked = audit.challenges.get(evidence.nonce)
    pairs = {
        "intent": (grant.intent, audit.intent.digest),
        "intent of the evidence": (evidence.intent, audit.intent.digest),
        "job": (grant.job, audit.intent.job),
        "policy": (grant.policy, record.digests.get("policy")),
        "references": (grant.references, record.digests.get("references")),
        "evidence": (grant.evidence, evidence.digest),
        "challenge": (grant.nonce, evidence.nonce),
        "issuer": (grant.issuer, asked and asked.audience),
        "node": (grant.node, record.node),
        "node of the archive": (grant.node, audit.archive.node(record).name),
        "holder key": (grant.confirmation.key, holder_key(audit.archive.holder(record))),
        "time": (grant.issued, record.time),
        "limits": (grant.limits.within(audit.intent.limits), True),
        "secrets": (grant.secrets, audit.intent.secrets),
    }
    wrong = [name for name, (one, other) in pairs.items() if one != other]
    if wrong:
        raise Untrusted("bundle.agreement", f"grant and record do not agree on: {', '.join(wrong)}")
    return f"on {len(pairs)} points"


def _leases(audit: Audited) -> str:
    issued = list(audit.accepted("lease"))
    if len(issued) != len(audit.bundle.leases):
        raise Untrusted("bundle.leases", f"{len(audit.bundle.leases)} leases, the records name {len(issued)}")
    previous: Lease | None = None
    for token, (place, record) in zip(audit.bundle.leases, issued, strict=True):
        evidence = audit.evidence(record)
        previous = verify_lease(
            token, key=audit.root.grant, grant=audit.bundle.job, previous=previous, nonce=evidence.nonce, archived=True
        )
        if previous.digest != record.digests.get("lease") or previous.evidence != evidence.digest:
            raise Untrusted("bundle.leases", f"lease {previous.sequence} is not the one that its record names")
        asked = audit.challenges.get(evidence.nonce)
        if asked is None or previous.issued != asked.issued:
            raise Untrusted("bundle.leases", f"lease {previous.sequence} does not count from its challenge")
        _verify_receipt(audit, _only_receipt(read_lease(token, audit.root.grant).unprotected), place)
        audit.leases[record.sequence] = previous
    return f"{len(issued)} leases, each follows the one before" if issued else Nothing("no lease: nothing ran")


def _consistency(audit: Audited) -> str:
    last, proofs = audit.checkpoint, {proof.size: proof.path for proof in audit.bundle.consistency}
    differ = sorted(audit.trees.keys() ^ proofs.keys())
    if differ:
        told = "no proof for a tree" if differ[0] in audit.trees else "no receipt for a proof"
        raise Untrusted("bundle.consistency", f"{told} of {differ[0]} entries")
    for size, path in proofs.items():
        merkle.verify_consistency(size, last.size, audit.trees[size], last.root, path)
    return f"the trees of all receipts ({len(proofs)}) are prefixes of the checkpoint's"


def _report(audit: Audited) -> str:
    reports = [record for record in audit.records if record.kind == "report"]
    if not reports:
        return Nothing("no report yet" if audit.grant else "no report: the request was denied")
    if len(reports) > 1 or audit.granting is None:
        raise Untrusted("report.second", f"{len(reports)} reports about one grant")
    holder = audit.archive.holder(audit.granting[1])
    report = verify_report(audit.archive.named(reports[0], "report"), holder=holder, grant=audit.bundle.job)
    if report.code != audit.intent.code:
        raise Untrusted("bundle.code", "the code that ran is not the code of the intent")
    return f"exit {report.exit_code}, {len(report.outputs)} outputs, {len(report.halts)} halts"


def _appraisal(audit: Audited) -> str:
    judged = [record for record in audit.records if rederive.is_judgement(record)]
    audit.claims = {record.sequence: rederive.verify_claims(audit.archive, record) for record in judged}
    _stated(audit)
    return f"{len(judged)} times the same claims" if judged else Nothing("no evidence was appraised")


def _stated(audit: Audited) -> None:
    """Check that the grant states the claims that it was decided on, and that the leases are for its devices."""
    if audit.grant is None or audit.granting is None:
        return
    decision = audit.granting[1]
    decided = audit.claims.get(decision.sequence)
    if decided is not None:
        verify_grant_stated(audit.grant, decided, audit.archive.policy(decision).settings.unchecked)
    for _, record in audit.accepted("lease"):
        claims = audit.claims.get(record.sequence, decided)  # the first lease is for the claims of the decision
        if claims is not None:
            verify_lease_stated(audit.leases[record.sequence], claims, audit.grant, at=record.time)


def _decision(audit: Audited) -> str:
    further: set[str] = set()
    for record in audit.records:
        if record.sequence in audit.claims:
            rederive.verify_facts(audit.archive, record, audit.claims[record.sequence])
            further |= {*rederive.verify_decision(record, rederive.decide_again(audit.archive, record))}
        elif record.outcome == "deny":
            rederive.verify_refusal(audit.archive, record)
    unjudged = [record for _, record in audit.accepted("decision") if record.sequence not in audit.claims]
    if unjudged:
        raise Untrusted("bundle.decision", "a decision that allows has no claims to be derived from")
    moment = f"; facts of the moment: {', '.join(sorted(further))}" if further else ""
    return f"{len(audit.claims)} times the same outcome{moment}"


_STEPS: Sequence[tuple[str, Callable[[Audited], str], str]] = (
    ("parse", _parse, "The file is no bundle, was cut short, or was altered."),
    ("checkpoint", _checkpoint, "The pinned log did not sign this state of the log."),
    ("records", _records, "A record is not one of this job."),
    ("inclusion", _inclusion, "A record was altered, or was never in the log."),
    ("sequence", _sequence, "Records of this job were left out or put in another order."),
    ("archive", _archive, "What the records rest on was altered, removed or exchanged."),
    ("intent", _intent, "Nobody proves to have asked for this run."),
    ("evidence", _evidence, "The host did not make the evidence that was accepted."),
    ("grant", _grant, "The pinned verifier did not sign this grant, or not for this decision."),
    ("receipt", _receipt, "The decision was not in the log when the grant was signed."),
    ("agreement", _agreement, "The grant permits something else than was decided on."),
    ("leases", _leases, "The job was not held by an unbroken chain of leases."),
    ("consistency", _consistency, "The log was rewritten after it had promised a record of this job."),
    ("report", _report, "The end of the run is not proven by the host."),
    ("appraisal", _appraisal, "The evidence does not say what the verifier claimed."),
    ("decision", _decision, "The verifier decided otherwise than its policy says."),
    ("jobs", verify_sequence, "The host showed other jobs of its boot in one evidence than in another."),
)
