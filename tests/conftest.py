"""Settings of every test run: few, repeatable hypothesis examples; tests that need root say so."""

import gc
import os

import pytest
from hypothesis import settings

# the same examples in every run: a failure is the change's, never the dice's (HYPOTHESIS_PROFILE=search rolls them)
settings.register_profile("repeatable", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("search", deadline=None, max_examples=2000, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``root`` for everybody else."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: run it through ./dev test"))


def pytest_collection_finish() -> None:
    """Keep the collector of garbage away from thousands of tests that stay: it looked at all of them every time."""
    gc.collect()
    gc.freeze()
