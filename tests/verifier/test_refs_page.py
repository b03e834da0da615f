"""docs/references.md is true: its commands and options exist, its rules are read, its codes are registered."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attestation.reasons import explain
from tests.attestation.tpm.ima.keys import certificate, ec_key
from verifier.cli import app
from verifier.cli_refs import refs
from verifier.cli_refs_boot import boot
from verifier.cli_refs_ima import ima
from verifier.refs import imadoc

PAGE = (Path(__file__).parents[2] / "docs" / "references.md").read_text(encoding="utf-8")
LINES = sorted(
    {line.split("#")[0].split(">")[0].strip() for line in PAGE.splitlines() if "interlock-verifier refs" in line}
)


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_page_exists(line: str) -> None:
    words = shlex.split(line)[1:]
    path = words[: 3 if words[1] in ("boot", "ima") else 2]
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"})
    assert shown.exit_code == 0
    for option in [word for word in words if word.startswith("--")]:
        assert option in shown.stdout


def test_the_page_names_every_command() -> None:
    for app_, prefix in ((refs, "refs"), (boot, "refs boot"), (ima, "refs ima")):
        for command in app_.registered_commands:
            assert f"{prefix} {command.name}" in PAGE


def test_the_rules_of_the_page_are_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "vendor.der").write_bytes(certificate(ec_key()))
    policy = imadoc.read(text, beside=tmp_path)
    assert (len(policy.rules), len(policy.keys), len(policy.buffers)) == (2, 1, 1)


def test_the_codes_of_the_page_are_registered() -> None:
    for code in re.findall(r"`((?:ref|tpm|policy)\.[a-z0-9.-]+)`", PAGE):
        assert explain(code).fix
