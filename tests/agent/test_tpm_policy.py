"""Policies on a TPM (swtpm): the digests that the verifier computes are those of the TPM's own sessions."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tpm2_pytss import (  # type: ignore[import-untyped]  # tpm2-pytss ships no types
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_PUBLIC,
    TPMT_SIGNATURE,
    TPMT_SYM_DEF,
)

from agent.tpm import _Link, _selection
from attestation.keys import ES256, SoftwareSigner
from attestation.tpm.policy import (
    Terms,
    approval,
    holder_auth_policy,
    lease_policy,
    permit_policy,
    policy_public,
    policy_ref,
)
from attestation.tpm.structures import ALG_ECDSA, ALG_SHA256, ALG_SHA384, Signature, sized
from fixtures.swtpm import Swtpm

POLICY = SoftwareSigner.generate(ES256)
NAME = b"\x00\x0b" + bytes(range(32))


@pytest.fixture(scope="module")
def link() -> Iterator[_Link]:
    """An open link to a blank TPM: trial sessions need no key."""
    with Swtpm.start() as running:
        running.extend(3, b"x" * 32)
        made = _Link(running.tcti, 5.0)
        yield made
        made.close()


def trial(link: _Link, *steps: Callable[[Any], object]) -> bytes:
    """The digest to which `steps` lead a trial session."""
    null = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
    session = link.esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, null, TPM2_ALG.SHA256)
    with link.flushed(session):
        for step in steps:
            step(session)
        return bytes(link.esys.policy_get_digest(session))


def steps_of(link: _Link, terms: Terms) -> list[Callable[[Any], object]]:
    """The commands that `terms` speak of, written down independently of the agent's code."""
    esys = link.esys
    steps: list[Callable[[Any], object]] = []
    if terms.pcrs is not None:
        pcrs = terms.pcrs
        steps.append(lambda s: esys.policy_pcr(s, pcrs.digest, _selection(pcrs.bank, pcrs.pcrs)))
    steps.append(lambda s: esys.policy_counter_timer(s, terms.until.to_bytes(8, "big"), 5, 8))
    steps.append(lambda s: esys.policy_counter_timer(s, terms.resets.to_bytes(4, "big"), 0, 16))
    if terms.cp_hash is not None:
        steps.append(lambda s: esys.policy_cp_hash(s, terms.cp_hash))
    return steps


TERMS = {
    "lease": lease_policy(bank=ALG_SHA256, pcrs=(0, 3, 7), pcr_digest=b"\x05" * 32, until=123456, resets=7),
    "lease over another bank": lease_policy(
        bank=ALG_SHA384, pcrs=tuple(range(8)), pcr_digest=bytes(32), until=2**63 - 1, resets=2**32 - 1
    ),
    "lease without PCRs": lease_policy(bank=ALG_SHA256, pcrs=(), pcr_digest=bytes(32), until=1, resets=0),
    "permit": permit_policy(until=123456, resets=7, digest=b"\x01" * 32, key_name=NAME),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_trial_session_comes_to_the_same_digest(link: _Link, name: str) -> None:
    assert trial(link, *steps_of(link, TERMS[name])) == TERMS[name].digest


def test_an_approved_policy_is_the_holder_keys_policy(link: _Link) -> None:
    terms = TERMS["lease"]
    public, message = policy_public(POLICY.public), approval(terms, NAME)
    signature = POLICY.sign(message)
    key = link.esys.load_external(TPM2B_PUBLIC.unmarshal(sized(public.to_bytes()))[0], hierarchy=ESYS_TR.OWNER)
    with link.flushed(key):
        assert bytes(link.esys.tr_get_name(key)) == public.name
        wire = Signature(ALG_ECDSA, ALG_SHA256, (signature[:32], signature[32:])).to_bytes()
        digest = hashlib.sha256(message).digest()
        ticket = link.esys.verify_signature(key, digest, TPMT_SIGNATURE.unmarshal(wire)[0])
    reached = trial(
        link,
        lambda s: link.esys.policy_authorize(
            s, approved_policy=terms.digest, key_sign=public.name, check_ticket=ticket, policy_ref=policy_ref(NAME)
        ),
    )
    assert reached == holder_auth_policy(POLICY.public, NAME)
