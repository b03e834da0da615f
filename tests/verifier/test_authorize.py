"""verifier.authorize: what is allowed, what is denied and why, and that nothing is signed before it is in the log."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation.api import AuthorizationRequest
from attestation.cose import ES256, SoftwareSigner
from attestation.errors import InterlockError
from attestation.evidence import HOST, HOST_TYPE, TPM, Cmw, HostRecord, TpmRecord, read_evidence, sign_evidence
from attestation.grant import Asked, Grant, verify_grant
from attestation.intent import Children, GpuRequest, Intent, Limits, sign_intent
from attestation.lease import verify_lease
from attestation.log import Record, leaf_hash, verify_receipt
from attestation.problem import Denial
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA, CODE, Hall, Host, allowed, denied, digest
from verifier.authorize import authorize
from verifier.changes import Unit
from verifier.store import Unavailable

STRANGER = SoftwareSigner.generate(ES256)


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with Hall(tmp_path) as made:
        yield made


@pytest.fixture
def host(hall: Hall) -> Host:
    return hall.run(hall.furnish())


def last_records(hall: Hall, count: int) -> list[Record]:
    store = hall.verifier.store
    return [Record.from_bytes(e.record) for e in store.records(store.head().size - count, count)]


def test_an_allowed_request_gets_a_grant_that_its_agent_accepts(hall: Hall, host: Host) -> None:
    intent = hall.intent()
    answer = hall.run(host.ask(intent))
    grant, _ = allowed(answer)
    assert not isinstance(answer, Denial)
    asked = Asked("hall", "host", intent, host.holder.public, grant.nonce, 0.1)
    keys = hall.verifier.keys
    verified = verify_grant(
        answer.grant, answer.record, asked=asked, key=keys.grant.public, log_key=keys.log.public, burned=set()
    )
    assert verified.limits == intent.limits
    assert (verified.lease, verified.hold, verified.assurance) == (30, 60, "test")
    assert verified.unchecked == ("ek-revocation", "event-log", "gpu", "ima")
    assert verified.conditions.pcrs == host.tpm.read_pcrs(0x000B, range(8))
    lease = verify_lease(answer.lease, key=keys.grant.public, grant=grant.id, previous=None, nonce=grant.nonce)
    assert lease.duration == 30


def test_decision_and_first_lease_are_in_the_log_before_the_answer(hall: Hall, host: Host) -> None:
    grant, lease = allowed(hall.run(host.ask(hall.intent())))
    decision, first = last_records(hall, 2)
    assert (decision.kind, decision.outcome, decision.sequence, decision.count) == ("decision", "allow", 0, 1)
    assert (first.kind, first.outcome, first.sequence, first.count) == ("lease", "issued", 1, 2)
    assert decision.digests["grant"] == grant.digest
    assert first.digests["lease"] == lease.digest
    assert decision.determining == ("base.train",)


def test_everything_that_was_relied_on_is_archived(hall: Hall, host: Host) -> None:
    allowed(hall.run(host.ask(hall.intent())))
    decision, _ = last_records(hall, 2)
    inputs = {"policy", "references", "intent", "evidence", "challenge", "node", "submitter"}
    names = inputs | {"claims", "context", "grant"}
    assert set(decision.digests) == names
    for name, wanted in decision.digests.items():
        data = hall.verifier.store.blob(wanted)
        assert data is not None, name
        assert hashlib.sha256(data).digest() == wanted


def test_the_same_host_and_person_get_another_grant(hall: Hall, host: Host) -> None:
    one, _ = allowed(hall.run(host.ask(hall.intent())))
    two, _ = allowed(hall.run(host.ask(hall.intent())))
    assert one.id != two.id


# --- what is denied ---------------------------------------------------------------------------------------------------

INTENTS: dict[str, tuple[dict[str, Any], str]] = {
    "changed code": ({"code": digest("other")}, "code.unknown"),
    "changed environment": ({"environment": digest("other")}, "environment.unknown"),
    "another tenant": ({"tenant": "others"}, "authz.tenant"),
    "secrets without the role": ({"secrets": ("wandb",)}, "authz.secrets"),
    "too long": ({"limits": Limits(seconds=700_000, memory_mb=1, processes=1, renewals=1)}, "limit.seconds"),
    "too many processes": ({"limits": Limits(seconds=1, memory_mb=1, processes=9999, renewals=1)}, "limit.processes"),
    "GPUs that are not proven": ({"gpus": GpuRequest(count=1, mode="spt", memory_mb=1)}, "trust.binding"),
    "too many children": ({"children": Children(depth=1, count=65)}, "limit.children"),
    "a child job": ({"parent": bytes(16)}, "intent.parent"),
    "inputs that nobody verifies": ({"inputs": {"data": bytes(32)}}, "intent.inputs"),
}


@pytest.mark.parametrize(("changes", "reason"), INTENTS.values(), ids=INTENTS)
def test_a_request_that_policy_forbids_is_denied(hall: Hall, host: Host, changes: dict[str, Any], reason: str) -> None:
    assert_denied(hall, hall.run(host.ask(hall.intent(**changes))), reason)


HOST_SAYS = {
    "confidential computing is off": (HostRecord(facts={"gpus": "cc off"}).to_bytes(), "says of its GPUs: cc off"),
    "the driver failed": (HostRecord(facts={"gpus": "failed: x"}).to_bytes(), "says of its GPUs: failed: x"),
    "not a word": (HostRecord(facts={}).to_bytes(), "says of its GPUs: nothing"),
    "no record": (b"?", "says of its GPUs: nothing"),
}


@pytest.mark.parametrize("name", HOST_SAYS)
def test_a_denial_for_want_of_gpus_says_what_the_host_says_of_them(hall: Hall, host: Host, name: str) -> None:
    said, expected = HOST_SAYS[name]

    async def go() -> Any:
        challenge = await hall.verifier.challenge("host")
        intent = hall.intent(gpus=GpuRequest(count=1, mode="spt", memory_mb=0))
        honest, _ = read_evidence(host.evidence(challenge, intent))
        token = sign_evidence(
            replace(honest, collection={**honest.collection, HOST: Cmw(HOST_TYPE, said)}), host.holder
        )
        asked = AuthorizationRequest(intent=sign_intent(intent, hall.person), evidence=token)
        return await authorize(hall.verifier, asked)

    reasons = {refusal.code: refusal.detail for refusal in denied(hall.run(go())).reasons}
    if name == "no record":
        assert "trust.binding" not in reasons
    else:
        assert (reasons["trust.binding"] or "").endswith(expected)


def assert_denied(hall: Hall, answer: Any, reason: str, outcome: str = "deny") -> Denial:
    """The answer is a denial for this reason, in the log with its receipt, and nothing was issued."""
    denial = denied(answer)
    assert reason in denial.codes, [(r.code, r.detail) for r in denial.reasons]
    record = Record.from_bytes(denial.record)
    assert record.outcome == outcome
    assert reason in record.reasons
    assert "grant" not in record.digests
    assert "lease" not in record.digests
    verify_receipt(denial.receipt, leaf_hash(denial.record), hall.verifier.keys.log.public)
    assert all(refusal.fix and refusal.what for refusal in denial.reasons)
    return denial


def spoil_tpm(change: Callable[[TpmRecord], TpmRecord]) -> Callable[[Host, Intent, Any], dict[str, Any]]:
    """Evidence whose TPM record was changed."""

    def made(host: Host, intent: Intent, challenge: Any) -> dict[str, Any]:
        record = change(host.record(challenge, intent))
        return {"collection": {TPM: Cmw("application/interlock-tpm+cbor", record.to_bytes())}}

    return made


def other(host: Host) -> Host:
    """Another genuine TPM of the same make."""
    tpm = SoftTpm(CA)
    tpm.create_holder()
    return Host(host.hall, "host", tpm)


EVIDENCE: dict[str, tuple[Callable[[Host, Intent, Any], dict[str, Any]], str]] = {
    "for another request": (lambda h, i, c: {"intent": digest("other")}, "evidence.intent"),
    "for a renewal": (lambda h, i, c: {"grant": bytes(16)}, "evidence.grant"),
    "without a TPM": (lambda h, i, c: {"collection": {}}, "evidence.record"),
    "with a record that nobody knows": (
        lambda h, i, c: {"collection": {"npu0": Cmw("x", b"")}},
        "evidence.unknown-record",
    ),
    "quote of another TPM": (
        lambda h, i, c: spoil_tpm(lambda r: replace(r, **quote_of(other(h), i, c)))(h, i, c),
        "tpm.quote.signature",
    ),
    "quote for another question": (
        lambda h, i, c: spoil_tpm(lambda r: replace(r, **raw_quote(h, bytes(32), c)))(h, i, c),
        "tpm.quote.nonce",
    ),
    "PCR value swapped": (
        spoil_tpm(lambda r: replace(r, pcrs={**r.pcrs, 3: bytes([9]) * 32})),
        "tpm.pcr.digest",
    ),
    "holder key of another TPM": (
        lambda h, i, c: spoil_tpm(lambda r: replace(r, holder_public=other(h).holder_public))(h, i, c),
        "tpm.holder.unknown",
    ),
    "certification altered": (
        spoil_tpm(lambda r: replace(r, certify=r.certify[:-1] + bytes([r.certify[-1] ^ 1]))),
        "tpm.certify.signature",
    ),
}


def raw_quote(host: Host, qualifying: bytes, challenge: Any) -> dict[str, Any]:
    quote = host.tpm.quote(qualifying, challenge.bank, challenge.pcrs)
    return {"quote": quote.attest, "signature": quote.signature}


def quote_of(host: Host, intent: Intent, challenge: Any) -> dict[str, Any]:
    record = host.record(challenge, intent)
    return {"quote": record.quote, "signature": record.signature}


@pytest.mark.parametrize(("spoil", "reason"), EVIDENCE.values(), ids=EVIDENCE)
def test_evidence_that_does_not_prove_it_is_denied(
    hall: Hall, host: Host, spoil: Callable[[Host, Intent, Any], dict[str, Any]], reason: str
) -> None:
    async def go() -> Any:
        intent = hall.intent()
        challenge = await hall.verifier.challenge("host")
        evidence = host.evidence(challenge, intent, **spoil(host, intent, challenge))
        return await authorize(hall.verifier, request(hall, intent, evidence))

    assert assert_denied(hall, hall.run(go()), reason).klass == "hard"


def request(hall: Hall, intent: Intent, evidence: bytes, key: SoftwareSigner | None = None) -> AuthorizationRequest:
    return AuthorizationRequest(intent=sign_intent(intent, key or hall.person), evidence=evidence)


def test_a_host_that_booted_otherwise_is_denied(hall: Hall, host: Host) -> None:
    host.tpm.extend(4, bytes(32))
    denial = assert_denied(hall, hall.run(host.ask(hall.intent())), "tpm.pcr.mismatch")
    assert "PCR 4" in (denial.reasons[-1].detail or "")


def test_an_unknown_submitter_is_denied(hall: Hall, host: Host) -> None:
    assert_denied(hall, hall.run(host.ask(hall.intent(), key=STRANGER)), "authz.submitter")


def test_a_submitter_without_a_role_is_denied(hall: Hall, host: Host) -> None:
    hall.run(hall.add_person(STRANGER, "eve", ()))
    denial = assert_denied(hall, hall.run(host.ask(hall.intent(), key=STRANGER)), "authz.role")
    assert denial.klass == "drain"
    assert denial.reasons[0].fix == "Ask the operator for the role trainer, evaluator or operator."


def test_an_intent_signed_by_somebody_else_is_denied(hall: Hall, host: Host) -> None:
    class Forger:
        """Signs in the name of the registered key."""

        public = hall.person.public

        def sign(self, message: bytes) -> bytes:
            return STRANGER.sign(message)

    async def go() -> Any:
        intent = hall.intent()
        evidence = host.evidence(await hall.verifier.challenge("host"), intent)
        token = sign_intent(intent, Forger())
        return await authorize(hall.verifier, AuthorizationRequest(intent=token, evidence=evidence))

    assert_denied(hall, hall.run(go()), "cose.signature")


@pytest.mark.parametrize("state", ["pending", "quarantined", "retired"])
def test_a_node_that_is_not_active_is_denied(hall: Hall, host: Host, state: str) -> None:
    hall.run(hall.command("node.set-state", node="host", state=state))
    assert_denied(hall, hall.run(host.ask(hall.intent())), f"node.{state}")


def test_a_disabled_submitter_is_denied(hall: Hall, host: Host) -> None:
    hall.run(hall.command("submitter.disable", submitter="ada"))
    assert_denied(hall, hall.run(host.ask(hall.intent())), "authz.submitter")


@pytest.mark.parametrize("state", ["pending", "retired", "revoked"])
def test_a_baseline_that_is_not_in_use_is_denied(hall: Hall, host: Host, state: str) -> None:
    hall.run(hall.command("refs.set-state", name="boot", state=state))
    assert_denied(hall, hall.run(host.ask(hall.intent())), f"ref.{state}")


def test_a_tpm_whose_clock_went_back_is_denied(hall: Hall, host: Host) -> None:
    allowed(hall.run(host.ask(hall.intent())))
    host.tpm.clock_ms -= 500
    assert_denied(hall, hall.run(host.ask(hall.intent())), "tpm.clock.backwards")


def test_a_rebooted_host_is_allowed_again(hall: Hall, host: Host) -> None:
    allowed(hall.run(host.ask(hall.intent())))
    host.tpm.reboot()
    allowed(hall.run(host.ask(hall.intent())))


def test_too_many_jobs_are_denied_even_when_they_come_at_once(hall: Hall, host: Host) -> None:
    async def go() -> list[Any]:
        return await asyncio.gather(*(host.ask(hall.intent()) for _ in range(10)))

    answers = hall.run(go())
    refusals = [answer for answer in answers if isinstance(answer, Denial)]
    assert len(answers) - len(refusals) == 4
    assert {code for denial in refusals for code in denial.codes} == {"limit.node-jobs"}


# --- single use -------------------------------------------------------------------------------------------------------


def prepared(hall: Hall, host: Host) -> tuple[Intent, bytes]:
    async def go() -> tuple[Intent, bytes]:
        intent = hall.intent()
        return intent, host.evidence(await hall.verifier.challenge("host"), intent)

    return hall.run(go())


def test_evidence_counts_once(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    allowed(hall.run(authorize(hall.verifier, request(hall, intent, evidence))))
    again = replace(intent, nonce=digest("again"))
    for repeated in (intent, again):
        assert_denied(hall, hall.run(authorize(hall.verifier, request(hall, repeated, evidence))), "challenge.redeemed")


def test_a_denial_burns_the_challenge_too(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    assert_denied(
        hall, hall.run(authorize(hall.verifier, request(hall, intent, evidence, STRANGER))), "authz.submitter"
    )
    assert_denied(hall, hall.run(authorize(hall.verifier, request(hall, intent, evidence))), "challenge.redeemed")


def test_of_one_request_sent_ten_times_at_once_one_wins(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    asked = request(hall, intent, evidence)

    async def go() -> list[Any]:
        return await asyncio.gather(*(authorize(hall.verifier, asked) for _ in range(10)))

    answers = hall.run(go())
    assert sum(not isinstance(answer, Denial) for answer in answers) == 1
    for answer in answers:
        if isinstance(answer, Denial):
            assert_denied(hall, answer, "challenge.redeemed")


def test_an_intent_counts_once(hall: Hall, host: Host) -> None:
    intent = hall.intent()
    allowed(hall.run(host.ask(intent)))
    assert_denied(hall, hall.run(host.ask(intent)), "intent.replayed")


def test_an_intent_counts_once_when_it_comes_twice_at_once(hall: Hall, host: Host) -> None:
    intent = hall.intent()

    async def go() -> tuple[Any, Any]:
        return await asyncio.gather(host.ask(intent), host.ask(intent))

    one, two = hall.run(go())
    assert isinstance(one, Denial) != isinstance(two, Denial)
    assert_denied(hall, one if isinstance(one, Denial) else two, "intent.replayed")


def test_a_late_answer_is_denied(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    hall.hands.time += 31
    assert_denied(hall, hall.run(authorize(hall.verifier, request(hall, intent, evidence))), "challenge.expired")


def test_a_challenge_of_another_policy_is_no_use(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    hall.run(hall.ask_for(0, 1))
    assert_denied(hall, hall.run(authorize(hall.verifier, request(hall, intent, evidence))), "challenge.outdated")


def test_a_challenge_survives_a_restart_and_still_counts_once(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    asked = request(hall, intent, evidence)
    hall.reopen()
    allowed(hall.run(authorize(hall.verifier, asked)))
    hall.reopen()
    assert_denied(hall, hall.run(authorize(hall.verifier, asked)), "challenge.redeemed")


def test_a_challenge_of_another_node_is_no_use(hall: Hall, host: Host) -> None:
    hall.run(hall.add_host("second"))

    async def go() -> Any:
        intent = hall.intent()
        evidence = host.evidence(await hall.verifier.challenge("second"), intent)
        return await authorize(hall.verifier, request(hall, intent, evidence))

    assert_denied(hall, hall.run(go()), "cose.kid")


def test_evidence_for_no_challenge_of_ours_is_not_even_logged(hall: Hall, host: Host) -> None:
    intent, _ = prepared(hall, host)
    challenge = replace(hall.run(hall.verifier.challenge("host")), nonce=bytes(32))
    before = hall.verifier.store.head().size
    with pytest.raises(InterlockError, match=r"challenge\.unknown"):
        hall.run(authorize(hall.verifier, request(hall, intent, host.evidence(challenge, intent))))
    assert hall.verifier.store.head().size == before


def test_a_node_has_a_bounded_number_of_open_challenges(hall: Hall, host: Host) -> None:
    async def go() -> None:
        for _ in range(65):
            await hall.verifier.challenge("host")

    with pytest.raises(InterlockError, match=r"challenge\.too-many"):
        hall.run(go())
    hall.hands.time += 31
    assert hall.verifier.open_challenges == 0
    hall.run(hall.verifier.challenge("host"))


@pytest.mark.parametrize("name", ["nobody", "", "host\x00"])
def test_nobody_else_is_challenged(hall: Hall, host: Host, name: str) -> None:
    with pytest.raises(InterlockError, match=r"node\.unknown"):
        hall.run(hall.verifier.challenge(name))


# --- when we fail -----------------------------------------------------------------------------------------------------


class BrokenLog:
    """A log whose disk is full."""

    def submit(self, unit: Unit) -> Any:
        raise Unavailable("log.unavailable", "no space left on device")


class Counting:
    """A signer that counts what it signs."""

    def __init__(self, signer: Any) -> None:
        self.signed, self.public, self._signer = 0, signer.public, signer

    def sign(self, message: bytes) -> bytes:
        self.signed += 1
        signature: bytes = self._signer.sign(message)
        return signature


def test_while_the_log_fails_nothing_is_signed(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    signer, policy = Counting(hall.verifier.keys.grant), Counting(hall.verifier.keys.policy)
    hall.verifier.keys = replace(hall.verifier.keys, grant=signer, policy=policy)
    hall.verifier.log = BrokenLog()
    with pytest.raises(Unavailable, match=r"log\.unavailable"):
        hall.run(authorize(hall.verifier, request(hall, intent, evidence)))
    assert (signer.signed, policy.signed) == (0, 0)
    assert hall.verifier.store.jobs() == []


def test_an_allow_signs_two_tokens_and_a_denial_none(hall: Hall, host: Host) -> None:
    signer, policy = Counting(hall.verifier.keys.grant), Counting(hall.verifier.keys.policy)
    hall.verifier.keys = replace(hall.verifier.keys, grant=signer, policy=policy)
    denied(hall.run(host.ask(hall.intent(code=digest("other")))))
    assert (signer.signed, policy.signed) == (0, 1), "one permit that the test host gave itself"
    allowed(hall.run(host.ask(hall.intent())))
    assert (signer.signed, policy.signed) == (2, 3), "one more, and the lease"


CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "node quarantined": ("node.set-state", {"node": "host", "state": "quarantined"}, "node.quarantined"),
    "submitter disabled": ("submitter.disable", {"submitter": "ada"}, "authz.submitter"),
    "baseline revoked": ("refs.set-state", {"name": "boot", "state": "revoked"}, "ref.revoked"),
    "code retired": ("refs.set-state", {"name": CODE.hex(), "state": "retired"}, "code.retired"),
}


@pytest.mark.parametrize(("command", "arguments", "reason"), CHANGES.values(), ids=CHANGES)
def test_what_changes_while_a_request_is_judged_counts(
    hall: Hall, host: Host, command: str, arguments: dict[str, Any], reason: str
) -> None:
    intent, evidence = prepared(hall, host)

    async def go() -> Any:
        change = asyncio.create_task(hall.command(command, **arguments))
        await asyncio.sleep(0)  # the change is on its way to the log, and not there
        return await authorize(hall.verifier, request(hall, intent, evidence)), await change

    answer, _ = hall.run(go())
    assert_denied(hall, answer, reason)


def test_a_verifier_whose_facts_never_stand_still_gives_up(hall: Hall, host: Host) -> None:
    intent, evidence = prepared(hall, host)
    submitter = hall.verifier.submitter

    def moving(kid: bytes) -> Any:
        found = submitter(kid)
        assert found is not None
        return replace(found, name="somebody else")

    hall.verifier.submitter = moving  # type: ignore[method-assign]
    with pytest.raises(InterlockError, match=r"verifier\.busy"):
        hall.run(authorize(hall.verifier, request(hall, intent, evidence)))


def test_grants_carry_what_the_verifier_is(hall: Hall, host: Host) -> None:
    grant, _ = allowed(hall.run(host.ask(hall.intent())))
    assert Grant.from_bytes(grant.to_bytes()) == grant
    assert (grant.issuer, grant.node, grant.job, grant.binding) == ("hall", "host", "digits", "L0")
    assert grant.expires - grant.issued == 600 + 300 + 60
