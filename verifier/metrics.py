"""What the verifier counts, in Prometheus form. Labels are reason codes and outcomes, never names of people or jobs."""

import re
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from attestation.claims import Claims

_DEVICE = re.compile(r"(gpu|switch)[0-9]+")
_OF_THE_BOOT = frozenset({"tpm.event-log", "tpm.boot", "tpm.ima", "tpm.workload"})
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """One registry per verifier: two verifiers in one process count apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Counter(
            "interlock_decisions", "Requests for a grant that were decided.", ["outcome"], registry=self.registry
        )
        self.reasons = Counter(
            "interlock_denials", "Reasons of denials; one denial may have several.", ["reason"], registry=self.registry
        )
        self.renewals = Counter(
            "interlock_renewals", "Requests for the next lease.", ["outcome"], registry=self.registry
        )
        self.permits = Counter(
            "interlock_permits", "Signatures by holder keys out of lease that were permitted.", registry=self.registry
        )
        self.secrets = Counter(
            "interlock_secrets",
            "Secrets that went out with a grant, and those asked for by requests that were denied.",
            ["outcome"],
            registry=self.registry,
        )
        self.problems = Counter(
            "interlock_problems", "Requests that could not be judged.", ["reason"], registry=self.registry
        )
        self.collateral_fetches = Counter(
            "interlock_collateral_fetches", "Collateral that was fetched and kept.", ["kind"], registry=self.registry
        )
        self.collateral_failures = Counter(
            "interlock_collateral_failures",
            "Collateral that was not fetched, or not kept.",
            ["kind", "reason"],
            registry=self.registry,
        )
        self.devices = Counter(
            "interlock_gpu_devices_appraised",
            "GPUs and switches in evidence that was judged.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.checks = Counter(
            "interlock_host_checks",
            "Checks of what booted and ran on hosts, in evidence that was judged.",
            ["check", "outcome"],
            registry=self.registry,
        )
        self.log_size = Gauge("interlock_log_size", "Records in the log.", registry=self.registry)
        self.open_challenges = Gauge(
            "interlock_open_challenges", "Challenges that were not answered yet.", registry=self.registry
        )
        self.leases_live = Gauge("interlock_leases_live", "Jobs whose lease has not ended.", registry=self.registry)
        self.append = Histogram(
            "interlock_append_seconds",
            "From handing a record to the log until it is durable.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.trusted = Gauge(
            "interlock_trusted", "1 while the part may be relied on.", ["part"], registry=self.registry
        )

        self._granted, self._renewed = self.decisions.labels("allow"), self.renewals.labels("allow")
        self._checked = lru_cache(maxsize=64)(self.checks.labels)

    def allowed(self, action: str) -> None:
        """Count an allow of ``run`` or ``renew``."""
        (self._granted if action == "run" else self._renewed).inc()

    def denied(self, action: str, reasons: Iterable[str]) -> None:
        """Count a denial of ``run`` or ``renew`` and each of its reasons."""
        (self.decisions if action == "run" else self.renewals).labels("deny").inc()
        for reason in reasons:
            self.reasons.labels(reason).inc()

    def appraised(self, claims: Claims | None) -> None:
        """Count the devices, and what was looked at of the boot, in the claims of a judgement that is settled."""
        for name, part in ({} if claims is None else claims.submods).items():
            device = _DEVICE.fullmatch(name)
            if device is not None:
                self.devices.labels(device[1], "fail" if part.failures else "pass").inc()
            elif name == "tpm":
                for check in part.checks:
                    if check.name in _OF_THE_BOOT:
                        self._checked(check.name, check.outcome).inc()

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self.registry)
