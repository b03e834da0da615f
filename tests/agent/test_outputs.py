"""A job's outputs: what is one, which lease it was written under, and handing it over."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.outputs import MOST, Outputs, fetch


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def measured(out: Path) -> Iterator[Outputs]:
    made = Outputs(out, ("a.pt", "d"))
    yield made
    made.close()


def test_files_and_directories_are_hashed(out: Path, measured: Outputs) -> None:
    (out / "a.pt").write_bytes(b"a" * 3_000_000)
    (out / "d" / "e").mkdir(parents=True)
    (out / "d" / "e" / "f").write_bytes(b"f")
    (out / "not-declared").write_bytes(b"x")
    found = measured.measure(0, hard=False)
    assert sorted(found) == ["a.pt", "d/e/f"]
    assert found["a.pt"].digest == hashlib.sha256(b"a" * 3_000_000).digest()
    assert (found["a.pt"].size, found["d/e/f"].size) == (3_000_000, 1)


def fifo(out: Path) -> None:
    os.mkfifo(out / "a.pt")


def link_out(out: Path) -> None:
    (out / "a.pt").symlink_to("/etc/passwd")


def link_in(out: Path) -> None:
    (out / "b").write_text("b")
    (out / "a.pt").symlink_to("b")


def linked_directory(out: Path) -> None:
    (out / "d").symlink_to("/etc")


def deep(out: Path) -> None:
    (out / "/".join(["d"] * 30)).mkdir(parents=True)
    (out / "/".join(["d"] * 30) / "x").write_text("x")


def strange_name(out: Path) -> None:
    (out / "d").mkdir()
    (out / "d" / "a\nb").write_text("x")


def not_utf8(out: Path) -> None:
    (out / "d").mkdir()
    Path(os.fsdecode(os.fsencode(out / "d") + b"/\xff")).write_text("x")


@pytest.mark.parametrize("make", [fifo, link_out, link_in, linked_directory, deep, strange_name, not_utf8])
def test_what_is_no_plain_file_is_no_output(out: Path, measured: Outputs, make: Callable[[Path], None]) -> None:
    make(out)
    assert measured.measure(0, hard=True) == {}


def test_there_is_an_end_to_outputs(out: Path, measured: Outputs) -> None:
    (out / "d").mkdir()
    for number in range(MOST + 5):
        (out / "d" / str(number)).write_text("x")
    assert len(measured.measure(0, hard=False)) == MOST


def test_a_file_belongs_to_the_lease_it_was_last_written_under(out: Path, measured: Outputs) -> None:
    (out / "d").mkdir()
    (out / "a.pt").write_text("under 0")
    measured.note(0)
    (out / "d" / "b").write_text("under 1")
    measured.note(1)
    (out / "d" / "c").write_text("under 2")
    found = measured.measure(2, hard=True)
    assert {name: output.lease for name, output in found.items()} == {"a.pt": 0, "d/b": 1, "d/c": 2}
    assert {name: output.quarantined for name, output in found.items()} == {"a.pt": False, "d/b": False, "d/c": True}
    assert not any(output.quarantined for output in measured.measure(2, hard=False).values())


def test_times_that_were_set_back_deceive_nobody(out: Path, measured: Outputs) -> None:
    (out / "a.pt").write_text("good")
    before = (out / "a.pt").stat()
    measured.note(0)
    (out / "a.pt").write_text("evil")
    os.utime(out / "a.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert measured.measure(1, hard=True)["a.pt"].quarantined


def test_only_what_is_not_quarantined_is_fetched(out: Path, tmp_path: Path) -> None:
    (out / "d").mkdir()
    (out / "d" / "good").write_text("good")
    (out / "bad").write_text("bad")
    into = tmp_path / "into"
    directory = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    assert fetch(directory, {"d/good": False, "bad": True}, into) == [into / "d" / "good"]
    assert (into / "d" / "good").read_text() == "good"
    assert sorted(path.name for path in into.rglob("*")) == ["d", "good"]
    with pytest.raises(OSError, match="descriptor"):
        os.close(directory)


def test_fetching_replaces_whole_files(out: Path, tmp_path: Path) -> None:
    (out / "a.pt").write_text("new")
    (tmp_path / "a.pt").write_text("old and longer")
    fetch(os.open(out, os.O_RDONLY | os.O_DIRECTORY), {"a.pt": False}, tmp_path)
    assert (tmp_path / "a.pt").read_text() == "new"
