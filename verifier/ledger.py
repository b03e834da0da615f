"""Jobs that are decided and not durable yet: they count against limits from the moment of the decision.

Decisions are made one after another in one process, so a job that is on its way to the log is reserved here, and the
next decision counts it. For a moment a job may count twice, here and in the store. An allow in spite of that is right;
a denial because of it would be wrong, so who is about to deny waits until what is reserved is durable, and looks again.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from attestation.decision import Usage


@dataclass(frozen=True, slots=True)
class Reserved:
    """Whose job it is, and where."""

    submitter: bytes
    tenant: str
    node: str

    @property
    def keys(self) -> tuple[tuple[str, bytes | str], ...]:
        """Under which names it is counted."""
        return ("submitter", self.submitter), ("tenant", self.tenant), ("node", self.node)


class Ledger:
    """The reservations of one process; used from its event loop only."""

    def __init__(self) -> None:
        self._pending: set[asyncio.Future[None]] = set()
        self._counts: dict[tuple[str, bytes | str], int] = {}

    @contextmanager
    def reserving(self, job: Reserved) -> Iterator[None]:
        """Count ``job`` for as long as this lasts."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.add(done)
        self._count(job, 1)
        try:
            yield
        finally:
            self._count(job, -1)
            self._pending.remove(done)
            done.set_result(None)

    def added_to(self, used: Usage, job: Reserved) -> Usage:
        """``used``, and what is reserved of the same submitter, tenant and node as ``job``."""
        if not self._pending:
            return used
        submitter, tenant, node = (self._counts.get(key, 0) for key in job.keys)
        return Usage(
            submitter_jobs=used.submitter_jobs + submitter,
            tenant_jobs=used.tenant_jobs + tenant,
            node_jobs=used.node_jobs + node,
            gpu_seconds=used.gpu_seconds,
        )

    async def settled(self) -> bool:
        """Wait until what is reserved now is durable or has failed; whether there was anything."""
        waiting = list(self._pending)
        if waiting:
            await asyncio.wait(waiting)
        return bool(waiting)

    def _count(self, job: Reserved, step: int) -> None:
        counts = self._counts
        for key in job.keys:
            counts[key] = counts.get(key, 0) + step
            if not counts[key]:
                del counts[key]
