"""Making a request: from the options of ``interlock run`` to a signed intent.

What is signed are digests of what is there now: the code tree, the environment as the agent measures it, the values of
the environment variables. The agent stages and measures again; a difference is refused.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.tree import CODE, Opener, Work
from attestation.errors import Malformed
from attestation.intent import Children, GpuRequest, Intent, Limits

MOST_RENEWALS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``memory_mb`` in megabytes, ``variables`` NAME to value."""

    argv: tuple[str, ...]
    job: str
    tenant: str
    gpus: int
    gpu_mode: str
    seconds: int
    memory_mb: int
    processes: int
    outputs: tuple[str, ...]
    variables: dict[str, str]
    secrets: tuple[str, ...] = ()


def variables_of(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs, or NAME for this process's own value. Raises ``Malformed("submit.option")``."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            value = os.environ.get(name, "")
        if not name or name in found or "\0" in pair or (not equals and name not in os.environ):
            raise Malformed("submit.option", f"--env-var {name!r} is no NAME=VALUE, not set here, or given twice")
        found[name] = value
    return found


def outputs_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Output paths below the job's output directory, sorted. Raises ``Malformed("submit.option")``."""
    for path in paths:
        parts = Path(path).parts
        if not parts or Path(path).is_absolute() or ".." in parts or "\n" in path:
            raise Malformed("submit.option", f"--output {path!r} must be a path below the output directory")
    return tuple(sorted({str(Path(path)) for path in paths}))


def find_environment(given: Path | None) -> Path:
    """The virtual environment to run in: the one given, else that of the ``python`` on PATH.

    Raises ``Malformed("submit.environment")``.
    """
    if given is None:
        python = shutil.which("python")
        if python is None:
            raise Malformed("submit.environment", "there is no python on PATH")
        given = Path(python).parent.parent
    root = Path(os.path.abspath(given))  # noqa: PTH100 - resolve() would follow links, and the path is what is signed
    if not (root / "pyvenv.cfg").is_file():
        raise Malformed("submit.environment", f"{root} is not a virtual environment")
    return root


def code_digest(descriptor: int) -> bytes:
    """The digest of the code tree below the directory ``descriptor``. Raises ``tree.*``."""
    opener = Opener(descriptor)
    return Work(opener.open).tree(opener.walk(CODE)).digest


def make_intent(options: Options, *, code: bytes, environment: bytes) -> Intent:
    """The intent; raises ``Malformed`` where a value is out of bounds."""
    digests = {name: hashlib.sha256(value.encode()).digest() for name, value in options.variables.items()}
    limits = Limits(
        seconds=options.seconds,
        memory_mb=options.memory_mb,
        processes=options.processes,
        renewals=min(options.seconds, MOST_RENEWALS),  # a lease is renewed every three seconds or more
    )
    intent = Intent(
        job=options.job,
        tenant=options.tenant,
        code=code,
        argv=options.argv,
        environment=environment,
        environment_variables=digests,
        inputs={},
        outputs=options.outputs,
        gpus=GpuRequest(count=options.gpus, mode=options.gpu_mode, memory_mb=0),
        limits=limits,
        secrets=tuple(sorted(set(options.secrets))),
        children=Children(depth=0, count=0),
        nonce=os.urandom(32),
        issued=int(time.time()),
    )
    return Intent.from_bytes(intent.to_bytes())  # the bounds of every field are checked on reading
