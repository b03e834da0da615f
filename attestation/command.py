"""Command: whether what starts is a script of the approved code tree, and which variables would load other code.

An approval says that a code tree may run. It would say nothing if ``python -c`` or ``/bin/sh`` could be started beside
it, or if a variable could make the approved interpreter load something else. Policies see the two answers given here
(``command``, ``steering``); the delivered ones forbid what is not a script of the tree, and every steering variable.

What a script of the tree does with its own arguments is the script's affair, and its reviewer's.
"""

from collections.abc import Iterable, Sequence
from itertools import dropwhile

SCRIPT, OTHER = "script", "other"

_INTERPRETERS = ("python", "python3")
_SWITCHES = frozenset({"-B", "-E", "-I", "-O", "-OO", "-P", "-s", "-u"})
"""Switches of the interpreter that take no argument and load nothing (Python, "Command line and environment")."""

_TORCHRUN_FLAGS = frozenset({"standalone"})
_TORCHRUN_VALUES = frozenset(
    {
        *("nnodes", "nproc-per-node", "node-rank", "role", "max-restarts", "monitor-interval"),
        *("master-addr", "master-port", "local-addr", "rdzv-backend", "rdzv-endpoint", "rdzv-id"),
    }
)
"""Options of torchrun that say how many and where, never what (PyTorch, "torchrun"): not --module, not --no-python."""

_PREFIXES = ("LD_", "PYTHON", "GLIBC_", "OPENSSL_")
_NAMES = frozenset({"PATH", "HOME", "GCONV_PATH", "BASH_ENV", "ENV", "TORCH_EXTENSIONS_DIR", "CUDA_INJECTION64_PATH"})
_HARMLESS = frozenset({"PYTHONHASHSEED", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER"})


def entry(argv: Sequence[str]) -> str:
    """``script`` where ``argv`` starts a script of the code tree with the environment's interpreter, else ``other``."""
    program, rest = argv[0], list(argv[1:])
    if program in _INTERPRETERS:
        rest = list(dropwhile(_SWITCHES.__contains__, rest))
    elif program == "torchrun":
        rest = _behind_torchrun_options(rest)
    else:
        return OTHER
    return SCRIPT if rest and _is_in_tree(rest[0]) else OTHER


def steering(names: Iterable[str]) -> tuple[str, ...]:
    """The variables among ``names`` that can change which code is loaded, sorted."""
    return tuple(sorted(name for name in names if _steers(name)))


def _steers(name: str) -> bool:
    return name in _NAMES or (name.startswith(_PREFIXES) and name not in _HARMLESS)


def _behind_torchrun_options(rest: list[str]) -> list[str]:
    """The arguments from the first on that is no known option; nothing where an option is not known."""
    while rest and rest[0].startswith("-"):
        name, equals, _ = rest[0].removeprefix("--").replace("_", "-").partition("=")
        if name in _TORCHRUN_VALUES:
            rest = rest[1 if equals else 2 :]
        elif name in _TORCHRUN_FLAGS and not equals:
            rest = rest[1:]
        else:
            return []
    return rest


def _is_in_tree(path: str) -> bool:
    """Whether a path names something below the working directory, which is the staged code tree."""
    return bool(path) and not path.startswith(("-", "/")) and ".." not in path.split("/")
