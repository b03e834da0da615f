"""The ways in which the mutation job breaks a module on purpose: each mutant is one edit of its syntax tree.

``CHECKS`` takes away what refuses: a guard that raises, one operand of its condition, a call that verifies, a step of
a table of checks. ``EVERYTHING`` adds the finer ones: flipped comparisons, dropped negations, numbers off by one,
bounds of wire fields, calls made for their effect.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

VERIFYING = re.compile(r"_?(check|verify|require|refuse|ensure)(_|$)|done$")
TABLE = re.compile(r"STEPS|CHECKS|RULES|CONDITIONS")
FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}

Edit = Callable[[], None]
Found = tuple[ast.AST, str, Edit]


@dataclass(frozen=True)
class Mutant:
    """One edit of one module. ``edit`` changes ``tree`` in place and for good: apply it in a process of its own."""

    path: Path
    line: int
    kind: str
    text: str
    tree: ast.Module
    edit: Edit

    @property
    def where(self) -> str:
        """``file:line``, as editors and people read it."""
        return f"{self.path}:{self.line}"

    @property
    def key(self) -> str:
        """What names this mutant in the list of equivalent ones: independent of line numbers."""
        return f"{self.path}: {self.kind}: {self.text}"


def mutants(path: Path, source: str, *, checks_only: bool) -> Iterator[Mutant]:
    """Every mutant of one module's source text."""
    tree = ast.parse(source, str(path))
    for kind, find in (CHECKS if checks_only else EVERYTHING).items():
        for node, text, edit in find(tree):
            yield Mutant(path, getattr(node, "lineno", 0), kind, " ".join(text.split())[:160], tree, edit)


def _set(node: ast.AST, name: str, value: object) -> Edit:
    return lambda: setattr(node, name, value)


def _drop(items: list[ast.expr], index: int) -> Edit:
    return lambda: items.__delitem__(index)


def _put(items: list[ast.stmt], index: int, value: ast.stmt) -> Edit:
    return lambda: items.__setitem__(index, ast.copy_location(value, items[index]))


def _bodies(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                yield body


def _guards(tree: ast.AST) -> Iterator[ast.If]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and any(isinstance(statement, ast.Raise) for statement in node.body):
            yield node


def guards_off(tree: ast.Module) -> Iterator[Found]:
    """``if condition: raise`` whose condition never holds."""
    for node in _guards(tree):
        never = ast.copy_location(ast.Constant(value=False), node.test)
        yield node, ast.unparse(node.test), _set(node, "test", never)


def operands_off(tree: ast.Module) -> Iterator[Found]:
    """One operand less in a guard's condition, or in an ``and``/``or`` that a function returns."""
    tests = [node.test for node in _guards(tree)]
    for root in tests + list(_returned_conditions(tree)):
        for node in ast.walk(root):
            if isinstance(node, ast.BoolOp):
                for index, operand in enumerate(node.values):
                    values: list[ast.expr] = list(node.values)
                    values[index] = ast.copy_location(ast.Constant(value=isinstance(node.op, ast.And)), operand)
                    yield operand, f"{ast.unparse(operand)} in {ast.unparse(root)}", _set(node, "values", values)


def _returned_conditions(tree: ast.Module) -> Iterator[ast.expr]:
    """What a function returns, where it is a condition and not ``value or default``."""
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Return) else None
        if isinstance(value, ast.BoolOp) and not isinstance(value.values[-1], ast.Constant):
            yield value


def _calls(tree: ast.Module, *, verifying: bool) -> Iterator[Found]:
    for body in _bodies(tree):
        for index, statement in enumerate(body):
            if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
                continue
            name = ast.unparse(statement.value.func).rpartition(".")[2]
            if bool(VERIFYING.match(name)) == verifying:
                yield statement, ast.unparse(statement), _put(body, index, ast.Pass())


def verifying_calls_off(tree: ast.Module) -> Iterator[Found]:
    """A statement that only calls ``_check_*``, ``verify_*``, ``done`` and the like is gone."""
    return _calls(tree, verifying=True)


def other_calls_off(tree: ast.Module) -> Iterator[Found]:
    """Any other statement that is a call is gone."""
    return _calls(tree, verifying=False)


def steps_off(tree: ast.Module) -> Iterator[Found]:
    """One row less in a module's table of checks."""
    for node in tree.body:
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        rows = getattr(getattr(node, "value", None), "elts", [])
        if isinstance(target, ast.Name) and TABLE.search(target.id):
            for index, row in enumerate(rows):
                yield row, f"{target.id}: {ast.unparse(row)}", _drop(rows, index)


def comparisons_flipped(tree: ast.Module) -> Iterator[Found]:
    """``==`` for ``!=``, ``<`` for ``<=``, ``in`` for ``not in``."""
    for node in ast.walk(tree):
        for index, operator in enumerate(node.ops if isinstance(node, ast.Compare) else []):
            ops = list(getattr(node, "ops"))  # noqa: B009
            ops[index] = FLIPPED[type(operator)]()
            yield node, ast.unparse(node), _set(node, "ops", ops)


def negations_off(tree: ast.Module) -> Iterator[Found]:
    """``x`` for ``not x``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            twice = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=node.operand), node)
            yield node, ast.unparse(node), _set(node, "operand", twice)


def numbers_off_by_one(tree: ast.Module) -> Iterator[Found]:
    """``n + 1`` for each integer that is compared with, sliced by, or counted to."""
    for parent in ast.walk(tree):
        if not isinstance(parent, ast.Compare | ast.BinOp | ast.Slice):
            continue
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                yield node, f"{node.value} in {ast.unparse(parent)}", _set(node, "value", node.value + 1)


def bounds_off(tree: ast.Module) -> Iterator[Found]:
    """A wire field without one of its bounds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "label":
            for keyword in node.keywords:
                if keyword.arg not in {None, "default"}:
                    rest = [other for other in node.keywords if other is not keyword]
                    yield node, f"{keyword.arg} in {ast.unparse(node)}", _set(node, "keywords", rest)


CHECKS: dict[str, Callable[[ast.Module], Iterator[Found]]] = {
    "guard off": guards_off,
    "operand off": operands_off,
    "verification off": verifying_calls_off,
    "step off": steps_off,
}
EVERYTHING = CHECKS | {
    "call off": other_calls_off,
    "comparison flipped": comparisons_flipped,
    "negation off": negations_off,
    "number off by one": numbers_off_by_one,
    "bound off": bounds_off,
}
