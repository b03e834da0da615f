"""What this verifier knows of a host beside its record: what is proven of it, its event log, its pool's IMA policy.

All of it is in the store, so a restarted verifier, or another replica, knows the same. What is large is kept at hand
here, bounded: logs are few and alike, and an IMA policy is compiled once and shared by all hosts.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from attestation.node import NodeRecord
from attestation.progress import HostProgress
from attestation.reference import ReferenceSet
from attestation.remember import Remembered
from attestation.tpm.ima.policy import CompiledPolicy, ImaPolicy, compile_policy


@dataclass(frozen=True, slots=True)
class KnownHost:
    """What is known of one host when a challenge is issued; ``event_log`` is the one that ``progress`` names."""

    progress: HostProgress | None = None
    event_log: bytes | None = None
    ima: CompiledPolicy | None = None


STRANGER = KnownHost()
MOST_LOGS = 64 << 20
"""Bytes of event logs at hand."""

MOST_POLICIES = 4
"""IMA policies at hand at a time: a large one has a hundred thousand files."""


class Knowledge:
    """What is known of hosts. ``document`` gives archived bytes by their SHA-256, or raises ``Unwell``."""

    def __init__(self, document: Callable[[bytes], bytes]) -> None:
        self._document = document
        self._logs = Remembered[bytes](MOST_LOGS)
        self._policies: dict[bytes, CompiledPolicy] = {}

    def of(self, node: NodeRecord, progress: bytes | None, references: ReferenceSet) -> KnownHost:
        """What is known of ``node``, whose progress is kept encoded."""
        known = self.progress(progress)
        log = None if known is None or known.log is None or not references.boots_of(node.pool) else known.log
        reference = references.list_of(node.pool)
        return KnownHost(
            known,
            None if log is None else self._logs.get(log, lambda: self._document(log), len),
            None if reference is None else self._policy(reference.policy),
        )

    async def prepare(self, node: NodeRecord, references: ReferenceSet) -> None:
        """Have the IMA policy of the node's pool at hand. Making it takes a second or more, so not in the loop."""
        reference = references.list_of(node.pool)
        if reference is not None and reference.policy not in self._policies:
            await asyncio.to_thread(self._policy, reference.policy)

    def progress(self, encoded: bytes | None) -> HostProgress | None:
        """A host's progress, as it is kept."""
        return None if encoded is None else _progress(encoded)

    def _policy(self, digest: bytes) -> CompiledPolicy:
        found = self._policies.get(digest)
        if found is None:
            found = compile_policy(ImaPolicy.from_bytes(self._document(digest)))
            while len(self._policies) >= MOST_POLICIES:
                self._policies.pop(next(iter(self._policies)), None)
            self._policies[digest] = found
        return found


@lru_cache(maxsize=4096)
def _progress(encoded: bytes) -> HostProgress:
    return HostProgress.from_bytes(encoded)
