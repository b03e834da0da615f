"""What a challenge asks for: a pure function of what is in force and what is proven of the host already.

Logs are wanted where the node's pool has a reference value for them, and only what is not proven yet. They are wanted
as well where the policy requires the check and the pool has none: such a request is denied, and what came with it is
what reference values can be made of. The verifier makes a challenge by it, and so finds out whether one that it issued
is still the right question; an auditor, too.
"""

from attestation.challenge import BOOT_SIZE, EVENT_LOG, IMA, Challenge
from attestation.node import NodeRecord
from attestation.policy import Settings
from attestation.progress import HostProgress
from attestation.reference import ReferenceSet


def ask(
    node: NodeRecord,
    *,
    settings: Settings,
    references: ReferenceSet,
    progress: HostProgress | None,
    nonce: bytes,
    audience: str,
    issued: int,
    expires_in: int,
) -> Challenge:
    """The challenge for ``node``, of which ``progress`` is known."""
    reference, known = references.list_of(node.pool), progress or _NOTHING
    logs = {EVENT_LOG: bool(references.boots_of(node.pool)), IMA: reference is not None}
    wanted = {name for name, has_reference in logs.items() if has_reference or name in settings.required}
    seen = known.ima
    if seen is not None and (reference is None or (seen.bank, seen.policy) != (settings.bank, reference.policy)):
        seen = None
    return Challenge(
        expires_in=expires_in,
        bank=settings.bank,
        audience=audience,
        pcrs=settings.pcrs,
        issued=issued,
        known_log=known.log if logs[EVENT_LOG] else None,
        ima_boot=None if seen is None else seen.boot,
        ima_next=None if seen is None else seen.next,
        nonce=nonce,
        wants=tuple(sorted(wanted)),
        workload_boot=known.boot if known.workload_count else None,
        workload_next=known.workload_count or None,
    )


def is_still_asked(
    challenge: Challenge,
    node: NodeRecord,
    *,
    settings: Settings,
    references: ReferenceSet,
    progress: HostProgress | None,
) -> bool:
    """Whether ``challenge`` is the one that would be issued under these settings and references."""
    return challenge == ask(
        node,
        settings=settings,
        references=references,
        progress=progress,
        nonce=challenge.nonce,
        audience=challenge.audience,
        issued=challenge.issued,
        expires_in=challenge.expires_in,
    )


_NOTHING = HostProgress(boot=bytes(BOOT_SIZE))
