"""The way to the verifier: one pinned certificate, limits, and three ways to fail that are never mixed."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typing_extensions import override

from agent.client import Denied, Pinned, Rejected, Unreachable, Verifier, see_certificate
from attestation import api
from attestation.challenge import Challenge
from attestation.errors import InterlockError, Malformed
from attestation.evidence import Cmw, sign_evidence
from attestation.grant import Authorization
from attestation.problem import DENIAL_TYPE, PROBLEM_TYPE, Denial, Problem, Refusal
from tests.attestation.examples import EVIDENCE, HOLDER, NONCE, TPM_RECORD

CHALLENGE = Challenge(expires_in=30, bank=11, audience="v", pcrs=(0,), issued=1, nonce=bytes(32))
DENIAL = Denial(record=b"r", receipt=b"s", klass="hard", reasons=(Refusal.of("authz.role"), Refusal.of("code.unknown")))
GONE = Problem.of(400, "challenge.expired", "31 s")


def certificate(key: ec.EllipticCurvePrivateKey, *, days: int = 1) -> x509.Certificate:
    """Self-signed; with negative days it expired long ago. The name is nobody's."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somewhere else")])
    end = datetime.now(UTC) + timedelta(days=days)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), end - timedelta(10), end
    )
    return builder.sign(key, hashes.SHA256())


@dataclass
class Answer:
    """What the server says to everything."""

    status: int = 200
    body: bytes = field(default_factory=CHALLENGE.to_bytes)
    kind: str = api.CBOR_TYPE
    promised: int | None = None
    after: float = 0.0


class Server:
    """A TLS server that says the same to everybody."""

    def __init__(self, folder: Path, made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.answer = Answer()
        self.asked: list[tuple[str, str, bytes]] = []
        self.named: str | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                server.asked.append((self.path, self.headers.get("content-type", ""), body))
                server.named = self.headers.get(api.CHALLENGE_HEADER)
                answer = server.answer
                threading.Event().wait(answer.after)
                self.send_response(answer.status)
                self.send_header("content-type", answer.kind)
                self.send_header("content-length", str(answer.promised or len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
                if answer.promised:
                    self.close_connection = True

            do_GET = do_POST  # noqa: N815 - the name that http.server looks for

            @override
            def log_message(self, *_: object) -> None:
                """Say nothing."""

        pem = folder / "server.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


KEY = ec.generate_private_key(ec.SECP256R1())


@contextmanager
def serving(folder: Path, made: x509.Certificate, key: ec.EllipticCurvePrivateKey = KEY) -> Iterator[Server]:
    server = Server(folder, made, key)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def client(url: str, pinned: x509.Certificate) -> Iterator[Verifier]:
    verifier = Verifier(Pinned(url, pinned.public_bytes(serialization.Encoding.DER)), answer_seconds=2)
    try:
        yield verifier
    finally:
        verifier.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("tls"), PINNED) as made:
        yield made


PINNED = certificate(KEY)


def test_the_pinned_certificate_is_accepted_whatever_its_name_and_dates(tmp_path: Path) -> None:
    for days in (1, -100):
        made = certificate(KEY, days=days)
        with serving(tmp_path, made) as server, client(server.url, made) as verifier:
            assert verifier.challenge("host") == CHALLENGE
            assert server.asked == [(api.CHALLENGE, api.CBOR_TYPE, api.ChallengeRequest(node="host").to_bytes())]


OTHER = ec.generate_private_key(ec.SECP256R1())
OTHERS = {
    "another key, the same name": lambda: (certificate(OTHER), OTHER),
    "another key, expired": lambda: (certificate(OTHER, days=-100), OTHER),
    "signed by a root that the system trusts or not": lambda: (issued(), OTHER),
}


def issued() -> x509.Certificate:
    """A certificate that another authority signed for the other key."""
    root = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    end = datetime.now(UTC) + timedelta(days=1)
    builder = x509.CertificateBuilder(
        subject, subject, OTHER.public_key(), x509.random_serial_number(), end - timedelta(2), end
    )
    return builder.sign(root, hashes.SHA256())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_no_other_certificate_is_accepted(tmp_path: Path, name: str) -> None:
    made, key = OTHERS[name]()
    with serving(tmp_path, made, key) as server, client(server.url, PINNED) as verifier:
        with pytest.raises(Unreachable):
            verifier.challenge("host")
        assert server.asked == []


def test_the_certificate_is_seen_before_it_is_believed(server: Server) -> None:
    pinned = see_certificate(server.url)
    assert pinned.certificate == PINNED.public_bytes(serialization.Encoding.DER)
    assert pinned.spki == KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1", "https://", "file:///etc/passwd"])
def test_only_https_is_spoken(url: str) -> None:
    with pytest.raises(Malformed) as refused:
        see_certificate(url)
    assert refused.value.reason == "enrol.url"


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable) as refused:
        see_certificate("https://127.0.0.1:1")
    assert refused.value.reason == "verifier.unreachable"


ANSWERS: dict[str, tuple[type[InterlockError], str, Answer]] = {
    "a denial": (Denied, "authz.role", Answer(403, DENIAL.to_bytes(), DENIAL_TYPE)),
    "a denial with parameters": (Denied, "authz.role", Answer(403, DENIAL.to_bytes(), f"{DENIAL_TYPE}; v=1")),
    "a denial that is broken": (Malformed, "cbor.syntax", Answer(403, b"\xff", DENIAL_TYPE)),
    "a denial with another status": (Unreachable, "verifier.unreachable", Answer(400, DENIAL.to_bytes(), DENIAL_TYPE)),
    "a problem": (Rejected, "challenge.expired", Answer(400, GONE.to_bytes(), PROBLEM_TYPE)),
    "a problem of the verifier's": (
        Unreachable,
        "log.unavailable",
        Answer(503, Problem.of(503, "log.unavailable").to_bytes(), PROBLEM_TYPE),
    ),
    "too many requests": (
        Unreachable,
        "challenge.expired",
        Answer(429, Problem.of(429, "challenge.expired").to_bytes(), PROBLEM_TYPE),
    ),
    "a problem that is broken": (Malformed, "cbor.syntax", Answer(400, b"\xff", PROBLEM_TYPE)),
    "a page": (Unreachable, "verifier.unreachable", Answer(404, b"<html>", "text/html")),
    "a proxy's page": (Unreachable, "verifier.unreachable", Answer(502, b"<html>", "text/html")),
    "a redirect": (Unreachable, "verifier.unreachable", Answer(302, b"", "text/html")),
    "no challenge": (Malformed, "cbor.syntax", Answer(200, b"")),
    "garbage": (Malformed, "cbor.syntax", Answer(200, b"\xff\xff")),
    "more than there may be": (Malformed, "verifier.answer", Answer(200, bytes(5000))),
    "more than a denial may be": (Malformed, "verifier.answer", Answer(403, bytes((1 << 20) + 1), DENIAL_TYPE)),
    "less than was promised": (Unreachable, "verifier.unreachable", Answer(200, b"x", promised=100)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_none(server: Server, name: str) -> None:
    kind, reason, server.answer = ANSWERS[name]
    with client(server.url, PINNED) as verifier, pytest.raises(kind) as refused:
        verifier.challenge("host")
    assert refused.value.reason == reason


def test_a_decision_may_take_longer_than_another_answer(server: Server) -> None:
    granted = Authorization(grant=b"g", record=b"r", lease=b"l", secrets={})
    server.answer = Answer(body=granted.to_bytes(), after=0.5)
    pinned = Pinned(server.url, PINNED.public_bytes(serialization.Encoding.DER))
    verifier = Verifier(pinned, answer_seconds=0.2)
    try:
        assert verifier.authorize(b"i", b"e") == granted
        with pytest.raises(Unreachable):
            verifier.renew(b"e")
    finally:
        verifier.close()


def test_a_denial_brings_all_its_reasons(server: Server) -> None:
    server.answer = Answer(403, DENIAL.to_bytes(), DENIAL_TYPE)
    with client(server.url, PINNED) as verifier, pytest.raises(Denied) as refused:
        verifier.renew(b"evidence")
    assert refused.value.denial == DENIAL


CALLS: dict[str, tuple[str, str, Callable[[Verifier], object]]] = {
    "renew": (api.RENEW, api.COSE_TYPE, lambda v: v.renew(b"e")),
    "report": (api.REPORT, api.COSE_TYPE, lambda v: v.report(b"r")),
    "bundle": (f"/v1/bundle/{'aa' * 16}", "", lambda v: v.bundle(b"\xaa" * 16)),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_question_has_its_place(server: Server, name: str) -> None:
    path, kind, ask = CALLS[name]
    server.answer = Answer(200, b"answer")
    server.asked.clear()
    with client(server.url, PINNED) as verifier:
        assert ask(verifier) == b"answer"
    assert [(asked[0], asked[1]) for asked in server.asked] == [(path, kind)]


def test_large_evidence_names_the_challenge_that_it_answers(server: Server) -> None:
    server.answer = Answer(200, b"answer")
    for size, named in ((10, None), (api.UNNAMED_BODY, NONCE.hex())):
        record = replace(TPM_RECORD, ima=bytes(size))
        collection = {"tpm": Cmw(EVIDENCE.collection["tpm"].type, record.to_bytes())}
        with client(server.url, PINNED) as verifier:
            verifier.renew(sign_evidence(replace(EVIDENCE, collection=collection), HOLDER))
        assert server.named == named


def test_a_hint_is_waited_for(server: Server) -> None:
    server.answer = Answer(200, api.Hint(version=7).to_bytes())
    with client(server.url, PINNED) as verifier:
        assert verifier.watch("host", 6) == 7
    assert server.asked[-1][0] == f"{api.WATCH}?node=host&since=6"
