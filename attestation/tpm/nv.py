"""TPMS_NV_PUBLIC and the index that the workload of a host is measured into. Format only: nothing is believed yet.

Source: TCG TPM 2.0 Library, Part 2 "Structures", rev 1.59, 13.2 to 13.6; Part 1, 16 (Names) and 37 (NV memory).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from attestation.reader import Reader
from attestation.tpm.structures import ALG_SHA256, digest, sized

# TPMA_NV (13.4), TPM_NT (13.2)
OWNER_WRITE, POLICY_DELETE, OWNER_READ, AUTH_READ = 1 << 1, 1 << 10, 1 << 17, 1 << 18
NO_DA, ORDERLY, CLEAR_STCLEAR, WRITTEN = 1 << 25, 1 << 26, 1 << 27, 1 << 29
NT_EXTEND = 4 << 4

ATTRIBUTE_NAMES = {
    OWNER_WRITE: "ownerWrite",
    POLICY_DELETE: "policyDelete",
    OWNER_READ: "ownerRead",
    AUTH_READ: "authRead",
    NO_DA: "noDA",
    ORDERLY: "orderly",
    CLEAR_STCLEAR: "clearSTClear",
    WRITTEN: "written",
}


@dataclass(frozen=True, slots=True)
class NvPublic:
    """TPMS_NV_PUBLIC (13.5).

    | nvIndex    | TPMI_RH_NV_INDEX | the handle                                    |
    | nameAlg    | TPMI_ALG_HASH    | the hash of the Name, and of an extend        |
    | attributes | TPMA_NV          |                                               |
    | authPolicy | TPM2B_DIGEST     |                                               |
    | dataSize   | UINT16           | octets of the data area                       |
    """

    index: int
    name_alg: int
    attributes: int
    policy: bytes
    size: int

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises Malformed("tpm.nv.truncated") or ("tpm.nv.trailing")."""
        reader = Reader(data, "tpm.nv")
        public = cls(reader.u32(), reader.u16(), reader.u32(), reader.sized16(), reader.u16())
        reader.done()
        return public

    def to_bytes(self) -> bytes:
        words = self.index.to_bytes(4, "big") + self.name_alg.to_bytes(2, "big") + self.attributes.to_bytes(4, "big")
        return words + sized(self.policy) + self.size.to_bytes(2, "big")

    @property
    def name(self) -> bytes:
        """The Name (Part 1, 16): nameAlg and the hash of this structure. Untrusted("tpm.hash") for other hashes."""
        return self.name_alg.to_bytes(2, "big") + digest(self.name_alg, self.to_bytes())


WORKLOAD = NvPublic(
    0x01800100,
    ALG_SHA256,
    NT_EXTEND | OWNER_WRITE | OWNER_READ | AUTH_READ | NO_DA | ORDERLY | CLEAR_STCLEAR,
    b"",
    32,
)
"""What the index is defined with: it can only be extended, and every TPM Reset and Restart empties it. It lies in the
range that is left to the owner (Registry of Reserved TPM 2.0 Handles, 2.2)."""
