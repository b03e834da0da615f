"""Event types of a TCG event log, and the registers that the facts of a boot come from.

Source: TCG PC Client Platform Firmware Profile, version 1.06 (PFP), section 10.4.1 (types), 3.3.4 (registers); UEFI
Specification 2.10, section 38.4.1 (the registers of confidential computing: 1 holds PCRs 1 and 7, 2 holds PCRs 2 to 6,
3 holds PCRs 8 to 15).

The type of an event is *not measured*: whoever delivers the log can write any number there. Nothing here is decided by
it alone; see :mod:`attestation.tpm.boot.rules`.
"""

from dataclasses import dataclass

POST_CODE, NO_ACTION, SEPARATOR, ACTION, EVENT_TAG = 0x1, 0x3, 0x4, 0x5, 0x6
CRTM_CONTENTS, CRTM_VERSION, PLATFORM_CONFIG, COMPACT_HASH, IPL, NONHOST_INFO = 0x7, 0x8, 0xA, 0xC, 0xD, 0x11
EFI_BASE = 0x8000_0000
VARIABLE_DRIVER_CONFIG, VARIABLE_BOOT, BOOT_APPLICATION, BOOT_DRIVER, RUNTIME_DRIVER = (
    EFI_BASE + n for n in range(1, 6)
)
GPT, EFI_ACTION, FIRMWARE_BLOB, HANDOFF_TABLES = (EFI_BASE + n for n in range(6, 10))
FIRMWARE_BLOB2, HANDOFF_TABLES2, VARIABLE_BOOT2, GPT2 = (EFI_BASE + n for n in range(10, 14))
HCRTM, VARIABLE_AUTHORITY = EFI_BASE + 0x10, EFI_BASE + 0xE0

NAMES = {
    POST_CODE: "EV_POST_CODE",
    NO_ACTION: "EV_NO_ACTION",
    SEPARATOR: "EV_SEPARATOR",
    ACTION: "EV_ACTION",
    EVENT_TAG: "EV_EVENT_TAG",
    CRTM_CONTENTS: "EV_S_CRTM_CONTENTS",
    CRTM_VERSION: "EV_S_CRTM_VERSION",
    PLATFORM_CONFIG: "EV_PLATFORM_CONFIG_FLAGS",
    0xB: "EV_TABLE_OF_DEVICES",
    COMPACT_HASH: "EV_COMPACT_HASH",
    IPL: "EV_IPL",
    0xE: "EV_IPL_PARTITION_DATA",
    0xF: "EV_NONHOST_CODE",
    0x10: "EV_NONHOST_CONFIG",
    NONHOST_INFO: "EV_NONHOST_INFO",
    0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",
    VARIABLE_DRIVER_CONFIG: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    VARIABLE_BOOT: "EV_EFI_VARIABLE_BOOT",
    BOOT_APPLICATION: "EV_EFI_BOOT_SERVICES_APPLICATION",
    BOOT_DRIVER: "EV_EFI_BOOT_SERVICES_DRIVER",
    RUNTIME_DRIVER: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    GPT: "EV_EFI_GPT_EVENT",
    EFI_ACTION: "EV_EFI_ACTION",
    FIRMWARE_BLOB: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    HANDOFF_TABLES: "EV_EFI_HANDOFF_TABLES",
    FIRMWARE_BLOB2: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    HANDOFF_TABLES2: "EV_EFI_HANDOFF_TABLES2",
    VARIABLE_BOOT2: "EV_EFI_VARIABLE_BOOT2",
    GPT2: "EV_EFI_GPT_EVENT2",
    HCRTM: "EV_EFI_HCRTM_EVENT",
    VARIABLE_AUTHORITY: "EV_EFI_VARIABLE_AUTHORITY",
}


def name(kind: int) -> str:
    """The name of an event type, or its number."""
    return NAMES.get(kind, f"0x{kind:x}")


@dataclass(frozen=True, slots=True)
class Registers:
    """Where a log keeps what: the PCRs of a TPM, or the measurement registers of confidential computing.

    ``separated`` are those in which the firmware ends with a separator, exactly one where ``exact`` is set; ``phased``
    those where something rests on what came before it. ``secure`` holds the Secure Boot variables, and *nothing that
    may stay unexplained* where ``closed`` is set; ``modes`` is where some firmware measures audit and deployed mode;
    ``versions`` holds those of root of trust and platform, ``variables`` what the boot manager goes by, ``exits`` the
    partition table as well.
    """

    separated: frozenset[int]
    phased: frozenset[int]
    exact: bool
    closed: bool
    secure: int
    modes: frozenset[int]
    versions: int
    variables: int
    applications: int
    drivers: int
    exits: int
    texts: frozenset[int]
    files: frozenset[int]
    sections: int
    mok: int
    tags: frozenset[int]


NOWHERE = -1

TPM = Registers(
    separated=frozenset(range(8)),
    phased=frozenset({0, 2, 4, 5, 7}),
    exact=True,
    closed=True,
    secure=7,
    modes=frozenset({1, 7}),
    versions=0,
    variables=1,
    applications=4,
    drivers=2,
    exits=5,
    texts=frozenset({8, 12}),
    files=frozenset({9}),
    sections=11,
    mok=14,
    tags=frozenset({11, 12, 13, 14}),
)
CCEL = Registers(
    separated=frozenset({1}),
    phased=frozenset({1}),
    exact=False,
    closed=False,
    secure=1,
    modes=frozenset({1}),
    versions=NOWHERE,
    variables=1,
    applications=2,
    drivers=2,
    exits=2,
    texts=frozenset({3}),
    files=frozenset({3}),
    sections=NOWHERE,
    mok=NOWHERE,
    tags=frozenset(),
)
"""Registers 1 to 4 of a CCEL stand for several PCRs each, so less can be told apart by register."""
