"""Which jobs a host has run since it was started, in which order: what its TPM says, not what the host says.

Before a job's first instruction the agent extends a digest of grant, code and environment, as it measured them, into an
NV index of the TPM that can only be extended and is empty after every reset (:data:`attestation.tpm.nv.WORKLOAD`). With
each quote it has the index certified. `verify_workload` is the numbered list below; the comments in its body are the
same list. Source: TCG TPM 2.0 Library, Part 2, 10.12.8 and 13.5, Part 3, 31.10 and 31.16, rev 1.59.

 (1) nothing is shown only where nothing was to be shown: before the first job of a boot, and never in a renewal
                                                                                  tpm.workload.absent
 (2) the index's public area parses; it is the index, by number, hash, size, and nothing but the owner's authorisation
                                                                                  tpm.nv.*, tpm.workload.index
 (3) its attributes are exactly those of an index that is only extended, emptied by every reset, and written
                                                                                  tpm.workload.attributes
 (4) the certification parses with nothing left over, is made by a TPM, and of an NV index
                                                                tpm.attest.*, tpm.workload.magic, tpm.workload.type
 (5) it is signed by the attestation key, with its scheme       tpm.signature.*, tpm.workload.scheme, .signature
 (6) qualifiedSigner is the Qualified Name of the attestation key                 tpm.workload.signer
 (7) extraData is exactly the qualifying data of the quote (constant time)        tpm.workload.nonce
 (8) it was made in the boot of the quote                                         tpm.workload.boot
 (9) the certified Name is that of the public area                                tpm.workload.name
(10) the whole index was certified                                                tpm.workload.partial
(11) the entries are whole                                                        tpm.workload.entries.*
(12) they begin no later than where the proof of this boot ended, at the beginning where nothing is proven, and go at
     least as far                                               tpm.workload.start, tpm.workload.rollback
(13) what is proven is continued: they lead over the value that was certified then       tpm.workload.rewritten
(14) they lead to the certified value, and to nothing else                        tpm.workload.contents
(15) no grant has more than one of those that are shown                           tpm.workload.repeated
(16) a renewal shows the entry of its own grant, with the code and the environment that were granted
                                                                tpm.workload.missing, tpm.workload.measured

Absent on purpose: whether other entries are of grants that were given (`verifier.measured` asks).
Whoever holds the owner's authorisation can undefine the index and repeat known entries; what that hides is an entry
that no quote has covered yet, never one that was proven: docs/workload.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from typing import ClassVar, NamedTuple, Self

from attestation.errors import Untrusted
from attestation.parts import hash_parts
from attestation.progress import boot_of
from attestation.reader import Reader
from attestation.tpm.attest import Attest, NvCertifyInfo
from attestation.tpm.identity import Ak
from attestation.tpm.nv import ATTRIBUTE_NAMES, WORKLOAD, WRITTEN, NvPublic
from attestation.tpm.structures import Codes, Signature, attribute_names, verify_signature
from attestation.wire import Wire, label, wire

CODES = Codes(
    magic="tpm.workload.magic",
    type="tpm.workload.type",
    scheme="tpm.workload.scheme",
    signature="tpm.workload.signature",
    signer="tpm.workload.signer",
)
BEGINNING = bytes(32)
"""What an extend index holds before anything was extended into it (Part 3, 31.10)."""
MOST = 16384
"""Entries in one record, and jobs in one boot."""


@dataclass(frozen=True, slots=True)
class WorkloadEntry:
    """One job that was let start: its grant (16 bytes), and the digests of code and environment as measured."""

    SIZE: ClassVar[int] = 80

    grant: bytes
    code: bytes
    environment: bytes

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.take(16), reader.take(32), reader.take(32))

    def to_bytes(self) -> bytes:
        return self.grant + self.code + self.environment

    @property
    def measurement(self) -> bytes:
        """What is extended into the index."""
        return hash_parts(b"interlock/workload/1", self.grant, self.code, self.environment)


@wire
class WorkloadRecord(Wire):
    """``public`` is TPMS_NV_PUBLIC, ``attest`` and ``signature`` what TPM2_NV_Certify gave over the whole index.

    ``entries`` are those from number ``start`` on, 80 bytes each: grant, code, environment; ``before`` is what the
    index held before the first of them.
    """

    MAX_SIZE = 2 << 20

    public: bytes = label(1, most=256)
    attest: bytes = label(2, most=2048)
    signature: bytes = label(3, most=1024)
    start: int = label(4, high=1 << 48)
    before: bytes = label(5, size=32)
    entries: bytes = label(6, most=MOST * WorkloadEntry.SIZE)


def read_entries(data: bytes) -> tuple[WorkloadEntry, ...]:
    """The entries in ``data``. Raises ``Malformed("tpm.workload.entries.truncated")`` where the last is cut short."""
    reader, entries = Reader(data, "tpm.workload.entries"), []
    while reader.remaining:
        entries.append(WorkloadEntry.read(reader))
    return tuple(entries)


@dataclass(frozen=True, slots=True)
class Proven:
    """So many entries are proven in a boot, and the index held this value then. ``boot`` is resets and restarts."""

    boot: bytes
    count: int
    value: bytes


class Granted(NamedTuple):
    """The grant that is to be renewed, and what it was given for."""

    grant: bytes
    code: bytes
    environment: bytes


def replay(entries: Iterable[WorkloadEntry], value: bytes = BEGINNING) -> bytes:
    """What the index holds once ``entries`` were extended into it, ``value`` before (Part 3, 31.10)."""
    for entry in entries:
        value = hashlib.sha256(value + entry.measurement).digest()
    return value


def verify_workload(
    record: WorkloadRecord | None,
    *,
    ak: Ak,
    qualifying: bytes,
    boot: bytes,
    proven: Proven | None,
    granted: Granted | None,
) -> Proven:
    """Return what is proven now of the jobs of the boot, or raise with the reason of the first failed check.

    ``qualifying`` is what the quote commits to and ``boot`` the boot that it was made in, ``proven`` what was known
    before (of whatever boot), ``granted`` the grant that is to be renewed, ``None`` where a new one is asked for.
    Raises Malformed or Untrusted as listed in this module's docstring.
    """
    known = Proven(boot, 0, BEGINNING) if proven is None or proven.boot != boot else proven
    if record is None:  # (1)
        if known.count or granted is not None:
            raise Untrusted("tpm.workload.absent", f"{known.count} jobs were measured in this boot, none is shown")
        return known
    contents = _certified(record, ak, qualifying, boot)
    entries = read_entries(record.entries)  # (11)
    _check_continued(record, entries, known, contents)
    _check_own(entries, granted)
    return Proven(boot, record.start + len(entries), contents)


def _certified(record: WorkloadRecord, ak: Ak, qualifying: bytes, boot: bytes) -> bytes:
    """Checks (2) to (10): what the index holds, as its TPM says."""
    public = NvPublic.from_bytes(record.public)  # (2)
    expected = (WORKLOAD.index, WORKLOAD.name_alg, WORKLOAD.policy, WORKLOAD.size)
    if (public.index, public.name_alg, public.policy, public.size) != expected:
        raise Untrusted("tpm.workload.index", f"NV index 0x{public.index:08x} is not the one that jobs are measured in")
    if public.attributes != WORKLOAD.attributes | WRITTEN:  # (3)
        raise Untrusted(
            "tpm.workload.attributes", f"attributes are {attribute_names(public.attributes, ATTRIBUTE_NAMES)}"
        )
    parsed = Attest.from_bytes(record.attest, NvCertifyInfo, CODES)  # (4)
    verify_signature(ak.key, ak.scheme, Signature.from_bytes(record.signature, CODES), record.attest, CODES)  # (5)
    if parsed.qualified_signer != ak.qualified_name:  # (6)
        raise Untrusted(CODES.signer, "qualifiedSigner is not the Qualified Name of the enrolled attestation key")
    if not compare_digest(parsed.extra_data, qualifying):  # (7)
        raise Untrusted("tpm.workload.nonce", "extraData is not the qualifying data of this request")
    certified = boot_of(parsed.clock.reset_count, parsed.clock.restart_count)
    if certified != boot:  # (8)
        raise Untrusted("tpm.workload.boot", f"certified in boot {certified.hex()}, quoted in {boot.hex()}")
    if parsed.info.name != public.name:  # (9)
        raise Untrusted("tpm.workload.name", "the certified Name is not that of this index")
    if parsed.info.offset or len(parsed.info.contents) != WORKLOAD.size:  # (10)
        got = f"{len(parsed.info.contents)} bytes from {parsed.info.offset} on"
        raise Untrusted("tpm.workload.partial", f"certified are {got}, the index has {WORKLOAD.size}")
    return parsed.info.contents


def _check_continued(
    record: WorkloadRecord, entries: tuple[WorkloadEntry, ...], known: Proven, contents: bytes
) -> None:
    """Checks (12) to (15): the entries continue what is proven and are all that was extended."""
    again = known.count - record.start
    if again < 0 or (not known.count and record.before != BEGINNING):  # (12)
        raise Untrusted("tpm.workload.start", f"entries from {record.start} on, {known.count} are proven")
    if len(entries) < again:
        raise Untrusted("tpm.workload.rollback", f"{record.start + len(entries)} entries, {known.count} are proven")
    value = replay(entries[:again], record.before)
    if value != known.value:  # (13)
        raise Untrusted("tpm.workload.rewritten", f"the first {known.count} entries are not those that were proven")
    if replay(entries[again:], value) != contents:  # (14)
        raise Untrusted("tpm.workload.contents", "the index holds something else than these entries")
    if len({entry.grant for entry in entries}) != len(entries):  # (15)
        raise Untrusted("tpm.workload.repeated", "a grant started more than one job")


def _check_own(entries: tuple[WorkloadEntry, ...], granted: Granted | None) -> None:
    """Check (16)."""
    if granted is None:
        return
    own = [entry for entry in entries if entry.grant == granted.grant]
    if not own:
        raise Untrusted("tpm.workload.missing", f"grant {granted.grant.hex()} was not measured before its job started")
    if (own[0].code, own[0].environment) != (granted.code, granted.environment):
        raise Untrusted(
            "tpm.workload.measured", f"measured code {own[0].code.hex()}, environment {own[0].environment.hex()}"
        )
