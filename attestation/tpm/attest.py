"""TPMS_ATTEST and its bodies, exactly as they are signed. Format only: nothing in here is believed yet.

Source: TCG TPM 2.0 Library, Part 2 "Structures", rev 1.59; the section stands above each parser. Every type obeys
`X.from_bytes(b).to_bytes() == b` or raises `Malformed`; the signed bytes are kept in `Attest.raw` and are what a
signature is checked over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from attestation.errors import Malformed, Untrusted
from attestation.reader import Reader
from attestation.tpm.clock import ClockInfo
from attestation.tpm.structures import GENERATED, ST_CERTIFY, ST_CREATION, ST_NV, ST_QUOTE, Codes, sized


class Info(Protocol):
    """The part of TPMS_ATTEST that depends on its type (TPMU_ATTEST, 10.12.11)."""

    TYPE: ClassVar[int]

    @classmethod
    def read(cls, reader: Reader) -> Self: ...

    def to_bytes(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """TPMS_PCR_SELECTION (10.6.2).

    | hash         | TPMI_ALG_HASH       | the bank               |
    | sizeofSelect | UINT8               | octets that follow     |
    | pcrSelect    | BYTE [sizeofSelect] | bit n%8 of octet n//8 is PCR n |
    """

    bank: int
    bitmap: bytes

    @classmethod
    def of(cls, bank: int, pcrs: tuple[int, ...]) -> Self:
        """The selection that a PC Client TPM answers for these PCR indexes (three octets)."""
        bits = sum(1 << pcr for pcr in set(pcrs))
        return cls(bank, bits.to_bytes(3, "little"))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u16(), reader.take(reader.u8()))

    def to_bytes(self) -> bytes:
        return self.bank.to_bytes(2, "big") + len(self.bitmap).to_bytes(1, "big") + self.bitmap

    @property
    def pcrs(self) -> tuple[int, ...]:
        """Selected indexes, rising: the order in which their values are hashed."""
        bits = int.from_bytes(self.bitmap, "little")
        return tuple(n for n in range(bits.bit_length()) if bits >> n & 1)


@dataclass(frozen=True, slots=True)
class QuoteInfo:
    """TPMS_QUOTE_INFO (10.12.4).

    | pcrSelect | TPML_PCR_SELECTION | UINT32 count, at most 16, and the selections |
    | pcrDigest | TPM2B_DIGEST       | hash of the selected values, by the signing scheme's hash |
    """

    TYPE: ClassVar[int] = ST_QUOTE
    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        count = reader.u32()
        if count > 16:
            raise Malformed("tpm.attest.value", f"{count} PCR selections")
        return cls(tuple(PcrSelection.read(reader) for _ in range(count)), reader.sized16())

    def to_bytes(self) -> bytes:
        body = b"".join(selection.to_bytes() for selection in self.selections)
        return len(self.selections).to_bytes(4, "big") + body + sized(self.pcr_digest)


@dataclass(frozen=True, slots=True)
class CertifyInfo:
    """TPMS_CERTIFY_INFO (10.12.3).

    | name          | TPM2B_NAME | Name of the certified object           |
    | qualifiedName | TPM2B_NAME | its Qualified Name                     |
    """

    TYPE: ClassVar[int] = ST_CERTIFY
    name: bytes
    qualified_name: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.sized16(), reader.sized16())

    def to_bytes(self) -> bytes:
        return sized(self.name) + sized(self.qualified_name)


@dataclass(frozen=True, slots=True)
class CreationInfo:
    """TPMS_CREATION_INFO (10.12.7).

    | objectName   | TPM2B_NAME   | Name of the created object             |
    | creationHash | TPM2B_DIGEST | hash of its TPMS_CREATION_DATA         |
    """

    TYPE: ClassVar[int] = ST_CREATION
    name: bytes
    creation_hash: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.sized16(), reader.sized16())

    def to_bytes(self) -> bytes:
        return sized(self.name) + sized(self.creation_hash)


@dataclass(frozen=True, slots=True)
class NvCertifyInfo:
    """TPMS_NV_CERTIFY_INFO (10.12.8).

    | indexName  | TPM2B_NAME          | Name of the NV index                |
    | offset     | UINT16              | where in its data the contents begin |
    | nvContents | TPM2B_MAX_NV_BUFFER |                                     |
    """

    TYPE: ClassVar[int] = ST_NV
    name: bytes
    offset: int
    contents: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.sized16(), reader.u16(), reader.sized16())

    def to_bytes(self) -> bytes:
        return sized(self.name) + self.offset.to_bytes(2, "big") + sized(self.contents)


I = TypeVar("I", bound=Info)  # noqa: E741 - the TPM calls it info


@dataclass(frozen=True, slots=True)
class Attest(Generic[I]):
    """TPMS_ATTEST (10.12.12), with the bytes that were signed.

    | magic           | TPM_GENERATED   | 0xFF544347: made by the TPM, not by a caller |
    | type            | TPMI_ST_ATTEST  | selects the body                             |
    | qualifiedSigner | TPM2B_NAME      | Qualified Name of the signing key            |
    | extraData       | TPM2B_DATA      | what the caller asked to be covered          |
    | clockInfo       | TPMS_CLOCK_INFO |                                              |
    | firmwareVersion | UINT64          | obfuscated outside the endorsement hierarchy |
    | [type]attested  | TPMU_ATTEST     | `info`                                       |
    """

    raw: bytes
    qualified_signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware: int
    info: I

    @classmethod
    def from_bytes(cls, data: bytes, info: type[I], codes: Codes) -> Attest[I]:
        """Read `data` as the attestation whose body is `info`.

        Raises Malformed("tpm.attest..."), Untrusted(codes.magic) where the TPM did not make the structure, and
        Untrusted(codes.type) where it is an attestation of something else.
        """
        reader = Reader(data, "tpm.attest")
        magic = reader.u32()
        if magic != GENERATED:
            raise Untrusted(codes.magic, f"magic is 0x{magic:08x}, not TPM_GENERATED_VALUE")
        kind = reader.u16()
        if kind != info.TYPE:
            raise Untrusted(codes.type, f"attestation type is 0x{kind:04x}, not 0x{info.TYPE:04x}")
        signer, extra = reader.sized16(), reader.sized16()
        clock = ClockInfo.read(reader)
        attest = Attest(data, signer, extra, clock, reader.u64(), info.read(reader))
        reader.done()
        return attest

    def to_bytes(self) -> bytes:
        """The structure written field by field; equal to `raw`, which is what a signature covers."""
        return (
            GENERATED.to_bytes(4, "big")
            + self.info.TYPE.to_bytes(2, "big")
            + sized(self.qualified_signer)
            + sized(self.extra_data)
            + self.clock.to_bytes()
            + self.firmware.to_bytes(8, "big")
            + self.info.to_bytes()
        )
