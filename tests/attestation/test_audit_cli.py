"""``interlock-audit`` as a person and as a program sees it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attestation.__main__ import app
from attestation.bundle import Bundle
from attestation.log import Record
from attestation.policy import PolicyBundle
from tests.attestation.forge import NAMES, forger, story

END = b"-----END PUBLIC KEY-----\n"


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
    assert "17 checks, nothing speaks against this bundle." in result.output


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
    assert [check["ok"] for check in found["checks"]] == [False] * 17
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
    (job,) = told["jobs"]
    assert (job["boot"], job["number"], job["grant"]) == ("1.0", 1, told["job"])
    shown = audit("explain", files / "run").output
    assert "jobs that the TPM certified" in shown
    assert job["code"][:16] in shown
    assert "jobs that the TPM certified" not in result.output


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


GRANT_PEM, LOG_PEM = story().keys.root.split(END)[0] + END, story().keys.root.split(END)[1] + END

UNUSABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "audit.file": {
        "no such bundle": ("verify", "missing", "--root", "root.pem"),
        "no such root": ("verify", "run", "--root", "missing"),
        "no such policy": ("replay", "run", "--policy", "missing"),
        "nothing to explain": ("explain", "missing"),
        "nothing to extract": ("extract", "missing", "out"),
        "a directory that is there": ("extract", "run", "out"),
    },
    "audit.directory": {
        "bundle is a directory": ("verify", "out", "--root", "root.pem"),
        "root is a directory": ("verify", "run", "--root", "out"),
        "policy is a directory": ("replay", "run", "--policy", "out"),
    },
    "audit.empty": {
        "empty bundle": ("verify", "empty", "--root", "root.pem"),
        "empty root": ("verify", "run", "--root", "empty"),
        "empty policy": ("replay", "run", "--policy", "empty"),
    },
    "audit.large": {
        "root without end": ("verify", "run", "--root", "/dev/zero"),
    },
    "root.keys": {
        "bundle for a root": ("verify", "run", "--root", "run"),
        "one key": ("verify", "run", "--root", "grant.pem"),
        "keys swapped": ("verify", "run", "--root", "swapped.pem"),
        "two grant keys": ("verify", "run", "--root", "twice.pem"),
    },
    "key.encoding": {
        "keys that are none": ("verify", "run", "--root", "rubbish.pem"),
    },
    "cbor.syntax": {
        "explain what is no bundle": ("explain", "rubbish"),
        "extract what is no bundle": ("extract", "rubbish", "new"),
        "replay what is no bundle": ("replay", "rubbish", "--policy", "policy"),
        "replay under what is no policy": ("replay", "run", "--policy", "rubbish"),
    },
}


@pytest.fixture
def unusable(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files, a policy, and others that cannot be used; the working directory."""
    policy(files)
    (files / "out" / "archive").mkdir(parents=True)
    rubbish = b"-----BEGIN PUBLIC KEY-----\nAAAA\n" + END
    contents = {"empty": b"", "rubbish": b"\xff", "grant.pem": GRANT_PEM, "rubbish.pem": rubbish * 2}
    contents |= {"swapped.pem": LOG_PEM + GRANT_PEM, "twice.pem": GRANT_PEM * 2}
    for name, data in contents.items():
        (files / name).write_bytes(data)
    monkeypatch.chdir(files)
    return files


@pytest.mark.usefixtures("unusable")
@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        pytest.param(reason, arguments, id=title)
        for reason, rows in UNUSABLE.items()
        for title, arguments in rows.items()
    ],
)
def test_what_cannot_be_used_is_exit_2_and_one_screen(reason: str, arguments: tuple[str, ...]) -> None:
    result = audit(*arguments)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith("cannot use ")
    assert lines[0].endswith(f": {reason}")
    assert lines[3].startswith("-> ")
    assert 4 <= len(lines) <= 6
    assert isinstance(result.exception, SystemExit)


@pytest.mark.usefixtures("unusable")
def test_what_cannot_be_used_for_machines() -> None:
    result = audit("verify", "run", "--root", "swapped.pem", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], told["error"]["reason"]) == (2, False, "root.keys")
    assert "swapped" in told["error"]["detail"]
    assert told["error"]["fix"].startswith("Get root.pem again. root.pem is made by interlock-verifier init")


@pytest.mark.parametrize("arguments", [("verify", "run"), ("replay", "run"), ("extract", "run"), ("explain",)])
def test_a_command_line_that_lacks_something_is_exit_2(files: Path, arguments: tuple[str, ...]) -> None:
    assert audit(*arguments).exit_code == 2


def test_without_permission_it_says_so(files: Path) -> None:
    """Root may read everything, so another user asks."""
    (files / "root.pem").chmod(0)
    before = os.geteuid()
    os.seteuid(before or 65534)
    try:
        result = audit("verify", files / "run", "--root", files / "root.pem")
    finally:
        os.seteuid(before)
    assert (result.exit_code, "audit.file" in result.stderr, "Permission denied" in result.stderr) == (2, True, True)


def test_verify_counts_what_is_missing(files: Path) -> None:
    whole = Bundle.from_bytes(story().run)
    for gone, told in ((1, "missing 1 of 6; the first is 2"), (3, "missing 3 of 6; the first is 2")):
        left = (*whole.leaves[:2], *whole.leaves[2 + gone :])
        (files / "run").write_bytes(replace(whole, leaves=left).to_bytes())
        result = audit("verify", files / "run", "--root", files / "root.pem")
        assert result.exit_code == 1
        assert f"bundle.missing: {told}" in result.output
        assert "Check 5, sequence, fails. Records of this job were left out" in result.output


def test_extract_gives_files_that_stock_tools_believe(files: Path) -> None:
    result = audit("extract", files / "run", files / "new")
    out = files / "new"
    written = [path for path in out.rglob("*") if path.is_file()]
    assert (result.exit_code, result.output) == (0, f"{len(written)} files in {out}\n")
    assert len(written) >= 60
    assert all(sha256(path.read_bytes()).hexdigest() == path.name for path in (out / "archive").iterdir())
    for number in (0, 2, 3, 4):
        assert checkquote(out, number, (out / f"quote-{number}.qualifying").read_text()) == 0
        assert checkquote(out, number, "00" * 32) != 0
    assert not (out / "workload-0.attest").exists(), "no job had been measured"
    for number in (2, 3, 4):
        qualifying = bytes.fromhex((out / f"quote-{number}.qualifying").read_text())
        assert qualifying in (out / f"workload-{number}.attest").read_bytes()
        assert (out / f"workload-{number}.entries").read_bytes()[:16] == Bundle.from_bytes(story().run).job


def test_openssl_believes_the_checkpoint(files: Path) -> None:
    """By the two lines of docs/auditing.md: the text up to the blank line, the last 64 bytes of the signature."""
    assert audit("extract", files / "run", files / "new").exit_code == 0
    (files / "log.pem").write_bytes(LOG_PEM)
    script = (
        "sed '/^$/,$d' new/checkpoint.note > text; "
        "sed -n 's/^— [^ ]* //p' new/checkpoint.note | base64 -d | tail -c 64 > sig; "
        "openssl pkeyutl -verify -pubin -inkey log.pem -rawin -in text -sigfile sig"
    )
    done = subprocess.run(["/bin/sh", "-c", script], cwd=files, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Signature Verified Successfully\n")


def test_the_handbook_has_a_row_for_every_check() -> None:
    text = (Path(__file__).parents[2] / "docs" / "auditing.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row[0].isdigit()] == [[str(n), name] for n, name in enumerate(NAMES, 1)]


def test_extract_of_a_denial_has_no_grant(files: Path) -> None:
    assert audit("extract", files / "refused", files / "new").exit_code == 0
    names = {path.name for path in (files / "new").iterdir()}
    assert {"record-0.cbor", "record-0.receipt.cose", "quote-0.attest", "checkpoint.note"} <= names
    assert "grant.cose" not in names


def test_extract_of_evidence_without_a_quote(files: Path) -> None:
    made = forger()
    made.evidence(3, collection={})
    (files / "run").write_bytes(made.bundle())
    assert audit("extract", files / "run", files / "new").exit_code == 0
    assert not (files / "new" / "quote-3.attest").exists()


def checkquote(out: Path, number: int, qualifying: str) -> int:
    """What tpm2_checkquote says of a quote."""
    names = {"-u": "ak.pem", "-m": "attest", "-s": "signature"}
    files = [word for option, name in names.items() for word in (option, str(out / f"quote-{number}.{name}"))]
    command = ["tpm2_checkquote", *files, "-q", qualifying, "-g", "sha256"]
    return subprocess.run(command, capture_output=True, check=False).returncode


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
