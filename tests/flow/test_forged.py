"""Somebody sits between agent and verifier with the verifier's TLS key, or comes back with what was used before."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from attestation import api, cbor
from attestation.grant import Authorization, Grant
from attestation.lease import Lease
from fixtures.beats import Beating, BeatLab
from fixtures.held import Thief
from fixtures.impostor import Impostor, lengthen_grants, resigned
from fixtures.lab import free_port
from fixtures.ledger import Ledger
from fixtures.program import Program
from tests.flow.test_halted import admin

pytestmark = pytest.mark.root

CLOSED = 77
RESUBMIT = """
import json, os, sys
from pathlib import Path
from agent import keyfile, request
from agent.connect import connect
from agent.messages import Measure, Measured, Start
from attestation.errors import InterlockError
from attestation.intent import sign_intent

socket, key, code, environment, kept = map(Path, sys.argv[1:])
tree = os.open(code, os.O_RDONLY | os.O_DIRECTORY)
if not kept.exists():
    with connect(socket) as connection:
        connection.send(Measure(environment=str(environment)))
        measured = connection.expect(Measured).digest
    command = ("python", "beat.py", "--seconds", "0.05")
    options = request.Options(command, "again", "lab", 0, "none", 60, 512, 64, (), {})
    intent = request.make_intent(options, code=request.code_digest(tree), environment=measured)
    kept.write_bytes(sign_intent(intent, keyfile.load(key)))
with connect(socket) as connection:
    connection.send(Start(intent=kept.read_bytes(), variables={}, environment=str(environment)), (0, 1, 2, tree))
    ended, _ = connection.follow(lambda progress: None)
print(json.dumps({"event": ended.event, "exit_code": ended.exit_code, "reason": ended.reason}))
sys.exit(ended.exit_code)
"""
"""Submits a job, and the very same request again when it is started again: what a thief of an intent would do."""


@pytest.fixture(scope="module")
def between(lab: BeatLab) -> Iterator[Impostor]:
    """An impostor at the verifier's address; the verifier itself has moved to another port."""
    behind = free_port()
    lab.stop_verifier(signal.SIGTERM)
    lab.start_verifier(port=behind)
    with Impostor(port=lab.port, upstream=f"https://127.0.0.1:{behind}", keys=lab.verifier_dir / "keys") as impostor:
        impostor.rewrite = honest
        yield impostor
    lab.stop_verifier(signal.SIGTERM)
    lab.start_verifier()


@pytest.fixture(autouse=True)
def works_again(lab: BeatLab, between: Impostor) -> Iterator[None]:
    """With an impostor that passes everything on, jobs run."""
    yield
    between.rewrite = honest
    assert lab.beat("--seconds", "0.01", name="works-again").end()["code"] == 0


def honest(_path: str, content: bytes) -> bytes:
    return content


def of(wanted: str, change: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes]:
    return lambda path, content: change(content) if path == wanted else content


def refused(lab: BeatLab, between: Impostor, rewrite: Callable[[str, bytes], bytes], reason: str) -> Beating:
    """A job under an impostor that rewrites so must be refused for ``reason``; nothing of it may have run."""
    before, between.rewrite = between.altered, rewrite
    job = lab.beat(name="forged")
    ending = job.end()
    assert (ending["code"], ending["reason"]) == (CLOSED, reason)
    assert between.altered == before + 1
    assert (job.begins, job.beats()) == (0, [])
    return job


# --- what is forged --------------------------------------------------------------------------------------------------


def with_lease(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    given = Authorization.from_bytes(content)
    return replace(given, lease=change(given.lease)).to_bytes()


def longer(token: bytes) -> bytes:
    """A lease of three hundred seconds, with the signature of the one it was."""

    def change(payload: bytes) -> bytes:
        lease = Lease.from_bytes(payload)
        return replace(lease, duration=300, expires=lease.issued + 300).to_bytes()

    return resigned(token, change)


def other_record(content: bytes) -> bytes:
    given = Authorization.from_bytes(content)
    fields: Any = cbor.decode(given.record, max_size=1 << 16)
    return replace(given, record=cbor.encode(fields | {2: fields[2] + 1})).to_bytes()


FORGED = {
    "a grant that lasts longer": (lengthen_grants, "cose.signature"),
    "a first lease that lasts longer": (of(api.AUTHORIZE, lambda c: with_lease(c, longer)), "cose.signature"),
    "a record that is not the one in the log": (of(api.AUTHORIZE, other_record), "cose.signature"),
    "an answer that is no authorization": (of(api.AUTHORIZE, lambda _: b"\xa0"), "wire.missing"),
    "a challenge that is no challenge": (of(api.CHALLENGE, lambda c: c[:-1]), "cbor.syntax"),
}


@pytest.mark.parametrize(("rewrite", "reason"), FORGED.values(), ids=FORGED)
def test_what_is_forged_is_refused(
    lab: BeatLab, between: Impostor, rewrite: Callable[[str, bytes], bytes], reason: str
) -> None:
    refused(lab, between, rewrite, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    {
        "forged": (longer, "cose.signature"),
        "no lease at all": (lambda _: b"\xa0", "cose.format"),
    }.values(),
    ids=["forged", "no lease at all"],
)
def test_a_forged_renewal_halts_the_job(
    lab: BeatLab, between: Impostor, change: Callable[[bytes], bytes], reason: str
) -> None:
    job = lab.beat("--escape").wait_beat()
    between.rewrite = of(api.RENEW, change)
    admin(lab, "node.set-state", node=lab.node, state="active")  # a hint: renew now
    ending = job.end(15)
    assert ending["code"] == CLOSED
    assert ending["reason"].startswith(reason.split(".", maxsplit=1)[0] + ".")
    assert ending["dead_us"] is not None


def test_a_lease_that_was_held_before_halts_the_job(lab: BeatLab, between: Impostor) -> None:
    held: dict[str, bytes] = {}
    between.rewrite = lambda path, content: held.setdefault(path, content) if path == api.RENEW else content
    job = lab.beat("--escape").wait_beat()
    admin(lab, "node.set-state", node=lab.node, state="active")
    job.wait_event("lease")
    between.rewrite = of(api.RENEW, lambda _: held[api.RENEW])
    admin(lab, "node.set-state", node=lab.node, state="active")
    ending = job.end(15)
    assert (ending["code"], ending["reason"]) == (CLOSED, "lease.sequence")


# --- what is used twice ----------------------------------------------------------------------------------------------


def resubmit(lab: BeatLab, kept: Path) -> tuple[Program, dict[str, Any]]:
    where = [str(lab.socket), str(lab.home / "ada.pem"), str(lab.home / "beat"), str(lab.environment), str(kept)]
    program = lab.program([sys.executable, "-c", RESUBMIT, *where], "resubmit", **lab.as_submitter)
    program.wait(30)
    ending = [json.loads(line) for line in program.lines if line.startswith('{"event"')]
    assert ending, program.lines
    return program, ending[-1]


def test_an_intent_is_good_for_one_grant(lab: BeatLab, between: Impostor) -> None:
    kept = lab.home / "intent.one"
    assert resubmit(lab, kept)[1]["exit_code"] == 0
    program, ending = resubmit(lab, kept)
    assert (ending["event"], ending["exit_code"], ending["reason"]) == ("denied", 71, "intent.replayed")
    assert "begin" not in "\n".join(program.lines)


def test_a_grant_starts_nothing_again_after_a_restart(lab: BeatLab, between: Impostor) -> None:
    """Challenge, intent, grant and lease are all those of the first time.

    The TPM signs no evidence for it without a permit, which the used challenge does not get; with a forged one, by a
    stolen policy key, only the journal knows better.
    """
    tape: dict[str, bytes] = {}
    kept = lab.home / "intent.two"
    between.rewrite = lambda path, content: tape.setdefault(path, content)
    assert resubmit(lab, kept)[1]["exit_code"] == 0
    assert set(tape) >= {api.CHALLENGE, api.AUTHORIZE}
    lab.stop_agent(signal.SIGKILL)
    lab.start_agent()
    # what the verifier says to the second request (it denies: the intent was used) is replaced by the first answer
    between.force = {path: tape[path] for path in (api.CHALLENGE, api.AUTHORIZE)}
    thief = Thief(lab, granted(tape[api.AUTHORIZE]).hex())
    thief.look()
    try:
        for forged, reason in ((None, "challenge.redeemed"), (thief.permit, "grant.replayed")):
            between.force |= {} if forged is None else {api.PERMIT: forged}
            program, ending = resubmit(lab, kept)
            assert (ending["exit_code"], ending["reason"]) == (CLOSED, reason)
            assert "begin" not in "\n".join(program.lines)
    finally:
        between.force = {}


def granted(answer: bytes) -> bytes:
    """The id of the grant in the verifier's answer."""
    token = Authorization.from_bytes(answer).grant
    tagged = cbor.decode(token, max_size=len(token), tags=frozenset({18}))
    assert isinstance(tagged, cbor.Tagged)
    return Grant.from_bytes(tagged.value[2]).id


class OtherHost(BeatLab):
    """A second host of the same verifier: another TPM, another agent, another name."""

    def __init__(self, first: BeatLab) -> None:
        super().__init__()
        self.first, self.node, self.home, self.ca = first, "other-host", first.home, first.ca
        self.environment = first.environment

    @property
    @override
    def verifier_dir(self) -> Path:
        return self.first.verifier_dir

    @override
    def set_up(self) -> None:
        self.boot_host()
        self.enrol()
        self.start_agent()


def test_a_grant_of_another_host_starts_nothing(lab: BeatLab, between: Impostor) -> None:
    tape: dict[str, bytes] = {}
    between.rewrite = lambda path, content: tape.setdefault(path, content)
    assert lab.beat("--seconds", "0.01", name="first").end()["code"] == 0
    between.rewrite = honest
    with OtherHost(lab) as other:
        assert other.beat("--seconds", "0.01", name="own").end()["code"] == 0
        job = refused(other, between, of(api.AUTHORIZE, lambda _: tape[api.AUTHORIZE]), "grant.node")
    assert not job.grant
    admin(lab, "refs.set-state", name="other-host-boot", state="retired")  # it boots as the first one does
    admin(lab, "node.set-state", node="other-host", state="retired")
    assert Ledger(lab).look() == []
