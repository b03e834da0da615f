"""Refusals: two kinds, a stable code, a detail for people."""

import pytest

from attestation.errors import MOST_DETAIL, InterlockError, Malformed, Untrusted


@pytest.mark.parametrize("kind", [Malformed, Untrusted])
def test_a_refusal_has_a_code_and_a_detail(kind: type[InterlockError]) -> None:
    error = kind("tpm.quote.nonce", "32 bytes expected")
    assert (error.reason, error.detail, str(error)) == (
        "tpm.quote.nonce",
        "32 bytes expected",
        "tpm.quote.nonce: 32 bytes expected",
    )
    assert isinstance(error, InterlockError)


def test_a_detail_is_safe_to_show() -> None:
    error = Malformed("wire.unknown", "caf\u00e9 \x1b[2J\r\n\u202e\ud800")
    assert error.detail == "caf\u00e9 \\x1b[2J\\r\\n\\u202e\\ud800"
    assert str(error) == f"wire.unknown: {error.detail}"


@pytest.mark.parametrize("text", ["x" * 5000, "\x1b" * 5000], ids=["plain", "escaped"])
def test_a_detail_has_an_end(text: str) -> None:
    assert len(Malformed("wire.unknown", text).detail) == MOST_DETAIL


def test_the_detail_may_be_absent() -> None:
    error = Untrusted("authz.role")
    assert (error.detail, str(error)) == ("", "authz.role")


def test_who_must_act_is_never_both() -> None:
    assert not issubclass(Malformed, Untrusted)
    assert not issubclass(Untrusted, Malformed)
