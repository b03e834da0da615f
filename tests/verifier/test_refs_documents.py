"""Documents of reference values: TOML there and back, and demands that are made from boots."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.tpm.boot.check import check_boot
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.policy import PLAIN
from attestation.tpm.structures import ALG_SHA1, ALG_SHA256, ALG_SHA384
from tests import vectors
from tests.attestation.tpm.ima.keys import certificate, ec_key, public
from tests.attestation.tpm.logs import COMMANDS, LINE, LogMaker, confidential, honest, lenient, unified
from verifier.refs import bootdoc, bootmade, diff, imadoc, toml

# --- TOML -------------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text())
VALUES = st.one_of(SCALARS, st.lists(st.text()), st.lists(st.integers(-5, 5)))
TABLES = st.dictionaries(st.text(), VALUES, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), st.one_of(VALUES, TABLES, st.lists(TABLES, min_size=1, max_size=3)), max_size=6))
def test_what_is_written_is_read_back(table: dict[str, Any]) -> None:
    assert toml.read(toml.write(table)) == table


def test_comments_stand_above_their_names() -> None:
    assert toml.write({"a": 1, "t": {"b": 2}}, {"a": "one", "t": "two"}) == "# one\na = 1\n\n# two\n[t]\nb = 2\n"
    with pytest.raises(TypeError):
        toml.write({"a": 1.5})


# --- boot policies ----------------------------------------------------------------------------------------------------


def state_of(log: LogMaker, bank: int = ALG_SHA256, accepted: tuple[str, ...] = ()) -> Any:
    return bootmade.proven_state(log.to_bytes(), bank, log.values(bank), accepted)


def test_the_demands_of_a_boot_are_all_that_it_proves() -> None:
    policy = bootmade.policy_of(state_of(honest()))
    assert (policy.secure_boot, policy.deployed_mode, policy.dma_protection, policy.no_debug) == (True,) * 4
    assert (policy.dbx_count, policy.sbat) == (5, 2024010900)
    assert policy.applications == tuple(sorted(hashlib.sha256(name).digest() for name in (b"shim", b"grub")))
    assert policy.drivers == (hashlib.sha256(b"an option ROM").digest(),)
    assert policy.mok == (hashlib.sha256(b"a list of keys").digest(),)
    assert policy.command_lines == (LINE,)
    assert set(policy.commands or ()) == set(COMMANDS)
    assert len(policy.authorities or ()) == len(policy.db_certificates or ()) == len(policy.files or ()) == 2


OTHER_BOOTS: dict[str, tuple[Callable[[LogMaker], LogMaker], str | None]] = {
    "another kernel": (lambda log: log.replace(b"/vmlinuz-6.1\0", b"another"), "tpm.boot.file"),
    "another command line": (lambda log: log.replace(b"kernel_cmdline", b"kernel_cmdline: init=/bin/sh\0"), None),
    "another boot loader": (lambda log: log.replace("grubx64.efi", b"grub 2"), "tpm.boot.application"),
    "another option ROM": (lambda log: log.add(2, 0x80000004, b"", b"another ROM"), "tpm.boot.driver"),
    "another list of shim's": (lambda log: log.replace(b"MokList\0", b"more keys"), "tpm.boot.mok"),
}


@pytest.mark.parametrize("name", OTHER_BOOTS)
def test_another_boot_does_not_meet_them(name: str) -> None:
    policy, (change, reason) = bootmade.policy_of(state_of(honest())), OTHER_BOOTS[name]
    with pytest.raises(Untrusted) as refused:
        check_boot(state_of(change(honest())), policy)
    assert reason is None or refused.value.reason == reason


def test_a_unified_kernel_image_and_a_confidential_machine() -> None:
    policy = bootmade.policy_of(state_of(unified()))
    assert sorted(policy.sections or {}) == [".initrd", ".linux"]
    log = confidential()
    made = bootmade.policy_of(bootmade.proven_state(log.to_bytes(), ALG_SHA384, None, ()))
    assert (made.drivers, made.mok, made.sections, made.authorities) == (None, None, None, None)
    assert made.applications


def test_a_demand_can_be_left_out() -> None:
    policy = bootmade.policy_of(state_of(honest()), without=("commands", "files"))
    assert (policy.commands, policy.files) == (None, None)
    check_boot(state_of(honest().replace(b"/vmlinuz-6.1\0", b"another")), policy)


NO_DEMANDS = {
    "a demand that does not exist": (honest(), {"without": ("colour",)}, "ref.document"),
    "a switch left out": (honest(), {"without": ("secure_boot",)}, "ref.document"),
    "a finding that does not exist": (honest(), {"accepted": ("tpm.boot.odd",)}, "ref.document"),
    "a finding that nobody may accept": (honest(), {"accepted": ("tpm.boot.separator-missing",)}, "ref.document"),
    "a finding that was not accepted": (honest().remove(-1), {}, "tpm.boot.exit-missing"),
    "a command longer than a pattern": (
        honest().add(8, 0xD, b"grub_cmd: " + b"x" * 5000 + b"\0", b"x" * 5000),
        {},
        "ref.document",
    ),
}


@pytest.mark.parametrize("name", NO_DEMANDS)
def test_boots_that_no_demands_are_made_of(name: str) -> None:
    log, options, reason = NO_DEMANDS[name]
    with pytest.raises(InterlockError) as refused:
        bootmade.policy_of(state_of(log), **options)
    assert refused.value.reason == reason


def test_a_finding_is_put_up_with_by_name() -> None:
    log = honest().remove(-1)
    accepted = ("tpm.boot.exit-missing",)
    assert bootmade.policy_of(state_of(log, accepted=accepted), accepted=accepted).accepted == accepted


@pytest.mark.parametrize("quoted", [{0: bytes(32)}, {4: b"x" * 32}])
def test_a_log_that_the_quote_does_not_prove_makes_nothing(quoted: dict[int, bytes]) -> None:
    with pytest.raises(Untrusted, match=r"tpm\.log\.mismatch"):
        bootmade.proven_state(honest().to_bytes(), ALG_SHA256, quoted, ())


GENUINE = ("arch-linux-workstation.bin", "rhel8-uefi.bin", "keylime-tests-mb_log_secureboot.bin", "debian-10.bin")


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_boots_meet_the_demands_made_of_them(name: str) -> None:
    data = (vectors.path("evidence/tpm/eventlogs") / name).read_bytes()
    bank = ALG_SHA1 if name == "debian-10.bin" else ALG_SHA256
    accepted = ("tpm.boot.exit-missing",)
    state = bootmade.proven_state(data, bank, None, accepted)
    policy = bootmade.policy_of(state, accepted=accepted)
    check_boot(state, policy)
    assert policy.applications
    assert bootdoc.read(bootdoc.write(policy)) == policy


POLICIES = {
    "nothing": lenient(),
    "everything": bootmade.policy_of(state_of(honest())),
    "sections": bootmade.policy_of(state_of(unified())),
    "empty lists": lenient(mok=(), applications=(), command_lines=(), sections={}, dbx_count=0),
    "odd texts": lenient(command_lines=('a "b" \\c', "über\x7f * \t"), platforms=("",)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_the_same_after_toml(name: str) -> None:
    policy = POLICIES[name]
    text = bootdoc.write(policy)
    assert bootdoc.read(text) == policy
    assert bootdoc.write(bootdoc.read(text)) == text


def changed(line: str) -> str:
    """The document of the strictest policy with one line more, or another one in place of that name's."""
    name = line.split(" ", maxsplit=1)[0]
    kept = [each for each in bootdoc.write(lenient()).splitlines() if not each.startswith(f"{name} =")]
    return "\n".join([*kept, line])


BAD_BOOTS = {
    "no TOML": ("secure_boot = ", "ref.document"),
    "an unknown name": (changed("colour = true"), "ref.document"),
    "a switch that is missing": (changed("no_debug_ = true"), "ref.document"),
    "a switch that is a text": (changed('no_debug = "yes"'), "ref.document"),
    "no switch at all": ("", "ref.document"),
    "a number that is true": (changed("dbx_count = true"), "ref.document"),
    "a number out of bounds": (changed("dbx_count = -1"), "wire.range"),
    "a text for a list": (changed('files = "00"'), "ref.document"),
    "a number in a list": (changed("commands = [1]"), "ref.document"),
    "a digest that is none": (changed('files = ["xyz"]'), "ref.document"),
    "a digest of an odd length": (changed('files = ["00"]'), "tpm.boot.policy"),
    "a pattern without a word": (changed('commands = [" "]'), "tpm.boot.policy"),
    "an unknown fact": (changed('required = ["weather"]'), "tpm.boot.policy"),
    "a finding that nobody may accept": (changed('accepted = ["tpm.boot.separator-value"]'), "tpm.boot.policy"),
    "sections that are a list": (changed('sections = ["00"]'), "ref.document"),
    "a section that is a text": (changed("[sections]") + '\n".linux" = "00"', "ref.document"),
}


@pytest.mark.parametrize("name", BAD_BOOTS)
def test_boot_documents_that_are_refused(name: str) -> None:
    text, reason = BAD_BOOTS[name]
    with pytest.raises(Malformed) as refused:
        bootdoc.read(text)
    assert refused.value.reason == reason


# --- demands beside the files -----------------------------------------------------------------------------------------

KEY = certificate(ec_key())
DEMANDS = f"""
boot_aggregate = "required"
most_kexecs = 1
cmdline_required = ["ima_policy=tcb", "ima_hash=sha256"]
cmdline_denied = ["ima_appraise=off"]
unsafe_algorithms = ["sha1"]
denied = ["{"ab" * 32}"]

[[rule]]
kind = "prefix"
path = "/var/lib/interlock-agent/jobs/"
unchecked = ["content"]

[[rule]]
kind = "glob"
path = "/run/user/*/**"
unchecked = ["violation", "content"]

[[key]]
name = "vendor"
keyring = ".ima"
file = "vendor.pem"
built_in = true

[[buffer]]
name = "kexec-cmdline"
digests = ["{"cd" * 32}"]

[[buffer]]
name = "dm_table_load"
unchecked = true
"""


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    pem = x509.load_der_x509_certificate(KEY).public_bytes(Encoding.PEM)
    (tmp_path / "vendor.pem").write_bytes(pem)
    (tmp_path / "vendor.der").write_bytes(KEY)
    from cryptography.hazmat.primitives.serialization import PublicFormat

    key = ec_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(key)
    (tmp_path / "broken.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n")
    return tmp_path


def test_the_demands_of_a_document(beside: Path) -> None:
    (beside / "rules.toml").write_text(DEMANDS)
    policy = imadoc.load(beside / "rules.toml")
    assert (policy.most_kexecs, policy.unsafe_algorithms, policy.denied) == (1, ("sha1",), (b"\xab" * 32,))
    assert [(rule.kind, rule.path, rule.unchecked) for rule in policy.rules] == [
        ("prefix", b"/var/lib/interlock-agent/jobs/", ("content",)),
        ("glob", b"/run/user/*/**", ("content", "violation")),
    ]
    assert [(key.name, key.key, key.built_in) for key in policy.keys] == [("vendor", KEY, True)]
    assert [(buffer.name, buffer.unchecked) for buffer in policy.buffers] == [
        (b"kexec-cmdline", False),
        (b"dm_table_load", True),
    ]
    assert imadoc.read(imadoc.write(policy)) == policy


def test_an_empty_document_is_strict() -> None:
    assert imadoc.read("") == PLAIN
    assert imadoc.read(imadoc.write(PLAIN)) == PLAIN


@pytest.mark.parametrize(("name", "key"), [("vendor.der", KEY), ("vendor.pem", KEY), ("public.pem", public(ec_key()))])
def test_keys_are_read_in_either_form(beside: Path, name: str, key: bytes) -> None:
    text = f'[[key]]\nname = "k"\nkeyring = ".ima"\nfile = "{name}"\nbuilt_in = false'
    assert imadoc.read(text, beside=beside).keys[0].key == key


_KEY = '[[key]]\nname = "k"\nkeyring = ".ima"\nbuilt_in = true\n'
BAD_RULES = {
    "no TOML": ("[[rule", "ref.document"),
    "an unknown name": ("colour = 1", "ref.document"),
    "an unknown name in a rule": (
        '[[rule]]\nkind = "literal"\npath = "/a"\nunchecked = ["content"]\nx = 1',
        "ref.document",
    ),
    "a rule without a path": ('[[rule]]\nkind = "literal"\nunchecked = ["content"]', "ref.document"),
    "a rule that is one table": ('[rule]\nkind = "literal"', "ref.document"),
    "rules that are numbers": ("rule = [1]", "ref.document"),
    "a rule as wide as the root": (
        '[[rule]]\nkind = "prefix"\npath = "/"\nunchecked = ["content"]',
        "tpm.ima.policy.rule",
    ),
    "a rule that excuses nothing": ('[[rule]]\nkind = "literal"\npath = "/a"\nunchecked = []', "tpm.ima.policy.rule"),
    "a regular expression": ('[[rule]]\nkind = "regex"\npath = "/a"\nunchecked = ["content"]', "tpm.ima.policy.rule"),
    "a word that does not exist": ('boot_aggregate = "maybe"', "tpm.ima.policy.word"),
    "a number that is a text": ('most_kexecs = "1"', "ref.document"),
    "a number that is broken": ("most_kexecs = 1.5", "ref.document"),
    "a number out of bounds": ("most_kexecs = -1", "wire.range"),
    "a word that is a day": ("boot_aggregate = 1979-05-27", "ref.document"),
    "a switch of the bank that is a text": ('unsafe_padded = "no"', "ref.document"),
    "two words in one": ('cmdline_required = ["a b"]', "tpm.ima.policy.word"),
    "words that are a text": ('cmdline_required = "a"', "ref.document"),
    "a strong digest as unsafe": ('unsafe_algorithms = ["sha256"]', "tpm.ima.policy.word"),
    "a denied digest that is none": ('denied = ["xyz"]', "ref.document"),
    "a key without bytes": (_KEY, "ref.document"),
    "a key given twice": (_KEY + 'file = "vendor.der"\nkey = "00"', "ref.document"),
    "a key that is none": (_KEY + 'key = "00"', "tpm.ima.policy.key"),
    "a key in no hexadecimal": (_KEY + 'key = "zz"', "ref.document"),
    "a key file that is not there": (_KEY + 'file = "none.der"', "ref.source"),
    "a key file that is broken": (_KEY + 'file = "broken.pem"', "ref.source"),
    "a switch that is a text": (_KEY.replace("true", '"yes"'), "ref.document"),
    "a buffer that is neither": ('[[buffer]]\nname = "b"', "tpm.ima.policy.buffer"),
    "a buffer without a name": ("[[buffer]]\nunchecked = true", "ref.document"),
    "a buffer's digest that is none": ('[[buffer]]\nname = "b"\ndigests = ["x"]', "ref.document"),
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_rules_that_are_refused(beside: Path, name: str) -> None:
    text, reason = BAD_RULES[name]
    with pytest.raises(Malformed) as refused:
        imadoc.read(text, beside=beside)
    assert refused.value.reason == reason


@pytest.mark.parametrize("data", [None, b"\xff"], ids=["not there", "not UTF-8"])
def test_a_document_that_cannot_be_read(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "rules").write_bytes(data)
    with pytest.raises(Malformed, match=r"ref\.source"):
        imadoc.load(tmp_path / "rules")


# --- differences ------------------------------------------------------------------------------------------------------


def test_the_difference_of_boots_is_by_fact() -> None:
    before, after = POLICIES["everything"], bootmade.policy_of(state_of(honest().replace("grubx64.efi", b"grub 2")))
    (row,) = diff.boot_diff(before, after)["demands"]
    assert row == {
        "demand": "applications",
        "added": [hashlib.sha256(b"grub 2").hexdigest()],
        "removed": [hashlib.sha256(b"grub").hexdigest()],
    }
    assert diff.boot_diff(before, before) == {"demands": []}
    rows = {row["demand"]: row for row in diff.boot_diff(lenient(), POLICIES["sections"])["demands"]}
    assert (rows["secure_boot"]["added"], rows["secure_boot"]["removed"]) == (["true"], ["false"])
    assert (rows["sections"]["now"], len(rows["sections"]["added"])) == ("demanded", 2)
    rows = {row["demand"]: row for row in diff.boot_diff(POLICIES["sections"], lenient())["demands"]}
    assert rows["sections"]["now"] == "not demanded any more"
    assert list(diff.lines({"demands": [rows["sbat"]]}, 9)) == ["sbat: not demanded any more", "- 2024010900"]


def test_a_boot_policy_is_a_wire_object_of_its_own() -> None:
    """What the documents are made of has not grown a field that they do not know."""
    names = {name for _, name, _, _, _ in BootPolicy.layout()}
    assert names == {*bootdoc.FLAGS, *bootdoc.WORDS, *bootdoc.OPTIONAL}
