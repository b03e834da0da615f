"""``./dev test``: every test under coverage, subprocesses included, then the gates.

Three pytest processes share the work: two with the tests that start services and jobs, which mostly wait, and one with
all others, which mostly compute. The output of the first two is shown when the third has ended, and the last line adds
all up.

With pytest arguments it runs just those tests, without coverage. How a process that the tests start comes to be
measured: ``patch = ["subprocess", ...]`` in pyproject.toml puts coverage's settings into the environment, and a
``.pth`` file of the coverage package reads them at interpreter start, under ``python -I`` too; ``tools/measure.py``
does it for those that are started with a clean environment. A process that is killed with SIGKILL leaves no data;
what only such a process executes must be shown by another test.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO

from coverage import Coverage

from tools import coverage_gate

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest"]
MEASURED = [sys.executable, "-m", "coverage", "run", "-m", "pytest"]
COVERAGE = [sys.executable, "-m", "coverage"]
WAITING = (("agent", "fixtures"), ("flow", "verifier"))
"""The folders of tests that start services, jobs and devices, for one process each."""
ON_DEMAND = "vm"
"""The folder of tests that run only when they are asked for: ``./dev test vm``."""

_COUNTED = re.compile(r"(\d+) (failed|passed|skipped|xfailed|errors?)\b")


def main(arguments: list[str]) -> int:
    """Run the tests; the exit status is pytest's, or 1 when only a coverage gate failed."""
    cache = Path(os.environ.get("INTERLOCK_CACHE", ".pytest_cache"))
    if arguments:
        return subprocess.run([*PYTEST, "-o", f"cache_dir={cache / 'pytest'}", *arguments]).returncode
    data = _fresh(cache / "coverage")
    environment = dict(os.environ, COVERAGE_FILE=str(data / "data"), INTERLOCK_MEASURE=_settings(data / "data"))
    tests = _run_all(cache, environment)
    report = data / "report.json"
    # on stderr, so that pytest's closing line stays the last one on stdout
    for command in (["combine", "-q"], ["json", "-q", "-o", str(report)]):
        subprocess.run([*COVERAGE, *command], env=environment, stdout=sys.stderr, check=True)
    gates = coverage_gate.main(report)
    return tests or gates


def _run_all(cache: Path, environment: dict[str, str]) -> int:
    """Run all parts at once, each with a cache of its own; the worst exit status."""
    began = time.monotonic()
    found = sorted(path for path in (ROOT / "tests").iterdir() if path.is_dir() or path.match("test_*.py"))
    apart = {name: number for number, names in enumerate(WAITING) for name in names}
    others = [str(path) for path in found if path.name not in {*apart, ON_DEMAND, "__pycache__"}]

    def start(name: str, paths: list[str], stdout: IO[str] | int) -> subprocess.Popen[str]:
        command = [*MEASURED, "-o", f"cache_dir={cache / name}", *paths]
        return subprocess.Popen(command, env=environment, stdout=stdout, text=True, cwd=ROOT)

    waiting = []
    for number in range(len(WAITING)):
        paths = [str(path) for path in found if apart.get(path.name) == number]
        output = (cache / f"waiting-{number}.out").open("w+", encoding="utf-8")
        waiting.append((start(f"pytest-{number}", paths, output), output))
    counts: Counter[str] = Counter()
    with start("pytest", others, subprocess.PIPE) as computing:
        for line in computing.stdout or ():
            print(line, end="", flush=True)
            counts = Counter(_counted(line)) or counts
    for process, output in waiting:
        process.wait()
        with output:
            output.seek(0)
            shown = output.read()
        print(shown)
        counts.update(_counted(shown.rstrip().rpartition("\n")[2]))
    told = ", ".join(f"{counts[word]} {word}" for word in sorted(counts))
    print(f"== {told} in {time.monotonic() - began:.0f} s ==", flush=True)
    codes: list[int] = [computing.returncode, *(process.returncode for process, _ in waiting)]
    return max(map(abs, codes))


def _counted(closing: str) -> dict[str, int]:
    """The numbers in pytest's closing line."""
    return {word: int(number) for number, word in _COUNTED.findall(closing)}


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
