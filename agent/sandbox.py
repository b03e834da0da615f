"""What a job may not do, taken from it before its first instruction; each part reports itself by name.

Rules (design: control, "Start" 4; Linux Documentation/userspace-api/{no_new_privs,seccomp_filter,landlock}.rst):
1. `no_new_privs`: no setuid program and no file capability gives anything back.
2. `landlock.<abi>`: everything may be read as the user's own rights allow; written only below the directories named.
   Devices and /proc stay writable as far as the user's rights go (GPUs need that). From ABI 6 on the job also cannot
   signal, or reach the abstract sockets of, what is outside.
3. `seccomp`: a list of refused system calls. Nothing that trains a network needs them; most of what breaks out of a
   container does. `clone3` and io_uring answer "not implemented", so that libraries take their older way.
   A call made through another architecture's entry ends the process.
4. What the kernel does not have is not applied and not named; policy may require names.
"""

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import kernel

# --- Landlock: linux/landlock.h ------------------------------------------------------------------------------

_WRITE_FILE: Final = 1 << 1
_CHANGE_DIRECTORY: Final = sum(1 << bit for bit in (4, 5, 7, 8, 9, 10, 12))  # remove and make, devices excepted
_MAKE_DEVICE: Final = 1 << 6 | 1 << 11
_SINCE: Final = {2: 1 << 13, 3: 1 << 14}  # refer, truncate
_SCOPED: Final = 0b11  # abstract sockets, signals: since ABI 6
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = (("handled_fs", ctypes.c_uint64), ("handled_net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr, packed."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def landlock_abi() -> int:
    """The kernel's Landlock ABI version; 0 where there is none."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def apply_landlock(abi: int, writable: Iterable[Path], files_only: Iterable[Path]) -> None:
    """From now on this process writes only below `writable`, and into existing files below `files_only`."""
    newer = sum(bits for since, bits in _SINCE.items() if abi >= since)
    whole = _WRITE_FILE | _CHANGE_DIRECTORY | newer
    rules = _Ruleset(handled_fs=whole | _MAKE_DEVICE, scoped=_SCOPED if abi >= 6 else 0)
    size = 24 if abi >= 6 else 8
    ruleset = kernel.syscall(_CREATE_RULESET, rules, size, 0)
    into = _WRITE_FILE | (newer & _SINCE[3])
    for path, allowed in [(each, whole) for each in writable] + [(each, into) for each in files_only]:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        kernel.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, _PathBeneath(allowed=allowed, parent=parent), 0)
        os.close(parent)
    kernel.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


# --- seccomp: linux/seccomp.h, linux/filter.h ------------------------------------------------------------------


@dataclass(frozen=True)
class Calls:
    """System call numbers of one architecture (asm/unistd.h) and its AUDIT_ARCH value (linux/audit.h)."""

    audit: int
    clone: int
    unshare: int
    ioctl: int
    denied: Sequence[int]


# in both rows: ptrace syslog pivot_root adjtimex chroot acct settimeofday mount umount2 swapon swapoff reboot
# sethostname setdomainname init_module delete_module quotactl lookup_dcookie clock_settime kexec_load add_key
# request_key keyctl perf_event_open open_by_handle_at clock_adjtime setns finit_module kexec_file_load bpf userfaultfd
_X86: Final = (
    *(101, 103, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169),
    *(170, 171, 175, 176, 179, 212, 227, 246, 248),
    *(249, 250, 298, 304, 305, 308, 313, 320, 321, 323),
    *(172, 173),  # iopl ioperm
)
_ARM: Final = (
    *(117, 116, 41, 171, 51, 89, 170, 40, 39, 224, 225, 142),
    *(161, 162, 105, 106, 60, 18, 112, 104, 217),
    *(218, 219, 241, 265, 266, 268, 273, 294, 280, 282),
)
# open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr quotactl_fd
_EVERYWHERE: Final = (428, 429, 430, 431, 432, 433, 442, 443)
_NOT_IMPLEMENTED: Final = (425, 426, 427, 435)  # io_uring_setup io_uring_enter io_uring_register clone3
CALLS: Final = {
    "x86_64": Calls(audit=0xC000003E, clone=56, unshare=272, ioctl=16, denied=_X86 + _EVERYWHERE),
    "aarch64": Calls(audit=0xC00000B7, clone=220, unshare=97, ioctl=29, denied=_ARM + _EVERYWHERE),
}
_NAMESPACES: Final = 0x7E02_0000  # CLONE_NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET
_NEWTIME: Final = 0x80
_TERMINAL_INJECTION: Final = (0x5412, 0x541C)  # TIOCSTI TIOCLINUX
_X32: Final = 0x4000_0000

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_NR, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data; arguments are 64 bit, low half first
_SECCOMP_FILTER: Final = 2
_PR_SET_SECCOMP: Final = 22

Instruction = tuple[int, int, int, int]


def _when(test: int, value: int, action: int) -> list[Instruction]:
    """If the accumulator passes `test` against `value`: `action`; else go on."""
    return [(test, 0, 1, value), (_RETURN, 0, 0, action)]


def seccomp_program(calls: Calls) -> list[Instruction]:
    """The filter as (code, jump if true, jump if false, operand)."""
    refuse, absent = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    program: list[Instruction] = [(_LOAD, 0, 0, _ARCH), (_JUMP_IF_EQUAL, 1, 0, calls.audit), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NR), *_when(_JUMP_IF_AT_LEAST, _X32, absent)]
    for number in _NOT_IMPLEMENTED:
        program += _when(_JUMP_IF_EQUAL, number, absent)
    for number in calls.denied:
        program += _when(_JUMP_IF_EQUAL, number, refuse)
    injection = [step for value in _TERMINAL_INJECTION for step in _when(_JUMP_IF_EQUAL, value, refuse)]
    by_argument = (
        (calls.clone, _FIRST, _when(_JUMP_IF_ANY, _NAMESPACES, refuse)),
        (calls.unshare, _FIRST, _when(_JUMP_IF_ANY, _NAMESPACES | _NEWTIME, refuse)),
        (calls.ioctl, _SECOND, injection),
    )
    for number, offset, steps in by_argument:
        checked = [(_LOAD, 0, 0, offset), *steps, (_RETURN, 0, 0, _ALLOW)]
        program += [(_JUMP_IF_EQUAL, 0, len(checked), number), *checked]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.c_char_p))


def apply_seccomp(calls: Calls) -> None:
    """Install the filter for this process and everything it starts; no_new_privs must be set."""
    program = seccomp_program(calls)
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    loaded = _Program(length=len(program), filter=code)
    kernel.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, ctypes.addressof(loaded))


# --- limits of the process, and all of it together -------------------------------------------------------------


def apply_rlimits(*, memory_mb: int | None, tasks: int | None) -> tuple[str, ...]:
    """No core dumps; where the control group could not limit them: memory per process, tasks of the user."""
    limits = {
        "rlimit.core": (resource.RLIMIT_CORE, 0),
        "rlimit.data": (resource.RLIMIT_DATA, None if memory_mb is None else memory_mb << 20),
        "rlimit.nproc": (resource.RLIMIT_NPROC, tasks),
    }
    wanted = {name: (which, value) for name, (which, value) in limits.items() if value is not None}
    for which, value in wanted.values():
        resource.setrlimit(which, (value, value))
    return tuple(wanted)


def tasks_of(uid: int) -> int:
    """How many tasks (threads count) of this user the host has now: what RLIMIT_NPROC counts from."""
    tasks = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = status_fields(status)
        except OSError:  # it ended meanwhile
            continue
        if int(fields["Uid"].split()[0]) == uid:
            tasks += int(fields["Threads"])
    return tasks


def status_fields(path: Path) -> dict[str, str]:
    """The fields of a /proc/PID/status (proc(5)). Any bytes can be in a process's name, also colons and \\v.

    OSError where the process has ended.
    """
    lines = path.read_text(errors="replace").split("\n")
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def apply(writable: Iterable[Path], files_only: Iterable[Path]) -> tuple[str, ...]:
    """Rules 1 to 3 for this process; what was applied, by name. To be called last, as the job's user."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    applied = ["no_new_privs"]
    abi = landlock_abi()
    if abi:
        apply_landlock(abi, writable, files_only)
        applied.append(f"landlock.{abi}")
    calls = CALLS.get(kernel.MACHINE)
    if calls is not None:
        apply_seccomp(calls)
        applied.append("seccomp")
    return tuple(applied)
