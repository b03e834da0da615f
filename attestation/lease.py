"""Lease: permission to go on executing for some seconds, one after another.

A COSE_Sign1 of type ``application/interlock-lease+cose``. A lease names its grant, its place in the chain (sequence,
digest of the previous lease's payload) and the challenge that it answers. Its ``duration`` counts from the moment at
which the host asked for that challenge; ``issued`` and ``expires`` are wall time, for people and records.

Both the agent and the deadman verify every lease with :func:`verify_lease`.
"""

import hashlib
import hmac

from attestation.cose import RECEIPTS, PublicKey, Signer, sign1, verify_sign1
from attestation.errors import Malformed, Untrusted
from attestation.wire import Wire, label, wire

TYP = "application/interlock-lease+cose"
MAX_SIZE = 16384
SHORTEST, LONGEST = 10, 300
FIRST_PREVIOUS = bytes(32)
"""What the first lease of a grant names as its predecessor."""


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

    def check(self) -> None:
        """Raise ``Malformed`` where expiry and duration disagree."""
        if self.expires - self.issued != self.duration:
            raise Malformed("lease.duration", "expiry minus issue is not the duration")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload: what the next lease names."""
        return hashlib.sha256(self.to_bytes()).digest()


def sign_lease(lease: Lease, signer: Signer, receipts: tuple[bytes, ...]) -> bytes:
    """The signed lease with the log's receipts in its unprotected header."""
    return sign1(signer, typ=TYP, payload=lease.to_bytes(), unprotected={RECEIPTS: list(receipts)})


def verify_lease(
    token: bytes,
    *,
    key: PublicKey,
    grant: bytes,
    previous: Lease | None,
    nonce: bytes | None = None,
) -> Lease:
    """The lease, if it is the next one of this grant; else ``Malformed`` or ``Untrusted``.

    1. The token is a strict COSE_Sign1 of the lease type, signed by ``key``, the pinned verifier key.
    2. It belongs to ``grant``.
    3. Its sequence is one more than the previous lease's; 0 where ``previous`` is ``None``.
    4. It names the previous lease's payload digest.
    5. It answers the challenge ``nonce``, where the caller knows which one that was.
    """
    # (1)
    signed = verify_sign1(token, key, typ=TYP, max_size=MAX_SIZE, unprotected=frozenset({RECEIPTS}))
    lease = Lease.from_bytes(signed.payload)
    # (2)
    if not hmac.compare_digest(lease.grant, grant):
        raise Untrusted("lease.grant", f"the lease is for grant {lease.grant.hex()}, not for {grant.hex()}")
    # (3)
    expected = 0 if previous is None else previous.sequence + 1
    if lease.sequence != expected:
        raise Untrusted("lease.sequence", f"sequence {lease.sequence}, expected {expected}")
    # (4)
    digest = FIRST_PREVIOUS if previous is None else previous.digest
    if not hmac.compare_digest(lease.previous, digest):
        raise Untrusted("lease.chain", "the lease does not follow the one that is held")
    # (5)
    if nonce is not None and not hmac.compare_digest(lease.nonce, nonce):
        raise Untrusted("lease.nonce", "the lease answers another challenge")
    return lease
