"""From a log that is proven to what was booted: facts, and the event that proves each.

Only events in registers whose replay equals what was quoted are looked at, and of those only what the digest rule of
their type confirms (:mod:`attestation.tpm.boot.rules`). Each register is read for what it holds (:mod:`secure`,
:mod:`loader`), separators and their order first (:mod:`order`).

What cannot be concluded: that something did *not* happen, except where a register has to be explained in full (PCR 7,
the images in PCR 4, the drivers in PCR 2). Firmware that lies about itself measures the lie.
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

from attestation.tpm.boot import kinds
from attestation.tpm.boot.facts import CALL, DEBUG, DMA, EXIT, FILE, MOK, BootState, Notes
from attestation.tpm.boot.findings import Finding
from attestation.tpm.boot.loader import (
    read_disk,
    read_image,
    read_section,
    read_tags,
    read_text,
    read_version,
)
from attestation.tpm.boot.order import read_separators, separator_digests
from attestation.tpm.boot.rules import Measured, confirm
from attestation.tpm.boot.secure import explain_secure, read_variable
from attestation.tpm.eventlog import Event, EventLog, replay
from attestation.tpm.structures import HASHES


@dataclass(frozen=True, slots=True)
class _Saying:
    """An action with a meaning: its text, the register it belongs in, and the fact it is."""

    text: bytes
    register: Callable[[kinds.Registers], int]
    fact: str
    value: str


_SAYINGS = (
    _Saying(b"DMA Protection Disabled", lambda r: r.secure, DMA, "disabled"),
    _Saying(b"UEFI Debug Mode", lambda r: r.secure, DEBUG, "firmware-debugger"),
    _Saying(b"Exit Boot Services Returned with Success", lambda r: r.exits, EXIT, "success"),
    _Saying(b"Exit Boot Services Returned with Failure", lambda r: r.exits, EXIT, "failure"),
    _Saying(b"Calling EFI Application from Boot Option", lambda r: r.applications, CALL, "seen"),
)
"""Actions with a meaning (PFP 10.4.3): known by their digest, under any type, with or without a NUL."""

_VARIABLES = frozenset(
    {kinds.VARIABLE_DRIVER_CONFIG, kinds.VARIABLE_BOOT, kinds.VARIABLE_BOOT2, kinds.VARIABLE_AUTHORITY}
)
_VERSIONS = frozenset({kinds.CRTM_VERSION, kinds.NONHOST_INFO})


def boot_state(log: EventLog, bank: int, proven: Collection[int]) -> BootState:
    """The facts of a boot. ``proven`` are the registers of :func:`attestation.tpm.eventlog.prove`.

    Raises ``Untrusted("tpm.log.bank")`` where the log cannot be replayed in this bank, so that nothing was proven in
    it.
    """
    replay(log, bank)
    registers = kinds.CCEL if log.ccel else kinds.TPM
    events = [event for event in log.events if event.extends and event.pcr in proven]
    ends, findings = read_separators(events, bank, registers, proven)
    notes = Notes(bank, registers, ends, findings=[*log.findings, *findings])
    sayings, separators = _sayings(bank), separator_digests(bank)
    for event in events:
        digest = event.digests[bank]
        saying = sayings.get(digest)
        if saying is not None and event.pcr == saying.register(registers):
            notes.fact(saying.fact, saying.value, event)
        elif digest not in separators and not (event.type == kinds.SEPARATOR and event.pcr in registers.separated):
            _read(notes, event, confirm(event, bank))
    _missing(notes, log)
    return BootState(bank, registers, frozenset(proven), tuple(notes.facts), tuple(notes.findings), notes.databases)


@cache
def _sayings(bank: int) -> dict[bytes, _Saying]:
    return {hashlib.new(HASHES[bank], s.text + end).digest(): s for s in _SAYINGS for end in (b"", b"\0")}


def _read(notes: Notes, event: Event, measured: Measured | None) -> None:
    """One event, by its register first: no type can take it out of there."""
    registers, pcr, kind = notes.registers, event.pcr, event.type
    if kind not in kinds.NAMES:
        notes.finding("tpm.boot.type-unknown", event, kinds.name(kind))
    if kind == kinds.EVENT_TAG and pcr in registers.tags:
        read_tags(notes, event, measured)
    if pcr in (registers.applications, registers.drivers):
        read_image(notes, event, measured)
    elif pcr in registers.texts:
        read_text(notes, event, measured)
    elif pcr in registers.files:
        notes.digest(FILE, event)
    elif pcr == registers.sections:
        read_section(notes, event, measured)
    elif pcr == registers.mok:
        notes.digest(MOK, event)
    else:
        _read_firmware(notes, event, measured)


def _read_firmware(notes: Notes, event: Event, measured: Measured | None) -> None:
    """An event in a register of the firmware's own."""
    if event.type in _VARIABLES:
        read_variable(notes, event, measured)
    elif event.pcr == notes.registers.secure:
        explain_secure(notes, event)
    elif event.type in _VERSIONS and event.pcr == notes.registers.versions:
        read_version(notes, event, measured)
    else:
        read_disk(notes, event, measured)


def _missing(notes: Notes, log: EventLog) -> None:
    """What a UEFI boot ends with, and what precedes it, where they are not there."""
    if any(event.type >= kinds.EFI_BASE for event in log.events):
        if not any(fact.name == EXIT and fact.value == "success" for fact in notes.facts):
            notes.findings.append(Finding("tpm.boot.exit-missing", pcr=notes.registers.exits))
        if not any(fact.name == CALL for fact in notes.facts):
            notes.findings.append(Finding("tpm.boot.call-missing", pcr=notes.registers.applications))
