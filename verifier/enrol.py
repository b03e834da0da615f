"""Enrolment: a host becomes a node. The only place where keys of a host are believed for the first time.

``begin``, the host says who it is:
 1. The token was issued here, is not used and not expired; it gives the name and the pool.
 2. The EK certificate chains to a trust anchor of the policy, over intermediates that came along or that the operator
    keeps, and is not revoked by the lists that are kept of its issuers; its key is the EK offered.
 3. The AK has every attribute of an attestation key.
 4. The holder key is certified by that AK. Unless it is a plain key, it obeys this verifier's policy key in this TPM.
 5. The name and the EK are free; where the name exists, this token was made to enrol exactly that TPM again.
    A node in quarantine stays there, whatever its token says: only the operator moves it.
    Then a credential is made that only the TPM with this EK *and* this AK opens.

``finish``, the host proves it:
 6. The session is used up, whatever comes: one attempt, within a minute.
 7. The secret is the one that was put into the credential.
 8. The first quote, by that AK, carries the challenge's nonce: it gives firmware, counters and PCR values. The
    firmware is none that its manufacturer has withdrawn.
 9. One unit: the token is used, the node is there, its record is in the log.

The keys that activation proved are the keys that go into the record, without a detour through the host (CVE-2022-1053).
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from attestation.enrol import EnrolChallenge, Enrolled, EnrolProof, EnrolRequest
from attestation.errors import Untrusted
from attestation.evidence import TpmRecord
from attestation.keys import PublicKey
from attestation.log import Record
from attestation.node import ClockRecord, NodeRecord
from attestation.tpm.advisories import check_firmware
from attestation.tpm.credential import make_credential, verify_secret
from attestation.tpm.ekcert import trim_der
from attestation.tpm.identity import Ek, verify_ak, verify_ek, verify_holder
from attestation.tpm.quote import Quote, verify_quote
from attestation.tpm.structures import Public
from attestation.tpm.wrapping import ENTROPY_SIZE
from attestation.wire import Wire, label, wire
from verifier.anchors import Anchors
from verifier.changes import PutActivation, PutNode, ReplaceNode, TakeActivation, TouchClock, Unit, UseToken
from verifier.issue import put_blobs
from verifier.state import Verifier, digests_of

SESSION_SECONDS = 60


@wire
class Session(Wire):
    """An enrolment that waits for its proof: what was offered, and what has to come back."""

    MAX_SIZE = 1 << 20

    request: bytes = label(1, most=EnrolRequest.MAX_SIZE)
    secret: bytes = label(2, size=32)
    nonce: bytes = label(3, size=32)
    bank: int = label(4, high=0xFFFF)
    pcrs: tuple[int, ...] = label(5, high=23, most=24, ordered=True)
    anchors: bytes = label(6, size=32)


async def begin(verifier: Verifier, request: EnrolRequest) -> EnrolChallenge:
    """Look at what a host says it is, and challenge it to prove it. Raises ``Malformed`` or ``Untrusted``."""
    now, settings = verifier.clock.now(), verifier.in_force().policy.settings
    anchors = verifier.active("anchors")
    ticket = _ticket(verifier, request.secret, now)  # (1)
    ek = _identify(verifier, request, anchors)  # (2) (3) (4)
    _check_free(verifier, ticket.name, ek)  # (5)
    secret, nonce, session = verifier.entropy(32), verifier.entropy(32), verifier.entropy(16)
    credential = make_credential(ek, verify_ak(request.ak_public), secret, entropy=verifier.entropy(ENTROPY_SIZE))
    waiting = Session(
        request=request.to_bytes(),
        secret=secret,
        nonce=nonce,
        bank=settings.bank,
        pcrs=settings.pcrs,
        anchors=anchors,
    )
    await verifier.commit(Unit((PutActivation(session, waiting.to_bytes(), now + SESSION_SECONDS),)))
    return EnrolChallenge(
        session=session,
        id_object=credential.id_object,
        encrypted_secret=credential.encrypted_secret,
        nonce=nonce,
        bank=settings.bank,
        pcrs=settings.pcrs,
    )


async def finish(verifier: Verifier, proof: EnrolProof) -> Enrolled:
    """Look at the proof; the host is a node then. Raises ``Malformed`` or ``Untrusted``; the session is gone anyway."""
    now, waiting = verifier.clock.now(), verifier.store.activation(proof.session)
    await verifier.commit(Unit((TakeActivation(proof.session, now),)))  # (6)
    if waiting is None:
        raise Untrusted("enrol.session-unknown", "the session was used meanwhile")
    session = Session.from_bytes(waiting)
    request = EnrolRequest.from_bytes(session.request)
    verify_secret(proof.secret, session.secret)  # (7)
    quote = verify_quote(  # (8)
        proof.quote,
        proof.signature,
        ak=verify_ak(request.ak_public),
        qualifying=session.nonce,
        bank=session.bank,
        pcrs=session.pcrs,
        values=proof.pcrs,
    )
    return await _admit(verifier, session, request, quote, now)  # (9)


def token_digest(secret: bytes, state: str) -> bytes:
    """Under what an enrolment token is known: its secret and the state that its node gets. The secret is not kept."""
    return hashlib.sha256(b"interlock/enrol/" + state.encode() + b"/" + secret).digest()


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A token that may be used now."""

    digest: bytes
    name: str
    pool: str
    state: str


def _ticket(verifier: Verifier, secret: bytes, now: int) -> _Ticket:
    for state in ("pending", "active"):
        digest = token_digest(secret, state)
        token = verifier.store.token(digest)
        if token is not None and token.used is not None:
            raise Untrusted("enrol.token-used", f"the token for {token.name} was used before")
        if token is not None and token.expires <= now:
            raise Untrusted("enrol.token-expired", f"the token for {token.name} has expired")
        if token is not None:
            return _Ticket(digest, token.name, token.pool, state)
    raise Untrusted("enrol.token-unknown", "this verifier did not issue that token")


def _identify(verifier: Verifier, request: EnrolRequest, anchors: bytes) -> Ek:
    """Steps 2 to 4."""
    kept, at = Anchors.from_bytes(verifier.document(anchors)), verifier.clock.now()
    leaf = trim_der(request.ek_certificate)
    above = kept.above(leaf, request.intermediates)
    ek = verify_ek(
        request.ek_certificate,
        request.ek_public,
        above,
        kept.to_anchors(),
        at=datetime.fromtimestamp(at, UTC),
        crls=kept.lists((leaf, *above)),
    )
    verify_holder(
        request.holder_public,
        request.certify,
        request.certify_signature,
        request.creation,
        ak=verify_ak(request.ak_public),
        policy=_policy_key(verifier, request),
    )
    return ek


def _policy_key(verifier: Verifier, request: EnrolRequest) -> PublicKey | None:
    """The policy key that the holder key obeys; None for a plain key, which a policy may refuse (check tpm-lease)."""
    return None if Public.from_bytes(request.holder_public).has_user_auth else verifier.keys.policy.public


def _check_free(verifier: Verifier, name: str, ek: Ek) -> bool:
    """Step 5: whether this TPM is enrolled again under its own name; else name and EK must both be new."""
    same_ek, same_name = verifier.store.node_by_ek(ek.digest), verifier.store.node(name)
    if same_ek is not None and same_ek.name != name:
        raise Untrusted("node.duplicate-ek", f"this TPM is enrolled as {same_ek.name}")
    if same_name is not None and same_name.ek_digest != ek.digest:
        raise Untrusted("node.duplicate-name", f"{name} is enrolled with another TPM")
    return same_name is not None


async def _admit(verifier: Verifier, session: Session, request: EnrolRequest, quote: Quote, now: int) -> Enrolled:
    """Step 9."""
    ticket, ek = _ticket(verifier, request.secret, now), _identify(verifier, request, session.anchors)
    check_firmware(ek.description.identifier, quote.firmware)  # (8)
    again = _check_free(verifier, ticket.name, ek)
    policy = _policy_key(verifier, request)
    node = replace(_node(ticket, request, ek, quote, now), policy=None if policy is None else policy.spki)
    archive = {"node": node.to_bytes(), "evidence": _first_evidence(request, quote).to_bytes()}
    named = digests_of(archive)
    put = (ReplaceNode if again else PutNode)(
        name=node.name,
        ek_digest=node.ek_digest,
        holder=Public.from_bytes(node.holder_public).key.thumbprint,
        state=node.state,
        pool=node.pool,
        record=archive["node"],
    )
    record = Record(
        kind="enrol",
        time=now,
        outcome="enrolled again" if again else "enrolled",
        digests={**named, "anchors": session.anchors},
        node=node.name,
        detail=f"pool {node.pool}, {node.state}, assurance {node.assurance} ({node.anchor})",
    )
    touch = TouchClock(node.name, _clock(quote))
    unit = Unit((UseToken(ticket.digest, now), put, touch, *put_blobs(archive, named)), (record,))
    (logged,) = await verifier.commit(unit)
    verifier.watch.notify(node.name)
    return Enrolled(node=node.name, pool=node.pool, state=verifier.node(node.name).state, receipt=logged.receipt)


def _node(ticket: _Ticket, request: EnrolRequest, ek: Ek, quote: Quote, now: int) -> NodeRecord:
    return NodeRecord(
        name=ticket.name,
        pool=ticket.pool,
        state=ticket.state,
        ek_digest=ek.digest,
        ek_certificate=ek.certificate,
        ek_public=request.ek_public,
        ak_public=request.ak_public,
        holder_public=request.holder_public,
        firmware=quote.firmware,
        anchor=ek.anchor.name,
        assurance=ek.anchor.assurance,
        enrolled=now,
        clock=_clock(quote),
    )


def _clock(quote: Quote) -> ClockRecord:
    now = quote.clock
    return ClockRecord(clock=now.clock, resets=now.reset_count, restarts=now.restart_count, safe=now.safe)


def _first_evidence(request: EnrolRequest, quote: Quote) -> TpmRecord:
    """What enrolment proved, as evidence is archived: the first quote, and the certification of the holder key."""
    return TpmRecord(
        quote=quote.attest,
        signature=quote.signature,
        bank=quote.bank,
        pcrs=quote.pcrs,
        holder_public=request.holder_public,
        certify=request.certify,
        certify_signature=request.certify_signature,
        creation=request.creation,
    )
