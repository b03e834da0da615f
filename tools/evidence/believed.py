"""What is believed of genuine TPM evidence, so that what comes of changed evidence can be compared with it.

Hints, the numbers of events and harmless findings are for people: nothing decides by them, nothing proves them, and so
they are no part of a result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from attestation.tpm.boot import facts
from attestation.tpm.boot.facts import OFF, ON, BootState, Fact
from attestation.tpm.boot.findings import ACCEPTABLE
from attestation.tpm.boot.kinds import NOWHERE
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.boot.variables import Database
from attestation.tpm.eventlog import REGISTERS, RUNTIME_PCRS, RUNTIME_REGISTERS, Proof
from attestation.tpm.ima.entry import BUF, Entry
from attestation.tpm.ima.policy import BOOT_AGGREGATE, PLAIN, STRONG, WEAK, ImaBuffer, ImaFiles, ImaPolicy, ImaRule
from attestation.tpm.ima.replay import ZEROES

TOLD = frozenset({facts.BOOT_VARIABLE, facts.DISK})
"""Facts that no list is compared with: where one is missed, a policy has less to go by, and nothing slips through."""

Told = tuple[str, str, bytes]


@dataclass(frozen=True)
class Boot:
    """What a log is believed to say: the registers that it explains, the facts of each in order, the databases."""

    proof: Proof
    facts: Mapping[int, tuple[Told, ...]]
    databases: Mapping[str, Database]

    @classmethod
    def of(cls, proof: Proof, state: BootState) -> "Boot":
        """Without what is for people."""
        registers = sorted({fact.pcr for fact in state.facts})
        told = {pcr: tuple(_told(fact) for fact in state.facts if fact.pcr == pcr) for pcr in registers}
        return cls(proof, told, state.databases)

    def is_part_of(self, genuine: object) -> bool:
        """Whether this is what the genuine log says, less some of what nothing is compared with.

        Registers that the operating system extends as well may be explained no more: whoever needs one misses it.
        """
        if not isinstance(genuine, Boot) or self.databases != genuine.databases:
            return False
        missed = genuine.proof.pcrs - self.proof.pcrs
        proof = replace(genuine.proof, pcrs=genuine.proof.pcrs - missed, unproven=genuine.proof.unproven | missed)
        runtime = RUNTIME_REGISTERS if genuine.proof.pcrs <= frozenset(REGISTERS) else RUNTIME_PCRS
        if self.proof != proof or not missed <= runtime:
            return False
        registers = self.facts.keys() | genuine.facts.keys()
        return all(_less(self.facts.get(pcr, ()), genuine.facts.get(pcr, ())) for pcr in registers)


def _told(fact: Fact) -> Told:
    return fact.name, fact.value, fact.raw


def _less(found: Iterable[Told], genuine: Iterable[Told]) -> bool:
    """`genuine` without some of its facts in `TOLD`, in the same order."""
    left = list(found)
    for fact in genuine:
        if left[:1] == [fact]:
            del left[0]
        elif fact[0] not in TOLD:
            return False
    return not left


def demands(state: BootState) -> BootPolicy:
    """The policy that demands all that this boot shows, and allows nothing else."""

    def values(name: str) -> tuple[str, ...] | None:
        return tuple(sorted({fact.value for fact in state.all(name)})) or None

    def digests(name: str, *, shown: bool = True) -> tuple[bytes, ...] | None:
        return tuple(sorted({fact.raw for fact in state.all(name)})) if shown else None

    registers, dbx, db = state.registers, state.databases.get("dbx"), state.databases.get("db")
    switch, setup, deployed = (state.one(name) for name in (facts.SECURE_BOOT, facts.SETUP_MODE, facts.DEPLOYED_MODE))
    level = state.one(facts.SBAT)
    texts = registers.texts <= state.proven
    own = registers.drivers != registers.applications
    sections: dict[str, tuple[bytes, ...]] = {}
    for fact in state.all(facts.SECTION):
        name = fact.value.split()[0]
        sections[name] = tuple(sorted({*sections.get(name, ()), fact.raw}))
    lines = {fact.value for fact in (*state.all(facts.COMMAND_LINE), *state.all(facts.LOAD))}
    return BootPolicy(
        required=tuple(sorted({fact.name for fact in state.facts})),
        accepted=tuple(sorted({finding.name for finding in state.findings} & ACCEPTABLE)),
        secure_boot=switch is not None and switch.value == ON and setup is not None and setup.value == OFF,
        deployed_mode=deployed is not None and deployed.value == ON,
        dma_protection=registers.secure in state.proven and not state.all(facts.DMA),
        no_debug=registers.secure in state.proven and not state.all(facts.DEBUG),
        dbx_count=None if dbx is None else len(dbx.hashes),
        dbx_hashes=None if dbx is None else tuple(sorted(dbx.hashes)),
        db_certificates=None if db is None or db.hashes or db.others else tuple(sorted({*db.certificates})),
        authorities=digests(facts.AUTHORITY, shown=registers.closed and registers.secure in state.proven),
        sbat=None if level is None else int(level.value),
        mok=digests(facts.MOK, shown=registers.mok != NOWHERE and registers.mok in state.proven),
        crtm_versions=values(facts.CRTM),
        platforms=values(facts.PLATFORM),
        applications=digests(facts.APPLICATION) or None,
        drivers=digests(facts.DRIVER, shown=own and registers.drivers in state.proven),
        files=digests(facts.FILE, shown=registers.files <= state.proven),
        sections=sections or None,
        command_lines=tuple(sorted(line for line in lines if line.split())) or None if texts else None,
        commands=values(facts.COMMAND) if texts else None,
    )


def listed(entries: Iterable[Entry]) -> ImaPolicy:
    """The policy that lists every entry as it stands there, and nothing else."""
    files: dict[str, set[tuple[bytes, bytes]]] = {}
    buffers: dict[bytes, set[bytes]] = {}
    rules, kexecs = set[bytes](), -1
    for entry in entries:
        if entry.template_digest == ZEROES:
            rules.add(entry.name)
        elif entry.template == BUF:
            buffers.setdefault(entry.name, set()).add(entry.digest)
        elif entry.name == BOOT_AGGREGATE:
            kexecs += 1
        elif entry.algorithm.decode() in STRONG + WEAK:
            files.setdefault(entry.algorithm.decode(), set()).add((entry.name, entry.digest))
    return replace(
        PLAIN,
        files=tuple(ImaFiles.of(algorithm, files[algorithm]) for algorithm in sorted(files)),
        rules=tuple(ImaRule(kind="literal", path=name, unchecked=("violation",)) for name in sorted(rules)),
        buffers=tuple(ImaBuffer(name=name, digests=tuple(sorted(buffers[name]))) for name in sorted(buffers)),
        most_kexecs=max(kexecs, 0),
        unsafe_algorithms=tuple(sorted(WEAK)),
        unsafe_padded=True,
    )
