"""Refusals, sorted by who must act.

The tree::

    InterlockError              carries a stable reason code and a detail for people
    +-- Malformed               the sender is broken: the bytes do not have the form the format demands
    +-- Untrusted               the sender is not believed: the form is right, the claim is not proven

Every other exception that leaves this project's code means that *we* are broken.
The reason is a stable dotted word listed in `attestation.reasons`: the same word in API, CLI, log and documentation.
The detail is free text for people; nothing may decide by it. It often quotes what a stranger sent and ends up on
terminals and in logs, so it is cut to a length, and what is not printable is escaped.
"""

MOST_DETAIL = 2048
"""Characters of a detail that are kept."""


def printable(text: str) -> str:
    """`text` with everything escaped that is not printable: controls, line ends, overrides of the writing direction."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class InterlockError(Exception):
    """A refusal. `reason` is the stable code, `detail` says which bytes or values were refused."""

    def __init__(self, reason: str, detail: str = "") -> None:
        shown = printable(detail[:MOST_DETAIL])[:MOST_DETAIL]
        super().__init__(f"{reason}: {shown}" if shown else reason)
        self.reason = reason
        self.detail = shown


class Malformed(InterlockError):
    """The sender is broken: what arrived is not in the one accepted encoding."""


class Untrusted(InterlockError):
    """The sender is not believed: well-formed, but a check of identity, freshness or authority failed."""
