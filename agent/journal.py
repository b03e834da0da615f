"""What the agent must remember across its own death: used grants, runs in progress, reports not yet delivered.

Rules:
1. A grant is burned, durably, before the process that it allows is started (architecture, section 3, step 8). The
   primary key makes the second attempt fail, whoever makes it.
2. A run that has no report when the agent starts was cut off: the agent reports it as ``agent.died``.
3. A report stays here until the verifier has answered with the receipt of its record. It is kept before it is signed,
   because out of lease the TPM signs by a permit only; and as signed before it is sent, because it is signed once.
4. What came out of each request, denied ones too, is kept for ``interlock explain``; it is readable by its owner only.

One SQLite file, mode 0600, WAL with synchronous=FULL: a commit that returned is on the disk. Where the disk is full or
fails, every method raises ``OSError``: then no grant is burned, and so nothing starts.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attestation.errors import Untrusted

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS run (
    cti BLOB PRIMARY KEY, job TEXT NOT NULL, uid INTEGER NOT NULL, code BLOB NOT NULL, outputs TEXT NOT NULL,
    started INTEGER NOT NULL, sequence INTEGER NOT NULL DEFAULT 0, report BLOB, receipt BLOB
) STRICT;
CREATE TABLE IF NOT EXISTS ending (
    number INTEGER PRIMARY KEY AUTOINCREMENT, cti BLOB UNIQUE, job TEXT NOT NULL, uid INTEGER NOT NULL,
    ended INTEGER NOT NULL, answer BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS draft (cti BLOB PRIMARY KEY, report BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS ending_job ON ending (job);
"""

_UNDRAFTED: Final = "cti NOT IN (SELECT cti FROM draft) ORDER BY started, cti"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was begun: its grant, job name, submitter's uid, tree digest, outputs, Unix seconds of its start,
    and the sequence of the last lease that was held."""

    cti: bytes
    job: str
    uid: int
    code: bytes
    outputs: tuple[str, ...]
    started: int
    sequence: int = 0


class Journal:
    """The journal at ``path``; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._base.close()

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._base
            except sqlite3.OperationalError as error:
                raise OSError(f"the journal cannot be used: {error}") from error

    # --- grants ------------------------------------------------------------------------------------------------

    def __contains__(self, cti: object) -> bool:
        """Whether the grant ``cti`` has been burned here."""
        with self._using() as base:
            return base.execute("SELECT 1 FROM run WHERE cti = ?", (cti,)).fetchone() is not None

    def burn(self, run: Run) -> None:
        """Use up the grant of ``run``, durably. Raises ``Untrusted("grant.replayed")`` for the second use."""
        row = (run.cti, run.job, run.uid, run.code, "\n".join(run.outputs), run.started, run.sequence)
        names = "cti, job, uid, code, outputs, started, sequence"
        try:
            with self._using() as base:
                base.execute(f"INSERT INTO run ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - constant
        except sqlite3.IntegrityError as error:
            raise Untrusted("grant.replayed", f"grant {run.cti.hex()} has been used on this host") from error

    def leased(self, cti: bytes, sequence: int) -> None:
        """Note the last lease that the run held."""
        with self._using() as base:
            base.execute("UPDATE run SET sequence = ? WHERE cti = ?", (sequence, cti))

    def unfinished(self) -> list[Run]:
        """The runs that have no report, oldest first."""
        columns = "cti, job, uid, code, outputs, started, sequence"
        query = f"SELECT {columns} FROM run WHERE report IS NULL AND {_UNDRAFTED}"  # noqa: S608 - constant
        with self._using() as base:
            rows = base.execute(query).fetchall()
        return [
            Run(cti, job, uid, code, tuple(o.split("\n")) if o else (), s, n) for cti, job, uid, code, o, s, n in rows
        ]

    # --- reports -----------------------------------------------------------------------------------------------

    def finish(self, cti: bytes, report: bytes) -> None:
        """Keep the report of a run until it is signed. The first one stands."""
        query = "INSERT OR IGNORE INTO draft SELECT cti, ? FROM run WHERE cti = ? AND report IS NULL"
        with self._using() as base:
            base.execute(query, (report, cti))

    def unsigned(self) -> list[tuple[bytes, bytes]]:
        """Grant and report of every run whose report is not signed yet, oldest first."""
        query = "SELECT cti, d.report FROM draft d JOIN run r USING (cti) WHERE r.report IS NULL ORDER BY started, cti"
        with self._using() as base:
            return base.execute(query).fetchall()

    def sign(self, cti: bytes, token: bytes) -> None:
        """Keep the signed report of a run until it is delivered. The first one stands."""
        with self._using() as base:
            base.execute("UPDATE run SET report = ? WHERE cti = ? AND report IS NULL", (token, cti))
            base.execute("DELETE FROM draft WHERE cti = ?", (cti,))

    def undelivered(self) -> list[tuple[bytes, bytes]]:
        """Grant and report token of every run whose report has no receipt, oldest first."""
        query = "SELECT cti, report FROM run WHERE report IS NOT NULL AND receipt IS NULL ORDER BY started, cti"
        with self._using() as base:
            return base.execute(query).fetchall()

    def delivered(self, cti: bytes, receipt: bytes) -> None:
        """The verifier has the report; ``receipt`` is its answer."""
        with self._using() as base:
            base.execute("UPDATE run SET receipt = ? WHERE cti = ?", (receipt, cti))

    # --- endings -----------------------------------------------------------------------------------------------

    def ended(self, cti: bytes | None, job: str, uid: int, ended: int, answer: bytes) -> None:
        """Keep the encoded answer that the submitter got, for ``explain``."""
        row = (cti, job, uid, ended, answer)
        with self._using() as base:
            base.execute("INSERT OR REPLACE INTO ending (cti, job, uid, ended, answer) VALUES (?, ?, ?, ?, ?)", row)

    def explain(self, name: str, uid: int) -> bytes | None:
        """The last answer about ``name`` (a job's name or a grant id in hexadecimal) that ``uid`` may see."""
        cti = bytes.fromhex(name) if len(name) == 32 and set(name) <= set("0123456789abcdef") else None
        query = (
            "SELECT answer FROM ending WHERE (cti = ? OR job = ?) AND (uid = ? OR ? = 0) ORDER BY number DESC LIMIT 1"
        )
        with self._using() as base:
            row = base.execute(query, (cti, name, uid, uid)).fetchone()
        return None if row is None else row[0]
