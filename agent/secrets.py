"""The released secrets of one job: sealed as they came, and in memory files while the job may read them.

A secret is opened by the TPM under the job's own lease, right before the job starts, and again before it is thawed.
What the TPM gives out is overwritten as soon as it is in its memory file. The deadman empties the files when the job is
frozen or has ended (agent.deadman, rule 6); so does the agent, at the latest with the end of this context.
"""

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from agent import memory
from agent.devices import Approved, Tpm
from attestation.errors import Untrusted
from attestation.tpm.sealing import SealedSecret


class Secrets:
    """A context: on leaving, nothing can be filled any more, and all files are empty and closed."""

    def __init__(self, tpm: Tpm, sealed: Mapping[str, SealedSecret]) -> None:
        self._tpm, self._sealed = tpm, dict(sorted(sealed.items()))
        self._lock = threading.Lock()
        self.files: Mapping[str, int] = {name: memory.make(name) for name in self._sealed}

    def fill(self, approved: Approved | None) -> None:
        """Open all under the lease that is ``approved``, or none.

        Raises ``DeviceError`` where the TPM refuses, ``Untrusted("secret.lease")`` without a lease that it enforces.
        """
        with self._lock:
            if not self.files:
                return
            if approved is None:
                raise Untrusted("secret.lease", "the TPM does not enforce this lease")
            values = self._tpm.unseal(list(self._sealed.values()), approved)
            try:
                for descriptor, value in zip(self.files.values(), values, strict=True):
                    memory.fill(descriptor, value)
            finally:
                for value in values:
                    value[:] = bytes(len(value))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            files, self.files = self.files, {}
            for descriptor in files.values():
                memory.empty(descriptor)
                os.close(descriptor)
