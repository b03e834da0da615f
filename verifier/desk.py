"""One administration command at work: its arguments, taken with their types, and the way to make a change."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from attestation.errors import Malformed
from attestation.log import Record
from verifier.changes import Change, PutBlob, Unit
from verifier.health import Health
from verifier.state import Logged, Verifier


@dataclass(frozen=True)
class Desk:
    """One command at work: the verifier, its health, and the arguments, each taken with its type."""

    verifier: Verifier
    health: Health
    arguments: Mapping[str, Any]

    def text(self, name: str, default: str | None = None) -> str:
        """A text argument. Raises ``Malformed("admin.argument")`` where it is missing or of another type."""
        return str(self._take(name, str, default))

    def flag(self, name: str) -> bool:
        """A yes or no argument, no by default."""
        return bool(self._take(name, bool, default=False))

    def number(self, name: str, default: int) -> int:
        """A whole number that is not negative."""
        value = int(self._take(name, int, default))
        if value < 0:
            raise Malformed("admin.argument", f"{name} cannot be negative")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, sorted, without repetition."""
        values = self._take(name, list, [])
        if not all(isinstance(value, str) for value in values):
            raise Malformed("admin.argument", f"{name} is a list of texts")
        return tuple(sorted(set(values)))

    def names(self, name: str) -> tuple[str, ...]:
        """A list of texts, in the order that they were given in."""
        self.texts(name)
        return tuple(self._take(name, list, []))

    def tables(self, name: str) -> list[dict[str, Any]]:
        """A list of objects."""
        values = list(self._take(name, list, []))
        if not all(isinstance(value, dict) for value in values):
            raise Malformed("admin.argument", f"{name} is a list of objects")
        return values

    def hex(self, name: str) -> bytes:
        """Bytes, as hexadecimal text."""
        try:
            return bytes.fromhex(self.text(name))
        except ValueError as error:
            raise Malformed("admin.argument", f"{name} is not hexadecimal") from error

    def base64(self, name: str) -> bytes:
        """Bytes, as base64 text."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except ValueError as error:
            raise Malformed("admin.argument", f"{name} is not base64") from error

    async def change(self, outcome: str, detail: str, *changes: Change, node: str | None = None) -> Logged:
        """Make ``changes`` and record them: an ``admin`` record that names every document that was put."""
        digests = {
            f"document{number}": change.digest
            for number, change in enumerate(c for c in changes if isinstance(c, PutBlob))
        }
        record = Record(
            kind="admin",
            time=self.verifier.clock.now(),
            outcome=outcome,
            digests=digests,
            node=node,
            detail=detail[:4096],
        )
        (logged,) = await self.verifier.commit(Unit(changes, (record,)))
        return logged

    def _take(self, name: str, kind: type[Any], default: Any = None) -> Any:
        value = self.arguments.get(name, default)
        if type(value) is not kind:
            raise Malformed("admin.argument", f"{name} must be {kind.__name__}")
        return value

    def notify(self, *, node: str | None = None) -> None:
        """Tell the node, or every node with a live job, to renew now."""
        jobs = self.verifier.store.jobs(node=node, live=True)
        for name in {job.node for job in jobs}:
            self.verifier.watch.notify(name)


Command: TypeAlias = Callable[[Desk], Awaitable[Any]]
