"""How a large policy gets to the service: by a file in the verifier's own directory, named by its SHA-256.

An IMA policy of a whole distribution has tens of megabytes, which is no message. The command leaves it here and tells
the service its digest; the service takes it away, and takes nothing but bytes with that digest. The directory is of
the service's user, mode 0700, so whoever can leave something is that user or root, as with the administration socket.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from attestation.errors import Untrusted
from attestation.tpm.ima.policy import ImaPolicy

DIRECTORY = "incoming"


def leave(home: Path, data: bytes) -> str:
    """Leave ``data`` for the service whose directory is ``home``; its name, the SHA-256 in hexadecimal."""
    directory, name = home / DIRECTORY, hashlib.sha256(data).hexdigest()
    is_new = _make(directory)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if is_new:
            _give(folder, home)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            _give(handle, home)
    finally:
        os.close(folder)
    return name


def _make(directory: Path) -> bool:
    """Make the directory; whether it was not there."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _give(handle: int, home: Path) -> None:
    """Let what was just made belong to whom ``home`` belongs to: root alone can, and has to."""
    if os.geteuid() == 0:
        owner = home.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)


def take(home: Path, digest: bytes) -> bytes:
    """Take what was left under this digest. Raises ``Untrusted("ref.spool")`` where it is not there, or other bytes."""
    path = home / DIRECTORY / digest.hex()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            data = file.read(ImaPolicy.MAX_SIZE + 1)
    except OSError as error:
        raise Untrusted("ref.spool", str(error)) from error
    finally:
        forget(home, digest.hex())
    if hashlib.sha256(data).digest() != digest:
        raise Untrusted("ref.spool", f"{path} has other bytes than its name says")
    return data


def forget(home: Path, name: str) -> None:
    """Remove what was left under ``name``, if it is still there."""
    with suppress(OSError):
        (home / DIRECTORY / name).unlink()
