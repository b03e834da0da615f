"""The TPM-enforced lease on a TPM (swtpm), and on its stand-in: when a holder key works, and when the TPM refuses it.

The digests that the verifier computes are those of the TPM's own sessions.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from tpm2_pytss import (  # type: ignore[import-untyped]  # tpm2-pytss ships no types
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_PUBLIC,
    TPMT_SIGNATURE,
    TPMT_SYM_DEF,
    TSS2_Exception,
)

from agent.devices import Approved, DeviceError, Tpm
from agent.tpm import NO_TICKET, SIGN_SCHEME, EsysTpm, _Link, _selection
from agent.tpm_policy import TICKETS, authorised
from attestation.keys import ES256, SoftwareSigner
from attestation.tpm.identity import verify_ak, verify_holder
from attestation.tpm.policy import (
    PcrTerm,
    Terms,
    approval,
    holder_auth_policy,
    lease_policy,
    permit_policy,
    policy_public,
    policy_ref,
    sign_cp_hash,
)
from attestation.tpm.structures import ALG_ECDSA, ALG_SHA256, ALG_SHA384, Public, Signature, sized
from fixtures.attester import SoftTpm
from fixtures.swtpm import Swtpm
from tests.agent.tpms import CA

POLICY = SoftwareSigner.generate(ES256)
NAME = b"\x00\x0b" + bytes(range(32))


@pytest.fixture(scope="module")
def link() -> Iterator[_Link]:
    """An open link to a blank TPM: trial sessions need no key."""
    with Swtpm.start() as running:
        running.extend(3, b"x" * 32)
        made = _Link(running.tcti, 5.0)
        yield made
        made.close()


def trial(link: _Link, *steps: Callable[[Any], object]) -> bytes:
    """The digest to which `steps` lead a trial session."""
    null = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
    session = link.esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, null, TPM2_ALG.SHA256)
    with link.flushed(session):
        for step in steps:
            step(session)
        return bytes(link.esys.policy_get_digest(session))


def steps_of(link: _Link, terms: Terms) -> list[Callable[[Any], object]]:
    """The commands that `terms` speak of, written down independently of the agent's code."""
    esys, boot = link.esys, terms.resets.to_bytes(4, "big") + terms.restarts.to_bytes(4, "big")
    steps: list[Callable[[Any], object]] = []
    if terms.pcrs is not None:
        pcrs = terms.pcrs
        steps.append(lambda s: esys.policy_pcr(s, pcrs.digest, _selection(pcrs.bank, pcrs.pcrs)))
    steps.append(lambda s: esys.policy_counter_timer(s, terms.until.to_bytes(8, "big"), 5, 8))
    steps.append(lambda s: esys.policy_counter_timer(s, boot, 0, 16))
    if terms.cp_hash is not None:
        steps.append(lambda s: esys.policy_cp_hash(s, terms.cp_hash))
    return steps


TERMS = {
    "lease": lease_policy(bank=ALG_SHA256, pcrs=(0, 3, 7), pcr_digest=b"\x05" * 32, until=123456, resets=7, restarts=5),
    "lease over another bank": lease_policy(
        bank=ALG_SHA384,
        pcrs=tuple(range(8)),
        pcr_digest=bytes(32),
        until=2**63 - 1,
        resets=2**32 - 1,
        restarts=2**32 - 1,
    ),
    "lease without PCRs": lease_policy(bank=ALG_SHA256, pcrs=(), pcr_digest=bytes(32), until=1, resets=0, restarts=0),
    "permit": permit_policy(until=123456, resets=7, restarts=5, digest=b"\x01" * 32, key_name=NAME),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_trial_session_comes_to_the_same_digest(link: _Link, name: str) -> None:
    assert trial(link, *steps_of(link, TERMS[name])) == TERMS[name].digest


def test_an_approved_policy_is_the_holder_keys_policy(link: _Link) -> None:
    terms = TERMS["lease"]
    public, message = policy_public(POLICY.public), approval(terms, NAME)
    signature = POLICY.sign(message)
    key = link.esys.load_external(TPM2B_PUBLIC.unmarshal(sized(public.to_bytes()))[0], hierarchy=ESYS_TR.OWNER)
    with link.flushed(key):
        assert bytes(link.esys.tr_get_name(key)) == public.name
        wire = Signature(ALG_ECDSA, ALG_SHA256, (signature[:32], signature[32:])).to_bytes()
        digest = hashlib.sha256(message).digest()
        ticket = link.esys.verify_signature(key, digest, TPMT_SIGNATURE.unmarshal(wire)[0])
    reached = trial(
        link,
        lambda s: link.esys.policy_authorize(
            s, approved_policy=terms.digest, key_sign=public.name, check_ticket=ticket, policy_ref=policy_ref(NAME)
        ),
    )
    assert reached == holder_auth_policy(POLICY.public, NAME)


# --- leases and permits -----------------------------------------------------------------------------------------------

OTHER = SoftwareSigner.generate(ES256)
PCRS = tuple(range(8))
DIGEST = hashlib.sha256(b"evidence").digest()
REFUSED, AUTH = "tpm.device.policy", "tpm.device.refused"


@dataclass
class Bench:
    """A TPM with a holder key under `POLICY`, and what a verifier would say about it."""

    tpm: Tpm
    emulator: Swtpm | None
    public: Public

    def terms(self, seconds: float = 60.0, **changes: Any) -> Terms:
        """A lease over what the TPM shows now, for `seconds`."""
        clock, values = self.tpm.clock(), self.tpm.read_pcrs(ALG_SHA256, PCRS)
        honest = lease_policy(
            bank=ALG_SHA256,
            pcrs=PCRS,
            pcr_digest=hashlib.sha256(b"".join(values[pcr] for pcr in PCRS)).digest(),
            until=max(1, clock.clock + int(seconds * 1000)),
            resets=clock.reset_count,
            restarts=clock.restart_count,
        )
        return replace(honest, **changes)

    def permit(self, digest: bytes = DIGEST, seconds: float = 60.0, **changes: Any) -> Terms:
        """A permit for one digest."""
        clock = self.tpm.clock()
        until = max(1, clock.clock + int(seconds * 1000))
        resets, restarts, name = clock.reset_count, clock.restart_count, self.public.name
        honest = permit_policy(until=until, resets=resets, restarts=restarts, digest=digest, key_name=name)
        return replace(honest, **changes)

    def approve(self, terms: Terms, *, ak_name: bytes | None = None, by: SoftwareSigner = POLICY) -> Approved:
        """`terms`, signed by the policy key for this TPM."""
        return Approved(terms, by.sign(approval(terms, ak_name or self.tpm.create_ak().name)), by.public)

    def sign(self, approved: Approved | None, digest: bytes = DIGEST) -> None:
        """A signature that the holder key made."""
        signature = self.tpm.sign_as_holder(digest, approved)
        numbers = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        key = self.public.crypto_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(encode_dss_signature(*numbers), digest, ec.ECDSA(Prehashed(hashes.SHA256())))

    def refuses(self, approved: Approved | None, digest: bytes = DIGEST, reason: str = REFUSED) -> str:
        """What the TPM answered."""
        with pytest.raises(DeviceError) as refusal:
            self.sign(approved, digest)
        assert refusal.value.reason == reason
        return refusal.value.detail

    def pass_time(self, seconds: float) -> None:
        """Let the TPM's clock go on."""
        if isinstance(self.tpm, SoftTpm):
            self.tpm.clock_ms += int(seconds * 1000)
        else:
            end = self.tpm.clock().clock + int(seconds * 1000)
            while self.tpm.clock().clock < end:
                threading.Event().wait(0.02)

    def extend(self, pcr: int) -> None:
        """Somebody measures something."""
        (self.tpm if isinstance(self.tpm, SoftTpm) else _running(self.emulator)).extend(pcr, bytes(32))

    def restart(self) -> None:
        """The host reboots, and was to be resumed: its TPM counts no reset."""
        if isinstance(self.tpm, SoftTpm):
            self.tpm.restart_count += 1
        else:
            _running(self.emulator).reset(saved=True)

    def reset(self) -> None:
        """The host reboots."""
        if isinstance(self.tpm, SoftTpm):
            self.tpm.reboot()
        else:
            _running(self.emulator).reset()


def _running(emulator: Swtpm | None) -> Swtpm:
    assert emulator is not None
    return emulator


@pytest.fixture(params=["swtpm", "soft"])
def bench(request: pytest.FixtureRequest, manufactured: Path) -> Iterator[Bench]:
    """The real emulator, and the stand-in, which must not be kinder."""
    if request.param == "soft":
        soft = SoftTpm(CA)
        yield Bench(soft, None, Public.from_bytes(soft.create_holder(POLICY.public).public))
        return
    with Swtpm.start(manufactured) as emulator:
        tpm = EsysTpm(emulator.tcti, deadline=5)
        yield Bench(tpm, emulator, Public.from_bytes(tpm.create_holder(POLICY.public).public))
        tpm.close()


def test_the_key_works_under_a_lease_again_and_again(bench: Bench) -> None:
    approved = bench.approve(bench.terms())
    for digest in (DIGEST, bytes(32), DIGEST):
        bench.sign(approved, digest)


def test_a_lease_may_be_over_the_sha384_bank(bench: Bench) -> None:
    values = bench.tpm.read_pcrs(ALG_SHA384, PCRS)
    digest = hashlib.sha256(b"".join(values[pcr] for pcr in PCRS)).digest()
    bench.sign(bench.approve(bench.terms(pcrs=PcrTerm(ALG_SHA384, PCRS, digest))))
    bench.refuses(bench.approve(bench.terms(pcrs=PcrTerm(ALG_SHA384, PCRS[:-1], digest))))


def test_the_key_is_what_the_verifier_believes(bench: Bench) -> None:
    ak, key = verify_ak(bench.tpm.create_ak().public), bench.tpm.create_holder(POLICY.public)
    attested = bench.tpm.certify_holder(b"")
    holder = verify_holder(key.public, *attested, key.creation, ak=ak, policy=POLICY.public)
    assert not holder.public.has_user_auth


def test_after_the_end_of_the_lease_the_tpm_itself_refuses(bench: Bench) -> None:
    approved = bench.approve(bench.terms(0.4))
    bench.sign(approved)
    bench.pass_time(0.5)
    assert "0x126" in bench.refuses(approved)  # TPM_RC_POLICY
    bench.sign(bench.approve(bench.permit()))
    bench.sign(bench.approve(bench.terms()))


@pytest.mark.parametrize("reboot", [Bench.reset, Bench.restart])
def test_after_a_reset_the_lease_is_void_and_a_permit_works(bench: Bench, reboot: Callable[[Bench], None]) -> None:
    approved = bench.approve(bench.terms())
    bench.sign(approved)
    permit = bench.approve(bench.permit())
    reboot(bench)
    tpm = bench.tpm
    if isinstance(tpm, EsysTpm):
        with pytest.raises(DeviceError):  # the connection broke, as it does at a reboot
            tpm.clock()
    tpm.create_ak()
    assert "0x126" in bench.refuses(approved)
    assert "0x126" in bench.refuses(permit)
    bench.sign(bench.approve(bench.permit()))


@pytest.mark.parametrize("pcr", [0, 4, 7])
def test_after_a_pcr_changed_the_lease_is_void(bench: Bench, pcr: int) -> None:
    approved = bench.approve(bench.terms())
    bench.sign(approved)
    bench.extend(pcr)
    bench.refuses(approved)
    bench.sign(bench.approve(bench.permit()))


def test_a_pcr_that_moves_while_a_system_runs_is_no_matter(bench: Bench) -> None:
    approved = bench.approve(bench.terms())
    bench.extend(10)
    bench.sign(approved)


Spoil = Callable[[Bench], Approved | None]
OTHER_AK = b"\x00\x0b" + bytes(32)
REFUSALS: dict[str, tuple[Spoil, str]] = {
    "nothing approved": (lambda b: None, AUTH),
    "a lease that has ended": (lambda b: b.approve(b.terms(-1)), REFUSED),
    "a lease for another boot": (lambda b: b.approve(b.terms(resets=b.tpm.clock().reset_count + 1)), REFUSED),
    "a lease for the boot before": (lambda b: b.approve(b.terms(resets=b.tpm.clock().reset_count - 1)), REFUSED),
    "a lease over other PCR values": (
        lambda b: b.approve(b.terms(pcrs=PcrTerm(ALG_SHA256, PCRS, bytes(32)))),
        REFUSED,
    ),
    "a lease for another TPM": (lambda b: b.approve(b.terms(), ak_name=OTHER_AK), REFUSED),
    "a lease by another key": (lambda b: b.approve(b.terms(), by=OTHER), REFUSED),
    "a lease whose end was moved": (
        lambda b: b.approve(b.terms())._replace(terms=b.terms(seconds=3600)),
        REFUSED,
    ),
    "a lease whose PCRs were dropped": (lambda b: b.approve(b.terms())._replace(terms=b.terms(pcrs=None)), REFUSED),
    "a lease with another one's signature": (
        lambda b: b.approve(b.terms())._replace(signature=b.approve(b.permit()).signature),
        REFUSED,
    ),
    "a signature of zeros": (lambda b: b.approve(b.terms())._replace(signature=bytes(64)), REFUSED),
    "a signature with one bit flipped": (
        lambda b: b.approve(t := b.terms())._replace(signature=flipped(b.approve(t).signature)),
        REFUSED,
    ),
    "a permit for another digest": (lambda b: b.approve(b.permit(bytes(32))), REFUSED),
    "a permit for another key": (
        lambda b: b.approve(b.permit(cp_hash=sign_cp_hash(OTHER_AK, DIGEST))),
        REFUSED,
    ),
    "a permit that has ended": (lambda b: b.approve(b.permit(seconds=-1)), REFUSED),
    "a permit for another boot": (lambda b: b.approve(b.permit(resets=77)), REFUSED),
    "a permit for another TPM": (lambda b: b.approve(b.permit(), ak_name=OTHER_AK), REFUSED),
    "a permit by another key": (lambda b: b.approve(b.permit(), by=OTHER), REFUSED),
    "a permit made wider": (lambda b: b.approve(b.permit())._replace(terms=b.permit(cp_hash=None)), REFUSED),
}


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("name", REFUSALS)
def test_the_tpm_refuses(bench: Bench, name: str) -> None:
    spoil, reason = REFUSALS[name]
    bench.refuses(spoil(bench), reason=reason)
    bench.sign(bench.approve(bench.terms()))  # nothing is left behind that would be in the way


def test_a_permit_that_was_used_is_good_for_nothing_else(bench: Bench) -> None:
    permit = bench.approve(bench.permit())
    bench.sign(permit)
    bench.refuses(permit, bytes(32))
    bench.sign(permit)  # the same digest: nothing that was not permitted
    bench.pass_time(0.1)
    bench.refuses(bench.approve(bench.permit(seconds=0.0)))


def test_a_plain_key_needs_nothing_and_obeys_no_lease(bench: Bench) -> None:
    bench.public = Public.from_bytes(bench.tpm.create_holder().public)
    bench.sign(None)
    bench.refuses(bench.approve(bench.terms()))


def test_a_key_of_another_verifier_does_not_obey_this_one(bench: Bench) -> None:
    bench.public = Public.from_bytes(bench.tpm.create_holder(OTHER.public).public)
    bench.refuses(bench.approve(bench.terms()))
    bench.sign(bench.approve(bench.terms(), by=OTHER))


def test_nothing_stays_loaded(manufactured: Path) -> None:
    """At most three objects: the two keys, and the policy key for a moment; no session is left, whatever happens."""
    with Swtpm.start(manufactured) as emulator:
        tpm = EsysTpm(emulator.tcti, deadline=5)
        bench = Bench(tpm, emulator, Public.from_bytes(tpm.create_holder(POLICY.public).public))
        approved = bench.approve(bench.terms())
        bench.sign(approved)
        held = emulator.proxy.loaded()
        assert len(held) == 2
        for spoil, reason in REFUSALS.values():
            bench.refuses(spoil(bench), reason=reason)
        for _ in range(6):  # more than tickets are kept
            bench.sign(bench.approve(bench.terms()))
        assert emulator.proxy.loaded() == held
        tpm.close()
        assert emulator.proxy.loaded() == []


def test_a_broken_connection_is_told_as_such(manufactured: Path) -> None:
    with Swtpm.start(manufactured) as emulator:
        tpm = EsysTpm(emulator.tcti, deadline=5)
        bench = Bench(tpm, emulator, Public.from_bytes(tpm.create_holder(POLICY.public).public))
        approved = bench.approve(bench.terms())
        emulator.proxy.answers += [0, 0, None]
        bench.refuses(approved, reason="tpm.device.io")
        bench.sign(approved)
        emulator.proxy.answers += [0x922, 0x922]  # TPM_RC_RETRY: busy is not refused
        bench.sign(approved)
        tpm.close()


def test_only_a_few_tickets_are_kept_and_each_lease_is_verified_once(manufactured: Path) -> None:
    with Swtpm.start(manufactured) as emulator:
        tpm = EsysTpm(emulator.tcti, deadline=5)
        bench = Bench(tpm, emulator, Public.from_bytes(tpm.create_holder(POLICY.public).public))
        first = bench.approve(bench.terms())
        for _ in range(2):
            bench.sign(first)
            assert tpm._call(lambda link: list(link.tickets)) == [first]
        for _ in range(TICKETS):
            bench.sign(bench.approve(bench.terms()))
        held = tpm._call(lambda link: list(link.tickets))
        assert (len(held), first in held) == (TICKETS, False)
        tpm.close()


def test_a_session_that_was_made_ready_in_time_is_good_for_one_use(manufactured: Path) -> None:
    """A limit that the documents state: a TPM looks at its clock when a term is asserted, at PCRs at use as well."""
    with Swtpm.start(manufactured) as emulator:
        tpm = EsysTpm(emulator.tcti, deadline=5)
        blob = tpm.create_holder(POLICY.public).blob
        bench = Bench(tpm, emulator, Public.from_bytes(tpm.load_holder(blob).public))
        link = _Link(emulator.tcti, 5.0)

        def uses(approved: Approved, meanwhile: Callable[[], object]) -> int:
            """How often a session is good that was made ready under `approved` before `meanwhile`."""
            count = 0
            with authorised(link, approved) as session:
                meanwhile()
                with link.flushed(link.primary(ESYS_TR.OWNER, Public.from_bytes(blob))[0]) as key:
                    for count in range(3):  # noqa: B007 - counted
                        try:
                            link.esys.sign(key, DIGEST, SIGN_SCHEME, NO_TICKET, session1=session)
                        except TSS2_Exception:
                            break
            return count

        ends, stays = bench.approve(bench.terms(0.3)), bench.approve(bench.terms())
        tpm.close()  # the emulator has three places for keys
        tpm = bench.tpm = EsysTpm(emulator.tcti, deadline=5)
        assert uses(ends, lambda: bench.pass_time(0.4)) == 1
        with pytest.raises(DeviceError, match="0x126"):
            uses(ends, lambda: None)
        assert uses(stays, lambda: bench.extend(4)) == 0
        link.close()
        tpm.close()
