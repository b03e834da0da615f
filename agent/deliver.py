"""Reports on their way to the verifier: kept in the journal, signed, sent until the verifier has answered.

A report is signed under the last lease where that is still in force. Else, after a job that was stopped for want of a
lease, or in another life of the agent, it waits for a permit (agent.holder), so for the verifier: it is kept unsigned
until then, and signed once.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from agent.client import Denied, Rejected, Unreachable
from agent.devices import DeviceError
from agent.ending import End, Span, report
from agent.host import Host
from agent.journal import Run
from agent.outputs import Outputs
from agent.workspace import sweep
from attestation.errors import Malformed, Untrusted
from attestation.report import Output, Report, sign_report

DIED: Final = "agent.died"
_CURED: Final = frozenset({"node.policy-key"})
"""Refusals that end when the host is enrolled again: under its new holder key the report is as good."""

log = logging.getLogger("interlock.agent")


def finish(host: Host, run: Run, end: End, span: Span, outputs: Mapping[str, Output]) -> None:
    """Keep the report of ``run``, and try to sign and deliver it."""
    host.journal.finish(run.cti, report(end, run.cti, run.code, span, outputs).to_bytes())
    deliver(host)


def deliver(host: Host) -> bool:
    """Sign and send every report that has no receipt; whether none is left.

    One that is rejected for good is neither signed nor sent again.
    """
    try:
        signed = [_once(host, cti, partial(_sign, host, cti, draft)) for cti, draft in host.journal.unsigned()]
        sent = [_once(host, cti, partial(_send, host, cti, token)) for cti, token in host.journal.undelivered()]
    except Unreachable:
        return False
    except DeviceError as error:
        log.warning("a report waits for the TPM: %s", error)
        return False
    return all((*signed, *sent))


def _sign(host: Host, cti: bytes, draft: bytes) -> None:
    """Out of lease, the TPM signs by a permit, for which the verifier has to be there."""
    host.journal.sign(cti, sign_report(Report.from_bytes(draft), host.holder))


def _send(host: Host, cti: bytes, token: bytes) -> None:
    host.journal.delivered(cti, host.verifier.report(token))
    host.counters.add("reports_delivered")


def _once(host: Host, cti: bytes, step: Callable[[], None]) -> bool:
    """Do ``step``; where the verifier refuses it, give the report up unless asking again may help."""
    try:
        step()
    except (Denied, Rejected, Malformed, Untrusted) as error:
        if isinstance(error, Rejected) and (error.problem.retry or error.reason in _CURED):
            return False
        log.warning("the verifier refuses the report about grant %s, which stays here: %s", cti.hex(), error)
        host.journal.sign(cti, b"")
        host.journal.delivered(cti, b"")
        host.counters.add("reports_rejected")
    return True


def bury(host: Host) -> list[bytes]:
    """Report the runs that an earlier agent did not live to report; their grants. Their jobs are dead already.

    Nothing is known of how far they came, so every output is quarantined.
    """
    sweep(host.state.jobs)
    buried = []
    for run in host.journal.unfinished():
        span = Span(run.started, int(time.time()), run.sequence + 1)
        finish(host, run, End.failed(DIED, ""), span, _left_behind(host, run))
        buried.append(run.cti)
    return buried


def _left_behind(host: Host, run: Run) -> dict[str, Output]:
    path = host.state.jobs / run.cti.hex() / "out"
    if not path.is_dir():
        return {}
    outputs = Outputs(path, run.outputs)
    try:
        return outputs.measure(run.sequence, hard=True)
    finally:
        outputs.close()
