"""One control group per job (cgroup v2): where everything the job starts lives, is stopped, and is proven gone.

Rules (design: control, "Stop"; Linux Documentation/admin-guide/cgroup-v2.rst, "Core Interface Files"):
1. The v2 hierarchy is found in /proc/self/mountinfo (on hybrid systems it is not /sys/fs/cgroup itself).
2. Frozen means that the kernel says `frozen 1`, dead means that it says `populated 0`; nothing else counts.
3. cgroup.kill reaches what killpg does not: processes that forked twice, made sessions, or ignore signals.
4. A limit that cannot be set here (no controller) is not claimed: `limit` returns the names of those that are in force.
"""

import contextlib
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.clock import SECOND, now_ns

SUBTREE: Final = "interlock"
_REREAD_MS: Final = 1
_CONTROLLERS: Final = ("memory", "pids")


class Stuck(OSError):
    """A control group did not reach a state in time; the caller must assume the worst."""


def find_root(mountinfo: str | None = None) -> Path:
    """The `interlock` sub-tree of the cgroup v2 hierarchy (rule 1). FileNotFoundError where the host has none."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    for line in text.splitlines():
        mount, _, filesystem = line.partition(" - ")
        if filesystem.split(" ")[0] == "cgroup2":
            return Path(_unescaped(mount.split(" ")[4])) / SUBTREE
    raise FileNotFoundError("no cgroup v2 hierarchy is mounted on this host")


def _unescaped(field: str) -> str:
    """A path of mountinfo: space, tab, newline and backslash are octal (proc(5))."""
    for octal in ("\\040", "\\011", "\\012", "\\134"):
        field = field.replace(octal, chr(int(octal[1:], 8)))
    return field


@dataclass(frozen=True)
class Cgroup:
    """The control group at `path`."""

    path: Path

    @classmethod
    def of(cls, root: Path, cti: bytes) -> "Cgroup":
        """The group of the grant `cti`, whether it exists or not."""
        return cls(root / cti.hex())

    def create(self) -> None:
        """Make the group, and its parents with the controllers that there are. FileExistsError: the grant was used."""
        self.path.parent.mkdir(mode=0o755, exist_ok=True)
        for parent in (self.path.parent.parent, self.path.parent):
            for controller in _CONTROLLERS:
                if controller in (parent / "cgroup.controllers").read_text().split():
                    with contextlib.suppress(OSError):  # `limit` reports what is in force
                        (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        self.path.mkdir(mode=0o755)

    def limit(self, memory_mb: int, processes: int) -> tuple[str, ...]:
        """Set the limits that can be set here; their names (rule 4)."""
        applied = []
        for name, value in (("memory.max", memory_mb << 20), ("pids.max", processes)):
            if (self.path / name).exists():
                self._write(name, str(value))
                applied.append(f"cgroup.{name}")
        return tuple(applied)

    def add(self, pid: int) -> None:
        """Move process `pid` here and see it counted; ProcessLookupError where it is not."""
        self._write("cgroup.procs", str(pid))
        if pid not in self.processes():
            raise ProcessLookupError(f"process {pid} is not counted in {self.path}")

    def processes(self) -> list[int]:
        """The processes of the group as this PID namespace sees them; none where the group is gone."""
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def freeze(self, timeout_s: float = 1.0) -> int:
        """Freeze; the time (ns) at which the kernel said so. Stuck where it did not."""
        self._write("cgroup.freeze", "1")
        return self._wait("frozen 1", timeout_s)

    def thaw(self) -> None:
        """Let it run again."""
        self._write("cgroup.freeze", "0")

    def kill(self) -> None:
        """SIGKILL to every process of the group at once, frozen or not."""
        with contextlib.suppress(FileNotFoundError):
            self._write("cgroup.kill", "1")

    def kill_and_wait(self, timeout_s: float = 10.0) -> int:
        """Kill; the time (ns) at which the group was empty. Stuck where it is not."""
        self.kill()
        return self._wait("populated 0", timeout_s)

    def is_empty(self) -> bool:
        """Whether the kernel says `populated 0`, or the group is gone."""
        return "populated 0" in self._events()

    def is_frozen(self) -> bool:
        """Whether the kernel says `frozen 1`."""
        return "frozen 1" in self._events()

    def remove(self) -> None:
        """Remove the empty group, also one that is already gone. OSError where it is not empty."""
        with contextlib.suppress(FileNotFoundError):
            for child in self._children():
                child.remove()
            self.path.rmdir()

    def _children(self) -> Iterator["Cgroup"]:
        return (Cgroup(each) for each in self.path.iterdir() if each.is_dir())

    def _events(self) -> str:
        try:
            return (self.path / "cgroup.events").read_text()
        except OSError:  # ENOENT, and ENODEV where it goes away while it is read
            return "populated 0"

    def _write(self, name: str, text: str) -> None:
        with (self.path / name).open("w") as file:
            file.write(text)

    def _wait(self, wanted: str, timeout_s: float) -> int:
        """Wait for a line of cgroup.events.

        The kernel announces it with POLLPRI, but only once in 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV in kernel/cgroup/
        cgroup.c); so the file is also read again every millisecond.
        """
        end = now_ns() + int(timeout_s * SECOND)
        try:
            descriptor = os.open(self.path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return now_ns()  # a group that is gone is empty
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLPRI)
            while wanted not in os.pread(descriptor, 4096, 0).decode():
                left = end - now_ns()
                if left <= 0:
                    raise Stuck(f"{self.path}: no '{wanted}' within {timeout_s} s")
                poll.poll(min(left / 1e6, _REREAD_MS))
            return now_ns()
        finally:
            os.close(descriptor)


def sweep(root: Path, known: set[bytes]) -> list[bytes]:
    """Kill and remove the groups of jobs that nobody governs any more; their grants. Stuck where one does not die.

    For an agent that starts: `known` are the grants it governs itself. A left-over job never comes back to life.
    """
    swept = []
    for path in sorted(root.iterdir()) if root.exists() else []:
        if path.is_dir() and path.name not in {cti.hex() for cti in known}:
            group = Cgroup(path)
            group.kill_and_wait()
            group.remove()
            swept.append(bytes.fromhex(path.name))
    return swept
