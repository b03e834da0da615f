"""A tree of files and its digest: what a job's code and its environment *are*.

Rules (design: control, "Start" 1 and 2; formats, Intent `code` and `environment`):
1. The digest is SHA-256 over the deterministic CBOR array of [path, mode, size, SHA-256], sorted by path bytes.
2. Modes are those that matter for running: 0o100755 or 0o100644 (by the owner's execute bit), 0o120000 for a
   symbolic link (size and hash are of its target's text), 0o040755 for a directory. So neither a umask nor staging,
   which takes the write bits away, changes what a tree is.
3. Refused: links that leave the tree or lead nowhere, devices, sockets, fifos, setuid and setgid files, names that are
   not UTF-8, files that change while they are read, too many, too big, too deep; with `Rules.owners` also what belongs
   to anybody else, or others can write to.
4. Every open goes through openat2 below the root descriptor and follows no link; a name is never resolved twice.

Left out on purpose: owners, times, extended attributes and access lists (staging copies none of them), and the
directories named in `Rules.skip`, which staging leaves behind as well.
"""

import contextlib
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from agent import kernel
from attestation import cbor
from attestation.errors import Malformed, Untrusted

EXECUTABLE: Final = 0o100755
REGULAR: Final = 0o100644
LINK: Final = 0o120000
DIRECTORY: Final = 0o040755

_BLOCK: Final = 1 << 20
_WORKERS: Final = 4


@dataclass(frozen=True)
class Rules:
    """What a tree may hold: entries, bytes, levels; directory names that are not part of it; who may own it."""

    entries: int = 100_000
    size: int = 64 << 30
    depth: int = 64
    skip: frozenset[str] = frozenset()
    links_out: bool = False
    owners: frozenset[int] | None = None


CODE: Final = Rules(size=4 << 30, skip=frozenset({"__pycache__", ".git"}))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a tree: path relative to its root, normalised mode, size in bytes, SHA-256 of the content."""

    path: str
    mode: int
    size: int
    sha256: bytes


@dataclass(frozen=True)
class Tree:
    """The entries of a tree, sorted by path bytes."""

    entries: tuple[Entry, ...]

    @cached_property
    def digest(self) -> bytes:
        """The tree digest, 32 bytes (rule 1)."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """What the digest is over."""
        return cbor.encode([[each.path, each.mode, each.size, each.sha256] for each in self.entries])


Key = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """One name met by the walk: its path, what lstat said, and a link's text."""

    path: str
    mode: int
    key: Key
    target: str = ""

    @property
    def size(self) -> int:
        """Size in bytes according to lstat."""
        return self.key[2]


def key_of(status: os.stat_result) -> Key:
    """What changes when a file changes: device, inode, size, mtime, ctime (both ns)."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Opener:
    """Looks at the source tree below one directory descriptor. `stage` runs these three as the submitter."""

    def __init__(self, root: int) -> None:
        self.root = root

    def walk(self, rules: Rules) -> list[Found]:
        """Every name below the root, sorted by path bytes; Untrusted/Malformed `tree.*` by rule 3."""
        found: list[Found] = []
        pending = [("", 0)]
        while pending:
            path, depth = pending.pop()
            below, directories = self._directory(path, rules)
            found += below
            if directories and depth == rules.depth:
                raise Untrusted("tree.depth", f"{directories[0]} is {depth + 1} levels down")
            if len(found) > rules.entries:
                raise Untrusted("tree.count", f"more than {rules.entries} entries")
            pending += [(each, depth + 1) for each in directories]
        if sum(each.size for each in found) > rules.size:
            raise Untrusted("tree.size", f"more than {rules.size} bytes")
        return sorted(found, key=lambda each: each.path.encode())

    def _directory(self, path: str, rules: Rules) -> tuple[list[Found], list[str]]:
        """What one directory holds, and the paths of the directories among it."""
        with _refusing(path), contextlib.closing(_Directory(self.root, path)) as directory:
            entries = directory.entries(rules.entries)
        found, directories = [], []
        for name, status in entries:
            below = f"{path}/{name}" if path else name
            loose = status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
            if rules.owners is not None and (loose or status.st_uid not in rules.owners):
                raise Untrusted("tree.writable", f"{below} can be changed by others than root")
            if not stat.S_ISDIR(status.st_mode):
                found.append(self._leaf(below, status, rules))
            elif name not in rules.skip:
                found.append(Found(below, DIRECTORY, (status.st_dev, status.st_ino, 0, 0, 0)))
                directories.append(below)
        return found, directories

    def _leaf(self, path: str, status: os.stat_result, rules: Rules) -> Found:
        if stat.S_ISLNK(status.st_mode):
            return Found(path, LINK, key_of(status), self._link(path, rules))
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted("tree.special", f"{path} is a device, socket or fifo")
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise Untrusted("tree.setuid", path)
        return Found(path, EXECUTABLE if status.st_mode & stat.S_IXUSR else REGULAR, key_of(status))

    def _link(self, path: str, rules: Rules) -> str:
        parent, _, name = path.rpartition("/")
        with _refusing(path), contextlib.closing(_Directory(self.root, parent)) as directory:
            target = os.readlink(name, dir_fd=directory.descriptor)
        _utf8(target)
        if not rules.links_out:
            self.check_link(path)
        return target

    def check_link(self, path: str) -> None:
        """The kernel resolves the link and stays below the root; else Untrusted("tree.link")."""
        try:
            os.close(kernel.open_beneath(self.root, path, os.O_PATH))
        except OSError as error:
            raise Untrusted("tree.link", f"{path} leaves the tree or leads nowhere") from error

    def open(self, path: str) -> int:
        """A descriptor for reading the regular file `path`; never waits for a fifo, never follows a link."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with _refusing(path):
            return kernel.open_beneath(self.root, path, flags, kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS)


class _Directory:
    def __init__(self, root: int, path: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        resolve = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS
        self.descriptor = kernel.open_beneath(root, path or ".", flags, resolve)

    def entries(self, most: int) -> list[tuple[str, os.stat_result]]:
        """Names and what lstat says of them; one more than `most` where there are more."""
        with os.scandir(self.descriptor) as listing:
            first = itertools.islice(listing, most + 1)
            return [(_utf8(each.name), each.stat(follow_symlinks=False)) for each in first]

    def close(self) -> None:
        os.close(self.descriptor)


def _utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Malformed("tree.name", f"{os.fsencode(name)!r} is not UTF-8") from error
    return name


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Untrusted("tree.unreadable", f"{path or '.'}: {error.strerror}") from error


def hash_file(descriptor: int, found: Found, sink: int | None = None) -> bytes:
    """SHA-256 of an open file, copying it to `sink`; Untrusted("tree.changed") unless it is what the walk saw."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(min(_BLOCK, found.size + 1)))
    left = found.size
    while left >= 0 and (count := os.readv(descriptor, [block])):  # a file that grows is not followed
        digest.update(block[:count])
        left -= count
        if sink is not None:
            _write(sink, block[:count])
    if left or key_of(os.fstat(descriptor)) != found.key:
        raise Untrusted("tree.changed", found.path)
    return digest.digest()


def _write(sink: int, data: memoryview) -> None:
    while data:
        data = data[os.write(sink, data) :]


@dataclass
class Work:
    """Hash the files of a walk on several threads; hashlib lets go of the interpreter lock."""

    open: Callable[[str], int]
    sink: Callable[[Found], int | None] = field(default=lambda _: None)
    known: Mapping[Key, bytes] = field(default_factory=dict)

    def tree(self, found: list[Found]) -> Tree:
        """The Tree of what `found` names; Untrusted `tree.*`."""
        return Tree(tuple(map(_entry, found, self.hashes(found))))

    def hashes(self, found: list[Found]) -> list[bytes]:
        """One SHA-256 for each name, from `known` where its key is there."""
        answers = [_content(each, self.known) for each in found]
        missing = [index for index, answer in enumerate(answers) if answer is None]
        missing.sort(key=lambda index: -found[index].size)
        pending = iter(missing)  # shared: each thread takes the next, the big ones first

        def work() -> None:
            for index in pending:
                answers[index] = self._file(found[index])

        if missing:
            with ThreadPoolExecutor(_WORKERS, thread_name_prefix="hash") as threads:
                for done in [threads.submit(work) for _ in range(_WORKERS)]:
                    done.result()
        return [answer for answer in answers if answer is not None]

    def _file(self, found: Found) -> bytes:
        source = self.open(found.path)
        try:
            sink = self.sink(found)
            try:
                return hash_file(source, found, sink)
            finally:
                if sink is not None:
                    os.close(sink)
        finally:
            os.close(source)


def _content(found: Found, known: Mapping[Key, bytes]) -> bytes | None:
    if found.mode in {LINK, DIRECTORY}:
        return hashlib.sha256(found.target.encode()).digest()
    return known.get(found.key)


def _entry(found: Found, sha256: bytes) -> Entry:
    return Entry(found.path, found.mode, len(found.target.encode()) if found.target else found.size, sha256)


def measure(root: Path, rules: Rules = CODE) -> Tree:
    """The tree at `root` as it is now, read with this process's own rights; Untrusted/Malformed `tree.*`."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        opener = Opener(descriptor)
        return Work(opener.open).tree(opener.walk(rules))
    finally:
        os.close(descriptor)
