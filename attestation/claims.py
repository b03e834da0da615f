"""Claims: the result of appraising evidence, as an EAT Attestation Result (EAR, draft-ietf-rats-ear-04).

One submodule per part that was looked at: ``tpm``, ``workload``, later ``gpu0``... Each has a status and a
trustworthiness vector in the AR4SI scale, and the numbered checks that were made, in order, with their outcome.
A submodule whose last check failed is contraindicated, and the checks behind it are *not run*, never assumed.

Claims are derived; they are not signed by themselves. The grant carries them under the verifier's signature.
"""

from collections.abc import Mapping

from attestation.errors import Malformed
from attestation.wire import Wire, label, wire

PROFILE = "tag:interlock,2026:ear/1"

NONE, AFFIRMING, WARNING, CONTRAINDICATED = 0, 2, 32, 96
"""AR4SI trustworthiness tiers (draft-ietf-rats-ar4si, section 2.3.2)."""

INSTANCE_IDENTITY, CONFIGURATION, EXECUTABLES, HARDWARE = 0, 1, 2, 4
"""Indexes of the trustworthiness vector (draft-ietf-rats-ar4si, section 2.3.3)."""

PASS, FAIL, NOT_RUN, NOT_APPLICABLE = "pass", "fail", "not-run", "n/a"
BINDING_LEVELS = ("L0", "L1", "L2", "L3", "L4")
ASSURANCES = ("hardware", "test")


@wire
class Check(Wire):
    """One numbered check: its name, its outcome, and for a failure the reason code and what was seen."""

    name: str = label(1, most=64)
    outcome: str = label(2, most=16)
    reason: str | None = label(3, most=128, default=None)
    detail: str | None = label(4, most=2048, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown outcome, or a failure that has no reason."""
        if self.outcome not in (PASS, FAIL, NOT_RUN, NOT_APPLICABLE):
            raise Malformed("claims.outcome", f"{self.outcome!r} is no outcome of a check")
        if (self.outcome == FAIL) != (self.reason is not None):
            raise Malformed("claims.outcome", "a failed check has a reason, and only a failed one")


@wire
class Appraisal(Wire):
    """One EAR submodule. ``facts`` are text for people and policy; digests in them are lower-case hexadecimal."""

    status: int = label(1000, high=127)
    vector: Mapping[int, int] = label(1001, low=-128, high=127, most=8)
    checks: tuple[Check, ...] = label(-75101, most=128)
    facts: Mapping[str, str] = label(-75102, most=512)
    anchors: tuple[str, ...] = label(-75103, most=128, ordered=True)
    references: tuple[str, ...] = label(-75104, most=128, ordered=True)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed, in order."""
        return tuple([c for c in self.checks if c.outcome == FAIL])


def identities(submods: Mapping[str, Appraisal]) -> set[str]:
    """The GPUs and switches that have proven who they are, by the stable names that they have."""
    return {part.facts["identity"] for part in submods.values() if "identity" in part.facts}


@wire
class VerifierId(Wire):
    """Who appraised (EAR, section 3.3): the developer of the software and its build."""

    developer: str = label(0, most=128)
    build: str = label(1, most=128)


@wire
class Claims(Wire):
    """The EAR. ``assurance`` names the kind of roots relied on, ``binding`` the level (architecture, section 5)."""

    MAX_SIZE = 1 << 20

    issued: int = label(6)
    profile: str = label(265, most=128)
    submods: Mapping[str, Appraisal] = label(266, most=80)
    verifier: VerifierId = label(1004)
    assurance: str = label(-75010, most=16)
    binding: str = label(-75011, most=8)

    def check(self) -> None:
        """Raise ``Malformed`` for another profile, an unknown binding level or assurance, or no submodule."""
        if self.profile != PROFILE:
            raise Malformed("claims.profile", f"{self.profile!r} is not {PROFILE}")
        if self.binding not in BINDING_LEVELS or self.assurance not in ASSURANCES:
            raise Malformed("claims.level", f"binding {self.binding!r} or assurance {self.assurance!r} is unknown")
        if not self.submods:
            raise Malformed("claims.empty", "claims without a submodule say nothing")

    @property
    def status(self) -> int:
        """The worst status of all submodules; none counts as contraindicated."""
        return max(s.status if s.status != NONE else CONTRAINDICATED for s in self.submods.values())

    @property
    def failures(self) -> tuple[Check, ...]:
        """Every failed check, submodules in name order."""
        failed = [name for name, part in self.submods.items() if part.failures]
        return tuple(c for name in sorted(failed) for c in self.submods[name].failures)
