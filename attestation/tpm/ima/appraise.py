"""Appraisal of a measurement list: what ran on the host, proven by PCR 10 and judged by a policy.

 1. the progress is of this boot, this bank and this policy, and the list starts where it was asked for
 2. the kernel's command line has the words that the policy wants, and none that it denies
 3. the list is one (:mod:`attestation.tpm.ima.measurements`), and no shorter than what the node has shown before
 4. every entry is of a known template and of PCR 10, and its template digest is that of its fields
 5. the replay from the last proven entry reaches the quoted PCR 10; entries after that are unproven and not looked at
 6. the bank extends what the policy accepts; it has been extended at all
 7. everything that was shown the last time is proven by now: the quote does not lag behind
 8. every entry that was proven now is accepted:

    a. the first of a boot is ``boot_aggregate`` and equals the replayed boot PCRs, and so does any other of that name,
       of which there are no more than the policy allows (kexec)
    b. a violation: by a rule
    c. a buffer: its digest is that of its bytes, and it is a key that the policy knows, or listed under its name
    d. a file: its digest is not denied; it is listed under its path, or excused by a rule, or its digest counts and a
       signature of it verifies with a key that is built in or was loaded before

(1) to (7) are refused by exception. What (8) refuses is counted and the first few are named; progress is only given
where nothing was refused, so that a refused entry stays one.

Entries that are listed files are remembered across hosts, because nothing but their own bytes and the policy decides.
All others, the first entry included, are judged each time.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import Final

from attestation.errors import Untrusted, printable
from attestation.tpm.ima.cmdline import verify_cmdline
from attestation.tpm.ima.entry import BUF, Fields
from attestation.tpm.ima.measurements import ImaList, read_list
from attestation.tpm.ima.policy import BOOT_AGGREGATE, MOST_REMEMBERED, UNCHECKED, CompiledPolicy
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import EXTENSIONS, HASHED, PADDED, PADDED_ONES, ZEROES, Extender
from attestation.tpm.ima.shortcut import listing
from attestation.tpm.ima.signature import is_file_signature, verify_file_signature
from attestation.tpm.structures import ALG_SHA1

MOST_REFUSALS: Final = 16
MOST_NAME: Final = 256
MOST_REMEMBERED_ENTRY: Final = 1024
"""Bytes of an entry that is remembered after it went the long way: one with a signature by RSA of 4096 bits fits."""
BOOT, KEXEC, LISTED, RULE, SIGNED, BUFFER, KEY, VIOLATION = (
    "boot-aggregate",
    "kexec",
    "listed",
    "rule",
    "signed",
    "buffer",
    "key",
    "violation",
)


@dataclass(frozen=True, slots=True)
class ImaSubject:
    """What is known beside the list. ``quoted`` is PCR 10 of ``bank`` in a verified quote of this ``boot``; ``start``
    is the number that the host gives its first entry; ``aggregates`` are what ``boot_aggregate`` may be
    (:func:`attestation.tpm.ima.replay.boot_aggregates`); ``cmdline`` is what the boot event log proves."""

    boot: bytes
    bank: int
    quoted: bytes
    start: int
    aggregates: Collection[tuple[bytes, bytes]]
    cmdline: bytes | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that was proven and is not accepted. ``name`` is for people: printable, and cut."""

    entry: int
    reason: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class ImaResult:
    """``proven`` and ``unproven`` entries of this list, ``tail`` bytes after them; how many were accepted as what;
    the first of the ``refused``; and the progress to be kept, where nothing was refused."""

    start: int
    proven: int
    unproven: int
    tail: int
    extension: str
    accepted: Mapping[str, int]
    refused: int
    refusals: tuple[Refusal, ...]
    progress: ImaProgress | None


def appraise_ima(data: bytes, subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> ImaResult:
    """Appraise the list ``data``, of either form, which begins at the entry that ``progress`` asked for.

    Raises ``Malformed`` and ``Untrusted`` with codes ``tpm.ima.*`` for (1) to (7).
    """
    _check_progress(subject, progress, policy)  # (1)
    verify_cmdline(policy.policy, subject.cmdline)  # (2)
    measured = read_list(data)  # (3)
    shown = progress.next + measured.count
    if shown < progress.seen:
        raise Untrusted("tpm.ima.rollback", f"{shown} entries, and {progress.seen} have been shown before")
    run = _replayed(measured, subject, progress, policy)  # (4) (5)
    if run.extension != HASHED and not policy.policy.unsafe_padded:  # (6)
        raise Untrusted(
            "tpm.ima.padded", "the kernel extends SHA-1 into this bank, and the policy does not accept that"
        )
    if not run.number:
        raise Untrusted("tpm.ima.inactive", "PCR 10 was never extended: IMA is not active")
    if run.number < progress.seen:  # (7)
        detail = f"PCR 10 proves {run.number} entries, and {progress.seen} have been shown before"
        raise Untrusted("tpm.ima.no-progress", detail)
    return run.result(measured, shown)


def verify_ima(data: bytes, subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> ImaProgress:
    """Verify a list and return the progress to be kept.

    Raises as :func:`appraise_ima`, and ``Untrusted`` with the reason of the first entry that is refused.
    """
    result = appraise_ima(data, subject, progress, policy)
    if result.progress is None:
        first = result.refusals[0]
        detail = f"entry {first.entry}, {first.name}: {first.detail} ({result.refused} refused in all)"
        raise Untrusted(first.reason, detail)
    return result.progress


def _check_progress(subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> None:
    if (progress.bank, progress.policy) != (subject.bank, policy.digest):
        raise Untrusted("tpm.ima.progress", "what is proven so far is of another bank or was judged by another policy")
    if progress.boot != subject.boot:
        raise Untrusted("tpm.ima.boot", f"what is proven so far is of boot {progress.boot.hex()}")
    if subject.start != progress.next:
        raise Untrusted("tpm.ima.start", f"the list starts at entry {subject.start}, asked for {progress.next}")


def _replayed(measured: ImaList, subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> "_Run":
    """The run that reaches the quoted PCR. How the kernel extends is known from before, or found out."""
    for extension in _possible(subject.bank, progress):
        run = _Run(extension, subject, progress, policy)
        if run.through(measured):
            return run
        if extension == PADDED and not run.violations:
            break
    last = progress.next + measured.count
    detail = (
        f"entries {progress.next} to {last} (not included) never lead to the quoted PCR 10, {subject.quoted.hex()}; "
        f"the first {progress.next} are proven"
    )
    raise Untrusted("tpm.ima.mismatch", detail)


def _possible(bank: int, progress: ImaProgress) -> tuple[str, ...]:
    """How the kernel may extend. The two that pad are one until there is a violation."""
    if bank == ALG_SHA1 or progress.extension == HASHED:
        return (HASHED,)
    if not progress.extension:
        return EXTENSIONS
    return (progress.extension,) if progress.violations else (PADDED, PADDED_ONES)


class _Refused(Exception):
    """One entry is not accepted: its reason and its detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _Run:
    """One pass over a list, from the last proven entry to the quoted PCR."""

    def __init__(self, extension: str, subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> None:
        self.extension = extension
        self.subject = subject
        self.progress = progress
        self.policy = policy
        self.extender = Extender(subject.bank, extension)
        self.remembered = policy.remembered(self.extender)
        self.running = progress.digest
        self.number = progress.next
        self.violations = progress.violations
        self.kexecs = progress.kexecs
        self.loaded = [digest for digest in progress.keys if digest in policy.keys]
        self.keys = {key.id: key for key in (policy.keys[d] for d in (*policy.built_in, *self.loaded))}
        self.accepted: dict[str, int] = {}
        self.refused = 0
        self.refusals: list[Refusal] = []

    def through(self, measured: ImaList) -> bool:
        """Replay and judge entry after entry; whether the quoted PCR was reached, where it ends."""
        if self.running == self.subject.quoted:
            return True
        recall = self.policy.short_way(self.extender, measured.form)
        for portion in measured.portions():
            if len(self.remembered) > MOST_REMEMBERED:
                self.remembered.clear()
            digests, complete = recall(portion, self.remembered)
            if complete and self.number:
                arrived = self._extended(digests)
            else:
                arrived = self._each(portion, digests, measured.reader)
            if arrived:
                return True
        return False

    def _extended(self, digests: Sequence[bytes | None]) -> bool:
        """Replay entries that are known to be listed files."""
        extend, running, quoted = self.extender.hash, self.running, self.subject.quoted
        left = iter(digests)
        for digest in left:
            running = extend(running + digest).digest()  # type: ignore[operator]  # none is None
            if running == quoted:
                break
        self.running, self.number = running, self.number + len(digests) - length_hint(left)
        return running == quoted

    def _each(self, raws: Sequence[bytes], digests: Sequence[bytes | None], read: Callable[[bytes], Fields]) -> bool:
        """Replay entries, and judge those that have no digest yet. The first of a boot is always judged."""
        extend, running, quoted = self.extender.hash, self.running, self.subject.quoted
        for raw, known in zip(raws, digests, strict=True):
            digest = known
            if digest is None or not self.number:
                digest = self._judged(raw, read(raw))
            running = extend(running + digest).digest()
            self.number += 1
            if running == quoted:
                break
        self.running = running
        return running == quoted

    def _judged(self, raw: bytes, fields: Fields) -> bytes:
        """Judge one entry the long way; what it extends."""
        digest = self.extender.digest(fields, self.number)
        try:
            kind = self._kind(fields)
            self.accepted[kind] = self.accepted.get(kind, 0) + 1
            if kind == LISTED and len(raw) <= MOST_REMEMBERED_ENTRY:
                self.remembered[raw] = digest
        except (_Refused, Untrusted) as refused:
            self.refused += 1
            if len(self.refusals) < MOST_REFUSALS:
                name = fields[6]
                shown = printable(name[:MOST_NAME].decode("utf-8", "backslashreplace"))[:MOST_NAME]
                self.refusals.append(Refusal(self.number, refused.reason, shown, refused.detail))
        return digest

    def _kind(self, fields: Fields) -> str:
        """(8) As what an entry is accepted. Raises ``_Refused`` or ``Untrusted``."""
        _, given, template, _, algorithm, digest, name, extra = fields
        if given == ZEROES:  # (b)
            self.violations += 1
            if name not in self.policy.violations or not self.number:
                raise _Refused("tpm.ima.violation", "the kernel could not say what was read")
            return VIOLATION
        if template == BUF and self.number:
            return self._buffer(algorithm, digest, name, extra)
        if name == BOOT_AGGREGATE or not self.number:
            return self._boot_aggregate(template, algorithm, digest, name)
        return self._file(algorithm, digest, name, extra)

    def _boot_aggregate(self, template: bytes, algorithm: bytes, digest: bytes, name: bytes) -> str:
        """(a)"""
        unchecked = self.policy.policy.boot_aggregate == UNCHECKED
        if name != BOOT_AGGREGATE or template == BUF:
            raise _Refused("tpm.ima.boot-aggregate", "the first entry is not boot_aggregate")
        if not unchecked and (algorithm, digest) not in self.subject.aggregates:
            detail = f"{algorithm.decode()}:{digest.hex()} is not what the boot PCRs give"
            raise _Refused("tpm.ima.boot-aggregate", detail)
        if not self.number:
            return BOOT
        self.kexecs += 1
        if self.kexecs > self.policy.policy.most_kexecs:
            raise _Refused("tpm.ima.kexec", f"boot_aggregate again, for the {self.kexecs}th time")
        return KEXEC

    def _buffer(self, algorithm: bytes, digest: bytes, name: bytes, extra: bytes) -> str:
        """(c)"""
        policy = self.policy
        if algorithm not in policy.algorithms:
            raise _Refused("tpm.ima.algorithm", f"a digest by {algorithm.decode()} does not count")
        if hashlib.new(algorithm.decode(), extra).digest() != digest:
            raise _Refused("tpm.ima.buffer-digest", f"the buffer's digest is not {digest.hex()}")
        if digest in policy.denied:
            raise _Refused("tpm.ima.denied", f"{digest.hex()} is known to be bad")
        key = hashlib.sha256(extra).digest()
        if (name, key) in policy.loadable:
            if key not in self.loaded:
                self.loaded.append(key)
                self.keys[policy.keys[key].id] = policy.keys[key]
            return KEY
        if digest in policy.buffers.get(name, ()) or name in policy.unchecked_buffers:
            return BUFFER
        if name in policy.keyrings or name.startswith(b"."):
            raise _Refused("tpm.ima.keyring", f"a key that the policy does not know, SHA-256 {key.hex()}")
        raise _Refused("tpm.ima.buffer", f"{algorithm.decode()}:{digest.hex()} is not listed under this name")

    def _file(self, algorithm: bytes, digest: bytes, name: bytes, extra: bytes) -> str:
        """(d)"""
        policy = self.policy
        if listing(digest, name) in policy.files.get(algorithm, ()):
            return LISTED
        shown = f"{algorithm.decode()}:{digest.hex()}"
        if digest in policy.denied:
            raise _Refused("tpm.ima.denied", f"{shown} is known to be bad")
        if name in policy.content:
            return RULE
        if algorithm not in policy.algorithms:
            raise _Refused("tpm.ima.algorithm", f"a digest by {algorithm.decode()} does not count")
        if policy.keys and is_file_signature(extra):
            verify_file_signature(extra, algorithm, digest, self.keys)
            return SIGNED
        if name in policy.paths:
            raise _Refused("tpm.ima.digest", f"the file is listed, and not with {shown}")
        raise _Refused("tpm.ima.unlisted", f"nothing speaks of this file, {shown}")

    def result(self, measured: ImaList, shown: int) -> ImaResult:
        """What was found, after the quoted PCR was reached. ``shown`` is how many entries the node has."""
        before, subject = self.progress, self.subject
        proven = self.number - before.next
        quickly = proven - self.refused - sum(self.accepted.values())
        accepted = {**self.accepted, LISTED: self.accepted.get(LISTED, 0) + quickly}
        progress = None
        if not self.refused:
            progress = ImaProgress(
                boot=subject.boot,
                bank=subject.bank,
                policy=self.policy.digest,
                next=self.number,
                digest=self.running,
                seen=shown,
                extension=self.extension,
                violations=self.violations,
                kexecs=self.kexecs,
                keys=tuple(sorted(self.loaded)),
            )
        return ImaResult(
            start=before.next,
            proven=proven,
            unproven=measured.count - proven,
            tail=measured.tail,
            extension=self.extension,
            accepted=accepted,
            refused=self.refused,
            refusals=tuple(self.refusals),
            progress=progress,
        )
