"""What was started: images, drivers, commands, command lines, files, sections of a unified kernel image.

PFP 1.06, section 3.3.4 (PCRs 2, 4, 5); GRUB, grub-core/commands/tpm.c (PCR 8: commands and command lines, PCR 9:
files); systemd-stub(7) (PCR 11: sections, PCR 12: command line); Linux, drivers/firmware/efi/libstub (PCR 9: initrd,
options).

Types and labels are not measured, so none is relied on to leave something out: in the register of images every event
that is not a separator or a readable action counts as an image, in that of drivers as a driver, and whatever a text
register has that is not confirmed as text counts as a file there.
"""

from typing import Final

from attestation.errors import Malformed
from attestation.tpm.boot import kinds
from attestation.tpm.boot.facts import (
    APPLICATION,
    COMMAND,
    COMMAND_LINE,
    CRTM,
    DEBUG,
    DISK,
    DRIVER,
    FILE,
    LOAD,
    PLATFORM,
    SECTION,
    Notes,
    readable,
)
from attestation.tpm.boot.rules import COMMAND as COMMAND_LABEL
from attestation.tpm.boot.rules import TEXT, Measured
from attestation.tpm.boot.tagged import DEBUG as DEBUG_TAGS
from attestation.tpm.boot.tagged import read_tagged
from attestation.tpm.eventlog import Event

LOADERS: Final = frozenset(
    {
        *("linux", "linux16", "linuxefi", "chainloader", "multiboot", "multiboot2", "module", "module2"),
        *("xen_hypervisor", "xen_module", "kfreebsd", "knetbsd", "kopenbsd", "xnu_kernel", "xnu_kernel64", "ntldr"),
    }
)
"""GRUB's commands that load what is started next."""

_MOST_ACTION = 256
_MOST_SECTION = 16
_GPT = b"EFI PART"
_GCE = b"GCE NonHostInfo\0"
_PROTECTIONS = {0: "none", 1: "amd-sev", 2: "amd-sev-es", 3: "intel-tdx", 4: "amd-sev-snp"}
_DISK = slice(56, 72)


def is_action(measured: Measured | None) -> bool:
    """Whether this is the text of an action: printable, short; no image looks like that, whatever its type says."""
    if measured is None or not 0 < len(measured.covered) <= _MOST_ACTION:
        return False
    return measured.covered.isascii() and measured.covered.decode("ascii").rstrip("\0").isprintable()


def read_image(notes: Notes, event: Event, measured: Measured | None) -> None:
    """An event in the register of images, or of drivers."""
    if _is_disk(notes, event, measured):
        read_disk(notes, event, measured)
        return
    if is_action(measured):
        return
    if event.pcr == notes.registers.applications:
        notes.digest(APPLICATION, event)
        if event.number < notes.ends.get(event.pcr, -1):
            notes.finding("tpm.boot.application-early", event, readable(event.data))
    else:
        notes.digest(DRIVER, event)


def read_disk(notes: Notes, event: Event, measured: Measured | None) -> None:
    """The partition table of the disk that was started from: the disk's GUID, as its 16 bytes (PFP 10.4.2.6)."""
    if _is_disk(notes, event, measured):
        notes.fact(DISK, event.data[_DISK].hex(), event)


def read_version(notes: Notes, event: Event, measured: Measured | None) -> None:
    """The version of the root of trust, or what the hypervisor says about the platform."""
    if measured is None or event.number > notes.ends.get(event.pcr, event.number):
        notes.finding("tpm.boot.version-unproven", event, readable(event.data))
    elif event.type == kinds.CRTM_VERSION:
        notes.fact(CRTM, readable(measured.covered), event)
    else:
        notes.fact(PLATFORM, _platform(measured.covered), event)


def read_text(notes: Notes, event: Event, measured: Measured | None) -> None:
    """An event in a register of texts: a command, a command line, or something that is neither."""
    text = None if measured is None else _text(measured)
    if measured is None or text is None:
        _unproven(notes, event)
        return
    command = measured.label == COMMAND_LABEL
    notes.fact(COMMAND if command else COMMAND_LINE, text, event)
    words = text.split()
    if words and words[0] in LOADERS:
        notes.fact(LOAD, " ".join(words[1:]), event)


def read_section(notes: Notes, event: Event, measured: Measured | None) -> None:
    """systemd-stub measures the name of a section, then the section: the name that was confirmed last names this."""
    if notes.section is not None:
        raw = event.digests[notes.bank]
        notes.fact(SECTION, f"{notes.section} {raw.hex()}", event, raw)
        notes.section = None
    elif measured is not None and _is_section(measured):
        notes.section = measured.covered.rstrip(b"\0").decode("ascii")
    else:
        _unproven(notes, event)


def read_tags(notes: Notes, event: Event, measured: Measured | None) -> None:
    """Tagged events of Windows: the debugging switches that are on."""
    if measured is None:
        return
    try:
        leaves = read_tagged(measured.covered)
    except Malformed as error:
        notes.finding("tpm.boot.tagged", event, error.detail)
        return
    for tag, value in leaves:
        if tag in DEBUG_TAGS and value.strip(b"\0"):
            notes.fact(DEBUG, DEBUG_TAGS[tag], event)


def _platform(data: bytes) -> str:
    """Google's hypervisor names the protection of the machine in one byte; what others say is shown as it is."""
    if data.startswith(_GCE) and len(data) > len(_GCE) and data[len(_GCE)] in _PROTECTIONS:
        return f"gce {_PROTECTIONS[data[len(_GCE)]]}"
    return readable(data)


def _is_disk(notes: Notes, event: Event, measured: Measured | None) -> bool:
    """Bytes that look like a partition table are one in its register alone: elsewhere others choose what they are."""
    table = measured is not None and event.data.startswith(_GPT) and len(event.data) >= _DISK.stop
    return table and event.pcr == notes.registers.exits


def _unproven(notes: Notes, event: Event) -> None:
    """Neither text nor section: a file, where files are measured into the same register."""
    notes.digest(FILE, event)
    if event.pcr not in notes.registers.files:
        notes.finding("tpm.boot.text-unproven", event, readable(event.data))


def _is_section(measured: Measured | None) -> bool:
    covered = b"" if measured is None else measured.covered
    return covered[:1] == b"." and covered[-1:] == b"\0" and covered.isascii() and len(covered) <= _MOST_SECTION


def _text(measured: Measured) -> str | None:
    """The words that were measured: as GRUB writes them, or systemd in UTF-16."""
    if measured.rule == TEXT:
        return measured.covered.rstrip(b"\0").decode("utf-8", "backslashreplace")
    try:
        text = measured.covered.decode("utf-16-le").rstrip("\0")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() and text.strip() else None
