"""``./dev test``: every test, those of the packages under coverage, then the gates.

The folders of tests are parts, each for a pytest process of its own, three at a time: some start services and jobs and
mostly wait, others compute. Whoever is done takes the next part, so the longest come first. The output of a part is
shown when it has ended, and the last line adds all up.

Measured are the tests of the three packages, and they alone have to pass the gates. The flow and the others start
hundreds of processes, a third of whose time would go into measuring what is shown already.

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
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from coverage import Coverage

from tools import coverage_gate

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest"]
MEASURED = [sys.executable, "-m", "coverage", "run", "-m", "pytest"]
COVERAGE = [sys.executable, "-m", "coverage"]
PARTS = ("flow", "agent", "verifier", "attestation")
"""The folders of tests that are parts, the longest first; all others are the last part together."""
MEASURED_PARTS = frozenset({"agent", "attestation", "verifier"})
AT_ONCE = 3
ON_DEMAND = "vm"
"""The folder of tests that run only when they are asked for: ``./dev test vm``."""

_MEASURING = frozenset({"COVERAGE_FILE", "INTERLOCK_MEASURE"})
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
    """Run all parts, each with a cache of its own; the worst exit status."""
    began = time.monotonic()
    parts = _parts()
    print(f"== {', '.join(parts)}: {AT_ONCE} at a time, shown as they end ==", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as at_once:
        running = [at_once.submit(_run, name, paths, cache, environment) for name, paths in parts.items()]
        counts: Counter[str] = Counter()
        codes = []
        for ended in as_completed(running):
            code, shown = ended.result()
            print(shown, flush=True)
            counts.update(_counted(shown.rstrip().rpartition("\n")[2]))
            codes.append(code)
    told = ", ".join(f"{counts[word]} {word}" for word in sorted(counts))
    print(f"== {told} in {time.monotonic() - began:.0f} s ==", flush=True)
    return max(map(abs, codes))


def _parts() -> dict[str, list[str]]:
    """What each part runs, by its name."""
    found = sorted(path for path in (ROOT / "tests").iterdir() if path.is_dir() or path.match("test_*.py"))
    parts = {name: [str(ROOT / "tests" / name)] for name in PARTS}
    left_out = {*PARTS, ON_DEMAND, "__pycache__"}
    return {**parts, "others": [str(path) for path in found if path.name not in left_out]}


def _run(name: str, paths: list[str], cache: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run one part: its exit status and its output."""
    start = MEASURED
    if name not in MEASURED_PARTS:
        start, environment = PYTEST, {key: environment[key] for key in environment if key not in _MEASURING}
    command = [*start, "-o", f"cache_dir={cache / f'pytest-{name}'}", *paths]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stdout


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
