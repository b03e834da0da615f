"""A host with a TPM in software, enrolled, and everything that its evidence is appraised against.

Each part can be spoilt in one place, and only there: the rest stays coherent and truly signed.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from attestation.appraise import Subject, appraise
from attestation.claims import Check, Claims, VerifierId
from attestation.cose import ES256, Signer, SoftwareSigner
from attestation.evidence import TPM, TPM_TYPE, Cmw, Evidence, TpmRecord, qualifying_data, sign_evidence
from attestation.intent import Intent
from attestation.node import ClockRecord, NodeRecord
from attestation.reference import Baseline, References, ReferenceSet
from attestation.workload import WorkloadRecord
from fixtures.attester import CREATION, Permitted, SoftTpm
from fixtures.ca import TestCa
from fixtures.workload import Jobs
from tests.attestation.examples import BASELINE, CHALLENGE, CODE, ENVIRONMENT, INTENT, NODE, PCRS, REFERENCES, SHA256

VERIFIER = VerifierId(developer="interlock", build="test")
CA = TestCa()
POLICY = SoftwareSigner.generate(ES256)


def booted(tpm: SoftTpm) -> SoftTpm:
    """Measure a boot: every PCR of the policy gets a value of its own."""
    for pcr in PCRS:
        tpm.extend(pcr, bytes([pcr]) * 32)
    return tpm


@dataclass
class World:
    """One host and its enrolment. Change attributes, then :meth:`appraise`."""

    tpm: SoftTpm = field(default_factory=lambda: booted(SoftTpm(CA)))
    intent: Intent = INTENT
    challenge: Any = CHALLENGE
    grant: bytes | None = None
    at: int = CHALLENGE.issued
    event_log: bytes | None = None
    ima: tuple[int, bytes] | None = None
    """Number of the first entry that is sent, and the entries."""

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.tpm)
        self.holder_public = self.tpm.create_holder(POLICY.public).public
        self.signer: Signer = Permitted(self.tpm, POLICY)
        self.node: NodeRecord = replace(
            NODE,
            ak_public=self.tpm.ak.to_bytes(),
            holder_public=self.holder_public,
            firmware=self.tpm.firmware,
            policy=POLICY.public.spki,
            clock=ClockRecord(clock=1000, resets=1, restarts=0, safe=True),
        )
        pcrs = {SHA256: {pcr: (value,) for pcr, value in self.tpm.read_pcrs(SHA256, PCRS).items()}}
        self.baseline: Baseline = replace(BASELINE, pcrs=pcrs)
        self.references: References = replace(REFERENCES, baselines=(self.baseline,), approvals=(CODE, ENVIRONMENT))

    def qualifying(self, **changes: Any) -> bytes:
        """The bytes that this host's quote must carry."""
        parts: dict[str, Any] = {
            "nonce": self.challenge.nonce,
            "intent": self.intent.digest,
            "holder": self.signer.public.thumbprint,
            "gpus": (),
            "logs": (self.event_log, None if self.ima is None else self.ima[1]),
        }
        return qualifying_data(**{**parts, **changes})

    def record(self, **changes: Any) -> TpmRecord:
        """An honest TPM record, with fields replaced."""
        quote = self.tpm.quote(self.qualifying(), self.challenge.bank, self.challenge.pcrs)
        certified = self.tpm.certify_holder(b"")
        honest = TpmRecord(
            quote=quote.attest,
            signature=quote.signature,
            bank=self.challenge.bank,
            pcrs=dict(self.tpm.read_pcrs(self.challenge.bank, self.challenge.pcrs)),
            holder_public=self.holder_public,
            certify=certified.attest,
            certify_signature=certified.signature,
            creation=CREATION,
            event_log=self.event_log,
            ima=None if self.ima is None else self.ima[1],
            ima_start=None if self.ima is None else self.ima[0],
            workload=self.workload(),
        )
        return replace(honest, **changes)

    def workload(self, **changes: Any) -> WorkloadRecord | None:
        """The jobs that were measured, the one to be renewed among them; with fields replaced."""
        if self.grant is not None:
            self.jobs.ensure(self.grant, self.intent.code, self.intent.environment)
        shown = self.jobs.record(self.qualifying())
        return None if shown is None else replace(shown, **changes)

    def evidence(self, record: TpmRecord | None = None, *, signer: Signer | None = None, **changes: Any) -> bytes:
        """The signed evidence around ``record``, with fields replaced."""
        collection = {TPM: Cmw(TPM_TYPE, (record or self.record()).to_bytes())}
        honest = Evidence(
            collection=collection, grant=self.grant, nonce=self.challenge.nonce, intent=self.intent.digest
        )
        return sign_evidence(replace(honest, **changes), signer or self.signer)

    @property
    def subject(self) -> Subject:
        """What this host's evidence is appraised against."""
        return Subject(
            intent=self.intent,
            challenge=self.challenge,
            node=self.node,
            references=ReferenceSet(self.references),
            at=self.at,
            grant=self.grant,
        )

    def appraise(self, token: bytes | None = None) -> Claims:
        """Appraise ``token``, or honest evidence."""
        return appraise(self.evidence() if token is None else token, self.subject, verifier=VERIFIER)

    def failure(self, token: bytes | None = None) -> Check:
        """The one check that fails for ``token``."""
        (failed,) = self.appraise(token).failures
        return failed
