"""./dev and the locks: what a newcomer meets first has to be right, and stay in step with pyproject.toml."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("job", "tools")


def lock(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text()


def locked(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", lock(name), re.MULTILINE))


def asked_for(requirements: list[str]) -> set[str]:
    names = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {re.sub(r"[._-]+", "-", name[0]).lower() for name in names if name}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_exact_and_names_no_index(name: str) -> None:
    blocks = re.split(r"^(?=[a-z0-9])", lock(name), flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; .+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", block), block
    assert "://" not in lock(name)
    assert "index" not in lock(name).replace("importlib", "")


def test_the_locks_have_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    product = asked_for(project["project"]["dependencies"] + [one for extra in extras for one in extra])
    assert product | asked_for(project["dependency-groups"]["dev"]) <= locked("tools")
    assert asked_for(project["dependency-groups"]["job"]) <= locked("job")


def test_torch_is_pinned_by_version_alone() -> None:
    assert re.search(r"^TORCH=torch==2\.13\.0$", (ROOT / "dev").read_text(), re.MULTILINE)
    assert not {"torch"} & (locked("tools") | locked("job"))


def test_the_job_environment_has_none_of_our_services() -> None:
    ours = {"cbor2", "pyopenssl", "cedarpy", "starlette", "uvicorn", "httpx", "tpm2-pytss", "pytest"}
    assert not ours & locked("job")


def test_help_names_every_verb() -> None:
    text = (ROOT / "dev").read_text()
    verbs = re.search(r"^([a-z |]+)\) ;;$", text, re.MULTILINE)
    assert verbs
    shown = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True).stdout
    assert set(verbs[1].split(" | ")) == set(re.findall(r"^  (\w+)", shown, re.MULTILINE)) - {"help"}


def test_an_unknown_verb_is_refused() -> None:
    result = subprocess.run([ROOT / "dev", "nonsense"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "there is no verb 'nonsense'" in result.stderr


def test_dev_and_ci_are_plain_shell() -> None:
    assert (ROOT / "dev").read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", ROOT / "dev"], check=True)
    assert "exec ./dev test" in (ROOT / ".ci/run").read_text()
