"""What files there may be: collected from measurement lists, images, packages and earlier references, and put together.

A :class:`Listing` is only what was found. The demands beside it (rules, keys, words of the command line, what is
unsafe) are an operator's document (:mod:`verifier.refs.imadoc`); both together are an ``ImaPolicy``.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from attestation.errors import Malformed
from attestation.tpm.ima.entry import BUF, Entry
from attestation.tpm.ima.measurements import read_list
from attestation.tpm.ima.policy import BOOT_AGGREGATE, PLAIN, WEAK, ImaBuffer, ImaFiles, ImaPolicy
from attestation.tpm.ima.replay import ZEROES


@dataclass(slots=True)
class Listing:
    """Digests by path for each algorithm, digests of buffers by name, and what is in no policy: a count of each
    kind, and the names of violations, which an operator may want to excuse by a rule."""

    files: dict[str, set[tuple[bytes, bytes]]] = field(default_factory=dict)
    buffers: dict[bytes, set[bytes]] = field(default_factory=dict)
    unchecked: set[bytes] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)
    violations: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """How many files there are."""
        return sum(map(len, self.files.values()))

    def file(self, algorithm: str, path: bytes, digest: bytes) -> None:
        """One file more."""
        self.files.setdefault(algorithm, set()).add((path, digest))

    def entries(self, entries: Iterable[Entry]) -> None:
        """What a measurement list shows: its files and buffers. Violations and boot aggregates are only counted."""
        for entry in entries:
            if entry.template_digest == ZEROES:
                self.skipped["violations"] += 1
                self.violations.add(entry.name.decode("utf-8", "backslashreplace"))
            elif entry.name == BOOT_AGGREGATE:
                self.skipped["boot_aggregate"] += 1
            elif entry.template == BUF:
                self.buffers.setdefault(entry.name, set()).add(entry.digest)
            else:
                self.file(entry.algorithm.decode(), entry.name, entry.digest)

    def policy(self, policy: ImaPolicy) -> None:
        """What a policy lists."""
        for files in policy.files:
            self.files.setdefault(files.algorithm, set()).update(files.pairs())
        for buffer in policy.buffers:
            if buffer.unchecked:
                self.unchecked.add(buffer.name)
            self.buffers.setdefault(buffer.name, set()).update(buffer.digests)

    def add(self, other: "Listing") -> None:
        """Everything that ``other`` found."""
        for algorithm, files in other.files.items():
            self.files.setdefault(algorithm, set()).update(files)
        for name, digests in other.buffers.items():
            self.buffers.setdefault(name, set()).update(digests)
        self.unchecked |= other.unchecked
        self.skipped += other.skipped
        self.violations |= other.violations

    def carrier(self) -> ImaPolicy:
        """A policy that holds these lists and decides nothing: how they are handed on."""
        weak = tuple(sorted({*self.files} & {*WEAK}))
        files = tuple(ImaFiles.of(algorithm, found) for algorithm, found in sorted(self.files.items()) if found)
        buffers = tuple(self._buffer(name) for name in sorted({*self.buffers, *self.unchecked}))
        return replace(PLAIN, files=files, buffers=buffers, unsafe_algorithms=weak)

    def under(self, demands: ImaPolicy) -> ImaPolicy:
        """The policy that lists all this, and demands what ``demands`` does beside its own lists.

        Raises ``Malformed``: ``ref.weak``, ``ref.nothing``, and what :class:`ImaPolicy` raises.
        """
        self.policy(demands)
        weak = sorted({*self.files} & {*WEAK} - {*demands.unsafe_algorithms})
        if weak:
            raise Malformed("ref.weak", f"{len(self.files[weak[0]])} files have a digest by {weak[0]}")
        lists = self.carrier()
        if not lists.files and not lists.buffers and not demands.keys:
            raise Malformed("ref.nothing", "no file, no buffer and no key that signs files")
        return ImaPolicy.from_bytes(replace(demands, files=lists.files, buffers=lists.buffers).to_bytes())

    def _buffer(self, name: bytes) -> ImaBuffer:
        if name in self.unchecked:
            return ImaBuffer(name=name, digests=(), unchecked=True)
        return ImaBuffer(name=name, digests=tuple(sorted(self.buffers[name])))


def listed(data: bytes) -> Listing:
    """What a measurement list, ascii or binary, shows. Raises ``Malformed`` and ``Untrusted`` (``tpm.ima.*``)."""
    found = Listing()
    found.entries(read_list(data).entries())
    return found
