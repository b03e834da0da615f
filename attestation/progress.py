"""What a verifier has proven of a host in this boot, and keeps so that it needs the rest alone next time.

It is written with the decision or lease that was accepted on it, and archived with every judgement that began from it,
so that an auditor makes the same judgement again. A challenge is judged against what was known when it was issued.
Labels: docs/formats.md.
"""

from dataclasses import replace

from attestation.challenge import BOOT_SIZE
from attestation.tpm.ima.progress import ImaProgress
from attestation.wire import Wire, label, wire


@wire
class HostProgress(Wire):
    """``boot`` names a boot of the TPM (:func:`boot_of`). ``log`` is the SHA-256 of the event log that was proven in
    it, ``ima`` how far the measurement list is proven; ``workload_count`` jobs have been measured into the TPM in this
    boot, and ``workload_value`` is what the TPM held then."""

    boot: bytes = label(1, size=BOOT_SIZE)
    log: bytes | None = label(2, size=32, default=None)
    ima: ImaProgress | None = label(3, default=None)
    workload_count: int = label(4, default=0)
    workload_value: bytes = label(5, size=32, default=bytes(32))


def merged(known: HostProgress | None, proven: HostProgress) -> HostProgress:
    """What is known once ``proven`` was accepted as well, each part as far as the one or the other went.

    Two requests of one host may be accepted in any order, each from what was known when it was asked: neither takes
    back what the other has proven. A later boot replaces an earlier one; a measurement list that was judged in another
    bank or by another policy replaces the one before, for only what is in force is accepted.
    """
    if known is None or known.boot < proven.boot:
        return proven
    if known.boot > proven.boot:
        return known
    ima = proven.ima or known.ima
    if known.ima is not None and ima is not None and (known.ima.bank, known.ima.policy) == (ima.bank, ima.policy):
        ima = max(known.ima, ima, key=lambda seen: (seen.next, seen.seen))
    furthest = max(known, proven, key=lambda progress: progress.workload_count)
    return replace(furthest, log=proven.log or known.log, ima=ima)


def boot_of(resets: int, restarts: int) -> bytes:
    """The eight bytes that name a boot: how often the TPM was reset, and restarted (resumed) since, four bytes each."""
    return resets.to_bytes(4, "big") + restarts.to_bytes(4, "big")
