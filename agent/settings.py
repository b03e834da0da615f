"""The agent's settings: one TOML file, every key known, every value in bounds.

============== ======== ============================================ =========================================
state          path     enrolment, journal and jobs; mode 0700       /var/lib/interlock-agent
run            path     holds the socket that submitters connect to  /run/interlock
tcti           text     how to reach the TPM (tpm2-tss TCTI string)  device:/dev/tpmrm0
cgroup         text     name of the sub-tree for jobs in cgroup v2   interlock
watch_ms       integer  milliseconds between two local looks         500
jobs           integer  jobs at the same time                        16
event_log      boolean  send the boot event log where it is asked    true
event_log_file path     the firmware's boot event log                binary_bios_measurements of tpm0
ima_file       path     the kernel's binary measurement list         binary_runtime_measurements of ima
tpm_lease      boolean  the TPM enforces leases (set at enrolment)   true
uids, gids     integers who may submit jobs (user, primary or supplementary group); nobody where both are empty
============== ======== ============================================ =========================================

A key that is not in this table is refused: a misspelt setting must not silently mean its default.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from agent.cgroup import SUBTREE
from agent.logs import EVENT_LOG, IMA_LIST, Logs
from attestation.errors import Malformed

DEFAULT_FILE: Final = Path("/etc/interlock/agent.toml")
DEFAULT_SOCKET: Final = Path("/run/interlock/agent.sock")
SOCKET_NAME: Final = "agent.sock"

_BOUNDS: Final = {"watch_ms": (50, 5000), "jobs": (1, 256)}


@dataclass(frozen=True, slots=True)
class Settings:
    """The table above, as values."""

    state: Path = Path("/var/lib/interlock-agent")
    run: Path = Path("/run/interlock")
    tcti: str = "device:/dev/tpmrm0"
    cgroup: str = SUBTREE
    watch_ms: int = 500
    jobs: int = 16
    event_log: bool = True
    event_log_file: Path = EVENT_LOG
    ima_file: Path = IMA_LIST
    tpm_lease: bool = True
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()

    @property
    def logs(self) -> Logs:
        """The logs of this host."""
        return Logs(self.event_log_file if self.event_log else None, self.ima_file)

    @property
    def socket(self) -> Path:
        """Where the agent listens."""
        return self.run / SOCKET_NAME

    @classmethod
    def from_toml(cls, text: str) -> "Settings":
        """Read settings. Raises ``Malformed("settings.*")`` naming the key."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Malformed("settings.syntax", str(error)) from error
        kinds = {each.name: each.type for each in fields(cls)}
        unknown = sorted(table.keys() - kinds.keys())
        if unknown:
            raise Malformed("settings.unknown", f"no setting is called {unknown[0]!r}")
        return cls(**{name: _READ[kinds[name]](name, value) for name, value in table.items()})

    @classmethod
    def load(cls, path: Path) -> "Settings":
        """Read the file at ``path``. Raises ``Malformed`` also where it cannot be read."""
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed("settings.file", f"{path}: {error}") from error


def _wrong(name: str, wanted: str) -> Malformed:
    return Malformed("settings.value", f"{name} must be {wanted}")


def _path(name: str, value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise _wrong(name, "an absolute path")
    return Path(value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or (name == "cgroup" and ("/" in value or value.startswith("."))):
        raise _wrong(name, "a name" if name == "cgroup" else "text")
    return value


def _integer(name: str, value: object) -> int:
    low, high = _BOUNDS[name]
    if type(value) is not int or not low <= value <= high:
        raise _wrong(name, f"an integer in {low}..{high}")
    return value


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def _ids(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(each) is int and 0 < each < 2**32 - 1 for each in value):
        raise _wrong(name, "a list of numeric ids above 0")
    return tuple(value)


_READ: Final[dict[Any, Any]] = {Path: _path, str: _text, int: _integer, bool: _boolean, tuple[int, ...]: _ids}
