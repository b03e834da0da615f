"""One hash over several byte strings: how every binding of Interlock is made (docs/formats.md, "Bindings")."""

import hashlib


def hash_parts(*parts: bytes) -> bytes:
    """SHA-256 over parts, each preceded by its length in eight bytes, so that no two lists of parts collide."""
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
