"""The agent's settings file: every key known, every value in bounds."""

from pathlib import Path

import pytest

from agent.settings import Settings
from attestation.errors import Malformed

GOOD = """
state = "/var/lib/a"
run = "/run/a"
tcti = "unix:/tmp/tpm.sock"
cgroup = "jobs"
watch_ms = 250
jobs = 2
event_log = false
event_log_file = "/logs/boot"
ima_file = "/logs/ima"
uids = [1000, 1001]
gids = [50]
"""

BAD = {
    "not TOML": ("settings.syntax", "state = "),
    "a misspelt key": ("settings.unknown", "sate = '/x'"),
    "a table": ("settings.unknown", "[verifier]\nurl = 'x'"),
    "a relative path": ("settings.value", "state = 'var'"),
    "a path that is a number": ("settings.value", "run = 1"),
    "an empty tcti": ("settings.value", "tcti = ''"),
    "a tcti that is a list": ("settings.value", "tcti = []"),
    "a cgroup elsewhere": ("settings.value", "cgroup = '../x'"),
    "a cgroup with a folder": ("settings.value", "cgroup = 'a/b'"),
    "a watch too quick": ("settings.value", "watch_ms = 1"),
    "a watch too slow": ("settings.value", "watch_ms = 60000"),
    "a watch that is a float": ("settings.value", "watch_ms = 0.5"),
    "a watch that is true": ("settings.value", "watch_ms = true"),
    "no jobs": ("settings.value", "jobs = 0"),
    "an event log by word": ("settings.value", "event_log = 'yes'"),
    "a measurement list that is none": ("settings.value", "ima_file = ''"),
    "root may submit": ("settings.value", "uids = [0]"),
    "a user by name": ("settings.value", "uids = ['ada']"),
    "one user, not a list": ("settings.value", "uids = 1000"),
    "a group beyond 32 bits": ("settings.value", "gids = [4294967295]"),
    "a group that is true": ("settings.value", "gids = [true]"),
}


def test_every_key_is_read() -> None:
    assert Settings.from_toml(GOOD) == Settings(
        state=Path("/var/lib/a"),
        run=Path("/run/a"),
        tcti="unix:/tmp/tpm.sock",
        cgroup="jobs",
        watch_ms=250,
        jobs=2,
        event_log=False,
        event_log_file=Path("/logs/boot"),
        ima_file=Path("/logs/ima"),
        uids=(1000, 1001),
        gids=(50,),
    )


def test_nobody_may_submit_by_default() -> None:
    settings = Settings.from_toml("")
    assert (settings.uids, settings.gids) == ((), ())
    assert settings.socket == Path("/run/interlock/agent.sock")


@pytest.mark.parametrize(("reason", "text"), BAD.values(), ids=BAD.keys())
def test_a_wrong_setting_is_refused(reason: str, text: str) -> None:
    with pytest.raises(Malformed) as refused:
        Settings.from_toml(text)
    assert refused.value.reason == reason


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(GOOD)
    assert Settings.load(file).jobs == 2


@pytest.mark.parametrize("data", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "agent.toml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(Malformed) as refused:
        Settings.load(file)
    assert refused.value.reason == "settings.file"
