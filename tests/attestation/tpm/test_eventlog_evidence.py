"""Genuine boot event logs: format, banks, PCRs, images and oddities are those that ``manifest.json`` states.

Beside the manifest stand the findings that each log leads to (``FINDINGS``), so that a change in what is believed of
genuine firmware shows here.
"""

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from attestation.errors import InterlockError, Untrusted
from attestation.tpm.boot.facts import BootState
from attestation.tpm.boot.findings import HARMLESS
from attestation.tpm.boot.state import boot_state
from attestation.tpm.eventlog import SIZES, EventLog, banks, is_ccel, prove, read_event_log, replay
from attestation.tpm.ima.replay import boot_aggregates
from tests import vectors
from tests.attestation.tpm.logs import cpu_seconds

SHA1, SHA256, SHA384 = 0x4, 0xB, 0xC
BANKS = {"sha1": SHA1, "sha256": SHA256, "sha384": SHA384, "sha512": 0xD}
FORMATS = {"crypto-agile": "crypto-agile", "tcg1.2-sha1": "sha1"}
LOGS = "evidence/tpm/eventlogs/"

REFUSED = {
    "specid-vendordata.bin": "tpm.log.spec-id",
    "inline-specid-invalid-version.bin": "tpm.log.spec-id",
    "keylime-bogus.bin": "tpm.log.size",
    "keylime-empty.bin": "tpm.log.empty",
    "ccel-cos-113.table.bin": "tpm.log.spec-id",
}
EARLY, EXIT = "tpm.boot.application-early", "tpm.boot.exit-missing"
MISSING, VERSION = "tpm.boot.separator-missing", "tpm.boot.version-unproven"
FINDINGS: dict[str, set[str]] = {
    "rhel8-uefi.bin": set(),
    "ubuntu-1804-amd-sev.bin": set(),
    "ubuntu-2104-no-dbx.bin": set(),
    "arch-linux-workstation.bin": {EXIT},
    "cos-85-amd-sev.bin": set(),
    "cos-93-amd-sev.bin": set(),
    "debian-10.bin": {EXIT},
    "gdc-host.bin": {VERSION, EARLY},
    "eventlogwithsp800155.bin": set(),
    "glinux-alex.bin": {"tpm.boot.separator-type", VERSION, EXIT},
    "crypto_agile_eventlog": {EXIT},
    "coreos_36_shielded_vm_no_secure_boot_eventlog": set(),
    "sb_cert_eventlog": {MISSING, EXIT},
    "ebs_event_missing_eventlog": {EXIT},
    "linux_tpm12.log": {"tpm.boot.variable-unnamed", "tpm.boot.unexplained"},
    "event-bootorder.bin": set(),
    "event-postcode.bin": {EXIT},
    "event-uefi-sha1-log.bin": {EXIT},
    "event-sd-boot-fedora37.bin": set(),
    "event-uefivar.bin": {MISSING, EXIT},
    "event-uefiaction.bin": {MISSING, EXIT},
    "event-uefiservices.bin": {MISSING, EXIT},
    "event.bin": {MISSING, EXIT},
    "keylime-mb-nosecureboot.bin": {VERSION, EARLY, EXIT},
    "rust-keylime-uefi_log.bin": set(),
    "keylime-tests-mb_log_secureboot.bin": set(),
    "tcglog-parser-binary_bios_measurements": {"tpm.boot.mode-late", EXIT},
    "intel-ta-binary_bios_measurements20": set(),
    "ccel-cos-113-intel-tdx.bin": set(),
    "ccel-ovmf.bin": set(),
    "ima-evm-utils-test.bios": {EXIT},
}
"""What is more than harmless in each log."""

NOT_IN_THE_LOG = {"gdc-host.bin"}

FACTS: dict[str, dict[str, list[str]]] = {
    "rhel8-uefi.bin": {
        "secure-boot": ["on"],
        "setup-mode": ["off"],
        "crtm-version": ["GCE Virtual Firmware v1"],
        "platform": ["gce none"],
        "dbx": ["3 certificates, 183 hashes, 0 others"],
        "exit-boot-services": ["success"],
    },
    "ubuntu-1804-amd-sev.bin": {
        "platform": ["gce amd-sev"],
        "command-line": ["/boot/vmlinuz-5.4.0-1046-gcp root=LABEL=cloudimg-rootfs ro console=ttyS0"],
    },
    "ubuntu-2104-no-dbx.bin": {
        "secure-boot": ["off"],
        "dbx": ["0 certificates, 0 hashes, 0 others"],
        "sbat-level": ["2021030218"],
    },
    "arch-linux-workstation.bin": {"secure-boot": ["off"]},
    "gdc-host.bin": {"dma-protection": ["disabled"], "deployed-mode": ["on"], "audit-mode": ["off"]},
    "intel-ta-binary_bios_measurements20": {
        "dma-protection": ["disabled"],
        "crtm-version": ["U46 v1.56 (11/29/2021)"],
        "sbat-level": ["2022052400"],
    },
    "coreos_36_shielded_vm_no_secure_boot_eventlog": {"mok-trusted": ["on"]},
    "event-sd-boot-fedora37.bin": {"command-line": [" console=ttyS0 console=tty0 efi=debug "] * 2},
    "event-bootorder.bin": {"setup-mode": ["on"]},
    "linux_tpm12.log": {"crtm-version": ["N1FET43W "]},
    "ccel-cos-113-intel-tdx.bin": {"secure-boot": ["off"], "sbat-level": ["2021030218"]},
}


def load(name: str) -> bytes:
    return vectors.path(LOGS + name).read_bytes()


def entry(name: str) -> dict[str, Any]:
    manifest = json.loads(vectors.path("evidence/tpm/manifest.json").read_text(encoding="utf-8"))
    return next(found for found in manifest if found["file"] == f"eventlogs/{name}")


def looked_at(name: str) -> tuple[EventLog, BootState]:
    data = load(name)
    log = read_event_log(data, ccel=is_ccel(data))
    bank = SHA256 if SHA256 in banks(log) else banks(log)[-1]
    return log, boot_state(log, bank, replay(log, bank).keys())


def test_every_log_is_in_a_table() -> None:
    manifest = json.loads(vectors.path("evidence/tpm/manifest.json").read_text(encoding="utf-8"))
    names = {Path(found["file"]).name for found in manifest if found["kind"] == "eventlogs"}
    assert names == REFUSED.keys() | FINDINGS.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data = load(name)
    with pytest.raises(InterlockError) as caught:
        read_event_log(data, ccel="ccel" in name)
    assert caught.value.reason == REFUSED[name]


@pytest.mark.parametrize("name", FINDINGS)
def test_parses_and_replays(name: str) -> None:
    expected = entry(name)["expected"]
    data = load(name)
    log = read_event_log(data, ccel=is_ccel(data))
    assert log.format == FORMATS[expected["format"]]
    assert list(log.algs) == expected["algs"]
    assert len(log.events) == expected["events"]
    assert (log.startup_locality, log.padding) == (expected["startup_locality"], expected["padding"])
    replayed = {
        bank: {str(pcr): value.hex() for pcr, value in replay(log, alg).items()}
        for bank, alg in BANKS.items()
        if alg in banks(log)
    }
    assert replayed == expected["replayed_pcrs"]
    for bank, known in expected.get("known_pcrs", {}).items():
        proof = prove(log, BANKS[bank], {int(pcr): bytes.fromhex(value) for pcr, value in known.items()})
        assert proof.pcrs == set(map(int, known))


@pytest.mark.parametrize("name", FINDINGS)
def test_what_is_concluded(name: str) -> None:
    _, state = looked_at(name)
    assert {finding.name for finding in state.findings if finding.verdict != HARMLESS} == FINDINGS[name]
    for fact, values in FACTS.get(name, {}).items():
        assert [found.value for found in state.all(fact)] == values


@pytest.mark.parametrize("name", sorted(FINDINGS.keys() - NOT_IN_THE_LOG))
def test_applications(name: str) -> None:
    data = load(name)
    log = read_event_log(data, ccel=is_ccel(data))
    for bank, stated in (entry(name)["expected"].get("efi_app_digests") or {}).items():
        state = boot_state(log, BANKS[bank], replay(log, BANKS[bank]).keys())
        assert [found.value for found in state.all("application")] == stated


def test_applications_that_the_manifest_takes_from_elsewhere() -> None:
    """The digests stated for this log are those of no event of it: nothing to compare with."""
    for name in NOT_IN_THE_LOG:
        stated = entry(name)["expected"]["efi_app_digests"]["sha256"]
        assert not any(bytes.fromhex(digest) in load(name) for digest in stated)


KINDS = {"SEPARATOR": 0x4, "S_CRTM_VERSION": 0x8, "VAR_DRIVER_CONFIG": 0x80000001, "GPT": 0x80000006, "IPL": 0xD}
KINDS |= {"VAR_BOOT": 0x80000002, "VAR_AUTHORITY": 0x800000E0, "BSA": 0x80000003, "POST_CODE": 0x1, "TAG": 0x6}


@pytest.mark.parametrize("name", FINDINGS)
def test_digests_that_are_of_the_data(name: str) -> None:
    data = load(name)
    log = read_event_log(data, ccel=is_ccel(data))
    bank = SHA256 if SHA256 in banks(log) else banks(log)[-1]
    hashes = {alg: bank_name for bank_name, alg in BANKS.items()}
    for kind, stated in (entry(name)["expected"]["digest_equals_hash_of_event_data"] or {}).items():
        if kind in KINDS:
            events = [event for event in log.events if event.type == KINDS[kind]]
            equal = sum(hashlib.new(hashes[bank], event.data).digest() == event.digests[bank] for event in events)
            assert f"{equal}/{len(events)}" == stated, kind


def test_events_that_firmware_measured_and_forgot_to_log() -> None:
    log = read_event_log(load("ebs_event_missing_eventlog"))
    true = bytes.fromhex("31245808d6d35849bc394f6343f2b3ff908ed5e3")
    with pytest.raises(Untrusted, match=r"^tpm\.log\.mismatch: PCR 5"):
        prove(log, SHA1, {5: true})
    assert prove(log, SHA1, {5: true}, assume_exit=True).exit_assumed


@pytest.mark.parametrize("name", ["rhel8-uefi.bin", "gdc-host.bin", "debian-10.bin", "ccel-cos-113-intel-tdx.bin"])
def test_cropped_logs_parse_and_prove_less(name: str) -> None:
    """Cut between events, a log parses; the registers whose last events are gone are not explained any more."""
    data = load(name)
    whole = read_event_log(data, ccel=is_ccel(data))
    bank = banks(whole)[-1]
    quoted = replay(whole, bank)
    for event in whole.events[:: max(1, len(whole.events) // 12)]:
        if event.number == 0:
            continue
        cropped = read_event_log(data[: event.offset], ccel=is_ccel(data))
        assert len(cropped.events) == event.number
        boot_state(cropped, bank, replay(cropped, bank).keys())
        with pytest.raises(Untrusted, match=r"^tpm\.log\.mismatch: PCR "):
            prove(cropped, bank, quoted)


def test_a_boot_of_our_own_is_proven_by_its_quotes() -> None:
    captured = json.loads(vectors.path("evidence/tpm/vm/qemu-debian12-linux6.1.json").read_text(encoding="utf-8"))
    log = read_event_log(base64.b64decode(captured["log"]))
    for bank in ("sha256", "sha384"):
        quoted = {int(pcr): bytes.fromhex(value) for pcr, value in captured[bank]["pcrs"].items()}
        proof = prove(log, BANKS[bank], quoted)
        assert proof.pcrs == frozenset(quoted) - {10}
        state = boot_state(log, BANKS[bank], proof.pcrs)
        assert {finding.name for finding in state.findings} == {"tpm.boot.separator-ones"}
        assert len(state.all("driver")) == 3


def test_the_quotes_of_a_cloud_machine_are_explained_by_its_log() -> None:
    """The event log of the protobuf message is its longest field that begins like one; the PCRs are found in it too."""
    data = vectors.path("evidence/tpm/quotes/gce-cos-85-no-nonce.pb").read_bytes()
    start = data.index(struct.pack("<II", 0, 3) + bytes(20))
    size, shift = 0, 0
    for position in range(start - 3, start):
        size |= (data[position] & 0x7F) << shift
        shift += 7
    log = read_event_log(data[start : start + size])
    assert len(log.algs) == 3
    for alg in banks(log):
        for pcr, value in replay(log, alg).items():
            assert value in data, f"PCR {pcr}"


def test_the_registers_of_a_tdx_quote_are_explained_by_its_log() -> None:
    quote = vectors.path("evidence/tpm/tdx/cos-113-tdx-quote.dat").read_bytes()
    log = read_event_log(load("ccel-cos-113-intel-tdx.bin"), ccel=True)
    body = 48 + 328  # TDX quote version 4: header, then the report body up to RTMR0
    registers = {n + 1: quote[body + 48 * n : body + 48 * (n + 1)] for n in range(3)}
    assert prove(log, SHA384, registers).pcrs == {1, 2, 3}


def test_the_boot_aggregate_of_a_genuine_list_is_of_its_boot() -> None:
    log = read_event_log(load("ima-evm-utils-test.bios"))
    first = vectors.path("evidence/tpm/ima/ima-evm-utils-test.ascii").read_text(encoding="utf-8").splitlines()[0]
    alg, digest = next(word for word in first.split() if ":" in word).split(":")
    for bank in (BANKS[alg], SHA1):
        values = {**dict.fromkeys(range(10), bytes(SIZES[bank])), **replay(log, bank)}
        genuine = (alg.encode(), bytes.fromhex(digest)) in boot_aggregates({bank: values})
        assert genuine == (bank == BANKS[alg])


def test_a_large_log_is_read_in_milliseconds() -> None:
    data = load("gdc-host.bin")

    def look() -> None:
        log = read_event_log(data)
        boot_state(log, SHA256, replay(log, SHA256).keys())

    assert cpu_seconds(look) < 0.01
