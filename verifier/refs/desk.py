"""Reference values at the administration desk: baselines, boot and IMA references, approvals; their states and ends.

Every change makes a new version of all reference values (:mod:`verifier.refs.versions`), with a record in the log; the
policy of an IMA reference is archived as a document of its own in the same unit.

1. A name belongs to one kind. The same name again replaces what it named.
2. A pool has one IMA reference in use (active or obsolete). Another one is refused, unless ``replace``: then the one
   that was in use is retired in the same change, so that no moment is without any.
3. What is in use is not replaced by something that is not: that would take a check away by accident.

What takes long (evidence of a job of many leases, the files of a distribution) is done beside the service's loop.
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from attestation.errors import Malformed, Untrusted
from attestation.reference import (
    IMA_PCR,
    STATES,
    USABLE,
    Approval,
    Baseline,
    BootReference,
    ImaReference,
    References,
    ReferenceSet,
)
from attestation.tpm.boot.policy import BootPolicy
from attestation.tpm.ima.policy import PLAIN, ImaPolicy
from verifier.changes import Change, PutBlob
from verifier.desk import Command, Desk
from verifier.refs import bootmade, proven, spool
from verifier.refs.listing import Listing
from verifier.refs.rows import approval_row, baseline_row, described_row, policy_digest
from verifier.refs.versions import NOTHING, put_in_force

CHUNK: Final = 8 << 20
_PAGE: Final = 1000
_MOST_PROVENANCE: Final = 512

Described = BootReference | ImaReference


# --- all kinds --------------------------------------------------------------------------------------------------------


async def refs_list(desk: Desk) -> Any:
    """All reference values, by kind."""
    found = current(desk)
    return {
        "version": found.version,
        "baselines": [baseline_row(b) for b in found.baselines],
        "boots": [described_row(b) for b in found.boots],
        "lists": [described_row(i) for i in found.lists],
        "approvals": [approval_row(a) for a in found.approvals],
    }


async def refs_set_state(desk: Desk) -> Any:
    """Move what is called ``name`` (an approval also by its digest) to another ``state``."""
    name, state, found = desk.text("name"), desk.text("state"), current(desk)
    if state not in STATES:
        raise Malformed("ref.state", f"{state!r} is not one of {', '.join(STATES)}")
    moved = replace(
        found,
        baselines=tuple(replace(b, state=state) if b.name == name else b for b in found.baselines),
        boots=tuple(replace(b, state=state) if b.name == name else b for b in found.boots),
        lists=tuple(replace(i, state=state) if i.name == name else i for i in found.lists),
        approvals=tuple(replace(a, state=state) if name in (a.name, a.digest.hex()) else a for a in found.approvals),
    )
    if moved == found:
        raise Untrusted("ref.unknown", f"nothing is called {name!r}, or it is {state} already")
    moved, retired = _one_for_each_pool(moved, name, retire=desk.flag("replace"))
    await _put(desk, moved, f"{name} {state}{_and_retired(retired)}")
    return {"name": name, "state": state, "retired": list(retired), "warnings": unprovable(desk, moved)}


async def refs_expire(desk: Desk) -> Any:
    """Set when what is called ``name`` ends: at ``expires`` (Unix seconds), after ``seconds``, or ``never``."""
    name, found = desk.text("name"), current(desk)
    expires = _end(desk)
    if expires is None and not desk.flag("never"):
        raise Malformed("ref.time", "name a time")
    ending = replace(
        found,
        baselines=tuple(replace(b, expires=expires) if b.name == name else b for b in found.baselines),
        boots=tuple(replace(b, expires=expires) if b.name == name else b for b in found.boots),
        lists=tuple(replace(i, expires=expires) if i.name == name else i for i in found.lists),
        approvals=tuple(
            replace(a, expires=expires) if name in (a.name, a.digest.hex()) else a for a in found.approvals
        ),
    )
    if ending == found:
        raise Untrusted("ref.unknown", f"nothing is called {name!r}, or it ends then already")
    await _put(desk, ending, f"{name} expires {'never' if expires is None else expires}")
    return {"name": name, "expires": expires}


async def refs_policy(desk: Desk) -> Any:
    """A part of the policy that a boot or IMA reference names, from ``offset`` on, base64."""
    found = _named(desk, current(desk))
    data = found.policy.to_bytes() if isinstance(found, BootReference) else desk.verifier.document(found.policy)
    offset = desk.number("offset", 0)
    part = base64.b64encode(data[offset : offset + CHUNK]).decode()
    return described_row(found) | {"size": len(data), "data": part}


# --- baselines and approvals ------------------------------------------------------------------------------------------


async def refs_from_node(desk: Desk) -> Any:
    """A baseline from what a node's TPM proved last, pending unless ``activate``. The same name replaces a baseline."""
    verifier, name = desk.verifier, desk.text("name")
    node = verifier.node(desk.text("node"))
    bank, values, where = proven.quoted(verifier, node.name)
    baseline = Baseline.from_value(
        {
            1: name,
            2: sorted({node.pool, *desk.texts("pools")}),
            3: {bank: {index: [value] for index, value in values.items()}},
            4: "active" if desk.flag("activate") else "pending",
            5: f"{node.name}, {where}",
        }
    )
    references = current(desk)
    _check_name(references, name, "baselines")
    _check_replaced(desk, next((b for b in references.baselines if b.name == name), None))
    others = tuple(b for b in references.baselines if b.name != name)
    await _put(desk, replace(references, baselines=(*others, baseline)), f"baseline {name} {baseline.state}")
    return baseline_row(baseline) | {"warnings": _unpeopled(desk, baseline.pools)}


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
    references = current(desk)
    others = tuple(a for a in references.approvals if (a.kind, a.digest) != (approval.kind, approval.digest))
    detail = f"{approval.kind} {approval.name} ({approval.digest.hex()}) approved"
    await _put(desk, replace(references, approvals=(*others, approval)), detail)
    return approval_row(approval)


# --- boot references --------------------------------------------------------------------------------------------------


async def boot_from_node(desk: Desk) -> Any:
    """A boot reference from the event log that a node proved last."""
    node = desk.verifier.node(desk.text("node"))
    seen = await asyncio.to_thread(proven.booted, desk.verifier, node.name)
    accepted = desk.texts("accepted")
    state = bootmade.proven_state(seen.log or b"", seen.bank, seen.pcrs, accepted)
    policy = bootmade.policy_of(state, accepted=accepted, without=desk.texts("without"))
    return await _put_boot(desk, policy, f"{node.name}, {seen.where}", (node.pool,))


async def boot_put(desk: Desk) -> Any:
    """A boot reference of the operator's own making: ``policy`` encoded, base64. ``expected`` is the SHA-256 of the
    policy that it was made from, where it was made from one."""
    expected = desk.text("expected", "")
    if expected and policy_digest(_named(desk, current(desk))).hex() != expected:
        raise Untrusted("ref.changed", f"{desk.text('name')} is not the policy {expected[:16]} any more")
    return await _put_boot(desk, BootPolicy.from_bytes(desk.base64("policy")), desk.text("provenance"), ())


async def _put_boot(desk: Desk, policy: BootPolicy, provenance: str, pools: tuple[str, ...]) -> Any:
    references, name = current(desk), desk.text("name")
    _check_name(references, name, "boots")
    before = next((b for b in references.boots if b.name == name), None)
    made = BootReference.from_value({**_common(desk, before, provenance, pools), 3: policy.to_value()})
    others = tuple(b for b in references.boots if b.name != name)
    await _put(desk, replace(references, boots=(*others, made)), f"boot reference {name} {made.state}")
    return described_row(made) | {"warnings": _unpeopled(desk, made.pools)}


# --- IMA references ---------------------------------------------------------------------------------------------------


async def ima_put(desk: Desk) -> Any:
    """An IMA reference of everything that is given: the lists of the policy that was left for us under ``policy``
    (:mod:`verifier.refs.spool`), what ``node`` proved, and what the references named by ``with`` list.

    The demands beside the lists are those of ``rules`` (an encoded policy without files, base64), else those of the
    first reference in ``with``, else the strict ones.
    """
    verifier, listing, sources = desk.verifier, Listing(), []
    based = [_policy(desk, name) for name in desk.names("with")]
    demands = ImaPolicy.from_bytes(desk.base64("rules")) if desk.text("rules", "") else (based or [PLAIN])[0]
    pools: tuple[str, ...] = ()
    parts = None
    if desk.text("node", ""):
        node = verifier.node(desk.text("node"))
        parts, pools = await asyncio.to_thread(proven.shown, verifier, node.name), (node.pool,)
    left = spool.take(verifier.settings.directory, desk.hex("policy")) if desk.text("policy", "") else None

    def build() -> ImaPolicy:
        if parts is not None:
            found = proven.measured(*parts)
            listing.entries(found.entries)
            sources.append(f"{node.name}, {len(found.entries)} entries, {found.where}")
        if left is not None:
            listing.policy(ImaPolicy.from_bytes(left))
            sources.append(desk.text("provenance"))
        for each in based:
            listing.policy(each)
        sources.extend(f"with {name}" for name in desk.names("with"))
        return listing.under(demands)

    policy = await asyncio.to_thread(build)
    made = await _put_list(desk, policy, "; ".join(sources), pools)
    return made | {
        "files": listing.count,
        "buffers": len(policy.buffers),
        "bytes": len(policy.to_bytes()),
        "left_out": dict(listing.skipped),
        "violations": sorted(listing.violations)[:_PAGE],
    }


async def _put_list(desk: Desk, policy: ImaPolicy, provenance: str, pools: tuple[str, ...]) -> dict[str, Any]:
    references, name = current(desk), desk.text("name")
    _check_name(references, name, "lists")
    before = next((i for i in references.lists if i.name == name), None)
    made = ImaReference.from_value({**_common(desk, before, provenance, pools), 3: policy.digest})
    others = tuple(i for i in references.lists if i.name != name)
    changed, retired = _one_for_each_pool(replace(references, lists=(*others, made)), name, retire=desk.flag("replace"))
    detail = f"IMA reference {name} {made.state}, policy {policy.digest.hex()}{_and_retired(retired)}"
    await _put(desk, changed, detail, PutBlob(policy.digest, policy.to_bytes()))
    warnings = [*_unpeopled(desk, made.pools), *unprovable(desk, changed)]
    return described_row(made) | {"retired": list(retired), "warnings": warnings}


# --- what they share --------------------------------------------------------------------------------------------------


def current(desk: Desk) -> References:
    """The reference values in force; none where none were ever loaded."""
    active = desk.verifier.store.active("references")
    if active is None:
        return NOTHING
    return ReferenceSet.from_bytes(desk.verifier.document(active.digest)).references


async def _put(desk: Desk, references: References, detail: str, *more: Change) -> None:
    changed = References.from_value(replace(references, version=references.version + 1).to_value())
    await put_in_force(desk, "references", changed.to_bytes(), detail, *more)


def _check_name(references: References, name: str, kind: str) -> None:
    """Rule 1."""
    for other in {"baselines", "boots", "lists"} - {kind}:
        if any(found.name == name for found in getattr(references, other)):
            raise Untrusted("ref.taken", f"{name!r} is among the {other}")


def _one_for_each_pool(references: References, name: str, *, retire: bool) -> tuple[References, tuple[str, ...]]:
    """Rule 2, for the IMA reference called ``name``; the references, and which of them were retired for it."""
    mine = next((i for i in references.lists if i.name == name and i.state in USABLE), None)
    if mine is None:
        return references, ()
    others = [i for i in references.lists if i.name != name and i.state in USABLE and {*i.pools} & {*mine.pools}]
    for other in others:
        shared = ", ".join(sorted({*other.pools} & {*mine.pools}))
        if not retire:
            raise Untrusted("ref.in-use", f"pool {shared}: {other.name} is {other.state}")
        if left := sorted({*other.pools} - {*mine.pools}):
            detail = f"{other.name} is also for pool {', '.join(left)}, which would be left without any"
            raise Untrusted("ref.in-use", detail)
    retired = tuple(other.name for other in others)
    lists = tuple(replace(i, state="retired") if i.name in retired else i for i in references.lists)
    return replace(references, lists=lists), retired


def _and_retired(names: tuple[str, ...]) -> str:
    return f", {', '.join(names)} retired" if names else ""


def _common(desk: Desk, before: Described | None, provenance: str, pools: tuple[str, ...]) -> dict[int, Any]:
    """The fields that boot and IMA references share. With ``keep`` they stay as they were ``before``."""
    if before is not None and desk.flag("keep"):
        kept = {1: before.name, 2: list(before.pools), 4: before.state, 5: _cut(provenance)}
        return kept | ({} if before.expires is None else {6: before.expires})
    wanted = sorted({*pools, *desk.texts("pools")}) or list(() if before is None else before.pools)
    if not wanted:
        raise Malformed("admin.argument", "name the pools that it is for")
    _check_replaced(desk, before)
    expires = _end(desk)
    return {
        1: desk.text("name"),
        2: wanted,
        4: "active" if desk.flag("activate") else "pending",
        5: _cut(provenance),
        **({} if expires is None else {6: expires}),
    }


def _check_replaced(desk: Desk, before: Baseline | Described | None) -> None:
    """Rule 3."""
    if before is not None and before.state in USABLE and not desk.flag("activate"):
        detail = f"{before.name} is {before.state}: with --activate the new one takes its place, or choose another name"
        raise Untrusted("ref.in-use", detail)


def _cut(provenance: str) -> str:
    return provenance if len(provenance) <= _MOST_PROVENANCE else provenance[: _MOST_PROVENANCE - 1] + "…"


def _unpeopled(desk: Desk, pools: tuple[str, ...]) -> list[str]:
    """Pools that no node is in: prepared, or misspelt."""
    known = {node.pool for node in desk.verifier.store.nodes()}
    return [f"no node is in pool {pool}" for pool in pools if pool not in known]


def unprovable(desk: Desk, references: References) -> list[str]:
    """What is in force and cannot be met: a list that no quote of the policy's PCRs could prove."""
    if IMA_PCR in desk.verifier.in_force().policy.settings.pcrs:
        return []
    pools = sorted({pool for found in references.lists if found.state in USABLE for pool in found.pools})
    text = f"PCR {IMA_PCR} is not among the pcrs of settings.toml: every job of the pool is denied (tpm.ima.unquoted)"
    return [f"pool {pool}: {text}" for pool in pools]


def _end(desk: Desk) -> int | None:
    """When something ends, where the arguments say so."""
    now, seconds, expires = desk.verifier.clock.now(), desk.number("seconds", 0), desk.number("expires", 0)
    if seconds and expires:
        raise Malformed("ref.time", "a moment, or a time from now, and not both")
    end = expires or (now + seconds if seconds else None)
    if end is not None and end <= now:
        raise Malformed("ref.time", f"{end} has passed")
    return end


def _named(desk: Desk, references: References) -> Described:
    name = desk.text("name")
    described: tuple[Described, ...] = (*references.boots, *references.lists)
    for found in described:
        if found.name == name:
            return found
    raise Untrusted("ref.unknown", f"no boot or IMA reference is called {name!r}")


def _policy(desk: Desk, name: str) -> ImaPolicy:
    for found in current(desk).lists:
        if found.name == name:
            return ImaPolicy.from_bytes(desk.verifier.document(found.policy))
    raise Untrusted("ref.unknown", f"no IMA reference is called {name!r}")


REFS: Mapping[str, Command] = {
    "refs.list": refs_list,
    "refs.set-state": refs_set_state,
    "refs.expire": refs_expire,
    "refs.policy": refs_policy,
    "refs.from-node": refs_from_node,
    "refs.approve": refs_approve,
    "refs.boot.from-node": boot_from_node,
    "refs.boot.put": boot_put,
    "refs.ima.put": ima_put,
}
"""The commands of this module by name."""
