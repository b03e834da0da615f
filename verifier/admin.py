"""How administration commands reach the store: through the running service, or, when none runs, directly.

One process has the store open at a time, and that process alone appends to the log; so every change that an operator
makes gets its record in the same sequence as every decision. A command therefore goes

1. over ``admin.sock`` to the running service. The socket is mode 0600, and the service asks the kernel who connects
   (SO_PEERCRED): its own user or root, nobody else. No password, no network;
2. or, when nobody listens there, into the store directly, under the lock that the service would hold. Where the lock
   is held by a process that does not listen (it is starting, or stopping), the command fails and says so.

Both ways run the same functions (:mod:`verifier.commands`). One line of JSON each way:
``{"command": ..., "arguments": {...}}`` and ``{"result": ...}`` or ``{"reason": ..., "detail": ...}``.
"""

import asyncio
import fcntl
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from attestation.errors import InterlockError, Malformed, Untrusted

Dispatch = Callable[[str, Mapping[str, Any]], Awaitable[Any]]

MAX_LINE = 64 << 20
MAX_ANSWER = 3 << 29
"""A command fits in a line of this length, and an answer: the largest bundle in base64."""
_TIMEOUT = 60.0
_log = logging.getLogger("interlock.admin")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the verifier's lock. Raises ``Untrusted("admin.busy")`` where another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Untrusted("admin.busy", f"{path} is locked by another process") from error
        yield
    finally:
        os.close(handle)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits a socket address (108 bytes), however deep its directory is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


# --- the side of the command ------------------------------------------------------------------------------------------


def ask(path: Path, command: str, arguments: Mapping[str, Any]) -> Any:
    """The result of ``command`` from the service that listens at ``path``.

    ``ConnectionRefusedError`` or ``FileNotFoundError`` where none does; ``Untrusted`` or ``Malformed`` as the command
    was refused there.
    """
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)) as connection:
        connection.settimeout(_TIMEOUT)
        with _short(path) as name:
            connection.connect(name)
        connection.sendall(json.dumps({"command": command, "arguments": arguments}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer = json.loads(lines.readline(MAX_ANSWER) or b"{}")
    if "result" in answer:
        return answer["result"]
    raise Untrusted(answer.get("reason", "admin.busy"), answer.get("detail", "the service closed the connection"))


# --- the side of the service ------------------------------------------------------------------------------------------


async def serve_commands(path: Path, dispatch: Dispatch) -> asyncio.Server:
    """Listen at ``path`` and answer with ``dispatch``. The caller holds the lock: an old socket there is nobody's."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _is_ours(writer.get_extra_info("socket")):
                answer = await _answer(await reader.readline(), dispatch)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            _log.warning("an administration connection broke off")
        finally:
            writer.close()

    return await asyncio.start_unix_server(connected, sock=_listener(path), limit=MAX_LINE)


def _listener(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with _short(path) as name:
        mask = os.umask(0o177)
        try:
            listener.bind(name)
        finally:
            os.umask(mask)
    return listener


def _is_ours(connection: Any) -> bool:
    """Whether the peer is this user or root, as the kernel says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


async def _answer(line: bytes, dispatch: Dispatch) -> dict[str, Any]:
    try:
        match json.loads(line):
            case {"command": str(command), "arguments": dict(arguments)}:
                return {"result": await dispatch(command, arguments)}
            case _:
                raise Malformed("admin.argument", "a command is an object with a command and its arguments")
    except InterlockError as error:
        return {"reason": error.reason, "detail": error.detail}
    except json.JSONDecodeError as error:
        return {"reason": "admin.argument", "detail": str(error)}
