"""Reason codes of policy and decision. Rows as in :mod:`attestation.reasons`."""

from typing import TypeAlias

Rows: TypeAlias = dict[str, tuple[str, str, bool, str]]

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_SUBMITTER = "submitter"

POLICY: Rows = {
    "policy.file": (
        "A file of the policy directory is missing, too large, or not what its name says.",
        "Put the file right; policies/README.md says what belongs into the directory.",
        False,
        _OPERATOR,
    ),
    "policy.parse": (
        "The policy text is not Cedar.",
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
        "Give every policy its own @id: 1 to 64 of the characters a-z 0-9 . -",
        False,
        _OPERATOR,
    ),
    "policy.many": (
        "There are more policies than the record of a decision has room for.",
        "Join policies: 128 at most.",
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
    "policy.required.event-log": (
        "The policy requires that the boot event log is proven and meets a boot reference, and it did not.",
        "Make a boot reference for the pool (docs/references.md), and see that the host sends its log.",
        False,
        _OPERATOR,
    ),
    "policy.required.ima": (
        "The policy requires that the measurement list is proven and meets an IMA reference, and it did not.",
        "Make an IMA reference for the pool (docs/references.md), and see that the host sends its list.",
        False,
        _OPERATOR,
    ),
    "policy.required.tpm-lease": (
        "The policy requires leases that the host's TPM enforces, and the host's key works without one.",
        "Take tpm_lease = false out of agent.toml, and enrol the host again.",
        False,
        _ADMIN,
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

DECISION: Rows = {
    "decision.action": ("The archived facts name an action that does not exist.", "Use run or renew.", False, _DEV),
    "decision.contradiction": (
        "The archived decision contradicts itself.",
        "Keep the file as evidence and get it again from its source.",
        False,
        _DEV,
    ),
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
        _OPERATOR,
    ),
    "authz.tenant": (
        "The request names another tenant than its signer belongs to.",
        "Sign with a key of that tenant, or name your own tenant.",
        False,
        _OPERATOR,
    ),
    "authz.role": (
        "The submitter has no role that may do this.",
        "Ask the operator for the role.",
        False,
        _OPERATOR,
    ),
    "authz.command": (
        "What would start is not a script of the approved code tree.",
        "Start a script of the tree with python or torchrun.",
        False,
        _SUBMITTER,
    ),
    "authz.variables": (
        "The request sets variables that would load other code than was approved.",
        "Leave out variables such as LD_PRELOAD, PYTHONPATH, PATH and HOME.",
        False,
        _SUBMITTER,
    ),
    "authz.*": ("The submitter may not do this.", "Ask the operator for the right.", False, _OPERATOR),
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
    "node.unknown": (
        "No node has that name, or it has no known state.",
        "Enrol the host; see node list.",
        False,
        _ADMIN,
    ),
    "code.unknown": (
        "The code is not approved: nobody has approved a tree with this digest.",
        "Run the approved code unchanged, or have this tree approved.",
        False,
        _OPERATOR,
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
        _OPERATOR,
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
