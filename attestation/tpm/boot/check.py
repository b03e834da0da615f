"""Compare what was booted with what is demanded. A pure function of facts and policy.

The checks, in order; each is one of :data:`CHECKS`, so that a caller can record them one by one:

 1. boot.findings: nothing is odd that is refused, or excusable and not accepted        the finding's own name
 2. boot.facts: every required fact is there                                            tpm.boot.absent
 3. boot.secure-boot: on, keys set up, not in audit mode; deployed                      tpm.boot.secure-boot, .mode
 4. boot.databases: dbx is not older than its floor, db holds what it may               tpm.boot.dbx, .db
 5. boot.authorities: images were believed for known certificates; SBAT; shim's lists   tpm.boot.authority, .sbat, .mok
 6. boot.protection: memory was protected from devices, no debugger                     tpm.boot.dma, .debug
 7. boot.firmware: the versions of root of trust and platform                           tpm.boot.firmware
 8. boot.images: every application and driver is known                                  tpm.boot.application, .driver
 9. boot.texts: every command line and command is allowed                               tpm.boot.command-line, .command
10. boot.files: every file and every section is known                                   tpm.boot.file, .section

Code that runs after the firmware can extend a register further, never undo it: it can add to what lists must allow, and
cannot take away what is denied. It could add facts that come behind the separator (SBAT level, ExitBootServices).
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from attestation.errors import Untrusted
from attestation.tpm.boot import facts
from attestation.tpm.boot.facts import OFF, ON, BootState, Fact
from attestation.tpm.boot.findings import EXCUSABLE, REFUSED
from attestation.tpm.boot.kinds import NOWHERE
from attestation.tpm.boot.policy import BootPolicy, matches
from attestation.tpm.boot.variables import Database


def check_boot(state: BootState, policy: BootPolicy) -> None:
    """Make every check. Raises ``Untrusted("tpm.boot.*")`` with the event and register at the first that fails."""
    for _, check in CHECKS:
        check(state, policy)


def _shown(fact: Fact) -> str:
    hint = f" (said to be {fact.hint!r})" if fact.hint else ""
    return f"event {fact.event}, PCR {fact.pcr}: {fact.value}{hint}"


def _prove(state: BootState, name: str, registers: Iterable[int]) -> None:
    """Raise ``Untrusted("tpm.boot.absent")`` where a register that would show it is not proven."""
    missing = sorted(set(registers) - state.proven - {NOWHERE})
    if missing:
        raise Untrusted("tpm.boot.absent", f"{name}: PCR {', '.join(map(str, missing))} is not proven")


def _need(state: BootState, name: str) -> Fact:
    found = state.one(name)
    if found is None:
        raise Untrusted("tpm.boot.absent", f"nothing proves {name}")
    return found


def _listed(found: Iterable[Fact], allowed: Collection[bytes], reason: str) -> None:
    for fact in found:
        if fact.raw not in allowed:
            raise Untrusted(reason, _shown(fact))


def _findings(state: BootState, policy: BootPolicy) -> None:  # (1)
    for finding in state.findings:
        verdict = finding.verdict
        if verdict == REFUSED or (verdict == EXCUSABLE and finding.name not in policy.accepted):
            raise Untrusted(finding.name, finding.text)


def _facts(state: BootState, policy: BootPolicy) -> None:  # (2)
    for name in policy.required:
        _need(state, name)


def _secure_boot(state: BootState, policy: BootPolicy) -> None:  # (3)
    if policy.secure_boot:
        switch, setup, audit = (
            _need(state, facts.SECURE_BOOT),
            _need(state, facts.SETUP_MODE),
            state.one(facts.AUDIT_MODE),
        )
        if switch.value != ON:
            raise Untrusted("tpm.boot.secure-boot", _shown(switch))
        if setup.value != OFF or (audit is not None and audit.value != OFF):
            raise Untrusted("tpm.boot.mode", "the platform is in setup mode or audit mode")
    if policy.deployed_mode and _need(state, facts.DEPLOYED_MODE).value != ON:
        raise Untrusted("tpm.boot.mode", "the platform is not in deployed mode")


def _database(state: BootState, name: str) -> tuple[Fact, Database]:
    return _need(state, name), state.databases[name]


def _databases(state: BootState, policy: BootPolicy) -> None:  # (4)
    if policy.dbx_count is not None or policy.dbx_hashes is not None:
        fact, dbx = _database(state, "dbx")
        if len(dbx.hashes) < (policy.dbx_count or 0):
            raise Untrusted("tpm.boot.dbx", f"{_shown(fact)}; at least {policy.dbx_count} hashes are wanted")
        missing = [wanted for wanted in policy.dbx_hashes or () if wanted not in dbx.hashes]
        if missing:
            raise Untrusted("tpm.boot.dbx", f"{_shown(fact)}; {missing[0].hex()} is not revoked")
    if policy.db_certificates is not None:
        fact, db = _database(state, "db")
        others = [found for found in db.certificates if found not in policy.db_certificates]
        if others or db.hashes or db.others:
            shown = others[0].hex() if others else db.text
            raise Untrusted("tpm.boot.db", f"event {fact.event}, PCR {fact.pcr}: {shown} is not allowed in db")


def _authorities(state: BootState, policy: BootPolicy) -> None:  # (5)
    if policy.authorities is not None:
        if not state.registers.closed:
            raise Untrusted("tpm.boot.absent", "authority: this log does not tell authorities from other events")
        _prove(state, facts.AUTHORITY, {state.registers.secure})
        _listed(state.all(facts.AUTHORITY), policy.authorities, "tpm.boot.authority")
    if policy.sbat is not None:
        level = _need(state, facts.SBAT)
        if int(level.value) < policy.sbat:
            raise Untrusted("tpm.boot.sbat", f"{_shown(level)}; at least {policy.sbat} is wanted")
    if policy.mok is not None:
        if state.registers.mok == NOWHERE:
            raise Untrusted("tpm.boot.absent", "mok: this log does not tell shim's lists from other files")
        _prove(state, facts.MOK, {state.registers.mok})
        _listed(state.all(facts.MOK), policy.mok, "tpm.boot.mok")


def _protection(state: BootState, policy: BootPolicy) -> None:  # (6)
    for wanted, name, reason in (
        (policy.dma_protection, facts.DMA, "tpm.boot.dma"),
        (policy.no_debug, facts.DEBUG, "tpm.boot.debug"),
    ):
        if wanted:
            _prove(state, name, {state.registers.secure})
            for fact in state.all(name):
                raise Untrusted(reason, _shown(fact))


def _firmware(state: BootState, policy: BootPolicy) -> None:  # (7)
    for allowed, name in ((policy.crtm_versions, facts.CRTM), (policy.platforms, facts.PLATFORM)):
        if allowed is not None:
            _need(state, name)
            for fact in state.all(name):
                if fact.value not in allowed:
                    raise Untrusted("tpm.boot.firmware", _shown(fact))


def _images(state: BootState, policy: BootPolicy) -> None:  # (8)
    if policy.applications is not None:
        _need(state, facts.APPLICATION)
        _listed(state.all(facts.APPLICATION), policy.applications, "tpm.boot.application")
    if policy.drivers is not None:
        if state.registers.drivers == state.registers.applications:
            raise Untrusted("tpm.boot.absent", "driver: this log does not tell drivers from applications")
        _prove(state, facts.DRIVER, {state.registers.drivers})
        _listed(state.all(facts.DRIVER), policy.drivers, "tpm.boot.driver")


def _texts(state: BootState, policy: BootPolicy) -> None:  # (9)
    if policy.command_lines is None and policy.commands is None:
        return
    _prove(state, facts.COMMAND_LINE, state.registers.texts)
    hidden = (fact for fact in state.all(facts.FILE) if fact.pcr in state.registers.texts)
    _listed(hidden, policy.files or (), "tpm.boot.text")
    if policy.command_lines is not None:
        _need(state, facts.COMMAND_LINE)
        lines = (*state.all(facts.COMMAND_LINE), *state.all(facts.LOAD))
        _matched(lines, policy.command_lines, "tpm.boot.command-line")
    if policy.commands is not None:
        _matched(state.all(facts.COMMAND), policy.commands, "tpm.boot.command")


def _matched(found: Iterable[Fact], patterns: Collection[str], reason: str) -> None:
    for fact in found:
        if not any(matches(fact.value, pattern) for pattern in patterns):
            raise Untrusted(reason, _shown(fact))


def _files(state: BootState, policy: BootPolicy) -> None:  # (10)
    if policy.files is not None:
        _prove(state, facts.FILE, state.registers.files)
        _listed(state.all(facts.FILE), policy.files, "tpm.boot.file")
    if policy.sections is not None:
        _sections(state, policy.sections, policy.files or ())


def _sections(state: BootState, allowed: Mapping[str, tuple[bytes, ...]], files: Collection[bytes]) -> None:
    found = state.all(facts.SECTION)
    names = [fact.value.split()[0] for fact in found]
    absent = sorted(allowed.keys() - set(names))
    if absent:
        raise Untrusted("tpm.boot.absent", f"nothing proves section {', '.join(absent)}")
    for fact, name in zip(found, names, strict=True):
        _listed((fact,), allowed.get(name, ()), "tpm.boot.section")
    hidden = (fact for fact in state.all(facts.FILE) if fact.pcr == state.registers.sections)
    _listed(hidden, files, "tpm.boot.section")


CHECKS: tuple[tuple[str, Callable[[BootState, BootPolicy], None]], ...] = (
    ("boot.findings", _findings),
    ("boot.facts", _facts),
    ("boot.secure-boot", _secure_boot),
    ("boot.databases", _databases),
    ("boot.authorities", _authorities),
    ("boot.protection", _protection),
    ("boot.firmware", _firmware),
    ("boot.images", _images),
    ("boot.texts", _texts),
    ("boot.files", _files),
)
"""The numbered checks, by name."""
