"""The Merkle tree of the log: hashing, proofs, and growing by a batch (RFC 9162 section 2.1).

A tree over ``n`` leaves is addressed by *complete* subtrees: node ``(level, index)`` covers the leaves
``index << level`` up to ``(index + 1) << level``. Complete subtrees never change when the tree grows, so a store that
keeps each of them answers every proof for every past size, and nothing that it wrote is written again.

============================  ==================================================  ====================
hash of the empty tree        SHA-256()                                           section 2.1.1
hash of a leaf                SHA-256(0x00 || entry)                              section 2.1.1
hash of an inner node         SHA-256(0x01 || left || right)                      section 2.1.1
inclusion proof               :func:`prove_inclusion`, :func:`verify_inclusion`   section 2.1.3
consistency proof             :func:`prove_consistency`, :func:`verify_consistency`   section 2.1.4
============================  ==================================================  ====================

Left out on purpose: subtree proofs (draft-ietf-plants-merkle-tree-certs), which nothing here issues or reads, and
consistency from the empty tree, which says nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

from attestation.errors import Malformed, Untrusted

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()

Node = tuple[int, int]
Fetch = Callable[[int, int], bytes]
"""``fetch(level, index)`` gives the hash of a complete subtree of the tree."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf whose content is ``entry`` (RFC 9162 section 2.1.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node over the hashes of its children (RFC 9162 section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` (a leaf hash) is leaf ``index`` of the tree of ``size`` leaves with this ``root``.

    Raises ``Malformed("merkle.*")`` for a path that no tree has, ``Untrusted("merkle.inclusion")`` for another root.
    RFC 9162 section 2.1.3.2.
    """
    if root_of_inclusion(leaf, index, size, path) != root:
        raise Untrusted("merkle.inclusion", f"leaf {index} is not in the tree of {size} with this root")


def root_of_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion path leads to; whoever calls this must then compare or verify that root.

    Raises ``Malformed``: ``merkle.index`` unless 0 <= index < size, ``merkle.path`` for a path of another length than
    this index and size have, ``merkle.hash`` for a hash that is not 32 bytes. RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise Malformed("merkle.index", f"leaf {index} of {size}")
    _check_hashes((leaf, *path))
    position, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Malformed("merkle.path", "longer than the tree is high")
        if position & 1 or position == last:
            skip = _trailing_zeros(position)
            result = node_hash(sibling, result)
        else:
            skip = 0
            result = node_hash(result, sibling)
        position, last = position >> skip + 1, last >> skip + 1
    if last != 0:
        raise Malformed("merkle.path", "shorter than the tree is high")
    return result


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree ``(size1, root1)`` is a prefix of the tree ``(size2, root2)``.

    Raises ``Malformed("merkle.*")`` for sizes or a path that no two trees have, ``Untrusted("merkle.consistency")``
    for roots that disagree. RFC 9162 section 2.1.4.2.
    """
    if not 0 < size1 <= size2:
        raise Malformed("merkle.size", f"from {size1} to {size2}")
    _check_hashes(path)
    if size1 != size2:
        roots = _roots_of_consistency(size1, size2, root1, path)
    elif path:
        raise Malformed("merkle.path", "two trees of one size need no path")
    else:
        roots = root1, root1
    if roots != (root1, root2):
        raise Untrusted("merkle.consistency", f"the tree of {size1} is not a prefix of the tree of {size2}")


def _roots_of_consistency(size1: int, size2: int, root1: bytes, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots that a consistency path leads to (RFC 9162 section 2.1.4.2, steps 2 to 7)."""
    skip = _trailing_zeros(size1)
    position, last = size1 - 1 >> skip, size2 - 1 >> skip
    steps = list(path) if position else [root1, *path]
    if not steps:
        raise Malformed("merkle.path", "empty")
    first = second = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise Malformed("merkle.path", "longer than the tree is high")
        if position & 1 or position == last:
            skip = _trailing_zeros(position)
            first, second = node_hash(sibling, first), node_hash(sibling, second)
        else:
            skip = 0
            second = node_hash(second, sibling)
        position, last = position >> skip + 1, last >> skip + 1
    if last != 0:
        raise Malformed("merkle.path", "shorter than the tree is high")
    return first, second


def prove_inclusion(index: int, size: int, fetch: Fetch) -> tuple[bytes, ...]:
    """The path from leaf ``index`` to the root of the tree of ``size`` leaves, lowest sibling first.

    Raises ``IndexError`` unless 0 <= index < size. RFC 9162 section 2.1.3.1.
    """
    if not 0 <= index < size:
        raise IndexError(f"leaf {index} of {size}")
    low, high = 0, size
    path: list[bytes] = []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(range_hash(middle, high, fetch))
            high = middle
        else:
            path.append(range_hash(low, middle, fetch))
            low = middle
    return tuple(reversed(path))


def prove_consistency(size1: int, size2: int, fetch: Fetch) -> tuple[bytes, ...]:
    """The path that shows the tree of ``size1`` leaves to be a prefix of the tree of ``size2``.

    Raises ``IndexError`` unless 0 < size1 <= size2. RFC 9162 section 2.1.4.1.
    """
    if not 0 < size1 <= size2:
        raise IndexError(f"from {size1} to {size2}")
    low, high = 0, size2
    path: list[bytes] = []
    while size1 != high:
        middle = low + _split(high - low)
        if size1 <= middle:
            path.append(range_hash(middle, high, fetch))
            high = middle
        else:
            path.append(range_hash(low, middle, fetch))
            low = middle
    if low:
        path.append(range_hash(low, high, fetch))
    return tuple(reversed(path))


def root_hash(size: int, fetch: Fetch) -> bytes:
    """The root of the tree of ``size`` leaves, from its complete subtrees (RFC 9162 section 2.1.1)."""
    return range_hash(0, size, fetch) if size else EMPTY_ROOT


def range_hash(low: int, high: int, fetch: Fetch) -> bytes:
    """The hash over the leaves ``low`` up to ``high``, not empty, where ``low`` is a bound that the tree splits at."""
    hashes = [fetch(level, index) for level, index in complete_subtrees(low, high)]
    result = hashes.pop()
    while hashes:
        result = node_hash(hashes.pop(), result)
    return result


def complete_subtrees(low: int, high: int) -> Iterator[Node]:
    """The greatest complete subtrees, left to right, that cover the leaves ``low`` up to ``high``."""
    while low < high:
        level = (high - low).bit_length() - 1
        yield level, low >> level
        low += 1 << level


class Growth:
    """A tree that grows by one batch of leaves, in memory, and proves each of them.

    It needs from the tree before only the *frontier*: the complete subtrees of :func:`complete_subtrees` over
    ``0..size``. A sibling of a new leaf is new itself, or holds part of the batch, or is one of these: a subtree left
    of leaf ``i >= size`` whose parent covers ``i`` ends at or before ``size`` only if it is in the frontier.
    """

    def __init__(self, size: int, frontier: Iterable[bytes]) -> None:
        """Start from the tree of ``size`` leaves whose frontier has these hashes, left to right."""
        self.start = size
        self.size = size
        self._nodes: dict[Node, bytes] = dict(zip(complete_subtrees(0, size), frontier, strict=True))
        self._known = frozenset(self._nodes)
        self._paths: dict[Node, tuple[bytes, ...]] = {}

    def append(self, leaf: bytes) -> int:
        """Add one leaf hash; returns its index. Proofs made before are of the smaller tree."""
        nodes = self._nodes
        index = self.size
        nodes[0, index] = leaf
        level, position, result = 0, index, leaf
        while position & 1:
            result = node_hash(nodes[level, position - 1], result)
            level, position = level + 1, position >> 1
            nodes[level, position] = result
        self.size = index + 1
        self._paths.clear()
        return index

    def new_nodes(self) -> Iterator[tuple[int, int, bytes]]:
        """Level, index and hash of each complete subtree that the batch completed."""
        known = self._known
        return ((*node, value) for node, value in self._nodes.items() if node not in known)

    def frontier(self) -> tuple[bytes, ...]:
        """The frontier of the tree as it is now, for the next batch."""
        return tuple(self._nodes[node] for node in complete_subtrees(0, self.size))

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        return root_hash(self.size, self._fetch)

    def path(self, index: int) -> tuple[bytes, ...]:
        """The inclusion path of a leaf of this batch in the tree as it is now (as :func:`prove_inclusion`)."""
        if not self.start <= index < self.size:
            raise IndexError(f"leaf {index} is not in the batch {self.start}..{self.size}")
        return self._above(0, index)

    def _above(self, level: int, index: int) -> tuple[bytes, ...]:
        """The path from a node up to the root; what is above its parent is made once for both children."""
        last = (self.size - 1) >> level
        if last == 0:
            return ()
        parent = (level + 1, index >> 1)
        path = self._paths.get(parent)
        if path is None:
            path = self._paths[parent] = self._above(*parent)
        sibling = index ^ 1
        if sibling > last:
            return path
        value = self._nodes.get((level, sibling)) or range_hash(sibling << level, self.size, self._fetch)
        return (value, *path)

    def _fetch(self, level: int, index: int) -> bytes:
        return self._nodes[level, index]


def _split(size: int) -> int:
    """The greatest power of two smaller than ``size`` (>= 2)."""
    return 1 << (size - 1).bit_length() - 1


def _trailing_zeros(number: int) -> int:
    """How many times ``number`` (> 0) can be halved."""
    return (number & -number).bit_length() - 1


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise Malformed("merkle.hash", f"{len(value)} bytes, must be {HASH_SIZE}")
