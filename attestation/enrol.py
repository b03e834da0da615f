"""Enrolment: how a host becomes a node, as messages.

The operator makes a one-time *token* that carries the verifier's URL and the fingerprint of its four keys, so that no
CA file is copied by hand. The host sends what its TPM says it is (:class:`EnrolRequest`); the verifier answers with a
credential that only the TPM with that EK and that AK can open (:class:`EnrolChallenge`); the host returns the secret,
with a fresh quote of the counters and firmware (:class:`EnrolProof`), and gets its name and pool (:class:`Enrolled`).
Source: TPM 2.0 Part 1, section 24 (credential protection).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from attestation.errors import Malformed, Untrusted
from attestation.wire import Wire, label, wire

TOKEN_PREFIX = "interlock1."  # noqa: S105 - a format marker, not a secret
MAX_TOKEN = 2048


@wire
class EnrolToken(Wire):
    """What an operator hands to a host: where the verifier is, how to know it, and a secret to be used once."""

    MAX_SIZE = MAX_TOKEN

    url: str = label(1, most=512)
    fingerprint: bytes = label(2, size=32)
    secret: bytes = label(3, size=32)

    def to_text(self) -> str:
        """The token as one line of text."""
        return TOKEN_PREFIX + base64.urlsafe_b64encode(self.to_bytes()).rstrip(b"=").decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> "EnrolToken":
        """Read a token line. Raises ``Malformed``."""
        body = text.strip()
        if len(body) > MAX_TOKEN or not body.startswith(TOKEN_PREFIX):
            raise Malformed("enrol.token", f"an enrolment token begins with {TOKEN_PREFIX!r}")
        encoded = body.removeprefix(TOKEN_PREFIX)
        try:
            data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise Malformed("enrol.token", "the token is not base64url; was it copied whole?") from error
        token = cls.from_bytes(data)
        if token.to_text() != body:
            raise Malformed("enrol.token", "the token has more than one spelling")
        return token


@wire
class VerifierKeys(Wire):
    """The verifier's public keys, SPKI DER, its issuer name and its log's origin: what an agent pins.

    ``policy`` is the key that says until when the agent's holder key works (:mod:`attestation.tpm.policy`).
    """

    issuer: str = label(1, most=256)
    origin: str = label(2, most=256)
    tls: bytes = label(3, most=512)
    grant: bytes = label(4, most=512)
    log: bytes = label(5, most=512)
    policy: bytes = label(6, most=512)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 over the four keys, each preceded by its length in eight bytes."""
        parts = (self.tls, self.grant, self.log, self.policy)
        return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()


def verify_keys(keys: VerifierKeys, *, fingerprint: bytes, tls: bytes) -> VerifierKeys:
    """The keys, if they are those that the token names and the connection was made to; else ``Untrusted``."""
    if not hmac.compare_digest(keys.fingerprint, fingerprint):
        raise Untrusted("enrol.fingerprint", "the verifier's keys are not those that the token names")
    if not hmac.compare_digest(keys.tls, tls):
        raise Untrusted("enrol.tls", "the connection does not end at the key that the verifier names")
    return keys


@wire
class EnrolRequest(Wire):
    """Publics are TPMT_PUBLIC, ``certify`` TPMS_ATTEST and its TPMT_SIGNATURE over the creation of the holder key by
    the AK, ``creation`` the TPMS_CREATION_DATA of that key."""

    MAX_SIZE = 65536

    secret: bytes = label(1, size=32)
    ek_certificate: bytes = label(2, most=8192)
    ek_public: bytes = label(3, most=1024)
    ak_public: bytes = label(4, most=1024)
    holder_public: bytes = label(5, most=1024)
    certify: bytes = label(6, most=2048)
    certify_signature: bytes = label(7, most=1024)
    intermediates: tuple[bytes, ...] = label(8, most=8192)
    creation: bytes = label(9, most=1024)


@wire
class EnrolChallenge(Wire):
    """A credential for TPM2_ActivateCredential, and the nonce that the proof's quote must carry."""

    session: bytes = label(1, size=16)
    id_object: bytes = label(2, most=512)
    encrypted_secret: bytes = label(3, most=1024)
    nonce: bytes = label(4, size=32)
    bank: int = label(5, high=0xFFFF)
    pcrs: tuple[int, ...] = label(6, high=23, most=24, ordered=True)


@wire
class EnrolProof(Wire):
    """The opened credential, and a first quote whose qualifying data is the challenge's nonce."""

    MAX_SIZE = 65536

    session: bytes = label(1, size=16)
    secret: bytes = label(2, size=32)
    quote: bytes = label(3, most=2048)
    signature: bytes = label(4, most=1024)
    bank: int = label(5, high=0xFFFF)
    pcrs: Mapping[int, bytes] = label(6, most=64)


@wire
class Enrolled(Wire):
    """The node's name, pool and state, and the receipt of the record of its enrolment."""

    node: str = label(1, most=128)
    pool: str = label(2, most=128)
    state: str = label(3, most=16)
    receipt: bytes = label(4, most=16384)
