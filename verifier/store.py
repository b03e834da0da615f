"""The store: everything that the verifier must not forget, behind one interface.

One engine is SQLite (:mod:`verifier.sqlite`); the tests are written against this protocol, for the next one. The store
has two halves:

* :meth:`Store.commit` takes a *group* of units, applies those whose conditions hold and appends their records to the
  Merkle log, all in one transaction with one signed checkpoint. When it returns, it is on disk. A unit whose condition
  does not hold costs the others nothing. It is called by one thread, the sequencer (:mod:`verifier.sequencer`).
* Everything else reads, from any thread, and sees what was committed.

What a decision needs, what it changes and the entry that records it are thereby one transaction; the answer is sent
when the entry is in the signed log.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from attestation.decision import Usage
from attestation.errors import InterlockError, Untrusted
from attestation.node import ClockRecord
from verifier.changes import Unit

Seal: TypeAlias = Callable[[int, bytes], bytes]
"""``seal(size, root)`` signs: it gives the checkpoint of a tree."""


class Conflict(Untrusted):
    """A unit's condition does not hold; nothing of the unit happened."""


class Unavailable(InterlockError):
    """The log cannot be written now (``log.unavailable``) or has too much to do (``log.overloaded``): nothing happened.

    Where a disk failed while it wrote, entries may be there that nobody was told of; they authorise nothing.
    """


class Corrupt(InterlockError):
    """What is on disk contradicts itself or its signed checkpoint (``log.corrupt``): a person must look at it."""


@dataclass(frozen=True, slots=True)
class Appended:
    """One record that is durable: its place in the log and the proof of it under the group's checkpoint."""

    index: int
    size: int
    path: tuple[bytes, ...]
    root: bytes
    checkpoint: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The newest tree and its signed checkpoint; ``note`` is empty for a log that has not begun."""

    size: int
    root: bytes
    note: bytes


Outcome: TypeAlias = tuple[Appended, ...] | Conflict
"""What became of one unit: its records in order, or why it did not happen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the log as it is kept."""

    index: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Token:
    """An enrolment token that was issued: what it gives, and when it was used."""

    name: str
    pool: str
    expires: int
    used: int | None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge that was issued, when it was redeemed, and what was known of the node when it was issued: its TPM
    counters, and an encoded HostProgress. ``asked`` is the encoded challenge; older releases did not keep it."""

    node: str
    issued: int
    expires: int
    redeemed: int | None
    clock: ClockRecord | None = None
    progress: bytes | None = None
    asked: bytes | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """An enrolled host: ``record`` is the encoded NodeRecord as enrolled.

    ``state``, ``clock``, ``gpus``, the devices that it is pinned to, and ``progress``, what is proven of it, are of
    today.
    """

    name: str
    ek_digest: bytes
    holder: bytes
    state: str
    pool: str
    record: bytes
    clock: ClockRecord | None
    gpus: tuple[str, ...] = ()
    progress: bytes | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A grant and where its job stands; the lease fields are ``None`` before the first lease."""

    cti: bytes
    node: str
    submitter: bytes
    tenant: str
    intent: bytes
    state: str
    gpus: int
    at: int
    revoked: str | None
    lease_sequence: int | None
    lease_digest: bytes | None
    lease_end: int | None
    gpu_seconds: int


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a document (policy, references, anchors): its number and when it was put here."""

    number: int
    digest: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Kept:
    """One piece of collateral: what it is about, its bytes, where they came from, and when they run out."""

    kind: str
    id: str
    data: bytes
    fetched: int
    expires: int
    source: str
    used: int | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that is kept for a tenant, its value encrypted, and when it was put here."""

    name: str
    tenant: str
    sealed: bytes
    at: int


class Store(Protocol):
    """See the module. Every method may raise :class:`Unavailable` when the disk or the database fails."""

    def commit(self, units: Sequence[Unit], seal: Seal) -> list[Outcome]:
        """Apply the units in order as one durable group; one outcome each. Nothing happened where this raises."""

    def probe(self) -> None:
        """Prove that a write reaches the disk, or raise :class:`Unavailable`."""

    def close(self) -> None:
        """Let go of the database. Nothing may be called after it."""

    # --- the log

    def head(self) -> Head:
        """The newest tree."""

    def record(self, index: int) -> bytes | None:
        """The record at an index."""

    def records(self, first: int, count: int) -> list[Entry]:
        """At most ``count`` records from index ``first`` on."""

    def records_of(self, job: bytes) -> list[Entry]:
        """All records of a job, in order."""

    def subtree(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree (see :mod:`attestation.merkle`); ``IndexError`` where there is none."""

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path of a record to the root of the tree of ``size``; ``IndexError`` where there is none."""

    def consistency(self, size1: int, size2: int) -> tuple[bytes, ...]:
        """The path from one size of the tree to another; ``IndexError`` where there is none."""

    def checkpoint(self, size: int) -> bytes | None:
        """The checkpoint that was signed at this size."""

    # --- documents

    def blob(self, digest: bytes) -> bytes | None:
        """The archived bytes with this SHA-256."""

    def active(self, kind: str) -> Version | None:
        """The version of a document that is in force."""

    def in_force(self) -> Mapping[str, bytes]:
        """The digests of all documents in force, by kind: one look, hence one moment."""

    def versions(self, kind: str) -> list[Version]:
        """All versions of a document, oldest first."""

    def collateral(self) -> list[Kept]:
        """All collateral, by kind and id."""

    def secret(self, name: str) -> Secret | None:
        """A secret by name, encrypted."""

    def secrets(self) -> list[Secret]:
        """All secrets, by name, encrypted."""

    # --- nodes, submitters, requests

    def token(self, digest: bytes) -> Token | None:
        """An enrolment token by the SHA-256 of its secret."""

    def activation(self, session: bytes) -> bytes | None:
        """The state of an enrolment that waits for its proof."""

    def node(self, name: str) -> Node | None:
        """A node by name."""

    def node_by_ek(self, ek_digest: bytes) -> Node | None:
        """A node by the SHA-256 of its EK public."""

    def node_by_holder(self, holder: bytes) -> Node | None:
        """A node by the thumbprint of its holder key."""

    def nodes(self) -> list[Node]:
        """All nodes, by name."""

    def challenge(self, nonce: bytes) -> Challenge | None:
        """A challenge by its nonce."""

    def submitter(self, kid: bytes) -> bytes | None:
        """The encoded Submitter with this key id."""

    def submitters(self) -> dict[bytes, bytes]:
        """All submitters: key id to encoded Submitter."""

    # --- jobs

    def job(self, cti: bytes) -> Job | None:
        """A job by the id of its grant."""

    def jobs(self, *, node: str | None = None, live: bool = False) -> list[Job]:
        """Jobs in the order in which they came: those of one node, those that may still execute, or all."""

    def usage(self, submitter: bytes, tenant: str, node: str, *, without: bytes | None, since: int) -> Usage:
        """Live jobs but ``without``, and the GPU seconds of the tenant's jobs that began at or after ``since``."""
