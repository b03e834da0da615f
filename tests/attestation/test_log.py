"""Records, checkpoints and receipts: what is accepted, and each way in which they are refused."""

from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation import cbor, log, merkle
from attestation.cose import EDDSA, ES256, PublicKey, SoftwareSigner, sign1
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.log import Checkpoint, Note, NoteSignature, Record

LOG = SoftwareSigner.generate(EDDSA)
OTHER = SoftwareSigner.generate(EDDSA)
EC = SoftwareSigner.generate(ES256)
ORIGIN = "verifier.example/log"

RECORD = Record(
    kind="decision",
    time=1_760_000_000,
    job=bytes(range(16)),
    sequence=3,
    count=4,
    outcome="deny",
    reasons=("authz.role", "tpm.pcr.mismatch"),
    determining=("forbid-debug",),
    digests={"policy": bytes(32), "intent": b"\x01" * 32},
    node="node-1",
    submitter=b"\x02" * 32,
    detail="PCR 7 differs",
)
GENESIS = Record(kind="genesis", time=1_760_000_000, outcome="begun", digests={})


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [RECORD, GENESIS, RECORD.numbered(0), replace(RECORD, reasons=(), detail=None)])
def test_record_writes_back(record: Record) -> None:
    assert Record.from_bytes(record.to_bytes()) == record


def test_record_layout_is_frozen() -> None:
    assert GENESIS.to_bytes().hex() == "a6016767656e65736973021a68e778000665626567756e0780088009a0"
    assert log.leaf_hash(GENESIS.to_bytes()) == merkle.leaf_hash(GENESIS.to_bytes())


def test_numbering_gives_place_and_count() -> None:
    numbered = replace(RECORD, sequence=None, count=None).numbered(63)
    assert (numbered.sequence, numbered.count) == (63, 64)
    assert replace(numbered, sequence=3, count=4) == RECORD


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        pytest.param("record.kind", {1: "debug"}, id="unknown kind"),
        pytest.param("record.outcome", {6: ""}, id="no outcome"),
        pytest.param("record.sequence", {4: 4}, id="sequence is not count minus one"),
        pytest.param("record.sequence", {5: 3}, id="count is the sequence"),
        pytest.param("record.sequence", {3: None}, id="place without a job"),
        pytest.param("record.sequence", {4: None, 5: None}, id="job without a place"),
        pytest.param("record.sequence", {4: None}, id="count without a sequence"),
        pytest.param("record.sequence", {5: None}, id="sequence without a count"),
        pytest.param("record.sequence", {3: None, 4: None}, id="count without a job"),
        pytest.param("record.sequence", {4: None, 5: 1}, id="count of a sequence that is absent"),
        pytest.param("wire.order", {7: ["b", "a"]}, id="reasons not sorted"),
        pytest.param("wire.order", {7: ["a", "a"]}, id="a reason twice"),
        pytest.param("wire.order", {8: ["b", "a"]}, id="determining policies not sorted"),
        pytest.param("wire.size", {7: [f"{n:03}" for n in range(129)]}, id="too many reasons"),
        pytest.param("wire.size", {3: bytes(15)}, id="short job id"),
        pytest.param("wire.size", {9: {"policy": bytes(31)}}, id="short digest"),
        pytest.param("wire.size", {12: "x" * 4097}, id="long detail"),
        pytest.param("wire.size", {6: "x" * 33}, id="long outcome"),
        pytest.param("wire.size", {7: ["x" * 129]}, id="long reason"),
        pytest.param("wire.size", {8: ["x" * 257]}, id="long name of a policy"),
        pytest.param("wire.size", {9: {f"{n:02}": bytes(32) for n in range(65)}}, id="too many digests"),
        pytest.param("wire.size", {10: "x" * 129}, id="long node"),
        pytest.param("wire.size", {11: bytes(31)}, id="short key id"),
        pytest.param("wire.missing", {9: None}, id="no digests"),
        pytest.param("wire.unknown", {13: 1}, id="unknown label"),
        pytest.param("wire.type", {2: "now"}, id="time as text"),
    ],
)
def test_refused_record(reason: str, changes: dict[int, Any]) -> None:
    value = RECORD.to_value() | changes
    data = cbor.encode({label: item for label, item in value.items() if item is not None})
    with pytest.raises(Malformed) as caught:
        Record.from_bytes(data)
    assert caught.value.reason == reason


# --- notes and checkpoints -------------------------------------------------------------------------------------------

# The example of golang.org/x/mod/sumdb/note: a key, and a note that it signed.
NEUMANN = b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
NEUMANN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def test_known_note() -> None:
    key = PublicKey.from_crypto(Ed25519PublicKey.from_public_bytes(NEUMANN[1:]))
    note = Note.from_bytes(NEUMANN_NOTE)
    (line,) = note.signatures
    assert (line.name, line.key_id.hex()) == ("PeterNeumann", "c74f20a3")
    assert log.key_id("PeterNeumann", key) == line.key_id
    key.verify(note.text.encode(), line.signature)
    assert note.to_bytes() == NEUMANN_NOTE


ROOT = merkle.leaf_hash(b"root")
NOTE = log.sign_checkpoint(LOG, ORIGIN, 42, ROOT)


def test_checkpoint_verifies() -> None:
    assert log.verify_checkpoint(NOTE, LOG.public, ORIGIN) == Checkpoint(ORIGIN, 42, ROOT)
    assert NOTE.startswith(f"{ORIGIN}\n42\n{b64encode(ROOT).decode()}\n\n— {ORIGIN} ".encode())
    assert Note.from_bytes(NOTE).to_bytes() == NOTE


def test_the_largest_note() -> None:
    line = NOTE[NOTE.index(b"\n\n") :]
    whole = b"x" * (16384 - len(line)) + line
    assert Note.from_bytes(whole).to_bytes() == whole
    with pytest.raises(Malformed, match=r"note\.size"):
        Note.from_bytes(b"x" + whole)


def test_signatures_of_witnesses_are_kept() -> None:
    witness = NoteSignature("witness.example", b"\1\2\3\4", bytes(64))
    cosigned = replace(Note.from_bytes(NOTE), signatures=(witness, *Note.from_bytes(NOTE).signatures)).to_bytes()
    assert log.verify_checkpoint(cosigned, LOG.public, ORIGIN).size == 42
    assert Note.from_bytes(cosigned).signatures[0] == witness


def signed(text: str, signer: SoftwareSigner = LOG, name: str = ORIGIN) -> bytes:
    line = NoteSignature(name, log.key_id(name, signer.public), signer.sign(text.encode()))
    return Note(text, (line,)).to_bytes()


B64_ROOT = b64encode(ROOT).decode()


@pytest.mark.parametrize(
    ("reason", "note"),
    [
        pytest.param("note.size", NOTE + b"x" * 16384, id="too long"),
        pytest.param("note.text", b"\xff" + NOTE, id="not UTF-8"),
        pytest.param("note.text", NOTE.replace(b"\n\n", b"\n"), id="no blank line"),
        pytest.param("note.text", NOTE[:-1], id="no newline at the end"),
        pytest.param("note.text", b"", id="empty"),
        pytest.param("note.signature", NOTE.replace("— ".encode(), b"- "), id="hyphen for a dash"),
        pytest.param("note.text", NOTE + b"\n", id="blank line at the end"),
        pytest.param("note.text", f"{ORIGIN}\n42\n{B64_ROOT}\n\n\n".encode(), id="empty signature line"),
        pytest.param("note.signature", NOTE[:-1] + b" \n", id="space after the signature"),
        pytest.param("note.signature", NOTE[:-2] + b"\n", id="base64 without its end"),
        pytest.param("note.signature", NOTE[:-1] + b"\xc3\xa9\n", id="base64 beyond ASCII"),
        pytest.param("note.signature", f"x\n\n— a+b {B64_ROOT}\n".encode(), id="plus in the key's name"),
        pytest.param("note.signature", f"x\n\n— a\tb {B64_ROOT}\n".encode(), id="tab in the key's name"),
        pytest.param("note.signature", f"x\n\n— {ORIGIN} AAAAAA==\n".encode(), id="key id alone"),
        pytest.param("note.signature", f"x\n\n— {ORIGIN} AAAAAAB=\n".encode(), id="base64 with stray bits"),
        pytest.param("checkpoint.lines", signed(f"{ORIGIN}\n42\n{B64_ROOT}\nextension\n"), id="extension line"),
        pytest.param("checkpoint.lines", signed(f"{ORIGIN}\n42\n"), id="no root"),
        pytest.param("checkpoint.lines", signed(f"\n{ORIGIN}\n42\n{B64_ROOT}\n"), id="blank line first"),
        pytest.param("checkpoint.origin", signed(f"\n42\n{B64_ROOT}\n"), id="no origin"),
        pytest.param("checkpoint.origin", signed(f"a b\n42\n{B64_ROOT}\n"), id="space in the origin"),
        pytest.param("checkpoint.size", signed(f"{ORIGIN}\n042\n{B64_ROOT}\n"), id="leading zero"),
        pytest.param("checkpoint.size", signed(f"{ORIGIN}\n-42\n{B64_ROOT}\n"), id="below zero"),
        pytest.param("checkpoint.size", signed(f"{ORIGIN}\n4٢\n{B64_ROOT}\n"), id="digits of another script"),
        pytest.param("checkpoint.size", signed(f"{ORIGIN}\n{10**19}\n{B64_ROOT}\n"), id="size beyond 63 bits"),
        pytest.param("checkpoint.root", signed(f"{ORIGIN}\n42\nAAAA\n"), id="short root"),
        pytest.param("checkpoint.root", signed(f"{ORIGIN}\n42\n{B64_ROOT[:-1]}\n"), id="root without padding"),
        pytest.param("checkpoint.root", signed(f"{ORIGIN}\n42\n{B64_ROOT}\r\n"), id="carriage return"),
        pytest.param("checkpoint.other-log", signed(f"other.example\n42\n{B64_ROOT}\n"), id="another log"),
        pytest.param("checkpoint.unsigned", signed(f"{ORIGIN}\n42\n{B64_ROOT}\n", OTHER), id="another key"),
        pytest.param("checkpoint.unsigned", signed(f"{ORIGIN}\n42\n{B64_ROOT}\n", name="x"), id="another key name"),
        pytest.param("checkpoint.unsigned", NOTE + NOTE[NOTE.index(b"\n\n") + 2 :], id="signed twice"),
        pytest.param("cose.signature", NOTE.replace(b"\n42\n", b"\n43\n"), id="another size"),
        pytest.param("cose.signature", NOTE.replace(B64_ROOT.encode(), b64encode(bytes(32))), id="another root"),
    ],
)
def test_refused_checkpoint(reason: str, note: bytes) -> None:
    with pytest.raises((Malformed, Untrusted)) as caught:
        log.verify_checkpoint(note, LOG.public, ORIGIN)
    assert caught.value.reason == reason


def test_checkpoint_text_must_be_utf8() -> None:
    with pytest.raises(Malformed, match=r"checkpoint\.lines"):
        Checkpoint.from_bytes(b"\xff\n1\n" + B64_ROOT.encode() + b"\n")


def test_checkpoint_text_ends_with_its_third_line() -> None:
    text = f"{ORIGIN}\n42\n{B64_ROOT}\n"
    assert Checkpoint.from_bytes(text.encode()).size == 42
    with pytest.raises(Malformed, match=r"checkpoint\.lines"):
        Checkpoint.from_bytes(f"{text}more".encode())


def test_a_log_key_is_ed25519() -> None:
    with pytest.raises(Untrusted, match=r"checkpoint\.key"):
        log.verify_checkpoint(NOTE, EC.public, ORIGIN)
    with pytest.raises(Untrusted, match=r"checkpoint\.key"):
        log.sign_checkpoint(EC, ORIGIN, 42, ROOT)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 8 * len(NOTE) - 1))
def test_no_bit_of_a_checkpoint_may_change(bit: int) -> None:
    changed = bytearray(NOTE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InterlockError):
        log.verify_checkpoint(bytes(changed), LOG.public, ORIGIN)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_a_note_that_is_read_writes_back(data: bytes) -> None:
    try:
        note = Note.from_bytes(data)
    except Malformed:
        return
    assert note.to_bytes() == data


# --- receipts --------------------------------------------------------------------------------------------------------

LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(7)]
GROWTH = merkle.Growth(0, ())
for _leaf in LEAVES:
    GROWTH.append(_leaf)
PATH = GROWTH.path(4)
RECEIPT = log.make_receipt(LOG, GROWTH.root(), 7, 4, PATH)


def test_receipt_verifies() -> None:
    assert log.verify_receipt(RECEIPT, LEAVES[4], LOG.public) == (7, 4, GROWTH.root())


def test_receipt_is_as_rfc_9942_says() -> None:
    message = cbor.decode(RECEIPT, max_size=4096, tags=frozenset({18}))
    assert isinstance(message, cbor.Tagged)
    protected, unprotected, payload, _signature = message.value
    assert cbor.decode(protected, max_size=512) == {1: -8, 4: LOG.public.kid, 16: log.RECEIPT_TYP, 395: 1}
    assert unprotected == {396: {-1: [cbor.encode([7, 4, list(PATH)])]}}
    assert payload is None


def test_a_tree_of_one_has_no_receipt() -> None:
    with pytest.raises(ValueError, match="one leaf"):
        log.make_receipt(LOG, LEAVES[0], 1, 0, ())


def test_the_last_of_many_has_a_receipt_of_legal_size() -> None:
    path = [bytes(32)] * 63
    size = (1 << 63) - 1
    root = merkle.root_of_inclusion(LEAVES[0], 0, size, path)
    assert log.verify_receipt(log.make_receipt(LOG, root, size, 0, path), LEAVES[0], LOG.public) == (size, 0, root)


PROOF = cbor.encode([7, 4, list(PATH)])


def receipt(proofs: Any, tree: Any = 1, typ: str = log.RECEIPT_TYP, signer: SoftwareSigner = LOG) -> bytes:
    unprotected = {} if proofs is None else {396: proofs}
    return sign1(signer, typ=typ, payload=GROWTH.root(), protected={395: tree}, unprotected=unprotected, detached=True)


def proof(*items: Any) -> dict[int, Any]:
    return {-1: [cbor.encode(list(items))]}


@pytest.mark.parametrize(
    ("reason", "token"),
    [
        pytest.param("cbor.size", RECEIPT + bytes(4096), id="too long"),
        pytest.param("cbor.syntax", RECEIPT[:-1], id="cut short"),
        pytest.param("cose.typ", receipt(proof(7, 4, PATH), typ="application/interlock-grant+cose"), id="a grant"),
        pytest.param(
            "cose.payload",
            sign1(
                LOG,
                typ=log.RECEIPT_TYP,
                payload=GROWTH.root(),
                protected={395: 1},
                unprotected={396: {-1: [PROOF]}},
            ),
            id="payload attached",
        ),
        pytest.param("receipt.tree", receipt(proof(7, 4, PATH), tree=2), id="another kind of tree"),
        pytest.param(
            "receipt.tree",
            sign1(LOG, typ=log.RECEIPT_TYP, payload=GROWTH.root(), unprotected={396: {-1: [PROOF]}}, detached=True),
            id="no kind of tree",
        ),
        pytest.param("receipt.proof", receipt(None), id="no proof"),
        pytest.param("receipt.proof", receipt({}), id="no kind of proof"),
        pytest.param("receipt.proof", receipt({-1: []}), id="no inclusion proof"),
        pytest.param("receipt.proof", receipt({-1: [PROOF, PROOF]}), id="two inclusion proofs"),
        pytest.param("receipt.proof", receipt({-1: [PROOF], -2: [PROOF]}), id="a consistency proof with it"),
        pytest.param("receipt.proof", receipt({-2: [PROOF]}), id="a consistency proof"),
        pytest.param("receipt.proof", receipt({-1: [[7, 4, list(PATH)]]}), id="proof not in a byte string"),
        pytest.param("receipt.proof", receipt({-1: PROOF}), id="proof not in an array"),
        pytest.param("receipt.proof", receipt(proof(7, 4, [])), id="empty path"),
        pytest.param("receipt.proof", receipt(proof(7, 4)), id="no path"),
        pytest.param("receipt.proof", receipt(proof(7, 4, list(PATH), 0)), id="a fourth element"),
        pytest.param("receipt.proof", receipt(proof(7, b"\4", list(PATH))), id="index as bytes"),
        pytest.param("receipt.proof", receipt(proof(True, 0, list(PATH))), id="size as truth"),
        pytest.param("receipt.proof", receipt(proof(7, False, list(PATH))), id="index as truth"),
        pytest.param("receipt.proof", receipt(proof(7, 4, [*PATH[:-1], "x"])), id="hash as text"),
        pytest.param("cbor.not-deterministic", receipt({-1: [PROOF + b"\0"]}), id="bytes after the proof"),
        pytest.param("merkle.index", receipt(proof(4, 4, list(PATH))), id="index beyond the tree"),
        pytest.param("merkle.index", receipt(proof(7, -4, list(PATH))), id="index below zero"),
        pytest.param("merkle.path", receipt(proof(7, 4, list(PATH[:-1]))), id="path cut"),
        pytest.param("merkle.hash", receipt(proof(7, 4, [*PATH[:-1], b"x"])), id="short hash"),
        pytest.param("cose.kid", receipt(proof(7, 4, list(PATH)), signer=OTHER), id="another log"),
        pytest.param("cose.alg", receipt(proof(7, 4, list(PATH)), signer=EC), id="another kind of key"),
        pytest.param("cose.signature", receipt(proof(7, 5, list(PATH))), id="the neighbour's index"),
        pytest.param("cose.signature", receipt(proof(7, 4, list(PATH[::-1]))), id="path upside down"),
        pytest.param("cose.signature", RECEIPT[:-1] + bytes([RECEIPT[-1] ^ 1]), id="signature altered"),
    ],
)
def test_refused_receipt(reason: str, token: bytes) -> None:
    with pytest.raises((Malformed, Untrusted)) as caught:
        log.verify_receipt(token, LEAVES[4], LOG.public)
    assert caught.value.reason == reason


def test_a_receipt_is_for_its_own_leaf_only() -> None:
    for number in (0, 1, 2, 3, 5, 6):
        with pytest.raises(Untrusted, match=r"cose\.signature"):
            log.verify_receipt(RECEIPT, LEAVES[number], LOG.public)
    with pytest.raises(Malformed, match=r"merkle\.hash"):
        log.verify_receipt(RECEIPT, b"", LOG.public)
