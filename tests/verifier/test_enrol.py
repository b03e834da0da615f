"""verifier.enrol: one host becomes a node, and everything else does not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.enrol import EnrolProof, EnrolRequest
from attestation.errors import InterlockError
from attestation.log import Record, leaf_hash, verify_receipt
from attestation.node import NodeRecord
from fixtures.attester import SoftTpm
from fixtures.ca import TestCa, ek_profile, tpm_name
from tests.verifier.hall import CA, Hall, Host
from verifier import enrol
from verifier.enrol import SESSION_SECONDS


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with Hall(tmp_path) as made:
        made.run(made.load())
        yield made


def refused(hall: Hall, act: Any) -> str:
    """The reason for which ``act`` is refused."""
    with pytest.raises(InterlockError) as caught:
        hall.run(act)
    return caught.value.reason


def make_token(hall: Hall, name: str = "n1", **more: Any) -> str:
    made: str = hall.run(hall.command("token.create", node=name, pool="lab", **more))["token"]
    return made


@pytest.mark.parametrize("ek", ["p256", "p384", "rsa2048"])
def test_a_host_is_enrolled_and_waits_for_the_operator(hall: Hall, ek: str) -> None:
    host = Host(hall, "n1", SoftTpm(CA, ek=ek))
    answer = hall.run(host.enrol(make_token(hall)))
    assert (answer.node, answer.pool, answer.state) == ("n1", "lab", "pending")
    (node,) = hall.verifier.store.nodes()
    record = NodeRecord.from_bytes(node.record)
    assert (record.assurance, record.anchor, record.state) == ("test", "hall", "pending")


def kept(hall: Hall, **documents: bytes) -> None:
    """Issuers and revocation lists beside the anchors of the hall's policies, put in force."""
    for folder, data in documents.items():
        place = hall.policies / "anchors" / folder
        place.mkdir(exist_ok=True)
        (place / "kept.pem").write_bytes(data)
    hall.run(hall.load())


def pem_of(ders: tuple[bytes, ...]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


def lists(*made: bytes) -> bytes:
    return b"".join(x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) for der in made)


def now(hall: Hall) -> datetime:
    return datetime.fromtimestamp(hall.verifier.clock.now() - 60, UTC)


def test_issuers_that_the_operator_keeps_complete_a_path(hall: Hall) -> None:
    tpm = SoftTpm(CA)
    tpm.intermediates = ()
    assert refused(hall, Host(hall, "n1", tpm).enrol(make_token(hall))) == "chain.unknown-root"
    kept(hall, issuers=pem_of(CA.intermediates))
    assert hall.run(Host(hall, "n1", tpm).enrol(make_token(hall))).node == "n1"


def test_row_22_a_revoked_ek_is_refused(hall: Hall) -> None:
    tpm = SoftTpm(CA)
    revoked = x509.load_der_x509_certificate(tpm.certificate)
    kept(hall, crls=lists(CA.root.crl(at=now(hall)), CA.intermediate.crl([revoked], at=now(hall))))
    assert refused(hall, Host(hall, "n1", tpm).enrol(make_token(hall))) == "chain.revoked"
    assert hall.run(Host(hall, "n2", SoftTpm(CA)).enrol(make_token(hall, "n2"))).node == "n2"


def test_a_list_without_that_of_the_next_issuer_refuses(hall: Hall) -> None:
    kept(hall, crls=lists(CA.intermediate.crl(at=now(hall))))
    assert refused(hall, Host(hall, "n1", SoftTpm(CA)).enrol(make_token(hall))) == "chain.crl.missing"


def test_row_27_withdrawn_firmware_is_refused(hall: Hall) -> None:
    tpm = SoftTpm(CA)
    key = tpm.ek.crypto_key()
    tpm.certificate = CA.issue_ek(key, replace(ek_profile(key), alternative=tpm_name("id:49465800", "SLB 9670")))
    tpm.firmware = 0x0007_003D_0000_0000
    assert refused(hall, Host(hall, "n1", tpm).enrol(make_token(hall))) == "tpm.firmware.vulnerable"
    tpm.firmware = 0x0007_003E_0000_0000
    assert hall.run(Host(hall, "n1", tpm).enrol(make_token(hall))).node == "n1"


def test_enrolment_is_in_the_log_with_a_receipt(hall: Hall) -> None:
    answer = hall.run(Host(hall, "n1", SoftTpm(CA)).enrol(make_token(hall)))
    store = hall.verifier.store
    entry = store.records(store.head().size - 1, 1)[0]
    record = Record.from_bytes(entry.record)
    assert (record.kind, record.outcome, record.node) == ("enrol", "enrolled", "n1")
    verify_receipt(answer.receipt, leaf_hash(entry.record), hall.verifier.keys.log.public)
    for name in ("node", "evidence", "anchors"):
        assert store.blob(record.digests[name]) is not None


def test_a_token_can_make_the_node_active_at_once(hall: Hall) -> None:
    assert hall.run(Host(hall, "n1", SoftTpm(CA)).enrol(make_token(hall, activate=True))).state == "active"


def test_the_secret_of_a_token_is_nowhere_on_disk(hall: Hall, tmp_path: Path) -> None:
    host = Host(hall, "n1", SoftTpm(CA))
    token = make_token(hall)
    secret = host.request(token).secret
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and secret in p.read_bytes()]


def test_a_token_is_used_once(hall: Hall) -> None:
    token = make_token(hall)
    hall.run(Host(hall, "n1", SoftTpm(CA)).enrol(token))
    assert refused(hall, Host(hall, "n1", SoftTpm(CA)).enrol(token)) == "enrol.token-used"


def test_a_token_that_two_hosts_began_with_serves_one(hall: Hall) -> None:
    token, hosts = make_token(hall), [Host(hall, "n1", SoftTpm(CA)) for _ in range(2)]
    asked = [hall.run(enrol.begin(hall.verifier, host.request(token))) for host in hosts]
    hall.run(enrol.finish(hall.verifier, hosts[0].proof(asked[0])))
    assert refused(hall, enrol.finish(hall.verifier, hosts[1].proof(asked[1]))) == "enrol.token-used"


def test_a_token_expires(hall: Hall) -> None:
    token = make_token(hall, seconds=100)
    hall.hands.time += 101
    assert refused(hall, Host(hall, "n1", SoftTpm(CA)).enrol(token)) == "enrol.token-expired"


def test_another_verifiers_token_is_refused(hall: Hall, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Hall(tmp_path / "other") as other:
        token = make_token(other)
    assert refused(hall, Host(hall, "n1", SoftTpm(CA)).enrol(token)) == "enrol.token-unknown"


def test_a_tpm_of_unknown_make_is_refused(hall: Hall) -> None:
    assert refused(hall, Host(hall, "n1", SoftTpm(TestCa("self-made"))).enrol(make_token(hall))) == "chain.unknown-root"


def flipped(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


REQUESTS: dict[str, tuple[Callable[[EnrolRequest, EnrolRequest], EnrolRequest], str]] = {
    "EK of another TPM": (lambda r, o: replace(r, ek_public=o.ek_public), "tpm.ek.mismatch"),
    "certificate of another TPM": (lambda r, o: replace(r, ek_certificate=o.ek_certificate), "tpm.ek.mismatch"),
    "no certificate": (lambda r, o: replace(r, ek_certificate=b""), "tpm.ek.certificate"),
    "no intermediates": (lambda r, o: replace(r, intermediates=()), "chain.unknown-root"),
    "AK of another TPM": (lambda r, o: replace(r, ak_public=o.ak_public), "tpm.certify.signature"),
    "holder key posing as AK": (lambda r, o: replace(r, ak_public=r.holder_public), "tpm.ak.attributes"),
    "holder key of another TPM": (lambda r, o: replace(r, holder_public=o.holder_public), "tpm.holder.policy"),
    "AK posing as holder key": (lambda r, o: replace(r, holder_public=r.ak_public), "tpm.holder.attributes"),
    "certification altered": (lambda r, o: replace(r, certify=flipped(r.certify)), "tpm.certify.signature"),
    "certification of another TPM": (
        lambda r, o: replace(r, certify=o.certify, certify_signature=o.certify_signature),
        "tpm.certify.signature",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_does_not_fit_together_is_refused(
    hall: Hall, spoil: Callable[[EnrolRequest, EnrolRequest], EnrolRequest], reason: str
) -> None:
    token = make_token(hall)
    mine, others = (Host(hall, "n1", SoftTpm(CA)).request(token) for _ in range(2))
    assert refused(hall, enrol.begin(hall.verifier, spoil(mine, others))) == reason
    assert hall.verifier.store.nodes() == []


PROOFS: dict[str, tuple[Callable[[EnrolProof, Host], EnrolProof], str]] = {
    "wrong secret": (lambda p, h: replace(p, secret=bytes(32)), "tpm.credential.secret"),
    "quote altered": (lambda p, h: replace(p, quote=flipped(p.quote)), "tpm.quote.signature"),
    "signature altered": (lambda p, h: replace(p, signature=flipped(p.signature)), "tpm.quote.signature"),
    "quote for another nonce": (
        lambda p, h: quoted(p, h, bytes(32)),
        "tpm.quote.nonce",
    ),
    "PCR value swapped": (lambda p, h: replace(p, pcrs={**p.pcrs, 0: bytes([7]) * 32}), "tpm.pcr.digest"),
    "PCR left out": (lambda p, h: replace(p, pcrs={0: p.pcrs[0]}), "tpm.pcr.uncovered"),
    "session of nobody": (lambda p, h: replace(p, session=bytes(16)), "enrol.session-unknown"),
}


def quoted(proof: EnrolProof, host: Host, nonce: bytes) -> EnrolProof:
    quote = host.tpm.quote(nonce, proof.bank, tuple(proof.pcrs))
    return replace(proof, quote=quote.attest, signature=quote.signature)


@pytest.mark.parametrize(("spoil", "reason"), PROOFS.values(), ids=PROOFS)
def test_a_proof_that_proves_nothing_is_refused(
    hall: Hall, spoil: Callable[[EnrolProof, Host], EnrolProof], reason: str
) -> None:
    host, token = Host(hall, "n1", SoftTpm(CA)), make_token(hall)
    asked = hall.run(enrol.begin(hall.verifier, host.request(token)))
    proof = host.proof(asked)
    assert refused(hall, enrol.finish(hall.verifier, spoil(proof, host))) == reason
    assert hall.verifier.store.nodes() == []


def test_a_session_is_one_attempt(hall: Hall) -> None:
    host, token = Host(hall, "n1", SoftTpm(CA)), make_token(hall)
    asked = hall.run(enrol.begin(hall.verifier, host.request(token)))
    proof = host.proof(asked)
    assert refused(hall, enrol.finish(hall.verifier, replace(proof, secret=bytes(32)))) == "tpm.credential.secret"
    assert refused(hall, enrol.finish(hall.verifier, proof)) == "enrol.session-unknown"
    assert hall.run(host.enrol(token)).node == "n1"  # the token was not used up by that


def test_a_late_proof_is_refused(hall: Hall) -> None:
    host, token = Host(hall, "n1", SoftTpm(CA)), make_token(hall)
    proof = host.proof(hall.run(enrol.begin(hall.verifier, host.request(token))))
    hall.hands.time += SESSION_SECONDS + 1
    assert refused(hall, enrol.finish(hall.verifier, proof)) == "enrol.session-expired"


def test_a_session_survives_a_restart(hall: Hall) -> None:
    host, token = Host(hall, "n1", SoftTpm(CA)), make_token(hall)
    proof = host.proof(hall.run(enrol.begin(hall.verifier, host.request(token))))
    hall.reopen()
    assert hall.run(enrol.finish(hall.verifier, proof)).node == "n1"


def test_one_tpm_is_one_node(hall: Hall) -> None:
    tpm = SoftTpm(CA)
    hall.run(hall.add_host("n1", tpm))
    assert refused(hall, Host(hall, "n2", tpm).enrol(make_token(hall, "n2"))) == "node.duplicate-ek"


def test_one_name_is_one_tpm(hall: Hall) -> None:
    first, second = make_token(hall), make_token(hall)
    hall.run(Host(hall, "n1", SoftTpm(CA)).enrol(first))
    assert refused(hall, Host(hall, "n1", SoftTpm(CA)).enrol(second)) == "node.duplicate-name"


def test_a_cleared_tpm_enrols_again_under_its_name(hall: Hall) -> None:
    host = hall.run(hall.add_host("n1"))
    before = hall.verifier.node("n1")
    host.tpm.clear()
    token = make_token(hall, reenrol=True)
    answer = hall.run(host.enrol(token))
    after = hall.verifier.node("n1")
    assert (answer.node, answer.state) == ("n1", "pending")
    assert after.holder_public != before.holder_public
    assert after.ek_digest == before.ek_digest


def test_another_tpm_does_not_enrol_again_under_that_name(hall: Hall) -> None:
    hall.run(hall.add_host("n1"))
    token = make_token(hall, reenrol=True)
    assert refused(hall, Host(hall, "n1", SoftTpm(CA)).enrol(token)) == "node.duplicate-name"


def test_a_retired_node_stays_retired(hall: Hall) -> None:
    host = hall.run(hall.add_host("n1"))
    hall.run(hall.command("node.set-state", node="n1", state="retired"))
    token = make_token(hall, reenrol=True)
    assert refused(hall, host.enrol(token)) == "node.retired"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    {
        "taken name": ({"node": "n1", "pool": "lab"}, "node.duplicate-name"),
        "reenrol of nobody": ({"node": "n9", "pool": "lab", "reenrol": True}, "node.unknown"),
        "no pool": ({"node": "n2"}, "admin.argument"),
        "no name": ({"node": "", "pool": "lab"}, "admin.argument"),
        "long name": ({"node": "n" * 200, "pool": "lab"}, "admin.argument"),
        "negative time": ({"node": "n2", "pool": "lab", "seconds": -1}, "admin.argument"),
    }.values(),
)
def test_tokens_that_are_not_made(hall: Hall, arguments: dict[str, Any], reason: str) -> None:
    hall.run(hall.add_host("n1"))
    assert refused(hall, hall.command("token.create", **arguments)) == reason


def test_without_a_policy_nobody_enrols(tmp_path: Path) -> None:
    with Hall(tmp_path) as hall:
        token = make_token(hall)
        assert refused(hall, Host(hall, "n1", SoftTpm(CA)).enrol(token)) == "policy.none"
