"""Genuine TPM evidence, part by part, and what comes of each when it is verified in the place of the genuine one.

======== =========================================================================== ===========================
kind     parts                                                                       what comes of it
======== =========================================================================== ===========================
quote    attestation, signature and PCR values of each recorded quote                all that the quote proves
log      each boot log in each of its banks, before the PCRs that it leads to        the facts of the boot
ima      each list in both forms, from its first entry and from the middle           what is proven, and kept
ek       NV image, intermediates and public area of each EK certificate              the endorsement key
======== =========================================================================== ===========================

What a part is judged by demands everything that the genuine one shows: each fact of a boot (:func:`demands`), each
entry of a list (:func:`listed`). So whatever is left out or put in has to be seen. The captures of whole machines
(``vm/*.json``) are also appraised as a whole: quote, log, list; log and list of the SHA-256 bank in signed evidence, by
the product's whole appraisal, of a host whose TPM in software has the captured PCRs.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.reader import Reader
from attestation.tpm.boot.check import check_boot
from attestation.tpm.boot.state import boot_state
from attestation.tpm.ekcert import trim_der
from attestation.tpm.eventlog import PROVABLE, SIZES, EventLog, banks, is_ccel, prove, read_event_log, replay
from attestation.tpm.identity import verify_ak, verify_ek
from attestation.tpm.ima.appraise import ImaSubject, appraise_ima
from attestation.tpm.ima.entry import IMA, Entry
from attestation.tpm.ima.measurements import BINARY, read_list
from attestation.tpm.ima.policy import CompiledPolicy, compile_policy
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import EXTENSIONS
from attestation.tpm.ima.replay import replay as replay_list
from attestation.tpm.issuers import issuers
from attestation.tpm.quote import verify_quote
from attestation.tpm.structures import ALG_SHA256, HASHES, USER_WITH_AUTH
from tests.attestation.shown import Shown
from tools.evidence import chains, presented, quotes
from tools.evidence.believed import Boot, demands, listed
from tools.evidence.case import Unreadable
from tools.evidence.manifest import Entry as File
from tools.evidence.manifest import Evidence, certificates, read_manifest
from tools.evidence.quotes import Found, Unknown
from tools.evidence.target import Target

BANKS = {name: alg for alg, name in HASHES.items()}
IMA_PCR = 10
MIDDLE = 2
"""A list that is asked for from an entry on is asked for from the middle."""
Verify = Callable[[bytes], object]


def read_targets(folder: Path) -> list[Target]:
    """Every part of the evidence in `folder` that the product accepts. Raises `Unreadable` without any."""
    evidence = read_manifest(folder)
    found = [target for entry in evidence.entries for target in _targets(entry, evidence)]
    if not found:
        raise Unreadable(f"nothing in {folder} is accepted as it is: changing it would show nothing")
    return found


def _targets(entry: File, evidence: Evidence) -> Iterator[Target]:
    match entry.group:
        case "eventlogs":
            yield from _logs(entry.file, entry.data)
        case "ima":
            yield from _lists(entry.file, entry.data, ALG_SHA256)
        case "quotes":
            yield from _quotes(entry, evidence)
        case "ekcerts":
            yield from _certificates(entry, evidence)
        case "vm":
            shown = json.loads(entry.data)
            for bank in BANKS:
                if bank in shown:
                    yield from _Capture(entry.file, shown, bank).targets()


def _target(case: str, kind: str, name: str, data: bytes, verify: Verify, units: tuple[bytes, ...] = ()) -> Target:
    """One that is a whole by itself."""
    return Target(case, kind, name, data, verify, lambda changed: _accepts(verify, changed), units)


def _accepts(verify: Verify, data: bytes) -> bool:
    try:
        verify(data)
    except InterlockError:
        return False
    return True


# --- boot logs --------------------------------------------------------------------------------------------------------


def _logs(case: str, data: bytes) -> Iterator[Target]:
    """A log in each bank that it can be replayed in, where its own values are the quoted ones."""
    ccel = is_ccel(data)
    try:
        log = read_event_log(data, ccel=ccel)
    except InterlockError:
        return
    for bank in banks(log):
        verify = verifier_of_log(log, bank, values_of(log, bank))
        if _accepts(verify, data):
            yield _target(case, "log", HASHES[bank], data, verify, pieces(log, data))


def values_of(log: EventLog, bank: int) -> dict[int, bytes]:
    """PCRs 0 to 15 after the boot that a log tells of (registers 1 to 4 of a CCEL)."""
    untouched = {} if log.ccel else dict.fromkeys(PROVABLE, bytes(SIZES[bank]))
    return {pcr: value for pcr, value in {**untouched, **replay(log, bank)}.items() if pcr in PROVABLE}


def pieces(log: EventLog, data: bytes) -> tuple[bytes, ...]:
    """The events of a log as they stand there; what follows the last one is a piece of its own."""
    starts = [event.offset for event in log.events] + [len(data) - log.padding]
    whole = [data[start:end] for start, end in pairwise(starts)]
    return tuple(whole) + ((data[-log.padding :],) if log.padding else ())


def verifier_of_log(log: EventLog, bank: int, quoted: Mapping[int, bytes]) -> Verify:
    """What comes of a log before these PCRs, under the policy that demands what the genuine one shows."""
    proven = prove(log, bank, quoted).pcrs
    policy = demands(boot_state(log, bank, proven))

    def verify(changed: bytes) -> Boot:
        read = read_event_log(changed, ccel=log.ccel)
        proof = prove(read, bank, quoted)
        state = boot_state(read, bank, proof.pcrs)
        check_boot(state, policy)
        return Boot.of(proof, state)

    return verify


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _List:
    """A list with all that it is judged by."""

    data: bytes
    bank: int
    extension: str
    quoted: bytes
    policy: CompiledPolicy
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, data: bytes, bank: int, quoted: bytes | None = None) -> "_List":
        """Raises `InterlockError` for a list that is none, or that leads elsewhere."""
        measured = read_list(data)
        for extension in EXTENSIONS:
            value = replay_list(measured, bank, extension)
            if quoted in (None, value):
                entries = tuple(measured.entries())
                return cls(data, bank, extension, value, compile_policy(listed(entries)), entries)
        raise Untrusted("tpm.ima.mismatch", "the list leads elsewhere")

    def appraise(self, progress: ImaProgress, changed: bytes) -> object:
        """What comes of a list, whose first eight bytes are the number of its first entry, after this progress."""
        reader = Reader(changed, "tpm.ima")
        start, data = reader.u64(), reader.rest()
        aggregates = {(entry.algorithm, entry.digest) for entry in self.entries if entry.name == b"boot_aggregate"}
        subject = ImaSubject(b"boot", self.bank, self.quoted, start, aggregates, None)
        found = appraise_ima(data, subject, progress, self.policy)
        if found.progress is None:
            raise Untrusted(found.refusals[0].reason, found.refusals[0].detail)
        return found.proven, found.extension, found.accepted, replace(found.progress, seen=found.progress.next)

    def progress(self, count: int) -> ImaProgress:
        """What is kept after the first `count` entries."""
        begun = ImaProgress.begin(boot=b"boot", bank=self.bank, policy=self.policy.digest)
        if not count:
            return begun
        first = binary(self.entries[:count])
        value = replay_list(read_list(first), self.bank, self.extension)
        subject = ImaSubject(b"boot", self.bank, value, 0, {(self.entries[0].algorithm, self.entries[0].digest)}, None)
        return appraise_ima(first, subject, begun, self.policy).progress or begun


def _lists(case: str, data: bytes, bank: int, quoted: bytes | None = None) -> Iterator[Target]:
    try:
        held = _List.read(data, bank, quoted)
    except InterlockError:
        return
    forms = {"binary": binary_pieces(held.entries)}
    if read_list(data).form != BINARY:
        forms["ascii"] = tuple(data.splitlines(keepends=True))
    for form, units in forms.items():
        for before in sorted({0, len(units) // MIDDLE}):
            verify = partial(held.appraise, held.progress(before))
            whole = (before.to_bytes(8, "big"), *units[before:])
            name = f"{HASHES[bank]} {form} from {before}"
            if _accepts(verify, b"".join(whole)):
                yield _target(case, "ima", name, b"".join(whole), verify, whole)


def binary_pieces(entries: tuple[Entry, ...]) -> tuple[bytes, ...]:
    """Entries as ``binary_runtime_measurements`` has them (ima_fs.c, ima_measurements_show)."""
    return tuple(_binary(entry) for entry in entries)


def binary(entries: tuple[Entry, ...]) -> bytes:
    """A whole list of the kernel's binary form."""
    return b"".join(binary_pieces(entries))


def _binary(entry: Entry) -> bytes:
    head = entry.pcr.to_bytes(4, "little") + entry.template_digest + _sized(entry.template)
    if entry.template == IMA:
        return head + entry.digest + _sized(entry.name)
    return head + _sized(entry.data)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


# --- quotes -----------------------------------------------------------------------------------------------------------


def _quotes(entry: File, evidence: Evidence) -> Iterator[Target]:
    """Each recorded quote that verifies by the key that came with it, in parts."""
    try:
        held = quotes.read(entry.data)
        found = [] if isinstance(held, quotes.Part) else presented.with_keys(entry, held, evidence)
    except Unknown:
        return
    for each in found:
        if presented.outcome(each) == "verifies":
            yield from _recorded(entry.file, each)


def _recorded(case: str, found: Found) -> Iterator[Target]:
    def verifier(part: str) -> Verify:
        return lambda data: _proven(found, part, data)

    for part in ("attest", "signature"):
        yield _target(case, "quote", f"{found.name}.{part}", getattr(found, part), verifier(part))
    if found.values:
        yield _target(case, "quote", f"{found.name}.values", written(found.values), verifier("values"))


def _proven(found: Found, part: str, data: bytes) -> object:
    """Values that were there have to be there: without any, a recorded quote would be verified by its key alone."""
    changed: dict[str, Any] = {part: read_values(data) if part == "values" else data}
    now = replace(found, **changed)
    if found.values and not now.values:
        raise Untrusted("tpm.pcr.uncovered", "the quote comes without a PCR value")
    quote = presented.verify_recorded(now)
    covered = {pcr for selection in quote.info.selections for pcr in selection.pcrs}
    return quote, {pcr: value for pcr, value in now.values.items() if pcr in covered}


def written(values: Mapping[int, bytes]) -> bytes:
    """PCR values, each after its number and length."""
    return b"".join(bytes([pcr, len(value)]) + value for pcr, value in sorted(values.items()))


def read_values(data: bytes) -> dict[int, bytes]:
    """What `written` wrote, in its order. Raises `Malformed`."""
    reader, found = Reader(data, "tpm.pcr"), dict[int, bytes]()
    while reader.remaining:
        pcr = reader.u8()
        if pcr <= max(found, default=-1):
            raise Malformed("tpm.pcr.order", f"PCR {pcr} is not above those before it")
        found[pcr] = reader.take(reader.u8())
    return found


# --- certificates -----------------------------------------------------------------------------------------------------


def _certificates(entry: File, evidence: Evidence) -> Iterator[Target]:
    """NV image, those between it and the root, and the public area, each changed by itself.

    How the key is authorised (policy, userWithAuth) is no part of the result: nothing covers it, nothing rests on it.
    """
    image = certificates(entry.data)[0] if entry.data[:1] == b"-" else entry.data
    genuine = chains.verify(evidence, image)
    if isinstance(genuine, InterlockError):
        return
    der, public = trim_der(image), genuine.public.to_bytes()
    above, at = issuers(der, evidence.authorities), chains.moment(der)

    def verify(part: str, data: bytes) -> object:
        now = {"image": image, "public": public, part: data}
        between = tuple(certificates(data)) if part == "intermediates" else above
        pool = issuers(trim_der(now["image"]), (*between, *evidence.authorities) if part == "image" else between)
        found = verify_ek(now["image"], now["public"], pool, evidence.anchors, at=at)
        attributes = found.public.attributes & ~USER_WITH_AUTH
        return replace(found, public=replace(found.public, policy=b"", attributes=attributes))

    for part, data in (("image", image), ("intermediates", b"".join(above)), ("public", public)):
        if data:
            units = above if part == "intermediates" else ()
            yield _target(entry.file, "ek", part, data, partial(verify, part), units)


# --- captures ---------------------------------------------------------------------------------------------------------


class _Capture:
    """A whole machine's evidence in one bank: quote, log and list belong together."""

    def __init__(self, case: str, shown: Mapping[str, Any], bank: str) -> None:
        self.case, self.bank, part = case, BANKS[bank], shown[bank]
        self.name = bank
        values = {int(pcr): bytes.fromhex(value) for pcr, value in part["pcrs"].items()}
        self.pcrs = sorted(values)
        self.nonce = bytes.fromhex(shown["nonce"])
        self.list = _List.read(base64.b64decode(part["ima"]), self.bank, values[IMA_PCR])
        self.begun = self.list.progress(0)
        log = base64.b64decode(shown["log"])
        self.log = read_event_log(log)
        self.verify_log = verifier_of_log(self.log, self.bank, values)
        if self.bank == ALG_SHA256:
            state = boot_state(self.log, self.bank, prove(self.log, self.bank, values).pcrs)
            self.host = Shown(values=values, boot=demands(state), files=self.list.policy)
        self.parts = {
            "attest": bytes.fromhex(part["attest"]),
            "signature": bytes.fromhex(part["sig"]),
            "ak": bytes.fromhex(shown["ak"])[2:],
            "values": written(values),
            "log": log,
            "list": bytes(8) + binary(self.list.entries),
        }

    def targets(self) -> Iterator[Target]:
        """Every part; the list has some more, as lists that stand alone do."""
        for part in self.parts:
            kind, units = "quote", tuple[bytes, ...]()
            if part == "log":
                kind, units = "log", pieces(self.log, self.parts[part])
            elif part == "list":
                kind, units = "ima", (bytes(8), *binary_pieces(self.list.entries))
            verify = self._verifier(part)
            yield Target(self.case, kind, f"{self.name}.{part}", self.parts[part], verify, self._whole(part), units)
        yield from _lists(self.case, self.list.data, self.bank, self.list.quoted)

    def _verifier(self, part: str) -> Verify:
        if part == "log":
            return self.verify_log
        if part == "list":
            return partial(self.list.appraise, self.begun)
        return lambda data: replace(self._quote({**self.parts, part: data}), signature=b"")

    def _whole(self, part: str) -> Callable[[bytes], bool]:
        if part in ("log", "list") and self.bank == ALG_SHA256:
            return lambda data: _accepts(partial(self._in_evidence, part), data)
        return lambda data: _accepts(self._appraise, self._joined({**self.parts, part: data}))

    def _in_evidence(self, part: str, data: bytes) -> None:
        """In signed evidence of a host whose TPM has the captured PCRs, through the product's whole appraisal."""
        reader = Reader(data if part == "list" else self.parts["list"], "tpm.ima")
        self.host.ima = reader.u64(), reader.rest()
        self.host.event_log = data if part == "log" else self.parts["log"]
        for failed in self.host.appraise().failures:
            raise Untrusted(failed.reason or "", failed.detail or "")

    def _joined(self, parts: Mapping[str, bytes]) -> bytes:
        return b"".join(_sized(parts[name]) for name in self.parts)

    def _appraise(self, joined: bytes) -> object:
        """Everything at once, each against what was proven before it."""
        reader = Reader(joined, "tpm.bundle")
        parts = {name: reader.take(reader.u32le()) for name in self.parts}
        quote = self._quote(parts)
        log = read_event_log(parts["log"])
        proof = prove(log, quote.bank, quote.pcrs)
        state = boot_state(log, quote.bank, proof.pcrs)
        check_boot(state, demands(boot_state(self.log, quote.bank, proof.pcrs)))
        return replace(self.list, quoted=quote.pcrs[IMA_PCR]).appraise(self.begun, parts["list"])

    def _quote(self, parts: Mapping[str, bytes]) -> Any:
        return verify_quote(
            parts["attest"],
            parts["signature"],
            ak=verify_ak(parts["ak"]),
            qualifying=self.nonce,
            bank=self.bank,
            pcrs=self.pcrs,
            values=read_values(parts["values"]),
        )
