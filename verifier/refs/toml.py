"""TOML as operators read and edit it: a writer for the few types that documents here have, and a reader with reasons.

Source: TOML 1.0.0. What is written is read back as the same values; a property test says so.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from attestation.errors import Malformed

_WIDTH = 100


def read(text: str, where: str = "document") -> dict[str, Any]:
    """A TOML document. Raises ``Malformed("ref.document")`` with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed("ref.document", f"{where}: {error}") from error


def wrong(name: str, wanted: str, where: str) -> Malformed:
    """What to raise where ``name`` in the document ``where`` is not what it must be."""
    return Malformed("ref.document", f"{where}: {name} must be {wanted}")


def texts(value: object, name: str, where: str) -> tuple[str, ...]:
    """A list of texts, each once and in order. Raises ``Malformed("ref.document")``."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise wrong(name, "a list of texts", where)
    return tuple(sorted(set(value), key=str.encode))


def write(table: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """``table`` as TOML: texts, whole numbers, truth values, lists of these, tables and lists of tables.

    ``comments`` are put above the names that they are for.
    """
    return "\n".join(_lines(table, comments or {})) + "\n"


def _lines(table: Mapping[str, Any], comments: Mapping[str, str]) -> Iterator[str]:
    nested = {name: value for name, value in table.items() if isinstance(value, Mapping) or _is_tables(value)}
    for name, value in table.items():
        if name not in nested:
            yield from _comment(name, comments)
            yield f"{_key(name)} = {_value(value)}"
    for name, value in nested.items():
        for each in value if _is_tables(value) else [value]:
            yield ""
            yield from _comment(name, comments)
            yield f"[[{_key(name)}]]" if _is_tables(value) else f"[{_key(name)}]"
            yield from _lines(each, {})


def _comment(name: str, comments: Mapping[str, str]) -> Iterator[str]:
    if name in comments:
        yield f"# {comments[name]}"


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _key(name: str) -> str:
    plain = name.replace("-", "").replace("_", "")
    return name if plain.isascii() and plain.isalnum() else _text(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _text(value)
        case list():
            items = [_value(each) for each in value]
            line = f"[{', '.join(items)}]"
            return line if len(line) <= _WIDTH else "[\n" + "".join(f"    {item},\n" for item in items) + "]"
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, except that TOML wants DEL escaped as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
