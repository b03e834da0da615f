"""How many records a second the log takes, each durable and proven before it is answered.

The way is the production one: callers hand units to the sequencer and wait for their futures; the thread numbers and
encodes the records, grows the tree, signs one checkpoint for each group, and syncs the disk. Receipts (one Ed25519
signature over each distinct root) are measured by themselves.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attestation.keys import EDDSA, SoftwareSigner
from attestation.log import Record, make_receipt
from tests.bench.registry import bench
from verifier.changes import Unit
from verifier.sequencer import Limits, Sequencer
from verifier.sqlite import SqliteStore

ROUNDS = 5
RECORDS = 20_000
CALLERS = 4
ORIGIN = "bench.test/log"
_DIGESTS = ("policy", "references", "claims", "context", "intent", "evidence", "grant", "node", "submitter")


def records() -> list[Record]:
    """Decisions as they are logged: each of its own job, nine digests."""
    return [
        Record(
            kind="decision",
            time=1_760_000_000 + number,
            job=number.to_bytes(16),
            outcome="allow",
            determining=("permit-research",),
            digests={name: number.to_bytes(32) for name in _DIGESTS},
            node="node-1",
            submitter=bytes(32),
        )
        for number in range(RECORDS)
    ]


@contextmanager
def log() -> Iterator[tuple[Sequencer, SoftwareSigner]]:
    """A new log on this machine's disk."""
    signer = SoftwareSigner.generate(EDDSA)
    genesis = Record(kind="genesis", time=0, outcome="begun", digests={})
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:  # a disk, where /tmp may be memory
        store = SqliteStore(Path(directory) / "log.db", origin=ORIGIN, key=signer.public)
        sequencer = Sequencer(store, signer, ORIGIN, genesis=genesis, limits=Limits(waiting=RECORDS))
        try:
            yield sequencer, signer
        finally:
            sequencer.close()
            store.close()


def append(sequencer: Sequencer, share: list[Record]) -> None:
    """One caller: hand over all, then wait for each."""
    for future in [sequencer.submit(Unit(records=(record,))) for record in share]:
        future.result()


def rate(made: list[Record]) -> float:
    """Appends a second of several callers on a new log, once."""
    with log() as (sequencer, _):
        callers = [threading.Thread(target=append, args=(sequencer, made[n::CALLERS])) for n in range(CALLERS)]
        started = time.perf_counter()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return len(made) / (time.perf_counter() - started)


@bench("log.durable_appends_per_s", unit="1/s", bar=20_000, better="higher")
def durable_appends() -> tuple[float, str]:
    """Records durable and proven per second, through the sequencer's futures."""
    made = records()
    rates = [rate(made) for _ in range(ROUNDS)]
    note = f"median of {ROUNDS} runs of {RECORDS:,} records by {CALLERS} callers, lowest {min(rates):,.0f}"
    return statistics.median(rates), note


@bench("log.receipt_us", unit="us", bar=None, better="lower")
def receipts() -> tuple[float, str]:
    """CPU time of one receipt, signature included."""
    runs = []
    with log() as (sequencer, signer):
        made = records()[:1000]
        items = [sequencer.submit(Unit(records=(record,))) for record in made]
        done = [future.result()[0] for future in items]
        for _ in range(ROUNDS):
            started = time.thread_time()
            for item in done:
                make_receipt(signer, item.root, item.size, item.index, item.path)
            runs.append((time.thread_time() - started) / len(done) * 1e6)
    return statistics.median(runs), f"median of {ROUNDS} runs of {len(made):,} receipts"
