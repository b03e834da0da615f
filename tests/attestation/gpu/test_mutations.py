"""The named changes of genuine evidence, each refused for its reason, by the check itself and by the whole appraisal.

Answers out of their time, and sets of devices: ``test_mutations_sets.py``.
Random changes: ``tests/test_evidence_gpu.py`` and ``./dev evidence gpu --mutate``.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import InterlockError
from fixtures.gpu.host import MockHost
from tests import vectors
from tools.evidence.case import Case, Roots, read_cases, read_roots
from tools.evidence.genuine import read_targets
from tools.evidence.target import Target

Edit = Callable[[bytes], bytes]

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF_C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
BLOCKS, BLOCK, RECORD, OPAQUE_LENGTH, OPAQUE = 45, 55, 3520, 3597, 3599
"""Offsets in the report of a GPU."""


@cache
def targets() -> dict[tuple[str, str], Target]:
    return {(target.case[:3], target.name): target for target in read_targets(vectors.path("evidence/gpu"))}


def case(beginning: str) -> tuple[Case, Roots]:
    folder = vectors.path("evidence/gpu")
    (found,) = [case for case in read_cases(folder) if case.name.startswith(beginning)]
    return found, read_roots(folder)


def chain_of(beginning: str) -> bytes:
    return case(beginning)[0].subjects[0].chain or b""


# --- how things are changed ------------------------------------------------------------------------------------------


def flip(at: int) -> Edit:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 if at != -1 else len(data) :]


def put(at: int, value: bytes) -> Edit:
    return lambda data: data[:at] + value + data[at + len(value) :]


def add(at: int, size: int, by: int) -> Edit:
    """A little-endian number, changed."""

    def edit(data: bytes) -> bytes:
        number = int.from_bytes(data[at : at + size], "little") + by
        return data[:at] + number.to_bytes(size, "little") + data[at + size :]

    return edit


def scalar(which: int, value: int) -> Edit:
    """r (0) or s (1) of the signature."""

    def edit(data: bytes) -> bytes:
        halves = [data[-96:-48], data[-48:]]
        halves[which] = value.to_bytes(48, "big")
        return data[:-96] + b"".join(halves)

    return edit


def a_block_twice(data: bytes) -> bytes:
    first = data[BLOCKS : BLOCKS + BLOCK]
    return put(BLOCKS + BLOCK, first)(data)


def one_more_block(data: bytes) -> bytes:
    longer = data[: BLOCKS + BLOCK] + data[BLOCKS : BLOCKS + BLOCK] + data[BLOCKS + BLOCK :]
    return add(42, 3, BLOCK)(add(41, 1, 1)(longer))


def a_field_twice(data: bytes) -> bytes:
    size = 4 + int.from_bytes(data[OPAQUE + 2 : OPAQUE + 4], "little")
    return add(OPAQUE_LENGTH, 2, size)(data[:-96] + data[OPAQUE : OPAQUE + size] + data[-96:])


def an_overrunning_field(data: bytes) -> bytes:
    fields = data[OPAQUE:-96]
    last = fields.rindex(b"\x15\x00\x01\x00")  # type 21, one byte
    return add(OPAQUE + last + 2, 2, 1)(data)


EVER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


def blocks_of(pem: bytes) -> list[bytes]:
    return re.findall(rb"-----BEGIN.*?END CERTIFICATE-----\n?", pem, re.DOTALL)


def rearranged(*order: int) -> Edit:
    return lambda pem: b"\n".join(blocks_of(pem)[at].strip() for at in order) + b"\n"


def with_from(beginning: str, *places: int) -> Edit:
    """Some certificates are another device's."""

    def edit(pem: bytes) -> bytes:
        mine, theirs = blocks_of(pem), blocks_of(chain_of(beginning))
        return b"".join((theirs if at in places else mine)[at].strip() + b"\n" for at in range(len(mine)))

    return edit


ALGORITHM = bytes.fromhex("06082a8648ce3d040303")


def in_certificates(change: Edit) -> Edit:
    """Every certificate, changed behind its PEM text."""

    def edit(pem: bytes) -> bytes:
        parsed = [x509.load_pem_x509_certificate(block).public_bytes(Encoding.DER) for block in blocks_of(pem)]
        made = [b64encode(change(der)) for der in parsed]
        lines = [b"\n".join(text[at : at + 64] for at in range(0, len(text), 64)) for text in made]
        return b"".join(b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n" for text in lines)

    return edit


def unused_bits(der: bytes) -> bytes:
    """The signature is a bit string: where its last bit is zero it can be said to be left out."""
    size = len(x509.load_der_x509_certificate(der).signature)
    return der if der[-1] & 1 else der[: -size - 1] + b"\1" + der[-size:]


def self_signed(like: bytes) -> bytes:
    """A root of the same name with another key, as PEM."""
    name = x509.load_pem_x509_certificate(like).subject
    key = ec.generate_private_key(ec.SECP384R1())
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, *EVER)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM)


def look_alike_root(pem: bytes) -> bytes:
    *rest, root = blocks_of(pem)
    return b"".join(block.strip() + b"\n" for block in (*rest, self_signed(root)))


def chain_of_a_look_alike(_pem: bytes) -> bytes:
    return MockHost.new().gpus[0].chain


SIGNATURE = re.compile(rb"<ds:Signature.*</ds:Signature>", re.DOTALL)
RESOURCE = re.compile(rb"<ns0:Resource[^>]*/>")
CERTIFICATE = re.compile(rb"<ds:X509Certificate>[^<]*</ds:X509Certificate>")


def second_signature(data: bytes) -> bytes:
    found = SIGNATURE.search(data)
    assert found
    return data[: found.end()] + found[0] + data[found.end() :]


def moved_outside(data: bytes) -> bytes:
    found = RESOURCE.search(data)
    assert found
    without = data[: found.start()] + data[found.end() :]
    return without.replace(b"</ns0:Payload>", b"</ns0:Payload>" + found[0])


def moved_into_the_signature(data: bytes) -> bytes:
    found = RESOURCE.search(data)
    assert found
    without = data[: found.start()] + data[found.end() :]
    return without.replace(b"</ds:Signature>", b"<ds:Object>" + found[0] + b"</ds:Object></ds:Signature>")


def certificates_of_a_rim(order: Callable[[list[bytes]], list[bytes]]) -> Edit:
    def edit(data: bytes) -> bytes:
        found = list(CERTIFICATE.finditer(data))
        inside = b"".join(order([match[0] for match in found]))
        return data[: found[0].start()] + inside + data[found[-1].end() :]

    return edit


def own_certificate(_found: list[bytes]) -> list[bytes]:
    pem = self_signed(blocks_of(chain_of("G01"))[0])
    return [b"<ds:X509Certificate>" + b"".join(pem.split(b"\n")[1:-2]) + b"</ds:X509Certificate>"]


def key_value(data: bytes) -> bytes:
    value = b"<ds:KeyValue><ds:ECKeyValue/></ds:KeyValue>"
    return re.sub(rb"(<ds:KeyInfo[^>]*>)", rb"\1" + value, data, count=1)


def active(change: Callable[[bytes], bytes]) -> Edit:
    """The first active measurement, changed."""

    def edit(data: bytes) -> bytes:
        found = next(match for match in RESOURCE.finditer(data) if b'active="True"' in match[0])
        changed = change(found[0])
        assert changed != found[0]
        return data[: found.start()] + changed + data[found.end() :]

    return edit


def value_of(change: Callable[[bytes], bytes]) -> Edit:
    return active(lambda row: re.sub(rb'Hash0="([^"]*)"', lambda m: b'Hash0="' + change(m[1]) + b'"', row, count=1))


def genuine(beginning: str, name: str) -> Edit:
    return lambda _data: targets()[beginning, name].data


# --- the list --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Edit, str]] = {
    # each region of the bytes
    "request: version": ("report", flip(0), "gpu.report.request"),
    "request: code": ("report", flip(1), "gpu.report.request"),
    "request: all measurements": ("report", flip(3), "gpu.report.request"),
    "nonce": ("report", flip(4), "gpu.signature"),
    "slot": ("report", flip(36), "gpu.report.request"),
    "response: version": ("report", flip(37), "gpu.report.response"),
    "response: code": ("report", flip(38), "gpu.report.response"),
    "number of blocks": ("report", flip(41), "gpu.report.blocks"),
    "block header: index": ("report", flip(BLOCKS), "gpu.report.block"),
    "block header: specification": ("report", flip(BLOCKS + 1), "gpu.report.block"),
    "block header: size": ("report", flip(BLOCKS + 2), "gpu.report.block"),
    "block header: type": ("report", flip(BLOCKS + 4), "gpu.report.block"),
    "block header: value size": ("report", flip(BLOCKS + 5), "gpu.report.block"),
    "block value": ("report", flip(BLOCKS + 7), "gpu.signature"),
    "last block value": ("report", flip(BLOCKS + RECORD - 1), "gpu.signature"),
    "responder's nonce": ("report", flip(BLOCKS + RECORD), "gpu.signature"),
    "opaque header: type": ("report", flip(OPAQUE), "gpu.signature"),
    "opaque header: length": ("report", flip(OPAQUE + 2), "gpu.opaque.truncated"),
    "opaque value": ("report", flip(OPAQUE + 4), "gpu.signature"),
    "r": ("report", flip(-96), "gpu.signature"),
    "s": ("report", flip(-1), "gpu.signature"),
    # the signature's numbers
    "r is zero": ("report", scalar(0, 0), "gpu.signature"),
    "s is zero": ("report", scalar(1, 0), "gpu.signature"),
    "r and s are zero": ("report", lambda data: scalar(0, 0)(scalar(1, 0)(data)), "gpu.signature"),
    "r is the order": ("report", scalar(0, N), "gpu.signature"),
    "s is the order": ("report", scalar(1, N), "gpu.signature"),
    "r is above the order": ("report", scalar(0, (1 << 384) - 1), "gpu.signature"),
    "s is above the order": ("report", scalar(1, (1 << 384) - 1), "gpu.signature"),
    # lengths
    "a trailing byte": ("report", lambda data: data + b"\0", "gpu.report.trailing"),
    "truncated by a byte": ("report", lambda data: data[:-1], "gpu.report.truncated"),
    "truncated to the request": ("report", lambda data: data[:37], "gpu.report.truncated"),
    "nothing": ("report", lambda _data: b"", "gpu.report.truncated"),
    "L1 one more": ("report", add(42, 3, 1), "gpu.report.blocks"),
    "L1 one less": ("report", add(42, 3, -1), "gpu.report.blocks"),
    "L2 one more": ("report", add(OPAQUE_LENGTH, 2, 1), "gpu.report.truncated"),
    "L2 one less": ("report", add(OPAQUE_LENGTH, 2, -1), "gpu.report.trailing"),
    "a block twice": ("report", a_block_twice, "gpu.report.block"),
    "a block twice, and counted": ("report", one_more_block, "gpu.report.blocks"),
    "an opaque field twice": ("report", a_field_twice, "gpu.opaque.duplicate"),
    "an opaque field that overruns": ("report", an_overrunning_field, "gpu.opaque.truncated"),
    # the chain
    "the leaf of another device": ("chain", with_from("G05", 0), "gpu.chain.order"),
    "the leaf of another device of the family": ("chain", with_from("G02", 0), "gpu.chain.order"),
    "the whole chain of another device": ("chain", lambda _pem: chain_of("G05"), "gpu.signature"),
    "the chain of a device of another family": ("chain", lambda _pem: chain_of("G03"), "gpu.signature"),
    "the intermediates of another family": ("chain", with_from("G03", 2, 3), "gpu.chain.order"),
    "reordered": ("chain", rearranged(0, 2, 1, 3, 4), "gpu.chain.order"),
    "root first": ("chain", rearranged(4, 3, 2, 1, 0), "chain.unknown-root"),
    "a certificate twice": ("chain", rearranged(0, 1, 1, 2, 3, 4), "gpu.chain.duplicate"),
    "the leaf at the end again": ("chain", rearranged(0, 1, 2, 3, 4, 0), "gpu.chain.duplicate"),
    "another count of unused bits in a signature": ("chain", in_certificates(unused_bits), "gpu.chain.certificate"),
    "another algorithm named inside a certificate": (
        "chain",
        in_certificates(lambda der: der.replace(ALGORITHM, ALGORITHM[:-1] + b"\2", 1)),
        "gpu.chain.certificate",
    ),
    "another version of a certificate": (
        "chain",
        in_certificates(lambda der: der.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\1", 1)),
        "gpu.chain.certificate",
    ),
    "an intermediate left out": ("chain", rearranged(0, 1, 3, 4), "gpu.chain.length"),
    "a self-signed root of the same name": ("chain", look_alike_root, "chain.unknown-root"),
    "a chain that rests on a root of nobody's": ("chain", chain_of_a_look_alike, "chain.unknown-root"),
    # RIMs
    "a second signature": ("driver_rim", second_signature, "gpu.rim.malformed"),
    "a measurement moved out of the payload": ("driver_rim", moved_outside, "gpu.rim.digest"),
    "a measurement moved into the signature": ("driver_rim", moved_into_the_signature, "gpu.rim.malformed"),
    "another certificate first": ("driver_rim", certificates_of_a_rim(lambda f: [f[1], f[0], *f[2:]]), "gpu.rim.chain"),
    "our own certificate first": (
        "driver_rim",
        certificates_of_a_rim(lambda f: own_certificate(f) + f),
        "gpu.rim.chain",
    ),
    "our own certificate alone": ("driver_rim", certificates_of_a_rim(own_certificate), "gpu.rim.chain"),
    "a KeyValue": ("driver_rim", key_value, "gpu.rim.malformed"),
    "a value in capitals": ("driver_rim", value_of(bytes.upper), "gpu.rim.digest"),
    "a value with white space": ("driver_rim", value_of(lambda value: value + b" "), "gpu.rim.digest"),
    "another value": ("driver_rim", value_of(lambda value: value[:-1] + b"0"), "gpu.rim.digest"),
    "too many alternatives": (
        "driver_rim",
        active(lambda row: re.sub(rb'alternatives="\d+"', b'alternatives="9"', row)),
        "gpu.rim.digest",
    ),
    "a measurement made inactive": (
        "driver_rim",
        active(lambda row: row.replace(b'active="True"', b'active="False"')),
        "gpu.rim.digest",
    ),
    "the driver RIM as VBIOS RIM": ("vbios_rim", genuine("G01", "driver_rim"), "gpu.rim.kind"),
    "the VBIOS RIM as driver RIM": ("driver_rim", genuine("G01", "vbios_rim"), "gpu.rim.kind"),
    "the RIM of a switch": ("vbios_rim", genuine("G04", "vbios_rim"), "gpu.rim.not-yet-valid"),
    # revocation
    "an answer about another certificate": (
        "gpu_certificate_l2",
        genuine("G01", "gpu_certificate_l3"),
        "gpu.revocation.certificate",
    ),
    "an answer of another authority": (
        "gpu_driver_rim_l4",
        genuine("G01", "gpu_vbios_l4"),
        "gpu.revocation.certificate",
    ),
    "a status in an answer": ("gpu_certificate_l2", lambda data: data.replace(b"\x80\x00", b"\x82\x00", 1), ""),
}
"""By name: the file of G01 that is changed, how, and the reason of its refusal ("" where it has several)."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_named_change_is_refused(name: str) -> None:
    file, edit, reason = REFUSED[name]
    target = targets()["G01", file]
    changed = edit(target.data)
    assert changed != target.data
    with pytest.raises(InterlockError) as refused:
        target.verify(changed)
    assert refused.value.reason == reason or not reason
    assert not target.appraise(changed)


@pytest.mark.parametrize(
    "name", [n for n, (file, _, _) in REFUSED.items() if file == "chain" and "another family" not in n]
)
def test_a_named_change_of_a_chain_is_refused_for_blackwell_too(name: str) -> None:
    _, edit, _ = REFUSED[name]
    target = targets()["G03", "chain"]
    changed = edit(target.data)
    assert changed != target.data
    assert not target.appraise(changed)


@pytest.mark.parametrize("at", [0, 4, 37, 41, BLOCKS, BLOCKS + 7, -97, -96, -1])
@pytest.mark.parametrize("beginning", ["G03", "G04"])
def test_the_regions_of_a_report_of_other_devices(beginning: str, at: int) -> None:
    target = targets()[beginning, "report"]
    assert not target.appraise(flip(at)(target.data))
