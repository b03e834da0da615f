"""The store against its protocol, on every engine: each condition holds once and is refused by name afterwards."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from attestation import merkle
from attestation.decision import Usage
from attestation.log import Record, leaf_hash, verify_checkpoint
from attestation.node import ClockRecord
from attestation.progress import HostProgress, boot_of
from tests.verifier.stores import GENESIS, LOG, ORIGIN, note, seal
from verifier import changes as c
from verifier.store import Appended, Challenge, Conflict, Job, Kept, Node, Secret, Store, Token, Version

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
CTI, CTI2, CTI3 = b"1" * 16, b"2" * 16, b"3" * 16
DOCUMENT, OTHER = b"document", b"other document"
D_DOCUMENT, D_OTHER = sha256(DOCUMENT).digest(), sha256(OTHER).digest()

NODE = c.PutNode(name="n1", ek_digest=A, holder=B, state="pending", pool="lab", record=b"record")
NODE2 = c.PutNode(name="n2", ek_digest=B, holder=C, state="active", pool="lab", record=b"record 2")
AGAIN = c.ReplaceNode(name="n1", ek_digest=A, holder=A, state="active", pool="prod", record=b"new")
CHALLENGE = c.PutChallenge(nonce=A, node="n1", issued=100, expires=130)
REDEEM = c.RedeemChallenge(nonce=A, node="n1", now=120)
TOKEN = c.PutToken(digest=A, name="n1", pool="lab", expires=100)
SESSION = c.PutActivation(session=CTI, state=b"state", expires=100)
JOB = c.PutJob(cti=CTI, node="n1", submitter=A, tenant="t", intent=B, state="issued", gpus=2, now=10)
LEASE0 = c.AdvanceLease(cti=CTI, sequence=0, previous=None, digest=A, end=40, gpu_seconds=0)
LEASE1 = c.AdvanceLease(cti=CTI, sequence=1, previous=A, digest=B, end=50, gpu_seconds=20)
PINS = c.SetNodeGpus("n1", ("NVIDIA:GH100:1/aa", "NVIDIA:GH100:2/bb"))
RIM = c.PutCollateral("rim", "NV_GPU_DRIVER_GH100_550.90.07", b"<xml/>", 100, 900, "import")
SECRET = c.PutSecret("weights", "t", b"sealed", 5)
SUBMITTER = c.PutSubmitter(kid=A, record=b"alice")
USAGE = Usage(submitter_jobs=1, tenant_jobs=1, node_jobs=1, gpu_seconds=0)
EXPECT_USAGE = c.ExpectUsage(submitter=A, tenant="t", node="n1", without=None, since=0, usage=USAGE)
VERSION = (c.PutBlob(D_DOCUMENT, DOCUMENT), c.PutVersion("policy", D_DOCUMENT, 5))
VERSION2 = (c.PutBlob(D_OTHER, OTHER), c.PutVersion("policy", D_OTHER, 6))

IN_FORCE = (*VERSION, c.Activate("policy", D_DOCUMENT, None))
NOTHING_USED = Usage(submitter_jobs=0, tenant_jobs=0, node_jobs=0, gpu_seconds=0)
OTHER_IN_FORCE = (*IN_FORCE, *VERSION2, c.Activate("policy", D_OTHER, D_DOCUMENT))
IN_FORCE_STILL = c.ExpectActive("policy", D_DOCUMENT)
TAKE = c.TakeActivation(CTI, 1)
RETIRED = (NODE, c.SetNodeState("n1", "retired"))
JOB_OF_B = replace(JOB, cti=CTI2, submitter=B)


def clock(value: int, resets: int, restarts: int) -> c.TouchClock:
    return c.TouchClock("n1", ClockRecord(clock=value, resets=resets, restarts=restarts, safe=True))


def progress(jobs: int, *, resets: int = 1, log: bytes | None = None) -> HostProgress:
    return HostProgress(boot=boot_of(resets, 0), log=log, workload_count=jobs, workload_value=bytes([jobs]) * 32)


def proven(jobs: int, *, resets: int = 1, log: bytes | None = None) -> c.TouchProgress:
    return c.TouchProgress("n1", progress(jobs, resets=resets, log=log).to_bytes())


def commit(store: Store, *changes: c.Change) -> None:
    """Make changes as one unit; a conflict is raised."""
    (outcome,) = store.commit([c.Unit(tuple(changes))], seal)
    if isinstance(outcome, Conflict):
        raise outcome


ACCEPTED = [
    pytest.param((CHALLENGE,), REDEEM, id="challenge in time"),
    pytest.param((CHALLENGE,), replace(REDEEM, now=129), id="challenge in its last second"),
    pytest.param((TOKEN,), c.UseToken(A, 99), id="token in time"),
    pytest.param((SESSION,), c.TakeActivation(CTI, 99), id="enrolment in time"),
    pytest.param((NODE,), NODE2, id="another node"),
    pytest.param((NODE,), AGAIN, id="the same EK again"),
    pytest.param((NODE,), c.SetNodeState("n1", "active"), id="node becomes active"),
    pytest.param((NODE,), clock(0, 0, 0), id="first counters"),
    pytest.param((NODE, clock(5, 1, 1)), clock(4, 1, 1), id="an earlier quote of the same boot"),
    pytest.param((NODE, clock(5, 1, 1)), clock(0, 2, 0), id="a reset counts on"),
    pytest.param((NODE, clock(5, 1, 1), AGAIN), clock(0, 0, 0), id="counters begin anew with enrolment"),
    pytest.param((NODE, proven(5)), proven(3), id="progress that is behind"),
    pytest.param((NODE,), c.ExpectNode("n1", "pending", B), id="node as expected"),
    pytest.param((NODE, PINS), c.ExpectNode("n1", "pending", B, PINS.gpus), id="node pinned as expected"),
    pytest.param((NODE, PINS), replace(PINS, gpus=()), id="pins taken off"),
    pytest.param((NODE, PINS, replace(PINS, gpus=())), c.ExpectNode("n1", "pending", B), id="no pins as expected"),
    pytest.param((NODE, PINS, AGAIN), c.ExpectNode("n1", "active", A, PINS.gpus), id="pins outlive enrolment"),
    pytest.param((), c.UseCollateral("rim", "x", 7), id="collateral that is not there was used"),
    pytest.param((RIM,), RIM, id="the same collateral again"),
    pytest.param((RIM,), replace(RIM, data=b"new", known=RIM.data), id="newer than what is there"),
    pytest.param((SECRET,), replace(SECRET, name="other", tenant="u"), id="another secret of another tenant"),
    pytest.param((SECRET,), replace(SECRET, sealed=b"new", replace=True), id="secret replaced on purpose"),
    pytest.param((SECRET, c.DropSecret("weights")), replace(SECRET, tenant="u"), id="the name of a dropped secret"),
    pytest.param((SECRET,), c.ExpectSecret("weights", "t", b"sealed"), id="secret as expected"),
    pytest.param((JOB,), LEASE0, id="first lease"),
    pytest.param((JOB, LEASE0), LEASE1, id="next lease"),
    pytest.param((JOB, LEASE0), c.RevokeJob(CTI, "admin"), id="live job revoked"),
    pytest.param((JOB, c.RevokeJob(CTI, "admin")), c.EndJob(CTI, 1), id="revoked job ends"),
    pytest.param((JOB,), c.EndJob(CTI, 1), id="job ends before its first lease"),
    pytest.param((JOB,), EXPECT_USAGE, id="usage as expected"),
    pytest.param((JOB, c.EndJob(CTI, 0)), replace(EXPECT_USAGE, usage=NOTHING_USED), id="an ended job is not counted"),
    pytest.param((*VERSION,), c.Activate("policy", D_DOCUMENT, None), id="first version in force"),
    pytest.param((*VERSION,), VERSION[1], id="the same version again"),
    pytest.param((*IN_FORCE, *VERSION2), c.Activate("policy", D_OTHER, D_DOCUMENT), id="next version in force"),
    pytest.param(IN_FORCE, c.ExpectActive("policy", D_DOCUMENT), id="version as expected"),
    pytest.param((SUBMITTER,), c.ExpectSubmitter(A, b"alice"), id="submitter as expected"),
    pytest.param((SUBMITTER,), replace(SUBMITTER, record=b"bob"), id="submitter replaced"),
    pytest.param((*VERSION,), VERSION[0], id="the same blob again"),
    pytest.param((c.UseIntent(A, 1),), c.UseIntent(B, 1), id="another intent"),
]  # fmt: skip

REFUSED = [
    pytest.param((), REDEEM, "challenge.unknown", id="challenge nobody issued"),
    pytest.param((CHALLENGE, REDEEM), REDEEM, "challenge.redeemed", id="challenge used"),
    pytest.param((CHALLENGE, REDEEM), replace(REDEEM, now=500), "challenge.redeemed", id="used and expired"),
    pytest.param((CHALLENGE,), replace(REDEEM, now=130), "challenge.expired", id="challenge expired"),
    pytest.param((CHALLENGE,), replace(REDEEM, node="n2"), "challenge.node", id="challenge of another node"),
    pytest.param((CHALLENGE,), CHALLENGE, "challenge.exists", id="challenge issued twice"),
    pytest.param((CHALLENGE, REDEEM, c.Prune(131)), REDEEM, "challenge.unknown", id="challenge forgotten"),
    pytest.param((CHALLENGE, REDEEM, c.Prune(130)), REDEEM, "challenge.redeemed", id="challenge not yet forgotten"),
    pytest.param((c.UseIntent(A, 1),), c.UseIntent(A, 10**9), "intent.replayed", id="intent used"),
    pytest.param((), c.UseToken(A, 1), "enrol.token-unknown", id="token nobody issued"),
    pytest.param((TOKEN, c.UseToken(A, 1)), c.UseToken(A, 2), "enrol.token-used", id="token used"),
    pytest.param((TOKEN,), c.UseToken(A, 100), "enrol.token-expired", id="token expired"),
    pytest.param((TOKEN,), TOKEN, "enrol.token-exists", id="token issued twice"),
    pytest.param((TOKEN, c.Prune(101)), c.UseToken(A, 1), "enrol.token-unknown", id="token forgotten"),
    pytest.param((), c.TakeActivation(CTI, 1), "enrol.session-unknown", id="enrolment nobody began"),
    pytest.param((SESSION, TAKE), TAKE, "enrol.session-unknown", id="enrolment over"),
    pytest.param((SESSION,), c.TakeActivation(CTI, 100), "enrol.session-expired", id="enrolment too late"),
    pytest.param((SESSION,), SESSION, "enrol.session-exists", id="enrolment begun twice"),
    pytest.param((SESSION, c.Prune(101)), c.TakeActivation(CTI, 1), "enrol.session-unknown", id="enrolment forgotten"),
    pytest.param((NODE,), replace(NODE, name="n3", holder=C), "node.duplicate-ek", id="one EK, two nodes"),
    pytest.param((NODE,), replace(NODE, ek_digest=C, holder=C), "node.duplicate-name", id="one name, two nodes"),
    pytest.param((NODE,), replace(NODE, name="n3", ek_digest=C), "node.duplicate-holder", id="one key, two nodes"),
    pytest.param((), AGAIN, "node.unknown", id="again, never enrolled"),
    pytest.param((NODE,), replace(AGAIN, ek_digest=C), "node.unknown", id="again, with another EK"),
    pytest.param(RETIRED, AGAIN, "node.retired", id="again, after it was retired"),
    pytest.param((NODE, NODE2), replace(AGAIN, holder=C), "node.duplicate-holder", id="again, with another node's key"),
    pytest.param((), c.SetNodeState("n1", "active"), "node.unknown", id="state of no node"),
    pytest.param(RETIRED, c.SetNodeState("n1", "active"), "node.retired", id="retired is for ever"),
    pytest.param((), clock(1, 1, 1), "node.unknown", id="counters of no node"),
    pytest.param((NODE, clock(5, 2, 2)), clock(9, 1, 9), "node.clock", id="resets dropped"),
    pytest.param((NODE, clock(5, 2, 2)), clock(9, 2, 1), "node.clock", id="restarts dropped"),
    pytest.param((), c.ExpectNode("n1", "pending", B), "node.changed", id="node gone"),
    pytest.param((RIM,), replace(RIM, data=b"new"), "collateral.changed", id="kept where nothing was"),
    pytest.param((RIM,), replace(RIM, data=b"c", known=b"b"), "collateral.changed", id="newer than what was there"),
    pytest.param((SECRET,), SECRET, "secret.exists", id="the same secret again"),
    pytest.param((SECRET,), replace(SECRET, tenant="u"), "secret.tenant", id="the name of another tenant's secret"),
    pytest.param((SECRET,), replace(SECRET, tenant="u", replace=True), "secret.tenant", id="replace another tenant's"),
    pytest.param((), c.DropSecret("weights"), "secret.unknown", id="drop no secret"),
    pytest.param((), c.ExpectSecret("weights", "t", b"sealed"), "secret.changed", id="secret gone"),
    pytest.param((SECRET,), c.ExpectSecret("weights", "t", b"other"), "secret.changed", id="secret replaced"),
    pytest.param((SECRET,), c.ExpectSecret("weights", "u", b"sealed"), "secret.changed", id="secret of another tenant"),
    pytest.param((NODE,), c.ExpectNode("n1", "active", B), "node.changed", id="node in another state"),
    pytest.param((NODE,), c.ExpectNode("n1", "pending", C), "node.changed", id="node with another key"),
    pytest.param((), PINS, "node.unknown", id="devices of no node"),
    pytest.param((), proven(1), "node.unknown", id="progress of no node"),
    pytest.param(RETIRED, PINS, "node.retired", id="devices of a retired node"),
    pytest.param((NODE, PINS), c.ExpectNode("n1", "pending", B), "node.changed", id="node pinned meanwhile"),
    pytest.param((NODE,), c.ExpectNode("n1", "pending", B, ("x",)), "node.changed", id="pins gone meanwhile"),
    pytest.param((JOB,), JOB, "grant.exists", id="one grant, two jobs"),
    pytest.param((), LEASE0, "grant.unknown", id="lease of no grant"),
    pytest.param((JOB,), LEASE1, "grant.conflict", id="second lease first"),
    pytest.param((JOB, LEASE0), LEASE0, "grant.conflict", id="first lease twice"),
    pytest.param((JOB, LEASE0), replace(LEASE1, sequence=2), "grant.conflict", id="a lease left out"),
    pytest.param((JOB, LEASE0), replace(LEASE1, previous=C), "grant.conflict", id="lease after another one"),
    pytest.param((JOB, LEASE0), replace(LEASE1, previous=None), "grant.conflict", id="lease after none"),
    pytest.param((JOB, c.RevokeJob(CTI, "admin")), LEASE0, "grant.revoked", id="lease of a revoked job"),
    pytest.param((JOB, LEASE0, c.EndJob(CTI, 5)), LEASE1, "grant.ended", id="lease of a job that is over"),
    pytest.param((replace(JOB, state="denied"),), LEASE0, "grant.ended", id="lease of a job that was denied"),
    pytest.param((), c.RevokeJob(CTI, "admin"), "grant.unknown", id="revoke no job"),
    pytest.param((JOB, c.EndJob(CTI, 5)), c.RevokeJob(CTI, "admin"), "grant.ended", id="revoke a job that is over"),
    pytest.param((), c.EndJob(CTI, 5), "grant.unknown", id="end no job"),
    pytest.param((JOB, c.EndJob(CTI, 5)), c.EndJob(CTI, 5), "grant.ended", id="end a job twice"),
    pytest.param((), EXPECT_USAGE, "usage.changed", id="no job where one was"),
    pytest.param((JOB, replace(JOB, cti=CTI2)), EXPECT_USAGE, "usage.changed", id="a job more of the submitter"),
    pytest.param((JOB, JOB_OF_B), EXPECT_USAGE, "usage.changed", id="a job more of the tenant"),
    pytest.param((JOB, replace(JOB_OF_B, tenant="u")), EXPECT_USAGE, "usage.changed", id="a job more on the node"),
    pytest.param((JOB, replace(LEASE0, gpu_seconds=1)), EXPECT_USAGE, "usage.changed", id="GPU seconds more"),
    pytest.param((JOB,), replace(EXPECT_USAGE, without=CTI), "usage.changed", id="without the only job"),
    pytest.param((), c.PutVersion("policy", D_DOCUMENT, 1), "version.no-blob", id="version of nothing"),
    pytest.param((), c.Activate("policy", D_DOCUMENT, None), "version.unknown", id="no such version"),
    pytest.param(VERSION, c.Activate("references", D_DOCUMENT, None), "version.unknown", id="version of another kind"),
    pytest.param(VERSION, c.Activate("policy", D_DOCUMENT, D_OTHER), "version.changed", id="another one was expected"),
    pytest.param(IN_FORCE, c.Activate("policy", D_DOCUMENT, None), "version.changed", id="none was expected"),
    pytest.param(VERSION, c.ExpectActive("policy", D_DOCUMENT), "version.changed", id="none is in force"),
    pytest.param(OTHER_IN_FORCE, IN_FORCE_STILL, "version.changed", id="another one is in force"),
    pytest.param((), c.ExpectSubmitter(A, b"alice"), "submitter.changed", id="submitter gone"),
    pytest.param((SUBMITTER,), c.ExpectSubmitter(A, b"bob"), "submitter.changed", id="submitter changed"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "change"), ACCEPTED)
def test_accepted(store: Store, before: tuple[c.Change, ...], change: c.Change) -> None:
    commit(store, *before)
    commit(store, change)


@pytest.mark.parametrize(("before", "change", "reason"), REFUSED)
def test_refused(store: Store, before: tuple[c.Change, ...], change: c.Change, reason: str) -> None:
    commit(store, *before)
    with pytest.raises(Conflict) as caught:
        commit(store, change)
    assert caught.value.reason == reason


def test_a_conflict_undoes_its_unit_and_no_other(store: Store) -> None:
    good, bad = c.Unit((SUBMITTER,), (note(1),)), c.Unit((CHALLENGE, JOB, c.UseIntent(A, 1)), (note(2, CTI),))
    used = c.Unit((c.UseIntent(A, 1),))
    outcomes = store.commit([c.Unit(records=(GENESIS,)), used, good, bad, c.Unit(records=(note(3, CTI),))], seal)
    assert [outcome.reason if isinstance(outcome, Conflict) else len(outcome) for outcome in outcomes] == [
        1,
        0,
        1,
        "intent.replayed",
        1,
    ]
    assert store.challenge(A) is None
    assert store.job(CTI) is None
    assert store.submitter(A) == b"alice"
    assert [Record.from_bytes(entry.record).time for entry in store.records(0, 10)] == [1, 1, 3]
    (kept,) = store.records_of(CTI)
    assert Record.from_bytes(kept.record).sequence == 0


def test_a_group_in_which_everything_conflicts_signs_nothing(store: Store) -> None:
    (outcome,) = store.commit([c.Unit((REDEEM,), (GENESIS,))], seal)
    assert isinstance(outcome, Conflict)
    assert store.head().size == 0
    assert store.head().root == merkle.EMPTY_ROOT


def test_records_of_a_job_are_numbered_without_gaps(store: Store) -> None:
    store.commit([c.Unit(records=(GENESIS, note(1, CTI), note(2, CTI)))], seal)
    store.commit([c.Unit(records=(note(3, CTI2),)), c.Unit(records=(note(4, CTI),)), c.Unit(records=(note(5),))], seal)
    store.commit([c.Unit(records=(note(6, CTI),))], seal)
    found = [(entry.index, Record.from_bytes(entry.record)) for entry in store.records_of(CTI)]
    assert [(index, r.time, r.sequence, r.count) for index, r in found] == [
        (1, 1, 0, 1),
        (2, 2, 1, 2),
        (4, 4, 2, 3),
        (6, 6, 3, 4),
    ]
    assert Record.from_bytes(store.record(5) or b"").sequence is None


def appended(store: Store, *records: Record) -> list[Appended]:
    outcomes = store.commit([c.Unit(records=(record,)) for record in records], seal)
    assert not any(isinstance(outcome, Conflict) for outcome in outcomes)
    return [item for outcome in outcomes if not isinstance(outcome, Conflict) for item in outcome]


def test_every_entry_is_proven_under_its_signed_checkpoint(store: Store) -> None:
    groups = [appended(store, GENESIS), appended(store, *map(note, range(5))), appended(store, *map(note, range(8)))]
    for group in groups:
        for item in group:
            merkle.verify_inclusion(leaf_hash(item.record), item.index, item.size, item.path, item.root)
            checkpoint = verify_checkpoint(item.checkpoint, LOG.public, ORIGIN)
            assert (checkpoint.size, checkpoint.root) == (item.size, item.root)
            assert store.checkpoint(item.size) == item.checkpoint
            assert store.record(item.index) == item.record
            assert store.inclusion(item.index, item.size) == item.path
    last = groups[-1][-1]
    head = store.head()
    assert (head.size, head.root, head.note) == (14, last.root, last.checkpoint)
    for group in groups:
        first = group[0]
        path = store.consistency(first.size, last.size)
        merkle.verify_consistency(first.size, last.size, first.root, last.root, path)
        merkle.verify_inclusion(
            leaf_hash(first.record), first.index, last.size, store.inclusion(first.index, last.size), last.root
        )


def test_the_log_goes_on_after_it_was_closed(opener: Callable[[], Store]) -> None:
    first = opener()
    appended(first, GENESIS, *map(note, range(6)))
    commit(first, CHALLENGE, REDEEM)
    first.close()
    second = opener()
    assert second.head().size == 7
    (item,) = appended(second, note(7))
    assert (item.index, item.size) == (7, 8)
    merkle.verify_inclusion(leaf_hash(item.record), item.index, item.size, item.path, item.root)
    with pytest.raises(Conflict, match=r"challenge\.redeemed"):
        commit(second, REDEEM)


def test_two_processes_may_append_in_turn(opener: Callable[[], Store]) -> None:
    first, second = opener(), opener()
    appended(first, GENESIS, note(1))
    appended(second, note(2))
    (item,) = appended(first, note(3))
    assert (item.index, item.size) == (3, 4)
    merkle.verify_inclusion(leaf_hash(item.record), item.index, item.size, item.path, second.head().root)


def test_what_is_put_is_read(store: Store) -> None:
    commit(store, NODE, NODE2, clock(5, 1, 2), CHALLENGE, REDEEM, TOKEN, SESSION, JOB, LEASE0, SUBMITTER, *VERSION)
    commit(store, *VERSION2, c.Activate("policy", D_DOCUMENT, None), c.UseToken(A, 7))
    counters = ClockRecord(clock=5, resets=1, restarts=2, safe=True)
    n1 = Node("n1", A, B, "pending", "lab", b"record", counters)
    n2 = Node("n2", B, C, "active", "lab", b"record 2", None)
    assert store.nodes() == [n1, n2]
    assert (store.node("n1"), store.node_by_ek(A), store.node_by_holder(C)) == (n1, n1, n2)
    assert store.challenge(A) == Challenge("n1", 100, 130, 120)
    assert store.token(A) == Token("n1", "lab", 100, 7)
    assert store.activation(CTI) == b"state"
    assert store.job(CTI) == Job(CTI, "n1", A, "t", B, "running", 2, 10, None, 0, A, 40, 0)
    assert store.submitters() == {A: b"alice"}
    assert store.blob(D_DOCUMENT) == DOCUMENT
    assert store.active("policy") == Version(1, D_DOCUMENT, 5)
    assert store.versions("policy") == [Version(1, D_DOCUMENT, 5), Version(2, D_OTHER, 6)]
    commit(store, c.Activate("policy", D_OTHER, D_DOCUMENT), c.RevokeJob(CTI, "because"))
    assert store.active("policy") == Version(2, D_OTHER, 6)
    assert store.in_force() == {"policy": D_OTHER}
    revoked = store.job(CTI)
    assert revoked is not None
    assert (revoked.state, revoked.revoked) == ("revoked", "because")


def test_collateral_is_the_newest_of_its_kind_and_id(store: Store) -> None:
    commit(store, RIM, replace(RIM, kind="crl", id="http://x"), c.UseCollateral("rim", RIM.id, 150))
    commit(store, replace(RIM, data=b"new", fetched=200, expires=1000, source="https://r", known=RIM.data))
    assert store.collateral() == [
        Kept("crl", "http://x", b"<xml/>", 100, 900, "import"),
        Kept("rim", RIM.id, b"new", 200, 1000, "https://r", 150),
    ]


def test_secrets_are_read(store: Store) -> None:
    commit(store, SECRET, c.PutSecret("a", "u", b"2", 6), replace(SECRET, sealed=b"new", now=9, replace=True))
    assert store.secret("weights") == Secret("weights", "t", b"new", 9)
    assert store.secrets() == [Secret("a", "u", b"2", 6), Secret("weights", "t", b"new", 9)]
    commit(store, c.DropSecret("weights"))
    assert store.secret("weights") is None


def test_pins_are_read(store: Store) -> None:
    commit(store, NODE, PINS)
    node = store.node("n1")
    assert node is not None
    assert node.gpus == PINS.gpus


def test_what_is_not_there_reads_as_nothing(store: Store) -> None:
    nothing: list[object] = [
        *(store.node("n"), store.node_by_ek(A), store.node_by_holder(A), store.challenge(A), store.token(A)),
        *(store.activation(CTI), store.job(CTI), store.submitter(A), store.blob(A), store.secret("a")),
        *(store.record(0), store.checkpoint(1), store.active("policy")),
    ]
    assert nothing == [None] * len(nothing)
    empty: list[object] = [
        store.nodes(),
        store.jobs(),
        store.versions("policy"),
        store.records(0, 5),
        store.collateral(),
        store.secrets(),
    ]
    assert empty == [[]] * len(empty)
    assert store.records_of(CTI) == []
    assert store.submitters() == {}
    appended(store, GENESIS, note(1))
    for missing in (
        lambda: store.subtree(0, 2),
        lambda: store.subtree(1, 1),
        lambda: store.inclusion(0, 3),
        lambda: store.inclusion(2, 2),
        lambda: store.inclusion(0, 0),
        lambda: store.consistency(1, 3),
        lambda: store.consistency(0, 2),
    ):
        with pytest.raises(IndexError):
            missing()


def test_the_earlier_clock_of_one_boot_does_not_count(store: Store) -> None:
    commit(store, NODE, clock(5, 1, 1), clock(4, 1, 1))
    node = store.node("n1")
    assert node is not None
    assert node.clock == ClockRecord(clock=5, resets=1, restarts=1, safe=True)


def test_progress_only_goes_forward(store: Store) -> None:
    commit(store, NODE, proven(5, log=A), proven(3))
    node = store.node("n1")
    assert node is not None
    assert node.progress == progress(5, log=A).to_bytes()
    commit(store, proven(1, resets=2), proven(9))
    node = store.node("n1")
    assert node is not None
    assert node.progress == progress(1, resets=2).to_bytes()
    commit(store, AGAIN)
    node = store.node("n1")
    assert node is not None
    assert node.progress is None


def test_a_challenge_keeps_what_was_proven_when_it_was_issued(store: Store) -> None:
    known = progress(5).to_bytes()
    commit(store, NODE, proven(5), replace(CHALLENGE, progress=known), proven(6))
    challenge = store.challenge(A)
    assert challenge is not None
    assert challenge.progress == known


def test_jobs_by_node_and_by_life(store: Store) -> None:
    commit(store, JOB, replace(JOB, cti=CTI2, node="n2"), replace(JOB, cti=CTI3, state="denied"))
    assert [job.cti for job in store.jobs()] == [CTI, CTI2, CTI3]
    assert [job.cti for job in store.jobs(live=True)] == [CTI, CTI2]
    assert [job.cti for job in store.jobs(node="n1")] == [CTI, CTI3]
    assert [job.cti for job in store.jobs(node="n1", live=True)] == [CTI]


def test_usage_counts_live_jobs_and_the_seconds_of_the_period(store: Store) -> None:
    other = replace(JOB, cti=CTI2, submitter=B, node="n2", now=20)
    commit(store, JOB, other, LEASE0, LEASE1, replace(LEASE0, cti=CTI2, gpu_seconds=7))
    assert store.usage(A, "t", "n1", without=None, since=0) == Usage(
        submitter_jobs=1, tenant_jobs=2, node_jobs=1, gpu_seconds=27
    )
    assert store.usage(A, "t", "n1", without=CTI, since=20) == Usage(
        submitter_jobs=0, tenant_jobs=1, node_jobs=0, gpu_seconds=7
    )


COURSE: dict[str, tuple[c.Change, ...]] = {
    "a job": (JOB,),
    "a second of the same": (replace(JOB, cti=CTI2),),
    "a lease of no second": (LEASE0,),
    "a lease of some seconds": (LEASE1,),
    "a refused request": (replace(JOB, cti=CTI3, state="denied"),),
    "revoked jobs count": (c.RevokeJob(CTI, "hard"),),
    "ended jobs do not": (c.EndJob(CTI, 25),),
    "the other ends too": (c.EndJob(CTI2, 0),),
}


def test_usage_is_at_every_moment_what_the_tables_say(store: Store, opener: Callable[[], Store]) -> None:
    for name, changes in COURSE.items():
        commit(store, *changes)
        for without in (None, CTI, CTI2, CTI3):
            for since in (0, 11):
                usage = store.usage(A, "t", "n1", without=without, since=since)
                asked = replace(EXPECT_USAGE, without=without, since=since, usage=usage)
                commit(store, asked)
                assert opener().usage(A, "t", "n1", without=without, since=since) == usage, name


def test_what_was_not_committed_counts_nowhere(store: Store) -> None:
    commit(store, *VERSION)
    broken = c.Unit((JOB, LEASE0, SUBMITTER, c.Activate("policy", D_DOCUMENT, None), c.EndJob(CTI3, 0)))
    (outcome,) = store.commit([broken], seal)
    assert isinstance(outcome, Conflict)
    assert store.usage(A, "t", "n1", without=None, since=0) == NOTHING_USED
    assert store.in_force() == {}
    assert store.submitter(A) is None


def test_what_another_process_committed_counts_from_the_next_commit_on(
    store: Store, opener: Callable[[], Store]
) -> None:
    other = opener()
    other.commit([c.Unit((JOB, *IN_FORCE, SUBMITTER), (note(7),))], seal)
    store.commit([c.Unit(records=(note(8),))], seal)
    assert store.usage(A, "t", "n1", without=None, since=0) == USAGE
    assert store.in_force() == {"policy": D_DOCUMENT}
    assert store.submitter(A) == SUBMITTER.record


ENTER, LEAVE = c.Activate("policy", D_OTHER, D_DOCUMENT), c.Activate("policy", D_DOCUMENT, D_OTHER)
OTHER_STILL = c.ExpectActive("policy", D_OTHER)
BOB, ALICE_STILL = replace(SUBMITTER, record=b"bob"), c.ExpectSubmitter(kid=A, record=b"alice")
GROUPS = [
    pytest.param([(IN_FORCE_STILL,), (IN_FORCE_STILL,)], [True, True], id="asked twice"),
    pytest.param([(IN_FORCE_STILL,), (ENTER,), (IN_FORCE_STILL,)], [True, True, False], id="changed in between"),
    pytest.param([(OTHER_STILL,), (ENTER,), (OTHER_STILL,)], [False, True, True], id="refused once, not for ever"),
    pytest.param(
        [(ENTER, OTHER_STILL, TAKE), (OTHER_STILL,), (IN_FORCE_STILL,)],
        [False, False, True],
        id="a change that is undone takes along what was asked after it",
    ),
    pytest.param([(ENTER, LEAVE), (IN_FORCE_STILL,)], [True, True], id="there and back"),
    pytest.param([(ALICE_STILL,), (BOB,), (ALICE_STILL,)], [True, True, False], id="another submitter"),
    pytest.param([(BOB, ALICE_STILL), (ALICE_STILL,)], [False, True], id="another submitter, undone"),
]


@pytest.mark.parametrize(("group", "held"), GROUPS)
def test_a_group_remembers_no_condition_longer_than_it_holds(
    store: Store, group: list[tuple[c.Change, ...]], held: list[bool]
) -> None:
    commit(store, *IN_FORCE, *VERSION2, SUBMITTER)
    outcomes = store.commit([c.Unit(changes) for changes in group], seal)
    assert [not isinstance(outcome, Conflict) for outcome in outcomes] == held


def test_probe_writes(store: Store) -> None:
    store.probe()
    store.probe()
