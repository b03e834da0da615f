"""What is concluded from a proven log: the facts of honest boots, and what edited or odd logs do *not* lead to."""

import hashlib
from collections.abc import Callable

import pytest

from attestation.errors import Malformed, Untrusted
from attestation.tpm.boot import kinds
from attestation.tpm.boot.facts import NAMES, BootState, readable
from attestation.tpm.boot.findings import ACCEPTABLE, EXCUSABLE, HARMLESS, QUIRKS, REFUSED, UNPROVEN, Finding
from attestation.tpm.boot.state import boot_state
from attestation.tpm.boot.tagged import MOST, read_tagged
from attestation.tpm.boot.variables import (
    CERT_SHA256,
    CERT_X509,
    GLOBAL,
    SECURITY,
    SHIM,
    Database,
    Variable,
    read_database,
    value_of,
)
from attestation.tpm.eventlog import read_event_log
from tests.attestation.tpm.logs import (
    CERTIFICATES,
    COMMANDS,
    DBX,
    GCE,
    GPT,
    LINE,
    OWNER,
    REVOKED,
    SHA1,
    SHA256,
    SHA384,
    ZEROES,
    LogMaker,
    appraise,
    confidential,
    cpu_seconds,
    honest,
    sha256,
    signatures,
    state_of,
    tag,
    unified,
    utf16,
    variable,
)


def shown(state: BootState) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fact in state.facts:
        found.setdefault(fact.name, []).append(fact.value)
    return found


def names(state: BootState) -> list[str]:
    return [finding.name for finding in state.findings]


HONEST: dict[str, list[str]] = {
    "crtm-version": ["firmware 7"],
    "platform": ["gce amd-sev-snp"],
    "secure-boot": ["on"],
    "setup-mode": ["off"],
    "deployed-mode": ["on"],
    "audit-mode": ["off"],
    "pk": ["1 certificates, 0 hashes, 0 others"],
    "kek": ["1 certificates, 0 hashes, 0 others"],
    "db": ["2 certificates, 0 hashes, 0 others"],
    "dbx": ["0 certificates, 5 hashes, 0 others"],
    "driver": [sha256(b"an option ROM").hex()],
    "boot-variable": [f"Boot0001 {sha256(b'debian').hex()}"],
    "boot-option-called": ["seen"],
    "disk": [bytes(range(16)).hex()],
    "authority": [f"db {sha256(CERTIFICATES[0]).hex()}", f"Shim {sha256(CERTIFICATES[1]).hex()}"],
    "sbat-level": ["2024010900"],
    "mok-trusted": ["on"],
    "mok": [sha256(b"a list of keys").hex()],
    "application": [sha256(b"shim").hex(), sha256(b"grub").hex()],
    "command": list(COMMANDS),
    "load": [LINE],
    "command-line": [LINE],
    "file": [sha256(b"the kernel").hex(), sha256(b"the initrd").hex()],
    "exit-boot-services": ["success"],
}


def test_the_facts_of_an_honest_boot() -> None:
    state = state_of(honest())
    assert shown(state) == HONEST
    assert names(state) == ["tpm.boot.authority-padded"]
    assert state.databases["dbx"].hashes == set(REVOKED)
    assert state.databases["db"].certificates == (sha256(CERTIFICATES[0]), sha256(CERTIFICATES[1]))


def test_each_fact_names_the_event_that_proves_it() -> None:
    maker = honest()
    state = state_of(maker)
    for name, part in (("secure-boot", "SecureBoot"), ("dbx", "dbx"), ("disk", b"EFI PART"), ("sbat-level", b"sbat")):
        fact = state.one(name)
        assert fact is not None
        assert (fact.event, fact.pcr) == (maker.index(part) + 1, maker.find(part).pcr)
    application = state.all("application")[0]
    assert (application.raw, application.hint) == (sha256(b"shim"), "\\EFI\\debian\\shimx64.efi")


def test_the_same_facts_in_every_bank() -> None:
    maker = honest((SHA1, SHA256, SHA384))
    for bank, name in ((SHA1, "sha1"), (SHA384, "sha384")):
        found = shown(state_of(maker, bank))
        assert found["secure-boot"] == ["on"]
        assert found["authority"] == HONEST["authority"]
        assert found["application"] == [hashlib.new(name, image).hexdigest() for image in (b"shim", b"grub")]
    assert shown(state_of(honest((SHA1,), agile=False)))["command-line"] == [LINE]


def test_a_unified_kernel_image() -> None:
    state = state_of(unified())
    found = shown(state)
    assert found["section"] == [f"{name} {sha256(name.encode() * 9).hex()}" for name in (".linux", ".initrd")]
    assert found["command-line"] == [LINE]
    assert "command" not in found


def test_confidential_computing() -> None:
    state = state_of(confidential())
    found = shown(state)
    for name in ("secure-boot", "db", "dbx", "deployed-mode", "command-line", "sbat-level", "exit-boot-services"):
        assert len(found[name]) == 1
    assert len(found["application"]) == 3, "drivers cannot be told apart from applications"
    assert len(found["file"]) == 3, "nor can shim's lists from files"
    assert "driver" not in found
    assert "mok" not in found
    assert names(state) == ["tpm.boot.authority-padded"]


def test_nothing_is_concluded_from_registers_that_are_not_proven() -> None:
    log = read_event_log(honest().to_bytes())
    assert boot_state(log, SHA256, ()).facts == ()
    found = shown(boot_state(log, SHA256, {7}))
    assert {"secure-boot", "dbx", "sbat-level"} <= found.keys()
    assert not {"application", "command", "crtm-version", "disk"} & found.keys()
    with pytest.raises(Untrusted, match=r"^tpm\.log\.bank"):
        boot_state(log, SHA384, {7})


# --- logs that were edited after an honest boot: the quote stays, so digests stay -------------------------------------


def edited(change: Callable[[LogMaker], object]) -> BootState:
    maker = honest()
    quoted = maker.values()
    change(maker)
    return appraise(maker.to_bytes(), quoted)


def data_of(part: bytes | str, data: bytes) -> Callable[[LogMaker], object]:
    def change(log: LogMaker) -> None:
        log.find(part).data = data

    return change


def type_of(part: bytes | str, kind: int) -> Callable[[LogMaker], object]:
    def change(log: LogMaker) -> None:
        log.find(part).type = kind

    return change


def separator(pcr: int, **changes: object) -> Callable[[LogMaker], object]:
    def change(log: LogMaker) -> None:
        row = log.rows[log.separator(pcr)]
        for name, value in changes.items():
            setattr(row, name, value)

    return change


EDITED: dict[str, tuple[Callable[[LogMaker], object], str, str]] = {
    "Secure Boot said to be off": (
        data_of("SecureBoot", variable("SecureBoot", b"\0")),
        "secure-boot",
        "tpm.boot.unexplained",
    ),
    "another dbx": (data_of("dbx", variable("dbx", b"", SECURITY)), "dbx", "tpm.boot.unexplained"),
    "Secure Boot masked as unused": (type_of("SecureBoot", 2), "secure-boot", "tpm.boot.unexplained"),
    "Secure Boot masked as an action": (
        type_of("SecureBoot", kinds.EFI_ACTION),
        "secure-boot",
        "tpm.boot.unexplained",
    ),
    "Secure Boot masked as a boot variable": (
        type_of("SecureBoot", kinds.VARIABLE_BOOT),
        "secure-boot",
        "tpm.boot.unexplained",
    ),
    "Secure Boot masked as an authority": (
        type_of("SecureBoot", kinds.VARIABLE_AUTHORITY),
        "secure-boot",
        "tpm.boot.unexplained",
    ),
    "audit mode masked as an unknown type": (type_of("AuditMode", 0x8401), "audit-mode", "tpm.boot.type-unknown"),
    "an authority as a variable": (
        type_of("SbatLevel", kinds.VARIABLE_DRIVER_CONFIG),
        "sbat-level",
        "tpm.boot.authority-padded",
    ),
    "the db certificate as the db": (
        lambda log: setattr(log.rows[log.index(OWNER + CERTIFICATES[0] + b"")], "type", kinds.VARIABLE_DRIVER_CONFIG),
        "nothing",
        "tpm.boot.authority-padded",
    ),
    "an authority masked as configuration": (
        type_of("Shim", kinds.VARIABLE_DRIVER_CONFIG),
        "nothing",
        "tpm.boot.unexplained",
    ),
    "an authority masked as a boot variable": (type_of("Shim", kinds.VARIABLE_BOOT), "nothing", "tpm.boot.unexplained"),
    "another SBAT level": (data_of("SbatLevel", variable("SbatLevel", b"sbat,1,2099010100\n", SHIM)), "sbat-level", ""),
    "another command line": (
        data_of(b"kernel_cmdline", b"kernel_cmdline: quiet\0"),
        "command-line",
        "tpm.boot.text-unproven",
    ),
    "another disk": (data_of(b"EFI PART", b"EFI PART" + bytes(92)), "disk", ""),
    "another version": (data_of("firmware 7", utf16("firmware 8")), "crtm-version", "tpm.boot.version-unproven"),
    "another separator": (separator(7, data=b"\xff" * 4), "nothing", "tpm.boot.separator-digest"),
    "a separator of another value": (separator(0, data=b"WBCL"), "nothing", "tpm.boot.separator-digest"),
    "a separator under another type": (separator(4, type=kinds.EFI_ACTION), "nothing", "tpm.boot.separator-type"),
    "a separator masked as an unknown type": (separator(7, type=0x8401), "nothing", "tpm.boot.separator-missing"),
    "an image as a separator": (type_of("shimx64", kinds.SEPARATOR), "nothing", "tpm.boot.separator-value"),
}


@pytest.mark.parametrize("name", EDITED)
def test_an_edited_log_proves_less(name: str) -> None:
    change, lost, finding = EDITED[name]
    state = edited(change)
    assert lost not in shown(state)
    if finding:
        assert finding in names(state)


@pytest.mark.parametrize("kind", [kinds.VARIABLE_DRIVER_CONFIG, kinds.VARIABLE_BOOT, kinds.EFI_ACTION, 0x8401])
def test_no_type_hides_an_authority(kind: int) -> None:
    """An image was believed for a certificate of shim's, as shim measures it now: without padding."""
    maker = honest().add(7, kinds.VARIABLE_AUTHORITY, variable("Shim", b"a certificate", SHIM))
    believed = f"Shim {sha256(b'a certificate').hex()}"
    assert believed in shown(state_of(maker))["authority"]
    values = maker.values()
    maker.rows[-1].type = kind
    state = appraise(maker.to_bytes(), values)
    assert believed not in shown(state)["authority"]
    assert "tpm.boot.unexplained" in names(state)


LOOKS_LIKE = {
    "a platform": (kinds.NONHOST_INFO, GCE, "platform"),
    "a version": (kinds.CRTM_VERSION, utf16("firmware 9"), "crtm-version"),
    "a partition table": (kinds.GPT, GPT[:-1] + b"\1", "disk"),
}


@pytest.mark.parametrize("name", LOOKS_LIKE)
@pytest.mark.parametrize("pcr", [1, 3, 4, 6])
def test_what_others_have_measured_is_no_fact_of_another_register(name: str, pcr: int) -> None:
    """The operating system writes boot variables, whose values are measured: under another type they are still that."""
    kind, value, fact = LOOKS_LIKE[name]
    state = state_of(honest().insert(0, pcr, kind, value))
    assert shown(state)[fact] == HONEST[fact]
    if pcr == 4 and fact == "disk":
        assert shown(state)["application"] == [sha256(value).hex(), *HONEST["application"]]


def test_other_variables_are_no_boot_variables() -> None:
    maker = honest().insert(0, 1, kinds.VARIABLE_BOOT, variable("AuditMode", b"\0"))
    maker.insert(0, 1, kinds.VARIABLE_BOOT, variable("Boot0009", b"the vendor's", SHIM))
    maker.insert(0, 6, kinds.VARIABLE_BOOT, variable("Boot0009", b"elsewhere"))
    assert shown(state_of(maker))["boot-variable"] == HONEST["boot-variable"]


HIDDEN = {
    "as an action": kinds.EFI_ACTION,
    "as a partition table": kinds.GPT,
    "as a variable": kinds.VARIABLE_BOOT,
    "as an unknown type": 0x8401,
    "as a version": kinds.CRTM_VERSION,
    "as a tag": kinds.EVENT_TAG,
    "as a text": kinds.IPL,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_no_type_hides_an_image_a_driver_or_a_text(name: str) -> None:
    kind = HIDDEN[name]
    assert shown(edited(type_of("shimx64", kind)))["application"] == HONEST["application"]
    assert shown(edited(type_of("option.rom", kind)))["driver"] == HONEST["driver"]
    if kind != kinds.IPL:
        assert "tpm.boot.text-unproven" in names(edited(type_of(b"kernel_cmdline", kind)))
        assert len(shown(edited(type_of(b"MokList", kind)))["mok"]) == 1
    assert shown(edited(type_of(b"/vmlinuz-6.1\0", kind)))["file"] == HONEST["file"]


def test_the_bytes_of_an_image_are_no_action() -> None:
    """Whoever knows the image can log the very bytes that were hashed, under a type whose digest is of its data."""
    image = b"MZ\x90\0" + bytes(100)
    maker = honest().add(4, kinds.BOOT_APPLICATION, utf16("\\evil.efi"), image)
    quoted = maker.values()
    for data in (image, image[:200]):
        row = maker.rows[-1]
        row.type, row.data = kinds.EFI_ACTION, data
        assert shown(appraise(maker.to_bytes(), quoted))["application"][-1] == sha256(image).hex()


def test_the_label_of_a_command_is_not_believed() -> None:
    """``kernel_cmdline`` and ``grub_cmd`` are not measured: a command that loads is checked under either label."""
    maker = honest()
    quoted = maker.values()
    row = maker.find(b"grub_cmd: linux")
    row.data = row.data.replace(b"grub_cmd: ", b"kernel_cmdline: ")
    state = appraise(maker.to_bytes(), quoted)
    assert f"linux {LINE}" in shown(state)["command-line"]
    assert shown(state)["load"] == [LINE]


def test_a_text_is_not_hidden_as_a_separator() -> None:
    state = edited(type_of(b"kernel_cmdline", kinds.SEPARATOR))
    assert "tpm.boot.text-unproven" in names(state)
    assert sha256(LINE.encode()).hex() in shown(state)["file"]


ACTIONS = [
    (b"", False),
    (b"a", True),
    (b"a" * 256, True),
    (b"a" * 257, False),
    (b"said\0", True),
    (b"two\nlines", False),
    ("größer".encode(), False),
]


@pytest.mark.parametrize(("text", "action"), ACTIONS)
def test_an_action_is_a_short_text(text: bytes, action: bool) -> None:
    found = shown(state_of(honest().add(4, kinds.EFI_ACTION, text)))["application"]
    assert (sha256(text).hex() not in found) == action


SECTION_NAMES = [
    (b".linux\0", True),
    (b".abcdefghijklmn\0", True),
    (b".abcdefghijklmno\0", False),
    (b".linux", False),
    (b"linux\0", False),
    (b".linu\xfc\0", False),
    (b"\0", False),
]


@pytest.mark.parametrize(("name", "section"), SECTION_NAMES)
def test_the_name_of_a_section(name: bytes, section: bool) -> None:
    maker = LogMaker().add(11, kinds.IPL, name).add(11, kinds.IPL, b"", b"content")
    state = state_of(maker)
    assert ("section" in shown(state)) == section
    assert ("tpm.boot.text-unproven" in names(state)) != section


def test_the_name_of_a_section_in_utf_16() -> None:
    data = utf16(".abcdefghijklmn")
    maker = LogMaker().add(11, kinds.IPL, data, data[::2]).add(11, kinds.IPL, b"", b"content")
    assert shown(state_of(maker))["section"] == [f".abcdefghijklmn {sha256(b'content').hex()}"]


def test_the_disk_is_in_the_partition_table() -> None:
    assert shown(state_of(confidential()))["disk"] == HONEST["disk"]
    table = b"EFI PART" + bytes(48) + bytes(range(16))
    assert shown(state_of(honest().replace(b"EFI PART", table)))["disk"] == HONEST["disk"]
    assert "disk" not in shown(state_of(honest().replace(b"EFI PART", table[:-1])))


# --- boots that were odd ---------------------------------------------------------------------------------------------

DRIVER_CONFIG = kinds.VARIABLE_DRIVER_CONFIG
BOOTED: dict[str, tuple[Callable[[LogMaker], object], str]] = {
    "no separator": (lambda log: log.remove(log.separator(3)), "tpm.boot.separator-missing"),
    "two separators": (lambda log: log.add(6, kinds.SEPARATOR, ZEROES), "tpm.boot.separator-duplicate"),
    "a separator of ones": (separator(1, data=b"\xff" * 4, measured=b"\xff" * 4), "tpm.boot.separator-ones"),
    "a separator that says error": (
        separator(0, data=b"some detail", measured=b"\1\0\0\0"),
        "tpm.boot.separator-error",
    ),
    "a separator of another value": (separator(2, data=b"WBCL", measured=b"WBCL"), "tpm.boot.separator-value"),
    "a separator's digest elsewhere": (
        lambda log: log.insert(0, 0, kinds.CRTM_CONTENTS, b"FIT", ZEROES),
        "tpm.boot.separator-type",
    ),
    "an error under another type": (
        lambda log: log.insert(0, 0, kinds.POST_CODE, b"", b"\1\0\0\0"),
        "tpm.boot.separator-type",
    ),
    "Secure Boot measured late": (
        lambda log: log.add(7, DRIVER_CONFIG, variable("SecureBoot", b"\1")),
        "tpm.boot.variable-late",
    ),
    "Secure Boot measured twice": (
        lambda log: log.insert(0, 7, DRIVER_CONFIG, variable("SecureBoot", b"\0")),
        "tpm.boot.variable-duplicate",
    ),
    "db measured twice": (
        lambda log: log.insert(0, 7, DRIVER_CONFIG, variable("db", b"", SECURITY)),
        "tpm.boot.variable-duplicate",
    ),
    "Secure Boot of another owner": (
        lambda log: log.replace("SecureBoot", variable("SecureBoot", b"\1", SHIM)),
        "tpm.boot.variable-guid",
    ),
    "db of the owner of PK": (lambda log: log.replace("db", variable("db", b"", GLOBAL)), "tpm.boot.variable-guid"),
    "Secure Boot in PCR 1": (
        lambda log: log.insert(0, 1, DRIVER_CONFIG, variable("SecureBoot", b"\1")),
        "tpm.boot.variable-register",
    ),
    "an authority in PCR 1": (
        lambda log: log.add(1, kinds.VARIABLE_AUTHORITY, variable("db", OWNER + b"c", SECURITY)),
        "tpm.boot.variable-register",
    ),
    "Secure Boot of two": (
        lambda log: log.replace("SecureBoot", variable("SecureBoot", b"\2")),
        "tpm.boot.variable-value",
    ),
    "Secure Boot of two bytes": (
        lambda log: log.replace("SecureBoot", variable("SecureBoot", b"\1\0")),
        "tpm.boot.variable-value",
    ),
    "Secure Boot without a value": (
        lambda log: log.replace("SecureBoot", variable("SecureBoot", b"")),
        "tpm.boot.secure-boot-empty",
    ),
    "a name that is no UTF-16": (
        lambda log: log.replace("KEK", variable("KEK", b"").replace(b"K\0E\0", b"\0\xd8E\0")),
        "tpm.boot.variable-malformed",
    ),
    "a variable cut short": (
        lambda log: log.replace("KEK", variable("KEK", b"ab")[:-1]),
        "tpm.boot.variable-malformed",
    ),
    "a malformed variable in PCR 1": (
        lambda log: log.add(1, DRIVER_CONFIG, b"short"),
        "tpm.boot.variable-malformed",
    ),
    "dbx longer than its lists": (
        lambda log: log.replace("dbx", variable("dbx", DBX + b"x", SECURITY)),
        "tpm.boot.variable-malformed",
    ),
    "only the value is measured": (
        lambda log: setattr(log.find("SecureBoot"), "measured", b"\1"),
        "tpm.boot.variable-unnamed",
    ),
    "deployed mode measured late": (
        lambda log: log.remove(log.index("DeployedMode")).add(1, DRIVER_CONFIG, variable("DeployedMode", b"\1")),
        "tpm.boot.mode-late",
    ),
    "an authority before the separator": (
        lambda log: log.insert(0, 7, kinds.VARIABLE_AUTHORITY, variable("db", OWNER + b"c", SECURITY)),
        "tpm.boot.authority-early",
    ),
    "an SBAT level that is none": (
        lambda log: log.replace("SbatLevel", variable("SbatLevel", b"sbat,2,2024", SHIM)),
        "tpm.boot.variable-value",
    ),
    "two SBAT levels": (
        lambda log: log.add(7, kinds.VARIABLE_AUTHORITY, variable("SbatLevel", b"sbat,1,2099010100", SHIM)),
        "tpm.boot.variable-value",
    ),
    "an application before the boot option": (
        lambda log: log.insert(0, 4, kinds.BOOT_APPLICATION, utf16("\\agent.efi"), b"agent"),
        "tpm.boot.application-early",
    ),
    "no ExitBootServices": (lambda log: log.remove(-1).remove(-1), "tpm.boot.exit-missing"),
    "ExitBootServices failed": (
        lambda log: log.remove(-1).add(5, kinds.EFI_ACTION, b"Exit Boot Services Returned with Failure"),
        "tpm.boot.exit-missing",
    ),
    "no boot option": (lambda log: log.remove(log.index(b"Calling EFI")), "tpm.boot.call-missing"),
    "an unknown action in PCR 7": (
        lambda log: log.add(7, kinds.EFI_ACTION, b"Something else happened"),
        "tpm.boot.unexplained",
    ),
    "a version that is not what was measured": (
        lambda log: log.insert(0, 0, kinds.NONHOST_INFO, b"hint", b"other"),
        "tpm.boot.version-unproven",
    ),
    "a version that came late": (
        lambda log: log.add(0, kinds.CRTM_VERSION, utf16("another")),
        "tpm.boot.version-unproven",
    ),
    "an unknown type": (lambda log: log.add(6, 0x8401, b"vendor"), "tpm.boot.type-unknown"),
    "a text that is none": (lambda log: log.add(8, kinds.IPL, b"hint", b"other"), "tpm.boot.text-unproven"),
    "a text of control characters": (lambda log: log.add(12, kinds.IPL, utf16("a\nb")), "tpm.boot.text-unproven"),
    "a text of blanks": (lambda log: log.add(12, kinds.IPL, utf16(" ")), "tpm.boot.text-unproven"),
    "a text that is no UTF-16": (lambda log: log.add(12, kinds.IPL, b"odd"), "tpm.boot.text-unproven"),
    "a section without a name": (lambda log: log.add(11, kinds.IPL, b"hint", b"other"), "tpm.boot.text-unproven"),
    "an unproven section": (
        lambda log: log.add(11, kinds.IPL, utf16(".linux"), b"other"),
        "tpm.boot.text-unproven",
    ),
    "a tag of odd lengths": (lambda log: log.add(13, kinds.EVENT_TAG, tag(1, b"x")[:-1]), "tpm.boot.tagged"),
}


@pytest.mark.parametrize("name", BOOTED)
def test_an_odd_boot_is_found_odd(name: str) -> None:
    change, finding = BOOTED[name]
    maker = honest()
    change(maker)
    assert finding in names(state_of(maker))


def test_a_separator_of_another_register_of_confidential_computing_is_not_looked_at() -> None:
    maker = confidential().add(1, kinds.VARIABLE_BOOT, variable("BootOrder", ZEROES), ZEROES)
    assert names(state_of(maker)) == ["tpm.boot.authority-padded"]
    maker = confidential()
    maker.remove(maker.separator(1))
    assert "tpm.boot.separator-missing" in names(state_of(maker))


def test_four_zero_bytes_that_are_a_boot_order() -> None:
    maker = honest().insert(0, 1, kinds.VARIABLE_BOOT, variable("BootOrder", ZEROES), ZEROES)
    assert names(state_of(maker)) == ["tpm.boot.authority-padded"]


def test_audit_mode_in_pcr_1_and_other_variables() -> None:
    maker = honest().remove(honest().index("AuditMode"))
    maker.insert(0, 1, DRIVER_CONFIG, variable("AuditMode", b"\1")).insert(0, 1, DRIVER_CONFIG, variable("Other", b""))
    state = state_of(maker)
    assert shown(state)["audit-mode"] == ["on"]
    assert names(state) == ["tpm.boot.authority-padded"]


def test_no_platform_key_is_setup_mode() -> None:
    assert shown(state_of(honest().replace("PK", variable("PK", b""))))["setup-mode"] == ["on"]


def test_what_firmware_says_about_itself() -> None:
    maker = (
        honest()
        .insert(0, 7, kinds.EFI_ACTION, b"DMA Protection Disabled")
        .insert(0, 7, kinds.EFI_ACTION, b"UEFI Debug Mode\0")
    )
    found = shown(state_of(maker))
    assert (found["dma-protection"], found["debug"]) == (["disabled"], ["firmware-debugger"])


@pytest.mark.parametrize(
    ("version", "shown_as"),
    [
        (b"\0\0", "0000"),
        (bytes(range(16)), bytes(range(16)).hex()),
        (b"2.3.5\0", "2.3.5"),
        (b"", ""),
        ("größer".encode("utf-16-le"), "größer".encode("utf-16-le").hex()),
    ],
    ids=["NUL", "GUID", "ASCII", "nothing", "not ASCII"],
)
def test_a_version_is_shown_as_text_where_it_is_text(version: bytes, shown_as: str) -> None:
    assert shown(state_of(honest().replace("firmware 7", version)))["crtm-version"] == [shown_as]
    assert readable(version) == shown_as


def test_what_is_shown_is_not_long() -> None:
    assert readable(b"\xff" * 100) == "ff" * 64
    assert readable(b"a" * 300) == "a" * 128


@pytest.mark.parametrize("info", [b"GCE NonHostInfo\0\x63" + bytes(15), b"GCE NonHostInfo\0", b"other"])
def test_a_platform_that_is_not_known_is_shown_as_it_is(info: bytes) -> None:
    assert shown(state_of(honest().replace(b"GCE", info)))["platform"] == [readable(info)]


def test_texts_of_other_loaders() -> None:
    maker = LogMaker()
    maker.add(8, kinds.IPL, b"grub_cmd set pager=1\0", b"set pager=1\0")
    maker.add(8, kinds.IPL, b"grub_kernel_cmdline /k ro\0", b"/k ro")
    maker.add(8, kinds.IPL, b"module_cmdline: /m\0", b"/m")
    maker.add(8, kinds.IPL, utf16("initrd=\\i ro")[:-1], utf16("initrd=\\i ro"))
    maker.add(8, kinds.IPL, b"grub_cmd: \0", b"")
    maker.add(8, kinds.IPL, b"grub_cmd: echo \xff\0", b"echo \xff")
    found = shown(state_of(maker))
    assert found["command"] == ["set pager=1", "", "echo \\xff"]
    assert found["command-line"] == ["/k ro", "/m", "initrd=\\i ro"]


def test_a_bios_boot_is_no_uefi_boot() -> None:
    maker = LogMaker().add(4, kinds.ACTION, b"Calling INT 19h").add(2, kinds.EVENT_TAG, tag(7, bytes(24)))
    for pcr in range(8):
        maker.add(pcr, kinds.SEPARATOR, b"\xff" * 4)
    state = state_of(maker)
    assert set(names(state)) == {"tpm.boot.separator-ones"}
    assert set(shown(state)) == {"driver"}


# --- tagged events ----------------------------------------------------------------------------------------------------

TEST_SIGNING, HYPERVISOR_DEBUG, BOUNDARY, ELAM = 0x00050003, 0x0005000D, 0x40010001, 0x40010002


def test_switches_of_windows() -> None:
    inner = tag(TEST_SIGNING, b"\1") + tag(ELAM, tag(HYPERVISOR_DEBUG, b"\1") + tag(0x00050001, b"\0"))
    state = state_of(honest().add(13, kinds.EVENT_TAG, tag(BOUNDARY, inner)))
    assert sorted(shown(state)["debug"]) == ["hypervisor-debugging", "test-signing"]
    assert "debug" not in shown(state_of(honest().add(13, kinds.EVENT_TAG, tag(BOUNDARY, inner), b"other")))
    assert "debug" not in shown(state_of(confidential().add(3, kinds.EVENT_TAG, tag(BOUNDARY, inner))))


def test_an_unknown_tag_is_a_leaf_whatever_it_looks_like() -> None:
    inner = tag(TEST_SIGNING, b"\1")
    assert read_tagged(tag(0x77, inner)) == ((0x77, inner),)


def nested(depth: int) -> bytes:
    data = tag(1, b"")
    for _ in range(depth):
        data = tag(BOUNDARY, data)
    return data


TAGGED = {
    "a head cut short": tag(1, b"x") + b"\0" * 7,
    "a value cut short": tag(1, b"x")[:-1],
    "4 GB": b"\1\0\0\0\xff\xff\xff\xff",
    "containers three deep": nested(3),
    "containers very deep": nested(5000),
    "a container cut short inside": tag(BOUNDARY, tag(1, b"xy")[:-1]),
    "too many": tag(1, b"") * (MOST + 1),
}


@pytest.mark.parametrize("name", TAGGED)
def test_malformed_tags(name: str) -> None:
    with pytest.raises(Malformed, match=r"^tpm\.boot\.tagged"):
        read_tagged(TAGGED[name])


def test_containers_two_deep() -> None:
    assert read_tagged(nested(2)) == ((1, b""),)


# --- variables and databases ------------------------------------------------------------------------------------------


def test_a_database_of_everything() -> None:
    long = b"\x30\x82" + bytes(700)
    data = (
        signatures(CERT_X509, long) + signatures(CERT_SHA256, *REVOKED, header=b"head") + signatures(OWNER, b"a", b"b")
    )
    data += signatures(CERT_SHA256, b"too short")
    assert read_database(data) == Database((sha256(long),), frozenset(REVOKED), 3)
    assert read_database(b"").is_empty


def test_a_list_without_entries() -> None:
    assert read_database(LIST[:16] + b"\x1c\0\0\0" + LIST[20:28]).is_empty


NEGATIVE_SERIAL = bytes.fromhex("3082010a0201ff") + bytes(40)


def test_a_certificate_is_its_bytes_whatever_they_are() -> None:
    for certificate in (NEGATIVE_SERIAL, b"\0", b"no certificate at all"):
        state = state_of(honest().replace("PK", variable("PK", signatures(CERT_X509, certificate))))
        assert state.databases["pk"].certificates == (sha256(certificate),)


LIST = signatures(CERT_SHA256, REVOKED[0])
DATABASES = {
    "a list cut short in its head": LIST[:27],
    "a list cut short": LIST[:-1],
    "a byte too many": LIST + b"x",
    "a list larger than the variable": LIST[:16] + b"\xff\xff\0\0" + LIST[20:],
    "a list smaller than its head": LIST[:16] + b"\x1b\0\0\0" + LIST[20:],
    "a header larger than the list": LIST[:20] + b"\xff\0\0\0" + LIST[24:],
    "a header larger than the list, by an entry": LIST[:20] + b"\x60\0\0\0" + LIST[24:],
    "entries of nothing": LIST[:24] + bytes(4) + LIST[28:],
    "entries of an owner alone": LIST[:24] + b"\x10\0\0\0" + LIST[28:],
    "entries that do not fill the list": LIST[:24] + b"\x1f\0\0\0" + LIST[28:],
}


@pytest.mark.parametrize("name", DATABASES)
def test_malformed_databases(name: str) -> None:
    with pytest.raises(Malformed, match=r"^tpm\.boot\.database"):
        read_database(DATABASES[name])


GOOD = variable("db", b"value")
VARIABLES = {
    "nothing": (b"", "tpm.boot.variable.truncated"),
    "cut short": (GOOD[:-1], "tpm.boot.variable.truncated"),
    "a byte too many": (GOOD + b"x", "tpm.boot.variable.trailing"),
    "a value of 2^64 - 1 bytes": (GOOD[:24] + b"\xff" * 8 + GOOD[32:], "tpm.boot.variable.truncated"),
    "a name of 2^64 - 1 characters": (GOOD[:16] + b"\xff" * 8 + GOOD[24:], "tpm.boot.variable.name"),
    "a name of 513 characters": (variable("n" * 513, b""), "tpm.boot.variable.name"),
    "half a character": (GOOD.replace(b"d\0b\0", b"\0\xd8\0\0"), "tpm.boot.variable.name"),
    "a NUL in the name": (variable("db\0", b""), "tpm.boot.variable.name"),
    "a line end in the name": (variable("d\nb", b""), "tpm.boot.variable.name"),
    "an override of the writing direction": (variable("\u202edb", b""), "tpm.boot.variable.name"),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_malformed_variables(name: str) -> None:
    data, reason = VARIABLES[name]
    with pytest.raises(Malformed) as caught:
        Variable.from_bytes(data)
    assert caught.value.reason == reason


def test_a_variable_and_its_value() -> None:
    assert Variable.from_bytes(GOOD) == Variable(GLOBAL, "db", b"value")
    assert Variable.from_bytes(GOOD + bytes(5), padding=bytes(5)) == Variable(GLOBAL, "db", b"value")
    assert Variable.from_bytes(variable("n" * 512, b"")).name == "n" * 512
    assert (value_of(GOOD), value_of(GOOD + b"x"), value_of(b"")) == (b"value", b"", b"")


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_numbers_of_event_types() -> None:
    """As PFP 1.06, table 27, prints them."""
    assert {kinds.name(number): number for number in kinds.NAMES} == {
        "EV_POST_CODE": 0x1,
        "EV_NO_ACTION": 0x3,
        "EV_SEPARATOR": 0x4,
        "EV_ACTION": 0x5,
        "EV_EVENT_TAG": 0x6,
        "EV_S_CRTM_CONTENTS": 0x7,
        "EV_S_CRTM_VERSION": 0x8,
        "EV_PLATFORM_CONFIG_FLAGS": 0xA,
        "EV_TABLE_OF_DEVICES": 0xB,
        "EV_COMPACT_HASH": 0xC,
        "EV_IPL": 0xD,
        "EV_IPL_PARTITION_DATA": 0xE,
        "EV_NONHOST_CODE": 0xF,
        "EV_NONHOST_CONFIG": 0x10,
        "EV_NONHOST_INFO": 0x11,
        "EV_OMIT_BOOT_DEVICE_EVENTS": 0x12,
        "EV_EFI_VARIABLE_DRIVER_CONFIG": 0x80000001,
        "EV_EFI_VARIABLE_BOOT": 0x80000002,
        "EV_EFI_BOOT_SERVICES_APPLICATION": 0x80000003,
        "EV_EFI_BOOT_SERVICES_DRIVER": 0x80000004,
        "EV_EFI_RUNTIME_SERVICES_DRIVER": 0x80000005,
        "EV_EFI_GPT_EVENT": 0x80000006,
        "EV_EFI_ACTION": 0x80000007,
        "EV_EFI_PLATFORM_FIRMWARE_BLOB": 0x80000008,
        "EV_EFI_HANDOFF_TABLES": 0x80000009,
        "EV_EFI_PLATFORM_FIRMWARE_BLOB2": 0x8000000A,
        "EV_EFI_HANDOFF_TABLES2": 0x8000000B,
        "EV_EFI_VARIABLE_BOOT2": 0x8000000C,
        "EV_EFI_GPT_EVENT2": 0x8000000D,
        "EV_EFI_HCRTM_EVENT": 0x80000010,
        "EV_EFI_VARIABLE_AUTHORITY": 0x800000E0,
    }
    assert kinds.name(0x8401) == "0x8401"


def test_any_type_of_uefi_makes_a_uefi_boot() -> None:
    assert "tpm.boot.exit-missing" in names(state_of(LogMaker().add(6, 0x80000000, b"")))
    assert "tpm.boot.exit-missing" not in names(state_of(LogMaker().add(6, 0x7FFFFFFF, b"")))


# --- the table of findings --------------------------------------------------------------------------------------------


def test_the_table_of_findings() -> None:
    assert set(QUIRKS.values()) == {HARMLESS, UNPROVEN, EXCUSABLE, REFUSED}
    assert {name for name in QUIRKS if QUIRKS[name] == EXCUSABLE} == ACCEPTABLE
    assert Finding("tpm.log.padding", 3, 7, "why").text == "event 3, PCR 7: why"
    assert Finding("tpm.log.padding", 0, 0).text == "event 0, PCR 0"
    assert Finding("tpm.log.padding").text == ""
    assert Finding("tpm.log.padding").verdict == HARMLESS


def test_every_fact_has_a_name_from_the_list() -> None:
    seen = set(HONEST) | {"dma-protection", "debug", "section"}
    assert seen <= NAMES
    assert NAMES - seen == {"dbt", "dbr"}


def test_facts_take_time_in_proportion_to_events() -> None:
    """A host with root extends PCR 7 as often as it likes: thousands of authorities, then as many levels."""

    def made(count: int) -> tuple[bytes, dict[int, bytes]]:
        maker = honest()
        maker.remove(maker.index("SbatLevel"))
        for number in range(count):
            maker.add(7, kinds.VARIABLE_AUTHORITY, variable("db", OWNER + number.to_bytes(4, "big"), SECURITY))
        for _ in range(count):
            maker.add(7, kinds.VARIABLE_AUTHORITY, variable("SbatLevel", b"sbat,1,2021030218\n", SHIM))
        return maker.to_bytes(), maker.values()

    few, many = made(900), made(3600)
    shorter, longer = (cpu_seconds(lambda shown=shown: appraise(*shown)) for shown in (few, many))  # type: ignore[misc]
    assert longer <= 8 * shorter
