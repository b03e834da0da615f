"""tpm2_checkquote (tpm2-tools) beside our own checks: it accepts each quote that we accept, and refuses what we refuse.

The tool knows no enrolment, no policy and no order of time: it checks the signature, the nonce, the PCR values. Where
it looks at less than we do, the test says so: before version 5.7 it takes a structure whose magic says that no TPM made
it (CVE-2024-29038), and one whose signed selection is another one than that of the values (CVE-2024-29039).
"""

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.tpm import EsysTpm
from attestation.errors import InterlockError
from attestation.tpm.attest import Attest, PcrSelection, QuoteInfo
from attestation.tpm.identity import RSASSA_SHA256, verify_ak
from attestation.tpm.quote import CODES, verify_quote
from attestation.tpm.structures import (
    ALG_RSA,
    ALG_SHA256,
    ALG_SHA384,
    HASHES,
    ST_CERTIFY,
    Public,
    RsaParameters,
    Symmetric,
    check_key,
    digest,
    sized,
)
from fixtures.attester import SoftTpm, public_of
from fixtures.ca import TestCa
from fixtures.swtpm import Swtpm, manufacture
from tests import vectors
from tools.evidence import presented, quotes
from tools.evidence.manifest import DEFAULT, Entry, read_manifest

TOOL = shutil.which("tpm2_checkquote")
pytestmark = pytest.mark.skipif(TOOL is None, reason="tpm2_checkquote is not installed (Debian: tpm2-tools)")

CA = TestCa()
NONCE = bytes(range(32))
PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14)
CAPTURES = sorted((Path(__file__).parents[1] / "fixtures/captured").glob("*.json"))


@dataclass(frozen=True)
class Quoted:
    """A quote and everything that the tool wants beside it."""

    attest: bytes
    signature: bytes
    key: bytes
    """PEM."""
    nonce: bytes
    bank: int
    values: Mapping[int, bytes] = field(default_factory=dict)
    hash: int = ALG_SHA256


def pem(key: object) -> bytes:
    return check_key(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def pcr_file(bank: int, values: Mapping[int, bytes]) -> bytes:
    """tpm2-tools' serialised PCR file: TPML_PCR_SELECTION and as many TPML_DIGEST of eight as it takes."""
    bitmap = sum(1 << pcr for pcr in values).to_bytes(4, "little")
    head = struct.pack("<I", 1) + struct.pack("<HB4sx", bank, 3, bitmap) + bytes(15 * 8)
    ordered = [values[pcr] for pcr in sorted(values)]
    lists = [ordered[start : start + 8] for start in range(0, len(ordered), 8)]
    body = b"".join(
        struct.pack("<I", len(some))
        + b"".join(struct.pack("<H64s", len(value), value) for value in some)
        + bytes((8 - len(some)) * 66)
        for some in lists
    )
    return head + struct.pack("<I", len(lists)) + body


def accepted(quoted: Quoted, folder: Path) -> bool:
    """What tpm2_checkquote says."""
    files = {"key": quoted.key, "message": quoted.attest, "signature": quoted.signature}
    if quoted.values:
        files["pcr"] = pcr_file(quoted.bank, quoted.values)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    arguments = ["-u", "key", "-m", "message", "-s", "signature", "-g", HASHES[quoted.hash]]
    arguments += ["-q", quoted.nonce.hex()] if quoted.nonce else []
    arguments += ["-f", "pcr", "-F", "serialized"] if quoted.values else []
    done = subprocess.run(
        [str(TOOL), *arguments], cwd=folder, capture_output=True, check=False, timeout=20, env={"TSS2_LOG": "all+NONE"}
    )
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.returncode == 0


@cache
def version() -> tuple[int, ...]:
    told = subprocess.run([str(TOOL), "-v"], capture_output=True, check=True, timeout=20).stdout.decode()
    found = re.search(r'version="(\d+)\.(\d+)', told)
    assert found is not None, told
    return int(found[1]), int(found[2])


# --- quotes that we accept -------------------------------------------------------------------------------------------


def soft(bank: int = ALG_SHA256, *, kind: str = "ecc") -> tuple[Quoted, SoftTpm]:
    """A quote of the stand-in, accepted by `verify_quote`."""
    tpm = SoftTpm(CA)
    if kind == "rsa":
        tpm.ak_key = rsa.generate_private_key(65537, 2048)
        shell = RsaParameters(Symmetric(), RSASSA_SHA256, 2048, 0, b"")
        tpm.ak = public_of(tpm.ak_key, replace(tpm.ak, type=ALG_RSA, parameters=shell))
    for pcr in PCRS:
        tpm.extend(pcr, bytes([pcr]) * (32 if bank == ALG_SHA256 else 48), bank)
    made = tpm.quote(NONCE, bank, PCRS)
    values = {pcr: tpm.pcrs[bank][pcr] for pcr in PCRS}
    checked(tpm.ak.to_bytes(), made.attest, made.signature, bank, values, NONCE)
    return Quoted(made.attest, made.signature, pem(tpm.ak.crypto_key()), NONCE, bank, values), tpm


def checked(
    public: bytes, attest: bytes, signature: bytes, bank: int, values: Mapping[int, bytes], nonce: bytes
) -> None:
    pcrs = sorted(values)
    verify_quote(attest, signature, ak=verify_ak(public), qualifying=nonce, bank=bank, pcrs=pcrs, values=values)


@pytest.mark.parametrize("bank", [ALG_SHA256, ALG_SHA384])
@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_it_accepts_quotes_of_the_stand_in(kind: str, bank: int, tmp_path: Path) -> None:
    assert accepted(soft(bank, kind=kind)[0], tmp_path)


@pytest.mark.parametrize("bank", [ALG_SHA256, ALG_SHA384])
def test_it_accepts_quotes_of_swtpm(bank: int, tmp_path: Path) -> None:
    with Swtpm.start(manufacture(CA, tmp_path / "state")) as running:
        tpm = EsysTpm(running.tcti, deadline=5)
        public, made = tpm.create_ak().public, tpm.quote(NONCE, bank, PCRS)
        values = dict(tpm.read_pcrs(bank, PCRS))
        tpm.close()
    checked(public, made.attest, made.signature, bank, values, NONCE)
    key = pem(Public.from_bytes(public).crypto_key())
    assert accepted(Quoted(made.attest, made.signature, key, NONCE, bank, values), tmp_path)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("bank", [ALG_SHA256, ALG_SHA384])
def test_it_accepts_quotes_of_the_captured_machines(capture: Path, bank: int, tmp_path: Path) -> None:
    shown = json.loads(capture.read_text())
    part, public, nonce = shown[HASHES[bank]], bytes.fromhex(shown["ak"])[2:], bytes.fromhex(shown["nonce"])
    attest, signature = bytes.fromhex(part["attest"]), bytes.fromhex(part["sig"])
    values = {int(pcr): bytes.fromhex(value) for pcr, value in part["pcrs"].items()}
    checked(public, attest, signature, bank, values, nonce)
    key = pem(Public.from_bytes(public).crypto_key())
    assert accepted(Quoted(attest, signature, key, nonce, bank, values), tmp_path)


def recorded() -> list[tuple[str, quotes.Found]]:
    """Every quote in the evidence of others that verifies by the key beside it."""
    if not DEFAULT.exists():
        return []
    evidence, found = read_manifest(DEFAULT), []
    for entry in evidence.of("quotes"):
        held = quotes.read(entry.data)
        each = held if isinstance(held, list) else _apart(entry, held)
        found += [(f"{entry.file} {one.name}", one) for one in each]
    return found


def _apart(entry: Entry, part: quotes.Part) -> list[quotes.Found]:
    """The quote whose attestation lies in this file, and its other parts in files beside it."""
    if part.role != "attest":
        return []
    gathered: dict[str, list[bytes]] = {"attest": [part.data]}
    for path in entry.path.parent.iterdir():
        other = quotes.read(path.read_bytes())
        if isinstance(other, quotes.Part) and other.role != "attest":
            gathered.setdefault(other.role, []).append(other.data)
    return quotes.together(gathered)


def told(found: quotes.Found) -> Quoted | None:
    """The quote as the tool wants it; None where we do not accept it ourselves, or nobody recorded its key."""
    keys = [found.key] if found.key else [Public.from_bytes(found.public).crypto_key()] if found.public else []
    folder = DEFAULT / "quotes"
    keys += [quotes.key_of(quotes.Part("key", path.read_bytes())) for path in sorted(folder.glob("*.pem"))]
    for key in keys:
        try:
            parsed = presented.verify_recorded(replace(found, key=key, public=b""))
        except InterlockError:
            continue
        return Quoted(found.attest, found.signature, pem(key), parsed.extra_data, found.bank, found.values)
    return None


RECORDED = dict(recorded())


@pytest.mark.parametrize("name", RECORDED)
def test_it_agrees_about_quotes_of_others(name: str, tmp_path: Path) -> None:
    quoted = told(RECORDED[name])
    if quoted is None:
        pytest.skip("not accepted by us, or without its key")
    assert accepted(quoted, tmp_path)
    changed = replace(quoted, signature=flipped(quoted.signature))
    assert not accepted(changed, tmp_path)


def test_most_quotes_of_others_are_among_them() -> None:
    vectors.path("evidence/tpm/quotes")
    assert sum(told(found) is not None for found in RECORDED.values()) >= 9


# --- quotes that we refuse -------------------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def resigned(quoted: Quoted, tpm: SoftTpm, **changes: object) -> Quoted:
    """What the TPM's key signs although no TPM would: other magic, type or body."""
    body = Attest.from_bytes(quoted.attest, QuoteInfo, CODES).info.to_bytes()
    made = tpm.signed(**({"extra": NONCE, "body": body} | changes))  # type: ignore[arg-type]
    return replace(quoted, attest=made.attest, signature=made.signature)


def others_selection(quoted: Quoted, tpm: SoftTpm) -> Quoted:
    """The signed selection names other PCRs than those whose values hash to the digest."""
    values = b"".join(quoted.values[pcr] for pcr in sorted(quoted.values))
    info = QuoteInfo((PcrSelection.of(quoted.bank, (0, 1)),), digest(ALG_SHA256, values))
    return resigned(quoted, tpm, body=info.to_bytes())


REFUSED: dict[str, tuple[Callable[[Quoted, SoftTpm], Quoted], str, tuple[int, int]]] = {
    "signature": (lambda q, _: replace(q, signature=flipped(q.signature)), "tpm.quote.signature", (0, 0)),
    "message": (lambda q, _: replace(q, attest=flipped(q.attest)), "tpm.quote.signature", (0, 0)),
    "another key": (
        lambda q, _: replace(q, key=pem(ec.generate_private_key(ec.SECP256R1()).public_key())),
        "tpm.quote.signature",
        (0, 0),
    ),
    "nonce": (lambda q, _: replace(q, nonce=flipped(q.nonce)), "tpm.quote.nonce", (0, 0)),
    "a nonce that goes on": (lambda q, _: replace(q, nonce=q.nonce + b"\0"), "tpm.quote.nonce", (0, 0)),
    "the start of the nonce": (lambda q, _: replace(q, nonce=q.nonce[:-1]), "tpm.quote.nonce", (0, 0)),
    "a PCR value": (
        lambda q, _: replace(q, values={**q.values, 14: flipped(q.values[14])}),
        "tpm.pcr.digest",
        (0, 0),
    ),
    "magic": (lambda q, tpm: resigned(q, tpm, magic=0xFF544348), "tpm.quote.magic", (5, 7)),
    "type": (lambda q, tpm: resigned(q, tpm, kind=ST_CERTIFY), "tpm.quote.type", (0, 0)),
    "selection": (others_selection, "tpm.pcr.selection", (5, 7)),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_it_refuses_what_we_refuse(name: str, kind: str, tmp_path: Path) -> None:
    spoil, reason, since = REFUSED[name]
    honest, tpm = soft(kind=kind)
    bad = spoil(honest, tpm)
    ak = tpm.ak
    if name == "another key":
        ak = soft(kind=kind)[1].ak
    with pytest.raises(InterlockError) as refusal:
        checked(ak.to_bytes(), bad.attest, bad.signature, bad.bank, bad.values, bad.nonce)
    assert refusal.value.reason == reason
    if version() >= since:
        assert not accepted(bad, tmp_path)


def test_files_are_read_as_they_are_written() -> None:
    values = {pcr: bytes([pcr]) * 32 for pcr in PCRS}
    part = quotes.read(pcr_file(ALG_SHA256, values))
    assert isinstance(part, quotes.Part)
    (found,) = quotes.together({"attest": [b"a"], "signature": [b"s"], "pcrs": [part.data]})
    assert (found.bank, found.values) == (ALG_SHA256, values)
    assert sized(b"x") == b"\0\1x"
