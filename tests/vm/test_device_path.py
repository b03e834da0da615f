"""A host as it is delivered: Debian's kernel behind Secure Boot, ``/dev/tpmrm0``, boot event log, IMA, systemd.

The tests run in this order, on one machine that boots three times.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from attestation.tpm.ima.measurements import read_binary
from fixtures.lab import BIN, SUBMITTER_UID
from fixtures.ledger import Ledger
from fixtures.vm.capture import capture, write
from fixtures.vm.image import say
from fixtures.vm.lab import NODE, Ran, VmLab
from tests.captured import Captured

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]

KEEP = "INTERLOCK_VM_KEEP"
"""Where the machine's evidence is written, to become a file of ``fixtures/captured``."""
LEASES = 3
BANKS = ("sha256", "sha384")
STRANGER = "/usr/local/bin/stranger"
EXTEND = """
from tpm2_pytss import ESAPI, ESYS_TR, TPM2_ALG, TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA
from agent.tcti import StreamTcti, open_stream
tpm = ESAPI(StreamTcti(open_stream("device:/dev/tpmrm0"), 10))
tpm.pcr_extend(ESYS_TR.PCR7, TPML_DIGEST_VALUES([TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=bytes(32)))]))
"""


@pytest.fixture(scope="module")
def first(vm: VmLab) -> Ran:
    """A job that outlives its first lease by more than one renewal."""
    say("vm: a job of 40 seconds under leases of 15")
    return vm.run("first", 40)


def test_the_host_has_what_the_agent_needs(vm: VmLab) -> None:
    found = vm.machine.run("interlock-agent", "doctor", "--json", seconds=120)
    checks = {each["name"]: each for each in json.loads(found.text)["checks"]}
    assert found.code == 0, checks
    assert {name for name, each in checks.items() if each["level"] != "ok"} <= {"clock"}, checks
    assert {"tpm", "ek", "event-log", "ima", "landlock", "enrolment", "verifier"} <= checks.keys()
    assert checks["tpm"]["seen"].startswith("device:/dev/tpmrm0")


def test_the_kernel_is_the_one_that_secure_boot_lets_in(vm: VmLab) -> None:
    assert "6.1." in vm.machine.check("uname", "-r").text
    assert "[integrity]" in vm.machine.get("/sys/kernel/security/lockdown").decode()
    assert "ima_policy=tcb" in vm.machine.get("/proc/cmdline").decode()


def test_what_the_kernel_shows_proves_itself(vm: VmLab) -> None:
    if os.environ.get(KEEP):
        write(vm.captured, Path(os.environ[KEEP]))
    captured = Captured(vm.captured)
    assert captured.ek().anchor.assurance == "test"
    for bank in BANKS:
        assert captured.proof(bank).pcrs == frozenset(range(15)) - {10}
        assert [fact.value for fact in captured.boot(bank).all("secure-boot")] == ["on"]
        assert read_binary(captured.list(bank)).tail == 0  # it ends where the quoted PCR 10 is


def test_a_job_runs_to_its_end_under_leases_that_are_renewed(vm: VmLab, first: Ran) -> None:
    assert (first.code, first.ending["event"], first.ending["exit_code"]) == (0, "finished", 0), first.ending
    assert (first.ending["node"], first.ending["assurance"]) == (NODE, "test")
    assert first.ending["leases"] >= LEASES
    started = next(line for line in first.lines if '"started"' in line)
    assert "landlock" in started
    assert "cgroup.memory.max" in started
    result = json.loads(vm.machine.get("/home/ada/chain.json", uid=SUBMITTER_UID))
    assert f"steps {result['steps']}" in first.lines


def test_every_step_of_it_is_in_the_log(vm: VmLab, first: Ran) -> None:
    ledger = Ledger(vm.lab)
    assert ledger.look() == []
    mine = [record for record in ledger.records if record.job == bytes.fromhex(first.ending["grant"])]
    kinds = Counter((record.kind, record.outcome) for record in mine)
    assert kinds == {("decision", "allow"): 1, ("lease", "issued"): first.ending["leases"], ("report", "ended"): 1}


def test_its_bundle_verifies(vm: VmLab, first: Ran) -> None:
    code, checks = audit(vm, vm.bundle("first"))
    assert code == 0, checks
    assert len(checks) >= 10
    assert all(check["ok"] for check in checks), checks


def test_nothing_of_it_is_left(vm: VmLab, first: Ran) -> None:
    groups = vm.machine.check("find", "/sys/fs/cgroup/interlock", "-mindepth", "1", "-type", "d").text
    assert groups == ""
    owners = vm.machine.check("sh", "-c", "stat -c %u /proc/[0-9]* 2>/dev/null || true").text.split()
    assert "0" in owners
    assert str(SUBMITTER_UID) not in owners


def test_the_list_only_grows(vm: VmLab, first: Ran) -> None:
    before = Captured(vm.captured).list("sha256")
    later = Captured(capture(vm.machine, vm.lab.ca)).list("sha256")
    assert later.startswith(before)
    assert read_binary(later).count > read_binary(before).count + 500  # what was read to measure the environment


def test_boot_and_files_are_held_against_references(vm: VmLab) -> None:
    say("vm: references of the boot and of the disks; a job under them")
    denied = vm.refer()
    assert (denied.code, denied.ending["reason"]) == (71, "policy.required.event-log"), denied.ending
    ran = vm.run("referred", 20)
    assert (ran.code, ran.ending["event"]) == (0, "finished"), ran.ending
    assert ran.ending["leases"] >= 2
    code, checks = audit(vm, vm.bundle("referred"))
    assert code == 0, checks


def test_a_program_that_nobody_knows_halts_the_job_and_is_named(vm: VmLab) -> None:
    say("vm: root runs a program from elsewhere while a job runs")
    vm.machine.put({STRANGER: b"#!/bin/sh\nexit 0\n"}, mode=0o755)
    vm.later(20, STRANGER)
    ran = vm.run("strange", 300)
    assert (ran.code, ran.ending["reason"]) == (74, "tpm.ima.unlisted"), ran.ending
    assert STRANGER in ran.ending["detail"]


def test_it_denies_the_next_until_the_machine_restarts(vm: VmLab) -> None:
    ran = vm.run("denied", 1)
    assert (ran.code, ran.ending["reason"]) == (71, "tpm.ima.unlisted"), ran.ending
    say("vm: restart")
    vm.reboot()
    ran = vm.run("rebooted", 2)
    assert (ran.code, ran.ending["event"]) == (0, "finished"), ran.ending


def test_a_pcr_of_the_boot_that_changes_halts_the_job(vm: VmLab) -> None:
    say("vm: PCR 7 is extended while a job runs")
    vm.later(20, "/opt/interlock/bin/python", "-I", "-c", EXTEND)
    ran = vm.run("drifting", 300)
    assert (ran.code, ran.ending["reason"]) == (74, "drift.pcr"), ran.ending


def test_it_denies_the_next_until_the_machine_is_reset_of_which_the_tpm_is_not_told(vm: VmLab) -> None:
    assert vm.run("denied again", 1).code == 71
    say("vm: reset")
    vm.reboot(orderly=False)
    ran = vm.run("reset", 2)
    assert (ran.code, ran.ending["event"]) == (0, "finished"), ran.ending


def audit(vm: VmLab, bundle: Path) -> tuple[int, list[dict[str, Any]]]:
    """``interlock-audit verify``, with nothing but the file and the verifier's public keys."""
    arguments = ("verify", str(bundle), "--root", str(vm.lab.root_pem), "--json")
    program = vm.lab.program([str(BIN / "interlock-audit"), *arguments], "audit", env={})
    code = program.wait(60)
    return code, json.loads("\n".join(program.lines)).get("checks", [])
