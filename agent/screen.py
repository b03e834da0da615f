"""What a person sees when a run did not end by itself: one screen of less than ten lines.

What was refused or stopped, the one condition that failed, the fix, whether a retry helps, whom to ask, and where in
the log it is written. The same facts as one JSON object for programs.
"""

import json
from dataclasses import asdict
from typing import Any

from agent.codes import TITLES
from agent.messages import Ended
from attestation.errors import InterlockError
from attestation.reasons import Reason, explain

_WIDTH = 9
FINISHED = "finished"
_FACTS = (
    *("exit_code", "job", "reason", "what", "detail", "fix", "retry", "ask", "receipt", "node"),
    *("seconds", "leases", "frozen_us", "dead_us", "assurance"),
)


def lines(ended: Ended) -> list[str]:
    """The screen; empty for a run that ended by itself."""
    if ended.event == FINISHED:
        return []
    title = TITLES.get(ended.exit_code, ended.event)
    rows = {
        "job": f"{ended.job}{f' on {ended.node}' if ended.node else ''}",
        "because": f"{ended.reason}: {ended.what}{_more(ended.also)}",
        "seen": ended.detail,
        "stopped": _stopped(ended),
        "fix": ended.fix,
        "retry": "may help without changing anything" if ended.retry else "does not help until something is changed",
        "ask": _whom(ended.ask),
        "receipt": receipt(ended),
    }
    return [f"interlock: {title} (exit {ended.exit_code})", *(f"  {k:{_WIDTH}}{_one(v)}" for k, v in rows.items() if v)]


def _more(also: tuple[str, ...]) -> str:
    return f" (and: {', '.join(also)})" if also else ""


def _whom(party: str | None) -> str | None:
    """Whom to ask, as the submitter reads it."""
    return "nobody: you can do this yourself" if party == "submitter" else party


def _one(text: str) -> str:
    """As one printable line, whatever control characters the text brings."""
    return "".join(each if each.isprintable() else " " for each in text)


def _stopped(ended: Ended) -> str | None:
    if ended.frozen_us is None and ended.dead_us is None:
        return None
    parts = (("frozen", ended.frozen_us), ("dead", ended.dead_us))
    spans = ", ".join(f"{word} {us / 1000:.0f} ms" for word, us in parts if us is not None)
    kept = sum(ended.outputs.values())
    return f"{spans} after the cause{f'; {kept} outputs quarantined' if kept else ''}"


def receipt(ended: Ended) -> str | None:
    """Where it is written: the record's index in the log and the grant's id."""
    parts = []
    if ended.receipt is not None:
        parts.append(f"record {ended.receipt} of the log")
    if ended.grant is not None:
        parts.append(f"job id {ended.grant.hex()}")
    return ", ".join(parts) or None


def to_json(ended: Ended) -> dict[str, Any]:
    """The same facts for programs."""
    facts = {name: getattr(ended, name) for name in _FACTS}
    grant = None if ended.grant is None else ended.grant.hex()
    return {"event": ended.event, "grant": grant, **facts, "outputs": dict(ended.outputs), "also": list(ended.also)}


def refused(error: InterlockError, *, job: str, exit_code: int) -> Ended:
    """The ending for a refusal on the way: explained by its registered reason."""
    known = known_reason(error.reason)
    return Ended(
        exit_code=exit_code,
        event="refused",
        job=job[:128],
        reason=error.reason,
        what=known.what,
        detail=error.detail[:2048] or None,
        fix=known.fix,
        retry=known.retry,
        ask=known.ask,
        node="",
        seconds=0,
        leases=0,
        outputs={},
    )


def known_reason(code: str) -> Reason:
    """The registered reason, or for a code of another release one that says so."""
    try:
        return explain(code)
    except KeyError:
        what, fix = "A reason that this release does not know.", "Bring command, agent and verifier to one release."
        return Reason(code=code, what=what, fix=fix, retry=False, ask="host admin")


def refusal(reason: str, detail: str) -> dict[str, Any]:
    """A command that was refused, for programs: the form that all commands share."""
    known = known_reason(reason)
    return {"ok": False, "error": {"reason": reason, "what": known.what, "detail": detail, "fix": known.fix}}


def reason_text(name: str) -> list[str]:
    """A registered reason, explained; empty where there is none of that name."""
    try:
        known = explain(name)
    except KeyError:
        return []
    retry = "may help" if known.retry else "does not help until something is changed"
    return [
        name,
        f"  what     {known.what}",
        f"  fix      {known.fix}",
        f"  retry    {retry}",
        f"  ask      {_whom(known.ask)}",
    ]


def reason_json(name: str) -> dict[str, Any]:
    """A registered reason for programs."""
    return asdict(explain(name))


def dumps(value: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
