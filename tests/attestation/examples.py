"""One good example of every object, for tests that spoil it in one place."""

import hashlib
from dataclasses import replace
from typing import Any

from attestation import claims as ear
from attestation.challenge import Challenge
from attestation.claims import Appraisal, Check, Claims, VerifierId
from attestation.cose import ES256, SoftwareSigner
from attestation.enrol import (
    EnrolChallenge,
    Enrolled,
    EnrolProof,
    EnrolRequest,
    EnrolToken,
    VerifierKeys,
)
from attestation.evidence import Cmw, Evidence, HostRecord, TpmRecord
from attestation.grant import Authorization, Conditions, Confirmation, Grant, holder_key
from attestation.intent import Children, GpuRequest, Intent, Limits
from attestation.lease import FIRST_PREVIOUS, Lease, TpmLease
from attestation.node import ClockRecord, NodeRecord, Submitter
from attestation.permit import Permit, PermitRequest
from attestation.progress import HostProgress, boot_of
from attestation.reference import Approval, Baseline, BootReference, ImaReference, References
from attestation.report import HaltRecord, Output, Report
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.sealing import SealedSecret
from attestation.wire import Wire
from attestation.workload import WorkloadEntry, WorkloadRecord

SHA256 = 0x000B
NONCE = bytes(range(32))
ID = bytes(range(16))
PCRS = (0, 1, 2, 3, 4, 5, 6, 7)
VALUES = {index: hashlib.sha256(bytes([index])).digest() for index in PCRS}
HOLDER = SoftwareSigner.generate(ES256)
VERIFIER = SoftwareSigner.generate(ES256)
SUBMITTER = SoftwareSigner.generate(ES256)


def digest(text: str) -> bytes:
    """A recognisable 32-byte digest."""
    return hashlib.sha256(text.encode()).digest()


INTENT = Intent(
    job="digits",
    tenant="lab",
    code=digest("code"),
    argv=("python", "train.py"),
    environment=digest("environment"),
    environment_variables={"SEED": digest("7")},
    inputs={},
    outputs=("checkpoint.pt",),
    gpus=GpuRequest(count=0, mode="none", memory_mb=0),
    limits=Limits(seconds=600, memory_mb=4096, processes=64, renewals=1000),
    secrets=(),
    children=Children(depth=0, count=0),
    nonce=NONCE,
    issued=1_800_000_000,
)
CHALLENGE = Challenge(
    expires_in=30, bank=SHA256, audience="https://verifier", pcrs=PCRS, issued=1_800_000_000, nonce=NONCE
)
BOOT = boot_of(1, 0)
FOLLOWING = replace(CHALLENGE, wants=("event-log", "ima"), known_log=digest("log"), ima_boot=BOOT, ima_next=222)
MEASURING = replace(CHALLENGE, workload_boot=BOOT, workload_next=3)
TPM_RECORD = TpmRecord(
    quote=b"quote",
    signature=b"signature",
    bank=SHA256,
    pcrs=VALUES,
    holder_public=b"holder",
    certify=b"certify",
    certify_signature=b"signature",
    creation=b"creation",
)
WORKLOAD_ENTRY = WorkloadEntry(ID, INTENT.code, INTENT.environment)
WORKLOAD = WorkloadRecord(
    public=b"public",
    attest=b"attest",
    signature=b"signature",
    start=3,
    before=digest("before"),
    entries=WORKLOAD_ENTRY.to_bytes(),
)
TPM_RECORD_WITH_LOGS = replace(TPM_RECORD, event_log=b"log", ima=b"list", ima_start=222, workload=WORKLOAD)
EVIDENCE = Evidence(
    collection={"tpm": Cmw("application/interlock-tpm+cbor", TPM_RECORD.to_bytes())},
    grant=None,
    nonce=NONCE,
    intent=INTENT.digest,
)
NODE = NodeRecord(
    name="gpu-host-1",
    pool="lab",
    state="active",
    ek_digest=digest("ek"),
    ek_certificate=b"certificate",
    ek_public=b"ek",
    ak_public=b"ak",
    holder_public=b"holder",
    firmware=1,
    anchor="test root",
    assurance="test",
    enrolled=1_800_000_000,
    clock=ClockRecord(clock=1000, resets=1, restarts=0, safe=True),
)
BASELINE = Baseline(
    name="debian-12",
    pools=("lab",),
    pcrs={SHA256: {index: (value,) for index, value in VALUES.items()}},
    state="active",
    provenance="from node gpu-host-1",
)
CODE = Approval(kind="code", digest=INTENT.code, name="digits", state="active", provenance="review 7")
ENVIRONMENT = replace(CODE, kind="environment", digest=INTENT.environment, name="torch-2.13")
REFERENCES = References(version=1, baselines=(BASELINE,), approvals=(CODE, ENVIRONMENT))
BOOT_POLICY = BootPolicy(
    required=(), accepted=(), secure_boot=True, deployed_mode=False, dma_protection=True, no_debug=True
)
BOOT_REFERENCE = BootReference(
    name="debian-12-boot", pools=("lab",), policy=BOOT_POLICY, state="active", provenance="from node gpu-host-1"
)
IMA_REFERENCE = ImaReference(
    name="debian-12-files", pools=("lab",), policy=digest("list"), state="active", provenance="from packages"
)
REFERENCES_OF_BOOTS = replace(REFERENCES, boots=(BOOT_REFERENCE,), lists=(IMA_REFERENCE,))
PROGRESS = HostProgress(
    boot=BOOT,
    log=digest("log"),
    ima=ImaProgress.begin(boot=BOOT, bank=SHA256, policy=digest("list")),
    workload_count=1,
    workload_value=digest("workload"),
)
PASSED = Check(name="tpm.quote", outcome=ear.PASS)
FAILED = Check(name="tpm.quote", outcome=ear.FAIL, reason="tpm.quote.signature", detail="no")
APPRAISAL = Appraisal(
    status=ear.AFFIRMING,
    vector={ear.HARDWARE: ear.AFFIRMING},
    checks=(PASSED,),
    facts={"bank": "11"},
    anchors=("test root",),
    references=("debian-12",),
)
CLAIMS = Claims(
    issued=1_800_000_000,
    profile=ear.PROFILE,
    submods={"tpm": APPRAISAL, "workload": APPRAISAL},
    verifier=VerifierId(developer="interlock", build="1"),
    assurance="test",
    binding="L1",
)
GRANT = Grant(
    issuer="https://verifier",
    node=NODE.name,
    job=INTENT.job,
    expires=1_800_000_600,
    not_before=1_800_000_000,
    issued=1_800_000_000,
    id=ID,
    confirmation=Confirmation(key=holder_key(HOLDER.public)),
    scope="run",
    nonce=NONCE,
    profile="tag:interlock,2026:grant/1",
    submods=CLAIMS.submods,
    intent=INTENT.digest,
    policy=digest("policy"),
    references=digest("references"),
    evidence=EVIDENCE.digest,
    limits=INTENT.limits,
    conditions=Conditions(bank=SHA256, pcrs=VALUES),
    root=ID,
    depth=0,
    assurance="test",
    binding="L1",
    lease=10,
    hold=60,
    unchecked=(),
    tpm_lease=False,
)
LEASE = Lease(
    expires=1_800_000_010,
    issued=1_800_000_000,
    grant=ID,
    nonce=NONCE,
    evidence=EVIDENCE.digest,
    sequence=0,
    duration=10,
    previous=FIRST_PREVIOUS,
    hold=60,
)
TPM_LEASE = TpmLease(bank=SHA256, pcrs=PCRS, pcr_digest=digest("pcrs"), until=11_000, resets=1, restarts=0)
ENFORCED = replace(LEASE, tpm=TPM_LEASE)
REPORT = Report(
    started=1_800_000_000,
    ended=1_800_000_030,
    exit_code=0,
    halts=(HaltRecord(klass="hard", reason="drift.pcr", frozen_us=900, dead_us=12_000),),
    outputs={"checkpoint.pt": Output(digest=digest("checkpoint"), size=10, lease=3, quarantined=False)},
    applied=("no_new_privs", "pid_namespace"),
    grant=ID,
    leases=4,
    cgroup_empty=True,
    code=INTENT.code,
)

EXAMPLES: dict[str, Wire] = {
    "intent": INTENT,
    "challenge": CHALLENGE,
    "challenge-following": FOLLOWING,
    "challenge-measuring": MEASURING,
    "tpm-record": TPM_RECORD,
    "tpm-record-with-logs": TPM_RECORD_WITH_LOGS,
    "host-record": HostRecord(facts={"kernel": "6.1"}),
    "evidence": EVIDENCE,
    "node": NODE,
    "submitter": Submitter(spki=b"key", tenant="lab", roles=("trainer",), state="active", name="ada"),
    "references": REFERENCES,
    "references-of-boots": REFERENCES_OF_BOOTS,
    "progress": PROGRESS,
    "claims": CLAIMS,
    "grant": GRANT,
    "authorization": Authorization(
        grant=b"grant",
        record=b"record",
        lease=b"lease",
        secrets={"weights": SealedSecret(public=b"public", duplicate=b"duplicate", seed=b"seed")},
    ),
    "grant-enforced": replace(GRANT, tpm_lease=True, secrets=("key",)),
    "lease": LEASE,
    "lease-enforced": ENFORCED,
    "permit-request": PermitRequest(nonce=NONCE, digest=NONCE, quote=b"q", signature=b"s", pcrs=VALUES),
    "permit": Permit(until=31_000, resets=1, restarts=0, signature=bytes(64)),
    "report": REPORT,
    "enrol-token": EnrolToken(url="https://verifier:8443", fingerprint=NONCE, secret=NONCE),
    "verifier-keys": VerifierKeys(
        issuer="https://verifier", origin="verifier/log", tls=b"t", grant=b"g", log=b"l", policy=b"p"
    ),
    "enrol-request": EnrolRequest(
        secret=NONCE,
        ek_certificate=b"c",
        ek_public=b"e",
        ak_public=b"a",
        holder_public=b"h",
        certify=b"c",
        certify_signature=b"s",
        intermediates=(),
        creation=b"d",
    ),
    "enrol-challenge": EnrolChallenge(
        session=ID, id_object=b"i", encrypted_secret=b"s", nonce=NONCE, bank=SHA256, pcrs=PCRS
    ),
    "enrol-proof": EnrolProof(session=ID, secret=NONCE, quote=b"q", signature=b"s", bank=SHA256, pcrs=VALUES),
    "enrolled": Enrolled(node="gpu-host-1", pool="lab", state="active", receipt=b"r"),
}


def spoil(example: Wire, **values: Any) -> bytes:
    """The encoding of ``example`` with fields replaced, unchecked."""
    return replace(example, **values).to_bytes()  # type: ignore[type-var]  # every example is a dataclass
