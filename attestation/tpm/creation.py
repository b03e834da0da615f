"""TPMS_CREATION_DATA: where a TPM made a key, as TPM2_CertifyCreation covers it by its hash. Format only.

Source: TCG TPM 2.0 Library, Part 2, 15.1, rev 1.59; Part 3, 18.3 (TPM2_CertifyCreation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from attestation.errors import Malformed
from attestation.reader import Reader
from attestation.tpm.attest import PcrSelection
from attestation.tpm.structures import ALG_NULL, sized


@dataclass(frozen=True, slots=True)
class CreationData:
    """TPMS_CREATION_DATA (15.1).

    | pcrSelect           | TPML_PCR_SELECTION | PCRs that the caller wanted covered           |
    | pcrDigest           | TPM2B_DIGEST       |                                               |
    | locality            | TPMA_LOCALITY      |                                               |
    | parentNameAlg       | TPM_ALG_ID         | TPM_ALG_NULL where the parent is a hierarchy  |
    | parentName          | TPM2B_NAME         | its handle then                               |
    | parentQualifiedName | TPM2B_NAME         |                                               |
    | outsideInfo         | TPM2B_DATA         |                                               |
    """

    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes
    locality: int
    parent_alg: int
    parent: bytes
    parent_qualified: bytes
    outside: bytes

    @classmethod
    def of_primary(cls, hierarchy: int) -> Self:
        """That of a primary key of `hierarchy`, made at locality 0 without PCRs and outside information."""
        handle = hierarchy.to_bytes(4, "big")
        return cls((), b"", 1, ALG_NULL, handle, handle, b"")

    @classmethod
    def from_bytes(cls, data: bytes) -> CreationData:
        """Raises Malformed("tpm.creation..."). Remembered: a host sends the same one with every quote."""
        return _read(data)

    def to_bytes(self) -> bytes:
        """The structure, written field by field."""
        return (
            len(self.selections).to_bytes(4, "big")
            + b"".join(selection.to_bytes() for selection in self.selections)
            + sized(self.pcr_digest)
            + self.locality.to_bytes(1, "big")
            + self.parent_alg.to_bytes(2, "big")
            + sized(self.parent)
            + sized(self.parent_qualified)
            + sized(self.outside)
        )

    def is_primary_of(self, hierarchy: int) -> bool:
        """Whether the key is a primary key of `hierarchy` (Part 2, 15.1: no parent but its handle)."""
        return (self.parent_alg, self.parent) == (ALG_NULL, hierarchy.to_bytes(4, "big"))


@lru_cache(maxsize=4096)
def _read(data: bytes) -> CreationData:
    reader = Reader(data, "tpm.creation")
    count = reader.u32()
    if count > 16:
        raise Malformed("tpm.creation.value", f"{count} PCR selections")
    selections = tuple(PcrSelection.read(reader) for _ in range(count))
    made = CreationData(
        selections,
        reader.sized16(),
        reader.u8(),
        reader.u16(),
        reader.sized16(),
        reader.sized16(),
        reader.sized16(),
    )
    reader.done()
    return made
