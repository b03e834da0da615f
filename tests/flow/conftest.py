"""One real lab for the flow tests, and scenes that take a lease's time, played beside it while other tests run.

The lab of a session is a verifier over TLS, an agent and a software TPM, as :class:`fixtures.lab.Lab` makes them; its
jobs are small. A scene has a lab of its own in a thread of its own and begins with the first test; only scenes that a
collected test asks for are played.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from fixtures.beats import BeatLab
from tests.flow import scenes as played
from tests.flow.scenes import Disk, Host, Secret, Silence
from tests.flow.scenes_lease import Lapse, play_lapse

SCENE_SECONDS = 100.0
SCENES = {**played.SCENES, "lapse": play_lapse}


@pytest.fixture(scope="session")
def scenes(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """The scenes that are asked for, all begun."""
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    with ThreadPoolExecutor(len(SCENES), "scene") as pool:
        yield {name: pool.submit(play) for name, play in SCENES.items() if name in asked}


@pytest.fixture(scope="session")
def lab(scenes: dict[str, Future[Any]]) -> Iterator[BeatLab]:
    """The lab of the session: every test leaves it running and quiet."""
    with BeatLab() as made:
        yield made


@pytest.fixture(scope="session")
def silence(scenes: dict[str, Future[Any]]) -> Silence:
    """The verifier was killed, came back, hung, and came back too late."""
    found: Silence = scenes["silence"].result(SCENE_SECONDS)
    return found


@pytest.fixture(scope="session")
def host(scenes: dict[str, Future[Any]]) -> Host:
    """The TPM hung, the agent was stopped, a PCR changed, the TPM was reset."""
    found: Host = scenes["host"].result(SCENE_SECONDS)
    return found


@pytest.fixture(scope="session")
def disk(scenes: dict[str, Future[Any]]) -> Disk:
    """The verifier's disk was full for a while."""
    found: Disk = scenes["disk"].result(SCENE_SECONDS)
    return found


@pytest.fixture(scope="session")
def secret(scenes: dict[str, Future[Any]]) -> Secret:
    """A job held a secret while its agent was stopped."""
    found: Secret = scenes["secret"].result(SCENE_SECONDS)
    return found


@pytest.fixture(scope="session")
def lapse(scenes: dict[str, Future[Any]]) -> Lapse:
    """Leases ended, once for a while and once for good, and somebody with root used the host's key."""
    found: Lapse = scenes["lapse"].result(SCENE_SECONDS)
    return found
