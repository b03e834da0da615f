"""The TPM's own sense of time: what may follow what (refusal matrix, rows 13 and 14).

Source: TCG TPM 2.0 Library, Part 1, 36 (Timing Components), rev 1.59. Time is the triple (resetCount, restartCount,
clock), compared in this order: clock may step back over a TPM Reset after an unclean stop, never within one boot.

The flag `safe` says "no higher *clock* value was reported before". It is 0 after every stop without TPM2_Shutdown,
for up to 69 minutes, which is what a crash or a power cut does to an honest host: a host must not be locked out for
that long. The counters protect the order there, because the stop that clears the flag is a TPM Reset. So `safe` = 0
is accepted where it has that explanation (the counters rose, or the boot was already unsafe when last seen, or nothing
was seen before) and refused where it appears in the middle of a boot that was safe, which no honest TPM does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Self

from attestation.errors import Malformed, Untrusted
from attestation.reader import Reader

CLOCK_MAX = 2**63 - 1
"""More than a TPM counts in its life, but TPM2_ClockSet goes beyond; nothing that keeps a clock has room for more."""


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """TPMS_CLOCK_INFO (10.11.1).

    | clock        | UINT64      | milliseconds of power since the last TPM2_Clear |
    | resetCount   | UINT32      | TPM Resets since TPM2_Clear                     |
    | restartCount | UINT32      | shutdowns and _TPM_Hash_Start since TPM Reset   |
    | safe         | TPMI_YES_NO | no higher clock value was reported before       |
    """

    clock: int
    reset_count: int
    restart_count: int
    safe: bool

    @classmethod
    def read(cls, reader: Reader) -> Self:
        clock, reset_count, restart_count, safe = reader.u64(), reader.u32(), reader.u32(), reader.u8()
        if safe > 1:
            raise Malformed("tpm.attest.value", f"TPMI_YES_NO is {safe}")
        if clock > CLOCK_MAX:
            raise Malformed("tpm.attest.value", f"a clock of {clock} ms")
        return cls(clock, reset_count, restart_count, safe == 1)

    def to_bytes(self) -> bytes:
        return (
            self.clock.to_bytes(8, "big")
            + self.reset_count.to_bytes(4, "big")
            + self.restart_count.to_bytes(4, "big")
            + (b"\x01" if self.safe else b"\x00")
        )


class Continuity(Enum):
    """How a clock reading follows the one before: decides whether boot state must be proven anew."""

    FIRST = "first"
    SAME_BOOT = "same-boot"
    RESUMED = "resumed"
    NEW_BOOT = "new-boot"


def check_clock(now: ClockInfo, last: ClockInfo | None) -> Continuity:
    """Return how `now` follows `last` (None: nothing was accepted before).

    (1) resetCount, then restartCount, never drop: a drop is a cleared or another TPM    tpm.clock.reset
    (2) within one boot the clock rises, milliseconds, equal is refused                  tpm.clock.backwards
    (3) within one boot `safe` never falls from 1 to 0                                   tpm.clock.unsafe
    """
    if last is None:
        return Continuity.FIRST
    counters, before = (now.reset_count, now.restart_count), (last.reset_count, last.restart_count)
    if counters < before:  # (1)
        raise Untrusted("tpm.clock.reset", f"(resetCount, restartCount) fell from {before} to {counters}")
    if counters > before:
        return Continuity.NEW_BOOT if now.reset_count > last.reset_count else Continuity.RESUMED
    if now.clock <= last.clock:  # (2)
        raise Untrusted("tpm.clock.backwards", f"the clock went from {last.clock} to {now.clock} ms")
    if last.safe and not now.safe:  # (3)
        raise Untrusted("tpm.clock.unsafe", "the clock became unsafe without a reset")
    return Continuity.SAME_BOOT


def check_firmware(now: int, enrolled: int) -> None:
    """Refuse a TPM whose firmwareVersion is not the one enrolled: tpm.firmware.changed (row 14).

    An update is legitimate, but only an operator can know; enrolling the host again accepts it.
    """
    if now != enrolled:
        raise Untrusted("tpm.firmware.changed", f"firmwareVersion 0x{now:016x}, enrolled 0x{enrolled:016x}")
