"""What only the SQLite store does: its file, and what it refuses to open."""

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from attestation import merkle
from attestation.keys import EDDSA, SoftwareSigner
from attestation.log import Record, sign_checkpoint
from tests.verifier.stores import GENESIS, LOG, ORIGIN, note, open_sqlite, seal
from verifier.changes import PutBlob, PutSubmitter, RedeemChallenge, Unit
from verifier.sqlite import SqliteStore
from verifier.sqlite_rules import RULES, SCHEMA_VERSION
from verifier.store import Corrupt, Unavailable


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """The directory of a store of seven entries."""
    store = open_sqlite(tmp_path)
    store.commit([Unit(records=(GENESIS, *map(note, range(6))))], seal)
    store.close()
    return tmp_path


def alter(directory: Path, *statements: str, value: object = None) -> None:
    """What somebody with a database shell does."""
    database = sqlite3.connect(directory / "interlock.db")
    for statement in statements:
        database.execute(statement, (value,) if "?" in statement else ())
    database.commit()
    database.close()


def test_commits_are_synced(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", origin=ORIGIN, key=LOG.public)
    writer = store._writer  # the setting belongs to the connection, there is no other way to see it
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_only_the_owner_reads_the_file(filled: Path) -> None:
    assert stat.S_IMODE((filled / "interlock.db").stat().st_mode) == 0o600


def test_it_opens_what_it_closed(filled: Path) -> None:
    store = open_sqlite(filled)
    assert store.head().size == 7
    store.close()


OTHER = SoftwareSigner.generate(EDDSA)


@pytest.mark.parametrize(
    ("statements", "value"),
    [
        pytest.param(("DELETE FROM entry WHERE idx = 6",), None, id="last entry removed"),
        pytest.param(("INSERT INTO entry (idx, record) VALUES (7, x'00')",), None, id="entry added"),
        pytest.param(("UPDATE entry SET record = x'00' WHERE idx = 6",), None, id="last entry altered"),
        pytest.param(("UPDATE tree SET hash = zeroblob(32) WHERE level = 2",), None, id="subtree altered"),
        pytest.param(("DELETE FROM tree WHERE level = 2",), None, id="subtree removed"),
        pytest.param(("DELETE FROM checkpoint",), None, id="checkpoints removed"),
        pytest.param(("UPDATE checkpoint SET note = x'00'",), None, id="checkpoint overwritten"),
        pytest.param(
            ("UPDATE checkpoint SET note = ?",),
            sign_checkpoint(OTHER, ORIGIN, 7, merkle.EMPTY_ROOT),
            id="checkpoint of another key",
        ),
        pytest.param(
            ("UPDATE checkpoint SET note = ?",), seal(7, merkle.EMPTY_ROOT), id="signed checkpoint of another tree"
        ),
        pytest.param(("UPDATE checkpoint SET size = 8",), None, id="checkpoint renumbered"),
        pytest.param((f"PRAGMA user_version = {SCHEMA_VERSION + 1}",), None, id="schema of the future"),
        pytest.param(("PRAGMA application_id = 7",), None, id="file of another program"),
    ],
)
def test_it_refuses_to_open(filled: Path, statements: tuple[str, ...], value: object) -> None:
    alter(filled, *statements, value=value)
    with pytest.raises(Corrupt, match=r"log\.corrupt"):
        open_sqlite(filled)


def test_it_says_whose_a_store_is_that_it_does_not_open(filled: Path) -> None:
    alter(filled, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(Corrupt, match="written by a newer release"):
        open_sqlite(filled)
    alter(filled, "PRAGMA application_id = 7")
    with pytest.raises(Corrupt, match="none of Interlock's"):
        open_sqlite(filled)


def test_it_refuses_the_checkpoints_of_another_log(filled: Path) -> None:
    for origin, key in (("other.test/log", LOG.public), (ORIGIN, OTHER.public)):
        with pytest.raises(Corrupt, match="newest checkpoint"):
            SqliteStore(filled / "interlock.db", origin=origin, key=key)


def test_it_refuses_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "interlock.db").write_bytes(b"not a database, but long enough to be looked at " * 100)
    with pytest.raises(Corrupt):
        open_sqlite(tmp_path)


def test_it_says_when_it_cannot_open(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        open_sqlite(tmp_path / "missing")
    (tmp_path / "interlock.db").mkdir()
    with pytest.raises(Unavailable):
        open_sqlite(tmp_path)


def test_it_needs_a_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable, match="no write-ahead log"):
        SqliteStore(Path(":memory:"), origin=ORIGIN, key=LOG.public)


def test_a_record_removed_in_the_middle_shows(filled: Path) -> None:
    alter(filled, "DELETE FROM entry WHERE idx = 3")
    store = open_sqlite(filled)
    assert store.record(3) is None
    assert len(store.records(0, 10)) == 6
    store.close()


def test_a_signer_that_fails_leaves_nothing(filled: Path) -> None:
    store = open_sqlite(filled)

    def broken(size: int, root: bytes) -> bytes:
        raise Unavailable("log.unavailable", "no signature today")

    for _ in range(2):
        with pytest.raises(Unavailable, match="today"):
            store.commit([Unit((PutSubmitter(bytes(32), b"x"),), (note(1),))], broken)
    assert store.submitter(bytes(32)) is None
    (outcome,) = store.commit([Unit(records=(note(8),))], seal)
    assert isinstance(outcome, tuple)
    assert outcome[0].index == 7
    store.close()


def test_our_own_mistakes_are_not_the_disk(filled: Path) -> None:
    store = open_sqlite(filled)
    with pytest.raises(sqlite3.IntegrityError):
        store.commit([Unit((PutBlob(b"digest", "text"),), (note(1),))], seal)  # type: ignore[arg-type]
    assert store.head().size == 7
    store.close()


def test_a_full_database_says_so_and_goes_on_when_there_is_room(filled: Path) -> None:
    store = SqliteStore(filled / "interlock.db", origin=ORIGIN, key=LOG.public)
    writer = store._writer  # the quota belongs to the connection
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    big = Unit((PutBlob(bytes(32), bytes(100_000)),), (note(7),))
    with pytest.raises(Unavailable, match="full"):
        store.commit([Unit((PutSubmitter(bytes(32), b"x"),)), big], seal)
    assert (store.head().size, store.submitter(bytes(32)), store.record(7)) == (7, None, None)
    writer.execute(f"PRAGMA max_page_count = {pages + 100}")
    store.commit([big], seal)
    assert store.head().size == 8
    store.close()


def test_threads_read_while_one_commits(filled: Path) -> None:
    store = open_sqlite(filled)
    sizes: list[list[int]] = [[] for _ in range(4)]
    done = threading.Event()

    def read(seen: list[int]) -> None:
        while not done.is_set():
            head = store.head()
            assert len(store.records(0, 1000)) >= head.size
            seen.append(head.size)

    threads = [threading.Thread(target=read, args=(seen,)) for seen in sizes]
    for thread in threads:
        thread.start()
    for number in range(50):
        store.commit([Unit(records=(note(number),))], seal)
    done.set()
    for thread in threads:
        thread.join()
    assert all(seen == sorted(seen) for seen in sizes)
    assert store.head().size == 57
    store.close()


def test_every_change_has_a_rule() -> None:
    from verifier import changes

    kinds = {kind for kind in vars(changes).values() if isinstance(kind, type) and issubclass(kind, changes.Change)}
    assert kinds - {changes.Change} == RULES.keys()


def test_questions_need_a_default_reason() -> None:
    assert all(rule.otherwise or not rule.why for rule in RULES.values())
    assert RULES[RedeemChallenge].otherwise == "challenge.expired"


def test_records_are_kept_as_they_were_signed(filled: Path) -> None:
    store = open_sqlite(filled)
    for entry in store.records(0, 10):
        assert Record.from_bytes(entry.record).to_bytes() == entry.record
    store.close()


COLUMNS = "SELECT name, type, \"notnull\" FROM pragma_table_info('{table}')"


def test_a_store_of_the_version_before_is_upgraded(filled: Path) -> None:
    store = open_sqlite(filled)
    tables = {row[0] for row in store._all("SELECT name FROM sqlite_schema")}  # what a new store has
    columns = [store._all(COLUMNS.format(table=table)) for table in ("node", "challenge")]
    store.close()
    alter(filled, "ALTER TABLE challenge DROP COLUMN asked", "PRAGMA user_version = 4")
    open_sqlite(filled).close()
    alter(filled, "ALTER TABLE challenge DROP COLUMN asked")
    older = ("ALTER TABLE node DROP COLUMN progress", "ALTER TABLE challenge DROP COLUMN progress")
    alter(filled, *older, "PRAGMA user_version = 3")
    open_sqlite(filled).close()
    everything = ("ALTER TABLE challenge DROP COLUMN asked", *older)
    alter(filled, *everything, "DROP TABLE secret", "PRAGMA user_version = 2")
    open_sqlite(filled).close()
    alter(filled, *everything, "DROP TABLE collateral", "ALTER TABLE node DROP COLUMN gpus", "PRAGMA user_version = 1")
    alter(filled, "DROP TABLE secret")
    store = open_sqlite(filled)
    assert {row[0] for row in store._all("SELECT name FROM sqlite_schema")} == tables
    assert [store._all(COLUMNS.format(table=table)) for table in ("node", "challenge")] == columns
    assert store.head().size == 7
    store.close()
