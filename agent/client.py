"""The agent's side of the verifier's HTTP interface (attestation.api), over TLS to one pinned certificate.

Rules:
1. The only certificate that is accepted is the one seen at enrolment, whose key is in the token's fingerprint. Its
   name and dates mean nothing here: a key is pinned, and no wall clock decides about safety.
2. An answer is read up to a limit and within a deadline, and must have the type that belongs to it.
3. Three ways to fail, never mixed: :class:`Unreachable` (nobody knows: the job's lease runs on), :class:`Denied` (the
   verifier judged and refused, and logged it), :class:`Problem` answers, which become ``Rejected``.
"""

import ssl
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation import api
from attestation.challenge import Challenge
from attestation.enrol import EnrolChallenge, Enrolled, EnrolProof, EnrolRequest, VerifierKeys
from attestation.errors import InterlockError, Malformed
from attestation.evidence import read_evidence
from attestation.grant import Authorization
from attestation.permit import Permit, PermitRequest
from attestation.problem import DENIAL_TYPE, PROBLEM_TYPE, Denial, Problem
from attestation.wire import Wire

BUNDLE: Final = "/v1/bundle"
MAX_BUNDLE: Final = 64 << 20
_SMALL: Final = 65536
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME, openssl/x509_vfy.h
_CONNECT_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 5.0
_DECISION: Final = 6
"""How many times as long a decision may take: the verifier may have to ask others about devices that it never saw."""

W = TypeVar("W", bound=Wire)


class Unreachable(InterlockError):
    """The verifier did not answer, or answered that it cannot: nothing is known, so nothing may begin."""


class Denied(InterlockError):
    """The verifier judged the request and refused it."""

    def __init__(self, denial: Denial) -> None:
        first = denial.reasons[0]
        super().__init__(first.code, first.detail or first.what)
        self.denial = denial


class Rejected(InterlockError):
    """The verifier did not judge the request, because of what its ``problem`` says."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason, problem.detail or problem.title)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Pinned:
    """Where the verifier is, and its TLS certificate (DER)."""

    url: str
    certificate: bytes

    def context(self) -> ssl.SSLContext:
        """TLS 1.3 that accepts this certificate and no other (rule 1)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.load_verify_locations(cadata=self.certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        return context

    @property
    def spki(self) -> bytes:
        """The certificate's public key, DER."""
        key = x509.load_der_x509_certificate(self.certificate).public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def see_certificate(url: str) -> Pinned:
    """Connect once, believing nothing, and take the certificate that is shown. Raises ``Unreachable``."""
    parsed = httpx.URL(url)
    if parsed.scheme != "https" or not parsed.host:
        raise Malformed("enrol.url", f"{url!r} is not an https URL")
    try:
        pem = ssl.get_server_certificate((parsed.host, parsed.port or 443), timeout=_CONNECT_SECONDS)
    except OSError as error:
        raise Unreachable("verifier.unreachable", f"{url}: {error}") from error
    return Pinned(url, ssl.PEM_cert_to_DER_cert(pem))


class Verifier:
    """One connection pool to the verifier; safe to use from several threads."""

    def __init__(self, pinned: Pinned, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        connect = min(_CONNECT_SECONDS, answer_seconds)
        timeout = httpx.Timeout(answer_seconds, connect=connect)
        self._decision = httpx.Timeout(answer_seconds, connect=connect, read=_DECISION * answer_seconds)
        self._http = httpx.Client(
            base_url=pinned.url,
            verify=pinned.context(),
            timeout=timeout,
            trust_env=False,
            follow_redirects=False,
            headers={"user-agent": "interlock-agent", "accept-encoding": "identity"},
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def challenge(self, node: str) -> Challenge:
        """A fresh challenge for ``node``."""
        return self._ask(api.CHALLENGE, api.ChallengeRequest(node=node), Challenge)

    def authorize(self, intent: bytes, evidence: bytes) -> Authorization:
        """The grant with its first lease. Raises ``Denied``."""
        question = api.AuthorizationRequest(intent=intent, evidence=evidence)
        return self._ask(api.AUTHORIZE, question, Authorization, named=evidence, timeout=self._decision)

    def renew(self, evidence: bytes) -> bytes:
        """The next lease, a token. Raises ``Denied``."""
        return self._post(api.RENEW, evidence, api.COSE_TYPE, _SMALL, named=evidence)

    def report(self, token: bytes) -> bytes:
        """The receipt of the report's record."""
        return self._post(api.REPORT, token, api.COSE_TYPE, _SMALL)

    def permit(self, request: PermitRequest) -> Permit:
        """One signature by the holder key, out of lease."""
        return self._ask(api.PERMIT, request, Permit)

    def keys(self) -> VerifierKeys:
        """The keys that the verifier says it has."""
        return VerifierKeys.from_bytes(self._get(api.KEYS, _SMALL))

    def enrol(self, request: EnrolRequest) -> EnrolChallenge:
        """Ask to become a node."""
        return self._ask(api.ENROL, request, EnrolChallenge)

    def prove(self, proof: EnrolProof) -> Enrolled:
        """Answer the enrolment challenge."""
        return self._ask(api.ENROL_PROOF, proof, Enrolled)

    def watch(self, node: str, since: int) -> int:
        """Wait until something changes for ``node``, or for the verifier's patience; the new version."""
        timeout = httpx.Timeout(_ANSWER_SECONDS, read=api.WATCH_SECONDS + _ANSWER_SECONDS)
        query = {"node": node, "since": str(since)}
        return api.Hint.from_bytes(self._send("GET", api.WATCH, _SMALL, params=query, timeout=timeout)).version

    def bundle(self, grant: bytes) -> bytes:
        """Everything about a job, for an auditor."""
        return self._get(f"{BUNDLE}/{grant.hex()}", MAX_BUNDLE)

    def _ask(self, path: str, question: Wire, kind: type[W], **options: Any) -> W:
        return kind.from_bytes(self._post(path, question.to_bytes(), api.CBOR_TYPE, kind.MAX_SIZE, **options))

    def _post(self, path: str, body: bytes, kind: str, limit: int, *, named: bytes = b"", **options: object) -> bytes:
        """``named`` is the evidence in the body: a large body says which challenge it answers."""
        headers = {"content-type": kind}
        if len(body) > api.UNNAMED_BODY and named:
            headers[api.CHALLENGE_HEADER] = read_evidence(named)[0].nonce.hex()
        return self._send("POST", path, limit, content=body, headers=headers, **options)

    def _get(self, path: str, limit: int) -> bytes:
        return self._send("GET", path, limit)

    def _send(self, method: str, path: str, limit: int, **options: object) -> bytes:
        """One exchange; the body of a 200 (rules 2 and 3)."""
        try:
            with self._http.stream(method, path, **options) as response:  # type: ignore[arg-type]  # httpx's own types
                body = _read(response, limit if response.status_code == httpx.codes.OK else Denial.MAX_SIZE)
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: this client was closed
            raise Unreachable("verifier.unreachable", f"{type(error).__name__}: {error}") from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response, body)
        return body


def _read(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    for part in response.iter_raw():
        body += part
        if len(body) > limit:
            raise Malformed("verifier.answer", f"the verifier's answer has more than {limit} bytes")
    return bytes(body)


def _refusal(response: httpx.Response, body: bytes) -> InterlockError:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == DENIAL_TYPE and response.status_code == httpx.codes.FORBIDDEN:
        return Denied(Denial.from_bytes(body))
    if kind != PROBLEM_TYPE:
        return Unreachable("verifier.unreachable", f"status {response.status_code} without an explanation")
    problem = Problem.from_bytes(body)
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or problem.status == httpx.codes.TOO_MANY_REQUESTS:
        return Unreachable(problem.reason, problem.detail or problem.title)
    return Rejected(problem)
