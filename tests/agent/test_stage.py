"""Staging: the copy is what was measured, read with the submitter's rights, and closed (agent/stage.py)."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from agent.stage import Submitter, make_output, stage
from agent.tree import CODE, Rules, measure
from attestation.errors import InterlockError, Untrusted

pytestmark = pytest.mark.root

SOMEBODY = Submitter(uid=4711, gid=4711)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "pkg").mkdir(parents=True)
    (root / "train.py").write_text("print('hello')\n")
    (root / "pkg" / "big.bin").write_bytes(os.urandom(3 << 20))
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "latest").symlink_to("pkg/big.bin")
    (root / "pkg" / "__pycache__").mkdir()
    (root / "pkg" / "__pycache__" / "big.pyc").write_bytes(b"stale")
    return root


@pytest.fixture
def private(tmp_path: Path) -> Path:
    made = tmp_path / "jobs"
    made.mkdir(mode=0o700)
    return made


def staged(source: Path, private: Path, rules: Rules = CODE, who: Submitter = SOMEBODY) -> bytes:
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return stage(descriptor, private / "code", who, rules).digest
    finally:
        os.close(descriptor)


def test_the_copy_is_what_was_measured(source: Path, private: Path) -> None:
    digest = staged(source, private)
    copy = private / "code"
    assert digest == measure(source).digest == measure(copy).digest
    assert (copy / "pkg" / "big.bin").read_bytes() == (source / "pkg" / "big.bin").read_bytes()
    assert (copy / "latest").readlink() == Path("pkg/big.bin")
    assert not (copy / "pkg" / "__pycache__").exists()
    modes = {path.name: path.lstat().st_mode & 0o7777 for path in [copy, *copy.rglob("*")] if not path.is_symlink()}
    assert modes == {"code": 0o555, "pkg": 0o555, "big.bin": 0o444, "run.sh": 0o555, "train.py": 0o444}
    assert {path.lstat().st_uid for path in copy.rglob("*")} == {0}


SMALL = Rules(entries=9, size=4 << 20, depth=4, skip=CODE.skip)
REFUSED: dict[str, tuple[str, str]] = {
    "absolute link": ("tree.link", "ln -s /etc/shadow l"),
    "link above the root": ("tree.link", "ln -s .. l"),
    "link to nothing": ("tree.link", "ln -s missing l"),
    "link into what is not staged": ("tree.link", "ln -s pkg/__pycache__/big.pyc l"),
    "device": ("tree.special", "mknod -m 644 mem c 1 1"),
    "fifo": ("tree.special", "mkfifo fifo"),
    "socket": ("tree.special", "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'"),
    "setuid": ("tree.setuid", "chmod 4755 run.sh"),
    "a file that the submitter may not read": ("tree.unreadable", "chmod 600 train.py"),
    "a file that only group root may read": ("tree.unreadable", "chmod 640 train.py"),
    "a directory that the submitter may not read": ("tree.unreadable", "mkdir -m 700 own"),
    "too many": ("tree.count", "touch 1 2 3 4 5 6 7 8 9"),
    "too big": ("tree.size", "head -c 2M /dev/zero > big"),
    "too deep": ("tree.depth", "mkdir -p a/b/c/d/e"),
}


@pytest.mark.parametrize(("reason", "command"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_and_nothing_left_behind(source: Path, private: Path, reason: str, command: str) -> None:
    subprocess.run(["sh", "-c", command], cwd=source, check=True)
    with pytest.raises(InterlockError) as refused:
        staged(source, private, SMALL)
    assert refused.value.reason == reason
    assert list(private.iterdir()) == []


def test_supplementary_groups_are_the_submitters_own(source: Path, private: Path) -> None:
    (source / "train.py").chmod(0o640)
    os.chown(source / "train.py", 0, 4712)
    with pytest.raises(Untrusted, match=r"tree\.unreadable"):
        staged(source, private)
    staged(source, private, who=Submitter(4711, 4711, (4712,)))
    assert 4712 not in os.getgroups()


def test_the_identity_ends_with_its_thread(source: Path, private: Path) -> None:
    staged(source, private)
    status = [Path(f"/proc/self/task/{thread.native_id}/status").read_text() for thread in threading.enumerate()]
    assert all("Uid:\t0\t0\t0\t0" in text and "4711" not in text for text in status)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_the_parent_is_private(source: Path, private: Path, mode: int) -> None:
    private.chmod(mode)
    with pytest.raises(Untrusted, match=r"stage\.parent"):
        staged(source, private)


def test_the_parent_is_a_directory_of_ours(source: Path, private: Path, tmp_path: Path) -> None:
    os.chown(private, 4711, 4711)
    with pytest.raises(Untrusted, match=r"stage\.parent"):
        staged(source, private)
    (tmp_path / "link").symlink_to(private)
    with pytest.raises(Untrusted, match=r"stage\.parent"):
        staged(source, tmp_path / "link")


def test_a_tree_is_staged_once(source: Path, private: Path) -> None:
    staged(source, private)
    with pytest.raises(FileExistsError):
        staged(source, private)
    assert (private / "code" / "train.py").exists()


def test_output_directory(private: Path) -> None:
    make_output(private / "out", 4711, 4712)
    status = (private / "out").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o700, 4711, 4712)
    with pytest.raises(FileExistsError):
        make_output(private / "out", 4711, 4712)
