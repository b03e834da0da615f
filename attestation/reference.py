"""Reference values: what hosts and workloads are compared with.

A *baseline* names the PCR values of one way to boot; a *boot reference* says what a boot event log has to prove; an
*IMA reference* names the list of files that a kernel may have measured; an *approval* names the digest of a code tree
or of an environment. Each carries a state and its provenance:

======== ==========================================================================
pending  recorded, not usable yet
active   matches
obsolete still matches, the result is a warning (policy may refuse it)
retired  no longer matches; the refusal says so
revoked  matched once and is known to be bad: a hard refusal
======== ==========================================================================

Nothing matches by default: without a baseline or a boot reference no host passes. No baseline is compared in PCR 10,
which IMA extends with every file: what is in it, an IMA reference says.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from attestation.errors import Malformed
from attestation.tpm.boot.policy import BootPolicy
from attestation.wire import Wire, label, wire

STATES = ("pending", "active", "obsolete", "retired", "revoked")
USABLE = ("active", "obsolete")
_PENDING = "pending"
KINDS = ("code", "environment")
IMA_PCR = 10


_NO_DEMANDS = BootPolicy(
    required=(), accepted=(), secure_boot=False, deployed_mode=False, dma_protection=False, no_debug=False
)


def _check_state(state: str) -> None:
    if state not in STATES:
        raise Malformed("ref.state", f"{state!r} is not one of {', '.join(STATES)}")


@wire
class Baseline(Wire):
    """PCR values of one way to boot: ``pcrs`` maps a bank (TPM_ALG_ID) to index to the digests allowed there."""

    name: str = label(1, most=128)
    pools: tuple[str, ...] = label(2, most=256, ordered=True)
    pcrs: Mapping[int, Mapping[int, tuple[bytes, ...]]] = label(3, most=64)
    state: str = label(4, most=16)
    provenance: str = label(5, most=512)
    expires: int | None = label(6, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown state, and for a baseline that would match anything."""
        _check_state(self.state)
        if not self.pcrs or not all(self.pcrs.values()):
            raise Malformed("ref.empty", f"baseline {self.name} names no PCR value")


@wire
class Approval(Wire):
    """The digest of a code tree or an environment that may run, by name."""

    kind: str = label(1, most=16)
    digest: bytes = label(2, size=32)
    name: str = label(3, most=128)
    state: str = label(4, most=16)
    provenance: str = label(5, most=512)
    expires: int | None = label(6, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown kind or state."""
        _check_state(self.state)
        if self.kind not in KINDS:
            raise Malformed("ref.kind", f"{self.kind!r} is not one of {', '.join(KINDS)}")


@wire
class BootReference(Wire):
    """What the boot event log of a host of these pools has to prove (:mod:`attestation.tpm.boot.policy`)."""

    name: str = label(1, most=128)
    pools: tuple[str, ...] = label(2, most=256, ordered=True)
    policy: BootPolicy = label(3)
    state: str = label(4, most=16)
    provenance: str = label(5, most=512)
    expires: int | None = label(6, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown state, and for a policy that any boot would meet."""
        _check_state(self.state)
        if replace(self.policy, accepted=()) == _NO_DEMANDS:
            raise Malformed("ref.empty", f"boot reference {self.name} demands nothing")


@wire
class ImaReference(Wire):
    """What the kernels of these pools may have measured: ``policy`` is the SHA-256 of an archived ``ImaPolicy``."""

    name: str = label(1, most=128)
    pools: tuple[str, ...] = label(2, most=256, ordered=True)
    policy: bytes = label(3, size=32)
    state: str = label(4, most=16)
    provenance: str = label(5, most=512)
    expires: int | None = label(6, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown state."""
        _check_state(self.state)


@wire
class References(Wire):
    """All reference values in force, one version after another. A name of ``baselines``, ``boots`` and ``lists``
    occurs once among all three, an approved (kind, digest) once. A pool has at most one list that is usable."""

    MAX_SIZE = 16 << 20
    MAX_ITEMS = 2_000_000

    version: int = label(1)
    baselines: tuple[Baseline, ...] = label(2, most=10_000)
    approvals: tuple[Approval, ...] = label(3, most=100_000)
    boots: tuple[BootReference, ...] = label(4, most=1000, sparse=True, default=())
    lists: tuple[ImaReference, ...] = label(5, most=1000, sparse=True, default=())

    def check(self) -> None:
        """Raise ``Malformed`` where two entries would answer the same question."""
        names = [*(b.name for b in self.baselines), *(b.name for b in self.boots), *(i.name for i in self.lists)]
        digests = {(a.kind, a.digest) for a in self.approvals}
        if len(set(names)) != len(names) or len(digests) != len(self.approvals):
            raise Malformed("ref.duplicate", "a name or an approved digest occurs twice")
        pools = [pool for found in self.lists if found.state in USABLE for pool in found.pools]
        if len(set(pools)) != len(pools):
            raise Malformed("ref.duplicate", "a pool has two IMA references that are active or obsolete")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One PCR that differs from the nearest baseline."""

    baseline: str
    index: int
    expected: tuple[bytes, ...]
    seen: bytes

    @property
    def text(self) -> str:
        """The difference in one line."""
        wanted = " or ".join(d.hex() for d in self.expected) or "no value"
        return f"PCR {self.index}: expected {wanted} (baseline {self.baseline}), seen {self.seen.hex()}"


class ReferenceSet:
    """References ready for look-ups: encoded and hashed once, approvals by digest."""

    def __init__(self, references: References) -> None:
        self.references = references
        self.encoded = references.to_bytes()
        self.digest = hashlib.sha256(self.encoded).digest()
        self._approvals = {(a.kind, a.digest): a for a in references.approvals}
        self._compared = frozenset(pool for b in references.baselines if b.state != _PENDING for pool in b.pools)
        self._boots = _by_pool(references.boots)
        self._lists = {pool: min(found, key=_first_choice) for pool, found in _by_pool(references.lists).items()}

    @classmethod
    def from_bytes(cls, data: bytes) -> "ReferenceSet":
        """Read encoded references. Raises ``Malformed``."""
        return cls(References.from_bytes(data))

    def approval(self, kind: str, digest: bytes) -> Approval | None:
        """The approval of this digest, or ``None``."""
        return self._approvals.get((kind, digest))

    def has_baseline(self, pool: str) -> bool:
        """Whether a baseline names ``pool``, in whatever bank; pending ones aside."""
        return pool in self._compared

    def boots_of(self, pool: str) -> tuple[BootReference, ...]:
        """The boot references of ``pool``, without those that are pending."""
        return self._boots.get(pool, ())

    def list_of(self, pool: str) -> ImaReference | None:
        """The IMA reference of ``pool`` that is usable; where none is, one that says why not; pending ones aside."""
        return self._lists.get(pool)

    def match(self, pool: str, bank: int, values: Mapping[int, bytes], *, at: int) -> Baseline | tuple[Mismatch, ...]:
        """The baseline of ``pool`` whose PCRs all equal ``values``, else what differs from the nearest one.

        Where several match, the one in the best state counts, in the order active, obsolete, pending, retired, and
        one that has not expired at ``at`` (Unix seconds) before one that has. But a revoked match always wins: a value
        known to be bad is never excused by another baseline.

        An empty tuple means that the pool has no baseline in this bank.
        """
        matched: list[Baseline] = []
        nearest: tuple[Mismatch, ...] = ()
        for baseline in self.references.baselines:
            if pool not in baseline.pools or bank not in baseline.pcrs:
                continue
            wrong = _mismatches(baseline, bank, values)
            if not wrong:
                matched.append(baseline)
            elif not nearest or len(wrong) < len(nearest):
                nearest = wrong
        if not matched:
            return nearest
        return min(matched, key=lambda b: (b.state != _REVOKED, has_expired(b, at), _PREFERENCE.index(b.state)))


_REVOKED = "revoked"
_PREFERENCE = ("active", "obsolete", "pending", "retired", _REVOKED)


_CHOICE = ("active", "obsolete", _REVOKED, "retired")
Described = TypeVar("Described", BootReference, ImaReference)


def _first_choice(found: BootReference | ImaReference) -> int:
    return _CHOICE.index(found.state)


def _by_pool(references: Iterable[Described]) -> dict[str, tuple[Described, ...]]:
    found: dict[str, list[Described]] = {}
    for reference in references:
        for pool in reference.pools if reference.state != "pending" else ():
            found.setdefault(pool, []).append(reference)
    return {pool: tuple(named) for pool, named in found.items()}


def preferred(found: Iterable[BootReference], at: int) -> BootReference:
    """The boot reference to rest on, of those that a boot meets: one that has not expired, in the best state.

    Unlike a baseline, a revoked one does not win: it is a set of demands that was found too weak, and a boot that meets
    stronger ones may well meet it too.
    """
    return min(found, key=lambda reference: (has_expired(reference, at), _first_choice(reference)))


def has_expired(found: Baseline | BootReference | ImaReference | Approval, at: int) -> bool:
    """Whether a reference value has an end, and it has come by ``at`` (Unix seconds)."""
    return found.expires is not None and at >= found.expires


def _mismatches(baseline: Baseline, bank: int, values: Mapping[int, bytes]) -> tuple[Mismatch, ...]:
    """What differs, in both directions: a PCR that was quoted and is not in the baseline differs too. PCR 10 aside."""
    expected = baseline.pcrs[bank]
    wrong = []
    for index in sorted((expected.keys() | values.keys()) - {IMA_PCR}):
        seen, wanted = values.get(index, b""), expected.get(index, ())
        if seen not in wanted:
            wrong.append(Mismatch(baseline.name, index, wanted, seen))
    return tuple(wrong)
