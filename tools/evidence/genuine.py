"""Genuine evidence, file by file, and what comes of each when it is verified in the place of the genuine one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from attestation.errors import InterlockError
from attestation.gpu.device import Device, verify_device, verify_fwid, verify_signature
from attestation.gpu.measurements import check_versions, compare
from attestation.gpu.policy import ACCEPT, DENY, MISSING, STALE, GpuPolicy
from attestation.gpu.report import Report
from attestation.gpu.revocation import MISSING as NO_ANSWER
from attestation.gpu.revocation import check_revocation
from attestation.gpu.rim import DRIVER, verify_rim
from tools.evidence import verdict
from tools.evidence.case import Case, Roots, Unreadable, read_cases, read_roots
from tools.evidence.observe import Seen
from tools.evidence.ocsp import Answer, answers
from tools.evidence.rims import SeenRim, base, moment
from tools.evidence.target import Target
from tools.evidence.words import PASS

CASES = ("G01", "G03", "G04")
"""The cases that are changed, by the beginning of their names."""

_YEAR = 31_536_000


class Unusable(InterlockError):
    """An answer about revocation that was put aside, with the reason that the product gives."""


@dataclass(frozen=True)
class _Genuine:
    """A case with everything in it verified."""

    case: Case
    roots: Roots
    seen: Seen
    rims: Mapping[str, SeenRim]
    report: Report
    device: Device
    answers: tuple[Answer, ...]

    @property
    def at(self) -> datetime:
        """For the whole appraisal: where answers were recorded, when the newest one was given."""
        return max((answer.start for answer in self.answers), default=self.seen.at) + timedelta(seconds=1)

    @property
    def policy(self) -> GpuPolicy:
        """Everything is required that the case has; of its answers some are stale whatever the time is."""
        lenient = verdict.policy(self.roots, [self.seen], fwid=True, rims=bool(self.rims))
        missing = DENY if self.answers else ACCEPT
        words = {**lenient.revocation, STALE: ACCEPT, MISSING: missing}
        return replace(lenient, revocation=words, stale_seconds=_YEAR)


def read_targets(folder: Path) -> list[Target]:
    """Every file of the cases that are changed. Raises `Unreadable` without them, or where one is not accepted."""
    roots = read_roots(folder)
    found: list[Target] = []
    for case in read_cases(folder):
        if case.name.startswith(CASES):
            found += _targets(_genuine(case, roots))
    if not found:
        raise Unreadable(f"none of the cases {', '.join(CASES)} is in {folder}")
    return found


def _genuine(case: Case, roots: Roots) -> _Genuine:
    at = moment(case)[0]
    seen = Seen(case.subjects[0], roots, at)
    rims = {name: SeenRim(name, data, roots, at) for name, data in base(case).items()}
    return _Genuine(case, roots, seen, rims, seen.read, seen.known, tuple(answers(case, [seen], roots)[0]))


def _targets(genuine: _Genuine) -> Iterator[Target]:
    subject = genuine.seen.subject
    yield _target(genuine, "report", "report", subject.report or b"", lambda data: _report(genuine, data))
    yield _target(genuine, "chain", "chain", subject.chain or b"", lambda data: _chain(genuine, data))
    for name, rim in genuine.rims.items():
        yield _target(genuine, "rim", name, rim.data, _verifier_of_rim(genuine, name))
    for answer in genuine.answers:
        yield _target(genuine, "ocsp", answer.name, answer.data, _verifier_of_answer(answer))


def _target(genuine: _Genuine, kind: str, name: str, data: bytes, verify: Callable[[bytes], object]) -> Target:
    def appraise(changed: bytes) -> bool:
        return _appraised(genuine, kind, name, changed)

    if not appraise(data):
        raise Unreadable(f"{genuine.case.name} is not accepted as it is: changing it would show nothing")
    return Target(genuine.case.name, kind, name, data, verify, appraise)


def _report(genuine: _Genuine, data: bytes) -> object:
    report = Report.from_bytes(data, kind=genuine.seen.subject.kind)
    verify_signature(report, genuine.device)
    verify_fwid(report, genuine.device, required=False)
    return replace(report, signature=b"")  # (r, n-s) is as good a signature, and says the same


def _chain(genuine: _Genuine, data: bytes) -> object:
    device = verify_device(data, genuine.roots.device, at=genuine.seen.at)
    verify_signature(genuine.report, device)
    verify_fwid(genuine.report, device, required=False)
    return device


def _verifier_of_rim(genuine: _Genuine, name: str) -> Callable[[bytes], object]:
    is_driver = genuine.rims[name].role == DRIVER
    partner = next((rim for other, rim in genuine.rims.items() if other != name), None)
    at = genuine.seen.at

    def verify(data: bytes) -> object:
        rim = verify_rim(data, genuine.roots.rim, at=at)
        beside = None if partner is None else verify_rim(partner.data, genuine.roots.rim, at=at)
        driver, vbios = (rim, beside) if is_driver else (beside, rim)
        if vbios is None:
            raise Unreadable(f"{genuine.case.name} has a driver RIM and none for the VBIOS")
        check_versions(genuine.report, driver=driver, vbios=vbios, device=genuine.device)
        return replace(rim, sha256=b""), compare(genuine.report, driver=driver, vbios=vbios)

    return verify


def _verifier_of_answer(answer: Answer) -> Callable[[bytes], object]:
    middle = answer.start + (answer.end - answer.start) / 2

    def verify(data: bytes) -> object:
        found = check_revocation(answer.certificate, answer.issuer, responses=[data], crls=[], at=middle)
        if found.status == NO_ANSWER:
            raise Unusable(found.problem, "an answer that cannot be used")
        return found

    return verify


def _appraised(genuine: _Genuine, kind: str, name: str, changed: bytes) -> bool:
    """Whether the whole appraisal accepts the case with this file changed."""
    seen, rims, case = genuine.seen, dict(genuine.rims), genuine.case
    if kind == "report":
        seen = Seen(replace(seen.subject, report=changed), seen.roots, seen.at)
    elif kind == "chain":
        seen = Seen(replace(seen.subject, chain=changed), seen.roots, seen.at)
    elif kind == "rim":
        rims[name] = replace(rims[name], data=changed)
    else:
        case = replace(case, responses={**case.responses, name: changed})
    return verdict.judge(case, [seen], rims, genuine.policy, genuine.at).verdict == PASS
