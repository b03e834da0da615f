"""Reports on their way to the verifier: signed, kept in the journal, sent until the verifier has answered."""

import logging
import time
from collections.abc import Mapping
from typing import Final

from agent.client import Denied, Rejected, Unreachable
from agent.ending import End, Span, report
from agent.host import Host
from agent.journal import Run
from agent.outputs import Outputs
from agent.workspace import sweep
from attestation.errors import Malformed
from attestation.report import Output, sign_report

DIED: Final = "agent.died"

log = logging.getLogger("interlock.agent")


def finish(host: Host, run: Run, end: End, span: Span, outputs: Mapping[str, Output]) -> None:
    """Sign the report of ``run``, keep it, and try to deliver it. Raises ``DeviceError`` where the TPM fails."""
    signed = sign_report(report(end, run.cti, run.code, span, outputs), host.collector.holder)
    host.journal.finish(run.cti, signed)
    deliver(host)


def deliver(host: Host) -> bool:
    """Send every report that has no receipt; whether none is left. A report that is rejected for good is not resent."""
    for cti, token in host.journal.undelivered():
        try:
            host.journal.delivered(cti, host.verifier.report(token))
            host.counters.add("reports_delivered")
        except Unreachable:
            return False
        except (Denied, Rejected, Malformed) as error:
            log.warning("the verifier refuses the report about grant %s, which stays here: %s", cti.hex(), error)
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
