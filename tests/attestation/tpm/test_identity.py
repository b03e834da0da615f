"""EK, AK and holder key: rows 17, 18, 21 and 22 of the refusal matrix, each as named bad inputs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestation.errors import InterlockError, Untrusted
from attestation.keys import ES256, PublicKey, SoftwareSigner
from attestation.tpm import identity, structures
from attestation.tpm.attest import CertifyInfo, CreationInfo, PcrSelection
from attestation.tpm.creation import CreationData
from attestation.tpm.identity import (
    AK_ATTRIBUTES,
    EK_ATTRIBUTES,
    EK_HIGH_RANGE_ATTRIBUTES,
    HOLDER_ATTRIBUTES,
    PLAIN_HOLDER_ATTRIBUTES,
    RSASSA_SHA256,
    Ek,
    verify_ak,
    verify_ek,
    verify_holder,
)
from attestation.tpm.policy import holder_auth_policy
from attestation.tpm.structures import (
    ALG_ECDSA,
    ALG_RSA,
    ALG_RSAPSS,
    ALG_SHA1,
    ALG_SHA256,
    ALG_SHA384,
    ATTRIBUTE_NAMES,
    ECC_P384,
    RH_ENDORSEMENT,
    RH_OWNER,
    SIGN,
    ST_CERTIFY,
    ST_CREATION,
    ST_QUOTE,
    EccParameters,
    Public,
    RsaParameters,
    Scheme,
    Symmetric,
    attribute_names,
    digest,
)
from fixtures.attester import CREATION, SoftTpm, public_of, sign
from fixtures.ca import EK_EKU, Profile, TestCa, ek_profile
from tests.attestation.tpm.stand import AT, CA, TPM, ak, quote_body

SOFT = {kind: SoftTpm(CA, ek=kind) for kind in ("p256", "p384", "rsa2048")}
KEYS = {name: tpm.ek.crypto_key() for name, tpm in SOFT.items()}
EK = SOFT["p256"].ek
ROGUE = TestCa("stand")  # the same names, other keys
AES = Symmetric(structures.ALG_AES, 128, structures.ALG_CFB)


def believe(certificate: bytes, public: bytes | Public = EK, **changes: Any) -> Ek:
    raw = public if isinstance(public, bytes) else public.to_bytes()
    arguments: dict[str, Any] = {"intermediates": CA.intermediates, "anchors": [CA.anchor], "at": AT, **changes}
    return verify_ek(certificate, raw, arguments.pop("intermediates"), arguments.pop("anchors"), **arguments)


@pytest.mark.parametrize("kind", SOFT)
def test_an_honest_ek_is_believed(kind: str) -> None:
    tpm = SOFT[kind]
    ek = believe(tpm.ek_certificate(), tpm.ek)
    assert (ek.public, ek.certificate, ek.anchor) == (tpm.ek, tpm.certificate, CA.anchor)
    assert ek.anchor.assurance == "test"
    assert len(ek.digest) == 32


def test_the_digest_of_an_ek_is_that_of_its_key_whatever_the_template() -> None:
    low = believe(SOFT["p256"].certificate, EK)
    high = believe(SOFT["p256"].certificate, replace(EK, attributes=EK_HIGH_RANGE_ATTRIBUTES, policy=b""))
    assert low.digest == high.digest
    assert low.digest != believe(SOFT["rsa2048"].certificate, SOFT["rsa2048"].ek).digest


@pytest.mark.parametrize("padding", [b"", b"\xff" * 431, bytes(17)])
def test_an_nv_image_is_trimmed_to_its_certificate(padding: bytes) -> None:
    certificate = SOFT["p256"].certificate
    assert believe(certificate + padding).certificate == certificate


# row 22: what the certificate may not be
def certificate(kind: str = "p256", **changes: Any) -> bytes:
    return CA.issue_ek(KEYS[kind], replace(ek_profile(KEYS[kind]), **changes))


def usages(*names: str) -> dict[str, Any]:
    return {"usages": frozenset(names)}


def resigned(old: bytes, new: bytes) -> bytes:
    """The good certificate with some bytes of its signed part exchanged, and signed anew by the same authority."""
    good = x509.load_der_x509_certificate(GOOD)
    tbs = good.tbs_certificate_bytes.replace(old, new)
    signature = CA.intermediate.key.sign(tbs, ec.ECDSA(SHA256()))  # type: ignore[call-arg,arg-type]
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    body = tbs + algorithm + bytes([0x03, len(signature) + 1, 0]) + signature
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


EC_KEY_OID = bytes.fromhex("2a8648ce3d0201")
SMALL_RSA = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - to be refused
P521 = ec.generate_private_key(ec.SECP521R1()).public_key()
K256 = ec.generate_private_key(ec.SECP256K1()).public_key()
ED25519: Any = ed25519.Ed25519PrivateKey.generate().public_key()
GOOD = SOFT["p256"].certificate

BAD_CERTIFICATES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "tpm.ek.certificate"),
    "only padding": (b"\xff" * 1600, "tpm.ek.certificate"),
    "not DER": (b"-----BEGIN CERTIFICATE-----", "tpm.ek.certificate"),
    "a sequence of nothing": (b"\x30\x82\x01\x00" + bytes(256), "tpm.ek.certificate"),
    "cut short": (GOOD[:-1], "tpm.ek.certificate"),
    "followed by a byte": (GOOD + b"\x01", "tpm.ek.certificate"),
    "followed by mixed padding": (GOOD + b"\xff\x00", "tpm.ek.certificate"),
    "twice": (GOOD + GOOD, "tpm.ek.certificate"),
    "changed": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "chain.signature"),
    "changed before the signature": (GOOD.replace(b"\x55\x1d\x25", b"\x55\x1d\x26"), "chain.signature"),
    "of a stranger with the same names": (ROGUE.issue_ek(KEYS["p256"]), "chain.signature"),
    "expired": (certificate(not_after=AT - timedelta(days=1)), "chain.expired"),
    "of the future": (certificate(not_before=AT + timedelta(days=1)), "chain.not-yet-valid"),
    "for signatures": (certificate(**usages("digital_signature")), "tpm.ek.usage"),
    "for everything": (certificate(**usages("key_agreement", "digital_signature")), "tpm.ek.usage"),
    "for certificates": (certificate(**usages("key_agreement", "key_cert_sign"), ca=True), "tpm.ek.usage"),
    "of an authority": (certificate(ca=True), "tpm.ek.usage"),
    "no usage": (certificate(usages=frozenset()), "tpm.ek.usage"),
    "usage of the other kind": (certificate(**usages("key_encipherment")), "tpm.ek.usage"),
    "RSA with usage of the other kind": (certificate("rsa2048", **usages("key_agreement")), "tpm.ek.usage"),
    "extended usage of a server": (
        certificate(extended=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        "tpm.ek.usage",
    ),
    "an attestation key's, which carries the EK's extended usage": (
        certificate(**usages("digital_signature"), extended=(EK_EKU,)),
        "tpm.ek.usage",
    ),
    "RSA 1024": (CA.issue_ek(SMALL_RSA), "tpm.key.size"),
    "P-521": (CA.issue_ek(P521), "tpm.key.curve"),
    "secp256k1": (CA.issue_ek(K256), "tpm.key.curve"),
    "a key of an unknown kind": (
        resigned(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209")),
        "tpm.key.type",
    ),
    "a point beside the curve": (resigned(EK.parameters.y, bytes(32)), "tpm.key.type"),  # type: ignore[union-attr]
    "Ed25519": (CA.issue_ek(ED25519), "tpm.key.type"),
}


@pytest.mark.parametrize("name", BAD_CERTIFICATES)
def test_row_22_certificate(name: str) -> None:
    bad, reason = BAD_CERTIFICATES[name]
    with pytest.raises(InterlockError) as refusal:
        believe(bad)
    assert refusal.value.reason == reason


CRL_AT = AT - timedelta(days=1)
BAD_CHAINS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown root": ({"anchors": [TestCa("other").anchor]}, "chain.unknown-root"),
    "no root": ({"anchors": []}, "chain.unknown-root"),
    "no intermediate": ({"intermediates": ()}, "chain.unknown-root"),
    "a root that came along": (
        {"anchors": [TestCa("other").anchor], "intermediates": (*CA.intermediates, CA.root.der)},
        "chain.unknown-root",
    ),
    "before its time": ({"at": datetime(2020, 1, 1, tzinfo=UTC)}, "chain.not-yet-valid"),
    "revoked": (
        {
            "crls": (
                CA.root.crl(at=CRL_AT),
                CA.intermediate.crl([x509.load_der_x509_certificate(GOOD)], at=CRL_AT),
            )
        },
        "chain.revoked",
    ),
    "revocation unknown": ({"crls": (CA.root.crl(at=CRL_AT),)}, "chain.crl.missing"),
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_row_22_chain(name: str) -> None:
    changes, reason = BAD_CHAINS[name]
    with pytest.raises(Untrusted) as refusal:
        believe(GOOD, **changes)
    assert refusal.value.reason == reason


def test_row_22_an_issuer_that_is_no_authority() -> None:
    leaf = CA.intermediate.authority("not an authority", Profile(frozenset({"digital_signature"}), ca=False))
    issued = leaf.issue("", KEYS["p256"], ek_profile(KEYS["p256"]))
    with pytest.raises(Untrusted) as refusal:
        believe(issued.public_bytes(Encoding.DER), intermediates=(*CA.intermediates, leaf.der))
    assert refusal.value.reason == "chain.not-a-ca"


def test_a_certificate_that_is_not_revoked_passes_its_lists() -> None:
    crls = (CA.root.crl(at=CRL_AT), CA.intermediate.crl(at=CRL_AT))
    assert believe(GOOD, crls=crls).certificate == GOOD


@pytest.mark.parametrize("extended", [(), (EK_EKU,), (EK_EKU, ExtendedKeyUsageOID.CLIENT_AUTH)])
def test_the_role_is_decided_by_key_usage(extended: tuple[x509.ObjectIdentifier, ...]) -> None:
    assert believe(certificate(extended=extended)).public == EK


def test_a_certificate_without_basic_constraints_is_an_end_entity() -> None:
    assert believe(certificate(ca=None)).public == EK


# row 21
def ecc(public: Public = EK, **changes: Any) -> Public:
    assert isinstance(public.parameters, EccParameters)
    return replace(public, parameters=replace(public.parameters, **changes))


X, Y = EK.parameters.x, EK.parameters.y  # type: ignore[union-attr]
BAD_EKS: dict[str, tuple[bytes | Public, str]] = {
    "empty": (b"", "tpm.public.truncated"),
    "cut short": (EK.to_bytes()[:-1], "tpm.public.truncated"),
    "followed by a byte": (EK.to_bytes() + b"\0", "tpm.public.trailing"),
    "a keyed hash": (replace(EK, type=8), "tpm.public.unsupported"),
    "another TPM's": (SoftTpm(CA).ek, "tpm.ek.mismatch"),
    "another kind": (SOFT["rsa2048"].ek, "tpm.ek.mismatch"),
    "a point beside the curve": (ecc(y=bytes(32)), "tpm.key.point"),
    "another curve": (ecc(curve=ECC_P384), "tpm.key.point"),
    "an unknown curve": (ecc(curve=1), "tpm.key.curve"),
    "not restricted": (replace(EK, attributes=EK_ATTRIBUTES & ~structures.RESTRICTED), "tpm.ek.attributes"),
    "not for decryption": (replace(EK, attributes=EK_ATTRIBUTES & ~structures.DECRYPT), "tpm.ek.attributes"),
    "for signing too": (replace(EK, attributes=EK_ATTRIBUTES | SIGN), "tpm.ek.attributes"),
    "not fixedTPM": (replace(EK, attributes=EK_ATTRIBUTES & ~structures.FIXED_TPM), "tpm.ek.attributes"),
    "not fixedParent": (replace(EK, attributes=EK_ATTRIBUTES & ~structures.FIXED_PARENT), "tpm.ek.attributes"),
    "of foreign origin": (
        replace(EK, attributes=EK_ATTRIBUTES & ~structures.SENSITIVE_DATA_ORIGIN),
        "tpm.ek.attributes",
    ),
    "with a scheme": (ecc(scheme=Scheme(structures.ALG_ECDH, ALG_SHA256)), "tpm.ek.template"),
    "without symmetric": (ecc(symmetric=Symmetric()), "tpm.ek.template"),
    "another mode": (ecc(symmetric=Symmetric(structures.ALG_AES, 128, 0x42)), "tpm.ek.template"),
    "another cipher": (ecc(symmetric=Symmetric(0x13, 128, structures.ALG_CFB)), "tpm.public.unsupported"),
    "named by SHA-1": (replace(EK, name_alg=ALG_SHA1), "tpm.ek.template"),
    "named by another hash than its size": (replace(EK, name_alg=ALG_SHA384), "tpm.ek.template"),
    "a wider cipher than its name": (
        ecc(symmetric=Symmetric(structures.ALG_AES, 256, structures.ALG_CFB)),
        "tpm.ek.template",
    ),
    "with a KDF": (ecc(kdf=Scheme(structures.ALG_ECDH, ALG_SHA256)), "tpm.ek.template"),
}


@pytest.mark.parametrize("name", BAD_EKS)
def test_row_21_ek_public(name: str) -> None:
    bad, reason = BAD_EKS[name]
    with pytest.raises(InterlockError) as refusal:
        believe(GOOD, bad)
    assert refusal.value.reason == reason


# row 18, AK
AK = TPM.ak
RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_TEMPLATE = Public(
    ALG_RSA, ALG_SHA256, AK_ATTRIBUTES, b"", RsaParameters(Symmetric(), RSASSA_SHA256, 2048, 0, bytes(256))
)
RSA_AK = public_of(RSA_KEY, RSA_TEMPLATE)


def rsa_ak(**changes: Any) -> Public:
    assert isinstance(RSA_AK.parameters, RsaParameters)
    return replace(RSA_AK, parameters=replace(RSA_AK.parameters, **changes))


def modulus(bits: int) -> bytes:
    return ((1 << bits) - 1).to_bytes((bits + 7) // 8, "big")


BAD_AKS: dict[str, tuple[bytes | Public, str]] = {
    "empty": (b"", "tpm.public.truncated"),
    "followed by a byte": (AK.to_bytes() + b"\0", "tpm.public.trailing"),
    "named by SHA-384": (replace(AK, name_alg=ALG_SHA384), "tpm.ak.name-alg"),
    "named by SHA-1": (replace(AK, name_alg=ALG_SHA1), "tpm.ak.name-alg"),
    "with a policy": (replace(AK, policy=bytes(32)), "tpm.ak.policy"),
    "no scheme": (ecc(AK, scheme=Scheme()), "tpm.ak.scheme"),
    "scheme with SHA-1": (ecc(AK, scheme=Scheme(ALG_ECDSA, ALG_SHA1)), "tpm.ak.scheme"),
    "scheme ECDAA": (ecc(AK, scheme=Scheme(0x1A, ALG_SHA256)), "tpm.ak.scheme"),
    "symmetric": (ecc(AK, symmetric=AES), "tpm.ak.scheme"),
    "a KDF": (ecc(AK, kdf=Scheme(0x20, ALG_SHA256)), "tpm.ak.scheme"),
    "on P-384": (ecc(AK, curve=ECC_P384), "tpm.ak.scheme"),
    "on P-192": (ecc(AK, curve=1), "tpm.ak.scheme"),
    "on P-224": (ecc(AK, curve=2), "tpm.ak.scheme"),
    "beside the curve": (ecc(AK, y=bytes(32)), "tpm.key.point"),
    "no point": (ecc(AK, x=b"", y=b""), "tpm.key.point"),
    "RSAPSS": (rsa_ak(scheme=Scheme(ALG_RSAPSS, ALG_SHA256)), "tpm.ak.scheme"),
    "RSASSA with SHA-1": (rsa_ak(scheme=Scheme(0x14, ALG_SHA1)), "tpm.ak.scheme"),
    "RSA with symmetric": (rsa_ak(symmetric=AES), "tpm.ak.scheme"),
    "RSA 1024": (rsa_ak(bits=1024, n=modulus(1024)), "tpm.key.size"),
    "RSA 2047": (rsa_ak(bits=2048, n=modulus(2047)), "tpm.key.size"),
    "RSA of another size than it says": (rsa_ak(bits=3072), "tpm.key.size"),
    "RSA 16384": (rsa_ak(bits=16384, n=modulus(16384)), "tpm.key.size"),
    "RSA with an even modulus": (rsa_ak(n=(1 << 2047).to_bytes(256, "big")), "tpm.key.size"),
    "e is 1": (rsa_ak(exponent=1), "tpm.key.exponent"),
    "e is 2": (rsa_ak(exponent=2), "tpm.key.exponent"),
    "e is even": (rsa_ak(exponent=65536), "tpm.key.exponent"),
}


def test_an_honest_ak_is_believed() -> None:
    believed = verify_ak(AK.to_bytes())
    assert (believed.public, believed.name) == (AK, AK.name)
    assert believed.qualified_name == AK.qualified_name(RH_ENDORSEMENT) != AK.qualified_name(RH_OWNER)


@pytest.mark.parametrize("exponent", [0, 3, 65537])
def test_an_rsa_ak_is_believed(exponent: int) -> None:
    assert verify_ak(rsa_ak(exponent=exponent).to_bytes()).scheme == RSASSA_SHA256


@pytest.mark.parametrize("name", BAD_AKS)
def test_row_18_and_17_ak(name: str) -> None:
    bad, reason = BAD_AKS[name]
    with pytest.raises(InterlockError) as refusal:
        verify_ak(bad if isinstance(bad, bytes) else bad.to_bytes())
    assert refusal.value.reason == reason


def with_bit_flipped(kind: str, bit: int) -> None:
    if kind == "ak":
        verify_ak(replace(AK, attributes=AK_ATTRIBUTES ^ bit).to_bytes())
    elif kind == "holder":
        certify(replace(HOLDER, attributes=HOLDER_ATTRIBUTES ^ bit))
    else:
        believe(GOOD, replace(EK, attributes=EK_ATTRIBUTES ^ bit))


BITS = [(kind, 1 << n) for kind in ("ak", "holder", "ek") for n in range(32)]
BITS.remove(("ek", structures.USER_WITH_AUTH))  # the one in which the two families of EK templates differ


@pytest.mark.parametrize(("kind", "bit"), BITS)
def test_row_18_every_attribute_counts(kind: str, bit: int) -> None:
    with pytest.raises(Untrusted) as refusal:
        with_bit_flipped(kind, bit)
    assert refusal.value.reason == f"tpm.{kind}.attributes"
    assert attribute_names(bit) == ATTRIBUTE_NAMES.get(bit, f"0x{bit:08x}")


def test_user_auth_is_an_attribute() -> None:
    assert AK.has_user_auth
    assert not EK.has_user_auth


def test_attributes_are_shown_by_name() -> None:
    assert attribute_names(AK_ATTRIBUTES) == (
        "fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign"
    )
    assert attribute_names(0) == "none"
    assert attribute_names(1 | SIGN) == "sign, 0x00000001"


# holder
HOLDER_KEY = ec.generate_private_key(ec.SECP256R1())
POLICY = SoftwareSigner.generate(ES256).public
PLAIN = Public.from_bytes(TPM.create_holder().public)
HOLDER = Public.from_bytes(TPM.create_holder(POLICY).public)


def certify(
    public: Public, *, creation: bytes = CREATION, policy: PublicKey | None = POLICY, **changes: Any
) -> identity.Holder:
    info = CreationInfo(public.name, digest(ALG_SHA256, creation))
    attested = TPM.signed(**{"kind": ST_CREATION, "body": info.to_bytes(), **changes})
    return verify_holder(public.to_bytes(), *attested, creation, ak=ak(), policy=policy)


def test_an_honest_holder_key_is_believed() -> None:
    holder = verify_holder(HOLDER.to_bytes(), *TPM.certify_holder(b"anything"), CREATION, ak=ak(), policy=POLICY)
    assert (holder.public, holder.name) == (HOLDER, HOLDER.name)
    assert not HOLDER.has_user_auth


def test_a_plain_holder_key_is_believed_as_such() -> None:
    tpm = SoftTpm(CA)
    public = Public.from_bytes(tpm.create_holder().public)
    holder = verify_holder(public.to_bytes(), *tpm.certify_holder(b""), CREATION, ak=verify_ak(tpm.ak.to_bytes()))
    message = b"evidence"
    holder.key.verify(message, tpm.sign_as_holder(sha256(message).digest()))


def test_creation_data_of_a_tpm_are_read() -> None:
    """As swtpm 0.7.1 writes them for a primary key of the owner: the digest is that of no PCR."""
    wire = bytes.fromhex("00000000" + "0020" + sha256(b"").hexdigest() + "01" + "0010" + "000440000001" * 2 + "0000")
    read = CreationData.from_bytes(wire)
    assert read.to_bytes() == wire
    assert read.is_primary_of(RH_OWNER)
    assert replace(read, selections=(PcrSelection.of(ALG_SHA256, (7,)),)).to_bytes()[:4] == bytes([0, 0, 0, 1])


OTHER = SoftTpm(CA)
HOLDER_CREATION = CreationInfo(HOLDER.name, digest(ALG_SHA256, CREATION)).to_bytes()
RSA_HOLDER = replace(RSA_AK, attributes=HOLDER_ATTRIBUTES)
OF_OWNER = CreationData.of_primary(RH_OWNER)
BAD_HOLDERS: dict[str, tuple[Public, dict[str, Any], str]] = {
    "magic": (HOLDER, {"magic": 0}, "tpm.certify.magic"),
    "a quote": (HOLDER, {"kind": ST_QUOTE, "body": quote_body()}, "tpm.certify.type"),
    "a certification": (
        HOLDER,
        {"kind": ST_CERTIFY, "body": CertifyInfo(HOLDER.name, HOLDER.qualified_name(RH_OWNER)).to_bytes()},
        "tpm.certify.type",
    ),
    "cut short": (HOLDER, {"body": HOLDER_CREATION[:-1]}, "tpm.attest.truncated"),
    "followed by a byte": (HOLDER, {"body": HOLDER_CREATION + b"\0"}, "tpm.attest.trailing"),
    "signed by another": (HOLDER, {"key": OTHER.ak_key}, "tpm.certify.signature"),
    "signed by itself": (HOLDER, {"key": HOLDER_KEY}, "tpm.certify.signature"),
    "signed with RSA": (HOLDER, {"key": RSA_KEY}, "tpm.certify.scheme"),
    "another signer": (HOLDER, {"signer": OTHER.ak.qualified_name()}, "tpm.certify.signer"),
    "creation of another key": (
        HOLDER,
        {"body": CreationInfo(AK.name, digest(ALG_SHA256, CREATION)).to_bytes()},
        "tpm.holder.name",
    ),
    "no name": (HOLDER, {"body": CreationInfo(b"", b"").to_bytes()}, "tpm.holder.name"),
    "no creation hash": (HOLDER, {"body": CreationInfo(HOLDER.name, b"").to_bytes()}, "tpm.holder.creation"),
    "other creation data than certified": (
        HOLDER,
        {"body": CreationInfo(HOLDER.name, digest(ALG_SHA256, b"other")).to_bytes()},
        "tpm.holder.creation",
    ),
    "endorsement hierarchy": (
        HOLDER,
        {"creation": CreationData.of_primary(RH_ENDORSEMENT).to_bytes()},
        "tpm.holder.hierarchy",
    ),
    "below another key": (
        HOLDER,
        {"creation": replace(OF_OWNER, parent_alg=ALG_SHA256, parent=AK.name).to_bytes()},
        "tpm.holder.hierarchy",
    ),
    "below a key that is named like the owner": (
        HOLDER,
        {"creation": replace(OF_OWNER, parent_alg=ALG_SHA256).to_bytes()},
        "tpm.holder.hierarchy",
    ),
    "creation data cut short": (HOLDER, {"creation": CREATION[:-1]}, "tpm.creation.truncated"),
    "creation data followed by a byte": (HOLDER, {"creation": CREATION + b"\0"}, "tpm.creation.trailing"),
    "creation data of many selections": (HOLDER, {"creation": b"\0\0\0\x11" + CREATION[4:]}, "tpm.creation.value"),
    "no policy": (replace(HOLDER, policy=b""), {}, "tpm.holder.policy"),
    "another policy": (replace(HOLDER, policy=bytes(32)), {}, "tpm.holder.policy"),
    "another verifier's policy key": (
        HOLDER,
        {"policy": SoftwareSigner.generate(ES256).public},
        "tpm.holder.policy",
    ),
    "the policy of another TPM": (
        replace(HOLDER, policy=holder_auth_policy(POLICY, OTHER.ak.name)),
        {},
        "tpm.holder.policy",
    ),
    "usable without the policy too": (replace(HOLDER, attributes=PLAIN_HOLDER_ATTRIBUTES), {}, "tpm.holder.attributes"),
    "a plain key": (PLAIN, {}, "tpm.holder.attributes"),
    "enforced where a plain key is enrolled": (HOLDER, {"policy": None}, "tpm.holder.attributes"),
    "plain, with somebody's policy": (
        replace(PLAIN, policy=bytes(32)),
        {"policy": None},
        "tpm.holder.policy",
    ),
    "named by SHA-384": (replace(HOLDER, name_alg=ALG_SHA384), {}, "tpm.holder.name-alg"),
    "no scheme": (ecc(HOLDER, scheme=Scheme()), {}, "tpm.holder.scheme"),
    "on P-384": (ecc(HOLDER, curve=ECC_P384), {}, "tpm.holder.scheme"),
    "RSA": (RSA_HOLDER, {}, "tpm.holder.scheme"),
    "beside the curve": (ecc(HOLDER, y=bytes(32)), {}, "tpm.key.point"),
}


@pytest.mark.parametrize("name", BAD_HOLDERS)
def test_holder_key_is_refused(name: str) -> None:
    public, changes, reason = BAD_HOLDERS[name]
    with pytest.raises(InterlockError) as refusal:
        certify(public, **changes)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("signature", "reason"),
    [(b"", "tpm.signature.truncated"), (sign(TPM.ak_key, b""), "tpm.certify.signature")],
)
def test_holder_key_with_a_bad_signature_is_refused(signature: bytes, reason: str) -> None:
    attested = TPM.certify_holder(b"")
    with pytest.raises(InterlockError) as refusal:
        verify_holder(HOLDER.to_bytes(), attested.attest, signature, CREATION, ak=ak(), policy=POLICY)
    assert refusal.value.reason == reason


def test_a_name_by_an_unknown_hash_is_refused() -> None:
    with pytest.raises(Untrusted) as refusal:
        _ = replace(AK, name_alg=0x12).name
    assert refusal.value.reason == "tpm.hash"


def test_an_rsa_holder_has_no_cose_key() -> None:
    with pytest.raises(Untrusted) as refusal:
        _ = RSA_HOLDER.key
    assert refusal.value.reason == "key.unsupported"
