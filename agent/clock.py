"""Time as the hold knows it: nanoseconds of CLOCK_BOOTTIME, and one timer on that clock.

Rules (design: control, "Whose clock"): BOOTTIME counts while the host sleeps and no wall clock setting moves it.
A timer is absolute, so that a late loop can never lengthen a lease. timerfd_create(2); Python has it from 3.13 on.
"""

import contextlib
import ctypes
import os
import time
from typing import Final

SECOND: Final = 1_000_000_000
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_TIMER_ABSTIME: Final = 1

_libc: Final = ctypes.CDLL(None, use_errno=True)


def now_ns() -> int:
    """CLOCK_BOOTTIME in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: interval, then value."""

    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """A timerfd on CLOCK_BOOTTIME, armed with absolute times; readable once it is due."""

    def __init__(self) -> None:
        self._descriptor = _checked(_libc.timerfd_create(time.CLOCK_BOOTTIME, _TFD_CLOEXEC | _TFD_NONBLOCK))

    def fileno(self) -> int:
        """For selectors."""
        return self._descriptor

    def arm(self, at_ns: int | None) -> None:
        """Become readable at `at_ns` (a past time: at once); None disarms."""
        value = _TimeSpec(0, 0) if at_ns is None else _TimeSpec(*divmod(max(at_ns, 1), SECOND))
        spec = _TimerSpec(_TimeSpec(0, 0), value)
        _checked(_libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None))

    def drain(self) -> None:
        """Take the expiry, so that the descriptor is no longer readable."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
