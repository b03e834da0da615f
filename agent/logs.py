"""The logs of this host: the firmware's boot event log and the kernel's binary measurement list (IMA).

Both are untrusted text until a quote proves them, so nothing here judges. What is sent is what the challenge asks for:

1. The event log, unless its SHA-256 is the one that the verifier has already.
2. Of the measurement list the entries from ``ima_next`` on where the TPM's boot is ``ima_boot``, else all of them. Only
   whole entries; at most 24 MiB and 500,000 entries at once.

The list only grows within a boot. It is read once: where each entry begins is remembered, and the bytes of the last
mebibyte, so that a renewal reads what is new and nothing else. The file stays open, because for a reader that goes on
where it stopped the kernel does not write the whole list again. Another boot, another file, or one that has become
shorter is begun anew. Sources: Linux, security/integrity/ima/ima_fs.c; fs/seq_file.c.
"""

import hashlib
import hmac
import os
import threading
from array import array
from pathlib import Path
from typing import Final, NamedTuple

from agent.devices import DeviceError
from attestation.errors import Malformed
from attestation.tpm.eventlog import MAX_LOG
from attestation.tpm.ima.entry import MAX_ENTRY, binary_size
from attestation.tpm.ima.measurements import MAX_ENTRIES

EVENT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
IMA_LIST: Final = Path("/sys/kernel/security/ima/binary_runtime_measurements")
_CHUNK: Final = 1 << 20
_KEPT: Final = 1 << 20
_CUT: Final = "tpm.ima.truncated"


class Part(NamedTuple):
    """Entries of the measurement list: the number of the first one, and their bytes."""

    start: int
    data: bytes


class Logs:
    """Reads both logs; safe to use from several threads. ``None`` for a path: this host has no such log."""

    def __init__(self, event_log: Path | None = EVENT_LOG, ima: Path | None = IMA_LIST) -> None:
        self._event_log, self._ima = event_log, ima
        self._lock = threading.Lock()
        self._file: int | None = None
        self._sent: int | None = None
        self._boot = b""
        self._forget()

    def event_log(self, known: bytes | None = None) -> bytes | None:
        """The boot event log, where there is one of a size that can be sent and its SHA-256 is not ``known``."""
        if self._event_log is None:
            return None
        try:
            data = self._event_log.read_bytes()
        except OSError:
            return None
        if not 0 < len(data) <= MAX_LOG:
            return None
        is_known = known is not None and hmac.compare_digest(hashlib.sha256(data).digest(), known)
        return None if is_known else data

    def ima(self, boot: bytes, start: int = 0) -> Part | None:
        """The entries from number ``start`` on, read to the end of the list now; ``None`` where there is no list.

        ``boot`` names the TPM's present boot. Raises ``DeviceError``: ``agent.ima.list`` for what is no list,
        ``agent.ima.size`` for more than can be sent at once.
        """
        from attestation.evidence import MAX_IMA  # here: every command reads settings, and few have to do with evidence

        with self._lock:
            if boot != self._boot:
                self._forget()
                self._boot = boot
            if not self._follow():
                return None
            self._sent = count = len(self._offsets) - 1
            first = min(start, count)
            begin, end = self._offsets[first], self._offsets[count]
            if end - begin > MAX_IMA or count - first > MAX_ENTRIES:
                detail = f"{count - first} entries with {end - begin} bytes are not proven yet, at most {MAX_IMA} bytes"
                raise DeviceError("agent.ima.size", detail)
            return Part(start, self._bytes(begin, end))

    def count(self) -> int | None:
        """How many entries the list has now; ``None`` as long as nobody has asked for any. Raises ``DeviceError``."""
        with self._lock:
            return len(self._offsets) - 1 if self._sent is not None and self._follow() else None

    @property
    def sent(self) -> int | None:
        """How many entries the list had when it was last asked for."""
        return self._sent

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._forget()

    # --- the list, with the lock held ----------------------------------------------------------------------------

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self._identity = (0, 0)
        self._offsets = array("Q", [0])  # where each entry begins, and where the next one will
        self._recent, self._recent_start = b"", 0

    @property
    def _position(self) -> int:
        """How far the file has been read."""
        return self._recent_start + len(self._recent)

    def _follow(self) -> bool:
        """Read to the end of the list; whether there is one. Raises ``DeviceError("agent.ima.list")``."""
        try:
            file, more = self._open(), True
            while file is not None and more:
                chunk = _chunk(file, self._position)
                self._take(chunk)
                more = len(chunk) >= _CHUNK
        except (OSError, Malformed) as error:
            self._forget()
            raise DeviceError("agent.ima.list", f"{self._ima}: {error}") from error
        return file is not None

    def _open(self) -> int | None:
        """The file, opened anew where it is not the one that was read so far."""
        if self._ima is None:
            return None
        try:
            status = self._ima.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._forget()
            return None
        identity = status.st_dev, status.st_ino
        if identity != self._identity or 0 < status.st_size < self._position:  # securityfs tells no size
            self._forget()
        if self._file is None:
            self._file, self._identity = os.open(self._ima, os.O_RDONLY | os.O_CLOEXEC), identity
        return self._file

    def _take(self, chunk: bytes) -> None:
        """Find the entries that ``chunk`` completes. Raises ``Malformed`` for what no kernel writes."""
        whole = self._offsets[-1]
        kept = max(0, min(whole, self._position - _KEPT) - self._recent_start)
        self._recent, self._recent_start = self._recent[kept:] + chunk, self._recent_start + kept
        while size := self._size(whole):
            whole += size
            self._offsets.append(whole)
        if self._position - whole > MAX_ENTRY + _CHUNK:
            raise Malformed("tpm.ima.size", f"an entry of more than {MAX_ENTRY} bytes at offset {whole}")

    def _size(self, whole: int) -> int:
        """The size of the entry at ``whole``; 0 while its end has not been read."""
        try:
            return binary_size(self._recent, whole - self._recent_start)
        except Malformed as error:
            if error.reason != _CUT:
                raise
            return 0

    def _bytes(self, begin: int, end: int) -> bytes:
        if begin >= self._recent_start:
            return self._recent[begin - self._recent_start : end - self._recent_start]
        return b"" if self._file is None else _read(self._file, begin, end)


def _chunk(file: int, position: int) -> bytes:
    """What follows ``position``: a chunk, or less where the file ends. The kernel gives a page at a time."""
    parts, size = [], 0
    while size < _CHUNK and (part := os.pread(file, _CHUNK, position + size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _read(file: int, begin: int, end: int) -> bytes:
    """The bytes of ``file`` from ``begin`` to ``end``. Raises ``DeviceError`` where there are fewer by now."""
    parts: list[bytes] = []
    while begin < end:
        try:
            part = os.pread(file, min(_CHUNK, end - begin), begin)
        except OSError as error:
            raise DeviceError("agent.ima.list", str(error)) from error
        if not part:
            raise DeviceError("agent.ima.list", "the list became shorter while it was read")
        parts.append(part)
        begin += len(part)
    return b"".join(parts)
