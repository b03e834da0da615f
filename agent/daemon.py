"""``interlock-agent serve``: the long-running process.

Rules:
1. One agent per state directory (a lock on it), so that one journal knows all burned grants.
2. Before the first request is taken, what an earlier agent left is killed and reported. No job is ever revived.
3. A thread per connection, bounded, a quarter of them for one user at most; whoever comes too many is turned away at
   once. Root always gets one while there is one.
4. SIGTERM and SIGINT: no new request, every job is asked to end, reports are sent, then the process ends. Whatever
   still runs then dies with it, because the deadmen see their channel end.
"""

import logging
import selectors
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from agent.cgroup import sweep
from agent.client import Rejected, Unreachable
from agent.deliver import bury, deliver
from agent.host import Host
from agent.messages import Channel, Peer
from agent.serve import serve, turn_away
from agent.state import only_one
from attestation.errors import Malformed, Untrusted

DRAIN_SECONDS: Final = 45.0
_BACKLOG: Final = 64
_PER_JOB: Final = 4
_RETRY_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.1

log = logging.getLogger("interlock.agent")


class Shares:
    """How many connections each user has, at most ``most``; root is not counted. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    def take(self, uid: int) -> None:
        """Count one more of ``uid``. Raises ``Untrusted("agent.connections")`` at the limit."""
        with self._lock:
            if uid != 0 and self._taken[uid] >= self._most:
                raise Untrusted("agent.connections", f"uid {uid} has {self._most} connections")
            self._taken[uid] += 1

    def give_back(self, uid: int) -> None:
        """Count one less."""
        with self._lock:
            self._taken[uid] -= 1
            self._taken += Counter()  # keeps those above zero


class Daemon:
    """Serves ``host`` until it is told to stop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        places = _BACKLOG + _PER_JOB * host.settings.jobs
        self._places = threading.BoundedSemaphore(places)
        self._shares = Shares(places // 4)
        self._wake, self._woken = socket.socketpair()
        self._over = threading.Event()

    def stop(self, *_signal: int | FrameType | None) -> None:
        """Ask for the end; returns at once. Also a signal handler."""
        self._over.set()
        self._host.stopping.set()
        with suppress(OSError):  # it has ended
            self._wake.send(b"s")

    def run(self) -> None:
        """Serve until :meth:`stop`. Raises ``Untrusted("agent.state")`` where another agent uses the directory."""
        host = self._host
        with self._wake, self._woken, only_one(host.state.path), self._listening() as listener:
            swept = sweep(host.cgroups, set())  # rule 2
            buried = bury(host)
            log.info("ready: node %s, socket %s, %d left-over jobs killed, %d reported", host.enrolment.node,
                     host.settings.socket, len(swept), len(buried))  # fmt: skip
            for task in (self._hints, self._deliveries):
                threading.Thread(target=task, name=task.__name__, daemon=True).start()
            self._accept(listener)
            self._drain()

    def _accept(self, listener: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            for source in (listener, self._woken):
                selector.register(source, selectors.EVENT_READ)
            while not self._host.stopping.is_set():
                if any(key.fileobj is listener for key, _ in selector.select()):
                    try:
                        self._take(listener.accept()[0])
                    except OSError as error:  # it has gone again, or there is no descriptor left for it
                        log.warning("a connection was lost: %s", error)
                        self._host.stopping.wait(_PAUSE_SECONDS)

    def _take(self, connection: socket.socket) -> None:
        """Rule 3."""
        if not self._places.acquire(blocking=False):
            connection.close()
            return
        try:
            peer = Peer.of(connection)
            self._shares.take(peer.uid)
        except (OSError, Untrusted) as error:
            self._places.release()
            turn_away(Channel(connection), error)
            return
        threading.Thread(target=self._serve, args=(connection, peer), name="serve", daemon=True).start()

    def _serve(self, connection: socket.socket, peer: Peer) -> None:
        try:
            serve(self._host, Channel(connection), peer)
        finally:
            self._shares.give_back(peer.uid)
            self._places.release()

    def _drain(self) -> None:
        """Rule 4."""
        log.info("stopping: %d jobs are asked to end", len(self._host.jobs.all()))
        for job in self._host.jobs.all():
            governed = job.governed
            if governed is not None:
                governed.drain("agent.stopped")
        self._host.jobs.wait_empty(DRAIN_SECONDS)

    @contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        """The socket, where every user can connect: who may do what is decided by peer credentials."""
        path = self._host.settings.socket
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            path.chmod(0o666)
            listener.listen(_BACKLOG)
            try:
                yield listener
            finally:
                path.unlink(missing_ok=True)

    # --- beside the requests -----------------------------------------------------------------------------------

    def _hints(self) -> None:
        """Renew all leases at once when the verifier says that something has changed. A lost hint costs no safety."""
        host, seen = self._host, 0
        while not self._over.is_set():
            try:
                now = host.verifier.watch(host.enrolment.node, seen)
            except (Unreachable, Rejected, Malformed):
                self._over.wait(_RETRY_SECONDS)
                continue
            if now != seen:
                host.counters.add("hints")
                seen = now
                for job in host.jobs.all():
                    governed = job.governed
                    if governed is not None:
                        governed.hurry()

    def _deliveries(self) -> None:
        """Send the reports that the verifier has not got yet."""
        while not self._over.wait(_RETRY_SECONDS):
            deliver(self._host)


def until_signalled(host: Host) -> None:
    """Run the daemon in the main thread until SIGTERM or SIGINT."""
    daemon = Daemon(host)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, daemon.stop)
    daemon.run()
