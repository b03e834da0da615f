"""Quotes that others recorded, out of the containers that they keep them in. Format only; nothing is believed here.

| container | source of the layout |
|---|---|
| protobuf ``attest.Attestation`` | go-tpm-tools, attest.proto: ak_pub 1, quotes 2 (quote, raw_sig, pcrs), event_log 3 |
| JSON with ``tpm_quote`` | confidential-containers trustee, az-snp-vtpm, az-tdx-vtpm, tpm |
| bincode | kinvolk azure-cvm-tooling: 64-bit little-endian lengths; signature, attestation, PCRs |
| CBOR diagnostic notation | veraison parsec-tpm: hex strings of ``kat`` and ``pat`` |
| Python source | Yubico python-fido2: a dict with ``certInfo``, ``sig``, ``x5c``, ``pubArea`` |
| single files | tpm2-tools: TPM2B_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE, PCR file, Name; PEM public key |

Which it is shows in the bytes. Lengths are checked; whatever does not fit is :class:`Unknown`.
"""

import ast
import base64
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from attestation.tpm.structures import ALG_RSASSA, ALG_SHA256, GENERATED
from attestation.tpm.structures import Signature as TpmSignature

MAGIC = GENERATED.to_bytes(4, "big")
_SIGNATURES = (b"\x00\x14", b"\x00\x18")
_PUBLICS = (b"\x00\x01\x00\x0b", b"\x00\x23\x00\x0b")


_BROKEN = (ValueError, KeyError, TypeError, IndexError, SyntaxError, struct.error, UnsupportedAlgorithm)
"""What a container that is none makes its reader raise."""


class Unknown(Exception):
    """Not a container that is known here."""


@dataclass(frozen=True)
class Found:
    """An attestation with whatever came beside it.

    ``key``: the public key (any kind), None where it is in another file; ``public``: TPMT_PUBLIC; ``values``: PCR
    values by index; ``bank``: TPM_ALG_ID they are of; ``certificates``: DER, the key's first; ``claims``: the document
    that an Azure report covers by its digest, and the report.
    """

    name: str
    attest: bytes
    signature: bytes
    key: object = None
    public: bytes = b""
    bank: int = ALG_SHA256
    values: Mapping[int, bytes] = field(default_factory=dict)
    certificates: tuple[bytes, ...] = ()
    event_log: bytes = b""
    claims: bytes = b""
    report: bytes = b""


@dataclass(frozen=True)
class Part:
    """A file that is part of a quote: "public", "attest", "signature", "pcrs", "name" or "key"."""

    role: str
    data: bytes


def read(data: bytes) -> list[Found] | Part:
    """The attestations in a container, or the part that a file is. Raises :class:`Unknown`."""
    for reader in (_part, _json, _diagnostic, _python, _bincode, _protobuf):
        try:
            found = reader(data)
        except _BROKEN as error:
            raise Unknown(f"{reader.__name__}: {error}") from error
        if found:
            return found
    raise Unknown(f"{len(data)} bytes of no known container")


# --- single files -----------------------------------------------------------------------------------------------------


def _part(data: bytes) -> Part | None:
    if data.startswith(MAGIC):
        return Part("attest", data)
    if data[:2] == len(data[2:]).to_bytes(2, "big") and data[2:6] in _PUBLICS:
        return Part("public", data[2:])
    if data[:2] in _SIGNATURES:
        return Part("signature", data)
    if data[:2] == b"\x00\x0b" and len(data) == 34:
        return Part("name", data)
    if data.startswith(b"-----BEGIN PUBLIC KEY-----"):
        return Part("key", data)
    return Part("pcrs", data) if _pcr_file(data) else None


_LIST, _DIGESTS = 16, 8


def _pcr_file(data: bytes) -> dict[int, dict[int, bytes]]:
    """tpm2-tools' ``pcrs_format=serialized``: TPML_PCR_SELECTION and TPML_DIGESTs as they lie in memory, little endian.

    Selections are a count and 16 of 8 bytes (hash, size, 4 bytes of bitmap, padding); then the number of digest lists,
    and each a count and 8 of TPM2B_DIGEST in 66 bytes, aligned to 4.
    """
    if len(data) < 4 + _LIST * 8 + 4:
        return {}
    (count,) = struct.unpack_from("<I", data)
    (lists,) = struct.unpack_from("<I", data, 4 + _LIST * 8)
    size = 4 + _DIGESTS * 66
    if not 0 < count <= _LIST or not 0 < lists <= 32 or len(data) != 8 + _LIST * 8 + lists * size:
        return {}
    wanted = []
    for number in range(count):
        bank, _, bitmap = struct.unpack_from("<HB4s", data, 4 + number * 8)
        bits = int.from_bytes(bitmap, "little")
        wanted += [(bank, pcr) for pcr in range(24) if bits >> pcr & 1]
    digests = []
    for number in range(lists):
        start = 8 + _LIST * 8 + number * size
        (held,) = struct.unpack_from("<I", data, start)
        for index in range(min(held, _DIGESTS)):
            place = start + 4 + index * 66
            (length,) = struct.unpack_from("<H", data, place)
            digests.append(data[place + 2 : place + 2 + length])
    found: dict[int, dict[int, bytes]] = {}
    for (bank, pcr), digest in zip(wanted, digests, strict=True):
        found.setdefault(bank, {})[pcr] = digest
    return found


def together(parts: Mapping[str, list[bytes]]) -> list[Found]:
    """The quotes that lie in files of their own: each attestation with each signature, key and PCR file beside it."""
    found = []
    for attest in parts.get("attest", []):
        for signature in parts.get("signature", []):
            for public in parts.get("public", [b""]):
                values = [_pcr_file(data) for data in parts.get("pcrs", [])] or [{}]
                bank = next(iter(values[0]), ALG_SHA256)
                found.append(
                    Found("quote", attest, signature, public=public, bank=bank, values=values[0].get(bank, {}))
                )
    return found


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(data: bytes) -> list[Found] | None:
    if data.lstrip()[:1] != b"{":
        return None
    try:
        shown = json.loads(data)
    except ValueError:
        return None
    quote = shown["tpm_quote"]
    report = _bytes(shown["hcl_report"]) if "hcl_report" in shown else b""
    claims = re.search(rb'\{"keys".*\}', report, re.DOTALL)
    key: object = None
    if claims:
        key = _jwk(json.loads(claims[0]))
    elif "ak_public" in shown:
        key = load_der_public_key(_bytes(shown["ak_public"]))
    found = Found(
        name="quote",
        attest=_bytes(quote["message"]),
        signature=_tpmt(_bytes(quote["signature"])),
        key=key,
        values={pcr: _bytes(value) for pcr, value in enumerate(quote["pcrs"])},
        claims=claims[0] if claims else b"",
        report=report,
    )
    return [found]


def _jwk(claims: Mapping[str, object]) -> object:
    keys = claims["keys"]
    if not isinstance(keys, list):
        raise TypeError("keys of claims are a list")
    chosen = next(key for key in keys if "sign" in key.get("key_ops", ["sign"]) or "AkPub" in key.get("kid", ""))
    e, n = (int.from_bytes(_bytes(chosen[part]), "big") for part in ("e", "n"))
    return rsa.RSAPublicNumbers(e, n).public_key()


def _bytes(text: str) -> bytes:
    """Hexadecimal, base64 or base64url, padded or not, whichever it is."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        plain = text.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _tpmt(signature: bytes) -> bytes:
    """A bare RSASSA signature as TPMT_SIGNATURE; one that is it already stays."""
    bare = signature[:2] not in _SIGNATURES or len(signature) in (256, 384, 512)
    return TpmSignature(ALG_RSASSA, ALG_SHA256, (signature,)).to_bytes() if bare else signature


# --- text -------------------------------------------------------------------------------------------------------------


def _diagnostic(data: bytes) -> list[Found] | None:
    """Every map that has a signature. Its public area is that of a certified key, not of the one that signed."""
    tokens = re.findall(rb'"(\w+)":\s*\{([^{}]*)\}', data)
    fields = [
        (name.decode(), {k.decode(): bytes.fromhex(v.decode()) for k, v in re.findall(rb"\"(\w+)\":\s*h'(\w+)'", body)})
        for name, body in tokens
    ]
    return [
        Found(name, shown.get("attestInfo") or shown["certInfo"], shown["sig"])
        for name, shown in fields
        if "sig" in shown
    ]


def _python(data: bytes) -> list[Found] | None:
    """Statements of WebAuthn (section 8.3) in a test of somebody's: dicts whose values are bytes."""
    if b"certInfo" not in data:
        return None
    found = []
    for node in ast.walk(ast.parse(data)):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            keys = {str(k.value): value for k, value in pairs if isinstance(k, ast.Constant)}
            if {"certInfo", "sig", "x5c"} <= keys.keys():
                found.append(_statement(keys))
    return found


def _statement(keys: Mapping[str, ast.expr]) -> Found:
    listed = keys["x5c"]
    if not isinstance(listed, ast.List):
        raise TypeError("x5c is a list")
    chain = tuple(_literal(element) for element in listed.elts)
    public = _literal(keys["pubArea"]) if "pubArea" in keys else b""
    key = x509.load_der_x509_certificate(chain[0]).public_key()
    return Found("statement", _literal(keys["certInfo"]), _literal(keys["sig"]), key, public, certificates=chain)


def _literal(node: ast.expr) -> bytes:
    """``b"..."``, or ``bytes.fromhex("...")`` with line ends taken out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return node.value
    texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    text = max(texts, key=len)
    return bytes.fromhex("".join(text.split()))


# --- binary -----------------------------------------------------------------------------------------------------------


def _bincode(data: bytes) -> list[Found] | None:
    parts, rest = [], data
    for _ in range(2):
        size = int.from_bytes(rest[:8], "little")
        if not 0 < size <= len(rest) - 8:
            return None
        parts.append(rest[8 : 8 + size])
        rest = rest[8 + size :]
    signature, attest = parts
    if not attest.startswith(MAGIC):
        return None
    count, rest = int.from_bytes(rest[:8], "little"), rest[8:]
    if len(rest) != 32 * count:
        raise ValueError("PCRs of another size")
    values = {pcr: rest[32 * pcr : 32 * pcr + 32] for pcr in range(count)}
    return [Found("quote", attest, _tpmt(signature), values=values)]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protobuf message: varints and length-delimited fields alone."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            octet = data[position]
            position += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return value

    while position < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        size = varint()
        if tag & 7 != 2 or size > len(data) - position:
            raise ValueError("not a message of varints and strings")
        yield tag >> 3, data[position : position + size]
        position += size


def _protobuf(data: bytes) -> list[Found] | None:
    message = [(number, value) for number, value in _fields(data) if isinstance(value, bytes)]
    public = next((value for number, value in message if number == 1), b"")
    log = next((value for number, value in message if number == 3), b"")
    chain = tuple(value for _, value in message if value.startswith(b"\x30\x82"))
    found = []
    for number, (_, quote) in enumerate(pair for pair in message if pair[0] == 2):
        parts = dict(_fields(quote))
        bank, values = _pcrs(_plain(parts[3]))
        attest, signature = _plain(parts[1]), _plain(parts[2])
        found.append(Found(f"quotes[{number}]", attest, signature, None, public, bank, values, chain, event_log=log))
    return found


def _pcrs(data: bytes) -> tuple[int, dict[int, bytes]]:
    """Bank (1, a varint) and a map (2) of number (1) and value (2)."""
    bank, values = 0, {}
    for number, value in _fields(data):
        if isinstance(value, int):
            bank = value if number == 1 else bank
        elif number == 2:
            pair = dict(_fields(value))
            index = pair.get(1, 0)
            values[index if isinstance(index, int) else -1] = _plain(pair[2])
    return bank, values


def _plain(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number in the place of bytes")
    return value


def key_of(part: Part) -> object:
    """The key in a file of its own (PEM). Raises :class:`Unknown`."""
    try:
        return load_pem_public_key(part.data)
    except _BROKEN as error:
        raise Unknown(str(error)) from error
