"""The reason codes: for each, what happened in plain words, one line on how to fix it, and who can.

A code is stable: once released it is never renamed or reused. It is the same word in API, CLI, log and documentation.
Families are kept in one dict literal each: to add a code, add a row to its family (or add a family and name it in
`_FAMILIES`). A row is ``"code": (what, fix, retry, ask)``: `retry` says whether the same request may succeed later
without anybody changing anything, `ask` names the party that can act: submitter, host admin, operator, developer.

A test finds every code that the three packages raise and fails when one is missing here, or listed here and never used.
A row whose code ends in ``.*`` stands for an open-ended family such as ``policy.forbid.<id>``.
"""

from dataclasses import dataclass
from typing import TypeAlias

Rows: TypeAlias = dict[str, tuple[str, str, bool, str]]


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason code as it is explained to people."""

    code: str
    what: str
    fix: str
    retry: bool
    ask: str


_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_SUBMITTER = "submitter"

_CBOR: Rows = {
    "cbor.size": (
        "The message is larger than this kind of message may be.",
        "Send less: shorten arguments, inputs or logs.",
        False,
        _SUBMITTER,
    ),
    "cbor.syntax": (
        "The bytes are not CBOR within the limits allowed here.",
        "Use a client of the same release; the message may be cut short.",
        False,
        _DEV,
    ),
    "cbor.tag": (
        "The message has a CBOR tag that has no place there.",
        "Leave out tags, bignums, dates and references.",
        False,
        _DEV,
    ),
    "cbor.type": (
        "The message has a kind of value that is not allowed.",
        "Use integers, strings, arrays, maps, booleans and null only; no floats.",
        False,
        _DEV,
    ),
    "cbor.range": ("The message has an integer beyond 64 bits.", "Keep integers within 64 bits.", False, _DEV),
    "cbor.key": ("A map key is neither integer nor string.", "Use integer, byte or text keys.", False, _DEV),
    "cbor.not-deterministic": (
        "The message is CBOR, but not in the one accepted encoding.",
        "Encode as in RFC 8949 section 4.2.1: shortest forms, keys in order, nothing after the end.",
        False,
        _DEV,
    ),
}

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

_FAMILIES: tuple[Rows, ...] = (_CBOR, _MERKLE)

REASONS: dict[str, Reason] = {code: Reason(code, *row) for family in _FAMILIES for code, row in family.items()}


def explain(code: str) -> Reason:
    """Return the reason registered for `code`, or for the longest open-ended family it belongs to.

    Raises `KeyError` when neither is registered.
    """
    if code in REASONS:
        return REASONS[code]
    words = code.split(".")
    for length in range(len(words) - 1, 0, -1):
        family = ".".join(words[:length]) + ".*"
        if family in REASONS:
            return REASONS[family]
    raise KeyError(code)
