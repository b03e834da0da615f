"""What a host keeps of its enrolment: its name, the verifier's pinned keys, and the holder key's blob.

One file, ``node.cbor``, mode 0600 in a directory of mode 0700, replaced whole and durably or not at all. Losing it
means enrolling again; a copy on another host is worth nothing, because only this TPM can load the blob.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

from attestation.cose import PublicKey
from attestation.enrol import VerifierKeys
from attestation.errors import Malformed, Untrusted
from attestation.wire import Wire, label, wire

FILE: Final = "node.cbor"


@wire
class Enrolment(Wire):
    """This host as a node. ``certificate`` is the verifier's TLS certificate, DER, the only one that is accepted."""

    node: str = label(1, most=128)
    pool: str = label(2, most=128)
    url: str = label(3, most=512)
    certificate: bytes = label(4, most=8192)
    keys: VerifierKeys = label(5)
    holder_public: bytes = label(6, most=1024)
    holder_blob: bytes = label(7, most=4096)

    @property
    def grant_key(self) -> PublicKey:
        """The pinned key that signs grants and leases."""
        return PublicKey.from_spki(self.keys.grant)

    @property
    def policy_key(self) -> PublicKey:
        """The pinned key that signs TPM policies."""
        return PublicKey.from_spki(self.keys.policy)

    @property
    def log_key(self) -> PublicKey:
        """The pinned key that signs receipts."""
        return PublicKey.from_spki(self.keys.log)


class State:
    """The agent's directory; made with mode 0700 where it does not exist."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise Untrusted("agent.state", f"{path} must be a directory of mode 0700 that belongs to the agent")
        self.path = path

    @cached_property
    def jobs(self) -> Path:
        """Where code is staged and outputs are kept."""
        path = self.path / "jobs"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def load(self) -> Enrolment:
        """The enrolment. Raises ``Untrusted("agent.enrolment")`` where the host is not enrolled."""
        try:
            return Enrolment.from_bytes((self.path / FILE).read_bytes())
        except FileNotFoundError as error:
            raise Untrusted("agent.enrolment", "this host is not enrolled") from error
        except Malformed as error:
            raise Untrusted("agent.enrolment", f"{self.path / FILE} is damaged: {error}") from error

    def save(self, enrolment: Enrolment) -> None:
        """Replace the enrolment, durably."""
        write_private(self.path / FILE, enrolment.to_bytes())


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 whole and durably, in place of what was there."""
    partial = path.with_name(f".{path.name}.partial")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the lock on the state directory. Raises ``Untrusted("agent.running")`` where an agent does."""
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Untrusted("agent.running", f"another agent uses {state}") from error
        yield
    finally:
        os.close(descriptor)
