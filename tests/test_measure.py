"""Processes with an environment of their own are measured too, or the coverage gates would count too little."""

import subprocess
import sys
from pathlib import Path

from coverage import CoverageData

from tools import test as runner

CHILD = """
import os
from attestation import cbor
cbor.encode(1)
if os.fork() == 0:
    os.chdir("/")
    cbor.decode(b"\\x01", max_size=1)
    os.execve("/usr/bin/env", ["env"], {"ONLY": "this"})
os.wait()
os._exit(0)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', {CHILD!r}], env={{}}, check=True)"


def test_clean_environment_fork_exec_and_exit(tmp_path: Path) -> None:
    environment = {"INTERLOCK_MEASURE": runner._settings(tmp_path / "data")}
    run = subprocess.run(
        [sys.executable, "-I", "-c", PARENT], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout == "ONLY=this\n"
    found: set[int] = set()
    for part in tmp_path.glob("data.*"):
        data = CoverageData(str(part))
        data.read()
        for name in data.measured_files():
            if name.endswith("attestation/cbor.py"):
                found |= {line for pair in data.arcs(name) or [] for line in pair}
    source = (runner.ROOT / "attestation/cbor.py").read_text().splitlines()
    bodies = [number for number, line in enumerate(source, 1) if line.startswith(("def encode(", "def decode("))]
    assert all(any(body < line < body + 20 for line in found) for body in bodies)
