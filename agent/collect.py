"""Collecting evidence: what this host shows about itself, in answer to one challenge.

The TPM's quote commits to everything else in the collection (:func:`attestation.evidence.qualifying_data`), so it is
made last. PCR values are read beside it; they are sent only when they did not change around the quote. Host facts are
asserted: they help people, and nothing is decided on them. Collecting judges nothing.
"""

import os
import platform
from pathlib import Path
from typing import Final

from agent.devices import Attested, DeviceError, Tpm, TpmSigner
from attestation.challenge import Challenge
from attestation.evidence import (
    HOST,
    HOST_TYPE,
    TPM,
    TPM_TYPE,
    Cmw,
    Evidence,
    HostRecord,
    TpmRecord,
    qualifying_data,
    sign_evidence,
)

EVENT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
_MAX_LOG: Final = 1 << 20
_TRIES: Final = 3


class Collector:
    """Answers challenges with the evidence of this host; safe to use from several threads."""

    def __init__(self, tpm: Tpm, holder_public: bytes, *, event_log: Path | None = EVENT_LOG) -> None:
        self.holder = TpmSigner(tpm, holder_public)
        self._tpm = tpm
        self._holder_public = holder_public
        self._certified = tpm.certify_holder(b"")
        self._event_log = event_log

    def answer(self, challenge: Challenge, intent: bytes, grant: bytes | None = None) -> bytes:
        """The signed evidence for ``challenge``, bound to the ``intent`` digest, and to ``grant`` when it renews one.

        Raises ``DeviceError`` where the TPM fails, or where PCRs change faster than they can be quoted.
        """
        event_log = self._read_log()
        qualifying = qualifying_data(
            nonce=challenge.nonce,
            intent=intent,
            holder=self.holder.public.thumbprint,
            gpus=(),
            logs=(event_log, None),
        )
        quote, pcrs = self._quote(challenge, qualifying)
        record = TpmRecord(
            quote=quote.attest,
            signature=quote.signature,
            bank=challenge.bank,
            pcrs=pcrs,
            holder_public=self._holder_public,
            certify=self._certified.attest,
            certify_signature=self._certified.signature,
            event_log=event_log,
        )
        collection = {
            TPM: Cmw(TPM_TYPE, record.to_bytes()),
            HOST: Cmw(HOST_TYPE, HostRecord(facts=host_facts()).to_bytes()),
        }
        evidence = Evidence(collection=collection, grant=grant, nonce=challenge.nonce, intent=intent)
        return sign_evidence(evidence, self.holder)

    def _quote(self, challenge: Challenge, qualifying: bytes) -> tuple[Attested, dict[int, bytes]]:
        """A quote with the values it covers: those that were read both before and after it."""
        before = dict(self._tpm.read_pcrs(challenge.bank, challenge.pcrs))
        for _ in range(_TRIES):
            quote = self._tpm.quote(qualifying, challenge.bank, challenge.pcrs)
            after = dict(self._tpm.read_pcrs(challenge.bank, challenge.pcrs))
            if before == after:
                return quote, after
            before = after
        raise DeviceError("tpm.device.unsteady", "PCR values change faster than they can be quoted")

    def _read_log(self) -> bytes | None:
        """The boot event log, where there is one and it is of a size that can be sent."""
        if self._event_log is None or not os.access(self._event_log, os.R_OK):
            return None
        data = self._event_log.read_bytes()
        return data if 0 < len(data) <= _MAX_LOG else None


def host_facts() -> dict[str, str]:
    """What the host says about itself, for people."""
    return {"hostname": platform.node(), "kernel": platform.release(), "machine": platform.machine()}
