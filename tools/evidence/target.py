"""One piece of genuine evidence that is changed at random, with what verifies it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One file, or a part of one: its case, its kind and name, and its bytes.

    `verify` returns everything that comes of such bytes, to be compared, or raises what refuses them. `appraise` is
    whether the whole that they are a part of is accepted with them, and never raises. `units`: the pieces that they
    consist of, where the format has some; joined they are `data`.
    """

    case: str
    kind: str
    name: str
    data: bytes
    verify: Callable[[bytes], object]
    appraise: Callable[[bytes], bool]
    units: tuple[bytes, ...] = ()

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.case}/{self.name}"
