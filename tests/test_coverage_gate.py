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


def test_a_package_of_which_nothing_was_measured_is_missed(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": {name: found for name, found in FULL.items() if name[0] != "v"}}))
    assert coverage_gate.main(report) == 1


def test_gaps_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    missing = entry(9, 0, 2) | {"missing_lines": [3, 4, 5, 9], "missing_branches": [[1, 7], [3, 8], [6, -1]]}
    missing["summary"] = entry(9, 4, 2)["summary"]
    report.write_text(json.dumps({"files": FULL | {"attestation/a.py": missing}}))
    coverage_gate.main(report)
    assert "attestation/a.py: 3-5, 9, 1->7, 6->-1\n" in capsys.readouterr().err


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
