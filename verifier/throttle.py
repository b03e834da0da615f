"""What a stranger may cost: one token bucket per network address, for requests that name nobody we know.

A request that fails before it names a known node is answered and forgotten, it is not logged; this bounds how many of
them one address gets answered. Requests of known nodes never pay. The table is bounded: the address that was quiet for
longest is forgotten first.
"""

from collections import OrderedDict
from collections.abc import Callable

_ADDRESSES = 16384


class Throttle:
    """``rate`` failures a second and address, with a burst of as many; ``clock`` returns seconds."""

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def is_exhausted(self, address: str) -> bool:
        """Whether ``address`` has to wait."""
        return self._left(address) < 1

    def charge(self, address: str, failures: int = 1) -> None:
        """Count a failure of ``address``, or several. What one request costs beyond the burst is owed."""
        self._buckets[address] = (self._left(address) - failures, self._clock())
        self._buckets.move_to_end(address)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)

    def _left(self, address: str) -> float:
        left, since = self._buckets.get(address, (float(self._rate), 0.0))
        return min(float(self._rate), left + (self._clock() - since) * self._rate)
