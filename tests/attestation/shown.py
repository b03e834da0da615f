"""A host that shows a boot event log and a measurement list, quoted by a TPM in software, to the whole appraisal."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from typing_extensions import override

from attestation.appraise import Subject, appraise_and_follow
from attestation.errors import Untrusted
from attestation.progress import HostProgress, boot_of
from attestation.reference import Baseline, BootReference, ImaReference
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.policy import CompiledPolicy
from attestation.tpm.ima.progress import ImaProgress
from fixtures.attester import SoftTpm
from tests.attestation.examples import CHALLENGE, SHA256
from tests.attestation.world import CA, VERIFIER, World

PCRS = tuple(range(16))
IMA_PCR = 10
HELD_TO = ("tpm.event-log", "tpm.boot", "tpm.ima")
USED: dict[str, Any] = {"name": "used", "pools": ("lab",), "state": "active", "provenance": "test"}


def _host() -> SoftTpm:
    return SoftTpm(CA)


@dataclass
class Shown(World):
    """A host whose TPM holds ``values``, and that is held to ``boot`` and to ``files``."""

    tpm: SoftTpm = field(default_factory=_host)
    values: Mapping[int, bytes] = field(default_factory=dict)
    boot: BootPolicy | None = None
    files: CompiledPolicy | None = None
    proven: ImaProgress | None = None

    @override
    def __post_init__(self) -> None:
        self.challenge = replace(CHALLENGE, pcrs=PCRS, wants=("event-log", "ima"))
        self.tpm.pcrs[SHA256].update(self.values)
        super().__post_init__()
        boots = () if self.boot is None else (BootReference(policy=self.boot, **USED),)
        lists = () if self.files is None else (ImaReference(policy=self.files.digest, **USED),)
        self.references = replace(self.references, baselines=self.baselines, boots=boots, lists=lists)

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """Equality of PCRs counts only where there is no reference for the boot."""
        pcrs = {SHA256: {pcr: (value,) for pcr, value in self.tpm.read_pcrs(SHA256, PCRS).items()}}
        return () if self.boot is not None else (replace(self.baseline, pcrs=pcrs),)

    @property
    @override
    def subject(self) -> Subject:
        here = boot_of(self.tpm.reset_count, self.tpm.restart_count)
        progress = None
        if self.proven is not None and self.proven.next:
            progress = HostProgress(boot=here, ima=replace(self.proven, boot=here))
        return replace(super().subject, ima=self.files, progress=progress)


def accepted(world: Shown) -> HostProgress | None:
    """What is proven of the host from now on. Raises ``Untrusted`` with the reason of the one check that fails."""
    followed = appraise_and_follow(world.evidence(), world.subject, verifier=VERIFIER)
    for failed in followed.claims.failures:
        assert failed.name in HELD_TO
        raise Untrusted(failed.reason or "", failed.detail or "")
    return followed.progress
