"""The logs of a host: what is asked for is sent, once, whole entries only; a list that is none is told."""

import hashlib
import os
import struct
import threading
from pathlib import Path

import pytest

from agent import logs
from agent.clock import SECOND
from agent.devices import DeviceError
from agent.drift_local import ima_look
from agent.logs import Logs
from attestation import evidence
from attestation.tpm.ima.measurements import read_binary

BOOT, NEXT_BOOT = b"boot0000", b"boot0001"


def entry(name: str, extra: int = 0) -> bytes:
    """One entry of the template ima-ng (the list is not judged here, so its digests may be anything)."""
    digest = b"sha256:\0" + hashlib.sha256(name.encode()).digest()
    path = name.encode() + b"x" * extra + b"\0"
    data = struct.pack("<I", len(digest)) + digest + struct.pack("<I", len(path)) + path
    head = struct.pack("<I20sI", 10, hashlib.sha1(data).digest(), 6)  # noqa: S324 - IMA's
    return head + b"ima-ng" + struct.pack("<I", len(data)) + data


def entries(count: int, first: int = 0) -> bytes:
    return b"".join(entry(f"/usr/bin/{number}") for number in range(first, first + count))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "list"
    path.write_bytes(entries(5))
    return path


def sent(made: Logs, start: int = 0, boot: bytes = BOOT) -> bytes:
    part = made.ima(boot, start)
    assert part is not None
    assert part.start == start
    return part.data


def test_what_was_asked_for_is_sent(file: Path) -> None:
    made = Logs(None, file)
    assert sent(made) == entries(5)
    assert sent(made, 3) == entries(2, 3)
    assert sent(made, 5) == b""
    assert made.sent == 5
    with file.open("ab") as more:
        more.write(entries(2, 5))
    assert sent(made, 5) == entries(2, 5)
    assert sent(made, 1) == entries(6, 1)
    assert made.count() == 7


def test_a_list_that_lacks_what_was_shown_before_is_sent_as_it_is(file: Path) -> None:
    """There is nothing from there on; what that means is for the verifier to say."""
    assert sent(Logs(None, file), 9) == b""


def test_nothing_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Logs(None, file)
    sent(made)
    read: list[tuple[int, int]] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        data = pread(descriptor, size, offset)
        read.append((offset, len(data)))
        return data

    monkeypatch.setattr(os, "pread", counted)
    sent(made, 4)
    with file.open("ab") as more:
        more.write(entry("/usr/bin/5"))
    sent(made, 5)
    end = len(entries(5))
    assert read == [(end, 0), (end, len(entry("/usr/bin/5"))), (len(entries(6)), 0)]


def test_a_kernel_that_gives_a_page_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    path.write_bytes(entries(500))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 4096), offset))
    made, taken = Logs(None, path), list[int]()
    take = made._take

    def counted(chunk: bytes) -> None:
        taken.append(len(chunk))
        take(chunk)

    monkeypatch.setattr(made, "_take", counted)
    assert sent(made) == entries(500)
    assert taken == [len(entries(500))]


def test_only_whole_entries_are_sent(file: Path) -> None:
    made, late = Logs(None, file), entry("/usr/bin/late")
    for cut in range(1, len(late)):
        file.write_bytes(entries(5) + late[:cut])
        assert sent(made) == entries(5)
    file.write_bytes(entries(5) + late)
    assert sent(made) == entries(5) + late


def test_a_list_longer_than_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CHUNK", 700)
    monkeypatch.setattr(logs, "_KEPT", 1000)
    path = tmp_path / "list"
    path.write_bytes(entries(200))
    made = Logs(None, path)
    for start in (0, 1, 150, 199, 200):
        assert sent(made, start) == entries(200 - start, start)
    assert len(made._recent) < 2000
    path.write_bytes(entries(260))
    assert sent(made, 40) == entries(220, 40)


ANEW = {
    "another boot": lambda path: NEXT_BOOT,
    "another file": lambda path: (
        path.with_name("new").write_bytes(entries(3, 10)),
        path.with_name("new").rename(path),
    ),
    "a shorter list": lambda path: path.write_bytes(entries(3, 10)),
}


@pytest.mark.parametrize("name", ANEW)
def test_another_list_is_begun_anew(file: Path, name: str) -> None:
    made = Logs(None, file)
    sent(made)
    boot = ANEW[name](file)  # type: ignore[no-untyped-call]
    if name == "another boot":
        file.write_bytes(entries(8, 20))  # longer than what was read: only the boot tells
        assert sent(made, boot=boot) == entries(8, 20)
    else:
        assert sent(made) == entries(3, 10)


def test_a_host_without_a_list(tmp_path: Path) -> None:
    for made in (Logs(None, None), Logs(None, tmp_path / "none"), Logs(None, Path("/dev/null/list"))):
        assert made.ima(BOOT) is None
        assert made.count() is None


def test_a_list_that_goes_away(file: Path) -> None:
    made = Logs(None, file)
    sent(made)
    file.unlink()
    assert made.ima(BOOT) is None
    assert made.count() is None


NO_LIST = {
    "ascii": b"10 " + b"0" * 40 + b" ima-ng sha256:00 boot_aggregate\n",
    "a template name of nothing": struct.pack("<I20sI", 10, bytes(20), 0) + bytes(40),
    "an endless entry": entry("/a")[:34] + struct.pack("<I", 1 << 31) + bytes(3 << 20),
    "a template name without end": struct.pack("<I20sI", 10, bytes(20), 1 << 20) + bytes(40),
}


@pytest.mark.parametrize("name", NO_LIST)
def test_what_is_no_list_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "list"
    path.write_bytes(entries(2) + NO_LIST[name] if name != "ascii" else NO_LIST[name] * 30)
    made = Logs(None, path)
    with pytest.raises(DeviceError, match=r"agent\.ima\.list"):
        made.ima(BOOT)


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"agent\.ima\.list"):
        Logs(None, tmp_path).ima(BOOT)


def test_a_list_that_becomes_shorter_while_it_is_sent_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_KEPT", 0)
    monkeypatch.setattr(logs, "_CHUNK", 10)
    made = Logs(None, file)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: b"" if made._offsets[-1] >= 400 else pread(fd, size, at))
    with pytest.raises(DeviceError, match="shorter"):
        made.ima(BOOT)

    def broken(_descriptor: int, _size: int, _offset: int) -> bytes:
        raise OSError("no device")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(DeviceError, match="no device"):
        logs._read(0, 0, 1)


@pytest.mark.parametrize("bound", ["MAX_IMA", "MAX_ENTRIES"])
def test_more_than_can_be_sent_is_told_and_the_rest_can_be(
    file: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    home = evidence if bound == "MAX_IMA" else logs
    monkeypatch.setattr(home, bound, {"MAX_IMA": len(entries(4)), "MAX_ENTRIES": 4}[bound])
    made = Logs(None, file)
    with pytest.raises(DeviceError, match=r"agent\.ima\.size"):
        made.ima(BOOT)
    assert sent(made, 1) == entries(4, 1)


def test_a_hundred_thousand_entries(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(entries(1) + entry("/usr/bin/1") * 99_999)
    made = Logs(None, path)
    assert read_binary(sent(made)).count == 100_000
    assert len(made._recent) <= 2 << 20
    assert sent(made, 100_000) == b""


def test_many_ask_at_once(file: Path) -> None:
    made, found = Logs(None, file), []
    threads = [
        threading.Thread(target=lambda start=start: found.append((start, sent(made, start)))) for start in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(start, entries(5 - start, start)) for start in range(6)]


def test_the_file_is_let_go(file: Path) -> None:
    made = Logs(None, file)
    sent(made)
    before = len(list(Path("/proc/self/fd").iterdir()))
    made.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


EVENT_LOGS = {
    "there": (b"log", None, b"log"),
    "known to the verifier": (b"log", hashlib.sha256(b"log").digest(), None),
    "another than it knows": (b"log", hashlib.sha256(b"old").digest(), b"log"),
    "empty": (b"", None, None),
    "too long to be sent": (bytes((1 << 20) + 1), None, None),
    "not there": (None, None, None),
}


@pytest.mark.parametrize("name", EVENT_LOGS)
def test_the_event_log_is_sent_where_it_can_be(tmp_path: Path, name: str) -> None:
    data, known, wanted = EVENT_LOGS[name]
    path = tmp_path / "log"
    if data is not None:
        path.write_bytes(data)
    assert Logs(path, None).event_log(known) == wanted
    assert Logs(None, None).event_log(known) is None


# --- the watch --------------------------------------------------------------------------------------------------------


class Hurries:
    """Counts, and a clock that somebody moves."""

    def __init__(self) -> None:
        self.count, self.now = 0, 10 * SECOND

    def __call__(self) -> None:
        self.count += 1

    def clock(self) -> int:
        return self.now


def test_growth_hurries_a_renewal_and_is_no_drift(file: Path) -> None:
    made, hurries = Logs(None, file), Hurries()
    sent(made)
    look = ima_look(made, hurries, hurries.clock)
    look()
    assert hurries.count == 0
    file.write_bytes(entries(6))
    look()
    look()
    assert hurries.count == 1


def test_growth_without_end_hurries_no_more_often_than_every_two_seconds(file: Path) -> None:
    made, hurries = Logs(None, file), Hurries()
    sent(made)
    look = ima_look(made, hurries, hurries.clock)
    for number in range(40):
        file.write_bytes(entries(6 + number))
        look()
        hurries.now += SECOND // 4
    assert hurries.count == 5


def test_nobody_hurries_for_a_list_that_nobody_asked_for(file: Path) -> None:
    made, hurries = Logs(None, file), Hurries()
    look = ima_look(made, hurries, hurries.clock)
    file.write_bytes(entries(6))
    look()
    assert (made.count(), hurries.count) == (None, 0)


def test_a_list_that_cannot_be_read_any_more_is_left_to_the_lease(file: Path) -> None:
    made, hurries = Logs(None, file), Hurries()
    sent(made)
    look = ima_look(made, hurries, hurries.clock)
    file.write_bytes(bytes(1000))
    look()
    assert hurries.count == 0
