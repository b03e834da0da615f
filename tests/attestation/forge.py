"""A job as a real verifier recorded it, and a forger who holds that verifier's keys.

What is wrong with a bundle can hide behind true signatures: the forger changes records, archive, grant or leases and
signs a log, a checkpoint and receipts that fit. Then only the check that looks at the thing itself can find it.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from attestation import merkle
from attestation.audit import FAIL, NOT_RUN, Check, verify_bundle
from attestation.bundle import Bundle, Consistency, Leaf, Root, archived
from attestation.cose import ES256, Signer, SoftwareSigner
from attestation.evidence import Evidence, read_evidence, sign_evidence
from attestation.grant import Grant, sign_grant
from attestation.lease import Lease, sign_lease
from attestation.log import Record, leaf_hash, make_receipt, sign_checkpoint
from attestation.reasons import explain
from attestation.report import Report
from tests.verifier.hall import Hall, allowed, denied, leased
from verifier.bundles import make_bundle
from verifier.keys import KeyRing

GENESIS = Record(kind="genesis", time=1, outcome="begun", digests={}).to_bytes()
ORIGIN = "forged.test/log"


@dataclass(frozen=True)
class Story:
    """What really happened: keys, and the bundles of a run and of three denied requests."""

    keys: KeyRing
    holder: Signer
    person: Signer
    run: bytes
    refused: bytes
    unsigned: bytes
    roleless: bytes

    @property
    def root(self) -> Root:
        return Root.from_pem(self.keys.root)


@cache
def story() -> Story:
    """A job with four leases and its report; unknown code; a signature that is none; somebody without the role."""
    with tempfile.TemporaryDirectory() as directory, Hall(Path(directory)) as hall:

        async def act() -> Story:
            host = await hall.furnish()
            intent = hall.intent()
            grant, _ = allowed(await host.ask(intent))
            for _ in range(3):
                hall.hands.time += 10
                leased(await host.renew(grant, intent))
            await host.report(grant)
            refused = denied(await host.ask(hall.intent(code=bytes(32))))
            forged = denied(await host.ask(hall.intent(), key=Impostor(hall.person)))  # type: ignore[arg-type]
            guest = SoftwareSigner.generate(ES256)
            await hall.add_person(guest, name="eve", roles=("guest",))
            roleless = denied(await host.ask(hall.intent(), key=guest))
            jobs = [Record.from_bytes(denial.record).job or b"" for denial in (refused, forged, roleless)]
            bundles = [make_bundle(hall.verifier, job) for job in (grant.id, *jobs)]
            return Story(hall.verifier.keys, host.holder, hall.person, *bundles)

        return hall.run(act())


class Impostor:
    """Signs with nothing, under somebody's name."""

    def __init__(self, victim: Signer) -> None:
        self.public = victim.public

    def sign(self, message: bytes) -> bytes:
        return bytes(31) + b"\1" + bytes(31) + b"\1"


@dataclass
class Forger:
    """The parts of a bundle, to be changed one at a time; :meth:`bundle` signs whatever they are then."""

    story: Story
    records: list[Record]
    blobs: dict[bytes, bytes]
    grant: Grant | None
    leases: list[Lease]
    order: Callable[[list[bytes]], list[bytes]] = lambda entries: entries
    finish: Callable[[Bundle], Bundle] = lambda bundle: bundle
    extra: list[bytes] = field(default_factory=list)
    grant_key: Signer | None = None
    lease_key: Signer | None = None
    receipts: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = lambda receipts: receipts
    lease_receipts: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = lambda receipts: receipts
    receipt_from_the_end: bool = False
    before: Callable[[list[bytes]], list[bytes]] = lambda entries: entries

    @classmethod
    def of(cls, bundle: bytes) -> "Forger":
        """Take an honest bundle apart."""
        honest = Bundle.from_bytes(bundle)
        records = [Record.from_bytes(leaf.record) for leaf in honest.leaves]
        blobs = dict(honest.blobs())
        named = [(r, blobs[r.digests[r.kind]]) for r in records if r.kind == "lease" and "lease" in r.digests]
        grant = next((blobs[r.digests["grant"]] for r in records if "grant" in r.digests), None)
        return cls(
            story(),
            records,
            blobs,
            None if grant is None else Grant.from_bytes(grant),
            [Lease.from_bytes(data) for _, data in named],
        )

    # --- changing

    def rename(self, place: int, name: str, data: bytes | None) -> None:
        """Let the record at ``place`` name ``data`` as ``name``, or nothing; the archive follows."""
        digests = {key: value for key, value in self.records[place].digests.items() if key != name}
        if data is not None:
            digest = hashlib.sha256(data).digest()
            self.blobs[digest] = data
            digests[name] = digest
        self.records[place] = replace(self.records[place], digests=digests)
        named = {digest for record in self.records for digest in record.digests.values()}
        self.blobs = {digest: data for digest, data in self.blobs.items() if digest in named}

    def rename_all(self, name: str, data: bytes) -> None:
        """:meth:`rename` in every record that names such a thing."""
        for place, record in enumerate(self.records):
            if name in record.digests:
                self.rename(place, name, data)

    def read(self, place: int, name: str) -> bytes:
        """What the record at ``place`` calls ``name``."""
        return self.blobs[self.records[place].digests[name]]

    def change(self, place: int, **changes: Any) -> None:
        """Change the record at ``place``."""
        self.records[place] = replace(self.records[place], **changes)

    def regrant(self, **changes: Any) -> None:
        """Change the grant, and the records that name it."""
        assert self.grant is not None
        self.grant = replace(self.grant, **changes)
        self.rename_all("grant", self.grant.to_bytes())

    def release(self, number: int, **changes: Any) -> None:
        """Change a lease, the record that names it, and the leases after it."""
        self.leases[number] = replace(self.leases[number], **changes)
        for later in range(number, len(self.leases)):
            if later > number:
                self.leases[later] = replace(self.leases[later], previous=self.leases[later - 1].digest)
            self.rename(later + 1, "lease", self.leases[later].to_bytes())

    def evidence(self, place: int, *, signer: Signer | None = None, **changes: Any) -> Evidence:
        """Change the evidence that the record at ``place`` names, signed by the host; returns it."""
        token = self.read(place, "evidence")
        evidence = replace(read_evidence(token)[0], **changes)
        made = sign_evidence(evidence, signer or self.story.holder)
        for other, record in enumerate(self.records):
            if "evidence" in record.digests and self.read(other, "evidence") == token:
                self.rename(other, "evidence", made)
        return evidence

    def report(self, **changes: Any) -> Report:
        """The report with fields replaced, not signed."""
        from attestation.cose import read_sign1
        from attestation.report import MAX_SIZE, TYP

        token = self.read(-1, "report")
        honest = Report.from_bytes(read_sign1(token, typ=TYP, max_size=MAX_SIZE).unverified_payload or b"")
        return replace(honest, **changes)

    # --- signing

    def bundle(self) -> bytes:
        """A bundle of the parts as they are, truly signed, in a log of its own that ends after all receipts."""
        records = [record.to_bytes() for record in self.records]
        entries = [GENESIS, *self.order([*records, *self.extra])]
        now, before = grown([*entries, GENESIS]), grown(self.before(entries))
        keys = self.story.keys
        places = [entries.index(record) for record in records]

        def receipt(place: int) -> tuple[bytes, ...]:
            index = places[place]
            if self.receipt_from_the_end:
                index = len(entries) - 1 - entries[::-1].index(records[place])
            return (make_receipt(keys.log, before.root(), before.size, index, before.path(index)),)

        leaves = [
            Leaf(
                index=index,
                record=entries[index],
                path=now.path(index),
                receipt=None if self.records[n].outcome in ("allow", "issued") else receipt(n)[0],
            )
            for n, index in enumerate(places)
        ]
        nodes = {(level, index): value for level, index, value in now.new_nodes()}
        older = min(before.size, now.size)
        proof = merkle.prove_consistency(older, now.size, lambda level, index: nodes[level, index])

        decisions = [n for n, record in enumerate(self.records) if record.kind == "decision"]
        issued = [n for n, record in enumerate(self.records) if record.kind == "lease" and record.outcome == "issued"]
        grant = None
        if self.grant is not None and decisions:
            grant = sign_grant(self.grant, self.grant_key or keys.grant, self.receipts(receipt(decisions[0])))
        leases = [
            sign_lease(lease, self.lease_key or keys.grant, self.lease_receipts(receipt(place)))
            for lease, place in zip(self.leases, issued, strict=False)
        ]
        made = Bundle(
            job=self.records[0].job or bytes(16),
            checkpoint=sign_checkpoint(keys.log, ORIGIN, now.size, now.root()),
            leaves=tuple(leaves),
            archive=archived(self.blobs.values()),
            grant=grant,
            leases=tuple(leases),
            consistency=(Consistency(size=before.size, path=proof),),
        )
        return self.finish(made).to_bytes()


def grown(entries: list[bytes]) -> merkle.Growth:
    """The tree of these entries."""
    growth = merkle.Growth(0, ())
    for entry in entries:
        growth.append(leaf_hash(entry))
    return growth


def forger(bundle: bytes | None = None) -> Forger:
    """A forger of the run, or of another bundle of the story."""
    return Forger.of(bundle or story().run)


# --- finding out

NAMES = [
    *("parse", "checkpoint", "records", "inclusion", "sequence", "archive", "intent", "evidence", "grant", "receipt"),
    *("agreement", "leases", "consistency", "report", "appraisal", "decision", "jobs"),
]


def failing(data: bytes, root: Root | None = None) -> Check:
    """The check that fails; what is before it passes, what is behind it was not run."""
    checks = verify_bundle(data, root or story().root)
    assert [check.name for check in checks] == NAMES
    assert [check.number for check in checks] == list(range(1, 18))
    (failed,) = (check for check in checks if check.outcome == FAIL)
    assert all(check.ok for check in checks[: failed.number - 1])
    assert all(check.outcome == NOT_RUN for check in checks[failed.number :])
    assert not any(check.ok for check in checks[failed.number - 1 :])
    assert failed.meaning
    assert failed.reason
    explain(failed.reason)
    return failed
