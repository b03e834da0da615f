"""The TPM's clock and firmware: rows 13 and 14 of the refusal matrix."""

import pytest

from attestation.errors import Untrusted
from attestation.tpm.clock import ClockInfo, Continuity, check_clock, check_firmware

LAST = ClockInfo(5000, 7, 2, True)
UNSAFE = ClockInfo(5000, 7, 2, False)

ACCEPTED: dict[str, tuple[ClockInfo, ClockInfo | None, Continuity]] = {
    "nothing before": (LAST, None, Continuity.FIRST),
    "nothing before, unsafe": (UNSAFE, None, Continuity.FIRST),
    "one millisecond later": (ClockInfo(5001, 7, 2, True), LAST, Continuity.SAME_BOOT),
    "safe again": (ClockInfo(5001, 7, 2, True), UNSAFE, Continuity.SAME_BOOT),
    "still unsafe": (ClockInfo(5001, 7, 2, False), UNSAFE, Continuity.SAME_BOOT),
    "resumed": (ClockInfo(5001, 7, 3, True), LAST, Continuity.RESUMED),
    "rebooted": (ClockInfo(5001, 8, 0, True), LAST, Continuity.NEW_BOOT),
    "rebooted, restarted": (ClockInfo(5001, 8, 4, True), LAST, Continuity.NEW_BOOT),
    "power failed: unsafe, and the clock steps back": (ClockInfo(4000, 8, 0, False), LAST, Continuity.NEW_BOOT),
}

REFUSED: dict[str, tuple[ClockInfo, ClockInfo, str]] = {
    "cleared": (ClockInfo(10, 0, 0, True), LAST, "tpm.clock.reset"),
    "fewer resets, later clock": (ClockInfo(9000, 6, 9, True), LAST, "tpm.clock.reset"),
    "fewer restarts": (ClockInfo(9000, 7, 1, True), LAST, "tpm.clock.reset"),
    "the clock stands still": (LAST, LAST, "tpm.clock.backwards"),
    "the clock went back": (ClockInfo(4999, 7, 2, True), LAST, "tpm.clock.backwards"),
    "the clock went back while unsafe": (ClockInfo(4999, 7, 2, False), UNSAFE, "tpm.clock.backwards"),
    "unsafe without a reset": (ClockInfo(5001, 7, 2, False), LAST, "tpm.clock.unsafe"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_time_goes_on(name: str) -> None:
    now, last, continuity = ACCEPTED[name]
    assert check_clock(now, last) is continuity


@pytest.mark.parametrize("name", REFUSED)
def test_row_13_time_does_not_go_back(name: str) -> None:
    now, last, reason = REFUSED[name]
    with pytest.raises(Untrusted) as refusal:
        check_clock(now, last)
    assert refusal.value.reason == reason


def test_the_enrolled_firmware_is_accepted() -> None:
    check_firmware(0x2019102300163636, 0x2019102300163636)


@pytest.mark.parametrize("now", [0, 0x2019102300163635, 0x2019102300163637])
def test_row_14_another_firmware_is_refused(now: int) -> None:
    with pytest.raises(Untrusted) as refusal:
        check_firmware(now, 0x2019102300163636)
    assert refusal.value.reason == "tpm.firmware.changed"
