"""What all jobs of one agent share: the enrolment, TPM and GPUs, the verifier, the journal, the list of the jobs."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.cgroup import find_root
from agent.client import Pinned, Verifier
from agent.clock import SECOND, now_ns
from agent.collect import Collector
from agent.devices import Gpus, Tpm
from agent.environment import Cache
from agent.gpu import Described
from agent.holder import Holder
from agent.journal import Journal
from agent.logs import Logs
from agent.settings import Settings
from agent.state import Enrolment, State
from agent.workload import FILE, Workloads
from attestation.cose import PublicKey
from attestation.errors import Untrusted
from attestation.grant import Conditions

if TYPE_CHECKING:
    from agent.job import Job

_FRESH_NS: Final = SECOND // 5


class Counters:
    """Named counts since the agent started; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count one more."""
        with self._lock:
            self._counts[name] += 1

    def as_dict(self) -> dict[str, int]:
        """All counts by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))


class Pcrs:
    """PCR values for the watches of all jobs: what was read a moment ago is not read again."""

    def __init__(self, tpm: Tpm) -> None:
        self._tpm = tpm
        self._lock = threading.Lock()
        self._last: dict[tuple[int, tuple[int, ...]], tuple[int, Mapping[int, bytes]]] = {}

    def read(self, conditions: Conditions, since_ns: int) -> Mapping[int, bytes]:
        """The values of the PCRs in ``conditions``, read now or a moment ago, not before ``since_ns``.

        Raises ``DeviceError``.
        """
        key = conditions.bank, tuple(sorted(conditions.pcrs))
        with self._lock:
            at, values = self._last.get(key, (0, {}))
            if at < max(since_ns, now_ns() - _FRESH_NS):
                at, values = now_ns(), dict(self._tpm.read_pcrs(*key))
                self._last[key] = (at, values)
            return values


class Jobs:
    """The requests that are being served, at most ``limit``; safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: list[Job] = []
        self._changed = threading.Condition()

    def add(self, job: "Job") -> None:
        """Take ``job`` in. Raises ``Untrusted("agent.busy")`` at the limit."""
        with self._changed:
            if len(self._jobs) >= self._limit:
                raise Untrusted("agent.busy", f"{len(self._jobs)} jobs of {self._limit}")
            self._jobs.append(job)

    def remove(self, job: "Job") -> None:
        """Forget ``job``; it has ended."""
        with self._changed:
            self._jobs.remove(job)
            self._changed.notify_all()

    def all(self) -> list["Job"]:
        """The jobs at this moment."""
        with self._changed:
            return list(self._jobs)

    def wait_empty(self, seconds: float) -> bool:
        """Wait until there is none, at most ``seconds``; whether there is none."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, seconds)


@dataclass
class Host:
    """This host as an enrolled node, ready to run jobs. Made once, when the agent starts."""

    settings: Settings
    state: State
    enrolment: Enrolment
    tpm: Tpm
    verifier: Verifier
    holder: Holder
    collector: Collector
    logs: Logs
    workloads: Workloads
    journal: Journal
    cache: Cache
    cgroups: Path
    jobs: Jobs
    pcrs: Pcrs
    gpus: Gpus | None
    described: Described
    counters: Counters = field(default_factory=Counters)
    started_ns: int = field(default_factory=now_ns)
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def open(cls, settings: Settings, tpm: Tpm, gpus: Gpus | None = None) -> "Host":
        """Get ready; the TPM and the GPUs are the host's from then on.

        Raises ``Untrusted("agent.*")``, ``DeviceError``, ``FileNotFoundError`` (no cgroup v2).
        """
        state = State(settings.state)
        enrolment = state.load()
        verifier = Verifier(Pinned(enrolment.url, enrolment.certificate))
        key = tpm.load_holder(enrolment.holder_blob)
        holder = Holder(tpm, key, policy=enrolment.policy_key, node=enrolment.node, permits=verifier)
        logs, workloads = settings.logs, Workloads(tpm, state.path / FILE)
        return cls(
            settings=settings,
            state=state,
            enrolment=enrolment,
            tpm=tpm,
            verifier=verifier,
            holder=holder,
            collector=Collector(tpm, holder, logs=logs, gpus=gpus, workloads=workloads),
            logs=logs,
            workloads=workloads,
            journal=Journal(state.path / "journal.db"),
            cache=Cache(state.path / "environments.db"),
            cgroups=find_root().with_name(settings.cgroup),
            jobs=Jobs(settings.jobs),
            pcrs=Pcrs(tpm),
            gpus=gpus,
            described=Described(gpus),
        )

    def close(self) -> None:
        """Let go of everything."""
        self.verifier.close()
        self.journal.close()
        self.tpm.close()
        self.logs.close()
        if self.gpus is not None:
            self.gpus.close()

    @cached_property
    def grant_key(self) -> PublicKey:
        """The pinned key that signs grants and leases."""
        return self.enrolment.grant_key

    @cached_property
    def log_key(self) -> PublicKey:
        """The pinned key that signs receipts."""
        return self.enrolment.log_key
