"""Bundle: everything about one job in one file, for somebody who has two public keys and nothing else.

========== =========================================================================================================
label 1    the profile, so that a file of another kind is not taken for one
label 2    the job: the id of its grant (a denied request has one too)
label 3    one signed checkpoint of the log
label 4    all records of the job in order, each with its index and its inclusion path under that checkpoint
label 5    the archive: every byte string that a record names by its SHA-256, ascending, each once, and no other
label 6    the signed grant, with its receipt; absent where the request was denied
label 7    the signed leases in order, each with its receipt
label 8    for each size of the log that a receipt speaks of, ascending, its consistency with that checkpoint
========== =========================================================================================================

Each record has one receipt: in the grant for the decision that allows, in the lease for the record that issues it, and
beside every other record (label 4 of a leaf). It is the one that was handed out when the record became durable.

Intents, evidence and reports are in the archive as they were signed. Grants and leases are archived as payloads, and
their signed forms are beside it: the identity of both is their payload (ECDSA signatures are malleable).

This module is the format; :mod:`attestation.audit` says whether what is in it is true.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attestation import grant, lease
from attestation.errors import Malformed
from attestation.keys import EDDSA, ES256, PublicKey
from attestation.wire import Wire, label, wire

PROFILE = "tag:interlock,2026:bundle/1"
MAX_SIZE = 1 << 30
_MAX_BLOB = 512 << 20
"""Whatever is archived fits: evidence with a whole measurement list, a large IMA policy."""
_END = b"-----END PUBLIC KEY-----\n"


@wire
class Leaf(Wire):
    """One record: its index in the log, its bytes, its inclusion path (lowest sibling first), its receipt (above)."""

    index: int = label(1)
    record: bytes = label(2, most=65536)
    path: tuple[bytes, ...] = label(3, most=64)
    receipt: bytes | None = label(4, most=4096, default=None)


@wire
class Consistency(Wire):
    """That the log's tree of ``size`` entries is a prefix of the checkpoint's (RFC 9162 section 2.1.4)."""

    size: int = label(1, low=1)
    path: tuple[bytes, ...] = label(2, most=64)


@wire
class Bundle(Wire):
    """Everything about one job; what each part is stands above ``attestation/bundle.py``."""

    MAX_SIZE = MAX_SIZE
    MAX_ITEMS = MAX_SIZE

    profile: str = label(1, most=64, default=PROFILE)
    job: bytes = label(2, size=16)
    checkpoint: bytes = label(3, most=16384)
    leaves: tuple[Leaf, ...] = label(4, most=1_000_000)
    archive: tuple[bytes, ...] = label(5, most=_MAX_BLOB, ordered=True)
    grant: bytes | None = label(6, most=grant.MAX_SIZE, default=None)
    leases: tuple[bytes, ...] = label(7, most=lease.MAX_SIZE * 64, default=())
    consistency: tuple[Consistency, ...] = label(8, most=1_000_000, default=())

    def check(self) -> None:
        """Raise ``Malformed`` for another profile, a bundle without records, or consistency in another order."""
        if self.profile != PROFILE:
            raise Malformed("bundle.profile", f"{self.profile!r} is not {PROFILE}")
        if not self.leaves:
            raise Malformed("bundle.empty", "a bundle has at least one record")
        sizes = [proof.size for proof in self.consistency]
        if sizes != sorted(set(sizes)):
            raise Malformed("bundle.order", "the sizes of the consistency proofs do not ascend")

    def blobs(self) -> Mapping[bytes, bytes]:
        """The archive by SHA-256."""
        return {hashlib.sha256(data).digest(): data for data in self.archive}


def archived(blobs: Iterable[bytes]) -> tuple[bytes, ...]:
    """Blobs as a bundle has them: ascending, each once."""
    return tuple(sorted(set(blobs)))


@dataclass(frozen=True, slots=True)
class Root:
    """What an auditor pins: the key that signs grants and leases, and the key of the log."""

    grant: PublicKey
    log: PublicKey

    @classmethod
    def from_pem(cls, data: bytes) -> "Root":
        """Read ``root.pem``: the grant key (ES256), then the log key (Ed25519), nothing else.

        Raises ``Malformed("root.keys")``, and what :meth:`PublicKey.from_pem` raises.
        """
        first, end, second = data.partition(_END)
        if second.count(_END) != 1 or not second.endswith(_END):
            raise Malformed("root.keys", f"{data.count(_END)} public keys in PEM, must be two and nothing else")
        keys = cls(PublicKey.from_pem(first + end), PublicKey.from_pem(second))
        if (keys.grant.alg, keys.log.alg) != (ES256, EDDSA):
            swapped = "these two are swapped" if (keys.grant.alg, keys.log.alg) == (EDDSA, ES256) else "others are here"
            raise Malformed("root.keys", f"first the grant key, P-256, then the log key, Ed25519; {swapped}")
        return keys
