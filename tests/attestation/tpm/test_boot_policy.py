"""What an operator can demand of a boot: the document, its patterns, and each check with what it refuses."""

from collections.abc import Callable

import pytest

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.reasons import explain
from attestation.tpm.boot import kinds
from attestation.tpm.boot.check import CHECKS, check_boot
from attestation.tpm.boot.findings import QUIRKS
from attestation.tpm.boot.policy import MOST_TEXT, BootPolicy, matches
from attestation.tpm.boot.state import boot_state
from attestation.tpm.boot.variables import CERT_SHA256, CERT_X509, GLOBAL, SECURITY, SHIM
from attestation.tpm.eventlog import read_event_log
from tests.attestation.tpm.logs import (
    CERTIFICATES,
    COMMANDS,
    DB,
    LINE,
    OWNER,
    REVOKED,
    SHA256,
    STRICT,
    ZEROES,
    LogMaker,
    confidential,
    honest,
    lenient,
    ordered,
    sha256,
    signatures,
    state_of,
    unified,
    utf16,
    variable,
)

POLICY = lenient(**STRICT)


def test_an_honest_boot_meets_the_strictest_policy() -> None:
    check_boot(state_of(honest()), POLICY)


def test_a_policy_that_demands_nothing_still_refuses_what_is_refused() -> None:
    check_boot(state_of(honest()), lenient())
    check_boot(boot_state(read_event_log(LogMaker().first()), SHA256, ()), lenient())
    with pytest.raises(Untrusted, match=r"^tpm\.boot\.separator-missing: PCR 3"):
        check_boot(state_of(honest().remove(honest().separator(3))), lenient())


def test_the_policy_is_one_document() -> None:
    data = POLICY.to_bytes()
    assert BootPolicy.from_bytes(data) == POLICY
    assert POLICY.digest == sha256(data)
    assert lenient().digest != POLICY.digest


ORDERED = {
    "required",
    "accepted",
    "dbx_hashes",
    "db_certificates",
    "authorities",
    "mok",
    "crtm_versions",
    "platforms",
    "applications",
    "drivers",
    "files",
    "sections",
    "command_lines",
    "commands",
}
MOST = dict.fromkeys(ORDERED, 4096) | {"required": 64, "accepted": 64, "crtm_versions": 256, "platforms": 256}


def test_the_bounds_of_the_policy() -> None:
    rows = {name: bounds for _, name, _, bounds, _ in BootPolicy.layout()}
    assert {name for name, bounds in rows.items() if bounds.ordered} == ORDERED
    assert {name: rows[name].most for name in ORDERED} == MOST
    assert (rows["dbx_count"].high, rows["sbat"].high) == (1_000_000, 9_999_999_999)
    assert BootPolicy.MAX_SIZE == 1048576
    lenient().check()


MALFORMED: dict[str, dict[str, object]] = {
    "a fact that does not exist": {"required": ("happiness",)},
    "a finding that does not exist": {"accepted": ("tpm.boot.fine",)},
    "a finding that may not be accepted": {"accepted": ("tpm.boot.separator-missing",)},
    "a harmless finding": {"accepted": ("tpm.log.padding",)},
    "a certificate of SHA-1": {"authorities": (bytes(20),)},
    "a dbx hash cut short": {"dbx_hashes": (bytes(31),)},
    "a db certificate cut short": {"db_certificates": (b"",)},
    "an application of no digest": {"applications": (b"grub",)},
    "a section of no digest": {"sections": {".linux": (b"x",)}},
    "a command line without a word": {"command_lines": (" ",)},
    "a command without a word": {"commands": ("",)},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_policy_that_means_nothing_is_malformed(name: str) -> None:
    with pytest.raises(Malformed, match=r"^tpm\.boot\.policy"):
        BootPolicy.from_bytes(lenient(**MALFORMED[name]).to_bytes())


# --- patterns ---------------------------------------------------------------------------------------------------------

MATCHING = [
    ("quiet", "quiet"),
    ("a  b\tc", "a b c"),
    ("root=UUID=1 ro", "root=UUID=* ro"),
    ("/vmlinuz-6.1-amd64", "/vmlinuz-*-amd64"),
    ("abc", "a*b*c"),
    ("abbc", "*b*b*"),
    ("", ""),
    ("x", "*"),
    ("abc", "*a*"),
    ("a" * MOST_TEXT, "*"),
    ("ab", "a**b"),
]
DIFFERENT = [
    ("root=UUID=1 init=/bin/sh ro", "root=UUID=* ro"),
    ("root=UUID=1", "root=UUID=* ro"),
    ("root=UUID=1 ro ro", "root=UUID=* ro"),
    ("ro root=UUID=1", "root=UUID=* ro"),
    ("quiet", "Quiet"),
    ("quiets", "quiet"),
    ("aa", "a*a*a"),
    ("aba", "ab*ba"),
    ("ac", "a*b*c"),
    ("xabc", "a*c"),
    ("a.c", "a?c"),
    ("abc", "a.c"),
    ("abc", "[a]bc"),
    ("x", ""),
    ("a" * (MOST_TEXT + 1), "*"),
]


@pytest.mark.parametrize(("text", "pattern"), MATCHING)
def test_matches(text: str, pattern: str) -> None:
    assert matches(text, pattern)


@pytest.mark.parametrize(("text", "pattern"), DIFFERENT)
def test_does_not_match(text: str, pattern: str) -> None:
    assert not matches(text, pattern)


def test_no_pattern_takes_long() -> None:
    assert not matches("a" * MOST_TEXT, "*a" * 2000 + "*b")


# --- each check: a boot that fails it, and nothing else ---------------------------------------------------------------

Change = Callable[[LogMaker], object]
DBX_OF_ONE = variable("dbx", signatures(CERT_SHA256, REVOKED[0]), SECURITY)
AUTHORITY = kinds.VARIABLE_AUTHORITY

REFUSED: dict[str, tuple[Change, str]] = {
    "an application before the boot option": (
        lambda log: log.insert(0, 4, kinds.BOOT_APPLICATION, b"", b"shim"),
        "tpm.boot.application-early",
    ),
    "a separator twice": (lambda log: log.add(6, kinds.SEPARATOR, ZEROES), "tpm.boot.separator-duplicate"),
    "the list of images may not be complete": (lambda log: log.remove(-1), "tpm.boot.exit-missing"),
    "something in PCR 7": (lambda log: log.add(7, kinds.POST_CODE, b"", b"x"), "tpm.boot.unexplained"),
    "no disk": (lambda log: log.remove(log.index(b"EFI PART")), "tpm.boot.absent"),
    "no Secure Boot": (lambda log: log.remove(log.index("SecureBoot")), "tpm.boot.absent"),
    "Secure Boot off": (lambda log: log.replace("SecureBoot", variable("SecureBoot", b"\0")), "tpm.boot.secure-boot"),
    "Secure Boot empty": (lambda log: log.replace("SecureBoot", variable("SecureBoot", b"")), "tpm.boot.secure-boot"),
    "setup mode": (lambda log: log.replace("PK", variable("PK", b"")), "tpm.boot.mode"),
    "audit mode": (lambda log: log.replace("AuditMode", variable("AuditMode", b"\1")), "tpm.boot.mode"),
    "not deployed": (lambda log: log.replace("DeployedMode", variable("DeployedMode", b"\0")), "tpm.boot.mode"),
    "no word of deployed mode": (lambda log: log.remove(log.index("DeployedMode")), "tpm.boot.absent"),
    "no platform key measured": (lambda log: log.remove(log.index("PK")), "tpm.boot.absent"),
    "a dbx below the floor": (lambda log: log.replace("dbx", DBX_OF_ONE), "tpm.boot.dbx"),
    "no dbx": (lambda log: log.remove(log.index("dbx")), "tpm.boot.absent"),
    "a dbx without one image": (
        lambda log: log.replace("dbx", variable("dbx", signatures(CERT_SHA256, *REVOKED[1:], bytes(32)), SECURITY)),
        "tpm.boot.dbx",
    ),
    "another certificate in db": (
        lambda log: log.replace("db", variable("db", DB + signatures(CERT_X509, b"mine"), SECURITY)),
        "tpm.boot.db",
    ),
    "an image in db": (
        lambda log: log.replace("db", variable("db", DB + signatures(CERT_SHA256, bytes(32)), SECURITY)),
        "tpm.boot.db",
    ),
    "an entry of another kind in db": (
        lambda log: log.replace("db", variable("db", DB + signatures(OWNER, b"x"), SECURITY)),
        "tpm.boot.db",
    ),
    "an image believed for another certificate": (
        lambda log: log.add(7, AUTHORITY, variable("db", OWNER + CERTIFICATES[3], SECURITY)),
        "tpm.boot.authority",
    ),
    "an image believed for a machine owner's key": (
        lambda log: log.add(7, AUTHORITY, variable("MokList", b"mine", SHIM)),
        "tpm.boot.authority",
    ),
    "an SBAT level below the floor": (
        lambda log: log.replace("SbatLevel", variable("SbatLevel", b"sbat,1,2021030218\n", SHIM)),
        "tpm.boot.sbat",
    ),
    "no SBAT level": (lambda log: log.remove(log.index("SbatLevel")), "tpm.boot.absent"),
    "a machine owner's key": (lambda log: setattr(log.find(b"MokList"), "measured", b"mine"), "tpm.boot.mok"),
    "memory open to devices": (
        lambda log: log.insert(0, 7, kinds.EFI_ACTION, b"DMA Protection Disabled"),
        "tpm.boot.dma",
    ),
    "a debugger": (lambda log: log.insert(0, 7, kinds.EFI_ACTION, b"UEFI Debug Mode"), "tpm.boot.debug"),
    "other firmware": (lambda log: log.replace("firmware 7", utf16("firmware 6")), "tpm.boot.firmware"),
    "another platform": (lambda log: log.replace(b"GCE", b"GCE NonHostInfo\0" + bytes(16)), "tpm.boot.firmware"),
    "no platform": (lambda log: log.remove(log.index(b"GCE")), "tpm.boot.absent"),
    "another application": (lambda log: setattr(log.find("grubx64"), "measured", b"evil"), "tpm.boot.application"),
    "no application": (
        lambda log: log.remove(log.index("shimx64")).remove(log.index("grubx64")),
        "tpm.boot.absent",
    ),
    "another option ROM": (lambda log: log.add(2, kinds.BOOT_DRIVER, b"", b"evil"), "tpm.boot.driver"),
    "another command line": (
        lambda log: log.remove(log.index(b"kernel_cmdline")).add(8, kinds.IPL, b"kernel_cmdline: x\0", b"x"),
        "tpm.boot.command-line",
    ),
    "a command line that is neither": (lambda log: log.add(8, kinds.IPL, b"hint", b"evil"), "tpm.boot.text"),
    "a command line in PCR 12": (lambda log: log.add(12, kinds.IPL, utf16("init=/bin/sh")), "tpm.boot.command-line"),
    "a command that loads something else": (
        lambda log: log.add(8, kinds.IPL, b"grub_cmd: linux /evil\0", b"linux /evil"),
        "tpm.boot.command-line",
    ),
    "no command line": (lambda log: log.remove(log.index(b"kernel_cmdline")), "tpm.boot.absent"),
    "another command": (lambda log: log.add(8, kinds.IPL, b"grub_cmd: shell\0", b"shell"), "tpm.boot.command"),
    "another file": (lambda log: log.add(9, kinds.IPL, b"/evil\0", b"evil"), "tpm.boot.file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    change, reason = REFUSED[name]
    maker = honest()
    change(maker)
    with pytest.raises(InterlockError) as caught:
        check_boot(state_of(maker), POLICY)
    assert caught.value.reason == reason
    assert explain(reason).code == reason


def test_the_floor_of_dbx_is_a_count() -> None:
    check_boot(state_of(honest()), lenient(dbx_count=5))
    with pytest.raises(Untrusted, match=r"^tpm\.boot\.dbx.* at least 6 hashes"):
        check_boot(state_of(honest()), lenient(dbx_count=6))
    with pytest.raises(Untrusted, match=r"^tpm\.boot\.dbx.* is not revoked"):
        check_boot(state_of(honest()), lenient(dbx_hashes=(bytes(32),)))
    check_boot(state_of(honest()), lenient(dbx_hashes=()))
    check_boot(state_of(honest()), lenient(sbat=2024010900))


LISTS: dict[str, tuple[str, str]] = {
    "authorities": ("tpm.boot.authority", "event 26, PCR 7: db "),
    "mok": ("tpm.boot.mok", "said to be 'MokList'"),
    "crtm_versions": ("tpm.boot.firmware", "firmware 7"),
    "platforms": ("tpm.boot.firmware", "gce amd-sev-snp"),
    "applications": ("tpm.boot.application", "shimx64.efi"),
    "drivers": ("tpm.boot.driver", "option.rom"),
    "files": ("tpm.boot.file", "/vmlinuz-6.1"),
    "db_certificates": ("tpm.boot.db", "PCR 7: "),
    "command_lines": ("tpm.boot.command-line", LINE),
    "commands": ("tpm.boot.command", COMMANDS[0]),
}


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_list_allows_nothing(name: str) -> None:
    reason, detail = LISTS[name]
    with pytest.raises(Untrusted) as caught:
        check_boot(state_of(honest()), lenient(**{name: ()}))
    assert caught.value.reason == reason
    assert detail in caught.value.detail


NEEDED = {
    "secure_boot": True,
    "deployed_mode": True,
    "dma_protection": True,
    "no_debug": True,
    "dbx_count": 0,
    "dbx_hashes": (),
    "db_certificates": (),
    "authorities": (),
    "sbat": 0,
    "mok": (),
    "crtm_versions": (),
    "platforms": (),
    "applications": (),
    "drivers": (),
    "files": (),
    "sections": {".linux": (bytes(32),)},
    "command_lines": (),
    "commands": (),
    "required": ("secure-boot",),
}


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_demanded_must_be_shown(name: str) -> None:
    nothing = boot_state(read_event_log(LogMaker().add(0, 1, b"").to_bytes()), SHA256, ())
    with pytest.raises(Untrusted, match=r"^tpm\.boot\.absent"):
        check_boot(nothing, lenient(**{name: NEEDED[name]}))


@pytest.mark.parametrize("name", sorted(name for name, verdict in QUIRKS.items() if verdict == "excusable"))
def test_an_excusable_finding_is_refused_unless_it_is_accepted(name: str) -> None:
    spoil: dict[str, Change] = {
        "tpm.boot.application-early": lambda log: log.insert(0, 4, kinds.BOOT_APPLICATION, b"", b"agent"),
        "tpm.boot.exit-missing": lambda log: log.remove(-1),
        "tpm.boot.separator-type": lambda log: log.insert(0, 0, kinds.CRTM_CONTENTS, b"FIT", ZEROES),
        "tpm.boot.unexplained": lambda log: log.add(7, kinds.POST_CODE, b"", b"x"),
    }
    maker = honest()
    spoil[name](maker)
    state = state_of(maker)
    with pytest.raises(Untrusted) as caught:
        check_boot(state, lenient(accepted=tuple(sorted(set(spoil) - {name}))))
    assert caught.value.reason == name
    check_boot(state, lenient(accepted=(name,)))


# --- unified kernel images and confidential computing -----------------------------------------------------------------

SECTIONS = {name: (sha256(name.encode() * 9),) for name in (".linux", ".initrd")}


def test_sections_of_a_unified_kernel_image() -> None:
    check_boot(state_of(unified()), lenient(sections=SECTIONS, command_lines=(LINE,)))


SECTIONS_REFUSED: dict[str, tuple[Change, dict[str, object], str]] = {
    "another kernel": (lambda log: setattr(log.rows[-4], "measured", b"evil"), {}, "tpm.boot.section"),
    "a section more": (
        lambda log: log.add(11, kinds.IPL, utf16(".dtb"), b".dtb\0").add(11, kinds.IPL, utf16(".dtb"), b"tree"),
        {},
        "tpm.boot.section",
    ),
    "a section without a name": (lambda log: log.add(11, kinds.IPL, b"", b"evil"), {}, "tpm.boot.section"),
    "a section less": (lambda log: log.remove(-3).remove(-2), {}, "tpm.boot.absent"),
    "another command line": (lambda log: log.replace(LINE, utf16("init=/bin/sh")), {}, "tpm.boot.command-line"),
    "a section that nobody wants": (lambda log: log, {"sections": {}}, "tpm.boot.section"),
}


@pytest.mark.parametrize("name", SECTIONS_REFUSED)
def test_sections_refused(name: str) -> None:
    change, demands, reason = SECTIONS_REFUSED[name]
    maker = unified()
    change(maker)
    with pytest.raises(Untrusted) as caught:
        check_boot(state_of(maker), lenient(**({"sections": SECTIONS, "command_lines": (LINE,)} | demands)))
    assert caught.value.reason == reason


def test_revoked_images_can_be_demanded_without_a_number() -> None:
    check_boot(state_of(honest()), lenient(dbx_hashes=ordered(*REVOKED)))
    with pytest.raises(Untrusted, match=r"^tpm\.boot\.dbx"):
        check_boot(state_of(honest()), lenient(dbx_hashes=ordered(*REVOKED, bytes(32))))


def test_what_confidential_computing_can_meet() -> None:
    state = state_of(confidential())
    files = tuple(sorted(fact.raw for fact in state.all("file")))
    kept = ("required", "secure_boot", "deployed_mode", "dbx_count", "db_certificates", "sbat")
    demands = {name: STRICT[name] for name in (*kept, "command_lines", "commands")}
    demands["required"] = ("exit-boot-services",)
    check_boot(state, lenient(**demands, files=files))
    with pytest.raises(Untrusted, match=r"^tpm\.boot\.text"):
        check_boot(state, lenient(**demands))
    for name in ("authorities", "drivers", "mok"):
        with pytest.raises(Untrusted, match=r"^tpm\.boot\.absent"):
            check_boot(state, lenient(**{name: STRICT[name]}))


def test_the_checks_have_the_names_of_the_documentation() -> None:
    names = [name for name, _ in CHECKS]
    assert len(set(names)) == len(names) == 10
    text = str(check_boot.__globals__["__doc__"])
    listed = [line.split(":")[0].split()[-1] for line in text.splitlines() if ". boot." in line]
    assert listed == names


def test_secure_boot_does_not_need_a_word_of_audit_mode() -> None:
    maker = honest()
    check_boot(state_of(maker.remove(maker.index("AuditMode"))), lenient(secure_boot=True))
    assert GLOBAL != SHIM
    assert ordered(b"b", b"a") == (b"a", b"b")
