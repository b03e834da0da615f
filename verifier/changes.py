"""What may change in the store: each change is a value, applied under its condition or not at all.

A :class:`Unit` is what one request changes and records. Its changes are applied in order; the first one whose condition
does not hold is a :class:`Conflict` with a reason code, and then nothing of the unit happens, its records included.
Conditions are looked at inside the transaction that also appends the records, so that two requests that both read the
same state cannot both use it: that is what makes a challenge, a token, an intent and a lease sequence single use, and
what lets a decision that was made on older facts (``Expect...``) be found out and made again.

Times are Unix seconds; digests are SHA-256, 32 bytes; a job is named by the 16-byte ``cti`` of its grant.
"""

from dataclasses import dataclass, field

from attestation.decision import Usage
from attestation.log import Record
from attestation.node import ClockRecord

NODE_STATES = ("pending", "active", "quarantined", "retired")
LIVE = ("issued", "running", "revoked")
"""States in which a job may still execute: it counts in :class:`Usage`."""

VERSIONED = ("references", "policy", "anchors", "context")
"""Kinds of documents that have versions, one of them in force."""


@dataclass(frozen=True, slots=True)
class Change:
    """Base of all changes."""


# --- blobs and versions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutBlob(Change):
    """Archive ``data`` under its digest; no harm where it is there already."""

    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class PutBlobs(Change):
    """Archive many, each with its digest; no harm where one is there already."""

    blobs: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class PutVersion(Change):
    """Make the archived blob ``digest`` a version of ``kind`` (see :data:`VERSIONED`). It is not in force by that."""

    kind: str
    digest: bytes
    now: int


@dataclass(frozen=True, slots=True)
class Activate(Change):
    """Put a version in force, if ``expected`` (``None``: none) is in force now.

    ``version.unknown``, ``version.changed``.
    """

    kind: str
    digest: bytes
    expected: bytes | None


@dataclass(frozen=True, slots=True)
class ExpectActive(Change):
    """Only go on if this version is in force: ``version.changed``."""

    kind: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class PutCollateral(Change):
    """Keep what others say about devices: the newest of its ``kind`` and ``id`` (:mod:`verifier.collateral`).

    ``known`` is the data that it was found newer than, and that must still be there; ``None`` where there was none.
    """

    kind: str
    id: str
    data: bytes
    fetched: int
    expires: int
    source: str
    known: bytes | None = None


@dataclass(frozen=True, slots=True)
class UseCollateral(Change):
    """Note when collateral was last used; no harm where it is not there."""

    kind: str
    id: str
    now: int


# --- secrets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutSecret(Change):
    """Keep a secret for a tenant; ``sealed`` is its encrypted value (:mod:`verifier.secrets`).

    ``secret.tenant`` where another tenant has one of that name, ``secret.exists`` unless it is to be replaced.
    """

    name: str
    tenant: str
    sealed: bytes
    now: int
    replace: bool = False


@dataclass(frozen=True, slots=True)
class DropSecret(Change):
    """Forget a secret: ``secret.unknown``."""

    name: str


@dataclass(frozen=True, slots=True)
class ExpectSecret(Change):
    """Only go on if the tenant still has this secret: ``secret.changed``."""

    name: str
    tenant: str
    sealed: bytes


# --- enrolment and nodes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutToken(Change):
    """Issue an enrolment token: SHA-256 of its secret, what name and pool it gives. ``enrol.token-exists``."""

    digest: bytes
    name: str
    pool: str
    expires: int


@dataclass(frozen=True, slots=True)
class UseToken(Change):
    """Use an enrolment token, once: ``enrol.token-unknown``, ``enrol.token-used``, ``enrol.token-expired``."""

    digest: bytes
    now: int


@dataclass(frozen=True, slots=True)
class PutActivation(Change):
    """Remember an enrolment that waits for its proof; ``state`` is the caller's. ``enrol.session-exists``."""

    session: bytes
    state: bytes
    expires: int


@dataclass(frozen=True, slots=True)
class TakeActivation(Change):
    """Forget a waiting enrolment and go on with it: ``enrol.session-unknown``, ``enrol.session-expired``."""

    session: bytes
    now: int


@dataclass(frozen=True, slots=True)
class PutNode(Change):
    """Add a node: ``node.duplicate-name``, ``node.duplicate-ek``, ``node.duplicate-holder``.

    ``holder`` is the thumbprint of the holder key, ``record`` the encoded NodeRecord as enrolled.
    """

    name: str
    ek_digest: bytes
    holder: bytes
    state: str
    pool: str
    record: bytes


@dataclass(frozen=True, slots=True)
class ReplaceNode(Change):
    """Enrol a known EK again under its name, with new keys and counters: ``node.unknown``, ``node.retired``."""

    name: str
    ek_digest: bytes
    holder: bytes
    state: str
    pool: str
    record: bytes


@dataclass(frozen=True, slots=True)
class SetNodeState(Change):
    """Move a node to another state; a retired node stays so: ``node.unknown``, ``node.retired``."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class SetNodeGpus(Change):
    """Pin a node to these devices, by identity, or to none in particular: ``node.unknown``, ``node.retired``."""

    name: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TouchClock(Change):
    """Remember the TPM counters that were accepted last: ``node.unknown``, ``node.clock`` where they dropped.

    Two quotes of one boot may arrive in any order: the clock then stays at the later one.
    """

    name: str
    clock: ClockRecord


@dataclass(frozen=True, slots=True)
class TouchProgress(Change):
    """Remember what an accepted request has proven of a host: an encoded HostProgress. ``node.unknown``.

    Two requests of one host may arrive in any order: what is further already stays (:mod:`attestation.progress`).
    """

    name: str
    progress: bytes


@dataclass(frozen=True, slots=True)
class ExpectNode(Change):
    """Only go on if the node is in this state, with these keys and pinned to these devices: ``node.changed``."""

    name: str
    state: str
    holder: bytes
    gpus: tuple[str, ...] = ()


# --- requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutChallenge(Change):
    """Issue a challenge: ``challenge.exists``.

    ``clock`` are the node's TPM counters as they are known now, ``progress`` what is proven of it by now, and ``asked``
    what is asked for, both encoded.
    """

    nonce: bytes
    node: str
    issued: int
    expires: int
    clock: ClockRecord | None = None
    progress: bytes | None = None
    asked: bytes | None = None


@dataclass(frozen=True, slots=True)
class RedeemChallenge(Change):
    """Use a challenge, once, by the node that asked for it, before it expires.

    ``challenge.unknown``, ``challenge.node``, ``challenge.redeemed``, ``challenge.expired``.
    """

    nonce: bytes
    node: str
    now: int


@dataclass(frozen=True, slots=True)
class UseIntent(Change):
    """Use an intent's nonce, once for all time: ``intent.replayed``."""

    nonce: bytes
    now: int


@dataclass(frozen=True, slots=True)
class PutSubmitter(Change):
    """Add or replace a submitter: key id, encoded Submitter."""

    kid: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class ExpectSubmitter(Change):
    """Only go on if the submitter's record is this one: ``submitter.changed``."""

    kid: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Prune(Change):
    """Forget challenges, tokens and waiting enrolments that expired before this time: they stay refused."""

    before: int


# --- jobs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutJob(Change):
    """Add a job, issued or denied: ``grant.exists``. A denied one has no lease."""

    cti: bytes
    node: str
    submitter: bytes
    tenant: str
    intent: bytes
    state: str
    gpus: int
    now: int


@dataclass(frozen=True, slots=True)
class AdvanceLease(Change):
    """Give a live job its next lease: ``grant.unknown``, ``grant.ended``, ``grant.revoked``, ``grant.conflict``.

    ``sequence`` is 0 for the first lease. ``previous`` is the payload digest of the lease before, ``None`` for the
    first; ``digest`` that of this one, ``end`` when it ends, ``gpu_seconds`` what the job used up to now.
    """

    cti: bytes
    sequence: int
    previous: bytes | None
    digest: bytes
    end: int
    gpu_seconds: int


@dataclass(frozen=True, slots=True)
class RevokeJob(Change):
    """Let a live job get no further lease, for this reason: ``grant.unknown``, ``grant.ended``."""

    cti: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class EndJob(Change):
    """Burn a grant: its job is over and never starts again. ``grant.unknown``, ``grant.ended``."""

    cti: bytes
    gpu_seconds: int


@dataclass(frozen=True, slots=True)
class ExpectUsage(Change):
    """Only go on if this is still the usage that the decision saw: ``usage.changed``. Fields as in ``Store.usage``."""

    submitter: bytes
    tenant: str
    node: str
    without: bytes | None
    since: int
    usage: Usage


# --- units -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """What happens together or not at all: changes, then records. The log numbers the records of a job."""

    changes: tuple[Change, ...] = ()
    records: tuple[Record, ...] = field(default=())
