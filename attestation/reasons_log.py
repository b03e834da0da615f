"""Reason codes of the log and of the verifier's store. Rows as in :mod:`attestation.reasons`."""

Rows = dict[str, tuple[str, str, bool, str]]

_DEV = "developer"
_OPERATOR = "operator"

_MERKLE: Rows = {
    "merkle.index": ("The proof is about a leaf that the tree does not have.", "Get a new proof.", False, _DEV),
    "merkle.size": ("The trees that a consistency proof joins are in no order.", "Get a new proof.", False, _DEV),
    "merkle.hash": ("A hash in the proof is not 32 bytes.", "Get a new proof.", False, _DEV),
    "merkle.path": ("The proof has more or fewer hashes than its tree is high.", "Get a new proof.", False, _DEV),
    "merkle.inclusion": (
        "The entry is not in the log where the proof says it is.",
        "Keep the file as evidence and ask for the bundle again; the log or the file was altered.",
        False,
        _OPERATOR,
    ),
    "merkle.consistency": (
        "The later log does not continue the earlier one: history was rewritten.",
        "Keep both checkpoints as evidence and raise an incident.",
        False,
        _OPERATOR,
    ),
}

_LOG: Rows = {
    "record.kind": ("The log record is of a kind that is not known here.", "Use a newer release.", False, _DEV),
    "record.outcome": ("The log record does not say what came out.", "Report this; the log is wrong.", False, _DEV),
    "record.sequence": (
        "The log record's place in its job is not one.",
        "Report this; sequence and count must be given together, with a job.",
        False,
        _DEV,
    ),
    "note.size": ("The checkpoint is larger than one may be.", "Get the checkpoint again.", False, _DEV),
    "note.text": ("The checkpoint is not a signed note.", "Get the checkpoint again, unaltered.", False, _DEV),
    "note.signature": (
        "A signature line of the checkpoint cannot be read.",
        "Get the checkpoint again, unaltered.",
        False,
        _DEV,
    ),
    "checkpoint.lines": ("The checkpoint is not origin, size and root.", "Get the checkpoint again.", False, _DEV),
    "checkpoint.origin": ("The checkpoint's origin is not a name.", "Get the checkpoint again.", False, _DEV),
    "checkpoint.size": ("The checkpoint's size is not a number.", "Get the checkpoint again.", False, _DEV),
    "checkpoint.root": ("The checkpoint's root is not a hash.", "Get the checkpoint again.", False, _DEV),
    "checkpoint.other-log": (
        "The checkpoint is from another log than the one that is asked about.",
        "Compare the log's origin with the one that you were given.",
        False,
        _OPERATOR,
    ),
    "checkpoint.unsigned": (
        "The checkpoint is not signed by the log key that you hold.",
        "Get the verifier's public keys from a source that you trust, then the checkpoint again.",
        False,
        _OPERATOR,
    ),
    "checkpoint.key": ("The key that you hold is no log key.", "Give the log's Ed25519 key.", False, _OPERATOR),
    "receipt.tree": ("The receipt is about a kind of tree that is not known.", "Use a newer release.", False, _DEV),
    "receipt.proof": ("The receipt does not hold one inclusion proof.", "Get a new receipt.", False, _DEV),
}

LOG: tuple[Rows, ...] = (_MERKLE, _LOG)
