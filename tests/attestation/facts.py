"""Facts that are allowed under a small policy: what the tests of decisions share."""

import hashlib
from pathlib import Path

from attestation.decision import Facts, Usage
from attestation.policy import CHECKS, Policy, PolicyBundle, Settings

ROOT = Path(__file__).parents[2]
SCHEMA = (ROOT / "policies" / "schema.cedarschema").read_text()
OPERATOR = """
@id("may") permit (principal, action, resource) when { principal.roles.contains("trainer") };
@id("gpus") @reason("limit.gpus") @fix("Ask for less.")
forbid (principal, action == Action::"run", resource) when { context.gpus > 8 };
"""
PROTECTED = """
@id("roots") @reason("trust.assurance") @fix("Use genuine hardware.") @halt("hard")
forbid (principal, action, resource) when { context.assurance != "hardware" };
"""


def policy(operator: str = OPERATOR, **checks: str) -> Policy:
    named = dict.fromkeys(CHECKS, "unchecked") | {name.replace("_", "-"): word for name, word in checks.items()}
    pin = hashlib.sha256(PROTECTED.encode()).digest()
    made = Settings(pcrs=(0,), checks=named)
    return Policy(PolicyBundle(operator=operator, protected=PROTECTED, schema=SCHEMA, settings=made, protected_pin=pin))


def forbid(name: str, condition: str) -> str:
    says = f'@id("{name}") @reason("policy.forbid.{name}") @fix("Do not.")'
    return f"{says} forbid (principal, action, resource) when {{ {condition} }};"


POLICY = policy()
USAGE = Usage(submitter_jobs=1, tenant_jobs=2, node_jobs=3, gpu_seconds=4)
FACTS = Facts(
    affirming=True,
    submitter="ab" * 32,
    submitter_state="active",
    submitter_tenant="vision",
    roles=("trainer",),
    tenant="vision",
    node="node-1",
    node_state="active",
    pool="training",
    baseline="active",
    code="active",
    environment="active",
    assurance="hardware",
    binding=0,
    hour=12,
    weekday=2,
    gpus=0,
    gpu_memory_mb=0,
    seconds=3600,
    memory_mb=1024,
    processes=16,
    renewals=100,
    secrets=(),
    children_depth=0,
    children_count=0,
    usage=USAGE,
    command="script",
    steering=(),
)
