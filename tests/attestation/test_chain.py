"""Device certificate chains: genuine EK certificates, and a made-up manufacturer for everything that can be wrong."""

import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from attestation import chain
from attestation.chain import Anchor, verify_chain
from attestation.errors import Malformed, Untrusted
from tests import vectors

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Maker"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


@dataclass(frozen=True)
class Party:
    """A certificate with its key; it issues further ones."""

    subject: x509.Name
    key: Any
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class Order:
    """What a certificate is to be like. `issuer` None means self-signed."""

    subject: str
    issuer: Party | None = None
    ca: bool | None = True
    path_length: int | None = None
    key: Any = field(default_factory=new_key)
    begins: datetime = NOW - 100 * DAY
    ends: datetime = NOW + 100 * DAY
    cert_sign: bool | None = True
    digest: Any = field(default_factory=hashes.SHA256)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    pss: bool = False
    signing_key: Any = None


def make(order: Order) -> Party:
    subject = name(order.subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(order.issuer.subject if order.issuer else subject)
        .public_key(order.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(order.begins)
        .not_valid_after(order.ends)
    )
    if order.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(order.ca, order.path_length), critical=True)
    if order.cert_sign is not None:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=order.cert_sign,
                crl_sign=order.cert_sign,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    for extension, critical in order.extensions:
        builder = builder.add_extension(extension, critical)
    signing_key = order.signing_key or (order.issuer.key if order.issuer else order.key)
    scheme: Any = {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA256()), 32)} if order.pss else {}
    return Party(subject, order.key, builder.sign(signing_key, order.digest, **scheme))


def crl(
    issuer: Party,
    *revoked: Party,
    updated: datetime = NOW - DAY,
    ends: datetime = NOW + DAY,
    key: Any = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(updated).next_update(ends)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    for party in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(party.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(updated).build())
    return builder.sign(key or issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


ROOT = make(Order("Root"))
MIDDLE = make(Order("Middle", ROOT))
LEAF = make(Order("Leaf", MIDDLE, ca=False, cert_sign=False))
ANCHOR = Anchor("maker root", ROOT.der, "test")
OTHER_ROOT = make(Order("Other root"))
OTHER = Anchor("other root", OTHER_ROOT.der, "hardware")
SAME_NAME = make(Order("Root"))  # the same name, another key
CRITICAL = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)
NAMES = x509.NameConstraints([x509.DNSName("maker.example")], [x509.DNSName("bad.maker.example")])
CONSTRAINED = make(Order("Middle", ROOT, extensions=((NAMES, True),)))
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def leaf(issuer: Party = MIDDLE, **order: Any) -> bytes:
    return make(Order("Leaf", issuer, **{"ca": False, "cert_sign": False, **order})).der


def san(text: str) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    return ((x509.SubjectAlternativeName([x509.DNSName(text)]), True),)


ACCEPTED: dict[str, tuple[bytes, list[bytes]]] = {
    "leaf, middle, root": (LEAF.der, [MIDDLE.der]),
    "the root sent along": (LEAF.der, [MIDDLE.der, ROOT.der]),
    "any order, and others too": (LEAF.der, [ROOT.der, OTHER_ROOT.der, MIDDLE.der]),
    "the same intermediate twice": (LEAF.der, [MIDDLE.der, MIDDLE.der]),
    "another root of the same name sent along": (LEAF.der, [SAME_NAME.der, MIDDLE.der]),
    "signed by the root": (leaf(ROOT), []),
    "a critical name": (leaf(extensions=san("device.example")), [MIDDLE.der]),
    "a name within the constraints": (leaf(CONSTRAINED, extensions=san("a.maker.example")), [CONSTRAINED.der]),
    "SHA-384": (leaf(digest=hashes.SHA384()), [MIDDLE.der]),
    "no extensions in the leaf": (leaf(ca=None, cert_sign=None), [MIDDLE.der]),
    "a leaf whose key is of any kind": (leaf(key=ed25519.Ed25519PrivateKey.generate()), [MIDDLE.der]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_chain_rests_on_its_anchor(case: str) -> None:
    der, others = ACCEPTED[case]
    assert verify_chain(der, others, [OTHER, ANCHOR], at=NOW) is ANCHOR


def chained(**order: Any) -> tuple[bytes, list[bytes]]:
    """A good leaf below an intermediate that is ordered."""
    middle = make(Order("Middle", **{"issuer": ROOT, **order}))
    return leaf(middle), [middle.der]


def below(depth: int, **order: Any) -> tuple[bytes, list[bytes]]:
    """A leaf below so many intermediates."""
    parties = [make(Order("Middle 0", ROOT, **order))]
    for number in range(1, depth):
        parties.append(make(Order(f"Middle {number}", parties[-1])))
    return leaf(parties[-1]), [party.der for party in parties]


def changed(der: bytes, place: int = -1) -> bytes:
    """One bit of the signature is another."""
    data = bytearray(der)
    data[place] ^= 1
    return bytes(data)


# name: (leaf and intermediates, reason)
REFUSED: dict[str, tuple[Callable[[], tuple[bytes, list[bytes]]], str]] = {
    # unknown roots
    "no anchor above": (lambda: (make(Order("L", OTHER_ROOT)).der, []), "chain.unknown-root"),
    "the intermediate is missing": (lambda: (LEAF.der, []), "chain.unknown-root"),
    "another intermediate": (lambda: (LEAF.der, [CONSTRAINED.der]), "chain.signature"),
    "a self-made root sent along": (
        lambda: (make(Order("L", OTHER_ROOT)).der, [OTHER_ROOT.der]),
        "chain.unknown-root",
    ),
    "a self-signed leaf": (lambda: (OTHER_ROOT.der, []), "chain.unknown-root"),
    "a self-made root of the same name": (lambda: (leaf(SAME_NAME), [SAME_NAME.der]), "chain.signature"),
    "a self-made root of the same name as leaf": (lambda: (SAME_NAME.der, []), "chain.unknown-root"),
    "an intermediate of a self-made root of the same name": (lambda: chained(issuer=SAME_NAME), "chain.signature"),
    # signatures
    "the leaf's signature changed": (lambda: (changed(LEAF.der), [MIDDLE.der]), "chain.signature"),
    "the intermediate's signature changed": (lambda: (LEAF.der, [changed(MIDDLE.der)]), "chain.signature"),
    "the leaf's key changed": (
        lambda: (LEAF.der.replace(public_bytes(LEAF), public_bytes(ROOT)), [MIDDLE.der]),
        "chain.signature",
    ),
    "signed by the leaf's own key": (lambda: (leaf(signing_key=new_key()), [MIDDLE.der]), "chain.signature"),
    # time
    "the leaf expired": (lambda: (leaf(ends=NOW - DAY), [MIDDLE.der]), "chain.expired"),
    "the leaf begins tomorrow": (lambda: (leaf(begins=NOW + DAY), [MIDDLE.der]), "chain.not-yet-valid"),
    "the intermediate expired": (lambda: chained(ends=NOW - DAY), "chain.expired"),
    "the intermediate begins tomorrow": (lambda: chained(begins=NOW + DAY), "chain.not-yet-valid"),
    # who may sign
    "the issuer is no CA": (lambda: chained(ca=False), "chain.not-a-ca"),
    "the issuer does not say that it is a CA": (lambda: chained(ca=None, cert_sign=None), "chain.not-a-ca"),
    "the issuer's key may not sign certificates": (lambda: chained(cert_sign=False), "chain.not-a-ca"),
    "a leaf as issuer": (lambda: (make(Order("Below", LEAF)).der, [LEAF.der, MIDDLE.der]), "chain.not-a-ca"),
    "longer than the path length": (lambda: below(2, path_length=0), "chain.not-a-ca"),
    # extensions and names
    "an unknown critical extension in the leaf": (
        lambda: (leaf(extensions=(CRITICAL,)), [MIDDLE.der]),
        "chain.extension",
    ),
    "an unknown critical extension in the intermediate": (
        lambda: chained(extensions=(CRITICAL,)),
        "chain.extension",
    ),
    "a name outside the constraints": (
        lambda: (leaf(CONSTRAINED, extensions=san("other.example")), [CONSTRAINED.der]),
        "chain.name",
    ),
    "a name that is excluded": (
        lambda: (leaf(CONSTRAINED, extensions=san("bad.maker.example")), [CONSTRAINED.der]),
        "chain.name",
    ),
    # strength
    "an issuer with RSA 1024": (lambda: chained(key=SMALL), "chain.weak"),
    "an issuer on P-192": (lambda: chained(key=ec.generate_private_key(ec.SECP192R1())), "chain.weak"),
    "RSA-PSS": (
        lambda: (leaf(middle := make(Order("Middle", ROOT, key=RSA)), pss=True), [middle.der]),
        "chain.weak",
    ),
    "SHA-3": (lambda: (leaf(digest=hashes.SHA3_256()), [MIDDLE.der]), "chain.weak"),
    "an Ed25519 issuer": (
        lambda: (leaf(middle := make(Order("Middle", ROOT, key=ED25519)), digest=None), [middle.der]),
        "chain.weak",
    ),
}


def public_bytes(party: Party) -> bytes:
    encoded: bytes = party.key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return encoded


@pytest.mark.parametrize("case", REFUSED)
def test_a_chain_is_refused(case: str) -> None:
    build, reason = REFUSED[case]
    der, others = build()
    with pytest.raises(Untrusted) as caught:
        verify_chain(der, others, [ANCHOR], at=NOW)
    assert caught.value.reason == reason


def test_no_anchors_means_no_trust() -> None:
    with pytest.raises(Untrusted, match=r"chain\.unknown-root"):
        verify_chain(LEAF.der, [MIDDLE.der, ROOT.der], [], at=NOW)


def test_an_intermediate_is_no_anchor() -> None:
    """Partial chains are off: an anchor is the root itself."""
    with pytest.raises(Untrusted, match=r"chain\.unknown-root"):
        verify_chain(LEAF.der, [], [Anchor("middle", MIDDLE.der, "hardware")], at=NOW)


def tlv(tag: int, body: bytes) -> bytes:
    """DER with a length of two bytes."""
    return bytes([tag, 0x82]) + len(body).to_bytes(2, "big") + body


def signed_with_sha1(order: Order) -> bytes:
    """The certificate ordered, signed with SHA-1, which its builder refuses to do."""
    sha256, sha1 = bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("300906072a8648ce3d0401")
    assert order.issuer
    body = make(order).certificate.tbs_certificate_bytes[4:].replace(sha256, sha1, 1)
    signature = b"\0" + order.issuer.key.sign(tlv(0x30, body), ec.ECDSA(hashes.SHA1()))  # noqa: S303 - to be refused
    return tlv(0x30, tlv(0x30, body) + sha1 + bytes([3, len(signature)]) + signature)


def test_sha_1_below_the_anchor_is_weak() -> None:
    weak_leaf = signed_with_sha1(Order("Leaf", MIDDLE, ca=False, cert_sign=False))
    weak_middle = signed_with_sha1(Order("Middle", ROOT, key=MIDDLE.key))
    for der, middle in ((weak_leaf, MIDDLE.der), (LEAF.der, weak_middle)):
        with pytest.raises(Untrusted, match=r"chain\.weak"):
            verify_chain(der, [middle], [ANCHOR], at=NOW)


# --- time ------------------------------------------------------------------------------------------------------


def test_the_time_is_the_one_given() -> None:
    old = make(Order("Old root", begins=NOW - 4000 * DAY, ends=NOW - 3000 * DAY))
    der = leaf(old, begins=NOW - 3900 * DAY, ends=NOW - 3100 * DAY)
    anchor = Anchor("old", old.der, "test")
    assert verify_chain(der, [], [anchor], at=NOW - 3500 * DAY) is anchor
    with pytest.raises(Untrusted, match=r"chain\.expired"):
        verify_chain(der, [], [anchor], at=NOW)
    with pytest.raises(Untrusted, match=r"chain\.not-yet-valid"):
        verify_chain(der, [], [anchor], at=NOW - 3950 * DAY)


def test_the_time_is_a_moment_not_a_reading() -> None:
    """In another zone the same moment is the same answer."""
    der = leaf(begins=NOW - timedelta(hours=1))
    east = timezone(timedelta(hours=9))
    assert verify_chain(der, [MIDDLE.der], [ANCHOR], at=NOW.astimezone(east)) is ANCHOR
    with pytest.raises(Untrusted, match=r"chain\.not-yet-valid"):
        verify_chain(der, [MIDDLE.der], [ANCHOR], at=(NOW - timedelta(hours=2)).astimezone(east))


def test_a_naive_time_is_a_bug() -> None:
    with pytest.raises(ValueError, match="aware"):
        verify_chain(LEAF.der, [MIDDLE.der], [ANCHOR], at=datetime(2026, 6, 1))  # noqa: DTZ001 - what is tested


# --- revocation ------------------------------------------------------------------------------------------------

NONE_REVOKED = (crl(ROOT), crl(MIDDLE))


def test_current_lists_that_revoke_nothing() -> None:
    assert verify_chain(LEAF.der, [MIDDLE.der], [ANCHOR], at=NOW, crls=NONE_REVOKED) is ANCHOR
    bystander = make(Order("Bystander", MIDDLE))
    lists = (crl(ROOT), crl(MIDDLE, bystander))
    assert verify_chain(LEAF.der, [MIDDLE.der], [ANCHOR], at=NOW, crls=lists) is ANCHOR


CRLS: dict[str, tuple[tuple[bytes, ...], str]] = {
    "the leaf is revoked": ((crl(ROOT), crl(MIDDLE, LEAF)), "chain.revoked"),
    "the intermediate is revoked": ((crl(ROOT, MIDDLE), crl(MIDDLE)), "chain.revoked"),
    "the leaf's issuer has no list": ((crl(ROOT),), "chain.crl.missing"),
    "the root has no list": ((crl(MIDDLE),), "chain.crl.missing"),
    "a list of somebody else": ((crl(OTHER_ROOT),), "chain.crl.missing"),
    "the leaf's list is old": ((crl(ROOT), crl(MIDDLE, ends=NOW - DAY / 2)), "chain.crl.expired"),
    "the root's list is old": ((crl(ROOT, ends=NOW - DAY / 2), crl(MIDDLE)), "chain.crl.expired"),
    "a list from tomorrow": ((crl(ROOT), crl(MIDDLE, updated=NOW + DAY / 2)), "chain.crl.expired"),
    "a list with an unknown critical extension": ((crl(ROOT), crl(MIDDLE, extensions=(CRITICAL,))), "chain.invalid"),
    "a list signed by another key": ((crl(ROOT), crl(MIDDLE, key=new_key())), "chain.crl.signature"),
}


@pytest.mark.parametrize("case", CRLS)
def test_lists_are_obeyed(case: str) -> None:
    lists, reason = CRLS[case]
    with pytest.raises(Untrusted) as caught:
        verify_chain(LEAF.der, [MIDDLE.der], [ANCHOR], at=NOW, crls=lists)
    assert caught.value.reason == reason


@pytest.mark.parametrize("data", [b"", b"no list", LEAF.der, NONE_REVOKED[0][:-1]])
def test_what_is_no_list_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        verify_chain(LEAF.der, [MIDDLE.der], [ANCHOR], at=NOW, crls=[data])
    assert caught.value.reason == "chain.crl.encoding"


# --- form ------------------------------------------------------------------------------------------------------

NO_CERTIFICATE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "chain.certificate"),
    "text": (b"certificate", "chain.certificate"),
    "PEM": (LEAF.certificate.public_bytes(serialization.Encoding.PEM), "chain.certificate"),
    "cut short": (LEAF.der[:-1], "chain.certificate"),
    "a byte after the end": (LEAF.der + b"\0", "chain.certificate"),
    "padded as in TPM storage": (LEAF.der + b"\xff" * 200, "chain.certificate"),
    "two in one": (LEAF.der + MIDDLE.der, "chain.certificate"),
    "a long length": (b"\x30\x83\x00" + LEAF.der[2:], "chain.certificate"),
    "a list": (NONE_REVOKED[0], "chain.certificate"),
    "too large": (LEAF.der + bytes(chain.MAX_CERTIFICATE), "chain.size"),
}


@pytest.mark.parametrize("place", ["leaf", "intermediate", "anchor"])
@pytest.mark.parametrize("case", NO_CERTIFICATE)
def test_what_is_no_certificate_is_malformed(case: str, place: str) -> None:
    data, reason = NO_CERTIFICATE[case]
    leaf_der = data if place == "leaf" else LEAF.der
    others = [MIDDLE.der, data] if place == "intermediate" else [MIDDLE.der]
    anchors = [ANCHOR, Anchor("bad", data, "test")] if place == "anchor" else [ANCHOR]
    with pytest.raises(Malformed) as caught:
        verify_chain(leaf_der, others, anchors, at=NOW)
    assert caught.value.reason == reason


def leaf_of_size(size: int) -> bytes:
    """A leaf of exactly so many bytes. The length of its signature varies, so it may take some attempts."""
    filler = size - len(leaf(extensions=((filled(size - 700), False),)))
    ders = (leaf(extensions=((filled(size - 700 + filler), False),)) for _ in range(200))
    return next(der for der in ders if len(der) == size)


def filled(count: int) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.2"), bytes(count))


def test_a_certificate_may_have_16_kib() -> None:
    assert verify_chain(leaf_of_size(16384), [MIDDLE.der], [ANCHOR], at=NOW) is ANCHOR
    with pytest.raises(Malformed, match=r"chain\.size"):
        verify_chain(leaf_of_size(16385), [MIDDLE.der], [ANCHOR], at=NOW)


def test_a_chain_is_not_endless() -> None:
    most = below(chain.MAX_INTERMEDIATES)
    assert verify_chain(*most, [ANCHOR], at=NOW) is ANCHOR
    with pytest.raises(Malformed) as caught:
        verify_chain(*below(chain.MAX_INTERMEDIATES + 1), [ANCHOR], at=NOW)
    assert caught.value.reason == "chain.size"


# --- genuine EK certificates -----------------------------------------------------------------------------------

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
THEN = datetime(2025, 1, 1, tzinfo=UTC)


def certificates(path: str) -> list[bytes]:
    """All certificates of a PEM file, or the one of a DER file without the padding of the TPM's storage."""
    data = vectors.path("evidence/tpm/" + path).read_bytes()
    if found := PEM.findall(data):
        return [b64decode(pem) for pem in found]
    return [data[: 4 + int.from_bytes(data[2:4], "big")]]


# certificate: (intermediates, root)
GENUINE = {
    "infineon-slb9665-rsa.der": (["roots/Infineon_OPTIGA_RSA_MfrCA003.pem"], "roots/tpm-ca-certificates.pem"),
    "stm-rsa-nv-padded.der": (
        ["roots/keylime/STM_RSA_05I.pem", "roots/keylime/STM_RSA_RT.pem"],
        "roots/keylime/GS_TPM_RT.pem",
    ),
    "nuvoton-npct-rsa2019.der": ([], "roots/keylime/NUVO_2111.pem"),
    "gce-uca_tpm_rsa_enc_cert.pem": (["roots/gcp/tpm_ek_intermediate_3.crt"], "roots/gcp/tpm_ek_root_1.cer"),
    "gce-uca_tpm_ecc_sign_cert.pem": (["roots/gcp/tpm_ek_intermediate_3.crt"], "roots/gcp/tpm_ek_root_1.cer"),
}


def genuine(case: str) -> tuple[bytes, list[bytes], list[Anchor]]:
    intermediates, roots = GENUINE[case]
    (der,) = certificates("ekcerts/" + case)
    anchors = [Anchor(f"{roots} {number}", root, "hardware") for number, root in enumerate(certificates(roots))]
    return der, [certificate for path in intermediates for certificate in certificates(path)], anchors


@pytest.mark.parametrize("case", GENUINE)
def test_a_genuine_certificate_verifies(case: str) -> None:
    der, intermediates, anchors = genuine(case)
    assert verify_chain(der, intermediates, anchors, at=THEN) in anchors


@pytest.mark.parametrize("case", GENUINE)
def test_a_genuine_certificate_with_one_bit_changed_does_not(case: str) -> None:
    der, intermediates, anchors = genuine(case)
    for place in (-1, len(der) // 2, len(der) // 3):
        with pytest.raises((Malformed, Untrusted)):
            verify_chain(changed(der, place), intermediates, anchors, at=THEN)


@pytest.mark.parametrize("case", GENUINE)
def test_a_genuine_certificate_under_our_root_does_not(case: str) -> None:
    der, intermediates, anchors = genuine(case)
    with pytest.raises(Untrusted, match=r"chain\.unknown-root"):
        verify_chain(der, [*intermediates, *(anchor.der for anchor in anchors)][:8], [ANCHOR], at=THEN)


@pytest.mark.parametrize("case", GENUINE)
def test_a_genuine_certificate_ends(case: str) -> None:
    der, intermediates, anchors = genuine(case)
    with pytest.raises(Untrusted, match=r"chain\.expired"):
        verify_chain(der, intermediates, anchors, at=datetime(2300, 1, 1, tzinfo=UTC))
