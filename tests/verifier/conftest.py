"""The store that a test asks for: once on each engine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.verifier.stores import ENGINES
from verifier.store import Store


@pytest.fixture(params=sorted(ENGINES))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the test's store, as often as it is called; whatever is still open is closed after the test."""
    opened: list[Store] = []

    def open_store() -> Store:
        opened.append(ENGINES[request.param](tmp_path))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Callable[[], Store]) -> Store:
    """A new, empty store."""
    return opener()
