"""Checks 11 to 13 of attestation.appraise: logs of a genuine machine, in a software TPM that measured them.

Every refusal is of one thing that is not as it should be, and ends with the reason of exactly that.
"""

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from typing_extensions import override

from attestation import appraise_boot
from attestation import claims as ear
from attestation.appraise import Subject, appraise_and_follow
from attestation.asking import ask, is_still_asked
from attestation.challenge import Challenge
from attestation.claims import FAIL, NOT_APPLICABLE, NOT_RUN, PASS, Check
from attestation.decision import facts_from
from attestation.errors import Malformed
from attestation.node import ClockRecord
from attestation.policy import Settings
from attestation.progress import HostProgress, boot_of, merged
from attestation.reference import BootReference, ImaReference, ReferenceSet
from attestation.remember import Remembered
from attestation.tpm.boot import kinds
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.eventlog import read_event_log
from attestation.tpm.ima.policy import CompiledPolicy, ImaPolicy, compile_policy
from attestation.tpm.ima.progress import ImaProgress
from fixtures.attester import SoftTpm
from fixtures.measured import CAPTURED, Measured, captured, entry, policy_for
from tests.attestation.examples import CHALLENGE, ID, SHA256, digest
from tests.attestation.facts import USAGE
from tests.attestation.tpm.ima.lists import AGGREGATED
from tests.attestation.tpm.logs import LINE, LogMaker, honest
from tests.attestation.world import CA, VERIFIER, World

LOG, ENTRIES = captured()
PCRS = tuple(range(11))
SETTINGS = Settings(pcrs=PCRS, checks=dict.fromkeys(("ek-revocation", "event-log", "gpu", "ima"), "unchecked"))
DRIVERS = tuple(
    sorted(
        bytes.fromhex(text)
        for text in (
            "56fb69c5123f3f24a84227f315d75101297671f6b1814490f30c7847fbeb392d",
            "4e2896d7c3bc3b3283481f191e87f62a1e55a8f0178d164ac95d539de9522ec7",
            "240b7eb86763bad3be00c6cd60d0e7131aa59e4a5080244bd5330e0b1ed6037f",
        )
    )
)
DEMANDS = BootPolicy(
    required=("driver",),
    accepted=(),
    secure_boot=False,
    deployed_mode=False,
    dma_protection=True,
    no_debug=True,
    drivers=DRIVERS,
)
STRONGER = replace(DEMANDS, secure_boot=True)
BOOT = BootReference(name="vm-boot", pools=("lab",), policy=DEMANDS, state="active", provenance="captured")
ALLOWED = policy_for(ENTRIES)
IMA = ImaReference(name="vm-files", pools=("lab",), policy=ALLOWED.digest, state="active", provenance="captured")
SHA384 = 0x000C
PADDED = bytes.fromhex(json.loads(CAPTURED.read_text(encoding="utf-8"))["sha384"]["pcrs"]["10"])
"""PCR 10 of the captured machine in that bank."""
HELD_TO = ("tpm.event-log", "tpm.boot", "tpm.ima")
SOLD = entry(b"/usr/bin/sold", b"sold")


def _tpm() -> SoftTpm:
    return SoftTpm(CA)


@dataclass
class Machine(World):
    """The captured machine with a TPM in software. ``send`` honestly answers what the challenge asks for."""

    tpm: SoftTpm = field(default_factory=_tpm)
    allowed: ImaPolicy = ALLOWED
    progress: HostProgress | None = None
    kept: bytes | None = None
    settings: Settings = SETTINGS

    @override
    def __post_init__(self) -> None:
        self.host = Measured(self.tpm)
        self.host.boot()
        super().__post_init__()
        self.references = replace(self.references, baselines=(), boots=(BOOT,), lists=(IMA,))
        self.ask()

    def refer(self, **references: Any) -> None:
        """Put other reference values in force, and ask anew."""
        self.references = replace(self.references, **references)
        self.ask()

    def ask(self) -> Challenge:
        """Ask for what is not proven yet, and collect it."""
        challenge = ask(
            self.node,
            settings=self.settings,
            references=ReferenceSet(self.references),
            progress=self.progress,
            nonce=CHALLENGE.nonce,
            audience=CHALLENGE.audience,
            issued=CHALLENGE.issued,
            expires_in=30,
        )
        self.challenge = challenge
        self.send()
        return challenge

    def send(self) -> None:
        """What an honest agent sends."""
        wants, log = self.challenge.wants, self.host.log
        is_known = self.challenge.known_log == hashlib.sha256(log).digest()
        self.event_log = log if "event-log" in wants and not is_known else None
        here = boot_of(self.tpm.reset_count, self.tpm.restart_count)
        start = self.challenge.ima_next or 0 if self.challenge.ima_boot == here else 0
        self.ima = (start, self.host.list(start)) if "ima" in wants else None

    @property
    def compiled(self) -> CompiledPolicy:
        return compile_policy(self.allowed)

    @property
    @override
    def subject(self) -> Subject:
        kept = {"event_log": self.kept, "ima": self.compiled, "progress": self.progress}
        return replace(super().subject, **kept)  # type: ignore[arg-type]

    def follow(self) -> HostProgress:
        """Appraise honest evidence, and go on from what it proved."""
        followed = appraise_and_follow(self.evidence(), self.subject, verifier=VERIFIER)
        assert not followed.claims.failures, followed.claims.failures
        progress = followed.progress
        assert progress is not None
        self.progress, self.kept = progress, followed.event_log
        last = self.tpm.clock_ms
        self.node = replace(
            self.node, clock=ClockRecord(clock=last, resets=self.tpm.reset_count, restarts=0, safe=True)
        )
        self.ask()
        return progress

    def outcomes(self) -> dict[str, str]:
        """The outcome of each check of the host."""
        return {check.name: check.outcome for check in self.appraise().submods["tpm"].checks}


def _held(claims: ear.Claims) -> set[str]:
    return {check.outcome for check in claims.submods["tpm"].checks if check.name in HELD_TO}


def test_a_host_whose_boot_and_files_are_known_affirms() -> None:
    machine = Machine()
    tpm = machine.appraise().submods["tpm"]
    assert tpm.status == ear.AFFIRMING
    outcomes = machine.outcomes()
    assert outcomes["tpm.baseline"] == NOT_APPLICABLE
    assert [outcomes[name] for name in HELD_TO] == [PASS] * 3
    assert tpm.references == ("vm-boot", "vm-files")
    assert tpm.facts["boot.driver.1"].endswith("[event 3, PCR 2]")
    assert tpm.facts["log"] == hashlib.sha256(LOG).hexdigest()
    assert (tpm.facts["ima.entries"], tpm.facts["logs"]) == ("222", "event-log, ima")


def test_what_is_proven_is_not_sent_again() -> None:
    machine = Machine(grant=ID)
    assert (machine.challenge.wants, machine.challenge.known_log, machine.challenge.ima_next) == (
        ("event-log", "ima"),
        None,
        None,
    )
    first = machine.follow()
    assert first.log == hashlib.sha256(LOG).digest()
    assert first.ima is not None
    assert first.ima.next == first.ima.seen == 222
    assert (machine.event_log, machine.ima) == (None, (222, b""))
    assert machine.follow() == first  # nothing is new
    new = [machine.host.read(b"/new/%d" % number) for number in range(3)]
    machine.allowed = policy_for([*ENTRIES, *new])
    machine.refer(lists=(replace(IMA, policy=machine.allowed.digest),))
    assert machine.ima == (0, machine.host.list())  # another policy judges all entries
    third = machine.follow()
    assert third.ima is not None
    assert third.ima.next == 225
    machine.host.measure(ENTRIES[5])
    machine.ask()
    assert machine.ima == (225, ENTRIES[5])
    machine.follow()


def test_a_renewal_does_not_tell_the_boot_again() -> None:
    machine = Machine(grant=ID)
    facts = machine.appraise().submods["tpm"].facts
    assert not [name for name in facts if name.startswith("boot.")]
    assert facts["boot-reference.name"] == "vm-boot"


def test_after_a_reboot_the_whole_list_is_sent_and_the_log_where_it_changed() -> None:
    machine = Machine()
    machine.follow()
    machine.tpm.reboot()
    machine.host.boot(ENTRIES[:100])
    machine.ask()
    assert (machine.event_log, machine.ima) == (None, (0, b"".join(ENTRIES[:100])))
    again = machine.follow()
    assert again.boot == boot_of(2, 0)
    assert again.ima is not None
    assert again.ima.next == 100


def test_a_pool_without_references_is_not_held_to_them() -> None:
    world = World(event_log=b"log", ima=(0, b"list"))
    followed = appraise_and_follow(world.evidence(), world.subject, verifier=VERIFIER)
    assert _held(followed.claims) == {NOT_APPLICABLE}
    assert (followed.progress, followed.event_log) == (HostProgress(boot=boot_of(1, 0)), None)
    pending = replace(world.references, boots=(replace(BOOT, state="pending"),), lists=(replace(IMA, state="pending"),))
    world.references = pending
    assert _held(world.appraise()) == {NOT_APPLICABLE}


def test_a_pool_with_a_baseline_is_held_to_it_as_well_but_never_in_pcr_10() -> None:
    machine = Machine()
    values = {index: (machine.tpm.pcrs[SHA256][index],) for index in PCRS}
    baseline = replace(machine.baseline, pcrs={SHA256: values})
    machine.refer(baselines=(baseline,))
    assert set(machine.outcomes().values()) == {PASS}
    machine.host.measure(ENTRIES[3])
    machine.ask()
    assert set(machine.outcomes().values()) == {PASS}
    wrong = {**values, 4: (bytes(32),)}
    machine.refer(baselines=(replace(baseline, pcrs={SHA256: wrong}),))
    assert machine.failure().reason == "tpm.pcr.mismatch"


def test_a_pending_baseline_counts_as_none() -> None:
    machine = Machine()
    wrong = replace(machine.baseline, pcrs={SHA256: {4: (bytes(32),)}})
    machine.refer(baselines=(replace(wrong, state="retired"),))
    assert machine.failure().reason == "tpm.pcr.mismatch"
    machine.refer(baselines=(replace(wrong, state="pending"),))
    assert machine.outcomes()["tpm.baseline"] == NOT_APPLICABLE
    machine.refer(baselines=(replace(wrong, state="pending"),), boots=())
    assert machine.failure().reason == "tpm.pcr.mismatch", "no boot reference either"


def test_a_baseline_of_another_bank_is_no_reason_to_do_without() -> None:
    machine = Machine()
    machine.refer(baselines=(replace(machine.baseline, pcrs={0x000C: {0: (bytes(48),)}}),))
    assert machine.failure().reason == "ref.none"


def test_an_obsolete_reference_that_a_boot_does_not_meet_refuses_it() -> None:
    machine = Machine()
    machine.refer(boots=(replace(BOOT, policy=STRONGER, state="obsolete"),))
    assert machine.failure().reason == "tpm.boot.absent"


def test_an_obsolete_reference_is_a_warning_that_the_policy_sees() -> None:
    for changes in ({"boots": (replace(BOOT, state="obsolete"),)}, {"lists": (replace(IMA, state="obsolete"),)}):
        machine = Machine()
        machine.refer(**changes)
        claims = machine.appraise()
        assert claims.submods["tpm"].status == ear.WARNING
        known = {"kid": bytes(32), "node": machine.node, "usage": USAGE, "at": machine.at}
        assert facts_from(claims, machine.intent, None, **known).baseline == "obsolete"  # type: ignore[arg-type]


def test_the_checks_that_a_policy_may_require_have_passed() -> None:
    machine = Machine()
    known = {"kid": bytes(32), "node": machine.node, "usage": USAGE, "at": machine.at}
    facts = facts_from(machine.appraise(), machine.intent, None, **known)  # type: ignore[arg-type]
    assert facts.baseline == "active"
    assert {"event-log", "ima"} <= set(facts.passed)
    machine.refer(lists=())
    facts = facts_from(machine.appraise(), machine.intent, None, **known)  # type: ignore[arg-type]
    assert "event-log" in facts.passed
    assert "ima" not in facts.passed


def test_the_strongest_usable_reference_that_is_met_counts() -> None:
    machine = Machine()
    unmet = replace(BOOT, name="a-stronger", policy=STRONGER)
    revoked = replace(BOOT, name="too-weak", state="revoked")
    old, expired = replace(BOOT, name="old", state="obsolete"), replace(BOOT, name="expired", expires=machine.at)
    machine.refer(boots=(unmet, revoked, expired, old))
    assert machine.appraise().submods["tpm"].facts["boot-reference.name"] == "old"
    machine.refer(boots=(unmet, revoked, expired, old, BOOT))
    assert machine.appraise().submods["tpm"].facts["boot-reference.name"] == "vm-boot"


Spoil = Callable[[Machine], object]


def _boots(*boots: BootReference) -> Spoil:
    return lambda machine: machine.refer(boots=boots)


def _lists(**changes: Any) -> Spoil:
    return lambda machine: machine.refer(lists=(replace(IMA, **changes),))


def _read(path: bytes = b"/usr/bin/sold", *, follow: bool = True) -> Spoil:
    def spoil(machine: Machine) -> None:
        if follow:
            machine.follow()
        machine.host.read(path, b"sold")
        machine.ask()

    return spoil


def _sending(change: Callable[[Machine], None], *, follow: bool = False) -> Spoil:
    def spoil(machine: Machine) -> None:
        if follow:
            machine.follow()
        change(machine)

    return spoil


def _log(log: bytes | None) -> Spoil:
    def change(machine: Machine) -> None:
        machine.event_log = log

    return _sending(change)


def _list(start: int, data: bytes, *, follow: bool = False) -> Spoil:
    def change(machine: Machine) -> None:
        machine.ima = start, data

    return _sending(change, follow=follow)


def _no_list(machine: Machine) -> None:
    machine.ima = None


def _restarted_list(machine: Machine) -> None:
    """The list begins anew within a boot: PCR 10 goes on, and the host says nothing of it."""
    machine.follow()
    machine.host.entries = []
    machine.host.measure(*ENTRIES[:50])
    machine.ima = 0, machine.host.list()


def _rolled_back(machine: Machine) -> None:
    """The host had shown an entry that was not proven yet, and now shows fewer."""
    known = machine.follow()
    assert known.ima is not None
    machine.progress = replace(known, ima=replace(known.ima, seen=300))


def _lagging(machine: Machine) -> None:
    _rolled_back(machine)
    machine.ima = 222, b"".join(entry(b"/later/%d" % number, b"") for number in range(80))


def _other_machine(machine: Machine) -> None:
    """The log and list of another host."""
    machine.event_log = honest().to_bytes()


def _kept_of_another_boot(machine: Machine) -> None:
    """The host booted something else, and lets the verifier take the log that it has."""
    machine.follow()
    machine.tpm.reboot()
    machine.host.boot(ENTRIES)
    machine.tpm.extend(4, digest("bootkit"))
    machine.ask()


def _other_boots_list(machine: Machine) -> None:
    machine.follow()
    machine.tpm.reboot()
    machine.host.boot(ENTRIES)
    machine.ask()
    machine.ima = machine.challenge.ima_next, b""


def _uncovered(machine: Machine) -> None:
    machine.challenge = replace(machine.challenge, pcrs=PCRS[:-1])


def _only(*pcrs: int) -> Spoil:
    def spoil(machine: Machine) -> None:
        machine.challenge = replace(machine.challenge, pcrs=pcrs)

    return spoil


def _another_policy(machine: Machine) -> None:
    machine.allowed = policy_for(ENTRIES[:5])


def _with_policy(**changes: Any) -> Spoil:
    def spoil(machine: Machine) -> None:
        machine.allowed = policy_for(ENTRIES, **changes)
        machine.refer(lists=(replace(IMA, policy=machine.allowed.digest),))

    return spoil


def _extended(pcr: int) -> Spoil:
    return lambda machine: machine.tpm.extend(pcr, digest("rootkit"))


FLIPPED = bytes([LOG[0] ^ 1]) + LOG[1:]
REFUSED: dict[str, tuple[Spoil, str, str]] = {
    "no event log": (_log(None), "tpm.event-log", "tpm.log.missing"),
    "an empty event log": (_log(b""), "tpm.event-log", "tpm.log.empty"),
    "an event log cut short": (_log(LOG[:-20]), "tpm.event-log", "tpm.log.truncated"),
    "an event log without its last event": (
        _log(LOG[: read_event_log(LOG).events[-1].offset]),
        "tpm.event-log",
        "tpm.log.mismatch",
    ),
    "an event log with a bit changed": (_log(FLIPPED), "tpm.event-log", "tpm.log.spec-id"),
    "an event log of another machine": (_other_machine, "tpm.event-log", "tpm.log.mismatch"),
    "a kept log of another boot": (_kept_of_another_boot, "tpm.event-log", "tpm.log.mismatch"),
    "a measurement that is not logged": (_extended(4), "tpm.event-log", "tpm.log.mismatch"),
    "a quote without any PCR of the boot": (_only(10, 11, 12), "tpm.event-log", "tpm.log.unquoted"),
    "a boot that does not meet the reference": (_boots(replace(BOOT, policy=STRONGER)), "tpm.boot", "tpm.boot.absent"),
    "a boot with an unlisted driver": (
        _boots(replace(BOOT, policy=replace(DEMANDS, drivers=DRIVERS[:1]))),
        "tpm.boot",
        "tpm.boot.driver",
    ),
    "a boot that meets a retired reference alone": (_boots(replace(BOOT, state="retired")), "tpm.boot", "ref.retired"),
    "a boot that meets a revoked reference alone": (
        _boots(replace(BOOT, state="revoked"), replace(BOOT, name="b", state="retired")),
        "tpm.boot",
        "ref.revoked",
    ),
    "a boot that meets an expired reference alone": (
        _boots(replace(BOOT, expires=CHALLENGE.issued)),
        "tpm.boot",
        "ref.expired",
    ),
    "an expired IMA reference": (_lists(expires=CHALLENGE.issued), "tpm.ima", "ref.expired"),
    "a retired IMA reference": (_lists(state="retired"), "tpm.ima", "ref.retired"),
    "a revoked IMA reference": (_lists(state="revoked"), "tpm.ima", "ref.revoked"),
    "a policy that is not at hand": (_lists(policy=digest("lost")), "tpm.ima", "tpm.ima.policy.missing"),
    "a policy that the reference does not name": (_another_policy, "tpm.ima", "tpm.ima.policy.missing"),
    "a quote without PCR 10": (_uncovered, "tpm.ima", "tpm.ima.unquoted"),
    "no list": (_no_list, "tpm.ima", "tpm.ima.missing"),
    "an unknown file": (_read(), "tpm.ima", "tpm.ima.unlisted"),
    "an unknown file in the first list": (_read(follow=False), "tpm.ima", "tpm.ima.unlisted"),
    "a listed file with another content": (_read(ENTRIES[9][-20:-5]), "tpm.ima", "tpm.ima.unlisted"),
    "a list without its last entry": (_list(0, b"".join(ENTRIES[:-1])), "tpm.ima", "tpm.ima.mismatch"),
    "a list without its first entry": (_list(0, b"".join(ENTRIES[1:])), "tpm.ima", "tpm.ima.mismatch"),
    "a list with two entries exchanged": (
        _list(0, b"".join([*ENTRIES[:7], ENTRIES[8], ENTRIES[7], *ENTRIES[9:]])),
        "tpm.ima",
        "tpm.ima.mismatch",
    ),
    "a list cut in an entry": (_list(0, b"".join(ENTRIES)[:-5]), "tpm.ima", "tpm.ima.truncated"),
    "a list that starts too late": (_list(5, b"".join(ENTRIES[5:])), "tpm.ima", "tpm.ima.start"),
    "the whole list where the rest is asked for": (
        _list(0, b"".join(ENTRIES), follow=True),
        "tpm.ima",
        "tpm.ima.start",
    ),
    "the rest of another boot's list": (_other_boots_list, "tpm.ima", "tpm.ima.start"),
    "a list that was restarted without a reset": (_restarted_list, "tpm.ima", "tpm.ima.start"),
    "a list shorter than before": (_rolled_back, "tpm.ima", "tpm.ima.rollback"),
    "a quote that lags behind the list": (_lagging, "tpm.ima", "tpm.ima.no-progress"),
    "a measurement that is not listed": (_extended(10), "tpm.ima", "tpm.ima.mismatch"),
    "a denied file": (_with_policy(denied=(hashlib.sha256(b"x").digest(),), files=()), "tpm.ima", "tpm.ima.unlisted"),
    "a command line that nothing proves": (
        _with_policy(cmdline_required=("ima_policy=tcb",)),
        "tpm.ima",
        "tpm.ima.cmdline",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    spoil, check, reason = REFUSED[name]
    machine = Machine()
    spoil(machine)
    followed = appraise_and_follow(machine.evidence(), machine.subject, verifier=VERIFIER)
    (failed,) = followed.claims.failures
    assert (failed.name, failed.reason) == (check, reason)
    assert (followed.progress, followed.event_log) == (None, None)
    checks = followed.claims.submods["tpm"].checks
    behind = [c.outcome for c in checks[[c.name for c in checks].index(check) :]]
    assert behind == [FAIL, *[NOT_RUN] * (len(behind) - 1)]


def _failure(spoil: Spoil) -> Check:
    machine = Machine()
    spoil(machine)
    return machine.failure()


def test_a_refusal_says_what_was_seen() -> None:
    unlisted = _failure(_read()).detail or ""
    assert unlisted.startswith("entry 222, /usr/bin/sold: nothing speaks of this file, sha256:")
    driver = _failure(_boots(replace(BOOT, policy=replace(DEMANDS, drivers=DRIVERS[:1])))).detail or ""
    assert driver.startswith("vm-boot: event 3, PCR 2: 56fb69c5")
    assert (_failure(_extended(4)).detail or "").startswith("PCR 4: the log's 2 events lead to ")
    assert (_failure(_log(None)).detail or "").startswith("no log explains PCR 0, quoted ")


@pytest.mark.parametrize("unusable", [{"state": "retired"}, {"expires": CHALLENGE.issued}], ids=["retired", "expired"])
def test_the_nearest_usable_reference_is_the_one_that_is_named(unusable: dict[str, Any]) -> None:
    farther = replace(BOOT, name="farther", policy=replace(DEMANDS, required=("driver", "sbat-level")))
    nearer = replace(BOOT, name="nearer", policy=STRONGER)
    nearest = replace(BOOT, name="nearest", policy=replace(DEMANDS, drivers=()), **unusable)
    failed = _failure(_boots(farther, nearest, nearer))
    assert (failed.reason, (failed.detail or "")[:7]) == ("tpm.boot.absent", "nearer:")
    failed = _failure(_boots(nearest))
    assert (failed.reason, (failed.detail or "")[:8]) == ("tpm.boot.driver", "nearest:")


def test_without_the_policy_nothing_of_the_list_is_believed() -> None:
    machine = Machine()
    subject = replace(machine.subject, ima=None)
    (failed,) = appraise_and_follow(machine.evidence(), subject, verifier=VERIFIER).claims.failures
    assert failed.reason == "tpm.ima.policy.missing"


def test_a_host_without_any_measurement_and_without_a_log_is_refused() -> None:
    machine = Machine()
    machine.tpm.reboot()
    machine.event_log = None
    assert machine.failure().reason == "tpm.log.missing"
    assert (machine.failure().detail or "").startswith("the host sent no event log")


def _booted(machine: Machine, log: LogMaker) -> None:
    """Boot another log, made to measure."""
    machine.tpm.reboot()
    machine.host.log = log.to_bytes()
    machine.host.boot([])
    values = machine.tpm.pcrs[SHA256]
    aggregate = hashlib.sha256(b"".join(values[pcr] for pcr in range(10))).digest()
    machine.host.measure(replace(AGGREGATED, digest=aggregate).raw())


def _lenient(**changes: Any) -> BootReference:
    demands = replace(DEMANDS, required=("application",), drivers=None, dma_protection=False, no_debug=False)
    return replace(BOOT, policy=replace(demands, **changes))


def test_the_command_line_that_the_log_proves_is_what_the_ima_policy_sees() -> None:
    for words, reason in ((("quiet",), None), (("ima_policy=tcb",), "tpm.ima.cmdline")):
        machine = Machine()
        _booted(machine, honest())
        machine.allowed = policy_for((), files=(), cmdline_required=words)
        machine.refer(boots=(_lenient(),), lists=(replace(IMA, policy=machine.allowed.digest),))
        assert [check.reason for check in machine.appraise().failures] == ([] if reason is None else [reason])
    assert "quiet" in LINE


def _another_line(log: LogMaker) -> LogMaker:
    """Who has root extends the line that is wanted, after a boot with another one."""
    wanted = f"{LINE} ima_policy=tcb".encode()
    return log.add(8, kinds.IPL, b"kernel_cmdline: " + wanted + b"\0", wanted)


def _relabelled(log: LogMaker) -> LogMaker:
    """The line of the boot is passed off as a command."""
    row = log.find(b"kernel_cmdline")
    row.data = row.data.replace(b"kernel_cmdline: ", b"grub_cmd: ")
    return log


def _blurred(log: LogMaker) -> LogMaker:
    """What the line of the boot was, and the command that gave it, is not told at all."""
    for row in (log.find(b"kernel_cmdline"), log.find(b"grub_cmd: linux")):
        row.data = b"?"
    return log


def _as_wanted() -> LogMaker:
    log = honest()
    for row in (log.find(b"kernel_cmdline"), log.find(b"grub_cmd: linux")):
        row.data, row.measured = row.data[:-1] + b" ima_policy=tcb\0", row.measured + b" ima_policy=tcb"
    return log


LINES: dict[str, tuple[LogMaker, tuple[str, ...]]] = {
    "the line that is wanted": (_as_wanted(), ()),
    "a second line": (_another_line(honest()), ("tpm.ima.cmdline",)),
    "a second line, the first a command": (_another_line(_relabelled(honest())), ("tpm.ima.cmdline",)),
    "a second line, the first hidden": (_another_line(_blurred(honest())), ("tpm.ima.cmdline",)),
    "the line that is wanted, and a text hidden": (
        _as_wanted().add(8, kinds.IPL, b"?", b"quiet"),
        ("tpm.ima.cmdline",),
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_command_line_that_root_adds_after_the_boot_proves_nothing(name: str) -> None:
    log, reasons = LINES[name]
    machine = Machine()
    _booted(machine, log)
    machine.allowed = policy_for((), files=(), cmdline_required=("ima_policy=tcb",))
    machine.refer(boots=(_lenient(),), lists=(replace(IMA, policy=machine.allowed.digest),))
    assert tuple(check.reason for check in machine.appraise().failures) == reasons


def test_a_command_line_is_not_proven_while_a_quoted_register_of_lines_is_not() -> None:
    """systemd measures lines in PCR 12: one that is quoted there, and that no log explains, may be any."""
    machine = Machine(settings=replace(SETTINGS, pcrs=(*PCRS, 12)))
    _booted(machine, _as_wanted())
    machine.allowed = policy_for((), files=(), cmdline_required=("ima_policy=tcb",))
    machine.refer(boots=(_lenient(),), lists=(replace(IMA, policy=machine.allowed.digest),))
    assert machine.appraise().failures == ()
    machine.tpm.extend(12, digest("a line"))
    assert machine.failure().reason == "tpm.ima.cmdline"


def test_any_number_of_logs_that_say_the_same_take_no_more_memory_than_one_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the last event is not measured, so a host can send another log of a mebibyte each time."""
    boots, comparisons = Remembered[Any](64 << 10), Remembered[Any](16 << 10)
    monkeypatch.setattr(appraise_boot, "_boots", boots)
    monkeypatch.setattr(appraise_boot, "_comparisons", comparisons)
    machine, started = Machine(), None
    tracemalloc.start()
    for number in range(1, 12):
        machine.host.log = LOG + bytes((1 << 19) + number)
        machine.send()
        assert machine.appraise().failures == ()
        del machine.event_log, machine.host.log
        taken, _ = tracemalloc.get_traced_memory()
        started = started or taken
        assert taken - started < 1 << 19
    tracemalloc.stop()
    assert 0 < len(boots) < 11
    assert len(comparisons) == 4


def test_a_log_without_exit_boot_services_is_assumed_only_where_a_reference_accepts_that() -> None:
    machine = Machine()
    log = honest()
    rows = [row for row in log.rows if b"Exit Boot Services" in row.data]
    assert rows
    _booted(machine, log)
    log.rows = [row for row in log.rows if row not in rows]
    machine.host.log = log.to_bytes()
    machine.refer(boots=(_lenient(),), lists=())
    assert machine.failure().reason == "tpm.log.mismatch"
    machine.refer(boots=(_lenient(accepted=("tpm.boot.exit-missing",)),))
    assert machine.appraise().failures == ()
    machine.refer(boots=(_lenient(accepted=("tpm.boot.exit-missing",)), replace(_lenient(), name="strict")))
    assert machine.appraise().submods["tpm"].facts["boot-reference.name"] == "vm-boot"
    for unusable in ({"state": "retired"}, {"expires": machine.at}):
        accepting = replace(_lenient(accepted=("tpm.boot.exit-missing",)), name="old", **unusable)
        machine.refer(boots=(accepting, _lenient()))
        assert machine.failure().reason == "tpm.log.mismatch"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "tpm.ima.padded"),
        ({"unsafe_padded": True}, "tpm.ima.boot-aggregate"),
        ({"unsafe_padded": True, "boot_aggregate": "unchecked"}, None),
    ],
    ids=["not accepted", "accepted, and another bank's boot_aggregate", "both excused"],
)
def test_a_bank_into_which_the_captured_kernel_extends_sha1(changes: dict[str, Any], reason: str | None) -> None:
    """Debian's Linux 6.1 has no SHA-384 when IMA starts, and its boot_aggregate is of the SHA-256 bank."""
    machine = Machine(settings=replace(SETTINGS, bank=SHA384))
    machine.tpm.pcrs[SHA384][10] = PADDED
    machine.allowed = policy_for(ENTRIES, **changes)
    boot = replace(BOOT, policy=replace(DEMANDS, drivers=None))
    machine.refer(boots=(boot,), lists=(replace(IMA, policy=machine.allowed.digest),))
    assert [check.reason for check in machine.appraise().failures] == ([] if reason is None else [reason])


def test_a_challenge_is_outdated_where_another_would_be_asked() -> None:
    machine = Machine()
    machine.follow()
    known = {"settings": SETTINGS, "progress": machine.progress}
    references = ReferenceSet(machine.references)
    assert is_still_asked(machine.challenge, machine.node, references=references, **known)  # type: ignore[arg-type]
    for other in ({"boots": ()}, {"lists": ()}, {"lists": (replace(IMA, policy=digest("other")),)}):
        changed = ReferenceSet(replace(machine.references, **other))
        assert not is_still_asked(machine.challenge, machine.node, references=changed, **known)  # type: ignore[arg-type]
    pcrs = replace(SETTINGS, pcrs=PCRS[1:])
    assert not is_still_asked(
        machine.challenge, machine.node, settings=pcrs, references=references, progress=machine.progress
    )
    assert not is_still_asked(machine.challenge, machine.node, settings=SETTINGS, references=references, progress=None)


def test_jobs_that_were_measured_are_asked_for_from_there_on() -> None:
    machine = Machine()
    machine.progress = HostProgress(boot=boot_of(1, 0), workload_count=3, workload_value=digest("jobs"))
    challenge = machine.ask()
    assert (challenge.workload_boot, challenge.workload_next) == (boot_of(1, 0), 3)


def _seen(count: int, *, boot: int = 1, policy: str = "policy", seen: int | None = None) -> HostProgress:
    begun = ImaProgress.begin(boot=boot_of(boot, 0), bank=SHA256, policy=digest(policy))
    return HostProgress(
        boot=begun.boot,
        ima=replace(begun, next=count, seen=count if seen is None else seen, extension="hashed", digest=digest("x")),
    )


MERGED: dict[str, tuple[HostProgress | None, HostProgress, HostProgress]] = {
    "the first": (None, _seen(3), _seen(3)),
    "further": (_seen(3), _seen(5), _seen(5)),
    "not as far": (_seen(5), _seen(3), _seen(5)),
    "as far, and more was shown": (_seen(5, seen=5), _seen(5, seen=9), _seen(5, seen=9)),
    "another policy": (_seen(5), _seen(3, policy="other"), _seen(3, policy="other")),
    "a later boot": (_seen(5), _seen(3, boot=2), _seen(3, boot=2)),
    "an earlier boot": (_seen(5, boot=2), _seen(9), _seen(5, boot=2)),
    "nothing of the list": (_seen(5), replace(_seen(5), ima=None), _seen(5)),
    "for the first time of the list": (replace(_seen(5), ima=None), _seen(5), _seen(5)),
    "nothing of the log": (replace(_seen(5), log=digest("log")), _seen(6), replace(_seen(6), log=digest("log"))),
    "another log": (
        replace(_seen(5), log=digest("log")),
        replace(_seen(5), log=digest("gol")),
        replace(_seen(5), log=digest("gol")),
    ),
    "more jobs": (
        replace(_seen(9), workload_count=1, workload_value=digest("1")),
        replace(_seen(5), workload_count=2, workload_value=digest("2")),
        replace(_seen(9), workload_count=2, workload_value=digest("2")),
    ),
    "fewer jobs": (
        replace(_seen(5), workload_count=2, workload_value=digest("2")),
        replace(_seen(9), workload_count=1, workload_value=digest("1")),
        replace(_seen(9), workload_count=2, workload_value=digest("2")),
    ),
}


@pytest.mark.parametrize("name", MERGED)
def test_progress_only_goes_forward(name: str) -> None:
    known, proven, expected = MERGED[name]
    assert merged(known, proven) == expected


def test_progress_has_one_encoding() -> None:
    with pytest.raises(Malformed):
        HostProgress.from_bytes(_seen(5).to_bytes()[:-1])
    assert HostProgress.from_bytes(_seen(5).to_bytes()) == _seen(5)


def test_entries_after_the_quote_are_neither_judged_nor_proven() -> None:
    machine = Machine()
    machine.follow()
    machine.ima = 222, SOLD
    followed = appraise_and_follow(machine.evidence(), machine.subject, verifier=VERIFIER)
    progress = followed.progress
    assert not followed.claims.failures
    assert progress is not None
    assert progress.ima is not None
    assert (progress.ima.next, progress.ima.seen) == (222, 223)


def test_the_captured_machine_is_whole() -> None:
    assert (len(LOG), len(ENTRIES)) == (1661, 222)
