"""Report: how a run ended, signed by the host's holder key.

A COSE_Sign1 of type ``application/interlock-report+cose``. It names the grant, the exit, every halt with its measured
latency, and each output with the sequence of the lease under which it was written.
"""

import hmac
import re
from collections.abc import Mapping

from attestation.cose import PublicKey, Signer, sign1, verify_sign1
from attestation.errors import Malformed, Untrusted
from attestation.wire import Wire, label, wire

TYP = "application/interlock-report+cose"
MAX_SIZE = 1 << 20
HALT_CLASSES = ("hard", "drain", "stale")

MAX_REASONS = 128
"""As many as :class:`attestation.log.Record` holds."""

_CODE = re.compile(r"[a-z0-9.-]+")


@wire
class HaltRecord(Wire):
    """One halt: its class, its reason code, and microseconds from cause to frozen and to dead (absent: it was not).

    The reason goes into the log's record, from a host that may lie: it must have the form of a code.
    """

    klass: str = label(1, most=16)
    reason: str = label(2, most=128)
    frozen_us: int | None = label(3, default=None)
    dead_us: int | None = label(4, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown class."""
        if self.klass not in HALT_CLASSES:
            raise Malformed("report.halt", f"{self.klass!r} is not one of {', '.join(HALT_CLASSES)}")
        if _CODE.fullmatch(self.reason) is None:
            raise Malformed("report.halt", f"{self.reason!r} has not the form of a reason code")


@wire
class Output(Wire):
    """An output file: SHA-256, size in bytes, and the sequence of the lease under which it was last written."""

    digest: bytes = label(1, size=32)
    size: int = label(2)
    lease: int = label(3)
    quarantined: bool = label(4)


@wire
class Report(Wire):
    """The end of one grant. Times in Unix seconds; ``exit_code`` as a shell sees it; ``leases`` were held.

    ``entry`` is the job's number in the sequence that the TPM certifies; absent where it was never let start.
    """

    MAX_SIZE = MAX_SIZE

    started: int = label(1)
    ended: int = label(2)
    exit_code: int = label(3, high=255)
    halts: tuple[HaltRecord, ...] = label(4, most=1024)
    outputs: Mapping[str, Output] = label(5, most=4096)
    applied: tuple[str, ...] = label(6, most=64, ordered=True)
    grant: bytes = label(7, size=16)
    leases: int = label(8)
    cgroup_empty: bool = label(9)
    code: bytes = label(11, size=32)
    entry: int | None = label(12, low=1, high=1 << 48, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for more different reasons than the log's record of this report has room for."""
        if len({halt.reason for halt in self.halts}) > MAX_REASONS:
            raise Malformed("report.halt", f"more than {MAX_REASONS} different reasons")


def sign_report(report: Report, holder: Signer) -> bytes:
    """The signed report."""
    return sign1(holder, typ=TYP, payload=report.to_bytes())


def verify_report(token: bytes, *, holder: PublicKey, grant: bytes) -> Report:
    """The report, proven to come from the grant's holder key. Raises ``Malformed`` or ``Untrusted``.

    1. The token is a strict COSE_Sign1 of the report type, signed by ``holder``.
    2. It is about ``grant``.
    """
    # (1)
    signed = verify_sign1(token, holder, typ=TYP, max_size=MAX_SIZE)
    report = Report.from_bytes(signed.payload)
    # (2)
    if not hmac.compare_digest(report.grant, grant):
        raise Untrusted("report.grant", f"the report is about grant {report.grant.hex()}, not {grant.hex()}")
    return report
