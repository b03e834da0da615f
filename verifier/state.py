"""What a running verifier holds: keys, store, log, the policy in force, and the challenges that are open.

Everything that must survive is in the store. What is only here may be lost at any time without harm: caches and counts.

A challenge is kept with the node's TPM counters at the moment it was issued, and with what was proven of the node by
then. Evidence is held against *those*, so that two jobs of one host that are renewed at the same time do not make each
other look like a replay: a quote has to be younger than what was known when it was asked for.
"""

import asyncio
import hashlib
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Protocol

from attestation.asking import ask
from attestation.challenge import IMA, LIFETIME_SECONDS, NONCE_SIZE, Challenge
from attestation.claims import VerifierId
from attestation.cose import UntrustedSign1
from attestation.decision import Usage
from attestation.errors import InterlockError, Untrusted
from attestation.grant import Grant
from attestation.intent import Intent, read_intent
from attestation.keys import PublicKey, Signer
from attestation.log import Record, make_receipt
from attestation.node import ClockRecord, NodeRecord, Submitter
from attestation.policy import Policy
from attestation.reference import ReferenceSet
from verifier.changes import PutChallenge, Unit
from verifier.clock import Clock
from verifier.collateral import Shelf
from verifier.collateral_fetch import Fetcher
from verifier.keys import KeyRing
from verifier.known import Knowledge, KnownHost
from verifier.ledger import Ledger, Reserved
from verifier.metrics import Metrics
from verifier.settings import ServiceSettings
from verifier.store import Appended, Job, Kept, Store
from verifier.store import Challenge as Issued
from verifier.supply import Supplier, put
from verifier.throttle import Throttle
from verifier.watch import Watch

_MISSING = {"policy": "policy.none", "references": "references.none", "anchors": "anchors.none"}
ACCOUNTING_SECONDS = 30 * 86_400
"""The period over which a tenant's GPU seconds are added up: the last thirty days."""


class Unwell(InterlockError):
    """This verifier cannot do it now: nobody is refused, nothing is issued."""


class Log(Protocol):
    """Where units go: durable, in order, one writer (:mod:`verifier.sequencer`)."""

    def submit(self, unit: Unit) -> "Future[tuple[Appended, ...]]":
        """The records of ``unit`` when they are durable; the future raises ``Conflict`` or ``Unavailable``."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One durable record and the log's receipt for it."""

    record: bytes
    index: int
    receipt: bytes


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy and the reference values that a decision is made under."""

    policy: Policy
    references: ReferenceSet


@dataclass(frozen=True, slots=True)
class Open:
    """A challenge as it was issued, for which node, at whose address's request, until when, and what was known then."""

    challenge: Challenge
    node: str
    asker: str
    expires: int
    clock: ClockRecord | None
    progress: bytes | None


@dataclass(frozen=True, slots=True)
class Granted:
    """What a grant was for, as it was recorded when it was issued."""

    grant: Grant
    intent: Intent
    signed: UntrustedSign1


class _Once:
    """The log's signer, remembering its last signatures: all receipts under one root are one Ed25519 signature."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._sign = lru_cache(maxsize=64)(signer.sign)

    @property
    def public(self) -> PublicKey:
        return self._signer.public

    def sign(self, message: bytes) -> bytes:
        return self._sign(message)


@dataclass(eq=False)
class Verifier:
    """One verifier. ``entropy(n)`` returns n random bytes."""

    settings: ServiceSettings
    keys: KeyRing
    store: Store
    log: Log
    clock: Clock
    metrics: Metrics
    watch: Watch
    throttle: Throttle
    entropy: Callable[[int], bytes] = secrets.token_bytes

    def __post_init__(self) -> None:
        self.id = VerifierId(developer="interlock", build=version("interlock"))
        self.ledger = Ledger()
        self._open: dict[bytes, Open] = {}
        self._asked: Counter[tuple[str, str]] = Counter()
        self._queue: deque[bytes] = deque()
        self._compiled = lru_cache(maxsize=4)(self._compile)
        self._receipts = _Once(self.keys.log)
        self.granted = lru_cache(maxsize=4096)(self._granted)
        self.knowledge = Knowledge(self.document)
        self.shelf = Shelf(self.store)
        self.supplier = Supplier(
            Fetcher(self.settings.collateral),
            self.shelf,
            self.clock,
            self.metrics,
            keep=self._keep,
            demands=lambda: self.in_force().policy.gpu,
        )

    # --- what is in force

    def in_force(self) -> InForce:
        """Policy and reference values in force. Raises ``Unwell("policy.none")``, ``Unwell("ref.none")``."""
        active = self.store.in_force()
        return self._compiled(_of(active, "policy"), _of(active, "references"))

    def active(self, kind: str) -> bytes:
        """The digest of the version of ``kind`` in force. Raises ``Unwell`` where nothing was ever loaded."""
        return _of(self.store.in_force(), kind)

    def document(self, digest: bytes) -> bytes:
        """Archived bytes that must be there. Raises ``Unwell("log.corrupt")``."""
        data = self.store.blob(digest)
        if data is None:
            raise Unwell("log.corrupt", f"archived bytes {digest.hex()} are missing")
        return data

    def _compile(self, policy: bytes, references: bytes) -> InForce:
        return InForce(Policy.from_bytes(self.document(policy)), ReferenceSet.from_bytes(self.document(references)))

    async def _keep(self, kept: Kept, known: Kept | None) -> None:
        """Make a piece of collateral durable. Raises ``Conflict`` where ``known`` is no longer what is in its place."""
        await self.commit(Unit((put(kept, known),)))

    # --- who is known

    def node(self, name: str) -> NodeRecord:
        """The node's record of today. Raises ``Untrusted("node.unknown")``."""
        return self._node(name)[0]

    def _node(self, name: str, since: "Open | Issued | None" = None) -> tuple[NodeRecord, bytes | None]:
        """The node's record of today, but with the counters of ``since``, and what is proven of it, encoded."""
        found = self.store.node(name)
        if found is None:
            raise Untrusted("node.unknown", f"no node is called {name!r}")
        clock = found.clock if since is None else since.clock
        record = replace(_node_record(found.record), state=found.state, clock=clock, gpus=found.gpus or None)
        return record, found.progress

    def submitter(self, kid: bytes) -> Submitter | None:
        """The submitter whose signing key has this id, if there is one."""
        record = self.store.submitter(kid)
        return None if record is None else _submitter(record)

    def job(self, cti: bytes) -> Job:
        """The job of a grant. Raises ``Untrusted("grant.unknown")``."""
        found = self.store.job(cti)
        if found is None:
            raise Untrusted("grant.unknown", f"no grant {cti.hex()}")
        return found

    def _granted(self, cti: bytes) -> Granted:
        """What a grant was for; raises ``Untrusted("grant.unknown")``. It never changes, so it is remembered."""
        for entry in self.store.records_of(cti):
            named = Record.from_bytes(entry.record).digests
            if "grant" in named and "intent" in named:
                grant = Grant.from_bytes(self.document(named["grant"]))
                return Granted(grant, *read_intent(self.document(named["intent"])))
        raise Untrusted("grant.unknown", f"no grant {cti.hex()} was issued")

    def usage(self, job: Reserved, *, at: int, without: bytes | None = None) -> Usage:
        """What runs at ``at`` beside the job ``without``, and what is on its way to run."""
        used = self.store.usage(job.submitter, job.tenant, job.node, without=without, since=at - ACCOUNTING_SECONDS)
        return self.ledger.added_to(used, job)

    # --- challenges

    async def challenge(self, name: str, asker: str = "") -> Challenge:
        """A fresh challenge for a node, at the request of an address.

        Raises ``Untrusted``: ``node.unknown``, ``challenge.too-many``. Whoever asks in a node's name uses up a share of
        their own, not the node's: else a stranger could keep every host from its next lease.
        """
        (node, progress), force, now = self._node(name), self.in_force(), self.clock.now()
        self._expire(now)
        if self._asked[name, asker] >= self.settings.open_challenges:
            raise Untrusted("challenge.too-many", f"{name} has {self.settings.open_challenges} open challenges")
        challenge = ask(
            node,
            settings=force.policy.settings,
            references=force.references,
            progress=self.knowledge.progress(progress),
            nonce=self.entropy(NONCE_SIZE),
            audience=self.settings.issuer,
            issued=now,
            expires_in=LIFETIME_SECONDS,
        )
        expires = now + LIFETIME_SECONDS
        self._open[challenge.nonce] = Open(challenge, name, asker, expires, node.clock, progress)
        self._asked[name, asker] += 1
        self._queue.append(challenge.nonce)
        asked = challenge.to_bytes()
        await self.commit(Unit((PutChallenge(challenge.nonce, name, now, expires, node.clock, progress, asked),)))
        await self.knowledge.prepare(node, force.references)
        return challenge

    def asked(self, nonce: bytes) -> tuple[Challenge, NodeRecord]:
        """The challenge that ``nonce`` answers, and its node with the counters that were known when it was issued.

        Raises ``Untrusted("challenge.unknown")``. Whether it is still good is decided where it is redeemed.
        """
        known = self._open.get(nonce)
        if known is not None:
            return known.challenge, self._node(known.node, known)[0]
        row = self._issued(nonce)
        if row.asked is None:
            raise Untrusted("challenge.unknown", "an older release issued that challenge, and did not keep it")
        return Challenge.from_bytes(row.asked), self._node(row.node, row)[0]

    def awaits(self, nonce: bytes) -> bool:
        """Whether ``nonce`` is of an open challenge that wants a measurement list: in time, and not answered yet."""
        row = self.store.challenge(nonce) if nonce else None
        if row is None or row.redeemed is not None or row.expires <= self.clock.now():
            return False
        return IMA in self.asked(nonce)[0].wants

    def known(self, nonce: bytes, node: NodeRecord) -> KnownHost:
        """What was known of ``node`` when the challenge ``nonce`` was issued. Raises as :meth:`asked`."""
        known = self._open.get(nonce)
        progress = self._issued(nonce).progress if known is None else known.progress
        return self.knowledge.of(node, progress, self.in_force().references)

    def _issued(self, nonce: bytes) -> Issued:
        row = self.store.challenge(nonce)
        if row is None:
            raise Untrusted("challenge.unknown", "this verifier never issued that challenge, or long ago")
        return row

    def charge(self, nonce: bytes, failures: int) -> None:
        """Charge the address that asked for an open challenge."""
        known = self._open.get(nonce)
        if known is not None:
            self.throttle.charge(known.asker, failures)

    def close_challenge(self, nonce: bytes) -> None:
        """Forget that a challenge is open: it was answered, or has expired."""
        known = self._open.pop(nonce, None)
        if known is not None:
            self._asked[known.node, known.asker] -= 1
            if not self._asked[known.node, known.asker]:
                del self._asked[known.node, known.asker]

    @property
    def open_challenges(self) -> int:
        """How many challenges are open."""
        self._expire(self.clock.now())
        return len(self._open)

    def _expire(self, now: int) -> None:
        while self._queue:
            known = self._open.get(self._queue[0])
            if known is not None and known.expires > now:
                return
            self.close_challenge(self._queue.popleft())

    # --- the log

    async def commit(self, unit: Unit) -> tuple[Logged, ...]:
        """The unit's records with their receipts, once they are durable. Raises ``Conflict`` or ``Unavailable``.

        First everybody else who is ready gets a turn: requests that were judged in one turn of the loop reach the log
        together, and share one commit and one checkpoint.
        """
        await asyncio.sleep(0)
        with self.metrics.append.time():
            appended = await asyncio.wrap_future(self.log.submit(unit))
        return tuple(
            Logged(a.record, a.index, make_receipt(self._receipts, a.root, a.size, a.index, a.path)) for a in appended
        )

    def receipt(self, index: int) -> bytes:
        """A receipt, under the newest tree, for a record that has been durable for some time."""
        head = self.store.head()
        return make_receipt(self._receipts, head.root, head.size, index, self.store.inclusion(index, head.size))


def _of(active: Mapping[str, bytes], kind: str) -> bytes:
    digest = active.get(kind)
    if digest is None:
        raise Unwell(_MISSING[kind], f"no {kind} has been loaded")
    return digest


@lru_cache(maxsize=4096)
def _submitter(data: bytes) -> Submitter:
    return Submitter.from_bytes(data)


@lru_cache(maxsize=4096)
def _node_record(data: bytes) -> NodeRecord:
    return NodeRecord.from_bytes(data)


def digests_of(blobs: Mapping[str, bytes]) -> dict[str, bytes]:
    """SHA-256 of each of ``blobs``."""
    return {name: hashlib.sha256(data).digest() for name, data in blobs.items()}
