"""The policy document: one encoding, nothing ambiguous, compiled once."""

import gc
from dataclasses import replace

import pytest

from attestation.errors import Malformed
from attestation.tpm.ima.measurements import ASCII, BINARY
from attestation.tpm.ima.policy import PLAIN, ImaBuffer, ImaFiles, ImaKey, ImaPolicy, ImaRule, compile_policy
from attestation.tpm.ima.replay import Extender
from tests.attestation.tpm.ima.keys import certificate, ec_key, public, rsa_key
from tests.attestation.tpm.ima.lists import FILES, LISTED, sha256

KEY = ImaKey(name="vendor", keyring=b".ima", key=certificate(ec_key()), built_in=False)
BUFFER = ImaBuffer(name=b"dm_table_load", digests=(sha256(b"table"),))
RULE = ImaRule(kind="prefix", path=b"/tmp/", unchecked=("content", "violation"))
FULL = replace(
    LISTED,
    files=(*LISTED.files, ImaFiles.of("sha384", {(b"/x", bytes(48))})),
    rules=(RULE,),
    keys=(KEY, replace(KEY, name="other", key=public(rsa_key()), built_in=True)),
    buffers=(BUFFER, ImaBuffer(name=b"kexec-cmdline", digests=(), unchecked=True)),
    denied=(bytes(32),),
    cmdline_required=("ima_hash=sha256",),
    unsafe_algorithms=("md5", "sha1"),
)


@pytest.mark.parametrize("policy", [PLAIN, LISTED, FULL])
def test_one_encoding(policy: ImaPolicy) -> None:
    read = ImaPolicy.from_bytes(policy.to_bytes())
    assert read == policy
    assert read.to_bytes() == policy.to_bytes()
    assert compile_policy(read).digest == policy.digest == sha256(policy.to_bytes())


def test_a_policy_is_compiled_once() -> None:
    first = compile_policy(FULL)
    assert compile_policy(ImaPolicy.from_bytes(FULL.to_bytes())) is first
    assert compile_policy(replace(FULL, most_kexecs=1)) is not first


def files(algorithm: str, *pairs: tuple[bytes, bytes]) -> ImaFiles:
    """Files exactly in this order."""
    return ImaFiles(algorithm=algorithm, paths=b"\0".join(p for p, _ in pairs), digests=b"".join(d for _, d in pairs))


A, B = (b"/a", bytes(32)), (b"/b", bytes(32))
BAD: dict[str, tuple[ImaPolicy, str]] = {
    "a digest short": (replace(PLAIN, files=(files("sha256", (b"/a", bytes(31))),)), "tpm.ima.policy.files"),
    "a digest too many": (replace(PLAIN, files=(files("sha256", (b"/a", bytes(64))),)), "tpm.ima.policy.files"),
    "no files": (replace(PLAIN, files=(files("sha256"),)), "tpm.ima.policy.files"),
    "descending": (replace(PLAIN, files=(files("sha256", B, A),)), "tpm.ima.policy.files"),
    "twice": (replace(PLAIN, files=(files("sha256", A, A),)), "tpm.ima.policy.files"),
    "digests descending": (
        replace(PLAIN, files=(files("sha256", (b"/a", b"\1" * 32), A),)),
        "tpm.ima.policy.files",
    ),
    "an empty path": (replace(PLAIN, files=(files("sha256", (b"", bytes(32)), A),)), "tpm.ima.policy.files"),
    "a path too long": (replace(PLAIN, files=(files("sha256", (b"/" * 4097, bytes(32))),)), "tpm.ima.policy.files"),
    "boot_aggregate as a file": (
        replace(PLAIN, files=(files("sha256", (b"boot_aggregate", bytes(32))),)),
        "tpm.ima.policy.files",
    ),
    "files by md4": (replace(PLAIN, files=(files("md4", (b"/a", bytes(16))),)), "tpm.ima.policy.files"),
    "files by SHA-1": (replace(PLAIN, files=(files("sha1", (b"/a", bytes(20))),)), "tpm.ima.policy.files"),
    "an algorithm twice": (replace(PLAIN, files=(files("sha256", A), files("sha256", B))), "tpm.ima.policy.duplicate"),
    "a regular expression": (
        replace(PLAIN, rules=(replace(RULE, kind="regex"),)),
        "tpm.ima.policy.rule",
    ),
    "a rule for everything": (replace(PLAIN, rules=(replace(RULE, path=b"/"),)), "tpm.ima.policy.rule"),
    "a rule for nothing": (replace(PLAIN, rules=(replace(RULE, unchecked=()),)), "tpm.ima.policy.rule"),
    "a rule with another word": (replace(PLAIN, rules=(replace(RULE, unchecked=("all",)),)), "tpm.ima.policy.rule"),
    "a rule for boot_aggregate": (
        replace(PLAIN, rules=(replace(RULE, kind="literal", path=b"boot_aggregate"),)),
        "tpm.ima.policy.rule",
    ),
    "no key": (replace(PLAIN, keys=(replace(KEY, key=b"key"),)), "tpm.ima.policy.key"),
    "a key's name twice": (
        replace(PLAIN, keys=(KEY, replace(KEY, key=public(rsa_key())))),
        "tpm.ima.policy.duplicate",
    ),
    "a key twice": (replace(PLAIN, keys=(KEY, replace(KEY, name="other"))), "tpm.ima.policy.duplicate"),
    "two keys with one id": (
        replace(PLAIN, keys=(KEY, replace(KEY, name="other", key=certificate(ec_key(), serial=2)))),
        "tpm.ima.policy.key",
    ),
    "a buffer without digests": (replace(PLAIN, buffers=(replace(BUFFER, digests=()),)), "tpm.ima.policy.buffer"),
    "a buffer unchecked, with digests": (
        replace(PLAIN, buffers=(replace(BUFFER, unchecked=True),)),
        "tpm.ima.policy.buffer",
    ),
    "a buffer without a name": (replace(PLAIN, buffers=(replace(BUFFER, name=b""),)), "tpm.ima.policy.buffer"),
    "a buffer twice": (replace(PLAIN, buffers=(BUFFER, BUFFER)), "tpm.ima.policy.duplicate"),
    "a word for boot_aggregate": (replace(PLAIN, boot_aggregate="optional"), "tpm.ima.policy.word"),
    "an algorithm that is not weak": (replace(PLAIN, unsafe_algorithms=("sha256",)), "tpm.ima.policy.word"),
    "two words of a command line in one": (replace(PLAIN, cmdline_required=("a b",)), "tpm.ima.policy.word"),
    "no word of a command line": (replace(PLAIN, cmdline_denied=("",)), "tpm.ima.policy.word"),
    "denied digests out of order": (replace(PLAIN, denied=(b"\1" * 32, bytes(32))), "wire.order"),
}


@pytest.mark.parametrize("name", BAD)
def test_no_policy(name: str) -> None:
    policy, reason = BAD[name]
    with pytest.raises(Malformed) as caught:
        ImaPolicy.from_bytes(policy.to_bytes())
    assert caught.value.reason == reason


def test_what_is_denied_is_not_listed() -> None:
    bad = FILES[1]
    policy = compile_policy(replace(LISTED, denied=(bad.digest,)))
    assert len(policy.files[b"sha256"]) == len(FILES) - 1
    assert bad.name in policy.paths


def test_forgetting() -> None:
    policy, hashed, other = compile_policy(FULL), Extender(0x000B), Extender(0x000B, "padded")
    remembered, way = policy.remembered(hashed), policy.short_way(hashed, ASCII)
    remembered[b"raw"] = b"digest"
    assert policy.remembered(hashed) is remembered
    assert policy.short_way(hashed, ASCII) is way
    assert not policy.remembered(other)
    assert policy.short_way(other, ASCII) is not way
    assert policy.short_way(hashed, BINARY) is not way
    policy.forget()
    assert not policy.remembered(hashed)
    assert policy.short_way(hashed, ASCII) is not way


def test_a_large_policy() -> None:
    """200,000 files are read and compiled in the time of one web page, and once."""
    many = {(b"/usr/lib/package-%d/file" % number, sha256(b"%d" % number)) for number in range(200_000)}
    read = ImaPolicy.from_bytes(replace(PLAIN, files=(ImaFiles.of("sha256", many),)).to_bytes())
    policy = compile_policy(read)
    assert len(policy.files[b"sha256"]) == len(many)
    del policy
    gc.collect()
