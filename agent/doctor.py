"""``interlock-agent doctor``: what a host needs, checked one by one, each with a fix.

A finding is ``ok``, ``warn`` (it works, with less proof or less comfort) or ``fail`` (jobs cannot run, or not safely).
The checks change nothing on the host; a control group is made and removed.
"""

import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from agent.cgroup import Cgroup, find_root
from agent.client import Pinned, Unreachable, Verifier
from agent.devices import DeviceError, NvIndex
from agent.sandbox import landlock_abi
from agent.settings import Settings
from agent.state import FILE, Enrolment
from attestation.errors import InterlockError
from attestation.tpm.nv import WORKLOAD, WRITTEN, NvPublic
from attestation.tpm.structures import Public

OK, WARN, FAIL = "ok", "warn", "fail"
_SYNCHRONISED: Final = Path("/run/systemd/timesync/synchronized")
_FREE_MB: Final = 2048
_NAMESPACES: Final = ("pid", "mnt", "ipc")
_CGROUP_FILES: Final = ("cgroup.freeze", "cgroup.kill")
_LIMIT_FILES: Final = ("memory.max", "pids.max")
_NOBODYS: Final = bytes(16)
"""A grant that no verifier gives."""
_SAFE_CLOCK: Final = 1_704_067_200  # 2024-01-01: no host's clock is rightly before this


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: what was looked at, how it is, what was seen, what to do."""

    name: str
    level: str
    seen: str
    fix: str = ""

    def line(self) -> str:
        """The finding for people."""
        return f"{self.level:5}{self.name:14}{self.seen}{f' -> {self.fix}' if self.fix else ''}"

    def to_json(self) -> dict[str, str]:
        """The finding for programs."""
        return asdict(self)


def healthy(findings: list[Finding]) -> bool:
    """Whether none of them is a failure."""
    return all(each.level != FAIL for each in findings)


def examine(settings_file: Path) -> list[Finding]:
    """All findings, in the order in which they should be put right."""
    try:
        settings = Settings.load(settings_file)
    except InterlockError as error:
        return [Finding("settings", FAIL, error.detail, "correct the file, or name another one with --settings")]
    who = "nobody may submit jobs" if not settings.uids and not settings.gids else str(settings_file)
    level, fix = (WARN, "list uids or gids") if who.startswith("nobody") else (OK, "")
    return [Finding("settings", level, who, fix), *(found for check in _CHECKS for found in check(settings))]


def _root(_settings: Settings) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("user", OK, "root")
    else:
        yield Finding("user", FAIL, f"uid {os.geteuid()}", "the agent governs other users' processes: run it as root")


def _tpm(settings: Settings) -> Iterator[Finding]:
    from agent.tpm import EsysTpm

    tpm = EsysTpm(settings.tcti)
    try:
        clock = tpm.clock()
        yield Finding("tpm", OK, f"{settings.tcti}, {clock.reset_count} resets")
        yield _ek(tpm.ek_certificate)
        yield _jobs(tpm.workload())
    except DeviceError as error:
        yield Finding("tpm", FAIL, str(error), "switch the TPM on in the firmware, load its driver, check tcti")
    finally:
        tpm.close()


def _jobs(index: NvIndex | None) -> Finding:
    name = f"NV index {WORKLOAD.index:#010x}"
    if index is None:
        return Finding("jobs", OK, f"{name} is made with the first job")
    if NvPublic.from_bytes(index.public).attributes | WRITTEN != WORKLOAD.attributes | WRITTEN:
        return Finding("jobs", WARN, f"{name} is not the agent's", "find out who uses it: the first job takes it over")
    return Finding("jobs", OK, f"{name} holds {'nothing yet' if index.contents is None else index.contents.hex()}")


def _ek(read: Callable[[], bytes]) -> Finding:
    try:
        return Finding("ek", OK, f"certificate of {len(read())} bytes")
    except DeviceError as error:
        fix = "have the vendor's tool write it to NV, or give it to the operator to vouch for"
        return Finding("ek", FAIL, f"no EK certificate: {error}", fix)


def _gpus(_settings: Settings) -> Iterator[Finding]:
    from agent.gpu import NvmlGpus, describe

    gpus = NvmlGpus()
    try:
        seen = describe(gpus)
        state = gpus.state()
    except DeviceError as error:
        fix = "see whether nvidia-smi works; load the driver again; jobs without GPUs can run"
        yield Finding("gpus", FAIL, str(error), fix)
        return
    finally:
        gpus.close()
    text = ", ".join(filter(None, (seen["gpus"], seen.get("gpu_state"), seen.get("gpu_driver"))))
    if state.devtools:
        yield Finding("gpus", WARN, text, "switch DevTools off: the GPUs' memory can be read from outside")
    elif state.is_on or seen["gpus"] == "none":
        yield Finding("gpus", OK, text)
    else:
        yield Finding("gpus", WARN, text, "GPU jobs need confidential computing: switch it on for the GPUs, and reboot")


def _event_log(settings: Settings) -> Iterator[Finding]:
    if not settings.event_log:
        yield Finding("event-log", WARN, "not sent", "event_log = true lets the operator see what changed in a boot")
    elif os.access(settings.event_log_file, os.R_OK):
        yield Finding("event-log", OK, str(settings.event_log_file))
    else:
        yield Finding(
            "event-log",
            WARN,
            f"no {settings.event_log_file}",
            "mount securityfs and boot by UEFI; PCRs are proven without it",
        )


def _ima(settings: Settings) -> Iterator[Finding]:
    if os.access(settings.ima_file, os.R_OK):
        yield Finding("ima", OK, f"the kernel measures what it executes: {settings.ima_file}")
    else:
        yield Finding(
            "ima", WARN, f"no {settings.ima_file}", "optional, later: boot with ima_policy=tcb ima_hash=sha256"
        )


def _clock(_settings: Settings) -> Iterator[Finding]:
    if time.time() < _SAFE_CLOCK:
        yield Finding("clock", FAIL, time.ctime(), "set the wall clock; certificates and records carry it")
    elif shutil.which("chronyc") or _SYNCHRONISED.exists():
        yield Finding("clock", OK, "synchronised by a service")
    else:
        yield Finding("clock", WARN, "nothing synchronises it", "run chrony; safety does not need it, records do")


def _disk(settings: Settings) -> Iterator[Finding]:
    place = next(path for path in (settings.state, *settings.state.parents) if path.exists())
    free = shutil.disk_usage(place).free >> 20
    level, fix = (OK, "") if free >= _FREE_MB else (FAIL, f"free at least {_FREE_MB} MB for staged code and outputs")
    yield Finding("disk", level, f"{free} MB free at {place}", fix)


def _cgroups(settings: Settings) -> Iterator[Finding]:
    group = None
    try:
        group = Cgroup.of(find_root().with_name(settings.cgroup), _NOBODYS)
        group.create()
        missing = [name for name in _CGROUP_FILES if not (group.path / name).exists()]
        if missing:
            yield Finding("cgroup", FAIL, f"no {', '.join(missing)}", "use a kernel of 5.14 or newer")
            return
        group.freeze()
        group.thaw()
        yield Finding("cgroup", OK, f"{group.path.parent} freezes and kills")
        limits = [name for name in _LIMIT_FILES if not (group.path / name).exists()]
        if limits:
            fix = "boot with cgroup_no_v1=all, so that memory and process limits hold"
            yield Finding("limits", WARN, f"no {', '.join(limits)}", fix)
    except OSError as error:
        yield Finding("cgroup", FAIL, str(error), "mount cgroup v2: mount -t cgroup2 none /sys/fs/cgroup/unified")
    finally:
        if group is not None:
            with suppress(OSError):
                group.remove()


def _namespaces(_settings: Settings) -> Iterator[Finding]:
    missing = [name for name in _NAMESPACES if not Path(f"/proc/self/ns/{name}").exists()]
    if missing:
        yield Finding("namespaces", FAIL, f"no {', '.join(missing)}", "use a kernel with namespaces")
    else:
        yield Finding("namespaces", OK, ", ".join(_NAMESPACES))
    abi = landlock_abi()
    if abi:
        yield Finding("landlock", OK, f"ABI {abi}")
    else:
        yield Finding("landlock", WARN, "not active", "optional: add landlock to the lsm= of the kernel's command line")


def _enrolment(settings: Settings) -> Iterator[Finding]:
    try:
        enrolment = Enrolment.from_bytes((settings.state / FILE).read_bytes())
        holder = Public.from_bytes(enrolment.holder_public)
    except (OSError, InterlockError):
        fix = "get a token from the operator: interlock-agent enroll --token-file FILE"
        yield Finding("enrolment", FAIL, "this host is not enrolled", fix)
        return
    yield Finding("enrolment", OK, f"node {enrolment.node} of pool {enrolment.pool}")
    if holder.has_user_auth:
        yield Finding("tpm-lease", WARN, "a plain holder key", "enrol again with tpm_lease = true: the TPM ends leases")
    else:
        yield Finding("tpm-lease", OK, "the TPM enforces leases")
    try:
        verifier = Verifier(Pinned(enrolment.url, enrolment.certificate))
    except ssl.SSLError as error:
        yield Finding("verifier", FAIL, f"the pinned certificate is damaged: {error}", "enrol again")
        return
    try:
        same = verifier.keys() == enrolment.keys
        level, fix = (OK, "") if same else (FAIL, "ask the operator why the verifier's keys changed; enrol again")
        yield Finding("verifier", level, enrolment.url, fix)
    except Unreachable as error:
        yield Finding("verifier", FAIL, str(error), "check the network, and the verifier's /health")
    except InterlockError as error:
        yield Finding("verifier", FAIL, str(error), "bring agent and verifier to one release")
    finally:
        verifier.close()


_CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    _root,
    _tpm,
    _gpus,
    _event_log,
    _ima,
    _clock,
    _disk,
    _cgroups,
    _namespaces,
    _enrolment,
)
