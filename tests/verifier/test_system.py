"""What the operating system refuses a verifier is explained, and what it may have, it takes."""

import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from verifier.cli import main


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["interlock-verifier", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_a_directory_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["init", "--host", "x", "--dir", "/proc/nowhere"], monkeypatch, capsys)
    assert "system.refused" in said
    assert "/proc/nowhere" in said


def test_a_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["interlock-verifier", "init", "--host", "x", "--dir", str(tmp_path / "v")])
        with pytest.raises(SystemExit):
            main()
        words = ["serve", "--dir", str(tmp_path / "v"), "--bind", "127.0.0.1", "--port", port]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            said = refused(words, monkeypatch, capsys)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "system.refused" in said
    assert "in use" in said


def test_a_service_takes_all_descriptors_that_it_may_have() -> None:
    source = (
        "import resource as r\nfrom verifier.service import allow_connections\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (256, 2048))\nallow_connections()\nprint(r.getrlimit(r.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "(2048, 2048)"
