"""The log: what one entry says, what the log signs about all of them, and the proof that an entry is in it.

========== ============================================================ =============================================
Record     one entry; its bytes are the leaf                            deterministic CBOR, docs/formats.md "Record"
Checkpoint origin, size and root of the tree, signed by the log         C2SP tlog-checkpoint, in a C2SP signed-note
Receipt    inclusion of one record under a root, signed by the log      RFC 9942, a COSE_Sign1 with detached payload
========== ============================================================ =============================================

A :class:`Note` is read without being believed; a :class:`Checkpoint` comes out of :func:`verify_checkpoint` only.
Extension lines of a checkpoint are refused: this log writes none, so one accepted encoding stays one. A note may bear
signatures of others (witnesses); they are kept, and not looked at.
"""

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from attestation import cbor, merkle
from attestation.cose import EDDSA, VDP, VDS, PublicKey, Signer, read_sign1, sign1
from attestation.errors import Malformed, Untrusted
from attestation.merkle import leaf_hash
from attestation.wire import Wire, label, wire

__all__ = [
    "KINDS",
    "Checkpoint",
    "Note",
    "NoteSignature",
    "Promise",
    "Record",
    "key_id",
    "leaf_hash",
    "make_receipt",
    "sign_checkpoint",
    "verify_checkpoint",
    "verify_receipt",
]

KINDS = ("genesis", "enrol", "decision", "lease", "report", "admin")


@wire
class Record(Wire):
    """One entry of the log. ``time`` in Unix seconds; ``digests`` are SHA-256 of the bytes archived under them.

    ``sequence`` counts the records of one job from 0 and ``count`` is their number up to this one, so that a record
    that is left out shows; both are given by the log, see :meth:`numbered`.
    """

    kind: str = label(1, most=16)
    time: int = label(2)
    job: bytes | None = label(3, size=16, default=None)
    sequence: int | None = label(4, default=None)
    count: int | None = label(5, default=None)
    outcome: str = label(6, most=32)
    reasons: tuple[str, ...] = label(7, most=128, ordered=True, default=())
    determining: tuple[str, ...] = label(8, most=256, ordered=True, default=())
    digests: Mapping[str, bytes] = label(9, size=32, most=64)
    node: str | None = label(10, most=128, default=None)
    submitter: bytes | None = label(11, size=32, default=None)
    detail: str | None = label(12, most=4096, default=None)

    def check(self) -> None:
        """Raise ``Malformed`` for an unknown kind, no outcome, or a place in a job that is not one."""
        if self.kind not in KINDS:
            raise Malformed("record.kind", f"{self.kind!r} is not one of {', '.join(KINDS)}")
        if not self.outcome:
            raise Malformed("record.outcome", "a record says what came out")
        count = None if self.sequence is None else self.sequence + 1
        if (self.job is None) != (self.sequence is None) or self.count != count:
            raise Malformed("record.sequence", f"sequence {self.sequence} and count {self.count} do not fit")

    def numbered(self, sequence: int) -> "Record":
        """This record of a job as number ``sequence`` of that job, from 0."""
        return replace(self, sequence=sequence, count=sequence + 1)


# --- checkpoints -----------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,256}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SIGNATURE = re.compile("\u2014 ([^ ]+) ([^ ]+)")
_ED25519 = b"\x01"
_ED25519_SIZE = 32  # the last bytes of the SubjectPublicKeyInfo (RFC 8410 section 4)
_MAX_NOTE = 16384
_KEY_ID_SIZE = 4


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: the key's name, its 4-byte id, the signature."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A C2SP signed-note, as read: ``text`` is what is signed, with its last newline. Believed by nobody yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> "Note":
        """Read a note. Raises ``Malformed("note.*")``. C2SP signed-note, "Format"."""
        if len(data) > _MAX_NOTE:
            raise Malformed("note.size", f"{len(data)} bytes, {_MAX_NOTE} allowed")
        text, blank, tail = _text(data, "note.text").rpartition("\n\n")
        if not blank or not tail.endswith("\n"):
            raise Malformed("note.text", "no blank line between text and signatures, or no newline at the end")
        signatures = tuple(_signature_line(line) for line in tail[:-1].split("\n"))
        return cls(text + "\n", signatures)

    def to_bytes(self) -> bytes:
        """The note as it is kept and sent."""
        lines = [f"\u2014 {s.name} {b64encode(s.key_id + s.signature).decode()}\n" for s in self.signatures]
        return "".join((self.text, "\n", *lines)).encode()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log signed: the tree of ``size`` entries has this ``root`` (C2SP tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def from_bytes(cls, text: bytes) -> "Checkpoint":
        """Read the text of a note. Raises ``Malformed("checkpoint.*")``."""
        lines = _text(text, "checkpoint.lines").split("\n")
        if len(lines) != 4 or lines[3]:  # origin, size, root, and nothing after the last newline
            raise Malformed("checkpoint.lines", "a checkpoint is three lines: origin, size, root")
        origin, size, root = lines[:3]
        if not _NAME.fullmatch(origin):
            raise Malformed("checkpoint.origin", "the origin is empty, or has spaces, plus or control characters")
        if not _SIZE.fullmatch(size):
            raise Malformed("checkpoint.size", "the size is not a decimal number without leading zeros")
        digest = _base64(root, "checkpoint.root")
        if len(digest) != merkle.HASH_SIZE:
            raise Malformed("checkpoint.root", f"{len(digest)} bytes, must be {merkle.HASH_SIZE}")
        return cls(origin, int(size), digest)

    def to_bytes(self) -> bytes:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n".encode()


def sign_checkpoint(signer: Signer, origin: str, size: int, root: bytes) -> bytes:
    """The signed note of the tree of ``size`` entries with this ``root``; the key's name is the ``origin``."""
    text = Checkpoint(origin, size, root).to_bytes()
    line = NoteSignature(origin, key_id(origin, signer.public), signer.sign(text))
    return Note(text.decode(), (line,)).to_bytes()


def verify_checkpoint(note: bytes, key: PublicKey, origin: str) -> Checkpoint:
    """The checkpoint, if the log ``origin`` signed it with ``key``; else ``Malformed`` or ``Untrusted``.

    1. The bytes are a signed note, its text a checkpoint, and both have no other encoding.
    2. It is from the log that is asked about.
    3. It bears exactly one signature by this key (name and key id).
    4. That signature is over the text.
    """
    # (1)
    read = Note.from_bytes(note)
    text = read.text.encode()
    checkpoint = Checkpoint.from_bytes(text)
    # (2)
    if checkpoint.origin != origin:
        raise Untrusted("checkpoint.other-log", f"from {checkpoint.origin!r}, not from {origin!r}")
    # (3)
    wanted = (origin, key_id(origin, key))
    ours = [line.signature for line in read.signatures if (line.name, line.key_id) == wanted]
    if len(ours) != 1:
        raise Untrusted("checkpoint.unsigned", f"{len(ours)} signatures by the pinned log key, must be one")
    # (4)
    key.verify(text, ours[0])
    return checkpoint


def key_id(name: str, key: PublicKey) -> bytes:
    """C2SP signed-note, "Signature types": the id of an Ed25519 key under a name."""
    if key.alg != EDDSA:
        raise Untrusted("checkpoint.key", "a log key is Ed25519")
    raw = key.spki[-_ED25519_SIZE:]
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + raw).digest()[:_KEY_ID_SIZE]


def _text(data: bytes, reason: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(reason, "not UTF-8") from error


def _signature_line(line: str) -> NoteSignature:
    match = _SIGNATURE.fullmatch(line)
    if match is None or not _NAME.fullmatch(match[1]):
        raise Malformed("note.signature", "a signature line is a dash, a name and base64")
    raw = _base64(match[2], "note.signature")
    if len(raw) <= _KEY_ID_SIZE:
        raise Malformed("note.signature", "key id without a signature")
    return NoteSignature(match[1], raw[:_KEY_ID_SIZE], raw[_KEY_ID_SIZE:])


def _base64(text: str, reason: str) -> bytes:
    """Standard base64 with padding, in its one encoding (RFC 4648 section 4 and 3.5)."""
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(reason, "not base64") from error
    if b64encode(raw).decode() != text:
        raise Malformed(reason, "base64 in another than the one encoding")
    return raw


# --- receipts --------------------------------------------------------------------------------------------------------

RECEIPT_TYP = "application/interlock-receipt+cose"
_MAX_RECEIPT = 4096
_RFC9162_SHA256 = 1
_INCLUSION = -1


class Promise(NamedTuple):
    """What a receipt says: entry number ``entry`` is in the tree of ``size`` entries with this ``root``."""

    size: int
    entry: int
    root: bytes


def make_receipt(signer: Signer, root: bytes, size: int, index: int, path: Sequence[bytes]) -> bytes:
    """The log's receipt: leaf ``index`` is in the tree of ``size`` leaves with this ``root`` (RFC 9942 section 5.2).

    A tree of one leaf has an empty path, which RFC 9942 cannot say: ``ValueError``. A log begins with a genesis record.
    """
    if not path:
        raise ValueError("a tree of one leaf has no receipt")
    numbers = cbor.head(cbor.UNSIGNED, size), cbor.head(cbor.UNSIGNED, index)
    heads = cbor.head(cbor.ARRAY, 3), *numbers, cbor.head(cbor.ARRAY, len(path))
    proof = b"".join((*heads, *map(cbor.byte_string, path)))
    return sign1(
        signer,
        typ=RECEIPT_TYP,
        payload=root,
        protected={VDS: _RFC9162_SHA256},
        unprotected={VDP: {_INCLUSION: [proof]}},
        detached=True,
    )


def verify_receipt(token: bytes, leaf: bytes, key: PublicKey) -> Promise:
    """What the receipt says, if the log has signed that ``leaf`` (a leaf hash) is in its tree; else it raises.

    1. The token is a strict COSE_Sign1 of the receipt type with a detached payload.
    2. Its protected header says that the tree is RFC9162_SHA256.
    3. Its unprotected header holds one inclusion proof, with at least one hash.
    4. The proof leads from the leaf to a root (``Malformed("merkle.*")`` where no tree has such a path).
    5. ``key`` has signed that root.
    """
    # (1)
    unverified = read_sign1(
        token,
        typ=RECEIPT_TYP,
        max_size=_MAX_RECEIPT,
        protected=frozenset({VDS}),
        unprotected=frozenset({VDP}),
        detached=True,
    )
    # (2)
    if unverified.unverified_protected.get(VDS) != _RFC9162_SHA256:
        raise Malformed("receipt.tree", "the receipt is about another kind of tree than RFC9162_SHA256")
    # (3)
    size, index, path = _inclusion_proof(unverified.unverified_unprotected.get(VDP))
    # (4)
    root = merkle.root_of_inclusion(leaf, index, size, path)
    # (5)
    unverified.verify(key, root)
    return Promise(size, index, root)


def _inclusion_proof(proofs: cbor.Value) -> tuple[int, int, list[bytes]]:
    """Size, index and path of a receipt's only proof (RFC 9942 section 5.2.1)."""
    match proofs:
        case {-1: [bytes(encoded)], **others} if not others:
            proof = cbor.decode(encoded, max_size=_MAX_RECEIPT)
        case _:
            raise Malformed("receipt.proof", "a receipt holds one inclusion proof and nothing else")
    match proof:
        case [int(size), int(index), [_, *_] as path]:
            hashes = [item for item in path if isinstance(item, bytes)]
        case _:
            raise Malformed("receipt.proof", "a proof is tree size, leaf index and at least one hash")
    if len(hashes) != len(path) or bool in (type(size), type(index)):
        raise Malformed("receipt.proof", "size and index are integers, hashes are byte strings")
    return size, index, hashes
