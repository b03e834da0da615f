"""Taking a bundle apart into files that other people's tools read. Nothing is verified here: they verify.

======================== ============================================================================================
checkpoint.note          the checkpoint, a C2SP signed note
grant.cose, lease-N.cose the signed grant and leases, COSE_Sign1
record-N.cbor            the records, which are the leaves of the log
record-N.receipt.cose    the receipt of a record that issued nothing, COSE_Sign1, RFC 9942
archive/SHA256           every archived byte string under the digest by which records name it
quote-N.attest           TPMS_ATTEST of the evidence that record N names: what the TPM signed
quote-N.signature        TPMT_SIGNATURE over it
quote-N.ak.pem           the attestation key as the node was enrolled with it
quote-N.qualifying       what extraData must be, in hexadecimal: nonce, intent, keys and logs (docs/formats.md)
quote-N.pcrs             the PCR values one after the other, lowest index first; their hash is pcrDigest
event-log-N.bin          the boot event log that record N rests on, as the firmware wrote it
ima-N-from-M.bin         entry M and following of the kernel's measurement list, binary, in the evidence of record N
workload-N.attest        what TPM2_NV_Certify says of the jobs that were measured, with the same extraData as the quote
workload-N.signature     TPMT_SIGNATURE over it
workload-N.entries       the jobs, 80 bytes each: grant, code, environment (docs/workload.md)
gpuM-N.report            the signed SPDM report of device gpuM (or switchM) in the evidence of record N
gpuM-N.chain.pem         the certificates of the key that signed it, as the device sent them, leaf first
gpu-N.nonce              the nonce that these reports must carry, in hexadecimal
rim-N/ID.xml             the reference measurements that they were compared with, by NVIDIA's id
ocsp-N/M.der, crl-N/M.der what was said about certificates: OCSP responses and revocation lists
======================== ============================================================================================
"""

import re
from collections.abc import Iterator

from attestation.bundle import Bundle
from attestation.evidence import TPM, Evidence, TpmRecord, gpu_nonce, qualifying_data, read_evidence
from attestation.gpu.collateral import Collateral
from attestation.gpu.record import GPU_TYPE, SWITCH_TYPE, GpuRecord
from attestation.keys import PublicKey
from attestation.log import Record
from attestation.rederive import Archive, read_collateral
from attestation.tpm.structures import Public

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def extract(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file. Raises ``Malformed`` for evidence that cannot be taken apart."""
    yield "checkpoint.note", bundle.checkpoint
    if bundle.grant is not None:
        yield "grant.cose", bundle.grant
    for number, lease in enumerate(bundle.leases):
        yield f"lease-{number}.cose", lease
    for digest, data in bundle.blobs().items():
        yield f"archive/{digest.hex()}", data
    archive = Archive(bundle.blobs())
    for number, leaf in enumerate(bundle.leaves):
        yield f"record-{number}.cbor", leaf.record
        if leaf.receipt is not None:
            yield f"record-{number}.receipt.cose", leaf.receipt
        record = Record.from_bytes(leaf.record)
        if {"evidence", "node"} <= record.digests.keys():
            evidence, _ = read_evidence(archive.named(record, "evidence"))
            ak = Public.from_bytes(archive.node(record).ak_public).key
            for name, data in _quote(evidence, ak, archive.holder(record)):
                yield f"quote-{number}.{name}", data
            for name, data in _workload(evidence):
                yield f"workload-{number}.{name}", data
            yield from _logs(archive, record, evidence, number)
            name_of_ak = Public.from_bytes(archive.node(record).ak_public).name
            yield from _devices(evidence, name_of_ak, read_collateral(archive, record), number)


def _logs(archive: Archive, record: Record, evidence: Evidence, number: int) -> Iterator[tuple[str, bytes]]:
    """The logs that record ``number`` rests on: an event log may be older than its evidence, a list only a part."""
    sent = TpmRecord.from_bytes(evidence.collection[TPM].value) if TPM in evidence.collection else None
    log = archive.event_log(record) or (None if sent is None else sent.event_log)
    if log is not None:
        yield f"event-log-{number}.bin", log
    if sent is not None and sent.ima is not None:
        yield f"ima-{number}-from-{sent.ima_start or 0}.bin", sent.ima


def _devices(evidence: Evidence, ak_name: bytes, collateral: Collateral, number: int) -> Iterator[tuple[str, bytes]]:
    """What concerns the devices in the evidence that record ``number`` names."""
    records = evidence.gpu_records()
    if not records:
        return
    yield f"gpu-{number}.nonce", gpu_nonce(nonce=evidence.nonce, ak_name=ak_name, intent=evidence.intent).hex().encode()
    for name, record in records:
        if record.type in (GPU_TYPE, SWITCH_TYPE):
            device = GpuRecord.from_bytes(record.value)
            yield f"{_safe(name)}-{number}.report", device.report
            yield f"{_safe(name)}-{number}.chain.pem", device.chain
    for rim, document in sorted(collateral.rims.items()):
        yield f"rim-{number}/{_safe(rim)}.xml", document
    for kind, documents in (("ocsp", collateral.responses), ("crl", collateral.crls)):
        for place, document in enumerate(documents):
            yield f"{kind}-{number}/{place}.der", document


def _safe(name: str) -> str:
    """A host's word as the name of a file."""
    return _UNSAFE.sub("_", name)


def _quote(evidence: Evidence, ak: PublicKey, holder: PublicKey) -> Iterator[tuple[str, bytes]]:
    if TPM not in evidence.collection:
        return
    record = TpmRecord.from_bytes(evidence.collection[TPM].value)
    qualifying = qualifying_data(
        nonce=evidence.nonce,
        intent=evidence.intent,
        holder=holder.thumbprint,
        gpus=evidence.gpu_records(),
        logs=(record.event_log, record.ima),
    )
    yield "attest", record.quote
    yield "signature", record.signature
    yield "ak.pem", ak.to_pem()
    yield "qualifying", qualifying.hex().encode()
    yield "pcrs", b"".join(value for _, value in sorted(record.pcrs.items()))


def _workload(evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    shown = TpmRecord.from_bytes(evidence.collection[TPM].value).workload if TPM in evidence.collection else None
    if shown is not None:
        yield "attest", shown.attest
        yield "signature", shown.signature
        yield "entries", shown.entries
