"""A submitter's signing key: an unencrypted PEM file that only its owner can read."""

import os
import stat
from pathlib import Path
from typing import Final

from attestation.cose import ES256, SoftwareSigner
from attestation.errors import Malformed, Untrusted

DEFAULT: Final = Path("~/.config/interlock/submitter.pem")
_MAX_PEM: Final = 16384


def create(path: Path) -> SoftwareSigner:
    """Make a new P-256 key at ``path``, mode 0600. Raises ``Untrusted("key.exists")`` where something is there."""
    signer = SoftwareSigner.generate(ES256)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise Untrusted("key.exists", f"{path} is there already; it is never overwritten") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(signer.to_pem())
    return signer


def load(path: Path) -> SoftwareSigner:
    """Read the key at ``path``. Raises ``Untrusted("key.file")`` where others could have read or replaced it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Untrusted("key.file", f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise Untrusted("key.file", f"{path} must be a file of mode 0600 that belongs to you")
        data = file.read(_MAX_PEM + 1)
    if len(data) > _MAX_PEM:
        raise Malformed("key.encoding", f"{path} is too long for a key")
    return SoftwareSigner.from_pem(data)
