"""The sequence of jobs of a boot: what is proven of it, and every way of not continuing it, with its reason code."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from attestation.errors import InterlockError, Malformed
from attestation.parts import hash_parts
from attestation.progress import boot_of
from attestation.reasons import explain
from attestation.tpm.attest import Attest, NvCertifyInfo
from attestation.tpm.clock import ClockInfo
from attestation.tpm.identity import verify_ak
from attestation.tpm.nv import (
    ATTRIBUTE_NAMES,
    AUTH_READ,
    CLEAR_STCLEAR,
    NO_DA,
    NT_EXTEND,
    ORDERLY,
    OWNER_READ,
    OWNER_WRITE,
    POLICY_DELETE,
    WORKLOAD,
    WRITTEN,
    NvPublic,
)
from attestation.tpm.structures import ALG_SHA1, ALG_SHA384, GENERATED, ST_CERTIFY, ST_NV, ST_QUOTE, attribute_names
from attestation.workload import (
    BEGINNING,
    CODES,
    MOST,
    Granted,
    Proven,
    WorkloadEntry,
    WorkloadRecord,
    replay,
    verify_workload,
)
from fixtures.attester import SoftTpm
from fixtures.ca import TestCa

CA = TestCa()
QUALIFYING = bytes(range(32))
JOBS = tuple(WorkloadEntry(bytes([n]) * 16, bytes([n]) * 32, bytes([n + 100]) * 32) for n in range(1, 7))
BOOT, EARLIER = boot_of(1, 0), boot_of(0, 7)


@dataclass
class Host:
    """A host that has let ``jobs`` start; spoil it in one place, then :meth:`proven_now`."""

    tpm: SoftTpm = field(default_factory=lambda: SoftTpm(CA))
    jobs: tuple[WorkloadEntry, ...] = JOBS[:4]
    known: Proven | None = None
    granted: Granted | None = None
    start: int = 0

    def __post_init__(self) -> None:
        self.tpm.define_workload()
        for job in self.jobs:
            self.tpm.extend_workload(job.measurement)

    def knowing(self, count: int, boot: bytes = BOOT) -> "Host":
        """The verifier has seen the first ``count``."""
        self.known = Proven(boot, count, replay(self.jobs[:count]))
        return self

    def renewing(self, job: WorkloadEntry, **changes: bytes) -> "Host":
        """The grant of ``job`` is to be renewed."""
        self.granted = replace_granted(job, **changes)
        return self

    def record(self, **changes: Any) -> WorkloadRecord:
        """An honest record, with fields replaced."""
        certified = self.tpm.certify_workload(QUALIFYING)
        assert certified is not None
        honest = WorkloadRecord(
            public=certified[0],
            attest=certified[1].attest,
            signature=certified[1].signature,
            start=self.start,
            before=replay(self.jobs[: self.start]),
            entries=b"".join(job.to_bytes() for job in self.jobs[self.start :]),
        )
        return replace(honest, **changes)

    def certified(self, *, public: NvPublic | None = None, **attest: Any) -> WorkloadRecord:
        """A record around an attestation that only this stand-in makes, truly signed by its attestation key."""
        shown = public or self.tpm.nv_public
        body = NvCertifyInfo(shown.name, 0, self.tpm.nv_contents or b"").to_bytes()
        made = self.tpm.signed(**{"kind": ST_NV, "extra": QUALIFYING, "body": body, **attest})
        return self.record(public=shown.to_bytes(), attest=made.attest, signature=made.signature)

    def proven_now(self, record: WorkloadRecord | None) -> Proven:
        return verify_workload(
            record,
            ak=verify_ak(self.tpm.ak.to_bytes()),
            qualifying=QUALIFYING,
            boot=BOOT,
            proven=self.known,
            granted=self.granted,
        )


def replace_granted(job: WorkloadEntry, **changes: bytes) -> Granted:
    return Granted(job.grant, job.code, job.environment)._replace(**changes)


HONEST: dict[str, Callable[[], Host]] = {
    "nothing was known": Host,
    "two were known, all are shown": lambda: Host().knowing(2),
    "two were known, the rest is shown": lambda: Host(start=2).knowing(2),
    "three were known, one of them is shown again": lambda: Host(start=2).knowing(3),
    "all were known": lambda: Host(start=4).knowing(4),
    "all were known, all are shown": lambda: Host().knowing(4),
    "what was known is of another boot": lambda: Host().knowing(3, EARLIER),
    "a renewal": lambda: Host(start=2).knowing(3).renewing(JOBS[2]),
    "the first renewal": lambda: Host().renewing(JOBS[3]),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_sequence_is_proven(name: str) -> None:
    host = HONEST[name]()
    record = host.record()
    assert WorkloadRecord.from_bytes(record.to_bytes()) == record
    assert host.proven_now(record) == Proven(BOOT, 4, replay(JOBS[:4]))


@pytest.mark.parametrize("known", [None, Proven(EARLIER, 3, bytes(32)), Proven(BOOT, 0, BEGINNING)])
def test_before_the_first_job_of_a_boot_nothing_is_to_be_shown(known: Proven | None) -> None:
    assert Host(jobs=(), known=known).proven_now(None) == Proven(BOOT, 0, BEGINNING)


def test_the_measurement_is_what_the_documentation_says() -> None:
    job = JOBS[0]
    assert job.measurement == hash_parts(b"interlock/workload/1", job.grant, job.code, job.environment)
    assert len({job.measurement for job in JOBS}) == len(JOBS)
    assert replay(()) == BEGINNING
    soft = Host(jobs=JOBS)
    assert soft.tpm.nv_contents == replay(JOBS) == replay(JOBS[3:], replay(JOBS[:3]))


Bad = Callable[[], tuple[Host, WorkloadRecord | None]]


def _host(made: Host, **changes: Any) -> tuple[Host, WorkloadRecord | None]:
    return made, made.record(**changes)


def _public(**changes: Any) -> tuple[Host, WorkloadRecord | None]:
    """An index that really has this public area, as the host would certify it."""
    host = Host()
    return host, host.certified(public=replace(host.tpm.nv_public, **changes))


def _attributes(change: Callable[[int], int]) -> tuple[Host, WorkloadRecord | None]:
    return _public(attributes=change(WORKLOAD.attributes | WRITTEN))


def _attest(**changes: Any) -> tuple[Host, WorkloadRecord | None]:
    host = Host()
    return host, host.certified(**changes)


def _contents(offset: int, contents: bytes) -> tuple[Host, WorkloadRecord | None]:
    host = Host()
    return host, host.certified(body=NvCertifyInfo(host.tpm.nv_public.name, offset, contents).to_bytes())


def _extended(data: bytes) -> tuple[Host, WorkloadRecord | None]:
    """Somebody with the owner's authorisation has extended something of their own."""
    host = Host().knowing(4)
    host.tpm.extend_workload(data)
    return host, host.record()


def _redefined(*jobs: WorkloadEntry, start: int = 0, **changes: Any) -> tuple[Host, WorkloadRecord | None]:
    """Somebody has undefined the index and defined it again, and now it holds ``jobs``."""
    host = Host().knowing(3)
    host.tpm.define_workload()
    for job in jobs:
        host.tpm.extend_workload(job.measurement)
    host.jobs, host.start = jobs, start
    return host, host.record(**changes)


def _written_beside(*entries: WorkloadEntry) -> bytes:
    return b"".join(job.to_bytes() for job in entries)


REFUSED: dict[str, tuple[Bad, str]] = {
    "nothing shown though jobs were": (lambda: (Host().knowing(1), None), "tpm.workload.absent"),
    "nothing shown in a renewal": (lambda: (Host(jobs=()).renewing(JOBS[0]), None), "tpm.workload.absent"),
    "nothing shown in a renewal after another boot": (
        lambda: (Host(jobs=()).knowing(0, EARLIER).renewing(JOBS[0]), None),
        "tpm.workload.absent",
    ),
    "public area cut short": (lambda: _host(Host(), public=WORKLOAD.to_bytes()[:-1]), "tpm.nv.truncated"),
    "bytes after the public area": (lambda: _host(Host(), public=WORKLOAD.to_bytes() + b"\0"), "tpm.nv.trailing"),
    "another index": (lambda: _public(index=0x01800101), "tpm.workload.index"),
    "extended with SHA-1": (lambda: _public(name_alg=ALG_SHA1), "tpm.workload.index"),
    "extended with SHA-384": (lambda: _public(name_alg=ALG_SHA384), "tpm.workload.index"),
    "with a policy": (lambda: _public(policy=bytes(32)), "tpm.workload.index"),
    "larger": (lambda: _public(size=64), "tpm.workload.index"),
    "ordinary, not extend": (lambda: _attributes(lambda a: a & ~NT_EXTEND), "tpm.workload.attributes"),
    "a counter": (lambda: _attributes(lambda a: a & ~NT_EXTEND | 1 << 4), "tpm.workload.attributes"),
    "kept over resets": (lambda: _attributes(lambda a: a & ~CLEAR_STCLEAR), "tpm.workload.attributes"),
    "not orderly": (lambda: _attributes(lambda a: a & ~ORDERLY), "tpm.workload.attributes"),
    "deleted by policy": (lambda: _attributes(lambda a: a | POLICY_DELETE), "tpm.workload.attributes"),
    "written by its own authorisation": (lambda: _attributes(lambda a: a | 1 << 2), "tpm.workload.attributes"),
    "written by a policy": (lambda: _attributes(lambda a: a | 1 << 3), "tpm.workload.attributes"),
    "locked against writing": (lambda: _attributes(lambda a: a | 1 << 11), "tpm.workload.attributes"),
    "not written": (lambda: _attributes(lambda a: a & ~WRITTEN), "tpm.workload.attributes"),
    "attestation cut short": (
        lambda: _host(Host(), attest=Host().record().attest[:-1]),
        "tpm.attest.truncated",
    ),
    "bytes after the attestation": (
        lambda: _host(Host(), attest=Host().record().attest + b"\0"),
        "tpm.attest.trailing",
    ),
    "not made by a TPM": (lambda: _attest(magic=GENERATED ^ 1), "tpm.workload.magic"),
    "a quote": (lambda: _attest(kind=ST_QUOTE), "tpm.workload.type"),
    "a certification of a key": (lambda: _attest(kind=ST_CERTIFY), "tpm.workload.type"),
    "a certification of a digest of it": (lambda: _attest(kind=0x801C), "tpm.workload.type"),
    "signature of another kind": (lambda: _host(Host(), signature=b"\0\x18\0\x04\0\0\0\0"), "tpm.workload.scheme"),
    "signature of an unknown kind": (lambda: _host(Host(), signature=bytes(8)), "tpm.workload.scheme"),
    "signature cut short": (lambda: _host(Host(), signature=b"\0\x18\0\x0b\0"), "tpm.signature.truncated"),
    "empty signature": (lambda: _host(Host(), signature=b"\0\x18\0\x0b\0\0\0\0"), "tpm.workload.signature"),
    "signed by another TPM": (lambda: _attest(key=SoftTpm(CA).ak_key), "tpm.workload.signature"),
    "another TPM's record": (
        lambda: (Host(), replace(Host().record(), entries=b"")),
        "tpm.workload.signature",
    ),
    "another signer": (lambda: _attest(signer=SoftTpm(CA).ak.qualified_name()), "tpm.workload.signer"),
    "other qualifying data": (lambda: _attest(extra=bytes(32)), "tpm.workload.nonce"),
    "qualifying data cut short": (lambda: _attest(extra=QUALIFYING[:-1]), "tpm.workload.nonce"),
    "no qualifying data": (lambda: _attest(extra=b""), "tpm.workload.nonce"),
    "of an earlier boot": (lambda: _attest(clock=ClockInfo(5000, 0, 0, safe=True)), "tpm.workload.boot"),
    "of before a resume": (lambda: _attest(clock=ClockInfo(5000, 1, 1, safe=True)), "tpm.workload.boot"),
    "another index certified": (
        lambda: _attest(body=NvCertifyInfo(WORKLOAD.name, 0, replay(JOBS[:4])).to_bytes()),
        "tpm.workload.name",
    ),
    "the end of it certified": (lambda: _contents(1, replay(JOBS[:4])[1:]), "tpm.workload.partial"),
    "the beginning of it certified": (lambda: _contents(0, replay(JOBS[:4])[:31]), "tpm.workload.partial"),
    "from another place certified": (lambda: _contents(32, replay(JOBS[:4])), "tpm.workload.partial"),
    "nothing of it certified": (lambda: _contents(0, b""), "tpm.workload.partial"),
    "an entry cut short": (
        lambda: _host(Host(), entries=_written_beside(*JOBS[:4])[:-1]),
        "tpm.workload.entries.truncated",
    ),
    "a byte after the entries": (
        lambda: _host(Host(), entries=_written_beside(*JOBS[:4]) + b"\0"),
        "tpm.workload.entries.truncated",
    ),
    "entries left out behind what is known": (lambda: _host(Host(start=3).knowing(2)), "tpm.workload.start"),
    "entries left out where nothing is known": (lambda: _host(Host(start=1)), "tpm.workload.start"),
    "entries left out after a reboot": (lambda: _host(Host(start=2).knowing(2, EARLIER)), "tpm.workload.start"),
    "a beginning that is none": (lambda: _host(Host(), before=bytes([1]) * 32), "tpm.workload.start"),
    "undefined, defined again, one job since": (lambda: _redefined(JOBS[4]), "tpm.workload.rollback"),
    "undefined, defined again, the last known left out": (lambda: _redefined(*JOBS[:2]), "tpm.workload.rollback"),
    "undefined, defined again, known jobs by other names": (lambda: _redefined(*JOBS[1:4]), "tpm.workload.rewritten"),
    "undefined, defined again, known jobs in another order": (
        lambda: _redefined(JOBS[1], JOBS[0], *JOBS[2:4]),
        "tpm.workload.rewritten",
    ),
    "undefined, defined again, spliced behind what is known": (
        lambda: _redefined(JOBS[4], start=0, before=replay(JOBS[:3])),
        "tpm.workload.rollback",
    ),
    "a renewal's entries from where nothing of the kind was": (
        lambda: _redefined(*JOBS[:2], JOBS[4], start=2, before=replay(JOBS[:2])),
        "tpm.workload.rewritten",
    ),
    "undefined, defined again, begun from the known value": (
        lambda: _redefined(JOBS[4], start=3, before=replay(JOBS[:3]), entries=JOBS[4].to_bytes()),
        "tpm.workload.contents",
    ),
    "something of one's own extended": (lambda: _extended(bytes(32)), "tpm.workload.contents"),
    "a job extended that is not listed": (lambda: _extended(JOBS[4].measurement), "tpm.workload.contents"),
    "a job listed that was not extended": (
        lambda: _host(Host().knowing(4), entries=_written_beside(*JOBS[:5])),
        "tpm.workload.contents",
    ),
    "the last job left out": (
        lambda: _host(Host().knowing(2), entries=_written_beside(*JOBS[:3])),
        "tpm.workload.contents",
    ),
    "new jobs in another order": (
        lambda: _host(Host().knowing(2), entries=_written_beside(*JOBS[:2], JOBS[3], JOBS[2])),
        "tpm.workload.contents",
    ),
    "another code listed": (
        lambda: _host(Host(), entries=_written_beside(*JOBS[:3], replace(JOBS[3], code=bytes(32)))),
        "tpm.workload.contents",
    ),
    "a grant that ran twice": (lambda: _host(Host(jobs=(*JOBS[:2], JOBS[0]))), "tpm.workload.repeated"),
    "a grant that ran other code the second time": (
        lambda: _host(Host(jobs=(JOBS[0], replace(JOBS[0], code=bytes(32))))),
        "tpm.workload.repeated",
    ),
    "a renewal without its own entry": (lambda: _host(Host().renewing(JOBS[5])), "tpm.workload.missing"),
    "a renewal that shows its own entry no more": (
        lambda: _host(Host(start=4).knowing(4).renewing(JOBS[1])),
        "tpm.workload.missing",
    ),
    "a renewal whose code was another": (
        lambda: _host(Host().renewing(JOBS[1], code=bytes(32))),
        "tpm.workload.measured",
    ),
    "a renewal whose environment was another": (
        lambda: _host(Host().renewing(JOBS[1], environment=bytes(32))),
        "tpm.workload.measured",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    spoil, reason = REFUSED[name]
    host, record = spoil()
    with pytest.raises(InterlockError) as refused:
        host.proven_now(record)
    assert refused.value.reason == reason
    assert explain(reason).code == reason


def test_a_record_has_a_limit() -> None:
    with pytest.raises(Malformed) as refused:
        WorkloadRecord.from_bytes(replace(Host().record(), entries=bytes((MOST + 1) * 80)).to_bytes())
    assert refused.value.reason == "wire.size"


def test_the_structures_have_one_encoding() -> None:
    for public in (WORKLOAD, replace(WORKLOAD, policy=bytes(32), size=8)):
        assert NvPublic.from_bytes(public.to_bytes()) == public
    attest = Host().record().attest
    read = Attest.from_bytes(attest, NvCertifyInfo, CODES)
    assert read.to_bytes() == attest
    assert (read.info.offset, read.info.contents) == (0, replay(JOBS[:4]))


def test_attributes_are_told_in_words() -> None:
    assert attribute_names(0, ATTRIBUTE_NAMES) == "none"
    assert attribute_names(WORKLOAD.attributes, ATTRIBUTE_NAMES).endswith("clearSTClear, 0x00000040")
    assert (
        attribute_names(OWNER_WRITE | OWNER_READ | AUTH_READ | NO_DA, ATTRIBUTE_NAMES)
        == "ownerWrite, ownerRead, authRead, noDA"
    )
