"""The reason codes: for each, what happened in plain words, one line on how to fix it, and who can.

A code is stable: once released it is never renamed or reused. It is the same word in API, CLI, log and documentation.
Each area of the code keeps its families in a module `attestation/reasons_<area>.py`, one dict literal per family: to
add a code, add a row to its family; to add a family, name it in `_FAMILIES`. A row is
``"code": (what, fix, retry, ask)``: `retry` says whether the same request may succeed later without anybody changing
anything, `ask` names the party that can act: submitter, host admin, operator, developer.

A test finds every code that the three packages raise and fails when one is missing, or listed and never used.
A row whose code ends in ``.*`` stands for an open-ended family such as ``policy.forbid.<id>``.
"""

from dataclasses import dataclass
from typing import TypeAlias

from attestation.reasons_agent import AGENT
from attestation.reasons_execution import EXECUTION
from attestation.reasons_floor import FLOOR
from attestation.reasons_gpu import GPU_REPORT_REASONS
from attestation.reasons_gpu_device import GPU_DEVICE
from attestation.reasons_gpu_rim import GPU_RIM_REASONS
from attestation.reasons_gpu_set import GPU_SET
from attestation.reasons_log import LOG
from attestation.reasons_policy import DECISION, POLICY
from attestation.reasons_protocol import PROTOCOL
from attestation.reasons_refs import REFS
from attestation.reasons_secrets import SECRETS
from attestation.reasons_service import SERVICE
from attestation.reasons_tpm import TPM
from attestation.reasons_tpm_ima import TPM_IMA
from attestation.reasons_tpm_log import TPM_LOG
from attestation.reasons_tpm_workload import TPM_WORKLOAD

Rows: TypeAlias = dict[str, tuple[str, str, bool, str]]


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason code as it is explained to people."""

    code: str
    what: str
    fix: str
    retry: bool
    ask: str


_FAMILIES: tuple[Rows, ...] = (
    *FLOOR,
    POLICY,
    DECISION,
    PROTOCOL,
    AGENT,
    *EXECUTION,
    *LOG,
    *SERVICE,
    REFS,
    SECRETS,
    *TPM,
    *TPM_IMA,
    *TPM_LOG,
    TPM_WORKLOAD,
    *GPU_DEVICE,
    *GPU_SET,
    *GPU_REPORT_REASONS,
    GPU_RIM_REASONS,
)

REASONS: dict[str, Reason] = {code: Reason(code, *row) for family in _FAMILIES for code, row in family.items()}


def explain(code: str) -> Reason:
    """Return the reason registered for `code`, or for the longest open-ended family it belongs to.

    Raises `KeyError` when neither is registered.
    """
    if code in REASONS:
        return REASONS[code]
    words = code.split(".")
    for length in range(len(words) - 1, 0, -1):
        family = ".".join(words[:length]) + ".*"
        if family in REASONS:
            return REASONS[family]
    raise KeyError(code)
