"""Denials, and judging again: what authorize and renew have in common.

A denial is a normal outcome. It uses up the challenge, its inputs are archived, its record is durable before it is
answered, and the answer explains every reason. What the node did not sign itself is archived at the expense of the
address that asked for the challenge: it has only so many bytes of it a second.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from attestation.problem import Denial
from verifier.issue import denial_unit
from verifier.judge import Judgement
from verifier.state import Unwell, Verifier
from verifier.store import Conflict

ATTEMPTS = 8
CHARGED_BYTES = 4096

CHANGED = frozenset(
    {"version.changed", "node.changed", "submitter.changed", "secret.changed", "usage.changed", "grant.conflict"}
)
"""Conflicts that say: this was judged on what is no longer so."""

T = TypeVar("T")


async def reconsider(
    verifier: Verifier, look: Callable[[], Judgement], settle: Callable[[Judgement], Awaitable[T]]
) -> T:
    """Judge and settle; where the store has moved on meanwhile, judge again; where a condition is broken, deny.

    Raises ``Unwell("verifier.busy")`` where the store does not stand still for :data:`ATTEMPTS` attempts.
    """
    judged = await _unhurried(verifier, look)
    for _ in range(ATTEMPTS):
        try:
            return await settle(judged)
        except Conflict as conflict:
            changed = conflict.reason in CHANGED
            judged = look() if changed else judged.refuse(conflict.reason, conflict.detail)
    raise Unwell("verifier.busy", f"the facts changed {ATTEMPTS} times while they were judged")


async def _unhurried(verifier: Verifier, look: Callable[[], Judgement]) -> Judgement:
    """Judge; before a policy denies, what is on its way to the log gets there (:mod:`verifier.ledger`)."""
    judged = look()
    for _ in range(ATTEMPTS):
        by_policy = judged.decision.determining or judged.decision.reasons == ("policy.no-permit",)
        if judged.decision.allow or not by_policy or not await verifier.ledger.settled():
            break
        judged = look()
    return judged


async def deny(verifier: Verifier, judged: Judgement, cti: bytes) -> Denial:
    """Record a denial and explain it. Raises ``Conflict`` where its challenge was used up meanwhile."""
    refusals, case = judged.refusals, judged.case
    (logged,) = await verifier.commit(denial_unit(judged, cti))
    if not judged.signed:
        verifier.charge(case.challenge.nonce, 1 + len(case.signed_evidence.token) // CHARGED_BYTES)
    verifier.close_challenge(judged.case.challenge.nonce)
    verifier.metrics.denied(judged.case.action, judged.decision.reasons)
    verifier.metrics.secrets.labels("refused").inc(len(case.intent.secrets))
    verifier.metrics.appraised(judged.claims)
    return Denial(record=logged.record, receipt=logged.receipt, klass=judged.decision.denial, reasons=refusals)
