"""A job's outputs: which lease each was last written under, their digests at the end, and handing them over.

Rules:
1. The job owns the directory and may put anything there. Every open goes below its descriptor, follows no link, waits
   for no fifo; what is not a regular file is no output, nor is what has a name that a report cannot hold, or claims
   more bytes than its file system has (a sparse file). So many names are looked at, and no more; so many bytes of
   names are kept, and no more: whatever a job does, its report can be sent.
2. Under which lease a file was last written is seen, not told: at each new lease the agent notes what every output
   looks like (device, inode, size, times). The first note that equals the file's last state names the lease. No clock
   takes part, and a job cannot set a file's change time.
3. After a hard halt, what was written under the last lease is quarantined: the proof that this lease rests on was made
   before the writing, and no proof followed it.
"""

import hashlib
import itertools
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
_ROOM: Final = 1 << 17  # bytes of all names; a message of the socket has room for that, and a report too
_STEPS: Final = 16 * MOST
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
        system = os.fstatvfs(self.descriptor)
        left = system.f_blocks * system.f_frsize
        for name, file in self._files():
            key = key_of(os.fstat(file))
            size = key[2]
            if size > left:
                continue
            left -= size
            lease, digest = self._lease(name, key, last), _hash(file, size)
            found[name] = Output(digest=digest, size=size, lease=lease, quarantined=hard and lease >= last)
        return found

    def _lease(self, name: str, key: Key, last: int) -> int:
        return next((sequence for sequence, keys in self._notes if keys.get(name) == key), last)

    def _files(self) -> Iterator[tuple[str, int]]:
        """Names and open descriptors of the regular files that are declared, closed after each step."""
        count, room, steps = 0, _ROOM, iter(range(_STEPS))
        for name in self._names:
            for path, file in _below(self.descriptor, name, steps):
                count += 1
                room -= len(path.encode())
                if count > MOST or room < 0:
                    os.close(file)
                    return
                try:
                    yield path, file
                finally:
                    os.close(file)


def _below(root: int, path: str, steps: Iterator[int], depth: int = 0) -> Iterator[tuple[str, int]]:
    """The regular files at or below ``path``, opened; whoever iterates closes them (rule 1)."""
    if next(steps, None) is None:
        return
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
            yield from _below(root, f"{path}/{name}", steps, depth + 1)


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(each.name for each in itertools.islice(entries, _STEPS))


def _hash(file: int, size: int) -> bytes:
    digest, done = hashlib.sha256(), 0
    while done < size and (block := os.pread(file, min(_BLOCK, size - done), done)):
        digest.update(block)
        done += len(block)
    return digest.digest()


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
