"""The demands beside the files: an operator's TOML document of rules, keys, buffers and words.

::

    boot_aggregate = "required"            # or "unchecked"
    most_kexecs = 0
    cmdline_required = ["ima_policy=tcb"]
    cmdline_denied = []
    unsafe_algorithms = []                 # "sha1", "md5"
    unsafe_padded = false
    denied = []                            # digests known to be bad, in hexadecimal

    [[rule]]
    kind = "prefix"                        # literal, prefix, glob
    path = "/var/lib/interlock-agent/jobs/"
    unchecked = ["content"]                # content, violation

    [[key]]
    name = "vendor"
    keyring = ".ima"
    file = "vendor.der"                    # certificate or public key, beside this document; or key = "3082..."
    built_in = true

    [[buffer]]
    name = "kexec-cmdline"
    digests = ["..."]                      # or unchecked = true

A name that is not known is refused; every one may be left out, and means the strict value then.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from attestation.errors import Malformed
from attestation.tpm.ima.policy import PLAIN, ImaBuffer, ImaKey, ImaPolicy, ImaRule
from verifier.refs import toml

MAX_FILE: Final = 1 << 20
_TABLES: Final = {"rule": "rules", "key": "keys", "buffer": "buffers"}
_SHORT: Final[Mapping[str, type[Any]]] = {"boot_aggregate": str, "most_kexecs": int, "unsafe_padded": bool}
_WORDS: Final = ("cmdline_required", "cmdline_denied", "unsafe_algorithms")
_DENIED: Final = "denied"

T = TypeVar("T")


def load(path: Path) -> ImaPolicy:
    """Read the document at ``path``. Raises ``Malformed``: ``ref.source``, and as :func:`read`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed("ref.source", f"{path}: {error}") from error
    return read(text, path.name, path.parent)


def read(text: str, where: str = "rules", beside: Path | None = None) -> ImaPolicy:
    """The demands of a document, with no file listed. Key files are looked for ``beside``.

    Raises ``Malformed``: ``ref.document``, and what :class:`ImaPolicy` raises.
    """
    table = toml.read(text, where)
    unknown = sorted(table.keys() - {*_TABLES, *_SHORT, *_WORDS, _DENIED})
    if unknown:
        raise Malformed("ref.document", f"{where}: unknown name {unknown[0]!r}")
    changes = _take({name: table[name] for name in _SHORT if name in table}, _SHORT, where)
    changes |= {name: toml.texts(table[name], name, where) for name in _WORDS if name in table}
    changes[_DENIED] = tuple(
        sorted({_hex(each, _DENIED, where) for each in toml.texts(table.get(_DENIED, []), _DENIED, where)})
    )
    changes["rules"] = _each(table, "rule", where, _rule)
    changes["keys"] = _each(table, "key", where, lambda row, at: _key(row, at, beside))
    changes["buffers"] = _each(table, "buffer", where, _buffer)
    value = {**{name: getattr(PLAIN, name) for _, name, _, _, _ in ImaPolicy.layout()}, **changes}
    return ImaPolicy.from_bytes(ImaPolicy(**value).to_bytes())


def write(policy: ImaPolicy) -> str:
    """The demands of a policy as a document; its files are left out."""
    table: dict[str, Any] = {name: getattr(policy, name) for name in _SHORT}
    table |= {name: list(getattr(policy, name)) for name in _WORDS}
    table[_DENIED] = [digest.hex() for digest in policy.denied]
    if policy.rules:
        table["rule"] = [
            {"kind": rule.kind, "path": shown(rule.path), "unchecked": list(rule.unchecked)} for rule in policy.rules
        ]
    if policy.keys:
        table["key"] = [
            {"name": key.name, "keyring": shown(key.keyring), "key": key.key.hex(), "built_in": key.built_in}
            for key in policy.keys
        ]
    if policy.buffers:
        table["buffer"] = [
            {"name": shown(buffer.name)}
            | ({"unchecked": True} if buffer.unchecked else {"digests": [digest.hex() for digest in buffer.digests]})
            for buffer in policy.buffers
        ]
    return toml.write(table)


def shown(name: bytes) -> str:
    """A name as text; bytes that are no UTF-8 as ``\\xff``, which :func:`named` does not read back."""
    return name.decode("utf-8", "backslashreplace")


def named(text: str) -> bytes:
    """A name from text."""
    return text.encode()


def _hex(text: str, name: str, where: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise toml.wrong(name, "hexadecimal", where) from error


def _each(table: Mapping[str, Any], name: str, where: str, read: Callable[[dict[str, Any], str], T]) -> tuple[T, ...]:
    rows = table.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise toml.wrong(name, f"written as [[{name}]]", where)
    return tuple(read(row, f"{where}: {name} {number}") for number, row in enumerate(rows, 1))


def _take(row: dict[str, Any], names: Mapping[str, type[Any]], where: str) -> dict[str, Any]:
    """The values of a row, each of its type. What is not there is not in the result."""
    unknown = sorted(row.keys() - names.keys())
    if unknown:
        raise Malformed("ref.document", f"{where}: unknown name {unknown[0]!r}")
    for name, value in row.items():
        if type(value) is not names[name]:
            raise toml.wrong(name, names[name].__name__, where)
    return row


def _need(row: Mapping[str, Any], where: str, *names: str) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise Malformed("ref.document", f"{where}: {missing[0]} is missing")


def _rule(row: dict[str, Any], where: str) -> ImaRule:
    found = _take(row, {"kind": str, "path": str, "unchecked": list}, where)
    _need(found, where, "kind", "path", "unchecked")
    return ImaRule(
        kind=found["kind"], path=named(found["path"]), unchecked=toml.texts(found["unchecked"], "unchecked", where)
    )


def _key(row: dict[str, Any], where: str, beside: Path | None) -> ImaKey:
    found = _take(row, {"name": str, "keyring": str, "key": str, "file": str, "built_in": bool}, where)
    _need(found, where, "name", "keyring", "built_in")
    if ("key" in found) == ("file" in found):
        raise Malformed("ref.document", f"{where}: file, or key in hexadecimal, and not both")
    key = _hex(found["key"], "key", where) if "key" in found else _key_file(found["file"], where, beside)
    return ImaKey(name=found["name"], keyring=named(found["keyring"]), key=key, built_in=found["built_in"])


def _key_file(name: str, where: str, beside: Path | None) -> bytes:
    path = (beside or Path()) / name
    try:
        data = path.read_bytes()
        if data.startswith(b"-----BEGIN CERTIFICATE"):
            return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
        if data.startswith(b"-----BEGIN"):
            return load_pem_public_key(data).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (OSError, ValueError) as error:
        raise Malformed("ref.source", f"{where}: {path}: {error}") from error
    return data


def _buffer(row: dict[str, Any], where: str) -> ImaBuffer:
    found = _take(row, {"name": str, "digests": list, "unchecked": bool}, where)
    _need(found, where, "name")
    digests = {_hex(each, "digests", where) for each in toml.texts(found.get("digests", []), "digests", where)}
    return ImaBuffer(name=named(found["name"]), digests=tuple(sorted(digests)), unchecked=found.get("unchecked", False))
