"""What an audit has established so far: each part is set by the check that proves it (:mod:`attestation.audit`)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from attestation.bundle import Bundle, Root
from attestation.challenge import Challenge
from attestation.claims import Claims
from attestation.cose import Header
from attestation.errors import Untrusted
from attestation.evidence import Evidence, read_evidence
from attestation.grant import Grant
from attestation.intent import Intent
from attestation.lease import Lease
from attestation.log import Checkpoint, Record
from attestation.rederive import ACCEPTED, Archive


class Nothing(str):
    """What a check says that had nothing to look at."""

    __slots__ = ()


@dataclass(slots=True)
class Audited:
    """A bundle under audit, with the keys that it is held to."""

    data: bytes
    root: Root
    bundle: Bundle = field(init=False)
    checkpoint: Checkpoint = field(init=False)
    records: list[Record] = field(init=False)
    archive: Archive = field(init=False)
    intent: Intent = field(init=False)
    grant: Grant | None = None
    receipts: Header = field(default_factory=dict)
    trees: dict[int, bytes] = field(default_factory=dict)
    challenges: dict[bytes, Challenge] = field(default_factory=dict)
    claims: dict[int | None, Claims] = field(default_factory=dict)
    leases: dict[int | None, Lease] = field(default_factory=dict)

    def accepted(self, kind: str) -> Iterator[tuple[int, Record]]:
        """Place in the bundle and record of everything of a kind that was allowed or issued."""
        return ((n, r) for n, r in enumerate(self.records) if r.kind == kind and r.outcome in ACCEPTED)

    def evidence(self, record: Record) -> Evidence:
        """The evidence that a record names."""
        return read_evidence(self.archive.named(record, "evidence"))[0]

    @property
    def granting(self) -> tuple[int, Record] | None:
        """The decision that allowed the job, if one did."""
        allowed = list(self.accepted("decision"))
        if len(allowed) > 1:
            raise Untrusted("bundle.grant", f"{len(allowed)} decisions allow one job")
        return allowed[0] if allowed else None
