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
    "http.size": (
        "The request's body is larger than it may be.",
        "Send less; evidence with a long measurement list needs a challenge that is still open.",
        False,
        _DEV,
    ),
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
    "lease.devices": (
        "Other GPUs or switches answer for the job than those it was granted with.",
        "Start the job again on the devices that the host has now, once somebody can say why they changed.",
        False,
        _OPERATOR,
    ),
    "limit.renewals": (
        "The job has used all the renewals that it asked for.",
        "Continue from the checkpoint, with more renewals.",
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
    "collateral.unavailable": (
        "What the vendor says about the host's GPUs is not at hand, or has run out.",
        "Look at interlock-verifier collateral status: let the verifier fetch it, or import it.",
        True,
        _OPERATOR,
    ),
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
    "service.policy-key": (
        "This verifier has no policy key yet: it was made by an earlier release.",
        "Stop it, run interlock-verifier make-policy-key, start it, and enrol the hosts again.",
        False,
        _OPERATOR,
    ),
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
    "anchor.not-authority": (
        "A certificate to be imported is no authority's.",
        "Import the manufacturer's root and the authorities below it, not the certificate of one TPM.",
        False,
        _OPERATOR,
    ),
    "anchor.unknown": (
        "A root to be imported is not one that is known.",
        "Compare its fingerprint with what its owner publishes; then import it with --name and --assurance.",
        False,
        _OPERATOR,
    ),
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

_COLLATERAL = {
    "gpu.policy.value": (
        "A value in gpu.toml is missing, unknown, or of the wrong kind.",
        "Correct the line that is named; policies/gpu.toml says what each name means.",
        False,
        _OPERATOR,
    ),
    "collateral.size": (
        "Collateral is larger than any that is genuine, or empty.",
        "Nothing was kept, or judged on. Compare the file, or rim_url and ocsp_url, with NVIDIA's own.",
        False,
        _OPERATOR,
    ),
    "collateral.id": (
        "What was asked for or imported has no id that reference measurements have.",
        "Name the file by its id, such as NV_GPU_DRIVER_GH100_550.90.07.xml, or give --id.",
        False,
        _OPERATOR,
    ),
    "collateral.format": (
        "Collateral cannot be read.",
        "It must be a RIM (XML), an OCSP response or a revocation list (DER), with an end to its validity.",
        False,
        _OPERATOR,
    ),
    "collateral.policy": (
        "No policy names the roots under which reference measurements are signed.",
        "interlock-verifier policy load PATH, with gpu.toml",
        False,
        _OPERATOR,
    ),
    "collateral.version": (
        "The document is of another version than its id says.",
        "Get the document of this id again.",
        False,
        _OPERATOR,
    ),
    "collateral.response": (
        "The answer about a certificate is not one by its issuer, or not a current one.",
        "Somebody may answer in NVIDIA's place; compare ocsp_url with NVIDIA's own, and the time.",
        True,
        _OPERATOR,
    ),
    "collateral.pinned": (
        "Another document was offered in the place of one that the policy pins.",
        "To take the new one, compare it, then add its SHA-256 to rim_pins in gpu.toml.",
        False,
        _OPERATOR,
    ),
    "collateral.older": (
        "What is kept already is newer than what was offered.",
        "Nothing: the newer one stays.",
        False,
        _OPERATOR,
    ),
    "collateral.changed": (
        "Something else was kept in the same place at the same time.",
        "Import it again: it is compared with what is there now.",
        True,
        _OPERATOR,
    ),
    "collateral.full": (
        "So much collateral is kept that nothing new fits.",
        "interlock-verifier collateral status shows what is kept and when it was used; only a new store begins empty.",
        False,
        _OPERATOR,
    ),
    "collateral.rate": (
        "One node caused more fetches in a minute than all its devices need.",
        "Look at that node: its evidence names ever new documents.",
        True,
        _OPERATOR,
    ),
    "collateral.timeout": (
        "A service for collateral did not answer in time.",
        "Look at the network and the proxy setting, or import (collateral import).",
        True,
        _OPERATOR,
    ),
    "collateral.unreachable": (
        "A service for collateral could not be reached.",
        "Look at the network and the proxy setting, or import (collateral import).",
        True,
        _OPERATOR,
    ),
    "collateral.redirect": (
        "A service for collateral points to another address, which is not followed.",
        "Correct rim_url or ocsp_url, where NVIDIA has moved its service.",
        False,
        _OPERATOR,
    ),
    "collateral.status": (
        "A service for collateral has no such document, or failed.",
        "404: NVIDIA has not published it, so use another driver or VBIOS. Else wait.",
        True,
        _OPERATOR,
    ),
    "collateral.encoding": (
        "A service answers compressed, which was not asked for.",
        "Look at what stands between: a proxy or a mirror.",
        False,
        _OPERATOR,
    ),
    "collateral.host": (
        "A certificate names no revocation list on a host that is allowed.",
        "Add the host to crl_hosts in settings.toml, if it is the issuer's.",
        False,
        _OPERATOR,
    ),
    "collateral.json": (
        "The service for reference measurements does not answer as NVIDIA's does.",
        "Compare rim_url with NVIDIA's own.",
        False,
        _OPERATOR,
    ),
    "collateral.sha256": (
        "The service states another digest than its document has.",
        "Try again; if it stays, somebody changes what NVIDIA sends.",
        True,
        _OPERATOR,
    ),
    "collateral.expired": (
        "Collateral that is in use has run out and no new one was had.",
        "interlock-verifier collateral status; look at the network, or import newer files.",
        True,
        _OPERATOR,
    ),
    "node.gpus": (
        "The devices to pin are not what evidence showed, or are named wrongly.",
        "Pin from an allowed job, or name identities as interlock-verifier node gpus shows them.",
        False,
        _OPERATOR,
    ),
}

SERVICE = (_HTTP, _CHALLENGE, _GRANT, _VERIFIER, _OPERATING, _COLLATERAL)
