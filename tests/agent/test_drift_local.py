"""Local drift: staged code, foreign processes, the wall clock (agent/drift_local.py)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import protocol
from agent.clock import SECOND, now_ns
from agent.drift_local import clock_look, code_look, process_look
from agent.protocol import HARD
from attestation.errors import Untrusted
from tests.agent.holding import ROOT, UID, Job

CHANGES = {
    "one byte": "printf X | dd of=train.py conv=notrunc status=none",
    "same bytes again, same time": "cp -p train.py t; cat t > train.py; touch -r t train.py; rm t",
    "replaced": "cp -p train.py t; mv t train.py",
    "a file more": "touch new.py",
    "a file less": "rm pkg/net.py",
    "a link elsewhere": "ln -sfn train.py latest",
    "mode": "chmod 755 train.py",
    "a device": "mknod null c 1 3",
    "another directory": "cp -r pkg p; rm -r pkg; mv p pkg",
    "gone": "rm -r ../code",
}


@pytest.mark.root
@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES.keys())
def test_staged_code_that_changes_is_seen(tmp_path: Path, command: str) -> None:
    root = tmp_path / "code"
    (root / "pkg").mkdir(parents=True)
    (root / "train.py").write_text("print('hello')\n")
    (root / "pkg" / "net.py").write_text("WIDTH = 32\n")
    (root / "latest").symlink_to("pkg/net.py")
    look = code_look(root)
    look()
    subprocess.run(["sh", "-c", command], cwd=root, check=True)
    with pytest.raises(Untrusted, match=r"drift\.code"):
        look()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path / "job", "import os, signal\nos.fork()\nprint('up\\n', end='')\nwhile True: signal.pause()")
    made.start()
    yield made
    made.hold.halt(HARD, "drift.process", now_ns())
    assert made.hold.wait(10).cgroup_empty
    made.output.close()
    ROOT.rmdir()


STRANGERS = {
    "root": (0, []),
    "another user": (UID + 1, []),
    "the job's user, from outside": (UID, []),
    "another user inside the job's namespace": (UID + 1, ["nsenter", "--pid"]),
}


@pytest.mark.root
@pytest.mark.parametrize(("user", "prefix"), STRANGERS.values(), ids=STRANGERS.keys())
def test_a_stranger_in_the_group_is_seen(job: Job, user: int, prefix: list[str]) -> None:
    look = process_look(job.hold, UID)
    look()  # perhaps before it started: nothing is said then
    assert job.line() == "up"
    init = job.events.wait(protocol.Started).pid
    look()
    command = [
        *([*prefix, f"--target={init}"] if prefix else []),
        "setpriv",
        f"--reuid={user}",
        "--clear-groups",
        "cat",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        stranger.stdin.write(b"x")
        stranger.stdin.flush()
        stranger.stdout.read(1)
        children = Path(f"/proc/{stranger.pid}/task/{stranger.pid}/children").read_text().split()
        job.hold.group.add(int(children[0]) if children else stranger.pid)
        with pytest.raises(Untrusted, match=r"drift\.process"):
            look()
        stranger.stdin.close()


TRACE = """
import ctypes, sys
libc = ctypes.CDLL(None)
print(libc.ptrace(0x4206, int(sys.argv[1]), None, None), flush=True)  # PTRACE_SEIZE
sys.stdin.read()
"""


@pytest.mark.root
def test_a_tracer_is_seen(job: Job) -> None:
    look = process_look(job.hold, UID)
    assert job.line() == "up"
    init = job.events.wait(protocol.Started).pid
    main = next(pid for pid in job.hold.group.processes() if pid != init)
    command = [sys.executable, "-I", "-S", "-c", TRACE, str(main)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdin is not None
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == b"0\n"
        with pytest.raises(Untrusted, match=r"drift\.process: process \d+ is traced"):
            look()
        tracer.stdin.close()
    look()


@pytest.mark.root
def test_a_job_that_ended_is_no_finding(job: Job) -> None:
    look = process_look(job.hold, UID)
    job.events.wait(protocol.Started)
    job.hold.halt(HARD, "drift.process", now_ns())
    job.hold.wait(10)
    look()


@pytest.mark.parametrize(
    ("step", "seen"), [(0, False), (SECOND, False), (-SECOND, False), (3 * SECOND, True), (-86400 * SECOND, True)]
)
def test_a_wall_clock_that_is_set_is_seen(step: int, seen: bool) -> None:
    wall, boot = [10**18], [10**12]
    look = clock_look(lambda: wall[0], lambda: boot[0])
    for _ in range(5):  # it drifts a little all the time: a second in all
        wall[0] += SECOND + SECOND // 5
        boot[0] += SECOND
        look()
    wall[0] += step
    if seen:
        with pytest.raises(Untrusted, match=r"drift\.clock"):
            look()
    look()
    clock_look()()
