"""One harness for each parser of TPM evidence: what any bytes may come to, and what they must never come to.

As with GPU evidence (`harnesses.py`) only `Malformed` and `Untrusted` leave the product. Beside that:

* a log, an entry, a TPM structure, a policy, a record of evidence writes back the bytes that it was read from; an ascii
  entry, written as a binary one, reads as the same
* a log that replays proves the PCRs that it leads to, and the facts of its boot can be told and demanded; whatever the
  data of one event are, no fact rests on bytes that its digest does not cover
* an IMA list that is listed as it stands is accepted whole, and the short way says what the long way says
* an EK certificate is believed only where it is one of the genuine ones; whatever EK is believed can be sent a
  credential

Seeds are genuine evidence, read in place.
"""

import hashlib
import struct
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache

from attestation.errors import InterlockError, Malformed
from attestation.evidence import TpmRecord
from attestation.progress import boot_of
from attestation.tpm.attest import Attest, CertifyInfo, CreationInfo, NvCertifyInfo, QuoteInfo
from attestation.tpm.boot import facts, kinds
from attestation.tpm.boot.check import check_boot
from attestation.tpm.boot.facts import BootState
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.boot.rules import PADDING
from attestation.tpm.boot.state import boot_state
from attestation.tpm.boot.tagged import read_tagged
from attestation.tpm.boot.told import MOST, MOST_TEXT, told
from attestation.tpm.boot.variables import Variable, read_database
from attestation.tpm.credential import make_credential
from attestation.tpm.ekcert import UntrustedEkCertificate, UntrustedNames, trim_der
from attestation.tpm.eventlog import AGILE, Event, EventLog, banks, is_ccel, prove, read_event_log
from attestation.tpm.identity import Ak, Ek, verify_ak, verify_ek
from attestation.tpm.ima.appraise import ImaResult, ImaSubject, appraise_ima
from attestation.tpm.ima.entry import Entry, from_binary
from attestation.tpm.ima.measurements import ImaList, read_ascii, read_binary
from attestation.tpm.ima.policy import CompiledPolicy, ImaPolicy, compile_policy
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import replay as replay_list
from attestation.tpm.issuers import issuers
from attestation.tpm.nv import WORKLOAD, NvPublic
from attestation.tpm.quote import CODES
from attestation.tpm.roles import role_of
from attestation.tpm.structures import ALG_SHA256, Public, Signature
from attestation.tpm.wrapping import ENTROPY_SIZE
from attestation.workload import WorkloadRecord, verify_workload
from fixtures.attester import SoftTpm
from fixtures.ca import TestCa
from fixtures.workload import Jobs
from tests import vectors
from tests.fuzz.harness import REFUSED, Harness, demand
from tools.evidence import chains, presented, quotes
from tools.evidence.believed import demands, listed
from tools.evidence.genuine_tpm import binary, values_of
from tools.evidence.manifest import Evidence, certificates, read_manifest
from tools.evidence.quotes import Part, Unknown

LARGEST_LOG, LARGEST_LIST = 20_000, 16_000
AT = datetime(2026, 6, 1, tzinfo=UTC)


@cache
def evidence() -> Evidence:
    """The directory of genuine evidence."""
    return read_manifest(vectors.path("evidence/tpm"))


# --- boot logs --------------------------------------------------------------------------------------------------------


def eventlog(data: bytes) -> None:
    """A log of either kind: written back, replayed, proven by itself, its facts told and demanded."""
    for ccel in (False, True):
        try:
            log = read_event_log(data, ccel=ccel)
        except Malformed:
            continue
        padding = data[len(data) - log.padding :]
        demand(_log(log) + padding == data, "a log is not what it was made of")
        demand(len(set(padding)) <= 1, "padding of two values")
        for bank in banks(log):
            values = values_of(log, bank)
            proof = prove(log, bank, values)
            demand(proof.pcrs == values.keys() and not proof.unproven, "a log does not prove what it leads to")
            _facts(boot_state(log, bank, proof.pcrs))


def _log(log: EventLog) -> bytes:
    return b"".join(_event(event, agile=log.format == AGILE and event.number > 0) for event in log.events)


def _event(event: Event, *, agile: bool) -> bytes:
    head, data = struct.pack("<II", event.pcr, event.type), struct.pack("<I", len(event.data)) + event.data
    if not agile:
        return head + b"".join(event.digests.values()) + data
    digests = b"".join(struct.pack("<H", alg) + digest for alg, digest in event.digests.items())
    return head + struct.pack("<I", len(event.digests)) + digests + data


def _facts(state: BootState) -> None:
    shown = told(state)
    demand(len(shown) <= MOST + 1, "more facts than claims have room for")
    demand(all(len(text) <= MOST_TEXT and text.isprintable() for text in shown.values()), "a fact that cannot be shown")
    demand(all(fact.pcr in state.proven for fact in state.facts), "a fact of a register that is not proven")
    with suppress(*REFUSED):  # a policy that is too large, or findings that no policy accepts
        check_boot(state, BootPolicy.from_bytes(demands(state).to_bytes()))


TEXTS = frozenset({facts.COMMAND, facts.COMMAND_LINE, facts.LOAD, facts.CRTM, facts.DISK})
"""Facts whose value is text that was measured; of others `raw` is a digest of it, or they are one of few words."""


def boot(data: bytes) -> None:
    """One event in the middle of a boot: register, type, what it measures, and what it says of that."""
    if len(data) < 4:
        return
    pcr, kind, measured = data[0] % 16, _KINDS[data[1] % len(_KINDS)], data[4:]
    turn = 0 if data[2] & 1 else data[3] % (len(measured) + 1)
    said = measured[turn:] + measured[:turn]
    digest = hashlib.sha256(measured).digest()
    event = Event(1, pcr, kind, {ALG_SHA256: digest}, said, 0)
    log = EventLog(AGILE, (ALG_SHA256,), (event,), 0, 0, ())
    state = boot_state(log, ALG_SHA256, range(16))
    _facts(state)
    for fact in state.facts:
        if fact.name in TEXTS:
            demand(_is_in(fact.value, measured), f"{fact.name} out of nothing")
        elif fact.raw:
            parts = (digest, hashlib.sha256(_part(measured, fact.raw)).digest())
            demand(fact.raw in parts, f"{fact.name} out of nothing")
    for read in (Variable.from_bytes, read_database, read_tagged):
        try:
            read(measured)
        except Malformed:
            continue
    try:
        found = Variable.from_bytes(measured)
    except Malformed:
        return
    name = found.name.encode("utf-16-le")
    written = found.vendor + struct.pack("<QQ", len(name) // 2, len(found.value)) + name + found.value
    demand(written == measured, "a variable is not what it was made of")


_KINDS = (*kinds.NAMES, 0, 2, 0x8401)


def _is_in(text: str, measured: bytes) -> bool:
    """Whether these words stand in what was measured, as any of the encodings that texts are measured in."""
    read = (measured.decode("utf-8", "backslashreplace"), measured.decode("utf-16-le", "replace"), measured.hex())
    return any(" ".join(text.split()) in " ".join(shown.split()) for shown in read)


def _part(measured: bytes, raw: bytes) -> bytes:
    """The part of `measured` that hashes to `raw`: certificates and databases are named by that of their bytes."""
    stops = (len(measured), len(measured) - len(PADDING))
    parts = (measured[start:stop] for stop in stops for start in range(max(stop, 0) + 1))
    return next((part for part in parts if hashlib.sha256(part).digest() == raw), measured)


def _logs() -> Iterator[bytes]:
    for entry in evidence().of("eventlogs"):
        data = entry.data.rstrip(b"\xff") + b"\xff" * 8 if entry.data.endswith(b"\xff" * 9) else entry.data
        if 0 < len(data) <= LARGEST_LOG:
            yield data


def _events() -> Iterator[bytes]:
    for data in _logs():
        try:
            log = read_event_log(data, ccel=is_ccel(data))
        except Malformed:
            continue
        for event in log.events:
            if event.type in _KINDS and len(event.data) < 1024:
                yield bytes([event.pcr & 0xFF, _KINDS.index(event.type), 1, 0]) + event.data


# --- lists ------------------------------------------------------------------------------------------------------------


def ima_ascii(data: bytes) -> None:
    """An ascii list: each entry reads as the binary one that says the same; appraised as it is listed."""
    entries = _entries(read_ascii, data)
    for entry in entries:
        try:
            other = from_binary(binary((entry,)))
        except REFUSED:
            demand(len(entry.extra) > 0, "an entry that only one of two forms can have")
            continue
        demand(Entry(*other) == entry, "an entry that says something else in binary")
    _appraised(data, entries)


def ima_binary(data: bytes) -> None:
    """A binary list: each entry writes back the same bytes; appraised as it is listed."""
    entries = _entries(read_binary, data)
    if entries:
        demand(data.startswith(binary(entries)), "an entry is not what it was made of")
        _appraised(data, entries)


def _entries(read: object, data: bytes) -> tuple[Entry, ...]:
    try:
        measured: ImaList = read(data)  # type: ignore[operator]
        entries = tuple(measured.entries())
    except REFUSED:
        return ()
    demand(len(entries) == measured.count, "entries were found that are not read")
    return entries


def _appraised(data: bytes, entries: tuple[Entry, ...]) -> None:
    """With every entry listed, and once more with all that was remembered, by the short way."""
    try:
        policy = compile_policy(ImaPolicy.from_bytes(listed(entries).to_bytes()))
    except Malformed:
        return
    results = [_result(data, entries, policy) for _ in range(2)]
    demand(results[0] == results[1], "another result for the same list")
    first = results[0]
    if isinstance(first, ImaResult) and first.progress:
        demand(first.proven + first.unproven == len(entries), "entries that are neither proven nor unproven")


def _result(data: bytes, entries: tuple[Entry, ...], policy: CompiledPolicy) -> object:
    aggregates = {(entry.algorithm, entry.digest) for entry in entries[:1]}
    try:
        measured = read_binary(data) if b"\0" in data[:4] else read_ascii(data)
        quoted = replay_list(measured, ALG_SHA256)
        subject = ImaSubject(b"boot", ALG_SHA256, quoted, 0, aggregates)
        begun = ImaProgress.begin(boot=b"boot", bank=ALG_SHA256, policy=policy.digest)
        return appraise_ima(data, subject, begun, policy)
    except InterlockError as error:
        return str(error)


def ima_policy(data: bytes) -> None:
    """A policy as it is archived, then compiled."""
    try:
        found = ImaPolicy.from_bytes(data)
    except REFUSED:
        return
    demand(found.to_bytes() == data, "a policy is not what it was made of")
    compiled = compile_policy(found)
    for name in (b"/", b"/tmp/a", b"/tmp/../a", b"boot_aggregate", b"/" + b"a" * 4000, data[:64]):
        demand((name in compiled.content) in (True, False), "a rule that has no answer")


def _ascii() -> Iterator[bytes]:
    yield from (e.data for e in evidence().of("ima") if e.file.endswith("ascii") and len(e.data) <= LARGEST_LIST)


def _binary() -> Iterator[bytes]:
    yield from (entry.data for entry in evidence().of("ima") if entry.file.endswith("binary"))
    for data in _ascii():
        try:
            yield binary(tuple(read_ascii(data).entries()))
        except REFUSED:
            continue


def _policies() -> Iterator[bytes]:
    for data in _ascii():
        try:
            yield listed(read_ascii(data).entries()).to_bytes()
        except REFUSED:
            continue


# --- certificates and structures --------------------------------------------------------------------------------------


@cache
def _genuine() -> dict[bytes, Ek]:
    found = {}
    for image in _images():
        made = chains.verify(evidence(), image)
        if isinstance(made, Ek):
            found[made.certificate] = made
    return found


def ek_certificate(data: bytes) -> None:
    """An NV image: read, its issuers chosen; only what the genuine ones say was ever signed by a manufacturer."""
    try:
        der = trim_der(data)
        demand(data.startswith(der), "a certificate that is not what was read")
        UntrustedNames.from_bytes(der)
        read = UntrustedEkCertificate.from_bytes(der)
        role_of(read)
        above = issuers(der, evidence().authorities)
        public = chains.template(read)
        found = verify_ek(data, public, above, evidence().anchors, at=chains.moment(der))
    except (*REFUSED, KeyError):  # a curve that no template has
        return
    demand(found.certificate in _genuine(), f"a certificate that nobody issued is believed: {found.description}")


def _images() -> Iterator[bytes]:
    for entry in evidence().of("ekcerts"):
        yield from certificates(entry.data) if entry.data[:1] == b"-" else [entry.data]
    yield from (der for der in evidence().authorities[:40] if len(der) < 2048)


def structures(data: bytes) -> None:
    """TPMT_PUBLIC, TPMT_SIGNATURE, TPMS_ATTEST, TPMS_NV_PUBLIC: whatever reads as one writes back the same bytes."""
    for read in (
        Public.from_bytes,
        lambda found: Signature.from_bytes(found, CODES),
        lambda found: Attest.from_bytes(found, QuoteInfo, CODES),
        lambda found: Attest.from_bytes(found, CertifyInfo, CODES),
        lambda found: Attest.from_bytes(found, CreationInfo, CODES),
        lambda found: Attest.from_bytes(found, NvCertifyInfo, CODES),
        NvPublic.from_bytes,
    ):
        try:
            found = read(data)
        except REFUSED:
            continue
        demand(found.to_bytes() == data, f"{type(found).__name__} is not what it was made of")
    with suppress(*REFUSED):
        demand(verify_ak(data).public.to_bytes() == data, "an attestation key is not what it was made of")


def _structures() -> Iterator[bytes]:
    for entry in evidence().of("quotes"):
        try:
            held = quotes.read(entry.data)
        except Unknown:
            continue
        if isinstance(held, Part):
            yield from [held.data] if held.role in ("public", "attest", "signature") else []
            continue
        for found in presented.with_keys(entry, held, evidence()):
            yield from (part for part in (found.attest, found.signature, found.public) if part)
    yield from (_tpm(kind).ek_public() for kind in _EKS)
    yield from (_tpm("p256").ak.to_bytes(), WORKLOAD.to_bytes(), _measured()[1].attest)


_EKS = ("p256", "p384", "rsa2048")
CA = TestCa("fuzz")


@cache
def _tpm(kind: str) -> SoftTpm:
    return SoftTpm(CA, ek=kind)


def credential(data: bytes) -> None:
    """The public area of an endorsement key beside each certificate: what is believed can be sent a credential."""
    for kind in _EKS:
        tpm = _tpm(kind)
        try:
            ek = verify_ek(tpm.certificate, data, CA.intermediates, [CA.anchor], at=AT)
        except REFUSED:
            continue
        demand(ek.public.crypto_key() == tpm.ek.crypto_key(), "another key than the certificate's")
        made = make_credential(ek, verify_ak(tpm.ak.to_bytes()), bytes(32), entropy=bytes(range(ENTROPY_SIZE)))
        demand(len(made.id_object) <= 132 and 64 < len(made.encrypted_secret) <= 512, "a credential that no TPM takes")


def tpm_record(data: bytes) -> None:
    """What a host sends of its TPM."""
    try:
        found = TpmRecord.from_bytes(data)
    except REFUSED:
        return
    demand(found.to_bytes() == data, "a record is not what it was made of")


def _records() -> Iterator[bytes]:
    whole = TpmRecord(
        quote=b"q",
        signature=b"s",
        bank=ALG_SHA256,
        pcrs={0: bytes(32), 7: bytes(32)},
        holder_public=b"h",
        certify=b"c",
        certify_signature=b"s",
        event_log=b"log",
        ima=b"list",
        ima_start=7,
        creation=b"d",
    )
    yield whole.to_bytes()


# --- measured jobs ----------------------------------------------------------------------------------------------------

_QUALIFYING, _BOOT = bytes(32), boot_of(1, 0)


@cache
def _measured() -> tuple[Ak, WorkloadRecord]:
    """A host that has let three jobs start, and what it shows."""
    tpm = SoftTpm(CA)
    jobs = Jobs(tpm)
    for number in range(3):
        jobs.ensure(bytes([number]) * 16, bytes(32), bytes(32))
    record = jobs.record(_QUALIFYING)
    if record is None:
        raise LookupError("nothing was measured")
    return verify_ak(tpm.create_ak().public), record


def workload(data: bytes) -> None:
    """A record of measured jobs: whatever is believed says what the TPM has signed, and lists what was measured."""
    ak, genuine = _measured()
    with suppress(*REFUSED):
        record = WorkloadRecord.from_bytes(data)
        demand(record.to_bytes() == data, "a record of jobs is not what it was made of")
        found = verify_workload(record, ak=ak, qualifying=_QUALIFYING, boot=_BOOT, proven=None, granted=None)
        demand(record.attest == genuine.attest, "a forged certification is believed")
        demand((record.start, record.entries) == (0, genuine.entries), "other jobs are believed than were measured")
        demand(found.count == 3, "a job is counted that was not measured")


TPM_HARNESSES = {
    name: Harness(name, run, seeds, most)
    for name, run, seeds, most in (
        ("eventlog", eventlog, _logs, LARGEST_LOG),
        ("boot", boot, _events, 1028),
        ("ima-ascii", ima_ascii, _ascii, LARGEST_LIST),
        ("ima-binary", ima_binary, _binary, LARGEST_LIST),
        ("ima-policy", ima_policy, _policies, LARGEST_LIST),
        ("ek-certificate", ek_certificate, _images, 4096),
        ("structures", structures, _structures, 1024),
        ("credential", credential, lambda: (_tpm(kind).ek_public() for kind in _EKS), 512),
        ("tpm-record", tpm_record, _records, 4096),
        ("workload", workload, lambda: iter([_measured()[1].to_bytes()]), 2048),
    )
}
"""Every harness by its name."""
