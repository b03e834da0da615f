"""Evidence: what the host shows about itself, signed by its holder key.

A COSE_Sign1 of type ``application/interlock-evidence+cose`` whose payload holds a CMW collection (RFC 9999): one record
for the TPM, one per GPU and NVSwitch, one with facts that the host merely asserts. The TPM quote's qualifying data
commits to the challenge, the intent, the holder key, the GPU and switch records and the logs, so that none can be taken
from another session (:func:`qualifying_data`); what the host asserts is only under the holder key's signature. Labels:
docs/formats.md.

Everything here is *claimed* until :func:`attestation.appraise.appraise` has looked at it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from attestation import cbor
from attestation.cose import Signer, UntrustedSign1, read_sign1, sign1
from attestation.errors import Malformed
from attestation.parts import hash_parts
from attestation.wire import Wire, label, wire
from attestation.workload import WorkloadRecord

TYP = "application/interlock-evidence+cose"
MAX_SIZE = 32 << 20
MAX_IMA = 24 << 20
TPM = "tpm"
HOST = "host"
GPU_PREFIX, SWITCH_PREFIX = "gpu", "switch"
TPM_TYPE = "application/interlock-tpm+cbor"
HOST_TYPE = "application/interlock-host+cbor"
IND_EVIDENCE = 4
"""CMW indicator for evidence (RFC 9999, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Cmw:
    """One CMW record: ``[type, value, ind]`` (RFC 9999, section 3.1)."""

    MAX_VALUE: ClassVar[int] = 26 << 20

    type: str
    value: bytes
    ind: int = IND_EVIDENCE

    def to_value(self) -> Any:
        """The record as a CBOR array."""
        return [self.type, self.value, self.ind]

    @classmethod
    def from_value(cls, value: Any, where: str = "cmw") -> Self:
        """Read an array of exactly type, value and indicator. Raises ``Malformed``."""
        if not isinstance(value, list) or [type(item) for item in value] != [str, bytes, int]:
            raise Malformed("evidence.record", f"{where}: a CMW record is [type, value, ind]")
        if len(value[0]) > 128 or len(value[1]) > cls.MAX_VALUE or value[2] != IND_EVIDENCE:
            raise Malformed("evidence.record", f"{where}: type or value too long, or not marked as evidence")
        return cls(value[0], value[1], value[2])


@wire
class TpmRecord(Wire):
    """What one TPM shows. ``quote`` is TPMS_ATTEST, ``signature`` TPMT_SIGNATURE, both as the TPM gave them.

    ``event_log`` is the boot event log, ``ima`` the measurement list from entry ``ima_start`` on, each where the
    challenge asked for it; ``workload`` what was measured into the TPM before each job. ``creation`` is the holder
    key's TPMS_CREATION_DATA, which ``certify`` covers.
    """

    MAX_SIZE = 26 << 20

    quote: bytes = label(1, most=2048)
    signature: bytes = label(2, most=1024)
    bank: int = label(3, high=0xFFFF)
    pcrs: Mapping[int, bytes] = label(4, most=64)
    holder_public: bytes = label(5, most=1024)
    certify: bytes = label(6, most=2048)
    certify_signature: bytes = label(7, most=1024)
    event_log: bytes | None = label(8, most=1 << 20, default=None)
    ima: bytes | None = label(9, most=MAX_IMA, default=None)
    ima_start: int | None = label(10, high=1 << 48, default=None)
    workload: WorkloadRecord | None = label(11, default=None)
    creation: bytes = label(12, most=1024)


@wire
class HostRecord(Wire):
    """Facts that the host asserts and nothing proves: shown to people, never decided on."""

    facts: Mapping[str, str] = label(1, most=512)


@wire
class Evidence(Wire):
    """The payload: the challenge answered, the intent it is for, the grant it renews (if any), and the records."""

    MAX_SIZE = MAX_SIZE

    collection: Mapping[str, Cmw] = label(1, most=80)
    grant: bytes | None = label(7, size=16, default=None)
    nonce: bytes = label(10, size=32)
    intent: bytes = label(-75001, size=32)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload."""
        return hashlib.sha256(self.to_bytes()).digest()

    def gpu_records(self) -> tuple[tuple[str, Cmw], ...]:
        """The records of GPUs and of the switches between them, in name order."""
        prefixes = GPU_PREFIX, SWITCH_PREFIX
        return tuple(sorted((n, r) for n, r in self.collection.items() if n.startswith(prefixes)))


def qualifying_data(
    *,
    nonce: bytes,
    intent: bytes,
    holder: bytes,
    gpus: tuple[tuple[str, Cmw], ...],
    logs: tuple[bytes | None, ...],
) -> bytes:
    """The 32 bytes that the TPM quote must carry in extraData (docs/formats.md, "Bindings").

    ``nonce`` is the challenge's, ``intent`` the intent digest, ``holder`` the holder key's thumbprint, ``gpus`` the
    records of GPUs and switches, in name order, and ``logs`` the event log and the IMA list (``None`` where there is
    none).
    """
    gpu_bytes = cbor.encode([[name, record.to_value()] for name, record in gpus])
    log_bytes = cbor.encode(list(logs))
    digests = hashlib.sha256(gpu_bytes).digest(), hashlib.sha256(log_bytes).digest()
    return hash_parts(b"interlock/tpm/1", nonce, intent, holder, *digests)


def gpu_nonce(*, nonce: bytes, ak_name: bytes, intent: bytes) -> bytes:
    """The 32-byte nonce for every GPU and switch of the host (docs/formats.md, "Bindings")."""
    return hash_parts(b"interlock/gpu/1", nonce, ak_name, intent)


def sign_evidence(evidence: Evidence, holder: Signer) -> bytes:
    """The signed evidence, a COSE_Sign1 token."""
    return sign1(holder, typ=TYP, payload=evidence.to_bytes())


def read_evidence(token: bytes) -> tuple[Evidence, UntrustedSign1]:
    """Read evidence *without believing it*: format only. Raises ``Malformed``."""
    unverified = read_sign1(token, typ=TYP, max_size=MAX_SIZE)
    return Evidence.from_bytes(unverified.unverified_payload or b""), unverified
