"""How a run ended: from what the hold said to the exit code, the halts, the report and the submitter's screen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self, cast

from agent import codes, screen
from agent.hold import Halt, Outcome
from agent.messages import Ended
from agent.protocol import HARD
from attestation.cose import RECEIPTS, PublicKey, verify_sign1
from attestation.grant import MAX_SIZE, TYP, Authorization, Grant
from attestation.log import Record, leaf_hash, verify_receipt
from attestation.problem import Denial
from attestation.report import HaltRecord, Output, Report

_SIGNAL: Final = 128
_MOST: Final = 1024


@dataclass(frozen=True, slots=True)
class End:
    """What an outcome amounts to. ``klass`` and ``reason`` are of the halt that ended the run, None without one.

    ``empty`` is whether the kernel called the job's control group empty.
    """

    exit_code: int
    klass: str | None = None
    reason: str | None = None
    detail: str = ""
    halts: tuple[HaltRecord, ...] = ()
    applied: tuple[str, ...] = ()
    empty: bool = True

    @classmethod
    def failed(cls, reason: str, detail: str) -> Self:
        """The run could not be begun: Interlock, or what was asked for, is not in order."""
        return cls(codes.FAILED, HARD, reason, detail, (HaltRecord(klass=HARD, reason=reason[:128]),))

    @classmethod
    def of(cls, outcome: Outcome, detail: str) -> Self:
        """What the hold said. ``detail`` is what was seen by whoever ordered the halt."""
        if outcome.refused is not None:
            return cls.failed(*outcome.refused)
        halts = tuple(map(_record, outcome.halts[-_MOST:]))
        base = cls(codes.FAILED, halts=halts, applied=tuple(sorted(outcome.applied)), empty=outcome.cgroup_empty)
        last = outcome.halts[-1] if outcome.halts and outcome.halts[-1].thawed_ns is None else None
        if last is not None:
            code = codes.of_halt(last.klass, last.reason)
            return replace(base, exit_code=code, klass=last.klass, reason=last.reason, detail=detail)
        code = codes.FAILED if outcome.exit_code is None else outcome.exit_code
        return replace(base, exit_code=code if code >= 0 else _SIGNAL - code)

    @property
    def hard(self) -> bool:
        """Whether a hard halt ended the run."""
        return self.klass == HARD


def _record(halt: Halt) -> HaltRecord:
    frozen, dead = _us(halt.cause_ns, halt.frozen_ns), _us(halt.cause_ns, halt.dead_ns)
    return HaltRecord(klass=halt.klass, reason=halt.reason[:128], frozen_us=frozen, dead_us=dead)


def _us(cause_ns: int, at_ns: int | None) -> int | None:
    return None if at_ns is None else max(0, at_ns - cause_ns) // 1000


def record_index(answer: Authorization, key: PublicKey, log_key: PublicKey) -> int:
    """Where in the log the decision is that ``answer`` rests on, proven by the grant's receipt."""
    signed = verify_sign1(answer.grant, key, typ=TYP, max_size=MAX_SIZE, unprotected=frozenset({RECEIPTS}))
    (receipt,) = cast("list[bytes]", signed.unprotected[RECEIPTS])  # verify_grant has seen exactly one
    return verify_receipt(receipt, leaf_hash(answer.record), log_key).entry


@dataclass(frozen=True, slots=True)
class Span:
    """When a run began and ended (Unix seconds), how many leases it held, and which job of the boot it was."""

    started: int
    ended: int
    leases: int
    entry: int | None = None


def report(end: End, grant: bytes, code: bytes, span: Span, outputs: Mapping[str, Output]) -> Report:
    """The report of the run of ``grant``, of the code tree ``code``."""
    return Report(
        started=span.started,
        ended=span.ended,
        exit_code=end.exit_code,
        halts=end.halts,
        outputs=outputs,
        applied=end.applied,
        grant=grant,
        leases=span.leases,
        cgroup_empty=end.empty,
        code=code,
        entry=span.entry,
    )


def of_run(
    end: End, grant: Grant, index: int, span: Span, outputs: Mapping[str, Output], denial: Denial | None
) -> Ended:
    """What the submitter is told of a run. ``denial`` is the verifier's word that stopped it, where there was one."""
    ended = Ended(
        exit_code=end.exit_code,
        event=screen.FINISHED,
        job=grant.job,
        grant=grant.id,
        receipt=index,
        node=grant.node,
        seconds=max(0, span.ended - span.started),
        leases=span.leases,
        outputs={name: output.quarantined for name, output in outputs.items()},
        assurance=grant.assurance,
    )
    if end.reason is None:
        return ended
    last = end.halts[-1]
    halted = replace(ended, event="halted", frozen_us=last.frozen_us, dead_us=last.dead_us)
    if denial is not None and denial.codes[0] == end.reason:
        return replace(halted, **_refusal(denial))
    known = screen.known_reason(end.reason)
    return replace(
        halted,
        reason=end.reason,
        what=known.what,
        detail=end.detail[:2048] or None,
        fix=known.fix,
        retry=known.retry,
        ask=known.ask,
    )


def of_denial(denial: Denial, job: str, node: str, log_key: PublicKey) -> Ended:
    """What the submitter is told of a denied request, once the log's receipt for it has verified."""
    index = verify_receipt(denial.receipt, leaf_hash(denial.record), log_key).entry
    ended = Ended(
        exit_code=codes.DENIED,
        event="denied",
        job=job,
        grant=Record.from_bytes(denial.record).job,
        receipt=index,
        node=node,
        seconds=0,
        leases=0,
        outputs={},
    )
    return replace(ended, **_refusal(denial))


def _refusal(denial: Denial) -> dict[str, Any]:
    first = denial.reasons[0]
    return {
        "reason": first.code,
        "what": first.what,
        "detail": first.detail,
        "fix": first.fix,
        "retry": denial.retry,
        "ask": first.ask,
        "also": denial.codes[1:],
    }
