"""What somebody who is nobody here can cost those who are: their challenges, hints, log and loop stay theirs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from attestation.api import CHALLENGE, AuthorizationRequest, ChallengeRequest
from attestation.challenge import LIFETIME_SECONDS
from attestation.cose import ES256, SoftwareSigner
from attestation.errors import Untrusted
from attestation.evidence import read_evidence, sign_evidence
from attestation.intent import Limits, sign_intent
from fixtures.attester import SoftTpm
from tests.verifier.hall import CA, Hall, Host, allowed, denied, leased
from tests.verifier.test_service import running
from verifier.app import address_of
from verifier.authorize import authorize
from verifier.pages import Pages
from verifier.watch import Watch


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with Hall(tmp_path) as made:
        yield made


def test_a_stranger_cannot_use_up_the_challenges_of_a_node(hall: Hall) -> None:
    async def ask() -> None:
        await hall.furnish()
        last = await hall.verifier.challenge("host", "192.0.2.1")
        for _ in range(hall.settings.open_challenges - 1):
            await hall.verifier.challenge("host", "192.0.2.1")
        with pytest.raises(Untrusted, match=r"challenge\.too-many"):
            await hall.verifier.challenge("host", "192.0.2.1")
        await hall.verifier.challenge("host", "192.0.2.2")
        hall.verifier.close_challenge(last.nonce)
        hall.verifier.close_challenge(last.nonce)
        await hall.verifier.challenge("host", "192.0.2.1")
        hall.hands.time += LIFETIME_SECONDS + 1
        for _ in range(hall.settings.open_challenges):
            await hall.verifier.challenge("host", "192.0.2.1")

    hall.run(ask())


def test_over_the_network_addresses_are_told_apart(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        body = ChallengeRequest(node="host").to_bytes()
        for _ in range(service.hall.settings.open_challenges):
            assert service.post(CHALLENGE, body).status_code == 200
        assert service.post(CHALLENGE, body).status_code == 429
        transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=False)  # only where from matters
        with httpx.Client(base_url=service.url, transport=transport) as other:
            answer = other.post(CHALLENGE, content=body, headers={"content-type": "application/cbor"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    ],
)
def test_an_ipv6_network_is_one_address(host: str, address: str) -> None:
    assert address_of(Request({"type": "http", "client": (host, 1)})) == address


def test_nobody_has_an_address_without_a_client() -> None:
    assert address_of(Request({"type": "http", "client": None})) == ""


@pytest.mark.parametrize(("who", "charged"), [("stranger", True), ("node", False)])
def test_evidence_that_the_node_did_not_sign_is_charged_by_its_size(hall: Hall, who: str, charged: bool) -> None:
    async def ask() -> None:
        host = await hall.furnish()
        intent = hall.intent(tenant="others")
        challenge = await hall.verifier.challenge("host", "192.0.2.1")
        token = host.evidence(challenge, intent)
        if who == "stranger":
            token = sign_evidence(read_evidence(token)[0], SoftwareSigner.generate(ES256))
        rate, throttle = hall.settings.requests_per_second, hall.verifier.throttle
        throttle.charge("192.0.2.1", rate - 1)
        assert not throttle.is_exhausted("192.0.2.1")
        asked = AuthorizationRequest(intent=sign_intent(intent, hall.person), evidence=token)
        denied(await authorize(hall.verifier, asked))
        assert throttle.is_exhausted("192.0.2.1") == charged

    hall.run(ask())


def test_one_address_has_half_of_the_watches() -> None:
    async def wait() -> None:
        watch = Watch(limit=4, start=0)
        waiting = [asyncio.create_task(watch.wait(name, 0, 60, "192.0.2.1")) for name in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(Untrusted, match=r"watch\.full"):
            await watch.wait("d", 0, 60, "192.0.2.1")
        waiting.append(asyncio.create_task(watch.wait("d", 0, 60, "192.0.2.2")))
        await asyncio.sleep(0)
        watch.close()
        await asyncio.gather(*waiting)
        assert await watch.wait("a", 1, 0.01, "192.0.2.1") == 1

    asyncio.run(wait())


def test_a_large_bundle_does_not_keep_others_waiting(hall: Hall) -> None:
    async def ask() -> int:
        host = await hall.furnish()
        intent = hall.intent(limits=Limits(seconds=600, memory_mb=64, processes=4, renewals=1000))
        grant, _ = allowed(await host.ask(intent))
        for _ in range(200):
            leased(await host.renew(grant, intent))
        request = Request({"type": "http", "path_params": {"grant": grant.id.hex()}})
        making = asyncio.ensure_future(Pages(hall.verifier, hall.service.health).bundle(request))
        turns = 0
        while not making.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert len((await making).body) > 500_000
        return turns

    assert hall.run(ask()) > 2


def test_a_spare_token_does_not_lead_out_of_quarantine(hall: Hall) -> None:
    async def enrol() -> None:
        await hall.load()
        tokens = [await hall.command("token.create", node="host", pool="lab", activate=True) for _ in range(2)]
        host = Host(hall, "host", SoftTpm(CA))
        assert (await host.enrol(tokens[0]["token"])).state == "active"
        await hall.command("node.set-state", node="host", state="quarantined")
        assert (await host.enrol(tokens[1]["token"])).state == "quarantined"
        assert hall.verifier.node("host").state == "quarantined"

    hall.run(enrol())
