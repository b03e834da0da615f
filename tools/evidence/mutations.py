"""Random changes of genuine evidence, and what must come of them: a refusal, or the same as before.

Each change is one to three operations (:mod:`tools.evidence.changes`, :mod:`tools.evidence.changes_tpm`) on one part of
one case: of GPUs a report, a chain, a RIM, an OCSP response; of TPMs a part of a quote, a boot log, an IMA list, an EK
certificate with what is above it. The changed part is verified in full, everything else is as it was. One of these is
the outcome:

refused     ``Malformed`` or ``Untrusted`` where the file is verified, or where it is used: a chain that is another
            device's does not fit the report, another RIM does not fit the version or the measurements, an answer about
            revocation that cannot be used leaves "missing".
neutral     accepted, and *everything that came out is equal* to what comes of the genuine file: every field of the
            report, every field of the device with its certificates in DER, every field of the RIM but the SHA-256 of
            its file with the whole comparison, status and window of the answer. Nothing is called neutral because of
            where it was changed: line ends of PEM text, white space inside tags of XML or between the base64 digits of
            its certificates show by giving the same canonical result. So do an event's data that no digest covers
            and no fact rests on, and entries behind the last one that a quote proves.
less        of boot logs alone: accepted, and *everything that is believed is what the genuine log says too*, but
            something is missed that no list is compared with (:data:`tools.evidence.believed.TOLD`). Types of events
            are not measured, so they can be used to hide such a fact, never to make one.
VIOLATION   anything else: accepted with another meaning, or an exception that is none of the two.

One change in ``WHOLE`` goes through the whole appraisal besides (of TPMs: of a captured machine): it must not raise,
must accept what is neutral and nothing else. A change is made from the seed and its number alone: ``--seed S --only N``
makes it again.
"""

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from attestation.errors import InterlockError
from tools.evidence import changes, changes_tpm, genuine, genuine_tpm
from tools.evidence.believed import Boot
from tools.evidence.target import Target

WHOLE = 10
CHUNK = 500
MOST_SHOWN = 20
REFUSED, NEUTRAL, LESS, VIOLATION = "refused", "neutral", "less", "VIOLATION"
OUTCOMES = (REFUSED, NEUTRAL, LESS, VIOLATION)


@dataclass(frozen=True)
class Source:
    """A kind of evidence: how it is read, how changed, and how often each of its kinds of parts is."""

    read: Callable[[Path], list[Target]]
    change: Callable[[str, int, Sequence[Target]], tuple[Target, bytes, str]]
    weights: Mapping[str, int]


SOURCES = {
    "gpu": Source(genuine.read_targets, changes.change, changes.WEIGHTS),
    "tpm": Source(genuine_tpm.read_targets, changes_tpm.change, changes_tpm.WEIGHTS),
}


@dataclass(frozen=True)
class Outcome:
    """What came of one change; ``detail`` is the reason of a refusal, or what went wrong."""

    number: int
    target: str
    operations: str
    outcome: str
    detail: str


@dataclass
class Tally:
    """What came of many: outcomes by kind of file, refusals by reason, violations one by one."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    violations: list[Outcome] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take in what another process has found."""
        self.outcomes += other.outcomes
        self.reasons += other.reasons
        self.whole += other.whole
        self.violations += other.violations[:MOST_SHOWN]

    def total(self, outcome: str) -> int:
        """How many had this outcome, over all kinds of files."""
        return sum(count for (_, seen), count in self.outcomes.items() if seen == outcome)


# --- one change ------------------------------------------------------------------------------------------------------


@cache
def _targets(source: str, folder: Path) -> tuple[list[Target], dict[str, object]]:
    """Of this process: the files, and what comes of each as it is."""
    found = SOURCES[source].read(folder)
    return found, {target.label: target.verify(target.data) for target in found}


def judge(source: str, seed: str, number: int, folder: Path) -> tuple[Outcome, bool]:
    """Make one change and say what came of it, and whether the whole appraisal was asked too."""
    targets, known = _targets(source, folder)
    target, data, operations = SOURCES[source].change(seed, number, targets)
    outcome, detail = _of_file(target, data, known[target.label])
    whole = number % WHOLE == 0
    if whole and outcome != VIOLATION:
        outcome, detail = _of_whole(target, data, outcome, detail)
    return Outcome(number, target.label, operations, outcome, detail), whole


def _of_file(target: Target, data: bytes, known: object) -> tuple[str, str]:
    try:
        found = target.verify(data)
    except InterlockError as error:
        return REFUSED, error.reason
    except Exception:  # noqa: BLE001 - whatever escapes is what is looked for
        return VIOLATION, traceback.format_exc(limit=-3)
    if found == known:
        return NEUTRAL, ""
    if isinstance(found, Boot) and found.is_part_of(known):
        return LESS, ""
    return VIOLATION, f"accepted with other {', '.join(_others(found, known))}"[:2000]


def _others(found: object, known: object) -> Iterator[str]:
    """What of a result is not as it is for the genuine part."""
    if is_dataclass(found) and type(found) is type(known):
        for each in fields(found):
            value, before = getattr(found, each.name), getattr(known, each.name)
            if value != before:
                yield f"{each.name}: {value!r}"[:400]
    else:
        yield f"result: {found!r}"


def _of_whole(target: Target, data: bytes, outcome: str, detail: str) -> tuple[str, str]:
    try:
        accepted = target.appraise(data)
    except Exception:  # noqa: BLE001 - nothing at all may be raised
        return VIOLATION, traceback.format_exc(limit=-3)
    if accepted != (outcome != REFUSED):
        return VIOLATION, f"{outcome} {detail}, but the whole appraisal {'accepts' if accepted else 'refuses'} it"
    return outcome, detail


# --- many ------------------------------------------------------------------------------------------------------------


def tally(source: str, seed: str, numbers: Sequence[int], folder: Path) -> Tally:
    """What came of these changes, in this process. What `cryptography` only warns of is not looked at here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _tally(source, seed, numbers, folder)


def _tally(source: str, seed: str, numbers: Sequence[int], folder: Path) -> Tally:
    found = Tally()
    for number in numbers:
        outcome, whole = judge(source, seed, number, folder)
        kind = next(t.kind for t in _targets(source, folder)[0] if t.label == outcome.target)
        found.outcomes[kind, outcome.outcome] += 1
        found.whole += whole
        if outcome.outcome == REFUSED:
            found.reasons[outcome.detail] += 1
        elif outcome.outcome == VIOLATION:
            found.violations.append(outcome)
    return found


def campaign(chosen: argparse.Namespace, jobs: int, progress: Callable[[int, Tally], None]) -> Tally:
    """All changes, ``jobs`` processes at a time, a chunk in hand for each and no more."""
    number = chosen.mutate
    chunks = iter([range(first, min(first + CHUNK, number)) for first in range(0, number, CHUNK)])
    total, done = Tally(), 0
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        work = partial(tally, chosen.kind, chosen.seed, folder=chosen.dir)
        running = [pool.submit(work, chunk) for chunk in islice(chunks, 2 * jobs)]
        while running:
            found = running.pop(0).result()
            total.add(found)
            done += sum(found.outcomes.values())
            progress(done, total)
            running += [pool.submit(work, chunk) for chunk in islice(chunks, 1)]
    return total


def main(chosen: argparse.Namespace) -> int:
    """0 when no change was accepted that means something and nothing escaped."""
    if chosen.only is not None:
        again, _ = judge(chosen.kind, chosen.seed, chosen.only, chosen.dir)
        print(json.dumps(asdict(again), indent=1))
        return int(again.outcome == VIOLATION)
    jobs = chosen.jobs or os.cpu_count() or 1
    began = time.monotonic()

    def progress(done: int, so_far: Tally) -> None:
        rate = done / (time.monotonic() - began)
        if done % 10_000 == 0 or done == chosen.mutate:
            line = f"{done:,} of {chosen.mutate:,}, {rate:,.0f}/s, {len(so_far.violations)} violations"
            print(line, file=sys.stderr, flush=True)

    found = campaign(chosen, jobs, progress)
    seconds = time.monotonic() - began
    print(_as_json(found, chosen, seconds) if chosen.json else "\n".join(_lines(found, chosen, seconds)))
    return int(bool(found.violations))


def _as_json(found: Tally, chosen: argparse.Namespace, seconds: float) -> str:
    summary = {
        "changes": sum(found.outcomes.values()),
        "seed": chosen.seed,
        "seconds": round(seconds, 1),
        "through_whole_appraisal": found.whole,
        "violations": len(found.violations),
    }
    outcomes = {f"{kind} {outcome}": count for (kind, outcome), count in sorted(found.outcomes.items())}
    shown = [asdict(violation) for violation in found.violations[:MOST_SHOWN]]
    reasons = dict(found.reasons.most_common())
    return json.dumps({"summary": summary, "outcomes": outcomes, "reasons": reasons, "violations": shown}, indent=1)


def _lines(found: Tally, chosen: argparse.Namespace, seconds: float) -> Iterator[str]:
    number = sum(found.outcomes.values())
    yield f"{number:,} changes of genuine evidence, seed {chosen.seed}, {seconds:.0f} s, {number / seconds:,.0f}/s"
    yield f"{'':10}" + "".join(f"{outcome:>12}" for outcome in OUTCOMES)
    for kind in SOURCES[chosen.kind].weights:
        counts = [found.outcomes[kind, outcome] for outcome in OUTCOMES]
        yield f"{kind:10}" + "".join(f"{count:>12,}" for count in counts)
    yield f"{found.whole:,} of them also through the whole appraisal"
    yield "refused as: " + ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.most_common())
    for violation in found.violations[:MOST_SHOWN]:
        yield f"VIOLATION number {violation.number}: {violation.target}: {violation.operations}: {violation.detail}"
