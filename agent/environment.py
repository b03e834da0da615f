"""The digest of a job's environment: the interpreter, its standard library and everything installed beside it.

Rules (design: control, "Start" 2):
1. An environment is a virtual environment directory. Its tree is that directory (every name, `__pycache__` too: what
   can be imported is measured) and the base interpreter's standard library, found through `pyvenv.cfg`.
2. A link may leave these directories; its text is measured, and so is the regular file that it ends at, under that
   file's absolute path. A link to a directory outside is refused; a link to nothing is its text.
3. Hashes are remembered by (device, inode, size, mtime, ctime) in a file that only this user can write. A random
   sample of what was remembered is hashed again every time; one difference and all of it is.
4. A file that changed within the last two seconds is not remembered: its times could stay the same when it changes.
5. Nobody but root and this user can have changed it since: every name that is measured, and every directory above it,
   belongs to one of the two and is writable by nobody else (a sticky directory above it may be). The job gets it from
   where it lies, so what its submitter could write to is no environment.

Not covered: shared libraries of the operating system, and directories that a `.pth` file adds (boot and IMA evidence
speak for those).
"""

import contextlib
import os
import random
import re
import sqlite3
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.tree import EXECUTABLE, LINK, REGULAR, Found, Key, Opener, Rules, Tree, Work, key_of
from attestation.errors import Malformed, Untrusted

OWNERS: Final = frozenset({0, os.geteuid()})
RULES: Final = Rules(entries=400_000, size=64 << 30, links_out=True, owners=OWNERS)
_SAMPLE: Final = 24
_LONGEST_CONFIGURATION: Final = 65536
_PATIENCE_S: Final = 0.5
_SETTLED_NS: Final = 2_000_000_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS file (dev INTEGER, ino INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER, sha256 BLOB,
                                 PRIMARY KEY (dev, ino)) WITHOUT ROWID
"""


class Cache:
    """Remembered hashes in an SQLite file, created 0600 (rule 3)."""

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._path = path

    def load(self) -> dict[Key, bytes]:
        """All of it; nothing where the file is damaged (it is made anew) or somebody else keeps it locked."""
        with contextlib.closing(self._connect()) as base:
            try:
                base.execute(_SCHEMA)
                rows = base.execute("SELECT dev, ino, size, mtime, ctime, sha256 FROM file").fetchall()
            except sqlite3.OperationalError:
                return {}
            except sqlite3.DatabaseError:
                self._path.write_bytes(b"")
                return {}
        return {(dev, ino, size, mtime, ctime): sha for dev, ino, size, mtime, ctime, sha in rows}

    def save(self, hashes: Mapping[Key, bytes]) -> None:
        """Remember these, unless the file is locked; an older hash of the same inode is replaced."""
        rows = [(*key, sha) for key, sha in hashes.items()]
        with contextlib.closing(self._connect()) as base, contextlib.suppress(sqlite3.OperationalError), base:
            base.execute(_SCHEMA)
            base.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_PATIENCE_S)


def find(path: str) -> Path:
    """The environment directory that an absolute path leads to, without links. Malformed("tree.environment")."""
    if not path.startswith("/") or "\0" in path:
        raise Malformed("tree.environment", "the environment's path must be absolute")
    return Path(os.path.realpath(path))


def measure_environment(root: Path, cache: Cache) -> Tree:
    """The tree of the environment at `root` (an absolute path without links). Untrusted/Malformed `tree.*`."""
    found = _walk(root)
    known = cache.load()
    work = Work(lambda path: _open(root / path))
    remembered = [each for each in found if each.key in known and each.mode in {EXECUTABLE, REGULAR}]
    sample = random.SystemRandom().sample(remembered, min(_SAMPLE, len(remembered)))
    if work.hashes(sample) != [known[each.key] for each in sample]:
        known = {}
    tree = Work(work.open, known=known).tree(found)
    cache.save(_settled(found, tree, known))
    return tree


def _walk(root: Path) -> list[Found]:
    """Everything that is measured, sorted; what is below `root` by relative, the rest by absolute path."""
    _check_owned(root)
    library = _standard_library(root)
    _check_owned(Path(os.path.realpath(library)))
    found = _below(root, "") + _below(library, f"{library}/")
    inside = (os.path.realpath(root), os.path.realpath(library))
    ends = {os.path.realpath(root / each.path) for each in found if each.mode == LINK}
    outside = sorted(end for end in ends if not end.startswith(tuple(f"{each}/" for each in inside)))
    found += [each for each in map(_end, outside) if each is not None]
    return sorted(found, key=lambda each: each.path.encode())


def _below(root: Path, prefix: str) -> list[Found]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = Opener(descriptor).walk(RULES)
        return [replace(each, path=prefix + each.path) for each in found] if prefix else found
    finally:
        os.close(descriptor)


def _check_owned(path: Path) -> None:
    """Rule 5 for a path without links and everything above it."""
    for each in (path, *path.parents):
        status = _lstat(each)
        sticky = each != path and status.st_mode & stat.S_ISVTX
        if status.st_uid not in OWNERS or (status.st_mode & 0o022 and not sticky):
            raise Untrusted("tree.writable", f"{each} can be changed by others than root")


def _lstat(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise Malformed("tree.environment", f"{path}: {error.strerror}") from error


def _standard_library(root: Path) -> Path:
    """Where the base interpreter of a virtual environment has its library (PEP 405: `home`, `version`)."""
    try:
        with os.fdopen(_open(root / "pyvenv.cfg"), "rb") as file:
            lines = file.read(_LONGEST_CONFIGURATION).decode().splitlines()
    except (OSError, UnicodeDecodeError, Untrusted) as error:
        raise Malformed("tree.environment", f"{root} is not a virtual environment: no pyvenv.cfg") from error
    settings = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    version = re.match(r"3\.\d+", settings.get("version", ""))
    if version is None or not settings.get("home", "").startswith("/"):
        raise Malformed("tree.environment", f"{root}/pyvenv.cfg names no base interpreter")
    library = Path(settings["home"]).parent / "lib" / f"python{version[0]}"
    if not library.is_dir():
        raise Malformed("tree.environment", f"{library} is not there")
    return library


def _end(path: str) -> Found | None:
    """The regular file at the end of a link that leaves the environment."""
    try:
        status = os.lstat(path)
    except OSError:
        return None  # rule 2: a link to nothing is its text
    if not stat.S_ISREG(status.st_mode):
        raise Untrusted("tree.link", f"a link of the environment ends at {path}, which is no regular file")
    _check_owned(Path(path))
    return Found(path, EXECUTABLE if status.st_mode & stat.S_IXUSR else REGULAR, key_of(status))


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Untrusted("tree.unreadable", f"{path}: {error.strerror}") from error


def _settled(found: list[Found], tree: Tree, known: Mapping[Key, bytes]) -> dict[Key, bytes]:
    """What is new and old enough to be remembered (rule 4)."""
    latest = time.time_ns() - _SETTLED_NS
    return {
        each.key: entry.sha256
        for each, entry in zip(found, tree.entries, strict=True)
        if each.mode in {EXECUTABLE, REGULAR} and each.key not in known and max(each.key[3:]) < latest
    }
