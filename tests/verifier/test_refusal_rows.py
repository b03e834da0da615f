"""Rows 24-26, 54-57 and 60 of the refusal matrix, through the functions of the service on a real store.

In each row all else is honest: hosts are enrolled, evidence is truly quoted and signed. ``ROWS`` names each row's
test, ``MORE`` has further variants. What is done ends in a refusal by exception, in a denial that is in the log with
its receipt, or in an answer over HTTP; the reason is compared, and nothing was issued.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from attestation import api
from attestation.api import AuthorizationRequest
from attestation.errors import InterlockError
from attestation.evidence import TPM, TPM_TYPE, Cmw, TpmRecord
from attestation.grant import Grant
from attestation.intent import Intent, sign_intent
from attestation.log import Record, leaf_hash, verify_receipt
from attestation.problem import Denial, Problem
from attestation.reasons import explain
from attestation.tpm.attest import Attest, QuoteInfo
from attestation.tpm.quote import CODES
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA, Hall, Host, allowed, leased
from verifier import enrol
from verifier.app import create_app
from verifier.authorize import authorize
from verifier.changes import Unit
from verifier.renew import renew


@dataclass
class Scene:
    """A verifier with one active host, and a request of somebody who may ask."""

    hall: Hall
    host: Host
    intent: Intent = field(init=False)

    def __post_init__(self) -> None:
        self.intent = self.hall.intent()

    def enrol(self, host: Host, **more: Any) -> Any:
        made = self.hall.run(self.hall.command("token.create", node=host.name, pool="lab", **more))
        return self.hall.run(host.enrol(made["token"]))

    def begin(self, host: Host) -> Any:
        """The first half of an enrolment."""
        made = self.hall.run(self.hall.command("token.create", node=host.name, pool="lab"))
        return self.hall.run(enrol.begin(self.hall.verifier, host.request(made["token"])))

    def finish(self, proof: Any) -> Any:
        return self.hall.run(enrol.finish(self.hall.verifier, proof))

    def ask(self, host: Host | None = None) -> Any:
        return self.hall.run((host or self.host).ask(self.intent))

    def spoiled(self, change: Callable[[TpmRecord], TpmRecord]) -> Any:
        """Ask with a TPM record that was changed before the host signed."""

        async def go() -> Any:
            challenge = await self.hall.verifier.challenge("host")
            record = change(self.host.record(challenge, self.intent))
            collection = {TPM: Cmw(TPM_TYPE, record.to_bytes())}
            return await authorize(self.hall.verifier, self._request(challenge, collection=collection))

        return self.hall.run(go())

    def request(self, **changes: Any) -> AuthorizationRequest:
        """A request with its evidence, not sent yet."""
        return self._request(self.hall.run(self.hall.verifier.challenge("host")), **changes)

    def _request(self, challenge: Any, **changes: Any) -> AuthorizationRequest:
        token = sign_intent(self.intent, self.hall.person)
        return AuthorizationRequest(intent=token, evidence=self.host.evidence(challenge, self.intent, **changes))

    def send(self, asked: AuthorizationRequest) -> Any:
        return self.hall.run(authorize(self.hall.verifier, asked))

    def job(self) -> Grant:
        """A job that runs: its grant."""
        return allowed(self.ask())[0]

    def renew(self, grant: Grant, *, after: float = 1) -> Any:
        self.hall.hands.time += after
        return self.hall.run(self.host.renew(grant, self.intent))


Act = Callable[[Scene], object]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Hall(tmp_path) as hall:
        yield Scene(hall, hall.run(hall.furnish()))


def reasons_of(scene: Scene, act: Act) -> tuple[str, ...]:
    """Why what is done is refused; a denial is in the log before it is answered, and has no grant and no lease."""
    try:
        answer = act(scene)
    except InterlockError as error:
        return (error.reason,)
    if isinstance(answer, httpx.Response):
        assert answer.status_code >= 400
        return (Problem.from_bytes(answer.content).reason,)
    assert isinstance(answer, Denial), "allowed"
    record = Record.from_bytes(answer.record)
    verify_receipt(answer.receipt, leaf_hash(answer.record), scene.hall.verifier.keys.log.public)
    assert not {"grant", "lease"} & record.digests.keys()
    return answer.codes


# --- 24 to 26: who a host is ------------------------------------------------------------------------------------------


def stranger(scene: Scene, name: str) -> Host:
    """A host with a TPM of a make that is believed, which nobody has enrolled."""
    tpm = SoftTpm(CA)
    tpm.create_holder(scene.hall.verifier.keys.policy.public)
    return Host(scene.hall, name, tpm)


def one_tpm_two_names(scene: Scene) -> object:
    return scene.enrol(Host(scene.hall, "second", scene.host.tpm))


def one_name_two_tpms(scene: Scene) -> object:
    """CVE-2025-13609: the operator lets a host enrol again, and another TPM comes."""
    return scene.enrol(stranger(scene, "host"), reenrol=True)


def a_retired_tpm(scene: Scene) -> object:
    scene.hall.run(scene.hall.command("node.set-state", node="host", state="retired"))
    return scene.enrol(Host(scene.hall, "second", scene.host.tpm))


def another_key_than_activated(scene: Scene) -> object:
    """One TPM opens the credential, another quotes."""
    host, other = stranger(scene, "second"), stranger(scene, "second")
    asked = scene.begin(host)
    quote = other.tpm.quote(asked.nonce, asked.bank, asked.pcrs)
    return scene.finish(replace(host.proof(asked), quote=quote.attest, signature=quote.signature))


def another_key_than_enrolled(scene: Scene) -> object:
    """CVE-2022-1053: a quote by a genuine key that is not the one in the enrolment record."""
    other = stranger(scene, "host")

    def swap(record: TpmRecord) -> TpmRecord:
        asked = Attest.from_bytes(record.quote, QuoteInfo, CODES).extra_data
        quote = other.tpm.quote(asked, record.bank, tuple(record.pcrs))
        return replace(record, quote=quote.attest, signature=quote.signature)

    return scene.spoiled(swap)


def a_key_of_its_own(scene: Scene) -> object:
    """Everything in the evidence fits together, and rests on nothing but itself."""
    return scene.ask(stranger(scene, "host"))


def a_name_of_its_own(scene: Scene) -> object:
    return scene.ask(stranger(scene, "nobody"))


def a_key_that_was_not_activated(scene: Scene) -> object:
    host = stranger(scene, "second")
    return scene.finish(replace(host.proof(scene.begin(host)), secret=bytes(32)))


# --- 54 to 57: what changes while a job runs --------------------------------------------------------------------------

LEASE, HOLD = 30, 60


def renewed_too_late(scene: Scene) -> object:
    grant = scene.job()
    return scene.renew(grant, after=LEASE + HOLD + 1)


def renewed_after_a_failure(scene: Scene) -> object:
    """One failed re-attestation is the end, also when the host is as it should be again, and the verifier new."""
    grant, pcrs = scene.job(), scene.host.tpm.pcrs
    before = {bank: dict(values) for bank, values in pcrs.items()}
    scene.host.tpm.extend(5, bytes(32))
    assert "tpm.pcr.mismatch" in reasons_of(scene, lambda s: s.renew(grant))
    scene.host.tpm.pcrs = before
    scene.hall.reopen()
    return scene.renew(grant)


def renewed_by_a_host_that_changed(scene: Scene) -> object:
    grant = scene.job()
    scene.host.tpm.extend(5, bytes(32))
    return scene.renew(grant)


def renewed_late_after_a_restart(scene: Scene) -> object:
    """A verifier that was dead does not believe that all went well meanwhile."""
    grant = scene.job()
    scene.hall.reopen()
    return scene.renew(grant, after=LEASE + HOLD + 1)


def the_same_again(scene: Scene) -> object:
    asked = scene.request()
    allowed(scene.send(asked))
    return scene.send(asked)


def the_same_again_after_a_restart(scene: Scene) -> object:
    asked = scene.request()
    allowed(scene.send(asked))
    scene.hall.reopen()
    return scene.send(asked)


def the_same_evidence_for_another_job(scene: Scene) -> object:
    asked = scene.request()
    allowed(scene.send(asked))
    scene.intent = scene.hall.intent()
    token = sign_intent(scene.intent, scene.hall.person)
    return scene.send(AuthorizationRequest(intent=token, evidence=asked.evidence))


def twice_at_once(scene: Scene) -> object:
    asked = scene.request()

    async def go() -> list[Any]:
        return await asyncio.gather(*(authorize(scene.hall.verifier, asked) for _ in range(2)))

    denials = [answer for answer in scene.hall.run(go()) if isinstance(answer, Denial)]
    assert len(denials) == 1
    return denials[0]


def a_renewal_after_the_end(scene: Scene) -> object:
    """It was collected while the job ran, and arrives behind the report of its end."""
    grant = scene.job()
    scene.hall.hands.time += 1
    challenge = scene.hall.run(scene.hall.verifier.challenge("host"))
    evidence = scene.host.evidence(challenge, scene.intent, grant=grant.id)
    scene.hall.run(scene.host.report(grant))
    return scene.hall.run(renew(scene.hall.verifier, evidence))


def another_policy_meanwhile(scene: Scene) -> object:
    asked = scene.request()
    scene.hall.run(scene.hall.ask_for(0, 1))
    return scene.send(asked)


def protected_rules_changed(scene: Scene) -> object:
    """The rules that no operator may weaken are not those that the settings name by their digest."""
    rules = scene.hall.policies / "protected.cedar"
    rules.write_text(rules.read_text(encoding="utf-8") + "// and nothing more\n", encoding="utf-8")
    return scene.hall.run(scene.hall.load())


def no_policy_at_all(scene: Scene) -> object:
    (scene.hall.policies / "protected.cedar").unlink()
    return scene.hall.run(scene.hall.load())


def references_withdrawn(scene: Scene) -> object:
    asked = scene.request()
    scene.hall.run(scene.hall.command("refs.set-state", name="boot", state="revoked"))
    return scene.send(asked)


def rebooted_under_a_grant(scene: Scene) -> object:
    """The same system again: another boot all the same."""
    grant, pcrs = scene.job(), scene.host.tpm.pcrs
    scene.host.tpm.reboot()
    scene.host.tpm.pcrs = pcrs
    return scene.renew(grant)


def rebooted_elsewhere(scene: Scene) -> object:
    """Another system between enrolment and request."""
    scene.host.tpm.reboot()
    scene.host.tpm.extend(4, bytes(32))
    return scene.ask()


def slept(scene: Scene) -> object:
    """CVE-2018-6622: PCRs are lost in S3, and the counters say that the TPM was started again."""
    grant = scene.job()
    resets = scene.host.tpm.reset_count
    scene.host.tpm.reboot()
    scene.host.tpm.reset_count, scene.host.tpm.restart_count = resets, 1
    return scene.renew(grant)


def cleared(scene: Scene) -> object:
    """TPM2_Clear takes resetCount and clock back."""
    scene.job()
    scene.host.tpm.reset_count, scene.host.tpm.clock_ms = 0, 0
    return scene.ask()


# --- 60: what goes wrong is a no --------------------------------------------------------------------------------------


def posted(scene: Scene, path: str, body: bytes) -> httpx.Response:
    """The answer of the service's own HTTP application."""
    transport = httpx.ASGITransport(
        create_app(scene.hall.verifier, scene.hall.service.health), raise_app_exceptions=False
    )

    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="https://hall") as client:
            return await client.post(path, content=body, headers={"content-type": api.CBOR_TYPE})

    return scene.hall.run(go())


def an_unknown_record(scene: Scene) -> object:
    return scene.send(scene.request(collection={"npu0": Cmw("x", b"")}))


def no_record(scene: Scene) -> object:
    return scene.send(scene.request(collection={}))


def an_unknown_field(scene: Scene) -> object:
    challenge = scene.hall.run(scene.hall.verifier.challenge("host"))
    record = scene.host.record(challenge, scene.intent).to_bytes()
    more = bytes([record[0] + 1]) + record[1:] + b"\x18\x63\x00"  # one entry more: label 99
    return scene.send(scene._request(challenge, collection={TPM: Cmw(TPM_TYPE, more)}))


def too_late(scene: Scene) -> object:
    asked = scene.request()
    scene.hall.hands.time += 31
    return scene.send(asked)


def an_exception_of_ours(scene: Scene) -> object:
    class Broken:
        """Fails as no log should."""

        def submit(self, unit: Unit) -> Any:
            raise ZeroDivisionError

    asked = scene.request()
    scene.hall.verifier.log = Broken()
    return posted(scene, api.AUTHORIZE, asked.to_bytes())


def garbage(scene: Scene) -> object:
    return posted(scene, api.AUTHORIZE, b"\xa0")


ROWS: dict[int, tuple[str, Act, str]] = {
    24: ("one TPM under two names", one_tpm_two_names, "node.duplicate-ek"),
    25: ("another attestation key than the enrolled one", another_key_than_enrolled, "tpm.quote.signature"),
    26: ("a host that vouches for itself", a_key_of_its_own, "cose.kid"),
    54: ("a lease is asked for too late", renewed_too_late, "lease.lapsed"),
    55: ("evidence that was accepted once", the_same_again, "challenge.redeemed"),
    56: ("another policy between challenge and verdict", another_policy_meanwhile, "challenge.outdated"),
    57: ("another boot between grant and lease", rebooted_under_a_grant, "tpm.clock.rebooted"),
    60: ("a record that nobody appraises", an_unknown_record, "evidence.unknown-record"),
}
MORE: dict[str, tuple[Act, str]] = {
    "row 24: one name for two TPMs": (one_name_two_tpms, "node.duplicate-name"),
    "row 24: a retired TPM under another name": (a_retired_tpm, "node.duplicate-ek"),
    "row 25: another key than the activated one": (another_key_than_activated, "tpm.quote.signature"),
    "row 26: a name that nobody enrolled": (a_name_of_its_own, "node.unknown"),
    "row 26: a key that was not activated": (a_key_that_was_not_activated, "tpm.credential.secret"),
    "row 54: a host that changed": (renewed_by_a_host_that_changed, "tpm.pcr.mismatch"),
    "row 54: after a failed one, and a restart": (renewed_after_a_failure, "grant.revoked"),
    "row 54: too late, and a restart": (renewed_late_after_a_restart, "lease.lapsed"),
    "row 55: after a restart": (the_same_again_after_a_restart, "challenge.redeemed"),
    "row 55: for another job": (the_same_evidence_for_another_job, "challenge.redeemed"),
    "row 55: twice at once": (twice_at_once, "challenge.redeemed"),
    "row 55: a renewal after the end": (a_renewal_after_the_end, "grant.ended"),
    "row 56: protected rules that are not those pinned": (protected_rules_changed, "policy.pin"),
    "row 56: no protected rules": (no_policy_at_all, "policy.file"),
    "row 56: a reference withdrawn meanwhile": (references_withdrawn, "ref.revoked"),
    "row 57: another system": (rebooted_elsewhere, "tpm.pcr.mismatch"),
    "row 57: asleep": (slept, "tpm.clock.rebooted"),
    "row 57: a cleared TPM": (cleared, "tpm.clock.reset"),
    "row 60: no record at all": (no_record, "evidence.record"),
    "row 60: an unknown field": (an_unknown_field, "wire.unknown"),
    "row 60: an answer that comes too late": (too_late, "challenge.expired"),
    "row 60: an exception of our own": (an_exception_of_ours, "verifier.failed"),
    "row 60: garbage": (garbage, "wire.missing"),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row {row}: {ROWS[row][0]}")
def test_row(scene: Scene, row: int) -> None:
    _, act, reason = ROWS[row]
    assert reason in reasons_of(scene, act)
    assert explain(reason).code == reason


@pytest.mark.parametrize("name", MORE)
def test_variant(scene: Scene, name: str) -> None:
    act, reason = MORE[name]
    assert reason in reasons_of(scene, act)


def test_the_honest_host_gets_grant_and_lease(scene: Scene) -> None:
    leased(scene.renew(scene.job()))
    scene.enrol(stranger(scene, "second"))


def test_every_row_has_further_variants() -> None:
    assert all(any(name.startswith(f"row {row}:") for name in MORE) for row in ROWS)
