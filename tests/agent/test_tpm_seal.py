"""Sealed secrets on a real TPM 2.0 emulator: opened under a lease, and in no other way."""

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tpm2_pytss import (  # type: ignore[import-untyped]
    ESYS_TR,
    TSS2_Exception,
)

from agent import tpm as device
from agent import tpm_seal, tpm_templates
from agent.devices import Approved, DeviceError
from agent.tpm import EsysTpm
from agent.tpm_seal import unseal
from attestation.keys import ES256, SoftwareSigner
from attestation.tpm.policy import PcrTerm, Terms, approval, holder_auth_policy
from attestation.tpm.sealing import MOST, SEALING_ENTROPY_SIZE, SealedSecret, seal_secret
from attestation.tpm.structures import ALG_SHA256, Public, digest
from fixtures.swtpm import Swtpm, manufacture
from tests.agent.tpms import CA

KEY = SoftwareSigner.generate(ES256)
SECRET = b"the key of the weights, 32 bytes"
PCRS = (0, 7)
SOON = 20_000
"""Milliseconds that a lease lasts here."""


def sealed(tpm: EsysTpm, secret: bytes = SECRET, *, key: SoftwareSigner = KEY) -> SealedSecret:
    policy = holder_auth_policy(key.public, tpm.create_ak().name)
    return seal_secret(Public.from_bytes(tpm.ek_public()), policy, secret, entropy=os.urandom(SEALING_ENTROPY_SIZE))


def terms(tpm: EsysTpm, *, lasting: int = SOON) -> Terms:
    """What a lease of this moment would say."""
    values, clock = tpm.read_pcrs(ALG_SHA256, PCRS), tpm.clock()
    proven = PcrTerm(ALG_SHA256, PCRS, digest(ALG_SHA256, b"".join(values[pcr] for pcr in PCRS)))
    return Terms(clock.clock + lasting, clock.reset_count, clock.restart_count, proven)


def opened(
    tpm: EsysTpm, secret: SealedSecret, allowed: Terms, *, key: SoftwareSigner = KEY, ak: bytes | None = None
) -> bytes:
    """Unseal under `allowed`, signed by `key` for the node with the attestation key `ak`."""
    signature = key.sign(approval(allowed, ak or tpm.create_ak().name))
    return bytes(tpm.unseal([secret], Approved(allowed, signature, key.public))[0])


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048"])
def test_it_opens_under_a_lease_for_each_kind_of_endorsement_key(kind: str, tmp_path: Path) -> None:
    with Swtpm.start(manufacture(CA, tmp_path / kind, (kind,))) as running:
        tpm = EsysTpm(running.tcti, deadline=5)
        for secret in (b"x", SECRET, bytes(range(MOST))):
            assert opened(tpm, sealed(tpm, secret), terms(tpm)) == secret
        tpm.close()


def test_many_open_at_once_and_all_or_none(tpm: EsysTpm) -> None:
    secrets = [sealed(tpm, os.urandom(MOST)) for _ in range(15)]
    allowed = terms(tpm)
    approved = Approved(allowed, KEY.sign(approval(allowed, tpm.create_ak().name)), KEY.public)
    assert len({bytes(each) for each in tpm.unseal(secrets, approved)}) == 15
    with pytest.raises(DeviceError, match=r"tpm\.device\.refused"):
        tpm.unseal([*secrets, changed("duplicate")(secrets[0])], approved)
    assert _loaded(tpm) <= 2


def changed(field: str) -> Callable[[SealedSecret], SealedSecret]:
    """`field` with one bit flipped in its last byte."""

    def change(secret: SealedSecret) -> SealedSecret:
        value = bytearray(getattr(secret, field))
        value[-1] ^= 1
        return replace(secret, **{field: bytes(value)})

    return change


@pytest.mark.parametrize("field", ["public", "duplicate", "seed"])
def test_it_does_not_open_once_it_was_changed(tpm: EsysTpm, field: str) -> None:
    secret = sealed(tpm)
    with pytest.raises(DeviceError, match=r"tpm\.device\.refused"):
        opened(tpm, changed(field)(secret), terms(tpm))
    assert opened(tpm, secret, terms(tpm)) == SECRET


def test_another_tpm_does_not_open_it(tpm: EsysTpm, tmp_path: Path) -> None:
    secret = sealed(tpm)
    with Swtpm.start(manufacture(CA, tmp_path / "other")) as running:
        other = EsysTpm(running.tcti, deadline=5)
        with pytest.raises(DeviceError, match=r"tpm\.device\.refused"):
            opened(other, secret, terms(other))
        other.close()


def test_it_does_not_open_after_the_end_of_the_lease(tpm: EsysTpm) -> None:
    secret = sealed(tpm)
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy.*0x126"):
        opened(tpm, secret, terms(tpm, lasting=0))


@pytest.mark.parametrize("saved", [False, True])
def test_it_does_not_open_after_a_reset(tpm: EsysTpm, swtpm: Swtpm, *, saved: bool) -> None:
    secret, allowed = sealed(tpm), terms(tpm)
    assert opened(tpm, secret, allowed) == SECRET
    tpm.close()
    swtpm.reset(saved=saved)
    again = EsysTpm(swtpm.tcti, deadline=5)
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy.*0x126"):
        opened(again, secret, replace(allowed, until=again.clock().clock + SOON))
    again.close()


def test_it_does_not_open_once_a_pcr_changed(tpm: EsysTpm, swtpm: Swtpm) -> None:
    secret, allowed = sealed(tpm), terms(tpm)
    swtpm.extend(7, bytes(32))
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
        opened(tpm, secret, allowed)
    assert opened(tpm, secret, terms(tpm)) == SECRET


def test_it_does_not_open_under_another_policy_key(tpm: EsysTpm) -> None:
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
        opened(tpm, sealed(tpm), terms(tpm), key=SoftwareSigner.generate(ES256))


def test_it_does_not_open_under_a_lease_of_another_node(tpm: EsysTpm) -> None:
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
        opened(tpm, sealed(tpm), terms(tpm), ak=b"\x00\x0b" + bytes(32))


def test_it_does_not_open_without_any_policy(tpm: EsysTpm) -> None:
    """No userWithAuth: the empty password, which is its authValue, opens nothing."""
    secret = sealed(tpm)

    @contextmanager
    def none() -> Iterator[Any]:
        yield ESYS_TR.PASSWORD

    def work(link: Any) -> list[bytearray]:
        template = tpm_templates.EKS[device._ek_index(link)]
        return unseal(link, template, [secret], parent=lambda: device._ek_session(link, template), lease=none)

    with pytest.raises(DeviceError, match=r"tpm\.device\.refused"):
        tpm._call(work)


def test_nothing_stays_loaded_whatever_happens(tpm: EsysTpm, swtpm: Swtpm) -> None:
    """Three objects and three sessions fit into the TPM: ten openings and ten refusals leave room for all keys."""
    tpm.create_holder()
    secret, allowed = sealed(tpm), terms(tpm)
    late = replace(allowed, until=1)
    for _ in range(10):
        assert opened(tpm, secret, allowed) == SECRET
        for bad, under in ((secret, late), (changed("duplicate")(secret), allowed), (changed("seed")(secret), allowed)):
            with pytest.raises(DeviceError):
                opened(tpm, bad, under)
    tpm.certify_holder(bytes(32))
    assert _loaded(tpm) == 2  # AK and holder key


def _loaded(tpm: EsysTpm) -> int:
    def work(link: Any) -> int:
        transient, sessions = 0x80000000, 0x02000000
        found = [link.esys.get_capability(1, first, 16)[1] for first in (transient, sessions)]
        counts = [int(each.data.handles.count) for each in found]
        assert counts[1] == 0
        return counts[0]

    return tpm._call(work)


def test_the_secret_does_not_cross_the_bus(tpm: EsysTpm, swtpm: Swtpm) -> None:
    """Whoever listens between this machine and its TPM sees the answer encrypted."""
    secret, seen = sealed(tpm), list[bytes]()

    def listening(link: Any) -> None:
        receive = link.tcti.do_receive

        def overheard(*arguments: Any, **options: Any) -> Any:
            answer = receive(*arguments, **options)
            seen.append(bytes(answer))
            return answer

        link.tcti.do_receive = overheard

    tpm._call(listening)
    assert opened(tpm, secret, terms(tpm)) == SECRET
    assert seen
    assert not any(SECRET in answer for answer in seen)


def from_afar(tpm: EsysTpm) -> tuple[bytes, SealedSecret, Approved]:
    """A secret that was never in this process: its digest, as it was sealed, and a lease."""
    ek, policy = tpm.ek_public(), holder_auth_policy(KEY.public, tpm.create_ak().name)
    ours, theirs = os.pipe()
    if os.fork() == 0:
        fresh = os.urandom(MOST)
        made = seal_secret(Public.from_bytes(ek), policy, fresh, entropy=os.urandom(SEALING_ENTROPY_SIZE))
        os.write(theirs, digest(ALG_SHA256, fresh) + made.to_bytes())
        os._exit(0)
    told = os.read(ours, 4096)
    secret, allowed = SealedSecret.from_bytes(told[32:]), terms(tpm)
    return told[:32], secret, Approved(allowed, KEY.sign(approval(allowed, tpm.create_ak().name)), KEY.public)


def test_no_copy_of_an_opened_secret_stays_in_the_process(tpm: EsysTpm) -> None:
    """Nor in the buffers of the TPM library."""
    known, secret, approved = from_afar(tpm)
    (value,) = tpm.unseal([secret], approved)
    assert digest(ALG_SHA256, bytes(value)) == known
    gc.collect()
    (where,) = _copies(value)
    assert where == ctypes.addressof(ctypes.c_char.from_buffer(value))


def test_where_one_does_not_open_the_others_are_overwritten(tpm: EsysTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, take = list[bytearray](), tpm_seal._taken
    _, secret, approved = from_afar(tpm)

    def keep(data: Any) -> bytearray:
        taken.append(take(data))
        return taken[-1]

    monkeypatch.setattr(tpm_seal, "_taken", keep)
    with pytest.raises(DeviceError):
        tpm.unseal([secret, changed("duplicate")(secret)], approved)
    assert taken == [bytearray(MOST)]


def test_secrets_that_come_too_late_are_overwritten(swtpm: Swtpm, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, take, late = list[bytearray](), tpm_seal._taken, threading.Event()
    slow = EsysTpm(swtpm.tcti, deadline=1)
    _, secret, approved = from_afar(slow)

    def keep(data: Any) -> bytearray:
        taken.append(take(data))
        late.wait(5)
        return taken[-1]

    monkeypatch.setattr(tpm_seal, "_taken", keep)
    with pytest.raises(DeviceError, match=r"tpm\.device\.timeout"):
        slow.unseal([secret], approved)
    assert any(taken[0])
    late.set()
    slow.close()
    assert taken == [bytearray(MOST)]


def _copies(value: bytearray) -> list[int]:
    """Where this process's memory holds `value`. Looked for by its halves: what looks must not be found."""
    found, half = list[int](), len(value) // 2
    maps = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    with Path("/proc/self/mem").open("rb", 0) as memory:
        for low, high in (line.split()[0].split("-") for line in maps if line.split()[1][:2] == "rw"):
            memory.seek(int(low, 16))
            page = bytes(memory.read(int(high, 16) - int(low, 16)))
            at = -1
            while (at := page.find(memoryview(value)[half:], at + 1)) >= 0:
                if page[at - half : at] == memoryview(value)[:half]:
                    found.append(int(low, 16) + at - half)
            del page
    return found


def test_a_secret_that_was_not_given_out_is_not_in_the_error(tpm: EsysTpm) -> None:
    with pytest.raises(DeviceError) as refused:
        opened(tpm, sealed(tpm), terms(tpm, lasting=0))
    assert isinstance(refused.value.__cause__, TSS2_Exception)
    assert SECRET.hex() not in str(refused.value)
    assert SECRET.decode() not in str(refused.value)
