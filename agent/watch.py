"""Looking between two quotes: what can be seen locally and cheaply, each a named source of drift.

Local suspicion halts first and asks later: the halt is hard, at once, and its cause is dated to the end of the last
look that was clean, the earliest moment at which the change can have happened. So the latency that a report states is
never too small.

A TPM that does not answer is no drift: nothing is known then, and the lease decides.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from agent.clock import SECOND, now_ns
from agent.devices import DeviceError
from agent.host import Pcrs
from attestation.errors import InterlockError, Untrusted
from attestation.grant import Conditions

Look = Callable[[], None]
"""A local check: returns when all is well, raises ``Untrusted`` with the reason when it is not."""

_SUSPENDED_NS: Final = SECOND // 2


def pcr_look(pcrs: Pcrs, conditions: Conditions) -> Look:
    """Whether the PCRs still have the values that the grant names."""

    since_ns = now_ns()

    def look() -> None:
        try:
            values = pcrs.read(conditions, since_ns)
        except DeviceError:
            return
        for index, expected in conditions.pcrs.items():
            if values.get(index) != expected:
                raise Untrusted("drift.pcr", f"PCR {index} is {values.get(index, b'').hex()}, granted {expected.hex()}")

    return look


def suspend_look() -> Look:
    """Whether the host slept since this was made: BOOTTIME goes on while it does, MONOTONIC does not."""

    def slept() -> int:
        return now_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    before = slept()

    def look() -> None:
        if slept() - before > _SUSPENDED_NS:
            raise Untrusted("drift.suspend", f"the host slept for {(slept() - before) / SECOND:.1f} s")

    return look


class Watch:
    """Makes all ``looks`` every ``seconds`` in a thread of its own; ``halt(reason, detail, cause_ns)`` at the first
    that raises."""

    def __init__(self, looks: tuple[Look, ...], seconds: float, halt: Callable[[InterlockError, int], None]) -> None:
        self._looks, self._seconds, self._halt = looks, seconds, halt
        self._clean_ns = now_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="watch", daemon=True)

    def start(self) -> None:
        """Begin with a look at once."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _keep(self) -> None:
        while not self._stop.is_set():
            began = now_ns()
            try:
                for look in self._looks:
                    look()
            except InterlockError as error:
                if not self._stop.is_set():
                    self._halt(error, self._clean_ns)
                return
            self._clean_ns = began
            self._stop.wait(max(0.0, self._seconds - (now_ns() - began) / SECOND))
