"""One machine for all tests here, which run when they are asked for: ``./dev test vm``."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.vm.image import disks
from fixtures.vm.lab import VmLab

collect_ignore_glob = [] if os.environ.get("INTERLOCK_VM") else ["test_*.py"]


@pytest.fixture(scope="session")
def vm() -> Iterator[VmLab]:
    """A verifier here, and a host in QEMU that has enrolled; the guest's console is kept in the cache."""
    with VmLab(disks()) as lab:
        try:
            yield lab
        finally:
            kept = Path(os.environ.get("INTERLOCK_CACHE", "/tmp")) / "vm-console.log"
            shutil.copyfile(lab.machine.console, kept)
