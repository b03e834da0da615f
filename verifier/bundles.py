"""Bundles: everything about one grant in one file, for an auditor who has no network and no account.

The log keeps what was signed as payloads; grant and leases are signed again here, with receipts under the newest tree.
A signature more says nothing new: payload and record are what they were.
"""

from attestation.bundle import Bundle, Leaf, archived
from attestation.errors import Untrusted
from attestation.grant import Grant, sign_grant
from attestation.lease import Lease, sign_lease
from attestation.log import Record
from verifier.state import Verifier
from verifier.store import Entry


def make_bundle(verifier: Verifier, cti: bytes) -> bytes:
    """The bundle of a grant, or of a request that was denied. Raises ``Untrusted("grant.unknown")``."""
    store = verifier.store
    head, entries = store.head(), store.records_of(cti)
    if not entries:
        raise Untrusted("grant.unknown", f"the log has no record of {cti.hex()}")
    records = [(entry, Record.from_bytes(entry.record)) for entry in entries if entry.index < head.size]
    blobs = {digest: verifier.document(digest) for _, record in records for digest in record.digests.values()}
    grants = [_grant(verifier, entry, blobs[record.digests["grant"]]) for entry, record in records if _allows(record)]
    paths = [store.inclusion(entry.index, head.size) for entry, _ in records]
    return Bundle(
        job=cti,
        checkpoint=head.note,
        leaves=tuple(Leaf(index=e.index, record=e.record, path=p) for (e, _), p in zip(records, paths, strict=True)),
        archive=archived(blobs.values()),
        grant=grants[0] if grants else None,
        leases=tuple(
            _lease(verifier, entry, blobs[record.digests["lease"]]) for entry, record in records if _leases(record)
        ),
    ).to_bytes()


def _allows(record: Record) -> bool:
    return (record.kind, record.outcome) == ("decision", "allow")


def _leases(record: Record) -> bool:
    return (record.kind, record.outcome) == ("lease", "issued")


def _grant(verifier: Verifier, entry: Entry, payload: bytes) -> bytes:
    return sign_grant(Grant.from_bytes(payload), verifier.keys.grant, (verifier.receipt(entry.index),))


def _lease(verifier: Verifier, entry: Entry, payload: bytes) -> bytes:
    return sign_lease(Lease.from_bytes(payload), verifier.keys.grant, (verifier.receipt(entry.index),))
