"""Loading and linting a policy directory: what is wrong is found, by file and line, and nothing is let pass."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import Malformed
from attestation.policy import Policy
from attestation.reasons import explain
from verifier.policyfiles import lint, load, statements

DELIVERED = Path(__file__).parents[2] / "policies"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the delivered policies."""
    return Path(shutil.copytree(DELIVERED, tmp_path / "policies"))


def edit(directory: Path, name: str, old: str, new: str, *, pin: bool = True) -> None:
    """Replace ``old`` in a file; the protected file is pinned anew unless ``pin`` is false."""
    path = directory / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if name == "protected.cedar" and pin:
        pinned = directory / "settings.toml"
        before, now = (hashlib.sha256(t.encode()).hexdigest() for t in (text, path.read_text()))
        pinned.write_text(pinned.read_text().replace(before, now))


def line_of(directory: Path, name: str, text: str) -> int:
    """The line on which ``text`` stands first."""
    return (directory / name).read_text().split(text)[0].count("\n") + 1


# ---- load ----------------------------------------------------------------------------------------------------------


def test_the_delivered_policies_load() -> None:
    bundle = load(DELIVERED)
    assert Policy(bundle).settings.unchecked == ("ek-revocation", "event-log", "gpu", "ima")
    assert bundle.settings.pcrs == (0, 1, 2, 3, 4, 5, 7, 8, 9)


def test_every_cedar_file_counts_in_the_order_of_names(directory: Path) -> None:
    extra = '@id("extra") permit (principal, action, resource);'
    (directory / "zz.cedar").write_text(extra)
    (directory / "aa.cedar").write_text("// first")
    bundle = load(directory)
    assert bundle.operator.startswith("// first\n")
    assert bundle.operator.endswith(extra)
    assert "extra" in Policy(bundle).rules
    assert bundle.digest != load(DELIVERED).digest


def test_other_files_do_not_count(directory: Path) -> None:
    (directory / "base.cedar.orig").write_text("forbid (")
    (directory / "notes.txt").write_text("x")
    assert load(directory).digest == load(DELIVERED).digest


def test_durations_and_bank_have_defaults(directory: Path) -> None:
    for line in ("lease_seconds = 30\n", "hold_seconds = 900\n", 'bank = "sha256"\n'):
        edit(directory, "settings.toml", line, "")
    assert load(directory).settings == load(DELIVERED).settings


def test_settings_are_taken_over(directory: Path) -> None:
    edit(directory, "settings.toml", "lease_seconds = 30", "lease_seconds = 10")
    edit(directory, "settings.toml", "hold_seconds = 900", "hold_seconds = 60")
    edit(directory, "settings.toml", '"sha256"', '"sha384"')
    edit(directory, "settings.toml", 'ima = "unchecked"', 'ima = "required"')
    made = load(directory).settings
    assert (made.lease_seconds, made.hold_seconds, made.bank, made.required) == (10, 60, 0x000C, ("ima", "tpm-lease"))


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no settings": (lambda d: (d / "settings.toml").unlink(), "policy.file", "settings.toml"),
    "no protected policies": (lambda d: (d / "protected.cedar").unlink(), "policy.file", "protected.cedar"),
    "no schema": (lambda d: (d / "schema.cedarschema").unlink(), "policy.file", "schema.cedarschema"),
    "no directory": (shutil.rmtree, "policy.file", "settings.toml"),
    "a folder named like a policy": (lambda d: (d / "x.cedar").mkdir(), "policy.file", "x.cedar"),
    "settings that are no TOML": (
        lambda d: (d / "settings.toml").write_text("lease_seconds ="),
        "policy.file",
        "settings.toml",
    ),
    "not UTF-8": (lambda d: (d / "base.cedar").write_bytes(b"// \xff"), "policy.file", "base.cedar"),
    "too large": (lambda d: (d / "base.cedar").write_bytes(b" " * (2**18 + 1)), "policy.file", "base.cedar"),
    "together too large": (
        lambda d: [(d / f"{n}.cedar").write_bytes(b" " * 2**17) for n in "abc"],
        "wire.size",
        "settings.toml",
    ),
    "misspelt setting": (
        lambda d: edit(d, "settings.toml", "lease_seconds =", "lease_second ="),
        "policy.settings",
        "settings.toml",
    ),
    "lease too long": (lambda d: edit(d, "settings.toml", "= 30", "= 3000"), "wire.range", "settings.toml"),
    "lease as a word": (lambda d: edit(d, "settings.toml", "= 30", '= "30"'), "wire.type", "settings.toml"),
    "lease as a boolean": (lambda d: edit(d, "settings.toml", "= 30", "= true"), "wire.type", "settings.toml"),
    "lease as a float": (lambda d: edit(d, "settings.toml", "= 30", "= 30.0"), "wire.type", "settings.toml"),
    "unknown bank": (lambda d: edit(d, "settings.toml", "sha256", "sha1"), "policy.settings", "settings.toml"),
    "bank as a list": (
        lambda d: edit(d, "settings.toml", '"sha256"', '["sha256"]'),
        "policy.settings",
        "settings.toml",
    ),
    "no PCRs": (
        lambda d: edit(d, "settings.toml", "pcrs = [0, 1, 2, 3, 4, 5, 7, 8, 9]", ""),
        "policy.settings",
        "settings.toml",
    ),
    "PCRs out of order": (lambda d: edit(d, "settings.toml", "[0, 1,", "[1, 0,"), "wire.order", "settings.toml"),
    "check left unnamed": (
        lambda d: edit(d, "settings.toml", 'ima = "unchecked"\n', ""),
        "policy.settings",
        "settings.toml",
    ),
    "no checks": (lambda d: edit(d, "settings.toml", "[checks]", "[check]"), "policy.settings", "settings.toml"),
    "check with another word": (
        lambda d: edit(d, "settings.toml", 'ima = "unchecked"', 'ima = "off"'),
        "policy.settings",
        "settings.toml",
    ),
    "no pin": (
        lambda d: edit(d, "settings.toml", "protected_sha256 =", "# protected_sha256 ="),
        "policy.settings",
        "settings.toml",
    ),
    "pin that is no hexadecimal": (
        lambda d: edit(d, "settings.toml", 'protected_sha256 = "', 'protected_sha256 = "x'),
        "policy.settings",
        "settings.toml",
    ),
    "pin of another length": (
        lambda d: edit(d, "settings.toml", 'protected_sha256 = "', 'protected_sha256 = "00'),
        "wire.size",
        "settings.toml",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_load_is_one_finding(directory: Path, name: str) -> None:
    breaks, code, file = BROKEN[name]
    breaks(directory)
    with pytest.raises(Malformed) as caught:
        load(directory)
    assert caught.value.reason == code
    (finding,) = lint(directory)
    assert (finding.file, finding.code) == (file, code)
    assert finding.fix == explain(code).fix


# ---- lint ----------------------------------------------------------------------------------------------------------


def test_the_delivered_policies_are_clean() -> None:
    assert lint(DELIVERED) == []


TEST_ROOTS = (DELIVERED / "protected.cedar").read_text().split('@id("protected.test-roots")\n')[1].split(" (")[0]
"""The other annotations of the first protected policy, and its effect."""

LINTED: dict[str, tuple[str, str, str, str, str]] = {
    # name: file, text that is replaced, replacement, code, text on the line that is to be named
    "misspelt keyword": ("base.cedar", "unless {", "unles {", "policy.parse", '@id("base.role")'),
    "missing semicolon": ("base.cedar", "resource.pool) };", "resource.pool) }", "policy.parse", '@id("base.train")'),
    "unknown attribute": ("base.cedar", "context.gpus > 8", "context.gpu > 8", "policy.schema", '@id("base.gpus")'),
    "wrong type": ("base.cedar", "context.gpus > 8", 'context.gpus > "8"', "policy.schema", '@id("base.gpus")'),
    "no id": ("base.cedar", '@id("base.train")', "", "policy.id", "permit (principal"),
    "id twice": (
        "base.cedar",
        '"base.evaluate"',
        '"base.train"',
        "policy.id",
        '@id("base.train")\npermit (principal, action, resource)\nwhen {\n',
    ),
    "id of a protected policy": ("base.cedar", '"base.role"', '"protected.test-roots"', "policy.id", ""),
    "template": (
        "base.cedar",
        "permit (principal,",
        "permit (principal == ?principal,",
        "policy.template",
        '@id("base.train")',
    ),
    "no fix": (
        "base.cedar",
        '@fix("Ask for at most 4096 processes.")\n',
        "",
        "policy.annotation",
        '@id("base.processes")',
    ),
    "misspelt annotation": (
        "base.cedar",
        '@fix("Ask for at most 4096',
        '@fixx("Ask for at most 4096',
        "policy.annotation",
        '@id("base.processes")',
    ),
    "reason of no family": ("base.cedar", '"limit.gpus"', '"gpus.many"', "policy.reason", '@id("base.gpus")'),
    "has": ("base.cedar", "{ context.gpus > 8 }", "{ context has gpu }", "policy.attribute", '@id("base.gpus")'),
    "invisible character": (
        "base.cedar",
        "Ask for at most 8 GPUs",
        "Ask for at most 8\u200b GPUs",
        "policy.text",
        "8\u200b GPUs",
    ),
    "permit among the protected": (
        "protected.cedar",
        TEST_ROOTS,
        "permit",
        "policy.protected",
        '@id("protected.test-roots")',
    ),
    "syntax among the protected": (
        "protected.cedar",
        "forbid (",
        "forbit (",
        "policy.parse",
        '@id("protected.test-roots")',
    ),
    "schema with an error": ("schema.cedarschema", "tenant: String,", "tenant: Strng,", "policy.schema", ""),
    "schema that lacks an attribute": ("schema.cedarschema", "    renewals: Long,\n", "", "policy.error", ""),
    "schema with an attribute more": (
        "schema.cedarschema",
        "    renewals: Long,\n",
        "    renewals: Long,\n    moon: Long,\n",
        "policy.error",
        "",
    ),
}


@pytest.mark.parametrize("name", LINTED)
def test_a_finding_names_file_and_line(directory: Path, name: str) -> None:
    file, old, new, code, marker = LINTED[name]
    edit(directory, file, old, new)
    found = [f for f in lint(directory) if f.code == code]
    assert found, lint(directory)
    assert found[0].problem
    assert found[0].fix
    if name == "id of a protected policy":
        assert found[0].file == "protected.cedar"
        assert "base.cedar, line" in found[0].problem
        return
    assert found[0].file == file
    assert found[0].line == (line_of(directory, file, marker) if marker else 0)


def test_the_schema_needs_both_actions(directory: Path) -> None:
    edit(directory, "schema.cedarschema", "action run, renew", "action run")
    (finding,) = lint(directory)
    assert (finding.file, finding.code) == ("schema.cedarschema", "policy.error")
    assert "renew" in finding.problem


def test_a_changed_protected_file_is_found_with_its_digest(directory: Path) -> None:
    edit(directory, "protected.cedar", '"lab"', '"lob"', pin=False)
    (finding,) = lint(directory)
    assert (finding.file, finding.code) == ("settings.toml", "policy.pin")
    assert finding.line == line_of(directory, "settings.toml", "protected_sha256")
    assert hashlib.sha256((directory / "protected.cedar").read_bytes()).hexdigest() in finding.problem


def test_an_indented_pin_is_found_too(directory: Path) -> None:
    edit(directory, "settings.toml", "protected_sha256", "  protected_sha256")
    edit(directory, "protected.cedar", '"lab"', '"lob"', pin=False)
    assert lint(directory)[0].line == 0


def test_no_permit_at_all(directory: Path) -> None:
    (directory / "base.cedar").write_text("")
    (finding,) = lint(directory)
    assert (finding.file, finding.line, finding.code) == ("*.cedar", 0, "policy.empty")


def test_several_findings_are_sorted(directory: Path) -> None:
    edit(directory, "protected.cedar", "forbid (", "forbit (")
    edit(directory, "base.cedar", "context.processes > 4096", "context.proceses > 4096")
    edit(directory, "base.cedar", "unless {", "unles {")
    found = lint(directory)
    assert [(f.file, f.code) for f in found] == [
        ("base.cedar", "policy.parse"),
        ("base.cedar", "policy.schema"),
        ("protected.cedar", "policy.parse"),
    ]
    assert found == sorted(found)


def test_what_lint_accepts_compiles(directory: Path) -> None:
    (directory / "extra.cedar").write_text(
        '// a;b "c\n@id("x") permit (principal == Submitter::"a;b", action, resource);'
    )
    assert lint(directory) == []
    assert "x" in Policy(load(directory)).rules


# ---- statements ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("  \n// only a comment; \n", []),
        ("a;b;", [1, 1]),
        ("\n\na\n;\n// c;\n\nb;", [3, 7]),
        ('"x;y\\";z";b', [1, 1]),
        ('"//";b;', [1, 1]),
        ('// "\na;', [2]),
        ('"never closed;', [1]),
        ('"ends in a backslash\\', [1]),
        ("a; // tail", [1]),
        ("a", [1]),
    ],
)
def test_statements(text: str, lines: list[int]) -> None:
    assert [s.line for s in statements(text)] == lines


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(['"', "\\", ";", "/", "//", "\n", "a", " "]), max_size=30).map("".join))
def test_statements_lose_nothing_but_what_is_no_code(text: str) -> None:
    found = list(statements(text))
    assert "".join(s.text for s in found) == text[: len("".join(s.text for s in found))]
    rest = text[len("".join(s.text for s in found)) :]
    assert all(not line.strip() or line.strip().startswith("//") for line in rest.split("\n"))


REQUIRED_LOGS = {
    "a list without PCR 10": ("ima", "[0, 1, 7]", "tpm.ima.unquoted"),
    "an event log of other PCRs": ("event-log", "[10, 11]", "tpm.log.unquoted"),
}
"""A check that is required, the PCRs that are asked for, and the code of the finding."""


@pytest.mark.parametrize(("check", "pcrs", "code"), REQUIRED_LOGS.values(), ids=REQUIRED_LOGS)
def test_a_log_that_is_required_and_cannot_be_proven_is_found(
    directory: Path, check: str, pcrs: str, code: str
) -> None:
    settings = directory / "settings.toml"
    text = settings.read_text(encoding="utf-8").replace(f'{check} = "unchecked"', f'{check} = "required"')
    settings.write_text(text, encoding="utf-8")
    line = text.split("\n").index(f'{check} = "required"') + 1
    edit(directory, "settings.toml", "pcrs = [0, 1, 2, 3, 4, 5, 7, 8, 9]", f"pcrs = {pcrs}")
    (finding,) = lint(directory)
    assert (finding.file, finding.line, finding.code) == ("settings.toml", line, code)
    edit(directory, "settings.toml", f"pcrs = {pcrs}", "pcrs = [0, 7, 10]")
    assert lint(directory) == []
