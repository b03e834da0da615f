"""attestation.enrol: tokens that were not copied whole, and verifiers that are not the one named."""

from dataclasses import replace

import pytest

from attestation.enrol import EnrolToken, VerifierKeys, verify_keys
from attestation.errors import Malformed, Untrusted
from tests.attestation.examples import NONCE

TOKEN = EnrolToken(url="https://verifier:8443", fingerprint=NONCE, secret=bytes(reversed(NONCE)))
KEYS = VerifierKeys(
    issuer="https://verifier", origin="verifier/log", tls=b"tls", grant=b"grant", log=b"log", policy=b"policy"
)


def test_a_token_is_one_line() -> None:
    text = TOKEN.to_text()
    assert "\n" not in text
    assert EnrolToken.from_text(f" {text}\n") == TOKEN


@pytest.mark.parametrize(
    "text",
    {
        "empty": "",
        "no prefix": TOKEN.to_text().removeprefix("interlock1."),
        "other version": TOKEN.to_text().replace("interlock1.", "interlock2."),
        "not base64": "interlock1.!!!",
        "bad length": TOKEN.to_text()[:-3] + "A",
        "not ascii": "interlock1.\u00e9",
        "too long": "interlock1." + "A" * 3000,
        "another spelling": TOKEN.to_text() + "=",
    }.items(),
    ids=lambda item: item[0],
)
def test_refuses_a_token(text: tuple[str, str]) -> None:
    with pytest.raises(Malformed) as caught:
        EnrolToken.from_text(text[1])
    assert caught.value.reason in {"enrol.token", "cbor.syntax"}


def test_what_has_no_prefix_is_told_how_a_token_begins() -> None:
    with pytest.raises(Malformed, match=r"begins with 'interlock1\.'"):
        EnrolToken.from_text(TOKEN.to_text().removeprefix("interlock1."))


def test_keys_are_those_of_the_token_and_of_the_connection() -> None:
    assert verify_keys(KEYS, fingerprint=KEYS.fingerprint, tls=b"tls") == KEYS


@pytest.mark.parametrize("name", ["tls", "grant", "log", "policy"])
def test_every_key_is_in_the_fingerprint(name: str) -> None:
    other = replace(KEYS, **{name: b"other"})  # type: ignore[arg-type]
    with pytest.raises(Untrusted, match=r"enrol\.fingerprint"):
        verify_keys(other, fingerprint=KEYS.fingerprint, tls=other.tls)


def test_keys_cannot_flow_into_each_other() -> None:
    assert replace(KEYS, tls=b"tlsg", grant=b"rant").fingerprint != KEYS.fingerprint


def test_refuses_a_connection_to_somebody_else() -> None:
    with pytest.raises(Untrusted, match=r"enrol\.tls"):
        verify_keys(KEYS, fingerprint=KEYS.fingerprint, tls=b"other")
