"""What a node has proven of its boot and of what ran on it: put together from the evidence in the archive.

Only evidence counts whose quote was verified, so denied requests count too: a host that is denied for want of reference
values shows what they could be made of. A log or list counts as far as the quoted PCR values prove it, which is
replayed here again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from attestation.claims import Claims
from attestation.errors import InterlockError, Untrusted
from attestation.evidence import TPM, TpmRecord, read_evidence
from attestation.log import Record
from attestation.progress import boot_of
from attestation.tpm.ima.entry import PCR as IMA_PCR
from attestation.tpm.ima.entry import Entry, from_binary
from attestation.tpm.ima.measurements import read_binary
from attestation.tpm.ima.replay import EXTENSIONS, Extender
from verifier.state import Verifier
from verifier.store import Job

MOST_RECORDS: Final = 20_000
"""Records of a node that are looked at, newest first."""
_PAGE: Final = 1000
_PCR: Final = "pcr."
_EVENT_LOG: Final = "event-log"


def quoted(verifier: Verifier, node: str) -> tuple[int, dict[int, bytes], str]:
    """Bank and PCR values that the node's TPM proved last, and where: with evidence for a job, else at its enrolment.

    Without PCR 10, which grows with every file and is compared with no baseline. Raises ``Untrusted("node.unknown")``.
    """
    bank, values, at = _enrolment(verifier, node)
    where = "enrolment"
    for job in reversed(verifier.store.jobs(node=node)):
        found = None if job.at < at else _last(verifier, job)
        if found is not None or job.at < at:
            bank, values, where = found or (bank, values, where)
            break
    return bank, {index: value for index, value in values.items() if index != IMA_PCR}, where


def _last(verifier: Verifier, job: Job) -> tuple[int, dict[int, bytes], str] | None:
    for entry in reversed(verifier.store.records_of(job.cti)):
        facts = _facts(verifier, Record.from_bytes(entry.record))
        if values := _values(facts):
            return int(facts["bank"]), values, f"evidence recorded at index {entry.index}"
    return None


def _facts(verifier: Verifier, record: Record) -> Mapping[str, str]:
    """What was proven of the TPM in a judgement, if there was one."""
    digest = record.digests.get("claims")
    return {} if digest is None else Claims.from_bytes(verifier.document(digest)).submods["tpm"].facts


def _values(facts: Mapping[str, str]) -> dict[int, bytes]:
    return {int(k.removeprefix(_PCR)): bytes.fromhex(v) for k, v in facts.items() if k.startswith(_PCR)}


def _enrolment(verifier: Verifier, node: str) -> tuple[int, dict[int, bytes], int]:
    """Bank, PCR values and time of the node's last enrolment, looked for from the end of the log."""
    store = verifier.store
    end = store.head().size
    while end > 0:
        start = max(0, end - _PAGE)
        for entry in reversed(store.records(start, end - start)):
            record = Record.from_bytes(entry.record)
            if record.kind == "enrol" and record.node == node:
                proven = TpmRecord.from_bytes(verifier.document(record.digests["evidence"]))
                return proven.bank, dict(proven.pcrs), record.time
        end = start
    raise Untrusted("node.unknown", f"the log has no enrolment of {node}")


@dataclass(frozen=True, slots=True)
class Seen:
    """Verified evidence of a node: what was quoted in which bank, in which boot, and the TPM's record itself."""

    index: int
    bank: int
    pcrs: dict[int, bytes]
    boot: bytes
    record: TpmRecord
    kept_log: bytes | None

    @property
    def log(self) -> bytes | None:
        """The event log: the one that was sent, or the one that was kept from before."""
        return self.record.event_log or self.kept_log

    @property
    def where(self) -> str:
        """Where it is in the verifier's log."""
        return f"evidence recorded at index {self.index}"


@dataclass(frozen=True, slots=True)
class Measured:
    """The proven entries of a node's measurement list, from the first of its boot on."""

    entries: tuple[Entry, ...]
    where: str


def booted(verifier: Verifier, node: str) -> Seen:
    """The last evidence of ``node`` with an event log. Raises ``Untrusted("ref.unproven")`` where there is none."""
    for seen in _evidence(verifier, node):
        if seen.log is not None:
            return seen
    raise Untrusted("ref.unproven", f"no evidence of {node} in the archive has a boot event log")


def shown(verifier: Verifier, node: str) -> tuple[list[tuple[int, bytes]], list[Seen]]:
    """The parts of the last measurement list of ``node``, each with its first number, and the evidence they came in.

    Raises ``Untrusted("ref.unproven")`` where the archive has no beginning of it.
    """
    parts: list[tuple[int, bytes]] = []
    came_in: list[Seen] = []
    for seen in _evidence(verifier, node):
        if seen.record.ima is None or (came_in and seen.boot != came_in[0].boot):
            continue
        start = seen.record.ima_start or 0
        parts.append((start, seen.record.ima))
        came_in.append(seen)
        if start == 0:
            return parts, came_in
    raise Untrusted("ref.unproven", f"no evidence of {node} in the archive has a measurement list from its beginning")


def measured(parts: list[tuple[int, bytes]], came_in: list[Seen]) -> Measured:
    """The entries of the list that its parts make, as far as one of the quotes that they came with proves it.

    Raises ``Untrusted("ref.unproven")``, and what reading entries raises.
    """
    raws = _joined(parts)
    for extension in EXTENSIONS:
        bank = came_in[0].bank
        quoted = {seen.pcrs[IMA_PCR]: seen.where for seen in came_in if seen.bank == bank and IMA_PCR in seen.pcrs}
        count, where = _furthest(raws, Extender(bank, extension), quoted)
        if count:
            return Measured(tuple(Entry(*from_binary(raw)) for raw in raws[:count]), where)
    raise Untrusted("ref.unproven", f"no quote over PCR {IMA_PCR} proves the list of {len(raws)} entries")


def _joined(parts: list[tuple[int, bytes]]) -> list[bytes]:
    """One list of parts that overlap; what lies behind a gap is left out."""
    raws: list[bytes] = []
    for start, data in sorted(parts, key=lambda part: part[0]):
        found = [raw for portion in read_binary(data).portions() for raw in portion]
        if start <= len(raws):
            raws += found[len(raws) - start :]
    return raws


def _furthest(raws: list[bytes], extender: Extender, quoted: dict[bytes, str]) -> tuple[int, str]:
    """How many entries lead to the last of the ``quoted`` values that is reached, and where that one was quoted."""
    running, reached = extender.start, (0, "")
    try:
        for number, raw in enumerate(raws):
            running = extender.hash(running + extender.digest(from_binary(raw), number)).digest()
            if running in quoted:
                reached = number + 1, quoted[running]
    except InterlockError:
        return reached
    return reached


def _evidence(verifier: Verifier, node: str) -> Iterator[Seen]:
    """Verified evidence of this node, newest job first, of each job newest first."""
    jobs = reversed(verifier.store.jobs(node=node))
    entries = (entry for job in jobs for entry in reversed(verifier.store.records_of(job.cti)))
    for entry in islice(entries, MOST_RECORDS):
        read = Record.from_bytes(entry.record)
        named, facts = read.digests, _facts(verifier, read)
        pcrs = _values(facts)
        if not pcrs or "resets" not in facts or "evidence" not in named:
            continue
        evidence, _ = read_evidence(verifier.document(named["evidence"]))
        record = TpmRecord.from_bytes(evidence.collection[TPM].value)
        log = verifier.document(named[_EVENT_LOG]) if _EVENT_LOG in named else None
        boot = boot_of(int(facts["resets"]), int(facts["restarts"]))
        yield Seen(entry.index, int(facts["bank"]), pcrs, boot, record, log)
