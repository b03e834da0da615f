"""What the tests of execution control share: a chain of leases, a small environment, a job under a deadman."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from agent import protocol
from agent.cgroup import find_root
from agent.clock import SECOND, now_ns
from agent.hold import Hold, JobSpec, Limits
from agent.protocol import Event
from agent.stage import make_output
from attestation.cose import ES256, SoftwareSigner
from attestation.lease import FIRST_PREVIOUS, Lease, sign_lease
from attestation.wire import Wire

T = TypeVar("T", bound=Wire)
UID: Final = 40_000 + os.getpid() % 20_000  # of this test run alone: RLIMIT_NPROC counts all of a user's tasks
ROOT: Final = find_root().with_name(f"interlock-test-{os.getpid()}")


@dataclass
class Chain:
    """Leases of one grant, one after another, as the verifier would issue them."""

    cti: bytes = field(default_factory=lambda: os.urandom(16))
    signer: SoftwareSigner = field(default_factory=lambda: SoftwareSigner.generate(ES256))
    hold: int = 900
    last: Lease | None = None

    def lease(self, **changes: object) -> Lease:
        """The next lease, 10 s long, with changes."""
        lease = Lease(
            expires=1_000_010,
            issued=1_000_000,
            grant=self.cti,
            nonce=bytes(32),
            evidence=bytes(32),
            sequence=0 if self.last is None else self.last.sequence + 1,
            duration=10,
            previous=FIRST_PREVIOUS if self.last is None else self.last.digest,
            hold=self.hold,
        )
        return replace(lease, **changes)  # type: ignore[arg-type]  # names and types are the caller's

    def token(self, **changes: object) -> bytes:
        """The next lease, signed; it counts as issued."""
        self.last = self.lease(**changes)
        return sign_lease(self.last, self.signer, ())


def ago(seconds: float) -> int:
    """A time for `asked_at_ns`: with leases of 10 s, `ago(9.8)` leaves 0.2 s."""
    return now_ns() - int(seconds * SECOND)


@dataclass
class Events:
    """Collects what a hold reports, and waits for it."""

    seen: list[Wire] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, event: Event) -> None:
        with self.changed:
            self.seen.append(event)
            self.changed.notify_all()

    def wait(self, kind: type[T], count: int = 1, timeout: float = 10) -> T:
        """The `count`th event of this kind."""

        def there() -> list[T]:
            return [each for each in self.seen if isinstance(each, kind)][count - 1 : count]

        with self.changed:
            assert self.changed.wait_for(there, timeout), f"no {kind.__name__} among {self.seen}"
            return there()[0]


def environment(root: Path) -> Path:
    """A virtual environment over this machine's Python, without anything in it."""
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to("/usr/bin/python3.11")
    (root / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    return root


@dataclass
class Job:
    """A job to be held: Python source for `python -I -S -c`, its leases, its output through a pipe."""

    place: Path
    source: str
    chain: Chain = field(default_factory=Chain)
    events: Events = field(default_factory=Events)
    changes: dict[str, object] = field(default_factory=dict)
    first: bytes = b""
    limits: Limits = field(default_factory=lambda: Limits(seconds=60, memory_mb=512, processes=40, grace_seconds=5))

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        (self.place / "code").mkdir(mode=0o755)
        (self.place / "code" / "train.py").write_text("print('train')\n")
        environment(self.place / "env")
        make_output(self.place / "out", UID, UID)
        self._read, self._write = os.pipe()
        self.null = os.open("/dev/null", os.O_RDWR)

    def spec(self) -> JobSpec:
        spec = JobSpec(
            cti=self.chain.cti,
            argv=("python", "-I", "-S", "-u", "-c", self.source),
            env={},
            uid=UID,
            gid=UID,
            code=self.place / "code",
            environment=self.place / "env",
            out=self.place / "out",
            limits=self.limits,
            hold_seconds=900,
            verifier_key_spki=self.chain.signer.public.spki,
            stdio=(self.null, self._write, 2),
        )
        return replace(spec, **self.changes)  # type: ignore[arg-type]  # names and types are the caller's

    def start(
        self,
        asked_at_ns: int | None = None,
        token: bytes | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Hold:
        """Start it; a lease of 10 s from now where nothing else is said."""
        token = self.chain.token() if token is None else token
        self.hold = Hold.start(self.spec(), token, asked_at_ns or now_ns(), ROOT, on_event or self.events)
        os.close(self._write)
        os.close(self.null)
        self.output = os.fdopen(self._read)
        return self.hold

    def close(self) -> None:
        """Close the descriptors of a job that is not started."""
        for each in (self._read, self._write, self.null):
            os.close(each)

    def renew(self, asked_at_ns: int | None = None, **changes: object) -> None:
        self.hold.renew(self.chain.token(**changes), asked_at_ns or now_ns())

    def run_out(self, left: float = 0.2) -> protocol.Renewed:
        """Once it runs, leave it this many seconds of lease."""
        self.events.wait(protocol.Started)
        count = sum(isinstance(each, protocol.Renewed) for each in self.events.seen)
        self.renew(ago(10 - left))
        return self.events.wait(protocol.Renewed, count + 1)

    def line(self) -> str:
        """The next line that the job prints."""
        return self.output.readline().rstrip("\n")
