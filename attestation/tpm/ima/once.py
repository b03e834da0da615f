"""A long measurement list is judged once: what came out is remembered, by the digest of the list and all it is held to.

A list of 24 MiB takes seconds, and whoever serves others meanwhile judges it beside them first
(:func:`verify_ima_once`), and again, in no time, where the decision is made. Short lists are judged each time.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from attestation.errors import InterlockError
from attestation.tpm.ima.appraise import ImaSubject, verify_ima
from attestation.tpm.ima.policy import CompiledPolicy
from attestation.tpm.ima.progress import ImaProgress

LONG: Final = 1 << 20
MOST_OUTCOMES: Final = 256


@dataclass(frozen=True, slots=True)
class _Refused:
    """A refusal without the traceback of where it was first met."""

    kind: type[InterlockError]
    reason: str
    detail: str


_Key = tuple[bytes, ImaSubject, ImaProgress, bytes]
_outcomes: OrderedDict[_Key, ImaProgress | _Refused] = OrderedDict()


def verify_ima_once(data: bytes, subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> ImaProgress:
    """As :func:`attestation.tpm.ima.appraise.verify_ima`, which it asks once where the list is long.

    ``subject.aggregates`` is a frozen set.
    """
    if len(data) < LONG:
        return verify_ima(data, subject, progress, policy)
    key = hashlib.sha256(data).digest(), subject, progress, policy.digest
    outcome = _outcomes.get(key)
    if outcome is None:
        outcome = _outcomes[key] = _judged(data, subject, progress, policy)
        if len(_outcomes) > MOST_OUTCOMES:
            _outcomes.popitem(last=False)
    if isinstance(outcome, _Refused):
        raise outcome.kind(outcome.reason, outcome.detail)
    return outcome


def _judged(data: bytes, subject: ImaSubject, progress: ImaProgress, policy: CompiledPolicy) -> ImaProgress | _Refused:
    try:
        return verify_ima(data, subject, progress, policy)
    except InterlockError as error:
        return _Refused(type(error), error.reason, error.detail)
