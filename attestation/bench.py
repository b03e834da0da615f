"""What one appraisal stands on: the :class:`Subject` that was given, and the :class:`Bench` that its checks work at.

Each part of a bench is set by the check that proves it (:mod:`attestation.appraise`), so a check that needs a part
comes behind the one that proves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from attestation import claims as ear
from attestation.challenge import Challenge
from attestation.cose import UntrustedSign1
from attestation.errors import Untrusted
from attestation.evidence import Cmw, Evidence, TpmRecord
from attestation.gpu.collateral import EMPTY, Collateral
from attestation.gpu.policy import GpuPolicy
from attestation.intent import Intent
from attestation.node import NodeRecord
from attestation.progress import HostProgress
from attestation.reference import USABLE, Approval, Baseline, BootReference, ImaReference, ReferenceSet, has_expired
from attestation.tpm.ima.policy import CompiledPolicy
from attestation.tpm.quote import Quote
from attestation.tpm.structures import Public
from attestation.workload import WorkloadEntry

Read = tuple[Evidence, UntrustedSign1]
"""What :func:`attestation.evidence.read_evidence` makes of a token: read, and not believed."""

_EXPIRED = {"ref": "ref.expired", "code": "code.expired", "environment": "environment.expired"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What the evidence is appraised against. ``grant`` is the grant to be renewed, ``at`` Unix seconds.

    ``gpus`` is what the policy demands of GPUs, ``collateral`` what others say about them. ``progress`` is what was
    proven of the host when the challenge was issued, ``event_log`` the log that was kept then, for evidence that sends
    none. ``ima`` is the policy that the pool's IMA reference names.
    """

    intent: Intent
    challenge: Challenge
    node: NodeRecord
    references: ReferenceSet
    at: int
    grant: bytes | None = None
    gpus: GpuPolicy | None = None
    collateral: Collateral = EMPTY
    event_log: bytes | None = None
    ima: CompiledPolicy | None = None
    progress: HostProgress | None = None


@dataclass(slots=True)
class Bench:
    """What the checks have established so far, each part set by the check that proves it.

    ``progress`` is what is proven of this boot by now, ``log`` the event log that explains the quote, ``lines`` the
    command lines that the kernel may have been started with, where the log proves them, and ``jobs`` what was measured
    since the progress that was known.
    """

    token: bytes | Read
    subject: Subject
    facts: dict[str, str] = field(default_factory=dict)
    status: int = ear.AFFIRMING
    references: set[str] = field(default_factory=set)
    devices: Sequence[tuple[str, Cmw]] = ()
    log: bytes | None = None
    lines: tuple[bytes, ...] = ()
    jobs: tuple[WorkloadEntry, ...] = ()
    evidence: Evidence = field(init=False)
    record: TpmRecord = field(init=False)
    holder: Public = field(init=False)
    qualifying: bytes = field(init=False)
    quote: Quote = field(init=False)
    progress: HostProgress = field(init=False)

    def use(self, found: Baseline | BootReference | ImaReference | Approval, kind: str) -> None:
        """Rest on a reference value: it counts while it is active, or with a warning while it is obsolete.

        Raises ``Untrusted``. That it was revoked is said first: a value known to be bad stays a hard refusal when it
        expires as well.
        """
        self.facts[f"{kind}.name"], self.facts[f"{kind}.state"] = found.name, found.state
        self.references.add(found.name)
        family = kind if isinstance(found, Approval) else "ref"
        if found.state != "revoked" and has_expired(found, self.subject.at):
            raise Untrusted(_EXPIRED[family], f"{kind} {found.name} expired")
        if found.state not in USABLE:
            raise Untrusted(f"{family}.{found.state}", f"{kind} {found.name} is {found.state}: {found.provenance}")
        if found.state != "active":
            self.status = max(self.status, ear.WARNING)
