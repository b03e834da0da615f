"""Permits: one signature by a holder key that is out of lease, for a quote alone (:mod:`attestation.permit`).

1. The request names a challenge of this verifier that is open: not used, not expired. It tells the node.
2. The node is not retired. (A quarantined one may sign: its reports are wanted, and its evidence is judged as ever.)
3. Its holder key obeys this verifier's policy key: a plain key needs no permit, and another policy key's cannot be
   permitted anything here.
4. The quote is by the enrolled attestation key, over the PCRs that were asked for, and commits to the challenge and to
   the digest that is to be signed.
5. Its clock has not gone back since the challenge was issued. It is the moment from which the permit counts.
6. The policy key signs: in this boot, for thirty seconds, TPM2_Sign of this digest by this node's holder key.

The challenge is not used up: the evidence that is signed under the permit answers it. What the PCRs are is not judged:
that is done when the evidence comes. Nothing is recorded, because nothing is decided; refusals and permits are counted.
"""

from attestation.errors import Untrusted
from attestation.node import NodeRecord
from attestation.permit import PERMIT_SECONDS, Permit, PermitRequest, permit_qualifying
from attestation.tpm.clock import check_clock
from attestation.tpm.identity import verify_ak
from attestation.tpm.policy import approval, permit_policy
from attestation.tpm.quote import verify_quote
from attestation.tpm.structures import Public
from verifier.keys import KeyRing
from verifier.state import Verifier


async def permit(verifier: Verifier, asked: PermitRequest) -> Permit:
    """The permit for one digest. Raises ``Untrusted`` by the numbered steps, ``Malformed`` for a broken quote."""
    known = verifier.store.challenge(asked.nonce)  # (1)
    challenge, node = verifier.asked(asked.nonce)
    if known is None or known.redeemed is not None:
        raise Untrusted("challenge.redeemed", "the challenge was answered")
    if verifier.clock.now() >= known.expires:
        raise Untrusted("challenge.expired", "the challenge is too old")
    if node.state == "retired":  # (2)
        raise Untrusted("permit.retired", f"{node.name} was retired")
    if node.policy is None:  # (3)
        raise Untrusted("permit.plain", f"the holder key of {node.name} needs no permit")
    check_policy_key(verifier.keys, node)
    ak = verify_ak(node.ak_public)
    quote = verify_quote(  # (4)
        asked.quote,
        asked.signature,
        ak=ak,
        qualifying=permit_qualifying(asked.nonce, asked.digest),
        bank=challenge.bank,
        pcrs=challenge.pcrs,
        values=asked.pcrs,
    )
    check_clock(quote.clock, None if node.clock is None else node.clock.info)  # (5)
    until, resets, restarts = (
        quote.clock.clock + 1000 * PERMIT_SECONDS,
        quote.clock.reset_count,
        quote.clock.restart_count,
    )
    holder = Public.from_bytes(node.holder_public).name
    terms = permit_policy(until=until, resets=resets, restarts=restarts, digest=asked.digest, key_name=holder)
    verifier.metrics.permits.inc()
    signature = verifier.keys.policy.sign(approval(terms, ak.name))  # (6)
    return Permit(until=until, resets=resets, restarts=restarts, signature=signature)


def check_policy_key(keys: KeyRing, node: NodeRecord) -> None:
    """Raise ``Untrusted("node.policy-key")`` where the node's holder key obeys another policy key than ours of now."""
    if node.policy not in (None, keys.policy.public.spki):
        raise Untrusted("node.policy-key", f"{node.name} was enrolled under another policy key")
