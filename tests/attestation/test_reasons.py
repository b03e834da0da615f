"""Every reason code that the packages raise is registered once, and every registered one is raised.

The sources are read as syntax trees, the tables themselves left out. Raised is what stands as the first argument of
`Malformed`, `Untrusted` or `Unencodable`, and for a cursor (`Reader(data, "tpm.attest")`) its two codes. Used is also
what stands as a constant anywhere (tables of codes), as `@reason("...")` in a policy, or can be put together: where a
module writes ``f"{family}.{state}"``, the family must be a constant of that module and the state one of any module.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation import reasons
from attestation.reasons import REASONS, explain

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")
OPEN = re.compile(r"([a-z][a-z0-9_-]*\.)+")
RAISERS = frozenset({"Malformed", "Untrusted", "Unencodable"})


def sources() -> list[Path]:
    found = [path for name in ("attestation", "agent", "verifier") for path in sorted((ROOT / name).rglob("*.py"))]
    return [path for path in found if not path.name.startswith("reasons")]


def first_argument(call: ast.Call) -> str | None:
    """The constant first argument of a call; of an f-string the constant beginning."""
    match call.args:
        case [ast.Constant(value=str() as text), *_]:
            return text
        case [ast.JoinedStr(values=[ast.Constant(value=str() as text), *_]), *_]:
            return text
    return None


def raised(tree: ast.Module) -> Iterator[str]:
    """The codes given to a raiser, and those of the cursors made."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (text := first_argument(node)) is not None:
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in RAISERS:
                yield text
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reader":
            match node.args:
                case [_, ast.Constant(value=str() as family)]:
                    yield f"{family}.truncated"
                    yield f"{family}.trailing"


def constants(tree: ast.Module) -> Iterator[str]:
    """Every string constant, so that codes in tables (`_REASONS`) and decisions count as used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def puts_codes_together(tree: ast.Module) -> bool:
    """Whether the module has an f-string of the form ``f"{family}.{state}"``."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value="."), ast.FormattedValue()]):
                return True
    return False


TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sources()}
CONSTANTS = {name: frozenset(constants(tree)) for name, tree in TREES.items()}
ANYWHERE = frozenset().union(*CONSTANTS.values())
POLICIES = "".join(path.read_text() for path in sorted((ROOT / "policies").rglob("*.cedar")))
MAKERS = [name for name, tree in TREES.items() if puts_codes_together(tree)]
RAISED = sorted({(code, name) for name, tree in TREES.items() for code in raised(tree)})


def is_used(code: str) -> bool:
    """Whether anything can raise the code, or a member of the open family."""
    if code.removesuffix("*") in ANYWHERE or any(code == found for found, _ in RAISED):
        return True
    family, _, state = code.rpartition(".")
    if {f"{family}.", state} <= ANYWHERE and f"{family}.*" in REASONS:  # a member that has a row of its own
        return True
    return f'@reason("{code}")' in POLICIES or (state in ANYWHERE and any(family in CONSTANTS[name] for name in MAKERS))


def is_registered(code: str) -> bool:
    """Whether a code, or a beginning such as ``policy.forbid.``, is explained."""
    return code + "*" in REASONS if OPEN.fullmatch(code) else code in REASONS


@pytest.mark.parametrize(("code", "module"), RAISED)
def test_a_raised_code_is_registered(code: str, module: str) -> None:
    assert is_registered(code), f"{module} raises {code}: add a row to attestation/reasons_*.py"


def test_the_search_finds_what_is_raised() -> None:
    found = {code for code, _ in RAISED}
    assert {"cbor.size", "cbor.key", "cose.typ", "cose.signature", "key.point", "chain.weak"} <= found
    tree = ast.parse(
        'raise Malformed(f"a.b.{x}", "d")\nraise errors.Untrusted("c.d")\nReader(data, "e.f")\nprint("g.h")'
    )
    assert sorted(raised(tree)) == ["a.b.", "c.d", "e.f.trailing", "e.f.truncated"]


@pytest.mark.parametrize("code", sorted(REASONS))
def test_a_registered_code_is_used(code: str) -> None:
    assert is_used(code), f"nothing raises {code}"


def test_the_search_knows_what_is_not_used() -> None:
    assert not any(map(is_used, ["cose.never", "nonsense.expired", "cbor", "chain.*"]))


@pytest.mark.parametrize("code", sorted(REASONS))
def test_a_row_is_fit_to_be_shown(code: str) -> None:
    reason = REASONS[code]
    assert CODE.fullmatch(code.removesuffix(".*") + ".x"), "a dotted word in lower case"
    assert re.fullmatch(r"[A-Z].*\.", reason.what), "one sentence or more, on one line"
    assert re.fullmatch(r"\S.*", reason.fix), "one line; it may be a command"
    assert reason.ask in {"submitter", "host admin", "operator", "developer"}
    assert isinstance(reason.retry, bool)


def test_no_code_is_registered_twice() -> None:
    counted = Counter(code for family in reasons._FAMILIES for code in family)
    assert [code for code, count in counted.items() if count > 1] == []


def test_no_row_is_written_twice_in_one_family() -> None:
    twice = []
    for path in sorted((ROOT / "attestation").glob("reasons*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                keys = Counter(key.value for key in node.keys if isinstance(key, ast.Constant))
                twice += [(path.name, key) for key, count in keys.items() if count > 1]
    assert twice == []


def test_explains_a_code_and_the_members_of_an_open_family() -> None:
    assert explain("cose.kid").code == "cose.kid"
    open_families = [code for code in REASONS if code.endswith(".*")]
    for family in open_families:
        assert explain(family.replace("*", "some-id")).code == family
        assert explain(family.replace("*", "some.longer.id")).code == family


@pytest.mark.parametrize("code", ["", "nonsense", "cose", "cose.kid.more", "cose.*x", "no.such.code"])
def test_an_unknown_code_is_a_key_error(code: str) -> None:
    with pytest.raises(KeyError):
        explain(code)
