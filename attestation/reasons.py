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

from attestation.reasons_log import LOG
from attestation.reasons_protocol import PROTOCOL

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

_KEY: Rows = {
    "key.encoding": ("The bytes are not a key.", "Give a PEM or DER key, not encrypted.", False, _SUBMITTER),
    "key.point": ("The key's point is not on its curve.", "Make a new key; this one is damaged.", False, _SUBMITTER),
    "key.cose": (
        "The COSE_Key does not have exactly the members expected.",
        "Send kty, crv and the full coordinates, nothing else.",
        False,
        _DEV,
    ),
    "key.unsupported": (
        "The key is of a kind that is not used here.",
        "Use P-256, P-384 or Ed25519.",
        False,
        _SUBMITTER,
    ),
}

_COSE: Rows = {
    "cose.structure": (
        "The message is not a COSE_Sign1.",
        "Send tag 18 around protected header, unprotected header, payload and signature.",
        False,
        _DEV,
    ),
    "cose.header.form": (
        "A header of the signed message is not a map with integer labels.",
        "Use integer labels in the headers.",
        False,
        _DEV,
    ),
    "cose.header.label": (
        "The signed message has a header that is not understood here.",
        "Use a client of the same release, and leave out other headers.",
        False,
        _DEV,
    ),
    "cose.header.missing": (
        "The signed message lacks a protected algorithm or key name.",
        "Put alg and kid into the protected header.",
        False,
        _DEV,
    ),
    "cose.header.twice": (
        "A header is both protected and unprotected.",
        "Put each header in one place.",
        False,
        _DEV,
    ),
    "cose.header.unprotected": (
        "The signed message has unprotected headers that have no place there.",
        "Protect all headers; only a receipt may be unprotected.",
        False,
        _DEV,
    ),
    "cose.crit": (
        "The signed message marks headers as critical that are not understood.",
        "Leave out crit.",
        False,
        _DEV,
    ),
    "cose.typ": (
        "The signed message is of another kind than the one expected.",
        "Send the right message to this place.",
        False,
        _DEV,
    ),
    "cose.payload": (
        "The payload is attached where it should be detached, or the other way round.",
        "Send the payload where it is expected.",
        False,
        _DEV,
    ),
    "cose.alg": (
        "The message names another algorithm than its key has.",
        "Sign with the key's own algorithm.",
        False,
        _DEV,
    ),
    "cose.kid": (
        "The message names another key than the one that has to sign it.",
        "Sign with the key that is registered for this.",
        False,
        _SUBMITTER,
    ),
    "cose.signature.form": (
        "The signature has the wrong length, or numbers out of range.",
        "Send r and s at full width for ECDSA, 64 bytes for Ed25519.",
        False,
        _DEV,
    ),
    "cose.signature": (
        "The signature does not verify: the message was changed, or another key signed it.",
        "Sign again with the right key; if it happens in transit, look for who changes messages.",
        False,
        _OPERATOR,
    ),
}

_POLICY: Rows = {
    "policy.parse": (
        "The policy text is not Cedar, or a file of the policy directory has no acceptable form.",
        "Run policy lint: it names file and line.",
        False,
        _OPERATOR,
    ),
    "policy.schema": (
        "The schema does not parse, or a policy does not fit it.",
        "Use the attributes of schema.cedarschema with their types; run policy lint.",
        False,
        _OPERATOR,
    ),
    "policy.text": (
        "A policy text has characters that a reviewer cannot see.",
        "Remove control characters and bidirectional overrides.",
        False,
        _OPERATOR,
    ),
    "policy.pin": (
        "The protected policies are not those whose digest is pinned.",
        "Restore protected.cedar, or review the change and pin its new SHA-256 in settings.toml.",
        False,
        _OPERATOR,
    ),
    "policy.template": (
        "A policy is a template, which decides nothing.",
        "Write the principal or resource out instead of ?principal or ?resource.",
        False,
        _OPERATOR,
    ),
    "policy.attribute": (
        "A policy uses 'has', which hides a misspelt attribute.",
        "Leave 'has' out: every attribute of the schema is always there.",
        False,
        _OPERATOR,
    ),
    "policy.id": (
        "A policy has no @id, a malformed one, or one that is used twice.",
        "Give every policy its own @id of the characters a-z 0-9 . -",
        False,
        _OPERATOR,
    ),
    "policy.annotation": (
        "A policy's annotations are not those that its effect needs.",
        "A forbid has @reason and a one-line @fix, and may have @halt; a permit has @id only.",
        False,
        _OPERATOR,
    ),
    "policy.reason": (
        "A policy gives a reason code that is not one.",
        "Use policy.forbid.<its id>, or a code that begins with authz. limit. quota. or trust.",
        False,
        _OPERATOR,
    ),
    "policy.protected": (
        "A protected policy permits something.",
        "Keep permits in the operator's files: protected.cedar only forbids.",
        False,
        _OPERATOR,
    ),
    "policy.empty": ("No policy permits anything.", "Write at least one permit.", False, _OPERATOR),
    "policy.settings": (
        "The policy settings are incomplete or out of range.",
        "Name every check as required or unchecked, and at least one PCR; run policy lint.",
        False,
        _OPERATOR,
    ),
    "policy.case": (
        "A case of the policy's test table has an unknown key or a value of the wrong kind.",
        "Correct the case that the message names in cases.toml.",
        False,
        _OPERATOR,
    ),
    "policy.error": (
        "A policy could not be evaluated, so the answer is no.",
        "Tell the operator: run policy lint and policy test; a policy overflows or does not fit its schema.",
        False,
        _OPERATOR,
    ),
    "policy.no-permit": (
        "No policy permits this request, although none forbids it.",
        "Compare role, pool and limits of the request with the permits, or ask for another node.",
        False,
        _OPERATOR,
    ),
    "policy.required.*": (
        "The policy requires a check that the evidence did not pass.",
        "Enable what the check needs on the host, or ask the operator whether it may be unchecked.",
        False,
        _ADMIN,
    ),
    "policy.forbid.*": (
        "A policy of the operator forbids this.",
        "Follow the advice of that policy, which is shown with the denial.",
        False,
        _OPERATOR,
    ),
}

_DECISION: Rows = {
    "claims.unproven": (
        "The appraisal of the evidence did not affirm the host, and named no check.",
        "Send fresh evidence; if that does not help, report it to the developers.",
        True,
        _ADMIN,
    ),
    "authz.submitter": (
        "The signing key of the request is unknown or disabled.",
        "Ask the operator to register the key.",
        False,
        _SUBMITTER,
    ),
    "authz.tenant": (
        "The request names another tenant than its signer belongs to.",
        "Sign with a key of that tenant, or name your own tenant.",
        False,
        _SUBMITTER,
    ),
    "authz.role": (
        "The submitter has no role that may do this.",
        "Ask the operator for the role.",
        False,
        _SUBMITTER,
    ),
    "authz.*": ("The submitter may not do this.", "Ask the operator for the right.", False, _SUBMITTER),
    "limit.*": ("The request exceeds a limit.", "Ask for less, or wait until running jobs end.", True, _SUBMITTER),
    "quota.*": ("The tenant's quota is used up.", "Ask for less, or wait for the next period.", True, _SUBMITTER),
    "trust.*": (
        "The host does not prove enough for this request.",
        "Ask for another node, or ask its administrator what it lacks.",
        False,
        _ADMIN,
    ),
    "node.pending": (
        "The node is enrolled, and not yet active.",
        "Ask the operator to activate the node.",
        True,
        _OPERATOR,
    ),
    "node.quarantined": (
        "The node is in quarantine.",
        "Ask for another node; the operator decides when this one returns.",
        False,
        _OPERATOR,
    ),
    "node.retired": ("The node is retired.", "Ask for another node.", False, _OPERATOR),
    "node.unknown": ("The node is not in a known state.", "Enrol the host.", False, _ADMIN),
    "code.unknown": (
        "The code is not approved: nobody has approved a tree with this digest.",
        "Run the approved code unchanged, or have this tree approved.",
        False,
        _SUBMITTER,
    ),
    "code.pending": ("The code waits for approval.", "Wait for the approval.", True, _OPERATOR),
    "code.retired": ("The approval of this code has ended.", "Run the current version.", False, _SUBMITTER),
    "code.revoked": (
        "The approval of this code was revoked: the code is known to be bad.",
        "Do not run it; use the current version.",
        False,
        _SUBMITTER,
    ),
    "environment.unknown": (
        "Interpreter and packages are not an approved environment.",
        "Install the approved environment unchanged, or have this one approved.",
        False,
        _SUBMITTER,
    ),
    "environment.pending": ("The environment waits for approval.", "Wait for the approval.", True, _OPERATOR),
    "environment.retired": (
        "The approval of this environment has ended.",
        "Install the current environment.",
        False,
        _SUBMITTER,
    ),
    "environment.revoked": (
        "The approval of this environment was revoked: it is known to be bad.",
        "Install the current environment.",
        False,
        _SUBMITTER,
    ),
}

_CHAIN: Rows = {
    "chain.size": ("The certificate chain is too long or too large.", "Send the device's own chain only.", False, _ADMIN),
    "chain.certificate": (
        "The bytes are not exactly one DER certificate.",
        "Read the certificate again, without padding; a damaged one comes from the manufacturer.",
        False,
        _ADMIN,
    ),
    "chain.unknown-root": (
        "The chain does not end in a root that the operator trusts.",
        "Send the missing intermediate, or have the manufacturer's root added to the trust anchors.",
        False,
        _OPERATOR,
    ),
    "chain.signature": (
        "A certificate of the chain is not signed by the one above it.",
        "Read the chain again from the device; if it stays so, the certificate is not genuine.",
        False,
        _ADMIN,
    ),
    "chain.not-yet-valid": (
        "A certificate of the chain is not valid yet.",
        "Check the verifier's time, or wait until the certificate begins.",
        True,
        _OPERATOR,
    ),
    "chain.expired": (
        "A certificate of the chain has expired.",
        "Ask the manufacturer for a new certificate.",
        False,
        _ADMIN,
    ),
    "chain.revoked": (
        "A certificate of the chain was revoked by its issuer.",
        "Take the device out of service; ask the manufacturer why.",
        False,
        _OPERATOR,
    ),
    "chain.not-a-ca": (
        "A certificate that signs another one may not do so.",
        "The chain is not genuine, or the wrong intermediate was sent.",
        False,
        _ADMIN,
    ),
    "chain.extension": (
        "A certificate has a critical extension that is not understood.",
        "Report the certificate; it cannot be used until the extension is supported.",
        False,
        _DEV,
    ),
    "chain.name": (
        "A certificate breaks the name constraints of its issuer.",
        "The certificate is not genuine; ask the manufacturer.",
        False,
        _ADMIN,
    ),
    "chain.weak": (
        "The chain rests on a hash or key that is too weak.",
        "Ask the manufacturer for a certificate with SHA-2 and a key of at least 2048 (RSA) or 256 (EC) bits.",
        False,
        _ADMIN,
    ),
    "chain.invalid": (
        "The chain is invalid for another reason, which the detail names.",
        "Look at the detail; ask the manufacturer.",
        False,
        _ADMIN,
    ),
    "chain.crl.encoding": (
        "A certificate revocation list cannot be read.",
        "Fetch the list again.",
        False,
        _OPERATOR,
    ),
    "chain.crl.missing": (
        "There is no revocation list for a certificate of the chain.",
        "Fetch the lists of every issuer in the chain.",
        False,
        _OPERATOR,
    ),
    "chain.crl.expired": (
        "A revocation list is not current.",
        "Fetch the newest list.",
        False,
        _OPERATOR,
    ),
    "chain.crl.signature": (
        "A revocation list is not signed by its issuer.",
        "Fetch the list from the issuer.",
        False,
        _OPERATOR,
    ),
}

_FAMILIES: tuple[Rows, ...] = (_CBOR, _POLICY, _DECISION, PROTOCOL, *LOG)

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
