"""``./dev evidence gpu`` on the genuine cases, on cases it has never seen, and on statements that are not true."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import vectors
from tools.evidence import changes, gpu, mutations, show, words
from tools.evidence.__main__ import main
from tools.evidence.case import Unreadable, read_cases, read_roots
from tools.evidence.genuine import read_targets
from tools.evidence.show import AGREE, DISAGREE, NOT_COMPARED, Row

EVIDENCE = "evidence/gpu"


def table(folder: Path) -> list[Row]:
    roots = read_roots(folder)
    return [row for case in read_cases(folder) for row in gpu.rows(case, roots)]


def find(rows: list[Row], check: str) -> Row:
    (found,) = [row for row in rows if row.check == check]
    return found


def genuine(beginning: str) -> Path:
    (found,) = vectors.path(EVIDENCE).glob(f"{beginning}*")
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """A directory with one genuine case under a new name, its case.json edited."""

    def make(beginning: str, edit: Callable[[dict[str, Any]], object] = lambda stated: None) -> Path:
        case = tmp_path / "cases" / "x"
        shutil.copytree(genuine(beginning), case)
        shutil.copytree(vectors.path(EVIDENCE) / "roots", case.parent / "roots", dirs_exist_ok=True)
        for path in [case, *case.rglob("*")]:
            path.chmod(0o755)
        stated = json.loads((case / "case.json").read_text())
        edit(stated)
        (case / "case.json").write_text(json.dumps(stated))
        return case

    return make


# --- the genuine cases -----------------------------------------------------------------------------------------------


def test_everything_stated_about_the_genuine_cases_is_found() -> None:
    rows = table(vectors.path(EVIDENCE))
    assert [row for row in rows if row.agree == DISAGREE] == []
    assert len({row.case for row in rows}) == len(list(vectors.path(EVIDENCE).glob("*/case.json")))


def test_nothing_stated_about_the_evidence_itself_is_left_uncompared() -> None:
    rows = table(vectors.path(EVIDENCE))
    assert {row.check.partition(".")[0] for row in rows if row.agree == NOT_COMPARED} <= {"nras"}


def test_the_verdict_of_nvidias_service_agrees_claim_by_claim() -> None:
    rows = [
        row for row in table(vectors.path(EVIDENCE)) if row.case.startswith("G01") and row.check.startswith("nras.")
    ]
    token = {f"nras.{name}" for name in ("iss", "iat", "nbf", "exp", "jti")}
    assert {row.check for row in rows if row.agree != AGREE} == token
    assert len(rows) == 43


# --- cases never seen, and statements that are not true --------------------------------------------------------------


UNTRUE: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "a number of the report": ("G01", lambda s: s.update(L2=421), "L2"),
    "a version": ("G01", lambda s: s.update(driver_version="550.90.08"), "driver_version"),
    "the nonce": ("G01", lambda s: s.update(nonce="00" * 32), "expected.nonce"),
    "the signature": ("G01", lambda s: s["expected"].update(report_signature="INVALID"), "expected.report_signature"),
    "the signature, as a field": ("N01", lambda s: s.update(report_signature_valid=True), "report_signature_valid"),
    "the chain": ("N02", lambda s: s["expected"].update(device_chain="valid"), "expected.device_chain"),
    "a link": ("N02", lambda s: s.update(chain_links_valid=[True, True, True]), "chain_links_valid"),
    "the name of the device": ("G03", lambda s: s.update(device_san="NVIDIA:GB100:00"), "device_san"),
    "the firmware": ("G01", lambda s: s["expected"].update(fwid="mismatch"), "expected.fwid"),
    "a RIM that is refused": (
        "G06",
        lambda s: s["expected"].update(driver_rim_tampered="valid"),
        "expected.driver_rim_tampered",
    ),
    "a RIM that is believed": ("G01", lambda s: s["expected"].update(driver_rim="expired"), "expected.driver_rim"),
    "its signature": (
        "G06",
        lambda s: s["rims"]["driver_rim_tampered"].update(xmldsig=True),
        "rims.driver_rim_tampered.xmldsig",
    ),
    "indices that differ": (
        "G06",
        lambda s: s["rims"]["vbios_rim_republished"].update(mismatched_indices=[]),
        "rims.vbios_rim_republished.mismatched_indices",
    ),
    "the measurements": (
        "G01",
        lambda s: s["expected"].update(measurements="index 9 mismatch"),
        "expected.measurements",
    ),
    "how many match": ("G04", lambda s: s["expected"].update(measurements="all 30 match"), "expected.measurements"),
    "a status of revocation": ("G01", lambda s: s["expected"].update(ocsp="all 7 REVOKED"), "ocsp.gpu_certificate_l2"),
    "how many answers": ("G01", lambda s: s["expected"].update(ocsp="all 8 GOOD"), "expected.ocsp"),
    "the feature flag": ("G08", lambda s: s["expected"].update(feature_flag="SPT"), "expected.feature_flag"),
    "a device of a set": ("G07", lambda s: s["gpus"][3].update(leaf_serial="1"), "gpus[3].leaf_serial"),
    "the topology": ("G07", lambda s: s["expected"].update(topology="one switch differs"), "expected.topology"),
    "a verdict that fails": ("G01", lambda s: s["expected"].update(overall="FAIL"), "overall"),
    "a verdict that passes": ("N01", lambda s: s["expected"].update(overall="PASS"), "overall"),
    "what a failure is blamed on": ("N01", lambda s: s["expected"].update(overall="FAIL: chain"), "overall"),
    "the time": ("G01", lambda s: s.update(evaluate_at="2027-01-01T00:00:00Z"), "overall"),
}


@pytest.mark.parametrize("name", UNTRUE)
def test_a_statement_that_is_not_true_is_found(name: str, copy: Callable[..., Path]) -> None:
    beginning, edit, check = UNTRUE[name]
    case = copy(beginning, edit)
    assert find(table(case.parent), check).agree == DISAGREE


def test_a_case_under_another_name_gives_the_same_table(copy: Callable[..., Path]) -> None:
    def told(rows: list[Row]) -> list[tuple[str, str, str]]:
        return [(row.check, row.expected, row.agree) for row in rows]

    roots = read_roots(vectors.path(EVIDENCE))
    (original,) = [case for case in read_cases(vectors.path(EVIDENCE)) if case.name.startswith("G06")]
    assert told(table(copy("G06").parent)) == told(gpu.rows(original, roots))


def test_a_changed_report_no_longer_gives_what_is_stated(copy: Callable[..., Path]) -> None:
    case = copy("G01")
    report = bytearray((case / "report.bin").read_bytes())
    report[100] ^= 1
    (case / "report.bin").write_bytes(report)
    rows = table(case.parent)
    assert {row.check for row in rows if row.agree == DISAGREE} >= {"report_signature_valid", "overall"}


def test_a_new_case_of_a_failure_with_words_alone(copy: Callable[..., Path]) -> None:
    case = copy("G03")
    report = (case / "report.bin").read_bytes()
    (case / "report.bin").write_bytes(report + b"\0")
    words_alone = {"expected": {"parse": "malformed: a trailing byte", "overall": "FAIL: it does not parse"}}
    (case / "case.json").write_text(json.dumps(words_alone))
    rows = table(case.parent)
    assert [row.agree for row in rows] == [AGREE] * 3
    assert find(rows, "overall").observed == "FAIL: gpu.report (gpu.report.trailing)"


def test_a_set_with_a_device_twice_fails_by_count_of_what_is_unique(copy: Callable[..., Path]) -> None:
    case = copy("G07", lambda stated: stated["expected"].update(overall="FAIL: duplicate device"))
    devices = json.loads((case / "gpu_evidence.json").read_text())
    devices[5] = devices[2]
    (case / "gpu_evidence.json").write_text(json.dumps(devices))
    found = find(table(case.parent), "overall")
    assert (found.agree, found.observed) == (AGREE, "FAIL: gpus.unique (gpus.duplicate)")


def test_a_nonce_that_was_asked_with_by_itself(copy: Callable[..., Path]) -> None:
    def edit(stated: dict[str, Any]) -> None:
        stated.update(requested_nonce="11" * 32, expected={"nonce": "mismatch", "overall": "FAIL: nonce"})

    rows = table(copy("G03", edit).parent)
    assert {row.agree for row in rows} == {AGREE}
    assert find(rows, "overall").observed == "FAIL: gpu.nonce (gpu.nonce)"


def test_a_system_that_lacks_a_gpu(copy: Callable[..., Path]) -> None:
    case = copy("G07", lambda stated: stated.update(expected={"overall": "FAIL as an 8+4 system: count"}))
    stated = json.loads((case / "case.json").read_text())
    devices = json.loads((case / "gpu_evidence.json").read_text())
    del devices[3], stated["gpus"][3]
    (case / "gpu_evidence.json").write_text(json.dumps(devices))
    (case / "case.json").write_text(json.dumps(stated))
    assert find(table(case.parent), "overall").agree == AGREE


def test_answers_that_have_run_out_and_a_policy_that_wants_current_ones(copy: Callable[..., Path]) -> None:
    def edit(stated: dict[str, Any]) -> None:
        stated.update(evaluate_at="2025-10-30T00:00:00Z")
        stated["expected"].update(ocsp="stale", overall="FAIL: revocation, every answer is stale")

    rows = table(copy("G01", edit).parent)
    judged = [row for row in rows if row.check.startswith(("ocsp.", "overall", "expected.ocsp"))]
    assert [row.agree for row in judged] == [AGREE] * 9


def test_what_is_stated_of_all_devices_of_a_set(copy: Callable[..., Path]) -> None:
    rows = table(copy("G07", lambda stated: stated.update(blocks=64)).parent)
    assert find(rows, "gpus[0].blocks (of all)").agree == AGREE
    assert find(rows, "switches[0].blocks (of all)").agree == DISAGREE


def test_a_directory_that_is_itself_a_case(copy: Callable[..., Path]) -> None:
    case = copy("G08")
    assert {row.case for row in table(case)} == {"x"}


def test_a_set_in_the_form_that_nvidias_service_takes(copy: Callable[..., Path]) -> None:
    case = copy("G03")
    parts = {
        name: base64.b64encode((case / file).read_bytes()).decode()
        for name, file in (("evidence", "report.bin"), ("certificate", "chain.pem"))
    }
    (case / "report.bin").unlink()
    (case / "chain.pem").unlink()
    nonce = json.loads((case / "case.json").read_text())["nonce"]
    (case / "gpu_evidence.json").write_text(json.dumps({"evidence_list": [{**parts, "nonce": nonce}]}))
    (case / "case.json").write_text(json.dumps({"expected": {"nonce": "match", "overall": "PASS without RIMs"}}))
    assert [row.agree for row in table(case.parent)] == [AGREE] * 3


def test_what_is_not_understood_is_counted(copy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    def edit(stated: dict[str, Any]) -> None:
        stated.update(colour="green")
        stated["expected"].update(smell="none", fwid="purple", parse="perhaps", overall="hm")
        stated["rims"] = {"no_such_rim": {"active": 1}}

    case = copy("G08", edit)
    rows = table(case.parent)
    uncompared = {"colour", "rims.no_such_rim", "expected.smell", "expected.fwid", "expected.parse", "overall"}
    assert {row.check for row in rows if row.agree == NOT_COMPARED} == uncompared
    assert main(["gpu", "--dir", str(case.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["not_compared"] == len(uncompared)


def test_exit_statuses(copy: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = copy("G08", lambda stated: stated.update(blocks=63))
    assert main(["gpu", "--dir", str(case.parent)]) == 1
    assert "1 disagree" in capsys.readouterr().out
    (case / "case.json").write_text("{")
    assert main(["gpu", "--dir", str(case.parent)]) == 2
    assert main(["gpu", "--dir", str(tmp_path / "nothing")]) == 2


def test_without_roots_beside_the_cases_the_products_own_count(copy: Callable[..., Path]) -> None:
    case = copy("G08")
    shutil.rmtree(case.parent / "roots")
    roots = read_roots(case.parent)
    assert {anchor.assurance for anchor in (*roots.device, *roots.rim)} == {"hardware"}
    assert find(table(case.parent), "overall").agree == AGREE


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("valid", True),
        ("valid to NVIDIA device root", True),
        ("INVALID (first certificate is the BROM CA)", False),
        ("not valid", False),
        ("BROKEN (provisioner/identity gap)", False),
        ("looks valid -> reject", False),
        ("odd -> accepted", True),
        ("mismatch", False),
        ("match", True),
        ("violet", None),
    ],
)
def test_whether_a_check_is_said_to_hold(text: str, holds: bool | None) -> None:
    assert words.holds(text) is holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("valid at evaluate_at", (True, None)),
        ("genuine (2023-06): all 12 match", (True, ())),
        ("indices 9, 22 and 23 mismatch", (True, (9, 22, 23))),
        ("XML digest invalid -> must be rejected before its values are used", (False, None)),
        ("leaf valid one day only, issued under another CA, and XML digest invalid -> reject", (False, None)),
        ("expired", (False, None)),
        ("signature invalid", (False, None)),
        ("chain broken", (False, None)),
        ("not yet valid", (False, None)),
    ],
)
def test_what_is_said_about_a_rim(text: str, said: tuple[bool, tuple[int, ...] | None]) -> None:
    found = words.rim(text)
    assert found is not None
    assert (found.believed, found.mismatching) == said


def test_folded_rows_show_a_set_once_and_a_disagreement_always() -> None:
    rows = [show.row("c", f"gpus[{n}].blocks", 64, 64 if n != 2 else 63) for n in range(4)]
    assert [row.check for row in show.folded(rows)] == ["gpus[all 3].blocks", "gpus[2].blocks"]


# --- random changes --------------------------------------------------------------------------------------------------


def test_random_changes_are_refused_or_mean_the_same() -> None:
    """A short run; ``./dev evidence gpu --mutate 200000`` is the long one."""
    found = mutations.tally("gpu", "test", range(2000), vectors.path(EVIDENCE))
    assert found.violations == []
    assert found.total(mutations.REFUSED) > 1800
    assert found.total(mutations.NEUTRAL) > 0
    assert found.whole == 2000 // mutations.WHOLE


def test_a_change_comes_again_from_its_seed_and_number() -> None:
    targets = read_targets(vectors.path(EVIDENCE))
    made = [changes.change("seed", number, targets)[1:] for number in (7, 7, 8)]
    assert made[0] == made[1] != made[2]


NEUTRAL: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "line ends of the PEM text": ("chain", lambda data: data.replace(b"\n", b"\r\n")),
    "a line end after the last certificate": ("chain", lambda data: data + b"\n"),
    "the root left out, of which the pinned copy counts": ("chain", lambda data: data[: data.rindex(b"-----BEGIN")]),
    "white space inside the tags of a RIM": ("driver_rim", lambda data: data.replace(b'" active=', b'"  active=')),
    "quotes of attributes": ("driver_rim", lambda data: data.replace(b'type="Measurement"', b"type='Measurement'")),
    "the order of attributes": (
        "driver_rim",
        lambda data: data.replace(b'type="Measurement" index="7"', b'index="7" type="Measurement"'),
    ),
}
MEANT: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "white space between the elements of a RIM": ("driver_rim", lambda data: data.replace(b">\n", b"> \n", 1)),
    "the leaf left out": ("chain", lambda data: data[data.index(b"-----BEGIN", 1) :]),
    "a value of a RIM": ("driver_rim", lambda data: data.replace(b'Hash0="0', b'Hash0="1', 1)),
    "white space in the PEM text": ("chain", lambda data: data.replace(b"\n", b"\n\n", 1)),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_changes_of_form_give_the_same_result(name: str) -> None:
    file, edit = NEUTRAL[name]
    (target,) = [t for t in read_targets(vectors.path(EVIDENCE)) if t.case.startswith("G01") and t.name == file]
    changed = edit(target.data)
    assert changed != target.data
    assert target.verify(changed) == target.verify(target.data)
    assert target.appraise(changed)


@pytest.mark.parametrize("name", MEANT)
def test_changes_of_form_that_a_strict_reader_refuses(name: str) -> None:
    file, edit = MEANT[name]
    (target,) = [t for t in read_targets(vectors.path(EVIDENCE)) if t.case.startswith("G01") and t.name == file]
    assert not target.appraise(edit(target.data))


def test_the_campaign_sees_a_verifier_that_accepts_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told that another result is the genuine one, it calls what is accepted a violation."""
    folder = vectors.path(EVIDENCE)
    targets, _ = mutations._targets("gpu", folder)
    wrong = (targets, dict.fromkeys((target.label for target in targets), object()))
    monkeypatch.setattr(mutations, "_targets", lambda _source, _folder: wrong)
    neutral = next(n for n in range(2000) if changes.change("test", n, targets)[2] == "space")
    outcomes = {mutations.judge("gpu", "test", number, folder)[0].outcome for number in range(neutral, 2000)}
    assert mutations.VIOLATION in outcomes


def test_a_directory_without_the_cases_to_change_is_an_error(copy: Callable[..., Path]) -> None:
    with pytest.raises(Unreadable, match="none of the cases"):
        read_targets(copy("G08").parent)
