"""The hardware that the agent speaks to, as protocols. Real devices and stand-ins implement the same ones.

Everything raises `DeviceError` when the device does not do what it should: the caller fails closed. Nothing here
judges; bytes are handed on as the device wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from attestation.cose import PublicKey
from attestation.tpm.clock import ClockInfo
from attestation.tpm.policy import Terms
from attestation.tpm.sealing import SealedSecret


class DeviceError(Exception):
    """A device failed or answered nonsense. `reason` is a stable code, `detail` text for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class DeviceTimeout(DeviceError):
    """A device did not answer before its deadline: it may still be busy, and what was asked may still happen."""


class Attested(NamedTuple):
    """TPMS_ATTEST and TPMT_SIGNATURE, as the TPM wrote them."""

    attest: bytes
    signature: bytes


class AkPublic(NamedTuple):
    """The attestation key: TPMT_PUBLIC and Name."""

    public: bytes
    name: bytes


class HolderKey(NamedTuple):
    """The holder key: TPMT_PUBLIC, the blob from which this TPM (and no other) makes the same key again, and the
    TPMS_CREATION_DATA that `certify_holder` covers."""

    public: bytes
    blob: bytes
    creation: bytes


class Approved(NamedTuple):
    """What a verifier's policy key `key` has approved with `signature` (r || s): terms of a lease, or of a permit."""

    terms: Terms
    signature: bytes
    key: PublicKey


class NvIndex(NamedTuple):
    """An NV index: TPMS_NV_PUBLIC, and what it holds (None: nothing was written since it was emptied)."""

    public: bytes
    contents: bytes | None


class Tpm(Protocol):
    """One TPM 2.0. Safe to call from any thread; calls are served one after another, each within a deadline."""

    def ek_certificate(self) -> bytes:
        """The EK certificate as it lies in NV, padding included."""
        ...

    def ek_chain(self) -> Sequence[bytes]:
        """The intermediates (DER) that the manufacturer left in NV beside the certificate; often none."""
        ...

    def ek_public(self) -> bytes:
        """TPMT_PUBLIC of the endorsement key that `ek_certificate` is for."""
        ...

    def create_ak(self) -> AkPublic:
        """The attestation key: a primary key of the endorsement hierarchy, the same one after every start."""
        ...

    def create_holder(self, policy: PublicKey | None = None) -> HolderKey:
        """A new holder key, in place of the present one. The caller keeps the blob (mode 0600) for `load_holder`.

        With the verifier's policy key it obeys that key's leases; without, it is a plain key.
        """
        ...

    def load_holder(self, blob: bytes) -> HolderKey:
        """Make the holder key of an earlier `create_holder` the present one."""
        ...

    def certify_holder(self, qualifying: bytes) -> Attested:
        """TPM2_CertifyCreation of the holder key by the attestation key."""
        ...

    def activate_credential(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """Open a credential made for this EK and AK (`attestation.tpm.credential`). DeviceError if it is for others."""
        ...

    def quote(self, qualifying: bytes, bank: int, pcrs: Sequence[int]) -> Attested:
        """TPM2_Quote by the attestation key over `pcrs` of `bank` (TPM_ALG_ID)."""
        ...

    def read_pcrs(self, bank: int, pcrs: Sequence[int]) -> Mapping[int, bytes]:
        """The present values. They may differ from a quote made before: compare, and ask again."""
        ...

    def sign_as_holder(self, digest: bytes, approved: Approved | None = None) -> bytes:
        """ECDSA by the holder key over a SHA-256 digest: r || s, 64 bytes.

        A plain key needs nothing else; one that obeys leases needs what the verifier has `approved`, and
        DeviceError("tpm.device.policy") says that the TPM refuses.
        """
        ...

    def unseal(self, sealed: Sequence[SealedSecret], approved: Approved) -> list[bytearray]:
        """Secrets that were sealed to this TPM, under a lease that the verifier has `approved`; to be overwritten.

        All or none: DeviceError("tpm.device.policy") where the TPM does not see that lease in force, (".refused") where
        one is another TPM's or was changed.
        """
        ...

    def workload(self) -> NvIndex | None:
        """The index that jobs are measured into (`attestation.tpm.nv.WORKLOAD`); None where there is none."""
        ...

    def define_workload(self) -> None:
        """Make that index, empty, in place of the one there is."""
        ...

    def extend_workload(self, measurement: bytes) -> None:
        """TPM2_NV_Extend of 32 bytes into it."""
        ...

    def certify_workload(self, qualifying: bytes) -> tuple[bytes, Attested] | None:
        """Its public area and TPM2_NV_Certify of all of it by the attestation key; None where it holds nothing."""
        ...

    def clock(self) -> ClockInfo:
        """TPM2_ReadClock. Not signed: for the agent's own use, never evidence."""
        ...

    def close(self) -> None:
        """Give the device back: keys and sessions are flushed. Calls afterwards raise DeviceError."""
        ...


class CcState(NamedTuple):
    """How the driver says that confidential computing is set up: NVML's numbers, which nothing attests.

    `environment` 0 unavailable, 1 simulation, 2 production; `feature` and `devtools` 0 off, 1 on; `multi_gpu` 0 none,
    1 protected PCIe, 2 NVLink encryption.
    """

    environment: int
    feature: int
    devtools: int
    multi_gpu: int

    @property
    def is_on(self) -> bool:
        """Whether there is anything to ask evidence of. Asking where there is not ends in the driver's error state."""
        return self.feature == 1 or self.multi_gpu != 0


CC_OFF = CcState(0, 0, 0, 0)
"""Also the state of a host without a GPU."""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU as the driver names it. None of this is attested: the device's certificate says who it is."""

    index: int
    uuid: str
    name: str


class DeviceEvidence(NamedTuple):
    """What one GPU or NVSwitch shows: its report and its certificate chain (PEM), as the driver handed them over.

    `name` is `gpu0`, `gpu1`, ... or `switch0`, ..., `kind` is `gpu` or `switch`.
    """

    name: str
    kind: str
    report: bytes
    chain: bytes


class Gpus(Protocol):
    """All GPUs and NVSwitches of a host. Safe to call from any thread; calls are served one after another.

    A host without GPUs, or with GPUs that cannot attest, is no error: `devices` or `evidence` is empty then. Every
    method raises DeviceError where the driver fails or does not answer in time.
    """

    def state(self) -> CcState:
        """The present state; all zeros without a GPU."""
        ...

    def driver(self) -> str:
        """The driver's version; empty without a driver."""
        ...

    def devices(self) -> tuple[GpuInfo, ...]:
        """The GPUs in the driver's order."""
        ...

    def evidence(self, nonce: bytes) -> tuple[DeviceEvidence, ...]:
        """Evidence of every GPU, and in protected PCIe mode of every switch, over the 32-byte `nonce`.

        All or nothing, and nothing where confidential computing is off: then no device is asked. ValueError for a
        nonce of another length.
        """
        ...

    def close(self) -> None:
        """Let go of the driver. Calls afterwards raise DeviceError."""
        ...
