"""The NV index of the workload on swtpm: what the attributes mean, what survives what, and how each change looks."""

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.devices import DeviceError, Tpm
from agent.tpm import EsysTpm
from attestation.errors import Untrusted
from attestation.progress import boot_of
from attestation.tpm.identity import verify_ak
from attestation.tpm.nv import CLEAR_STCLEAR, NT_EXTEND, ORDERLY, WORKLOAD, WRITTEN, NvPublic
from attestation.tpm.structures import sized
from attestation.workload import BEGINNING, WorkloadEntry, WorkloadRecord, replay, verify_workload
from fixtures.attester import SoftTpm
from fixtures.swtpm import CC_SHUTDOWN, PASSWORD, Swtpm
from fixtures.tpm_proxy import SESSIONS, TpmError
from tests.agent.tpms import CA

QUALIFYING = bytes(range(32))
JOBS = tuple(WorkloadEntry(bytes([n]) * 16, bytes([n]) * 32, bytes(32)) for n in range(1, 4))
RH_OWNER = 0x40000001
CC_UNDEFINE, CC_DEFINE, CC_WRITE, CC_EXTEND = 0x122, 0x12A, 0x137, 0x136


def undefine(swtpm: Swtpm) -> None:
    """Somebody else with the owner's authorisation removes the index."""
    swtpm.proxy.command(CC_UNDEFINE, struct.pack(">LL", RH_OWNER, WORKLOAD.index) + PASSWORD, tag=SESSIONS)


def define(swtpm: Swtpm, public: NvPublic) -> None:
    """Somebody else defines it otherwise."""
    body = struct.pack(">L", RH_OWNER) + PASSWORD + sized(b"") + sized(public.to_bytes())
    swtpm.proxy.command(CC_DEFINE, body, tag=SESSIONS)


def extend(swtpm: Swtpm, data: bytes) -> None:
    """Somebody else extends it."""
    body = struct.pack(">LL", RH_OWNER, WORKLOAD.index) + PASSWORD + sized(data)
    swtpm.proxy.command(CC_EXTEND, body, tag=SESSIONS)


def measure(tpm: Tpm, *jobs: WorkloadEntry) -> None:
    for job in jobs:
        tpm.extend_workload(job.measurement)


def shown(tpm: Tpm, *jobs: WorkloadEntry) -> WorkloadRecord | None:
    """What an agent with these entries would show."""
    certified = tpm.certify_workload(QUALIFYING)
    if certified is None:
        return None
    entries = b"".join(job.to_bytes() for job in jobs)
    return WorkloadRecord(public=certified[0], attest=certified[1].attest, signature=certified[1].signature,
                          start=0, before=BEGINNING, entries=entries)  # fmt: skip


def count(tpm: Tpm, record: WorkloadRecord | None) -> int:
    """The entries that are proven by it."""
    now = tpm.clock()
    boot = boot_of(now.reset_count, now.restart_count)
    ak = verify_ak(tpm.create_ak().public)
    return verify_workload(record, ak=ak, qualifying=QUALIFYING, boot=boot, proven=None, granted=None).count


@pytest.mark.parametrize("kind", ["swtpm", "soft"])
def test_jobs_are_measured_and_certified(kind: str, request: pytest.FixtureRequest) -> None:
    device: Tpm = SoftTpm(CA) if kind == "soft" else request.getfixturevalue("tpm")
    assert device.workload() is None
    assert device.certify_workload(QUALIFYING) is None
    with pytest.raises(DeviceError):
        device.extend_workload(bytes(32))
    device.define_workload()
    index = device.workload()
    assert index == (WORKLOAD.to_bytes(), None)
    assert device.certify_workload(QUALIFYING) is None
    measure(device, *JOBS)
    index = device.workload()
    assert index is not None
    assert NvPublic.from_bytes(index.public) == replace(WORKLOAD, attributes=WORKLOAD.attributes | WRITTEN)
    assert index.contents == replay(JOBS)
    assert count(device, shown(device, *JOBS)) == len(JOBS)
    device.define_workload()
    assert device.workload() == (WORKLOAD.to_bytes(), None)


@pytest.mark.parametrize("orderly", [True, False], ids=["shutdown", "power failure"])
def test_a_reset_empties_the_index_and_leaves_it_defined(tpm: EsysTpm, swtpm: Swtpm, orderly: bool) -> None:
    tpm.define_workload()
    measure(tpm, *JOBS)
    swtpm.reset(orderly=orderly)
    again = EsysTpm(swtpm.tcti, deadline=5)
    assert again.workload() == (WORKLOAD.to_bytes(), None)
    assert again.certify_workload(QUALIFYING) is None
    measure(again, JOBS[2])
    assert count(again, shown(again, JOBS[2])) == 1
    again.close()


def test_a_clear_removes_the_index(tpm: EsysTpm, swtpm: Swtpm) -> None:
    tpm.define_workload()
    measure(tpm, JOBS[0])
    swtpm.clear()
    assert tpm.workload() is None


def test_a_restart_after_hibernation_empties_the_index(tpm: EsysTpm, swtpm: Swtpm) -> None:
    tpm.define_workload()
    measure(tpm, JOBS[0])
    before = tpm.clock()
    swtpm.proxy.command(CC_SHUTDOWN, b"\0\1")  # TPM_SU_STATE, and then a start with TPM_SU_CLEAR
    swtpm.reset(orderly=False)
    again = EsysTpm(swtpm.tcti, deadline=5)
    assert again.workload() == (WORKLOAD.to_bytes(), None)
    assert (again.clock().reset_count, again.clock().restart_count) == (before.reset_count, before.restart_count + 1)
    again.close()


def test_the_index_cannot_be_written(tpm: EsysTpm, swtpm: Swtpm) -> None:
    tpm.define_workload()
    body = struct.pack(">LL", RH_OWNER, WORKLOAD.index) + PASSWORD + sized(bytes(32)) + b"\0\0"
    with pytest.raises(TpmError, match="0x82"):  # TPM_RC_ATTRIBUTES: only TPM2_NV_Extend changes this type of index
        swtpm.proxy.command(CC_WRITE, body, tag=SESSIONS)


def test_a_job_is_measured_in_memory_only(tpm: EsysTpm, swtpm: Swtpm) -> None:
    """No wear: the TPM's non-volatile state is not written however many jobs are measured."""
    tpm.define_workload()
    stored = [(path.name, path.read_bytes()) for path in sorted(swtpm.state.iterdir())]
    measure(tpm, *JOBS)
    assert [(path.name, path.read_bytes()) for path in sorted(swtpm.state.iterdir())] == stored


def test_undefined_and_defined_again_it_continues_nothing(tpm: EsysTpm, swtpm: Swtpm) -> None:
    tpm.define_workload()
    measure(tpm, *JOBS)
    undefine(swtpm)
    assert tpm.workload() is None
    assert tpm.certify_workload(QUALIFYING) is None
    define(swtpm, WORKLOAD)
    extend(swtpm, JOBS[2].measurement)
    with pytest.raises(Untrusted) as refused:
        count(tpm, shown(tpm, *JOBS))
    assert refused.value.reason == "tpm.workload.contents"


OTHERWISE: dict[str, Callable[[NvPublic], NvPublic]] = {
    "kept over resets": lambda public: replace(public, attributes=public.attributes & ~(CLEAR_STCLEAR | ORDERLY)),
    "ordinary, to be written": lambda public: replace(public, attributes=public.attributes & ~NT_EXTEND),
    "to be extended by its own authorisation": lambda public: replace(public, attributes=public.attributes | 1 << 2),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_defined_otherwise_it_is_refused(tpm: EsysTpm, swtpm: Swtpm, name: str) -> None:
    public = OTHERWISE[name](WORKLOAD)
    define(swtpm, public)
    if public.attributes & NT_EXTEND:
        extend(swtpm, JOBS[0].measurement)
    else:
        body = struct.pack(">LL", RH_OWNER, WORKLOAD.index) + PASSWORD + sized(replay(JOBS[:1])) + b"\0\0"
        swtpm.proxy.command(CC_WRITE, body, tag=SESSIONS)
    with pytest.raises(Untrusted) as refused:
        count(tpm, shown(tpm, JOBS[0]))
    assert refused.value.reason == "tpm.workload.attributes"
    tpm.define_workload()
    assert tpm.workload() == (WORKLOAD.to_bytes(), None)
