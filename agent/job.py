"""One request on its way through the agent: who asked, what for, how far it is, and who wants to hear of it."""

import contextlib
import hashlib
import hmac
import os
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.environment import find
from agent.messages import PATIENCE_SECONDS, Channel, Ended, Fetched, Peer, Progress, Signal, Start, close_all
from agent.settings import Settings
from attestation.errors import Malformed, Untrusted
from attestation.grant import Grant
from attestation.intent import Intent, read_intent
from attestation.wire import Wire

if TYPE_CHECKING:
    from agent.govern import Governed

STDIO: Final = 3
MOST_LISTENERS: Final = 16


def check_peer(peer: Peer, settings: Settings) -> None:
    """Refuse whoever may not submit here: root, the agent's own user, and who is not listed in the settings.

    Raises ``Untrusted("submitter.uid")``.
    """
    if peer.uid in {0, os.geteuid()}:
        raise Untrusted("submitter.uid", f"uid {peer.uid} is root or the agent's own")
    if peer.uid not in settings.uids and not {peer.gid, *peer.groups} & set(settings.gids):
        raise Untrusted("submitter.uid", f"uid {peer.uid} is not among the uids and gids in the agent's settings")


@dataclass
class Job:
    """A request that was accepted for judgement. ``descriptors``: standard input, output, error, code directory."""

    peer: Peer
    start: Start
    intent: Intent
    descriptors: tuple[int, ...]
    channel: Channel
    environment: Path
    grant: Grant | None = None
    sequence: int = 0
    phase: str = "asked"
    governed: "Governed | None" = None
    fetched: bool = False
    gone: threading.Event = field(default_factory=threading.Event)
    early_signals: list[int] = field(default_factory=list)
    _listeners: list[Channel] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, peer: Peer, start: Start, descriptors: list[int], channel: Channel) -> "Job":
        """Read a request. ``Malformed`` for what is broken, ``Untrusted("variables.changed")`` for other values.

        1. The intent is read, not believed: only the verifier knows who may sign one.
        2. The environment variables are those that were signed: same names, and each value has its digest.
        3. There are four descriptors, and the last is a directory.
        """
        intent, _ = read_intent(start.intent)  # (1)
        digests = {name: hashlib.sha256(value.encode()).digest() for name, value in start.variables.items()}
        signed = intent.environment_variables
        if digests.keys() != signed.keys() or not all(hmac.compare_digest(digests[n], signed[n]) for n in signed):
            raise Untrusted("variables.changed", "names or values differ from the intent's")  # (2)
        if len(descriptors) != STDIO + 1 or not stat.S_ISDIR(os.fstat(descriptors[STDIO]).st_mode):
            raise Malformed("agent.message.descriptors", "expected input, output, error and a directory")  # (3)
        return cls(peer, start, intent, tuple(descriptors), channel, find(start.environment))

    @property
    def code(self) -> int:
        """The directory descriptor of the code."""
        return self.descriptors[STDIO]

    def attend(self) -> None:
        """Read what the submitter sends until its end, which is the end of the run. For a thread of its own."""
        while True:
            try:
                received = self.channel.receive()
            except (OSError, Malformed):
                received = None
            if received is None:
                break
            close_all(received[1])
            self._take(received[0])
        self.gone.set()
        governed = self.governed
        if governed is not None:
            governed.drain("submitter.gone")

    def _take(self, message: Wire) -> None:
        if isinstance(message, Fetched):
            self.fetched = True
        elif isinstance(message, Signal) and self.governed is not None:
            self.governed.signal(message.number)
        elif isinstance(message, Signal):
            self.early_signals.append(message.number)

    def tell(self, event: str, text: str) -> None:
        """Say what happens to the submitter and to whoever watches; one who does not listen is left out."""
        self.phase = event
        self._send(Progress(event=event, text=text[:512], grant=None if self.grant is None else self.grant.id))

    def listen(self, channel: Channel) -> None:
        """Let ``channel`` hear of everything from now on; the job closes it at its end.

        Raises ``Untrusted("agent.connections")`` where too many do.
        """
        with self._lock:
            if len(self._listeners) >= MOST_LISTENERS:
                raise Untrusted("agent.connections", f"{MOST_LISTENERS} connections watch this job already")
            self._listeners.append(channel)

    def end(self, ended: Ended, out: int | None) -> None:
        """Tell everybody how it came out; the submitter also gets the output directory."""
        self._send(ended, () if out is None else (out,), patience=PATIENCE_SECONDS)

    def close(self) -> None:
        """Give all descriptors back, and the connections of those who watched."""
        close_all(self.descriptors)
        for channel in self._listeners:
            channel.close()

    def _send(self, message: Wire, descriptors: tuple[int, ...] = (), *, patience: float = 0.0) -> None:
        """Tell everybody. Nobody can hold the job up: who does not take a message in time misses it, or is left out."""
        with self._lock:
            with contextlib.suppress(OSError):
                self.channel.send(message, descriptors, patience=patience)
            for channel in list(self._listeners):
                try:
                    channel.send(message, patience=0.0)
                except OSError:
                    self._listeners.remove(channel)
                    channel.close()
