"""Time as the verifier uses it: wall time once, then the boot clock, so that a step of the wall clock changes nothing.

``now()`` is Unix seconds that only ever go forward: wall time as it was at the start plus what CLOCK_BOOTTIME counted
since. Small corrections that a time service makes (up to :data:`TOLERANCE` seconds) are followed, forward only. A
greater difference is a step: it is not followed, and :meth:`Clock.drift` shows it to the health check, which stops
issuing, because records and grants would carry a time that nobody else shares.
"""

import time
from collections.abc import Callable

TOLERANCE = 2.0


def boot_seconds() -> float:
    """CLOCK_BOOTTIME in seconds: rises steadily, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """``wall`` and ``boot`` return seconds; they are arguments so that a test can set them back a day."""

    def __init__(self, wall: Callable[[], float] = time.time, boot: Callable[[], float] = boot_seconds) -> None:
        self._wall, self._boot = wall, boot
        self._offset = wall() - boot()

    def seconds(self) -> float:
        """Unix seconds with fractions; never less than at the call before."""
        ahead = self.drift()
        if 0 < ahead <= TOLERANCE:
            self._offset += ahead
        return self._boot() + self._offset

    def now(self) -> int:
        """Unix seconds."""
        return int(self.seconds())

    def drift(self) -> float:
        """Seconds by which the wall clock is ahead of this one; negative where it was set back."""
        return self._wall() - (self._boot() + self._offset)
