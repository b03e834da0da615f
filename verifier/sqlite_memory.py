"""What the store keeps in memory of its tables, because every decision asks for it: what is in force, who may submit,
and what runs.

To count jobs in SQL takes the longer the more of them run; to count them as they come and go does not. All is read
from the tables when the store is opened, and follows each commit once it is on disk, so a reader sees what was
committed a moment ago at the earliest. No condition of a unit is decided from here: ``ExpectActive``,
``ExpectSubmitter`` and ``ExpectUsage`` ask the tables.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Mapping

from verifier.changes import LIVE, Activate, AdvanceLease, Change, EndJob, PutJob, PutSubmitter
from verifier.ledger import Reserved
from verifier.sqlite_rules import IN_FORCE, RUNNING, SUBMITTERS, USERS


class Memory:
    """See the module. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_force: Mapping[str, bytes] = {}
        self._submitters: dict[bytes, bytes] = {}
        self._jobs: dict[bytes, Reserved] = {}
        self._counts: Counter[tuple[str, bytes | str]] = Counter()
        self._users: set[str] = set()

    def load(self, database: sqlite3.Connection) -> None:
        """Read everything anew."""
        with self._lock:
            self._in_force = dict(database.execute(IN_FORCE))
            self._submitters = dict(database.execute(SUBMITTERS))
            self._users = {tenant for (tenant,) in database.execute(USERS)}
            self._jobs.clear()
            self._counts.clear()
            for cti, *job in database.execute(RUNNING):
                self._begin(cti, Reserved(*job))

    def follow(self, changes: Iterable[Change]) -> None:
        """Take over what has been committed."""
        with self._lock:
            for change in changes:
                if isinstance(change, PutJob):
                    if change.state in LIVE:
                        self._begin(change.cti, Reserved(change.submitter, change.tenant, change.node))
                elif isinstance(change, (AdvanceLease, EndJob)):
                    if change.gpu_seconds:
                        self._users.add(self._jobs[change.cti].tenant)
                    if isinstance(change, EndJob):
                        self._count(self._jobs.pop(change.cti), -1)
                elif isinstance(change, PutSubmitter):
                    self._submitters[change.kid] = change.record
                elif isinstance(change, Activate):
                    self._in_force = {**self._in_force, change.kind: change.digest}

    def in_force(self) -> Mapping[str, bytes]:
        """The digests of all documents in force, by kind."""
        return self._in_force

    def submitter(self, kid: bytes) -> bytes | None:
        """The encoded Submitter with this key id."""
        return self._submitters.get(kid)

    def running(self, job: Reserved, without: bytes | None) -> tuple[int, int, int]:
        """How many jobs may still execute that have the submitter, the tenant, the node of ``job``, but ``without``."""
        with self._lock:
            counts = [self._counts[key] for key in job.keys]
            left_out = None if without is None else self._jobs.get(without)
        if left_out is not None:
            counts = [n - (a == b) for n, a, b in zip(counts, left_out.keys, job.keys, strict=True)]
        submitter, tenant, node = counts
        return submitter, tenant, node

    def has_used(self, tenant: str) -> bool:
        """Whether any job of a tenant has ever used a GPU for a second."""
        return tenant in self._users

    def _begin(self, cti: bytes, job: Reserved) -> None:
        self._jobs[cti] = job
        self._count(job, 1)

    def _count(self, job: Reserved, step: int) -> None:
        for key in job.keys:
            self._counts[key] += step
            if not self._counts[key]:
                del self._counts[key]
