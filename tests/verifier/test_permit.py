"""Permits: one signature for a quote alone; what does not fit together is refused, and a permit is worth no more."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.devices import Approved, DeviceError
from attestation.api import AuthorizationRequest
from attestation.challenge import Challenge
from attestation.cose import ES256, SoftwareSigner
from attestation.errors import InterlockError
from attestation.intent import sign_intent
from attestation.permit import PERMIT_SECONDS, Permit, PermitRequest, permit_qualifying
from attestation.tpm.policy import approval, permit_policy
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA, Hall, Host, allowed
from verifier.authorize import authorize
from verifier.permit import permit
from verifier.renew import renew

DIGEST = hashlib.sha256(b"evidence").digest()


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with Hall(tmp_path) as made:
        yield made


@pytest.fixture
def host(hall: Hall) -> Host:
    made: Host = hall.run(hall.furnish())
    return made


def asked(host: Host, challenge: Challenge, digest: bytes = DIGEST, **changes: Any) -> PermitRequest:
    """What an honest host asks; ``changes`` are made to the request."""
    quote = host.tpm.quote(permit_qualifying(challenge.nonce, digest), challenge.bank, challenge.pcrs)
    honest = PermitRequest(
        nonce=challenge.nonce,
        digest=digest,
        quote=quote.attest,
        signature=quote.signature,
        pcrs=dict(host.tpm.read_pcrs(challenge.bank, challenge.pcrs)),
    )
    return replace(honest, **changes)


def approved(host: Host, given: Permit, digest: bytes = DIGEST) -> Approved:
    """A permit as a TPM is shown it."""
    boot, name = {"resets": given.resets, "restarts": given.restarts}, host.tpm.present.name
    terms = permit_policy(until=given.until, **boot, digest=digest, key_name=name)
    return Approved(terms, given.signature, host.hall.verifier.keys.policy.public)


def test_a_permit_is_for_one_digest_for_half_a_minute_of_this_boot(hall: Hall, host: Host) -> None:
    host.tpm.restart_count = 4
    challenge = hall.run(hall.verifier.challenge("host"))
    request = asked(host, challenge)
    before = host.tpm.clock_ms
    given = hall.run(permit(hall.verifier, request))
    assert given.until == before + 1000 * PERMIT_SECONDS
    assert (given.resets, given.restarts) == (1, 4)
    host.tpm.sign_as_holder(DIGEST, approved(host, given))
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
        host.tpm.sign_as_holder(bytes(32), approved(host, given))
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
        host.tpm.sign_as_holder(bytes(32), approved(host, given, bytes(32)))
    host.tpm.clock_ms = given.until
    with pytest.raises(DeviceError, match=r"0x126"):
        host.tpm.sign_as_holder(DIGEST, approved(host, given))


def test_a_permit_does_not_use_its_challenge_up(hall: Hall, host: Host) -> None:
    challenge = hall.run(hall.verifier.challenge("host"))
    size = hall.verifier.store.head().size
    for _ in range(2):
        hall.run(permit(hall.verifier, asked(host, challenge)))
    assert hall.verifier.store.head().size == size
    allowed(hall.run(host.ask(hall.intent())))


def test_permits_are_counted(hall: Hall, host: Host) -> None:
    challenge = hall.run(hall.verifier.challenge("host"))
    hall.run(permit(hall.verifier, asked(host, challenge)))
    assert b"interlock_permits_total 1.0" in hall.verifier.metrics.text()


@pytest.mark.parametrize("state", ["quarantined", "active"])
def test_a_host_that_is_not_retired_may_sign(hall: Hall, host: Host, state: str) -> None:
    hall.run(hall.command("node.set-state", node="host", state=state, why="a test"))
    challenge = hall.run(hall.verifier.challenge("host"))
    assert hall.run(permit(hall.verifier, asked(host, challenge))).resets == 1


def test_a_permit_is_given_whatever_the_pcrs_are(hall: Hall, host: Host) -> None:
    """The evidence that is signed by it is judged; here nothing is."""
    challenge = hall.run(hall.verifier.challenge("host"))
    host.tpm.extend(4, b"rootkit".ljust(32))
    assert hall.run(permit(hall.verifier, asked(host, challenge))).resets == 1


Ask = Callable[[Host, Challenge], PermitRequest]


def _retired(host: Host, challenge: Challenge) -> PermitRequest:
    host.hall.run(host.hall.command("node.set-state", node="host", state="retired", why="a test"))
    return asked(host, challenge)


def _late(host: Host, challenge: Challenge) -> PermitRequest:
    host.hall.hands.time += 30
    return asked(host, challenge)


def _answered(host: Host, challenge: Challenge) -> PermitRequest:
    """The challenge was answered by evidence meanwhile."""
    intent = host.hall.intent()
    question = AuthorizationRequest(
        intent=sign_intent(intent, host.hall.person), evidence=host.evidence(challenge, intent)
    )
    allowed(host.hall.run(authorize(host.hall.verifier, question)))
    return asked(host, challenge)


def _cleared(host: Host, challenge: Challenge) -> PermitRequest:
    host.tpm.reset_count = 0
    return asked(host, challenge)


def _clock_back(host: Host, challenge: Challenge) -> PermitRequest:
    host.tpm.clock_ms = 1
    return asked(host, challenge)


def _elsewhere(host: Host, challenge: Challenge) -> PermitRequest:
    """Another genuine TPM, which is not this node's."""
    return asked(Host(host.hall, "host", SoftTpm(CA)), challenge)


def _other_question(host: Host, challenge: Challenge) -> PermitRequest:
    """A quote that this TPM made for evidence, not for a permit."""
    quote = host.tpm.quote(challenge.nonce, challenge.bank, challenge.pcrs)
    return asked(host, challenge, quote=quote.attest, signature=quote.signature)


def _fewer(host: Host, challenge: Challenge) -> PermitRequest:
    return asked(host, replace(challenge, pcrs=(0, 7)))


REFUSED: dict[str, tuple[Ask, str]] = {
    "a challenge that nobody issued": (lambda h, c: asked(h, c, nonce=bytes(32)), "challenge.unknown"),
    "a challenge that is too old": (_late, "challenge.expired"),
    "a challenge that was answered": (_answered, "challenge.redeemed"),
    "a retired host": (_retired, "permit.retired"),
    "another digest than the quote commits to": (
        lambda h, c: replace(asked(h, c), digest=bytes(32)),
        "tpm.quote.nonce",
    ),
    "a quote for something else": (_other_question, "tpm.quote.nonce"),
    "a quote by another TPM": (_elsewhere, "tpm.quote.signature"),
    "a quote with a byte flipped": (
        lambda h, c: replace(r := asked(h, c), quote=r.quote[:-1] + bytes([r.quote[-1] ^ 1])),
        "tpm.quote.signature",
    ),
    "no signature": (lambda h, c: asked(h, c, signature=b""), "tpm.signature.truncated"),
    "no quote": (lambda h, c: asked(h, c, quote=b""), "tpm.attest.truncated"),
    "a quote of fewer PCRs": (_fewer, "tpm.pcr.selection"),
    "values that were not quoted": (
        lambda h, c: asked(h, c, pcrs={pcr: bytes(32) for pcr in c.pcrs[1:]} | {0: b"\x01" * 32}),
        "tpm.pcr.digest",
    ),
    "a TPM that was cleared": (_cleared, "tpm.clock.reset"),
    "a clock that went back": (_clock_back, "tpm.clock.backwards"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_a_permit(hall: Hall, host: Host, name: str) -> None:
    ask, reason = REFUSED[name]
    challenge = hall.run(hall.verifier.challenge("host"))
    request = ask(host, challenge)
    with pytest.raises(InterlockError) as refusal:
        hall.run(permit(hall.verifier, request))
    assert refusal.value.reason == reason
    assert b"interlock_permits_total 0.0" in hall.verifier.metrics.text()


def test_a_plain_key_gets_none(hall: Hall) -> None:
    hall.run(hall.load())
    tpm = SoftTpm(CA)
    tpm.create_holder()
    host = hall.run(hall.add_host("host", tpm))
    challenge = hall.run(hall.verifier.challenge("host"))
    with pytest.raises(InterlockError) as refusal:
        hall.run(permit(hall.verifier, asked(host, challenge)))
    assert refusal.value.reason == "permit.plain"


def test_after_another_policy_key_was_made_every_host_enrols_again(hall: Hall, host: Host) -> None:
    question, again_evidence = hall.run(request(host)), hall.run(running(host))
    other = SoftwareSigner.generate(ES256)
    hall.verifier.keys = replace(hall.verifier.keys, policy=other)
    for act in (authorize(hall.verifier, question), renew(hall.verifier, again_evidence), permitted(host)):
        with pytest.raises(InterlockError) as refusal:
            hall.run(act)
        assert refusal.value.reason == "node.policy-key"

    async def again() -> None:
        made = await hall.command("token.create", node="host", reenrol=True, activate=True)
        host.tpm.create_holder(other.public)
        await host.enrol(made["token"])
        allowed(await host.ask(hall.intent()))

    hall.run(again())


async def running(host: Host) -> bytes:
    """The evidence for the next lease of a job that runs."""
    intent = host.hall.intent()
    grant, _ = allowed(await host.ask(intent))
    return host.evidence(await host.hall.verifier.challenge(host.name), intent, grant=grant.id)


async def request(host: Host) -> AuthorizationRequest:
    """A question that would be allowed."""
    challenge, intent = await host.hall.verifier.challenge(host.name), host.hall.intent()
    evidence = host.evidence(challenge, intent)
    return AuthorizationRequest(intent=sign_intent(intent, host.hall.person), evidence=evidence)


async def permitted(host: Host) -> Permit:
    challenge = await host.hall.verifier.challenge(host.name)
    return await permit(host.hall.verifier, asked(host, challenge))


def test_what_was_permitted_for_one_tpm_is_void_on_another(hall: Hall, host: Host) -> None:
    """Two hosts of one verifier: the policy key's signature names the attestation key of one of them."""
    other = hall.run(hall.add_host("other"))
    given = hall.run(permitted(host))
    terms = permit_policy(until=10**9, resets=1, restarts=0, digest=DIGEST, key_name=other.tpm.present.name)
    signature = hall.verifier.keys.policy.sign(approval(terms, host.tpm.ak.name))
    for attempt in (approved(other, given), Approved(terms, signature, hall.verifier.keys.policy.public)):
        with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
            other.tpm.sign_as_holder(DIGEST, attempt)
