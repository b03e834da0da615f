"""What a verifier remembers when it was killed, and a small part of the kill harness (``./dev faults``)."""

import signal
from collections import Counter

import pytest

from agent.client import Denied, Pinned, Rejected, Verifier
from agent.collect import Collector
from agent.holder import Holder
from agent.state import State
from agent.tpm import EsysTpm
from attestation.intent import read_intent
from attestation.log import Record
from fixtures.beats import BeatLab
from fixtures.faults import Faults, summary
from fixtures.ledger import Acknowledged, Ledger
from fixtures.points import PHASES, Point, draw

pytestmark = pytest.mark.root

SEED = 7
POINTS = 8


def test_challenges_and_the_log_survive_the_verifier(lab: BeatLab) -> None:
    """A challenge from before is answered, once, and a second time refused, whoever asks."""
    ledger = Ledger(lab)
    assert ledger.look() == []
    job = lab.beat().wait_beat()
    lab.stop_agent()
    assert job.end()["code"] == 73
    enrolment = State(lab.agent_dir).load()
    verifier = Verifier(Pinned(enrolment.url, enrolment.certificate))
    tpm = EsysTpm(lab.tpm.tcti if lab.tpm else "")
    try:
        challenge = verifier.challenge(enrolment.node)
        key, policy = tpm.load_holder(enrolment.holder_blob), enrolment.policy_key
        holder = Holder(tpm, key, policy=policy, node=enrolment.node, permits=verifier)
        grant = bytes.fromhex(job.grant or "")
        (record,) = [r for r in ledger_after(ledger) if (r.kind, r.job) == ("decision", grant)]
        intent, _ = read_intent(ledger.document(record.digests["intent"]))
        evidence = Collector(tpm, holder, logs=None).answer(challenge, intent.digest, grant)
        lab.stop_verifier(signal.SIGKILL)
        lab.start_verifier()
        with pytest.raises(Denied, match=r"grant\.ended"):  # judged and logged
            verifier.renew(evidence)
        with pytest.raises(Rejected, match=r"challenge\.redeemed"):  # and not judged again
            verifier.renew(evidence)
    finally:
        verifier.close()
        tpm.close()
        lab.start_agent()
    assert ledger.look() == []


def ledger_after(ledger: Ledger) -> list[Record]:
    assert ledger.look() == []
    return ledger.records


@pytest.mark.slow
def test_kill_minus_nine_at_random_moments(lab: BeatLab) -> None:
    harness = Faults(lab, SEED)
    points = [harness.play(number) for number in range(POINTS)]
    assert {point.number: point.violations for point in points if point.violations} == {}
    assert {point.victim for point in points if point.struck} == {"verifier", "agent", "deadman"}
    assert harness.finish(given_up=False) == []


# --- the harness itself: it must see what it is there to see ---------------------------------------------------------


def test_a_point_is_the_same_every_time() -> None:
    assert draw(3, 14) == draw(3, 14)
    assert draw(3, 14) != draw(4, 14)
    victims = [draw(3, number).victim for number in range(200)]
    assert min(victims.count(each) for each in ("verifier", "agent", "deadman")) > 40
    assert {draw(3, number).phase for number in range(200)} == set(PHASES)


def test_what_was_acknowledged_and_is_gone_is_seen(lab: BeatLab) -> None:
    ledger = Ledger(lab)
    ending = lab.beat("--seconds", "0.05").end()
    cti = bytes.fromhex(ending["grant"])
    lies = {
        Acknowledged("decision", bytes(16)),
        Acknowledged("decision", cti, ending["receipt"] + 1),
        Acknowledged("decision", cti, 1 << 30),
        Acknowledged("lease", cti, sequence=1),
    }
    ledger.told = {*lies, Acknowledged("decision", cti, ending["receipt"]), Acknowledged("lease", cti, sequence=0)}
    assert len(ledger.look()) == len(lies)


def test_a_log_that_lost_or_changed_records_is_seen(lab: BeatLab) -> None:
    ledger = Ledger(lab)
    assert ledger.look() == []
    ledger.size += 1000
    assert any("shrank" in what for what in ledger.look())
    ledger = Ledger(lab)
    ledger.look()
    ledger.root = bytes(32)
    assert any("no prefix" in what for what in ledger.look())
    ledger = Ledger(lab)
    ledger.look()
    ledger._encoded[3] = b"\xa0"
    assert any("another one now" in what for what in ledger.look())


def test_a_run_without_a_report_is_seen(lab: BeatLab) -> None:
    ledger = Ledger(lab)
    ledger.look()
    ledger.begun.add(bytes(16))
    ledger.burned.add(bytes(range(16)))
    assert ledger.unreported() == {bytes(16), bytes(range(16))}
    assert any("burned" in what for what in ledger.look())


def test_a_beat_beyond_the_lease_is_seen(lab: BeatLab) -> None:
    job = lab.beat("--seconds", "1")
    job.end()
    assert job.outlived() == []
    job.lease_seconds = 0
    assert job.outlived() != []


def test_a_summary_counts_what_struck() -> None:
    points = [draw(1, number) for number in range(4)]
    for point in points[:3]:
        point.struck, point.dead_ms = True, float(point.number)
    points[1].violations.append("a: it lived on")
    found = summary(1, points, Counter(), [], 2.0)
    assert (found["points"], found["missed"], sum(found["by_victim"].values())) == (3, 1, 3)
    assert found["dead_ms"] == {"n": 3, "p50": 1.0, "max": 2.0}
    assert [each["number"] for each in found["violations"]] == [1]
    assert isinstance(points[0], Point)
