"""Reason codes of the ground floor: encodings, keys, signed messages, certificate chains.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``.
"""

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_SUBMITTER = "submitter"

_CBOR = {
    "cbor.size": (
        "The message is larger than this kind of message may be.",
        "Send less: shorten arguments, inputs or logs.",
        False,
        _SUBMITTER,
    ),
    "cbor.items": (
        "The message has more parts than this kind of message may have.",
        "Send less: fewer inputs, outputs or records.",
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

_KEY = {
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

_COSE = {
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
    "cose.header.kid": (
        "The name of the key has another length than a key's name has.",
        "Name the key by its thumbprint (RFC 9679).",
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

_CHAIN = {
    "chain.size": (
        "The certificate chain is too long or too large.",
        "Send the device's own chain only.",
        False,
        _ADMIN,
    ),
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

FLOOR = (_CBOR, _KEY, _COSE, _CHAIN)
