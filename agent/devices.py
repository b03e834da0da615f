"""The hardware that the agent speaks to, as protocols. Real devices and stand-ins implement the same ones.

Everything raises `DeviceError` when the device does not do what it should: the caller fails closed. Nothing here
judges; bytes are handed on as the device wrote them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from attestation.cose import PublicKey
from attestation.tpm.clock import ClockInfo
from attestation.tpm.structures import Public


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
    """The holder key: TPMT_PUBLIC, and the blob from which this TPM (and no other) makes the same key again."""

    public: bytes
    blob: bytes


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

    def create_holder(self) -> HolderKey:
        """A new holder key, in place of the present one. The caller keeps the blob (mode 0600) for `load_holder`."""
        ...

    def load_holder(self, blob: bytes) -> HolderKey:
        """Make the holder key of an earlier `create_holder` the present one."""
        ...

    def certify_holder(self, qualifying: bytes) -> Attested:
        """TPM2_Certify of the holder key by the attestation key."""
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

    def sign_as_holder(self, digest: bytes) -> bytes:
        """ECDSA by the holder key over a SHA-256 digest: r || s, 64 bytes."""
        ...

    def clock(self) -> ClockInfo:
        """TPM2_ReadClock. Not signed: for the agent's own use, never evidence."""
        ...

    def close(self) -> None:
        """Give the device back: keys and sessions are flushed. Calls afterwards raise DeviceError."""
        ...


class TpmSigner:
    """The holder key as a COSE signer (`attestation.cose.Signer`); `public` is the TPMT_PUBLIC of the present one."""

    def __init__(self, tpm: Tpm, public: bytes) -> None:
        self._tpm = tpm
        self._public = Public.from_bytes(public).key

    @property
    def public(self) -> PublicKey:
        """The holder key."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """ES256 over `message`: r || s. Raises DeviceError."""
        return self._tpm.sign_as_holder(hashlib.sha256(message).digest())


class Gpu(Protocol):
    """One GPU that can attest. Its evidence comes with the GPU part; until then only its identity is asked for."""

    @property
    def uuid(self) -> str:
        """The identity that the driver gives it."""
        ...

    def report(self, nonce: bytes) -> bytes:
        """An attestation report that covers the 32-byte `nonce`, as the device wrote it."""
        ...

    def certificates(self) -> Sequence[bytes]:
        """The device's certificate chain, DER, device first."""
        ...
