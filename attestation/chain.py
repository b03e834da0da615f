"""Device certificate chains: from a leaf to one of the anchors that the operator names.

Path building and validation (RFC 5280 section 6) are OpenSSL's, through pyOpenSSL's `X509Store`, because the
Web-PKI validator of `cryptography` refuses genuine TPM and GPU chains. What `verify_chain` checks:

1. There are no more certificates, and none is larger, than a device chain has.
2. Each is one DER certificate with nothing after it (an image padded by its storage is trimmed by who reads it).
3. A path leads from the leaf over the intermediates, in whatever order they came, to a self-signed anchor. A
   self-signed certificate that came along is never an anchor, whatever its name. OpenSSL checks names, signatures,
   `CA`, path length, key usage, name constraints, and refuses critical extensions that it does not know.
4. Every certificate of the path is valid at the time given. The clock of this machine is never asked.
5. When revocation lists are given, each certificate below the anchor is covered by a current list signed by its
   issuer, and is not on it. A missing list refuses: nothing is "not checked" by accident.
6. Signatures on the path use SHA-2, and the keys that made them have at least 2048 (RSA) or 256 (EC) bits.

Not checked, because it differs by what the certificate is for: the leaf's own key, usage, names and profile. With no
lists given there is no revocation check; the caller's policy has to say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import inf

from cryptography import x509
from OpenSSL import crypto

from attestation.errors import Malformed, Untrusted

MAX_INTERMEDIATES = 8
MAX_CERTIFICATE = 16 * 1024

_ASN1 = crypto.FILETYPE_ASN1
_CRL_FLAGS = crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL

# OpenSSL's X509_V_ERR_* (x509_vfy.h), whose numbers are part of its ABI, as stable reason codes.
_REASONS = {
    2: "chain.unknown-root",  # unable to get issuer certificate
    3: "chain.crl.missing",
    7: "chain.signature",
    8: "chain.crl.signature",
    9: "chain.not-yet-valid",
    10: "chain.expired",
    11: "chain.crl.expired",  # not yet valid: as little use as an old one
    12: "chain.crl.expired",
    18: "chain.unknown-root",  # self-signed leaf
    19: "chain.unknown-root",  # self-signed certificate in chain
    20: "chain.unknown-root",  # unable to get local issuer certificate
    23: "chain.revoked",
    25: "chain.not-a-ca",  # path length exceeded
    32: "chain.not-a-ca",  # key usage does not include certificate signing
    34: "chain.extension",  # unhandled critical extension
    47: "chain.name",  # permitted subtree violation
    48: "chain.name",  # excluded subtree violation
    79: "chain.not-a-ca",  # invalid CA certificate
}
_SIGNATURES = frozenset(
    f"{left}{digest}{right}".encode()
    for left, right, digests in (("sha", "WithRSAEncryption", (256, 384, 512)), ("ecdsa-with-SHA", "", (256, 384, 512)))
    for digest in digests
)
_LEAST_BITS = {crypto.TYPE_RSA: 2048, crypto.TYPE_EC: 256}


@dataclass(frozen=True)
class Anchor:
    """A root that the operator trusts: its name in decisions, its certificate, and what a chain to it assures.

    `assurance` is "hardware" for a manufacturer's root, "test" for every other; it is shown wherever the chain counts.
    """

    name: str
    der: bytes
    assurance: str


def verify_chain(
    leaf_der: bytes,
    intermediates: Sequence[bytes],
    anchors: Sequence[Anchor],
    *,
    at: datetime,
    crls: Sequence[bytes] = (),
) -> Anchor:
    """Verify that `leaf_der` chains to one of `anchors` at the time `at` (aware), and return that anchor.

    All certificates and `crls` are DER. Raises `Malformed` (`chain.size`, `chain.certificate`, `chain.crl.encoding`)
    and `Untrusted` (the other `chain.*` codes). A naive `at` is a `ValueError`.
    """
    if at.tzinfo is None:
        raise ValueError("the time must be aware")
    if len(intermediates) > MAX_INTERMEDIATES:  # (1)
        raise Malformed("chain.size", f"{len(intermediates)} intermediates, {MAX_INTERMEDIATES} allowed")
    leaf, *others = [_certificate(der) for der in (leaf_der, *intermediates)]  # (1) (2)
    store = crypto.X509Store()
    store.set_time(at.astimezone(UTC))  # (4)
    for anchor in anchors:
        store.add_cert(_certificate(anchor.der))
    if crls:
        store.set_flags(_CRL_FLAGS)  # (5)
    for crl in crls:
        store.add_crl(_crl(crl))
    try:
        path = crypto.X509StoreContext(store, leaf, others).get_verified_chain()  # (3) (4) (5)
    except crypto.X509StoreContextError as error:
        number, depth, message = error.errors
        raise Untrusted(_REASONS.get(number, "chain.invalid"), f"{message} (at depth {depth})") from error
    _check_strength(path)  # (6)
    root = crypto.dump_certificate(_ASN1, path[-1])
    return next(anchor for anchor in anchors if anchor.der == root)


def _certificate(der: bytes) -> crypto.X509:
    """Read one DER certificate that encodes back to the same bytes."""
    if len(der) > MAX_CERTIFICATE:
        raise Malformed("chain.size", f"certificate of {len(der)} bytes, {MAX_CERTIFICATE} allowed")
    try:
        certificate = crypto.load_certificate(_ASN1, der)
    except crypto.Error as error:
        raise Malformed("chain.certificate", "not a DER certificate") from error
    if crypto.dump_certificate(_ASN1, certificate) != der:
        raise Malformed("chain.certificate", "bytes after the certificate, or not DER")
    return certificate


def _crl(der: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(der)
    except ValueError as error:
        raise Malformed("chain.crl.encoding", "not a DER certificate revocation list") from error


def _check_strength(path: Sequence[crypto.X509]) -> None:
    """Refuse weak hashes below the anchor and weak keys above the leaf."""
    for certificate, issuer in pairwise(path):
        algorithm = certificate.get_signature_algorithm()
        if algorithm not in _SIGNATURES:
            raise Untrusted("chain.weak", f"signature algorithm {algorithm.decode()}")
        key = issuer.get_pubkey()
        if key.bits() < _LEAST_BITS.get(key.type(), inf):
            raise Untrusted("chain.weak", f"issuer key of {key.bits()} bits, type {key.type()}")
