"""What a lease says about the TPM: from proven facts, never later than the lease itself, and approved for one TPM."""

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import claims as ear
from attestation.claims import Appraisal, Check
from attestation.cose import EDDSA, ES256, SoftwareSigner
from attestation.errors import Untrusted
from attestation.tpm.enforced import CHECK, is_enforced, terms_of, tpm_lease, verify_approval
from attestation.tpm.policy import approval
from tests.attestation.examples import APPRAISAL, SHA256, TPM_LEASE

POLICY = SoftwareSigner.generate(ES256)
AK_NAME = b"\x00\x0b" + bytes(32)
VALUES = {0: b"\x01" * 32, 7: b"\x02" * 32, 8: b"\x03" * 32, 10: b"\x04" * 32}
FACTS = {
    "bank": str(SHA256),
    "clock": "50000",
    "resets": "3",
    "restarts": "1",
    **{f"pcr.{index}": value.hex() for index, value in VALUES.items()},
}


def appraised(outcome: str = ear.PASS) -> Appraisal:
    return replace(APPRAISAL, facts=FACTS, checks=(Check(name=CHECK, outcome=outcome),))


def test_a_lease_is_over_the_pcrs_that_stand_still_from_the_moment_of_the_quote() -> None:
    made = tpm_lease(appraised(), issued=1000, at=1002, duration=10)
    assert made is not None
    assert (made.bank, made.pcrs, made.until) == (SHA256, (0, 7), 50_000 + 7000)
    assert (made.resets, made.restarts) == (3, 1)
    assert made.pcr_digest == sha256(VALUES[0] + VALUES[7]).digest()
    assert terms_of(made).until == made.until


@pytest.mark.parametrize("outcome", [ear.NOT_APPLICABLE, ear.NOT_RUN])
def test_a_plain_key_has_none(outcome: str) -> None:
    assert not is_enforced(appraised(outcome))
    assert tpm_lease(appraised(outcome), issued=0, at=0, duration=10) is None
    assert not is_enforced(replace(APPRAISAL, facts=FACTS))


def test_what_is_late_is_over_at_once() -> None:
    for at in (1009, 1010, 1030):
        made = tpm_lease(appraised(), issued=1000, at=at, duration=10)
        assert made is not None
        assert made.until == 50_000


@given(
    st.floats(0, 1e6, allow_nan=False),
    st.floats(0, 40, allow_nan=False),
    st.floats(0, 1, allow_nan=False),
    st.integers(10, 300),
)
def test_the_tpm_ends_no_later_than_the_lease(issued: float, took: float, quoted: float, duration: int) -> None:
    """`issued`, `took` and the quote at a fraction of it are real times; the verifier counts in whole seconds."""
    made = tpm_lease(appraised(), issued=int(issued), at=int(issued + took), duration=duration)
    assert made is not None
    quote_at, end = issued + quoted * took, issued + duration
    left = (made.until - 50_000) / 1000
    assert left == 0 or quote_at + left <= end + 1e-6


def test_an_approval_is_the_policy_keys_over_these_terms_for_this_tpm() -> None:
    terms = terms_of(TPM_LEASE)
    verify_approval(terms, POLICY.sign(approval(terms, AK_NAME)), key=POLICY.public, ak_name=AK_NAME)


TERMS = terms_of(TPM_LEASE)
GOOD = POLICY.sign(approval(TERMS, AK_NAME))
REFUSED = {
    "other terms": (replace(TERMS, until=TERMS.until + 1), GOOD, POLICY),
    "another boot": (replace(TERMS, resets=2), GOOD, POLICY),
    "the same, restarted": (replace(TERMS, restarts=1), GOOD, POLICY),
    "without PCRs": (replace(TERMS, pcrs=None), GOOD, POLICY),
    "another TPM": (TERMS, POLICY.sign(approval(TERMS, b"\x00\x0b" + b"\x01" * 32)), POLICY),
    "another key": (TERMS, GOOD, SoftwareSigner.generate(ES256)),
    "a key of another kind": (TERMS, GOOD, SoftwareSigner.generate(EDDSA)),
    "zeros": (TERMS, bytes(64), POLICY),
    "nothing": (TERMS, b"", POLICY),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_an_approval(name: str) -> None:
    terms, signature, key = REFUSED[name]
    with pytest.raises(Untrusted) as refusal:
        verify_approval(terms, signature, key=key.public, ak_name=AK_NAME)
    assert refusal.value.reason == "lease.approval"
