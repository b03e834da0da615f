"""The store on SQLite: one file, write-ahead log, every commit on disk before it returns.

``synchronous=FULL`` in WAL mode syncs the log at each commit (sqlite.org/pragma.html#pragma_synchronous). One
connection writes, each reading thread has its own. All SQL is written by hand, most of it in
:mod:`verifier.sqlite_rules`.

The tree is kept as all complete subtrees, two rows for each entry in the mean, none ever written again; a proof of any
size reads at most one row per level. The *frontier*, all that the next append needs, is kept in memory and read again
where another process has appended.

At the start the newest checkpoint is verified, and the frontier on disk must give its root, and the last entry its
leaf: else :class:`verifier.store.Corrupt`, and nothing is served.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from attestation import merkle
from attestation.errors import Malformed, Untrusted
from attestation.keys import PublicKey
from attestation.log import leaf_hash
from attestation.progress import HostProgress, merged
from verifier.changes import Change, PutBlobs, Unit
from verifier.sqlite_reads import DISK, SqliteReads
from verifier.sqlite_rules import (
    APPLICATION_ID,
    PUT_BLOB,
    RULES,
    SCHEMA,
    SCHEMA_VERSION,
    STEADY,
    UNSETTLING,
    UPGRADES,
    parameters,
)
from verifier.store import Appended, Conflict, Corrupt, Outcome, Seal, Unavailable

_OWNER_ONLY = 0o600
_Frontier: TypeAlias = tuple[int, tuple[bytes, ...]]


class SqliteStore(SqliteReads):
    """A :class:`verifier.store.Store` in one SQLite file. Threads may share it; commits are made one at a time."""

    def __init__(self, path: Path, *, origin: str, key: PublicKey) -> None:
        """Open the store at ``path``, or make it; ``origin`` and ``key`` are those of its log's checkpoints.

        Raises :class:`Corrupt` where what is there is not this log, whole, and :class:`Unavailable` where it cannot
        be read.
        """
        super().__init__(path, origin=origin, key=key)
        self._lock = threading.Lock()
        try:
            with DISK:
                path.touch(mode=_OWNER_ONLY)
                self._writer = self._connect()
                self._writer.create_function("furthest", 2, _furthest, deterministic=True)
                self._prepare()
                self._frontier = self._checked_frontier()
                self._memory.load(self._writer)
        except BaseException:
            self.close()
            raise

    def commit(self, units: Sequence[Unit], seal: Seal) -> list[Outcome]:
        """See :meth:`verifier.store.Store.commit`."""
        with self._lock, DISK:
            with _transaction(self._writer):
                size = _size(self._writer)
                if size != self._frontier[0]:
                    self._frontier = _frontier(self._writer, size)
                    self._memory.load(self._writer)
                group = _Group(self._writer, merkle.Growth(*self._frontier))
                for unit in units:
                    group.apply(unit)
                outcomes = group.append(seal)
                frontier = group.growth.size, group.growth.frontier()
            self._frontier = frontier
            self._memory.follow(group.made)
        return outcomes

    def probe(self) -> None:
        """See :meth:`verifier.store.Store.probe`."""
        with self._lock, DISK, _transaction(self._writer):
            self._writer.execute("INSERT INTO probe (one) VALUES (1) ON CONFLICT DO UPDATE SET count = count + 1")

    def _prepare(self) -> None:
        """Set the connection up and make the tables, or check that they are ours."""
        database = self._writer
        (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise Unavailable("log.unavailable", f"{self._path}: no write-ahead log on this file system ({mode})")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute("PRAGMA foreign_keys = ON")
        with _transaction(database):
            (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not tables:
                for statement in SCHEMA.split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            _upgrade(database)
        found = tuple(database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if found != (APPLICATION_ID, SCHEMA_VERSION):
            newer = found[0] == APPLICATION_ID and found[1] > SCHEMA_VERSION
            what = "was written by a newer release" if newer else "is none of Interlock's"
            raise Corrupt("log.corrupt", f"{self._path} {what}: {found}, this one knows version {SCHEMA_VERSION}")

    def _checked_frontier(self) -> _Frontier:
        """The frontier on disk, if it is the one that the newest checkpoint signs; else :class:`Corrupt`.

        1. The newest checkpoint verifies under the log's origin and key, and is filed under its own size.
        2. There are as many entries as it says.
        3. The frontier has the root that it says.
        4. The last entry is the last leaf.
        """
        try:
            head = self.head()  # (1)
        except (Malformed, Untrusted) as error:
            raise Corrupt("log.corrupt", f"the newest checkpoint: {error}") from error
        if _size(self._writer) != head.size:
            raise Corrupt("log.corrupt", f"the newest checkpoint is one of size {head.size}")
        ((entries,),) = self._all("SELECT coalesce(max(idx) + 1, 0) FROM entry")
        if entries != head.size:  # (2)
            raise Corrupt("log.corrupt", f"{entries} entries, the checkpoint says {head.size}")
        frontier = _frontier(self._writer, head.size)
        if merkle.Growth(*frontier).root() != head.root:  # (3)
            raise Corrupt("log.corrupt", "the tree on disk does not have the root of its checkpoint")
        last = head.size - 1
        if head.size and leaf_hash(self.record(last) or b"") != self.subtree(0, last):  # (4)
            raise Corrupt("log.corrupt", f"entry {last} is not the leaf that it was")
        return frontier


class _Group:
    """One transaction in the making: what units change, and the records that they append."""

    def __init__(self, database: sqlite3.Connection, growth: merkle.Growth) -> None:
        self.growth = growth
        self.made: list[Change] = []
        self._database = database
        self._outcomes: list[Conflict | range] = []
        self._entries: list[tuple[int, bytes, bytes | None, int | None]] = []
        self._next: dict[bytes, int] = {}
        self._held: set[Change] = set()

    def apply(self, unit: Unit) -> None:
        """Make a unit's changes and number its records, or note the conflict and undo its changes."""
        conflict = self._change_all(unit.changes)
        if conflict is not None:
            self._outcomes.append(conflict)
            return
        self.made += unit.changes
        first = self.growth.size
        for record in unit.records:
            numbered = record if record.job is None else record.numbered(self._sequence(record.job))
            encoded = numbered.to_bytes()
            index = self.growth.append(leaf_hash(encoded))
            self._entries.append((index, encoded, numbered.job, numbered.sequence))
        self._outcomes.append(range(first, self.growth.size))

    def append(self, seal: Seal) -> list[Outcome]:
        """Write the entries, the new part of the tree and one signed checkpoint; the outcomes of all units."""
        growth = self.growth
        if not self._entries:
            return [outcome if isinstance(outcome, Conflict) else () for outcome in self._outcomes]
        root = growth.root()
        note = seal(growth.size, root)
        self._database.executemany("INSERT INTO entry (idx, record, job, seq) VALUES (?, ?, ?, ?)", self._entries)
        self._database.executemany("INSERT INTO tree (level, idx, hash) VALUES (?, ?, ?)", growth.new_nodes())
        self._database.execute("INSERT INTO checkpoint (size, note) VALUES (?, ?)", (growth.size, note))
        start = growth.start
        return [
            outcome
            if isinstance(outcome, Conflict)
            else tuple(
                Appended(index, growth.size, growth.path(index), root, note, self._entries[index - start][1])
                for index in outcome
            )
            for outcome in self._outcomes
        ]

    def _change_all(self, changes: Sequence[Change]) -> Conflict | None:
        if len(changes) < 2:  # one statement happens or does not, by itself
            return self._change(changes[0]) if changes else None
        execute = self._database.execute
        execute("SAVEPOINT unit")
        for change in changes:
            conflict = self._change(change)
            if conflict is not None:
                execute("ROLLBACK TO unit")
                execute("RELEASE unit")
                self._held.clear()
                return conflict
        execute("RELEASE unit")
        return None

    def _change(self, change: Change) -> Conflict | None:
        """Make one change, or say why its condition does not hold.

        What is in force and who may submit is asked once in a group: until the group changes it itself, nobody does.
        """
        kind = type(change)
        if isinstance(change, PutBlobs):
            self._database.executemany(PUT_BLOB, change.blobs)
            return None
        if kind in STEADY and change in self._held:
            return None
        rule, values = RULES[kind], parameters(change)
        cursor = self._database.execute(rule.sql, values)
        held = cursor.fetchone() is not None if rule.asks else cursor.rowcount > 0
        if rule.otherwise and not held:
            found = (reason for question, reason in rule.why if self._database.execute(question, values).fetchone())
            return Conflict(next(found, rule.otherwise), kind.__name__)
        if kind in STEADY:
            self._held.add(change)
        elif kind in UNSETTLING:
            self._held.clear()
        for statement in rule.more:
            self._database.execute(statement, values)
        return None

    def _sequence(self, job: bytes) -> int:
        """The number of the next record of a job."""
        number = self._next.get(job)
        if number is None:
            row = self._database.execute("SELECT coalesce(max(seq) + 1, 0) FROM entry WHERE job = ?", (job,))
            number = int(row.fetchone()[0])
        self._next[job] = number + 1
        return number


def _furthest(known: bytes | None, proven: bytes) -> bytes:
    """What is known of a host once ``proven`` was accepted; in SQL, so that it happens where it is kept."""
    before = None if known is None else HostProgress.from_bytes(known)
    return merged(before, HostProgress.from_bytes(proven)).to_bytes()


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: what is done inside is on disk afterwards, or never happened."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _upgrade(database: sqlite3.Connection) -> None:
    """Make a store of an older version one of this version; one that is not ours is left alone."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    while application == APPLICATION_ID and version in UPGRADES:
        for statement in UPGRADES[version]:
            database.execute(statement)
        version += 1
        database.execute(f"PRAGMA user_version = {version}")


def _size(database: sqlite3.Connection) -> int:
    """The size of the newest tree."""
    return int(database.execute("SELECT coalesce(max(size), 0) FROM checkpoint").fetchone()[0])


def _frontier(database: sqlite3.Connection, size: int) -> _Frontier:
    """Size and complete subtrees of the tree on disk, left to right."""
    hashes: list[bytes] = []
    for node in merkle.complete_subtrees(0, size):
        row = database.execute("SELECT hash FROM tree WHERE level = ? AND idx = ?", node).fetchone()
        if row is None:
            raise Corrupt("log.corrupt", f"the tree on disk lacks subtree {node}")
        hashes.append(row[0])
    return size, tuple(hashes)
