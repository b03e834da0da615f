"""The tree digest: what it covers, what it refuses (agent/tree.py), and the environment with its cache."""

import hashlib
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from agent.environment import Cache, measure_environment
from agent.tree import (
    CODE,
    DIRECTORY,
    EXECUTABLE,
    LINK,
    REGULAR,
    Entry,
    Found,
    Opener,
    Rules,
    Tree,
    Work,
    hash_file,
    key_of,
    measure,
)
from attestation.errors import InterlockError, Malformed, Untrusted


def change(root: Path, command: str) -> None:
    subprocess.run(["sh", "-c", command], cwd=root, check=True)


def sample(root: Path) -> Path:
    (root / "pkg").mkdir(parents=True)
    (root / "train.py").write_text("print('hello')\n")
    (root / "pkg" / "net.py").write_text("WIDTH = 32\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    (root / "latest").symlink_to("pkg/net.py")
    return root


def test_the_digest_of_a_known_tree(tmp_path: Path) -> None:
    tree = measure(sample(tmp_path / "code"))
    empty = hashlib.sha256(b"").digest()
    assert tree.entries == (
        Entry("latest", LINK, 10, hashlib.sha256(b"pkg/net.py").digest()),
        Entry("pkg", DIRECTORY, 0, empty),
        Entry("pkg/net.py", REGULAR, 11, hashlib.sha256(b"WIDTH = 32\n").digest()),
        Entry("run.sh", EXECUTABLE, 10, hashlib.sha256(b"#!/bin/sh\n").digest()),
        Entry("train.py", REGULAR, 15, hashlib.sha256(b"print('hello')\n").digest()),
    )
    # known answer: an array of five arrays, each [text, unsigned, unsigned, 32 bytes]
    rows = [bytes.fromhex("84666c617465737419a0000a5820") + tree.entries[0].sha256]
    rows.append(bytes.fromhex("8463706b671941ed005820") + empty)
    rows.append(bytes.fromhex("846a706b672f6e65742e70791981a40b5820") + tree.entries[2].sha256)
    rows.append(bytes.fromhex("846672756e2e73681981ed0a5820") + tree.entries[3].sha256)
    rows.append(bytes.fromhex("8468747261696e2e70791981a40f5820") + tree.entries[4].sha256)
    assert tree.digest == hashlib.sha256(b"\x85" + b"".join(rows)).digest()


SAME: dict[str, str] = {
    "another umask": "chmod 600 train.py",
    "read-only": "chmod 555 pkg",
    "touched": "touch -d @1 train.py",
    "byte code beside the sources": "mkdir __pycache__; echo x > __pycache__/train.pyc",
    "a repository": "mkdir -p .git/objects",
}
DIFFERENT: dict[str, str] = {
    "one byte": "echo \"print('hellp')\" > train.py",
    "executable": "chmod 755 train.py",
    "renamed": "mv train.py main.py",
    "one file more": "touch new.py",
    "one file less": "rm train.py",
    "an empty directory more": "mkdir data",
    "a link elsewhere": "ln -sfn train.py latest",
    "a file for a link": "rm latest; printf pkg/net.py > latest",
}


@pytest.mark.parametrize("command", SAME.values(), ids=SAME.keys())
def test_what_does_not_matter_does_not_change_the_digest(tmp_path: Path, command: str) -> None:
    root = sample(tmp_path / "code")
    before = measure(root).digest
    change(root, command)
    assert measure(root).digest == before


@pytest.mark.parametrize("command", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_matters_changes_the_digest(tmp_path: Path, command: str) -> None:
    root = sample(tmp_path / "code")
    before = measure(root).digest
    change(root, command)
    assert measure(root).digest != before


SMALL = Rules(entries=10, size=100, depth=4)
REFUSED: dict[str, tuple[str, str]] = {
    "absolute link": ("tree.link", "ln -s /etc/passwd l"),
    "link above the root": ("tree.link", "ln -s ../../etc l"),
    "link that climbs through another": (
        "tree.link",
        "touch ../x; ln -s .. pkg/up; ln -s pkg/up/../x l",
    ),
    "link to nothing": ("tree.link", "ln -s missing l"),
    "link to itself": ("tree.link", "ln -s l l"),
    "device": ("tree.special", "mknod null c 1 3"),
    "fifo": ("tree.special", "mkfifo fifo"),
    "socket": ("tree.special", "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'"),
    "setuid": ("tree.setuid", "chmod 4755 run.sh"),
    "setgid": ("tree.setuid", "chmod 2755 run.sh"),
    "a name that is not UTF-8": ("tree.name", "touch \"$(printf '\\377')\""),
    "a link's text that is not UTF-8": ("tree.name", "ln -s \"$(printf '\\377')\" l"),
    "too many": ("tree.count", "touch 1 2 3 4 5 6 7 8 9 10"),
    "too big": ("tree.size", "head -c 101 /dev/zero > big"),
    "too deep": ("tree.depth", "mkdir -p d/d/d/d/d"),
}


@pytest.mark.parametrize(("reason", "command"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, reason: str, command: str) -> None:
    root = sample(tmp_path / "code")
    measure(root, SMALL)
    change(root, command)
    with pytest.raises(InterlockError) as refused:
        measure(root, SMALL)
    assert refused.value.reason == reason
    assert isinstance(refused.value, Malformed if reason == "tree.name" else Untrusted)


MEANWHILE: dict[str, tuple[str, str]] = {
    "longer": ("tree.changed", "echo more >> train.py"),
    "shorter": ("tree.changed", "echo x > train.py"),
    "same size": ("tree.changed", "head -c 15 /dev/zero > train.py"),
    "another file": ("tree.changed", "mv run.sh train.py"),
    "a fifo": ("tree.changed", "rm train.py; mkfifo train.py"),
    "a link": ("tree.unreadable", "ln -sf run.sh train.py"),
    "gone": ("tree.unreadable", "rm train.py"),
    "its directory a link": ("tree.unreadable", "mv pkg moved; ln -s moved pkg"),
}


@pytest.mark.parametrize(("reason", "command"), MEANWHILE.values(), ids=MEANWHILE.keys())
def test_a_file_that_changes_between_walk_and_read_is_refused(tmp_path: Path, reason: str, command: str) -> None:
    root = sample(tmp_path / "code")
    descriptor = os.open(root, os.O_RDONLY)
    opener = Opener(descriptor)
    found = opener.walk(CODE)
    change(root, command)
    with pytest.raises(Untrusted) as refused:
        Work(opener.open).tree(found)
    os.close(descriptor)
    assert refused.value.reason == reason


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    root = sample(tmp_path / "code")
    descriptor = os.open(root, os.O_RDONLY)
    opener = Opener(descriptor)

    def disturb(found: Found) -> None:
        with (root / "train.py").open("r+b") as file:
            file.write(b"X")

    read, write = os.pipe()
    for sink in (disturb, lambda found: write if found.path == "train.py" else None):
        found = [each for each in opener.walk(CODE) if each.path == "train.py"]
        if sink is disturb:
            with pytest.raises(Untrusted, match=r"tree\.changed"):
                Work(opener.open, sink).tree(found)
        else:
            assert Work(opener.open, sink).tree(found).entries[0].size == 15
    assert os.read(read, 99) == b"Xrint('hello')\n"
    os.close(read)
    os.close(descriptor)


def test_a_file_that_never_ends_is_not_followed(tmp_path: Path) -> None:
    """Swapped for a device between walk and open: /dev/zero would be read for ever."""
    root = sample(tmp_path / "code")
    descriptor = os.open(root, os.O_RDONLY)
    found = [each for each in Opener(descriptor).walk(CODE) if each.path == "train.py"]
    with pytest.raises(Untrusted, match=r"tree\.changed"):
        Work(lambda _: os.open("/dev/zero", os.O_RDONLY)).tree(found)
    os.close(descriptor)


def test_a_file_whose_size_is_a_lie_is_refused() -> None:
    descriptor = os.open("/proc/version", os.O_RDONLY)  # some 100 bytes, size 0; the same before and after
    found = Found("version", REGULAR, key_of(os.fstat(descriptor)))
    with pytest.raises(Untrusted, match=r"tree\.changed"):
        hash_file(descriptor, found)
    os.close(descriptor)


# --- environment ---------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment in miniature, over a base interpreter in miniature; old enough to be remembered."""
    base, root = tmp_path / "base", tmp_path / "venv"
    (base / "bin").mkdir(parents=True)
    (base / "bin" / "python3.11").write_bytes(b"\x7fELF")
    (base / "lib" / "python3.11").mkdir(parents=True)
    (base / "lib" / "python3.11" / "os.py").write_text("curdir = '.'\n")
    site = root / "lib" / "python3.11" / "site-packages" / "torch"
    (site / "__pycache__").mkdir(parents=True)
    (site / "__init__.py").write_text("version = '2'\n")
    (site / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"code")
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(base / "bin" / "python3.11")
    (root / "gone").symlink_to(tmp_path / "nothing")
    (root / "pyvenv.cfg").write_text(f"home = {base}/bin\nversion = 3.11.2\n")
    return root


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written in this test count as old."""
    monkeypatch.setattr("agent.environment._SETTLED_NS", -(10**12))


def test_what_an_environment_covers(environment: Path, tmp_path: Path) -> None:
    tree = measure_environment(environment, Cache(tmp_path / "cache"))
    paths = {each.path: each.mode for each in tree.entries}
    base = environment.parent / "base"
    assert paths[f"{base}/bin/python3.11"] == REGULAR
    assert paths[f"{base}/lib/python3.11/os.py"] == REGULAR
    assert paths["bin/python"] == LINK
    assert paths["gone"] == LINK
    assert "lib/python3.11/site-packages/torch/__pycache__/__init__.cpython-311.pyc" in paths
    assert list(tree.entries) == sorted(tree.entries, key=lambda each: each.path.encode())


CHANGED: dict[str, str] = {
    "interpreter": "echo x > ../base/bin/python3.11",
    "standard library": "echo \"curdir = ','\" > ../base/lib/python3.11/os.py",
    "package": "echo \"version = '3'\" > lib/python3.11/site-packages/torch/__init__.py",
    "byte code": "printf cope > lib/python3.11/site-packages/torch/__pycache__/__init__.cpython-311.pyc",
    "a link's text": "ln -sfn elsewhere gone",
    "a package more": "touch lib/python3.11/site-packages/evil.pth",
}


@pytest.mark.parametrize("command", CHANGED.values(), ids=CHANGED.keys())
def test_a_changed_environment_has_another_digest_although_it_is_remembered(
    environment: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    cache = Cache(tmp_path / "cache")
    before = measure_environment(environment, cache).digest
    assert len(cache.load()) == 5
    assert measure_environment(environment, cache).digest == before
    change(environment, command)
    assert measure_environment(environment, cache).digest != before


def test_a_change_that_left_all_times_alone_is_seen_by_the_sample(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    cache = Cache(tmp_path / "cache")
    honest = measure_environment(environment, cache)
    with (
        closing(sqlite3.connect(tmp_path / "cache")) as base,
        base,
    ):  # as if the disk itself had changed
        base.execute("UPDATE file SET sha256 = ?", (bytes(32),))
    assert measure_environment(environment, cache).digest == honest.digest


def test_what_changed_just_now_is_not_remembered(environment: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    measure_environment(environment, cache)
    assert cache.load() == {}


def test_the_cache_is_private_and_survives_damage(environment: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o600
    before = measure_environment(environment, cache).digest
    (tmp_path / "cache").write_bytes(b"no database, but long enough to look like one" * 99)
    assert measure_environment(environment, cache).digest == before
    (tmp_path / "link").symlink_to("cache")
    with pytest.raises(OSError, match="symbolic"):
        Cache(tmp_path / "link")


def test_a_locked_cache_is_done_without(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    cache = Cache(tmp_path / "cache")
    before = measure_environment(environment, cache).digest
    with closing(sqlite3.connect(tmp_path / "cache")) as base:
        base.execute("BEGIN EXCLUSIVE")
        assert measure_environment(environment, cache).digest == before
    assert len(cache.load()) == 5


ENVIRONMENTS: dict[str, tuple[str, str]] = {
    "no pyvenv.cfg": ("tree.environment", "rm pyvenv.cfg"),
    "pyvenv.cfg is not text": ("tree.environment", "printf '\\377' > pyvenv.cfg"),
    "no version": ("tree.environment", "echo 'home = /usr/bin' > pyvenv.cfg"),
    "no home": ("tree.environment", "echo 'version = 3.11.2' > pyvenv.cfg"),
    "relative home": ("tree.environment", "printf 'home = x\\nversion = 3.11' > pyvenv.cfg"),
    "no library": ("tree.environment", "printf 'home = /x/y\\nversion = 3.11' > pyvenv.cfg"),
    "a link to a directory outside": ("tree.link", "ln -s /usr/share share"),
    "a link to a device": ("tree.link", "ln -s /dev/null null"),
    "setuid": ("tree.setuid", "chmod 4755 pyvenv.cfg"),
}


@pytest.mark.parametrize(("reason", "command"), ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_refused_environments(environment: Path, tmp_path: Path, reason: str, command: str) -> None:
    change(environment, command)
    with pytest.raises(InterlockError) as refused:
        measure_environment(environment, Cache(tmp_path / "cache"))
    assert refused.value.reason == reason


def test_the_tree_of_nothing() -> None:
    assert Tree(()).digest == hashlib.sha256(b"\x80").digest()
