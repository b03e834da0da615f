"""The kernel's command line: the IMA policy that the kernel was started with."""

from dataclasses import replace

import pytest

from attestation.errors import Untrusted
from attestation.tpm.ima.cmdline import verify_cmdline
from attestation.tpm.ima.policy import PLAIN

POLICY = replace(
    PLAIN,
    cmdline_required=("ima_hash=sha256", "ima_policy=tcb"),
    cmdline_denied=("ima_appraise=off", "ima_template_fmt=", "noima"),
)
GOOD = [
    b"ima_hash=sha256 ima_policy=tcb",
    b"BOOT_IMAGE=/vmlinuz root=/dev/sda ro ima_policy=tcb quiet ima_hash=sha256\n\0",
    b'ima-hash=sha256 ima_policy="tcb"',
    b'"ima_policy=tcb" ima_hash=sha256',
    b"ima_policy=tcb ima_policy=tcb ima_hash=sha256",
    b"ima_hash=sha256 ima_policy=tcb ima_appraise=enforce -- ima_hash=md5 noima",
    b'ima_hash=sha256 ima_policy=tcb x="noima ima_hash=md5"',
]
BAD = {
    "nothing": b"",
    "a word missing": b"ima_hash=sha256",
    "another value": b"ima_hash=sha1 ima_policy=tcb",
    "another value as well": b"ima_hash=sha256 ima_policy=tcb ima_hash=sha1",
    "another value, spelt otherwise": b"ima_hash=sha256 ima_policy=tcb ima-hash=sha1",
    "a weaker policy as well": b"ima_hash=sha256 ima_policy=tcb ima_policy=critical_data",
    "a denied word": b"ima_hash=sha256 ima_policy=tcb ima_appraise=off",
    "a denied word without value": b"ima_hash=sha256 ima_policy=tcb noima",
    "a denied word in quotes": b'ima_hash=sha256 ima_policy=tcb ima_appraise="off"',
    "a denied key": b"ima_hash=sha256 ima_policy=tcb ima_template_fmt=d",
    "a denied key without value": b"ima_hash=sha256 ima_policy=tcb ima-template-fmt=",
    "only after the end": b"ima_hash=sha256 -- ima_policy=tcb",
    "inside quotes": b'ima_hash=sha256 x="y ima_policy=tcb"',
    "inside quotes that do not end": b'ima_hash=sha256 x="y ima_policy=tcb',
    "a quote in the key": b'ima_hash=sha256 ima_po"licy=tcb',
    "a longer value": b"ima_hash=sha256 ima_policy=tcb2",
    "in upper case": b"ima_hash=sha256 IMA_POLICY=tcb",
}


@pytest.mark.parametrize("cmdline", GOOD)
def test_the_policy_that_is_wanted(cmdline: bytes) -> None:
    verify_cmdline(POLICY, cmdline)


@pytest.mark.parametrize("name", BAD)
def test_another_policy(name: str) -> None:
    with pytest.raises(Untrusted, match=r"^tpm\.ima\.cmdline"):
        verify_cmdline(POLICY, BAD[name])


def test_a_command_line_that_is_not_proven() -> None:
    with pytest.raises(Untrusted, match=r"^tpm\.ima\.cmdline"):
        verify_cmdline(POLICY, None)
    with pytest.raises(Untrusted, match=r"^tpm\.ima\.cmdline"):
        verify_cmdline(replace(PLAIN, cmdline_denied=("noima",)), None)


@pytest.mark.parametrize("cmdline", [None, b"", b"ima_appraise=off \xff"])
def test_a_policy_that_says_nothing(cmdline: bytes | None) -> None:
    verify_cmdline(PLAIN, cmdline)
