"""What an operator demands of a measurement list, as one document that is archived with the decisions it took part in.

Nothing is accepted that the document does not name: a file by its digest under its path, by a signature of a key that
counts, or by a rule that says what is not looked at (``unchecked``). Whatever weakens a check has ``unsafe_`` or
``unchecked`` in its name. :class:`CompiledPolicy` is the form that lists are judged by; it is made once for a policy
and shared by all nodes. Labels: docs/formats.md.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final

from attestation.errors import Malformed
from attestation.tpm.ima.entry import ALGORITHMS, MAX_NAME
from attestation.tpm.ima.measurements import ASCII
from attestation.tpm.ima.paths import Rules, check_rule
from attestation.tpm.ima.replay import HASHED, Extender
from attestation.tpm.ima.shortcut import ShortWay, listing, short_way, short_way_binary
from attestation.tpm.ima.signature import FileKey, read_key
from attestation.wire import Wire, label, wire

BOOT_AGGREGATE: Final = b"boot_aggregate"
STRONG = ("sha256", "sha384", "sha512", "verity:sha256", "verity:sha384", "verity:sha512")
WEAK = ("md5", "sha1")
CONTENT, VIOLATION = "content", "violation"
REQUIRED, UNCHECKED = "required", "unchecked"


@wire
class ImaFiles(Wire):
    """The files that may be read, of one digest algorithm. ``paths`` joins the paths with NUL, ``digests`` the digests
    in the same order; a path with several digests is there several times. Ascending by (path, digest)."""

    algorithm: str = label(1, most=32)
    paths: bytes = label(2, most=256 << 20)
    digests: bytes = label(3, most=64 << 20)

    def check(self) -> None:
        """Raise ``Malformed("tpm.ima.policy.files")`` where paths and digests are not one ascending list."""
        if self.algorithm not in STRONG + WEAK:
            raise Malformed("tpm.ima.policy.files", f"no files are listed by {self.algorithm!r}")
        size, count = self.digest_size, self.paths.count(b"\0") + 1
        if len(self.digests) != size * count:
            raise Malformed("tpm.ima.policy.files", f"{count} paths and {len(self.digests)} bytes of digests")
        if not all(before < after for before, after in pairwise(self.pairs())):
            raise Malformed("tpm.ima.policy.files", "the files are not ascending, or one is there twice")
        names = set(self.paths.split(b"\0"))
        if b"" in names or BOOT_AGGREGATE in names or max(map(len, names)) > MAX_NAME:
            raise Malformed("tpm.ima.policy.files", "a path that is empty, too long, or boot_aggregate")

    @property
    def digest_size(self) -> int:
        """Bytes of one digest."""
        return ALGORITHMS[self.algorithm.removeprefix("verity:").encode()][1]

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Each path with its digest."""
        size, digests = self.digest_size, self.digests
        slices = (digests[start : start + size] for start in range(0, len(digests), size))
        return zip(self.paths.split(b"\0"), slices, strict=True)

    @classmethod
    def of(cls, algorithm: str, files: set[tuple[bytes, bytes]]) -> "ImaFiles":
        """The list of these (path, digest)."""
        ordered = sorted(files)
        return cls(
            algorithm=algorithm,
            paths=b"\0".join(path for path, _ in ordered),
            digests=b"".join(digest for _, digest in ordered),
        )


@wire
class ImaRule(Wire):
    """What is not looked at for the names that the rule speaks of (:mod:`attestation.tpm.ima.paths`): the content of a
    file, or that the kernel lost sight of it (a violation). The name of a violation is not proven by anything."""

    kind: str = label(1, most=16)
    path: bytes = label(2, most=MAX_NAME)
    unchecked: tuple[str, ...] = label(3, most=16, ordered=True)

    def check(self) -> None:
        """Raise ``Malformed("tpm.ima.policy.rule")``."""
        check_rule(self.kind, self.path)
        if not self.unchecked or not set(self.unchecked) <= {CONTENT, VIOLATION} or self.path == BOOT_AGGREGATE:
            raise Malformed("tpm.ima.policy.rule", f"{self.path!r}: unchecked is {', '.join(self.unchecked)}")


@wire
class ImaKey(Wire):
    """A key that may sign files: DER certificate or public key. It counts from the start where it is ``built_in``,
    else from the entry on that shows these very bytes being loaded into ``keyring``."""

    name: str = label(1, most=128)
    keyring: bytes = label(2, most=256)
    key: bytes = label(3, most=16384)
    built_in: bool = label(4)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key as it is loaded."""
        return hashlib.sha256(self.key).digest()


@wire
class ImaBuffer(Wire):
    """Buffers that may be measured under a name (``dm_table_load``, ``kexec-cmdline``, a keyring): those with one of
    the digests, or any where the content is ``unchecked``."""

    name: bytes = label(1, most=256)
    digests: tuple[bytes, ...] = label(2, most=65536, ordered=True)
    unchecked: bool = label(3, default=False)

    def check(self) -> None:
        """Raise ``Malformed("tpm.ima.policy.buffer")`` for no digests, and for digests nobody compares."""
        if not self.name or bool(self.digests) == self.unchecked:
            raise Malformed("tpm.ima.policy.buffer", f"{self.name!r}: digests, or unchecked, and not both")


@wire
class ImaPolicy(Wire):
    """The demands.

    ``denied`` are digests that are known to be bad: refused, whatever else is said of them. ``boot_aggregate`` is
    "required" or "unchecked". ``most_kexecs`` is how often a node may boot by kexec. ``cmdline_required`` are words
    that the kernel's command line has, ``cmdline_denied`` words that it has not (all those of a key, where they end
    with "="). ``unsafe_algorithms`` are weak file digests that count all the same; ``unsafe_padded``: a bank into which
    the kernel extends SHA-1 counts.
    """

    MAX_SIZE = 512 << 20
    MAX_ITEMS = 4_000_000

    files: tuple[ImaFiles, ...] = label(1, most=16)
    rules: tuple[ImaRule, ...] = label(2, most=1024)
    keys: tuple[ImaKey, ...] = label(3, most=256)
    buffers: tuple[ImaBuffer, ...] = label(4, most=1024)
    denied: tuple[bytes, ...] = label(5, most=1_000_000, ordered=True)
    boot_aggregate: str = label(6, most=16)
    most_kexecs: int = label(7, high=1024)
    cmdline_required: tuple[str, ...] = label(8, most=256, ordered=True)
    cmdline_denied: tuple[str, ...] = label(9, most=256, ordered=True)
    unsafe_algorithms: tuple[str, ...] = label(10, most=8, ordered=True)
    unsafe_padded: bool = label(11)

    def check(self) -> None:
        """Raise ``Malformed``: ``tpm.ima.policy.word``, ``.duplicate``, ``.files``, ``.key``."""
        if self.boot_aggregate not in (REQUIRED, UNCHECKED) or not set(self.unsafe_algorithms) <= set(WEAK):
            raise Malformed("tpm.ima.policy.word", f"{self.boot_aggregate!r}, {', '.join(self.unsafe_algorithms)}")
        if any(len(word.split()) != 1 for word in self.cmdline_required + self.cmdline_denied):
            raise Malformed("tpm.ima.policy.word", "not one word of a command line")
        algorithms = [files.algorithm for files in self.files]
        lists: list[list[object]] = [
            list(algorithms),
            [buffer.name for buffer in self.buffers],
            [key.name for key in self.keys],
            [key.digest for key in self.keys],
        ]
        if any(len(set(names)) != len(names) for names in lists):
            raise Malformed("tpm.ima.policy.duplicate", "an algorithm, a buffer or a key is there twice")
        if not set(algorithms) <= {*STRONG, *self.unsafe_algorithms}:
            raise Malformed("tpm.ima.policy.files", "files are listed by an algorithm that does not count")
        identifiers = {read_key(key.key).id for key in self.keys}
        if len(identifiers) != len(self.keys):
            raise Malformed("tpm.ima.policy.key", "two keys have one id")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding: the name of this policy in records and archives."""
        return hashlib.sha256(self.to_bytes()).digest()


PLAIN: Final = ImaPolicy(
    files=(),
    rules=(),
    keys=(),
    buffers=(),
    denied=(),
    boot_aggregate=REQUIRED,
    most_kexecs=0,
    cmdline_required=(),
    cmdline_denied=(),
    unsafe_algorithms=(),
    unsafe_padded=False,
)
"""Lists nothing and excuses nothing: what a policy is made from with ``replace``."""

MOST_REMEMBERED: Final = 1 << 17


class CompiledPolicy:
    """A policy ready to judge entries, and the entries that it has judged to be listed files, on whatever host.

    What is remembered is bounded: for each bank about :data:`MOST_REMEMBERED` entries, all forgotten when there are
    more. Only what the entry's own bytes decide is remembered.
    """

    def __init__(self, policy: ImaPolicy, digest: bytes) -> None:
        self.policy = policy
        self.digest = digest
        self.denied = frozenset(policy.denied)
        self.algorithms = frozenset(name.encode() for name in (*STRONG, *policy.unsafe_algorithms))
        self.files = {files.algorithm.encode(): self._listed(files) for files in policy.files}
        self.content = Rules((r.kind, r.path) for r in policy.rules if CONTENT in r.unchecked)
        self.violations = Rules((r.kind, r.path) for r in policy.rules if VIOLATION in r.unchecked)
        self.buffers = {b.name: frozenset(b.digests) for b in policy.buffers if not b.unchecked}
        self.unchecked_buffers = frozenset(b.name for b in policy.buffers if b.unchecked)
        self.keys: dict[bytes, FileKey] = {key.digest: read_key(key.key) for key in policy.keys}
        self.built_in = tuple(key.digest for key in policy.keys if key.built_in)
        self.loadable = {(key.keyring, key.digest) for key in policy.keys if not key.built_in}
        self.keyrings = frozenset(key.keyring for key in policy.keys)
        self._remembered: dict[tuple[int, str], dict[bytes, bytes]] = {}
        self._short_ways: dict[tuple[int, str, str], ShortWay] = {}

    def _listed(self, files: ImaFiles) -> frozenset[bytes]:
        denied = self.denied
        return frozenset(listing(digest, path) for path, digest in files.pairs() if digest not in denied)

    @cached_property
    def paths(self) -> frozenset[bytes]:
        """Every path that is listed with some digest. Only who refuses a file asks."""
        return frozenset(path for files in self.policy.files for path in files.paths.split(b"\0"))

    def short_way(self, extender: Extender, form: str) -> ShortWay:
        """The short way through lists of this form that extend like this."""
        key = extender.bank, extender.extension, form
        found = self._short_ways.get(key)
        if found is None:
            make = short_way if form == ASCII else short_way_binary
            found = self._short_ways[key] = make(self.files, extender)
        return found

    def remembered(self, extender: Extender) -> dict[bytes, bytes]:
        """Entries that went the long way and are listed files, with what they extend. Nothing is kept of a kernel that
        extends what the policy does not accept: any list is tried with it that leads nowhere."""
        if extender.extension != HASHED and not self.policy.unsafe_padded:
            return {}
        return self._remembered.setdefault((extender.bank, extender.extension), {})

    def forget(self) -> None:
        """Forget all entries: for measurements of what judging costs."""
        self._remembered.clear()
        self._short_ways.clear()


@dataclass(frozen=True, slots=True)
class _Named:
    digest: bytes
    policy: ImaPolicy = field(compare=False)


def compile_policy(policy: ImaPolicy) -> CompiledPolicy:
    """The compiled form, made once for each digest. Four policies are kept."""
    return _compiled(_Named(policy.digest, policy))


@lru_cache(maxsize=4)
def _compiled(named: _Named) -> CompiledPolicy:
    return CompiledPolicy(named.policy, named.digest)
