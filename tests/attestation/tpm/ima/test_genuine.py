"""Lists of real kernels: each behaves as the manifest of the evidence says, and the captured host is accepted."""

import base64
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from attestation.errors import InterlockError
from attestation.tpm.ima.appraise import ImaSubject, appraise_ima, verify_ima
from attestation.tpm.ima.measurements import read_list
from attestation.tpm.ima.policy import BOOT_AGGREGATE, PLAIN, ImaFiles, compile_policy
from attestation.tpm.ima.progress import ImaProgress
from attestation.tpm.ima.replay import BANKS, boot_aggregates, replay
from attestation.tpm.structures import ALG_SHA1, ALG_SHA256, ALG_SHA384
from tests import vectors
from tests.attestation.tpm.ima.lists import sha1

NAMES = {"sha1": ALG_SHA1, "sha256": ALG_SHA256, "sha384": ALG_SHA384}
TAILS = {"ima/sml-ima-ng-sha1.binary": 1, "ima/sml-ima-sha1.binary": 1}


def _manifest() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(vectors.path("evidence/tpm/manifest.json").read_text(encoding="utf-8"))
    return [entry for entry in found if entry["kind"] == "ima"]


def _files() -> list[str]:
    """The lists by name, or one name that is skipped where the evidence is not there."""
    if not (vectors.ROOT / "evidence/tpm/manifest.json").exists():
        return ["ima"]
    return [entry["file"] for entry in _manifest()]


@pytest.mark.parametrize("name", _files())
def test_a_genuine_list(name: str) -> None:
    (case,) = [entry for entry in _manifest() if entry["file"] == name]
    expected = case["expected"]
    found = read_list(vectors.path(f"evidence/tpm/{name}").read_bytes())
    entries = list(found.entries())
    assert len(entries) == found.count == expected.get("n", expected.get("lines"))
    assert found.tail == TAILS.get(name, 0)
    replay(found, ALG_SHA1)  # every template digest is that of its fields
    if "n" in expected:
        assert Counter(entry.template.decode() for entry in entries) == expected["templates"]
        assert {entry.pcr for entry in entries} == set(expected["pcrs"])
        assert sum(not any(entry.template_digest) for entry in entries) == expected["violations"]
        for bank, number in NAMES.items():
            assert replay(found, number).hex() == expected[f"pcr10_{bank}"]


def test_every_template_digest_is_recomputed() -> None:
    for case in _manifest():
        for entry in read_list(vectors.path(f"evidence/tpm/{case['file']}").read_bytes()).entries():
            assert entry.template_digest in (sha1(entry.data), bytes(20))


def _captured() -> dict[str, Any]:
    path = vectors.path("evidence/tpm/vm/qemu-debian12-linux6.1.json")
    captured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return captured


def _pcrs(captured: dict[str, Any], bank: str) -> dict[int, bytes]:
    return {int(index): bytes.fromhex(value) for index, value in captured[bank]["pcrs"].items()}


@pytest.mark.parametrize(("bank", "extension"), [("sha256", "hashed"), ("sha384", "padded")])
def test_the_captured_host(bank: str, extension: str) -> None:
    """Debian's Linux 6.1 has no SHA-384 when IMA starts: it extends SHA-1 into that bank."""
    captured = _captured()
    data = base64.b64decode(captured[bank]["ima"])
    entries = list(read_list(data).entries())
    assert len(entries) == 222
    listed = {(entry.name, entry.digest) for entry in entries if entry.name != BOOT_AGGREGATE}
    policy = compile_policy(replace(PLAIN, files=(ImaFiles.of("sha256", listed),), unsafe_padded=bank == "sha384"))
    pcrs = _pcrs(captured, bank)
    subject = ImaSubject(
        boot=b"1",
        bank=NAMES[bank],
        quoted=pcrs[10],
        start=0,
        aggregates=boot_aggregates({ALG_SHA256: _pcrs(captured, "sha256")}),
    )
    begun = ImaProgress.begin(boot=b"1", bank=NAMES[bank], policy=policy.digest)
    result = appraise_ima(data, subject, begun, policy)
    assert result.accepted == {"boot-aggregate": 1, "listed": 221}
    assert (result.proven, result.unproven, result.extension) == (222, 0, extension)
    assert result.progress is not None
    assert verify_ima(b"", replace(subject, start=222), result.progress, policy) == result.progress
    fewer = compile_policy(replace(policy.policy, files=(ImaFiles.of("sha256", set(sorted(listed)[1:])),)))
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.(unlisted|digest)"):
        verify_ima(data, subject, replace(begun, policy=fewer.digest), fewer)
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.boot-aggregate"):
        verify_ima(data, replace(subject, aggregates=()), begun, policy)
    with pytest.raises(InterlockError, match=r"^tpm\.ima\.mismatch"):
        verify_ima(data, replace(subject, quoted=bytes(BANKS[NAMES[bank]][2] - 1) + b"\1"), begun, policy)
    if extension == "padded":
        strict = compile_policy(replace(policy.policy, unsafe_padded=False))
        with pytest.raises(InterlockError, match=r"^tpm\.ima\.padded"):
            verify_ima(data, subject, replace(begun, policy=strict.digest), strict)


def test_the_boot_aggregate_of_a_log_and_a_list_that_belong_together() -> None:
    """The first entry of ima-evm-utils' list is the aggregate of its boot log, which the manifest replays."""
    found: list[dict[str, Any]] = json.loads(vectors.path("evidence/tpm/manifest.json").read_text(encoding="utf-8"))
    (log,) = [entry for entry in found if entry["file"] == "eventlogs/ima-evm-utils-test.bios"]
    replayed = log["expected"]["replayed_pcrs"]["sha256"]
    values = {index: bytes.fromhex(replayed.get(str(index), "00" * 32)) for index in range(10)}
    first = next(read_list(vectors.path("evidence/tpm/ima/ima-evm-utils-test.ascii").read_bytes()).entries())
    assert (first.algorithm, first.digest) in boot_aggregates({ALG_SHA256: values})
