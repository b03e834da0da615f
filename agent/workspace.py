"""The private directory of one run: ``code`` (staged, read-only) and ``out`` (the job's own), below ``jobs/<grant>``.

What is staged is removed at the end. Outputs stay until the submitter has fetched them, and quarantined ones until
somebody looks at them or :func:`sweep` finds them older than a week.
"""

import contextlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.environment import measure_environment
from agent.host import Host
from agent.job import Job
from agent.outputs import Outputs
from agent.stage import Submitter, make_output, stage
from attestation.errors import Untrusted
from attestation.workload import WorkloadEntry

KEEP_SECONDS: Final = 7 * 86_400

log = logging.getLogger("interlock.agent")


class Workspace:
    """A context: the directory is there on entering, and the staged code gone on leaving."""

    def __init__(self, host: Host, job: Job, grant: bytes) -> None:
        self._cache, self._job, self._grant = host.cache, job, grant
        self.path = host.state.jobs / grant.hex()
        self.code, self.out = self.path / "code", self.path / "out"
        self.outputs: Outputs

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700)
        make_output(self.out, self._job.peer.uid, self._job.peer.gid)
        self.outputs = Outputs(self.out, self._job.intent.outputs)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.code)
        self.outputs.close()

    def stage(self) -> WorkloadEntry:
        """Copy the code and measure what will run; returns what was measured.

        1. The tree that was copied is the tree that was granted.
        2. The environment is the one that was granted.

        Raises ``code.changed``, ``environment.changed``, ``tree.*``.
        """
        peer, intent = self._job.peer, self._job.intent
        tree = stage(self._job.code, self.code, Submitter(peer.uid, peer.gid, peer.groups))
        _same("code.changed", tree.digest, intent.code)  # (1)
        environment = measure_environment(self._job.environment, self._cache)
        _same("environment.changed", environment.digest, intent.environment)  # (2)
        return WorkloadEntry(self._grant, tree.digest, environment.digest)


def _same(reason: str, found: bytes, granted: bytes) -> None:
    if found != granted:
        raise Untrusted(reason, f"measured {found.hex()}, granted {granted.hex()}")


def sweep(jobs: Path) -> None:
    """Remove what earlier runs have left for longer than :data:`KEEP_SECONDS`, and any staged code."""
    for path in jobs.iterdir():
        age = time.time() - path.stat().st_mtime
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path / "code")
        if age > KEEP_SECONDS:
            remove(path)


def remove(path: Path) -> None:
    """Remove a directory that a job wrote to, with whatever it left there; what cannot be removed stays.

    However deep it is: a directory is emptied by moving its directories up to the top. `shutil.rmtree` needs a stack
    frame and a descriptor for each level, and a job may make as many levels as it likes.
    """
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    names = map(str, itertools.count())
    try:
        while directories := [each for each in _entries(top) if not _unlinked(top, each)]:
            for name in directories:
                _flatten(top, name, names)
        path.rmdir()
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error)
    finally:
        os.close(top)


def _flatten(top: int, name: str, names: Iterator[str]) -> None:
    """Move the directories of the directory ``name`` to ``top``, and remove it with everything else that it holds."""
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for each in _entries(below):
            if not _unlinked(below, each):
                os.rename(each, f".removed-{next(names)}", src_dir_fd=below, dst_dir_fd=top)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=top)


def _entries(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [each.name for each in entries]


def _unlinked(directory: int, name: str) -> bool:
    """Remove ``name``, if it is no directory; whether it was none."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    return True
