"""The Merkle tree against known roots, the transparency-dev vectors, and a reference written as RFC 9162 defines it.

Not run: the vectors under ``subtreeinclusion`` and ``subtreeconsistency``. They are about subtree proofs
(draft-ietf-plants-merkle-tree-certs), which the log neither issues nor reads.
"""

import json
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from attestation import merkle
from attestation.errors import InterlockError, Malformed, Untrusted
from tests import vectors

# The eight entries of the reference tree of Certificate Transparency, and its root at each size.
ENTRIES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(40)]


def reference_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


def fetch(level: int, index: int) -> bytes:
    """A complete subtree of the tree over LEAVES."""
    return reference_root(LEAVES[index << level : (index + 1) << level])


REFERENCE = [reference_root(LEAVES[:size]) for size in range(len(LEAVES) + 1)]


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size: int) -> None:
    growth = merkle.Growth(0, ())
    for entry in ENTRIES[:size]:
        growth.append(merkle.leaf_hash(entry))
    assert growth.root().hex() == ROOTS[size]
    assert reference_root([merkle.leaf_hash(entry) for entry in ENTRIES[:size]]).hex() == ROOTS[size]


def test_known_node() -> None:
    assert merkle.node_hash(merkle.leaf_hash(ENTRIES[0]), merkle.leaf_hash(ENTRIES[1])).hex() == ROOTS[2]
    assert merkle.EMPTY_ROOT.hex() == ROOTS[0]


def cases(kind: str) -> list[Any]:
    root = vectors.ROOT / "vectors/merkle/testdata" / kind
    return [pytest.param(path, id=str(path.relative_to(root))) for path in sorted(root.rglob("*.json"))]


def outcome(check: Callable[[], None], wanted: bool) -> None:
    if wanted:
        with pytest.raises(InterlockError):
            check()
    else:
        check()


@pytest.mark.parametrize("path", cases("inclusion"))
def test_inclusion_vector(path: Any) -> None:
    case = json.loads(path.read_text())
    proof = [b64decode(item) for item in case["proof"] or ()]
    leaf, root = b64decode(case["leafHash"]), b64decode(case["root"])
    outcome(
        lambda: merkle.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root),
        case["wantErr"],
    )


@pytest.mark.parametrize("path", cases("consistency"))
def test_consistency_vector(path: Any) -> None:
    case = json.loads(path.read_text())
    proof = [b64decode(item) for item in case["proof"] or ()]
    root1, root2 = b64decode(case["root1"]), b64decode(case["root2"])
    outcome(
        lambda: merkle.verify_consistency(case["size1"], case["size2"], root1, root2, proof),
        case["wantErr"],
    )


def test_all_vectors_are_there() -> None:
    vectors.path("vectors/merkle/testdata")
    assert len(cases("inclusion")) == 98
    assert len(cases("consistency")) == 98


def test_every_inclusion_proof_verifies_and_fits_no_other_place() -> None:
    for size in range(1, len(LEAVES) + 1):
        for index in range(size):
            path = merkle.prove_inclusion(index, size, fetch)
            merkle.verify_inclusion(LEAVES[index], index, size, path, REFERENCE[size])
            with pytest.raises(InterlockError):
                merkle.verify_inclusion(LEAVES[index], (index + 1) % (size + 1), size, path, REFERENCE[size])
            with pytest.raises(Untrusted):
                merkle.verify_inclusion(LEAVES[index], index, size, path, REFERENCE[size - 1])


def test_every_consistency_proof_verifies_and_fits_no_other_tree() -> None:
    for size2 in range(1, len(LEAVES) + 1):
        for size1 in range(1, size2 + 1):
            path = merkle.prove_consistency(size1, size2, fetch)
            merkle.verify_consistency(size1, size2, REFERENCE[size1], REFERENCE[size2], path)
            with pytest.raises(InterlockError):
                merkle.verify_consistency(size1, size2, REFERENCE[size1 - 1], REFERENCE[size2], path)
            with pytest.raises(InterlockError):
                merkle.verify_consistency(size1, size2, REFERENCE[size1], REFERENCE[size2 - 1], path)


def test_growth_gives_the_roots_paths_and_nodes_of_the_whole_tree() -> None:
    for start in range(len(LEAVES)):
        frontier = [fetch(*node) for node in merkle.complete_subtrees(0, start)]
        growth = merkle.Growth(start, frontier)
        for index in range(start, len(LEAVES)):
            assert growth.append(LEAVES[index]) == index
            assert growth.root() == REFERENCE[index + 1]
            for earlier in range(start, index + 1):
                assert growth.path(earlier) == merkle.prove_inclusion(earlier, index + 1, fetch)
        nodes = {(level, index): value for level, index, value in growth.new_nodes()}
        wanted = {
            (level, index): fetch(level, index)
            for level in range(6)
            for index in range(len(LEAVES) >> level)
            if (index + 1) << level > start
        }
        assert nodes == wanted
        assert growth.frontier() == tuple(fetch(*node) for node in merkle.complete_subtrees(0, len(LEAVES)))


def test_growth_proves_only_its_own_batch() -> None:
    growth = merkle.Growth(2, (fetch(1, 0),))
    growth.append(LEAVES[2])
    for index in (1, 3, -1):
        with pytest.raises(IndexError):
            growth.path(index)


def test_growth_refuses_a_frontier_of_another_size() -> None:
    for frontier in ((), (LEAVES[0],), (LEAVES[0],) * 3):
        with pytest.raises(ValueError, match="argument 2"):
            merkle.Growth(3, frontier)


def test_root_of_the_stored_tree() -> None:
    assert [merkle.root_hash(size, fetch) for size in range(len(LEAVES) + 1)] == REFERENCE


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (5, 4), (0, 0), (0, -1)])
def test_no_inclusion_proof_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(IndexError):
        merkle.prove_inclusion(index, size, fetch)


@pytest.mark.parametrize(("size1", "size2"), [(0, 4), (5, 4), (-1, 4), (0, 0), (1, 0)])
def test_no_consistency_proof_outside_the_tree(size1: int, size2: int) -> None:
    with pytest.raises(IndexError):
        merkle.prove_consistency(size1, size2, fetch)


PATH_5_OF_11 = merkle.prove_inclusion(5, 11, fetch)
PATH_0_OF_1: tuple[bytes, ...] = ()


@pytest.mark.parametrize(
    ("reason", "leaf", "index", "size", "path"),
    [
        pytest.param("merkle.index", LEAVES[5], 11, 11, PATH_5_OF_11, id="index is the size"),
        pytest.param("merkle.index", LEAVES[5], -1, 11, PATH_5_OF_11, id="index below zero"),
        pytest.param("merkle.index", LEAVES[0], 0, 0, (), id="the empty tree"),
        pytest.param("merkle.hash", LEAVES[5][:31], 5, 11, PATH_5_OF_11, id="short leaf"),
        pytest.param("merkle.hash", LEAVES[5], 5, 11, (*PATH_5_OF_11[:3], b""), id="empty sibling"),
        pytest.param("merkle.hash", LEAVES[5], 5, 11, (PATH_5_OF_11[0] + b"\0", *PATH_5_OF_11[1:]), id="long sibling"),
        pytest.param("merkle.path", LEAVES[5], 5, 11, PATH_5_OF_11[:3], id="path cut at the root"),
        pytest.param("merkle.path", LEAVES[5], 5, 11, (), id="no path"),
        pytest.param("merkle.path", LEAVES[5], 5, 11, (*PATH_5_OF_11, LEAVES[0]), id="path past the root"),
        pytest.param("merkle.path", LEAVES[0], 0, 1, (LEAVES[1],), id="path in a tree of one"),
        pytest.param("merkle.inclusion", LEAVES[5], 5, 11, PATH_5_OF_11[::-1], id="path upside down"),
        pytest.param("merkle.inclusion", LEAVES[5], 4, 11, PATH_5_OF_11, id="the neighbour's index"),
        pytest.param("merkle.inclusion", LEAVES[4], 5, 11, PATH_5_OF_11, id="the neighbour's leaf"),
    ],
)
def test_refused_inclusion(reason: str, leaf: bytes, index: int, size: int, path: tuple[bytes, ...]) -> None:
    with pytest.raises((Malformed, Untrusted)) as caught:
        merkle.verify_inclusion(leaf, index, size, path, REFERENCE[11])
    assert caught.value.reason == reason


STEPS_6_TO_11 = merkle.prove_consistency(6, 11, fetch)
STEPS_4_TO_11 = merkle.prove_consistency(4, 11, fetch)


@pytest.mark.parametrize(
    ("reason", "size1", "size2", "path"),
    [
        pytest.param("merkle.size", 0, 11, STEPS_6_TO_11, id="from the empty tree"),
        pytest.param("merkle.size", 12, 11, STEPS_6_TO_11, id="backwards"),
        pytest.param("merkle.size", -6, 11, STEPS_6_TO_11, id="size below zero"),
        pytest.param("merkle.path", 11, 11, STEPS_6_TO_11, id="a path for one and the same tree"),
        pytest.param("merkle.path", 6, 11, (), id="no path"),
        pytest.param("merkle.path", 4, 11, (), id="no path from a complete tree"),
        pytest.param("merkle.path", 6, 11, STEPS_6_TO_11[:-1], id="path cut at the root"),
        pytest.param("merkle.path", 6, 11, (*STEPS_6_TO_11, LEAVES[0]), id="path past the root"),
        pytest.param("merkle.hash", 6, 11, (STEPS_6_TO_11[0][:-1], *STEPS_6_TO_11[1:]), id="short hash"),
        pytest.param("merkle.hash", 4, 11, (*STEPS_4_TO_11[:-1], b""), id="empty hash"),
        pytest.param("merkle.consistency", 6, 11, STEPS_6_TO_11[::-1], id="path upside down"),
        pytest.param("merkle.consistency", 6, 11, (LEAVES[0], *STEPS_6_TO_11[1:]), id="another start"),
        pytest.param("merkle.consistency", 4, 11, (*STEPS_4_TO_11[:-1], LEAVES[0]), id="another end"),
        pytest.param("merkle.consistency", 5, 5, (), id="one size, two roots"),
    ],
)
def test_refused_consistency(reason: str, size1: int, size2: int, path: tuple[bytes, ...]) -> None:
    root1 = REFERENCE[size1] if 0 <= size1 <= 11 else REFERENCE[6]
    root2 = REFERENCE[11] if size2 == 11 else LEAVES[0]
    with pytest.raises((Malformed, Untrusted)) as caught:
        merkle.verify_consistency(size1, size2, root1, root2, path)
    assert caught.value.reason == reason
