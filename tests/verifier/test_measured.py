"""A host that measures, and its verifier: what it has to show, what it need not show again, and what stops its jobs."""

import asyncio
import base64
import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from attestation.appraise import Subject
from attestation.audit import PASS, verify_bundle
from attestation.bundle import Bundle, Root
from attestation.challenge import Challenge
from attestation.errors import Untrusted
from attestation.evidence import read_evidence
from attestation.extract import extract
from attestation.grant import Grant
from attestation.intent import Intent
from attestation.lease import Lease
from attestation.log import Record
from attestation.problem import Denial
from attestation.progress import HostProgress, boot_of
from attestation.reference import ReferenceSet
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima import once
from fixtures.attester import SoftTpm
from fixtures.measured import Measured, captured, entry, policy_for
from fixtures.workload import Jobs
from tests.verifier.hall import CA, CODE, ENVIRONMENT, Hall, Host, allowed, denied, leased
from verifier.bundles import make_bundle
from verifier.known import MOST_LOGS, Knowledge
from verifier.refs import spool
from verifier.rehearse import rehearse
from verifier.renew import renew
from verifier.sqlite import SqliteStore

LOG, ENTRIES = captured()
PCRS = tuple(range(11))
DEMANDS = BootPolicy(
    required=("driver",), accepted=(), secure_boot=False, deployed_mode=False, dma_protection=True, no_debug=True
)
NEW = tuple(entry(b"/opt/new/%d" % number, b"new") for number in range(3))


@dataclass
class Run:
    """A job under a grant on a host that measures."""

    hall: Hall
    host: Host
    intent: Intent
    grant: Grant
    lease: Lease

    def renew(self) -> Lease | Denial:
        """Ask for the next lease a second later."""
        self.hall.hands.time += 1
        answer = self.hall.run(self.host.renew(self.grant, self.intent))
        return answer if isinstance(answer, Denial) else leased(answer)

    def go_on(self) -> None:
        """The next lease is given."""
        assert isinstance(self.renew(), Lease)

    @property
    def logs(self) -> Measured:
        assert self.host.logs is not None
        return self.host.logs

    def challenge(self) -> Challenge:
        return self.hall.run(self.hall.verifier.challenge("host"))

    def progress(self) -> HostProgress:
        """What is kept."""
        node = self.hall.verifier.store.node("host")
        assert node is not None
        assert node.progress is not None
        return HostProgress.from_bytes(node.progress)

    def records(self) -> list[Record]:
        return [Record.from_bytes(e.record) for e in self.hall.verifier.store.records_of(self.grant.id)]


async def allow(hall: Hall, entries: Sequence[bytes], name: str = "files") -> None:
    """Load an IMA reference that allows these entries."""
    policy = policy_for(entries)
    left = spool.leave(hall.settings.directory, policy.to_bytes())
    asked: dict[str, Any] = {"name": name, "policy": left, "provenance": "test", "pools": ["lab"], "activate": True}
    await hall.command("refs.ima.put", **asked, replace=True)


async def demand(hall: Hall, policy: BootPolicy = DEMANDS) -> None:
    """Load a boot reference."""
    encoded = base64.b64encode(policy.to_bytes()).decode()
    asked: dict[str, Any] = {"name": "boot", "policy": encoded, "provenance": "test", "pools": ["lab"]}
    await hall.command("refs.boot.put", **asked, activate=True)


async def furnish(hall: Hall, entries: Sequence[bytes] = (*ENTRIES, *NEW)) -> Host:
    """A verifier that holds its host to a boot reference and an IMA reference, and no baseline."""
    await hall.ask_for(*PCRS)
    await hall.add_person(hall.person)
    tpm = SoftTpm(CA)
    logs = Measured(tpm)
    logs.boot()
    host = await hall.add_host("host", tpm)
    host.logs = logs
    await demand(hall)
    await allow(hall, entries)
    for kind, value in (("code", CODE), ("environment", ENVIRONMENT)):
        await hall.command("refs.approve", kind=kind, digest=value.hex(), name=kind)
    return host


def start(hall: Hall, host: Host) -> Run:
    intent = hall.intent()
    return Run(hall, host, intent, *allowed(hall.run(host.ask(intent))))


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    with Hall(tmp_path) as made:
        yield made


@pytest.fixture
def run(hall: Hall) -> Run:
    return start(hall, hall.run(furnish(hall)))


def refused(answer: Lease | Denial) -> Denial:
    """The denial that the answer to a renewal must be."""
    assert isinstance(answer, Denial), "a lease was given"
    return answer


def codes(answer: Lease | Denial) -> dict[str, str]:
    return {refusal.code: refusal.detail or "" for refusal in refused(answer).reasons}


def test_a_host_without_a_baseline_runs_what_its_logs_prove(run: Run) -> None:
    facts = run.grant.submods["tpm"].facts
    assert (facts["boot-reference.name"], facts["ima-reference.name"]) == ("boot", "files")
    assert facts["boot.driver.1"].endswith("[event 3, PCR 2]")
    assert sorted(run.grant.conditions.pcrs) == list(PCRS[:-1])  # PCR 10 grows while the job runs


def test_the_whole_list_then_nothing_new_then_three_entries(run: Run) -> None:
    log = hashlib.sha256(LOG).digest()
    challenge = run.challenge()
    assert (challenge.known_log, challenge.ima_boot, challenge.ima_next) == (log, boot_of(1, 0), 222)
    run.go_on()
    assert run.host.asked(run.challenge()) == (None, 222, b"")
    run.logs.measure(*NEW)
    assert run.host.asked(run.challenge()) == (None, 222, b"".join(NEW))
    run.go_on()
    assert run.host.asked(run.challenge()) == (None, 225, b"")
    run.go_on()
    seen = run.progress().ima
    assert seen is not None
    assert (seen.next, seen.seen) == (225, 225)
    sizes = [len(run.hall.verifier.document(r.digests["evidence"])) for r in run.records()[1:] if "node" in r.digests]
    assert max(sizes) < 10_000


def test_event_logs_at_hand_take_so_many_bytes_and_no_more(run: Run) -> None:
    made = Knowledge(lambda digest: digest * (1 << 15))
    node, references = run.hall.verifier.node("host"), run.hall.verifier.in_force().references
    for number in range(70):
        log = hashlib.sha256(bytes([number])).digest()
        progress = HostProgress(boot=boot_of(1, 0), log=log).to_bytes()
        assert made.of(node, progress, without_lists(references)).event_log == log * (1 << 15)
    assert len(made._logs) == MOST_LOGS >> 20


def without_lists(references: ReferenceSet) -> ReferenceSet:
    """The same references without lists."""
    return ReferenceSet(replace(references.references, lists=()))


def test_the_operator_sees_how_far_a_host_is_proven(run: Run) -> None:
    log = hashlib.sha256(LOG).hexdigest()
    assert run.hall.run(run.hall.command("node.show", node="host"))["proven"] == {
        "boot": "1.0",
        "event_log": log,
        "ima_entries": 222,
        "jobs": 0,
    }
    run.hall.run(run.hall.add_host("other"))
    assert run.hall.run(run.hall.command("node.show", node="other"))["proven"] == {}


def test_a_restarted_verifier_goes_on_where_it_was(run: Run) -> None:
    run.logs.measure(NEW[0])
    run.go_on()
    run.hall.reopen()
    assert run.challenge().ima_next == 223
    run.go_on()
    challenge = run.challenge()
    run.logs.measure(NEW[1])
    evidence = run.host.evidence(challenge, run.intent, grant=run.grant.id)
    run.hall.reopen()  # another replica has issued the challenge, as far as this one knows
    assert isinstance(leased(run.hall.run(renew(run.hall.verifier, evidence))), Lease)
    assert run.challenge().ima_next == 224


def test_an_unknown_file_ends_the_job_and_is_named(run: Run) -> None:
    run.logs.read(b"/tmp/rootkit", b"evil")
    denial = refused(run.renew())
    assert denial.klass == "hard"
    (reason,) = denial.reasons
    assert reason.code == "tpm.ima.unlisted"
    assert (reason.detail or "").startswith("entry 222, /tmp/rootkit: nothing speaks of this file, sha256:")
    seen = run.progress().ima
    assert seen is not None
    assert seen.next == 222
    assert run.hall.verifier.job(run.grant.id).state == "revoked"
    counted = run.hall.verifier.metrics.text().decode().splitlines()
    assert 'interlock_host_checks_total{check="tpm.ima",outcome="fail"} 1.0' in counted
    assert 'interlock_host_checks_total{check="tpm.boot",outcome="pass"} 2.0' in counted
    again = denied(run.hall.run(run.host.ask(run.hall.intent())))
    assert [refusal.code for refusal in again.reasons] == ["tpm.ima.unlisted"]


def test_a_file_that_the_reference_learns_of_is_accepted(run: Run) -> None:
    made = run.logs.read(b"/opt/tool", b"tool")
    run.hall.run(allow(run.hall, (*ENTRIES, *NEW, made), "newer"))
    assert run.challenge().ima_next is None  # another policy judges the whole list
    run.go_on()
    assert run.challenge().ima_next == 223


def test_a_file_that_the_reference_forgets_is_refused(run: Run) -> None:
    run.hall.run(allow(run.hall, ENTRIES[:-1], "narrower"))
    assert codes(run.renew())["tpm.ima.unlisted"].startswith("entry 221, ")


def test_two_renewals_at_once_disturb_each_other_in_neither_order(run: Run) -> None:
    other = start(run.hall, run.host)

    def together(*order: int) -> None:
        verifier = run.hall.verifier
        run.hall.hands.time += 1
        jobs = (run, other)
        challenges = [run.hall.run(verifier.challenge("host")) for _ in jobs]
        tokens: list[bytes] = []
        for job, challenge in zip(jobs, challenges, strict=True):
            run.logs.measure(ENTRIES[len(tokens) + 20])  # the second one proves one entry more
            tokens.append(run.host.evidence(challenge, job.intent, grant=job.grant.id))

        async def both() -> list[bytes | Denial]:
            return await asyncio.gather(*(renew(verifier, tokens[place]) for place in order))

        for answer in run.hall.run(both()):
            leased(answer)

    together(0, 1)
    assert run.challenge().ima_next == 224
    together(1, 0)
    assert run.challenge().ima_next == 226
    run.go_on()


def test_after_a_reboot_the_whole_list_is_shown(run: Run) -> None:
    run.go_on()
    run.host.tpm.reboot()
    run.host.jobs = Jobs(run.host.tpm)
    run.logs.boot()
    challenge = run.challenge()
    assert run.host.asked(challenge) == (None, 0, b"".join(ENTRIES))
    assert "tpm.clock.rebooted" in codes(run.renew())
    again = start(run.hall, run.host)
    assert again.progress().boot == boot_of(2, 0)
    assert again.challenge().ima_next == 222


def test_a_list_that_became_shorter_is_refused(run: Run) -> None:
    run.logs.measure(*NEW)
    run.go_on()
    run.logs.entries = run.logs.entries[:-1]
    run.logs.read(b"/opt/hidden", b"hidden")
    run.logs.entries = run.logs.entries[:-1]
    found = codes(run.renew())
    assert found["tpm.ima.mismatch"].startswith("entries 225 to 225 (not included) never lead to the quoted PCR 10")


def test_a_list_that_starts_anew_within_a_boot_is_refused(run: Run) -> None:
    run.logs.entries = []
    run.logs.measure(*ENTRIES[:9])
    assert set(codes(run.renew())) == {"tpm.ima.mismatch"}


def test_another_boot_than_the_reference_wants_is_told_with_its_event(run: Run) -> None:
    run.hall.run(demand(run.hall, replace(DEMANDS, drivers=())))
    found = codes(run.renew())
    assert found["tpm.boot.driver"].startswith("boot: event 3, PCR 2: 56fb69c5")


def test_an_event_log_that_is_withheld_is_refused(hall: Hall) -> None:
    host = hall.run(furnish(hall))
    host.logs = None
    denial = denied(hall.run(host.ask(hall.intent())))
    assert [(r.code, (r.detail or "").split(",")[0]) for r in denial.reasons] == [
        ("tpm.log.missing", "no log explains PCR 0")
    ]


def test_a_challenge_from_before_a_new_reference_is_asked_again(run: Run) -> None:
    challenge = run.challenge()
    evidence = run.host.evidence(challenge, run.intent, grant=run.grant.id)
    run.hall.run(allow(run.hall, (*ENTRIES, *NEW, entry(b"/x", b"x")), "newer"))
    with pytest.raises(Untrusted) as caught:
        run.hall.run(renew(run.hall.verifier, evidence))
    assert caught.value.reason == "challenge.outdated"
    run.go_on()


@pytest.mark.parametrize("change", ["another reference", "another policy"])
def test_a_challenge_from_before_a_restart_is_held_against_what_it_asked_for(run: Run, change: str) -> None:
    """What is in force was changed while the verifier was down: the host asks again, its job is not ended."""
    challenge = run.challenge()
    evidence = run.host.evidence(challenge, run.intent, grant=run.grant.id)
    if change == "another reference":
        run.hall.run(allow(run.hall, (*ENTRIES, *NEW, entry(b"/x", b"x")), "newer"))
    else:
        run.hall.run(run.hall.ask_for(*PCRS, 14))
        run.hall.run(demand(run.hall, replace(DEMANDS, no_debug=False)))
    run.hall.reopen()
    assert run.hall.verifier.asked(challenge.nonce)[0] == challenge
    with pytest.raises(Untrusted) as caught:
        run.hall.run(renew(run.hall.verifier, evidence))
    assert caught.value.reason == "challenge.outdated"
    assert run.hall.verifier.job(run.grant.id).state == "running"
    run.go_on()


def test_a_challenge_of_an_older_release_is_asked_again(run: Run) -> None:
    evidence = run.host.evidence(run.challenge(), run.intent, grant=run.grant.id)
    run.hall.reopen()
    store = run.hall.verifier.store
    assert isinstance(store, SqliteStore)
    store._writer.execute("UPDATE challenge SET asked = NULL")
    with pytest.raises(Untrusted, match=r"^challenge\.unknown"):
        run.hall.run(renew(run.hall.verifier, evidence))
    run.go_on()


def test_required_checks_are_denied_where_the_pool_has_no_reference(hall: Hall) -> None:
    host = hall.run(furnish(hall))
    settings = hall.policies / "settings.toml"
    text = settings.read_text(encoding="utf-8")
    for name in ("event-log", "ima"):
        text = text.replace(f'{name} = "unchecked"', f'{name} = "required"')
    settings.write_text(text, encoding="utf-8")
    hall.run(hall.load())
    grant, _ = allowed(hall.run(host.ask(hall.intent())))
    assert {"event-log", "ima"}.isdisjoint(grant.unchecked)
    for name in ("boot", "files"):
        hall.run(hall.command("refs.set-state", name=name, state="pending"))
    denial = denied(hall.run(host.ask(hall.intent())))
    assert {r.code for r in denial.reasons} >= {"policy.required.event-log", "policy.required.ima"}


LONG_LIST = tuple(entry(b"/usr/share/%05d/" % number + b"x" * 900, b"") for number in range(1100))


def test_a_long_list_is_gone_through_beside_the_loop(run: Run) -> None:
    """What the loop then asks for is there already, for this host's request and for another's at the same time."""
    hall = run.hall
    other = hall.run(hall.add_host("other", booted_alike()))
    other.logs = Measured(other.tpm, entries=list(ENTRIES))
    run.logs.measure(*LONG_LIST)
    hall.run(allow(hall, (*ENTRIES, *LONG_LIST), "longer"))
    job = start(hall, other)
    hall.hands.time += 1
    evidence = run.host.evidence(run.challenge(), run.intent, grant=run.grant.id)
    once._outcomes.clear()
    hall.run(rehearse(hall.verifier, *read_evidence(evidence), run.intent, run.grant.id))
    assert len(once._outcomes) == 1

    async def both() -> list[bytes | Denial]:
        return list(await asyncio.gather(renew(hall.verifier, evidence), other.renew(job.grant, job.intent)))

    for answer in hall.run(both()):
        leased(answer)
    assert len(once._outcomes) == 1
    short = other.evidence(hall.run(hall.verifier.challenge("other")), job.intent, grant=job.grant.id)
    hall.run(rehearse(hall.verifier, *read_evidence(short), job.intent, job.grant.id))
    assert len(once._outcomes) == 1


def test_who_sends_many_long_lists_waits_for_himself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hall = run.hall
    other = hall.run(hall.add_host("other", booted_alike()))
    other.logs = Measured(other.tpm, entries=list(ENTRIES))
    running: list[str] = []
    together: list[set[str]] = []

    def slow(_: object, subject: Subject, **__: object) -> None:
        running.append(subject.node.name)
        threading.Event().wait(0.2)
        together.append(set(running))
        assert running.count(subject.node.name) == 1
        running.remove(subject.node.name)

    monkeypatch.setattr("verifier.rehearse.appraise", slow)
    monkeypatch.setattr("verifier.rehearse.LONG", 1)

    async def send(host: Host) -> None:
        evidence = host.evidence(await hall.verifier.challenge(host.name), run.intent)
        await rehearse(hall.verifier, *read_evidence(evidence), run.intent)

    async def all_at_once() -> None:
        await asyncio.gather(*(send(host) for host in (run.host, run.host, run.host, other)))

    hall.run(all_at_once())
    assert len(together) == 4
    assert {"host", "other"} in together


def booted_alike() -> SoftTpm:
    """The TPM of another host of the same kind."""
    tpm = SoftTpm(CA)
    Measured(tpm).boot()
    return tpm


def test_a_long_list_with_an_unknown_file_is_refused(run: Run) -> None:
    run.logs.measure(*LONG_LIST)
    found = codes(run.renew())
    assert found["tpm.ima.unlisted"].endswith("(1100 refused in all)")


def test_an_auditor_makes_every_judgement_again(run: Run) -> None:
    run.go_on()
    run.logs.measure(*NEW)
    run.go_on()
    run.logs.read(b"/tmp/rootkit", b"evil")
    run.renew()
    bundle = make_bundle(run.hall.verifier, run.grant.id)
    keys = run.hall.verifier.keys
    audit = verify_bundle(bundle, Root(keys.grant.public, keys.log.public))
    assert {outcome.outcome for outcome in audit} <= {PASS, "n/a"}, audit
    names = [set(record.digests) for record in run.records() if "claims" in record.digests]
    assert {"event-log", "ima-policy"} <= names[0]
    assert "progress" not in names[0]
    assert all({"progress", "event-log", "ima-policy"} <= named for named in names[1:])


def test_the_logs_can_be_taken_out_of_a_bundle(run: Run) -> None:
    run.logs.measure(*NEW)
    run.go_on()
    files = dict(extract(Bundle.from_bytes(make_bundle(run.hall.verifier, run.grant.id))))
    assert files["event-log-0.bin"] == LOG
    assert files["ima-0-from-0.bin"] == b"".join(ENTRIES)
    assert files["event-log-2.bin"] == LOG
    assert files["ima-2-from-222.bin"] == b"".join(NEW)
