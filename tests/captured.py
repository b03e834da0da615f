"""A machine's whole evidence, as ``fixtures/captured`` keeps it, looked at with the product's own functions."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attestation.chain import Anchor
from attestation.tpm.boot.facts import BootState
from attestation.tpm.boot.state import boot_state
from attestation.tpm.eventlog import Proof, prove, read_event_log
from attestation.tpm.identity import Ek, verify_ak, verify_ek
from attestation.tpm.quote import Quote, verify_quote
from attestation.tpm.structures import HASHES

FILES = Path(__file__).parents[1] / "fixtures" / "captured"
BANKS = {name: alg for alg, name in HASHES.items()}
AT = datetime(2027, 1, 1, tzinfo=UTC)
"""A time at which the lab's certificates are valid."""


class Captured:
    """One capture."""

    def __init__(self, shown: Mapping[str, Any]) -> None:
        self.shown = shown

    @classmethod
    def read(cls, name: str) -> "Captured":
        return cls(json.loads((FILES / name).read_text(encoding="utf-8")))

    def pcrs(self, bank: str) -> dict[int, bytes]:
        return {int(pcr): bytes.fromhex(value) for pcr, value in self.shown[bank]["pcrs"].items()}

    def quote(self, bank: str, *, nonce: bytes | None = None) -> Quote:
        values = self.pcrs(bank)
        return verify_quote(
            bytes.fromhex(self.shown[bank]["attest"]),
            bytes.fromhex(self.shown[bank]["sig"]),
            ak=verify_ak(bytes.fromhex(self.shown["ak"])[2:]),
            qualifying=bytes.fromhex(self.shown["nonce"]) if nonce is None else nonce,
            bank=BANKS[bank],
            pcrs=sorted(values),
            values=values,
        )

    @property
    def log(self) -> bytes:
        return base64.b64decode(self.shown["log"])

    def proof(self, bank: str) -> Proof:
        return prove(read_event_log(self.log), BANKS[bank], self.quote(bank).pcrs)

    def boot(self, bank: str) -> BootState:
        return boot_state(read_event_log(self.log), BANKS[bank], self.proof(bank).pcrs)

    def list(self, bank: str) -> bytes:
        return base64.b64decode(self.shown[bank]["ima"])

    def ek(self, *roots: bytes) -> Ek:
        """The EK under ``roots`` (DER), by default that of the lab which made the TPM."""
        anchors = [Anchor("the lab", root, "test") for root in roots or (bytes.fromhex(self.shown["root"]),)]
        chain = [bytes.fromhex(each) for each in self.shown["chain"]]
        certificate, public = bytes.fromhex(self.shown["ekcert"]), bytes.fromhex(self.shown["ek"])[2:]
        return verify_ek(certificate, public, chain, anchors, at=AT)
