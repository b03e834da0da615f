"""What was found out once, as much of it as fits: bounded by what it takes, not by how often somebody asked.

What hosts send differs in size by a factor of thousands, and who sends it chooses. Threads may share one of these: each
step is one operation on a dict, and what two of them find out at once is found out twice.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Remembered(Generic[V]):
    """Values by key. Those that nobody asked for the longest are forgotten where sizes add up to more than ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Hashable, tuple[int, V]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], V], size: Callable[[V], int]) -> V:
        """What is remembered under ``key``, else what ``make`` gives. What ``make`` raises is not remembered."""
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = found
            return found[1]
        value = make()
        self._kept[key] = size(value), value
        left = sum([taken for taken, _ in list(self._kept.values())])
        for oldest in list(self._kept):
            if left <= self._most:
                break
            left -= self._kept.pop(oldest, (0, value))[0]
        return value
