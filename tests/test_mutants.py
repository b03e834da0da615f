"""The mutation job's edits: each kind finds what it should break, and breaks just that."""

import ast
from pathlib import Path

import pytest

from tools.mutants import mutants

SOURCE = """
STEPS = (("first", one), ("second", two))

def check(x, low=3):
    if x is None:
        return 0
    if x < low or not x.fine:
        raise ValueError(x)
    _check_more(x)
    x.append(1)
    return x.a and x.b
"""

CHECKS = {
    ("guard off", "x < low or not x.fine"): "if False:",
    ("operand off", "x < low in x < low or not x.fine"): "if False or not x.fine:",
    ("operand off", "not x.fine in x < low or not x.fine"): "if x < low or False:",
    ("operand off", "x.a in x.a and x.b"): "return True and x.b",
    ("operand off", "x.b in x.a and x.b"): "return x.a and True",
    ("verification off", "_check_more(x)"): "    pass\n    x.append(1)",
    ("step off", "STEPS: ('first', one)"): "STEPS = (('second', two),)",
    ("step off", "STEPS: ('second', two)"): "STEPS = (('first', one),)",
}
FINER = {
    ("call off", "x.append(1)"): "_check_more(x)\n    pass",
    ("comparison flipped", "x is None"): "if x is not None:",
    ("comparison flipped", "x < low"): "if x <= low or",
    ("negation off", "not x.fine"): "not not x.fine",
}


def broken(*, checks_only: bool) -> dict[tuple[str, str], str]:
    """Each mutant's key and its source; every mutant from a tree of its own, as in the job's children."""
    keys = [(m.kind, m.text) for m in mutants(Path("m.py"), SOURCE, checks_only=checks_only)]
    sources: dict[tuple[str, str], str] = {}
    for index, key in enumerate(keys):
        mutant = list(mutants(Path("m.py"), SOURCE, checks_only=checks_only))[index]
        mutant.edit()
        sources[key] = ast.unparse(ast.fix_missing_locations(mutant.tree))
        compile(mutant.tree, "m.py", "exec")
    return sources


def test_the_checks() -> None:
    assert broken(checks_only=True).keys() == CHECKS.keys()


def test_everything() -> None:
    assert broken(checks_only=False).keys() == (CHECKS | FINER).keys()


@pytest.mark.parametrize(("key", "line"), (CHECKS | FINER).items(), ids=str)
def test_edit(key: tuple[str, str], line: str) -> None:
    source = broken(checks_only=False)[key]
    assert line in source
