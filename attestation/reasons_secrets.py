"""Reason codes for secrets: keeping them at the verifier, releasing them, handing them to a job."""

from typing import Final

_SUBMITTER: Final = "submitter"
_ADMIN: Final = "host admin"
_OPERATOR: Final = "operator"
_DEV: Final = "developer"

SECRETS: Final[dict[str, tuple[str, str, bool, str]]] = {
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
    "secret.exists": (
        "There is a secret of that name already.",
        "Choose another name, or replace its value: interlock-verifier secret add --replace.",
        False,
        _OPERATOR,
    ),
    "secret.changed": ("The secret was replaced or removed meanwhile.", "Try again.", True, _OPERATOR),
}
