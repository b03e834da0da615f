"""Reason codes of the verifier service: requests, challenges, grants, enrolment, administration.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``.
"""

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_SUBMITTER = "submitter"
_AGAIN = "Ask for a fresh challenge and answer that one."
_OURS = "Look at the verifier's own log; report it to the developers with the lines found there."

_HTTP = {
    "http.size": ("The request's body is larger than it may be.", "Send less.", False, _DEV),
    "http.type": ("The request's body is of a type that is not read here.", "Send application/cbor.", False, _DEV),
    "http.rate": ("Too many requests that name nobody known.", "Wait a second.", True, _ADMIN),
    "http.path": ("There is nothing at this address.", "Use software of the same release.", False, _DEV),
    "http.query": ("A parameter of the address is not what it must be.", "Correct the parameter.", False, _DEV),
    "watch.full": (
        "Too many hosts wait for hints.",
        "Renew in time; raise watchers in settings.toml.",
        True,
        _OPERATOR,
    ),
    "denial.class": ("The denial has a class that is not known.", "Use software of the same release.", False, _DEV),
    "denial.empty": ("The denial gives no reason.", "Use software of the same release.", False, _DEV),
}

_CHALLENGE = {
    "challenge.too-many": ("The node has too many open challenges.", "Wait until they expire.", True, _ADMIN),
}

_GRANT = {
    "lease.lapsed": (
        "The host was silent for longer than a frozen job is kept.",
        "Start the job again from its last checkpoint.",
        False,
        _SUBMITTER,
    ),
    "limit.renewals": (
        "The job has used all the renewals that it asked for.",
        "Continue from the checkpoint, with more renewals.",
        False,
        _SUBMITTER,
    ),
    "intent.secrets": (
        "The request asks for secrets, which are not released yet.",
        "Leave the secrets out of the request.",
        False,
        _SUBMITTER,
    ),
    "intent.inputs": (
        "The request names inputs to be verified, which is not done yet.",
        "Leave the inputs out of the request and put small ones into the code tree.",
        False,
        _SUBMITTER,
    ),
    "intent.parent": (
        "The request names a parent grant; child jobs are not granted here yet.",
        "Ask for a grant of its own.",
        False,
        _SUBMITTER,
    ),
    "renew.grant": ("Evidence for a renewal names no grant.", "Use software of the same release.", False, _DEV),
    "report.second": (
        "Another report about this grant is in the log.",
        "Nothing: the first one counts.",
        False,
        _ADMIN,
    ),
}

_VERIFIER = {
    "verifier.failed": ("The verifier failed, so the answer is no.", _OURS, True, _OPERATOR),
    "verifier.busy": ("The verifier could not finish among too many changes.", "Ask again.", True, _OPERATOR),
    "verifier.untrusted": (
        "The verifier does not trust itself at the moment and issues nothing.",
        "Look at its /health page: log, signer, clock, store.",
        True,
        _OPERATOR,
    ),
    "clock.step": (
        "The verifier's clock was set, or the log is from the future.",
        "Correct the clock, then restart the verifier.",
        True,
        _OPERATOR,
    ),
    "policy.none": (
        "The verifier has no policy, so nothing is allowed.",
        "interlock-verifier policy load PATH",
        True,
        _OPERATOR,
    ),
    "references.none": (
        "The verifier has no reference values.",
        "interlock-verifier policy load PATH",
        True,
        _OPERATOR,
    ),
    "anchors.none": ("The verifier has no trust anchors.", "interlock-verifier policy load PATH", True, _OPERATOR),
}

_OPERATING = {
    "service.key": ("A key file is missing, or of the wrong kind.", "Restore the keys directory.", False, _OPERATOR),
    "service.key-readable": ("Others can read a private key.", "chmod 600 the file that is named.", False, _OPERATOR),
    "service.file": (
        "The verifier's settings.toml cannot be read.",
        "Run init, give the right --dir, or be the user that the verifier runs as.",
        False,
        _OPERATOR,
    ),
    "service.syntax": (
        "The verifier's settings.toml is not TOML.",
        "Correct the line that is named.",
        False,
        _OPERATOR,
    ),
    "service.name": ("In settings.toml a name is unknown, or missing.", "Correct the name.", False, _OPERATOR),
    "service.value": ("In settings.toml a value is of the wrong kind.", "Correct the value.", False, _OPERATOR),
    "service.exists": (
        "There is a verifier in this directory already.",
        "Choose another directory; nothing is overwritten.",
        False,
        _OPERATOR,
    ),
    "anchor.file": ("A trust anchor cannot be read.", "See docs/operating.md, trust anchors.", False, _OPERATOR),
    "anchor.assurance": ("A trust anchor has no known assurance.", "Write hardware or test.", False, _OPERATOR),
    "ref.unknown": ("There is no such reference value.", "interlock-verifier refs list", False, _OPERATOR),
    "admin.argument": ("An argument of the command is wrong.", "See --help.", False, _OPERATOR),
    "admin.command": ("There is no such command.", "Use software of the same release.", False, _OPERATOR),
    "system.refused": (
        "The operating system refused something that the command needs.",
        "The detail names it: be the right user, make room, or free what is in use.",
        True,
        _OPERATOR,
    ),
    "admin.busy": (
        "Another process has the verifier's store, and does not answer.",
        "Wait until it has started or stopped, then try again.",
        True,
        _OPERATOR,
    ),
}

SERVICE = (_HTTP, _CHALLENGE, _GRANT, _VERIFIER, _OPERATING)
