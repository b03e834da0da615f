"""Reason codes of the protocol's own objects: formats, evidence, reference values, grants, leases, enrolment.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``.
"""

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_SUBMITTER = "submitter"
_SAME = "Use software of the same release on both sides."
_AGAIN = "Ask again: every answer fits one question only."

WIRE = {
    "wire.type": ("A field has a value of the wrong kind.", _SAME, False, _DEV),
    "wire.range": ("A number is outside the range that its field allows.", "Keep within the range shown.", False, _DEV),
    "wire.size": ("A field is longer, or shorter, than it may be.", "Keep within the length shown.", False, _DEV),
    "wire.order": ("A list that must be sorted is not.", "Sort the list and leave out repetitions.", False, _DEV),
    "wire.missing": ("A field is missing.", _SAME, False, _DEV),
    "wire.unknown": ("The object has a field that is not known here.", _SAME, False, _DEV),
}

INTENT = {
    "intent.empty": ("The request names no job or no command.", "Give a job name and a command.", False, _SUBMITTER),
    "intent.name": (
        "A name in the request cannot be shown as it is.",
        "Leave control characters and line ends out of names.",
        False,
        _SUBMITTER,
    ),
    "intent.time": (
        "The request was signed more than a day ago, or in the future.",
        "Sign it again; if it is new, set the clock of the machine that signs.",
        False,
        _SUBMITTER,
    ),
    "intent.gpus": ("The GPU mode is not known.", "Use none, spt, mpt or ppcie.", False, _SUBMITTER),
    "submitter.state": (
        "The submitter's record has no known state.",
        "Register the submitter again.",
        False,
        _OPERATOR,
    ),
    "challenge.empty": ("The challenge asks for no PCR.", "Name at least one PCR in settings.toml.", False, _OPERATOR),
    "challenge.wants": ("The challenge contradicts itself in the logs that it asks for.", _SAME, False, _DEV),
}

EVIDENCE = {
    "evidence.record": ("A part of the evidence has the wrong form.", _SAME, False, _DEV),
    "evidence.unknown-record": (
        "The evidence has a part that nobody here can appraise.",
        "Upgrade the verifier, or stop sending that part.",
        False,
        _OPERATOR,
    ),
    "evidence.nonce": ("The evidence answers another challenge.", _AGAIN, True, _ADMIN),
    "evidence.intent": ("The evidence was collected for another request.", _AGAIN, True, _ADMIN),
    "evidence.grant": ("The evidence was collected for another grant.", _AGAIN, True, _ADMIN),
    "tpm.holder.unknown": (
        "The host's holder key is not the enrolled one.",
        "Enrol the host again; its state directory may have been replaced.",
        False,
        _ADMIN,
    ),
    "tpm.pcr.mismatch": (
        "The host did not boot what it should: PCR values differ from the baseline.",
        "If the change was wanted (kernel, firmware), record a new baseline: interlock-verifier refs from-node.",
        False,
        _ADMIN,
    ),
}

REFERENCE = {
    "ref.none": (
        "There is no baseline or boot reference for the node's pool, so nothing can match.",
        "Record one: interlock-verifier refs from-node NODE --name NAME --activate.",
        False,
        _OPERATOR,
    ),
    "ref.empty": (
        "A baseline names no PCR value, or a boot reference no demand: it would match anything.",
        "Name PCR values, or demands.",
        False,
        _OPERATOR,
    ),
    "ref.state": ("A reference value has no known state.", "Use the states in docs/operating.md.", False, _OPERATOR),
    "ref.kind": ("An approval is neither for code nor for an environment.", "Use one of the two.", False, _OPERATOR),
    "ref.duplicate": ("Two reference values answer the same question.", "Leave one of them out.", False, _OPERATOR),
    "ref.expired": (
        "The baseline or reference that the host matches has expired.",
        "Renew or replace it.",
        False,
        _OPERATOR,
    ),
    "ref.pending": (
        "The baseline or reference that the host matches is not active yet.",
        "Activate it.",
        True,
        _OPERATOR,
    ),
    "ref.retired": ("The host matches a baseline or reference that was retired.", "Update the host.", False, _ADMIN),
    "ref.revoked": (
        "The host matches a baseline or reference that is known to be bad.",
        "Take the host out of service and update it.",
        False,
        _ADMIN,
    ),
    "code.expired": ("The approval of this code has expired.", "Have the code approved again.", False, _SUBMITTER),
    "environment.expired": (
        "The approval of this environment has expired.",
        "Have the environment approved again.",
        False,
        _SUBMITTER,
    ),
    "claims.outcome": ("A check in the claims has no outcome, or a failure no reason.", _SAME, False, _DEV),
    "claims.profile": ("The claims are of a profile that is not known here.", _SAME, False, _DEV),
    "claims.level": ("The claims have an unknown binding level or assurance.", _SAME, False, _DEV),
    "claims.empty": ("The claims say nothing.", _SAME, False, _DEV),
}

GRANT = {
    "grant.profile": ("The grant is of a profile that is not known here.", "Upgrade the agent.", False, _ADMIN),
    "grant.scope": ("The grant permits something else than to run a job.", "Upgrade the agent.", False, _ADMIN),
    "grant.issuer": ("The grant comes from another verifier than the one asked.", _AGAIN, True, _OPERATOR),
    "grant.node": ("The grant is for another host.", _AGAIN, True, _OPERATOR),
    "grant.holder": ("The grant is bound to another host's key.", _AGAIN, True, _OPERATOR),
    "grant.nonce": ("The grant answers another question: it was replayed.", _AGAIN, True, _OPERATOR),
    "grant.intent": ("The grant permits another job than the one asked for.", _AGAIN, True, _OPERATOR),
    "grant.limits": ("The grant permits more than was asked for.", _AGAIN, True, _OPERATOR),
    "grant.expired": ("The grant's time is over.", _AGAIN, True, _SUBMITTER),
    "grant.conditions": ("The grant names nothing that must keep holding.", _SAME, False, _OPERATOR),
    "grant.record": (
        "The log record that came with the grant did not decide on it.",
        "Keep the answer as evidence: a grant must be logged before it is given.",
        False,
        _OPERATOR,
    ),
    "grant.receipt": (
        "The grant does not carry exactly one receipt of the log.",
        "Keep the answer as evidence: a grant must be logged before it is given.",
        False,
        _OPERATOR,
    ),
    "grant.replayed": (
        "The grant was used before on this host.",
        "Ask for a new one: a grant starts one run.",
        True,
        _SUBMITTER,
    ),
    "lease.grant": ("The lease belongs to another grant.", _AGAIN, True, _OPERATOR),
    "lease.sequence": ("The lease is not the next one of its grant.", _AGAIN, True, _OPERATOR),
    "lease.chain": ("The lease does not follow the one that is held.", _AGAIN, True, _OPERATOR),
    "lease.nonce": ("The lease answers another challenge: it was replayed.", _AGAIN, True, _OPERATOR),
    "lease.tpm": (
        "The lease does not say what the TPM has to enforce, or its policy signature is missing or cut short.",
        "Bring agent and verifier to one release; if they are, keep the answer as evidence.",
        False,
        _OPERATOR,
    ),
    "lease.approval": (
        "The policy signature that came with the lease is not this verifier's for this TPM.",
        "Keep the answer as evidence: somebody altered it on its way. Then submit the job again.",
        True,
        _OPERATOR,
    ),
    "lease.duration": ("The lease's expiry and duration disagree.", _SAME, False, _DEV),
    "report.grant": ("The report is about another grant.", _SAME, False, _DEV),
    "report.halt": ("The report has a halt of no known class, or without a reason code.", _SAME, False, _DEV),
}

ENROLMENT = {
    "enrol.token": (
        "This is no enrolment token, or not all of it.",
        "Copy the whole line that interlock-verifier token create printed.",
        False,
        _ADMIN,
    ),
    "enrol.fingerprint": (
        "The verifier's keys are not those that the token names.",
        "Check the URL; if it is right, somebody else may be answering. Ask for a new token.",
        False,
        _OPERATOR,
    ),
    "enrol.tls": (
        "The connection does not end at the verifier that the token names.",
        "Remove proxies that end TLS between agent and verifier.",
        False,
        _OPERATOR,
    ),
    "node.policy-key": (
        "The host's holder key obeys a policy key that this verifier does not have any more.",
        "Enrol the host again: interlock-verifier token create --reenrol NODE.",
        False,
        _OPERATOR,
    ),
    "permit.retired": (
        "A retired host may sign nothing any more.",
        "Enrol it anew under another name.",
        False,
        _OPERATOR,
    ),
    "permit.plain": ("A plain holder key needs no permit.", _SAME, False, _DEV),
    "node.state": ("The node's record has no known state.", "Enrol the host again.", False, _OPERATOR),
}

PROTOCOL: dict[str, tuple[str, str, bool, str]] = {**WIRE, **INTENT, **EVIDENCE, **REFERENCE, **GRANT, **ENROLMENT}
