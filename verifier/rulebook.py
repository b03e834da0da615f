"""Administration of what decides: policies and trust anchors. Reference values: :mod:`verifier.refs`."""

from collections.abc import Mapping
from typing import Any

from attestation.policy import BANKS, Policy
from verifier.anchors import Anchors
from verifier.desk import Command, Desk
from verifier.refs.desk import current, unprovable
from verifier.refs.versions import NOTHING, put_in_force


async def policy_load(desk: Desk) -> Any:
    """Put a policy bundle and trust anchors in force (both base64, encoded). Refused unless the policy compiles."""
    policy = Policy.from_bytes(desk.base64("policy"))
    anchors = Anchors.from_bytes(desk.base64("anchors"))
    result = {
        "policy": await put_in_force(desk, "policy", policy.bundle.to_bytes(), f"{len(policy.rules)} policies"),
        "anchors": await put_in_force(
            desk, "anchors", anchors.to_bytes(), ", ".join(f"{e.name} ({e.assurance})" for e in anchors.entries)
        ),
    }
    if desk.verifier.store.active("references") is None:
        result["references"] = await put_in_force(desk, "references", NOTHING.to_bytes(), "empty")
    return result | {"warnings": unprovable(desk, current(desk))}


async def policy_show(desk: Desk) -> Any:
    """What is in force."""
    verifier = desk.verifier
    force = verifier.in_force()
    settings = force.policy.settings
    anchors = Anchors.from_bytes(verifier.document(verifier.active("anchors")))
    return {
        "policy": force.policy.digest.hex(),
        "references": force.references.digest.hex(),
        "lease_seconds": settings.lease_seconds,
        "hold_seconds": settings.hold_seconds,
        "bank": {number: name for name, number in BANKS.items()}[settings.bank],
        "pcrs": list(settings.pcrs),
        "required": list(settings.required),
        "unchecked": list(settings.unchecked),
        "rules": [{"id": r.id, "permits": r.permits, "reason": r.reason} for r in force.policy.rules.values()],
        "anchors": [{"name": e.name, "assurance": e.assurance} for e in anchors.entries],
    }


RULEBOOK: Mapping[str, Command] = {
    "policy.load": policy_load,
    "policy.show": policy_show,
}
"""The commands of this module by name."""
