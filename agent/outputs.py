"""A job's outputs: which lease each was last written under, their digests at the end, and handing them over.

Rules:
1. The job owns the directory and may put anything there. Every open goes below its descriptor, follows no link, waits
   for no fifo; what is not a regular file is no output, nor is what has a name that a report cannot hold.
2. Under which lease a file was last written is seen, not told: at each new lease the agent notes what every output
   looks like (device, inode, size, times). The first note that equals the file's last state names the lease. No clock
   takes part, and a job cannot set a file's change time.
3. After a hard halt, what was written under the last lease is quarantined: the proof that this lease rests on was made
   before the writing, and no proof followed it.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent import kernel
from agent.tree import Key, key_of
from attestation.report import Output

MOST: Final = 1024
MOST_NAME: Final = 256  # characters of a map's key in a report
_DEPTH: Final = 16
_BLOCK: Final = 1 << 20
_RESOLVE: Final = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS


class Outputs:
    """The declared outputs ``names`` (files or directories) below the directory ``path``."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._notes: list[tuple[int, dict[str, Key]]] = []

    def close(self) -> None:
        """Give the directory's descriptor back."""
        os.close(self.descriptor)

    def note(self, sequence: int) -> None:
        """The lease ``sequence`` is over: note what was written until now (rule 2)."""
        self._notes.append((sequence, {name: key_of(os.fstat(file)) for name, file in self._files()}))
        del self._notes[:-MOST]

    def measure(self, last: int, *, hard: bool) -> dict[str, Output]:
        """Digest of every output; ``last`` is the sequence of the last lease, ``hard`` whether a hard halt ended it."""
        found = {}
        for name, file in self._files():
            lease = self._lease(name, key_of(os.fstat(file)), last)
            digest, size = _hash(file)
            found[name] = Output(digest=digest, size=size, lease=lease, quarantined=hard and lease >= last)
        return found

    def _lease(self, name: str, key: Key, last: int) -> int:
        return next((sequence for sequence, keys in self._notes if keys.get(name) == key), last)

    def _files(self) -> Iterator[tuple[str, int]]:
        """Names and open descriptors of the regular files that are declared, closed after each step."""
        count = 0
        for name in self._names:
            for path, file in _below(self.descriptor, name, 0):
                count += 1
                if count > MOST:
                    os.close(file)
                    return
                try:
                    yield path, file
                finally:
                    os.close(file)


def _below(root: int, path: str, depth: int) -> Iterator[tuple[str, int]]:
    """The regular files at or below ``path``, opened; whoever iterates closes them (rule 1)."""
    try:
        file = kernel.open_beneath(root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, _RESOLVE)
    except OSError:
        return
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        yield path, file
        return
    try:
        names = _names(file) if stat.S_ISDIR(mode) and depth < _DEPTH else []
    finally:
        os.close(file)
    for name in names:
        if name.isprintable() and len(path) + 1 + len(name) <= MOST_NAME:
            yield from _below(root, f"{path}/{name}", depth + 1)


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(each.name for each in entries)


def _hash(file: int) -> tuple[bytes, int]:
    digest, size = hashlib.sha256(), 0
    while block := os.pread(file, _BLOCK, size):
        digest.update(block)
        size += len(block)
    return digest.digest(), size


def fetch(directory: int, outputs: Mapping[str, bool], into: Path) -> list[Path]:
    """Copy the outputs that are not quarantined from ``directory`` to below ``into``; the paths written.

    This runs as the submitter, with the submitter's rights. The descriptor is closed.
    """
    written = []
    try:
        for name in sorted(name for name, quarantined in outputs.items() if not quarantined):
            source = kernel.open_beneath(directory, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, _RESOLVE)
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.partial")
            with os.fdopen(source, "rb") as reader, partial.open("wb") as writer:
                shutil.copyfileobj(reader, writer, _BLOCK)
            partial.replace(target)
            written.append(target)
    finally:
        os.close(directory)
    return written
