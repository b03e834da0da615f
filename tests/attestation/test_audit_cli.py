"""``interlock-audit`` as a person and as a program sees it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attestation.__main__ import app
from attestation.bundle import Bundle
from attestation.log import Record
from attestation.policy import PolicyBundle
from tests.attestation.forge import NAMES, forger, story


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the bundles of a run and of a denied request, and the root keys."""
    (tmp_path / "run").write_bytes(story().run)
    (tmp_path / "refused").write_bytes(story().refused)
    (tmp_path / "root.pem").write_bytes(story().keys.root)
    return tmp_path


def audit(*arguments: Any) -> Result:
    """Run the command in a terminal of 200 columns."""
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(argument) for argument in arguments])


def test_verify_shows_every_check(files: Path) -> None:
    result = audit("verify", files / "run", "--root", files / "root.pem")
    assert result.exit_code == 0
    for name in NAMES:
        assert f" {name} " in result.output
    assert "16 checks, nothing speaks against this bundle." in result.output


def test_verify_names_the_check_that_fails_and_what_it_means(files: Path) -> None:
    data = bytearray(story().run)
    data[len(data) // 2] ^= 1
    (files / "run").write_bytes(data)
    result = audit("verify", files / "run", "--root", files / "root.pem")
    assert result.exit_code == 1
    assert "Check 6, archive, fails. What the records rest on was altered" in result.output
    assert "bundle.archive: What a record rests on" in result.output


def test_verify_for_machines(files: Path) -> None:
    good = audit("verify", files / "run", "--root", files / "root.pem", "--json")
    (files / "run").write_bytes(b"\xff")
    bad = audit("verify", files / "run", "--root", files / "root.pem", "--json")
    assert (good.exit_code, bad.exit_code) == (0, 1)
    told, found = json.loads(good.output), json.loads(bad.output)
    assert told["ok"] is True
    assert [(check["name"], check["ok"]) for check in told["checks"]] == [(name, True) for name in NAMES]
    assert found["ok"] is False
    assert [check["ok"] for check in found["checks"]] == [False] * 16
    assert found["checks"][0]["reason"] == "cbor.syntax"


def test_explain_tells_what_happened(files: Path) -> None:
    result = audit("explain", files / "refused")
    assert result.exit_code == 0
    assert "code.unknown: " in result.output
    assert "deny" in result.output
    told = json.loads(audit("explain", files / "run", "--json").output)
    assert [record["kind"] for record in told["records"]] == ["decision", *["lease"] * 4, "report"]
    assert told["records"][0]["digests"]["grant"] == told["records"][1]["digests"]["grant"]
    assert told["records"][0]["job"] == told["job"]


def test_explain_shows_what_it_does_not_know(files: Path) -> None:
    made = forger(story().refused)
    made.change(0, time=2**62, reasons=("[bold]unheard.of",))
    (files / "odd").write_bytes(made.bundle())
    result = audit("explain", files / "odd")
    assert result.exit_code == 0
    assert f"@{2**62}" in result.output
    assert "[bold]unheard.of" in result.output


def policy(files: Path, **changes: Any) -> Path:
    """The policy of the run, changed."""
    made = forger()
    bundle = PolicyBundle.from_bytes(made.read(0, "policy"))
    (files / "policy").write_bytes(replace(bundle, **changes).to_bytes())
    return files / "policy"


def test_replay_under_the_same_policy_changes_nothing(files: Path) -> None:
    result = audit("replay", files / "run", "--policy", policy(files))
    assert result.exit_code == 0
    assert "0 of 4 decisions would change" in result.output


def test_replay_under_another_policy_tells_what_changes(files: Path) -> None:
    nobody = '@id("nobody") permit (principal, action, resource) when { false };'
    other = policy(files, operator=nobody)
    result = audit("replay", files / "run", "--policy", other)
    assert result.exit_code == 1
    assert "4 of 4 decisions would change" in result.output
    told = json.loads(audit("replay", files / "run", "--policy", other, "--json").output)
    assert told["changed"] == 4
    assert [(row["then"], row["now"]) for row in told["decisions"]] == [("allow", "deny")] * 4
    assert told["decisions"][0]["reasons"] == ["policy.no-permit"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("verify", "run", "--root", "run"), id="root that is no root"),
        pytest.param(("explain", "root.pem"), id="explain what is no bundle"),
        pytest.param(("replay", "root.pem", "--policy", "policy"), id="replay what is no bundle"),
        pytest.param(("replay", "run", "--policy", "run"), id="replay under what is no policy"),
        pytest.param(("verify", "missing", "--root", "root.pem"), id="no such bundle"),
        pytest.param(("verify", "run", "--root", "missing"), id="no such root"),
        pytest.param(("verify", "run"), id="no root"),
        pytest.param(("replay", "run"), id="no policy"),
    ],
)
def test_what_cannot_be_read_is_exit_2(files: Path, arguments: tuple[str, ...], monkeypatch: Any) -> None:
    policy(files)
    monkeypatch.chdir(files)
    result = audit(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_replay_skips_what_was_not_judged(files: Path) -> None:
    (files / "unsigned").write_bytes(story().unsigned)
    told = json.loads(audit("replay", files / "unsigned", "--policy", policy(files), "--json").output)
    assert told == {"changed": 0, "decisions": []}


def test_an_archive_that_lacks_its_facts_cannot_be_replayed(files: Path) -> None:
    bundle = Bundle.from_bytes(story().run)
    (files / "run").write_bytes(replace(bundle, archive=()).to_bytes())
    assert Record.from_bytes(bundle.leaves[0].record).digests["context"] not in replace(bundle, archive=()).blobs()
    result = audit("replay", files / "run", "--policy", policy(files))
    assert (result.exit_code, "bundle.unnamed" in result.output) == (2, True)


def test_it_is_a_program(files: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "attestation",
        "verify",
        files / "run",
        "--root",
        files / "root.pem",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
