"""Which logs a challenge asks for: by the references of the pool, and by what the policy requires."""

from dataclasses import replace

import pytest

from attestation.asking import ask
from attestation.policy import CHECKS, REQUIRED, UNCHECKED
from attestation.reference import References, ReferenceSet
from tests.attestation.examples import CHALLENGE, NODE
from tests.attestation.policies import SETTINGS
from tests.attestation.test_appraise_boot import BOOT, IMA

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
