"""One job from start to end. Read this and ``verifier/authorize.py``, and you know Interlock.

1. The first lease counts from before the challenge is asked for, so that the host always ends first.
2. Evidence is collected for this challenge and this intent, and nothing else. Where no lease is in force the TPM signs
   it by a permit (agent.holder).
3. The verifier decides. A denial ends it here.
4. The grant must be the answer to exactly this question, logged, and new on this host; the lease is its first. The
   holder key signs under it from here on.
5. The grant is burned, durably: whatever happens from here on, it starts nothing a second time.
6. The code is staged and the bytes that will run are measured, the environment likewise. Both must be as granted.
7. What was measured is extended into the TPM, which certifies it with every quote from here on; without that, no job.
8. Released secrets are opened by the TPM, under this lease. A deadman starts the job in its own control group and
   holds it: it needs no word from here to stop it. Until the job is gone, leases are renewed by fresh evidence, the
   machine is watched, and the submitter's signals are passed on.
9. Outputs are hashed, and a signed report is kept until the verifier has it.

What goes wrong before (5) is raised, and nothing has run; what goes wrong behind it is in the report.
"""

import time

from agent.clock import SECOND, now_ns
from agent.deliver import finish
from agent.devices import Approved, DeviceError
from agent.drift_local import gpu_baseline
from agent.ending import End, Span, of_run, record_index
from agent.govern import Governed
from agent.host import Host
from agent.job import Job
from agent.journal import Run
from agent.messages import Ended
from agent.secrets import Secrets
from agent.workspace import Workspace
from attestation.errors import InterlockError, Untrusted
from attestation.grant import Asked, Authorization, Grant, verify_grant
from attestation.lease import Lease, approval_of, read_lease, verify_lease


def run(host: Host, job: Job) -> Ended:
    """How the job came out. Raises ``Denied``, ``Unreachable``, ``Rejected``, ``Malformed``, ``Untrusted``,
    ``DeviceError``: then nothing has run."""
    asked_ns = now_ns()  # (1)
    challenge = host.verifier.challenge(host.enrolment.node)
    job.tell("evidence", "collecting evidence of what this machine is")
    wanted = job.intent.gpus.count
    gpus = gpu_baseline(host.gpus) if host.gpus is not None and wanted else None
    evidence = host.collector.answer(challenge, job.intent.digest, gpus=wanted)  # (2)
    answer = host.verifier.authorize(job.start.intent, evidence)  # (3)
    grant, lease, approved = _accept(host, job, answer, challenge.nonce, asked_ns)  # (4)
    burned = Run(grant.id, grant.job, job.peer.uid, job.intent.code, job.intent.outputs, int(time.time()))
    host.journal.burn(burned)  # (5)
    job.grant = grant
    released = f", secrets {', '.join(grant.secrets)}" if grant.secrets else ""
    held = ", leases enforced by the TPM" if grant.tpm_lease else ""
    terms = f"assurance {grant.assurance}, binding {grant.binding}{released}{held}"
    job.tell("granted", f"granted for {grant.limits.seconds} s, {terms}")
    entry = None
    with Workspace(host, job, grant.id) as space, Secrets(host.tpm, answer.secrets) as secrets:
        try:
            measured = space.stage()  # (6)
            entry = host.workloads.measure(measured)  # (7)
            host.counters.add("jobs_measured")
            job.tell("staged", f"code and environment are what was granted; job {entry} of this boot, starting")
            secrets.fill(approved)  # (8)
            with Governed(host, job, grant, space, (answer.lease, lease, asked_ns), gpus, secrets) as governed:
                end = End.of(governed.wait(), governed.detail)
            denial = governed.denial
        except (InterlockError, DeviceError, OSError) as error:
            end, denial = End.failed(getattr(error, "reason", "agent.failed"), str(error)), None
        span = Span(burned.started, int(time.time()), job.sequence + 1, entry)
        outputs = space.outputs.measure(job.sequence, hard=end.hard)  # (9)
        finish(host, burned, end, span, outputs)
    return of_run(end, grant, record_index(answer, host.grant_key, host.log_key), span, outputs, denial)


def _accept(
    host: Host, job: Job, answer: Authorization, nonce: bytes, asked_ns: int
) -> tuple[Grant, Lease, Approved | None]:
    """Check (4); raises ``Malformed`` or ``Untrusted``."""
    keys, holder = host.enrolment.keys, host.collector.holder.public
    elapsed = (now_ns() - asked_ns) / SECOND
    asked = Asked(keys.issuer, host.enrolment.node, job.intent, holder, nonce, elapsed)
    grant = verify_grant(
        answer.grant, answer.record, asked=asked, key=host.grant_key, log_key=host.log_key, burned=host.journal
    )
    lease = verify_lease(answer.lease, key=host.grant_key, grant=grant.id, previous=None, nonce=nonce)
    if set(answer.secrets) != set(grant.secrets):
        raise Untrusted("grant.secrets", f"granted {list(grant.secrets)}, sealed {sorted(answer.secrets)}")
    return grant, lease, host.holder.adopt(lease, approval_of(read_lease(answer.lease, host.grant_key)))
