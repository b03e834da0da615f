"""Keeping a job's lease fresh: every third of a lease, a new challenge, fresh evidence, and the next lease.

Rules:
1. A lease counts from before its challenge was asked for, on CLOCK_BOOTTIME.
2. An answer that did not arrive is asked for again with the same evidence: the verifier then gives the same lease, so
   that no link of the chain is missing. Evidence whose challenge it no longer knows is replaced.
3. While the verifier, the TPM or a GPU does not answer, nothing is halted and nothing is prolonged: the deadman freezes
   the job at the end of its lease, and a lease that comes within the hold time thaws it.
4. A denial is obeyed: ``hard`` at once, ``drain`` with time for a checkpoint. Then no lease is asked for any more.
5. A lease that does not verify is a forgery or a replay: a hard halt.
6. What the TPM is to enforce with a lease is checked like the lease itself, and from then on the holder key signs under
   it. After the end of the last lease the TPM refuses, and the evidence for the next one is signed by a permit.
"""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.client import Denied, Rejected, Unreachable
from agent.clock import SECOND, now_ns
from agent.devices import Approved, DeviceError
from agent.host import Host
from attestation.errors import Malformed, Untrusted
from attestation.grant import Grant
from attestation.lease import Lease, approval_of, read_lease, verify_lease
from attestation.problem import DRAIN, Denial

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 2.0
_SPREAD: Final = random.SystemRandom()

log = logging.getLogger("interlock.agent")


class Held(Protocol):
    """What a lease is handed to: the hold on the running job (agent.hold)."""

    def renew(self, token: bytes, asked_at_ns: int) -> None:
        """Put the next lease in force."""
        ...

    def halt(self, klass: str, reason: str, cause_ns: int) -> None:
        """Stop the job at once."""
        ...

    def drain(self, reason: str) -> None:
        """Ask the job to end, within its lease."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """Evidence that was sent: when its challenge was asked for, the challenge's nonce, the token."""

    at_ns: int
    nonce: bytes
    evidence: bytes


class Leases:
    """Renews the lease of one job in a thread of its own, from ``start`` until ``stop``.

    ``lease`` is the one held, asked for at ``asked_ns``; ``gpus`` is how many the intent wants; ``renewed`` is called
    with each new lease. ``approved`` is what the TPM enforces of the last one. ``trouble`` says why the last attempt
    gave none, and is empty once there is one.
    """

    def __init__(
        self,
        host: Host,
        grant: Grant,
        held: Held,
        lease: Lease,
        asked_ns: int,
        gpus: int,
        renewed: Callable[[Lease], None],
    ) -> None:
        self._host, self._grant, self._held, self._renewed = host, grant, held, renewed
        self._gpus = gpus
        self._lease, self._asked_ns = lease, asked_ns
        self._pending: _Asked | None = None
        self._failures = 0
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"leases-{grant.id.hex()[:8]}", daemon=True)
        self.approved: Approved | None = None
        self.denial: Denial | None = None
        self.trouble = ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No further lease is wanted. An exchange that is under way comes to nothing."""
        self._stopped = True
        self._wake.set()

    def hurry(self) -> None:
        """Renew now: something may have changed."""
        self._wake.set()

    def _keep(self) -> None:
        while True:
            self._wake.wait(self._pause())
            self._wake.clear()
            if self._stopped or not self._step():
                return

    def _pause(self) -> float:
        """Seconds until the next attempt: a third of the lease, or a little after a failure."""
        if self._failures:
            return _SPREAD.uniform(0.5, 1.0) * min(_FIRST_PAUSE * float(2 ** min(self._failures, 8)), _LONGEST_PAUSE)
        due = self._asked_ns + self._lease.duration * SECOND // 3
        return max(0.0, (due - now_ns()) / SECOND)

    def _step(self) -> bool:
        """One attempt; whether there may be another one."""
        try:
            self._renew()
        except Denied as denied:
            self._obey(denied.denial)  # rule 4
            return False
        except (Unreachable, DeviceError) as error:
            self._failed(error)  # rule 3
            self._host.counters.add("renewals_unanswered")
        except Rejected as error:
            self._failed(error)
            self._pending = None  # rule 2
            self._host.counters.add("renewals_rejected")
        except (Malformed, Untrusted) as error:
            self._held.halt("hard", error.reason, now_ns())  # rule 5
            return False
        return True

    def _failed(self, error: Exception) -> None:
        """Remember why, and say it once for all attempts in a row."""
        self._failures += 1
        self.trouble = str(error)
        if self._failures == 1:
            log.warning("grant %s: no lease yet: %s", self._grant.id.hex(), self.trouble)

    def _renew(self) -> None:
        host, grant = self._host, self._grant
        if self._pending is None:
            asked_ns = now_ns()  # rule 1
            challenge = host.verifier.challenge(host.enrolment.node)
            evidence = host.collector.answer(challenge, grant.intent, grant.id, self._gpus)
            self._pending = _Asked(asked_ns, challenge.nonce, evidence)
        asked = self._pending
        token = host.verifier.renew(asked.evidence)
        lease = verify_lease(token, key=host.grant_key, grant=grant.id, previous=self._lease, nonce=asked.nonce)
        self.approved = host.holder.adopt(lease, approval_of(read_lease(token, host.grant_key)))  # rule 6
        self._held.renew(token, asked.at_ns)
        self._lease, self._asked_ns, self._pending, self._failures = lease, asked.at_ns, None, 0
        self.trouble = ""
        host.counters.add("renewals")
        self._renewed(lease)

    def _obey(self, denial: Denial) -> None:
        self.denial = denial
        self._host.counters.add("renewals_denied")
        if denial.klass == DRAIN:
            self._held.drain(denial.codes[0])
        else:
            self._held.halt("hard", denial.codes[0], now_ns())
