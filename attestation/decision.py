"""Decide: facts and a policy become a Decision. A pure function: the same inputs give the same bytes.

:class:`Facts` are the appraised verdicts, flat and typed; :func:`facts_from` takes them from claims, intent, records
and usage. They encode, so that what was decided once can be decided again, under the same policy by an auditor and
under another one by an operator who wants to know what a change would stop.

The rules that no policy can override, each with its reason code. All are looked at, and all that fail are told:

1.  the claims affirm the host and the workload; else the claims' own codes (``claims.unproven`` where they name none);
2.  every check that the policy requires was passed: ``policy.required.<check>``;
3.  the submitter is known and active: ``authz.submitter``;
4.  a known submitter belongs to the tenant that the intent names: ``authz.tenant``;
5.  the node is active: ``node.<state>``;
6.  the code is approved: ``code.unknown``, ``code.revoked``, ``code.<state>``;
7.  interpreter and packages are approved: ``environment.<state>``;
8.  then, and only if all of these hold, Cedar decides (:mod:`attestation.policy`).

A denial has a class (architecture, section 4). ``hard``: something is not what it claims to be, so a running job is
frozen and killed. ``drain``: nothing is tampered with, it is merely not allowed any more.
"""

from collections.abc import Mapping

from attestation.claims import AFFIRMING, PASS, WARNING, Claims
from attestation.command import entry, steering
from attestation.errors import Malformed
from attestation.intent import Intent
from attestation.node import STATES as NODE_STATES
from attestation.node import NodeRecord, Submitter
from attestation.policy import CHECKS, Policy, Principal, Resource
from attestation.reference import STATES as REFERENCE_STATES
from attestation.wire import Wire, label, wire

ACTIONS = ("run", "renew")
USABLE = ("active", "obsolete")
NONE, DRAIN, HARD = "none", "drain", "hard"

_DRAINS = frozenset(
    {
        "authz.submitter",
        "authz.tenant",
        "code.expired",
        "code.retired",
        "environment.expired",
        "environment.retired",
        "gpu.policy.none",
        "gpu.rim.expired",
        "gpu.rim.superseded",
        "gpu.rim.unpinned",
        "gpu.versions.driver",
        "gpu.versions.vbios",
        "gpus.pool",
        "intent.time",
        "node.pending",
        "node.retired",
        "ref.expired",
        "ref.pending",
        "ref.retired",
        "tpm.ima.policy.missing",
        "tpm.ima.unquoted",
        "tpm.log.unquoted",
        *(f"policy.required.{name}" for name in CHECKS),
    }
)
"""Codes of the rules 1 to 7 by which a job is not allowed any more, though nothing is wrong. All others are hard."""

UNAVAILABLE = frozenset({"gpu.revocation.missing", "gpu.revocation.stale", "gpu.rim.missing"})
"""Codes that say nothing of the host: what others would say about its devices is not at hand, or has run out."""

_MADE = {"event-log": ("tpm.event-log", "tpm.boot"), "ima": ("tpm.ima",)}
"""For names of :data:`attestation.policy.CHECKS` that stand for others: the numbered checks that have to be passed."""

_SECONDS_PER_HOUR = 3600
_HOURS_PER_DAY = 24
_DAYS_PER_WEEK = 7
_EPOCH_WEEKDAY = 3
"""1 January 1970 was a Thursday, where Monday is 0."""


@wire
class Usage(Wire):
    """What runs already, without the job that is decided on, and the GPU seconds its tenant used in this period."""

    submitter_jobs: int = label(1)
    tenant_jobs: int = label(2)
    node_jobs: int = label(3)
    gpu_seconds: int = label(4)


@wire
class Facts(Wire):
    """Everything about one request that a decision looks at. Sets are ascending tuples; states are words.

    ``failures`` are the reason codes of the claims, ``passed`` the names of :data:`attestation.policy.CHECKS` that the
    appraisal passed; ``baseline``, ``code`` and ``environment`` are states of reference values, or ``unknown``, where
    ``baseline`` is the worst of what the host's boot was held against: baseline, boot and IMA reference;
    ``command`` and ``steering`` are what :mod:`attestation.command` says of the arguments and variables.
    """

    action: str = label(1, most=16, default="run")
    affirming: bool = label(2)
    failures: tuple[str, ...] = label(3, most=128, ordered=True, default=())
    passed: tuple[str, ...] = label(4, most=64, ordered=True, default=())
    submitter: str = label(5, most=128)
    submitter_state: str = label(6, most=16)
    submitter_tenant: str = label(7, most=128)
    roles: tuple[str, ...] = label(8, most=128, ordered=True)
    tenant: str = label(9, most=128)
    node: str = label(10, most=128)
    node_state: str = label(11, most=16)
    pool: str = label(12, most=128)
    baseline: str = label(13, most=16)
    code: str = label(14, most=16)
    environment: str = label(15, most=16)
    assurance: str = label(16, most=16)
    binding: int = label(17, high=4)
    hour: int = label(18, high=23)
    weekday: int = label(19, high=6)
    gpus: int = label(20)
    gpu_memory_mb: int = label(21)
    seconds: int = label(22)
    memory_mb: int = label(23)
    processes: int = label(24)
    renewals: int = label(25)
    secrets: tuple[str, ...] = label(26, most=256, ordered=True)
    children_depth: int = label(27)
    children_count: int = label(28)
    usage: Usage = label(29)
    command: str = label(30, most=16)
    steering: tuple[str, ...] = label(31, most=256, ordered=True)

    def check(self) -> None:
        """Raise ``Malformed("decision.action")`` for an action that no policy knows."""
        if self.action not in ACTIONS:
            raise Malformed("decision.action", f"{self.action!r} is not one of {', '.join(ACTIONS)}")


@wire
class Decision(Wire):
    """Allow or deny, and why. ``policy`` is the digest of the bundle; ``unchecked`` names what it leaves unchecked."""

    allow: bool = label(1)
    reasons: tuple[str, ...] = label(2, most=128, ordered=True)
    determining: tuple[str, ...] = label(3, most=1024, ordered=True)
    unchecked: tuple[str, ...] = label(4, most=64, ordered=True)
    denial: str = label(5, most=8)
    policy: bytes = label(6, size=32)

    def check(self) -> None:
        """Raise ``Malformed("decision.contradiction")`` for an allow with reasons, or a denial without."""
        if self.denial not in (NONE, DRAIN, HARD) or len({self.allow, not self.reasons, self.denial == NONE}) > 1:
            raise Malformed("decision.contradiction", "an allow has no reason, a denial has reasons and a class")


def decide(facts: Facts, policy: Policy) -> Decision:
    """Decide on ``facts`` under ``policy`` by the module's numbered rules. Never raises, whatever the facts say."""
    refusals = _refusals(facts, policy)
    if refusals:
        return _decision(policy, tuple(sorted(refusals)), (), HARD if refusals - _DRAINS else DRAIN)
    principal = Principal(facts.submitter, facts.submitter_tenant, facts.roles)
    resource = Resource(facts.node, facts.pool)
    verdict = policy.evaluate(principal, resource, context_of(facts), action=facts.action)  # (8)
    denial = NONE if verdict.allow else HARD if verdict.hard else DRAIN
    return _decision(policy, verdict.reasons, verdict.determining, denial)


def context_of(facts: Facts) -> Mapping[str, object]:
    """The Cedar context of ``facts``: exactly the attributes of schema.cedarschema."""
    usage = facts.usage
    return {
        "assurance": facts.assurance,
        "binding": facts.binding,
        "baseline": facts.baseline,
        "code": facts.code,
        "environment": facts.environment,
        "hour": facts.hour,
        "weekday": facts.weekday,
        "gpus": facts.gpus,
        "gpu_memory_mb": facts.gpu_memory_mb,
        "seconds": facts.seconds,
        "memory_mb": facts.memory_mb,
        "processes": facts.processes,
        "renewals": facts.renewals,
        "secrets": facts.secrets,
        "command": facts.command,
        "steering": facts.steering,
        "children_depth": facts.children_depth,
        "children_count": facts.children_count,
        "submitter_jobs": usage.submitter_jobs,
        "tenant_jobs": usage.tenant_jobs,
        "node_jobs": usage.node_jobs,
        "gpu_seconds_used": usage.gpu_seconds,
        "gpu_seconds_requested": facts.gpus * facts.seconds,
    }


def facts_from(
    claims: Claims,
    intent: Intent,
    submitter: Submitter | None,
    *,
    kid: bytes,
    node: NodeRecord,
    usage: Usage,
    at: int,
    action: str = "run",
) -> Facts:
    """The facts of one request at ``at`` (Unix seconds).

    ``submitter`` is the record of the key ``kid`` (32 bytes) that signed the intent, ``None`` where there is none. The
    caller has verified that signature, and ``claims`` are of ``node``. Where no GPU was appraised the binding level
    counts as 0, whatever ties the rest together.
    """
    tpm, workload = (claims.submods[name].facts if name in claims.submods else {} for name in ("tpm", "workload"))
    hours = at // _SECONDS_PER_HOUR
    return Facts(
        action=action,
        affirming=all(part.status in (AFFIRMING, WARNING) for part in claims.submods.values()),
        failures=tuple(sorted({check.reason for check in claims.failures if check.reason is not None})),
        passed=_passed(claims),
        submitter=kid.hex(),
        submitter_state="unknown" if submitter is None else submitter.state,
        submitter_tenant="" if submitter is None else submitter.tenant,
        roles=() if submitter is None else submitter.roles,
        tenant=intent.tenant,
        node=node.name,
        node_state=node.state,
        pool=node.pool,
        baseline=_host_state(tpm),
        code=workload.get("code.state", "unknown"),
        environment=workload.get("environment.state", "unknown"),
        assurance=claims.assurance,
        binding=int(claims.binding.removeprefix("L")) if any(n.startswith("gpu") for n in claims.submods) else 0,
        hour=hours % _HOURS_PER_DAY,
        weekday=(hours // _HOURS_PER_DAY + _EPOCH_WEEKDAY) % _DAYS_PER_WEEK,
        gpus=intent.gpus.count,
        gpu_memory_mb=intent.gpus.memory_mb,
        seconds=intent.limits.seconds,
        memory_mb=intent.limits.memory_mb,
        processes=intent.limits.processes,
        renewals=intent.limits.renewals,
        secrets=intent.secrets,
        children_depth=intent.children.depth,
        children_count=intent.children.count,
        usage=usage,
        command=entry(intent.argv),
        steering=steering(intent.environment_variables),
    )


def _passed(claims: Claims) -> tuple[str, ...]:
    """The named checks that passed wherever they were made: one that failed for one GPU has not passed."""
    outcomes: dict[str, set[str]] = {}
    for appraisal in claims.submods.values():
        for check in appraisal.checks:
            outcomes.setdefault(check.name, set()).add(check.outcome)
    return tuple(name for name in CHECKS if all(outcomes.get(made) == {PASS} for made in _MADE.get(name, (name,))))


def _host_state(facts: Mapping[str, str]) -> str:
    """The state of the reference values that the host's boot was held against: one that is not active counts."""
    states = {
        facts[name] for name in ("baseline.state", "boot-reference.state", "ima-reference.state") if name in facts
    }
    return next(iter(sorted(states - {"active"})), "active") if states else "unknown"


def _refusals(facts: Facts, policy: Policy) -> set[str]:
    """The codes of the rules 1 to 7 that do not hold."""
    found = set(facts.failures)  # (1)
    if not facts.affirming and not found:
        found.add("claims.unproven")
    found |= {f"policy.required.{name}" for name in policy.required if name not in facts.passed}  # (2)
    if facts.submitter_state != "active":  # (3)
        found.add("authz.submitter")
    elif facts.tenant != facts.submitter_tenant:  # (4)
        found.add("authz.tenant")
    for kind, state, usable, known in (
        ("node", facts.node_state, ("active",), NODE_STATES),  # (5)
        ("code", facts.code, USABLE, REFERENCE_STATES),  # (6)
        ("environment", facts.environment, USABLE, REFERENCE_STATES),  # (7)
    ):
        if state not in usable:
            found.add(f"{kind}.{state if state in known else 'unknown'}")
    return found


def _decision(policy: Policy, reasons: tuple[str, ...], determining: tuple[str, ...], denial: str) -> Decision:
    return Decision(
        allow=denial == NONE,
        reasons=reasons,
        determining=determining,
        unchecked=policy.unchecked,
        denial=denial,
        policy=policy.digest,
    )
