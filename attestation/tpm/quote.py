"""TPM2_Quote: what the PCRs of one TPM were when it answered one question.

`verify_quote` is the numbered list below; the comments in its body are the same list. Source: TCG TPM 2.0 Library,
Part 2, 10.12 (structures), Part 3, 18.4 (TPM2_Quote), rev 1.59; TCG PC Client Platform TPM Profile, 4.6 (PCRs).

 (1) the attestation parses with nothing left over                          tpm.attest.*
 (2) its magic says that the TPM made it                                    tpm.quote.magic
 (3) it is a quote, not another attestation                                 tpm.quote.type
 (4) the signature parses; scheme and hash are those of the key             tpm.signature.*, tpm.quote.scheme
 (5) the signature is by the attestation key over the bytes received        tpm.quote.signature
 (6) qualifiedSigner is the Qualified Name of the attestation key           tpm.quote.signer
 (7) extraData is exactly the qualifying data (constant time)               tpm.quote.nonce
 (8) PCRs were asked for and the signed selection is not empty              tpm.pcr.empty
 (9) one selection, of three octets, of exactly the PCRs asked for          tpm.pcr.selection
(10) none of them can be reset without a reboot (16 to 23)                  tpm.pcr.resettable
(11) the bank is the one asked for, and is SHA-256 or SHA-384               tpm.pcr.bank
(12) values were supplied for exactly the signed PCRs                       tpm.pcr.uncovered
(13) each value has the length of its bank and all of them hash to the signed digest (SHA-256/384 of the *signing
     scheme*, not of the bank)                                              tpm.pcr.digest

Absent on purpose: clock and firmware are returned, not judged (they need the history of the node: `clock`); what the
values should be is a matter of reference values, not of the quote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest

from attestation.errors import Untrusted
from attestation.tpm.attest import Attest, PcrSelection, QuoteInfo
from attestation.tpm.clock import ClockInfo
from attestation.tpm.identity import Ak
from attestation.tpm.structures import ALG_SHA256, ALG_SHA384, Codes, Signature, digest, verify_signature

CODES = Codes(
    magic="tpm.quote.magic",
    type="tpm.quote.type",
    scheme="tpm.quote.scheme",
    signature="tpm.quote.signature",
    signer="tpm.quote.signer",
)

BANK_SIZES = {ALG_SHA256: 32, ALG_SHA384: 48}
RESETTABLE = range(16, 24)


@dataclass(frozen=True, slots=True)
class Quote:
    """A verified quote. `attest` and `signature` are the bytes received; `pcrs` are proven values of `bank`."""

    attest: bytes
    signature: bytes
    ak_name: bytes
    qualifying: bytes
    bank: int
    pcrs: Mapping[int, bytes]
    clock: ClockInfo
    firmware: int


def verify_quote(
    attest: bytes,
    signature: bytes,
    *,
    ak: Ak,
    qualifying: bytes,
    bank: int,
    pcrs: Sequence[int],
    values: Mapping[int, bytes],
) -> Quote:
    """Return what the TPM that holds `ak` says about its PCRs, or raise with the reason of the first failed check.

    `attest`, `signature`: TPMS_ATTEST and TPMT_SIGNATURE as the TPM wrote them; `qualifying`: the bytes that the
    quote must commit to; `bank`: TPM_ALG_ID; `pcrs`: indexes that must have been quoted, rising; `values`: the
    values claimed for them. Raises Malformed or Untrusted as listed in this module's docstring.
    """
    parsed = Attest.from_bytes(attest, QuoteInfo, CODES)  # (1) (2) (3)
    verify_signature(ak.key, ak.scheme, Signature.from_bytes(signature, CODES), attest, CODES)  # (4) (5)
    if parsed.qualified_signer != ak.qualified_name:  # (6)
        raise Untrusted(CODES.signer, "qualifiedSigner is not the Qualified Name of the enrolled attestation key")
    if not compare_digest(parsed.extra_data, qualifying):  # (7)
        raise Untrusted("tpm.quote.nonce", "extraData is not the qualifying data of this request")
    _check_selection(parsed.info.selections, bank, pcrs)  # (8) (9) (10) (11)
    if set(values) != set(pcrs):  # (12)
        raise Untrusted("tpm.pcr.uncovered", f"values for PCRs {sorted(values)}, quoted are {list(pcrs)}")
    _check_values(parsed.info.pcr_digest, ak.scheme.hash, [values[pcr] for pcr in pcrs], BANK_SIZES[bank])  # (13)
    return Quote(
        attest=attest,
        signature=signature,
        ak_name=ak.name,
        qualifying=qualifying,
        bank=bank,
        pcrs=dict(values),
        clock=parsed.clock,
        firmware=parsed.firmware,
    )


def _check_selection(signed: tuple[PcrSelection, ...], bank: int, pcrs: Sequence[int]) -> None:
    """Checks (8) to (11): the signed selection is the one that was asked for, and worth asking for."""
    if not pcrs or not any(any(selection.bitmap) for selection in signed):  # (8)
        raise Untrusted("tpm.pcr.empty", "no PCR is covered")
    if len(signed) != 1 or len(signed[0].bitmap) != 3 or signed[0].pcrs != tuple(pcrs):  # (9)
        covered = [(selection.bank, selection.pcrs) for selection in signed]
        raise Untrusted("tpm.pcr.selection", f"quoted are {covered}, asked for {list(pcrs)}")
    if any(pcr in RESETTABLE for pcr in pcrs):  # (10)
        raise Untrusted("tpm.pcr.resettable", "PCRs 16 to 23 can be reset while the system runs")
    if signed[0].bank != bank or bank not in BANK_SIZES:  # (11)
        raise Untrusted("tpm.pcr.bank", f"bank 0x{signed[0].bank:04x} quoted, 0x{bank:04x} asked for")


def _check_values(signed: bytes, alg: int, values: list[bytes], size: int) -> None:
    """Check (13). The lengths matter: without them bytes could move from one PCR to its neighbour."""
    if any(len(value) != size for value in values):
        raise Untrusted("tpm.pcr.digest", f"a value is not {size} bytes long")
    if not compare_digest(digest(alg, b"".join(values)), signed):
        raise Untrusted("tpm.pcr.digest", "the values do not hash to the signed digest")
