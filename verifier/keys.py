"""The verifier's four keys, as files: made once, readable by their owner only, never shown.

=========== ======== ===========================================================================
grant.pem   ES256    signs grants and leases
log.pem     Ed25519  signs checkpoints and receipts
tls.pem     P-256    ends TLS connections; ``tls.crt`` is its self-signed certificate
policy.pem  ES256    signs TPM policies: until when a host's holder key works; nothing else
=========== ======== ===========================================================================

The policy key is named in every host's holder key: another one means that all hosts enrol again (docs/operating.md).
Agents pin all four through the fingerprint in their enrolment token, auditors the first two through ``root.pem``.
A key file that anybody but its owner can read is refused at start: whoever could read it may be signing already.
Signing goes through :class:`attestation.keys.Signer`; a key in a TPM or an HSM is another implementation of it.
"""

import ipaddress
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from attestation.enrol import VerifierKeys
from attestation.errors import Malformed, Untrusted
from attestation.keys import EDDSA, ES256, PublicKey, Signer, SoftwareSigner

GRANT, LOG, TLS, POLICY = "grant.pem", "log.pem", "tls.pem", "policy.pem"
CERTIFICATE, ROOT = "tls.crt", "root.pem"
_OWNER_ONLY = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CERTIFICATE_YEARS = 10


@dataclass(frozen=True)
class KeyRing:
    """The keys of a running verifier. ``tls`` is the public key that connections end at."""

    grant: Signer
    log: Signer
    tls: PublicKey
    policy: Signer
    directory: Path

    @classmethod
    def load(cls, directory: Path) -> "KeyRing":
        """Read the keys below ``directory``.

        Raises ``Untrusted("service.key-readable")`` for a key that others can read, ``Malformed("service.key")`` for
        one that is not there or of the wrong kind, ``Malformed("service.policy-key")`` where only the policy key is not
        there, as in a directory of an earlier release, and what :class:`SoftwareSigner` raises for what is no key.
        """
        grant, log, tls = (_signer(directory / name, alg) for name, alg in ((GRANT, ES256), (LOG, EDDSA), (TLS, ES256)))
        if not (directory / POLICY).exists():
            raise Malformed("service.policy-key", f"{directory / POLICY} is not there")
        return cls(grant, log, tls.public, _signer(directory / POLICY, ES256), directory)

    def public(self, issuer: str, origin: str) -> VerifierKeys:
        """What an agent pins."""
        return VerifierKeys(
            issuer=issuer,
            origin=origin,
            tls=self.tls.spki,
            grant=self.grant.public.spki,
            log=self.log.public.spki,
            policy=self.policy.public.spki,
        )

    @property
    def root(self) -> bytes:
        """What an auditor pins: the public grant key and log key, PEM, in this order."""
        return self.grant.public.to_pem() + self.log.public.to_pem()


def create_keys(directory: Path, hosts: Sequence[str], *, at: datetime) -> KeyRing:
    """Make the four keys, the certificate for ``hosts`` (names or addresses) and ``root.pem``.

    ``FileExistsError`` where there are keys already: they are never overwritten.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    grant, log = SoftwareSigner.generate(ES256), SoftwareSigner.generate(EDDSA)
    tls = ec.generate_private_key(ec.SECP256R1())
    write_private(directory / GRANT, grant.to_pem())
    write_private(directory / LOG, log.to_pem())
    write_private(directory / TLS, SoftwareSigner(tls).to_pem())
    create_policy_key(directory)
    (directory / CERTIFICATE).write_bytes(_certificate(tls, hosts, at))
    (directory / ROOT).write_bytes(grant.public.to_pem() + log.public.to_pem())
    return KeyRing.load(directory)


def create_policy_key(directory: Path) -> PublicKey:
    """Make the policy key. ``FileExistsError`` where there is one, ``FileNotFoundError`` without a directory."""
    policy = SoftwareSigner.generate(ES256)
    write_private(directory / POLICY, policy.to_pem())
    return policy.public


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, durably. ``FileExistsError`` if it is there."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_private(path: Path) -> bytes:
    """Read a file that only its owner may read.

    Raises ``Untrusted("service.key-readable")`` where others may too, ``Malformed("service.key")`` where it is missing.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _OTHERS:
                raise Untrusted("service.key-readable", f"{path} has mode {mode:04o}; run: chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise Malformed("service.key", f"{path}: {error.strerror}") from error


def _signer(path: Path, alg: int) -> SoftwareSigner:
    signer = SoftwareSigner.from_pem(read_private(path))
    if signer.public.alg != alg:
        raise Malformed("service.key", f"{path} holds a key for algorithm {signer.public.alg}, must be {alg}")
    return signer


def _certificate(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], at: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at.astimezone(UTC) - timedelta(days=1))
        .not_valid_after(at.astimezone(UTC) + timedelta(days=365 * _CERTIFICATE_YEARS))
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
