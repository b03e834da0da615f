"""Lease: permission to go on executing for some seconds, one after another.

A COSE_Sign1 of type ``application/interlock-lease+cose``. A lease names its grant, its place in the chain (sequence,
digest of the previous lease's payload) and the challenge that it answers. Its ``duration`` counts from the moment at
which the host asked for that challenge; ``issued`` and ``expires`` are wall time, for people and records.

``tpm`` is what the TPM itself holds the node's holder key to: it is there where that key obeys leases, and then the
unprotected header carries the policy key's signature over these terms (:mod:`attestation.tpm.enforced`), which only the
TPM has to believe. It is made when the lease is in the log.

Both the agent and the deadman verify every lease with :func:`verify_lease`.
"""

import hashlib
import hmac

from attestation.cose import RECEIPTS, PublicKey, Sign1, Signer, sign1, verify_sign1
from attestation.errors import Malformed, Untrusted
from attestation.wire import Wire, label, wire

TYP = "application/interlock-lease+cose"
MAX_SIZE = 16384
SHORTEST, LONGEST = 10, 300
FIRST_PREVIOUS = bytes(32)
"""What the first lease of a grant names as its predecessor."""


TPM_POLICY = -75030
"""Header label of the policy key's signature (r || s)."""
HEADERS = frozenset({RECEIPTS, TPM_POLICY})
_SIGNATURE_SIZE = 64


@wire
class TpmLease(Wire):
    """The holder key works while ``pcrs`` of ``bank`` (a TPM_ALG_ID) have the values whose SHA-256 is ``pcr_digest``,
    the TPM's clock is below ``until`` (milliseconds), and resetCount and restartCount are ``resets`` and
    ``restarts``."""

    bank: int = label(1, high=0xFFFF)
    pcrs: tuple[int, ...] = label(2, high=7, most=8, ordered=True)
    pcr_digest: bytes = label(3, size=32)
    until: int = label(4)
    resets: int = label(5, high=2**32 - 1)
    restarts: int = label(6, high=2**32 - 1)


@wire
class Lease(Wire):
    """``duration`` in seconds from asking for the challenge; ``expires`` and ``issued`` in Unix seconds."""

    expires: int = label(4)
    issued: int = label(6)
    grant: bytes = label(7, size=16)
    nonce: bytes = label(10, size=32)
    evidence: bytes = label(-75004, size=32)
    sequence: int = label(-75020)
    duration: int = label(-75021, low=SHORTEST, high=LONGEST)
    previous: bytes = label(-75022, size=32)
    hold: int = label(-75013, high=86_400)
    tpm: TpmLease | None = label(-75023, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` where expiry and duration disagree."""
        if self.expires - self.issued != self.duration:
            raise Malformed("lease.duration", "expiry minus issue is not the duration")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload: what the next lease names."""
        return hashlib.sha256(self.to_bytes()).digest()


def sign_lease(lease: Lease, signer: Signer, receipts: tuple[bytes, ...], approval: bytes | None = None) -> bytes:
    """The signed lease with the log's receipts in its unprotected header.

    ``approval`` is the policy key's signature, which a TPM-enforced lease carries to its host, and nowhere else.
    """
    more = {} if approval is None else {TPM_POLICY: approval}
    return sign1(signer, typ=TYP, payload=lease.to_bytes(), unprotected={RECEIPTS: list(receipts), **more})


def verify_lease(
    token: bytes,
    *,
    key: PublicKey,
    grant: bytes,
    previous: Lease | None,
    nonce: bytes | None = None,
    archived: bool = False,
) -> Lease:
    """The lease, if it is the next one of this grant; else ``Malformed`` or ``Untrusted``.

    1. The token is a strict COSE_Sign1 of the lease type, signed by ``key``, the pinned verifier key.
    2. It carries a TPM policy signature where it is TPM-enforced, and only there; none where it is ``archived``, in a
       bundle: nobody but the TPM needs it.
    3. It belongs to ``grant``.
    4. Its sequence is one more than the previous lease's; 0 where ``previous`` is ``None``.
    5. It names the previous lease's payload digest.
    6. It answers the challenge ``nonce``, where the caller knows which one that was.
    """
    # (1)
    signed = read_lease(token, key)
    lease = Lease.from_bytes(signed.payload)
    # (2)
    approval = approval_of(signed)
    if (approval is not None) != (lease.tpm is not None and not archived):
        raise Malformed("lease.tpm", "a TPM-enforced lease has a policy signature, and only such a lease")
    # (3)
    if not hmac.compare_digest(lease.grant, grant):
        raise Untrusted("lease.grant", f"the lease is for grant {lease.grant.hex()}, not for {grant.hex()}")
    # (4)
    expected = 0 if previous is None else previous.sequence + 1
    if lease.sequence != expected:
        raise Untrusted("lease.sequence", f"sequence {lease.sequence}, expected {expected}")
    # (5)
    digest = FIRST_PREVIOUS if previous is None else previous.digest
    if not hmac.compare_digest(lease.previous, digest):
        raise Untrusted("lease.chain", "the lease does not follow the one that is held")
    # (6)
    if nonce is not None and not hmac.compare_digest(lease.nonce, nonce):
        raise Untrusted("lease.nonce", "the lease answers another challenge")
    return lease


def read_lease(token: bytes, key: PublicKey) -> Sign1:
    """A token of the lease type that is signed by ``key``; its payload is a :class:`Lease`."""
    return verify_sign1(token, key, typ=TYP, max_size=MAX_SIZE, unprotected=HEADERS)


def approval_of(signed: Sign1) -> bytes | None:
    """The policy key's signature in a lease's header. Raises ``Malformed("lease.tpm")`` for what is none."""
    approval = signed.unprotected.get(TPM_POLICY)
    if approval is None and TPM_POLICY not in signed.unprotected:
        return None
    if not isinstance(approval, bytes) or len(approval) != _SIGNATURE_SIZE:
        raise Malformed("lease.tpm", f"a TPM policy signature has {_SIGNATURE_SIZE} bytes")
    return approval
