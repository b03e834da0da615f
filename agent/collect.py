"""Collecting evidence: what this host shows about itself, in answer to one challenge.

The TPM's quote commits to everything else in the collection (:func:`attestation.evidence.qualifying_data`), so it is
made last. Host facts are asserted: they help people, and nothing is decided on them. Collecting judges nothing.

Logs are sent where the challenge wants them (:mod:`agent.logs`). The measurement list grows while evidence is
collected, and the quote must commit to it; entries that the quote does not cover yet are harmless, but one that it
covers and the list lacks can never be proven. So the order is

1. PCR values are read.
2. The list is read to its end. The kernel writes an entry into the list before it extends PCR 10 with it, so every
   entry that counts in (1) is there.
3. The quote is made, over the digest of the list. Where what was quoted are not the values of (1), something was
   measured meanwhile: all three again, a few times.
4. The NV index that jobs are measured into is certified over what the quote commits to (:mod:`agent.workload`).

GPUs are asked first, over a nonce that commits to the challenge, the attestation key and the intent
(:func:`attestation.evidence.gpu_nonce`), and only for an intent that wants GPUs. Their records are sent all or not at
all. Where there are none to send the host facts say why, and it is for the verifier to deny; where GPUs of a running
job do not answer that is raised, to be asked again while the lease lasts.
"""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agent.devices import Attested, DeviceError, DeviceEvidence, Gpus, Tpm
from agent.gpu import describe, failed
from agent.holder import Holder
from agent.logs import Logs, Part
from agent.workload import Workloads
from attestation.challenge import EVENT_LOG, IMA, Challenge
from attestation.errors import InterlockError
from attestation.evidence import (
    HOST,
    HOST_TYPE,
    TPM,
    TPM_TYPE,
    Cmw,
    Evidence,
    HostRecord,
    TpmRecord,
    gpu_nonce,
    qualifying_data,
    sign_evidence,
)
from attestation.gpu.record import GPU_TYPE, SWITCH_TYPE, GpuRecord
from attestation.progress import boot_of
from attestation.tpm.attest import Attest, QuoteInfo
from attestation.tpm.quote import CODES

_TRIES: Final = 5
_TYPES: Final = {"gpu": GPU_TYPE, "switch": SWITCH_TYPE}


class Collector:
    """Answers challenges with the evidence of this host; safe to use from several threads."""

    def __init__(
        self,
        tpm: Tpm,
        holder: Holder,
        *,
        logs: Logs | None = None,
        gpus: Gpus | None = None,
        workloads: Workloads | None = None,
    ) -> None:
        self.holder = holder
        self._tpm, self._gpus = tpm, gpus
        self._ak_name = tpm.create_ak().name
        self._logs = logs or Logs(None, None)
        self._workloads = workloads

    def answer(self, challenge: Challenge, intent: bytes, grant: bytes | None = None, gpus: int = 0) -> bytes:
        """The signed evidence for ``challenge``, bound to the ``intent`` digest, and to ``grant`` when it renews one.

        ``gpus`` is how many the intent wants: with any, all GPUs of the host are asked. Raises ``DeviceError`` where
        the TPM fails, where PCRs change faster than they can be quoted, where the measurement list cannot be read, and
        in a renewal where GPUs fail.
        """
        records, facts = self._ask_gpus(challenge, intent, renewal=grant is not None) if gpus else ({}, {})
        evidence = Evidence(collection=records, grant=grant, nonce=challenge.nonce, intent=intent)
        event_log = self._logs.event_log(challenge.known_log) if EVENT_LOG in challenge.wants else None

        def bind(ima: bytes | None) -> bytes:
            return qualifying_data(
                nonce=challenge.nonce,
                intent=intent,
                holder=self.holder.public.thumbprint,
                gpus=evidence.gpu_records(),
                logs=(event_log, ima),
            )

        quote, pcrs, part = self._quote(challenge, bind)
        committed = _read(quote).extra_data
        record = TpmRecord(
            quote=quote.attest,
            signature=quote.signature,
            bank=challenge.bank,
            pcrs=pcrs,
            holder_public=self.holder.key.public,
            certify=self.holder.certified.attest,
            certify_signature=self.holder.certified.signature,
            creation=self.holder.key.creation,
            event_log=event_log,
            ima=None if part is None else part.data,
            ima_start=None if part is None else part.start,
            workload=None if self._workloads is None else self._workloads.record(committed, challenge, grant),
        )
        collection = {
            TPM: Cmw(TPM_TYPE, record.to_bytes()),
            HOST: Cmw(HOST_TYPE, HostRecord(facts=host_facts() | facts).to_bytes()),
        }
        return sign_evidence(replace(evidence, collection=records | collection), self.holder.answering(challenge))

    def _ask_gpus(self, challenge: Challenge, intent: bytes, *, renewal: bool) -> tuple[dict[str, Cmw], dict[str, str]]:
        """The records of all GPUs and switches, and what is said of them."""
        nonce = gpu_nonce(nonce=challenge.nonce, ak_name=self._ak_name, intent=intent)
        try:
            found = () if self._gpus is None else self._gpus.evidence(nonce)
        except DeviceError as error:
            if renewal:
                raise
            return {}, failed(error)
        return {each.name: _record(each) for each in found}, _described(self._gpus)

    def _quote(
        self, challenge: Challenge, bind: Callable[[bytes | None], bytes]
    ) -> tuple[Attested, dict[int, bytes], Part | None]:
        """A quote with the values it covers, and the measurement list that it proves, by the numbered steps above.

        ``bind`` gives the qualifying data for a list.
        """
        for _ in range(_TRIES):
            values = dict(self._tpm.read_pcrs(challenge.bank, challenge.pcrs))  # (1)
            part = self._measured(challenge) if IMA in challenge.wants else None  # (2)
            quote = self._tpm.quote(bind(None if part is None else part.data), challenge.bank, challenge.pcrs)  # (3)
            if _read(quote).info.pcr_digest == hashlib.sha256(b"".join(values[pcr] for pcr in challenge.pcrs)).digest():
                return quote, values, part
        raise DeviceError("tpm.device.unsteady", "PCR values change faster than they can be quoted")

    def _measured(self, challenge: Challenge) -> Part | None:
        """The entries of the measurement list that ``challenge`` asks for."""
        clock = self._tpm.clock()
        boot = boot_of(clock.reset_count, clock.restart_count)
        known = challenge.ima_next if boot == challenge.ima_boot else None
        return self._logs.ima(boot, known or 0)


def _read(quote: Attested) -> Attest[QuoteInfo]:
    """What a quote states; the digest over PCR values is by the attestation key's own hash, SHA-256."""
    try:
        return Attest.from_bytes(quote.attest, QuoteInfo, CODES)
    except InterlockError as error:
        raise DeviceError("tpm.device.unexpected", str(error)) from error


def _described(gpus: Gpus | None) -> dict[str, str]:
    """What is said of the GPUs. Words for people, so what has been signed is not lost for want of them."""
    try:
        return describe(gpus)
    except DeviceError as error:
        return failed(error)


def _record(device: DeviceEvidence) -> Cmw:
    return Cmw(_TYPES[device.kind], GpuRecord(report=device.report, chain=device.chain).to_bytes())


def host_facts() -> dict[str, str]:
    """What the host says about itself, for people."""
    return {"hostname": platform.node(), "kernel": platform.release(), "machine": platform.machine()}
