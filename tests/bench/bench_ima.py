"""What verifying a quote with an IMA list costs, beside Keylime 7.14.3 on the same quotes and lists.

Both are asked in turns in one run; each measures the CPU time of its own process, one core, around the verification
alone. The peer is a child in an environment of its own (``peer_keylime.py`` says what its run consists of). The list
is ascii, ima-ng with SHA-256: boot_aggregate and distinct files of 60 to 70 bytes of path; the policy lists each of
them; the quote is P-256, over PCR 0 to 10 of the SHA-256 bank.

Ours, in every run: :func:`verify_quote`, the boot aggregates from the quoted PCRs, and :func:`verify_ima`, which
replays, recomputes each template digest and judges each entry.

full         the list from its first entry; the policy is compiled, and everything that was remembered of entries is
             forgotten before the run, outside of the measured time. What the run remembers itself is in its time.
full, memo   the same list again: another host of the same image. Keylime remembers nothing between hosts.
incremental  the node was verified after 10,000 entries and now shows 0 or 10 new ones. Ours reads what it kept of the
             node from its encoding, finds the compiled policy by its digest, and encodes what it keeps; nothing is
             remembered of the new entries. Keylime's verifier parses the text of the runtime policy for each quote,
             and so it does here; the note says what is left of the ratio when it need not.

A speed-up is the ratio of medians; of the incremental runs the lower one counts.
"""

import functools
import gc
import hashlib
import json
import statistics
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.tpm.identity import Ak, verify_ak
from attestation.tpm.ima.appraise import ImaSubject, verify_ima
from attestation.tpm.ima.policy import MOST_REMEMBERED, PLAIN, CompiledPolicy, ImaFiles, compile_policy
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import boot_aggregates
from attestation.tpm.quote import verify_quote
from attestation.tpm.structures import ALG_SHA256
from fixtures.attester import SoftTpm
from fixtures.ca import TestCa
from tests.bench.peer import asking
from tests.bench.registry import bench

ENTRIES, MORE, FEW, MANY = 10_000, 10, 1_000, 100_000
ROUNDS = 25
PCRS = tuple(range(11))
MILLI = 1e3
BOOT = b"boot"
Work = Callable[[], object]


@bench("ima.full_10k_speedup", unit="ratio", bar=3, better="higher")
def full_speedup() -> tuple[float, str]:
    """Keylime over ours: quote and 10,000 entries, nothing remembered."""
    found = _measured()
    ratio = found["keylime full"] / found["full"]
    few = found["keylime few"] / found["few"]
    told = f"{found['keylime full']:.1f} ms / {found['full']:.1f} ms"
    return ratio, f"medians of {ROUNDS} rounds, CPU: {told}; with 1,000 entries {few:.1f}"


@bench("ima.full_10k_memo_speedup", unit="ratio", bar=7, better="higher")
def memo_speedup() -> tuple[float, str]:
    """Keylime over ours: quote and 10,000 entries that another host has shown before."""
    found = _measured()
    told = f"{found['keylime full']:.1f} ms / {found['memo']:.1f} ms"
    return found["keylime full"] / found["memo"], f"medians of {ROUNDS} rounds, CPU: {told}"


@bench("ima.incremental_10k_speedup", unit="ratio", bar=10, better="higher")
def incremental_speedup() -> tuple[float, str]:
    """Keylime over ours: quote and 0 or 10 new entries after 10,000."""
    found = _measured()
    told, ratios = [], []
    for case in ("none", "some"):
        ratio, bare = found[f"keylime {case} kept"] / found[case], found[f"keylime {case} bare"] / found[case]
        ratios.append(ratio)
        count = 0 if case == "none" else MORE
        told.append(
            f"{count} new: {ratio:.1f} ({found[f'keylime {case} kept']:.2f} ms / {found[case]:.3f} ms), "
            f"{bare:.1f} with Keylime's policy parsed before"
        )
    return min(ratios), f"medians of {ROUNDS} rounds, CPU; {'; '.join(told)}"


@bench("ima.growth_100k", unit="ratio", bar=1.3)
def growth() -> tuple[float, str]:
    """Time for each entry of 100,000 over that for each of 10,000."""
    made = _Made(MANY)
    policy, begun = made.policy, ImaProgress.begin(boot=BOOT, bank=ALG_SHA256, policy=made.policy.digest)
    tpm = SoftTpm(TestCa("growth"))
    seconds, peaks = [], []
    for count in (ENTRIES, MANY):
        data, run = made.text(0, count), functools.partial(_verify, _Quoted(tpm, made, count), policy)
        ready = functools.partial(run, data, begun)
        seconds.append(statistics.median(_alone(ready, policy) for _ in range(5)) / count)
        policy.forget()
        tracemalloc.start()
        ready()
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    microseconds = [second * 1e6 for second in seconds]
    note = f"{microseconds[1]:.2f} / {microseconds[0]:.2f} us for each entry, CPU, medians of 5"
    kept = f"what is remembered of at most {MOST_REMEMBERED:,} entries included"
    return seconds[1] / seconds[0], f"{note}; memory beyond the list {peaks[0]:.0f} and {peaks[1]:.0f} MiB, {kept}"


# --- what is verified ------------------------------------------------------------------------------------------------


class _Made:
    """A list of ``count`` entries, the PCR after each number that is asked for, and the policy that lists its files."""

    def __init__(self, count: int) -> None:
        self.boot = {index: hashlib.sha256(b"boot %d" % index).digest() for index in PCRS[:-1]}
        self.aggregate = hashlib.sha256(b"".join(self.boot.values())).digest()
        self.lines, self.digests, files = [], [], {}
        for number in range(count):
            path = b"/usr/lib/x86_64-linux-gnu/package-%d/library-%d.so.1" % (number % 1000, number)
            name, digest = (path, hashlib.sha256(path).digest()) if number else (b"boot_aggregate", self.aggregate)
            if number:
                files[name] = digest
            data = b"".join(struct.pack("<I", len(part)) + part for part in (b"sha256:\0" + digest, name + b"\0"))
            template = hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
            self.lines.append(b"10 %b ima-ng sha256:%b %b\n" % (template, digest.hex().encode(), name))
            self.digests.append(hashlib.sha256(data).digest())
        self.files = files
        self.policy = compile_policy(replace(PLAIN, files=(ImaFiles.of("sha256", set(files.items())),)))

    def text(self, start: int, stop: int) -> bytes:
        return b"".join(self.lines[start:stop])

    def pcr(self, count: int) -> bytes:
        value = bytes(32)
        for digest in self.digests[:count]:
            value = hashlib.sha256(value + digest).digest()
        return value

    def runtime_policy(self) -> str:
        """The same policy in Keylime's words."""
        return json.dumps(
            {
                "meta": {"version": 1, "generator": 0},
                "release": 0,
                "digests": {path.decode(): [digest.hex()] for path, digest in self.files.items()},
                "excludes": [],
                "keyrings": {},
                "ima": {"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": None},
                "ima-buf": {},
                "verification-keys": "",
            }
        )


class _Quoted:
    """A quote after ``count`` entries."""

    def __init__(self, tpm: SoftTpm, made: _Made, count: int) -> None:
        self.nonce = f"nonce-of-{count}"
        self.values = {**made.boot, 10: made.pcr(count)}
        tpm.pcrs[ALG_SHA256].update(self.values)
        self.quote = tpm.quote(self.nonce.encode(), ALG_SHA256, PCRS)
        self.ak: Ak = verify_ak(tpm.ak.to_bytes())

    def pcrs(self) -> bytes:
        """The values as tpm2_quote writes them: structures of its memory, little endian."""
        bits = sum(1 << index for index in PCRS).to_bytes(3, "little")
        selections = struct.pack("<HB3s2x", ALG_SHA256, 3, bits) + bytes(8 * 15)
        values = [self.values[index] for index in PCRS]
        lists = [values[first : first + 8] for first in range(0, len(values), 8)]
        digests = b"".join(
            struct.pack("<I", len(some))
            + b"".join(struct.pack("<H64s", len(value), value) for value in some)
            + bytes(66 * (8 - len(some)))
            for some in lists
        )
        return struct.pack("<I", 1) + selections + struct.pack("<I", len(lists)) + digests


def _verify(quoted: _Quoted, policy: CompiledPolicy, data: bytes, progress: ImaProgress) -> ImaProgress:
    quote = verify_quote(
        quoted.quote.attest,
        quoted.quote.signature,
        ak=quoted.ak,
        qualifying=quoted.nonce.encode(),
        bank=ALG_SHA256,
        pcrs=PCRS,
        values=quoted.values,
    )
    subject = ImaSubject(
        boot=BOOT,
        bank=ALG_SHA256,
        quoted=quote.pcrs[10],
        start=progress.next,
        aggregates=boot_aggregates({ALG_SHA256: quote.pcrs}),
    )
    return verify_ima(data, subject, progress, policy)


# --- both sides ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    quoted: _Quoted
    data: bytes


@functools.lru_cache(maxsize=1)
def _measured() -> dict[str, float]:
    """Medians in milliseconds of CPU, by the names used above."""
    made, tpm = _Made(ENTRIES + MORE), SoftTpm(TestCa("bench"))
    cases = {
        "full": _Case(_Quoted(tpm, made, ENTRIES), made.text(0, ENTRIES)),
        "few": _Case(_Quoted(tpm, made, FEW), made.text(0, FEW)),
        "none": _Case(_Quoted(tpm, made, ENTRIES), b""),
        "some": _Case(_Quoted(tpm, made, ENTRIES + MORE), made.text(ENTRIES, ENTRIES + MORE)),
    }
    ours = _ours(made, cases)
    asked = ["full full", "few full", "none kept", "some kept", "none bare", "some bare"]
    samples: dict[str, list[float]] = {name: [] for name in [*ours, *(f"keylime {name}" for name in asked)]}
    gc.collect()
    with _peer(made, cases) as ask:
        for number in range(ROUNDS):
            turns: list[tuple[str, Callable[[], float]]] = list(ours.items())
            turns += [(f"keylime {name}", functools.partial(ask, name)) for name in asked]
            for name, run in turns if number % 2 == 0 else reversed(turns):
                samples[name].append(run())
    medians = {name: MILLI * statistics.median(values) for name, values in samples.items()}
    return {**medians, "keylime full": medians["keylime full full"], "keylime few": medians["keylime few full"]}


def _ours(made: _Made, cases: dict[str, _Case]) -> dict[str, Callable[[], float]]:
    policy, policies = made.policy, {made.policy.digest: made.policy}
    begun = ImaProgress.begin(boot=BOOT, bank=ALG_SHA256, policy=policy.digest)
    kept = _verify(cases["full"].quoted, policy, cases["full"].data, begun).to_bytes()

    def whole(name: str) -> object:
        return _verify(cases[name].quoted, policy, cases[name].data, begun)

    def rest(name: str) -> object:
        progress = ImaProgress.from_bytes(kept)
        return _verify(cases[name].quoted, policies[progress.policy], cases[name].data, progress).to_bytes()

    def memo() -> float:
        whole("full")
        return _cpu(lambda: whole("full"))

    return {
        "full": lambda: _alone(lambda: whole("full"), policy),
        "few": lambda: _alone(lambda: whole("few"), policy),
        "memo": memo,
        "none": lambda: _alone(lambda: rest("none"), policy),
        "some": lambda: _alone(lambda: rest("some"), policy),
    }


@contextmanager
def _peer(made: _Made, cases: dict[str, _Case]) -> Iterator[Callable[[str], float]]:
    """Keylime in its own process; asked for a case and a mode, it gives the CPU seconds of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pem = cases["full"].quoted.ak.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "ak.pem").write_bytes(pem)
        (folder / "policy.json").write_text(made.runtime_policy(), encoding="utf-8")
        (folder / "aggregate").write_text(made.aggregate.hex(), encoding="utf-8")
        for case_name, case in cases.items():
            (folder / case_name).mkdir()
            parts = {
                "nonce": case.quoted.nonce.encode(),
                "quote": case.quoted.quote.attest,
                "signature": case.quoted.quote.signature,
                "pcrs": case.quoted.pcrs(),
                "list": case.data,
            }
            for part, data in parts.items():
                (folder / case_name / part).write_bytes(data)
        with asking("keylime", "peer_keylime.py", folder, cwd=folder) as ask:
            yield ask


def _alone(work: Work, policy: CompiledPolicy) -> float:
    """CPU seconds with nothing remembered of any entry."""
    policy.forget()
    return _cpu(work)


def _cpu(work: Work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
