"""Putting a verifier together, and running it until it is told to stop.

One process, one event loop: decisions are made inline, because one takes about a millisecond and Python's threads would
not make it faster; the sequencer's thread does the waiting for the disk. On SIGTERM or SIGINT the service stops
accepting, answers what it has, commits what waits, and leaves.
"""

import asyncio
import gc
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import uvicorn

from attestation.log import Record
from verifier.admin import locked, serve_commands
from verifier.app import create_app
from verifier.clock import Clock
from verifier.commands import run_command
from verifier.health import Health
from verifier.janitor import keep_house
from verifier.keys import CERTIFICATE, TLS, KeyRing
from verifier.metrics import Metrics
from verifier.sequencer import Sequencer
from verifier.settings import ServiceSettings
from verifier.sqlite import SqliteStore
from verifier.state import Verifier
from verifier.throttle import Throttle
from verifier.watch import Watch

STOP_SECONDS = 5
_BACKLOG = 2048
_COLLECT = (20_000, 50, 50)
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Service:
    """A verifier with everything that it stands on."""

    verifier: Verifier
    sequencer: Sequencer
    health: Health


@contextmanager
def opened(settings: ServiceSettings, *, clock: Clock | None = None) -> Iterator[Service]:
    """The verifier of ``settings``, under its lock, closed in order afterwards.

    Raises ``Untrusted("admin.busy")`` where another process has it, and what keys and store raise that are not whole.
    """
    clock = clock or Clock()
    with locked(settings.lock):
        keys = KeyRing.load(settings.keys)
        store = SqliteStore(settings.store, origin=settings.origin, key=keys.log.public)
        try:
            genesis = Record(kind="genesis", time=clock.now(), outcome="begun", digests={}, detail=settings.issuer)
            sequencer = Sequencer(store, keys.log, settings.origin, genesis=genesis)
            try:
                verifier = Verifier(
                    settings=settings,
                    keys=keys,
                    store=store,
                    log=sequencer,
                    clock=clock,
                    metrics=Metrics(),
                    watch=Watch(settings.watchers, start=int(clock.seconds() * 1000)),
                    throttle=Throttle(settings.requests_per_second, clock.seconds),
                )
                yield Service(verifier, sequencer, Health(verifier, sequencer))
            finally:
                sequencer.close()
        finally:
            store.close()


class Server(uvicorn.Server):
    """uvicorn, stopped by our own signals: its own would end the process before the log is closed."""

    def __init__(self, service: Service, announce: Callable[[str], None]) -> None:
        settings, keys = service.verifier.settings, service.verifier.keys
        config = uvicorn.Config(
            create_app(service.verifier, service.health),
            ssl_certfile=str(keys.directory / CERTIFICATE),
            ssl_keyfile=str(keys.directory / TLS),
            ssl_version=ssl.PROTOCOL_TLS_SERVER,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        super().__init__(config)
        self._service, self._announce, self._settings = service, announce, settings

    def capture_signals(self) -> Any:  # type: ignore[explicit-override]  # typing.override is newer
        """Leave signals alone."""
        return nullcontext()

    def stop(self) -> None:
        """Stop accepting, answer what is under way, return from ``run``."""
        self._service.verifier.watch.close()
        self.should_exit = True

    async def run_until_stopped(self, listener: socket.socket) -> None:
        """Serve HTTP and administration until :meth:`stop`."""
        verifier = self._service.verifier

        async def dispatch(command: str, arguments: Any) -> Any:
            return await run_command(verifier, self._service.health, command, arguments)

        admin = await serve_commands(self._settings.admin_socket, dispatch)
        house = asyncio.create_task(keep_house(verifier))
        loop = asyncio.get_running_loop()
        host, port = listener.getsockname()[:2]
        loop.call_soon(self._announce, f"ready: {self._settings.issuer} on https://{host}:{port}")
        try:
            await self.serve(sockets=[listener])
        finally:
            house.cancel()
            admin.close()
            self._settings.admin_socket.unlink(missing_ok=True)


def listen(bind: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bind, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def settle() -> None:
    """Tune the interpreter for a long-lived service, once everything is loaded.

    What is loaded stays, so the collector need not look at it again; decisions leave few cycles behind, so it looks
    seldom. The log's thread gets the interpreter from a busy event loop within half a millisecond instead of five.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    sys.setswitchinterval(_SWITCH_SECONDS)


def allow_connections() -> None:
    """Take as many descriptors as this process may have: the usual 1024 are fewer than the hosts that may wait."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(settings: ServiceSettings, announce: Callable[[str], None]) -> None:
    """Run the service in this process until SIGTERM or SIGINT."""
    allow_connections()
    with opened(settings) as service, listen(settings.bind, settings.port) as listener:
        server = Server(service, announce)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.stop)
            await server.run_until_stopped(listener)

        settle()
        asyncio.run(main())
