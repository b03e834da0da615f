"""Checks 11 to 13 of :mod:`attestation.appraise`: what booted, and what ran since.

Where the node's pool has boot references, the event log has to explain the quoted PCRs, and what it proves has to meet
one of them; where it has an IMA reference, every file that the kernel measured has to be one that it allows. A pool
that has none is not held to it: the check is recorded as not applicable, and a policy may refuse that
(:data:`attestation.policy.CHECKS`). A reference that is only pending counts as none.

What a log says depends on the log and the quoted PCRs alone, so it is remembered: nearly every renewal shows the same.
It is remembered by the log's SHA-256, and no more than fits: any number of logs say the same, of a mebibyte each.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from attestation import claims as ear
from attestation.bench import Bench
from attestation.errors import Untrusted
from attestation.reference import IMA_PCR, USABLE, BootReference, has_expired, preferred
from attestation.remember import Remembered
from attestation.tpm.boot.check import CHECKS
from attestation.tpm.boot.facts import COMMAND_LINE, FILE, LOAD, BootState
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.boot.state import boot_state
from attestation.tpm.boot.told import told
from attestation.tpm.eventlog import PROVABLE, RUNTIME_PCRS, prove, read_event_log
from attestation.tpm.ima.appraise import ImaSubject
from attestation.tpm.ima.cmdline import verify_cmdline
from attestation.tpm.ima.once import verify_ima_once
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import boot_aggregates

BOOT_REFERENCE, IMA_REFERENCE = "boot-reference", "ima-reference"
_EXIT_MISSING = "tpm.boot.exit-missing"
MOST_DETAIL = 1024
_EACH, _HASH, _COMPARISON = 512, 96, 4096
"""About how many bytes a fact or finding takes, a hash in a database, and a comparison with its key."""


@dataclass(frozen=True, slots=True)
class _Quoted:
    """PCR values of a verified quote that an event log may explain, PCR 10 left out: IMA extends it for ever."""

    bank: int
    pcrs: tuple[tuple[int, bytes], ...]
    assume_exit: bool


@dataclass(frozen=True, slots=True)
class _Booted:
    """What one event log proves with one set of PCR values."""

    digest: bytes
    state: BootState
    told: Mapping[str, str]
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Compared:
    """How a boot met one policy: how many checks it passed before the one that failed, and that one's words."""

    passed: int
    reason: str = ""
    detail: str = ""


_boots = Remembered[_Booted](64 << 20)
_comparisons = Remembered[_Compared](8 << 20)


def event_log(bench: Bench) -> str | None:
    """(11) The event log explains every quoted PCR that it has to."""
    references = _boot_references(bench)
    if not references:
        return ear.NOT_APPLICABLE
    log = bench.record.event_log if bench.record.event_log is not None else bench.subject.event_log
    quoted = _quoted(bench, references)
    if all(pcr in RUNTIME_PCRS for pcr, _ in quoted.pcrs):
        raise Untrusted("tpm.log.unquoted", f"quoted are PCR {_listed(bench)}")
    if log is None:
        prove(None, quoted.bank, dict(quoted.pcrs))
        raise Untrusted("tpm.log.missing", "the host sent no event log, and none is kept of this boot")
    booted = _booted(log, quoted)
    bench.log = log
    bench.progress = replace(bench.progress, log=booted.digest)
    bench.facts["log"] = booted.digest.hex()
    bench.lines = booted.lines
    return None


def boot(bench: Bench) -> str | None:
    """(12) What the log proves meets a usable boot reference of the pool. A new grant tells what was proven."""
    references, log = _boot_references(bench), bench.log
    if log is None:  # there are no references, else check 11 would have failed
        return ear.NOT_APPLICABLE
    quoted = _quoted(bench, references)
    booted = _booted(log, quoted)
    if bench.subject.grant is None:
        bench.facts |= booted.told
    compared = [(_compared(booted, quoted, found.policy), found) for found in references]
    met = [found for result, found in compared if not result.reason]
    if met:
        bench.use(preferred(met, bench.subject.at), BOOT_REFERENCE)
        return None
    result, nearest = max(compared, key=lambda pair: (_is_usable(pair[1], bench.subject.at), pair[0].passed))
    raise Untrusted(result.reason, f"{nearest.name}: {result.detail}")


def ima(bench: Bench) -> str | None:
    """(13) The kernel's measurement list leads to the quoted PCR 10, and holds nothing that the reference refuses."""
    subject, record = bench.subject, bench.record
    reference = subject.references.list_of(subject.node.pool)
    if reference is None:
        return ear.NOT_APPLICABLE
    bench.use(reference, IMA_REFERENCE)
    policy = subject.ima
    if policy is None or policy.digest != reference.policy:
        raise Untrusted("tpm.ima.policy.missing", f"{reference.name}: no policy {reference.policy.hex()} is at hand")
    bank, here = subject.challenge.bank, bench.progress.boot
    if IMA_PCR not in record.pcrs:
        raise Untrusted("tpm.ima.unquoted", f"quoted are PCR {_listed(bench)}")
    if record.ima is None:
        raise Untrusted("tpm.ima.missing", "the host sent no measurement list")
    known = bench.progress.ima or ImaProgress.begin(boot=here, bank=bank, policy=policy.digest)
    asked = ImaSubject(
        boot=here,
        bank=bank,
        quoted=record.pcrs[IMA_PCR],
        start=record.ima_start or 0,
        aggregates=boot_aggregates({bank: record.pcrs}),
        cmdline=bench.lines[0] if bench.lines else None,
    )
    for line in bench.lines:
        verify_cmdline(policy.policy, line)
    before = known.resume(boot=here, bank=bank, policy=policy.digest)
    progress = verify_ima_once(record.ima, asked, before, policy)
    bench.progress = replace(bench.progress, ima=progress)
    bench.facts["ima.entries"] = str(progress.next)
    return None


def _listed(bench: Bench) -> str:
    return ", ".join(map(str, sorted(bench.record.pcrs)))


def _boot_references(bench: Bench) -> tuple[BootReference, ...]:
    return bench.subject.references.boots_of(bench.subject.node.pool)


def _is_usable(found: BootReference, at: int) -> bool:
    return found.state in USABLE and not has_expired(found, at)


def _quoted(bench: Bench, references: tuple[BootReference, ...]) -> _Quoted:
    """``assume_exit``: a usable reference accepts a log that lacks the events of ExitBootServices."""
    values = sorted((pcr, value) for pcr, value in bench.record.pcrs.items() if pcr in PROVABLE and pcr != IMA_PCR)
    at = bench.subject.at
    assume_exit = any(_EXIT_MISSING in found.policy.accepted for found in references if _is_usable(found, at))
    return _Quoted(bench.subject.challenge.bank, tuple(values), assume_exit)


def _booted(log: bytes, quoted: _Quoted) -> _Booted:
    """As :func:`_read`, remembered."""
    digest = hashlib.sha256(log).digest()
    return _boots.get((digest, quoted), lambda: _read(log, digest, quoted), _size)


def _size(booted: _Booted) -> int:
    """About how many bytes it takes."""
    state = booted.state
    hashes = sum(len(found.hashes) + len(found.certificates) for found in state.databases.values())
    texts = sum(len(fact.value) for fact in state.facts)
    return _EACH * (4 + len(state.facts) + len(state.findings)) + _HASH * hashes + 2 * texts


def _read(log: bytes, digest: bytes, quoted: _Quoted) -> _Booted:
    """Read, replay and interpret a log. Raises as :func:`read_event_log` and :func:`prove`."""
    read = read_event_log(log)
    proof = prove(read, quoted.bank, dict(quoted.pcrs), assume_exit=quoted.assume_exit)
    state = boot_state(read, quoted.bank, proof.pcrs)
    return _Booted(digest, state, told(state), _lines(state, {pcr for pcr, _ in quoted.pcrs}))


def _lines(state: BootState, quoted: Collection[int]) -> tuple[bytes, ...]:
    """Every line that the kernel may have been started with; none where a register of texts hides one.

    Labels are not measured, and who has root can extend a further line: so a command that loads something counts as
    well, and each has to be right.
    """
    texts = state.registers.texts
    if any(fact.pcr in texts for fact in state.all(FILE)) or not texts.intersection(quoted) <= state.proven:
        return ()
    return tuple(fact.value.encode() for name in (COMMAND_LINE, LOAD) for fact in state.all(name))


def _compared(booted: _Booted, quoted: _Quoted, policy: BootPolicy) -> _Compared:
    """As :func:`_hold`, remembered."""
    key = booted.digest, quoted, policy.digest
    return _comparisons.get(key, lambda: _hold(booted.state, policy), lambda _: _COMPARISON)


def _hold(state: BootState, policy: BootPolicy) -> _Compared:
    """Hold what a log proves against one policy, by its numbered checks."""
    for passed, (_, check) in enumerate(CHECKS):
        try:
            check(state, policy)
        except Untrusted as error:
            return _Compared(passed, error.reason, error.detail[:MOST_DETAIL])
    return _Compared(len(CHECKS))
