"""The holder key at work: a signer that signs under the leases in force, and else asks the verifier for a permit.

Rules (attestation.tpm.policy says what the TPM enforces):
1. A plain key signs at once; nobody is asked.
2. A key that obeys leases signs under the lease of all jobs that ends last. Whether it is in force is for the TPM to
   say: one that the TPM refuses is forgotten.
3. Where there is none, a permit is asked for, with a quote that commits to the digest to be signed: for evidence by
   the challenge that it answers, for anything else by a challenge of its own. It is good for this signature only.
4. What the verifier signed is checked against the pinned policy key before the TPM sees it.

Leases are not kept across a restart of the agent: jobs are not revived, so there is none to be continued.
"""

import hashlib
import threading
from typing import Final, Protocol

from agent.devices import Approved, Attested, DeviceError, HolderKey, Tpm
from attestation.challenge import Challenge
from attestation.cose import PublicKey, Signer
from attestation.errors import Untrusted
from attestation.lease import Lease
from attestation.permit import Permit, PermitRequest, permit_qualifying
from attestation.tpm.enforced import terms_of, verify_approval
from attestation.tpm.policy import permit_policy
from attestation.tpm.structures import Public

REFUSED: Final = "tpm.device.policy"


class Permits(Protocol):
    """Who gives permits: the verifier (agent.client)."""

    def challenge(self, node: str) -> Challenge:
        """A fresh challenge."""
        ...

    def permit(self, request: PermitRequest) -> Permit:
        """The permit for one digest."""
        ...


class Holder:
    """The holder key of this host as a node; a COSE signer, safe to use from several threads.

    ``policy`` is the pinned policy key, ``node`` this host's name, ``permits`` the verifier. ``Malformed`` or
    ``DeviceError`` where the TPM does not certify the key.
    """

    def __init__(
        self,
        tpm: Tpm,
        key: HolderKey,
        *,
        policy: PublicKey | None = None,
        node: str = "",
        permits: Permits | None = None,
    ) -> None:
        self.key = key
        self.certified: Attested = tpm.certify_holder(b"")
        self._tpm, self._node = tpm, node
        self._object = Public.from_bytes(key.public)
        self._ak_name = tpm.create_ak().name
        self._policy, self._permits = policy, permits
        self._lock = threading.Lock()
        self._held: Approved | None = None

    @property
    def public(self) -> PublicKey:
        """The public key."""
        return self._object.key

    @property
    def is_enforced(self) -> bool:
        """Whether the TPM lets the key sign under a lease or a permit only."""
        return not self._object.has_user_auth

    def sign(self, message: bytes) -> bytes:
        """ES256 over ``message``. Raises ``DeviceError``, and what asking for a permit raises (:mod:`agent.client`)."""
        return self._sign(message, None)

    def answering(self, challenge: Challenge) -> Signer:
        """A signer for what answers ``challenge``: permits are asked for by this challenge."""
        return _Answering(self, challenge)

    def adopt(self, lease: Lease, approval: bytes | None) -> Approved | None:
        """Sign under ``lease``, whose token carried ``approval``, from now on; what may be used with the TPM meanwhile.

        Raises ``Untrusted``: ``lease.tpm`` where the lease does not bind this key, or binds one that obeys none;
        ``lease.approval`` for a signature that is not the policy key's for this TPM.
        """
        if (lease.tpm is not None) != self.is_enforced:
            raise Untrusted("lease.tpm", "lease and holder key disagree about who enforces the lease")
        if lease.tpm is None or approval is None:
            return None
        approved = Approved(terms_of(lease.tpm), approval, self._key)
        verify_approval(approved.terms, approval, key=approved.key, ak_name=self._ak_name)
        with self._lock:
            held = self._held
            if held is None or _end(held) < _end(approved):
                self._held = approved
        return approved

    @property
    def held(self) -> Approved | None:
        """The lease that ends last among those adopted and not refused by the TPM since; None for a plain key."""
        with self._lock:
            return self._held

    @property
    def _key(self) -> PublicKey:
        if self._policy is None:
            raise Untrusted("lease.tpm", "no policy key is pinned")
        return self._policy

    def _sign(self, message: bytes, challenge: Challenge | None) -> bytes:
        digest = hashlib.sha256(message).digest()
        if not self.is_enforced:
            return self._tpm.sign_as_holder(digest)
        held = self.held
        if held is not None:
            try:
                return self._tpm.sign_as_holder(digest, held)
            except DeviceError as error:
                if error.reason != REFUSED:
                    raise
                with self._lock:
                    self._held = None if self._held is held else self._held
        return self._tpm.sign_as_holder(digest, self._permit(digest, challenge))

    def _permit(self, digest: bytes, challenge: Challenge | None) -> Approved:
        """What the verifier approves of signing ``digest`` (rule 3)."""
        if self._permits is None:
            raise DeviceError(REFUSED, "no lease is in force, and nobody gives permits")
        asked = challenge or self._permits.challenge(self._node)
        values = self._tpm.read_pcrs(asked.bank, asked.pcrs)
        quote = self._tpm.quote(permit_qualifying(asked.nonce, digest), asked.bank, asked.pcrs)
        request = PermitRequest(
            nonce=asked.nonce, digest=digest, quote=quote.attest, signature=quote.signature, pcrs=dict(values)
        )
        given = self._permits.permit(request)
        terms = permit_policy(
            until=given.until,
            resets=given.resets,
            restarts=given.restarts,
            digest=digest,
            key_name=self._object.name,
        )
        verify_approval(terms, given.signature, key=self._key, ak_name=self._ak_name)
        return Approved(terms, given.signature, self._key)


class _Answering:
    """The holder key, signing what answers one challenge."""

    def __init__(self, holder: Holder, challenge: Challenge) -> None:
        self._holder, self._challenge = holder, challenge

    @property
    def public(self) -> PublicKey:
        """The public key."""
        return self._holder.public

    def sign(self, message: bytes) -> bytes:
        """ES256 over ``message``, as :meth:`Holder.sign`."""
        return self._holder._sign(message, self._challenge)  # noqa: SLF001 - a part of the class


def _end(approved: Approved) -> tuple[int, int, int]:
    """In which order leases end: a later boot counts more than a later time."""
    return approved.terms.resets, approved.terms.restarts, approved.terms.until
