"""The verifier's own settings: one TOML file in its directory, read once at start. No name in it is optional by typo.

The directory of a verifier::

    settings.toml   this file
    keys/           private keys, certificate, root.pem (see verifier.keys)
    store.sqlite    everything that must survive: nodes, jobs, challenges, archive, log
    admin.sock      while the service runs: where the administration commands go (owner only)
    lock            held by the one process that has the store open

What decides about jobs is not here: policies, reference values and trust anchors are loaded into the store with
``interlock-verifier policy load`` and ``refs``, each change with its record in the log.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from attestation.errors import Malformed

FILE = "settings.toml"
_MAX_FILE = 65536
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """``url`` is what hosts are told to connect to; ``bind`` and ``port`` where the service listens.

    ``open_challenges`` bounds the challenges that one node may have unanswered, ``watchers`` the hosts that may wait
    for hints at the same time, ``requests_per_second`` what one address may send without naming a known node.
    """

    directory: Path
    issuer: str
    origin: str
    url: str
    bind: str
    port: int
    open_challenges: int = 64
    watchers: int = 2048
    requests_per_second: int = 200

    def with_(self, changes: Mapping[str, Any]) -> "ServiceSettings":
        """These settings with some of them changed."""
        return replace(self, **changes)

    @property
    def store(self) -> Path:
        """The SQLite file."""
        return self.directory / "store.sqlite"

    @property
    def keys(self) -> Path:
        """The directory of the keys."""
        return self.directory / "keys"

    @property
    def admin_socket(self) -> Path:
        """Where a running service takes administration commands."""
        return self.directory / "admin.sock"

    @property
    def lock(self) -> Path:
        """The file whose lock the process holds that has the store open."""
        return self.directory / "lock"


def read_settings(directory: Path) -> ServiceSettings:
    """Read ``settings.toml``. Raises ``Malformed("service.*")`` with the name that is missing, unknown or wrong."""
    path = directory / FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Malformed("service.file", f"{path}: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise Malformed("service.file", f"{path} is larger than {_MAX_FILE} bytes")
    try:
        values = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed("service.syntax", f"{path}: {error}") from error
    return _checked(directory, values)


def write_settings(settings: ServiceSettings) -> None:
    """Write a new ``settings.toml``. ``FileExistsError`` if there is one."""
    lines = ["# Interlock verifier: where it listens and what it is called. See docs/operating.md.", ""]
    lines += [f"{name} = {_toml(getattr(settings, name))}" for name in _names()]
    with (settings.directory / FILE).open("x", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _names() -> list[str]:
    return [f.name for f in fields(ServiceSettings) if f.name != "directory"]


def _checked(directory: Path, values: dict[str, Any]) -> ServiceSettings:
    unknown = sorted(values.keys() - set(_names()))
    if unknown:
        raise Malformed("service.name", f"unknown: {', '.join(unknown)}")
    for f in fields(ServiceSettings):
        if f.name in values and type(values[f.name]) is not f.type:
            raise Malformed("service.value", f"{f.name} must be {getattr(f.type, '__name__', f.type)}")
        if f.name == "port" and not 0 <= values.get("port", 0) <= 65535:  # TCP
            raise Malformed("service.value", f"port {values['port']} is none")
    try:
        settings = ServiceSettings(directory=directory, **values)
    except TypeError as error:
        raise Malformed("service.name", str(error).partition(" ")[2]) from error
    if not _NAME.fullmatch(settings.issuer) or not _NAME.fullmatch(settings.origin):
        raise Malformed("service.value", "issuer and origin are names without spaces, plus or control characters")
    return settings


def _toml(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
