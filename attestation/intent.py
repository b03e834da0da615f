"""Intent: what a submitter asks to run, signed by the submitter.

A COSE_Sign1 of type ``application/interlock-intent+cose``. The identity of an intent is the SHA-256 of its payload,
never of the token: ECDSA signatures are malleable. Fields and labels: docs/formats.md, "Intent".

The agent reads an intent (:func:`read_intent`) to learn what to collect and stage, without believing it; only the
verifier, which knows the submitters, verifies it (:func:`verify_intent`).
"""

import hashlib
import re
from collections.abc import Mapping

from attestation.cose import PublicKey, Signer, UntrustedSign1, read_sign1, sign1, verify_sign1
from attestation.errors import Malformed
from attestation.wire import Wire, label, wire

TYP = "application/interlock-intent+cose"
MAX_SIZE = 65536
LIFETIME_SECONDS = 86_400
"""How long after it was signed an intent can start a job: who finds an old one cannot use it."""
AHEAD_SECONDS = 3600
"""How far the clock of the submitter may be ahead of the verifier's."""
MOST_SECRETS = 16
"""How many secrets one job can ask for: each is unsealed by the host's TPM while nothing else uses it."""
_SECRET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a secret can be called (:mod:`verifier.secrets`). Who writes name=value by mistake has signed no value so."""
GPU_MODES = ("none", "spt", "mpt", "ppcie")


@wire
class GpuRequest(Wire):
    """GPUs wanted: how many, in which confidential-computing mode, and megabytes of memory on each."""

    count: int = label(1, high=64)
    mode: str = label(2)
    memory_mb: int = label(3)

    def check(self) -> None:
        """Raise ``Malformed`` for a mode that is not one of :data:`GPU_MODES`."""
        if self.mode not in GPU_MODES:
            raise Malformed("intent.gpus", f"mode {self.mode!r} is not one of {', '.join(GPU_MODES)}")


@wire
class Limits(Wire):
    """Upper bounds of a run: seconds, megabytes of memory, processes, lease renewals."""

    seconds: int = label(1, low=1, high=31_536_000)
    memory_mb: int = label(2, low=1)
    processes: int = label(3, low=1, high=1_000_000)
    renewals: int = label(4, high=10_000_000)

    def within(self, other: "Limits") -> bool:
        """Whether no bound of these limits exceeds the same bound of ``other``."""
        return (
            self.seconds <= other.seconds
            and self.memory_mb <= other.memory_mb
            and self.processes <= other.processes
            and self.renewals <= other.renewals
        )


@wire
class Children(Wire):
    """Jobs that this job may ask for in turn: how deep, and how many."""

    depth: int = label(1, high=16)
    count: int = label(2, high=4096)


@wire
class Intent(Wire):
    """The request of one run. Digests are SHA-256, 32 bytes; ``environment_variables`` holds digests of the values."""

    job: str = label(1, most=128)
    tenant: str = label(2, most=128)
    code: bytes = label(3, size=32)
    argv: tuple[str, ...] = label(4, most=8192)
    environment: bytes = label(5, size=32)
    environment_variables: Mapping[str, bytes] = label(6, size=32, most=256)
    inputs: Mapping[str, bytes] = label(7, size=32, most=256)
    outputs: tuple[str, ...] = label(8, most=256, ordered=True)
    gpus: GpuRequest = label(9)
    limits: Limits = label(10)
    secrets: tuple[str, ...] = label(11, most=64, ordered=True)
    children: Children = label(12)
    parent: bytes | None = label(13, size=16, default=None)
    nonce: bytes = label(14, size=32)
    issued: int = label(15)

    def check(self) -> None:
        """Raise ``Malformed``: no job name, no command, too many secrets, a name that cannot be shown as it is, or that
        is no secret's; that one is not echoed.
        """
        if not self.job or not self.argv:
            raise Malformed("intent.empty", "an intent names a job and at least one argument")
        names = (self.job, self.tenant, *self.inputs, *self.outputs, *self.secrets, *self.environment_variables)
        if len(self.secrets) > MOST_SECRETS:
            raise Malformed("intent.many-secrets", f"{len(self.secrets)} secrets, at most {MOST_SECRETS}")
        for name in names:
            if not name.isprintable():
                raise Malformed("intent.name", f"{name!r} has characters that cannot be printed")
        if not all(map(_SECRET.fullmatch, self.secrets)):
            raise Malformed("secret.name", "asked for by a name that no secret can have")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload: what grants, quotes and records refer to."""
        return hashlib.sha256(self.to_bytes()).digest()


def sign_intent(intent: Intent, signer: Signer) -> bytes:
    """The signed intent, a COSE_Sign1 token."""
    return sign1(signer, typ=TYP, payload=intent.to_bytes())


def read_intent(token: bytes) -> tuple[Intent, UntrustedSign1]:
    """Read an intent *without believing it*: the format is checked, the signature is not. Raises ``Malformed``."""
    unverified = read_sign1(token, typ=TYP, max_size=MAX_SIZE)
    return Intent.from_bytes(unverified.unverified_payload or b""), unverified


def verify_intent(token: bytes, key: PublicKey) -> Intent:
    """The intent, proven to be signed by ``key``. Raises ``Malformed`` or ``Untrusted``."""
    signed = verify_sign1(token, key, typ=TYP, max_size=MAX_SIZE)
    return Intent.from_bytes(signed.payload)
