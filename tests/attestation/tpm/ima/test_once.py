"""attestation.tpm.ima.once: a long list is judged once, and what is remembered is exactly what was found."""

from dataclasses import replace

import pytest
from typing_extensions import override

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.tpm.ima import once
from attestation.tpm.ima.once import LONG, verify_ima_once
from attestation.tpm.ima.policy import CompiledPolicy, ImaFiles
from attestation.tpm.ima.replay import Extender
from attestation.tpm.ima.shortcut import ShortWay
from tests.attestation.tpm.ima.lists import AGGREGATED, LISTED, Host, item

MANY = tuple(item(b"/usr/share/%06d/" % number + b"x" * 900) for number in range(1100))
POLICY = replace(LISTED, files=(ImaFiles.of("sha256", {(made.name, made.digest) for made in MANY}),))


class Counting(CompiledPolicy):
    """A policy that counts how often a list was gone through."""

    asked = 0

    @override
    def short_way(self, extender: Extender, form: str) -> ShortWay:
        self.asked += 1
        return super().short_way(extender, form)


def counting() -> Counting:
    return Counting(POLICY, POLICY.digest)


def host(*more: object) -> Host:
    return Host(items=[AGGREGATED, *MANY, *more])  # type: ignore[list-item]


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    once._outcomes.clear()


def test_a_long_list_is_gone_through_once() -> None:
    policy, measured = counting(), host()
    data, begun = measured.binary(), measured.begin(counting())
    subject = measured.subject(aggregates=frozenset(measured.subject().aggregates))
    assert len(data) > LONG
    first = verify_ima_once(data, subject, begun, policy)
    assert first.next == len(measured.items)
    assert verify_ima_once(bytes(bytearray(data)), subject, begun, policy) == first
    assert policy.asked == 1


def test_a_short_list_is_judged_each_time() -> None:
    policy, measured = counting(), host()
    begun = measured.begin(policy)
    subject = replace(measured.subject(), quoted=measured.pcr(5), aggregates=frozenset(measured.subject().aggregates))
    for _ in range(2):
        assert verify_ima_once(measured.binary(0, 5), subject, begun, policy).next == 5
    assert policy.asked == 2
    assert not once._outcomes


REFUSED = {
    "an entry that is not listed": (b"", Untrusted, "tpm.ima.unlisted"),
    "an entry that no kernel writes": (b"\0" * 40, Malformed, "tpm.ima.entry"),
}


@pytest.mark.parametrize(("tail", "kind", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_remembered_as_it_was(tail: bytes, kind: type[InterlockError], reason: str) -> None:
    policy, measured = counting(), host(item(b"/usr/bin/sold"))
    data, begun = measured.binary() + tail, measured.begin(policy)
    subject = measured.subject(aggregates=frozenset(measured.subject().aggregates))
    told = []
    for _ in range(3):
        with pytest.raises(kind) as caught:
            verify_ima_once(data, subject, begun, policy)
        told.append((caught.value.reason, caught.value.detail))
    assert told[0][0] == reason
    assert len(set(told)) == 1
    assert policy.asked <= 1


def test_nothing_is_remembered_for_another_question() -> None:
    policy, measured = counting(), host()
    data, begun = measured.binary(), measured.begin(policy)
    subject = measured.subject(aggregates=frozenset(measured.subject().aggregates))
    verify_ima_once(data, subject, begun, policy)
    others = {
        "tpm.ima.mismatch": (data, replace(subject, quoted=b"\1" * 32), begun, policy),
        "tpm.ima.start": (data, replace(subject, start=1), begun, policy),
        "tpm.ima.boot-aggregate": (data, replace(subject, aggregates=frozenset()), begun, policy),
        "tpm.ima.rollback": (data, subject, replace(begun, seen=10**6), policy),
        "tpm.ima.progress": (data, subject, begun, CompiledPolicy(LISTED, LISTED.digest)),
    }
    for reason, question in others.items():
        with pytest.raises(Untrusted) as caught:
            verify_ima_once(*question)
        assert caught.value.reason == reason
    with pytest.raises(Untrusted) as caught:
        verify_ima_once(data.replace(b"xxx", b"xyx", 1), subject, begun, policy)
    assert caught.value.reason == "tpm.ima.template-digest"


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST_OUTCOMES", 2)
    policy, measured = counting(), host()
    data, begun = measured.binary(), measured.begin(policy)
    subject = measured.subject(aggregates=frozenset(measured.subject().aggregates))
    for cmdline in (None, b"a", b"b"):
        verify_ima_once(data, replace(subject, cmdline=cmdline), begun, policy)
    assert len(once._outcomes) == 2
    verify_ima_once(data, replace(subject, cmdline=b"b"), begun, policy)
    assert policy.asked == 3
    verify_ima_once(data, subject, begun, policy)
    assert policy.asked == 4
