"""Facts of a boot, each with the event that proves it, and the notes that they are collected in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from attestation.tpm.boot.findings import Finding
from attestation.tpm.boot.kinds import Registers
from attestation.tpm.boot.variables import Database
from attestation.tpm.eventlog import Event

SECURE_BOOT, SETUP_MODE, AUDIT_MODE, DEPLOYED_MODE = "secure-boot", "setup-mode", "audit-mode", "deployed-mode"
AUTHORITY, SBAT, MOK_TRUSTED, MOK = "authority", "sbat-level", "mok-trusted", "mok"
APPLICATION, DRIVER, FILE, SECTION = "application", "driver", "file", "section"
COMMAND, COMMAND_LINE, LOAD = "command", "command-line", "load"
CRTM, PLATFORM, DISK, BOOT_VARIABLE = "crtm-version", "platform", "disk", "boot-variable"
DMA, DEBUG, EXIT, CALL = "dma-protection", "debug", "exit-boot-services", "boot-option-called"
DATABASES = ("pk", "kek", "db", "dbx", "dbt", "dbr")
ON, OFF = "on", "off"

NAMES = frozenset(
    {
        *(SECURE_BOOT, SETUP_MODE, AUDIT_MODE, DEPLOYED_MODE, AUTHORITY, SBAT, MOK_TRUSTED, MOK),
        *(APPLICATION, DRIVER, FILE, SECTION, COMMAND, COMMAND_LINE, LOAD, CRTM, PLATFORM, DISK, BOOT_VARIABLE),
        *(DMA, DEBUG, EXIT, CALL, *DATABASES),
    }
)
"""The names of all facts."""

MOST_HINT = 128


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact, and the event and register that prove it.

    ``raw`` is the digest that a fact about an image, a file, a certificate or a section is about. ``hint`` is what the
    log says of it and nothing proves: a path, a label. For people, never for decisions.
    """

    name: str
    value: str
    event: int
    pcr: int
    raw: bytes = b""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class BootState:
    """What a boot is proven to have been, from the registers ``proven``. ``databases`` are those of :data:`DATABASES`
    that could be read.
    """

    bank: int
    registers: Registers
    proven: frozenset[int]
    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]
    databases: Mapping[str, Database]

    def all(self, name: str) -> tuple[Fact, ...]:
        """Every fact of this name, in the order of the log."""
        return tuple(fact for fact in self.facts if fact.name == name)

    def one(self, name: str) -> Fact | None:
        """The first fact of this name."""
        return next((fact for fact in self.facts if fact.name == name), None)


@dataclass(slots=True)
class Notes:
    """Facts and findings while a log is gone through."""

    bank: int
    registers: Registers
    ends: Mapping[int, int]
    facts: list[Fact] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    databases: dict[str, Database] = field(default_factory=dict)
    section: str | None = None
    names: set[str] = field(default_factory=set)

    def fact(self, name: str, value: str, event: Event, raw: bytes = b"", hint: str = "") -> None:
        self.names.add(name)
        self.facts.append(Fact(name, value, event.number, event.pcr, raw, hint))

    def digest(self, name: str, event: Event) -> None:
        """A fact about the digest itself: something with this digest was measured into this register."""
        raw = event.digests[self.bank]
        self.fact(name, raw.hex(), event, raw, readable(event.data))

    def finding(self, name: str, event: Event, detail: str = "") -> None:
        self.findings.append(Finding(name, event.number, event.pcr, detail))


def readable(data: bytes) -> str:
    """The beginning of ``data`` as text where it is text (UTF-16, UTF-8), else in hexadecimal; for people."""
    for encoding in ("utf-16-le", "utf-8"):
        try:
            text = data.decode(encoding).rstrip("\0")
        except UnicodeDecodeError:
            continue
        if text and text.isascii() and text.isprintable():
            return text[:MOST_HINT]
    return data[: MOST_HINT // 2].hex()
