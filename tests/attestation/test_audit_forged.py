"""Bundles that a forger with the verifier's own keys made: each is refused by the one check that looks at the thing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from attestation.bundle import Bundle, Consistency, Leaf, archived
from attestation.challenge import Challenge
from attestation.claims import Claims
from attestation.cose import ES256, RECEIPTS, SoftwareSigner
from attestation.decision import Facts
from attestation.evidence import read_evidence
from attestation.grant import Confirmation, holder_key
from attestation.intent import read_intent, sign_intent
from attestation.lease import Lease, read_lease, sign_lease
from attestation.log import Record
from attestation.node import NodeRecord, Submitter
from attestation.report import sign_report
from tests.attestation.forge import GENESIS, Forger, failing, forger, story

OTHER = SoftwareSigner.generate(ES256)
Change = Callable[[Forger], Any]


def finish(**changes: Callable[[Bundle], Any]) -> Change:
    """Change parts of the finished bundle."""

    def change(made: Forger) -> None:
        made.finish = lambda bundle: replace(bundle, **{name: value(bundle) for name, value in changes.items()})

    return change


def leaf(place: int, **changes: Any) -> Change:
    """Change one leaf of the finished bundle."""

    def leaves(bundle: Bundle) -> tuple[Leaf, ...]:
        found = list(bundle.leaves)
        made = {name: value(found[place]) if callable(value) else value for name, value in changes.items()}
        found[place] = replace(found[place], **made)
        return tuple(found)

    return finish(leaves=leaves)


def rerecorded(place: int, **changes: Any) -> Change:
    """Change a record of the finished bundle."""
    return leaf(place, record=lambda found: replace(Record.from_bytes(found.record), **changes).to_bytes())


def without(*places: int) -> Change:
    """Leave records out of the finished bundle."""
    return finish(leaves=lambda b: tuple(found for n, found in enumerate(b.leaves) if n not in places))


def rewritten(place: int, name: str, kind: Any, change: Callable[[Any], Any]) -> Change:
    """Replace an archived object by a changed one, and what the record names."""
    return lambda made: made.rename(place, name, change(kind.from_bytes(made.read(place, name))).to_bytes())


def set_(**changes: Any) -> Change:
    """Set what the forger signs with."""

    def change(made: Forger) -> None:
        for name, value in changes.items():
            setattr(made, name, value)

    return change


def backwards_in_both(made: Forger) -> None:
    made.order = lambda entries: entries[::-1]
    made.finish = lambda bundle: replace(bundle, leaves=bundle.leaves[::-1])


def other_submitter(made: Forger) -> None:
    record = Submitter.from_bytes(made.read(0, "submitter"))
    made.rename_all("submitter", replace(record, spki=OTHER.public.spki).to_bytes())


def intent_of_somebody_else(made: Forger) -> None:
    intent = read_intent(made.read(0, "intent"))[0]
    made.rename_all("intent", sign_intent(intent, OTHER))


def two_intents(made: Forger) -> None:
    intent = read_intent(made.read(0, "intent"))[0]
    made.rename(4, "intent", sign_intent(replace(intent, nonce=bytes(32)), story().person))


def evidence_twice(made: Forger) -> None:
    made.evidence(3, nonce=read_evidence(made.read(2, "evidence"))[0].nonce)


def allowed_twice(made: Forger) -> None:
    made.change(4, kind="decision", outcome="allow")


def deny_all(made: Forger) -> None:
    for place in range(5):
        made.change(place, outcome="deny")


def receipt_elsewhere(made: Forger) -> None:
    made.extra = [made.records[0].to_bytes()]
    made.receipt_from_the_end = True


def evidence_of_another_intent(made: Forger) -> None:
    evidence = made.evidence(0, intent=bytes(32))
    made.regrant(evidence=evidence.digest)


def more_time(made: Forger) -> None:
    assert made.grant is not None
    made.regrant(limits=replace(made.grant.limits, seconds=601))


def granted_without_the_workload(made: Forger) -> None:
    assert made.grant is not None
    made.regrant(submods={"tpm": made.grant.submods["tpm"]})


def without_workload(claims: Claims) -> Claims:
    return replace(claims, submods={"tpm": claims.submods["tpm"]})


def later_boot(node: NodeRecord) -> NodeRecord:
    assert node.clock is not None
    return replace(node, clock=replace(node.clock, resets=9))


def evidence_for_no_grant(made: Forger) -> None:
    made.release(2, evidence=made.evidence(3, grant=None).digest)


def allowed_without_claims(made: Forger) -> None:
    made.rename(0, "claims", None)
    made.rename(0, "context", None)


def reported(signer: Any = None, **changes: Any) -> Change:
    """Another report, signed."""
    return lambda made: made.rename(-1, "report", sign_report(made.report(**changes), signer or story().holder))


def first_lease_elsewhere(made: Forger) -> None:
    made.release(0, previous=b"\1" * 32)


def rewritten_log(made: Forger) -> None:
    """Receipts of a log with another first entry, which nobody who sees this bundle has seen."""
    made.before = lambda entries: [replace(Record.from_bytes(GENESIS), time=2).to_bytes(), *entries[1:]]


def two_logs(made: Forger) -> None:
    """Leases with receipts of one log, the grant with one of another log of the same size."""
    other = forger()
    rewritten_log(other)
    leases = Bundle.from_bytes(other.bundle()).leases
    finish(leases=lambda _: leases)(made)


def proof(**changes: Callable[[Consistency], Any]) -> Change:
    """Change the consistency proof."""
    return finish(
        consistency=lambda b: tuple(
            replace(found, **{name: value(found) for name, value in changes.items()}) for found in b.consistency
        )
    )


def asked(place: int = 0, **changes: Any) -> Change:
    """Another challenge in the archive."""
    return rewritten(place, "challenge", Challenge, lambda found: replace(found, **changes))


def later_lease(made: Forger) -> None:
    made.release(1, issued=made.leases[1].issued + 1, expires=made.leases[1].expires + 1)


def retimed(made: Forger, number: int = 1, **changes: Any) -> None:
    """A lease that has the TPM enforce something else."""
    honest = made.leases[number].tpm
    assert honest is not None
    made.release(number, tpm=replace(honest, **changes))


def approved(bundle: Bundle) -> bytes:
    """The first lease with what only its TPM needs."""
    signed = read_lease(bundle.leases[0], story().keys.grant.public)
    receipts: Any = signed.unprotected[RECEIPTS]
    return sign_lease(Lease.from_bytes(signed.payload), story().keys.grant, tuple(receipts), bytes(64))


def denied_unasked(made: Forger) -> None:
    """The last lease was denied, and the archived challenge is another one."""
    made.change(4, outcome="deny", reasons=("grant.revoked",), determining=())
    made.rename(4, "lease", None)
    made.leases.pop()
    asked(4, nonce=bytes(32))(made)


def two_reports(made: Forger) -> None:
    made.records.append(made.records[-1].numbered(len(made.records)))


def report_without_grant(made: Forger) -> None:
    data = made.read(-1, "report")
    made.__dict__.update(vars(forger(story().refused)))
    made.records.append(replace(made.records[0], kind="report", outcome="ended", reasons=()).numbered(1))
    made.rename(1, "report", data)


Table = Mapping[tuple[str, str], Mapping[str, Change]]
"""By the check that must fail and its reason: what was changed, and how."""


def rows(table: Table) -> list[Any]:
    return [
        pytest.param(name, reason, change, id=f"{name}: {title}")
        for (name, reason), changes in table.items()
        for title, change in changes.items()
    ]


FORGED: Table = {
    ("records", "cbor.syntax"): {
        "no record": leaf(0, record=b"\xff"),
    },
    ("records", "bundle.job"): {
        "record of another job": rerecorded(0, job=bytes(16)),
        "bundle of another job": finish(job=lambda _: bytes(16)),
        "record of no job": rerecorded(0, job=None, sequence=None, count=None),
    },
    ("inclusion", "merkle.inclusion"): {
        "record altered": rerecorded(2, time=1),
        "another index": leaf(2, index=2),
    },
    ("inclusion", "merkle.index"): {
        "index beyond the log": leaf(2, index=8),
    },
    ("inclusion", "merkle.path"): {
        "path cut": leaf(2, path=lambda x: x.path[:-1]),
    },
    ("inclusion", "merkle.hash"): {
        "path with a short hash": leaf(2, path=lambda x: (*x.path[:-1], b"")),
    },
    ("sequence", "bundle.missing"): {
        "a record left out": without(2),
        "the decision left out": without(0),
        "a very great number": lambda made: made.change(5, sequence=2**62, count=2**62 + 1),
    },
    ("sequence", "bundle.sequence"): {
        "a record twice": finish(leaves=lambda b: (*b.leaves, b.leaves[-1])),
        "backwards": finish(leaves=lambda b: b.leaves[::-1]),
        "a bundle in the order of a log in another order": backwards_in_both,
        "a log in another order": set_(order=lambda entries: entries[::-1]),
    },
    ("archive", "bundle.archive"): {
        "a piece removed": finish(archive=lambda b: b.archive[1:]),
        "a piece added": finish(archive=lambda b: archived((*b.archive, b"more"))),
        "a piece exchanged": finish(archive=lambda b: archived((*b.archive[1:], b"other"))),
    },
    ("intent", "bundle.submitter"): {
        "submitter with another key": other_submitter,
    },
    ("intent", "cose.kid"): {
        "intent signed by somebody else": intent_of_somebody_else,
    },
    ("intent", "bundle.intent"): {
        "two intents": two_intents,
    },
    ("intent", "cbor.syntax"): {
        "no submitter": lambda made: made.rename_all("submitter", b"\xff"),
    },
    ("evidence", "cbor.syntax"): {
        "no challenge": lambda made: made.rename(3, "challenge", b"\xff"),
    },
    ("evidence", "cose.kid"): {
        "evidence of another host": lambda made: made.evidence(3, signer=OTHER),
    },
    ("evidence", "bundle.nonce"): {
        "one challenge answered twice": evidence_twice,
    },
    ("evidence", "bundle.unnamed"): {
        "a lease for no evidence": lambda made: made.rename(3, "evidence", None),
        "a lease for no node": lambda made: made.rename(3, "node", None),
    },
    ("grant", "bundle.grant"): {
        "no grant": finish(grant=lambda _: None),
        "grant of a denied request": deny_all,
        "two decisions": allowed_twice,
        "another grant decided on": lambda made: made.rename(0, "grant", b"another grant"),
        "grant of another job": lambda made: made.regrant(id=bytes(16)),
    },
    ("grant", "cose.kid"): {
        "grant signed by somebody else": set_(grant_key=OTHER),
    },
    ("grant", "cose.typ"): {
        "a lease for a grant": finish(grant=lambda b: b.leases[0]),
    },
    ("receipt", "grant.receipt"): {
        "no receipt": set_(receipts=lambda _: ()),
        "two receipts": set_(receipts=lambda r: r * 2),
    },
    ("receipt", "cose.signature"): {
        "the report's receipt for another record": leaf(
            -1, receipt=lambda _: Bundle.from_bytes(story().refused).leaves[0].receipt
        ),
    },
    ("receipt", "cbor.syntax"): {
        "the report's receipt is broken": leaf(-1, receipt=b"\xff"),
        "a broken receipt": set_(receipts=lambda _: (b"\xff",)),
    },
    ("receipt", "bundle.receipt"): {
        "receipt for another entry": receipt_elsewhere,
        "no receipt for the report": leaf(-1, receipt=None),
        "a receipt beside a grant that has one": leaf(0, receipt=b"more"),
        "a receipt beside a lease that has one": leaf(1, receipt=b"more"),
    },
    ("agreement", "bundle.agreement"): {
        "intent": lambda made: made.regrant(intent=bytes(32)),
        "intent of the evidence": evidence_of_another_intent,
        "job": lambda made: made.regrant(job="another"),
        "policy": lambda made: made.regrant(policy=bytes(32)),
        "references": lambda made: made.regrant(references=bytes(32)),
        "evidence": lambda made: made.regrant(evidence=bytes(32)),
        "challenge": lambda made: made.regrant(nonce=bytes(32)),
        "node of the grant": lambda made: made.regrant(node="another"),
        "node of the record": lambda made: made.change(0, node="another"),
        "node of the archive": rewritten(0, "node", NodeRecord, lambda n: replace(n, name="another")),
        "holder key": lambda made: made.regrant(confirmation=Confirmation(key=holder_key(OTHER.public))),
        "time": lambda made: made.regrant(issued=1),
        "limits": more_time,
        "secrets": lambda made: made.regrant(secrets=("weights",)),
        "issuer": lambda made: made.regrant(issuer="another"),
        "audience of the challenge": asked(audience="another"),
        "no challenge": lambda made: made.rename(0, "challenge", None),
    },
    ("leases", "bundle.leases"): {
        "a lease left out": finish(leases=lambda b: b.leases[:-1]),
        "a lease too many": finish(leases=lambda b: (*b.leases, b.leases[-1])),
        "lease for other evidence": lambda made: made.release(1, evidence=bytes(32)),
        "lease that counts from later": later_lease,
        "lease for a challenge issued at another time": asked(3, issued=1),
        "lease without a challenge": lambda made: made.rename(3, "challenge", None),
        "another lease recorded": lambda made: made.rename(2, "lease", b"another"),
    },
    ("leases", "lease.duration"): {
        "lease that ends later": lambda made: made.release(1, expires=made.leases[1].expires + 1),
    },
    ("leases", "lease.sequence"): {
        "leases backwards": finish(leases=lambda b: b.leases[::-1]),
    },
    ("leases", "lease.grant"): {
        "lease of another grant": lambda made: made.release(1, grant=bytes(16)),
    },
    ("leases", "lease.nonce"): {
        "lease for another challenge": lambda made: made.release(1, nonce=bytes(32)),
    },
    ("leases", "lease.chain"): {
        "lease after another one": lambda made: made.release(2, previous=bytes(32)),
        "the first lease after one": first_lease_elsewhere,
    },
    ("leases", "cose.kid"): {
        "leases signed by somebody else": set_(lease_key=OTHER),
    },
    ("leases", "lease.tpm"): {
        "a policy signature in the bundle": finish(leases=lambda b: (approved(b), *b.leases[1:])),
    },
    ("leases", "grant.receipt"): {
        "leases without receipts": set_(lease_receipts=lambda _: ()),
    },
    ("leases", "merkle.consistency"): {
        "two trees of one size": two_logs,
    },
    ("consistency", "bundle.consistency"): {
        "no proof": finish(consistency=lambda _: ()),
        "a proof for another size": proof(size=lambda c: c.size - 1),
        "a proof that no receipt asks for": finish(
            consistency=lambda b: (*b.consistency, Consistency(size=b.consistency[0].size + 1, path=()))
        ),
    },
    ("consistency", "merkle.consistency"): {
        "a forged proof": proof(path=lambda c: (bytes(32), *c.path[1:])),
        "the log was rewritten after the receipts": rewritten_log,
    },
    ("consistency", "merkle.path"): {
        "a proof cut short": proof(path=lambda c: c.path[:-1]),
        "an empty proof": proof(path=lambda _: ()),
    },
    ("consistency", "merkle.hash"): {
        "a proof with a short hash": proof(path=lambda c: (b"", *c.path[1:])),
    },
    ("consistency", "merkle.size"): {
        "receipts of a longer log": set_(before=lambda entries: [*entries, GENESIS, GENESIS]),
    },
    ("report", "report.second"): {
        "two reports": two_reports,
        "report of a denied request": report_without_grant,
    },
    ("report", "cose.kid"): {
        "report of another host": reported(OTHER),
    },
    ("report", "report.grant"): {
        "report about another grant": reported(grant=bytes(16)),
    },
    ("jobs", "bundle.workload"): {
        "report that gives the job another place": reported(entry=9),
    },
    ("report", "bundle.code"): {
        "other code ran": reported(code=bytes(32)),
    },
    ("report", "bundle.unnamed"): {
        "report that names none": lambda made: made.rename(-1, "report", None),
    },
    ("appraisal", "bundle.challenge"): {
        "a challenge for fewer PCRs": asked(3, pcrs=(0, 1)),
        "a challenge for another bank": asked(3, bank=0x000C),
        "the evidence of a denial answers another challenge": denied_unasked,
    },
    ("appraisal", "bundle.claims"): {
        "better claims": rewritten(3, "claims", Claims, lambda c: replace(c, assurance="hardware")),
        "claims without the workload": rewritten(
            0, "claims", Claims, lambda c: replace(c, submods={"tpm": c.submods["tpm"]})
        ),
        "counters that went back": rewritten(
            3, "node", NodeRecord, lambda n: replace(n, clock=replace(n.clock, resets=9))
        ),
        "another firmware": rewritten(3, "node", NodeRecord, lambda n: replace(n, firmware=1)),
        "another time": lambda made: made.change(3, time=made.records[3].time + 1),
        "evidence for no grant": evidence_for_no_grant,
    },
    ("appraisal", "bundle.agreement"): {
        "a grant of better assurance": lambda made: made.regrant(assurance="hardware"),
        "a grant whose leases no TPM enforces": lambda made: made.regrant(tpm_lease=False),
        "a grant of a higher binding level": lambda made: made.regrant(binding="L4"),
        "a grant that leaves nothing unchecked": lambda made: made.regrant(unchecked=()),
        "a grant without the workload": granted_without_the_workload,
    },
    ("appraisal", "bundle.leases"): {
        "the TPM holds the lease longer": lambda made: retimed(made, until=1 << 40),
        "the TPM holds the lease for ever": lambda made: made.release(1, tpm=None),
        "the TPM of another boot holds it": lambda made: retimed(made, resets=2),
        "the TPM after a restart holds it": lambda made: retimed(made, restarts=2),
        "the TPM holds other PCR values": lambda made: retimed(made, pcr_digest=bytes(32)),
        "the TPM holds fewer PCRs": lambda made: retimed(made, pcrs=()),
        "the TPM holds another bank": lambda made: retimed(made, bank=0x000C),
        "the TPM holds the first lease longer": lambda made: retimed(made, 0, until=1 << 40),
    },
    ("decision", "bundle.facts"): {
        "other facts": rewritten(0, "context", Facts, lambda f: replace(f, roles=("admin",))),
        "facts of another action": rewritten(3, "context", Facts, lambda f: replace(f, action="run")),
        "facts about nobody": lambda made: made.rename(3, "submitter", None),
    },
    ("decision", "bundle.decision"): {
        "another policy decided": lambda made: made.change(0, determining=("another",)),
        "allowed with a reason": lambda made: made.change(0, reasons=("x.y",)),
        "allowed without claims": allowed_without_claims,
    },
}


@pytest.mark.parametrize(("name", "reason", "change"), rows(FORGED))
def test_a_forger_with_the_keys_is_found(name: str, reason: str, change: Change) -> None:
    made = forger()
    change(made)
    failed = failing(made.bundle())
    assert (failed.name, failed.reason) == (name, reason), failed.detail


DENIED: Table = {
    ("receipt", "bundle.receipt"): {
        "no receipt": leaf(0, receipt=None),
    },
    ("consistency", "bundle.consistency"): {
        "no proof": finish(consistency=lambda _: ()),
    },
    ("consistency", "merkle.consistency"): {
        "the log was rewritten after the denial": rewritten_log,
    },
    ("grant", "bundle.grant"): {
        "allowed in spite of it": lambda made: made.change(0, outcome="allow"),
    },
    ("appraisal", "bundle.challenge"): {
        "another challenge": asked(nonce=bytes(32)),
    },
    ("decision", "bundle.decision"): {
        "for another reason": lambda made: made.change(0, reasons=("authz.role",)),
        "for no reason": lambda made: made.change(0, reasons=()),
        "by a policy": lambda made: made.change(0, determining=("another",)),
        "without facts": lambda made: made.rename(0, "context", None),
    },
}


@pytest.mark.parametrize(("name", "reason", "change"), rows(DENIED))
def test_a_forged_denial_is_found(name: str, reason: str, change: Change) -> None:
    made = forger(story().refused)
    change(made)
    failed = failing(made.bundle())
    assert (failed.name, failed.reason) == (name, reason), failed.detail


def test_a_denial_by_another_policy_is_found() -> None:
    for determining in ((), ("another",)):
        made = forger(story().roleless)
        assert made.records[0].determining
        made.change(0, determining=determining)
        assert failing(made.bundle()).reason == "bundle.decision"


def test_a_denial_for_a_signature_that_is_good_is_found() -> None:
    made = forger(story().unsigned)
    intent = read_intent(made.read(0, "intent"))[0]
    made.rename(0, "intent", sign_intent(intent, story().person))
    assert (failing(made.bundle()).name, failing(made.bundle()).reason) == ("decision", "bundle.decision")


def test_a_denial_for_another_reason_than_its_signature_is_found() -> None:
    made = forger(story().unsigned)
    made.change(0, reasons=("authz.role",))
    assert failing(made.bundle()).reason == "bundle.decision"


def test_a_denial_for_a_signature_whose_evidence_answers_another_challenge_is_found() -> None:
    made = forger(story().unsigned)
    asked(nonce=bytes(32))(made)
    assert (failing(made.bundle()).name, failing(made.bundle()).reason) == ("decision", "bundle.challenge")
