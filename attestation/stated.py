"""Whether grant and leases state what their evidence gave: a part of the audit (:mod:`attestation.audit`, check 15)."""

from collections.abc import Sequence

from attestation.claims import Claims, identities
from attestation.errors import Untrusted
from attestation.grant import Grant
from attestation.lease import Lease
from attestation.tpm.enforced import is_enforced, tpm_lease


def verify_grant_stated(grant: Grant, claims: Claims, unchecked: Sequence[str]) -> None:
    """Check that ``grant`` states the claims it was decided on, and what the policy left ``unchecked``.

    Raises ``Untrusted("bundle.agreement")``.
    """
    stated = grant.submods, grant.assurance, grant.binding, grant.tpm_lease, grant.unchecked
    given = claims.submods, claims.assurance, claims.binding, is_enforced(claims.submods["tpm"]), unchecked
    if stated != given:
        raise Untrusted("bundle.agreement", "the grant states another result than its evidence gives")


def verify_lease_stated(lease: Lease, claims: Claims, grant: Grant, *, at: int) -> None:
    """Check that ``lease``, decided on ``claims`` at ``at``, is for the devices of the grant, and has the TPM enforce
    what was proven: PCR values, boot, time.

    Raises ``Untrusted("bundle.leases")``.
    """
    if not identities(claims.submods) <= identities(grant.submods):
        raise Untrusted("bundle.leases", f"lease {lease.sequence} is for devices that the grant is not for")
    if lease.tpm != tpm_lease(claims.submods["tpm"], issued=lease.issued, at=at, duration=lease.duration):
        raise Untrusted("bundle.leases", f"lease {lease.sequence} has the TPM enforce something else than was proven")
