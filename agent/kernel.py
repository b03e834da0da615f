"""The Linux calls that Python 3.11 does not offer, through ctypes, each raising `OSError`.

Rules: nothing here decides; a call either does what its manual page says or raises. Numbers below 424 differ per
architecture and are tabled; from 424 on every architecture shares one number (Linux 5.1, "unified" numbering).
Sections: clone(2), unshare(2), prctl(2), openat2(2), open_tree(2), mount_setattr(2), move_mount(2), setgroups(2).
"""

import ctypes
import os
import platform
from dataclasses import dataclass
from typing import Final

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWPID: Final = 0x2000_0000

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000

MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4

RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4


@dataclass(frozen=True)
class Numbers:
    """System call numbers that differ between architectures (asm/unistd.h)."""

    setgroups: int
    setfsuid: int
    setfsgid: int


NUMBERS: Final = {
    "x86_64": Numbers(setgroups=116, setfsuid=122, setfsgid=123),
    "aarch64": Numbers(setgroups=159, setfsuid=151, setfsgid=152),
}
MACHINE: Final = platform.machine()

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_OPENAT2: Final = 437
_MOUNT_SETATTR: Final = 442

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Argument = int | bytes | ctypes.Structure | ctypes.Array[ctypes.c_uint32] | None


def syscall(number: int, *arguments: Argument) -> int:
    """The result of system call `number`; structures and arrays are passed by address. OSError on failure."""
    result = _libc.syscall(ctypes.c_long(number), *(_argument(each) for each in arguments))
    return _result(result, f"system call {number}")


def _argument(value: Argument) -> object:
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    return value


def _result(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` (unshare(2))."""
    _result(_libc.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def prctl(option: int, first: int, second: int = 0) -> None:
    """prctl(2) with two arguments."""
    _result(
        _libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(each) for each in (first, second, 0, 0))), f"prctl {option}"
    )


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), data.encode() or None
    )
    _result(result, f"mount {target}")


class _MountAttr(ctypes.Structure):
    """struct mount_attr, mount_setattr(2): four u64."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def copy_mount(path: str, attributes: int) -> int:
    """A detached copy of the tree at `path` with `attributes` set on every mount of it; its file descriptor."""
    tree = syscall(_OPEN_TREE, _AT_FDCWD, path.encode(), _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC)
    value = _MountAttr(attr_set=attributes)
    syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, value, ctypes.sizeof(value))
    return tree


def attach_mount(tree: int, target: str) -> None:
    """Attach a detached mount at `target` (move_mount(2)) and close its descriptor."""
    syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)


class _OpenHow(ctypes.Structure):
    """struct open_how, openat2(2): three u64."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: str, flags: int, resolve: int = RESOLVE_BENEATH) -> int:
    """Open `path` below the directory descriptor `root`, never leaving it (openat2(2)); the new descriptor."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, resolve=resolve)
    return syscall(_OPENAT2, root, os.fsencode(path), how, ctypes.sizeof(how))


def become_reader(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Give *this thread alone* another identity for file access (setfsuid(2)); ends with the thread.

    The raw calls matter: the C library's setgroups(3) would change every thread of the process.
    """
    numbers = NUMBERS[MACHINE]
    listed = (ctypes.c_uint32 * len(groups))(*groups)
    syscall(numbers.setgroups, len(groups), listed)
    for number, wanted in ((numbers.setfsgid, gid), (numbers.setfsuid, uid)):
        syscall(number, wanted)
        if syscall(number, -1) != wanted:  # these two report nothing: ask what is in force now
            raise PermissionError(f"setfsuid/setfsgid to {wanted} was not obeyed")
