"""Where the external test vectors lie: ``../shared`` beside the repository, or $INTERLOCK_EVIDENCE."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("INTERLOCK_EVIDENCE") or Path(__file__).resolve().parents[2] / "shared")


def path(name: str) -> Path:
    """The vectors called ``name`` (a path below the root); skips the test, loudly, when they are not there."""
    found = ROOT / name
    if not found.exists():
        pytest.skip(f"external vectors are missing: {found} (set INTERLOCK_EVIDENCE)")
    return found
