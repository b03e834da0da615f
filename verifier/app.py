"""The verifier over HTTP: sizes and strangers at the door, one function per question behind it, and no other exits.

Whatever happens, the answer is the asked-for object, a :class:`Denial` (403, logged), or a :class:`Problem`:

=== =============================================================================================
400 it is broken (``Malformed``)
403 it names nobody that is known, or cannot be believed before anything was judged (``Untrusted``)
404 there is no such grant, node or page
409 the challenge was used, is late, or the facts changed under it: ask again
413 415 429   too large, of another type, too often
500 we are broken: the error goes to the service's own log, the answer says no more than that
503 we are not well, or busy, and issue nothing
=== =============================================================================================

Requests that fail before they name a known node are not in the Merkle log, and one address gets only so many of them
answered (:mod:`verifier.throttle`); everything that was judged is in the log. Evidence that its node did not sign is
judged, denied and archived, so it is charged too, by its size (:mod:`verifier.deny`): it could fill the disk.
"""

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from attestation import api
from attestation.challenge import Challenge
from attestation.enrol import EnrolProof, EnrolRequest
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.permit import PermitRequest
from attestation.problem import DENIAL_TYPE, PROBLEM_TYPE, Denial, Problem
from attestation.wire import Wire
from verifier import enrol
from verifier.authorize import authorize
from verifier.health import Health
from verifier.pages import Pages
from verifier.permit import permit
from verifier.renew import renew
from verifier.reports import report
from verifier.state import Unwell, Verifier
from verifier.store import Corrupt, Unavailable

Act = Callable[[Verifier, bytes, str], Awaitable[Wire | bytes]]
"""What answers a body that came from an address."""
Endpoint = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger("interlock.verifier")

STATUS = {
    "http.size": 413,
    "http.type": 415,
    "http.rate": 429,
    "http.path": 404,
    "watch.full": 429,
    "challenge.too-many": 429,
    "challenge.redeemed": 409,
    "challenge.expired": 409,
    "grant.unknown": 404,
    "node.unknown": 404,
}
"""Where a reason has a status of its own; otherwise the kind of the error decides."""


def create_app(verifier: Verifier, health: Health) -> Starlette:
    """The ASGI application of one verifier."""
    posts: dict[str, Act] = {
        api.CHALLENGE: _challenge,
        api.AUTHORIZE: _authorize,
        api.RENEW: _renew,
        api.REPORT: _report,
        api.PERMIT: _permit,
        api.ENROL: _enrol,
        api.ENROL_PROOF: _prove,
    }
    door = Door(verifier, health)
    routes = [Route(path, door.post(path, act), methods=["POST"]) for path, act in posts.items()]
    pages = Pages(verifier, health)
    routes += [Route(path, door.guard(page), methods=["GET"]) for path, page in pages.routes().items()]
    return Starlette(routes=routes, exception_handlers={404: _no_page, 405: _no_page})


async def _challenge(verifier: Verifier, body: bytes, address: str) -> Challenge:
    return await verifier.challenge(api.ChallengeRequest.from_bytes(body).node, address)


async def _authorize(verifier: Verifier, body: bytes, _address: str) -> Wire:
    return await authorize(verifier, api.AuthorizationRequest.from_bytes(body))


async def _renew(verifier: Verifier, body: bytes, _address: str) -> Wire | bytes:
    return await renew(verifier, body)


async def _report(verifier: Verifier, body: bytes, _address: str) -> bytes:
    return await report(verifier, body)


async def _permit(verifier: Verifier, body: bytes, _address: str) -> Wire:
    return await permit(verifier, PermitRequest.from_bytes(body))


async def _enrol(verifier: Verifier, body: bytes, _address: str) -> Wire:
    return await enrol.begin(verifier, EnrolRequest.from_bytes(body))


async def _prove(verifier: Verifier, body: bytes, _address: str) -> Wire:
    return await enrol.finish(verifier, EnrolProof.from_bytes(body))


class Door:
    """What stands before every function: size, type, strangers, health; and what turns every error into an answer."""

    def __init__(self, verifier: Verifier, health: Health) -> None:
        self._verifier, self._health = verifier, health

    def post(self, path: str, act: Act) -> Endpoint:
        """The endpoint that reads a body for ``path`` and answers what ``act`` returns."""

        async def endpoint(request: Request) -> Response:
            address = address_of(request)
            if self._verifier.throttle.is_exhausted(address):
                raise Untrusted("http.rate", "too many requests that name nobody known")
            body = await read_body(request, self._most(path, request))
            self._health.require()
            answer = await act(self._verifier, body, address)
            if isinstance(answer, Denial):
                return Response(answer.to_bytes(), 403, media_type=DENIAL_TYPE)
            if isinstance(answer, bytes):
                return Response(answer, media_type=api.COSE_TYPE)
            return Response(answer.to_bytes(), media_type=api.CBOR_TYPE)

        return self.guard(endpoint)

    def _most(self, path: str, request: Request) -> int:
        """How large a body may be: large ones have a measurement list in them, and answer an open challenge."""
        most = api.MAX_BODY[path]
        if most <= api.UNNAMED_BODY or self._verifier.awaits(_named(request)):
            return most
        return api.UNNAMED_BODY

    def guard(self, endpoint: Endpoint) -> Endpoint:
        """``endpoint``, with every error turned into a problem. The outermost handler: what nobody expected is a no."""

        async def guarded(request: Request) -> Response:
            try:
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=400)
            except (Unwell, Unavailable, Corrupt) as error:
                _log.warning("not well: %s", error)
                return self._problem(503, error)
            except InterlockError as error:
                self._verifier.throttle.charge(address_of(request))
                status = STATUS.get(error.reason, 400 if isinstance(error, Malformed) else 403)
                return self._problem(status, error)
            except Exception:  # noqa: BLE001  # outermost: deny, sign nothing, say so to the operator
                _log.exception("a request failed here: %s", request.url.path)
                return self._problem(500, Unwell("verifier.failed"))

        return guarded

    def _problem(self, status: int, error: InterlockError) -> Response:
        self._verifier.metrics.problems.labels(error.reason).inc()
        return problem(status, error)


def _named(request: Request) -> bytes:
    """The nonce of the challenge that a request says it answers; empty where it names none."""
    try:
        return bytes.fromhex(request.headers.get(api.CHALLENGE_HEADER, ""))
    except ValueError:
        return b""


def problem(status: int, error: InterlockError) -> Response:
    """The answer that says why not."""
    return Response(Problem.of_error(status, error).to_bytes(), status, media_type=PROBLEM_TYPE)


async def read_body(request: Request, most: int) -> bytes:
    """The body, of at most ``most`` bytes. Raises ``Malformed``: ``http.type``, ``http.size``."""
    if request.headers.get("content-type") not in (api.CBOR_TYPE, api.COSE_TYPE):
        raise Malformed("http.type", f"send {api.CBOR_TYPE} or {api.COSE_TYPE}")
    announced = request.headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit() or int(announced[:12]) > most:
        raise Malformed("http.size", f"at most {most} bytes")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Malformed("http.size", f"at most {most} bytes")
    return bytes(body)


async def _no_page(request: Request, error: Exception) -> Response:
    _ = error
    return problem(404, Malformed("http.path", f"no {request.method} at this path"))


def address_of(request: Request) -> str:
    """Where a request comes from; of an IPv6 address the network, because one subscriber has all of it."""
    host = request.client.host if request.client else ""
    return ":".join(host.split(":")[:4]) if ":" in host and "." not in host else host
