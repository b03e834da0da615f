"""``./dev test``: every test under coverage, subprocesses included, then the gates.

With pytest arguments it runs just those tests, without coverage. How a process that the tests start comes to be
measured: ``patch = ["subprocess", ...]`` in pyproject.toml puts coverage's settings into the environment, and a
``.pth`` file of the coverage package reads them at interpreter start, under ``python -I`` too; ``tools/measure.py``
does it for those that are started with a clean environment. A process that is killed with SIGKILL leaves no data;
what only such a process executes must be shown by another test.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from coverage import Coverage

from tools import coverage_gate

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest"]
MEASURED = [sys.executable, "-m", "coverage", "run", "-m", "pytest"]
COVERAGE = [sys.executable, "-m", "coverage"]


def main(arguments: list[str]) -> int:
    """Run the tests; the exit status is pytest's, or 1 when only a coverage gate failed."""
    cache = Path(os.environ.get("INTERLOCK_CACHE", ".pytest_cache"))
    options = ["-o", f"cache_dir={cache / 'pytest'}"]
    if arguments:
        return subprocess.run([*PYTEST, *options, *arguments]).returncode
    data = _fresh(cache / "coverage")
    environment = dict(os.environ, COVERAGE_FILE=str(data / "data"), INTERLOCK_MEASURE=_settings(data / "data"))
    tests = subprocess.run([*MEASURED, *options], env=environment)
    report = data / "report.json"
    # on stderr, so that pytest's closing line stays the last one on stdout
    for command in (["combine", "-q"], ["json", "-q", "-o", str(report)]):
        subprocess.run([*COVERAGE, *command], env=environment, stdout=sys.stderr, check=True)
    gates = coverage_gate.main(report)
    return tests.returncode or gates


def _settings(data: Path) -> str:
    """Coverage's settings for ``tools/measure.py``: complete, as not every user may read the checkout.

    Without the ``subprocess`` patch, which would put them into the environment of everything that is started.
    """
    config = Coverage(data_file=str(data), config_file=str(ROOT / "pyproject.toml")).config
    config.patch = [patch for patch in config.patch if patch != "subprocess"]
    return config.serialize()


def _fresh(folder: Path) -> Path:
    """An empty folder in which every user may leave coverage data, as a job's helpers run under other users."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o1777)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
