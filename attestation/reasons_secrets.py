"""Reason codes for secrets: keeping them at the verifier, releasing them, handing them to a job."""

from typing import Final

_SUBMITTER: Final = "submitter"
_ADMIN: Final = "host admin"
_OPERATOR: Final = "operator"
_DEV: Final = "developer"

SECRETS: Final[dict[str, tuple[str, str, bool, str]]] = {
    "intent.many-secrets": (
        "The request asks for more secrets than a job can be given.",
        "Ask for at most 16; keep one key that opens a file with all others.",
        False,
        _SUBMITTER,
    ),
    "grant.secrets": (
        "The grant releases other secrets than the request asked for, or their sealed form did not come with it.",
        "Use agent and verifier of one release; if they are, treat the connection as hostile.",
        False,
        _ADMIN,
    ),
    "secret.unknown": (
        "The verifier keeps no secret of that name, or not any more.",
        "Ask the operator for it (interlock-verifier secret add), or leave it out of the request.",
        False,
        _OPERATOR,
    ),
    "secret.tenant": (
        "The secret belongs to another tenant.",
        "Ask for secrets of your own tenant; keep one of yours under another name.",
        False,
        _OPERATOR,
    ),
    "authz.secret-command": (
        "Secrets are given to approved code only, and what would start is something else.",
        "Run a script of the approved tree with python or torchrun, without variables that load other code.",
        False,
        _SUBMITTER,
    ),
    "secret.exists": (
        "There is a secret of that name already.",
        "Choose another name, or replace its value: interlock-verifier secret add --replace.",
        False,
        _OPERATOR,
    ),
    "secret.name": (
        "A secret's name has 1 to 64 letters, digits, dots, dashes and underscores; its tenant 1 to 128 characters.",
        "Choose a name such as weights-key.",
        False,
        _OPERATOR,
    ),
    "secret.size": (
        "A TPM seals 1 to 128 bytes; the value is empty or longer.",
        "Make a key of 32 bytes, encrypt the data with it, and keep the key as the secret.",
        False,
        _OPERATOR,
    ),
    "secret.file": (
        "The file with the secret's value cannot be read.",
        "Check its path and who owns it.",
        False,
        _OPERATOR,
    ),
    "secret.lease": (
        "The host's leases are not enforced by its TPM, so that nothing can be sealed to them.",
        "Ask for another node, or let the host enrol again with tpm_lease = true.",
        False,
        _ADMIN,
    ),
    "secret.unreadable": (
        "The verifier cannot read a secret that it keeps: keys/secrets.key is missing, or not the one of then.",
        "Restore keys/secrets.key from its backup, or remove the secrets and add them again.",
        True,
        _OPERATOR,
    ),
    "secret.changed": ("The secret was replaced or removed meanwhile.", "Try again.", True, _OPERATOR),
}
