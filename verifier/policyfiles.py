"""The operator's policy directory: load it as a PolicyBundle, and say what is wrong with it, by file and line.

The directory (docs/policy.md)::

    *.cedar              the operator's policies, joined in the order of their names
    protected.cedar      policies that only forbid; settings.toml pins their SHA-256
    schema.cedarschema   what a policy can see
    settings.toml        lease and hold, bank and PCRs, and each check as required or unchecked
    cases.toml           the test table (verifier.policycases)
    gpu.toml             optional: what is demanded of GPUs, and gpu/*.pem, the roots (verifier.gpupolicy)

:func:`load` reads, and refuses names that it does not know; whether the policies are acceptable is decided when the
bundle is compiled (:class:`attestation.policy.Policy`). :func:`lint` compiles them one by one to find the line.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestation.decision import Facts, Usage, decide
from attestation.errors import InterlockError, Malformed
from attestation.policy import (
    BANKS,
    Policy,
    PolicyBundle,
    Rule,
    Settings,
    check_valid,
    check_visible,
    parse_schema,
    read_rules,
)
from attestation.reasons import explain
from attestation.reference import IMA_PCR
from verifier import gpupolicy

PROTECTED = "protected.cedar"
SCHEMA = "schema.cedarschema"
SETTINGS = "settings.toml"

_NAMES = frozenset({"lease_seconds", "hold_seconds", "bank", "pcrs", "protected_sha256", "checks"})
_MAX_FILE = 1 << 18
_PLACE = re.compile(r"(?P<file>[^/:\s]+\.(?:cedar|toml|cedarschema)):(?:(?P<line>\d+):)? *")
_OF_THE_BOOT = (*range(10), 14)
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")

_EXAMPLE = Facts(
    affirming=True,
    submitter="00" * 32,
    submitter_state="active",
    submitter_tenant="example",
    roles=("example",),
    tenant="example",
    node="example",
    node_state="active",
    pool="example",
    baseline="active",
    code="active",
    environment="active",
    assurance="hardware",
    binding=1,
    hour=0,
    weekday=0,
    gpus=1,
    gpu_memory_mb=1,
    seconds=1,
    memory_mb=1,
    processes=1,
    renewals=1,
    secrets=("example",),
    children_depth=1,
    children_count=1,
    usage=Usage(submitter_jobs=1, tenant_jobs=1, node_jobs=1, gpu_seconds=1),
    command="script",
    steering=("example",),
)
"""A request in which every attribute has a value: a schema that it does not fit would deny every request."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing to correct: ``line`` counts from 1, and 0 means the whole file."""

    file: str
    line: int
    code: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One Cedar statement and the line that it begins on."""

    line: int
    text: str


def load(directory: Path) -> PolicyBundle:
    """Read a policy directory. Raises ``Malformed`` (``policy.file``, ``policy.settings``, ``wire.*``)."""
    settings = read_toml(directory / SETTINGS)
    unknown = sorted(settings.keys() - _NAMES)
    if unknown:
        raise Malformed("policy.settings", f"{SETTINGS}: unknown name {', '.join(unknown)}")
    operator = "\n".join(_read(directory / name) for name in _operator_files(directory))
    value = {
        1: operator,
        2: _read(directory / PROTECTED),
        3: _read(directory / SCHEMA),
        4: {
            1: settings.get("lease_seconds", 30),
            2: settings.get("hold_seconds", 900),
            3: _bank(settings.get("bank", "sha256")),
            4: settings.get("pcrs", []),
            5: settings.get("checks", {}),
        },
        5: _pin(settings.get("protected_sha256")),
    }
    if (directory / gpupolicy.FILE).exists():
        gpu = gpupolicy.read_gpu_policy(_read(directory / gpupolicy.FILE), directory / gpupolicy.DIRECTORY)
        value[6] = gpu.to_value()
    return PolicyBundle.from_value(value)


def lint(directory: Path) -> list[Finding]:
    """Everything that is wrong with a policy directory, sorted by file and line; empty when it would be accepted.

    Never raises for what is in the directory.
    """
    try:
        bundle = load(directory)
    except Malformed as error:
        return [_located(error)]
    found = [
        *_lint_texts(directory),
        *_lint_rules(directory),
        *_lint_pin(directory, bundle),
        *_lint_gpu(directory, bundle),
        *_lint_logs(directory, bundle.settings),
    ]
    if not found:
        found = list(_lint_whole(bundle))
    return sorted(set(found))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of the policy directory. Raises ``Malformed("policy.file")``."""
    try:
        return tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise Malformed("policy.file", f"{path.name}: {error}") from error


def statements(text: str) -> Iterator[Statement]:
    """Cut Cedar text at the semicolons that are in neither a string nor a comment (Cedar grammar, "Comment", "STR").

    What follows the last semicolon is a statement too, unless it is only white space and comments.
    """
    start, code, at = 0, False, 0
    first = 1
    while at < len(text):
        end = _token_end(text, at)
        piece = text[at:end]
        if not code and piece.strip() and not piece.startswith("//"):
            code, first = True, text.count("\n", 0, at) + 1
        at = end
        if piece == ";":
            yield Statement(first, text[start:at])
            start, code = at, False
    if code:
        yield Statement(first, text[start:])


def _token_end(text: str, at: int) -> int:
    """Where the string, the comment or the single character at ``at`` ends."""
    if text.startswith("//", at):
        end = text.find("\n", at)
        return len(text) if end < 0 else end
    if text[at] != '"':
        return at + 1
    at += 1
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return min(at + 1, len(text))


def _operator_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.cedar") if path.name != PROTECTED)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Malformed("policy.file", f"{path.name}: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise Malformed("policy.file", f"{path.name}: larger than {_MAX_FILE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed("policy.file", f"{path.name}: not UTF-8 at byte {error.start}") from error


def _bank(name: object) -> int:
    if not isinstance(name, str) or name not in BANKS:
        raise Malformed("policy.settings", f"{SETTINGS}: bank must be one of {', '.join(BANKS)}")
    return BANKS[name]


def _pin(text: object) -> bytes:
    try:
        return bytes.fromhex(text if isinstance(text, str) else "-")
    except ValueError as error:
        raise Malformed("policy.settings", f"{SETTINGS}: protected_sha256 must be 64 hexadecimal digits") from error


def _located(error: Malformed) -> Finding:
    """What a loading error is about: file and line with which its detail begins, else the settings."""
    place = _PLACE.match(error.detail)
    inside = _TOML_LINE.search(error.detail)
    if place is None:
        return _finding(SETTINGS, 0, error)
    line = place["line"] or (inside[1] if inside else 0)
    return Finding(place["file"], int(line), error.reason, error.detail[place.end() :], explain(error.reason).fix)


def _finding(file: str, line: int, error: InterlockError) -> Finding:
    return Finding(file, line, error.reason, error.detail, explain(error.reason).fix)


def _lint_texts(directory: Path) -> Iterator[Finding]:
    for name in (*_operator_files(directory), PROTECTED, SCHEMA):
        for number, line in enumerate(_read(directory / name).split("\n"), start=1):
            try:
                check_visible(line)
            except Malformed as error:
                yield _finding(name, number, error)


def _lint_rules(directory: Path) -> Iterator[Finding]:
    try:
        schema = parse_schema(_read(directory / SCHEMA))
    except Malformed as error:
        yield _finding(SCHEMA, 0, error)
        return
    seen: dict[str, str] = {}
    for name in (*_operator_files(directory), PROTECTED):
        for statement in statements(_read(directory / name)):
            try:
                rules = read_rules(statement.text)
                check_valid(statement.text, schema)
                _check_place(rules, name, statement, seen)
            except Malformed as error:
                yield _finding(name, statement.line, error)


def _check_place(rules: Sequence[Rule], name: str, statement: Statement, seen: dict[str, str]) -> None:
    for rule in rules:
        if rule.permits and name == PROTECTED:
            raise Malformed("policy.protected", f"{rule.id} permits")
        if rule.id in seen:
            raise Malformed("policy.id", f"@id {rule.id!r} is taken by {seen[rule.id]}")
        seen[rule.id] = f"{name}, line {statement.line}"


def _lint_pin(directory: Path, bundle: PolicyBundle) -> Iterator[Finding]:
    seen = hashlib.sha256(bundle.protected.encode())
    if seen.digest() != bundle.protected_pin:
        lines = _read(directory / SETTINGS).split("\n")
        number = next((n for n, line in enumerate(lines, start=1) if line.startswith("protected_sha256")), 0)
        problem = f"{PROTECTED} has the SHA-256 {seen.hexdigest()}"
        yield Finding(SETTINGS, number, "policy.pin", problem, explain("policy.pin").fix)


def _lint_gpu(directory: Path, bundle: PolicyBundle) -> Iterator[Finding]:
    """GPU evidence that is required, and that nothing could satisfy."""
    if "gpu" in bundle.settings.required and (bundle.gpu is None or not bundle.gpu.expected):
        number = _line_of(directory, "gpu")
        missing = f"there is no {gpupolicy.FILE}" if bundle.gpu is None else f"{gpupolicy.FILE} names no pool"
        problem = f"GPU evidence is required, and {missing}: every request is denied"
        yield Finding(SETTINGS, number, "gpu.policy.none", problem, explain("gpu.policy.none").fix)


def _lint_logs(directory: Path, settings: Settings) -> Iterator[Finding]:
    """Logs that are required, and that no quote of these PCRs could prove."""
    if "ima" in settings.required and IMA_PCR not in settings.pcrs:
        problem = "the measurement list is required, and pcrs lacks 10: every request is denied"
        yield Finding(
            SETTINGS, _line_of(directory, "ima"), "tpm.ima.unquoted", problem, explain("tpm.ima.unquoted").fix
        )
    if "event-log" in settings.required and not set(settings.pcrs) & set(_OF_THE_BOOT):
        problem = "the event log is required, and pcrs has none that it explains: every request is denied"
        fix = explain("tpm.log.unquoted").fix
        yield Finding(SETTINGS, _line_of(directory, "event-log"), "tpm.log.unquoted", problem, fix)


def _line_of(directory: Path, name: str) -> int:
    """The line of settings.toml that sets ``name``, 0 where none does."""
    lines = _read(directory / SETTINGS).split("\n")
    return next((n for n, line in enumerate(lines, start=1) if re.match(rf"\s*{name}\s*=", line)), 0)


def _lint_whole(bundle: PolicyBundle) -> Iterator[Finding]:
    """What only shows when everything is put together: no permit at all, or a schema that fits no request."""
    try:
        policy = Policy(bundle)
    except InterlockError as error:
        yield _finding("*.cedar", 0, error)
        return
    for action in ("run", "renew"):
        example = Facts.from_value({**_EXAMPLE.to_value(), 1: action, 4: list(policy.settings.required)})
        if decide(example, policy).reasons == ("policy.error",):
            problem = (
                f"a request to {action} cannot be evaluated: entities, actions or attributes are missing or too many"
            )
            yield Finding(SCHEMA, 0, "policy.error", problem, "Restore schema.cedarschema as it was delivered.")
