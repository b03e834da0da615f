"""The sequence of jobs of this boot: measured into the TPM before each job, kept beside it, shown with each quote.

The TPM keeps a digest of the sequence (`agent.tpm_nv`), this module what the digest is of. Rules:

1. An entry is on the disk before the TPM is asked to extend it, and a job starts only when the TPM holds it. So after
   a crash the TPM holds all entries, or all but the last one, whose job never started: that one is dropped.
2. What is kept is of one boot, named by resets and restarts of the TPM. In another boot the sequence begins anew with
   an index that is empty; one that is not (suspend to RAM keeps it) or that is defined otherwise is made anew.
3. In the same boot an index that holds anything else is never repaired: no further job starts, and what the TPM says
   is shown as it is. It is for the verifier to deny.
4. One lock: what is certified and what is listed belong together, however many jobs start and renew at once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.devices import NvIndex, Tpm
from agent.state import write_private
from attestation.challenge import BOOT_SIZE, Challenge
from attestation.errors import Malformed, Untrusted
from attestation.progress import boot_of
from attestation.tpm.attest import Attest, NvCertifyInfo
from attestation.tpm.nv import WORKLOAD, WRITTEN, NvPublic
from attestation.wire import Wire, label, wire
from attestation.workload import BEGINNING, CODES, MOST, WorkloadEntry, WorkloadRecord, read_entries, replay

FILE: Final = "workload.cbor"
_ALL: Final = 4096
_EMPTY: Final = NvIndex(WORKLOAD.to_bytes(), None)


@wire
class Kept(Wire):
    """What is on the disk: the boot, and its entries as a record shows them."""

    MAX_SIZE = 2 << 20

    boot: bytes = label(1, size=BOOT_SIZE)
    entries: bytes = label(2, most=MOST * WorkloadEntry.SIZE)


@dataclass
class _Sequence:
    """The entries of a boot; ``values[n]`` is what the index holds after the first ``n`` of them."""

    boot: bytes
    entries: list[WorkloadEntry] = field(default_factory=list)
    values: list[bytes] = field(default_factory=lambda: [BEGINNING])

    def append(self, entry: WorkloadEntry) -> None:
        self.entries.append(entry)
        self.values.append(replay([entry], self.values[-1]))

    def drop(self) -> None:
        self.entries.pop()
        self.values.pop()

    def shown(self, start: int = 0) -> bytes:
        return b"".join(entry.to_bytes() for entry in self.entries[start:])


class Workloads:
    """The sequence of this host; safe to use from several threads. ``path`` is the file that keeps it."""

    def __init__(self, tpm: Tpm, path: Path) -> None:
        self._tpm, self._path = tpm, path
        self._lock = threading.Lock()
        self._sequence = self._read()

    def measure(self, entry: WorkloadEntry) -> int:
        """Extend ``entry`` into the TPM; its number in this boot, from 1. Its job may start only when this returns.

        Raises ``DeviceError`` where the TPM fails, ``OSError`` where the disk does, ``Untrusted`` where the index holds
        something else than it should ("tpm.workload.broken") or as much as a verifier reads ("tpm.workload.full").
        """
        with self._lock:
            sequence = self._settle()
            if len(sequence.entries) >= MOST:
                raise Untrusted("tpm.workload.full", f"{MOST} jobs were started in this boot")
            sequence.append(entry)
            self._write()  # rule 1
            self._tpm.extend_workload(entry.measurement)
            self._check(self._tpm.workload(), sequence.values[-1])
            return len(sequence.entries)

    def record(self, qualifying: bytes, challenge: Challenge, grant: bytes | None) -> WorkloadRecord | None:
        """What is shown with a quote over ``qualifying``, to renew ``grant`` where there is one; None where the index
        holds nothing.

        A new request shows all of the sequence, where it is not long; a renewal what is new since the challenge, and
        its own entry. Raises ``DeviceError``, and ``Malformed`` or ``Untrusted`` where the TPM answers nonsense.
        """
        with self._lock:
            certified = self._tpm.certify_workload(qualifying)
            if certified is None:
                return None
            public, (attest, signature) = certified
            read = Attest.from_bytes(attest, NvCertifyInfo, CODES)
            boot = boot_of(read.clock.reset_count, read.clock.restart_count)
            if self._sequence.boot != boot:  # rule 2: what it holds is of before
                self._settle()
                return None
            sequence = self._sequence
            count = len(sequence.entries)
            if read.info.contents == _without_last(sequence):
                count -= 1
            known = challenge.workload_next or 0 if challenge.workload_boot == boot else 0
            start = _first(sequence.entries, known, grant)
            return WorkloadRecord(
                public=public,
                attest=attest,
                signature=signature,
                start=min(start, count),
                before=sequence.values[min(start, count)],
                entries=b"".join(entry.to_bytes() for entry in sequence.entries[start:count]),
            )

    # --- rules 1 to 3 ------------------------------------------------------------------------------------------

    def _settle(self) -> _Sequence:
        """The sequence of this boot, as the TPM has it."""
        now, index = self._tpm.clock(), self._tpm.workload()
        boot, sequence = boot_of(now.reset_count, now.restart_count), self._sequence
        if sequence.boot != boot or not sequence.entries:  # rule 2
            if index != _EMPTY:
                self._tpm.define_workload()
            self._sequence = sequence = _Sequence(boot)
        elif _holds(index) == _without_last(sequence):  # rule 1
            sequence.drop()
            self._write()
        else:
            self._check(index, sequence.values[-1])
        return sequence

    def _check(self, index: NvIndex | None, value: bytes) -> None:
        """Rule 3."""
        if _holds(index) != value:
            raise Untrusted("tpm.workload.broken", f"NV index 0x{WORKLOAD.index:08x} holds {_told(index)}")

    # --- the file ----------------------------------------------------------------------------------------------

    def _read(self) -> _Sequence:
        try:
            kept = Kept.from_bytes(self._path.read_bytes())
            entries = read_entries(kept.entries)
        except FileNotFoundError:
            return _Sequence(b"")
        except Malformed as error:
            raise Untrusted("agent.state", f"{self._path} is damaged: {error}") from error
        sequence = _Sequence(kept.boot)
        for entry in entries:
            sequence.append(entry)
        return sequence

    def _write(self) -> None:
        write_private(self._path, Kept(boot=self._sequence.boot, entries=self._sequence.shown()).to_bytes())


def _first(entries: list[WorkloadEntry], known: int, grant: bytes | None) -> int:
    """The number of the first entry to show, where the verifier has seen ``known``."""
    if grant is None:
        return known if len(entries) > _ALL else 0
    own = next((number for number, entry in enumerate(entries) if entry.grant == grant), known)
    return min(known, own)


def _holds(index: NvIndex | None) -> bytes | None:
    """What the index holds, if it is the right one: all zeros where nothing was extended."""
    if index == _EMPTY:
        return BEGINNING
    if index is None or NvPublic.from_bytes(index.public).attributes != WORKLOAD.attributes | WRITTEN:
        return None
    return index.contents


def _without_last(sequence: _Sequence) -> bytes | None:
    return sequence.values[-2] if sequence.entries else None


def _told(index: NvIndex | None) -> str:
    held = _holds(index)
    return "nothing of ours" if held is None else held.hex()
