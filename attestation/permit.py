"""Permits: one signature by a holder key while no lease is in force, for a quote alone.

A holder key that obeys leases (:mod:`attestation.tpm.policy`) is dead before the first lease of a boot and after the
last one has run out. For the evidence of a first request, of a thaw, and for a late report the host asks for a permit:
it shows a quote, by its attestation key, that commits to an open challenge and to the digest to be signed
(:func:`permit_qualifying`), and gets the policy key's signature over {this boot, the next seconds, TPM2_Sign of exactly
this digest}. What is signed that way is judged like everything else: a permit says who asks, and that the node is not
retired, no more. It does not use the challenge up.
"""

from collections.abc import Mapping

from attestation.parts import hash_parts
from attestation.wire import Wire, label, wire

PERMIT_SECONDS = 30


@wire
class PermitRequest(Wire):
    """``nonce`` names an open challenge, ``digest`` is the SHA-256 that is to be signed, ``quote`` and ``signature``
    are TPMS_ATTEST and TPMT_SIGNATURE over the PCRs of the challenge, whose values are ``pcrs``."""

    MAX_SIZE = 16384

    nonce: bytes = label(1, size=32)
    digest: bytes = label(2, size=32)
    quote: bytes = label(3, most=2048)
    signature: bytes = label(4, most=1024)
    pcrs: Mapping[int, bytes] = label(5, most=64)


@wire
class Permit(Wire):
    """``until`` in milliseconds of the TPM's clock, ``resets`` and ``restarts`` its resetCount and restartCount,
    ``signature`` the policy key's (r || s).

    The terms that it approves are :func:`attestation.tpm.policy.permit_policy` of these and of what was asked.
    """

    until: int = label(1)
    resets: int = label(2, high=2**32 - 1)
    signature: bytes = label(3, size=64)
    restarts: int = label(4, high=2**32 - 1)


def permit_qualifying(nonce: bytes, digest: bytes) -> bytes:
    """The 32 bytes that the quote of a request must carry in extraData (docs/formats.md, "Bindings")."""
    return hash_parts(b"interlock/permit/1", nonce, digest)
