"""A boot policy as a TOML document: what `refs boot show` prints and `refs boot edit` reads back.

Each key is a field of :class:`attestation.tpm.boot.policy.BootPolicy`, digests in hexadecimal. A key that is not known
is refused; of the switches each has to be there; a list that is not there is not demanded, one that is there and empty
allows nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

from attestation.errors import Malformed
from attestation.tpm.boot.policy import BootPolicy
from verifier.refs import toml

FLAGS: Final = ("secure_boot", "deployed_mode", "dma_protection", "no_debug")
WORDS: Final = ("required", "accepted")
NUMBERS: Final = ("dbx_count", "sbat")
DIGESTS: Final = ("dbx_hashes", "db_certificates", "authorities", "mok", "applications", "drivers", "files")
TEXTS: Final = ("crtm_versions", "platforms", "command_lines", "commands")
SECTIONS: Final = "sections"
OPTIONAL: Final = (*NUMBERS, *DIGESTS, *TEXTS, SECTIONS)
"""Demands that can be left out."""

_COMMENTS: Final = {
    "required": "facts that must be there (docs/boot-log.md, Facts)",
    "accepted": "findings that are put up with (docs/boot-log.md, Findings)",
    "dbx_count": "at least so many revoked image hashes",
    "dbx_hashes": "these image hashes are revoked",
    "db_certificates": "db holds no other certificate (SHA-256)",
    "authorities": "images were believed for no other certificate (SHA-256)",
    "sbat": "at least this level, as a date",
    "mok": "no other list of shim's was measured",
    "applications": "no other image was started",
    "drivers": "no other driver or option ROM was loaded",
    "files": "no other file was read by the boot loader",
    "command_lines": "patterns, one of which each command line matches; * is any characters of one word",
    "commands": "patterns for the boot loader's other commands",
    SECTIONS: "sections of a unified kernel image, and no others",
}


def write(policy: BootPolicy) -> str:
    """The document."""
    return toml.write(to_table(policy), _COMMENTS)


def read(text: str, where: str = "boot policy") -> BootPolicy:
    """Read a document. Raises ``Malformed``: ``ref.document``, and what :class:`BootPolicy` raises."""
    table = toml.read(text, where)
    unknown = sorted(table.keys() - {*FLAGS, *WORDS, *OPTIONAL})
    if unknown:
        raise Malformed("ref.document", f"{where}: unknown name {unknown[0]!r}")
    found: dict[str, Any] = {name: _flag(table, name, where) for name in FLAGS}
    found |= {name: toml.texts(table.get(name, []), name, where) for name in WORDS}
    found |= {name: _number(table[name], name, where) for name in NUMBERS if name in table}
    found |= {name: _digests(table[name], name, where) for name in DIGESTS if name in table}
    found |= {name: toml.texts(table[name], name, where) for name in TEXTS if name in table}
    if SECTIONS in table:
        found[SECTIONS] = _sections(table[SECTIONS], where)
    return BootPolicy.from_bytes(BootPolicy(**found).to_bytes())


def to_table(policy: BootPolicy) -> dict[str, Any]:
    """The policy as plain values, demands that are not made left out."""
    table: dict[str, Any] = {}
    for _, name, _, _, _ in BootPolicy.layout():
        value = getattr(policy, name)
        if isinstance(value, Mapping):
            table[name] = {key: [_plain(each) for each in value[key]] for key in sorted(value)}
        elif isinstance(value, tuple):
            table[name] = [_plain(each) for each in value]
        elif value is not None:
            table[name] = value
    return table


def _plain(value: bytes | str) -> str:
    return value.hex() if isinstance(value, bytes) else value


def _flag(table: Mapping[str, Any], name: str, where: str) -> bool:
    value = table.get(name)
    if not isinstance(value, bool):
        raise toml.wrong(name, "true or false", where)
    return value


def _number(value: object, name: str, where: str) -> int:
    if type(value) is not int:
        raise toml.wrong(name, "a whole number", where)
    return value


def _digests(value: object, name: str, where: str) -> tuple[bytes, ...]:
    try:
        return tuple(sorted({bytes.fromhex(each) for each in toml.texts(value, name, where)}))
    except ValueError as error:
        raise toml.wrong(name, "a list of digests in hexadecimal", where) from error


def _sections(value: object, where: str) -> dict[str, tuple[bytes, ...]]:
    if not isinstance(value, dict):
        raise toml.wrong(SECTIONS, "a table of digests by the section's name", where)
    return {name: _digests(found, f"{SECTIONS}.{name}", where) for name, found in value.items()}
