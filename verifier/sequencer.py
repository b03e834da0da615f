"""The sequencer: the one thread that writes, for all requests that wait, in groups.

A caller hands over a :class:`verifier.changes.Unit` and gets a future. The thread takes every unit that waits, up to a
bound, commits them as one transaction with one signed checkpoint and one sync of the disk, and then completes their
futures. While the disk syncs the next group gathers, so a group is as large as the load is high.

It fails closed:

* the queue is bounded: beyond it :meth:`Sequencer.submit` raises ``log.overloaded``;
* where a commit fails (disk full, I/O error, the signer), each unit of the group fails with ``log.unavailable`` and
  nothing is accepted until a probe has written to the disk again;
* an error that nobody expected ends the thread: all that waits fails, and nothing is accepted any more.

A log begins with a genesis record, because a tree of one entry has no receipt (:func:`attestation.log.make_receipt`).
"""

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeAlias

from attestation.keys import Signer
from attestation.log import Record, sign_checkpoint
from verifier.changes import Unit
from verifier.store import Appended, Conflict, Store, Unavailable

Result: TypeAlias = "Future[tuple[Appended, ...]]"
_Waiting: TypeAlias = tuple[Unit, Result]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many units may wait, how many are committed as one group, how long to wait between probes."""

    waiting: int = 16384
    group: int = 2048
    probe_seconds: float = 1.0


class Sequencer:
    """Commits units to a store in groups; see the module. Close it before the store."""

    def __init__(
        self, store: Store, signer: Signer, origin: str, *, genesis: Record, limits: Limits | None = None
    ) -> None:
        """Start the thread; ``signer`` is the log's key. ``genesis`` is appended where the log has not begun."""
        self._store = store
        self._signer, self._origin = signer, origin
        self._limits = limits or Limits()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._trouble: Unavailable | None = None
        self._closed = False
        if store.head().size == 0:
            store.commit([Unit(records=(genesis,))], self._seal)
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> Unavailable | None:
        """Why nothing is accepted now, or ``None`` while all is well."""
        return self._trouble

    def submit(self, unit: Unit) -> Result:
        """Hand over a unit. The future gives its records once they are durable, or raises why it did not happen.

        Raises ``Unavailable`` at once: ``log.overloaded`` where too many units wait, ``log.unavailable`` where the
        store failed and no probe has succeeded since. The future may raise :class:`verifier.store.Conflict`.
        """
        result: Result = Future()
        with self._lock:
            if self._trouble is not None:
                raise Unavailable(self._trouble.reason, self._trouble.detail)
            if self._queue.qsize() >= self._limits.waiting:
                raise Unavailable("log.overloaded", f"{self._limits.waiting} requests wait")
            self._queue.put((unit, result))
        return result

    def append(self, unit: Unit, seconds: float | None = None) -> tuple[Appended, ...]:
        """:meth:`submit`, and wait for the outcome; ``TimeoutError`` after so many seconds."""
        return self.submit(unit).result(seconds)

    def close(self) -> None:
        """Commit what waits, and end the thread. Nothing is accepted any more."""
        with self._lock:
            self._closed = True
            self._trouble = self._trouble or Unavailable("log.unavailable", "the log is closed")
            self._queue.put(None)
        self._thread.join()

    def _seal(self, size: int, root: bytes) -> bytes:
        return sign_checkpoint(self._signer, self._origin, size, root)

    def _run(self) -> None:
        try:
            while group := self._take():
                self._commit(group)
        finally:
            self._refuse([], self._trouble or Unavailable("log.unavailable", "the log has ended"))

    def _take(self) -> list[_Waiting]:
        """All that waits, up to a group; nothing once the sequencer is closed. Probes while the store is in trouble."""
        group: list[_Waiting] = []
        while (item := self._next(wait=not group)) is not None:
            group.append(item)
            if len(group) >= self._limits.group:
                break
        return group

    def _next(self, *, wait: bool) -> _Waiting | None:
        """The next unit; ``None`` at the end, or where nothing waits and none shall be waited for."""
        while True:
            try:
                item = self._queue.get(wait, None if self._trouble is None else self._limits.probe_seconds)
            except Empty:
                if not wait:
                    return None
                self._probe()
            else:
                if item is None:
                    self._queue.put(None)  # the end stays the end
                return item

    def _commit(self, group: list[_Waiting]) -> None:
        """Commit a group and complete its futures; a unit that its caller has cancelled does not happen."""
        group = [(unit, result) for unit, result in group if result.set_running_or_notify_cancel()]
        try:
            outcomes = self._store.commit([unit for unit, _ in group], self._seal)
        except Unavailable as error:
            self._refuse(group, error)
        except BaseException as error:
            self._refuse(group, Unavailable("log.unavailable", str(error)))
            raise
        else:
            for (_, result), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Conflict):
                    result.set_exception(outcome)
                else:
                    result.set_result(outcome)

    def _refuse(self, group: list[_Waiting], error: Unavailable) -> None:
        """Accept nothing any more, and fail this group and all that waits."""
        with self._lock:
            self._trouble = error
            while not self._queue.empty():
                item = self._queue.get_nowait()
                if item is None:
                    self._queue.put(None)
                    break
                if item[1].set_running_or_notify_cancel():
                    group.append(item)
        for _, result in group:
            result.set_exception(Unavailable(error.reason, error.detail))

    def _probe(self) -> None:
        """Accept again if the disk can be written."""
        try:
            self._store.probe()
        except Unavailable as error:
            self._trouble = error
            return
        with self._lock:
            if not self._closed:
                self._trouble = None
