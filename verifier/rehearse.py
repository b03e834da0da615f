"""Judging long lists beside the loop: a measurement list of 24 MiB takes seconds, and other hosts' leases cannot wait.

What is found is not used but remembered (:mod:`attestation.tpm.ima.once`): the judgement itself comes after, in the
loop and all at once, and finds the work done. One list of a node at a time: who sends many waits for himself.
"""

import asyncio
from weakref import WeakValueDictionary

from attestation.appraise import Subject, appraise
from attestation.cose import UntrustedSign1
from attestation.evidence import Evidence
from attestation.intent import Intent
from attestation.tpm.ima.once import LONG
from verifier.state import Verifier

_Turns = WeakValueDictionary[tuple[int, str], asyncio.Lock]
_turns: _Turns = WeakValueDictionary()


async def rehearse(
    verifier: Verifier, evidence: Evidence, envelope: UntrustedSign1, intent: Intent, grant: bytes | None = None
) -> None:
    """Appraise large evidence in a thread of its own. Raises as :meth:`Verifier.asked`."""
    if len(envelope.token) < LONG:
        return
    challenge, node = verifier.asked(evidence.nonce)
    known = verifier.known(evidence.nonce, node)
    subject = Subject(
        intent=intent,
        challenge=challenge,
        node=node,
        references=verifier.in_force().references,
        at=verifier.clock.now(),
        grant=grant,
        event_log=known.event_log,
        ima=known.ima,
        progress=known.progress,
    )
    async with _turn(node.name):
        await asyncio.to_thread(appraise, (evidence, envelope), subject, verifier=verifier.id)


def _turn(node: str) -> asyncio.Lock:
    """The lock of a node in this loop; it is forgotten when nobody holds it or waits for it."""
    key = id(asyncio.get_running_loop()), node
    return _turns.setdefault(key, asyncio.Lock())
