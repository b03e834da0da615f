"""``./dev mutate [--checks] [--json] [PATH...]``: break ``attestation/`` on purpose and see which tests notice.

How it stays within minutes: one run under coverage tells which tests execute which line; each mutant is then a
forked child of this process, which has everything imported but ``attestation`` itself, and runs only those tests, the
module's own ones first, until the first failure. A mutant that does not end is stopped by its limit of CPU seconds.

``tools/equivalent.toml`` names the mutants that change nothing anybody could observe, each with the reason.
"""

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
import tomllib
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData
from typing_extensions import override

from tools.mutants import Mutant, mutants

PACKAGE = Path("attestation")
SKIPPED = {"__main__.py", "reasons.py"}  # the command's printing; a table of texts
EQUIVALENT = Path("tools/equivalent.toml")
PRELOAD = ("OpenSSL.crypto", "cbor2", "cedarpy", "cryptography.x509", "hypothesis", "pycose.messages")
LEAST_SECONDS = 5
JOB_FAILED = 99  # no exit status of pytest
# pytest is preloaded here, so it cannot rewrite its own plugins' asserts any more: no loss
PYTEST = ["-q", "--timeout=0", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
FIRST_FAILURE = ["-x", "--no-header", "--no-summary"]

Lines = dict[Path, dict[int, list[str]]]  # module -> line -> the tests that execute it


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: killed, survived, or unreached when no test executes its line."""

    mutant: Mutant
    outcome: str

    def row(self) -> dict[str, object]:
        """For ``--json``."""
        found = self.mutant
        return {"where": found.where, "kind": found.kind, "text": found.text, "outcome": self.outcome}


def main(arguments: list[str]) -> int:
    """Exit status 1 when a mutant survives that is not listed as equivalent."""
    chosen = _parse(arguments)
    for name in PRELOAD:
        importlib.import_module(name)
    began = time.monotonic()
    reached = _who_reaches_what(chosen.tests)
    todo = [
        mutant
        for path in _modules(chosen.paths)
        for mutant in mutants(path, path.read_text(), checks_only=chosen.checks)
    ]
    _say(f"{len(todo)} mutants; the tests took {time.monotonic() - began:.0f} s unbroken")
    limit = LEAST_SECONDS + 3 * int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
    job = Job(reached, limit, chosen.jobs)
    job.control(todo[0])
    equivalent = _equivalent()
    verdicts = list(job.run(todo))
    survivors = [v for v in verdicts if v.outcome != "killed" and v.mutant.key not in equivalent]
    _report(verdicts, survivors, as_json=chosen.json)
    _say(f"{len(verdicts)} mutants, {len(survivors)} survivors, {time.monotonic() - began:.0f} s")
    return 1 if survivors else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev mutate", description="Break attestation/ on purpose.")
    parser.add_argument("paths", nargs="*", type=Path, help="modules to break; all of attestation/ without one")
    parser.add_argument("--checks", action="store_true", help="only what refuses: guards, conditions, verifying calls")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--tests", nargs="+", default=["tests/attestation"], help="the tests that must notice")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _modules(paths: Sequence[Path]) -> list[Path]:
    return list(paths) or sorted(path for path in PACKAGE.rglob("*.py") if path.name not in SKIPPED)


def _equivalent() -> dict[str, str]:
    """Key of each equivalent mutant -> why nobody could observe it."""
    return {row["mutant"]: row["why"] for row in tomllib.loads(EQUIVALENT.read_text()).get("equivalent", [])}


# --- which tests execute which line ----------------------------------------------------------------------------------


class _Contexts:
    """A pytest plugin: coverage keeps apart what each test executes."""

    def __init__(self, measure: Coverage) -> None:
        self._measure = measure

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """The test's node id is the context of all three of its phases."""
        self._measure.switch_context(item.nodeid)
        return (yield)


def _who_reaches_what(tests: Sequence[str]) -> Lines:
    """Run the tests once, unbroken, in a child; raises SystemExit when they fail even so."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        child = os.fork()
        if child == 0:
            measure = Coverage(data_file=str(data), branch=False, source_pkgs=["attestation"], config_file=False)
            measure.start()
            status = _silently([*PYTEST, *tests], plugins=[_Contexts(measure)])
            measure.stop()
            measure.save()
            os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise SystemExit(f"./dev mutate: these fail without any mutation: ./dev test {' '.join(tests)}")
        read = CoverageData(str(data))
        read.read()
        return {
            Path(name).relative_to(Path.cwd()): {
                line: [test for test in names if test] for line, names in read.contexts_by_lineno(name).items()
            }
            for name in read.measured_files()
            if Path(name).is_relative_to(Path.cwd())
        }


def _tests_for(mutant: Mutant, reached: Lines) -> list[str]:
    """The tests that execute the mutant's line, or its module where the line runs at import; its own tests first."""
    lines = reached.get(mutant.path, {})
    tests = lines.get(mutant.line) or sorted({test for names in lines.values() for test in names})
    own = f"test_{mutant.path.stem}"
    return sorted(set(tests), key=lambda test: (own not in test, test))


# --- one mutant, one child -------------------------------------------------------------------------------------------


class _Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = ".".join(mutant.path.with_suffix("").parts).removesuffix(".__init__")
        self._path = mutant.path.resolve()
        mutant.edit()
        self._code = compile(ast.fix_missing_locations(mutant.tree), str(self._path), "exec")

    @override
    def find_spec(
        self,
        fullname: str,
        path: object,
        target: object = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The mutant for its own name, nothing for any other."""
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    @override
    def exec_module(self, module: types.ModuleType) -> None:
        """Execute the mutant's code in the new module."""
        exec(self._code, module.__dict__)  # noqa: S102 - this is how a module is executed


@dataclass(frozen=True)
class Job:
    """Runs mutants, ``processes`` at a time, each under a limit of CPU ``seconds``."""

    reached: Lines
    seconds: int
    processes: int

    def control(self, mutant: Mutant) -> None:
        """The same machinery on an unbroken module: its tests must pass, or every verdict would be worthless."""
        unbroken = replace(mutant, edit=lambda: None)
        if [verdict.outcome for verdict in self.run([unbroken])] == ["killed"]:
            raise SystemExit("./dev mutate: the tests fail on an unbroken module under the mutation job itself")

    def run(self, todo: Sequence[Mutant]) -> Iterator[Verdict]:
        """Judge every mutant, in the order in which they finish."""
        running: dict[int, Mutant] = {}
        judged = survived = 0
        for mutant in todo:
            tests = _tests_for(mutant, self.reached)
            if not tests:
                yield Verdict(mutant, "unreached")
                continue
            running[self._start(mutant, tests)] = mutant
            while len(running) >= self.processes:
                verdict = _finished(running)
                judged, survived = judged + 1, survived + (verdict.outcome == "survived")
                if judged % 100 == 0:
                    _say(f"  {judged} of {len(todo)}, {survived} survived")
                yield verdict
        while running:
            yield _finished(running)

    def _start(self, mutant: Mutant, tests: list[str]) -> int:
        child = os.fork()
        if child == 0:
            status = JOB_FAILED
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (self.seconds, self.seconds))
                sys.meta_path.insert(0, _Broken(mutant))
                status = _silently([*PYTEST, *FIRST_FAILURE, *tests], plugins=[])
            finally:
                os._exit(status)
        return child


def _finished(running: dict[int, Mutant]) -> Verdict:
    """Wait for one child; only exit status 0, every test passed, lets its mutant survive."""
    child, status = os.wait()
    mutant = running.pop(child)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == JOB_FAILED:
        raise SystemExit(f"./dev mutate: this mutant cannot be made: {mutant.where}: {mutant.kind}: {mutant.text}")
    return Verdict(mutant, "survived" if status == 0 else "killed")


def _silently(arguments: list[str], plugins: list[object]) -> int:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return int(pytest.main(arguments, plugins=plugins))


# --- what it found ---------------------------------------------------------------------------------------------------


def _report(verdicts: Sequence[Verdict], survivors: Sequence[Verdict], *, as_json: bool) -> None:
    if as_json:
        counts = {"mutants": len(verdicts), "killed": sum(v.outcome == "killed" for v in verdicts)}
        print(json.dumps(counts | {"survivors": [verdict.row() for verdict in survivors]}, indent=2))
        return
    for verdict in sorted(survivors, key=lambda v: (v.mutant.path, v.mutant.line)):
        print(f"{verdict.mutant.where}: {verdict.outcome}: {verdict.mutant.kind}: {verdict.mutant.text}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
