"""Rows 29-53 of the refusal matrix once more, through the whole appraisal: quoted, sent, held to reference values.

The rows are those of `tpm/test_eventlog_matrix.py` and `tpm/test_ima_matrix.py`. What their tests give to the functions
of the event log and of the measurement list is given to a host here, whose TPM holds the quoted values, and which sends
log and list with its evidence. The reason has to be the same, in the check that is about it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from typing_extensions import override

from attestation.appraise import Subject, appraise_and_follow
from attestation.errors import Untrusted
from attestation.progress import HostProgress, boot_of
from attestation.reference import Baseline, BootReference, ImaReference
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.appraise import ImaSubject
from attestation.tpm.ima.policy import CompiledPolicy
from attestation.tpm.ima.progress import ImaProgress
from fixtures.attester import SoftTpm
from tests.attestation.examples import CHALLENGE, SHA256
from tests.attestation.tpm import test_eventlog_matrix, test_ima_matrix
from tests.attestation.tpm.ima.lists import BOOT_PCRS
from tests.attestation.tpm.logs import LogMaker, honest, lenient, utf16
from tests.attestation.world import CA, VERIFIER, World

PCRS = tuple(range(16))
IMA_PCR = 10
HELD_TO = ("tpm.event-log", "tpm.boot", "tpm.ima")
USED: dict[str, Any] = {"name": "used", "pools": ("lab",), "state": "active", "provenance": "test"}


def _host() -> SoftTpm:
    return SoftTpm(CA)


@dataclass
class Shown(World):
    """A host whose TPM holds ``values``, and that is held to ``boot`` and to ``files``."""

    tpm: SoftTpm = field(default_factory=_host)
    values: Mapping[int, bytes] = field(default_factory=dict)
    boot: BootPolicy | None = None
    files: CompiledPolicy | None = None
    proven: ImaProgress | None = None

    @override
    def __post_init__(self) -> None:
        self.challenge = replace(CHALLENGE, pcrs=PCRS, wants=("event-log", "ima"))
        self.tpm.pcrs[SHA256].update(self.values)
        super().__post_init__()
        boots = () if self.boot is None else (BootReference(policy=self.boot, **USED),)
        lists = () if self.files is None else (ImaReference(policy=self.files.digest, **USED),)
        self.references = replace(self.references, baselines=self.baselines, boots=boots, lists=lists)

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """Equality of PCRs counts only where there is no reference for the boot."""
        pcrs = {SHA256: {pcr: (value,) for pcr, value in self.tpm.read_pcrs(SHA256, PCRS).items()}}
        return () if self.boot is not None else (replace(self.baseline, pcrs=pcrs),)

    @property
    @override
    def subject(self) -> Subject:
        here = boot_of(self.tpm.reset_count, self.tpm.restart_count)
        progress = None
        if self.proven is not None and self.proven.next:
            progress = HostProgress(boot=here, ima=replace(self.proven, boot=here))
        return replace(super().subject, ima=self.files, progress=progress)


def accepted(world: Shown) -> HostProgress | None:
    """What is proven of the host from now on. Raises ``Untrusted`` with the reason of the one check that fails."""
    followed = appraise_and_follow(world.evidence(), world.subject, verifier=VERIFIER)
    for failed in followed.claims.failures:
        assert failed.name in HELD_TO
        raise Untrusted(failed.reason or "", failed.detail or "")
    return followed.progress


def of_log(data: bytes, quoted: Mapping[int, bytes], bank: int = SHA256, policy: BootPolicy | None = None) -> None:
    """In the place of :func:`tests.attestation.tpm.logs.appraise`."""
    assert bank == SHA256
    accepted(Shown(event_log=data, values=quoted, boot=policy))


def of_list(data: bytes, subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> ImaProgress:
    """In the place of :func:`attestation.tpm.ima.appraise.verify_ima`."""
    log, boot, values = None, None, dict(BOOT_PCRS)
    if subject.cmdline is not None:  # proven by a log, which says what was booted
        maker = LogMaker(rows=list(honest().rows))
        maker.add(12, 0xD, utf16(subject.cmdline.decode()))
        log, boot = maker.to_bytes(), lenient()
        values = maker.values()
    shown = {**values, IMA_PCR: subject.quoted}
    host = Shown(event_log=log, ima=(subject.start, data), values=shown, boot=boot, files=policy, proven=progress)
    found = accepted(host)
    assert found is not None
    assert found.ima is not None
    return replace(found.ima, boot=subject.boot)


def test_the_honest_boot_and_the_honest_list_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    of_log(honest().to_bytes(), honest().values(), policy=test_eventlog_matrix.POLICY)
    monkeypatch.setattr(test_ima_matrix, "verify_ima", of_list)
    test_ima_matrix.Case().verify()
    test_ima_matrix.Case(before=2).verify()


@pytest.mark.parametrize("row", test_eventlog_matrix.ROWS)
def test_row_of_the_event_log(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_eventlog_matrix, "appraise", of_log)
    monkeypatch.setattr(test_eventlog_matrix, "verify_ima", of_list)
    test_eventlog_matrix.test_row(row)


@pytest.mark.parametrize("row", test_ima_matrix.ROWS)
def test_row_of_the_list(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_ima_matrix, "verify_ima", of_list)
    test_ima_matrix.test_row(row)


@pytest.mark.parametrize("name", test_eventlog_matrix.MORE)
def test_variant_of_the_event_log(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_eventlog_matrix, "appraise", of_log)
    monkeypatch.setattr(test_eventlog_matrix, "verify_ima", of_list)
    test_eventlog_matrix.test_variant(name)


ELSEWHERE = "row 45: begun again without a reset"
"""The whole appraisal takes boots from the quote, so there is no other one; `test_appraise_boot.py` has what is left."""


@pytest.mark.parametrize("name", sorted(test_ima_matrix.MORE.keys() - {ELSEWHERE}))
def test_variant_of_the_list(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_ima_matrix, "verify_ima", of_list)
    test_ima_matrix.test_variant(name)
