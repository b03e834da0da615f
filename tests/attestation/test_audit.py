"""Audits: what is true passes, what is no bundle does not, and no flipped bit goes unnoticed."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation import bundle, evidence
from attestation.api import AuthorizationRequest
from attestation.audit import NOTHING, PASS, verify_bundle
from attestation.bundle import Bundle, Consistency, Leaf, Root
from attestation.cose import EDDSA, ES256, SoftwareSigner
from attestation.errors import Malformed
from attestation.intent import sign_intent
from attestation.log import Record
from attestation.node import NodeRecord
from attestation.reference import References
from attestation.tpm.ima.policy import ImaPolicy
from tests.attestation.forge import NAMES, failing, forger, story
from tests.verifier.hall import Hall, denied
from verifier.authorize import authorize
from verifier.bundles import make_bundle

OTHER = SoftwareSigner.generate(ES256)
SOONER, LATER = (Consistency(size=size, path=()) for size in (2, 3))
OTHER_LOG = SoftwareSigner.generate(EDDSA)


# --- what is true passes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forged", [False, True])
def test_an_honest_run_passes(forged: bool) -> None:
    checks = verify_bundle(forger().bundle() if forged else story().run, story().root)
    assert [check.outcome for check in checks] == [PASS] * 17
    assert all(check.ok for check in checks)


def test_an_honest_denial_passes() -> None:
    checks = verify_bundle(story().refused, story().root)
    outcomes = {check.name: check.outcome for check in checks}
    nothing = ("evidence", "grant", "agreement", "leases", "report")
    assert outcomes == {name: NOTHING if name in nothing else PASS for name in NAMES}
    assert all(check.ok for check in checks)


def test_a_denial_for_a_bad_signature_passes() -> None:
    checks = verify_bundle(story().unsigned, story().root)
    assert all(check.ok for check in checks)
    assert checks[6].outcome == checks[14].outcome == NOTHING


def test_a_denial_by_policy_passes() -> None:
    assert all(check.ok for check in verify_bundle(story().roleless, story().root))


def test_a_job_without_a_report_is_open() -> None:
    made = forger()
    made.records.pop()
    made.blobs = {d: b for d, b in made.blobs.items() if any(d in r.digests.values() for r in made.records)}
    checks = {check.name: check for check in verify_bundle(made.bundle(), story().root)}
    assert all(check.ok for check in checks.values())
    assert checks["report"].detail == "no report yet"
    assert "lease: issued" in checks["sequence"].detail


def test_a_denial_may_rest_on_facts_of_its_moment() -> None:
    made = forger()
    made.change(4, outcome="deny", reasons=("grant.revoked",), determining=())
    made.rename(4, "lease", None)
    made.leases.pop()
    checks = verify_bundle(made.bundle(), story().root)
    assert all(check.ok for check in checks)
    assert checks[15].detail.endswith("facts of the moment: grant.revoked")


# --- what is not, does not -------------------------------------------------------------------------------------------


def test_what_is_no_bundle() -> None:
    for data in (b"", b"\xa0", story().run[:-1], story().run + b"\0", b"x" * 1000, story().run[1:]):
        assert failing(data).name == "parse"


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        pytest.param("bundle.profile", {"profile": "tag:interlock,2026:bundle/2"}, id="another profile"),
        pytest.param("bundle.empty", {"leaves": ()}, id="no records"),
        pytest.param("bundle.order", {"consistency": (LATER, SOONER)}, id="proofs not sorted"),
        pytest.param("bundle.order", {"consistency": (LATER, LATER)}, id="a proof twice"),
        pytest.param("wire.size", {"job": bytes(15)}, id="short job"),
        pytest.param("wire.order", {"archive": (b"b", b"a")}, id="archive not sorted"),
        pytest.param("wire.order", {"archive": (b"a", b"a")}, id="a piece twice"),
    ],
)
def test_what_cannot_be_a_bundle(reason: str, changes: dict[str, Any]) -> None:
    failed = failing(replace(Bundle.from_bytes(story().run), **changes).to_bytes())
    assert (failed.name, failed.reason) == ("parse", reason)


@pytest.mark.parametrize(
    ("name", "reason", "root"),
    [
        pytest.param("checkpoint", "checkpoint.unsigned", lambda r: replace(r, log=OTHER_LOG.public), id="log key"),
        pytest.param("checkpoint", "checkpoint.key", lambda r: replace(r, log=r.grant), id="log key of another kind"),
        pytest.param("grant", "cose.kid", lambda r: replace(r, grant=OTHER.public), id="grant key"),
    ],
)
def test_other_roots(name: str, reason: str, root: Callable[[Root], Root]) -> None:
    failed = failing(story().run, root(story().root))
    assert (failed.name, failed.reason) == (name, reason)


def test_leases_of_a_denied_request_are_found() -> None:
    made = forger(story().refused)
    made.finish = lambda bundle: replace(bundle, leases=(b"lease",))
    assert failing(made.bundle()).reason == "bundle.grant"


def test_the_number_that_is_missing_is_told() -> None:
    made = forger()
    made.finish = lambda bundle: replace(bundle, leaves=(*bundle.leaves[:2], *bundle.leaves[4:]))
    assert failing(made.bundle()).detail == "missing 2 of 6; the first is 2"


def test_what_differs_in_the_claims_is_told() -> None:
    made = forger()
    node = NodeRecord.from_bytes(made.read(3, "node"))
    made.rename(3, "node", replace(node, firmware=1).to_bytes())
    told = failing(made.bundle()).detail
    assert told.startswith("record 3, made by interlock ")
    assert told.endswith("appraised again differs in tpm, tpm.firmware fails")


def test_five_hundred_flipped_bits_are_all_found() -> None:
    dice, honest = random.Random(11), story().run
    for _ in range(500):
        data = bytearray(honest)
        bit = dice.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        failing(bytes(data))


# --- the roots -------------------------------------------------------------------------------------------------------

GRANT_PEM, LOG_PEM = OTHER.public.to_pem(), OTHER_LOG.public.to_pem()


def test_root_is_read() -> None:
    assert Root.from_pem(GRANT_PEM + LOG_PEM) == Root(OTHER.public, OTHER_LOG.public)


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        pytest.param("root.keys", b"", id="empty"),
        pytest.param("root.keys", GRANT_PEM, id="one key"),
        pytest.param("root.keys", LOG_PEM + GRANT_PEM, id="the other way round"),
        pytest.param("root.keys", GRANT_PEM + GRANT_PEM, id="two grant keys"),
        pytest.param("root.keys", LOG_PEM + LOG_PEM, id="two log keys"),
        pytest.param("root.keys", GRANT_PEM + LOG_PEM + LOG_PEM, id="three keys"),
        pytest.param("root.keys", GRANT_PEM + LOG_PEM + b"\n", id="something behind"),
        pytest.param("root.keys", GRANT_PEM + LOG_PEM.strip(), id="no newline at the end"),
    ],
)
def test_refused_root(reason: str, data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        Root.from_pem(data)
    assert caught.value.reason == reason


def test_a_denial_for_a_challenge_of_an_older_policy_holds(tmp_path: Path) -> None:
    """Only what was *accepted* must rest on what the policy asks for."""

    async def act(hall: Hall) -> bytes:
        host, intent = await hall.furnish(), hall.intent()
        evidence = host.evidence(await hall.verifier.challenge("host"), intent)
        await hall.ask_for(0, 1)
        asked = AuthorizationRequest(intent=sign_intent(intent, hall.person), evidence=evidence)
        denial = denied(await authorize(hall.verifier, asked))
        assert "challenge.outdated" in denial.codes
        return make_bundle(hall.verifier, Record.from_bytes(denial.record).job or b"")

    with Hall(tmp_path) as hall:
        checks = verify_bundle(hall.run(act(hall)), Root.from_pem(hall.verifier.keys.root))
    assert [check.name for check in checks if not check.ok] == []


def test_whatever_is_archived_fits_in_a_bundle() -> None:
    """A whole measurement list, an IMA policy of a large image: who may run a job can have it audited."""
    large = bytes(max(evidence.MAX_SIZE, References.MAX_SIZE, 1 << 20))
    made = Bundle(job=bytes(16), checkpoint=b"", leaves=(Leaf(index=0, record=b"", path=()),), archive=(large,))
    assert Bundle.from_bytes(made.to_bytes()).archive == (large,)
    assert bundle._MAX_BLOB >= ImaPolicy.MAX_SIZE
