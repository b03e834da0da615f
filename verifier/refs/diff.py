"""What is added, removed and changed between two reference values of one kind: by fact, or by path."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.policy import ImaPolicy
from verifier.refs import bootdoc, imadoc, toml


def boot_diff(before: BootPolicy, after: BootPolicy) -> dict[str, Any]:
    """By demand: what it lists more (``added``) and no more (``removed``), or its two values."""
    return {"demands": _tables(bootdoc.to_table(before), bootdoc.to_table(after))}


def ima_diff(before: ImaPolicy, after: ImaPolicy) -> dict[str, Any]:
    """By path: files that are listed more, no more, and with other digests; and the demands beside them."""
    old, new = _by_path(before), _by_path(after)
    return {
        "added": [_row(path, new[path]) for path in sorted(new.keys() - old.keys())],
        "removed": [_row(path, old[path]) for path in sorted(old.keys() - new.keys())],
        "changed": [
            {"path": imadoc.shown(path), "before": old[path], "after": new[path]}
            for path in sorted(old.keys() & new.keys())
            if old[path] != new[path]
        ],
        "demands": _tables(toml.read(imadoc.write(before)), toml.read(imadoc.write(after))),
    }


def _by_path(policy: ImaPolicy) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for files in policy.files:
        for path, digest in files.pairs():
            found.setdefault(path, []).append(f"{files.algorithm}:{digest.hex()}")
    return found


def _row(path: bytes, digests: list[str]) -> dict[str, Any]:
    return {"path": imadoc.shown(path), "digests": digests}


def _tables(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        old_list, new_list = _listed(old), _listed(new)
        row: dict[str, Any] = {
            "demand": name,
            "added": [each for each in new_list if each not in old_list],
            "removed": [each for each in old_list if each not in new_list],
        }
        if old is None or new is None:
            row["now"] = "not demanded any more" if new is None else "demanded"
        found.append(row)
    return found


def _listed(value: Any) -> list[str]:
    match value:
        case None:
            return []
        case list():
            return [_text(each) for each in value]
        case dict():
            return [f"{name} {each}" for name, found in value.items() for each in found]
        case _:
            return [_text(value)]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def lines(found: Mapping[str, Any], most: int) -> Iterable[str]:
    """The difference for people: at most ``most`` lines of each sort, and how many there are more."""
    marks = {"added": "+", "removed": "-", "changed": "~"}
    for sort in [sort for sort in marks if found.get(sort)]:
        rows = found[sort]
        yield f"{len(rows)} files {sort}"
        yield from (f"{marks[sort]} {row['path']}  {_digests(row)}" for row in rows[:most])
        if len(rows) > most:
            yield f"  ... and {len(rows) - most} more (--all)"
    for row in found["demands"]:
        yield f"{row['demand']}{': ' + row['now'] if 'now' in row else ''}"
        for mark, each in chain((("+", a) for a in row["added"]), (("-", r) for r in row["removed"])):
            yield f"{mark} {each}"


def _digests(row: Mapping[str, Any]) -> str:
    if "digests" in row:
        return " ".join(row["digests"])
    return f"{' '.join(row['before'])} -> {' '.join(row['after'])}"
