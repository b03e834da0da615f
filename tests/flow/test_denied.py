"""What is denied: each with its one reason, in the log before it is answered, and nothing of the job has run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fixtures.beats import BEAT, Beating, BeatLab, make_environment
from fixtures.lab import BIN
from fixtures.ledger import Acknowledged, Ledger

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Refused:
    """Submits something that must be denied for ``reason``; ``undo`` sets the lab right again."""

    reason: str
    submit: Callable[[BeatLab], Beating]
    undo: Callable[[BeatLab], Any] = lambda lab: None


def without_role(lab: BeatLab) -> Beating:
    lab.make_submitter("no-role", roles=())
    return lab.beat(key="no-role")


def unknown(lab: BeatLab) -> Beating:
    lab.command("interlock", "keygen", "--key", str(lab.home / "unknown.pem"), **lab.as_submitter)
    return lab.beat(key="unknown")


def disabled(lab: BeatLab) -> Beating:
    lab.make_submitter("disabled")
    lab.operator("submitter", "disable", "disabled")
    return lab.beat(key="disabled")


def changed_code(lab: BeatLab) -> Beating:
    text = (BEAT / "beat.py").read_text() + "# one line that nobody approved\n"
    lab.code("changed", source=BEAT, changes={"beat.py": text})
    return lab.beat(code="changed")


def retired_code(lab: BeatLab) -> Beating:
    text = (BEAT / "beat.py").read_text() + "# approved once\n"
    code = lab.code("retired", source=BEAT, changes={"beat.py": text})
    lab.approve(code, "retired")
    lab.operator("refs", "set-state", "retired-code", "retired")
    return lab.beat(code="retired")


def other_environment(lab: BeatLab) -> Beating:
    other = make_environment(lab.dir / "other")
    (other / "added.py").write_text("")
    return lab.beat(options=("--environment", str(other)))


def quarantined(lab: BeatLab) -> Beating:
    lab.operator("node", "quarantine", lab.node)
    return lab.beat()


def without_baseline(lab: BeatLab) -> Beating:
    lab.operator("refs", "set-state", f"{lab.node}-boot", "retired")
    return lab.beat()


def typed(lab: BeatLab) -> Beating:
    """Code on the command line, beside an approved tree."""
    return Beating(lab.run("python", "-c", "print('ran')", name="typed", code="beat"), "typed", lab.lease_seconds)


REFUSED = {
    "code that was typed": Refused("authz.command", typed),
    "a variable that loads other code": Refused(
        "authz.variables", lambda lab: lab.beat(options=("--env-var", "LD_PRELOAD=/tmp/other.so"))
    ),
    "a submitter without the role": Refused("authz.role", without_role),
    "a submitter whom nobody knows": Refused("authz.submitter", unknown),
    "a submitter who was disabled": Refused("authz.submitter", disabled),
    "somebody else's tenant": Refused("authz.tenant", lambda lab: lab.beat(options=("--tenant", "other"))),
    "code that was changed": Refused("code.unknown", changed_code),
    "code that was retired": Refused("code.retired", retired_code),
    "another environment": Refused("environment.unknown", other_environment),
    "a node in quarantine": Refused(
        "node.quarantined", quarantined, lambda lab: lab.operator("node", "activate", lab.node)
    ),
    "a node whose boot is not known any more": Refused(
        "ref.retired", without_baseline, lambda lab: lab.operator("refs", "set-state", f"{lab.node}-boot", "active")
    ),
    "GPUs that nobody proves": Refused("trust.binding", lambda lab: lab.beat(options=("--gpus", "1"))),
    "more time than there is": Refused("limit.seconds", lambda lab: lab.beat(options=("--seconds", "700000"))),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_it_is_denied_and_nothing_runs(lab: BeatLab, refused: Refused) -> None:
    ledger = Ledger(lab)
    job = refused.submit(lab)
    try:
        ending = job.end()
    finally:
        refused.undo(lab)
    assert (ending["code"], ending["event"], ending["reason"]) == (71, "denied", refused.reason)
    assert ending["fix"]
    assert (job.begins, job.beats()) == (0, [])
    assert not lab.cgroup_of(ending["grant"]).exists()
    assert not (lab.agent_dir / "jobs" / ending["grant"]).exists()
    ledger.told.add(Acknowledged("decision", bytes.fromhex(ending["grant"]), ending["receipt"]))
    assert ledger.look() == []
    assert ledger.records[ending["receipt"]].outcome == "deny"
    assert refused.reason in ledger.records[ending["receipt"]].reasons


@pytest.fixture(autouse=True)
def works_again(lab: BeatLab) -> Iterator[None]:
    """A denial leaves no trace: what is in order runs."""
    yield
    assert lab.beat("--seconds", "0.01", name="works-again").end()["code"] == 0


def test_a_person_reads_one_screen(lab: BeatLab) -> None:
    where = {
        "agent": lab.socket,
        "key": lab.home / "ada.pem",
        "code": lab.home / "beat",
        "environment": lab.environment,
    }
    options = [word for name, value in where.items() for word in (f"--{name}", str(value))]
    command = [str(BIN / "interlock"), "run", *options, "--tenant", "other", "--", "python", "beat.py"]
    program = lab.program(command, "screen", **lab.as_submitter)
    assert program.wait(30) == 71
    assert len(program.lines) < 10
    assert program.lines[0] == "interlock: denied (exit 71)"
    assert any("authz.tenant" in line for line in program.lines)
