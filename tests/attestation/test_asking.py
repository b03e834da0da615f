"""Which logs a challenge asks for: by the references of the pool, and by what the policy requires."""

from dataclasses import replace

import pytest

from attestation.asking import ask
from attestation.challenge import Challenge
from attestation.policy import CHECKS, REQUIRED, UNCHECKED
from attestation.progress import HostProgress
from attestation.reference import References, ReferenceSet
from attestation.tpm.ima.progress import ImaProgress
from tests.attestation.examples import CHALLENGE, NODE, SHA256
from tests.attestation.policies import SETTINGS
from tests.attestation.test_appraise_boot import BOOT, IMA, SHA384

NOTHING = References(version=1, baselines=(), approvals=())
WANTED = {
    "no reference, nothing required": ((), NOTHING, ()),
    "no reference, and the log is required": (("event-log",), NOTHING, ("event-log",)),
    "no reference, and the list is required": (("ima",), NOTHING, ("ima",)),
    "both references, nothing required": ((), replace(NOTHING, boots=(BOOT,), lists=(IMA,)), ("event-log", "ima")),
    "one reference, the other required": (("ima",), replace(NOTHING, boots=(BOOT,)), ("event-log", "ima")),
    "pending references": ((), replace(NOTHING, boots=(replace(BOOT, state="pending"),)), ()),
}


@pytest.mark.parametrize("name", WANTED)
def test_which_logs_are_wanted(name: str) -> None:
    required, references, wanted = WANTED[name]
    checks = {check: REQUIRED if check in required else UNCHECKED for check in CHECKS}
    challenge = ask(
        NODE,
        settings=replace(SETTINGS, checks=checks),
        references=ReferenceSet(references),
        progress=None,
        nonce=CHALLENGE.nonce,
        audience=CHALLENGE.audience,
        issued=CHALLENGE.issued,
        expires_in=30,
    )
    assert challenge.wants == wanted


KNOWN = HostProgress(boot=bytes(8), log=bytes(32), ima=ImaProgress.begin(boot=bytes(8), bank=SHA256, policy=IMA.policy))
REST = {
    "what is proven is not asked for again": (SHA256, IMA, bytes(32), 0),
    "another bank: from the first entry on": (SHA384, IMA, bytes(32), None),
    "another policy: from the first entry on": (SHA256, replace(IMA, policy=bytes(32)), bytes(32), None),
}


@pytest.mark.parametrize("name", REST)
def test_what_is_asked_for_of_a_host_that_has_proven_something(name: str) -> None:
    bank, listed, log, first = REST[name]
    references = replace(NOTHING, boots=(BOOT,), lists=(listed,))
    asked = asked_of(KNOWN, references, bank)
    assert (asked.known_log, asked.ima_next) == (log, first)
    assert (asked.ima_boot is None) == (first is None)


def test_nothing_is_said_of_logs_that_nobody_looks_at() -> None:
    asked = asked_of(KNOWN, NOTHING, SHA256)
    assert (asked.known_log, asked.ima_boot, asked.ima_next, asked.wants) == (None, None, None, ())


def asked_of(progress: HostProgress, references: References, bank: int) -> Challenge:
    return ask(
        NODE,
        settings=replace(SETTINGS, bank=bank),
        references=ReferenceSet(references),
        progress=progress,
        nonce=CHALLENGE.nonce,
        audience=CHALLENGE.audience,
        issued=CHALLENGE.issued,
        expires_in=30,
    )
