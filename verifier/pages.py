"""What anybody may read: keys, health, the public proof, the checkpoint, bundles, metrics, hints.

Nothing here is secret, and nothing here decides. Digests and keys are lower-case hexadecimal in JSON.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from attestation import api
from attestation.errors import Malformed, Untrusted
from attestation.log import Record
from verifier.bundles import make_bundle
from verifier.health import Health
from verifier.state import Verifier

Page = Callable[[Request], Awaitable[Response]]

_RECENT = 100


class Pages:
    """The pages of one verifier, by path."""

    def __init__(self, verifier: Verifier, health: Health) -> None:
        self._verifier, self._health = verifier, health
        self._bundling = asyncio.Lock()

    def routes(self) -> dict[str, Page]:
        """Path to page."""
        return {
            api.KEYS: self.keys,
            api.WATCH: self.watch,
            "/v1/bundle/{grant}": self.bundle,
            "/health": self.health,
            "/proof": self.proof,
            "/checkpoint": self.checkpoint,
            "/metrics": self.metrics,
        }

    async def keys(self, request: Request) -> Response:
        """The public keys: CBOR, or JSON for who accepts that."""
        settings = self._verifier.settings
        keys = self._verifier.keys.public(settings.issuer, settings.origin)
        if "json" not in request.headers.get("accept", ""):
            return Response(keys.to_bytes(), media_type=api.CBOR_TYPE)
        return JSONResponse(self._public_keys())

    async def health(self, _request: Request) -> Response:
        """Alive, ready, trusted; 503 while not ready."""
        trust, loaded, ready = self._health.trust(), self._health.loaded(), self._health.is_ready()
        told = trust | {"collateral": self._health.collateral()}
        body = {"live": True, "ready": ready, "trust": {name: wrong or "ok" for name, wrong in told.items()}}
        return JSONResponse(body | ({"missing": loaded} if loaded else {}), 200 if ready else 503)

    async def proof(self, _request: Request) -> Response:
        """What an outsider needs to begin checking: keys, checkpoint, what is in force, what was decided lately."""
        store = self._verifier.store
        head = store.head()
        entries = store.records(max(0, head.size - _RECENT), _RECENT)
        counts: dict[str, int] = {}
        for entry in entries:
            record = Record.from_bytes(entry.record)
            name = f"{record.kind}: {record.outcome}"
            counts[name] = counts.get(name, 0) + 1
        active = {kind: store.active(kind) for kind in ("policy", "references", "anchors")}
        body: dict[str, Any] = {
            "keys": self._public_keys(),
            "size": head.size,
            "root": head.root.hex(),
            "checkpoint": head.note.decode(),
            "recent": {"records": len(entries), "counts": dict(sorted(counts.items()))},
            "in_force": {kind: None if v is None else v.digest.hex() for kind, v in active.items()},
        }
        return JSONResponse(body)

    async def checkpoint(self, _request: Request) -> Response:
        """The newest checkpoint, a C2SP signed note."""
        return Response(self._verifier.store.head().note, media_type="text/plain; charset=utf-8")

    async def bundle(self, request: Request) -> Response:
        """Everything about one grant, for an auditor. One at a time, beside the loop: a long job has a large bundle."""
        try:
            cti = bytes.fromhex(request.path_params["grant"])
        except ValueError as error:
            raise Malformed("http.path", "a grant is named by 32 hexadecimal digits") from error
        async with self._bundling:
            made = await asyncio.to_thread(make_bundle, self._verifier, cti)
        return Response(made, media_type=api.CBOR_TYPE)

    async def metrics(self, _request: Request) -> Response:
        """Counters for Prometheus."""
        verifier, metrics = self._verifier, self._verifier.metrics
        metrics.log_size.set(verifier.store.head().size)
        metrics.open_challenges.set(verifier.open_challenges)
        now = verifier.clock.now()
        metrics.leases_live.set(sum((job.lease_end or 0) > now for job in verifier.store.jobs(live=True)))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def watch(self, request: Request) -> Response:
        """The node's number, as soon as it is not ``since`` any more."""
        node, since = request.query_params.get("node", ""), request.query_params.get("since", "")
        if not since.isascii() or not since.isdigit() or len(since) > 18:
            raise Malformed("http.query", "since is a number")
        if self._verifier.store.node(node) is None:
            raise Untrusted("node.unknown", "no node has that name")
        asker = request.client.host if request.client else ""
        version = await self._verifier.watch.wait(node, int(since), api.WATCH_SECONDS, asker)
        return Response(api.Hint(version=version).to_bytes(), media_type=api.CBOR_TYPE)

    def _public_keys(self) -> dict[str, str]:
        settings, keys = self._verifier.settings, self._verifier.keys
        public = keys.public(settings.issuer, settings.origin)
        return {
            "issuer": settings.issuer,
            "origin": settings.origin,
            "grant": base64.b64encode(public.grant).decode(),
            "log": base64.b64encode(public.log).decode(),
            "tls": base64.b64encode(public.tls).decode(),
            "policy": base64.b64encode(public.policy).decode(),
            "fingerprint": public.fingerprint.hex(),
        }
