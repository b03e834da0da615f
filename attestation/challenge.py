"""Challenge: the verifier's nonce, and which evidence it wants.

Plain deterministic CBOR, authentic because it comes over the pinned TLS connection. A challenge is single use and
expires; the verifier keeps that state durably. The agent counts a lease from the moment at which it *asked* for the
challenge, the verifier from the moment at which it *issued* it, so the host always ends first.
"""

from attestation.errors import Malformed
from attestation.wire import Wire, label, wire

NONCE_SIZE = 32
LIFETIME_SECONDS = 30


@wire
class Challenge(Wire):
    """``bank`` is a TPM_ALG_ID, ``pcrs`` the PCR indexes wanted, ``issued`` Unix seconds for people."""

    MAX_SIZE = 4096

    expires_in: int = label(1, low=1, high=3600)
    bank: int = label(2, high=0xFFFF)
    audience: str = label(3, most=256)
    pcrs: tuple[int, ...] = label(4, high=23, most=24, ordered=True)
    issued: int = label(6)
    nonce: bytes = label(10, size=NONCE_SIZE)

    def check(self) -> None:
        """Raise ``Malformed`` when no PCR is asked for: such a quote would prove nothing."""
        if not self.pcrs:
            raise Malformed("challenge.empty", "a challenge must ask for at least one PCR")
