"""Bundles: everything about one grant in one file, for an auditor who has no network and no account."""

from verifier.state import Verifier


def make_bundle(verifier: Verifier, cti: bytes) -> bytes:
    """The bundle of a grant. Raises ``Untrusted("grant.unknown")``."""
    return cti
