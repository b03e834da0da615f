"""Rows 29-53 of the refusal matrix once more, through the whole appraisal: quoted, sent, held to reference values.

The rows are those of `tpm/test_eventlog_matrix.py` and `tpm/test_ima_matrix.py`. What their tests give to the functions
of the event log and of the measurement list is given to a host here, whose TPM holds the quoted values, and which sends
log and list with its evidence. The reason has to be the same, in the check that is about it.
"""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.appraise import ImaSubject
from attestation.tpm.ima.policy import CompiledPolicy
from attestation.tpm.ima.progress import ImaProgress
from tests.attestation.examples import SHA256
from tests.attestation.shown import IMA_PCR, Shown, accepted
from tests.attestation.tpm import test_eventlog_matrix, test_ima_matrix
from tests.attestation.tpm.ima.lists import BOOT_PCRS
from tests.attestation.tpm.logs import LogMaker, honest, lenient, utf16


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
"""The whole appraisal takes boots from the quote, so there is no other one; the rest is in `test_appraise_boot.py`."""


@pytest.mark.parametrize("name", sorted(test_ima_matrix.MORE.keys() - {ELSEWHERE}))
def test_variant_of_the_list(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_ima_matrix, "verify_ima", of_list)
    test_ima_matrix.test_variant(name)
