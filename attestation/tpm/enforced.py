"""What a lease says about the TPM, made from a proven quote, and checked against one again by an auditor.

The holder key works under a lease while the PCRs of the boot (those of 0 to 7 that were asked for; later ones move
while a system runs) stay as they were proven, in the same boot, and while the TPM's own clock has not passed the end.
That end is counted from the quote. The quote is not younger than the judgement, and both are counted in whole seconds,
of which one is given away, so that the TPM ends no later than the lease.
"""

from collections.abc import Mapping
from hashlib import sha256

from attestation.claims import PASS, Appraisal
from attestation.errors import Untrusted
from attestation.keys import PublicKey
from attestation.lease import TpmLease
from attestation.tpm.policy import Terms, approval, lease_policy

CHECK = "tpm-lease"
"""The check of an appraisal that passes where the holder key obeys leases."""
STILL = range(8)
"""PCRs that stand still after boot (TCG PC Client Platform Firmware Profile, 3.3.4)."""
_SECOND_MS, _ROUNDING = 1000, 1
_PCR = "pcr."


def is_enforced(tpm: Appraisal) -> bool:
    """Whether this appraisal found a holder key that obeys leases."""
    return any(check.name == CHECK and check.outcome == PASS for check in tpm.checks)


def tpm_lease(tpm: Appraisal, *, issued: int, at: int, duration: int) -> TpmLease | None:
    """What the lease of an accepted appraisal says about the TPM, None where the holder key obeys no leases.

    ``issued`` is when the challenge was issued, ``at`` when the evidence was judged, ``duration`` that of the lease,
    all in seconds.
    """
    return _made(tpm.facts, issued=issued, at=at, duration=duration) if is_enforced(tpm) else None


def _made(facts: Mapping[str, str], *, issued: int, at: int, duration: int) -> TpmLease:
    proven = {int(name.removeprefix(_PCR)): value for name, value in facts.items() if name.startswith(_PCR)}
    pcrs = tuple(sorted(proven.keys() & set(STILL)))
    left = max(0, duration - (at - issued) - _ROUNDING)
    return TpmLease(
        bank=int(facts["bank"]),
        pcrs=pcrs,
        pcr_digest=sha256(b"".join(bytes.fromhex(proven[pcr]) for pcr in pcrs)).digest(),
        until=int(facts["clock"]) + _SECOND_MS * left,
        resets=int(facts["resets"]),
        restarts=int(facts["restarts"]),
    )


def terms_of(lease: TpmLease) -> Terms:
    """What the policy key approves with this lease."""
    return lease_policy(
        bank=lease.bank,
        pcrs=lease.pcrs,
        pcr_digest=lease.pcr_digest,
        until=lease.until,
        resets=lease.resets,
        restarts=lease.restarts,
    )


def verify_approval(terms: Terms, signature: bytes, *, key: PublicKey, ak_name: bytes) -> None:
    """Check that the policy key ``key`` has approved ``terms`` for the TPM with this attestation key.

    Raises ``Untrusted("lease.approval")``. The TPM checks it again, and nobody else has to believe it.
    """
    try:
        key.verify(approval(terms, ak_name), signature)
    except Untrusted as error:
        raise Untrusted("lease.approval", "the policy key has not signed these terms for this TPM") from error
