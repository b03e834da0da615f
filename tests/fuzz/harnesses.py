"""One harness for each parser of GPU evidence: what any bytes may come to, and what they must never come to.

(Those of TPM evidence: `harnesses_tpm.py`.)

A harness is called with bytes that nobody has signed. Everywhere: only `Malformed` and `Untrusted` leave the product,
nothing else. Beside that each demands what its format allows to demand:

* what has a writer writes back the same bytes (record, collateral, policy; a report, put together from its parts; a
  chain, as PEM of what was read; opaque data of the classic container, from its fields);
* what is signed is accepted only where it *says* exactly what a genuine seed says (chain, RIM, OCSP, CRL): a fuzzer has
  no key, so anything else that is believed is a forgery;
* the whole appraisal raises nothing at all.

Seeds are genuine evidence, read in place, and what the mock devices of the fixtures make. ``./dev fuzz`` runs the
harnesses under atheris; ``test_harnesses.py`` runs each over its seeds and some changes of them in every test run.
"""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import InterlockError, Malformed
from attestation.evidence import Cmw
from attestation.gpu.appraise import appraise_gpus, wanted_collateral
from attestation.gpu.backend import GpuSubject
from attestation.gpu.collateral import Collateral
from attestation.gpu.device import read_chain, verify_device
from attestation.gpu.dice import COMPOSITE, TCB_INFO, read_dice, read_name
from attestation.gpu.opaque import CLASSIC, GPU, SWITCH, Opaque
from attestation.gpu.path import read_certificate
from attestation.gpu.policy import GpuPolicy
from attestation.gpu.record import GPU_TYPE, SWITCH_TYPE, GpuRecord
from attestation.gpu.report import MAX_REPORT, Report
from attestation.gpu.revocation import MISSING, check_revocation
from attestation.gpu.rim import Rim, read_rim, unsafe_verify_rim_undated
from fixtures.gpu.host import MockHost
from tests import vectors
from tests.fuzz.harness import REFUSED, Harness, demand
from tests.fuzz.harnesses_tpm import TPM_HARNESSES
from tools.evidence import verdict
from tools.evidence.case import Case, Roots, read_cases, read_roots
from tools.evidence.observe import Seen
from tools.evidence.ocsp import Answer, answers
from tools.evidence.rims import moment

# --- genuine evidence ------------------------------------------------------------------------------------------------


@cache
def folder() -> Path:
    """Where the genuine evidence is."""
    return vectors.path("evidence/gpu")


@cache
def roots() -> Roots:
    """NVIDIA's."""
    return read_roots(folder())


@cache
def cases() -> tuple[Case, ...]:
    """All of them, the refused ones too."""
    return tuple(read_cases(folder()))


def subjects() -> Iterator[tuple[str, bytes, bytes]]:
    """Kind, report and chain of every device."""
    for case in cases():
        for subject in case.subjects:
            yield subject.kind, subject.report or b"", subject.chain or b""


@cache
def mock() -> MockHost:
    """Two mock GPUs and two switches."""
    return MockHost.new(gpus=2, switches=2)


# --- report and opaque data ------------------------------------------------------------------------------------------


def report(data: bytes) -> None:
    """SPDM request and response, of either kind of device."""
    for kind in (GPU, SWITCH):
        try:
            found = Report.from_bytes(data, kind=kind)
        except Malformed:
            continue
        record = b"".join(bytes([b.index, 1, 51, 0, b.type, 48, 0]) + b.value for b in found.blocks)
        opaque = _classic(found.opaque) if found.opaque.container == CLASSIC else data[79 + len(record) : -96]
        written = b"".join(
            (
                bytes.fromhex("11e001ff") + found.nonce + b"\0" + bytes.fromhex("11600000"),
                bytes([len(found.blocks)]) + len(record).to_bytes(3, "little") + record,
                found.responder_nonce + len(opaque).to_bytes(2, "little") + opaque + found.signature,
            )
        )
        demand(written == data, f"a {kind} report is not what it was made of")
        demand(found.signed + found.signature == data, "what is signed is not what was read")


def opaque(data: bytes) -> None:
    """Opaque data by itself, in both containers and of both kinds."""
    for kind in (GPU, SWITCH):
        try:
            found = Opaque.from_bytes(data, kind=kind)
        except Malformed:
            continue
        if found.container == CLASSIC:
            demand(_classic(found) == data, "classic opaque data is not what it was made of")
        else:
            demand(
                12 + sum(6 + len(v) for v in found.fields.values()) == len(data), "bytes of a container were not read"
            )


def _classic(found: Opaque) -> bytes:
    fields = found.fields.items()
    return b"".join(n.to_bytes(2, "little") + len(v).to_bytes(2, "little") + v for n, v in fields)


def _reports() -> Iterator[bytes]:
    yield from (data for _, data, _ in subjects())
    yield from (device.report(bytes(32)) for device in mock().devices)


def _opaques() -> Iterator[bytes]:
    for data in _reports():
        at = 79 + int.from_bytes(data[42:45], "little")
        yield data[at:-96]
    yield (folder() / "parsed" / "nvdaod_opaque.bin").read_bytes()


# --- chain and DICE --------------------------------------------------------------------------------------------------


@cache
def _genuine_chains() -> frozenset[tuple[bytes, ...]]:
    found = set()
    for _, _, pem in subjects():
        try:
            found.add(verify_device(pem, roots().device, at=datetime.now(UTC)).certificates)
        except REFUSED:
            continue
    return frozenset(found)


def chain(data: bytes) -> None:
    """PEM text, then everything that is made of it; only what the seeds have is ever signed by NVIDIA."""
    try:
        read = read_chain(data)
    except Malformed:
        return
    text = b"".join(b"-----BEGIN CERTIFICATE-----\n" + _lines(der) + b"\n-----END CERTIFICATE-----\n" for der in read)
    demand(text.strip() == data.replace(b"\r\n", b"\n").strip(), "PEM text is not what it was made of")
    try:
        device = verify_device(data, roots().device, at=datetime.now(UTC))
    except REFUSED:
        return
    demand(device.certificates in _genuine_chains(), f"a chain that nobody issued is believed: {device.identity}")


def _lines(der: bytes) -> bytes:
    text = b64encode(der)
    return b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))


@cache
def _leaf() -> x509.Certificate:
    (pem,) = [chain for kind, _, chain in subjects() if kind == SWITCH][:1]
    return x509.load_der_x509_certificate(read_chain(pem)[0])


def dice(data: bytes) -> None:
    """The extensions of a leaf: the name, and both generations of DICE, each with these bytes as its value."""
    leaf = read_certificate(_leaf().public_bytes(Encoding.DER))
    for oid in (COMPOSITE, TCB_INFO):
        extension = x509.Extension(oid, critical=False, value=x509.UnrecognizedExtension(oid, data))
        try:
            found = read_dice(replace(leaf, extensions=x509.Extensions([extension])))
        except REFUSED:
            continue
        demand(len(found.fwid) == 48 and found.fwid in data, "a firmware id that is not in the extension")
        demand((found.device is None) == (oid == TCB_INFO), "a device key where none can be, or none")
    name = x509.SubjectAlternativeName([x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1"), data or b"\0")])
    names = x509.Extensions([x509.Extension(name.oid, critical=False, value=name)])
    try:
        san, chip = read_name(replace(leaf, extensions=names))
    except REFUSED:
        return
    demand(san.encode() in data and san.startswith(f"NVIDIA:{chip}:"), "a name that is not in the extension")


def certificate(data: bytes) -> None:
    """One DER certificate."""
    try:
        found = read_certificate(data)
    except REFUSED:
        return
    demand(found.parsed.public_bytes(Encoding.DER) == data, "a certificate is not what it was made of")
    demand(found.shown and found.common_name is not None, "a certificate that cannot be shown")


def _chains() -> Iterator[bytes]:
    yield from (pem for _, _, pem in subjects())
    yield from (device.chain for device in mock().devices)


def _certificates() -> Iterator[bytes]:
    for pem in _chains():
        yield from read_chain(pem)


def _extensions() -> Iterator[bytes]:
    for pem in _chains():
        for extension in x509.load_der_x509_certificate(read_chain(pem)[0]).extensions:
            if isinstance(extension.value, x509.UnrecognizedExtension):
                yield extension.value.value
            elif isinstance(extension.value, x509.SubjectAlternativeName):
                yield from (name.value for name in extension.value if isinstance(name, x509.OtherName))


# --- RIM -------------------------------------------------------------------------------------------------------------


def _said(rim: Rim) -> Rim:
    return replace(rim, sha256=b"")


@cache
def _genuine_rims() -> tuple[Rim, ...]:
    found = []
    for data in _rims():
        try:
            found.append(_said(unsafe_verify_rim_undated(data, roots().rim)))
        except REFUSED:
            continue
    return tuple(found)


def rim(data: bytes) -> None:
    """A document, read with nothing believed, then verified; only what a seed says is ever signed by NVIDIA."""
    with suppress(*REFUSED):
        read_rim(data)
    try:
        found = unsafe_verify_rim_undated(data, roots().rim)
    except REFUSED:
        return
    demand(_said(found) in _genuine_rims(), f"a RIM that nobody signed is believed: {found.tag_id}")


def _rims() -> Iterator[bytes]:
    for case in cases():
        yield from case.rims.values()
    for path in sorted((folder() / "rim-unit").iterdir()):
        yield path.read_bytes()
    yield from mock().rims().values()


# --- revocation ------------------------------------------------------------------------------------------------------


@cache
def _answers() -> tuple[Answer, ...]:
    found: list[Answer] = []
    for case in cases():
        seen = [Seen(subject, roots(), moment(case)[0]) for subject in case.subjects]
        found += answers(case, seen, roots())[0] if case.responses else []
    return tuple(found)


def ocsp(data: bytes) -> None:
    """A response about each certificate that a recorded one is about."""
    for answer in _answers():
        middle = answer.start + (answer.end - answer.start) / 2
        found = check_revocation(answer.certificate, answer.issuer, responses=[data], crls=[], at=middle)
        if found.status != MISSING:
            known = check_revocation(answer.certificate, answer.issuer, responses=[answer.data], crls=[], at=middle)
            demand(found == known, f"an answer that nobody gave is believed: {found}")


AT = datetime(2026, 6, 1, tzinfo=UTC)


@cache
def _lists() -> tuple[tuple[bytes, ...], tuple[tuple[bytes, bytes], ...]]:
    """The mock's lists, one with an entry, and its certificates with their issuers."""
    host = mock()
    pairs = tuple((below.der, above.der) for below, above in host.authorities().values())
    host.set_status(pairs[0][0], "revoked")
    return host.crls(at=AT - timedelta(hours=1)), pairs


def crl(data: bytes) -> None:
    """A revocation list for each certificate of a mock host."""
    genuine, pairs = _lists()
    for below, issuer in pairs:
        found = check_revocation(below, issuer, responses=[], crls=[data], at=AT)
        if found.status != MISSING:
            known = check_revocation(below, issuer, responses=[], crls=genuine, at=AT)
            demand(found == known, f"a list that nobody signed is believed: {found}")


# --- what the services exchange --------------------------------------------------------------------------------------


def record(data: bytes) -> None:
    """The record of a device, what is fetched for it, and its whole appraisal, which raise nothing."""
    try:
        found = GpuRecord.from_bytes(data)
    except Malformed:
        pass
    else:
        demand(found.to_bytes() == data, "a record is not what it was made of")
    records = [("gpu0", Cmw(GPU_TYPE, data)), ("switch0", Cmw(SWITCH_TYPE, data))]
    wanted_collateral(records)
    result = appraise_gpus(records, _subject())
    failed = [name for name, submod in result.submods.items() if not submod.failures]
    demand(failed == [], f"devices that signed another nonce are accepted: {failed}")


@cache
def _subject() -> GpuSubject:
    case = next(case for case in cases() if case.rims)
    at = moment(case)[0]
    seen = [Seen(subject, roots(), at) for subject in case.subjects]
    return GpuSubject(
        nonce=bytes(32),
        at=int(at.timestamp()),
        pool=verdict.POOL,
        count=1,
        mode="none",
        policy=verdict.policy(roots(), seen, fwid=False, rims=False),
        collateral=Collateral(rims={}, responses=(), crls=()),
    )


def collateral(data: bytes) -> None:
    """A verifier's collateral."""
    try:
        found = Collateral.from_bytes(data)
    except Malformed:
        return
    demand(found.to_bytes() == data, "collateral is not what it was made of")


def policy(data: bytes) -> None:
    """A GPU policy as it is archived."""
    try:
        found = GpuPolicy.from_bytes(data)
    except InterlockError:
        return
    demand(found.to_bytes() == data, "a policy is not what it was made of")


def _records() -> Iterator[bytes]:
    for _, data, pem in subjects():
        yield GpuRecord(report=data, chain=pem).to_bytes()


def _collaterals() -> Iterator[bytes]:
    for case in cases():
        yield Collateral(rims=dict(case.rims), responses=tuple(sorted(case.responses.values())), crls=()).to_bytes()
    host = mock()
    yield Collateral(rims=host.rims(), responses=host.responses(at=AT), crls=host.crls(at=AT)).to_bytes()


def _policies() -> Iterator[bytes]:
    subject = _subject()
    if subject.policy is not None:
        yield subject.policy.to_bytes()


HARNESSES = TPM_HARNESSES | {
    name: Harness(name, run, seeds, most)
    for name, run, seeds, most in (
        ("report", report, _reports, MAX_REPORT + 64),
        ("opaque", opaque, _opaques, 4096),
        ("chain", chain, _chains, 16 * 1024 + 64),
        ("certificate", certificate, _certificates, 4096),
        ("dice", dice, _extensions, 1024),
        ("rim", rim, _rims, 32 * 1024),
        ("ocsp", ocsp, lambda: (a.data for a in _answers()), 4096),
        ("crl", crl, lambda: iter(_lists()[0]), 4096),
        ("record", record, _records, 16 * 1024),
        ("collateral", collateral, _collaterals, 1 << 20),
        ("policy", policy, _policies, 8192),
    )
}
"""Every harness by its name."""
