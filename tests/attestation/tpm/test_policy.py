"""Policy digests: known answers that swtpm's trial sessions gave (tests/agent/test_tpm_policy.py asks it again)."""

from dataclasses import replace

import pytest

from attestation.errors import Untrusted
from attestation.keys import EDDSA, ES384, PublicKey, SoftwareSigner
from attestation.tpm.policy import (
    Terms,
    approval,
    holder_auth_policy,
    lease_policy,
    permit_policy,
    policy_public,
    policy_ref,
    sign_cp_hash,
)
from attestation.tpm.structures import ALG_SHA256, ALG_SHA384

SPKI = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d030107034200046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898"
    "c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""The base point of P-256: a key that nobody uses."""
KEY = PublicKey.from_spki(SPKI)
AK_NAME = b"\x00\x0b" + bytes(32)
LEASE = lease_policy(bank=ALG_SHA256, pcrs=(0, 3, 7), pcr_digest=b"\x05" * 32, until=123456, resets=7, restarts=5)
PERMIT = permit_policy(until=123456, resets=7, restarts=5, digest=b"\x01" * 32, key_name=b"\x00\x0b" + b"\x02" * 32)


def test_the_digests_are_those_of_a_tpm() -> None:
    assert LEASE.digest.hex() == "97cab2316a035d4a77bafb6b545475eb6e2a32b939defe13c4dc862ef23e2bc3"
    assert PERMIT.digest.hex() == "b4829c616e6889cb716c8204461dce2c7d53ef9be39c601bdcd21ebdf8127c87"
    assert holder_auth_policy(KEY, AK_NAME).hex() == "3a72f4ae0e53be73cddaa4f98d5db17d9aae4fe6c1841642143721a6036ea043"
    assert policy_public(KEY).name.hex() == "000b19366a7e682a0589dc1096b44aab74b7942f84b386b94eab81013d9970daf605"


def test_every_term_is_part_of_what_is_approved() -> None:
    assert LEASE.pcrs is not None
    others: list[Terms] = [
        replace(LEASE, until=123457),
        replace(LEASE, resets=8),
        replace(LEASE, restarts=6),
        replace(LEASE, resets=5, restarts=7),
        replace(LEASE, pcrs=None),
        replace(LEASE, pcrs=replace(LEASE.pcrs, digest=bytes(32))),
        replace(LEASE, pcrs=replace(LEASE.pcrs, pcrs=(0, 3))),
        replace(LEASE, pcrs=replace(LEASE.pcrs, bank=ALG_SHA384)),
        replace(LEASE, cp_hash=bytes(32)),
        replace(PERMIT, cp_hash=sign_cp_hash(b"\x00\x0b" + b"\x02" * 32, b"\x03" * 32)),
        replace(PERMIT, cp_hash=sign_cp_hash(b"\x00\x0b" + b"\x04" * 32, b"\x01" * 32)),
        LEASE,
        PERMIT,
    ]
    assert len({terms.digest for terms in others}) == len(others)
    assert lease_policy(bank=ALG_SHA256, pcrs=(), pcr_digest=bytes(32), until=123456, resets=7, restarts=5).pcrs is None


def test_what_is_approved_names_the_tpm() -> None:
    other = b"\x00\x0b" + b"\x01" * 32
    assert approval(LEASE, AK_NAME) == LEASE.digest + policy_ref(AK_NAME)
    assert approval(LEASE, AK_NAME) != approval(LEASE, other)
    assert holder_auth_policy(KEY, AK_NAME) != holder_auth_policy(KEY, other)


def test_another_policy_key_is_another_policy() -> None:
    other = SoftwareSigner.generate(KEY.alg).public
    assert holder_auth_policy(other, AK_NAME) != holder_auth_policy(KEY, AK_NAME)


@pytest.mark.parametrize("alg", [EDDSA, ES384])
def test_a_policy_key_is_of_p256(alg: int) -> None:
    with pytest.raises(Untrusted) as refusal:
        holder_auth_policy(SoftwareSigner.generate(alg).public, AK_NAME)
    assert refusal.value.reason == "tpm.policy.key"
