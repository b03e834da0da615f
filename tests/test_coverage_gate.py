"""The coverage gate itself: it must notice what it is there to notice."""

import json
from pathlib import Path

import pytest

from tools import coverage_gate


def entry(lines: int, missing: int, branches: int = 0, missing_branches: int = 0) -> dict[str, object]:
    return {
        "summary": {
            "covered_lines": lines - missing,
            "num_statements": lines,
            "covered_branches": branches - missing_branches,
            "num_branches": branches,
        },
        "missing_lines": list(range(missing)),
        "missing_branches": [[1, n] for n in range(missing_branches)],
    }


FULL = {"attestation/a.py": entry(10, 0, 4), "agent/b.py": entry(100, 10), "verifier/c.py": entry(50, 5)}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param({}, 0, id="every bar is met exactly"),
        pytest.param({"attestation/a.py": entry(1000, 1)}, 1, id="one line of attestation"),
        pytest.param({"attestation/a.py": entry(1000, 0, 400, 1)}, 1, id="one branch of attestation"),
        pytest.param({"agent/b.py": entry(100, 11)}, 1, id="the agent"),
        pytest.param({"verifier/never_imported.py": entry(1, 1)}, 1, id="a verifier module that no test imports"),
        pytest.param({"fixtures/d.py": entry(10, 10)}, 0, id="fixtures do not count"),
    ],
)
def test_gate(change: dict[str, object], status: int, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": FULL | change}))
    assert coverage_gate.main(report) == status
