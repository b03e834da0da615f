"""What a harness is: a parser under test, where a search begins, and what is demanded of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attestation.errors import Malformed, Untrusted

REFUSED = (Malformed, Untrusted)


@dataclass(frozen=True)
class Harness:
    """A parser under test: `run` raises for what must not be, `seeds` are where a search begins."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    most: int


class Broken(Exception):
    """The product let something through that it must not."""


def demand(held: object, what: str) -> None:
    """Raise `Broken` unless it holds."""
    if not held:
        raise Broken(what)
