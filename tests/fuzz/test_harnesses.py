"""Each harness over its seeds, and over some random changes of them. The long search is ``./dev fuzz``."""

import random

import pytest

from attestation.gpu.collateral import Collateral
from attestation.gpu.record import GpuRecord
from attestation.tpm.boot import kinds, rules, state
from attestation.tpm.eventlog import read_event_log
from tests.fuzz import harnesses, harnesses_tpm
from tests.fuzz.harness import Broken
from tests.fuzz.harnesses import HARNESSES

CHANGES = 150


def changed(rng: random.Random, seed: bytes) -> bytes:
    """One to three bytes flipped, put in or taken out."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(3):
            case 0:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 1:
                del data[at : at + rng.choice((1, 2, 8))]
            case _ if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("name", HARNESSES)
def test_seeds_and_their_neighbours(name: str) -> None:
    harness, rng = HARNESSES[name], random.Random(name)
    seeds = list(harness.seeds())
    assert seeds
    assert max(map(len, seeds)) <= harness.most
    harness.run(b"")
    for seed in seeds:
        harness.run(seed)
    for _ in range(CHANGES):
        harness.run(changed(rng, rng.choice(seeds)))


def test_a_harness_sees_a_reader_that_forgets_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not write back what it was made of is found."""
    seed = next(HARNESSES["record"].seeds())
    monkeypatch.setattr(GpuRecord, "to_bytes", lambda _self: b"")
    with pytest.raises(Broken, match="a record is not what it was made of"):
        harnesses.record(seed)


def test_a_harness_sees_a_log_that_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    (seed, *_) = HARNESSES["eventlog"].seeds()
    read = lambda data, *, ccel: read_event_log(data[:-1] + b"\0", ccel=ccel)  # noqa: E731
    monkeypatch.setattr(harnesses_tpm, "read_event_log", read)
    with pytest.raises(Broken, match="a log is not what it was made of"):
        harnesses_tpm.eventlog(seed[:-1] + b"\1")


def test_a_harness_sees_a_certificate_that_nobody_issued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harnesses_tpm, "_genuine", dict)
    with pytest.raises(Broken, match="nobody issued"):
        run_all("ek-certificate")


def test_a_harness_sees_a_fact_that_nothing_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    version = bytes([0, harnesses_tpm._KINDS.index(kinds.CRTM_VERSION), 0, 1]) + b"version 7"
    harnesses_tpm.boot(version)
    monkeypatch.setattr(state, "confirm", lambda event, _bank: rules.Measured(rules.DATA, event.data))
    with pytest.raises(Broken, match="crtm-version out of nothing"):
        harnesses_tpm.boot(version)


def run_all(name: str) -> None:
    for seed in HARNESSES[name].seeds():
        HARNESSES[name].run(seed)


def test_a_harness_sees_what_nobody_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none of the seeds were genuine, believing one of them is a forgery."""
    monkeypatch.setattr(harnesses, "_genuine_chains", frozenset)
    monkeypatch.setattr(harnesses, "_genuine_rims", tuple)
    for name, what in (("chain", "nobody issued"), ("rim", "nobody signed")):
        with pytest.raises(Broken, match=what):
            run_all(name)


def test_a_harness_sees_an_exception_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_data: bytes) -> Collateral:
        raise KeyError("not declared")

    monkeypatch.setattr(Collateral, "from_bytes", fail)
    with pytest.raises(KeyError):
        harnesses.collateral(b"")
