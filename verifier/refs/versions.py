"""Documents with versions: policies, trust anchors, reference values.

A new version is archived, made a version and put in force in one unit, under the condition that the version it was made
from is still in force; two operators who change the same thing at once do not overwrite each other. Running jobs are
told to renew, so that a change takes effect within a moment.
"""

from attestation.reference import References
from verifier.changes import Activate, Change, PutBlob, PutVersion
from verifier.desk import Desk
from verifier.state import digests_of

NOTHING = References(version=0, baselines=(), approvals=())
"""The reference values of a verifier that was given none."""


async def put_in_force(desk: Desk, kind: str, data: bytes, detail: str, *more: Change) -> str:
    """Make ``data`` the version of ``kind`` that is in force; its digest. Nothing happens where it is already.

    ``more`` is changed in the same unit.
    """
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
        *more,
    )
    desk.notify()
    return digest.hex()
