"""The verifier's HTTP interface as both sides know it: paths, media types, and the requests that are plain messages.

===== ======================= =================================== ====================================================
POST  /v1/challenge           ChallengeRequest                    Challenge
POST  /v1/authorize           AuthorizationRequest                Authorization, or Denial with 403
POST  /v1/renew               an evidence token                   a lease token, or Denial with 403
POST  /v1/permit              PermitRequest                       Permit
POST  /v1/report              a report token                      the receipt of its record
POST  /v1/enrol               EnrolRequest                        EnrolChallenge
POST  /v1/enrol/proof         EnrolProof                          Enrolled
GET   /v1/keys                -                                   VerifierKeys
GET   /v1/watch?node=&since=  -                                   Hint, at once or when something changes (25 s)
===== ======================= =================================== ====================================================

Every other answer to these is a :class:`attestation.problem.Problem`. Bodies are limited before they are read.
"""

from attestation import evidence, intent, report
from attestation.permit import PermitRequest
from attestation.wire import Wire, label, wire

CHALLENGE, AUTHORIZE, RENEW, REPORT = "/v1/challenge", "/v1/authorize", "/v1/renew", "/v1/report"
PERMIT = "/v1/permit"
ENROL, ENROL_PROOF, KEYS, WATCH = "/v1/enrol", "/v1/enrol/proof", "/v1/keys", "/v1/watch"

CBOR_TYPE = "application/cbor"
COSE_TYPE = "application/cose"

MAX_BODY = {
    CHALLENGE: 1024,
    AUTHORIZE: evidence.MAX_SIZE + intent.MAX_SIZE + 64,
    RENEW: evidence.MAX_SIZE,
    REPORT: report.MAX_SIZE,
    PERMIT: PermitRequest.MAX_SIZE,
    ENROL: 65536,
    ENROL_PROOF: 65536,
}
"""The most bytes that a request's body may have, by path."""

UNNAMED_BODY = 4 << 20
CHALLENGE_HEADER = "interlock-challenge"
"""A body of more than :data:`UNNAMED_BODY` bytes has a measurement list in it. It is only read where this header names,
in hexadecimal, the open challenge that it answers, so only for a node that there is."""

WATCH_SECONDS = 25
"""How long the verifier holds a request for a hint before it answers that nothing changed."""


@wire
class ChallengeRequest(Wire):
    """Who asks to be challenged."""

    MAX_SIZE = MAX_BODY[CHALLENGE]

    node: str = label(1, most=128)


@wire
class AuthorizationRequest(Wire):
    """A submitter's signed intent and the host's signed evidence, as tokens."""

    MAX_SIZE = MAX_BODY[AUTHORIZE]

    intent: bytes = label(1, most=intent.MAX_SIZE)
    evidence: bytes = label(2, most=evidence.MAX_SIZE)


@wire
class Hint(Wire):
    """A number that rises whenever something about a node's jobs changes. It says "renew now" and nothing else.

    A hint is no authority: whoever acts on it asks the verifier, and is told then.
    """

    MAX_SIZE = 64

    version: int = label(1)
