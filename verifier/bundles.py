"""Bundles: everything about one grant in one file, for an auditor who has no network and no account.

The log keeps what was signed as payloads; grant and leases are signed again here, without what only a TPM needs. A
signature more says nothing new: payload and record are what they were. Each record's receipt is the one that was handed
out when it became durable, under the first tree that held it, byte for byte: the log signs for one size the one root
that its checkpoint of that size has. For each of these trees the bundle shows that the newest one continues it.
"""

from attestation.bundle import Bundle, Consistency, Leaf, archived
from attestation.errors import Untrusted
from attestation.grant import Grant, sign_grant
from attestation.lease import Lease, sign_lease
from attestation.log import Checkpoint, Note, Record, make_receipt
from verifier.state import Verifier
from verifier.store import Store


class _Receipts:
    """Receipts as they were handed out, and the sizes of the trees that they speak of."""

    def __init__(self, verifier: Verifier, size: int) -> None:
        """``size`` is that of the bundle's checkpoint."""
        self._store, self._signer, self._size = verifier.store, verifier.keys.log, size
        self.sizes: set[int] = set()

    def of(self, index: int) -> bytes:
        """The receipt for the record at ``index``."""
        tree = first_tree(self._store, index, self._size)
        self.sizes.add(tree.size)
        return make_receipt(self._signer, tree.root, tree.size, index, self._store.inclusion(index, tree.size))


def first_tree(store: Store, index: int, size: int) -> Checkpoint:
    """The first tree with the entry ``index`` that the log signed, where it signed one of ``size`` > ``index``.

    There is a checkpoint for each group that the sequencer committed, so no more than one group is looked through.
    """
    note = next(filter(None, map(store.checkpoint, range(index + 1, size + 1))))
    return Checkpoint.from_bytes(Note.from_bytes(note).text.encode())


def make_bundle(verifier: Verifier, cti: bytes) -> bytes:
    """The bundle of a grant, or of a request that was denied. Raises ``Untrusted("grant.unknown")``."""
    store, key = verifier.store, verifier.keys.grant
    head, entries = store.head(), store.records_of(cti)
    if not entries:
        raise Untrusted("grant.unknown", f"the log has no record of {cti.hex()}")
    records = [(entry, Record.from_bytes(entry.record)) for entry in entries if entry.index < head.size]
    blobs = {digest: verifier.document(digest) for _, record in records for digest in record.digests.values()}
    receipts = _Receipts(verifier, head.size)
    leaves, leases, grant = list[Leaf](), list[bytes](), None
    for entry, record in records:
        beside, receipt = None, receipts.of(entry.index)
        match (record.kind, record.outcome):
            case ("decision", "allow"):
                grant = sign_grant(Grant.from_bytes(blobs[record.digests["grant"]]), key, (receipt,))
            case ("lease", "issued"):
                leases.append(sign_lease(Lease.from_bytes(blobs[record.digests["lease"]]), key, (receipt,)))
            case _:
                beside = receipt
        path = store.inclusion(entry.index, head.size)
        leaves.append(Leaf(index=entry.index, record=entry.record, path=path, receipt=beside))
    return Bundle(
        job=cti,
        checkpoint=head.note,
        leaves=tuple(leaves),
        archive=archived(blobs.values()),
        grant=grant,
        leases=tuple(leases),
        consistency=tuple(
            Consistency(size=size, path=store.consistency(size, head.size)) for size in sorted(receipts.sizes)
        ),
    ).to_bytes()
