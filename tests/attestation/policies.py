"""A small policy bundle to break: what the tests of the policy wrapper share."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attestation.policy import CHECKS, PolicyBundle, Principal, Resource, Settings

SCHEMA = """
entity Submitter = { tenant: String, roles: Set<String> };
entity Node = { pool: String };
action run, renew appliesTo {
  principal: [Submitter], resource: [Node], context: { gpus: Long, flag: Bool, secrets: Set<String> }
};
"""
PERMIT = '@id("may") permit (principal, action, resource) when { principal.roles.contains("trainer") };'
FORBID = '@id("big") @reason("limit.gpus") @fix("Ask for less.") forbid (principal, action, resource) '
BIG = FORBID + "when { context.gpus > 8 };"
OVERFLOW = FORBID + "when { context.gpus * 9223372036854775807 > 3 };"
PROTECTED = (
    '@id("protected.lab") @reason("trust.pool") @fix("Ask elsewhere.") @halt("hard")\n'
    'forbid (principal, action, resource) when { resource.pool == "forbidden" };\n'
)
SETTINGS = Settings(pcrs=(0, 7), checks=dict.fromkeys(CHECKS, "unchecked"))

WHO = Principal("ab" * 32, "vision", ("trainer",))
WHERE = Resource("node-1", "training")
ILL_TYPED: Any = WHO  # for what the type checker would not let through
ILL_PLACED: Any = WHERE
CONTEXT: Mapping[str, object] = {"gpus": 1, "flag": False, "secrets": []}


def bundle(
    operator: str = PERMIT, *, protected: str = PROTECTED, pin: bytes | None = None, **more: Any
) -> PolicyBundle:
    return PolicyBundle(
        operator=operator,
        protected=protected,
        schema=more.pop("schema", SCHEMA),
        settings=replace(SETTINGS, **more),
        protected_pin=hashlib.sha256(protected.encode()).digest() if pin is None else pin,
    )


def annotated(annotations: str, body: str = "forbid (principal, action, resource) when { context.flag };") -> str:
    return f"{PERMIT}\n{annotations} {body}"
