"""What a host keeps of its enrolment, and a submitter's key file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import keyfile
from agent.state import FILE, Enrolment, State
from attestation.cose import EDDSA, ES256, SoftwareSigner
from attestation.enrol import VerifierKeys
from attestation.errors import InterlockError, Untrusted

KEYS = VerifierKeys(
    issuer="i",
    origin="o",
    tls=SoftwareSigner.generate(ES256).public.spki,
    grant=SoftwareSigner.generate(ES256).public.spki,
    log=SoftwareSigner.generate(EDDSA).public.spki,
    policy=SoftwareSigner.generate(ES256).public.spki,
)
ENROLMENT = Enrolment(
    node="n", pool="p", url="https://v", certificate=b"c", keys=KEYS, holder_public=b"h", holder_blob=b"b"
)


def test_an_enrolment_is_kept(tmp_path: Path) -> None:
    state = State(tmp_path / "agent")
    state.save(ENROLMENT)
    assert state.load() == ENROLMENT
    assert (state.path / FILE).stat().st_mode & 0o777 == 0o600
    assert state.path.stat().st_mode & 0o777 == 0o700
    assert state.jobs.stat().st_mode & 0o777 == 0o700


def test_an_enrolment_is_replaced_whole(tmp_path: Path) -> None:
    state = State(tmp_path / "agent")
    (state.path / f".{FILE}.partial").write_bytes(b"left behind by a crash")
    state.save(ENROLMENT)
    state.save(ENROLMENT)
    assert [path.name for path in state.path.iterdir()] == [FILE]


@pytest.mark.parametrize("data", [None, b"", b"\xff", ENROLMENT.to_bytes()[:-1]])
def test_a_missing_or_damaged_enrolment_is_refused(tmp_path: Path, data: bytes | None) -> None:
    state = State(tmp_path / "agent")
    if data is not None:
        (state.path / FILE).write_bytes(data)
    with pytest.raises(Untrusted) as refused:
        state.load()
    assert refused.value.reason == "agent.enrolment"


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o755, 0o777])
def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(Untrusted) as refused:
        State(tmp_path)
    assert refused.value.reason == "agent.state"


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(Untrusted) as refused:
        State(tmp_path / "link")
    assert refused.value.reason == "agent.state"


# --- a submitter's key ------------------------------------------------------------------------------------------------


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    signer = keyfile.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfile.load(path).public == signer.public
    with pytest.raises(Untrusted) as refused:
        keyfile.create(path)
    assert refused.value.reason == "key.exists"


def spoil_mode(path: Path) -> None:
    path.chmod(0o640)


def spoil_owner(path: Path) -> None:
    os.chown(path, 12345, 12345)


def spoil_text(path: Path) -> None:
    path.write_text("not a key")


def spoil_size(path: Path) -> None:
    path.write_bytes(bytes(20000))


def spoil_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def spoil_kind(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


SPOILED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "readable by others": ("key.file", spoil_mode),
    "of another user": ("key.file", spoil_owner),
    "no key": ("key.encoding", spoil_text),
    "too long": ("key.encoding", spoil_size),
    "a link": ("key.file", spoil_link),
    "a fifo": ("key.file", spoil_kind),
    "not there": ("key.file", lambda path: path.unlink()),
}


@pytest.mark.root
@pytest.mark.parametrize("name", SPOILED)
def test_a_key_file_that_cannot_be_trusted_is_refused(tmp_path: Path, name: str) -> None:
    reason, spoil = SPOILED[name]
    path = tmp_path / "key.pem"
    keyfile.create(path)
    spoil(path)
    with pytest.raises(InterlockError) as refused:
        keyfile.load(path)
    assert refused.value.reason == reason
