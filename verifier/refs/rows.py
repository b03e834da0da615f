"""Reference values as commands show them."""

from typing import Any

from attestation.policy import BANKS
from attestation.reference import Approval, Baseline, BootReference, ImaReference


def baseline_row(baseline: Baseline) -> dict[str, Any]:
    """A baseline, with the values that it names."""
    banks = {number: name for name, number in BANKS.items()}
    return {
        "name": baseline.name,
        "pools": list(baseline.pools),
        "state": baseline.state,
        "provenance": baseline.provenance,
        "expires": baseline.expires,
        "pcrs": {
            banks.get(bank, hex(bank)): {str(i): [d.hex() for d in ds] for i, ds in sorted(pcrs.items())}
            for bank, pcrs in baseline.pcrs.items()
        },
    }


def described_row(found: BootReference | ImaReference) -> dict[str, Any]:
    """A boot or IMA reference, with the digest of its policy."""
    return {
        "name": found.name,
        "kind": "boot" if isinstance(found, BootReference) else "ima",
        "pools": list(found.pools),
        "state": found.state,
        "provenance": found.provenance,
        "expires": found.expires,
        "policy": policy_digest(found).hex(),
    }


def policy_digest(found: BootReference | ImaReference) -> bytes:
    """The SHA-256 of the policy that a reference names."""
    return found.policy.digest if isinstance(found, BootReference) else found.policy


def approval_row(approval: Approval) -> dict[str, Any]:
    """An approval."""
    return {
        "kind": approval.kind,
        "digest": approval.digest.hex(),
        "name": approval.name,
        "state": approval.state,
        "provenance": approval.provenance,
        "expires": approval.expires,
    }
