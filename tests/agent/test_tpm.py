"""The agent's TPM against swtpm: what it makes is believed by the verifier's side, and every fault fails closed."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.devices import DeviceError, DeviceTimeout, Tpm
from agent.tpm import EsysTpm
from attestation import cose
from attestation.errors import Untrusted
from attestation.tpm.clock import ClockInfo, Continuity, check_clock
from attestation.tpm.credential import make_credential, verify_secret
from attestation.tpm.identity import Ak, Ek, verify_ak, verify_ek, verify_holder
from attestation.tpm.quote import verify_quote
from attestation.tpm.structures import ALG_SHA1, ALG_SHA256, ALG_SHA384
from fixtures.attester import SoftTpm
from fixtures.swtpm import Swtpm, manufacture
from fixtures.tpm_signer import TpmSigner
from tests.agent.tpms import CA

AT = datetime(2026, 11, 22, tzinfo=UTC)
NONCE = bytes(range(32))
PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 14)
SECRET = bytes(range(32))


def ek_of(tpm: Tpm) -> Ek:
    return verify_ek(tpm.ek_certificate(), tpm.ek_public(), tpm.ek_chain(), [CA.anchor], at=AT)


def ak_of(tpm: Tpm) -> Ak:
    made = tpm.create_ak()
    ak = verify_ak(made.public)
    assert ak.name == made.name
    return ak


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "soft"])
def test_a_tpm_enrols(kind: str, tmp_path: Path) -> None:
    """EK chain, credential activation, holder key, quote: the verifier's side believes all of it."""
    if kind == "soft":
        enrols(SoftTpm(CA))
        return
    with Swtpm.start(manufacture(CA, tmp_path / kind, (kind,))) as running:
        device = EsysTpm(running.tcti, deadline=5)
        enrols(device)
        device.close()


def enrols(tpm: Tpm) -> None:
    ek, ak = ek_of(tpm), ak_of(tpm)
    made = make_credential(ek, ak, SECRET, entropy=os.urandom(56))
    verify_secret(tpm.activate_credential(made.id_object, made.encrypted_secret), SECRET)
    holder = tpm.create_holder()
    believed = verify_holder(holder.public, *tpm.certify_holder(NONCE), holder.creation, ak=ak)
    signer: cose.Signer = TpmSigner(tpm, holder.public)
    believed.key.verify(b"evidence", signer.sign(b"evidence"))
    assert signer.public == believed.key
    values = tpm.read_pcrs(ALG_SHA256, PCRS)
    quote = verify_quote(
        *tpm.quote(NONCE, ALG_SHA256, PCRS), ak=ak, qualifying=NONCE, bank=ALG_SHA256, pcrs=PCRS, values=values
    )
    assert tpm.clock().clock >= quote.clock.clock


def test_the_sha384_bank_is_quoted_and_read(tpm: EsysTpm) -> None:
    values = tpm.read_pcrs(ALG_SHA384, (0, 7))
    quote = verify_quote(
        *tpm.quote(NONCE, ALG_SHA384, (0, 7)),
        ak=ak_of(tpm),
        qualifying=NONCE,
        bank=ALG_SHA384,
        pcrs=(0, 7),
        values=values,
    )
    assert {len(value) for value in quote.pcrs.values()} == {48}


def test_a_bank_that_does_not_exist_is_an_error_and_not_no_pcrs(tpm: EsysTpm) -> None:
    with pytest.raises(DeviceError) as failure:
        tpm.read_pcrs(0x12, (0,))
    assert failure.value.reason == "tpm.device.refused"


def test_a_bank_that_is_not_allocated_is_an_error_and_not_no_pcrs(tpm: EsysTpm, swtpm: Swtpm) -> None:
    tpm.create_ak()
    swtpm.proxy.answers.append(bytes(12))  # update counter, no selection, no digests
    with pytest.raises(DeviceError) as failure:
        tpm.read_pcrs(ALG_SHA1, (0,))
    assert failure.value.reason == "tpm.device.refused"


def test_row_19_a_credential_for_another_ak_does_not_open(tpm: EsysTpm) -> None:
    made = make_credential(ek_of(tpm), ak_of(SoftTpm(CA)), SECRET, entropy=os.urandom(56))
    with pytest.raises(DeviceError) as failure:
        tpm.activate_credential(made.id_object, made.encrypted_secret)
    assert failure.value.reason == "tpm.device.refused"


def test_row_20_a_credential_for_another_ek_does_not_open(tpm: EsysTpm) -> None:
    made = make_credential(ek_of(SoftTpm(CA)), ak_of(tpm), SECRET, entropy=os.urandom(56))
    with pytest.raises(DeviceError) as failure:
        tpm.activate_credential(made.id_object, made.encrypted_secret)
    assert failure.value.reason == "tpm.device.refused"


def test_the_ak_is_the_same_after_a_reboot_and_the_holder_key_comes_back_from_its_blob(
    tpm: EsysTpm, swtpm: Swtpm
) -> None:
    ak, holder, before = tpm.create_ak(), tpm.create_holder(), tpm.clock()
    swtpm.reset()
    again = EsysTpm(swtpm.tcti, deadline=5)
    assert again.create_ak() == ak
    assert again.load_holder(holder.blob) == holder
    assert again.create_holder().public != holder.public
    assert check_clock(again.clock(), before) is Continuity.NEW_BOOT
    again.close()


def test_a_power_failure_is_a_new_boot(tpm: EsysTpm, swtpm: Swtpm) -> None:
    before = tpm.clock()
    swtpm.reset(orderly=False)
    again = EsysTpm(swtpm.tcti, deadline=5)
    after = again.clock()
    assert (after.safe, check_clock(after, before)) == (False, Continuity.NEW_BOOT)
    again.close()


def test_clearing_the_tpm_destroys_the_holder_key_and_shows_in_the_counters(tpm: EsysTpm, swtpm: Swtpm) -> None:
    swtpm.reset()
    holder, before = tpm_after_reset(swtpm)
    swtpm.clear()
    again = EsysTpm(swtpm.tcti, deadline=5)
    assert again.load_holder(holder).public != before[1]
    with pytest.raises(Untrusted) as refusal:
        check_clock(again.clock(), before[0])
    assert refusal.value.reason in {"tpm.clock.reset", "tpm.clock.backwards"}
    again.close()


def tpm_after_reset(swtpm: Swtpm) -> tuple[bytes, tuple[ClockInfo, bytes]]:
    device = EsysTpm(swtpm.tcti, deadline=5)
    made, clock = device.create_holder(), device.clock()
    device.close()
    return made.blob, (clock, made.public)


def test_somebody_else_extends_a_pcr_while_the_agent_holds_the_tpm(tpm: EsysTpm, swtpm: Swtpm) -> None:
    ak = ak_of(tpm)
    before = tpm.read_pcrs(ALG_SHA256, PCRS)
    swtpm.extend(14, b"\x11" * 32)
    quoted = tpm.quote(NONCE, ALG_SHA256, PCRS)
    after = tpm.read_pcrs(ALG_SHA256, PCRS)
    assert after == {**before, 14: hashlib.sha256(bytes(32) + b"\x11" * 32).digest()}
    verify_quote(*quoted, ak=ak, qualifying=NONCE, bank=ALG_SHA256, pcrs=PCRS, values=after)
    with pytest.raises(Untrusted) as refusal:
        verify_quote(*quoted, ak=ak, qualifying=NONCE, bank=ALG_SHA256, pcrs=PCRS, values=before)
    assert refusal.value.reason == "tpm.pcr.digest"


def test_nothing_is_left_in_the_tpm_after_five_hundred_quotes(tpm: EsysTpm, swtpm: Swtpm) -> None:
    tpm.create_holder()
    ek_of(tpm)
    made = make_credential(ek_of(tpm), ak_of(tpm), SECRET, entropy=os.urandom(56))
    for _ in range(20):
        tpm.activate_credential(made.id_object, made.encrypted_secret)
    loaded = swtpm.proxy.loaded()
    assert len(loaded) == 2  # AK and holder key
    for _ in range(500):
        tpm.quote(NONCE, ALG_SHA256, PCRS)
    assert swtpm.proxy.loaded() == loaded
    tpm.create_holder()
    assert len(swtpm.proxy.loaded()) == 2
    tpm.close()
    assert swtpm.proxy.loaded() == []


def test_calls_from_many_threads_are_served_one_after_another(tpm: EsysTpm) -> None:
    ak, values = ak_of(tpm), tpm.read_pcrs(ALG_SHA256, PCRS)

    def ask(number: int) -> None:
        nonce = number.to_bytes(32, "big")
        quoted = tpm.quote(nonce, ALG_SHA256, PCRS)
        verify_quote(*quoted, ak=ak, qualifying=nonce, bank=ALG_SHA256, pcrs=PCRS, values=values)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(64)))


# faults

CALLS: dict[str, Callable[[Tpm], object]] = {
    "ek_certificate": lambda tpm: tpm.ek_certificate(),
    "ek_chain": lambda tpm: tpm.ek_chain(),
    "ek_public": lambda tpm: tpm.ek_public(),
    "create_holder": lambda tpm: tpm.create_holder(),
    "certify_holder": lambda tpm: tpm.certify_holder(NONCE),
    "quote": lambda tpm: tpm.quote(NONCE, ALG_SHA256, PCRS),
    "read_pcrs": lambda tpm: tpm.read_pcrs(ALG_SHA256, PCRS),
    "sign_as_holder": lambda tpm: tpm.sign_as_holder(NONCE),
    "clock": lambda tpm: tpm.clock(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_hung_tpm_is_given_up_and_used_again_when_it_answers(name: str, swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=0.15)
    holder = tpm.create_holder()
    swtpm.hang()
    start = time.monotonic()
    with pytest.raises(DeviceTimeout) as failure:
        CALLS[name](tpm)
    assert failure.value.reason == "tpm.device.timeout"
    assert time.monotonic() - start < 1
    swtpm.resume()
    patient = EsysTpm(swtpm.tcti, deadline=5)
    patient.load_holder(holder.blob)
    CALLS[name](patient)
    patient.close()
    tpm.close()


def test_a_call_that_waits_behind_a_hung_one_times_out_too(swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=0.3)
    tpm.create_ak()
    swtpm.hang()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(tpm.clock) for _ in range(4)]
        assert all(isinstance(call.exception(), DeviceTimeout) for call in waiting)
    swtpm.resume()
    tpm.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_broken_connection_is_an_error_once_and_then_made_anew(name: str, swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    ak, holder = tpm.create_ak(), tpm.create_holder()
    swtpm.drop()
    with pytest.raises(DeviceError) as failure:
        CALLS[name](tpm)
    assert failure.value.reason == "tpm.device.io"
    tpm.load_holder(holder.blob)
    CALLS[name](tpm)
    assert tpm.create_ak() == ak
    tpm.close()


@pytest.mark.parametrize("answered", range(12))
def test_a_connection_that_breaks_in_the_middle_of_an_activation(answered: int, swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    made = make_credential(ek_of(tpm), ak_of(tpm), SECRET, entropy=os.urandom(56))
    swtpm.proxy.answers.extend([*[0] * answered, None])
    try:
        assert tpm.activate_credential(made.id_object, made.encrypted_secret) == SECRET
    except DeviceError as failure:
        assert failure.reason == "tpm.device.io"  # noqa: PT017 - how many commands there are is not the point
    swtpm.proxy.answers.clear()
    assert tpm.activate_credential(made.id_object, made.encrypted_secret) == SECRET
    tpm.close()


def test_a_tpm_that_died_stays_an_error(swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    tpm.create_ak()
    swtpm.kill()
    for _ in range(2):
        with pytest.raises(DeviceError) as failure:
            tpm.quote(NONCE, ALG_SHA256, PCRS)
        assert failure.value.reason == "tpm.device.io"
    tpm.close()


def test_a_busy_tpm_is_asked_again(swtpm: Swtpm) -> None:
    """TPM_RC_RETRY, which ESYS itself resends a few times without delay, and NV_RATE, which it does not."""
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    tpm.create_ak()
    swtpm.proxy.answers.extend([0x922] * 12 + [0x920, 0x923])
    assert len(tpm.read_pcrs(ALG_SHA256, PCRS)) == len(PCRS)
    assert swtpm.proxy.answers == []
    tpm.close()


def test_a_tpm_that_stays_busy_is_given_up_within_the_deadline(swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=0.3)
    tpm.create_ak()
    swtpm.proxy.answers.extend([0x920] * 1000)
    with pytest.raises(DeviceError) as failure:
        tpm.read_pcrs(ALG_SHA256, PCRS)
    assert failure.value.reason in {"tpm.device.refused", "tpm.device.timeout"}
    swtpm.proxy.answers.clear()
    tpm.close()


def test_lockout_is_an_error_at_once(swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    tpm.create_ak()
    swtpm.proxy.answers.append(0x921)
    with pytest.raises(DeviceError) as failure:
        tpm.quote(NONCE, ALG_SHA256, PCRS)
    assert (failure.value.reason, "0x921" in failure.value.detail) == ("tpm.device.refused", True)
    assert swtpm.proxy.answers == []
    tpm.close()


def test_a_nv_error_while_looking_for_the_certificate_is_not_taken_for_its_absence(swtpm: Swtpm) -> None:
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    swtpm.proxy.answers.append(0x101)  # TPM_RC_FAILURE
    with pytest.raises(DeviceError) as failure:
        tpm.ek_certificate()
    assert failure.value.reason == "tpm.device.refused"
    tpm.close()


def test_a_tpm_without_ek_certificate() -> None:
    with Swtpm.start() as blank:
        tpm = EsysTpm(blank.tcti, deadline=5)
        with pytest.raises(DeviceError) as failure:
            tpm.ek_certificate()
        assert failure.value.reason == "tpm.device.no-ek-certificate"
        assert tpm.ek_chain() == ()
        tpm.close()


@pytest.mark.parametrize("call", ["certify_holder", "sign_as_holder"])
def test_without_holder_key_nothing_is_signed(call: str, tpm: EsysTpm) -> None:
    with pytest.raises(DeviceError) as failure:
        CALLS[call](tpm)
    assert failure.value.reason == "tpm.device.refused"


def test_a_closed_tpm_answers_nothing(tpm: EsysTpm) -> None:
    tpm.create_ak()
    tpm.close()
    tpm.close()
    with pytest.raises(DeviceError) as failure:
        tpm.clock()
    assert failure.value.reason == "tpm.device.closed"


@pytest.mark.parametrize(
    "tcti", ["", "unix:", "unix:/nonexistent", "device:/nonexistent", "device:/etc/hostname", "swtpm:port=1"]
)
def test_a_tpm_that_cannot_be_opened(tcti: str) -> None:
    tpm = EsysTpm(tcti, deadline=5)
    with pytest.raises(DeviceError) as failure:
        tpm.create_ak()
    assert failure.value.reason == "tpm.device.open"
    tpm.close()


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_character_device_that_is_no_tpm(device: str) -> None:
    tpm = EsysTpm(f"device:{device}", deadline=0.2)
    with pytest.raises(DeviceError) as failure:
        tpm.create_ak()
    assert failure.value.reason in {"tpm.device.io", "tpm.device.timeout"}
    tpm.close()


def test_debians_own_tool_agrees_on_a_quote(tpm: EsysTpm, tmp_path: Path) -> None:
    """tpm2_checkquote of tpm2-tools verifies the same bytes that verify_quote does, and refuses another nonce."""
    quoted, ak = tpm.quote(NONCE, ALG_SHA256, PCRS), ak_of(tpm)
    (tmp_path / "ak.pem").write_bytes(ak.public.key.to_pem())
    (tmp_path / "attest").write_bytes(quoted.attest)
    (tmp_path / "signature").write_bytes(quoted.signature)

    def checkquote(nonce: bytes) -> int:
        command = ["tpm2_checkquote", "-u", "ak.pem", "-m", "attest", "-s", "signature", "-g", "sha256"]
        return subprocess.run([*command, "-q", nonce.hex()], cwd=tmp_path, capture_output=True).returncode

    assert checkquote(NONCE) == 0
    assert checkquote(bytes(32)) != 0


def test_the_tpm_costs_the_agent_little_memory(swtpm: Swtpm) -> None:
    """An agent with TPM and without torch: below 64 MiB."""
    program = (
        "import pathlib, sys; from agent.tpm import EsysTpm; tpm = EsysTpm(sys.argv[1]);"
        f"[tpm.quote(bytes(32), {ALG_SHA256}, (0, 7)) for _ in range(100)]; tpm.close();"
        "assert 'torch' not in sys.modules;"
        "print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    root = Path(__file__).resolve().parents[2]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", program, swtpm.tcti], cwd=root, capture_output=True, text=True, env=bare
    )
    assert done.stderr == ""
    assert int(done.stdout) < 64 * 1024


def test_the_owner_thread_ends_with_the_tpm(swtpm: Swtpm) -> None:
    before = {thread.name for thread in threading.enumerate()}
    tpm = EsysTpm(swtpm.tcti, deadline=5)
    tpm.create_ak()
    tpm.close()
    assert not [name for name in {thread.name for thread in threading.enumerate()} - before if name.startswith("tpm_")]
