"""A real TPM emulator for whoever asks: manufactured once in a session, a fresh copy of it for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.tpm import EsysTpm
from fixtures.swtpm import Swtpm, manufacture
from tests.agent.tpms import CA


@pytest.fixture(scope="session")
def manufactured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a TPM with a P-256 endorsement key, never started."""
    return manufacture(CA, tmp_path_factory.mktemp("tpm") / "p256")


@pytest.fixture
def swtpm(manufactured: Path) -> Iterator[Swtpm]:
    """The emulator, switched on."""
    with Swtpm.start(manufactured) as running:
        yield running


@pytest.fixture
def tpm(swtpm: Swtpm) -> Iterator[EsysTpm]:
    """The agent's device over it."""
    device = EsysTpm(swtpm.tcti, deadline=5)
    yield device
    device.close()
