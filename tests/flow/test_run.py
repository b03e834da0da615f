"""A job under a grant, from the submitter's command to the report in the log."""

import signal
from pathlib import Path

import pytest

from fixtures.beats import BeatLab
from fixtures.lab import SUBMITTER_UID
from fixtures.ledger import Ledger
from fixtures.outside import processes_below

pytestmark = pytest.mark.root


def test_outputs_variables_and_surroundings(lab: BeatLab) -> None:
    options = ("--output", "kept.txt", "--env-var", "COLOUR=blue", "--env-var", "EMPTY=")
    job = lab.beat("--show", "--seconds", "0.1", "--output", "kept.txt", options=options)
    ending = job.end()
    assert (ending["code"], ending["event"], ending["reason"]) == (0, "finished", None)
    assert (ending["assurance"], ending["node"], ending["leases"]) == ("test", lab.node, 1)
    assert (lab.home / "kept.txt").read_text() == "written by the job\n"
    assert (lab.home / "kept.txt").stat().st_uid == SUBMITTER_UID
    env = job.shown["env"]
    assert (env["COLOUR"], env["EMPTY"]) == ("blue", "")
    assert set(env) - {"LC_CTYPE"} == {"COLOUR", "EMPTY", "HOME", "PATH", "INTERLOCK_OUT"}
    assert (job.shown["uid"], job.shown["in"]) == (SUBMITTER_UID, "")
    assert Path(job.shown["cwd"]) != lab.home / "beat"


@pytest.mark.parametrize(
    ("arguments", "code"),
    {
        "success": ((), 0),
        "failure": (("--exit", "3"), 3),
        "the greatest code": (("--exit", "255"), 255),
        "killed by itself": (("--die", str(int(signal.SIGKILL))), 128 + signal.SIGKILL),
        "crashed": (("--die", str(int(signal.SIGSEGV))), 128 + signal.SIGSEGV),
    }.values(),
    ids=lambda value: str(value).replace(" ", ""),
)
def test_the_exit_code_is_the_jobs_own(lab: BeatLab, arguments: tuple[str, ...], code: int) -> None:
    ending = lab.beat("--seconds", "0.05", *arguments).end()
    assert (ending["code"], ending["event"]) == (code, "finished")


def test_signals_are_passed_on(lab: BeatLab) -> None:
    job = lab.beat().wait_beat()
    for number in (signal.SIGUSR1, signal.SIGINT):
        job.signal(number)
        job.program.wait_line(f"signal {int(number)}", 10)
    job.signal(signal.SIGTERM)
    assert job.end()["code"] == 0


def test_nothing_of_a_job_is_left(lab: BeatLab) -> None:
    job = lab.beat("--escape", "--seconds", "30").wait_beat()
    group = lab.cgroup_of(job.grant or "")
    assert len(processes_below(group)) == 3  # init, the job, and what escaped from its session
    job.signal()
    assert job.end()["code"] == 0
    assert len(job.beats("escaped")) > 0
    assert not group.exists()
    assert not list((lab.agent_dir / "jobs").glob(f"{job.grant}/code"))


def test_every_step_is_in_the_log(lab: BeatLab) -> None:
    ledger = Ledger(lab)
    job = lab.beat("--seconds", "0.05")
    ending = job.end()
    assert ending["code"] == 0, ending
    assert ledger.look() == []
    mine = [record for record in ledger.records if record.job == bytes.fromhex(ending["grant"])]
    assert [(r.kind, r.outcome) for r in mine] == [("decision", "allow"), ("lease", "issued"), ("report", "ended")]
    assert ledger.records[ending["receipt"]] == mine[0]
    assert mine[2].detail == "exit 0, leases 1, cgroup empty: True"


def test_jobs_run_beside_each_other(lab: BeatLab) -> None:
    jobs = [lab.beat("--seconds", "0.3", "--exit", str(number), name=f"beside-{number}") for number in range(4)]
    endings = [job.end() for job in jobs]
    assert [ending["code"] for ending in endings] == [0, 1, 2, 3], endings
    assert len({job.grant for job in jobs}) == 4
