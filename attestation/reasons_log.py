"""Reason codes of the log and of the verifier's store. Rows as in :mod:`attestation.reasons`."""

Rows = dict[str, tuple[str, str, bool, str]]

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_SUBMITTER = "submitter"
_BUNDLE_AGAIN = "Fetch the bundle again; if it stays so, keep both and raise an incident."
_ALARM = "Keep the bundle as evidence and raise an incident: the verifier or its records were tampered with."
_TOKEN = "Ask the operator for a new token."  # noqa: S105 - advice, not a secret
_SLOW = "Ask for a new challenge; if this happens often, look at the host's TPM and network."

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

_STORE: Rows = {
    "log.unavailable": (
        "The verifier cannot write its log, so it issues nothing.",
        "Look at the verifier's disk; it goes on by itself once it can write again.",
        True,
        _OPERATOR,
    ),
    "log.overloaded": ("The verifier has more to write than it can.", "Try again in a moment.", True, _OPERATOR),
    "log.corrupt": (
        "The verifier's log contradicts itself or its signed checkpoint.",
        "Keep the files as evidence; restore the store from a copy whose checkpoint is the newest known.",
        False,
        _OPERATOR,
    ),
    "challenge.exists": ("The verifier drew a challenge twice.", "Ask again.", True, _DEV),
    "challenge.redeemed": ("The challenge was used before.", "Ask for a new challenge and quote again.", True, _ADMIN),
    "challenge.expired": ("The answer came after the challenge expired.", _SLOW, True, _ADMIN),
    "challenge.node": ("The challenge was issued to another node.", "Ask for your own challenge.", False, _ADMIN),
    "challenge.outdated": (
        "The challenge asked for other PCRs than the policy that is in force now.",
        "Ask for a new challenge and quote again.",
        True,
        _ADMIN,
    ),
    "challenge.unknown": ("No such challenge is open.", "Ask for a new challenge and quote again.", True, _ADMIN),
    "intent.replayed": ("This signed request was used before.", "Sign a new request.", False, _SUBMITTER),
    "enrol.token-exists": ("This enrolment token was issued before.", "Issue a new token.", False, _OPERATOR),
    "enrol.token-unknown": ("The enrolment token is not known.", _TOKEN, False, _OPERATOR),
    "enrol.token-used": ("The enrolment token was used before.", _TOKEN, False, _OPERATOR),
    "enrol.token-expired": ("The enrolment token has expired.", _TOKEN, False, _OPERATOR),
    "enrol.session-exists": ("This enrolment was begun before.", "Begin again.", True, _ADMIN),
    "enrol.session-unknown": ("No such enrolment has begun, or it is over.", "Begin again.", True, _ADMIN),
    "enrol.session-expired": ("The enrolment took too long.", "Begin again.", True, _ADMIN),
    "node.duplicate-ek": (
        "This TPM is enrolled as another node.",
        "Use that node, or enrol it again under its name.",
        False,
        _OPERATOR,
    ),
    "node.duplicate-name": ("A node has this name already.", "Choose another name.", False, _OPERATOR),
    "node.duplicate-holder": ("Another node has this holder key.", "Make a new key on this host.", False, _ADMIN),
    "node.clock": (
        "The TPM's reset counters dropped: it was cleared or exchanged.",
        "Enrol the host again.",
        False,
        _OPERATOR,
    ),
    "node.changed": ("The node changed while the request was decided.", "Try again.", True, _ADMIN),
    "submitter.changed": ("The submitter changed while the request was decided.", "Try again.", True, _SUBMITTER),
    "usage.changed": ("Another job began while the request was decided.", "Try again.", True, _SUBMITTER),
    "version.changed": ("The policy or reference values changed meanwhile.", "Try again.", True, _OPERATOR),
    "version.unknown": ("There is no such version.", "Load it first.", False, _OPERATOR),
    "version.no-blob": ("The version's content is not archived.", "Archive it first.", False, _DEV),
    "grant.exists": ("The verifier drew the id of a grant twice.", "Ask again.", True, _DEV),
    "grant.unknown": ("No such grant was issued.", "Ask for a grant.", False, _ADMIN),
    "grant.conflict": ("Another lease of this grant was issued meanwhile.", "Use that one.", True, _ADMIN),
    "grant.revoked": (
        "The grant was revoked.",
        "Ask who revoked it; submit the job again if it may run.",
        False,
        _OPERATOR,
    ),
    "grant.ended": ("The grant's job is over, or never began.", "Submit the job again.", False, _SUBMITTER),
}

_BUNDLE: Rows = {
    "bundle.profile": ("The file is no bundle, or one of another release.", "Use a newer release.", False, _DEV),
    "bundle.empty": ("The bundle has no record.", _BUNDLE_AGAIN, False, _OPERATOR),
    "bundle.order": ("The consistency proofs are in another order.", _BUNDLE_AGAIN, False, _OPERATOR),
    "bundle.job": ("A record in the bundle is about another job.", _BUNDLE_AGAIN, False, _OPERATOR),
    "bundle.missing": ("Records of this job are missing.", _BUNDLE_AGAIN, False, _OPERATOR),
    "bundle.sequence": ("The records are not in the order of the log.", _BUNDLE_AGAIN, False, _OPERATOR),
    "bundle.archive": ("What a record rests on is missing, altered or more.", _BUNDLE_AGAIN, False, _OPERATOR),
    "bundle.unnamed": ("A record does not name what it rests on.", _ALARM, False, _OPERATOR),
    "bundle.submitter": ("The intent was signed by another key than the record says.", _ALARM, False, _OPERATOR),
    "bundle.intent": ("The records of one job are about several intents.", _ALARM, False, _OPERATOR),
    "bundle.challenge": ("The evidence answers another challenge than was asked.", _ALARM, False, _OPERATOR),
    "bundle.nonce": ("Two pieces of evidence answer one challenge: a replay.", _ALARM, False, _OPERATOR),
    "bundle.grant": ("The grant is not the one that was decided on.", _ALARM, False, _OPERATOR),
    "bundle.receipt": ("The receipt is for another entry of the log.", _ALARM, False, _OPERATOR),
    "bundle.consistency": (
        "A tree that the log signed for this job has no consistency proof, or one that no receipt asks for is there.",
        _BUNDLE_AGAIN,
        False,
        _OPERATOR,
    ),
    "bundle.agreement": ("Grant and decision are about different things.", _ALARM, False, _OPERATOR),
    "bundle.leases": ("Leases and their records do not fit.", _ALARM, False, _OPERATOR),
    "bundle.code": ("Other code ran than was granted.", _ALARM, False, _OPERATOR),
    "bundle.workload": (
        "The evidence of one job shows other jobs of its boot than other evidence of it.",
        _ALARM,
        False,
        _OPERATOR,
    ),
    "bundle.claims": ("The evidence, appraised again, gives other claims.", _ALARM, False, _OPERATOR),
    "bundle.facts": ("The decision rests on other facts than were proven.", _ALARM, False, _OPERATOR),
    "bundle.decision": ("The policy, asked again, decides otherwise.", _ALARM, False, _OPERATOR),
    "audit.file": (
        "The file cannot be read or written.",
        "Check its name, and that you may read or write it.",
        False,
        _OPERATOR,
    ),
    "audit.empty": ("The file is empty.", "Get it again; it was cut short on its way.", False, _OPERATOR),
    "audit.large": ("The file is larger than any of its kind.", "Check that it is the right file.", False, _OPERATOR),
    "audit.directory": ("A file is needed, and this is a directory.", "Name a file in it.", False, _OPERATOR),
    "root.keys": ("The file of public keys is not grant key and log key.", "Get root.pem again.", False, _OPERATOR),
}

LOG: tuple[Rows, ...] = (_MERKLE, _LOG, _STORE, _BUNDLE)
