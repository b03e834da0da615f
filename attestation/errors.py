"""Refusals, sorted by who must act.

The tree::

    InterlockError              carries a stable reason code and a detail for people
    +-- Malformed               the sender is broken: the bytes do not have the form the format demands
    +-- Untrusted               the sender is not believed: the form is right, the claim is not proven

Every other exception that leaves this project's code means that *we* are broken.
The reason is a stable dotted word listed in `attestation.reasons`: the same word in API, CLI, log and documentation.
The detail is free text for people; nothing may decide by it.
"""


class InterlockError(Exception):
    """A refusal. `reason` is the stable code, `detail` says which bytes or values were refused."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Malformed(InterlockError):
    """The sender is broken: what arrived is not in the one accepted encoding."""


class Untrusted(InterlockError):
    """The sender is not believed: well-formed, but a check of identity, freshness or authority failed."""
