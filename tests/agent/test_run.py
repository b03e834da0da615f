"""One job from start to end, with a real verifier, real deadmen and real processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from agent import codes
from agent.client import Pinned, Unreachable, Verifier
from agent.devices import DeviceError
from agent.govern import Governed
from agent.journal import Run
from agent.messages import Fetched, Measure, Measured, Peer, Progress, Question, Signal, Start
from attestation.challenge import Challenge
from attestation.cose import ES256, SoftwareSigner
from attestation.errors import InterlockError
from attestation.grant import Authorization, Confirmation, Grant, sign_grant
from attestation.intent import Limits, sign_intent
from attestation.lease import Lease, approval_of, read_lease, sign_lease
from attestation.log import Record
from attestation.report import Report
from attestation.tpm.structures import ALG_SHA256
from fixtures.impostor import lengthen
from tests.agent.holding import UID
from tests.agent.house import PEER, House, Submission
from tests.attestation.examples import TPM_LEASE
from tests.verifier.hall import payload

pytestmark = pytest.mark.root

IDLE = "import signal\nprint('up')\nwhile True: signal.pause()"
POLITE = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nprint('up')\nwhile True: signal.pause()"
WRITES = "import os\nopen(os.environ['INTERLOCK_OUT'] + '/result.txt', 'w').write('42')\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")) as made:
        yield made


def running(house: House, source: str = IDLE, **changes: Any) -> tuple[Submission, Governed]:
    """A job that has started, and what governs it."""
    job = house.submit(source, **changes)
    job.until("started")
    (here,) = house.host.jobs.all()
    assert here.governed is not None
    return job, here.governed


def reports(house: House, grant: bytes | None) -> Report:
    """The report that the verifier has of a grant."""
    assert grant is not None
    store = house.hall.verifier.store
    found = [Record.from_bytes(each.record) for each in store.records_of(grant)]
    (record,) = [each for each in found if each.kind == "report"]
    blob = store.blob(record.digests["report"])
    assert blob is not None
    return Report.from_bytes(blob if blob[0] != 0xD2 else payload(blob))


# --- runs that end by themselves ------------------------------------------------------------------------------------


def test_a_job_runs_and_is_reported(house: House) -> None:
    job = house.submit("import os\nprint('hello', os.getuid(), os.getcwd())")
    ended = job.end()
    assert (ended.exit_code, ended.event, ended.reason) == (0, "finished", None)
    assert job.output == f"hello {UID} /run/interlock/code\n"
    assert job.events == ["evidence", "granted", "staged", "started"]
    assert ended.assurance == "test"
    assert ended.receipt is not None
    report = reports(house, ended.grant)
    assert (report.exit_code, report.halts, report.leases, report.cgroup_empty) == (0, (), 1, True)
    assert house.host.journal.undelivered() == []


@pytest.mark.parametrize(
    ("source", "code"),
    [("raise SystemExit(3)", 3), ("raise SystemExit(71)", 71), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_the_exit_code_is_the_jobs(house: House, source: str, code: int) -> None:
    ended = house.submit(source).end()
    assert (ended.exit_code, ended.event) == (code, "finished")
    assert reports(house, ended.grant).exit_code == code


def test_variables_reach_the_job(house: House) -> None:
    intent = house.intent("import os; print(os.environ['GREETING'])", variables={"GREETING": "hé"})
    start = Start(
        intent=sign_intent(intent, house.person), variables={"GREETING": "hé"}, environment=str(house.environment)
    )
    job = Submission(house).send(start)
    assert job.end().exit_code == 0
    assert job.output == "hé\n"


def test_outputs_are_hashed_and_handed_over(house: House) -> None:
    job = house.submit(WRITES)
    ended, out = job.connection.follow(job.progress.append)
    assert dict(ended.outputs) == {"result.txt": False}
    assert out is not None
    assert os.pread(os.open("result.txt", os.O_RDONLY, dir_fd=out), 10, 0) == b"42"
    os.close(out)
    job.connection.send(Fetched(count=1))
    job.close()
    assert ended.grant is not None
    assert not (house.host.state.jobs / ended.grant.hex()).exists(), "fetched outputs are not kept"
    (output,) = reports(house, ended.grant).outputs.values()
    assert (output.size, output.lease, output.quarantined) == (2, 0, False)


def test_outputs_that_nobody_fetched_are_kept(house: House) -> None:
    ended = house.submit(WRITES).end()
    assert ended.grant is not None
    kept = house.host.state.jobs / ended.grant.hex()
    assert (kept / "out" / "result.txt").read_text() == "42"
    assert not (kept / "code").exists()


def test_signals_are_passed_on(house: House) -> None:
    job, _ = running(
        house, "import os, signal\nsignal.signal(10, lambda *_: os._exit(5))\nprint('up')\nwhile True: signal.pause()"
    )
    with os.fdopen(os.dup(job._read)) as output:
        assert output.readline() == "up\n"
    job.connection.send(Signal(number=30))  # one that is not handed on: nothing happens
    job.connection.send(Signal(number=int(signal.SIGUSR1)))
    assert job.end().exit_code == 5


def test_a_signal_before_the_start_is_not_lost(house: House) -> None:
    job = house.submit(IDLE)
    job.connection.send(Signal(number=int(signal.SIGTERM)))
    assert job.end().exit_code == 143


# --- denied -----------------------------------------------------------------------------------------------------------


def test_unknown_code_is_denied(house: House) -> None:
    ended = house.submit(code=b"x" * 32).end()
    assert (ended.exit_code, ended.event, ended.reason) == (codes.DENIED, "denied", "code.unknown")
    assert ended.receipt is not None
    assert ended.grant is not None
    assert ended.fix
    assert ended.what
    assert ended.ask


def test_a_submitter_without_a_role_is_denied(house: House) -> None:
    stranger = SoftwareSigner.generate(ES256)
    house.operate("add_person", stranger, "eve", ("any-command",))
    start = Start(intent=sign_intent(house.intent(), stranger), variables={}, environment=str(house.environment))
    ended = Submission(house).send(start).end()
    assert (ended.exit_code, ended.reason) == (codes.DENIED, "authz.role")


# --- answers that are not the answer --------------------------------------------------------------------------------


class Meddled(Verifier):
    """The way to the verifier, in the hands of somebody who changes answers."""

    def __init__(self, house: House) -> None:
        super().__init__(Pinned(house.host.enrolment.url, house.host.enrolment.certificate))
        self.authorization: Callable[[Authorization], Authorization] = lambda answer: answer
        self.lease: Callable[[bytes], bytes] = lambda token: token

    @override
    def authorize(self, intent: bytes, evidence: bytes) -> Authorization:
        return self.authorization(super().authorize(intent, evidence))

    @override
    def renew(self, evidence: bytes) -> bytes:
        return self.lease(super().renew(evidence))


@contextmanager
def meddling(house: House) -> Iterator[Meddled]:
    honest, house.host.verifier = house.host.verifier, Meddled(house)
    try:
        yield house.host.verifier
    finally:
        house.host.verifier.close()
        house.host.verifier = honest


def regrant(house: House, **changes: Any) -> Callable[[Authorization], Authorization]:
    """Another grant than the one that was logged, rightly signed, with the same receipt."""

    def change(answer: Authorization) -> Authorization:
        from attestation.cose import RECEIPTS, verify_sign1
        from attestation.grant import MAX_SIZE, TYP

        keys = house.hall.verifier.keys
        old = verify_sign1(
            answer.grant, keys.grant.public, typ=TYP, max_size=MAX_SIZE, unprotected=frozenset({RECEIPTS})
        )
        grant = replace(Grant.from_bytes(old.payload), **changes)
        receipts: Any = old.unprotected[RECEIPTS]
        return replace(answer, grant=sign_grant(grant, keys.grant, tuple(receipts)))

    return change


def relicence(house: House, **changes: Any) -> Callable[[bytes], bytes]:
    """Another lease than the verifier's, rightly signed."""

    def change(token: bytes) -> bytes:
        key = house.hall.verifier.keys.grant
        return sign_lease(
            replace(Lease.from_bytes(payload(token)), **changes), key, (), approval_of(read_lease(token, key.public))
        )

    return change


BIG = Limits(seconds=10**6, memory_mb=512, processes=64, renewals=1)
FORGER = SoftwareSigner.generate(ES256)
GRANTS: dict[str, tuple[str, Callable[[House], Callable[[Authorization], Authorization]]]] = {
    "tampered": ("cose.signature", lambda _: lambda a: replace(a, grant=lengthen(a.grant))),
    "signed by another key": (
        "cose.kid",
        lambda _: lambda a: replace(a, grant=sign_grant(Grant.from_bytes(payload(a.grant)), FORGER, ())),
    ),
    "no grant at all": ("cbor.syntax", lambda _: lambda a: replace(a, grant=b"\xff")),
    "the lease in its place": ("cose.header.unprotected", lambda _: lambda a: replace(a, grant=a.lease)),
    "another profile": ("grant.profile", lambda h: regrant(h, profile="tag:interlock,2026:grant/2")),
    "another issuer": ("grant.issuer", lambda h: regrant(h, issuer="elsewhere")),
    "another node": ("grant.node", lambda h: regrant(h, node="other")),
    "another holder": ("grant.holder", lambda h: regrant(h, confirmation=Confirmation(key=b"other"))),
    "another challenge": ("grant.nonce", lambda h: regrant(h, nonce=b"n" * 32)),
    "another intent": ("grant.intent", lambda h: regrant(h, intent=b"i" * 32)),
    "another job": ("grant.intent", lambda h: regrant(h, job="other")),
    "more than was asked": ("grant.limits", lambda h: regrant(h, limits=BIG)),
    "over already": ("grant.expired", lambda h: regrant(h, expires=0, issued=0, not_before=0)),
    "never logged": ("grant.record", lambda h: regrant(h, assurance="hardware")),
    "a record of something else": ("grant.record", lambda h: lambda a: replace(a, record=_other_record(h))),
    "no receipt": (
        "grant.receipt",
        lambda h: (
            lambda a: replace(a, grant=sign_grant(Grant.from_bytes(payload(a.grant)), h.hall.verifier.keys.grant, ()))
        ),
    ),
}
LEASES: dict[str, tuple[str, Callable[[House], Callable[[bytes], bytes]]]] = {
    "of another grant": ("lease.grant", lambda h: relicence(h, grant=b"g" * 16)),
    "a later one": ("lease.sequence", lambda h: relicence(h, sequence=7)),
    "not chained": ("lease.chain", lambda h: relicence(h, previous=b"p" * 32)),
    "for another challenge": ("lease.nonce", lambda h: relicence(h, nonce=b"n" * 32)),
    "tampered": ("cose.signature", lambda _: lambda token: token[:-1] + bytes([token[-1] ^ 1])),
    "not a lease": ("cbor.syntax", lambda _: lambda token: b"\xff"),
    "without its policy signature": ("lease.tpm", lambda h: reapprove(h, lambda _: None)),
    "with half a policy signature": ("lease.tpm", lambda h: reapprove(h, lambda signature: signature[:32])),
    "with a policy signature of zeros": ("lease.approval", lambda h: reapprove(h, lambda _: bytes(64))),
    "approved by another key": ("lease.approval", lambda h: reapprove(h, FORGER.sign)),
    "that the TPM would hold longer": ("lease.approval", lambda h: relicence(h, tpm=replace(TPM_LEASE, until=10**9))),
    "that the TPM would not hold": (
        "lease.tpm",
        lambda h: (
            lambda token: sign_lease(
                replace(Lease.from_bytes(payload(token)), tpm=None), h.hall.verifier.keys.grant, ()
            )
        ),
    ),
}


def reapprove(house: House, change: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes]:
    """The verifier's lease, with another policy signature beside it, where nothing protects it."""

    def changed(token: bytes) -> bytes:
        key = house.hall.verifier.keys.grant
        approval = approval_of(read_lease(token, key.public))
        assert approval is not None
        return sign_lease(Lease.from_bytes(payload(token)), key, (), change(approval))

    return changed


def _other_record(house: House) -> bytes:
    record = Record(kind="admin", time=1, outcome="allow", digests={})
    return record.to_bytes()


def nothing_ran(house: House, job: Submission) -> bool:
    groups = [path for path in house.host.cgroups.glob("*") if path.is_dir()]
    return job.output == "" and not groups and "started" not in job.events


@pytest.mark.parametrize("name", GRANTS)
def test_a_grant_that_is_not_the_answer_starts_nothing(house: House, name: str) -> None:
    reason, change = GRANTS[name]
    with meddling(house) as verifier:
        verifier.authorization = change(house)
        job = house.submit()
        ended = job.end()
    assert (ended.exit_code, ended.event, ended.reason) == (codes.FAILED, "refused", reason)
    assert nothing_ran(house, job)


@pytest.mark.parametrize("name", LEASES)
def test_a_first_lease_that_is_not_one_starts_nothing(house: House, name: str) -> None:
    reason, change = LEASES[name]
    with meddling(house) as verifier:
        verifier.authorization = lambda answer: replace(answer, lease=change(house)(answer.lease))
        job = house.submit()
        ended = job.end()
    assert (ended.exit_code, ended.reason) == (codes.FAILED, reason)
    assert nothing_ran(house, job)


def test_a_replayed_grant_starts_nothing(house: House) -> None:
    def used(answer: Authorization) -> Authorization:
        grant = Grant.from_bytes(payload(answer.grant))
        house.host.journal.burn(Run(grant.id, "earlier", UID, bytes(32), (), 1))
        house.host.journal.finish(grant.id, b"r")
        house.host.journal.sign(grant.id, b"r")
        house.host.journal.delivered(grant.id, b"r")
        return answer

    with meddling(house) as verifier:
        verifier.authorization = used
        job = house.submit()
        ended = job.end()
    assert (ended.exit_code, ended.reason) == (codes.FAILED, "grant.replayed")
    assert nothing_ran(house, job)


@pytest.mark.parametrize("name", LEASES)
def test_a_forged_renewal_halts_the_job(house: House, name: str) -> None:
    reason, change = LEASES[name]
    with meddling(house) as verifier:
        job, governed = running(house)
        verifier.lease = change(house)
        governed.hurry()
        ended = job.end()
    assert (ended.exit_code, ended.event, ended.reason) == (codes.FAILED, "halted", reason)
    assert [halt.klass for halt in reports(house, ended.grant).halts] == ["hard"]


# --- what changed between asking and starting -------------------------------------------------------------------------


def test_code_that_changed_after_it_was_signed_does_not_run(house: House) -> None:
    intent = house.intent()
    start = Start(intent=sign_intent(intent, house.person), variables={}, environment=str(house.environment))
    (house.code / "train.py").write_text("print('something else')\n")
    try:
        job = Submission(house).send(start)
        ended = job.end()
    finally:
        (house.code / "train.py").write_text("print('train')\n")
    assert (ended.exit_code, ended.event, ended.reason) == (codes.FAILED, "halted", "code.changed")
    assert nothing_ran(house, job)
    assert ended.grant in house.host.journal, "the grant is used up"
    assert [halt.reason for halt in reports(house, ended.grant).halts] == ["code.changed"]


def test_an_environment_that_changed_after_it_was_signed_does_not_run(house: House) -> None:
    intent = house.intent()
    start = Start(intent=sign_intent(intent, house.person), variables={}, environment=str(house.environment))
    (house.environment / "new.py").write_text("")
    try:
        job = Submission(house).send(start)
        ended = job.end()
    finally:
        (house.environment / "new.py").unlink()
    assert (ended.exit_code, ended.reason) == (codes.FAILED, "environment.changed")
    assert nothing_ran(house, job)


def test_a_command_that_is_not_there_is_reported(house: House) -> None:
    ended = house.submit(argv=("no-such-program",)).end()
    assert (ended.exit_code, ended.reason) == (codes.FAILED, "launch.command")
    assert reports(house, ended.grant).exit_code == codes.FAILED


# --- requests that are refused ----------------------------------------------------------------------------------------

PEERS = {
    "root": Peer(1, 0, 0, ()),
    "root with a listed group": Peer(1, 0, UID, (UID,)),
    "somebody else": Peer(1, UID + 1, UID + 1, ()),
    "somebody in another group": Peer(1, UID + 1, UID + 1, (5, 6)),
}


@pytest.mark.parametrize("name", PEERS)
def test_who_may_not_submit_is_refused(house: House, name: str) -> None:
    job = house.submit(peer=PEERS[name])
    with pytest.raises(InterlockError) as refused:
        job.end()
    assert refused.value.reason == "submitter.uid"


@pytest.mark.parametrize("name", PEERS)
def test_who_may_not_submit_gets_nothing_measured(house: House, name: str) -> None:
    assert asked(house, Measure(environment=str(house.environment)), PEERS[name]) == "submitter.uid"


def test_a_listed_group_may_submit(house: House) -> None:
    before = house.host.settings
    house.host.settings = replace(before, uids=(), gids=(77,))
    try:
        assert house.submit(peer=Peer(1, UID, UID, (5, 77))).end().exit_code == 0
        assert house.submit(peer=Peer(1, UID, 77, ())).end().exit_code == 0
    finally:
        house.host.settings = before


def asked(house: House, message: Any, peer: Peer = PEER, descriptors: tuple[int, ...] = ()) -> str:
    """The reason for which a message is refused."""
    there = Submission(house, peer)
    try:
        there.connection.send(message, descriptors)
        with pytest.raises(InterlockError) as refused:
            there.connection.follow(lambda _: None)
        return refused.value.reason
    finally:
        os.close(there._write)
        there.close()


def test_the_environment_is_measured_for_the_submitter(house: House) -> None:
    there = Submission(house)
    there.connection.send(Measure(environment=str(house.environment)))
    assert there.connection.expect(Measured).digest == house.environment_digest
    there.close()


def start(house: House, **changes: Any) -> Start:
    made = Start(intent=sign_intent(house.intent(), house.person), variables={}, environment=str(house.environment))
    return replace(made, **changes)


STARTS: dict[str, tuple[str, Callable[[House], Start]]] = {
    "an intent that is none": ("cbor.syntax", lambda h: start(h, intent=b"\xff")),
    "an intent cut short": ("cbor.syntax", lambda h: start(h, intent=start(h).intent[:-1])),
    "a variable that was not signed": ("variables.changed", lambda h: start(h, variables={"LD_PRELOAD": "x"})),
    "a variable with another value": (
        "variables.changed",
        lambda h: start(h, intent=sign_intent(h.intent(variables={"A": "1"}), h.person), variables={"A": "2"}),
    ),
    "a variable that is missing": (
        "variables.changed",
        lambda h: start(h, intent=sign_intent(h.intent(variables={"A": "1"}), h.person)),
    ),
    "an environment somewhere": ("tree.environment", lambda h: start(h, environment="env")),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_request_that_is_broken_is_refused(house: House, name: str) -> None:
    reason, make = STARTS[name]
    null, code = os.open("/dev/null", os.O_RDWR), os.open(house.code, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert asked(house, make(house), descriptors=(null, null, null, code)) == reason
    finally:
        os.close(null)
        os.close(code)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_the_descriptors_must_be_right(house: House, count: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    try:
        assert asked(house, start(house), descriptors=(null,) * count) == "agent.message.descriptors"
    finally:
        os.close(null)


@pytest.mark.parametrize("message", [Signal(number=15), Progress(event="x", text="y"), Fetched(count=1)])
def test_a_conversation_begins_with_a_request(house: House, message: Any) -> None:
    assert asked(house, message) == "agent.message.kind"


def test_only_so_many_jobs_at_once(house: House) -> None:
    limit, house.host.jobs._limit = house.host.jobs._limit, 1
    try:
        first, governed = running(house, POLITE)
        second = house.submit()
        with pytest.raises(InterlockError) as refused:
            second.end()
        assert refused.value.reason == "agent.busy"
        governed.drain("agent.stopped")
        assert first.end().exit_code == codes.DRAINED
    finally:
        house.host.jobs._limit = limit


# --- halts ------------------------------------------------------------------------------------------------------------


def test_a_changed_pcr_halts_the_job(house: House) -> None:
    job, _ = running(house, WRITES + IDLE)
    with os.fdopen(os.dup(job._read)) as output:
        assert output.readline() == "up\n"
    before = dict(house.tpm.pcrs[ALG_SHA256])
    house.tpm.extend(4, bytes(32))
    try:
        ended = job.end()
    finally:
        house.tpm.pcrs[ALG_SHA256].update(before)
    assert (ended.exit_code, ended.reason, ended.event) == (codes.DRIFT, "drift.pcr", "halted")
    assert ended.detail is not None
    assert "PCR 4" in ended.detail
    assert ended.frozen_us is not None
    assert ended.dead_us is not None
    assert ended.frozen_us <= ended.dead_us < 1_000_000
    assert dict(ended.outputs) == {"result.txt": True}
    report = reports(house, ended.grant)
    assert report.halts[-1].reason == "drift.pcr"
    assert report.outputs["result.txt"].quarantined
    assert ended.grant is not None
    assert (house.host.state.jobs / ended.grant.hex() / "out" / "result.txt").exists(), "evidence is kept"


def test_outputs_under_an_earlier_lease_are_not_quarantined(house: House) -> None:
    job, governed = running(house, WRITES + IDLE)
    with os.fdopen(os.dup(job._read)) as output:
        assert output.readline() == "up\n"
    governed.hurry()
    job.until("lease")
    before = dict(house.tpm.pcrs[ALG_SHA256])
    house.tpm.extend(4, bytes(32))
    try:
        ended = job.end()
    finally:
        house.tpm.pcrs[ALG_SHA256].update(before)
    assert (ended.leases, dict(ended.outputs)) == (2, {"result.txt": False})
    assert reports(house, ended.grant).outputs["result.txt"].lease == 0


@pytest.mark.parametrize(("klass", "source"), [("hard", IDLE), ("drain", POLITE)])
def test_a_revoked_grant_stops_the_job(house: House, klass: str, source: str) -> None:
    job, governed = running(house, source)
    (here,) = house.host.jobs.all()
    assert here.grant is not None
    house.command("revoke", grant=here.grant.id.hex(), drain=klass == "drain", why="test")
    governed.hurry()
    ended = job.end()
    assert (ended.exit_code, ended.reason) == (codes.REVOKED, "grant.revoked")
    assert reports(house, ended.grant).halts[-1].klass == klass


def test_a_submitter_who_goes_away_takes_the_job_along(house: House) -> None:
    job, _ = running(house, POLITE)
    (here,) = house.host.jobs.all()
    job.close()
    assert here.grant is not None
    assert reports(house, here.grant.id).halts[-1].reason == "submitter.gone"


def test_a_submitter_who_goes_away_early_takes_the_job_along(house: House) -> None:
    job = house.submit(POLITE)
    granted = job.until("granted")
    job.close()
    assert reports(house, granted.grant).halts[-1].reason == "submitter.gone"


def test_a_killed_deadman_is_reported(house: House) -> None:
    job, governed = running(house)
    os.kill(governed._hold.deadman_pid, signal.SIGKILL)
    ended = job.end()
    assert (ended.exit_code, ended.reason) == (codes.FAILED, "deadman.died")


def test_time_is_limited(house: House) -> None:
    limits = Limits(seconds=1, memory_mb=512, processes=64, renewals=600)
    ended = house.submit(POLITE, limits=limits).end()
    assert (ended.exit_code, ended.reason) == (codes.LIMIT, "limit.seconds")


# --- when the verifier or the TPM does not answer ---------------------------------------------------------------------


def test_without_a_verifier_nothing_starts(house: House) -> None:
    house.close_verifier()
    try:
        job = house.submit()
        ended = job.end()
    finally:
        house.open_verifier()
    assert (ended.exit_code, ended.reason, ended.retry) == (codes.FAILED, "verifier.unreachable", True)
    assert nothing_ran(house, job)


def test_without_a_tpm_nothing_starts(house: House) -> None:
    house.tpm.closed = True
    try:
        ended = house.submit().end()
    finally:
        house.tpm.closed = False
    assert (ended.exit_code, ended.reason) == (codes.FAILED, "tpm.device.closed")


def test_a_lost_answer_is_asked_for_again_and_no_lease_is_skipped(house: House) -> None:
    with meddling(house) as verifier:
        job, governed = running(house)
        lost = threading.Event()

        def lose(_token: bytes) -> bytes:
            verifier.lease = lambda token: token
            lost.set()
            raise Unreachable("verifier.unreachable", "the answer is lost")

        verifier.lease = lose
        governed.hurry()
        assert lost.wait(10)
        assert job.until("lease").text.startswith("lease 1:")
        governed.drain("agent.stopped")
        assert job.end().leases == 2


def test_evidence_whose_challenge_is_gone_is_replaced(house: House) -> None:
    class Forgetful(Meddled):
        first = True

        @override
        def challenge(self, node: str) -> Challenge:
            made = super().challenge(node)
            if self.first:
                self.first = False
                return replace(made, nonce=b"?" * 32)
            return made

    job, governed = running(house)
    honest, house.host.verifier = house.host.verifier, Forgetful(house)
    try:
        governed.hurry()
        assert job.until("lease").text.startswith("lease 1:")
        governed.drain("agent.stopped")
        assert job.end().leases == 2
    finally:
        house.host.verifier.close()
        house.host.verifier = honest
    assert house.host.counters.as_dict()["renewals_rejected"] >= 1


def test_a_tpm_that_fails_is_no_drift(house: House) -> None:
    class Deaf:
        def read(self, _conditions: object, _since_ns: int) -> dict[int, bytes]:
            raise DeviceError("tpm.device.timeout", "no answer")

    pcrs, house.host.pcrs = house.host.pcrs, Deaf()  # type: ignore[assignment]  # a TPM that does not answer
    try:
        assert house.submit("import time; time.sleep(0.3)").end().exit_code == 0
    finally:
        house.host.pcrs = pcrs


@pytest.mark.slow
def test_silence_freezes_and_a_fresh_lease_thaws(house: House) -> None:
    job, _ = running(house, "import time\nfor n in range(140): time.sleep(0.1)\nprint('done')")
    house.close_verifier()
    assert "(verifier.unreachable: " in job.until("frozen").text
    house.open_verifier()
    ended = job.end()
    assert (ended.exit_code, ended.event) == (0, "finished")
    assert "thawed" in job.events
    assert [halt.klass for halt in reports(house, ended.grant).halts] == ["stale"]
    assert job.output == "done\n"


# --- watching and explaining ------------------------------------------------------------------------------------------


def test_a_job_can_be_watched_by_its_owner(house: House) -> None:
    job, governed = running(house, POLITE)
    watcher = Submission(house)
    watcher.connection.send(Question(topic="watch", name="digits"))
    watcher._thread.join(10)
    other = asked(house, Question(topic="watch", name="digits"), Peer(1, UID + 1, UID + 1, ()))
    assert other == "agent.unknown-job"
    governed.drain("agent.stopped")
    ended = job.end()
    seen, _ = watcher.connection.follow(watcher.progress.append)
    assert seen == ended
    assert "draining" in watcher.events
    os.close(watcher._write)
    watcher.close()


def question(house: House, topic: str, name: str, peer: Peer = PEER) -> tuple[str, bytes | None]:
    there = Submission(house, peer)
    try:
        there.connection.send(Question(topic=topic, name=name))
        return there.connection.answer()
    finally:
        os.close(there._write)
        there.close()


def test_an_ending_is_explained_to_its_owner_and_to_root(house: House) -> None:
    ended = house.submit(job="special", code=b"x" * 32).end()
    assert ended.grant is not None
    for peer in (PEER, Peer(1, 0, 0, ())):
        for name in ("special", ended.grant.hex()):
            text, _ = question(house, "explain", name, peer)
            assert '"reason":"code.unknown"' in text
    assert asked(house, Question(topic="explain", name="special"), Peer(1, UID + 1, 1, ())) == "agent.unknown-job"


def test_the_bundle_is_fetched_from_the_verifier(house: House) -> None:
    house.submit(job="bundled").end()
    _, data = question(house, "bundle", "bundled")
    assert data is not None
    assert len(data) > 1000


def test_a_request_that_never_reached_the_log_has_no_bundle(house: House) -> None:
    house.tpm.closed = True
    try:
        house.submit(job="nowhere").end()
    finally:
        house.tpm.closed = False
    assert asked(house, Question(topic="bundle", name="nowhere")) == "agent.unknown-job"


def test_the_status_shows_ones_own_jobs(house: House) -> None:
    job, governed = running(house, POLITE)
    own, _ = question(house, "status", "")
    others, _ = question(house, "status", "", Peer(1, UID + 1, 1, ()))
    governed.drain("agent.stopped")
    job.end()
    assert '"job":"digits"' in own
    assert '"phase":"started"' in own
    assert '"jobs":[]' in others
    assert '"node":"host"' in others
