"""The bundle of a job that ran: an auditor believes it whole, and nothing that was changed in it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from attestation.bundle import Bundle
from fixtures.beats import BeatLab
from fixtures.lab import BIN
from tests.flow.test_halted import admin

pytestmark = pytest.mark.root


@dataclass
class Audited:
    """A bundle with the keys to check it."""

    lab: BeatLab
    data: bytes
    denied: bytes

    def verify(self, data: bytes, path: Path) -> tuple[int, list[dict[str, Any]]]:
        """``interlock-audit verify``, as anybody who has only the file and the two public keys."""
        path.write_bytes(data)
        arguments = ("verify", str(path), "--root", str(path.with_name("root.pem")), "--json")
        path.with_name("root.pem").write_bytes(self.lab.root_pem.read_bytes())
        program = self.lab.program([str(BIN / "interlock-audit"), *arguments], "audit", env={})
        code = program.wait(30)
        return code, json.loads("\n".join(program.lines)).get("checks", [])


@pytest.fixture(scope="module")
def audited(lab: BeatLab) -> Audited:
    """A job with a renewal and an output, and a request that was denied."""
    job = lab.beat("--output", "result.txt", name="audited", options=("--output", "result.txt")).wait_beat()
    admin(lab, "node.set-state", node=lab.node, state="active")
    job.wait_event("lease")
    job.signal()
    ending = job.end()
    assert (ending["code"], ending["leases"]) == (0, 2)
    path = lab.home / "audited.bundle"
    asked = ("bundle", "audited", "-o", str(path), "--agent", str(lab.socket))
    lab.command("interlock", *asked, **lab.as_submitter)
    denied = lab.dir / "denied.bundle"
    refusal = lab.beat(name="denied", options=("--tenant", "other")).end()
    lab.operator("bundle", refusal["grant"], "-o", str(denied))
    return Audited(lab, path.read_bytes(), denied.read_bytes())


def test_a_bundle_verifies_without_a_network_or_an_account(audited: Audited, tmp_path: Path) -> None:
    code, checks = audited.verify(audited.data, tmp_path / "job.bundle")
    assert code == 0, checks
    assert len(checks) >= 10
    assert all(check["ok"] for check in checks)


def test_so_does_the_bundle_of_a_denial(audited: Audited, tmp_path: Path) -> None:
    code, checks = audited.verify(audited.denied, tmp_path / "denied.bundle")
    assert (code, [check for check in checks if not check["ok"]]) == (0, [])


@pytest.mark.parametrize("number", [0, 1, 2, -1])
def test_a_record_that_is_left_out_is_missed(audited: Audited, tmp_path: Path, number: int) -> None:
    leaves = list(Bundle.from_bytes(audited.data).leaves)
    del leaves[number]
    short = replace(Bundle.from_bytes(audited.data), leaves=tuple(leaves)).to_bytes()
    code, checks = audited.verify(short, tmp_path / "short.bundle")
    assert code == 1
    assert [check["name"] for check in checks if not check["ok"]]


@pytest.mark.parametrize("part", range(8))
def test_a_flipped_bit_fails_a_check_by_name(audited: Audited, tmp_path: Path, part: int) -> None:
    data = bytearray(audited.data)
    data[(2 * part + 1) * len(data) // 16] ^= 1
    code, checks = audited.verify(bytes(data), tmp_path / "flipped.bundle")
    assert code == 1
    assert next(check["name"] for check in checks if not check["ok"])
