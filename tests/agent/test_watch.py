"""Looking between two quotes: what is found halts, dated no later than it can have happened."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from typing_extensions import override

from agent import watch
from agent.clock import SECOND, now_ns
from agent.devices import DeviceError
from agent.host import Pcrs
from agent.watch import Watch, pcr_look, suspend_look
from attestation.errors import InterlockError, Untrusted
from attestation.grant import Conditions
from attestation.tpm.structures import ALG_SHA256
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA

CONDITIONS = Conditions(bank=ALG_SHA256, pcrs={0: bytes(32), 4: bytes(32)})


class Halts:
    """Waits for the halt that a watch orders."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def __call__(self, error: InterlockError, cause_ns: int) -> None:
        self.error, self.cause_ns, self.at_ns = error, cause_ns, now_ns()
        self.done.set()


@pytest.fixture
def watching() -> Iterator[Callable[..., Halts]]:
    made: list[Watch] = []

    def start(*looks: watch.Look, seconds: float = 0.02) -> Halts:
        halts = Halts()
        new = Watch(looks, seconds, halts)
        made.append(new)
        new.start()
        return halts

    yield start
    for each in made:
        each.stop()
        each._thread.join(5)
        assert not each._thread.is_alive()


def test_a_changed_pcr_is_drift(watching: Callable[..., Halts]) -> None:
    tpm = SoftTpm(CA)
    halts = watching(pcr_look(Pcrs(tpm), CONDITIONS))
    assert not halts.done.wait(0.1)
    changed_ns = now_ns()
    tpm.extend(4, bytes(32))
    assert halts.done.wait(5)
    assert halts.error.reason == "drift.pcr"
    assert "PCR 4" in halts.error.detail
    assert halts.cause_ns <= changed_ns + SECOND // 5, "values may be as old as what other jobs were shown"


def test_the_measurement_list_grows_and_that_is_no_drift(watching: Callable[..., Halts]) -> None:
    tpm = SoftTpm(CA)
    halts = watching(pcr_look(Pcrs(tpm), Conditions(bank=ALG_SHA256, pcrs={0: bytes(32), 10: bytes(32)})))
    tpm.extend(10, bytes(32))
    assert not halts.done.wait(0.2)
    tpm.extend(0, bytes(32))
    assert halts.done.wait(5)


def test_a_pcr_that_cannot_be_read_any_more_is_no_drift(watching: Callable[..., Halts]) -> None:
    tpm = SoftTpm(CA)
    tpm.closed = True
    assert not watching(pcr_look(Pcrs(tpm), CONDITIONS)).done.wait(0.1)


def test_a_value_that_is_missing_is_drift() -> None:
    class Empty:
        def read(self, _conditions: Conditions, _since_ns: int) -> dict[int, bytes]:
            return {}

    with pytest.raises(Untrusted) as refused:
        pcr_look(Empty(), CONDITIONS)()  # type: ignore[arg-type]  # a TPM that answers with nothing
    assert refused.value.reason == "drift.pcr"


def test_many_jobs_share_one_reading() -> None:
    class Counting(SoftTpm):
        count = 0

        @override
        def read_pcrs(self, bank: int, pcrs: object) -> dict[int, bytes]:
            self.count += 1
            return dict.fromkeys((0, 4), bytes(32))

    tpm = Counting(CA)
    pcrs = Pcrs(tpm)
    begun = now_ns()
    for _ in range(10):
        pcrs.read(CONDITIONS, begun - SECOND)
    assert tpm.count == 1
    pcrs.read(CONDITIONS, now_ns())
    assert tpm.count == 2, "what was read before the grant says nothing about now"


def test_a_host_that_slept_is_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    look = suspend_look()
    look()
    monkeypatch.setattr("agent.watch.now_ns", lambda: now_ns() + 3 * SECOND)
    with pytest.raises(Untrusted) as refused:
        look()
    assert refused.value.reason == "drift.suspend"


def test_the_cause_is_dated_to_the_last_clean_look(watching: Callable[..., Halts]) -> None:
    broken = threading.Event()
    clean: list[int] = []

    def look() -> None:
        if broken.is_set():
            raise Untrusted("drift.code", "x")
        clean.append(now_ns())

    halts = watching(look)
    assert not halts.done.wait(0.1)
    broken.set()
    assert halts.done.wait(5)
    assert clean[-1] - SECOND // 100 <= halts.cause_ns <= clean[-1]


def test_nothing_is_ordered_after_the_end(watching: Callable[..., Halts]) -> None:
    inside, go = threading.Event(), threading.Event()

    def look() -> None:
        inside.set()
        go.wait(5)
        raise Untrusted("drift.code", "x")

    halts = Halts()
    made = Watch((look,), 0.01, halts)
    made.start()
    assert inside.wait(5)
    made.stop()
    go.set()
    made._thread.join(5)
    assert not halts.done.is_set()


def test_a_costly_look_is_made_less_often(watching: Callable[..., Halts]) -> None:
    counts = [0, 0]

    def costly() -> None:
        counts[0] += 1
        end = time.thread_time_ns() + SECOND // 50
        while time.thread_time_ns() < end:
            pass

    def cheap() -> None:
        counts[1] += 1

    assert not watching(costly, cheap).done.wait(0.5)
    assert counts[0] == 1
    assert counts[1] >= 5


def test_a_look_that_fails_otherwise_is_our_own_fault() -> None:
    def look() -> None:
        raise DeviceError("tpm.device.io", "x")

    with pytest.raises(DeviceError):
        watch._Paced(look, 0, 0).make(1)
