"""How the administration command shows its results: tables and short lines for people, one JSON value for machines."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

_TIMES = frozenset({"added", "expires", "enrolled", "fetched", "lease_end", "used"})
_SHORT = 40
_ID = 32
_KEY = 12


def show(console: Console, result: Any, *, as_json: bool) -> None:
    """Print ``result`` of a command."""
    if as_json:
        console.out(json.dumps(result, indent=2), highlight=False)
    elif isinstance(result, Mapping):
        _mapping(console, result)
    elif isinstance(result, Sequence) and not isinstance(result, str):
        _table(console, result)
    else:
        console.print(str(result), markup=False, highlight=False)


def _mapping(console: Console, result: Mapping[str, Any]) -> None:
    width = max((len(name) for name in result), default=0)
    for name, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            console.print(f"[bold]{name}[/bold]")
            _table(console, value)
        else:
            console.print(f"{name:<{width}}  {_text(name, value)}", markup=False, highlight=False, soft_wrap=True)


def _table(console: Console, rows: Sequence[Any]) -> None:
    if not rows:
        console.print("none", style="dim")
        return
    if not isinstance(rows[0], Mapping):
        for row in rows:
            console.print(str(row), markup=False, highlight=False)
        return
    names = [name for name in rows[0] if not isinstance(rows[0][name], Mapping)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, min_width=_ID if name == "grant" else None)
    for row in rows:
        table.add_row(*(_short(_text(name, row.get(name))) for name in names))
    console.print(table)


def _short(text: str) -> str:
    """A cell: long digests show their beginning, which is enough to tell them apart."""
    if len(text) <= _SHORT:
        return text
    return text[:_KEY] + "…" if " " not in text else text[: _SHORT - 1] + "…"


def _text(name: str, value: Any) -> str:
    if name in _TIMES and isinstance(value, int):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_text('', v)}" for k, v in value.items()) or "-"
    return "-" if value is None or value == "" else str(value)
