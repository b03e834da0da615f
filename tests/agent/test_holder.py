"""The holder key at work: under the leases in force, else by permits, and never otherwise."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.client import Rejected, Unreachable
from agent.codes import FAILED
from agent.deliver import deliver
from agent.devices import DeviceError
from agent.enrol import enrol
from agent.holder import Holder
from agent.host import Host
from agent.state import State
from attestation.challenge import Challenge
from attestation.cose import ES256, SoftwareSigner
from attestation.errors import Untrusted
from attestation.lease import Lease
from attestation.permit import Permit, PermitRequest, permit_qualifying
from attestation.problem import Problem
from attestation.tpm.attest import Attest, QuoteInfo
from attestation.tpm.enforced import terms_of
from attestation.tpm.policy import approval, permit_policy
from attestation.tpm.quote import CODES
from attestation.tpm.structures import ALG_SHA256, Public
from fixtures.attester import SoftTpm
from tests.agent.house import House
from tests.agent.test_run import POLITE
from tests.attestation.examples import ENFORCED, LEASE, TPM_LEASE
from tests.verifier.hall import CA

POLICY = SoftwareSigner.generate(ES256)
CHALLENGE = Challenge(expires_in=30, bank=ALG_SHA256, audience="v", pcrs=(0, 4, 7), issued=1, nonce=b"n" * 32)
OWN = replace(CHALLENGE, nonce=b"o" * 32)


class Desk:
    """Gives permits, and remembers what it was asked."""

    def __init__(self, tpm: SoftTpm, policy: SoftwareSigner = POLICY) -> None:
        self.tpm, self.policy = tpm, policy
        self.asked: list[PermitRequest] = []
        self.challenges = 0

    def challenge(self, node: str) -> Challenge:
        assert node == "host"
        self.challenges += 1
        return OWN

    def permit(self, request: PermitRequest) -> Permit:
        self.asked.append(request)
        until, resets, restarts = self.tpm.clock_ms + 30_000, self.tpm.reset_count, self.tpm.restart_count
        name = self.tpm.present.name
        terms = permit_policy(until=until, resets=resets, restarts=restarts, digest=request.digest, key_name=name)
        signature = self.policy.sign(approval(terms, self.tpm.ak.name))
        return Permit(until=until, resets=resets, restarts=restarts, signature=signature)


@pytest.fixture
def tpm() -> SoftTpm:
    return SoftTpm(CA)


@pytest.fixture
def desk(tpm: SoftTpm) -> Desk:
    return Desk(tpm)


@pytest.fixture
def holder(tpm: SoftTpm, desk: Desk) -> Holder:
    return Holder(tpm, tpm.create_holder(POLICY.public), policy=POLICY.public, node="host", permits=desk)


def lease(tpm: SoftTpm, *, until: int = 60_000) -> Lease:
    """A lease over what the TPM shows."""
    values = b"".join(tpm.pcrs[ALG_SHA256][pcr] for pcr in range(8))
    said = replace(
        TPM_LEASE,
        pcr_digest=hashlib.sha256(values).digest(),
        until=tpm.clock_ms + until,
        resets=tpm.reset_count,
        restarts=tpm.restart_count,
    )
    return replace(ENFORCED, tpm=said)


def approve(tpm: SoftTpm, made: Lease, by: SoftwareSigner = POLICY) -> bytes:
    assert made.tpm is not None
    return by.sign(approval(terms_of(made.tpm), tpm.ak.name))


def adopt(holder: Holder, tpm: SoftTpm, made: Lease) -> None:
    holder.adopt(made, approve(tpm, made))


def check(holder: Holder, message: bytes, signature: bytes) -> None:
    holder.public.verify(message, signature)


def test_under_a_lease_nobody_is_asked(holder: Holder, tpm: SoftTpm, desk: Desk) -> None:
    adopt(holder, tpm, lease(tpm))
    for message in (b"evidence", b"report"):
        check(holder, message, holder.sign(message))
    check(holder, b"answer", holder.answering(CHALLENGE).sign(b"answer"))
    assert (desk.asked, desk.challenges) == ([], 0)


def test_without_a_lease_each_signature_has_its_own_permit(holder: Holder, tpm: SoftTpm, desk: Desk) -> None:
    for message in (b"one", b"other"):
        check(holder, message, holder.sign(message))
    assert (len(desk.asked), desk.challenges) == (2, 2)
    digests = [hashlib.sha256(message).digest() for message in (b"one", b"other")]
    assert [request.digest for request in desk.asked] == digests
    quote = Attest.from_bytes(desk.asked[0].quote, QuoteInfo, CODES)
    assert quote.extra_data == permit_qualifying(OWN.nonce, digests[0])


def test_what_answers_a_challenge_is_permitted_by_it(holder: Holder, desk: Desk) -> None:
    signer = holder.answering(CHALLENGE)
    signer.public.verify(b"evidence", signer.sign(b"evidence"))
    assert ([request.nonce for request in desk.asked], desk.challenges) == ([CHALLENGE.nonce], 0)


def test_when_the_tpm_refuses_the_lease_a_permit_is_asked_for(holder: Holder, tpm: SoftTpm, desk: Desk) -> None:
    adopt(holder, tpm, lease(tpm))
    holder.sign(b"in time")
    tpm.clock_ms += 60_000
    check(holder, b"late", holder.sign(b"late"))
    assert len(desk.asked) == 1
    assert holder.held is None
    adopt(holder, tpm, lease(tpm))
    holder.sign(b"in time again")
    assert len(desk.asked) == 1


@pytest.mark.parametrize("cause", ["reboot", "pcr"])
def test_a_boot_that_changed_ends_the_lease(holder: Holder, tpm: SoftTpm, desk: Desk, cause: str) -> None:
    adopt(holder, tpm, lease(tpm))
    tpm.reboot() if cause == "reboot" else tpm.extend(4, bytes(32))
    check(holder, b"evidence", holder.sign(b"evidence"))
    assert len(desk.asked) == 1


def test_of_several_leases_the_one_that_ends_last_is_used(holder: Holder, tpm: SoftTpm, desk: Desk) -> None:
    first, short = lease(tpm), lease(tpm, until=10)
    adopt(holder, tpm, first)
    adopt(holder, tpm, short)
    tpm.clock_ms += 100
    holder.sign(b"evidence")
    assert (desk.asked, holder.held and holder.held.terms) == ([], terms_of(first.tpm or TPM_LEASE))


def test_a_lease_of_another_boot_does_not_stand_in_the_way(holder: Holder, tpm: SoftTpm) -> None:
    adopt(holder, tpm, lease(tpm, until=10**9))
    tpm.reboot()
    adopt(holder, tpm, made := lease(tpm))
    assert holder.held is not None
    assert holder.held.terms == terms_of(made.tpm or TPM_LEASE)


def test_a_plain_key_signs_and_takes_no_lease(tpm: SoftTpm) -> None:
    plain = Holder(tpm, tpm.create_holder())
    assert not plain.is_enforced
    check(plain, b"evidence", plain.sign(b"evidence"))
    assert plain.adopt(LEASE, None) is None
    with pytest.raises(Untrusted, match=r"lease\.tpm"):
        plain.adopt(ENFORCED, bytes(64))


REFUSED = {
    "a lease that binds nothing": (LEASE, None, "lease.tpm"),
    "zeros": (ENFORCED, bytes(64), "lease.approval"),
    "another key's": (ENFORCED, SoftwareSigner.generate(ES256), "lease.approval"),
    "of other terms": (replace(ENFORCED, tpm=replace(TPM_LEASE, until=1)), POLICY, "lease.approval"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_approval_that_is_not_one_is_refused(holder: Holder, tpm: SoftTpm, name: str) -> None:
    made, signed, reason = REFUSED[name]
    signature = approve(tpm, ENFORCED, signed) if isinstance(signed, SoftwareSigner) else signed
    with pytest.raises(Untrusted) as refusal:
        holder.adopt(made, signature)
    assert refusal.value.reason == reason
    assert holder.held is None


def test_an_approval_for_another_tpm_is_refused(holder: Holder) -> None:
    with pytest.raises(Untrusted, match=r"lease\.approval"):
        holder.adopt(ENFORCED, approve(SoftTpm(CA), ENFORCED))


def test_a_permit_by_another_key_is_refused_before_the_tpm_sees_it(tpm: SoftTpm) -> None:
    key = tpm.create_holder(POLICY.public)
    impostor = Desk(tpm, SoftwareSigner.generate(ES256))
    holder = Holder(tpm, key, policy=POLICY.public, node="host", permits=impostor)
    with pytest.raises(Untrusted, match=r"lease\.approval"):
        holder.sign(b"evidence")


def test_without_a_policy_key_or_a_verifier_nothing_is_signed(tpm: SoftTpm, desk: Desk) -> None:
    key = tpm.create_holder(POLICY.public)
    with pytest.raises(DeviceError, match=r"nobody gives permits"):
        Holder(tpm, key).sign(b"evidence")
    with pytest.raises(Untrusted, match=r"no policy key"):
        Holder(tpm, key, node="host", permits=desk).sign(b"evidence")


def test_a_tpm_that_fails_is_not_taken_for_a_lapse(holder: Holder, tpm: SoftTpm, desk: Desk) -> None:
    adopt(holder, tpm, lease(tpm))
    tpm.closed = True
    with pytest.raises(DeviceError, match=r"tpm\.device\.closed"):
        holder.sign(b"evidence")
    assert (holder.held is not None, desk.asked) == (True, [])


# --- with a verifier --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as made:
        yield made


def permits(house: House) -> float:
    """How many the verifier has given."""
    return house.hall.verifier.metrics.permits._value.get()  # type: ignore[no-any-return]  # the library's own


def test_a_run_needs_one_permit_and_signs_its_report_under_the_lease(house: House) -> None:
    house.host.holder._held = None
    before = permits(house)
    ended = house.submit().end()
    assert (ended.exit_code, permits(house) - before) == (0, 1.0)
    assert house.host.holder.held is not None
    house.submit().end()
    assert permits(house) - before == 1.0, "the lease of the first job is still in force"


def test_after_a_reboot_the_next_run_is_permitted(house: House) -> None:
    house.submit().end()
    before = permits(house)
    house.tpm.reboot()
    ended = house.submit().end()
    assert (ended.exit_code, permits(house) - before) == (0, 1.0)


def test_a_restarted_agent_signs_again(house: House) -> None:
    host = house.host
    fresh = Holder(
        house.tpm,
        house.tpm.load_holder(host.enrolment.holder_blob),
        policy=host.enrolment.policy_key,
        node=host.enrolment.node,
        permits=host.verifier,
    )
    check(fresh, b"report", fresh.sign(b"report"))


def test_a_report_waits_unsigned_for_the_verifier_and_is_signed_by_permit(house: House) -> None:
    job = house.submit(POLITE)
    job.until("started")
    (here,) = house.host.jobs.all()
    house.close_verifier()
    try:
        house.host.holder._held = None  # as after the end of the lease
        assert here.governed is not None
        here.governed.signal(15)
        ended = job.end()
        assert [cti for cti, _ in house.host.journal.unsigned()] == [ended.grant]
        assert house.host.journal.undelivered() == []
        with pytest.raises(Unreachable):
            house.host.holder.sign(b"report")
        assert not deliver(house.host)
    finally:
        house.open_verifier()
    before = permits(house)
    assert deliver(house.host)
    assert permits(house) - before == 1.0
    assert (house.host.journal.unsigned(), house.host.journal.undelivered()) == ([], [])


def test_a_report_outlives_another_policy_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verifier permits nothing until the host is enrolled again. What a job came to is not forgotten meanwhile."""
    job = house.submit(POLITE)
    job.until("started")
    (here,) = house.host.jobs.all()

    def refuse(request: PermitRequest) -> Permit:
        raise Rejected(Problem.of(403, "node.policy-key"))

    with monkeypatch.context() as patched:
        patched.setattr(house.host.verifier, "permit", refuse)
        house.host.holder._held = None
        patched.setattr(house.host.holder, "adopt", lambda *_: None)
        assert here.governed is not None
        here.governed.signal(15)
        ended = job.end()
        assert not deliver(house.host)
        assert [cti for cti, _ in house.host.journal.unsigned()] == [ended.grant]
    assert deliver(house.host)
    assert (house.host.journal.unsigned(), house.host.journal.undelivered()) == ([], [])
    assert "reports_rejected" not in {name for name, n in house.host.counters.as_dict().items() if n}


def test_a_retired_host_signs_nothing_any_more(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.submit().end()
        house.host.holder._held = None
        house.command("node.set-state", node="host", state="retired", why="a test")
        with pytest.raises(Rejected, match=r"permit\.retired"):
            house.host.holder.sign(b"report")
        ended = house.submit().end()
        assert (ended.exit_code, ended.reason) == (FAILED, "permit.retired")


def test_a_host_with_a_plain_key_is_denied_where_the_policy_requires_leases(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        made = house.command("token.create", node="host", reenrol=True, activate=True)
        state = State(house.settings.state)
        url = f"https://127.0.0.1:{house.port}"
        enrolment, _ = enrol(made["token"], url, house.tpm, state, tpm_lease=False)
        assert Public.from_bytes(enrolment.holder_public).has_user_auth
        house.host.close()
        house.tpm.closed = False
        house.host = Host.open(house.settings, house.tpm)
        ended = house.submit().end()
        assert (ended.exit_code, ended.reason) == (71, "policy.required.tpm-lease")
        settings = house.hall.policies / "settings.toml"
        settings.write_text(settings.read_text().replace('tpm-lease = "required"', 'tpm-lease = "unchecked"'))
        house.operate("load")
        assert house.submit().end().exit_code == 0
