"""Refusals: two kinds, a stable code, a detail for people."""

import pytest

from attestation.errors import InterlockError, Malformed, Untrusted


@pytest.mark.parametrize("kind", [Malformed, Untrusted])
def test_a_refusal_has_a_code_and_a_detail(kind: type[InterlockError]) -> None:
    error = kind("tpm.quote.nonce", "32 bytes expected")
    assert (error.reason, error.detail, str(error)) == (
        "tpm.quote.nonce",
        "32 bytes expected",
        "tpm.quote.nonce: 32 bytes expected",
    )
    assert isinstance(error, InterlockError)


def test_the_detail_may_be_absent() -> None:
    error = Untrusted("authz.role")
    assert (error.detail, str(error)) == ("", "authz.role")


def test_who_must_act_is_never_both() -> None:
    assert not issubclass(Malformed, Untrusted)
    assert not issubclass(Untrusted, Malformed)
