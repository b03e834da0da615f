"""Local checks of what a job runs from and what runs in its control group, cheap enough for twice a second.

Rules (design: control, "Watch"): each function makes a look for `agent.watch.Watch`, which returns when all is well and
raises `Untrusted` when it is not.

| Reason | What was seen |
|---|---|
| `drift.code` | the staged tree is not as it was left: another inode, size, time, name or link |
| `drift.process` | a process in the job's group that is of another user, not a descendant of its init, or traced |
| `drift.gpu.driver` | the GPU driver has another version than when evidence was collected |
| `drift.gpu.state` | confidential computing is set up otherwise than then |
| `drift.gpu.devices` | the driver lists other GPUs than then |
| `drift.clock` | the wall clock was set: it moved by more than two seconds against BOOTTIME between two looks |

A process that goes away while it is looked at is no finding. A job cannot trace (agent/sandbox.py), so a tracer is from
outside. What is not seen: the submitter's own processes outside the job may write to its memory through /proc where
the kernel has no Yama or its `ptrace_scope` is 0.

The kernel's measurement list grows in the life of a host, so that is no drift: what was added is judged by the verifier
alone. :func:`ima_look` only sees to it that this happens at once, not with the next renewal that is due.

What the driver says of GPUs is attested by nothing: it is looked at to stop early. The next lease rests on evidence.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from agent.clock import SECOND, now_ns
from agent.devices import CcState, DeviceError, Gpus
from agent.hold import Hold
from agent.logs import Logs
from agent.sandbox import status_fields
from agent.tree import CODE, Found, Opener
from attestation.errors import InterlockError, Untrusted

Look = Callable[[], None]
_STEP_NS: Final = 2 * SECOND
_HURRY_NS: Final = 2 * SECOND


def code_look(code: Path) -> Look:
    """Whether the staged tree below `code` still is as it is now, by inode and change time: nobody can set those."""

    def sweep() -> list[Found]:
        descriptor = os.open(code, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return Opener(descriptor).walk(CODE)
        finally:
            os.close(descriptor)

    before = sweep()

    def look() -> None:
        try:
            now = sweep()
        except (InterlockError, OSError) as error:
            raise Untrusted("drift.code", f"the staged code cannot be read as it was: {error}") from error
        if now != before:
            changed = sorted({each.path for each in set(now) ^ set(before)})
            raise Untrusted("drift.code", f"changed since it was staged: {', '.join(changed[:3])}")

    return look


def process_look(hold: Hold, uid: int) -> Look:
    """Whether every process of the group is the job's user's and below its init. Nothing is said until it started."""

    def look() -> None:
        init = hold.init_pid
        if init is None:
            return
        try:
            namespace = _namespace(init)
        except OSError:
            return  # init has ended, and everything below it
        for pid in hold.group.processes():
            if pid != init:
                _check_process(pid, uid, namespace)

    return look


def _check_process(pid: int, uid: int, namespace: str) -> None:
    try:
        status, theirs = _status(pid), _namespace(pid)
    except OSError:
        return
    users = {int(each) for each in status["Uid"].split()}  # real, effective, saved, file system
    if users != {uid}:
        raise Untrusted("drift.process", f"process {pid} runs as {sorted(users)}, the job as {uid}")
    if theirs != namespace:
        raise Untrusted("drift.process", f"process {pid} was not started by the job")
    if int(status["TracerPid"]):
        raise Untrusted("drift.process", f"process {pid} is traced by process {int(status['TracerPid'])}")


def _namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def _status(pid: int) -> dict[str, str]:
    """The fields of proc(5), status."""
    return status_fields(Path(f"/proc/{pid}/status"))


def clock_look(read: Callable[[], int] = time.time_ns, base: Callable[[], int] = now_ns) -> Look:
    """Whether the wall clock (`read`) went along with BOOTTIME (`base`) since the last look; both in ns."""
    last = read() - base()

    def look() -> None:
        nonlocal last
        offset = read() - base()
        step, last = offset - last, offset
        if abs(step) > _STEP_NS:
            raise Untrusted("drift.clock", f"the wall clock was set by {step / SECOND:+.1f} s")

    return look


def ima_look(logs: Logs, hurry: Callable[[], None], read: Callable[[], int] = now_ns) -> Look:
    """Calls ``hurry`` where the measurement list has grown since it was sent, at most every two seconds.

    Never drift. Where no verifier has asked for the list there is nothing to look at, and a list that cannot be read is
    told with the next evidence.
    """
    seen, last = logs.sent, read() - _HURRY_NS

    def look() -> None:
        nonlocal seen, last
        if read() - last < _HURRY_NS:
            return
        try:
            count = logs.count()
        except DeviceError:
            return
        if count is not None and count != seen:
            seen, last = count, read()
            hurry()

    return look


class Baseline(NamedTuple):
    """What the driver says of the GPUs: its version, the state of confidential computing, the devices' UUIDs."""

    driver: str
    state: CcState
    devices: tuple[str, ...]


def gpu_baseline(gpus: Gpus) -> Baseline | None:
    """How the GPUs are now; None where they cannot be asked."""
    try:
        return Baseline(gpus.driver(), gpus.state(), tuple(sorted(each.uuid for each in gpus.devices())))
    except DeviceError:
        return None


def gpu_look(gpus: Gpus, before: Baseline | None) -> Look:
    """Whether the GPUs still are as they were `before`, or as at the first look that finds them.

    A driver that does not answer is no drift: nothing is known then, and the lease decides.
    """
    known = before

    def look() -> None:
        nonlocal known
        now = gpu_baseline(gpus)
        if now is None or known is None:
            known = known or now
            return
        if now.driver != known.driver:
            raise Untrusted("drift.gpu.driver", f"the GPU driver is {now.driver or 'gone'}, it was {known.driver}")
        if now.state != known.state:
            raise Untrusted("drift.gpu.state", f"confidential computing: {now.state}, it was {known.state}")
        if now.devices != known.devices:
            changed = ", ".join(sorted(set(now.devices) ^ set(known.devices)))
            raise Untrusted("drift.gpu.devices", f"GPUs that came or went: {changed}")

    return look
