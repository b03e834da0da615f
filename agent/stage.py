"""Staging: copy the code that was asked for into a private tree, and measure the bytes that will run.

Rules (design: control, "Start" 1):
1. The source is a directory descriptor that the submitter opened and passed; every look at it, and every open below
   it, happens in a thread with the submitter's own file access rights. The agent lends nobody its own.
2. What is hashed is what was copied: one pass reads, hashes and writes.
3. The copy lies below a directory of mode 0700; when it is done it is owned by the agent and writable by nobody.
4. A refusal leaves nothing behind.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from agent import kernel
from agent.tree import CODE, DIRECTORY, EXECUTABLE, LINK, Found, Opener, Rules, Tree, Work
from attestation.errors import Untrusted

_P = ParamSpec("_P")
_T = TypeVar("_T")
_READ_ONLY: Final = 0o444
_READ_AND_RUN: Final = 0o555


@dataclass(frozen=True)
class Submitter:
    """Whose rights are used for reading: uid, gid and supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @contextmanager
    def reading(self, opener: Opener) -> Iterator["BorrowedOpener"]:
        """An opener whose three looks happen in a thread of this identity (rule 1)."""
        with ThreadPoolExecutor(1, "reader", kernel.become_reader, (self.uid, self.gid, self.groups)) as thread:
            yield BorrowedOpener(opener, thread)


@dataclass(frozen=True)
class BorrowedOpener:
    """An `Opener` that works in somebody else's thread."""

    opener: Opener
    thread: ThreadPoolExecutor

    def walk(self, rules: Rules) -> list[Found]:
        return self._there(self.opener.walk, rules)

    def open(self, path: str) -> int:
        return self._there(self.opener.open, path)

    def _there(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self.thread.submit(call, *args, **kwargs).result()


def stage(source: int, destination: Path, submitter: Submitter, rules: Rules = CODE) -> Tree:
    """Copy the tree below the directory descriptor `source` to `destination`, which must not exist, and measure it.

    Raises Untrusted/Malformed `tree.*` for what may not be staged, and Untrusted("stage.parent") where `destination`
    would not be private.
    """
    _private(destination.parent)
    destination.mkdir(mode=0o700)
    try:
        with submitter.reading(Opener(source)) as opener:
            return _copy(opener, destination, rules)
    except BaseException:
        shutil.rmtree(destination)
        raise


def _private(parent: Path) -> None:
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise Untrusted("stage.parent", f"{parent} is not a directory that only this user can enter")


def _copy(opener: BorrowedOpener, destination: Path, rules: Rules) -> Tree:
    found = opener.walk(rules)
    for each in found:
        if each.mode == DIRECTORY:
            (destination / each.path).mkdir(mode=0o700)
        elif each.mode == LINK:
            (destination / each.path).symlink_to(each.target)

    def create(file: Found) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(destination / file.path, flags, 0o600)
        os.fchmod(descriptor, _READ_AND_RUN if file.mode == EXECUTABLE else _READ_ONLY)
        return descriptor

    tree = Work(opener.open, create).tree(found)
    _close(destination, found)
    return tree


def _close(destination: Path, found: list[Found]) -> None:
    """Check the links as they are in the copy, then take the write bits from its directories (rule 3)."""
    descriptor = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        copy = Opener(descriptor)
        for each in found:
            if each.mode == LINK:
                copy.check_link(each.path)
            elif each.mode == DIRECTORY:
                (destination / each.path).chmod(_READ_AND_RUN)
        os.fchmod(descriptor, _READ_AND_RUN)
    finally:
        os.close(descriptor)


def make_output(path: Path, uid: int, gid: int) -> None:
    """Make the private directory that a job writes to: mode 0700, its own. `path` must not exist."""
    path.mkdir(mode=0o700)
    os.chown(path, uid, gid)
