"""What is read from the store on SQLite: one connection for each thread, each query sees what was committed."""

import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from attestation import merkle
from attestation.decision import Usage
from attestation.keys import PublicKey
from attestation.log import verify_checkpoint
from attestation.node import ClockRecord
from verifier.ledger import Reserved
from verifier.sqlite_memory import Memory
from verifier.sqlite_rules import CHALLENGE, GPU_SECONDS, JOB, LIVE, NODE, SUBMITTERS, lines_of
from verifier.store import Challenge, Corrupt, Entry, Head, Job, Kept, Node, Secret, Token, Unavailable, Version

_BUSY_SECONDS = 10.0


class SqliteReads:
    """The reading half of :class:`verifier.store.Store`."""

    def __init__(self, path: Path, *, origin: str, key: PublicKey) -> None:
        """Read the store at ``path``; ``origin`` and ``key`` are those of its log's checkpoints."""
        self._path = path
        self._origin, self._key = origin, key
        self._memory = Memory()
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._open_lock = threading.Lock()

    def close(self) -> None:
        """See :meth:`verifier.store.Store.close`."""
        with self._open_lock:
            while self._open:
                self._open.pop().close()

    def _connect(self) -> sqlite3.Connection:
        """A connection that :meth:`close` will close, from whatever thread."""
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        with self._open_lock:
            self._open.append(connection)
        return connection

    def _all(self, sql: str, *values: Any, **named: Any) -> list[Any]:
        """All rows of a query, with its values by place or by name."""
        with DISK:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
            return connection.execute(sql, named or values).fetchall()

    def _one(self, sql: str, *values: Any, **named: Any) -> Any:
        """The first row, or ``None``."""
        rows = self._all(sql, *values, **named)
        return rows[0] if rows else None

    def _bytes(self, sql: str, *values: Any) -> bytes | None:
        """The one value of the first row."""
        row = self._one(sql, *values)
        return None if row is None else bytes(row[0])

    # --- the log

    def head(self) -> Head:
        """See :meth:`verifier.store.Store.head`."""
        row = self._one("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1")
        if row is None:
            return Head(0, merkle.EMPTY_ROOT, b"")
        checkpoint = verify_checkpoint(row[0], self._key, self._origin)
        return Head(checkpoint.size, checkpoint.root, row[0])

    def record(self, index: int) -> bytes | None:
        """See :meth:`verifier.store.Store.record`."""
        return self._bytes("SELECT record FROM entry WHERE idx = ?", index)

    def records(self, first: int, count: int) -> list[Entry]:
        """See :meth:`verifier.store.Store.records`."""
        rows = self._all("SELECT idx, record FROM entry WHERE idx >= ? ORDER BY idx LIMIT ?", first, count)
        return [Entry(*row) for row in rows]

    def records_of(self, job: bytes) -> list[Entry]:
        """See :meth:`verifier.store.Store.records_of`."""
        return [Entry(*row) for row in self._all("SELECT idx, record FROM entry WHERE job = ? ORDER BY seq", job)]

    def subtree(self, level: int, index: int) -> bytes:
        """See :meth:`verifier.store.Store.subtree`."""
        value = self._bytes("SELECT hash FROM tree WHERE level = ? AND idx = ?", level, index)
        if value is None:
            raise IndexError(f"no complete subtree {index} at level {level}")
        return value

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """See :meth:`verifier.store.Store.inclusion`."""
        self.subtree(0, size - 1)  # the tree has this size, or did
        return merkle.prove_inclusion(index, size, self.subtree)

    def consistency(self, size1: int, size2: int) -> tuple[bytes, ...]:
        """See :meth:`verifier.store.Store.consistency`."""
        self.subtree(0, size2 - 1)
        return merkle.prove_consistency(size1, size2, self.subtree)

    def checkpoint(self, size: int) -> bytes | None:
        """See :meth:`verifier.store.Store.checkpoint`."""
        return self._bytes("SELECT note FROM checkpoint WHERE size = ?", size)

    # --- documents

    def blob(self, digest: bytes) -> bytes | None:
        """See :meth:`verifier.store.Store.blob`."""
        return self._bytes("SELECT data FROM blob WHERE digest = ?", digest)

    def active(self, kind: str) -> Version | None:
        """See :meth:`verifier.store.Store.active`."""
        row = self._one("SELECT number, digest, at FROM version NATURAL JOIN active WHERE kind = ?", kind)
        return None if row is None else Version(*row)

    def in_force(self) -> Mapping[str, bytes]:
        """See :meth:`verifier.store.Store.in_force`."""
        return self._memory.in_force()

    def versions(self, kind: str) -> list[Version]:
        """See :meth:`verifier.store.Store.versions`."""
        rows = self._all("SELECT number, digest, at FROM version WHERE kind = ? ORDER BY number", kind)
        return [Version(*row) for row in rows]

    def collateral(self) -> list[Kept]:
        """See :meth:`verifier.store.Store.collateral`."""
        rows = self._all("SELECT kind, id, data, fetched, expires, source, used FROM collateral ORDER BY kind, id")
        return [Kept(*row) for row in rows]

    def secret(self, name: str) -> Secret | None:
        """See :meth:`verifier.store.Store.secret`."""
        row = self._one("SELECT name, tenant, sealed, at FROM secret WHERE name = ?", name)
        return None if row is None else Secret(*row)

    def secrets(self) -> list[Secret]:
        """See :meth:`verifier.store.Store.secrets`."""
        return [Secret(*row) for row in self._all("SELECT name, tenant, sealed, at FROM secret ORDER BY name")]

    # --- nodes, submitters, requests

    def token(self, digest: bytes) -> Token | None:
        """See :meth:`verifier.store.Store.token`."""
        row = self._one("SELECT name, pool, expires, used FROM token WHERE digest = ?", digest)
        return None if row is None else Token(*row)

    def activation(self, session: bytes) -> bytes | None:
        """See :meth:`verifier.store.Store.activation`."""
        return self._bytes("SELECT state FROM activation WHERE session = ?", session)

    def node(self, name: str) -> Node | None:
        """See :meth:`verifier.store.Store.node`."""
        row = self._one(NODE + "WHERE name = ?", name)
        return None if row is None else _node(row)

    def node_by_ek(self, ek_digest: bytes) -> Node | None:
        """See :meth:`verifier.store.Store.node_by_ek`."""
        row = self._one(NODE + "WHERE ek_digest = ?", ek_digest)
        return None if row is None else _node(row)

    def node_by_holder(self, holder: bytes) -> Node | None:
        """See :meth:`verifier.store.Store.node_by_holder`."""
        row = self._one(NODE + "WHERE holder = ?", holder)
        return None if row is None else _node(row)

    def nodes(self) -> list[Node]:
        """See :meth:`verifier.store.Store.nodes`."""
        return [_node(row) for row in self._all(NODE + "ORDER BY name")]

    def challenge(self, nonce: bytes) -> Challenge | None:
        """See :meth:`verifier.store.Store.challenge`."""
        row = self._one(CHALLENGE, nonce)
        if row is None:
            return None
        node, issued, expires, redeemed, progress, asked, *clock = row
        return Challenge(node, issued, expires, redeemed, _clock(*clock), progress, asked)

    def submitter(self, kid: bytes) -> bytes | None:
        """See :meth:`verifier.store.Store.submitter`."""
        return self._memory.submitter(kid)

    def submitters(self) -> dict[bytes, bytes]:
        """See :meth:`verifier.store.Store.submitters`."""
        return dict(self._all(SUBMITTERS))

    # --- jobs

    def job(self, cti: bytes) -> Job | None:
        """See :meth:`verifier.store.Store.job`."""
        row = self._one(JOB + "WHERE cti = ?", cti)
        return None if row is None else Job(*row)

    def jobs(self, *, node: str | None = None, live: bool = False) -> list[Job]:
        """See :meth:`verifier.store.Store.jobs`."""
        rows = self._all(f"{JOB}WHERE (?1 IS NULL OR node = ?1) AND (NOT ?2 OR {LIVE}) ORDER BY rowid", node, live)
        return [Job(*row) for row in rows]

    def usage(self, submitter: bytes, tenant: str, node: str, *, without: bytes | None, since: int) -> Usage:
        """See :meth:`verifier.store.Store.usage`."""
        of_submitter, of_tenant, of_node = self._memory.running(Reserved(submitter, tenant, node), without)
        seconds = self._one(GPU_SECONDS, tenant, since)[0] if self._memory.has_used(tenant) else 0
        return Usage(submitter_jobs=of_submitter, tenant_jobs=of_tenant, node_jobs=of_node, gpu_seconds=seconds)


def _node(row: Any) -> Node:
    name, ek_digest, holder, state, pool, record, *clock, gpus, progress = row
    return Node(name, ek_digest, holder, state, pool, record, _clock(*clock), lines_of(gpus), progress)


def _clock(clock: int | None, resets: int, restarts: int, safe: int) -> ClockRecord | None:
    return None if clock is None else ClockRecord(clock=clock, resets=resets, restarts=restarts, safe=bool(safe))


class _Disk:
    """Says in the store's words what SQLite could not do; errors that only we can make pass as they are."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, (sqlite3.OperationalError, OSError)):
            raise Unavailable("log.unavailable", str(error)) from error
        if type(error) is sqlite3.DatabaseError:
            raise Corrupt("log.corrupt", str(error)) from error


DISK = _Disk()
"""It has no state of its own, so that one does for every query of every thread."""
