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
======================== ============================================================================================
"""

from collections.abc import Iterator

from attestation.bundle import Bundle
from attestation.evidence import TPM, Evidence, TpmRecord, qualifying_data, read_evidence
from attestation.keys import PublicKey
from attestation.log import Record
from attestation.rederive import Archive
from attestation.tpm.structures import Public


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
