"""From a boot that was seen to the demands that it meets: a first boot policy, for an operator to look at.

Everything that the log proves is demanded: what was started, loaded and read, for which certificates, with which
command line. So the policy holds for this boot and those like it; what differs between the hosts of a pool (the
identifier of a disk in a command line) is for the operator to generalise. A finding that would be refused is refused
here too: the operator names those that are put up with, nothing accepts them by itself.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from attestation.errors import Malformed
from attestation.tpm.boot import facts
from attestation.tpm.boot.check import check_boot
from attestation.tpm.boot.facts import BootState
from attestation.tpm.boot.findings import ACCEPTABLE
from attestation.tpm.boot.kinds import NOWHERE
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.boot.state import boot_state
from attestation.tpm.eventlog import SIZES, EventLog, is_ccel, prove, read_event_log, replay
from verifier.refs.bootdoc import OPTIONAL

EXIT_MISSING = "tpm.boot.exit-missing"
MOST_PATTERN = 4096


def proven_state(data: bytes, bank: int, quoted: Mapping[int, bytes] | None, accepted: Collection[str]) -> BootState:
    """What the log ``data`` proves with the PCR values ``quoted``; with none, what it would prove if it is genuine.

    Raises ``Malformed`` and ``Untrusted`` (``tpm.log.*``).
    """
    log = read_event_log(data, ccel=is_ccel(data))
    if quoted is None:
        quoted = _all_registers(log, bank)
    proof = prove(log, bank, quoted, assume_exit=EXIT_MISSING in accepted)
    return boot_state(log, bank, proof.pcrs)


def _all_registers(log: EventLog, bank: int) -> dict[int, bytes]:
    """What the registers would hold: those that the log extends, and in a TPM the others as after a reset."""
    values = replay(log, bank)
    untouched = {} if log.ccel else {pcr: bytes(SIZES[bank]) for pcr in range(1, 16)}
    return {**untouched, **values}


def policy_of(state: BootState, *, accepted: Iterable[str] = (), without: Iterable[str] = ()) -> BootPolicy:
    """The demands that this boot meets; ``without`` names those that are left out (:data:`OPTIONAL`).

    Raises ``Malformed("ref.document")`` for names that do not exist, and ``Untrusted`` with the finding's name where
    the boot has one that no policy, or not this one, puts up with.
    """
    unknown = sorted({*without} - {*OPTIONAL} | {*accepted} - ACCEPTABLE)
    if unknown:
        raise Malformed(
            "ref.document", f"no demand can be left out, and no finding accepted, that is called {unknown[0]!r}"
        )
    secure = state.registers.secure in state.proven
    found: dict[str, Any] = {
        "required": (),
        "accepted": tuple(sorted({*accepted})),
        "secure_boot": _is(state, facts.SECURE_BOOT, facts.ON) and _is(state, facts.SETUP_MODE, facts.OFF),
        "deployed_mode": _is(state, facts.DEPLOYED_MODE, facts.ON),
        "dma_protection": secure and not state.all(facts.DMA),
        "no_debug": secure and not state.all(facts.DEBUG),
        **_secure(state, proven=secure),
        **_booted(state),
    }
    found = {name: value for name, value in found.items() if name not in {*without}}
    _check_patterns(found)
    policy = BootPolicy(**found)
    policy = BootPolicy.from_bytes(policy.to_bytes())
    check_boot(state, policy)
    return policy


def _check_patterns(found: Mapping[str, Any]) -> None:
    """A text that is longer than a pattern can be: the demand has to be left out, and the operator to say so."""
    for name in ("command_lines", "commands"):
        longest = max(map(len, found.get(name, ())), default=0)
        if longest > MOST_PATTERN:
            detail = f"one of {name} has {longest} characters, a pattern at most {MOST_PATTERN}: --without {name}"
            raise Malformed("ref.document", detail)


def _is(state: BootState, name: str, value: str) -> bool:
    fact = state.one(name)
    return fact is not None and fact.value == value


def _digests(state: BootState, name: str) -> tuple[bytes, ...]:
    return tuple(sorted({fact.raw for fact in state.all(name)}))


def _texts(state: BootState, *names: str) -> tuple[str, ...]:
    return tuple(sorted({fact.value for name in names for fact in state.all(name)}, key=str.encode))


def _secure(state: BootState, *, proven: bool) -> dict[str, Any]:
    """Demands on what the secure register holds."""
    found: dict[str, Any] = {}
    db, dbx, sbat = state.databases.get("db"), state.databases.get("dbx"), state.one(facts.SBAT)
    if dbx is not None:
        found["dbx_count"] = len(dbx.hashes)
    if db is not None and db.certificates and not db.hashes and not db.others:
        found["db_certificates"] = tuple(sorted({*db.certificates}))
    if proven and state.registers.closed:
        found["authorities"] = _digests(state, facts.AUTHORITY)
    if sbat is not None:
        found["sbat"] = int(sbat.value)
    return found


def _booted(state: BootState) -> dict[str, Any]:
    """Demands on what was started, loaded and read, as far as it is proven which that was."""
    registers, proven = state.registers, state.proven
    found: dict[str, Any] = {}
    if registers.mok != NOWHERE and registers.mok in proven:
        found["mok"] = _digests(state, facts.MOK)
    if state.all(facts.CRTM):
        found["crtm_versions"] = _texts(state, facts.CRTM)
    if state.all(facts.PLATFORM):
        found["platforms"] = _texts(state, facts.PLATFORM)
    if state.all(facts.APPLICATION):
        found["applications"] = _digests(state, facts.APPLICATION)
    if registers.drivers != registers.applications and registers.drivers in proven:
        found["drivers"] = _digests(state, facts.DRIVER)
    if registers.files <= proven:
        found["files"] = _digests(state, facts.FILE)
    if state.all(facts.SECTION):
        found["sections"] = _sections(state)
    if registers.texts <= proven and state.all(facts.COMMAND_LINE):
        found["command_lines"] = _texts(state, facts.COMMAND_LINE, facts.LOAD)
        found["commands"] = _texts(state, facts.COMMAND)
    return found


def _sections(state: BootState) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, set[bytes]] = {}
    for fact in state.all(facts.SECTION):
        found.setdefault(fact.value.split()[0], set()).add(fact.raw)
    return {name: tuple(sorted(found[name])) for name in sorted(found)}
