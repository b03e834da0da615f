"""The journal: what the agent must remember across its own death."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.journal import Journal, Run
from attestation.errors import Untrusted

CTI, OTHER = b"c" * 16, b"d" * 16
RUN = Run(CTI, "digits", 1000, b"t" * 32, ("a.pt", "b/c.pt"), 100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_a_grant_is_burned_once(path: Path) -> None:
    journal = Journal(path)
    assert CTI not in journal
    journal.burn(RUN)
    assert CTI in journal
    assert OTHER not in journal
    with pytest.raises(Untrusted) as refused:
        journal.burn(RUN)
    assert refused.value.reason == "grant.replayed"
    journal.close()


def test_only_one_of_many_threads_burns_a_grant(path: Path) -> None:
    journal = Journal(path)
    burned, refused = [], []

    def burn() -> None:
        try:
            journal.burn(RUN)
            burned.append(1)
        except Untrusted:
            refused.append(1)

    threads = [threading.Thread(target=burn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(burned), len(refused)) == (1, 7)
    journal.close()


def test_a_burned_grant_stays_burned_after_a_kill(path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from agent.journal import Journal, Run\n"
        f"Journal(Path(sys.argv[1])).burn(Run({CTI!r}, 'j', 1, bytes(32), (), 1)); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == -9
    journal = Journal(path)
    assert CTI in journal
    assert [run.cti for run in journal.unfinished()] == [CTI]
    journal.close()


def test_runs_without_a_report_are_unfinished(path: Path) -> None:
    journal = Journal(path)
    journal.burn(RUN)
    journal.burn(Run(OTHER, "later", 1000, b"t" * 32, (), 50))
    journal.leased(CTI, 7)
    later, first = journal.unfinished()
    assert (later.cti, later.outputs) == (OTHER, ())
    assert first == Run(CTI, "digits", 1000, b"t" * 32, ("a.pt", "b/c.pt"), 100, 7)
    journal.finish(CTI, b"report")
    assert [run.cti for run in journal.unfinished()] == [OTHER]
    journal.sign(CTI, b"token")
    assert [run.cti for run in journal.unfinished()] == [OTHER]
    journal.close()


def test_a_report_is_undelivered_until_there_is_a_receipt(path: Path) -> None:
    journal = Journal(path)
    journal.burn(RUN)
    assert journal.undelivered() == []
    journal.finish(CTI, b"report")
    journal.finish(CTI, b"another")  # the first report stands
    assert (journal.unsigned(), journal.undelivered()) == ([(CTI, b"report")], [])
    journal.sign(CTI, b"token")
    journal.sign(CTI, b"another")  # the first signature stands
    journal.finish(CTI, b"later")
    assert (journal.unsigned(), journal.undelivered()) == ([], [(CTI, b"token")])
    journal.delivered(CTI, b"receipt")
    assert journal.undelivered() == []
    journal.close()


def test_endings_are_shown_to_their_owner_and_to_root(path: Path) -> None:
    journal = Journal(path)
    journal.ended(CTI, "digits", 1000, 1, b"first")
    journal.ended(OTHER, "digits", 1000, 2, b"second")
    journal.ended(None, "early", 1000, 3, b"third")
    journal.ended(None, "early", 1001, 4, b"not yours")
    assert journal.explain("digits", 1000) == b"second"
    assert journal.explain(CTI.hex(), 1000) == b"first"
    assert journal.explain(CTI.hex(), 0) == b"first"
    assert journal.explain(CTI.hex(), 1001) is None
    assert journal.explain("early", 1000) == b"third"
    assert journal.explain("g" * 32, 1000) is None
    journal.close()


def test_the_file_is_private_and_no_link(path: Path) -> None:
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        Journal(link)
