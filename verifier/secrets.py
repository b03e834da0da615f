"""Secrets: kept encrypted, each for one tenant, and released sealed to the TPM of the host that a grant is for.

1. At rest a value is encrypted with AES-256-GCM under ``keys/secrets.key``, bound to its name and tenant: exchanged in
   the database, it does not open. The key is made with the first secret, readable by its owner only; where secrets are
   kept and the key is missing, none is made in its place.
2. A request gets all that it asks for, or is denied: :mod:`verifier.judge`, and the policies say who may ask at all.
3. What is released is sealed to the host's endorsement key, under the policy of its leases (:func:`release`): the host
   opens it while a lease holds, and no other machine ever. It leaves with the answer, behind the log.

A value, or a digest of one, is in no record, archive, bundle, message or error. Names are no secrets.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attestation import cbor
from attestation.errors import Malformed, Untrusted
from attestation.intent import Intent
from attestation.node import NodeRecord
from attestation.tpm.policy import holder_auth_policy
from attestation.tpm.sealing import MOST, SEALING_ENTROPY_SIZE, SealedSecret, seal_secret
from attestation.tpm.structures import Public
from verifier.changes import DropSecret, PutSecret
from verifier.desk import Command, Desk
from verifier.keys import read_private, write_private
from verifier.state import Unwell, Verifier
from verifier.store import Secret

KEY = "secrets.key"
_KEY_SIZE, _NONCE_SIZE = 32, 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""It stands in ``INTERLOCK_SECRETS`` between commas and colons, and in an intent."""


# --- at rest ----------------------------------------------------------------------------------------------------------


def enclose(key: bytes, name: str, tenant: str, value: bytes, nonce: bytes) -> bytes:
    """The value of a secret as the store keeps it: nonce, ciphertext, tag."""
    return nonce + AESGCM(key).encrypt(nonce, value, _bound_to(name, tenant))


def disclose(key: bytes, secret: Secret) -> bytes:
    """The value of a kept secret. Raises ``Unwell("secret.unreadable")`` where it does not open."""
    nonce, hidden = secret.sealed[:_NONCE_SIZE], secret.sealed[_NONCE_SIZE:]
    try:
        return AESGCM(key).decrypt(nonce, hidden, _bound_to(secret.name, secret.tenant))
    except (InvalidTag, ValueError) as error:
        raise Unwell("secret.unreadable", f"{secret.name}: not of this key, or changed") from error


def _bound_to(name: str, tenant: str) -> bytes:
    return cbor.encode(["interlock/secret/1", name, tenant])


def read_key(path: Path) -> bytes:
    """The key at rest. Raises ``Unwell("secret.unreadable")`` where there is none or it is cut short.

    ``Untrusted("service.key-readable")`` where others can read it.
    """
    try:
        key = read_private(path)
    except Malformed as error:
        raise Unwell("secret.unreadable", error.detail) from error
    if len(key) != _KEY_SIZE:
        raise Unwell("secret.unreadable", f"{path} holds {len(key)} bytes, must be {_KEY_SIZE}")
    return key


# --- for a request ----------------------------------------------------------------------------------------------------


def asked_for(verifier: Verifier, intent: Intent) -> dict[str, Secret]:
    """What is kept under the names that a request asks for, whoever's it is."""
    found = ((name, verifier.store.secret(name)) for name in intent.secrets)
    return {name: secret for name, secret in found if secret is not None}


def release(verifier: Verifier, node: NodeRecord, secrets: Iterable[Secret]) -> dict[str, SealedSecret]:
    """``secrets`` as only the TPM of ``node`` opens them, and only under a lease of its own.

    Raises ``Unwell("secret.unreadable")`` where one cannot be read: nothing is released then.
    """
    wanted = list(secrets)
    if not wanted:
        return {}
    key = read_key(verifier.keys.directory / KEY)
    ek, ak = Public.from_bytes(node.ek_public), Public.from_bytes(node.ak_public)
    policy = holder_auth_policy(verifier.keys.policy.public, ak.name)
    return {
        secret.name: seal_secret(ek, policy, disclose(key, secret), entropy=verifier.entropy(SEALING_ENTROPY_SIZE))
        for secret in wanted
    }


# --- administration ---------------------------------------------------------------------------------------------------


async def secret_add(desk: Desk) -> Any:
    """Keep a secret (``value``, base64) for a tenant; with ``replace`` in place of an earlier value.

    Running jobs keep what they were given.
    """
    verifier, name, tenant = desk.verifier, desk.text("name"), desk.text("tenant")
    if not _NAME.fullmatch(name) or not 1 <= len(tenant) <= 128:
        raise Malformed("secret.name", f"{name!r} for {tenant!r}")
    value = _value(desk)
    key = _key(verifier)
    sealed = enclose(key, name, tenant, value, verifier.entropy(_NONCE_SIZE))
    put = PutSecret(name, tenant, sealed, verifier.clock.now(), replace=desk.flag("replace"))
    known = verifier.store.secret(name)
    if known is not None and known.tenant != tenant:
        raise Untrusted("secret.tenant", f"{name!r} is not {tenant}'s")
    if known is not None and not put.replace:
        raise Untrusted("secret.exists", f"{name!r} is kept already")
    await desk.change("secret replaced" if known else "secret added", f"{name} for tenant {tenant}", put)
    return {"name": name, "tenant": tenant, "added": put.now, "replaced": known is not None}


async def secret_list(desk: Desk) -> Any:
    """All secrets, without their values, and how many running jobs hold each."""
    return [
        {"name": s.name, "tenant": s.tenant, "added": s.at, "jobs": len(_holders(desk.verifier, s.name))}
        for s in desk.verifier.store.secrets()
    ]


async def secret_remove(desk: Desk) -> Any:
    """Forget a secret. Running jobs that hold it get no further lease, and time for a checkpoint."""
    name = desk.text("name")
    if desk.verifier.store.secret(name) is None:
        raise Untrusted("secret.unknown", f"no secret is called {name!r}")
    holders = _holders(desk.verifier, name)
    await desk.change("secret removed", name, DropSecret(name))
    for job in holders:
        desk.verifier.watch.notify(job.node)
    return {"name": name, "stops": [job.cti.hex() for job in holders]}


def _holders(verifier: Verifier, name: str) -> list[Any]:
    """The live jobs that were granted a secret."""
    live = verifier.store.jobs(live=True)
    return [job for job in live if name in verifier.granted(job.cti).grant.secrets]


def _value(desk: Desk) -> bytes:
    """The value as it came. An error says nothing of it but its length."""
    try:
        value = base64.b64decode(desk.text("value"), validate=True)
    except binascii.Error:
        raise Malformed("secret.size", "the value is not base64") from None
    if not 1 <= len(value) <= MOST:
        raise Malformed("secret.size", "it is empty" if not value else f"it has more than {MOST} bytes")
    return value


def _key(verifier: Verifier) -> bytes:
    """The key at rest, made where nothing is kept yet."""
    path = verifier.keys.directory / KEY
    if not path.exists() and not verifier.store.secrets():
        write_private(path, verifier.entropy(_KEY_SIZE))
    return read_key(path)


SECRETS: Mapping[str, Command] = {
    "secret.add": secret_add,
    "secret.list": secret_list,
    "secret.remove": secret_remove,
}
