"""The sandbox: the filter as a program, Landlock by ABI, limits (agent/sandbox.py). Jobs inside it: test_hold.py."""

import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agent import kernel, sandbox
from agent.sandbox import CALLS, Calls, seccomp_program

HERE = str(Path(__file__).parent.parent.parent)
ALLOW, KILL = "allow", "kill"
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
DENIED = (
    *("ptrace", "syslog", "pivot_root", "adjtimex", "chroot", "acct", "settimeofday", "mount", "umount2", "swapon"),
    *("swapoff", "reboot", "sethostname", "setdomainname", "init_module", "delete_module", "quotactl"),
    *("lookup_dcookie", "clock_settime", "kexec_load", "add_key", "request_key", "keyctl", "perf_event_open"),
    *("open_by_handle_at", "clock_adjtime", "setns", "finit_module", "kexec_file_load", "bpf", "userfaultfd"),
    *("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "quotactl_fd"),
)
ABSENT = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3")


def numbers(machine: str) -> dict[str, int]:
    """System call names and numbers from the kernel's own header."""
    path = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"{path} is not installed (linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", path.read_text())
    return {name: int(number) for name, number in found}


def run(calls: Calls, number: int, arguments: tuple[int, ...] = (), audit: int | None = None) -> str:
    """What the filter answers, by interpreting it: linux/filter.h, the instructions that it uses."""
    data = dict.fromkeys(range(0, 64, 4), 0)
    data[0], data[4] = number, calls.audit if audit is None else audit
    for index, argument in enumerate(arguments):
        data[16 + 8 * index], data[20 + 8 * index] = argument & 0xFFFFFFFF, argument >> 32
    program, position, accumulator = seccomp_program(calls), 0, 0
    while True:
        code, true, false, operand = program[position]
        position += 1
        if code == 0x20:
            accumulator = data[operand]
        elif code == 0x06:
            answers = {0x7FFF0000: ALLOW, 0x80000000: KILL}
            return answers.get(operand) or errno.errorcode[operand & 0xFFFF]
        else:
            tests = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            position += true if tests[code] else false


@pytest.mark.parametrize("machine", CALLS)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    known, calls = numbers(machine), CALLS[machine]
    denied = {known[name] for name in DENIED} | ({172, 173} if machine == "x86_64" else set())
    assert set(calls.denied) == denied
    assert len(calls.denied) == len(denied)
    assert (calls.clone, calls.unshare, calls.ioctl) == (known["clone"], known["unshare"], known["ioctl"])
    assert {run(calls, known[name]) for name in DENIED} == {"EPERM"}
    assert {run(calls, known[name]) for name in ABSENT} == {"ENOSYS"}
    others = set(known) - set(DENIED) - set(ABSENT) - {"iopl", "ioperm"}
    allowed = {name for name in others if run(calls, known[name]) == ALLOW}
    assert others - allowed <= {"syscalls", "arch_specific_syscall"}
    raw = kernel.NUMBERS[machine]
    assert (raw.setgroups, raw.setfsuid, raw.setfsgid) == tuple(
        known[name] for name in ("setgroups", "setfsuid", "setfsgid")
    )


NAMESPACES = {
    "NEWNS": 0x20000,
    "NEWCGROUP": 0x2000000,
    "NEWUTS": 0x4000000,
    "NEWIPC": 0x8000000,
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
}
THREAD, VFORK = 0x3D0F00, 0x4111


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_arguments_decide_where_they_must(calls: Calls) -> None:
    assert {run(calls, calls.clone, (flags,)) for flags in (17, THREAD, VFORK, 0x100000011)} == {ALLOW}
    for flag in NAMESPACES.values():
        assert run(calls, calls.clone, (flag | 17,)) == "EPERM"
        assert run(calls, calls.unshare, (flag,)) == "EPERM"
    assert run(calls, calls.unshare, (0x80,)) == "EPERM"  # a time namespace; in clone this bit is a signal's
    assert run(calls, calls.unshare, (0x400,)) == ALLOW  # the table of descriptors
    assert {run(calls, calls.ioctl, (0, request)) for request in (0x5412, 0x541C, 0x7700005412)} == {"EPERM"}
    assert {run(calls, calls.ioctl, (0x5412, request)) for request in (0x5401, 0x5413, 0xC0204632)} == {ALLOW}


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_another_architectures_entry_ends_the_process(calls: Calls) -> None:
    for audit in (0x40000003, 0x40000028, 0):  # i386, arm
        assert run(calls, 1, audit=audit) == KILL
    assert run(calls, 0x40000000 | 1) == "ENOSYS"  # x32
    assert run(calls, 1) == ALLOW


# --- in real processes, which end with what they applied ---------------------------------------------------------


HEAD = """
import os, errno, sys, threading
sys.path.insert(0, sys.argv.pop(1))
from pathlib import Path
from agent import kernel, sandbox

def attempt(name, act):
    try: act()
    except OSError as error: print(name, errno.errorcode[error.errno])
    else: print(name, 'ok')

def work():
    {program}

thread = threading.Thread(target=work)  # what is applied holds for this thread alone, and ends with it
thread.start()
thread.join()
"""


def child(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    text = HEAD.format(program=program.strip().replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-I", "-c", text, HERE, *arguments], capture_output=True, text=True, timeout=20
    )


WRITES = """
root = Path(sys.argv[2])
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
sandbox.apply_landlock(int(sys.argv[1]), [root / 'out', root / 'tmp'], [root / 'dev', '/proc'])
attempt('read', lambda: (root / 'code').read_bytes())
attempt('list', lambda: os.listdir(root))
attempt('write', lambda: os.open(root / 'code', os.O_WRONLY))
attempt('create', lambda: (root / 'new').touch())
attempt('remove', lambda: (root / 'code').unlink())
attempt('link', lambda: (root / 'l').symlink_to('x'))
attempt('directory', lambda: (root / 'd').mkdir())
attempt('write out', lambda: (root / 'out' / 'x').write_text('1'))
attempt('directory out', lambda: (root / 'out' / 'd').mkdir())
attempt('rename out', lambda: (root / 'out' / 'x').rename(root / 'out' / 'y'))
attempt('move out', lambda: (root / 'out' / 'y').rename(root / 'out' / 'd' / 'y'))
attempt('device out', lambda: os.mknod(root / 'out' / 'null', 0o20666, os.makedev(1, 3)))
attempt('write dev', lambda: (root / 'dev' / 'null').write_text('1'))
attempt('create dev', lambda: (root / 'dev' / 'new').touch())
attempt('truncate', lambda: os.truncate(root / 'code', 0))
attempt('signal', lambda: os.kill(os.getppid(), 0))
"""
SAME = {
    **dict.fromkeys(("read", "list", "write out", "directory out", "rename out", "write dev"), "ok"),
    **dict.fromkeys(("write", "create", "remove", "link", "directory", "device out", "create dev"), "EACCES"),
}
BY_ABI = {
    1: {"move out": "EXDEV", "truncate": "ok", "signal": "ok"},
    2: {"move out": "ok", "truncate": "ok", "signal": "ok"},
    3: {"move out": "ok", "truncate": "EACCES", "signal": "ok"},
    6: {"move out": "ok", "truncate": "EACCES", "signal": "EPERM"},
}


@pytest.mark.root
@pytest.mark.parametrize("abi", BY_ABI)
def test_landlock_writes_only_where_it_may(tmp_path: Path, abi: int) -> None:
    if sandbox.landlock_abi() < abi:
        pytest.skip(f"this kernel's Landlock is older than ABI {abi}")
    for name in ("out", "tmp", "dev"):
        (tmp_path / name).mkdir()
    (tmp_path / "dev" / "null").touch()
    (tmp_path / "code").write_text("print(1)")
    done = child(WRITES, str(abi), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert dict(line.rsplit(" ", 1) for line in done.stdout.splitlines()) == SAME | BY_ABI[abi]


ALL = """
print(*sandbox.apply([Path(sys.argv[1])], [Path('/dev')]))
attempt('mount', lambda: kernel.mount('none', '/tmp', 'tmpfs', 0))
attempt('unshare', lambda: kernel.unshare(kernel.CLONE_NEWNS))
attempt('fork', lambda: os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0))
inner = threading.Thread(target=print, args=('thread ok',)); inner.start(); inner.join()
"""


@pytest.mark.root
def test_all_of_it_says_what_it_applied(tmp_path: Path) -> None:
    done = child(ALL, str(tmp_path))
    names, *rest = done.stdout.splitlines()
    abi = sandbox.landlock_abi()
    assert names.split() == ["no_new_privs", *([f"landlock.{abi}"] if abi else []), "seccomp"]
    assert rest == ["mount EPERM", "unshare EPERM", "fork ok", "thread ok"]


def test_what_the_kernel_does_not_have_is_not_claimed(tmp_path: Path) -> None:
    without = "sandbox.landlock_abi = lambda: 0\nkernel.MACHINE = 'riscv64'\nprint(*sandbox.apply([], []))"
    assert child(without).stdout.split() == ["no_new_privs"]
    none = "sandbox.apply_seccomp(sandbox.CALLS[kernel.MACHINE])\n"
    filtered = "def no(*_): raise OSError(38, 'no')\nkernel.syscall = no\nprint(sandbox.landlock_abi())"
    assert child(filtered).stdout.split() == ["0"]
    assert child("kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)\n" + none + "print('in')").stdout.split() == ["in"]


LIMITS = """
import resource
print(*sandbox.apply_rlimits(memory_mb=eval(sys.argv[1]), tasks=eval(sys.argv[2])))
for which in (resource.RLIMIT_CORE, resource.RLIMIT_DATA, resource.RLIMIT_NPROC): print(*resource.getrlimit(which))
"""


@pytest.mark.parametrize(
    ("memory", "tasks", "names"),
    [
        ("None", "None", "rlimit.core"),
        ("700", "None", "rlimit.core rlimit.data"),
        ("None", "90", "rlimit.core rlimit.nproc"),
        ("700", "90", "rlimit.core rlimit.data rlimit.nproc"),
    ],
)
def test_limits_that_the_group_does_not_set(memory: str, tasks: str, names: str) -> None:
    before = [resource.getrlimit(which) for which in (resource.RLIMIT_DATA, resource.RLIMIT_NPROC)]
    data = (700 << 20, 700 << 20) if memory == "700" else before[0]
    nproc = (90, 90) if tasks == "90" else before[1]
    done = child(LIMITS, memory, tasks)
    assert done.stdout.splitlines() == [names, "0 0", f"{data[0]} {data[1]}", f"{nproc[0]} {nproc[1]}"]


@pytest.mark.root
def test_tasks_of_a_user_are_counted() -> None:
    assert sandbox.tasks_of(4799) == 0
    assert sandbox.tasks_of(os.getuid()) > 0
    with subprocess.Popen(["setpriv", "--reuid=4799", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdin.write(b"x")
        one.stdin.flush()
        one.stdout.read(1)
        assert sandbox.tasks_of(4799) == 1
        one.stdin.close()


def test_kernel_calls_raise() -> None:
    with pytest.raises(FileNotFoundError, match="mount /nonexistent"):
        kernel.mount("none", "/nonexistent", "tmpfs", 0)
    with pytest.raises(OSError, match="prctl 38: Invalid argument"):
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 7)
    with pytest.raises(OSError, match="unshare 0x1: Invalid argument"):
        kernel.unshare(1)
