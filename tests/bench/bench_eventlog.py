"""What a boot event log costs: read, replayed before the quoted PCRs, its facts made, and compared with a policy.

The logs are those of genuine machines in ``../shared/evidence/tpm``; the one that costs most counts. The policy demands
all that the log shows. Nothing is remembered from one run to the next, as the verifier would for a log that it knows.
Beside it, in turns, Keylime 7.14.3 parses the same log (``peer_keylime_boot.py`` says what that consists of), and
compares nothing with PCRs or policies in that. Both measure CPU time, of their child processes too.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import InterlockError
from attestation.tpm.boot.check import check_boot
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.boot.state import boot_state
from attestation.tpm.eventlog import banks, is_ccel, prove, read_event_log
from tests import vectors
from tests.bench.peer import asking
from tests.bench.registry import bench
from tools.evidence.believed import demands
from tools.evidence.genuine_tpm import values_of

ROUNDS, FEW = 15, 3
MILLI = 1e3


@bench("eventlog.parse_ms", unit="ms", bar=5)
def parse() -> tuple[float, str]:
    """The dearest of all genuine logs, from its bytes to the policy's word."""
    log = max(_logs(), key=lambda each: statistics.median(_cpu(each) for _ in range(FEW)))
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "log").write_bytes(log.data)
        with asking("keylime", "peer_keylime_boot.py", Path(name), cwd=Path(name)) as ask:
            for number in range(ROUNDS):
                if number % 2 == 0:
                    ours.append(_cpu(log))
                theirs.append(ask("log"))
                if number % 2:
                    ours.append(_cpu(log))
    value, peer = (MILLI * statistics.median(samples) for samples in (ours, theirs))
    note = f"{log.name}: {len(log.data)} bytes, {log.events} events, CPU, median of {ROUNDS}"
    return value, f"{note}; Keylime parses it in {peer:.0f} ms, {peer / value:.0f} times as long"


@dataclass(frozen=True)
class _Log:
    """A log with what it is held against."""

    name: str
    data: bytes
    ccel: bool
    bank: int
    quoted: dict[int, bytes]
    policy: BootPolicy
    events: int

    def appraise(self) -> None:
        log = read_event_log(self.data, ccel=self.ccel)
        state = boot_state(log, self.bank, prove(log, self.bank, self.quoted).pcrs)
        check_boot(state, self.policy)


def _logs() -> Iterator[_Log]:
    """Every genuine log that its own policy accepts, in the bank that would be quoted."""
    for path in sorted(vectors.path("evidence/tpm/eventlogs").iterdir()):
        data, ccel = path.read_bytes(), is_ccel(path.read_bytes())
        try:
            log = read_event_log(data, ccel=ccel)
            bank = banks(log)[-1]
            quoted = values_of(log, bank)
            policy = demands(boot_state(log, bank, prove(log, bank, quoted).pcrs))
            made = _Log(path.name, data, ccel, bank, quoted, policy, len(log.events))
            made.appraise()
        except InterlockError:
            continue
        yield made


def _cpu(log: _Log) -> float:
    began = time.process_time()
    log.appraise()
    return time.process_time() - began
