"""Rows 29-42 of the refusal matrix, on the whole way from log and quote to policy, each with its reason code.

In each row somebody either *edits* the log of the honest boot, so that the quote stays as it was, or *boots* something
else, so that log and quote agree. ``ROWS`` names the row's test; ``MORE`` has further variants of the same rows.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from attestation.errors import InterlockError
from attestation.reasons import explain
from attestation.tpm.boot import kinds
from attestation.tpm.boot.tagged import read_tagged
from attestation.tpm.boot.variables import CERT_SHA256, CERT_X509, SECURITY, SHIM
from attestation.tpm.eventlog import prove
from attestation.tpm.ima.appraise import verify_ima
from attestation.tpm.ima.replay import boot_aggregates
from tests.attestation.tpm.ima.lists import AGGREGATED, Host, compiled
from tests.attestation.tpm.logs import (
    OWNER,
    REVOKED,
    SHA256,
    STRICT,
    ZEROES,
    LogMaker,
    appraise,
    honest,
    lenient,
    new_event,
    old_event,
    signatures,
    spec_id,
    tag,
    utf16,
    variable,
)

POLICY = lenient(**STRICT)
QUOTED = honest().values()
Act = Callable[[], object]
Change = Callable[[LogMaker], object]


def edited(*changes: Change) -> Act:
    """The log of the honest boot, changed afterwards."""

    def act() -> object:
        maker = honest()
        for change in changes:
            change(maker)
        return appraise(maker.to_bytes(), QUOTED, policy=POLICY)

    return act


def booted(*changes: Change) -> Act:
    """Another boot, truly logged."""

    def act() -> object:
        maker = honest()
        for change in changes:
            change(maker)
        return appraise(maker.to_bytes(), maker.values(), policy=POLICY)

    return act


def raw(data: bytes) -> Act:
    return lambda: appraise(data, QUOTED, policy=POLICY)


def says(part: bytes | str, **changes: object) -> Change:
    def change(log: LogMaker) -> None:
        row = log.find(part)
        for name, value in changes.items():
            setattr(row, name, value)

    return change


def without(part: bytes | str) -> Change:
    return lambda log: log.remove(log.index(part))


def other_boot() -> object:
    """A true log of the same machine, of the boot before."""
    maker = honest().replace("Boot0001", variable("Boot0001", b"another"))
    return appraise(maker.to_bytes(), QUOTED, policy=POLICY)


def other_list() -> object:
    """An IMA list that was begun on another boot."""
    values = honest().replace("Boot0001", variable("Boot0001", b"another")).values()
    begun = hashlib.sha256(b"".join(values[pcr] for pcr in range(10))).digest()
    host, policy = Host([replace(AGGREGATED, digest=begun)]), compiled()
    subject = host.subject(aggregates=boot_aggregates({SHA256: QUOTED}))
    return verify_ima(host.binary(), subject, host.begin(policy), policy)


def masked(log: LogMaker) -> None:
    """Secure Boot is off; the event is masked as unused, and an honest-looking copy appended that extends nothing."""
    log.find("SecureBoot").type = 2
    log.add(7, kinds.NO_ACTION, variable("SecureBoot", b"\1"))


def masked_boot() -> object:
    maker = honest().replace("SecureBoot", variable("SecureBoot", b"\0"))
    quoted = maker.values()
    masked(maker)
    return appraise(maker.to_bytes(), quoted, policy=POLICY)


FIRST = LogMaker().first()
DIGEST = [(SHA256, bytes(32))]
DBX = variable("dbx", signatures(CERT_SHA256, *REVOKED), SECURITY)
ELAM = tag(0x40010002, tag(0x40010002, tag(0x40010002, tag(0x00090001, b"driver"))))

ROWS: dict[int, tuple[str, Act, str]] = {
    29: ("a log that lacks an event", edited(without(b"linux /vmlinuz")), "tpm.log.mismatch"),
    30: (
        "an event type changed, which is not measured",
        edited(says("SecureBoot", type=kinds.POST_CODE)),
        "tpm.boot.unexplained",
    ),
    31: ("a required event masked as unused, a forged copy appended", masked_boot, "tpm.boot.unexplained"),
    32: ("no separator", booted(lambda log: log.remove(log.separator(4))), "tpm.boot.separator-missing"),
    33: (
        "a Secure Boot variable after the separator",
        booted(lambda log: log.add(7, kinds.VARIABLE_DRIVER_CONFIG, DBX)),
        "tpm.boot.variable-late",
    ),
    34: (
        "data that the digest does not cover",
        edited(says("dbx", data=variable("dbx", signatures(CERT_SHA256, *REVOKED, bytes(32)), SECURITY))),
        "tpm.boot.unexplained",
    ),
    35: (
        "a startup locality forged after the fact",
        edited(lambda log: log.insert(2, 0, kinds.NO_ACTION, b"StartupLocality\0\3")),
        "tpm.log.locality",
    ),
    36: (
        "Secure Boot off",
        booted(lambda log: log.replace("SecureBoot", variable("SecureBoot", b"\0"))),
        "tpm.boot.secure-boot",
    ),
    37: (
        "an option ROM that nobody lists",
        booted(lambda log: log.add(2, kinds.BOOT_DRIVER, b"", b"rom")),
        "tpm.boot.driver",
    ),
    38: (
        "no event of ExitBootServices",
        booted(without(b"Exit Boot Services Returned")),
        "tpm.boot.exit-missing",
    ),
    39: (
        "a kernel command line that is not the policy's",
        booted(lambda log: log.add(12, kinds.IPL, utf16("/vmlinuz-6.1 root=UUID=1b7e init=/bin/sh ro quiet"))),
        "tpm.boot.command-line",
    ),
    40: (
        "a Spec ID event of 0xffffffff algorithms",
        raw(old_event(0, kinds.NO_ACTION, bytes(20), spec_id(((SHA256, 32),), count=0xFFFFFFFF))),
        "tpm.log.spec-id",
    ),
    41: ("an IMA list of another boot", other_list, "tpm.ima.boot-aggregate"),
    42: (
        "a dbx whose list is longer than the event",
        booted(lambda log: log.replace("dbx", variable("dbx", DBX[-100:-1], SECURITY))),
        "tpm.boot.unexplained",
    ),
}
"""Row of the matrix: what is refused, how, and the reason that is given."""

MORE: dict[str, tuple[Act, str]] = {
    "row 29: no log": (lambda: prove(None, SHA256, QUOTED), "tpm.log.missing"),
    "row 29: an empty log": (raw(b""), "tpm.log.empty"),
    "row 29: a log cut in an event": (raw(honest().to_bytes()[:-1]), "tpm.log.truncated"),
    "row 29: a log cut between events": (edited(lambda log: log.remove(-1)), "tpm.log.mismatch"),
    "row 29: an event more": (edited(lambda log: log.add(0, 1, b"x")), "tpm.log.mismatch"),
    "row 29: two events in another order": (
        edited(lambda log: log.rows.insert(3, log.rows.pop(2))),
        "tpm.log.mismatch",
    ),
    "row 29: an event in another PCR": (edited(says("option.rom", pcr=4)), "tpm.log.mismatch"),
    "row 29: a PCR that does not exist": (edited(says("option.rom", pcr=24)), "tpm.log.register"),
    "row 30: an image under the type of a driver is still an image": (
        booted(lambda log: log.add(4, kinds.BOOT_DRIVER, utf16("\\x.efi"), b"evil")),
        "tpm.boot.application",
    ),
    "row 30: an event that was extended becomes one that was not": (
        edited(says("shimx64", type=kinds.NO_ACTION)),
        "tpm.log.mismatch",
    ),
    "row 31: masked as an unknown type": (edited(says("SecureBoot", type=0x8401)), "tpm.boot.unexplained"),
    "row 31: a forged copy that extends nothing, with a digest": (
        raw(honest().to_bytes() + new_event(7, kinds.NO_ACTION, [(SHA256, b"\1" * 32)], b"")),
        "tpm.log.no-action",
    ),
    "row 32: two separators": (booted(lambda log: log.add(4, kinds.SEPARATOR, ZEROES)), "tpm.boot.separator-duplicate"),
    "row 32: a separator of other data": (
        booted(lambda log: log.add(4, kinds.SEPARATOR, b"\2\0\0\0")),
        "tpm.boot.separator-value",
    ),
    "row 32: a digest that is not of the separator's data": (
        edited(lambda log: setattr(log.rows[log.separator(7)], "data", b"\xff" * 4)),
        "tpm.boot.separator-digest",
    ),
    "row 32: a separator that says error": (
        booted(lambda log: setattr(log.rows[log.separator(0)], "measured", b"\1\0\0\0")),
        "tpm.boot.separator-error",
    ),
    "row 32: a separator under another type": (
        edited(lambda log: setattr(log.rows[log.separator(4)], "type", kinds.EFI_ACTION)),
        "tpm.boot.separator-type",
    ),
    "row 33: an application before the boot option": (
        booted(lambda log: log.insert(0, 4, kinds.BOOT_APPLICATION, b"", b"shim")),
        "tpm.boot.application-early",
    ),
    "row 34: a command line that was not measured": (
        edited(says(b"kernel_cmdline", data=b"kernel_cmdline: /vmlinuz-6 root=UUID=2 ro quiet\0")),
        "tpm.boot.text",
    ),
    "row 34: a value without its name": (booted(says("SecureBoot", measured=b"\1")), "tpm.boot.unexplained"),
    "row 34: firmware that does not say what it is": (
        booted(says("firmware 7", measured=b"other")),
        "tpm.boot.absent",
    ),
    "row 35: a startup locality twice": (
        edited(*[lambda log: log.insert(0, 0, kinds.NO_ACTION, b"StartupLocality\0\0")] * 2),
        "tpm.log.locality",
    ),
    "row 35: a startup locality that is not true": (
        edited(lambda log: log.insert(0, 0, kinds.NO_ACTION, b"StartupLocality\0\3")),
        "tpm.log.mismatch",
    ),
    "row 35: H-CRTM in the middle": (edited(says(b"ACPI DATA", type=kinds.HCRTM)), "tpm.log.locality"),
    "row 36: setup mode": (booted(lambda log: log.replace("PK", variable("PK", b""))), "tpm.boot.mode"),
    "row 36: a variable twice": (
        booted(lambda log: log.insert(0, 7, kinds.VARIABLE_DRIVER_CONFIG, variable("SecureBoot", b"\1"))),
        "tpm.boot.variable-duplicate",
    ),
    "row 36: a variable of another owner": (
        booted(lambda log: log.replace("SecureBoot", variable("SecureBoot", b"\1", SHIM))),
        "tpm.boot.variable-guid",
    ),
    "row 36: a dbx below its floor": (
        booted(lambda log: log.replace("dbx", variable("dbx", signatures(CERT_SHA256, REVOKED[0]), SECURITY))),
        "tpm.boot.dbx",
    ),
    "row 36: a certificate more in db": (
        booted(lambda log: log.replace("db", variable("db", signatures(CERT_X509, b"mine"), SECURITY))),
        "tpm.boot.db",
    ),
    "row 36: an SBAT level below its floor": (
        booted(lambda log: log.replace("SbatLevel", variable("SbatLevel", b"sbat,1,2021030218\n", SHIM))),
        "tpm.boot.sbat",
    ),
    "row 36: a machine owner's key": (booted(says(b"MokList", measured=b"mine")), "tpm.boot.mok"),
    "row 36: an image believed for another certificate": (
        booted(lambda log: log.add(7, kinds.VARIABLE_AUTHORITY, variable("db", OWNER + b"mine", SECURITY))),
        "tpm.boot.authority",
    ),
    "row 37: an EFI application that nobody lists": (booted(says("grubx64", measured=b"x")), "tpm.boot.application"),
    "row 37: memory open to devices": (
        booted(lambda log: log.insert(0, 7, kinds.EFI_ACTION, b"DMA Protection Disabled")),
        "tpm.boot.dma",
    ),
    "row 37: memory open to devices, said under another type": (
        booted(lambda log: log.insert(0, 7, 0x8401, b"", b"DMA Protection Disabled")),
        "tpm.boot.dma",
    ),
    "row 37: a debugger of the firmware": (
        booted(lambda log: log.insert(0, 7, kinds.EFI_ACTION, b"UEFI Debug Mode")),
        "tpm.boot.debug",
    ),
    "row 37: a debugger of the hypervisor": (
        booted(lambda log: log.add(13, kinds.EVENT_TAG, tag(0x40010001, tag(0x0005000D, b"\1")))),
        "tpm.boot.debug",
    ),
    "row 37: test signing": (
        booted(lambda log: log.add(13, kinds.EVENT_TAG, tag(0x00050003, b"\1"))),
        "tpm.boot.debug",
    ),
    "row 38: measured and not logged": (edited(lambda log: log.remove(-1).remove(-1)), "tpm.log.mismatch"),
    "row 39: a command that loads something else": (
        booted(lambda log: log.add(8, kinds.IPL, b"grub_cmd: linux /evil ro\0", b"linux /evil ro")),
        "tpm.boot.command-line",
    ),
    "row 39: another initrd": (booted(lambda log: setattr(log.rows[-3], "measured", b"evil")), "tpm.boot.file"),
    "row 39: a file among the commands": (booted(lambda log: log.add(8, kinds.IPL, b"/x\0", b"evil")), "tpm.boot.text"),
    "row 40: version 1.2": (
        raw(old_event(0, kinds.NO_ACTION, bytes(20), spec_id(((SHA256, 32),), version=(1, 2)))),
        "tpm.log.spec-id",
    ),
    "row 40: an algorithm twice": (
        raw(old_event(0, kinds.NO_ACTION, bytes(20), spec_id(((SHA256, 32), (SHA256, 32))))),
        "tpm.log.spec-id",
    ),
    "row 40: a size that is not the algorithm's": (
        raw(old_event(0, kinds.NO_ACTION, bytes(20), spec_id(((SHA256, 20),)))),
        "tpm.log.spec-id",
    ),
    "row 40: an event of 3 GB": (
        raw(FIRST + new_event(0, 1, [(SHA256, bytes(32))], b"", size=3 << 30)),
        "tpm.log.size",
    ),
    "row 40: nested tags of early-launch drivers": (lambda: read_tagged(ELAM), "tpm.boot.tagged"),
    "row 41: the log of the boot before": (other_boot, "tpm.log.mismatch"),
    "row 42: a variable of 2^64 - 1 bytes": (
        booted(lambda log: log.replace("dbx", DBX[:24] + b"\xff" * 8 + DBX[32:])),
        "tpm.boot.unexplained",
    ),
    "row 42: half a UTF-16 character": (
        booted(lambda log: log.replace("KEK", variable("KEK", b"").replace(b"K\0E\0", b"\0\xd8E\0"))),
        "tpm.boot.unexplained",
    ),
    "row 42: a platform key that is no certificate is none in setup mode": (
        booted(lambda log: log.replace("PK", variable("PK", b"\x30\x82\xff\xff"))),
        "tpm.boot.unexplained",
    ),
}


def _refused(act: Act, reason: str) -> None:
    with pytest.raises(InterlockError) as caught:
        act()
    assert caught.value.reason == reason
    assert explain(reason).code == reason


def test_the_honest_boot_passes() -> None:
    appraise(honest().to_bytes(), QUOTED, policy=POLICY)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row {row}: {ROWS[row][0]}")
def test_row(row: int) -> None:
    _, act, reason = ROWS[row]
    _refused(act, reason)


@pytest.mark.parametrize("name", MORE)
def test_variant(name: str) -> None:
    act, reason = MORE[name]
    _refused(act, reason)


def test_every_row_has_further_variants() -> None:
    assert list(ROWS) == list(range(29, 43))
    counted = {row: sum(name.startswith(f"row {row}:") for name in MORE) for row in ROWS}
    assert all(counted.values())
    assert sum(counted.values()) + len(ROWS) >= 5 * len(ROWS) - 10


def test_certificates_are_never_parsed() -> None:
    """A negative serial number, or no certificate at all: the database is read, by lengths alone."""
    maker = honest().replace("PK", variable("PK", signatures(CERT_X509, bytes.fromhex("3082010a0201ff") + bytes(40))))
    assert appraise(maker.to_bytes(), maker.values(), policy=POLICY).one("pk")
