"""Memory files: how a secret is handed to a job, and taken away again (memfd_create(2)).

Such a file has no name and is on no disk. Nobody can seal it against shrinking, because it was made without
MFD_ALLOW_SEALING; nobody but root opens it for writing. What is emptied is overwritten first, and what a process has
mapped of it is gone with it.
"""

import os


def make(name: str) -> int:
    """A new file, empty; its descriptor closes on exec. ``name`` is for those who look into /proc."""
    descriptor = os.memfd_create(f"interlock:{name}", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o444)
    return descriptor


def fill(descriptor: int, value: bytearray) -> None:
    """Make ``value`` all that the file holds."""
    os.pwrite(descriptor, value, 0)
    os.ftruncate(descriptor, len(value))


def empty(descriptor: int) -> None:
    """Overwrite all that the file holds, then let go of it."""
    os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
    os.ftruncate(descriptor, 0)
