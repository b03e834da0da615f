"""Governing a running job: the hold, the leases and the watch, together from start to end."""

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from agent import protocol
from agent.clock import SECOND, now_ns
from agent.devices import DeviceError
from agent.drift_local import Baseline, clock_look, code_look, gpu_look, ima_look, process_look
from agent.hold import Hold, JobSpec, Limits, Outcome
from agent.host import Host
from agent.job import STDIO, Job
from agent.leases import Leases
from agent.secrets import Secrets
from agent.watch import Watch, pcr_look, suspend_look
from agent.workspace import Workspace
from attestation.errors import InterlockError, Untrusted
from attestation.grant import Grant
from attestation.lease import Lease
from attestation.problem import Denial

_GPU_SECONDS: Final = 5.0
_STALE: Final = ("lease.hold", "lease.expired")


class Governed:
    """A context around one running job: on entering it starts, on leaving nobody renews, watches or listens any more.

    Raises as :meth:`agent.hold.Hold.start`. ``gpus`` is what the GPUs were when evidence was collected, for
    a job that has some; ``secrets`` are filled. ``detail`` is what was seen when a local halt was ordered, or why no
    lease came.
    """

    def __init__(
        self,
        host: Host,
        job: Job,
        grant: Grant,
        space: Workspace,
        first: tuple[bytes, Lease, int],
        gpus: Baseline | None,
        secrets: Secrets,
    ) -> None:
        self._host, self._job, self._grant, self._space = host, job, grant, space
        self._secrets, self._frozen = secrets, False
        self.detail = ""
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] | None = []
        token, lease, asked_ns = first
        self._hold = Hold.start(self._spec(), token, asked_ns, host.cgroups, self._hear)
        self._leases = Leases(host, grant, self._hold, lease, asked_ns, job.intent.gpus.count, self._renewed)
        looks = (
            pcr_look(host.pcrs, grant.conditions),
            process_look(self._hold, job.peer.uid),
            code_look(space.code),
            suspend_look(),
            clock_look(),
            ima_look(host.logs, self._grown),
        )
        self._watches = [Watch(looks, host.settings.watch_ms / 1000, self._drifted)]
        if host.gpus is not None and job.intent.gpus.count:  # apart: a driver that hangs must not hold up the others
            self._watches.append(Watch((gpu_look(host.gpus, gpus),), _GPU_SECONDS, self._drifted))

    def _spec(self) -> JobSpec:
        job, grant, space = self._job, self._grant, self._space
        limits = grant.limits
        return JobSpec(
            cti=grant.id,
            argv=job.intent.argv,
            env=job.start.variables,
            uid=job.peer.uid,
            gid=job.peer.gid,
            code=space.code,
            environment=job.environment,
            out=space.out,
            limits=Limits(limits.seconds, limits.memory_mb, limits.processes),
            hold_seconds=grant.hold,
            verifier_key_spki=self._host.enrolment.keys.grant,
            stdio=(job.descriptors[0], job.descriptors[1], job.descriptors[STDIO - 1]),
            secrets=self._secrets.files,
        )

    def __enter__(self) -> Self:
        self._job.governed = self
        self._leases.start()
        for watch in self._watches:
            watch.start()
        for number in self._job.early_signals:
            self.signal(number)
        if self._job.gone.is_set():
            self.drain("submitter.gone")
        if self._host.stopping.is_set():
            self.drain("agent.stopped")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._job.governed = None
        self._leases.stop()
        for watch in self._watches:
            watch.stop()

    def wait(self) -> Outcome:
        """How the job ended, once it is gone."""
        outcome = self._hold.wait()
        if outcome.halts and outcome.halts[-1].reason in _STALE:
            self.detail = self.detail or self._leases.trouble
        return outcome

    @property
    def denial(self) -> Denial | None:
        """The verifier's word that ended the leases, where there was one."""
        return self._leases.denial

    # --- orders ------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Something may have changed at the verifier: renew now."""
        self._leases.hurry()

    def _grown(self) -> None:
        """The measurement list has grown: let the verifier judge at once what was added."""
        self._host.counters.add("renewals_hurried")
        self.hurry()

    def drain(self, reason: str) -> None:
        """Ask the job to end, as soon as it has begun."""
        self._when_started(lambda: self._hold.drain(reason))

    def signal(self, number: int) -> None:
        """Hand a signal to the job as soon as it has begun, if it is one that is handed on."""
        if number in protocol.FORWARDED:
            self._when_started(lambda: self._hold.signal(number))

    def _when_started(self, order: Callable[[], None]) -> None:
        """Nobody can be asked before the job's own first instruction: until then, orders wait."""
        with self._lock:
            if self._waiting is not None:
                self._waiting.append(order)
                return
        order()

    def _begun(self) -> None:
        with self._lock:
            orders, self._waiting = self._waiting or [], None
        for order in orders:
            order()

    def _drifted(self, error: InterlockError, cause_ns: int) -> None:
        self.detail = self.detail or error.detail
        self._hold.halt(protocol.HARD, error.reason, cause_ns)

    # --- what is heard -----------------------------------------------------------------------------------------

    def _hear(self, event: protocol.Event) -> None:
        tell = self._job.tell
        match event:
            case protocol.Started():
                self._begun()
                tell("started", f"running, confined by {', '.join(event.applied)}")
            case protocol.Renewed():
                if self._frozen and self._secrets.files:  # it is not thawed before they are back
                    threading.Thread(target=self._refill, name="secrets", daemon=True).start()
            case protocol.Frozen():
                self._frozen = True
                seconds = max(0, event.until_ns - now_ns()) // SECOND
                why = f" ({self._leases.trouble})" if self._leases.trouble else ""
                tell("frozen", f"no fresh lease{why}: frozen; a lease within {seconds} s lets it go on")
            case protocol.Thawed():
                self._frozen = False
                tell("thawed", "a fresh lease came in time: the job goes on")
            case protocol.Draining():
                tell("draining", f"asked to end: {event.reason}")
            case protocol.LeaseRefused():
                tell("lease-refused", f"the deadman refused a lease: {event.reason}: {event.detail}")
            case _:
                return

    def _refill(self) -> None:
        """Open the secrets under the lease that has come. Where the TPM does not, the next lease is another attempt."""
        try:
            self._secrets.fill(self._leases.approved)
        except (DeviceError, Untrusted) as error:
            self.detail = f"secrets: {error}"
            self._job.tell("secrets", f"still frozen, the TPM does not open the job's secrets: {error}")
        else:
            self.detail = ""
            self._hold.filled()

    def _renewed(self, lease: Lease) -> None:
        self._space.outputs.note(lease.sequence - 1)
        self._job.sequence = lease.sequence
        with contextlib.suppress(OSError):  # a full disk is no reason to give the lease up
            self._host.journal.leased(lease.grant, lease.sequence)
        self._job.tell("lease", f"lease {lease.sequence}: {lease.duration} s more, proven afresh")
