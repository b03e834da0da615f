"""Collecting evidence: what is sent is what was quoted, and nothing is sent that did not hold still."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typing_extensions import override

from agent.collect import Collector
from agent.devices import DeviceError
from attestation.challenge import Challenge
from attestation.evidence import HOST, TPM, Evidence, HostRecord, TpmRecord, qualifying_data, read_evidence
from attestation.tpm.identity import verify_ak
from attestation.tpm.quote import verify_quote
from attestation.tpm.structures import ALG_SHA256
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA

INTENT = b"i" * 32
CHALLENGE = Challenge(expires_in=30, bank=ALG_SHA256, audience="v", pcrs=(0, 4, 7), issued=1, nonce=b"n" * 32)


def collected(tpm: SoftTpm, log: Path | None = None, grant: bytes | None = None) -> tuple[Evidence, TpmRecord]:
    collector = Collector(tpm, tpm.create_holder().public, event_log=log)
    evidence, _ = read_evidence(collector.answer(CHALLENGE, INTENT, grant))
    return evidence, TpmRecord.from_bytes(evidence.collection[TPM].value)


def test_the_quote_covers_what_is_sent() -> None:
    tpm = SoftTpm(CA)
    tpm.extend(4, bytes(32))
    collector = Collector(tpm, tpm.create_holder().public, event_log=None)
    evidence, _ = read_evidence(collector.answer(CHALLENGE, INTENT))
    record = TpmRecord.from_bytes(evidence.collection[TPM].value)
    qualifying = qualifying_data(
        nonce=CHALLENGE.nonce, intent=INTENT, holder=collector.holder.public.thumbprint, gpus=(), logs=(None, None)
    )
    verify_quote(
        record.quote,
        record.signature,
        ak=verify_ak(tpm.create_ak().public),
        qualifying=qualifying,
        bank=ALG_SHA256,
        pcrs=CHALLENGE.pcrs,
        values=record.pcrs,
    )
    assert (evidence.nonce, evidence.intent, evidence.grant) == (CHALLENGE.nonce, INTENT, None)
    assert HostRecord.from_bytes(evidence.collection[HOST].value).facts["kernel"]


def test_a_renewal_names_its_grant() -> None:
    evidence, _ = collected(SoftTpm(CA), grant=b"g" * 16)
    assert evidence.grant == b"g" * 16


LOGS = {
    "there": (b"log", b"log"),
    "empty": (b"", None),
    "too long to be sent": (bytes((1 << 20) + 1), None),
    "not there": (None, None),
}


@pytest.mark.parametrize("name", LOGS)
def test_the_event_log_is_sent_where_it_can_be(tmp_path: Path, name: str) -> None:
    data, sent = LOGS[name]
    path = tmp_path / "log"
    if data is not None:
        path.write_bytes(data)
    assert collected(SoftTpm(CA), path)[1].event_log == sent


class Restless(SoftTpm):
    """PCR 4 changes at each of the first ``times`` quotes."""

    times = 0

    @override
    def read_pcrs(self, bank: int, pcrs: Sequence[int]) -> Mapping[int, bytes]:
        values = dict(super().read_pcrs(bank, pcrs))
        if self.times:
            self.times -= 1
            self.extend(4, bytes(32))
        return values


@pytest.mark.parametrize("times", [1, 2])
def test_a_pcr_that_changes_is_quoted_again(times: int) -> None:
    tpm = Restless(CA)
    tpm.times = times
    _, record = collected(tpm)
    assert record.pcrs[4] == tpm.pcrs[ALG_SHA256][4]


def test_a_pcr_that_never_stands_still_is_no_evidence() -> None:
    tpm = Restless(CA)
    tpm.times = 100
    with pytest.raises(DeviceError) as refused:
        collected(tpm)
    assert refused.value.reason == "tpm.device.unsteady"
