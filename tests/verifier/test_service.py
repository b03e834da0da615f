"""The service as hosts meet it: real TLS on loopback, every kind of answer, hints, health, and a clean end."""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from attestation import api
from attestation.api import AuthorizationRequest, ChallengeRequest, Hint
from attestation.bundle import Bundle
from attestation.challenge import Challenge
from attestation.cose import sign1
from attestation.enrol import EnrolChallenge, Enrolled, VerifierKeys
from attestation.grant import Authorization
from attestation.intent import sign_intent
from attestation.log import verify_checkpoint
from attestation.problem import DENIAL_TYPE, PROBLEM_TYPE, Denial, Problem
from attestation.report import sign_report
from fixtures.attester import SoftTpm
from fixtures.measured import captured, policy_for
from tests.verifier.hall import CA, Hall, Host, allowed, ended
from verifier.changes import Unit
from verifier.refs import spool
from verifier.service import Server, listen
from verifier.store import Unavailable


class Running:
    """A hall whose service listens, and a client that trusts its certificate."""

    def __init__(self, hall: Hall, host: Host, port: int, stop: Callable[[], None]) -> None:
        self.hall, self.host, self.stop = hall, host, stop
        context = ssl.create_default_context(cafile=str(hall.settings.keys / "tls.crt"))
        self.url = f"https://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=30)

    def post(self, path: str, body: bytes, kind: str = api.CBOR_TYPE) -> httpx.Response:
        return self.http.post(path, content=body, headers={"content-type": kind})

    def challenge(self, node: str = "host") -> Challenge:
        return Challenge.from_bytes(self.post(api.CHALLENGE, ChallengeRequest(node=node).to_bytes()).content)

    def authorize(self, **changes: Any) -> tuple[httpx.Response, Any]:
        intent = self.hall.intent(**changes)
        evidence = self.host.evidence(self.challenge(), intent)
        body = AuthorizationRequest(intent=sign_intent(intent, self.hall.person), evidence=evidence).to_bytes()
        return self.post(api.AUTHORIZE, body), intent

    def problem(self, response: httpx.Response) -> Problem:
        assert response.headers["content-type"] == PROBLEM_TYPE
        return Problem.from_bytes(response.content)


@contextmanager
def running(directory: Path) -> Iterator[Running]:
    """A furnished hall over TLS; its loop runs in a thread."""
    with Hall(directory) as hall, listen("127.0.0.1", 0) as listener:
        host = hall.run(hall.furnish())
        lines: list[str] = []
        ready = threading.Event()

        def announce(line: str) -> None:
            lines.append(line)
            ready.set()

        server = Server(hall.service, announce)
        loops: list[asyncio.AbstractEventLoop] = []

        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            await server.run_until_stopped(listener)

        def stop() -> None:
            if thread.is_alive():
                loops[0].call_soon_threadsafe(server.stop)
                thread.join(10)

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        try:
            assert ready.wait(10)
            assert lines == [f"ready: hall on https://127.0.0.1:{listener.getsockname()[1]}"]
            made = Running(hall, host, listener.getsockname()[1], stop)
            with made.http:
                yield made
        finally:
            stop()
            assert not thread.is_alive()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as made:
        yield made


def test_a_job_from_enrolment_to_report(service: Running) -> None:
    token = service.hall.run(service.hall.command("token.create", node="second", pool="lab"))["token"]
    second = Host(service.hall, "second", SoftTpm(CA))
    asked = EnrolChallenge.from_bytes(service.post(api.ENROL, second.request(token).to_bytes()).content)
    proof = service.post(api.ENROL_PROOF, second.proof(asked).to_bytes())
    assert Enrolled.from_bytes(proof.content).state == "pending"

    response, intent = service.authorize()
    assert (response.status_code, response.headers["content-type"]) == (200, api.CBOR_TYPE)
    grant, _ = allowed(Authorization.from_bytes(response.content))
    service.hall.hands.time += 1
    evidence = service.host.evidence(service.challenge(), intent, grant=grant.id)
    lease = service.post(api.RENEW, evidence, api.COSE_TYPE)
    assert (lease.status_code, lease.headers["content-type"]) == (200, api.COSE_TYPE)
    report = service.post(api.REPORT, sign_report(ended(grant), service.host.holder), api.COSE_TYPE)
    assert report.status_code == 200

    bundle = Bundle.from_bytes(service.http.get(f"/v1/bundle/{grant.id.hex()}").content)
    assert len(bundle.leaves) == 4
    assert len(bundle.leases) == 2
    assert bundle.grant is not None


def test_a_denial_is_a_403_with_its_receipt(service: Running) -> None:
    response, _ = service.authorize(tenant="others")
    assert (response.status_code, response.headers["content-type"]) == (403, DENIAL_TYPE)
    denial = Denial.from_bytes(response.content)
    assert denial.codes == ("authz.tenant",)
    assert service.http.get(f"/v1/bundle/{denial_job(denial)}").status_code == 200


def denial_job(denial: Denial) -> str:
    from attestation.log import Record

    job = Record.from_bytes(denial.record).job
    assert job is not None
    return job.hex()


GARBAGE: dict[str, tuple[str, bytes, str, int, str]] = {
    "nothing": (api.AUTHORIZE, b"", api.CBOR_TYPE, 400, "cbor.syntax"),
    "an empty map": (api.AUTHORIZE, b"\xa0", api.CBOR_TYPE, 400, "wire.missing"),
    "not tokens": (api.AUTHORIZE, b"\xa2\x01\x40\x02\x40", api.CBOR_TYPE, 400, "cbor.syntax"),
    "trailing bytes": (api.CHALLENGE, b"\xa1\x01\x61a\x00", api.CBOR_TYPE, 400, "cbor.not-deterministic"),
    "unknown node": (api.CHALLENGE, b"\xa1\x01\x61a", api.CBOR_TYPE, 404, "node.unknown"),
    "JSON": (api.CHALLENGE, b"{}", "application/json", 415, "http.type"),
    "too large": (api.CHALLENGE, b"\x00" * 5000, api.CBOR_TYPE, 413, "http.size"),
    "random bytes to renew": (api.RENEW, b"\xd2\x84\x40", api.COSE_TYPE, 400, "cbor.syntax"),
    "random bytes to report": (api.REPORT, b"\x00", api.COSE_TYPE, 400, "cose.structure"),
    "an enrolment of nothing": (api.ENROL, b"\xa0", api.CBOR_TYPE, 400, "wire.missing"),
    "a proof of nothing": (api.ENROL_PROOF, b"\xa0", api.CBOR_TYPE, 400, "wire.missing"),
    "no such path": ("/v1/other", b"", api.CBOR_TYPE, 404, "http.path"),
    "a page that is read only": ("/health", b"", api.CBOR_TYPE, 404, "http.path"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.mark.parametrize(("path", "body", "kind", "status", "reason"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_problem_and_not_in_the_log(
    shared: Running, path: str, body: bytes, kind: str, status: int, reason: str
) -> None:
    before = shared.hall.verifier.store.head().size
    response = shared.post(path, body, kind)
    problem = shared.problem(response)
    assert (response.status_code, problem.status, problem.reason) == (status, status, reason)
    assert shared.hall.verifier.store.head().size == before


def test_a_body_that_grows_too_large_is_cut_off(shared: Running) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1000)

    response = shared.http.post(api.CHALLENGE, content=parts(), headers={"content-type": api.CBOR_TYPE})
    assert shared.problem(response).reason == "http.size"


async def measuring(hall: Hall) -> None:
    """Enrol a host in a pool of its own that has an IMA reference."""
    left = spool.leave(hall.settings.directory, policy_for(captured()[1]).to_bytes())
    asked = {"policy": left, "provenance": "test", "pools": ["measured"], "activate": True}
    await hall.command("refs.ima.put", name="files", **asked)
    made = await hall.command("token.create", node="measured", pool="measured", activate=True)
    await Host(hall, "measured", SoftTpm(CA)).enrol(made["token"])


NAMED: dict[str, tuple[Callable[[bytes], str | None], bool]] = {
    "no challenge": (lambda _: None, False),
    "an open challenge": (lambda nonce: nonce.hex(), True),
    "another challenge": (lambda nonce: nonce[::-1].hex(), False),
    "half a challenge": (lambda nonce: nonce[:16].hex(), False),
    "no hexadecimal": (lambda _: "zz", False),
    "an empty name": (lambda _: "", False),
}


@pytest.mark.parametrize(("name", "is_read"), NAMED.values(), ids=NAMED)
def test_a_large_body_is_read_for_an_open_challenge_alone(
    shared: Running, name: Callable[[bytes], str | None], *, is_read: bool
) -> None:
    large, path = bytes(api.UNNAMED_BODY + 1), api.RENEW

    def reason(body: bytes) -> str:
        shared.hall.hands.time += 1  # the throttle lets go
        return shared.problem(shared.http.post(path, content=body, headers=headers)).reason

    other, hall = name(shared.challenge().nonce), shared.hall
    if hall.verifier.store.node("measured") is None:
        hall.run(measuring(hall))
    named = name(shared.challenge("measured").nonce)
    headers = {"content-type": api.COSE_TYPE} | ({} if named is None else {api.CHALLENGE_HEADER: named})
    assert (reason(large) != "http.size") == is_read
    assert reason(bytes(api.MAX_BODY[path] + 1)) == "http.size"
    hall.hands.time += 31
    assert reason(large) == "http.size"
    headers = {"content-type": api.COSE_TYPE} | ({} if other is None else {api.CHALLENGE_HEADER: other})
    assert reason(large) == "http.size"  # a challenge that wants no list


def test_garbage_in_a_strangers_envelope_is_refused_everywhere(shared: Running) -> None:
    evidence = sign1(shared.hall.person, typ="application/interlock-evidence+cose", payload=b"\xa0")
    assert shared.problem(shared.post(api.RENEW, evidence, api.COSE_TYPE)).reason == "wire.missing"


def test_a_stranger_is_throttled(service: Running) -> None:
    service.hall.verifier.throttle._rate = 3
    reasons = [shared_reason(service) for _ in range(6)]
    assert reasons[0] == "node.unknown"
    assert reasons[-1] == "http.rate"


def shared_reason(service: Running) -> str:
    return service.problem(service.post(api.CHALLENGE, ChallengeRequest(node="nobody").to_bytes())).reason


# --- what anybody may read --------------------------------------------------------------------------------------------


def test_keys_in_both_forms(shared: Running) -> None:
    keys = VerifierKeys.from_bytes(shared.http.get(api.KEYS).content)
    assert keys.origin == "hall/log"
    as_json = shared.http.get(api.KEYS, headers={"accept": "application/json"}).json()
    assert as_json["fingerprint"] == keys.fingerprint.hex()


def test_the_checkpoint_verifies(shared: Running) -> None:
    note = shared.http.get("/checkpoint").content
    checkpoint = verify_checkpoint(note, shared.hall.verifier.keys.log.public, "hall/log")
    assert checkpoint.size == shared.hall.verifier.store.head().size
    proof = shared.http.get("/proof").json()
    assert (proof["size"], proof["root"]) == (checkpoint.size, checkpoint.root.hex())
    assert proof["in_force"]["policy"] == shared.hall.verifier.in_force().policy.digest.hex()


def test_metrics(shared: Running) -> None:
    text = shared.http.get("/metrics").text
    assert "interlock_log_size" in text
    assert "interlock_append_seconds_bucket" in text


@pytest.mark.parametrize("path", ["/v1/bundle/xx", "/v1/bundle/" + "0" * 32, "/v1/bundle/00"])
def test_bundles_that_are_not_there(shared: Running, path: str) -> None:
    assert shared.http.get(path).status_code == 404


# --- hints ------------------------------------------------------------------------------------------------------------


def test_a_revocation_wakes_the_hosts_watcher_at_once(service: Running) -> None:
    service.authorize()
    since = Hint.from_bytes(service.http.get(api.WATCH, params={"node": "host", "since": "0"}).content).version
    answers: list[float] = []

    def watch() -> None:
        response = service.http.get(api.WATCH, params={"node": "host", "since": str(since)})
        assert Hint.from_bytes(response.content).version > since
        answers.append(time.monotonic())

    thread = threading.Thread(target=watch)
    thread.start()
    while not service.hall.verifier.watch._waiting:
        threading.Event().wait(0.005)
    from verifier.admin import ask

    ask(service.hall.settings.admin_socket, "revoke", {"job": "digits"})
    revoked = time.monotonic()
    thread.join(5)
    assert answers[0] - revoked < 0.5


WATCHES = {
    "unknown node": ({"node": "nobody", "since": "0"}, 404),
    "no number": ({"node": "host", "since": "x"}, 400),
    "no since": ({"node": "host"}, 400),
    "a huge number": ({"node": "host", "since": "9" * 40}, 400),
    "another script's digits": ({"node": "host", "since": "\u0663"}, 400),
}


@pytest.mark.parametrize(("query", "status"), WATCHES.values(), ids=WATCHES)
def test_watches_that_are_refused(shared: Running, query: dict[str, str], status: int) -> None:
    assert shared.http.get(api.WATCH, params=query).status_code == status


def test_a_service_that_stops_answers_its_watchers(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        since = service.hall.verifier.watch.version("host")
        answers: list[int] = []

        def watch() -> None:
            query, headers = {"node": "host", "since": str(since)}, {"connection": "close"}
            answers.append(service.http.get(api.WATCH, params=query, headers=headers).status_code)

        thread = threading.Thread(target=watch)
        thread.start()
        while not service.hall.verifier.watch._waiting:
            threading.Event().wait(0.005)
        service.stop()
        thread.join(5)
        assert answers == [200]


# --- health -----------------------------------------------------------------------------------------------------------


def test_a_healthy_service_says_so(shared: Running) -> None:
    response = shared.http.get("/health")
    assert response.status_code == 200
    assert response.json() == {
        "live": True,
        "ready": True,
        "trust": dict.fromkeys(("log", "signer", "clock", "store", "collateral"), "ok"),
    }


def break_log(service: Running) -> None:
    service.hall.service.sequencer._trouble = Unavailable("log.unavailable", "disk full")


def break_signer(service: Running) -> None:
    class Bad:
        public = service.hall.verifier.keys.grant.public

        def sign(self, message: bytes) -> bytes:
            return bytes(64)

    service.hall.verifier.keys = replace(service.hall.verifier.keys, grant=Bad())


def break_policy_key(service: Running) -> None:
    keys = service.hall.verifier.keys

    class Bad:
        public = keys.policy.public

        def sign(self, message: bytes) -> bytes:
            return keys.grant.sign(message)

    service.hall.verifier.keys = replace(keys, policy=Bad())


def break_clock(service: Running) -> None:
    service.hall.hands.step = -86_400


def break_store(service: Running) -> None:
    def probe() -> None:
        raise Unavailable("log.unavailable", "read-only file system")

    service.hall.verifier.store.probe = probe  # type: ignore[method-assign]


BREAK = {
    "log": ("log", break_log),
    "signer": ("signer", break_signer),
    "policy key": ("signer", break_policy_key),
    "clock": ("clock", break_clock),
    "store": ("store", break_store),
}


@pytest.mark.parametrize("name", BREAK)
def test_a_service_that_cannot_trust_itself_issues_nothing(service: Running, name: str) -> None:
    part, spoil = BREAK[name]
    intent = service.hall.intent()
    evidence = service.host.evidence(service.challenge(), intent)
    body = AuthorizationRequest(intent=sign_intent(intent, service.hall.person), evidence=evidence).to_bytes()
    spoil(service)
    service.hall.service.health._looked = None
    response = service.post(api.AUTHORIZE, body)
    assert response.status_code == 503
    assert service.problem(response).reason == "verifier.untrusted"
    assert service.hall.verifier.store.jobs() == []
    health = service.http.get("/health")
    assert health.status_code == 503
    assert {name for name, word in health.json()["trust"].items() if word != "ok"} == {part}


def test_a_log_from_the_future_is_not_trusted(tmp_path: Path) -> None:
    with Hall(tmp_path) as hall:
        hall.run(hall.load())
        hall.hands.time -= 3600
        hall.reopen()
        assert "future" in hall.service.health.trust()["clock"]


def test_a_service_without_a_policy_is_not_ready(tmp_path: Path) -> None:
    with Hall(tmp_path) as hall:
        assert not hall.service.health.is_ready()
        assert hall.service.health.loaded().startswith("policy.none")


def test_an_error_of_ours_is_a_no(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        """Fails as no log should."""

        def submit(self, unit: Unit) -> Any:
            raise ZeroDivisionError("ours")

    service.hall.verifier.log = Broken()
    response = service.post(api.CHALLENGE, ChallengeRequest(node="host").to_bytes())
    assert response.status_code == 500
    assert service.problem(response).reason == "verifier.failed"
    assert b"ours" not in response.content


def test_a_log_that_fails_is_a_503(service: Running) -> None:
    class Full:
        """Has no room."""

        def submit(self, unit: Unit) -> Any:
            raise Unavailable("log.unavailable", "no space left")

    service.hall.verifier.log = Full()
    response, _ = (service.post(api.CHALLENGE, ChallengeRequest(node="host").to_bytes()), None)
    assert (response.status_code, service.problem(response).reason) == (503, "log.unavailable")


def test_answers_name_no_server(shared: Running) -> None:
    assert "server" not in shared.http.get("/health").headers
