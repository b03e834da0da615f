"""The sequencer: groups, order, back pressure, and that it fails closed. Real disks are filled, processes killed."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from typing_extensions import override

from attestation import merkle
from attestation.keys import EDDSA, PublicKey, SoftwareSigner
from attestation.log import Record, leaf_hash, verify_checkpoint
from tests.verifier.stores import GENESIS, LOG, ORIGIN, note, open_sqlite
from verifier.changes import PutBlob, PutSubmitter, Unit, UseIntent
from verifier.sequencer import Limits, Sequencer
from verifier.sqlite import SqliteStore
from verifier.store import Appended, Conflict, Store, Unavailable

QUICK = Limits(probe_seconds=0.01)


class Gate:
    """A log key that waits until it may sign, so that a test decides what is in a group."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.signed = 0
        self.error: Exception | None = None

    @property
    def public(self) -> PublicKey:
        return LOG.public

    def sign(self, message: bytes) -> bytes:
        self.asked.set()
        self.open.wait()
        self.signed += 1
        if self.error is not None:
            raise self.error
        return LOG.sign(message)

    @contextmanager
    def held(self, sequencer: Sequencer) -> Iterator[None]:
        """Inside, the thread is busy with one unit, and all that is submitted waits."""
        self.open.clear()
        self.asked.clear()
        first = sequencer.submit(Unit(records=(note(0),)))
        assert self.asked.wait(10)
        yield
        self.open.set()
        first.exception(10)


@contextmanager
def running(store: Store, signer: Gate | None = None, limits: Limits = QUICK) -> Iterator[Sequencer]:
    sequencer = Sequencer(store, signer or Gate(), ORIGIN, genesis=GENESIS, limits=limits)
    try:
        yield sequencer
    finally:
        sequencer.close()


def check(item: Appended) -> None:
    """What an auditor checks of one entry."""
    merkle.verify_inclusion(leaf_hash(item.record), item.index, item.size, item.path, item.root)
    checkpoint = verify_checkpoint(item.checkpoint, LOG.public, ORIGIN)
    assert (checkpoint.size, checkpoint.root) == (item.size, item.root)


def test_a_log_begins_with_its_genesis_record(opener: Callable[[], Store]) -> None:
    for size in (2, 3):
        store = opener()
        with running(store) as sequencer:
            assert store.record(0) == GENESIS.to_bytes()
            (item,) = sequencer.append(Unit(records=(note(1),)), 10)
            assert len(item.path) > 0
        assert store.head().size == size


def test_what_is_acknowledged_is_proven(store: Store) -> None:
    with running(store) as sequencer:
        futures = [sequencer.submit(Unit(records=(note(n), note(n + 1000)))) for n in range(200)]
        items = [item for future in futures for item in future.result(10)]
    assert [item.index for item in items] == list(range(1, 401))
    for item in items:
        check(item)
        assert store.record(item.index) == item.record


def test_what_waits_is_one_group_with_one_signature(store: Store) -> None:
    gate = Gate()
    with running(store, gate) as sequencer:
        with gate.held(sequencer):
            signed = gate.signed
            futures = [sequencer.submit(Unit(records=(note(n),))) for n in range(50)]
        sizes = {future.result(10)[0].size for future in futures}
    assert sizes == {52}
    assert gate.signed == signed + 2


def test_a_group_is_bounded(store: Store) -> None:
    gate = Gate()
    with running(store, gate, Limits(group=20)) as sequencer:
        with gate.held(sequencer):
            futures = [sequencer.submit(Unit(records=(note(n),))) for n in range(50)]
        sizes = sorted({future.result(10)[0].size for future in futures})
    assert sizes == [22, 42, 52]


def test_a_conflict_fails_its_unit_only(store: Store) -> None:
    gate = Gate()
    with running(store, gate) as sequencer:
        with gate.held(sequencer):
            futures = [sequencer.submit(Unit((UseIntent(bytes(32), n),), (note(n),))) for n in range(3)]
        assert futures[0].result(10)[0].index == 2
        for future in futures[1:]:
            error = future.exception(10)
            assert isinstance(error, Conflict)
            assert error.reason == "intent.replayed"
        assert sequencer.trouble is None
    assert store.head().size == 3


def test_threads_append_in_one_sequence(store: Store) -> None:
    job = bytes(16)
    with running(store) as sequencer:

        def work(number: int) -> None:
            for step in range(20):
                check(sequencer.append(Unit(records=(note(number * 100 + step, job),)), 10)[0])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = [Record.from_bytes(entry.record) for entry in store.records_of(job)]
    assert [record.sequence for record in records] == list(range(160))
    assert [record.count for record in records] == list(range(1, 161))


def test_a_unit_that_was_cancelled_does_not_happen(store: Store) -> None:
    gate = Gate()
    with running(store, gate) as sequencer:
        with gate.held(sequencer):
            futures = [sequencer.submit(Unit(records=(note(n),))) for n in range(3)]
            assert futures[1].cancel()
        assert [futures[n].result(10)[0].index for n in (0, 2)] == [2, 3]
    assert store.head().size == 4


# --- failing closed --------------------------------------------------------------------------------------------------


def test_too_many_are_turned_away(store: Store) -> None:
    gate = Gate()
    with running(store, gate, Limits(waiting=5)) as sequencer:
        with gate.held(sequencer):
            futures = [sequencer.submit(Unit(records=(note(n),))) for n in range(5)]
            with pytest.raises(Unavailable) as caught:
                sequencer.submit(Unit(records=(note(6),)))
            assert caught.value.reason == "log.overloaded"
        assert [future.result(10)[0].index for future in futures] == [2, 3, 4, 5, 6]
        check(sequencer.append(Unit(records=(note(7),)), 10)[0])


def test_a_closed_log_accepts_nothing(store: Store) -> None:
    gate = Gate()
    sequencer = Sequencer(store, gate, ORIGIN, genesis=GENESIS)
    futures = [sequencer.submit(Unit(records=(note(n),))) for n in range(10)]
    sequencer.close()
    sequencer.close()
    assert [future.result(0)[0].index for future in futures] == list(range(1, 11))
    with pytest.raises(Unavailable, match="closed"):
        sequencer.submit(Unit(records=(note(1),)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unexpected_error_ends_it_and_answers_everybody(store: Store) -> None:
    gate = Gate()
    with running(store, gate) as sequencer:
        with gate.held(sequencer):
            gate.error = ZeroDivisionError("nobody expects this")
            futures = [sequencer.submit(Unit(records=(note(n),))) for n in range(3)]
            cancelled = sequencer.submit(Unit(records=(note(9),)))
            assert cancelled.cancel()
        for future in futures:
            error = future.exception(10)
            assert isinstance(error, Unavailable)
            assert error.reason == "log.unavailable"
        gate.error = None
        for _ in range(3):
            with pytest.raises(Unavailable):
                sequencer.append(Unit(records=(note(1),)), 10)
    assert store.head().size == 1


def test_it_issues_nothing_until_a_probe_succeeds(store: Store) -> None:
    gate = Gate()
    with running(store, gate, Limits(probe_seconds=3600)) as sequencer:
        gate.error = Unavailable("log.unavailable", "the key is away")
        with gate.held(sequencer):
            waiting = sequencer.submit(Unit(records=(note(1),)))
        assert isinstance(waiting.exception(10), Unavailable)
        gate.error = None
        assert sequencer.trouble is not None
        with pytest.raises(Unavailable, match="the key is away"):
            sequencer.submit(Unit(records=(note(2),)))
    assert store.head().size == 1


class Flaky(SqliteStore):
    """A disk that comes back when it is told to; each probe is counted before it waits for ``go``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "interlock.db", origin=ORIGIN, key=LOG.public)
        self.back = False
        self.probes = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()

    @override
    def probe(self) -> None:
        self.probes.release()
        self.go.wait(10)
        if not self.back:
            raise Unavailable("log.unavailable", "still away")
        super().probe()


def in_trouble(sequencer: Sequencer, gate: Gate) -> None:
    gate.error = Unavailable("log.unavailable", "away")
    assert isinstance(sequencer.submit(Unit(records=(note(1),))).exception(10), Unavailable)
    gate.error = None


def test_it_probes_until_the_disk_is_back(tmp_path: Path) -> None:
    store, gate = Flaky(tmp_path), Gate()
    with running(store, gate) as sequencer:
        in_trouble(sequencer, gate)
        for _ in range(3):
            assert store.probes.acquire(timeout=10)
        assert str(sequencer.trouble) == "log.unavailable: still away"
        store.back = True
        check(recovered(sequencer, Unit(records=(note(2),))))
        assert sequencer.trouble is None
    store.close()


def test_a_probe_does_not_open_what_was_closed(tmp_path: Path) -> None:
    store, gate = Flaky(tmp_path), Gate()
    store.back = True
    store.go.clear()
    with running(store, gate) as sequencer:
        in_trouble(sequencer, gate)
        assert store.probes.acquire(timeout=10)
        closing = threading.Thread(target=sequencer.close)
        closing.start()
        closing.join(0.1)  # it cannot end before the probe does
        store.go.set()
        closing.join(10)
        with pytest.raises(Unavailable):
            sequencer.submit(Unit())
    store.close()


def recovered(sequencer: Sequencer, unit: Unit) -> Appended:
    """The first record of a unit that is accepted again, as soon as it is."""
    deadline = threading.Event()
    for _ in range(1000):
        try:
            return sequencer.append(unit, 10)[0]
        except Unavailable:
            deadline.wait(0.01)
    raise AssertionError("it did not recover within ten seconds")


@pytest.mark.root
def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", tmp_path], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        store = open_sqlite(tmp_path)
        ballast = tmp_path / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        with running(store) as sequencer:
            acknowledged, failed = fill(sequencer)
            assert failed.reason == "log.unavailable"
            head = store.head()
            assert head.size == 1 + len(acknowledged)
            assert store.submitter(bytes(32)) == b"%d" % len(acknowledged)
            ballast.unlink()
            again = recovered(sequencer, Unit(records=(note(9),)))
            check(again)
            assert again.index == head.size
        store.close()
        store = open_sqlite(tmp_path)
        for item in acknowledged:
            check(item)
            assert store.record(item.index) == item.record
        store.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def fill(sequencer: Sequencer) -> tuple[list[Appended], Unavailable]:
    """Append until the disk is full: what was acknowledged, and how the first failure was told."""
    acknowledged: list[Appended] = []
    for number in range(1, 100_000):
        blob = PutBlob(number.to_bytes(32), os.urandom(20_000))
        try:
            (item,) = sequencer.append(Unit((PutSubmitter(bytes(32), b"%d" % number), blob), (note(number),)), 10)
        except Unavailable as error:
            return acknowledged, error
        acknowledged.append(item)
    raise AssertionError("the disk did not fill up")


CHILD = """
import sys
from pathlib import Path
from tests.verifier.stores import GENESIS, ORIGIN, note
from attestation.keys import SoftwareSigner
from verifier.changes import Unit
from verifier.sequencer import Sequencer
from verifier.sqlite import SqliteStore

directory = Path(sys.argv[1])
signer = SoftwareSigner.from_pem((directory / "log.pem").read_bytes())
store = SqliteStore(directory / "interlock.db", origin=ORIGIN, key=signer.public)
sequencer = Sequencer(store, signer, ORIGIN, genesis=GENESIS)
number = 0
while True:
    futures = [sequencer.submit(Unit(records=(note(n, bytes(16)),))) for n in range(number, number + 7)]
    for future in futures:
        (item,) = future.result()
        sys.stdout.write(f"{item.index} {item.size} {item.root.hex()}\\n")
        sys.stdout.flush()
    number += 7
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    signer = SoftwareSigner.generate(EDDSA)
    (tmp_path / "log.pem").write_bytes(signer.to_pem())
    dice = random.Random(7)
    root = Path(__file__).resolve().parents[2]
    acknowledged: dict[int, tuple[int, str]] = {}
    for _ in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True, cwd=root
        ) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(1, 400)):
                index, size, digest = child.stdout.readline().split()
                acknowledged[int(index)] = int(size), digest
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:  # told before it died
                if line.endswith("\n"):
                    index, size, digest = line.split()
                    acknowledged[int(index)] = int(size), digest
        store = SqliteStore(tmp_path / "interlock.db", origin=ORIGIN, key=signer.public)
        head = store.head()
        assert head.size > max(acknowledged)
        entries = store.records(0, head.size + 1)
        assert [entry.index for entry in entries] == list(range(head.size))
        for place, (then, told) in acknowledged.items():
            leaf = leaf_hash(entries[place].record)
            merkle.verify_inclusion(leaf, place, then, store.inclusion(place, then), bytes.fromhex(told))
            merkle.verify_inclusion(leaf, place, head.size, store.inclusion(place, head.size), head.root)
        numbers = [Record.from_bytes(entry.record).sequence for entry in entries[1:]]
        assert numbers == list(range(head.size - 1))
        store.close()
    assert len(acknowledged) > 100


def test_futures_are_ordinary_ones(store: Store) -> None:
    with running(store) as sequencer:
        future = sequencer.submit(Unit())
        assert isinstance(future, Future)
        assert future.result(10) == ()
