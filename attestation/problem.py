"""What a verifier says when it does not do what it was asked: a Problem, or a Denial.

========= ======= ============================================================================================
Problem   4xx 5xx the request could not be judged: it is broken, unknown, too much, or the verifier is unwell.
                  Concise problem details (RFC 9290, section 2): title -1, detail -2, response code -4; ours are
                  reason, fix and retry under private labels. Nothing was logged, nothing was issued.
Denial    403     the request was judged and refused. The refusal is in the log: the answer carries its record and
                  the log's receipt, and for each reason what happened, what to do, and whether a retry can help.
========= ======= ============================================================================================

``klass`` of a denial tells a running job's agent how to stop (architecture, section 4): ``hard`` at once, ``drain``
with time for a checkpoint. A denial is not signed by itself: it is authentic because it comes over the pinned TLS
connection, and provable because of the receipt.
"""

from typing import Self

from attestation.errors import InterlockError, Malformed
from attestation.reasons import explain
from attestation.wire import Wire, label, wire

PROBLEM_TYPE = "application/concise-problem-details+cbor"
DENIAL_TYPE = "application/interlock-denial+cbor"
HARD, DRAIN = "hard", "drain"


@wire
class Problem(Wire):
    """RFC 9290 problem details with our reason code, its fix, and whether the same request may succeed later."""

    MAX_SIZE = 16384

    title: str = label(-1, most=512)
    detail: str | None = label(-2, most=2048, default=None)
    status: int = label(-4, low=400, high=599)
    reason: str = label(-75200, most=128)
    fix: str = label(-75201, most=512)
    retry: bool = label(-75202)

    @classmethod
    def of(cls, status: int, reason: str, detail: str = "") -> Self:
        """The problem for a registered ``reason``. Raises ``KeyError`` for one that is not registered."""
        known = explain(reason)
        return cls(
            title=known.what,
            detail=detail[:2048] or None,
            status=status,
            reason=reason,
            fix=known.fix,
            retry=known.retry,
        )

    @classmethod
    def of_error(cls, status: int, error: InterlockError) -> Self:
        """The problem for a refusal that was raised."""
        return cls.of(status, error.reason, error.detail)


@wire
class Refusal(Wire):
    """One reason of a denial, ready to be shown: its code, what happened, what was seen, what to do, whom to ask."""

    code: str = label(1, most=128)
    what: str = label(2, most=512)
    detail: str | None = label(3, most=2048, default=None)
    fix: str = label(4, most=512)
    retry: bool = label(5)
    ask: str = label(6, most=64)

    @classmethod
    def of(cls, code: str, *, detail: str = "", fix: str = "") -> Self:
        """The refusal for a registered code; ``fix`` replaces the registered one, as an operator's policy may say."""
        known = explain(code)
        return cls(
            code=code,
            what=known.what,
            detail=detail[:2048] or None,
            fix=fix or known.fix,
            retry=known.retry,
            ask=known.ask,
        )


@wire
class Denial(Wire):
    """A refusal that is in the log: the record's bytes, the receipt for it, and every reason explained."""

    MAX_SIZE = 1 << 20

    record: bytes = label(1, most=65536)
    receipt: bytes = label(2, most=16384)
    klass: str = label(3, most=8)
    reasons: tuple[Refusal, ...] = label(4, most=128)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown class, or a denial without a reason."""
        if self.klass not in (HARD, DRAIN):
            raise Malformed("denial.class", f"{self.klass!r} is neither {HARD} nor {DRAIN}")
        if not self.reasons:
            raise Malformed("denial.empty", "a denial says why")

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later without anybody changing anything: every reason says so."""
        return all(refusal.retry for refusal in self.reasons)

    @property
    def codes(self) -> tuple[str, ...]:
        """The reason codes, in the order of the denial."""
        return tuple(refusal.code for refusal in self.reasons)
