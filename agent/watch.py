"""Looking between two quotes: what can be seen locally and cheaply, each a named source of drift.

Local suspicion halts first and asks later: the halt is hard, at once, and its cause is dated to the last
look that was clean, the earliest moment at which the change can have happened. So the latency that a report states is
never too small. More looks: :mod:`agent.drift_local`.

A TPM that does not answer is no drift: nothing is known then, and the lease decides. Any other look that cannot be
made is drift (`drift.unseen`): a watch that has ended unnoticed would see nothing any more.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.clock import SECOND, now_ns
from agent.devices import DeviceError
from agent.host import Pcrs
from attestation.errors import InterlockError, Untrusted
from attestation.grant import Conditions
from attestation.tpm.ima.entry import PCR as IMA_PCR

Look = Callable[[], None]
"""A local check: returns when all is well, raises ``Untrusted`` with the reason when it is not."""

_SUSPENDED_NS: Final = SECOND // 2
_SHARE: Final = 100
_SLOWEST_NS: Final = 10 * SECOND


def pcr_look(pcrs: Pcrs, conditions: Conditions) -> Look:
    """Whether the PCRs still have the values that the grant names: never PCR 10, which grows with every file."""

    since_ns = now_ns()

    def look() -> None:
        try:
            values = pcrs.read(conditions, since_ns)
        except DeviceError:
            return
        for index, expected in conditions.pcrs.items():
            if index != IMA_PCR and values.get(index) != expected:
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


@dataclass
class _Paced:
    """One look with its own pace: when it is due, and when the last one that was clean began."""

    look: Look
    due_ns: int
    clean_ns: int

    def make(self, every_ns: int) -> None:
        """Look now. Raises what the look raises."""
        began, cpu_ns = now_ns(), time.thread_time_ns()
        self.look()
        self.clean_ns = began
        cost = time.thread_time_ns() - cpu_ns
        self.due_ns = began + min(max(every_ns, _SHARE * cost), max(every_ns, _SLOWEST_NS))


class Watch:
    """Makes every look each ``seconds``, in a thread of its own; at the first that raises it calls ``halt``.

    ``halt(error, cause_ns)``: the cause is dated to the beginning of the last clean look of that kind. A look that is
    costly is made less often, so that it takes at most a hundredth of one core, but at least every ten seconds.
    """

    def __init__(self, looks: tuple[Look, ...], seconds: float, halt: Callable[[InterlockError, int], None]) -> None:
        begun = now_ns()
        self._looks = [_Paced(look, begun, begun) for look in looks]
        self._every_ns, self._halt = int(seconds * SECOND), halt
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
            for paced in [each for each in self._looks if each.due_ns <= now_ns()]:
                try:
                    paced.make(self._every_ns)
                except (InterlockError, OSError, ValueError) as error:
                    if not self._stop.is_set():
                        self._halt(_drift(error), paced.clean_ns)
                    return
            self._stop.wait(max(0, min(each.due_ns for each in self._looks) - now_ns()) / SECOND)


def _drift(error: InterlockError | OSError | ValueError) -> InterlockError:
    return error if isinstance(error, InterlockError) else Untrusted("drift.unseen", f"{type(error).__name__}: {error}")
