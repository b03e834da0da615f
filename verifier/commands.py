"""What administration commands do, whichever way they came (:mod:`verifier.admin`). Every change has its record.

This half is about hosts, people and jobs; policies are in :mod:`verifier.rulebook`, reference values in
:mod:`verifier.refs.desk`.
A command takes named arguments as JSON has them and returns what JSON can say; :mod:`verifier.cli` shows it to people.
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attestation.enrol import EnrolToken
from attestation.errors import Malformed, Untrusted
from attestation.keys import PublicKey
from attestation.log import Record
from attestation.node import STATES as NODE_STATES
from attestation.node import NodeRecord, Submitter
from attestation.problem import DRAIN, HARD
from attestation.progress import HostProgress
from verifier.bundles import make_bundle
from verifier.changes import PutSubmitter, PutToken, RevokeJob, SetNodeGpus, SetNodeState, Unit
from verifier.collateral_desk import COLLATERAL
from verifier.desk import Command, Desk
from verifier.enrol import token_digest
from verifier.health import Health
from verifier.inventory import check_identities, shown_by
from verifier.refs.desk import REFS
from verifier.rulebook import RULEBOOK
from verifier.secrets import SECRETS
from verifier.state import Verifier
from verifier.store import Conflict, Job, Node

TOKEN_SECONDS = 86_400


async def run_command(verifier: Verifier, health: Health, command: str, arguments: Mapping[str, Any]) -> Any:
    """The result of one command. Raises ``Malformed`` or ``Untrusted`` as it was refused."""
    act = COMMANDS.get(command)
    if act is None:
        raise Malformed("admin.command", f"no command {command!r}")
    return await act(Desk(verifier, health, arguments))


# --- hosts ------------------------------------------------------------------------------------------------------------


async def token_create(desk: Desk) -> Any:
    """A one-time enrolment token. For a name that is taken, only with ``reenrol``, and then only for the same TPM."""
    verifier, name, pool = desk.verifier, desk.text("node"), desk.text("pool", "")
    known = verifier.store.node(name)
    if (known is not None) != desk.flag("reenrol"):
        raise Untrusted("node.duplicate-name" if known else "node.unknown", f"{name}: see token create --reenrol")
    if known is not None:
        pool = pool or known.pool
    if not name or not pool or len(name) > 128 or len(pool) > 128:
        raise Malformed("admin.argument", "node and pool are names of 1 to 128 characters")
    state = "active" if desk.flag("activate") else "pending"
    secret, now = verifier.entropy(32), verifier.clock.now()
    expires = now + desk.number("seconds", TOKEN_SECONDS)
    settings = verifier.settings
    keys = verifier.keys.public(settings.issuer, settings.origin)
    token = EnrolToken(url=settings.url, fingerprint=keys.fingerprint, secret=secret)
    put = PutToken(token_digest(secret, state), name, pool, expires)
    await desk.change("token created", f"for node {name}, pool {pool}, {state}", put, node=name)
    return {"token": token.to_text(), "node": name, "pool": pool, "state": state, "expires": expires}


async def node_list(desk: Desk) -> Any:
    """All nodes."""
    return [_node(node) for node in desk.verifier.store.nodes()]


async def node_show(desk: Desk) -> Any:
    """One node with its live jobs, and what is proven of its present boot, as far as decisions rested on it."""
    node = _known_node(desk)
    jobs = desk.verifier.store.jobs(node=node.name, live=True)
    return _node(node) | {"proven": _proven(node), "jobs": [_job(job) for job in jobs]}


async def node_set_state(desk: Desk) -> Any:
    """Move a node to another state; its running jobs are told to renew, and are judged anew."""
    node, state = _known_node(desk), desk.text("state")
    if state not in NODE_STATES:
        raise Malformed("node.state", f"{state!r} is not one of {', '.join(NODE_STATES)}")
    await desk.change(f"node {state}", desk.text("why", "") or state, SetNodeState(node.name, state), node=node.name)
    desk.notify(node=node.name)
    return _node(node) | {"state": state}


async def node_gpus(desk: Desk) -> Any:
    """The devices that a node is pinned to, after they were set: ``devices`` by identity, those that a job showed
    (``pin_from``: its grant or its name), or none (``clear``). Without any of them, only what is pinned.
    """
    node, wanted = _known_node(desk), list(desk.texts("devices"))
    job, clear = desk.text("pin_from", ""), desk.flag("clear")
    if sum((bool(wanted), bool(job), clear)) > 1:
        raise Malformed("admin.argument", "name devices, or a job, or clear: one of them")
    if not (wanted or job or clear):
        return {"node": node.name, "gpus": list(node.gpus)}
    pins = shown_by(desk.verifier, node.name, job) if job else tuple(wanted)
    check_identities(pins)
    detail = f"{len(pins)} devices{f' as shown by {job}' if job else ''}: {' '.join(pins)}" if pins else "none"
    await desk.change("node gpus pinned", detail, SetNodeGpus(node.name, pins), node=node.name)
    desk.notify(node=node.name)
    return {"node": node.name, "gpus": list(pins)}


# --- people -----------------------------------------------------------------------------------------------------------


async def submitter_add(desk: Desk) -> Any:
    """Register a signing key (PEM) with tenant and roles; the same key again replaces what was known about it."""
    key = PublicKey.from_pem(desk.text("key").encode())
    submitter = Submitter.from_value(
        {1: key.spki, 2: desk.text("tenant"), 3: list(desk.texts("roles")), 4: "active", 5: desk.text("name")}
    )
    detail = f"{submitter.name}, tenant {submitter.tenant}, roles {' '.join(submitter.roles)}, key {key.kid.hex()}"
    await desk.change("submitter added", detail, PutSubmitter(key.kid, submitter.to_bytes()))
    desk.notify()
    return _submitter(key.kid, submitter)


async def submitter_list(desk: Desk) -> Any:
    """All submitters."""
    known = desk.verifier.store.submitters()
    return [_submitter(kid, Submitter.from_bytes(record)) for kid, record in sorted(known.items())]


async def submitter_disable(desk: Desk) -> Any:
    """No new job and no further lease for this submitter (by name or key id)."""
    kid, submitter = _known_submitter(desk)
    return await _disable(desk, kid, submitter)


async def _disable(desk: Desk, kid: bytes, submitter: Submitter) -> Any:
    disabled = replace(submitter, state="disabled")
    await desk.change(
        "submitter disabled", f"{submitter.name}, key {kid.hex()}", PutSubmitter(kid, disabled.to_bytes())
    )
    desk.notify()
    return _submitter(kid, disabled)


# --- jobs -------------------------------------------------------------------------------------------------------------


async def revoke_preview(desk: Desk) -> Any:
    """The live jobs that :func:`revoke` with the same arguments would stop."""
    return [_job(job) for job in _aimed_at(desk)]


async def revoke(desk: Desk) -> Any:
    """Stop jobs: one by ``grant``, those of a ``job`` name, of a ``node`` or of a ``submitter``.

    A node is quarantined and a submitter disabled with it. Hosts that are connected hear of it at once.
    """
    klass, why = DRAIN if desk.flag("drain") else HARD, desk.text("why", "") or "by the operator"
    jobs = _aimed_at(desk)
    if desk.text("node", ""):
        node = _known_node(desk)
        await desk.change("node quarantined", why, SetNodeState(node.name, "quarantined"), node=node.name)
    if desk.text("submitter", ""):
        await _disable(desk, *_known_submitter(desk))
    stopped = [job for job in jobs if await _revoke(desk, job, klass, why)]
    for name in {job.node for job in jobs}:
        desk.verifier.watch.notify(name)
    return [_job(job) | {"state": "revoked"} for job in stopped]


async def _revoke(desk: Desk, job: Job, klass: str, why: str) -> bool:
    record = Record(
        kind="admin",
        time=desk.verifier.clock.now(),
        job=job.cti,
        outcome="revoked",
        reasons=("grant.revoked",),
        digests={},
        node=job.node,
        submitter=job.submitter,
        detail=f"{klass}: {why}"[:4096],
    )
    try:
        await desk.verifier.commit(Unit((RevokeJob(job.cti, f"{klass} {why}"),), (record,)))
    except Conflict:  # it ended meanwhile
        return False
    return True


def _aimed_at(desk: Desk) -> list[Job]:
    aims = {name: desk.text(name, "") for name in ("grant", "job", "node", "submitter")}
    if len([aim for aim in aims.values() if aim]) != 1:
        raise Malformed("admin.argument", "name one of grant, job, node and submitter")
    jobs = desk.verifier.store.jobs(live=True)
    if aims["grant"]:
        return [desk.verifier.job(desk.hex("grant"))]
    if aims["node"]:
        return [job for job in jobs if job.node == _known_node(desk).name]
    if aims["submitter"]:
        kid, _ = _known_submitter(desk)
        return [job for job in jobs if job.submitter == kid]
    return [job for job in jobs if desk.verifier.granted(job.cti).intent.job == aims["job"]]


async def job_list(desk: Desk) -> Any:
    """Jobs, the live ones only unless ``all``."""
    return [_job(job) for job in desk.verifier.store.jobs(live=not desk.flag("all"))]


async def bundle(desk: Desk) -> Any:
    """Everything about one grant for an auditor, base64."""
    made = await asyncio.to_thread(make_bundle, desk.verifier, desk.hex("grant"))  # a long job has a large one
    return {"bundle": base64.b64encode(made).decode()}


# --- the verifier itself ----------------------------------------------------------------------------------------------


async def status(desk: Desk) -> Any:
    """Health, and how much there is of everything."""
    store, trust = desk.verifier.store, desk.health.trust() | {"collateral": desk.health.collateral()}
    jobs = store.jobs(live=True)
    return {
        "issuer": desk.verifier.settings.issuer,
        "url": desk.verifier.settings.url,
        "ready": desk.health.is_ready(),
        "missing": desk.health.loaded(),
        "trust": {name: wrong or "ok" for name, wrong in trust.items()},
        "log_size": store.head().size,
        "nodes": len(store.nodes()),
        "submitters": len(store.submitters()),
        "live_jobs": len(jobs),
    }


async def log_checkpoint(desk: Desk) -> Any:
    """The newest checkpoint."""
    head = desk.verifier.store.head()
    return {"size": head.size, "root": head.root.hex(), "checkpoint": head.note.decode()}


def _known_node(desk: Desk) -> Node:
    name = desk.text("node")
    found = desk.verifier.store.node(name)
    if found is None:
        raise Untrusted("node.unknown", f"no node is called {name!r}")
    return found


def _known_submitter(desk: Desk) -> tuple[bytes, Submitter]:
    wanted = desk.text("submitter")
    for kid, record in desk.verifier.store.submitters().items():
        submitter = Submitter.from_bytes(record)
        if wanted in (kid.hex(), submitter.name):
            return kid, submitter
    raise Untrusted("authz.submitter", f"no submitter {wanted!r}")


def _node(node: Node) -> dict[str, Any]:
    record = NodeRecord.from_bytes(node.record)
    return {
        "name": node.name,
        "pool": node.pool,
        "state": node.state,
        "assurance": record.assurance,
        "anchor": record.anchor,
        "tpm_lease": record.policy is not None,
        "ek": node.ek_digest.hex(),
        "firmware": f"{record.firmware:#018x}",
        "enrolled": record.enrolled,
        "gpus": list(node.gpus),
    }


def _proven(node: Node) -> dict[str, Any]:
    """Nothing before the first grant on a host."""
    if node.progress is None:
        return {}
    found = HostProgress.from_bytes(node.progress)
    resets, restarts = int.from_bytes(found.boot[:4]), int.from_bytes(found.boot[4:])
    return {
        "boot": f"{resets}.{restarts}",
        "event_log": None if found.log is None else found.log.hex(),
        "ima_entries": None if found.ima is None else found.ima.next,
        "jobs": found.workload_count,
    }


def _submitter(kid: bytes, submitter: Submitter) -> dict[str, Any]:
    return {
        "name": submitter.name,
        "kid": kid.hex(),
        "tenant": submitter.tenant,
        "roles": list(submitter.roles),
        "state": submitter.state,
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "grant": job.cti.hex(),
        "node": job.node,
        "tenant": job.tenant,
        "submitter": job.submitter.hex(),
        "state": job.state,
        "leases": 0 if job.lease_sequence is None else job.lease_sequence + 1,
        "lease_end": job.lease_end,
    }


COMMANDS: Mapping[str, Command] = {
    "token.create": token_create,
    "node.list": node_list,
    "node.show": node_show,
    "node.set-state": node_set_state,
    "node.gpus": node_gpus,
    "submitter.add": submitter_add,
    "submitter.list": submitter_list,
    "submitter.disable": submitter_disable,
    "revoke.preview": revoke_preview,
    "revoke": revoke,
    "job.list": job_list,
    "bundle": bundle,
    "status": status,
    "log.checkpoint": log_checkpoint,
    **RULEBOOK,
    **REFS,
    **COLLATERAL,
    **SECRETS,
}
"""Every command by its name."""
