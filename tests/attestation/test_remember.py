"""What is remembered is bounded by what it takes."""

import pytest

from attestation.remember import Remembered


def test_what_is_found_out_once_is_not_asked_again() -> None:
    asked: list[int] = []
    kept = Remembered[str](100)

    def find(number: int) -> str:
        asked.append(number)
        return "x" * number

    for number in (3, 3, 4, 3):
        assert kept.get(number, lambda number=number: find(number), len) == "x" * number  # type: ignore[misc]
    assert asked == [3, 4]


def test_what_nobody_asked_for_the_longest_is_forgotten() -> None:
    kept = Remembered[bytes](30)
    for key in ("a", "b", "c", "a", "d"):
        kept.get(key, lambda: bytes(10), len)
    assert list(kept._kept) == ["c", "a", "d"]


def test_what_is_too_large_is_given_and_not_kept() -> None:
    kept = Remembered[bytes](30)
    kept.get("small", lambda: bytes(10), len)
    assert kept.get("large", lambda: bytes(31), len) == bytes(31)
    assert len(kept) == 0


def test_a_refusal_is_not_remembered() -> None:
    kept = Remembered[bytes](30)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: bytes(1 // 0), len)
    assert kept.get("a", lambda: b"now", len) == b"now"
