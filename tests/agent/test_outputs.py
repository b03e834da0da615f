"""agent.outputs: what a job leaves behind can be reported, whatever it is called."""

from dataclasses import replace
from pathlib import Path

from agent.outputs import MOST_NAME, Outputs
from attestation.report import Report
from tests.attestation.examples import REPORT


def test_a_name_that_no_report_can_hold_is_no_output(tmp_path: Path) -> None:
    """Else a job could keep the report of its own end out of the log."""
    fits = "a/" + "b" * (MOST_NAME - 4 - 200) + "/" + "c" * 201
    assert len(fits) == MOST_NAME
    for name in (fits, fits + "d", "a/line\nbreak"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    outputs = Outputs(tmp_path, ("a",))
    found = outputs.measure(0, hard=False)
    outputs.close()
    assert set(found) == {fits}
    assert Report.from_bytes(replace(REPORT, outputs=found).to_bytes()).outputs == found
