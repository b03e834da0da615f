"""Control groups: real ones, with real processes that do not want to die (agent/cgroup.py)."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cgroup import Cgroup, Stuck, find_root, sweep

pytestmark = pytest.mark.root

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("mountinfo", "path"),
    [
        pytest.param(HYBRID, "/sys/fs/cgroup/unified/interlock", id="hybrid"),
        pytest.param("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 none rw", "/sys/fs/cgroup/interlock", id="v2"),
        pytest.param(r"30 23 0:26 / /a\040b\134c rw - cgroup2 none rw", r"/a b\c/interlock", id="odd name"),
    ],
)
def test_where_the_hierarchy_is(mountinfo: str, path: str) -> None:
    assert find_root(mountinfo) == Path(path)


def test_a_host_without_the_hierarchy() -> None:
    with pytest.raises(FileNotFoundError):
        find_root("30 23 0:26 / /a rw - tmpfs cgroup2 rw")
    assert find_root().parent.is_dir()


@pytest.fixture
def root() -> Iterator[Path]:
    path = find_root().with_name(f"interlock-test-{os.getpid()}")
    yield path
    sweep(path, set())
    if path.exists():
        path.rmdir()


@pytest.fixture
def group(root: Path) -> Cgroup:
    made = Cgroup.of(root, bytes(16))
    made.create()
    return made


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(group: Cgroup) -> Iterator[Start]:
    """Run a Python program in the group; it has printed "ready" when this returns."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str) -> "subprocess.Popen[str]":
        text = f"import os, signal\nos.read(0, 1)\n{program}\nos.write(1, b'ready\\n')\nwhile True: signal.pause()"
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        group.add(child.pid)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n"
        return child

    yield begin
    for child in started:
        child.kill()
        child.communicate()


ESCAPEES = {
    "plain": "",
    "ignores every signal": "for n in set(signal.valid_signals()) - {9, 19}: signal.signal(n, signal.SIG_IGN)",
    "forked twice, own session": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: signal.pause()
    os._exit(0)
os.wait()""",
    "forty children": """
for n in range(40):
    if os.fork() == 0: signal.pause()""",
    "stopped children": """
for n in range(3):
    if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)""",
}


@pytest.mark.parametrize("program", ESCAPEES.values(), ids=ESCAPEES.keys())
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_everything_dies(group: Cgroup, start: Start, program: str, frozen: bool) -> None:
    child = start(program)
    assert child.pid in group.processes()
    assert not group.is_empty()
    if frozen:
        group.freeze()
    group.kill_and_wait()
    assert group.is_empty()
    assert group.processes() == []
    assert child.wait() == -signal.SIGKILL
    group.remove()
    assert not group.path.exists()


def test_freeze_and_thaw(group: Cgroup, start: Start) -> None:
    child = start("signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'alive\\n'))")
    group.freeze()
    assert group.is_frozen()
    child.send_signal(signal.SIGUSR1)
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], 0.1)[0] == []
    group.thaw()
    assert child.stdout.readline() == "alive\n"


def test_what_does_not_happen_in_time_is_said(group: Cgroup, start: Start) -> None:
    start("")
    with pytest.raises(Stuck, match="populated 0"):
        group._wait("populated 0", 0.02)


def test_a_group_is_for_one_run(group: Cgroup) -> None:
    with pytest.raises(FileExistsError):
        group.create()


def test_a_process_that_is_not_there_is_not_counted(group: Cgroup) -> None:
    with pytest.raises(ProcessLookupError):
        group.add(2**22 - 1)


def test_a_group_that_is_gone_is_empty(group: Cgroup) -> None:
    group.remove()
    group.remove()
    assert group.is_empty()
    assert group.processes() == []
    assert group.kill_and_wait() > 0


def test_groups_made_inside_go_too(group: Cgroup, start: Start) -> None:
    inner = Cgroup(group.path / "inner")
    inner.path.mkdir()
    child = start("")
    (inner.path / "cgroup.procs").write_text(str(child.pid))
    with pytest.raises(OSError, match="busy"):
        group.remove()
    group.kill_and_wait()
    group.remove()


@pytest.mark.parametrize("present", [(), ("pids.max",), ("memory.max", "pids.max")])
def test_only_limits_that_are_there_are_claimed(tmp_path: Path, present: tuple[str, ...]) -> None:
    for name in present:
        (tmp_path / name).write_text("max")
    assert Cgroup(tmp_path).limit(256, 20) == tuple(f"cgroup.{name}" for name in present)
    expected = {"memory.max": str(256 << 20), "pids.max": "20"}
    assert {name: (tmp_path / name).read_text() for name in present} == {name: expected[name] for name in present}


def test_controllers_are_handed_down_where_there_are_any(tmp_path: Path) -> None:
    root = tmp_path / "interlock"
    root.mkdir()
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    (root / "cgroup.controllers").write_text("pids\n")
    (root / "cgroup.subtree_control").mkdir()  # cannot be written: the kernel refused
    Cgroup.of(root, b"\1" * 16).create()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"
    assert (root / ("01" * 16)).is_dir()


def test_sweep_ends_what_nobody_governs(root: Path, group: Cgroup, start: Start) -> None:
    kept, empty = Cgroup.of(root, b"\1" * 16), Cgroup.of(root, b"\2" * 16)
    kept.create()
    empty.create()
    child = start(ESCAPEES["forked twice, own session"])
    group.freeze()
    assert sweep(root, {b"\1" * 16}) == [bytes(16), b"\2" * 16]
    assert child.wait() == -signal.SIGKILL
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["01" * 16]
    assert sweep(root / "missing", set()) == []
