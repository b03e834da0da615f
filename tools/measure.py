"""Coverage for processes that the product starts with an environment of their own making.

``./dev`` copies this file into the tools environment, where a ``.pth`` file imports it at every interpreter start;
the product neither has nor knows it. Coverage finds its settings in an environment variable, but a service that is
started with a clean environment has none. Under ``./dev test`` an ancestor's environment still has them, under a
name of ours: the child reads them there, through /proc. In all other processes this does nothing.

The settings are removed from the environment again, and what was measured is saved before another program replaces
this one: the job's environment stays exactly what was asked for.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

OURS = b"INTERLOCK_MEASURE="
THEIRS = "COVERAGE_PROCESS_CONFIG"
ANCESTORS = 8


def start() -> None:
    """Start measuring if an ancestor asks for it."""
    inherited = THEIRS in os.environ
    settings = os.environ.get(THEIRS) or _from_ancestors()
    if not settings:
        return
    import coverage

    os.environ[THEIRS] = settings
    with contextlib.suppress(OSError):
        coverage.process_startup(slug="interlock")
        _save_before_exec()
    if not inherited:
        del os.environ[THEIRS]


def _from_ancestors() -> str:
    pid = os.getppid()
    with contextlib.suppress(OSError, IndexError, ValueError):
        for _ in range(ANCESTORS):
            for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if entry.startswith(OURS):
                    return entry.removeprefix(OURS).decode()
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return ""


def _save_before_exec() -> None:
    from coverage import Coverage

    def saving(replace: Callable[..., Any]) -> Callable[..., Any]:
        def first(*arguments: Any) -> Any:
            current = Coverage.current()
            with contextlib.suppress(Exception):
                if current is not None:
                    current.save()
            return replace(*arguments)

        return first

    os.execv, os.execve = saving(os.execv), saving(os.execve)
