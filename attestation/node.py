"""NodeRecord: what the verifier learnt about a host at enrolment. The only source of its keys.

An attestation key is believed only from here, never from evidence. ``clock`` is the last counter state that was
accepted; a drop means that the TPM was cleared and the host must be enrolled again.
"""

from attestation.errors import Malformed
from attestation.tpm.clock import ClockInfo
from attestation.wire import Wire, label, wire

STATES = ("pending", "active", "quarantined", "retired")


@wire
class ClockRecord(Wire):
    """TPMS_CLOCK_INFO as last accepted (TPM 2.0 Part 2, 10.11.1): milliseconds, reset and restart counts."""

    clock: int = label(1)
    resets: int = label(2, high=2**32 - 1)
    restarts: int = label(3, high=2**32 - 1)
    safe: bool = label(4)

    @property
    def info(self) -> ClockInfo:
        """The same as the TPM tells it."""
        return ClockInfo(self.clock, self.resets, self.restarts, self.safe)


@wire
class NodeRecord(Wire):
    """One enrolled host. Publics are TPMT_PUBLIC, ``ek_digest`` SHA-256 of the EK as SubjectPublicKeyInfo.

    ``gpus`` are the identities of the GPUs and switches that belong to this TPM (:mod:`attestation.gpu.device`), where
    the operator has pinned them. ``policy`` is the verifier's policy key (SPKI) that the holder key obeys, ``None``
    for a plain holder key.
    """

    name: str = label(1, most=128)
    pool: str = label(2, most=128)
    state: str = label(3, most=16)
    ek_digest: bytes = label(4, size=32)
    ek_certificate: bytes = label(5, most=8192)
    ek_public: bytes = label(6, most=1024)
    ak_public: bytes = label(7, most=1024)
    holder_public: bytes = label(8, most=1024)
    firmware: int = label(9, high=2**64 - 1)
    anchor: str = label(10, most=128)
    assurance: str = label(11, most=16)
    enrolled: int = label(12)
    clock: ClockRecord | None = label(13, default=None)
    gpus: tuple[str, ...] | None = label(14, most=512, ordered=True, default=None)
    policy: bytes | None = label(15, most=512, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown state."""
        if self.state not in STATES:
            raise Malformed("node.state", f"{self.state!r} is not one of {', '.join(STATES)}")


@wire
class Submitter(Wire):
    """A person or scheduler who may sign intents: public key (SPKI DER), tenant, roles, state ``active|disabled``."""

    spki: bytes = label(1, most=256)
    tenant: str = label(2, most=128)
    roles: tuple[str, ...] = label(3, most=64, ordered=True)
    state: str = label(4, most=16)
    name: str = label(5, most=128)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown state."""
        if self.state not in ("active", "disabled"):
            raise Malformed("submitter.state", f"{self.state!r} is neither active nor disabled")
