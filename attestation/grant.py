"""Grant: exactly what is permitted, signed by the verifier after the decision is durable in the log.

A COSE_Sign1 of type ``application/interlock-grant+cose`` with CWT claims; the log's receipt for the decision's
record is in its unprotected header. The record names the SHA-256 of the grant's payload, so a grant that was never
logged has no receipt that fits. Labels: docs/formats.md, "Grant".

The agent judges no evidence. It checks that the grant is the answer to *its* question (:func:`verify_grant`).
"""

import hashlib
import hmac
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from attestation import cbor
from attestation.claims import Appraisal
from attestation.cose import RECEIPTS, PublicKey, Signer, sign1, verify_sign1
from attestation.errors import Malformed, Untrusted
from attestation.intent import MOST_SECRETS, Intent, Limits
from attestation.lease import LONGEST, SHORTEST
from attestation.log import Record, leaf_hash, verify_receipt
from attestation.tpm.sealing import SealedSecret
from attestation.wire import Wire, label, wire

TYP = "application/interlock-grant+cose"
MAX_SIZE = 1 << 20
PROFILE = "tag:interlock,2026:grant/1"
SCOPE = "run"
COSE_KEY = 1
"""Label of a COSE_Key inside ``cnf`` (RFC 8747, section 3.1)."""


@wire
class Confirmation(Wire):
    """``cnf``: the holder key, as the encoded COSE_Key (RFC 8747, section 3.2)."""

    key: bytes = label(COSE_KEY, most=256)


@wire
class Conditions(Wire):
    """What must keep holding between quotes: PCR values by index in one bank (a TPM_ALG_ID)."""

    bank: int = label(1, high=0xFFFF)
    pcrs: Mapping[int, bytes] = label(2, most=64)

    def check(self) -> None:
        """Raise ``Malformed`` for conditions that hold always."""
        if not self.pcrs:
            raise Malformed("grant.conditions", "a grant must name the PCRs that keep holding")


@wire
class Grant(Wire):
    """Times are Unix seconds, ``lease`` and ``hold`` seconds; digests are SHA-256.

    ``secrets`` are the names of what is released with it; ``tpm_lease`` says that the host's TPM itself enforces its
    leases.
    """

    MAX_SIZE = MAX_SIZE

    issuer: str = label(1, most=256)
    node: str = label(2, most=128)
    job: str = label(3, most=128)
    expires: int = label(4)
    not_before: int = label(5)
    issued: int = label(6)
    id: bytes = label(7, size=16)
    confirmation: Confirmation = label(8)
    scope: str = label(9, most=64)
    nonce: bytes = label(10, size=32)
    profile: str = label(265, most=128)
    submods: Mapping[str, Appraisal] = label(266, most=80)
    intent: bytes = label(-75001, size=32)
    policy: bytes = label(-75002, size=32)
    references: bytes = label(-75003, size=32)
    evidence: bytes = label(-75004, size=32)
    limits: Limits = label(-75005)
    conditions: Conditions = label(-75006)
    parent: bytes | None = label(-75007, size=16, default=None)
    root: bytes = label(-75008, size=16)
    depth: int = label(-75009, high=16)
    assurance: str = label(-75010, most=16)
    binding: str = label(-75011, most=8)
    lease: int = label(-75012, low=SHORTEST, high=LONGEST)
    hold: int = label(-75013, high=86_400)
    unchecked: tuple[str, ...] = label(-75014, most=128, ordered=True)
    secrets: tuple[str, ...] = label(-75015, most=64, ordered=True, default=(), sparse=True)
    tpm_lease: bool = label(-75016)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload: what the decision's record names."""
        return hashlib.sha256(self.to_bytes()).digest()


@wire
class Authorization(Wire):
    """The verifier's answer to an allowed request: grant and first lease, each with the record that was logged.

    ``secrets`` is what the grant names, sealed to the host's TPM under its leases.
    """

    MAX_SIZE = 4 << 20

    grant: bytes = label(1, most=MAX_SIZE)
    record: bytes = label(2, most=65536)
    lease: bytes = label(3, most=65536)
    secrets: Mapping[str, SealedSecret] = label(4, most=MOST_SECRETS)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the agent asked for, and how many seconds of boot time have passed since."""

    issuer: str
    node: str
    intent: Intent
    holder: PublicKey
    nonce: bytes
    elapsed: float


def sign_grant(grant: Grant, signer: Signer, receipts: tuple[bytes, ...]) -> bytes:
    """The signed grant with the log's receipts in its unprotected header."""
    return sign1(signer, typ=TYP, payload=grant.to_bytes(), unprotected={RECEIPTS: list(receipts)})


def verify_grant(
    token: bytes,
    record: bytes,
    *,
    asked: Asked,
    key: PublicKey,
    log_key: PublicKey,
    burned: Container[bytes],
) -> Grant:
    """The grant, if it answers what was asked; else ``Malformed`` or ``Untrusted``.

    ``key`` and ``log_key`` are the pinned verifier keys, ``record`` the log record that the answer came with and
    ``burned`` the ids of grants that this host has already used.

    1. The token is a strict COSE_Sign1 of the grant type, signed by ``key``.
    2. Its profile is the one that this software understands, and its scope is to run a job.
    3. It comes from the issuer that was asked.
    4. It is for this node.
    5. It is bound to this host's holder key.
    6. It answers the challenge that this host asked for.
    7. It is for the intent that was asked, under its job name.
    8. It does not permit more than the intent asked, and releases nothing that the intent did not ask for.
    9. It is valid for a time, and that time has not passed since the challenge was asked for (never by wall clock).
    10. The record is the allow that decided on it: same grant, same payload digest.
    11. The log has signed a receipt for that record.
    12. It has not been used on this host before.
    """
    # (1)
    signed = verify_sign1(token, key, typ=TYP, max_size=MAX_SIZE, unprotected=frozenset({RECEIPTS}))
    grant = Grant.from_bytes(signed.payload)
    # (2)
    if grant.profile != PROFILE:
        raise Untrusted("grant.profile", f"profile {grant.profile!r} is not {PROFILE}")
    if grant.scope != SCOPE:
        raise Untrusted("grant.scope", f"scope {grant.scope!r} is not {SCOPE}")
    _check_addressee(grant, asked)
    _check_extent(grant, asked)
    _check_logged(grant, signed.unprotected, record, log_key)
    # (12)
    if grant.id in burned:
        raise Untrusted("grant.replayed", f"grant {grant.id.hex()} has been used on this host")
    return grant


def _check_addressee(grant: Grant, asked: Asked) -> None:
    # (3)
    if grant.issuer != asked.issuer:
        raise Untrusted("grant.issuer", f"issued by {grant.issuer!r}, not by {asked.issuer!r}")
    # (4)
    if grant.node != asked.node:
        raise Untrusted("grant.node", f"the grant is for node {grant.node!r}, this is {asked.node!r}")
    # (5)
    if not hmac.compare_digest(grant.confirmation.key, holder_key(asked.holder)):
        raise Untrusted("grant.holder", "the grant is bound to another holder key")
    # (6)
    if not hmac.compare_digest(grant.nonce, asked.nonce):
        raise Untrusted("grant.nonce", "the grant answers another challenge")


def _check_extent(grant: Grant, asked: Asked) -> None:
    # (7)
    if not hmac.compare_digest(grant.intent, asked.intent.digest) or grant.job != asked.intent.job:
        raise Untrusted("grant.intent", "the grant is for another intent")
    # (8)
    if not grant.limits.within(asked.intent.limits):
        raise Untrusted("grant.limits", "the grant permits more than the intent asked for")
    if not set(grant.secrets) <= set(asked.intent.secrets):
        raise Untrusted("grant.secrets", "the grant releases secrets that the intent did not ask for")
    # (9)
    lifetime = grant.expires - grant.issued
    if grant.not_before > grant.issued or not 0 <= asked.elapsed < lifetime:
        raise Untrusted("grant.expired", f"valid for {lifetime} s, {asked.elapsed:.1f} s have passed")


def _check_logged(grant: Grant, unprotected: Mapping[int, Any], record_bytes: bytes, log_key: PublicKey) -> None:
    # (10)
    record = Record.from_bytes(record_bytes)
    named = record.digests.get("grant", b"")
    if (record.kind, record.outcome, record.job) != ("decision", "allow", grant.id) or named != grant.digest:
        raise Untrusted("grant.record", "the record is not the decision that allowed this grant")
    # (11)
    receipts = unprotected.get(RECEIPTS)
    if not isinstance(receipts, list) or len(receipts) != 1 or not isinstance(receipts[0], bytes):
        raise Malformed("grant.receipt", "a grant carries exactly one receipt")
    verify_receipt(receipts[0], leaf_hash(record_bytes), log_key)


@lru_cache(maxsize=4096)
def holder_key(key: PublicKey) -> bytes:
    """The encoded COSE_Key that ``cnf`` carries for this holder key."""
    return cbor.encode(key.to_cose_key())
