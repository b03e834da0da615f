"""attestation.grant, .lease and .report: what the agent, the deadman and the verifier refuse."""

from dataclasses import replace
from typing import Any

import pytest

from attestation.cose import EDDSA, RECEIPTS, SoftwareSigner, sign1
from attestation.errors import InterlockError, Malformed
from attestation.grant import TYP, Asked, Grant, sign_grant, verify_grant
from attestation.lease import TPM_POLICY, Lease, approval_of, read_lease, sign_lease, verify_lease
from attestation.lease import TYP as LEASE_TYP
from attestation.log import Record, leaf_hash, make_receipt
from attestation.merkle import node_hash
from attestation.report import sign_report, verify_report
from tests.attestation.examples import ENFORCED, GRANT, HOLDER, ID, INTENT, LEASE, NODE, REPORT, VERIFIER, digest

LOG = SoftwareSigner.generate(EDDSA)
OTHER = SoftwareSigner.generate(VERIFIER.public.alg)
SIBLING = digest("the genesis record")


def _record(grant: Grant, **changes: Any) -> Record:
    record = Record(
        kind="decision",
        time=grant.issued,
        job=grant.id,
        sequence=0,
        count=1,
        outcome="allow",
        digests={"grant": grant.digest},
    )
    return replace(record, **changes)


def _receipt(record: bytes, signer: SoftwareSigner = LOG) -> bytes:
    leaf = leaf_hash(record)
    return make_receipt(signer, root=node_hash(SIBLING, leaf), size=2, index=1, path=[SIBLING])


ASKED = Asked(issuer=GRANT.issuer, node=NODE.name, intent=INTENT, holder=HOLDER.public, nonce=GRANT.nonce, elapsed=0.5)


class Answer:
    """An answer of the verifier that can be spoilt in one place."""

    def __init__(self, **changes: Any) -> None:
        self.grant = replace(GRANT, **changes)
        self.record = _record(self.grant).to_bytes()
        self.receipts: tuple[Any, ...] = (_receipt(self.record),)
        self.signer, self.asked, self.burned = VERIFIER, ASKED, frozenset[bytes]()

    def verify(self) -> Grant:
        token = sign_grant(self.grant, self.signer, self.receipts)
        return verify_grant(
            token,
            self.record,
            asked=self.asked,
            key=VERIFIER.public,
            log_key=LOG.public,
            burned=self.burned,
        )


def test_a_grant_that_answers_the_question_is_accepted() -> None:
    assert Answer().verify() == GRANT


def _set(name: str, value: Any) -> Answer:
    answer = Answer()
    setattr(answer, name, value)
    return answer


def _logged(**changes: Any) -> Answer:
    answer = Answer()
    answer.record = _record(answer.grant, **changes).to_bytes()
    answer.receipts = (_receipt(answer.record),)
    return answer


GRANTS_REFUSED: dict[str, tuple[Any, str]] = {
    "another signer": (lambda: _set("signer", OTHER), "cose.kid"),
    "another profile": (lambda: Answer(profile="tag:interlock,2026:grant/2"), "grant.profile"),
    "another scope": (lambda: Answer(scope="run and debug"), "grant.scope"),
    "another issuer": (lambda: Answer(issuer="https://elsewhere"), "grant.issuer"),
    "another node": (lambda: Answer(node="gpu-host-2"), "grant.node"),
    "another holder key": (lambda: _set("asked", replace(ASKED, holder=OTHER.public)), "grant.holder"),
    "another challenge": (lambda: Answer(nonce=bytes(32)), "grant.nonce"),
    "another intent": (lambda: Answer(intent=digest("other")), "grant.intent"),
    "another job name": (lambda: Answer(job="other"), "grant.intent"),
    "more seconds than asked": (
        lambda: Answer(limits=replace(INTENT.limits, seconds=INTENT.limits.seconds + 1)),
        "grant.limits",
    ),
    "more memory than asked": (
        lambda: Answer(limits=replace(INTENT.limits, memory_mb=INTENT.limits.memory_mb + 1)),
        "grant.limits",
    ),
    "a secret that nobody asked for": (lambda: Answer(secrets=("weights",)), "grant.secrets"),
    "expired": (lambda: _set("asked", replace(ASKED, elapsed=600.0)), "grant.expired"),
    "from the future": (lambda: _set("asked", replace(ASKED, elapsed=-0.1)), "grant.expired"),
    "not valid yet": (lambda: Answer(not_before=GRANT.issued + 1), "grant.expired"),
    "no lifetime": (lambda: Answer(expires=GRANT.issued), "grant.expired"),
    "a denial as record": (lambda: _logged(outcome="deny"), "grant.record"),
    "another kind of record": (lambda: _logged(kind="report"), "grant.record"),
    "the record of another job": (lambda: _logged(job=bytes(16)), "grant.record"),
    "the record of another grant": (lambda: _logged(digests={"grant": digest("other")}), "grant.record"),
    "a record without a grant": (lambda: _logged(digests={}), "grant.record"),
    "a record that is none": (lambda: _set("record", b"\xa0"), "wire.missing"),
    "no receipt": (lambda: _set("receipts", ()), "grant.receipt"),
    "two receipts": (lambda: _set("receipts", (_receipt(b"a"), _receipt(b"a"))), "grant.receipt"),
    "a receipt that is no bytes": (lambda: _set("receipts", ("receipt",)), "grant.receipt"),
    "a receipt of another record": (lambda: _set("receipts", (_receipt(b"other"),)), "cose.signature"),
    "used before": (lambda: _set("burned", frozenset({GRANT.id})), "grant.replayed"),
}


@pytest.mark.parametrize("receipts", [b"receipt", {0: b"receipt"}, None], ids=["bytes", "map", "null"])
def test_receipts_are_a_list(receipts: Any) -> None:
    answer = Answer()
    token = sign1(VERIFIER, typ=TYP, payload=GRANT.to_bytes(), unprotected={RECEIPTS: receipts})
    with pytest.raises(Malformed) as caught:
        verify_grant(token, answer.record, asked=ASKED, key=VERIFIER.public, log_key=LOG.public, burned=frozenset())
    assert caught.value.reason == "grant.receipt"


@pytest.mark.parametrize("name", GRANTS_REFUSED)
def test_refuses_a_grant(name: str) -> None:
    make, reason = GRANTS_REFUSED[name]
    with pytest.raises(InterlockError) as caught:
        make().verify()
    assert caught.value.reason == reason


def test_refuses_a_grant_whose_receipts_are_no_list() -> None:
    from attestation.cose import RECEIPTS, sign1
    from attestation.grant import TYP

    answer = Answer()
    token = sign1(VERIFIER, typ=TYP, payload=answer.grant.to_bytes(), unprotected={RECEIPTS: answer.receipts[0]})
    with pytest.raises(InterlockError, match=r"grant\.receipt"):
        verify_grant(token, answer.record, asked=ASKED, key=VERIFIER.public, log_key=LOG.public, burned=frozenset())


def test_refuses_a_receipt_of_another_log() -> None:
    answer = Answer()
    answer.receipts = (_receipt(answer.record, SoftwareSigner.generate(EDDSA)),)
    with pytest.raises(InterlockError, match=r"cose\.kid"):
        answer.verify()


# --- leases -----------------------------------------------------------------------------------------------------------

SECOND = replace(LEASE, sequence=1, previous=LEASE.digest)


def _lease(lease: Lease, signer: SoftwareSigner = VERIFIER) -> bytes:
    return sign_lease(lease, signer, ())


def test_leases_follow_each_other() -> None:
    first = verify_lease(_lease(LEASE), key=VERIFIER.public, grant=ID, previous=None, nonce=LEASE.nonce)
    assert first == LEASE
    assert verify_lease(_lease(SECOND), key=VERIFIER.public, grant=ID, previous=first) == SECOND


def test_a_tpm_enforced_lease_carries_a_policy_signature_to_its_host() -> None:
    token = sign_lease(ENFORCED, VERIFIER, (), bytes(64))
    assert verify_lease(token, key=VERIFIER.public, grant=ID, previous=None) == ENFORCED
    assert approval_of(read_lease(token, VERIFIER.public)) == bytes(64)
    assert approval_of(read_lease(_lease(ENFORCED), VERIFIER.public)) is None
    archived = verify_lease(_lease(ENFORCED), key=VERIFIER.public, grant=ID, previous=None, archived=True)
    assert archived == ENFORCED


APPROVALS_REFUSED: dict[str, tuple[Lease, Any, dict[str, Any]]] = {
    "missing": (ENFORCED, None, {}),
    "short": (ENFORCED, bytes(63), {}),
    "long": (ENFORCED, bytes(65), {}),
    "empty": (ENFORCED, b"", {}),
    "a number": (ENFORCED, 64, {}),
    "null": (ENFORCED, ..., {}),
    "where nothing is enforced": (LEASE, bytes(64), {}),
    "in a bundle": (ENFORCED, bytes(64), {"archived": True}),
}


@pytest.mark.parametrize("name", APPROVALS_REFUSED)
def test_refuses_a_policy_signature(name: str) -> None:
    lease, approval, changes = APPROVALS_REFUSED[name]
    header: Any = {RECEIPTS: []} | ({} if approval is None else {TPM_POLICY: None if approval is ... else approval})
    token = sign1(VERIFIER, typ=LEASE_TYP, payload=lease.to_bytes(), unprotected=header)
    with pytest.raises(Malformed) as caught:
        verify_lease(token, key=VERIFIER.public, grant=ID, previous=None, **changes)
    assert caught.value.reason == "lease.tpm"


LEASES_REFUSED: dict[str, tuple[Lease, SoftwareSigner, dict[str, Any], str]] = {
    "another signer": (LEASE, OTHER, {}, "cose.kid"),
    "another grant": (LEASE, VERIFIER, {"grant": bytes(16)}, "lease.grant"),
    "the same again": (LEASE, VERIFIER, {"previous": LEASE}, "lease.sequence"),
    "one left out": (replace(SECOND, sequence=2), VERIFIER, {"previous": LEASE}, "lease.sequence"),
    "not the first": (SECOND, VERIFIER, {}, "lease.sequence"),
    "another chain": (replace(SECOND, previous=digest("x")), VERIFIER, {"previous": LEASE}, "lease.chain"),
    "a first that has a predecessor": (replace(LEASE, previous=digest("x")), VERIFIER, {}, "lease.chain"),
    "another challenge": (LEASE, VERIFIER, {"nonce": bytes(32)}, "lease.nonce"),
}


@pytest.mark.parametrize("name", LEASES_REFUSED)
def test_refuses_a_lease(name: str) -> None:
    lease, signer, changes, reason = LEASES_REFUSED[name]
    arguments = {"grant": ID, "previous": None, **changes}
    with pytest.raises(InterlockError) as caught:
        verify_lease(_lease(lease, signer), key=VERIFIER.public, **arguments)
    assert caught.value.reason == reason


# --- reports ----------------------------------------------------------------------------------------------------------


def test_a_report_is_believed_from_the_holder_key_only() -> None:
    token = sign_report(REPORT, HOLDER)
    assert verify_report(token, holder=HOLDER.public, grant=ID) == REPORT
    with pytest.raises(InterlockError, match=r"cose\.kid"):
        verify_report(token, holder=OTHER.public, grant=ID)
    with pytest.raises(InterlockError, match=r"report\.grant"):
        verify_report(token, holder=HOLDER.public, grant=bytes(16))
