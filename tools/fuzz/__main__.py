"""``./dev fuzz [NAME...] [--minutes M] [--json]``: each parser under atheris, as many at a time as there are cores.

Atheris has an environment of its own below the cache, made on first use from ``requirements/fuzz.txt``; it sees the
packages of the tools' environment, so that the libraries are the same ones. The seeds are genuine evidence, read in
place, and what the lab makes; what a run finds new is kept in the cache and is where the next one starts.

The harnesses and what they demand: ``tests/fuzz/harnesses.py``. Exit status 1 when one of them failed; the input is
kept, and the line that plays it again is printed.
"""

import argparse
import json
import os
import re
import site
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from tests.fuzz.harness import Harness
from tests.fuzz.harnesses import HARNESSES

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "fuzz.txt"
SECONDS_FOR_ONE = 10
MEMORY_MB = 2048


@dataclass(frozen=True)
class Outcome:
    """What became of one harness."""

    name: str
    seconds: float
    executions: int
    features: int
    corpus: int
    failed: str

    @property
    def line(self) -> str:
        """For people."""
        state = f"FAILED: {self.failed}" if self.failed else "clean"
        rate = self.executions / self.seconds if self.seconds else 0
        return (
            f"{self.name:<14} {self.executions:>11,} runs {rate:>8,.0f}/s {self.features:>6} features "
            f"{self.corpus:>5} inputs kept {self.seconds:>6.0f} s  {state}"
        )


def main(arguments: Sequence[str]) -> int:
    """Fuzz the chosen harnesses; 1 when one of them failed."""
    chosen = _parse(arguments)
    cache = Path(os.environ.get("INTERLOCK_CACHE", ".pytest_cache")).resolve()
    python = _environment(cache)
    names = chosen.names or list(HARNESSES)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        running = [pool.submit(_fuzz, python, cache / "fuzz", HARNESSES[name], chosen.minutes) for name in names]
        outcomes = []
        for item in running:
            outcomes.append(item.result())
            print(outcomes[-1].line, file=sys.stderr, flush=True)
    if chosen.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    return int(any(outcome.failed for outcome in outcomes))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Fuzz the parsers of evidence with atheris.")
    parser.add_argument("names", nargs="*", choices=[[], *HARNESSES], help="harnesses; all without one", metavar="NAME")
    parser.add_argument("--minutes", type=float, default=10, help="for each harness (default: 10)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="harnesses at a time")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(arguments)


def _environment(cache: Path) -> Path:
    """Atheris's own Python, made when it is not there yet."""
    place = cache / f"atheris-{sha256(LOCK.read_bytes() + sys.prefix.encode()).hexdigest()[:12]}"
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        print(f"making an environment for atheris in {place}", file=sys.stderr, flush=True)
        base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([str(base), "-m", "venv", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--require-hashes"]
        subprocess.run([*pip, "-r", str(LOCK)], check=True)
        packages = place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (packages / "tools-environment.pth").write_text(f"{site.getsitepackages()[0]}\n", encoding="utf-8")
        (place / "ready").touch()
    return python


def _fuzz(python: Path, cache: Path, harness: Harness, minutes: float) -> Outcome:
    corpus, found = cache / harness.name, cache / "found" / harness.name
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in harness.seeds():
        (corpus / sha256(seed).hexdigest()).write_bytes(seed)
    options = {
        "max_total_time": int(minutes * 60),
        "timeout": SECONDS_FOR_ONE,
        "rss_limit_mb": MEMORY_MB,
        "max_len": harness.most,
        "len_control": 0,
        "print_final_stats": 1,
        "artifact_prefix": f"{found}/",
    }
    command = [
        str(python),
        "-m",
        "tools.fuzz.run",
        harness.name,
        *(f"-{name}={value}" for name, value in options.items()),
    ]
    began = time.monotonic()
    done = subprocess.run([*command, str(corpus)], cwd=ROOT, capture_output=True, text=True, errors="replace")
    text = done.stdout + done.stderr
    executions, features = _last(r"stat::number_of_executed_units:\s*(\d+)", text), _last(r"\bft: (\d+)", text)
    seconds = time.monotonic() - began
    return Outcome(harness.name, seconds, executions, features, len(list(corpus.iterdir())), _failure(done, text))


def _last(pattern: str, text: str) -> int:
    numbers = re.findall(pattern, text)
    return int(numbers[-1]) if numbers else 0


def _failure(done: subprocess.CompletedProcess[str], text: str) -> str:
    """Empty when clean; else what was raised, and how to play it again."""
    if done.returncode == 0:
        return ""
    raised = re.search(r"Uncaught Python exception: ===\n(.+)", text)
    kept = re.search(r"Test unit written to (\S+)", text)
    what = raised[1] if raised else " | ".join(text.strip().splitlines()[-3:])
    replay = f"; again: {done.args[0]} -m tools.fuzz.run {done.args[3]} {kept[1]}" if kept else ""
    return what + replay


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
