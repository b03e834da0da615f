"""One software TPM for the tests of this folder, and the question that they all ask it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from attestation.tpm.attest import PcrSelection, QuoteInfo
from attestation.tpm.identity import Ak, verify_ak
from attestation.tpm.quote import Quote, verify_quote
from attestation.tpm.structures import ALG_SHA256, digest
from fixtures.attester import SoftTpm
from fixtures.ca import TestCa

CA = TestCa("stand")
TPM = SoftTpm(CA)
AT = datetime(2026, 11, 1, tzinfo=UTC)
NONCE = bytes(range(32))
PCRS = (0, 1, 2, 7)
VALUES = {pcr: bytes([pcr]) * 32 for pcr in PCRS}
for _pcr, _value in VALUES.items():
    TPM.pcrs[ALG_SHA256][_pcr] = _value


def ak() -> Ak:
    return verify_ak(TPM.create_ak().public)


def quote_body(
    *,
    bank: int = ALG_SHA256,
    pcrs: tuple[int, ...] = PCRS,
    values: Mapping[int, bytes] = VALUES,
    selections: tuple[PcrSelection, ...] | None = None,
    pcr_digest: bytes | None = None,
) -> bytes:
    """TPMS_QUOTE_INFO; every part can be another one."""
    if pcr_digest is None:
        pcr_digest = digest(ALG_SHA256, b"".join(values[pcr] for pcr in pcrs))
    return QuoteInfo(selections or (PcrSelection.of(bank, pcrs),), pcr_digest).to_bytes()


def check(
    attest: bytes,
    signature: bytes,
    *,
    key: Ak | None = None,
    qualifying: bytes = NONCE,
    bank: int = ALG_SHA256,
    pcrs: Sequence[int] = PCRS,
    values: Mapping[int, bytes] = VALUES,
) -> Quote:
    return verify_quote(attest, signature, ak=key or ak(), qualifying=qualifying, bank=bank, pcrs=pcrs, values=values)
