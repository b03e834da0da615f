"""``./dev evidence tpm --mutate``: what is changed, how, and that the campaign sees what must not be accepted."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.errors import InterlockError
from attestation.tpm.boot import check, kinds, secure
from attestation.tpm.ima.measurements import read_list
from tests import vectors
from tools.evidence import changes_tpm, mutations
from tools.evidence.__main__ import main
from tools.evidence.believed import TOLD, Boot
from tools.evidence.case import Unreadable
from tools.evidence.genuine_tpm import read_targets, read_values, written
from tools.evidence.mutations import LESS, NEUTRAL, REFUSED, VIOLATION
from tools.evidence.target import Target

EVIDENCE = "evidence/tpm"


@pytest.fixture(scope="module")
def targets() -> list[Target]:
    return read_targets(vectors.path(EVIDENCE))


def find(targets: list[Target], kind: str, name: str = "", case: str = "") -> Target:
    return next(t for t in targets if t.kind == kind and name in t.name and case in t.case)


def test_random_changes_are_refused_or_mean_the_same() -> None:
    """A short run; ``./dev evidence tpm --mutate 200000`` is the long one."""
    found = mutations.tally("tpm", "test", range(4000), vectors.path(EVIDENCE))
    assert found.violations == []
    assert found.total(REFUSED) > 3000
    assert found.total(NEUTRAL) > 100
    assert found.whole == 4000 // mutations.WHOLE
    assert {kind for kind, _ in found.outcomes} == set(changes_tpm.WEIGHTS)


def test_there_is_something_of_every_kind(targets: list[Target]) -> None:
    counted = Counter(target.kind for target in targets)
    assert counted.keys() == changes_tpm.WEIGHTS.keys()
    assert min(counted.values()) >= 10
    assert all(b"".join(target.units) == target.data for target in targets if target.units)
    assert {read_list(target.data[8:]).form for target in targets if target.kind == "ima"} == {"ascii", "binary"}
    assert len({target.label for target in targets}) == len(targets)


def test_a_change_comes_again_from_its_seed_and_number(targets: list[Target]) -> None:
    made = [changes_tpm.change("seed", number, targets)[1:] for number in (7, 7, 8)]
    assert made[0] == made[1] != made[2]


def test_every_way_of_changing_is_used(targets: list[Target]) -> None:
    used = {name for n in range(3000) for name in changes_tpm.change("ways", n, targets)[2].split("+")}
    ways = (*changes_tpm.MOVES, *changes_tpm.LOG, *changes_tpm.BYTES, changes_tpm.line, changes_tpm.entry)
    assert used == {way.__name__ for way in (*ways, changes_tpm.begin)}


def test_padding_data_that_nothing_covers_and_unproven_entries_are_neutral(targets: list[Target]) -> None:
    log, entries = find(targets, "log", "sha256", "vm/"), find(targets, "ima", "binary from 0", "vm/")
    assert log.verify(log.data + b"\xff" * 64) == log.verify(log.data)
    assert entries.verify(entries.data + entries.units[-1]) == entries.verify(entries.data)
    image = find(targets, "ek", "image", "stm")
    assert image.verify(image.data + b"\xff" * 8) == image.verify(image.data)
    assert log.appraise(log.data + b"\xff" * 64)


def test_what_belongs_to_another_machine_is_refused(targets: list[Target]) -> None:
    mine, *others = (target for target in targets if target.kind == "log" and target.name == "sha256")
    assert len(others) > 10
    for other in others:
        with pytest.raises(InterlockError):
            mine.verify(other.data)


def test_a_quote_whose_values_are_gone_is_refused(targets: list[Target]) -> None:
    held = [target for target in targets if target.name.endswith(".values")]
    assert held
    for target in held:
        with pytest.raises(InterlockError, match=r"tpm\.pcr\.uncovered"):
            target.verify(b"")


def test_a_fact_of_a_list_that_is_missed_is_a_violation(targets: list[Target]) -> None:
    log = find(targets, "log", "sha256", "rhel8")
    genuine = log.verify(log.data)
    assert isinstance(genuine, Boot)
    for pcr, facts in genuine.facts.items():
        for number, fact in enumerate(facts):
            fewer = replace(genuine, facts={**genuine.facts, pcr: facts[:number] + facts[number + 1 :]})
            assert fewer.is_part_of(genuine) == (fact[0] in TOLD)
            more = replace(genuine, facts={**genuine.facts, pcr: (*facts, fact)})
            assert not more.is_part_of(genuine)
    assert not genuine.is_part_of(None)


def test_a_register_that_is_not_explained_any_more(targets: list[Target]) -> None:
    """One that the operating system extends as well is missed by who needs it; of any other there is no less."""
    log = find(targets, "log", "sha256", "glinux")
    genuine = log.verify(log.data)
    assert isinstance(genuine, Boot)
    for pcr in (4, 12):
        proof = replace(genuine.proof, pcrs=genuine.proof.pcrs - {pcr}, unproven=genuine.proof.unproven | {pcr})
        assert replace(genuine, proof=proof).is_part_of(genuine) == (pcr == 12)


def test_the_campaign_sees_an_authority_that_a_type_hides(
    targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rule taken away that everything in PCR 7 is explained, a change of type is enough, and is seen."""
    monkeypatch.setattr(secure, "_unproven", lambda *_: None)
    monkeypatch.setattr(check, "_authorities", lambda *_: None)
    log = find(targets, "log", "sha256", "rhel8")
    genuine = log.verify(log.data)
    hidden = [
        unit[:4] + kinds.VARIABLE_DRIVER_CONFIG.to_bytes(4, "little") + unit[8:]
        if unit[4:8] == kinds.VARIABLE_AUTHORITY.to_bytes(4, "little") and b"S\0h\0i\0m\0" in unit
        else unit
        for unit in log.units
    ]
    outcome, detail = mutations._of_file(log, b"".join(hidden), genuine)
    assert outcome == VIOLATION
    assert "facts" in detail


def test_the_campaign_sees_a_list_that_is_not_appraised(targets: list[Target]) -> None:
    entries = find(targets, "ima", "binary from 0", "vm/")
    careless = replace(entries, verify=lambda _: ("accepted",), appraise=lambda _: True)
    genuine = entries.verify(entries.data)
    assert mutations._of_file(careless, entries.data[:-9], genuine)[0] == VIOLATION
    assert mutations._of_whole(careless, b"", REFUSED, "tpm.ima.mismatch")[0] == VIOLATION

    def fail(_data: bytes) -> object:
        raise KeyError("not declared")

    assert mutations._of_file(replace(entries, verify=fail), b"", genuine)[0] == VIOLATION


def test_evidence_that_cannot_even_be_written_is_refused(targets: list[Target]) -> None:
    """A number of the first entry that no record has room for."""
    entries = find(targets, "ima", "sha256.list", "vm/")
    assert entries.appraise(entries.data)
    assert not entries.appraise(b"\xff" * 8 + entries.data[8:])
    assert not entries.appraise(b"")


def test_less_is_a_boot_variable_that_a_type_hides(targets: list[Target]) -> None:
    log = find(targets, "log", "sha256", "arch")
    genuine = log.verify(log.data)
    at = max(n for n, unit in enumerate(log.units) if b"B\0o\0o\0t\x000" in unit)
    units = list(log.units)
    units[at] = units[at][:4] + (0x8401).to_bytes(4, "little") + units[at][8:]
    assert mutations._of_file(log, b"".join(units), genuine)[0] in (LESS, NEUTRAL)


def test_values_are_written_in_one_way() -> None:
    values = {0: bytes(32), 7: b"\1" * 32}
    assert read_values(written(values)) == values
    with pytest.raises(InterlockError, match=r"^tpm\.pcr\.order"):
        read_values(written(values) + b"\0\x01x")


def test_a_directory_where_nothing_is_accepted_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(Unreadable, match="nothing in"):
        read_targets(tmp_path)


def test_the_command_makes_one_change_and_says_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tpm", "--dir", str(vectors.path(EVIDENCE)), "--only", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] in (REFUSED, NEUTRAL, LESS)
