"""``./dev evidence tpm``: the genuine directory, evidence it has never seen, and statements that are not true."""

import base64
import json
import os
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fixtures.attester import SoftTpm
from fixtures.ca import TestCa
from tests import vectors
from tools.evidence import manifest, presented, quotes, show, tpm
from tools.evidence.__main__ import main
from tools.evidence.case import Unreadable
from tools.evidence.manifest import Entry, read_manifest
from tools.evidence.show import AGREE, DISAGREE, NOT_APPLICABLE, NOT_COMPARED, Row

EVIDENCE = "evidence/tpm"


@pytest.fixture(scope="module")
def genuine() -> list[Row]:
    return tpm.table(vectors.path(EVIDENCE))


def listed(kind: str, words: str = "") -> dict[str, Any]:
    """The first genuine entry of this kind whose words have these."""
    rows = json.loads((vectors.path(EVIDENCE) / "manifest.json").read_text())
    found: dict[str, Any] = next(row for row in rows if row["kind"] == kind and words in row["expect"])
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Callable[..., Path]:
    """A directory of one entry under another name, and of all roots; its statements edited."""

    def make(entry: dict[str, Any], data: bytes | None = None, *, roots: bool = False, **changes: Any) -> Path:
        folder = vectors.path(EVIDENCE)
        rows = [entry | {"file": f"{entry['kind']}/x"} | changes]
        content = (folder / entry["file"]).read_bytes() if data is None else data
        rows[0]["sha256"] = changes.get("sha256", sha256(content).hexdigest())
        place = tmp_path / rows[0]["file"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        if roots:
            rows += [
                row for row in json.loads((folder / "manifest.json").read_text()) if row["kind"].startswith("roots")
            ]
            (tmp_path / "roots").symlink_to(folder / "roots")
        (tmp_path / "manifest.json").write_text(json.dumps(rows))
        return tmp_path

    return make


def wrong(folder: Path) -> list[str]:
    return [row.check for row in tpm.table(folder) if row.agree == DISAGREE]


# --- the genuine directory -------------------------------------------------------------------------------------------


def test_nothing_stated_of_the_genuine_evidence_is_contradicted(genuine: list[Row]) -> None:
    assert [row for row in genuine if row.agree == DISAGREE] == []


def test_every_file_of_the_manifest_has_its_rows(genuine: list[Row]) -> None:
    rows = json.loads((vectors.path(EVIDENCE) / "manifest.json").read_text())
    assert {row["file"] for row in rows} <= {row.case for row in genuine}
    assert any(row.case.startswith("vm/") for row in genuine)


def test_what_is_not_compared_says_why(genuine: list[Row]) -> None:
    """Two statements that PCR values beside them refute, and a quote whose key nobody recorded."""
    left = {(row.check, row.observed.split(" ")[0]) for row in genuine if row.agree == NOT_COMPARED}
    assert left == {("efi_app_digests.sha256", "stated"), ("secure boot", "off"), ("pat.verdict", "no")}


def test_evidence_of_cpus_is_shown_and_counted_by_itself(genuine: list[Row]) -> None:
    apart = {row.case.partition("/")[0] for row in genuine if row.agree == NOT_APPLICABLE}
    assert apart == {"snp", "tdx", "quotes"}
    assert show.counts(genuine)[NOT_APPLICABLE] == sum(row.agree == NOT_APPLICABLE for row in genuine)


def test_every_case_that_is_looked_at_is_measured(genuine: list[Row]) -> None:
    measured = {row.case for row in genuine if row.check == "cost"}
    assert measured == {row.case for row in genuine if not row.case.startswith(("snp/", "tdx/"))}


def test_the_command_tells_how_it_went(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tpm", "--json", "--dir", str(vectors.path(EVIDENCE))]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["disagree"] == 0
    assert told["summary"]["cases"] > 100
    assert main(["tpm", "--dir", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"kind": "ima"}]', '{"a": 1}'])
def test_a_manifest_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Unreadable):
        read_manifest(tmp_path)


# --- evidence never seen before --------------------------------------------------------------------------------------

LOG = ("eventlogs", "Secure Boot on, GRUB+shim")
LIST = ("ima", "826 ima-ng")
QUOTE = ("quotes", "bincode")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        LOG,
        LIST,
        ("eventlogs", "CCEL (MR index"),
        ("eventlogs", "ACPI CCEL"),
        ("eventlogs", "REJECT: not an event log"),
        ("eventlogs", "forgot to log"),
        ("ima", "Violation"),
        ("ima", "stray"),
        ("ima", "independent"),
        ("quotes", "attest.Attestation"),
        ("quotes", "VCEK signs"),
        ("quotes", "unbound AK"),
        ("quotes", "'kat' is"),
        ("quotes", "Windows Hello"),
        ("ekcerts", "Nuvoton"),
        ("ekcerts", "1600-byte"),
        ("ekcerts", "treated as AK"),
        ("roots", "143"),
        ("snp", "VCEK"),
    ],
)
def test_evidence_under_another_name_agrees(kind: str, words: str, directory: Callable[..., Path]) -> None:
    rows = tpm.table(directory(listed(kind, words), roots=kind != "roots"))
    assert [row for row in rows if row.agree == DISAGREE] == []
    assert {row.agree for row in rows if row.case == f"{kind}/x"} & {AGREE, NOT_APPLICABLE}


def test_a_manifest_may_be_a_map(directory: Callable[..., Path]) -> None:
    folder = directory(listed(*LIST))
    rows = json.loads((folder / "manifest.json").read_text())
    del rows[0]["kind"], rows[0]["size"]
    (folder / "manifest.json").write_text(json.dumps({"files": rows}))
    assert wrong(folder) == []


def test_a_kind_that_is_not_known_is_shown(directory: Callable[..., Path]) -> None:
    (_, row, _) = tpm.table(directory(listed(*LIST), kind="photographs"))
    assert (row.check, row.agree) == ("kind", NOT_COMPARED)


def test_a_new_log_without_words_is_shown(directory: Callable[..., Path]) -> None:
    rows = tpm.table(directory(listed(*LOG), expect="A machine.", expected={"events": 83, "colour": "red"}))
    assert {row.check: row.agree for row in rows} == {
        "sha256": AGREE,
        "verdict": NOT_COMPARED,
        "events": AGREE,
        "colour": NOT_COMPARED,
        "cost": AGREE,
    }


# --- statements that are not true ------------------------------------------------------------------------------------


def expected(kind: tuple[str, str], **changes: Any) -> dict[str, Any]:
    entry = listed(*kind)
    return entry | {"expected": entry["expected"] | changes}


UNTRUE: dict[str, tuple[Callable[[], dict[str, Any]], list[str]]] = {
    "another file": (lambda: listed(*LOG) | {"sha256": "00" * 32}, ["sha256"]),
    "a log that parses": (lambda: listed(*LOG) | {"expect": "REJECT: made up."}, ["verdict"]),
    "a log that does not": (
        lambda: listed("eventlogs", "REJECT: not an event log") | {"expect": "PARSES."},
        ["verdict"],
    ),
    "events": (lambda: expected(LOG, events=84), ["events"]),
    "padding": (lambda: expected(LOG, padding=1), ["padding"]),
    "locality": (lambda: expected(LOG, startup_locality=3), ["startup_locality"]),
    "format": (lambda: expected(LOG, format="tcg1.2-sha1"), ["format"]),
    "algorithms": (lambda: expected(LOG, algs=[4]), ["algs"]),
    "a register": (lambda: expected(LOG, replayed_pcrs={"sha256": {"0": "00" * 32}}), ["replayed_pcrs.sha256"]),
    "too few registers": (lambda: expected(LOG, replayed_pcrs={"sha256": {}}), ["replayed_pcrs.sha256"]),
    "a bank": (lambda: expected(LOG, replayed_pcrs={"sha512": {"0": ""}}), ["replayed_pcrs.sha512"]),
    "an application": (
        lambda: expected(LOG, efi_app_digests={"sha1": []}, known_pcrs={}),
        ["efi_app_digests.sha1"],
    ),
    "digests of data": (
        lambda: expected(LOG, digest_equals_hash_of_event_data={"GPT": "0/1"}),
        ["digest_equals_hash_of_event_data"],
    ),
    "a known register": (
        lambda: expected(LOG, known_pcrs={"sha256": {"0": "00" * 32}}),
        ["known_pcrs.sha256", "replay_matches_known"],
    ),
    "secure boot": (
        lambda: listed(*LOG) | {"expect": "PARSES. Secure Boot off.", "expected": {}},
        ["secure boot"],
    ),
    "entries": (lambda: expected(LIST, n=827), ["n"]),
    "templates": (lambda: expected(LIST, templates={"ima": 826}), ["templates"]),
    "mismatches": (lambda: expected(LIST, template_digest_mismatch=1), ["template_digest_mismatch"]),
    "violations": (lambda: expected(LIST, violations=1), ["violations"]),
    "PCR 10": (lambda: expected(LIST, pcr10_sha256="00" * 32), ["pcr10_sha256"]),
    "a violation": (lambda: listed(*LIST) | {"expect": "DENY unless policy allows violations."}, ["verdict"]),
    "an aggregate": (lambda: listed(*LIST) | {"expect": "boot_aggregate must equal the log's."}, ["boot_aggregate"]),
    "a list that reads": (lambda: listed(*LIST) | {"expect": "REJECT"}, ["verdict"]),
    "a quote": (lambda: listed("quotes", "unbound AK") | {"expect": "REJECT"}, ["verdict"]),
    "a nonce": (lambda: listed("quotes", "VCEK signs") | {"expect": "VERIFIES; nonce 'other'."}, ["nonce"]),
    "a nonce in hexadecimal": (
        lambda: listed("quotes", "VCEK signs") | {"expect": "VERIFIES; extraData=00."},
        ["nonce"],
    ),
    "an empty nonce": (lambda: listed("quotes", "VCEK signs") | {"expect": "VERIFIES. Empty nonce."}, ["nonce"]),
    "a selection": (lambda: listed("quotes", "VCEK signs") | {"expect": "VERIFIES: sha256 PCR 1,2."}, ["selection"]),
    "a quote that is one": (
        lambda: listed("quotes", "Windows Hello") | {"expect": "TPM_ST_ATTEST_QUOTE"},
        ["type"],
    ),
    "an EK": (lambda: listed("ekcerts", "treated as AK") | {"expect": "VERIFIES"}, ["verdict"]),
    "no EK": (lambda: listed("ekcerts", "1600-byte") | {"expect": "REJECT"}, ["verdict"]),
    "a path": (lambda: listed("ekcerts", "Nuvoton") | {"expect": "VERIFIES -> Infineon root."}, ["path"]),
    "a manufacturer": (
        lambda: listed("ekcerts", "474F4F47") | {"expect": "VERIFIES: id:49465800."},
        ["manufacturer"],
    ),
    "how many roots": (lambda: listed("roots", "143") | {"expect": "144 intermediates."}, ["certificates"]),
}


@pytest.mark.parametrize("name", UNTRUE)
def test_an_untrue_statement_is_found(name: str, directory: Callable[..., Path]) -> None:
    make, checks = UNTRUE[name]
    entry = make()
    changes = {"sha256": entry["sha256"]} if name == "another file" else {}
    found = [check for check in wrong(directory(entry, roots=entry["kind"] == "ekcerts", **changes)) if check != "cost"]
    assert found == checks


def test_one_disagreement_is_told(directory: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tpm", "--dir", str(directory(expected(LOG, events=84)))]) == 1
    assert "1 disagree" in capsys.readouterr().out


# --- evidence that is broken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LOG, LIST, QUOTE, ("ekcerts", "1600-byte"), ("roots", "143")])
@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 64, b"\x30\x82\x00"])
def test_broken_evidence_is_refused_and_said_to_be(
    kind: tuple[str, str], data: bytes, directory: Callable[..., Path]
) -> None:
    """An empty list of measurements is one, and noughts are a log without events; all else is not what it is said."""
    if (kind, data) in ((LIST, b""), (LOG, bytes(64))):
        return
    assert wrong(directory(listed(*kind) | {"expected": {}, "expect": "REJECT: broken."}, data)) == []
    assert "verdict" in wrong(directory(listed(*kind) | {"expected": {}, "expect": "VERIFIES; PARSES."}, data))


def test_what_reads_and_proves_nothing_is_refused(directory: Callable[..., Path]) -> None:
    """A log of another boot, a list with a changed entry, an answer to another question."""
    log, entries = listed(*LOG), listed(*LIST)
    known = {"sha256": log["expected"]["known_pcrs"]["sha256"] | {"4": "00" * 32}}
    assert wrong(directory(log, expect="REJECT: another boot.", expected={"known_pcrs": known})) == []
    assert wrong(directory(log, expect="REJECT: made up.")) == ["verdict"]
    data = (vectors.path(EVIDENCE) / entries["file"]).read_bytes().replace(b"/usr/bin/", b"/usr/sin/", 1)
    assert wrong(directory(entries, data, expect="Spoilt; must be REJECTED.", expected={})) == []
    assert wrong(directory(entries, data, expect="PARSES.", expected={})) == ["verdict"]
    quote = listed("quotes", "VCEK signs")
    assert wrong(directory(quote, expect="REJECT: asked for nonce 'other'.")) == []
    assert wrong(directory(quote, expect="REJECT: extraData=00.")) == []
    assert wrong(directory(quote, expect="REJECT: nonce 'challenge'.")) == ["verdict"]


def test_a_quote_with_another_signature_is_refused(directory: Callable[..., Path]) -> None:
    entry = listed("quotes", "unbound AK")
    shown = json.loads((vectors.path(EVIDENCE) / entry["file"]).read_bytes())
    signature = base64.b64decode(shown["tpm_quote"]["signature"])
    shown["tpm_quote"]["signature"] = base64.b64encode(signature[:-1] + bytes([signature[-1] ^ 1])).decode()
    folder = directory(entry | {"expect": "REJECT: forged."}, json.dumps(shown).encode())
    assert wrong(folder) == []
    (row,) = [row for row in tpm.table(folder) if row.check == "verdict"]
    assert row.observed == "tpm.quote.signature"


@pytest.mark.parametrize(("at", "reason"), [(0, "tpm.quote.magic"), (5, "tpm.quote.type")])
def test_what_is_no_quote_is_refused(at: int, reason: str, directory: Callable[..., Path]) -> None:
    """Magic or type of another's quote changed: bytes that no TPM made, another kind of attestation."""
    entry = listed("quotes", "unbound AK")
    shown = json.loads((vectors.path(EVIDENCE) / entry["file"]).read_bytes())
    message = bytearray(base64.b64decode(shown["tpm_quote"]["message"]))
    message[at] ^= 1
    shown["tpm_quote"]["message"] = base64.b64encode(message).decode()
    data = json.dumps(shown).encode()
    (row,) = [row for row in tpm.table(directory(entry, data, expect="REJECT")) if row.check == "verdict"]
    assert (row.observed, row.agree) == (reason, AGREE)
    assert wrong(directory(entry, data, expect="VERIFIES")) == ["verdict"]


def test_a_file_that_is_not_there_ends_its_case_alone(directory: Callable[..., Path]) -> None:
    folder = directory(listed(*LOG))
    (folder / "eventlogs" / "x").unlink()
    (row,) = tpm.table(folder)
    assert row.agree == DISAGREE
    assert "FileNotFoundError" in row.observed


def test_a_case_that_ends_the_process_is_a_disagreement(
    directory: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tpm, "look", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    (row,) = tpm.table(directory(listed(*LOG)))
    assert (row.agree, row.observed) == (DISAGREE, "crashed: SIGKILL")


@pytest.mark.parametrize("limit", ["MOST_SECONDS", "MOST_BYTES"])
def test_a_case_that_takes_too_much_is_a_disagreement(
    limit: str, directory: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tpm, limit, -(1 << 30))
    assert wrong(directory(listed(*LOG))) == ["cost"]


# --- the readers of quotes -------------------------------------------------------------------------------------------


def test_a_quote_in_files_of_its_own_is_put_together(directory: Callable[..., Path], tmp_path: Path) -> None:
    folder = vectors.path(EVIDENCE)
    rows = [row for row in json.loads((folder / "manifest.json").read_text()) if "/keylime-files" in row["kind"]]
    for number, row in enumerate(rows):
        (tmp_path / f"{number}").write_bytes((folder / row["file"]).read_bytes())
        row |= {"file": f"{number}", "kind": "quotes/apart"}
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    assert wrong(tmp_path) == []
    changed = (tmp_path / "2").read_bytes()
    (tmp_path / "2").write_bytes(changed[:-1] + bytes([changed[-1] ^ 1]))
    assert wrong(tmp_path).count("verdict") == len(rows)


def test_ecdsa_quotes_of_files_verify_and_what_was_changed_does_not() -> None:
    machine = SoftTpm(TestCa())
    made = machine.quote(bytes(32), 0x000B, (0, 7))
    found = quotes.Found("x", made.attest, made.signature, public=machine.ak.to_bytes())
    values = {pcr: machine.pcrs[0x000B][pcr] for pcr in (0, 7)}
    whole = quotes.Found("x", made.attest, made.signature, public=machine.ak.to_bytes(), values=values)
    for each in (found, whole):
        assert presented.verify_recorded(each).extra_data == bytes(32)
    other = quotes.Found("x", made.attest, made.signature, public=machine.ak.to_bytes(), values=values | {7: bytes(31)})
    with pytest.raises(Exception, match=r"tpm\.pcr\.digest"):
        presented.verify_recorded(other)


@pytest.mark.parametrize("data", [b"{}", b'{"tpm_quote": 1}', b"\x0a\xff", b"certInfo = (", b"\x00" * 9])
def test_a_container_that_is_broken_is_not_known(data: bytes) -> None:
    with pytest.raises(quotes.Unknown):
        quotes.read(data)


def test_the_words_that_ask_for_a_verdict() -> None:
    def verdict(words: str) -> str:
        return Entry("x", "ima", words, {}, Path("x")).verdict

    assert verdict("REJECT (truncated).") == verdict("  REJECT: x") == manifest.REJECT
    assert verdict("PARSES; x") == verdict("vTPM quote VERIFIES") == manifest.ACCEPT
    assert verdict("Empty nonce: REJECT if one was demanded") == verdict("") == ""
