"""Hints: telling a connected host at once that something about its jobs changed.

A host holds one request open (``GET /v1/watch``); a revocation wakes it. The hint carries a number and nothing else:
the host renews, and the renewal is denied with the reason. So a hint needs no secrecy and no signature, and losing one
costs no safety: the lease ends anyway.

Numbers belong to this process. After a restart they begin above every earlier one, so that a host that was connected
to the process before is told to renew once.
"""

import asyncio
from collections import Counter, defaultdict

from attestation.errors import Untrusted


class Watch:
    """Versions by node name, which all begin at ``start``.

    ``limit`` bounds the requests that wait, and no address has more than half of them.
    """

    def __init__(self, limit: int, start: int) -> None:
        self._limit, self._start = limit, start
        self._versions: dict[str, int] = {}
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._count = 0
        self._askers: Counter[str] = Counter()

    def version(self, node: str) -> int:
        """The node's number now."""
        return self._versions.get(node, self._start)

    def notify(self, node: str) -> None:
        """Raise the node's number and wake whoever waits for it."""
        self._versions[node] = self.version(node) + 1
        for future in self._waiting.pop(node, ()):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Answer everybody who waits: this process ends."""
        for node in list(self._waiting):
            self.notify(node)

    async def wait(self, node: str, since: int, seconds: float, asker: str = "") -> int:
        """The node's number, as soon as it differs from ``since``, or after ``seconds``.

        Raises ``Untrusted("watch.full")`` where too many wait already, at all or at the address ``asker``.
        """
        if self.version(node) != since:
            return self.version(node)
        if self._count >= self._limit or self._askers[asker] >= max(1, self._limit // 2):
            raise Untrusted("watch.full", f"{self._count} hosts wait already")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[node].add(future)
        self._count += 1
        self._askers[asker] += 1
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            pass
        finally:
            self._count -= 1
            self._askers[asker] -= 1
            self._askers += Counter()  # keeps those above zero
            self._forget(node, future)
        return self.version(node)

    def _forget(self, node: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(node)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiting[node]
