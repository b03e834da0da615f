"""The SQLite tables, and for each change the statement that makes it: hand-written SQL, as data.

A change is one statement that touches a row only where its condition holds. Where it touched none, the questions of
its rule are asked in order, each a query that gives a row when its reason applies; the last reason needs no question.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from verifier import changes

SCHEMA_VERSION = 5
APPLICATION_ID = 0x494C4B31
"""``ILK1``, so that a file of another program is not taken for a store."""

SCHEMA = """
CREATE TABLE entry (idx INTEGER PRIMARY KEY, record BLOB NOT NULL, job BLOB, seq INTEGER) STRICT;
CREATE UNIQUE INDEX entry_of_job ON entry (job, seq) WHERE job IS NOT NULL;
CREATE TABLE tree (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (level, idx)) STRICT, WITHOUT ROWID;
CREATE TABLE probe (one INTEGER PRIMARY KEY, count INTEGER NOT NULL DEFAULT 1) STRICT;
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT;

CREATE TABLE blob (digest BLOB NOT NULL UNIQUE, data BLOB NOT NULL) STRICT;
CREATE TABLE version (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,
    digest BLOB NOT NULL REFERENCES blob (digest), at INTEGER NOT NULL, UNIQUE (kind, digest)) STRICT;
CREATE TABLE active (kind TEXT PRIMARY KEY, digest BLOB NOT NULL) STRICT;

CREATE TABLE collateral (kind TEXT NOT NULL, id TEXT NOT NULL, data BLOB NOT NULL, fetched INTEGER NOT NULL,
    expires INTEGER NOT NULL, source TEXT NOT NULL, used INTEGER, PRIMARY KEY (kind, id)) STRICT;

CREATE TABLE secret (name TEXT PRIMARY KEY, tenant TEXT NOT NULL, sealed BLOB NOT NULL, at INTEGER NOT NULL) STRICT;

CREATE TABLE token (digest BLOB PRIMARY KEY, name TEXT NOT NULL, pool TEXT NOT NULL, expires INTEGER NOT NULL,
    used INTEGER) STRICT;
CREATE TABLE activation (session BLOB PRIMARY KEY, state BLOB NOT NULL, expires INTEGER NOT NULL) STRICT;
CREATE TABLE node (name TEXT PRIMARY KEY, ek_digest BLOB NOT NULL UNIQUE, holder BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL, pool TEXT NOT NULL, record BLOB NOT NULL,
    clock INTEGER, resets INTEGER, restarts INTEGER, safe INTEGER, gpus TEXT NOT NULL DEFAULT '',
    progress BLOB) STRICT;

CREATE TABLE challenge (nonce BLOB PRIMARY KEY, node TEXT NOT NULL, issued INTEGER NOT NULL, expires INTEGER NOT NULL,
    redeemed INTEGER, clock INTEGER, resets INTEGER, restarts INTEGER, safe INTEGER, progress BLOB,
    asked BLOB) STRICT;
CREATE INDEX challenge_expires ON challenge (expires);
CREATE TABLE intent (nonce BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE submitter (kid BLOB PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE job (cti BLOB PRIMARY KEY, node TEXT NOT NULL, submitter BLOB NOT NULL, tenant TEXT NOT NULL,
    intent BLOB NOT NULL, state TEXT NOT NULL, gpus INTEGER NOT NULL, at INTEGER NOT NULL, revoked TEXT,
    lease_sequence INTEGER, lease_digest BLOB, lease_end INTEGER, gpu_seconds INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX job_live ON job (node, tenant, submitter) WHERE state IN ('issued', 'running', 'revoked');
CREATE INDEX job_tenant ON job (tenant, at, gpu_seconds) WHERE gpu_seconds > 0;
"""

UPGRADES: Mapping[int, tuple[str, ...]] = {
    1: (
        """CREATE TABLE collateral (kind TEXT NOT NULL, id TEXT NOT NULL, data BLOB NOT NULL, fetched INTEGER NOT NULL,
    expires INTEGER NOT NULL, source TEXT NOT NULL, used INTEGER, PRIMARY KEY (kind, id)) STRICT""",
        "ALTER TABLE node ADD COLUMN gpus TEXT NOT NULL DEFAULT ''",
    ),
    2: (
        """CREATE TABLE secret (name TEXT PRIMARY KEY, tenant TEXT NOT NULL, sealed BLOB NOT NULL,
    at INTEGER NOT NULL) STRICT""",
    ),
    3: ("ALTER TABLE node ADD COLUMN progress BLOB", "ALTER TABLE challenge ADD COLUMN progress BLOB"),
    4: ("ALTER TABLE challenge ADD COLUMN asked BLOB",),
}
"""What makes a store of an older version one of the next."""

LIVE = "state IN ('issued', 'running', 'revoked')"

_USAGE = f"""
(SELECT count(*) FROM job WHERE {LIVE} AND submitter = :submitter AND cti IS NOT :without),
(SELECT count(*) FROM job WHERE {LIVE} AND tenant = :tenant AND cti IS NOT :without),
(SELECT count(*) FROM job WHERE {LIVE} AND node = :node AND cti IS NOT :without),
(SELECT coalesce(sum(gpu_seconds), 0) FROM job
    WHERE tenant = :tenant AND at >= :since AND gpu_seconds > 0)
"""  # noqa: S608  # the only text that is put in is the constant above
GPU_SECONDS = "SELECT coalesce(sum(gpu_seconds), 0) FROM job WHERE tenant = ? AND at >= ? AND gpu_seconds > 0"
USERS = "SELECT DISTINCT tenant FROM job WHERE gpu_seconds > 0"
RUNNING = f"SELECT cti, submitter, tenant, node FROM job WHERE {LIVE}"  # noqa: S608  # a constant
SUBMITTERS = "SELECT kid, record FROM submitter ORDER BY kid"
IN_FORCE = "SELECT kind, digest FROM version NATURAL JOIN active"

CHALLENGE = (
    "SELECT node, issued, expires, redeemed, progress, asked, clock, resets, restarts, safe FROM challenge"
    " WHERE nonce = ?"
)

JOB = """
SELECT cti, node, submitter, tenant, intent, state, gpus, at, revoked, lease_sequence, lease_digest, lease_end,
       gpu_seconds FROM job
"""

NODE = "SELECT name, ek_digest, holder, state, pool, record, clock, resets, restarts, safe, gpus, progress FROM node "


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of change is made: the statement, the questions that find a reason, the reason that is left."""

    sql: str
    otherwise: str = ""
    why: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()
    """Statements that belong to the change and have no condition."""

    @property
    def asks(self) -> bool:
        """Whether the change is only a condition: a query that gives a row where it holds."""
        return self.sql.startswith("SELECT")


def _absent(table: str, key: str, parameter: str) -> str:
    return f"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {key} = :{parameter})"  # noqa: S608  # constants


_NO_NODE = _absent("node", "name", "name")
_NO_JOB = _absent("job", "cti", "cti")

PUT_BLOB = "INSERT INTO blob (digest, data) VALUES (?, ?) ON CONFLICT DO NOTHING"
"""For each of many blobs, its values by place."""

STEADY = frozenset({changes.ExpectActive, changes.ExpectSubmitter})
UNSETTLING = frozenset({changes.Activate, changes.PutSubmitter})
"""Conditions that only these changes touch."""

RULES: Mapping[type[changes.Change], Rule] = {
    changes.PutBlob: Rule("INSERT INTO blob (digest, data) VALUES (:digest, :data) ON CONFLICT DO NOTHING"),
    changes.PutBlobs: Rule(PUT_BLOB),
    changes.PutVersion: Rule(
        "INSERT INTO version (kind, digest, at) SELECT :kind, digest, :now FROM blob WHERE digest = :digest"
        " ON CONFLICT (kind, digest) DO UPDATE SET at = at",
        "version.no-blob",
    ),
    changes.Activate: Rule(
        "INSERT INTO active (kind, digest) SELECT kind, digest FROM version WHERE kind = :kind AND digest = :digest"
        " AND (SELECT digest FROM active WHERE kind = :kind) IS :expected"
        " ON CONFLICT (kind) DO UPDATE SET digest = excluded.digest",
        "version.changed",
        (
            (
                "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM version WHERE kind = :kind AND digest = :digest)",
                "version.unknown",
            ),
        ),
    ),
    changes.ExpectActive: Rule("SELECT 1 FROM active WHERE kind = :kind AND digest = :digest", "version.changed"),
    changes.PutCollateral: Rule(
        "INSERT INTO collateral (kind, id, data, fetched, expires, source)"
        " VALUES (:kind, :id, :data, :fetched, :expires, :source) ON CONFLICT DO UPDATE SET data = excluded.data,"
        " fetched = excluded.fetched, expires = excluded.expires, source = excluded.source"
        " WHERE collateral.data IN (:known, excluded.data)",
        "collateral.changed",
    ),
    changes.UseCollateral: Rule("UPDATE collateral SET used = :now WHERE kind = :kind AND id = :id"),
    changes.PutSecret: Rule(
        "INSERT INTO secret (name, tenant, sealed, at) VALUES (:name, :tenant, :sealed, :now)"
        " ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, at = excluded.at"
        " WHERE :replace AND tenant = excluded.tenant",
        "secret.exists",
        (("SELECT 1 FROM secret WHERE name = :name AND tenant <> :tenant", "secret.tenant"),),
    ),
    changes.DropSecret: Rule("DELETE FROM secret WHERE name = :name", "secret.unknown"),
    changes.ExpectSecret: Rule(
        "SELECT 1 FROM secret WHERE name = :name AND tenant = :tenant AND sealed = :sealed", "secret.changed"
    ),
    changes.PutToken: Rule(
        "INSERT INTO token (digest, name, pool, expires) VALUES (:digest, :name, :pool, :expires)"
        " ON CONFLICT DO NOTHING",
        "enrol.token-exists",
    ),
    changes.UseToken: Rule(
        "UPDATE token SET used = :now WHERE digest = :digest AND used IS NULL AND expires > :now",
        "enrol.token-expired",
        (
            (_absent("token", "digest", "digest"), "enrol.token-unknown"),
            ("SELECT 1 FROM token WHERE digest = :digest AND used IS NOT NULL", "enrol.token-used"),
        ),
    ),
    changes.PutActivation: Rule(
        "INSERT INTO activation (session, state, expires) VALUES (:session, :state, :expires) ON CONFLICT DO NOTHING",
        "enrol.session-exists",
    ),
    changes.TakeActivation: Rule(
        "DELETE FROM activation WHERE session = :session AND expires > :now",
        "enrol.session-expired",
        ((_absent("activation", "session", "session"), "enrol.session-unknown"),),
    ),
    changes.PutNode: Rule(
        "INSERT INTO node (name, ek_digest, holder, state, pool, record)"
        " VALUES (:name, :ek_digest, :holder, :state, :pool, :record) ON CONFLICT DO NOTHING",
        "node.duplicate-holder",
        (
            ("SELECT 1 FROM node WHERE ek_digest = :ek_digest", "node.duplicate-ek"),
            ("SELECT 1 FROM node WHERE name = :name", "node.duplicate-name"),
        ),
    ),
    changes.ReplaceNode: Rule(
        "UPDATE OR IGNORE node SET holder = :holder, state = iif(state = 'quarantined', state, :state), pool = :pool,"
        " record = :record, clock = NULL, resets = NULL, restarts = NULL, safe = NULL, progress = NULL"
        " WHERE name = :name AND ek_digest = :ek_digest AND state <> 'retired'",
        "node.duplicate-holder",
        (
            (
                "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM node WHERE name = :name AND ek_digest = :ek_digest)",
                "node.unknown",
            ),
            ("SELECT 1 FROM node WHERE name = :name AND state = 'retired'", "node.retired"),
        ),
    ),
    changes.SetNodeState: Rule(
        "UPDATE node SET state = :state WHERE name = :name AND state <> 'retired'",
        "node.retired",
        ((_NO_NODE, "node.unknown"),),
    ),
    changes.SetNodeGpus: Rule(
        "UPDATE node SET gpus = :gpus WHERE name = :name AND state <> 'retired'",
        "node.retired",
        ((_NO_NODE, "node.unknown"),),
    ),
    changes.TouchClock: Rule(
        "UPDATE node SET safe = :safe, resets = :resets, restarts = :restarts,"
        " clock = CASE WHEN (resets, restarts) = (:resets, :restarts) THEN max(clock, :clock) ELSE :clock END"
        " WHERE name = :name AND (resets IS NULL OR (resets, restarts) <= (:resets, :restarts))",
        "node.clock",
        ((_NO_NODE, "node.unknown"),),
    ),
    changes.TouchProgress: Rule(
        "UPDATE node SET progress = furthest(progress, :progress) WHERE name = :name", "node.unknown"
    ),
    changes.ExpectNode: Rule(
        "SELECT 1 FROM node WHERE name = :name AND state = :state AND holder = :holder AND gpus = :gpus", "node.changed"
    ),
    changes.PutChallenge: Rule(
        "INSERT INTO challenge (nonce, node, issued, expires, progress, asked, clock, resets, restarts, safe)"
        " VALUES (:nonce, :node, :issued, :expires, :progress, :asked, :clock, :resets, :restarts, :safe)"
        " ON CONFLICT DO NOTHING",
        "challenge.exists",
    ),
    changes.RedeemChallenge: Rule(
        "UPDATE challenge SET redeemed = :now"
        " WHERE nonce = :nonce AND node = :node AND redeemed IS NULL AND expires > :now",
        "challenge.expired",
        (
            (_absent("challenge", "nonce", "nonce"), "challenge.unknown"),
            ("SELECT 1 FROM challenge WHERE nonce = :nonce AND node <> :node", "challenge.node"),
            ("SELECT 1 FROM challenge WHERE nonce = :nonce AND redeemed IS NOT NULL", "challenge.redeemed"),
        ),
    ),
    changes.UseIntent: Rule(
        "INSERT INTO intent (nonce, at) VALUES (:nonce, :now) ON CONFLICT DO NOTHING", "intent.replayed"
    ),
    changes.PutSubmitter: Rule(
        "INSERT INTO submitter (kid, record) VALUES (:kid, :record)"
        " ON CONFLICT (kid) DO UPDATE SET record = excluded.record"
    ),
    changes.ExpectSubmitter: Rule("SELECT 1 FROM submitter WHERE kid = :kid AND record = :record", "submitter.changed"),
    changes.PutJob: Rule(
        "INSERT INTO job (cti, node, submitter, tenant, intent, state, gpus, at)"
        " VALUES (:cti, :node, :submitter, :tenant, :intent, :state, :gpus, :now) ON CONFLICT DO NOTHING",
        "grant.exists",
    ),
    changes.AdvanceLease: Rule(
        "UPDATE job SET state = 'running', lease_sequence = :sequence, lease_digest = :digest, lease_end = :end,"
        " gpu_seconds = :gpu_seconds"
        " WHERE cti = :cti AND state IN ('issued', 'running') AND lease_digest IS :previous"
        " AND coalesce(lease_sequence + 1, 0) = :sequence",
        "grant.conflict",
        (
            (_NO_JOB, "grant.unknown"),
            ("SELECT 1 FROM job WHERE cti = :cti AND state = 'revoked'", "grant.revoked"),
            ("SELECT 1 FROM job WHERE cti = :cti AND state NOT IN ('issued', 'running')", "grant.ended"),
        ),
    ),
    changes.RevokeJob: Rule(
        f"UPDATE job SET state = 'revoked', revoked = :reason WHERE cti = :cti AND {LIVE}",  # noqa: S608  # constant
        "grant.ended",
        ((_NO_JOB, "grant.unknown"),),
    ),
    changes.EndJob: Rule(
        f"UPDATE job SET state = 'ended', gpu_seconds = :gpu_seconds WHERE cti = :cti AND {LIVE}",  # noqa: S608
        "grant.ended",
        ((_NO_JOB, "grant.unknown"),),
    ),
    changes.ExpectUsage: Rule(
        f"SELECT 1 WHERE ({_USAGE}) = (:submitter_jobs, :tenant_jobs, :node_jobs, :gpu_seconds)",
        "usage.changed",
    ),
    changes.Prune: Rule(
        "DELETE FROM challenge WHERE expires < :before",
        more=("DELETE FROM token WHERE expires < :before", "DELETE FROM activation WHERE expires < :before"),
    ),
}

_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in RULES}


def parameters(change: changes.Change) -> dict[str, Any]:
    """The change's fields by name, as the statements call them: a clock or a usage one by one, devices as lines."""
    named = {name: getattr(change, name) for name in _FIELDS[type(change)]}
    if isinstance(change, (changes.TouchClock, changes.PutChallenge)):
        named |= {name: getattr(change.clock, name, None) for name in _CLOCK_FIELDS}
    elif isinstance(change, (changes.SetNodeGpus, changes.ExpectNode)):
        named["gpus"] = "\n".join(change.gpus)
    elif isinstance(change, changes.ExpectUsage):
        named |= {name: getattr(change.usage, name) for name in _USAGE_FIELDS}
        del named["usage"]
    return named


def lines_of(text: str) -> tuple[str, ...]:
    """The devices that a node is pinned to, as they are kept."""
    return tuple(text.split("\n")) if text else ()


_CLOCK_FIELDS = ("clock", "resets", "restarts", "safe")
_USAGE_FIELDS = ("submitter_jobs", "tenant_jobs", "node_jobs", "gpu_seconds")
