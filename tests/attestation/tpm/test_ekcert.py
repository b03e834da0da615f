"""The tolerant reader of EK certificates: what it skips, and what it refuses all the same."""

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InterlockError, Malformed
from attestation.tpm.ekcert import (
    EKU_EK_CERTIFICATE,
    KEY_AGREEMENT,
    KEY_CERT_SIGN,
    KEY_ENCIPHERMENT,
    UntrustedEkCertificate,
    split_der,
)
from fixtures.attester import SoftTpm
from tests.attestation.tpm.stand import CA

GOOD = SoftTpm(CA).certificate
EC_KEY = bytes.fromhex("2a8648ce3d0201")
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def extension(oid: str, value: bytes, critical: bytes = b"") -> bytes:
    return tlv(0x30, tlv(0x06, bytes.fromhex(oid)), critical, tlv(0x04, value))


USAGE = extension("551d0f", bytes.fromhex("03020308"), b"\x01\x01\xff")
NOT_CA = extension("551d13", b"\x30\x00")
CA_FALSE = extension("551d13", bytes.fromhex("3003010100"), bytes.fromhex("010100"))
CA_TRUE = extension("551d13", bytes.fromhex("30030101ff"))
EKU = extension("551d25", tlv(0x30, tlv(0x06, EKU_EK_CERTIFICATE)))


def spki() -> bytes:
    start = GOOD.index(SPKI)
    return GOOD[start : start + 91]


def certificate(*extensions: bytes, head: bytes = tlv(0xA0, b"\x02\x01\x02"), tail: bytes = b"") -> bytes:
    """A certificate in which everything that is skipped is empty."""
    empty = tlv(0x30)
    listed = tlv(0xA3, tlv(0x30, *extensions)) if extensions else b""
    tbs = tlv(0x30, head, b"\x02\x01\x01", empty, empty, empty, empty, spki(), tail, listed)
    return tlv(0x30, tbs, empty, b"\x03\x01\x00")


def test_an_honest_certificate() -> None:
    read = UntrustedEkCertificate.from_bytes(GOOD)
    assert read.key == x509.load_der_x509_certificate(GOOD).public_key()
    assert (read.usage, read.extended, read.ca) == (KEY_AGREEMENT, (EKU_EK_CERTIFICATE,), False)


def test_an_honest_rsa_certificate() -> None:
    read = UntrustedEkCertificate.from_bytes(SoftTpm(CA, ek="rsa2048").certificate)
    assert (read.usage, read.ca) == (KEY_ENCIPHERMENT, False)


def test_an_authority() -> None:
    read = UntrustedEkCertificate.from_bytes(CA.root.der)
    assert (read.usage & KEY_CERT_SIGN, read.extended, read.ca) == (KEY_CERT_SIGN, None, True)


def sized_extension(size: int) -> bytes:
    """An unknown extension whose contents are `size` octets, 127 or 128: about where lengths take their long form."""
    return tlv(0x30, tlv(0x06, b"\x2a\x03"), tlv(0x04, bytes(size - 6)))


ACCEPTED: dict[str, tuple[bytes, tuple[int, tuple[bytes, ...] | None, bool]]] = {
    "all extensions": (certificate(USAGE, NOT_CA, EKU), (KEY_AGREEMENT, (EKU_EK_CERTIFICATE,), False)),
    "encoded defaults": (certificate(USAGE, CA_FALSE), (KEY_AGREEMENT, None, False)),
    "an authority": (certificate(CA_TRUE), (0, None, True)),
    "no extensions": (certificate(), (0, None, False)),
    "unique identifiers": (certificate(USAGE, tail=b"\x81\x01\x00\x82\x01\x00"), (KEY_AGREEMENT, None, False)),
    "an unknown extension": (certificate(USAGE, extension("2a03", b"")), (KEY_AGREEMENT, None, False)),
    "a length of 127": (certificate(USAGE, sized_extension(127)), (KEY_AGREEMENT, None, False)),
    "a length of 128": (certificate(USAGE, sized_extension(128)), (KEY_AGREEMENT, None, False)),
    "no extended usages": (certificate(extension("551d25", b"\x30\x00")), (0, (), False)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_decides_is_read(name: str) -> None:
    der, expected = ACCEPTED[name]
    read = UntrustedEkCertificate.from_bytes(der)
    assert (read.usage, read.extended, read.ca) == expected


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "tpm.ek.certificate"),
    "not a sequence": (b"\x31" + GOOD[1:], "tpm.ek.certificate"),
    "two certificates": (GOOD + GOOD, "tpm.ek.certificate"),
    "cut short": (GOOD[:-1], "tpm.ek.certificate.truncated"),
    "a tag without length": (b"\x30", "tpm.ek.certificate.truncated"),
    "indefinite length": (b"\x30\x80" + GOOD[4:] + b"\0\0", "tpm.ek.certificate"),
    "a length with two leading noughts": (b"\x30\x84\0\0" + GOOD[2:], "tpm.ek.certificate"),
    "a length with a leading nought": (b"\x30\x83\0" + GOOD[2:], "tpm.ek.certificate"),
    "a length of 127 in the long form": (certificate(b"\x30\x81\x7f" + sized_extension(127)[2:]), "tpm.ek.certificate"),
    "an absurd length": (b"\x30\xff" + GOOD[2:], "tpm.ek.certificate.truncated"),
    "a length in the long form for nothing": (tlv(0x30, b"\x30\x81\x01\x00"), "tpm.ek.certificate"),
    "version 1": (certificate(USAGE, head=b""), "tpm.ek.certificate"),
    "no signature": (tlv(0x30, tlv(0x30)), "tpm.ek.certificate"),
    "no key": (tlv(0x30, tlv(0x30), tlv(0x30), b"\x03\x01\x00"), "tpm.ek.certificate"),
    "an unknown field": (certificate(USAGE, tail=b"\x85\x01\x00"), "tpm.ek.certificate"),
    "key usage twice": (certificate(USAGE, USAGE), "tpm.ek.certificate"),
    "an extension without value": (
        certificate(tlv(0x30, tlv(0x06, b"\x55\x1d\x0f"))),
        "tpm.ek.certificate",
    ),
    "an extension without name": (certificate(tlv(0x30, tlv(0x04, b"\x03\x02\x03\x08"))), "tpm.ek.certificate"),
    "key usage of another type": (certificate(extension("551d0f", b"\x04\x02\x03\x08")), "tpm.ek.certificate"),
    "key usage followed by bytes": (
        certificate(extension("551d0f", b"\x03\x02\x03\x08\x00\x00")),
        "tpm.ek.certificate",
    ),
    "an empty key usage": (certificate(extension("551d0f", b"\x03\x01\x00")), "tpm.ek.certificate"),
    "a key of no kind": (
        certificate(USAGE).replace(EC_KEY, EC_KEY[:-1] + b"\x09"),
        "tpm.key.type",
    ),
    "a key beside its curve": (certificate(USAGE).replace(spki()[-32:], bytes(32)), "tpm.key.type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_malformed_is_refused(name: str) -> None:
    bad, reason = REFUSED[name]
    with pytest.raises(InterlockError) as refusal:
        UntrustedEkCertificate.from_bytes(bad)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("data", [b"\x31" + GOOD[1:], GOOD[:-1], GOOD + b"\x01", b"\x30\x82"])
def test_what_is_no_certificate_is_not_split(data: bytes) -> None:
    with pytest.raises(Malformed) as refusal:
        split_der(data)
    assert refusal.value.reason == "tpm.ek.certificate"


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_changed_certificate_is_read_or_refused(at: int, new: bytes, drop: int) -> None:
    try:
        UntrustedEkCertificate.from_bytes(GOOD[:at] + new + GOOD[at + drop :])
    except InterlockError:
        return


@pytest.mark.parametrize("padding", [b"", b"\xff" * 100, bytes(100)])
def test_a_chain_is_split_into_its_certificates(padding: bytes) -> None:
    assert split_der(GOOD + CA.root.der + padding) == (GOOD, CA.root.der)
    assert split_der(padding) == ()
