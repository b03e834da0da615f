"""Collecting evidence: what is sent is what was quoted, and nothing is sent that did not hold still."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from agent.collect import Collector
from agent.devices import Attested, DeviceError, GpuInfo, Gpus
from agent.holder import Holder
from agent.logs import Logs
from agent.workload import Workloads
from attestation.challenge import Challenge
from attestation.evidence import HOST, TPM, Evidence, HostRecord, TpmRecord, gpu_nonce, qualifying_data, read_evidence
from attestation.gpu.record import GPU_TYPE, SWITCH_TYPE, GpuRecord
from attestation.gpu.report import Report
from attestation.progress import boot_of
from attestation.tpm.attest import Attest, NvCertifyInfo, QuoteInfo
from attestation.tpm.identity import verify_ak
from attestation.tpm.quote import CODES, verify_quote
from attestation.tpm.structures import ALG_SHA256, Public
from attestation.workload import CODES as WORKLOAD_CODES
from attestation.workload import WorkloadEntry, replay
from fixtures.attester import SoftTpm
from fixtures.gpu.host import MockHost
from tests.agent.driver import SoftGpus
from tests.agent.test_logs import entries, entry
from tests.verifier.hall import CA

INTENT = b"i" * 32
CHALLENGE = Challenge(expires_in=30, bank=ALG_SHA256, audience="v", pcrs=(0, 4, 7), issued=1, nonce=b"n" * 32)
LIST, BOOT = entries(5), boot_of(1, 0)


def collected(
    tpm: SoftTpm, logs: Logs | None = None, grant: bytes | None = None, challenge: Challenge = CHALLENGE
) -> tuple[Evidence, TpmRecord]:
    collector = Collector(tpm, Holder(tpm, tpm.create_holder()), logs=logs)
    evidence, _ = read_evidence(collector.answer(challenge, INTENT, grant))
    return evidence, TpmRecord.from_bytes(evidence.collection[TPM].value)


def test_the_quote_covers_what_is_sent() -> None:
    tpm = SoftTpm(CA)
    tpm.extend(4, bytes(32))
    collector = Collector(tpm, Holder(tpm, tpm.create_holder()))
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


def test_the_measured_jobs_are_certified_over_what_the_quote_commits_to(tmp_path: Path) -> None:
    tpm = SoftTpm(CA)
    workloads = Workloads(tpm, tmp_path / "workload.cbor")
    collector = Collector(tpm, Holder(tpm, tpm.create_holder()), workloads=workloads)

    def shown(grant: bytes | None) -> TpmRecord:
        evidence, _ = read_evidence(collector.answer(CHALLENGE, INTENT, grant))
        return TpmRecord.from_bytes(evidence.collection[TPM].value)

    assert shown(None).workload is None
    job = WorkloadEntry(b"g" * 16, bytes(32), bytes(32))
    workloads.measure(job)
    record = shown(job.grant)
    assert record.workload is not None
    quote = Attest.from_bytes(record.quote, QuoteInfo, CODES)
    certified = Attest.from_bytes(record.workload.attest, NvCertifyInfo, WORKLOAD_CODES)
    assert certified.extra_data == quote.extra_data
    assert certified.info.contents == replay([job])
    assert record.workload.entries == job.to_bytes()


# --- logs -------------------------------------------------------------------------------------------------------------

KNOWN = hashlib.sha256(b"log").digest()
WANTED: dict[str, tuple[dict[str, Any], tuple[bytes | None, bytes | None, int | None]]] = {
    "nothing": ({}, (None, None, None)),
    "both": ({"wants": ("event-log", "ima")}, (b"log", LIST, 0)),
    "the event log, which is known": ({"wants": ("event-log",), "known_log": KNOWN}, (None, None, None)),
    "the event log, another is known": ({"wants": ("event-log",), "known_log": bytes(32)}, (b"log", None, None)),
    "entries from a number on": ({"wants": ("ima",), "ima_boot": BOOT, "ima_next": 3}, (None, entries(2, 3), 3)),
    "entries, none of them new": ({"wants": ("ima",), "ima_boot": BOOT, "ima_next": 5}, (None, b"", 5)),
    "entries of another boot": ({"wants": ("ima",), "ima_boot": bytes(8), "ima_next": 3}, (None, LIST, 0)),
}


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    (tmp_path / "log").write_bytes(b"log")
    (tmp_path / "list").write_bytes(LIST)
    return Logs(tmp_path / "log", tmp_path / "list")


@pytest.mark.parametrize("name", WANTED)
def test_what_is_wanted_is_sent_and_quoted(logs: Logs, name: str) -> None:
    changes, wanted = WANTED[name]
    tpm, challenge = SoftTpm(CA), replace(CHALLENGE, **changes)
    evidence, record = collected(tpm, logs, challenge=challenge)
    assert (record.event_log, record.ima, record.ima_start) == wanted
    assert Attest.from_bytes(record.quote, QuoteInfo, CODES).extra_data == qualifying_data(
        nonce=CHALLENGE.nonce,
        intent=INTENT,
        holder=Public.from_bytes(record.holder_public).key.thumbprint,
        gpus=(),
        logs=wanted[:2],
    )
    assert evidence.nonce == CHALLENGE.nonce


def test_a_host_without_logs_says_nothing_of_them() -> None:
    _, record = collected(SoftTpm(CA), challenge=replace(CHALLENGE, wants=("event-log", "ima")))
    assert (record.event_log, record.ima, record.ima_start) == (None, None, None)


class Measuring(SoftTpm):
    """Something is measured right before each of the first ``times`` quotes: into the list, then into PCR 10."""

    times = 1
    file: Path

    @override
    def quote(self, qualifying: bytes, bank: int, pcrs: Sequence[int]) -> Attested:
        if self.times:
            self.times -= 1
            with self.file.open("ab") as more:
                more.write(entry(f"/late/{self.times}"))
            self.extend(10, bytes([self.times]) * 32)
        return super().quote(qualifying, bank, pcrs)


def test_what_is_measured_while_evidence_is_collected_is_in_the_list_that_is_sent(logs: Logs, tmp_path: Path) -> None:
    tpm = Measuring(CA)
    tpm.times, tpm.file = 2, tmp_path / "list"
    _, record = collected(tpm, logs, challenge=replace(CHALLENGE, pcrs=(0, 10), wants=("ima",)))
    assert record.ima == LIST + entry("/late/1") + entry("/late/0")
    assert record.pcrs[10] == tpm.pcrs[ALG_SHA256][10]


class Nonsense(SoftTpm):
    """A TPM whose quotes are none."""

    @override
    def quote(self, qualifying: bytes, bank: int, pcrs: Sequence[int]) -> Attested:
        return Attested(b"nonsense", b"")


def test_a_quote_that_is_none_is_a_failure_of_the_device() -> None:
    with pytest.raises(DeviceError, match=r"tpm\.device\.unexpected"):
        collected(Nonsense(CA))


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


# --- GPUs -------------------------------------------------------------------------------------------------------------


class Speechless(SoftGpus):
    """Devices that sign, and a driver that then does not say how they are called."""

    @override
    def devices(self) -> tuple[GpuInfo, ...]:
        raise DeviceError("gpu.nvml.refused", "NVML error 15")


def with_gpus(gpus: Gpus | None, wanted: int = 1, grant: bytes | None = None) -> tuple[Evidence, dict[str, str]]:
    """Evidence of a host with these GPUs, and what it says of itself. The quote covers what is sent."""
    tpm = SoftTpm(CA)
    collector = Collector(tpm, Holder(tpm, tpm.create_holder()), gpus=gpus)
    evidence, _ = read_evidence(collector.answer(CHALLENGE, INTENT, grant, wanted))
    record = TpmRecord.from_bytes(evidence.collection[TPM].value)
    holder, records = collector.holder.public.thumbprint, evidence.gpu_records()
    verify_quote(
        record.quote,
        record.signature,
        ak=verify_ak(tpm.create_ak().public),
        qualifying=qualifying_data(
            nonce=CHALLENGE.nonce, intent=INTENT, holder=holder, gpus=records, logs=(None, None)
        ),
        bank=ALG_SHA256,
        pcrs=CHALLENGE.pcrs,
        values=record.pcrs,
    )
    nonce = gpu_nonce(nonce=CHALLENGE.nonce, ak_name=tpm.create_ak().name, intent=INTENT)
    for _, cmw in records:
        kind = {GPU_TYPE: "gpu", SWITCH_TYPE: "switch"}[cmw.type]
        assert Report.from_bytes(GpuRecord.from_bytes(cmw.value).report, kind=kind).nonce == nonce
    return evidence, dict(HostRecord.from_bytes(evidence.collection[HOST].value).facts)


def test_every_gpu_and_switch_is_sent_and_quoted() -> None:
    host = MockHost.new(gpus=8, switches=4)
    evidence, facts = with_gpus(SoftGpus(host))
    names = [*(f"gpu{i}" for i in range(8)), *(f"switch{i}" for i in range(4))]
    assert [name for name, _ in evidence.gpu_records()] == names
    assert sorted(evidence.collection) == sorted([TPM, HOST, *names])
    for name, device in zip(names, host.devices, strict=True):
        assert GpuRecord.from_bytes(evidence.collection[name].value).chain == device.chain
    assert facts["gpus"] == "cc on, 8 GPUs"
    assert facts["gpu_state"] == "environment 0, feature 0, devtools 0, multi-gpu 1"


def test_gpus_are_left_alone_where_none_is_wanted() -> None:
    gpus = SoftGpus(MockHost.new(gpus=1))
    gpus.error = DeviceError("gpu.nvml.refused", "must not be asked")
    evidence, facts = with_gpus(gpus, wanted=0)
    assert (evidence.gpu_records(), gpus.nonces) == ((), [])
    assert "gpus" not in facts


@pytest.mark.parametrize("grant", [None, b"g" * 16], ids=["request", "renewal"])
def test_a_host_without_gpus_that_attest_says_so(grant: bytes | None) -> None:
    host = MockHost.new(gpus=2)
    host.confidential(on=False)
    for gpus, said in ((SoftGpus(host), "cc off"), (SoftGpus(MockHost.new(gpus=0)), "none"), (None, "none")):
        evidence, facts = with_gpus(gpus, grant=grant)
        assert (evidence.gpu_records(), facts["gpus"]) == ((), said)


@pytest.mark.parametrize("grant", [None, b"g" * 16], ids=["request", "renewal"])
def test_evidence_is_not_lost_for_want_of_a_description(grant: bytes | None) -> None:
    evidence, facts = with_gpus(Speechless(MockHost.new(gpus=2)), grant=grant)
    assert len(evidence.gpu_records()) == 2
    assert facts["gpus"] == "failed: gpu.nvml.refused: NVML error 15"


def test_gpus_that_fail_at_a_request_are_told_to_the_verifier() -> None:
    gpus = SoftGpus(MockHost.new(gpus=1))
    gpus.error = DeviceError("gpu.nvml.refused", f"NVML error 999: {'x' * 600}")
    evidence, facts = with_gpus(gpus)
    assert evidence.gpu_records() == ()
    assert facts["gpus"].startswith("failed: gpu.nvml.refused: NVML error 999: xxx")
    assert len(facts["gpus"]) == 512


def test_gpus_that_fail_at_a_renewal_are_asked_again() -> None:
    gpus = SoftGpus(MockHost.new(gpus=1))
    gpus.error = DeviceError("gpu.nvml.timeout", "no answer within 10 s")
    with pytest.raises(DeviceError) as refused:
        with_gpus(gpus, grant=b"g" * 16)
    assert refused.value is gpus.error
