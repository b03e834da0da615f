"""One entry of an IMA measurement list, in both of its forms.

Sources: Linux, security/integrity/ima/ima_template.c and ima_template_lib.c (fields), ima_fs.c (both forms);
Documentation/security/IMA-templates.rst. The template data of an entry is what is hashed:

| template   | fields (descriptor)                    | kernel |
|------------|----------------------------------------|--------|
| ima        | d, n                                   | 2.6.30 |
| ima-ng     | d-ng, n-ng                             | 3.13   |
| ima-sig    | d-ng, n-ng, sig                        | 3.13   |
| ima-buf    | d-ng, n-ng, buf                        | 5.3    |
| ima-modsig | d-ng, n-ng, sig, d-modsig, modsig      | 5.4    |
| ima-ngv2   | d-ngv2, n-ng                           | 5.19   |
| ima-sigv2  | d-ngv2, n-ng, sig                      | 5.19   |

| field    | bytes                                                    | ascii form              |
|----------|----------------------------------------------------------|-------------------------|
| d        | 20, without length                                       | hex                     |
| n        | name, zeroes up to 256, without length                   | name                    |
| d-ng     | UINT32 length, algorithm, ":", NUL, digest               | algorithm:hex           |
| d-ngv2   | UINT32 length, type, ":", algorithm, ":", NUL, digest    | type:algorithm:hex      |
| n-ng     | UINT32 length, name, NUL                                 | name                    |
| the rest | UINT32 length, bytes                                     | hex, nothing where empty |

Numbers are little endian. The ascii form is ``PCR SP template-digest SP template SP field (SP field)*``; the kernel
writes names with "_" for each space, and does not escape line ends: a list whose names have any is ambiguous, and an
entry torn apart by one has another template digest. The binary form has no such gap. Spaces for empty fields at the end
of a line may be missing: editors take them away, and the template digest tells how many there were.

Readers here give plain tuples (:data:`Fields`): they run once for every entry of every list.
"""

import struct
from binascii import unhexlify
from typing import Final, NamedTuple, TypeAlias

from attestation.errors import InterlockError, Malformed, Untrusted

PCR: Final = 10
IMA, NG, SIG, BUF, MODSIG, NGV2, SIGV2 = (
    b"ima",
    b"ima-ng",
    b"ima-sig",
    b"ima-buf",
    b"ima-modsig",
    b"ima-ngv2",
    b"ima-sigv2",
)
SHA1_SIZE: Final = 20

MAX_NAME: Final = 4096
"""Bytes of a name: PATH_MAX of Linux."""
MAX_EXTRA: Final = 256 << 10
"""Bytes of a signature or a buffer: above the largest that a kernel measures as it is."""
MAX_ENTRY: Final = 1 << 20
"""Bytes of an entry in either form."""

ALGORITHMS: dict[bytes, tuple[int, int]] = {
    b"md4": (0, 16),
    b"md5": (1, 16),
    b"sha1": (2, 20),
    b"rmd160": (3, 20),
    b"sha256": (4, 32),
    b"sha384": (5, 48),
    b"sha512": (6, 64),
    b"sha224": (7, 28),
    b"wp512": (13, 64),
    b"sm3": (17, 32),
    b"streebog256": (18, 32),
    b"streebog512": (19, 64),
    b"sha3-256": (20, 32),
    b"sha3-384": (21, 48),
    b"sha3-512": (22, 64),
}
"""Names of digest algorithms: their number in Linux (include/uapi/linux/hash_info.h) and their size."""

Fields: TypeAlias = tuple[int, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""PCR, template digest as listed, template, template data, algorithm, digest, name, and the extra field: the signature
or buffer, empty where there is none. The algorithm of an fs-verity digest is "verity:" and its name, that of a plain
file digest its name alone; of the template ima it is "sha1"."""


class Entry(NamedTuple):
    """:data:`Fields` with names, for who has the time."""

    pcr: int
    template_digest: bytes
    template: bytes
    data: bytes
    algorithm: bytes
    digest: bytes
    name: bytes
    extra: bytes


_U32 = struct.Struct("<I")
_HEADER = struct.Struct("<I20sI")
LENGTHS = [_U32.pack(length) for length in range(MAX_NAME + 2)]
_PCRS = {str(pcr).encode(): pcr for pcr in range(10, 24)}
_IMA_NAME_SIZE = 256

_Head: TypeAlias = tuple[bytes, int, bytes]


def _heads(prefixes: dict[bytes, bytes]) -> dict[bytes, _Head]:
    """For each algorithm as it is written: the bytes before the digest, the digest's size, the name used here."""
    found: dict[bytes, _Head] = {}
    for prefix, shown in prefixes.items():
        for name, (_, size) in ALGORITHMS.items():
            text = prefix + name + b":\0"
            found[prefix + name] = (_U32.pack(len(text) + size) + text, size, shown + name)
    return found


_NG_HEADS = _heads({b"": b""})
_V2_HEADS = _heads({b"ima:": b"", b"verity:": b"verity:"})
_LEGACY_HEADS: dict[bytes, _Head] = {b"": (b"", SHA1_SIZE, b"sha1")}

_ASCII: dict[bytes, tuple[dict[bytes, _Head], int]] = {
    IMA: (_LEGACY_HEADS, 0),
    NG: (_NG_HEADS, 0),
    NGV2: (_V2_HEADS, 0),
    SIG: (_NG_HEADS, 1),
    BUF: (_NG_HEADS, 1),
    SIGV2: (_V2_HEADS, 1),
    MODSIG: (_NG_HEADS, 3),
}
"""For each template: how its digest is written, and how many fields follow the name."""


def from_ascii(line: bytes) -> Fields:
    """Read a line without its line end. Raises ``Malformed("tpm.ima.entry")`` and ``Untrusted("tpm.ima.template")``
    for a template that is not in the table, ``Untrusted("tpm.ima.pcr")`` for a PCR below 10."""
    try:
        pcr, given, template, first, rest = line.split(b" ", 4)
        heads, more = _ASCII[template]
        algorithm, _, written = first.rpartition(b":")
        head, size, shown = heads[algorithm]
        digest = unhexlify(written)
        template_digest = unhexlify(given)
        number = _PCRS[pcr]
        if more:
            name, tail, extra = _ascii_tail(template, rest)
        else:
            name, tail, extra = rest, b"", b""
        length = LENGTHS[len(name) + 1]
    except (KeyError, ValueError, IndexError) as error:
        raise _why_not(line) from error
    if len(digest) != size or len(template_digest) != SHA1_SIZE or not line[: -len(rest)].islower():
        raise Malformed("tpm.ima.entry", f"a digest of the wrong size, or not in lower case: {line[:160]!r}")
    if b"\0" in name or not name:
        raise Malformed("tpm.ima.entry", f"no name, or NUL in it: {line[:160]!r}")
    if template == IMA:
        if algorithm != first[: -len(written)]:
            raise Malformed("tpm.ima.entry", f"not a digest of the template ima: {line[:160]!r}")
        return number, template_digest, template, digest + _padded(name), shown, digest, name, b""
    return number, template_digest, template, head + digest + length + name + b"\0" + tail, shown, digest, name, extra


def _ascii_tail(template: bytes, rest: bytes) -> tuple[bytes, bytes, bytes]:
    """The name, the template data that follows it, and the signature or buffer. Raises ``ValueError``."""
    if template != MODSIG:
        name, _, written = rest.partition(b" ")
        extra = _hex(written)
        return name, _U32.pack(len(extra)) + extra, extra
    name, *words = rest.split(b" ")
    written, modsig_digest, modsig = words + [b""] * (3 - len(words))
    extra = _hex(written)
    fields = extra, _modsig_digest(modsig_digest), _hex(modsig)
    return name, b"".join(_U32.pack(len(field)) + field for field in fields), extra


def _modsig_digest(written: bytes) -> bytes:
    if not written:
        return b""
    algorithm, _, digest = written.rpartition(b":")
    head, size, _ = _NG_HEADS[algorithm]
    found = _hex(digest)
    if len(found) != size:
        raise ValueError("a digest of the wrong size")
    return head[4:] + found


def _hex(written: bytes) -> bytes:
    found = unhexlify(written)
    if found.hex().encode() != written or len(found) > MAX_EXTRA:
        raise ValueError("not in lower case, or too long")
    return found


def _padded(name: bytes) -> bytes:
    if len(name) >= _IMA_NAME_SIZE:
        raise Malformed("tpm.ima.entry", f"a name of {len(name)} bytes in the template ima")
    return name.ljust(_IMA_NAME_SIZE, b"\0")


def _why_not(line: bytes) -> InterlockError:
    """The refusal of a line that could not be read."""
    words = line.lstrip(b" ").split(b" ", 3)
    if len(words) == 4 and words[0].isdigit() and len(words[1]) == 2 * SHA1_SIZE:
        if words[2] not in _ASCII:
            return Untrusted("tpm.ima.template", f"{words[2][:64]!r} is not a known template")
        if words[0] not in _PCRS:
            return Untrusted("tpm.ima.pcr", f"an entry of PCR {words[0][:8].decode()}")
    return Malformed("tpm.ima.entry", f"not an entry: {line[:160]!r}")


# --- binary ----------------------------------------------------------------------------------------------------------


def binary_size(data: bytes, start: int) -> int:
    """The size of the entry at ``start`` of a binary list, or 0 where fewer bytes are left than a header has.

    Raises ``Malformed("tpm.ima.entry")`` for lengths that no kernel writes, ``Malformed("tpm.ima.truncated")`` for an
    entry that ends after the list does.
    """
    left = len(data) - start
    if left < _HEADER.size:
        return 0
    length = int.from_bytes(data[start + _HEADER.size - 4 : start + _HEADER.size], "little")
    if not 0 < length <= 255:
        raise Malformed("tpm.ima.entry", f"a template name of {length} bytes at offset {start}")
    size = _HEADER.size + length
    if data[start + _HEADER.size : start + size] == IMA:
        size += SHA1_SIZE
    length = int.from_bytes(data[start + size : start + size + 4], "little")
    size += 4 + length
    if length > MAX_ENTRY or left < size:
        raise Malformed("tpm.ima.truncated", f"the entry at offset {start} has {length} bytes, {left} are left")
    return size


def from_binary(raw: bytes) -> Fields:
    """Read one entry of a binary list, whose size is :func:`binary_size`. Raises as :func:`from_ascii`."""
    pcr, given, length = _HEADER.unpack_from(raw)
    start = _HEADER.size + length
    template = raw[_HEADER.size : start]
    try:
        heads, more = _ASCII[template]
    except KeyError as error:
        raise Untrusted("tpm.ima.template", f"{template[:64]!r} is not a known template") from error
    if template == IMA:
        digest, name = raw[start : start + SHA1_SIZE], raw[start + SHA1_SIZE + 4 :]
        if b"\0" in name or not name:
            raise Malformed("tpm.ima.entry", "no name, or NUL in it")
        return pcr, given, template, digest + _padded(name), b"sha1", digest, name, b""
    data = raw[start + 4 :]
    fields = _split(data, 2 + more)
    text, _, digest = fields[0].partition(b":\0")
    _, size, shown = heads.get(text, (b"", -1, b""))
    name = fields[1][:-1]
    if len(digest) != size or fields[1][-1:] != b"\0" or b"\0" in name or not 0 < len(name) <= MAX_NAME:
        raise Malformed("tpm.ima.entry", f"not the digest and name of an entry: {data[:160]!r}")
    extra = fields[2] if more else b""
    if len(extra) > MAX_EXTRA or (template == MODSIG and not _is_modsig_digest(fields[3])):
        raise Malformed("tpm.ima.entry", f"a signature or buffer of {len(extra)} bytes, or a digest of no known kind")
    return pcr, given, template, data, shown, digest, name, extra


def _split(data: bytes, count: int) -> list[bytes]:
    """Template data as its fields, each after its length: exactly so many."""
    fields: list[bytes] = []
    position = 0
    for _ in range(count):
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        fields.append(data[start:position])
    if position != len(data):
        raise Malformed("tpm.ima.entry", f"{count} fields end at {position}, the data at {len(data)}")
    return fields


def _is_modsig_digest(field: bytes) -> bool:
    text, _, digest = field.partition(b":\0")
    return not field or len(digest) == _NG_HEADS.get(text, (b"", -1, b""))[1]
