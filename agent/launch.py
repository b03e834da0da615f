"""Init, and the job below it: from the fork of PID 1 of a new namespace to the job's first instruction.

Rules (design: control, "Start" 3 to 6):
1. Init waits at a barrier until the deadman has counted it in the job's control group. No deadman, no start.
2. Init dies with the deadman (PR_SET_PDEATHSIG), and with init its whole PID namespace, frozen or not.
3. The job sees its environment, its staged code and its output directory at fixed paths, the first two read-only;
   its own /proc, /tmp and /dev/shm; nothing of the agent's run directory, nor of the users' run directories (a user's
   service manager listens there, and starts for its user what is outside of every job's control group).
4. The job gets the descriptors 0, 1 and 2, one to read for each secret from 3 on, the variables named in the intent,
   and HOME, PATH, INTERLOCK_OUT, and where it has secrets INTERLOCK_SECRETS: "name:descriptor,...". Nothing else: no
   other descriptor, no other variable, no group, no pending or blocked signal.
5. Init hands signals to the job's main process, reaps, and ends when the main process ends.
"""

import contextlib
import fcntl
import itertools
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from agent import kernel, sandbox
from agent.protocol import FORWARDED, Applied, Channel, Failed, Left, Start
from attestation.errors import InterlockError, Untrusted

RUN: Final = Path("/run/interlock")
ENVIRONMENT: Final = RUN / "env"
CODE: Final = RUN / "code"
OUT: Final = RUN / "out"
PATH: Final = f"{ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin"

_GO: Final = b"g"
_USERS: Final = Path("/run/user")
_WRITABLE: Final = (OUT, Path("/tmp"), Path("/dev/shm"))  # noqa: S108 - the job's own, made below
HIGH: Final = 64
"""What init is given stands above the descriptors that the job gets, so that none takes the place of another."""
_DEVICES: Final = (Path("/dev"), Path("/proc"))

Stdio = tuple[int, int, int]
Given = tuple[Stdio, Sequence[int]]
"""The descriptors that a job is given: standard ones, and those of its secrets."""


@dataclass(frozen=True)
class Init:
    """What the deadman holds of the init it forked."""

    pid: int
    pidfd: int
    status: Channel
    barrier: int

    def release(self) -> None:
        """Open the barrier: init may go on (rule 1)."""
        os.write(self.barrier, _GO)
        os.close(self.barrier)

    def kill(self) -> None:
        """SIGKILL to init, and so to its namespace."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


def spawn(start: Start, stdio: Stdio, secrets: Sequence[int] = ()) -> Init:
    """Fork init, PID 1 of a new namespace, waiting at its barrier. OSError where the kernel refuses.

    ``stdio`` and ``secrets`` are descriptors from HIGH on.
    """
    rlimits = _needed_rlimits(start)
    kernel.unshare(kernel.CLONE_NEWPID)
    waiting, barrier = os.pipe()
    ours, theirs = Channel.pair()
    theirs = theirs.above(HIGH)
    pid = os.fork()
    if pid == 0:
        os.close(barrier)
        _forked(theirs, lambda: _init(start, (stdio, secrets), waiting, theirs, rlimits))
    os.close(waiting)
    theirs.close()
    return Init(pid, os.pidfd_open(pid), ours, barrier)


def check_start(start: Start) -> None:
    """Refuse a start that no job may have: Untrusted("launch.user") or Untrusted("launch.command").

    1. A job is neither root nor the agent's own user, in its user, group or supplementary groups.
    2. Arguments and variables can be handed to execve(2): no NUL, no "=" in a name. So can the names of secrets, which
       stand in a variable between commas and colons.
    """
    # (1)
    if start.uid in {0, os.geteuid()} or 0 in {start.gid, *start.groups}:
        raise Untrusted("launch.user", f"uid {start.uid}, gid {start.gid}, groups {list(start.groups)}")
    # (2)
    texts = (*start.argv, *start.env, *start.env.values())
    if not all(start.argv[:1]) or not start.argv or any("\0" in text for text in texts):
        raise Untrusted("launch.command", "an argument or variable that cannot be handed over")
    if any("=" in name or not name for name in start.env):
        raise Untrusted("launch.command", "a variable without a proper name")
    if not all(name and name.isprintable() and not set(name) & set(",:") for name in start.secrets):
        raise Untrusted("launch.command", "a secret without a proper name")


def _needed_rlimits(start: Start) -> tuple[int | None, int | None]:
    """Memory (MB) and tasks that the control group does not limit. Counted here: init sees no host processes."""
    memory_mb = None if "cgroup.memory.max" in start.limited else start.memory_mb
    tasks = None if "cgroup.pids.max" in start.limited else sandbox.tasks_of(start.uid) + start.processes
    return memory_mb, tasks


def _forked(status: Channel, work: Callable[[], int]) -> NoReturn:
    """The whole life of a forked process: no frame of the parent's stack is ever returned to."""
    code = os.EX_SOFTWARE
    try:
        code = work()
    except InterlockError as error:
        status.tell(Failed(reason=error.reason, detail=error.detail))
    except BaseException as error:
        status.tell(Failed(reason="launch.setup", detail=f"{type(error).__name__}: {error}"))
        raise
    finally:
        os._exit(code)


# --- init ----------------------------------------------------------------------------------------------------


def _init(start: Start, given: Given, waiting: int, status: Channel, rlimits: tuple[int | None, int | None]) -> int:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    if os.read(waiting, 1) != _GO:  # rule 1; also where the deadman died before it could be noticed
        return os.EX_UNAVAILABLE
    stdio, secrets = given
    _keep_only({0, 1, 2, status.fileno(), *stdio, *secrets})  # all but 0, 1 and 2 close on exec
    Path("/proc/self/oom_score_adj").write_text("0")  # the deadman is exempt, the job is not
    _surroundings(start)
    main = os.fork()
    if main == 0:
        _forked(status, lambda: _job(start, given, status, rlimits))
    for each in (*stdio, *secrets):
        os.close(each)
    code = _tend(main)
    status.tell(Left(code=code, leftover=_others()))
    return os.EX_OK


def _keep_only(descriptors: set[int]) -> None:
    """Close every descriptor but these."""
    bounds = [-1, *sorted(descriptors), resource.getrlimit(resource.RLIMIT_NOFILE)[1]]
    for below, above in itertools.pairwise(bounds):
        if below + 1 < above:  # an empty range at 0 would be taken as "all"
            os.closerange(below + 1, above)


def _surroundings(start: Start) -> None:
    """Rule 3: mounts that nobody outside this namespace sees."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    plain = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
    views = {
        ENVIRONMENT: kernel.copy_mount(start.environment, plain | kernel.MOUNT_ATTR_RDONLY),
        CODE: kernel.copy_mount(start.code, plain | kernel.MOUNT_ATTR_RDONLY),
        OUT: kernel.copy_mount(start.out, plain),
    }
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    RUN.mkdir(mode=0o755, exist_ok=True)
    kernel.mount("interlock", str(RUN), "tmpfs", flags, "mode=0755,size=1m")
    for each in _WRITABLE[1:]:
        kernel.mount("interlock", str(each), "tmpfs", flags, f"mode=1777,size={start.memory_mb}m")
    if _USERS.is_dir():
        kernel.mount("interlock", str(_USERS), "tmpfs", flags, "mode=0755,size=4k")
    kernel.mount("proc", "/proc", "proc", flags | kernel.MS_NOEXEC)
    for target, tree in views.items():
        target.mkdir(mode=0o755)
        kernel.attach_mount(tree, str(target))


def _tend(main: int) -> int:
    """Rule 5; the main process's code, negative for a signal."""
    while True:
        number = signal.sigwait({signal.SIGCHLD, *FORWARDED})
        if number != signal.SIGCHLD:
            os.kill(main, number)
            continue
        ended = dict(_ended())
        if main in ended:
            return os.waitstatus_to_exitcode(ended[main])


def _ended() -> Iterator[tuple[int, int]]:
    """Reap all that ended: pid, wait status."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            yield ended


def _others() -> int:
    """The processes of this PID namespace other than init."""
    return sum(each.name.isdigit() for each in Path("/proc").iterdir()) - 1


# --- the job -------------------------------------------------------------------------------------------------


def _job(start: Start, given: Given, status: Channel, rlimits: tuple[int | None, int | None]) -> NoReturn:
    os.setsid()
    stdio, secrets = given
    for number, each in enumerate(stdio):
        os.dup2(each, number)
    released = dict(zip(start.secrets, map(_readable, secrets), strict=True))
    memory_mb, tasks = rlimits
    applied = start.limited + sandbox.apply_rlimits(memory_mb=memory_mb, tasks=tasks)
    os.setgroups(start.groups)
    os.setresgid(start.gid, start.gid, start.gid)
    os.setresuid(start.uid, start.uid, start.uid)
    os.umask(0o022)
    os.chdir(CODE)
    if not os.access(OUT, os.W_OK | os.X_OK):
        raise PermissionError(f"{OUT} is not the job's own")
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    applied += sandbox.apply(_WRITABLE, _DEVICES)
    variables = {"HOME": str(OUT), "PATH": PATH} | dict(start.env) | {"INTERLOCK_OUT": str(OUT)}
    if released:
        variables["INTERLOCK_SECRETS"] = ",".join(f"{name}:{number}" for name, number in released.items())
    command = resolve(start.argv, variables["PATH"])
    os.environ.clear()
    os.environ.update(variables)
    status.send(Applied(names=applied))
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


def raised(descriptors: Sequence[int]) -> list[int]:
    """The same files under descriptors that are in nobody's way."""
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, HIGH) for each in descriptors]
    for each in descriptors:
        os.close(each)
    return high


def _readable(memory: int) -> int:
    """A descriptor of the job's own for a memory file: to read only, kept on exec, with an offset of its own."""
    descriptor = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 - the library's signature
    return descriptor


def resolve(argv: Sequence[str], path: str, programs: Path = ENVIRONMENT / "bin") -> list[str]:
    """The command to execute, its first word an absolute path; Untrusted("launch.command") where there is none.

    A word without a slash is looked for among the environment's programs, then along `path`. A Python script of the
    environment's runs under the environment's interpreter: the path in its first line is the one it was installed at.
    """
    found = shutil.which(argv[0], path=f"{programs}:{path}")
    if found is None:
        raise Untrusted("launch.command", f"{argv[0]}: no such program")
    program = Path(found).absolute()
    if program.parent == programs and _is_python_script(program):
        return [str(programs / "python"), str(program), *argv[1:]]
    return [str(program), *argv[1:]]


def _is_python_script(program: Path) -> bool:
    with program.open("rb") as file:
        first = file.readline(256)
    return first.startswith(b"#!") and b"python" in first
