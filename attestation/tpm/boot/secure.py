"""Secure Boot: the register that holds its variables, its databases, and the certificates that it used.

PFP 1.06, section 3.3.4.8 (PCR 7): the variables SecureBoot, PK, KEK, db, dbx, and where they exist dbt and dbr,
before the separator; one authority for each image that was verified, behind it. UEFI Specification 2.10, section
32.3. shim adds its own authorities: SbatLevel, MokListTrusted, and the certificate that it believed.

A name counts only under its own vendor GUID, in its own register, confirmed together with the value, once. In PCR 7
everything must be explained: what is not could be any of these under another type.
"""

import hashlib
import re

from attestation.errors import Malformed
from attestation.tpm.boot import kinds
from attestation.tpm.boot.facts import (
    AUDIT_MODE,
    AUTHORITY,
    BOOT_VARIABLE,
    DEPLOYED_MODE,
    MOK_TRUSTED,
    OFF,
    ON,
    SBAT,
    SECURE_BOOT,
    SETUP_MODE,
    Notes,
)
from attestation.tpm.boot.rules import DATA, PADDED, PADDING, VALUE, Measured
from attestation.tpm.boot.variables import GLOBAL, SECURITY, SHIM, Variable, read_database
from attestation.tpm.eventlog import Event

_VENDORS = {
    "SecureBoot": GLOBAL,
    "AuditMode": GLOBAL,
    "DeployedMode": GLOBAL,
    "PK": GLOBAL,
    "KEK": GLOBAL,
    "db": SECURITY,
    "dbx": SECURITY,
    "dbt": SECURITY,
    "dbr": SECURITY,
}
_SWITCHES = {"SecureBoot": SECURE_BOOT, "AuditMode": AUDIT_MODE, "DeployedMode": DEPLOYED_MODE}
_MODES = frozenset({"AuditMode", "DeployedMode"})
_SBAT = re.compile(rb"sbat,1,([0-9]{10})(?:\n|\Z)")
_OWNER = 16


def read_variable(notes: Notes, event: Event, measured: Measured | None) -> None:
    """An event of the types EV_EFI_VARIABLE_*: a fact where its name and value are confirmed together."""
    if measured is None:
        _unproven(notes, event, "the digest is not of this variable")
    elif measured.rule == VALUE:
        if event.type == kinds.VARIABLE_DRIVER_CONFIG:
            notes.finding("tpm.boot.variable-unnamed", event)
            _unproven(notes, event, "the digest is of the value alone: the name is not proven")
    else:
        padding = PADDING if measured.rule == PADDED else b""
        try:
            variable = Variable.from_bytes(measured.covered, padding=padding)
        except Malformed as error:
            notes.finding("tpm.boot.variable-malformed", event, error.detail)
            _unproven(notes, event, "not a variable")
            return
        if event.type == kinds.VARIABLE_AUTHORITY:
            _authority(notes, event, variable, measured)
        elif event.type == kinds.VARIABLE_DRIVER_CONFIG:
            _configuration(notes, event, variable)
        elif event.pcr == notes.registers.secure and notes.registers.closed:
            explain_secure(notes, event)
        elif event.pcr == notes.registers.variables and _is_boot(variable):
            value = f"{variable.name} {hashlib.sha256(variable.value).hexdigest()}"
            notes.fact(BOOT_VARIABLE, value, event)


def _is_boot(variable: Variable) -> bool:
    """A variable of the boot manager's: of the vendor whose Secure Boot variables have names of their own."""
    return variable.vendor == GLOBAL and variable.name not in _VENDORS


def explain_secure(notes: Notes, event: Event) -> None:
    """Any other event in the register of Secure Boot: nothing that is known belongs there."""
    _unproven(notes, event, f"{kinds.name(event.type)} in the register of Secure Boot")


def _unproven(notes: Notes, event: Event, detail: str) -> None:
    if event.pcr == notes.registers.secure and notes.registers.closed:
        notes.finding("tpm.boot.unexplained", event, detail)


def _configuration(notes: Notes, event: Event, variable: Variable) -> None:
    name = variable.name
    if name not in _VENDORS:
        _unproven(notes, event, f"{name} is no variable of Secure Boot")
    elif event.pcr not in (notes.registers.modes if name in _MODES else {notes.registers.secure}):
        notes.finding("tpm.boot.variable-register", event, name)
    elif variable.vendor != _VENDORS[name]:
        notes.finding("tpm.boot.variable-guid", event, f"{name} of {variable.vendor.hex()}")
    elif event.number > notes.ends.get(event.pcr, event.number):
        notes.finding("tpm.boot.mode-late" if name in _MODES else "tpm.boot.variable-late", event, name)
    elif _SWITCHES.get(name, name.lower()) in notes.names:
        notes.finding("tpm.boot.variable-duplicate", event, name)
    elif name in _SWITCHES:
        _switch(notes, event, variable)
    else:
        _database(notes, event, variable)


def _switch(notes: Notes, event: Event, variable: Variable) -> None:
    if variable.value not in (b"", b"\0", b"\1"):
        notes.finding("tpm.boot.variable-value", event, f"{variable.name} is {variable.value[:16].hex()}")
        return
    if not variable.value:
        notes.finding("tpm.boot.secure-boot-empty", event, f"{variable.name} has no value: it is off")
    notes.fact(_SWITCHES[variable.name], ON if variable.value == b"\1" else OFF, event)


def _database(notes: Notes, event: Event, variable: Variable) -> None:
    try:
        found = read_database(variable.value)
    except Malformed as error:
        notes.finding("tpm.boot.variable-malformed", event, f"{variable.name}: {error.detail}")
        _unproven(notes, event, f"{variable.name} cannot be read")
        return
    name = variable.name.lower()
    notes.databases[name] = found
    notes.fact(name, found.text, event, hashlib.sha256(variable.value).digest())
    if name == "pk":
        notes.fact(SETUP_MODE, ON if found.is_empty else OFF, event)


def _authority(notes: Notes, event: Event, variable: Variable, measured: Measured) -> None:
    """What an image was believed for: an entry of db (owner and certificate), or shim's own words."""
    if event.pcr != notes.registers.secure:
        notes.finding("tpm.boot.variable-register", event, variable.name)
        return
    if variable.vendor == GLOBAL:
        _unproven(notes, event, f"{variable.name} is no authority")
        return
    if measured.rule == PADDED:
        notes.finding("tpm.boot.authority-padded", event)
    if event.number < notes.ends.get(event.pcr, -1):
        notes.finding("tpm.boot.authority-early", event, variable.name)
    value = variable.value
    if variable.vendor == SHIM and variable.name == "SbatLevel":
        level = _SBAT.match(value)
        if level is None or SBAT in notes.names:
            notes.finding("tpm.boot.variable-value", event, f"SbatLevel {value[:32]!r}")
        else:
            notes.fact(SBAT, level[1].decode(), event)
    elif variable.vendor == SHIM and variable.name == "MokListTrusted":
        notes.fact(MOK_TRUSTED, ON if value == b"\1" else OFF, event)
    else:
        owned = variable.vendor == SECURITY and measured.rule == DATA
        raw = hashlib.sha256(value[_OWNER:] if owned else value).digest()
        notes.fact(AUTHORITY, f"{variable.name} {raw.hex()}", event, raw)
