"""Challenge: the verifier's nonce, and which evidence it wants.

Plain deterministic CBOR, authentic because it comes over the pinned TLS connection. A challenge is single use and
expires; the verifier keeps that state durably. The agent counts a lease from the moment at which it *asked* for the
challenge, the verifier from the moment at which it *issued* it, so the host always ends first.
"""

from attestation.errors import Malformed
from attestation.wire import Wire, label, wire

NONCE_SIZE = 32
LIFETIME_SECONDS = 30
EVENT_LOG, IMA = "event-log", "ima"
BOOT_SIZE = 8


@wire
class Challenge(Wire):
    """``bank`` is a TPM_ALG_ID, ``pcrs`` the PCR indexes wanted, ``issued`` Unix seconds for people.

    ``wants`` names the logs that are looked at; others are not sent. The event log is not sent either where its
    SHA-256 is ``known_log``, which the verifier has already. IMA entries are sent from number ``ima_next`` on, where
    the TPM's boot is ``ima_boot`` (resets and restarts, four bytes each), else from 0. ``workload_next`` jobs of the
    boot ``workload_boot`` are proven already.
    """

    MAX_SIZE = 4096

    expires_in: int = label(1, low=1, high=3600)
    bank: int = label(2, high=0xFFFF)
    audience: str = label(3, most=256)
    pcrs: tuple[int, ...] = label(4, high=23, most=24, ordered=True)
    issued: int = label(6)
    known_log: bytes | None = label(7, size=32, default=None)
    ima_boot: bytes | None = label(8, size=BOOT_SIZE, default=None)
    ima_next: int | None = label(9, high=1 << 48, default=None)
    nonce: bytes = label(10, size=NONCE_SIZE)
    wants: tuple[str, ...] = label(11, most=16, ordered=True, sparse=True, default=())
    workload_boot: bytes | None = label(12, size=BOOT_SIZE, default=None)
    workload_next: int | None = label(13, low=1, high=1 << 48, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` when no PCR is asked for, for such a quote would prove nothing; when a log is wanted that
        nobody knows; when it is said what is known already of a log that is not wanted; and when a number is given
        without its boot, or a boot without a number."""
        if not self.pcrs:
            raise Malformed("challenge.empty", "a challenge must ask for at least one PCR")
        known = {EVENT_LOG: self.known_log, IMA: self.ima_boot}
        unasked = [name for name, value in known.items() if value is not None and name not in self.wants]
        numbered = ((self.ima_boot, self.ima_next), (self.workload_boot, self.workload_next))
        halves = any((boot is None) != (number is None) for boot, number in numbered)
        if unasked or not set(self.wants) <= known.keys() or halves:
            raise Malformed("challenge.wants", f"wanted: {', '.join(self.wants) or 'nothing'}")
