"""Administration of what decides: policies, trust anchors, reference values. Each is a document with versions.

A new version is archived, made a version and put in force in one unit, under the condition that the version it was made
from is still in force; two operators who change the same thing at once do not overwrite each other. Running jobs are
told to renew, so that a change takes effect within a moment.
"""

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attestation.claims import Claims
from attestation.errors import Malformed, Untrusted
from attestation.evidence import TpmRecord
from attestation.log import Record
from attestation.policy import BANKS, Policy
from attestation.reference import STATES, Approval, Baseline, References, ReferenceSet
from verifier.anchors import Anchors
from verifier.changes import Activate, PutBlob, PutVersion
from verifier.desk import Command, Desk
from verifier.state import digests_of

_PAGE = 1000
_PCR = "pcr."
_NOTHING = References(version=0, baselines=(), approvals=())


async def put_in_force(desk: Desk, kind: str, data: bytes, detail: str) -> str:
    """Make ``data`` the version of ``kind`` that is in force; its digest. Nothing happens where it is already."""
    digest, now = digests_of({kind: data})[kind], desk.verifier.clock.now()
    current = desk.verifier.store.active(kind)
    if current is not None and current.digest == digest:
        return digest.hex()
    await desk.change(
        f"{kind} loaded",
        detail,
        PutBlob(digest, data),
        PutVersion(kind, digest, now),
        Activate(kind, digest, None if current is None else current.digest),
    )
    desk.notify()
    return digest.hex()


# --- policies and anchors ---------------------------------------------------------------------------------------------


async def policy_load(desk: Desk) -> Any:
    """Put a policy bundle and trust anchors in force (both base64, encoded). Refused unless the policy compiles."""
    policy = Policy.from_bytes(_base64(desk, "policy"))
    anchors = Anchors.from_bytes(_base64(desk, "anchors"))
    result = {
        "policy": await put_in_force(desk, "policy", policy.bundle.to_bytes(), f"{len(policy.rules)} policies"),
        "anchors": await put_in_force(
            desk, "anchors", anchors.to_bytes(), ", ".join(f"{e.name} ({e.assurance})" for e in anchors.entries)
        ),
    }
    if desk.verifier.store.active("references") is None:
        result["references"] = await put_in_force(desk, "references", _NOTHING.to_bytes(), "empty")
    return result


async def policy_show(desk: Desk) -> Any:
    """What is in force."""
    verifier = desk.verifier
    force = verifier.in_force()
    settings = force.policy.settings
    anchors = Anchors.from_bytes(verifier.document(verifier.active("anchors")))
    return {
        "policy": force.policy.digest.hex(),
        "references": force.references.digest.hex(),
        "lease_seconds": settings.lease_seconds,
        "hold_seconds": settings.hold_seconds,
        "bank": {number: name for name, number in BANKS.items()}[settings.bank],
        "pcrs": list(settings.pcrs),
        "required": list(settings.required),
        "unchecked": list(settings.unchecked),
        "rules": [{"id": r.id, "permits": r.permits, "reason": r.reason} for r in force.policy.rules.values()],
        "anchors": [{"name": e.name, "assurance": e.assurance} for e in anchors.entries],
    }


# --- reference values -------------------------------------------------------------------------------------------------


async def refs_list(desk: Desk) -> Any:
    """All baselines and approvals."""
    references = _current(desk)
    return {
        "version": references.version,
        "baselines": [_baseline(b) for b in references.baselines],
        "approvals": [_approval(a) for a in references.approvals],
    }


async def refs_from_node(desk: Desk) -> Any:
    """A baseline from what a node's TPM proved last, pending unless ``activate``. The same name replaces a baseline."""
    verifier, name = desk.verifier, desk.text("name")
    node = verifier.node(desk.text("node"))
    bank, values, where = _proven(desk, node.name)
    baseline = Baseline.from_value(
        {
            1: name,
            2: sorted({node.pool, *desk.texts("pools")}),
            3: {bank: {index: [value] for index, value in values.items()}},
            4: "active" if desk.flag("activate") else "pending",
            5: f"{node.name}, {where}",
        }
    )
    references = _current(desk)
    others = tuple(b for b in references.baselines if b.name != name)
    await _replace(desk, replace(references, baselines=(*others, baseline)), f"baseline {name} {baseline.state}")
    return _baseline(baseline)


async def refs_approve(desk: Desk) -> Any:
    """Approve the digest of a code tree or of an environment (``kind``), active at once."""
    approval = Approval.from_value(
        {
            1: desk.text("kind"),
            2: desk.hex("digest"),
            3: desk.text("name", "") or desk.text("digest")[:16],
            4: "active",
            5: desk.text("why", "") or "approved by the operator",
        }
    )
    references = _current(desk)
    others = tuple(a for a in references.approvals if (a.kind, a.digest) != (approval.kind, approval.digest))
    detail = f"{approval.kind} {approval.name} ({approval.digest.hex()}) approved"
    await _replace(desk, replace(references, approvals=(*others, approval)), detail)
    return _approval(approval)


async def refs_set_state(desk: Desk) -> Any:
    """Move a baseline (by name) or an approval (by name or digest) to another state."""
    name, state, references = desk.text("name"), desk.text("state"), _current(desk)
    if state not in STATES:
        raise Malformed("ref.state", f"{state!r} is not one of {', '.join(STATES)}")
    baselines = tuple(replace(b, state=state) if b.name == name else b for b in references.baselines)
    approvals = tuple(replace(a, state=state) if name in (a.name, a.digest.hex()) else a for a in references.approvals)
    if (baselines, approvals) == (references.baselines, references.approvals):
        raise Untrusted("ref.unknown", f"nothing is called {name!r}, or it is {state} already")
    await _replace(desk, replace(references, baselines=baselines, approvals=approvals), f"{name} {state}")
    return {"name": name, "state": state}


def _current(desk: Desk) -> References:
    active = desk.verifier.store.active("references")
    if active is None:
        return _NOTHING
    return ReferenceSet.from_bytes(desk.verifier.document(active.digest)).references


async def _replace(desk: Desk, references: References, detail: str) -> None:
    changed = References.from_value(replace(references, version=references.version + 1).to_value())
    await put_in_force(desk, "references", changed.to_bytes(), detail)


def _proven(desk: Desk, node: str) -> tuple[int, dict[int, bytes], str]:
    """Bank and PCR values that the node's TPM proved last: with evidence for a job, else at its enrolment."""
    verifier = desk.verifier
    first, enrolled, at = _enrolment(desk, node)
    for job in reversed(verifier.store.jobs(node=node)):
        if job.at < at:
            break
        for entry in reversed(verifier.store.records_of(job.cti)):
            found = _from_claims(desk, Record.from_bytes(entry.record))
            if found is not None:
                return *found, f"evidence recorded at index {entry.index}"
    return first, enrolled, "enrolment"


def _from_claims(desk: Desk, record: Record) -> tuple[int, dict[int, bytes]] | None:
    digest = record.digests.get("claims")
    if digest is None:
        return None
    facts = Claims.from_bytes(desk.verifier.document(digest)).submods["tpm"].facts
    values = {int(k.removeprefix(_PCR)): bytes.fromhex(v) for k, v in facts.items() if k.startswith(_PCR)}
    return (int(facts["bank"]), values) if values else None


def _enrolment(desk: Desk, node: str) -> tuple[int, dict[int, bytes], int]:
    """Bank, PCR values and time of the node's last enrolment, looked for from the end of the log."""
    store = desk.verifier.store
    end = store.head().size
    while end > 0:
        start = max(0, end - _PAGE)
        for entry in reversed(store.records(start, end - start)):
            record = Record.from_bytes(entry.record)
            if record.kind == "enrol" and record.node == node:
                proven = TpmRecord.from_bytes(desk.verifier.document(record.digests["evidence"]))
                return proven.bank, dict(proven.pcrs), record.time
        end = start
    raise Untrusted("node.unknown", f"the log has no enrolment of {node}")


def _base64(desk: Desk, name: str) -> bytes:
    try:
        return base64.b64decode(desk.text(name), validate=True)
    except ValueError as error:
        raise Malformed("admin.argument", f"{name} is not base64") from error


def _baseline(baseline: Baseline) -> dict[str, Any]:
    banks = {number: name for name, number in BANKS.items()}
    return {
        "name": baseline.name,
        "pools": list(baseline.pools),
        "state": baseline.state,
        "provenance": baseline.provenance,
        "pcrs": {
            banks.get(bank, hex(bank)): {str(i): [d.hex() for d in ds] for i, ds in sorted(pcrs.items())}
            for bank, pcrs in baseline.pcrs.items()
        },
    }


def _approval(approval: Approval) -> dict[str, Any]:
    return {
        "kind": approval.kind,
        "digest": approval.digest.hex(),
        "name": approval.name,
        "state": approval.state,
        "provenance": approval.provenance,
    }


RULEBOOK: Mapping[str, Command] = {
    "policy.load": policy_load,
    "policy.show": policy_show,
    "refs.list": refs_list,
    "refs.from-node": refs_from_node,
    "refs.approve": refs_approve,
    "refs.set-state": refs_set_state,
}
"""The commands of this module by name."""
