"""The NV index that jobs are measured into (`attestation.tpm.nv.WORKLOAD`), on the link of `agent.tpm`.

What was measured on swtpm 0.7.1 (libtpms 0.9.2), with the attributes EXTEND, ORDERLY and CLEAR_STCLEAR together:

* TPM2_Shutdown(CLEAR) and start, power that fails without a shutdown, and hibernation (TPM Restart): the index stays
  defined, its attribute WRITTEN is clear, it cannot be certified (TPM_RC_NV_UNINITIALIZED), and the next extend begins
  at zero. Over TPM Resume (suspend to RAM) it keeps its contents while restartCount rises: `agent.workload` makes it
  anew then.
* An extend changes RAM alone (0.4 ms; a certification 4 ms). NV memory is written when the index is defined and at
  TPM2_Shutdown, so the wear of hardware does not grow with the number of jobs.
* TPM2_Clear removes it. Undefining and defining it again gives an empty index of the same Name: whoever holds the
  owner's authorisation can do that at any time, and the verifier sees that what was proven is not continued.

Source: TCG TPM 2.0 Library, Part 3, 31, rev 1.59. The owner hierarchy is used with an empty authorisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tpm2_pytss import (  # type: ignore[import-untyped]  # tpm2-pytss ships no types
    ESYS_TR,
    TPM2_ALG,
    TPM2_RC,
    TPM2B_MAX_NV_BUFFER,
    TPM2B_NV_PUBLIC,
    TPMT_SIG_SCHEME,
    TSS2_Exception,
)

from agent.devices import Attested, NvIndex
from attestation.tpm.nv import WORKLOAD, WRITTEN, NvPublic
from attestation.tpm.structures import sized

if TYPE_CHECKING:
    from agent.tpm import _Link


def is_defined(link: _Link, index: int) -> bool:
    """Whether the TPM has an NV index of this number."""
    try:
        link.esys.tr_close(link.esys.tr_from_tpmpublic(index))
    except TSS2_Exception as error:
        if link.tcti.failure is not None or error.error != TPM2_RC.HANDLE:
            raise
        return False
    return True


def read_workload(link: _Link) -> NvIndex | None:
    """The index as it is; None where it is not defined."""
    if not is_defined(link, WORKLOAD.index):
        return None
    handle = link.esys.tr_from_tpmpublic(WORKLOAD.index)
    try:
        public = _public(link, handle)
        if not NvPublic.from_bytes(public).attributes & WRITTEN:
            return NvIndex(public, None)
        size = NvPublic.from_bytes(public).size
        return NvIndex(public, bytes(link.esys.nv_read(handle, size, 0, ESYS_TR.OWNER)))
    finally:
        link.esys.tr_close(handle)


def define_workload(link: _Link) -> None:
    """Define the index, in place of the one there is: empty."""
    if is_defined(link, WORKLOAD.index):
        link.esys.nv_undefine_space(link.esys.tr_from_tpmpublic(WORKLOAD.index), ESYS_TR.OWNER)
    public = TPM2B_NV_PUBLIC.unmarshal(sized(WORKLOAD.to_bytes()))[0]
    link.esys.tr_close(link.esys.nv_define_space(None, public, ESYS_TR.OWNER))


def extend_workload(link: _Link, measurement: bytes) -> None:
    """TPM2_NV_Extend: the index then holds SHA-256 of what it held and ``measurement``."""
    handle = link.esys.tr_from_tpmpublic(WORKLOAD.index)
    try:
        link.esys.nv_extend(handle, TPM2B_MAX_NV_BUFFER(measurement), ESYS_TR.OWNER)
    finally:
        link.esys.tr_close(handle)


def certify_workload(link: _Link, ak: Any, qualifying: bytes) -> tuple[bytes, Attested] | None:
    """TPM2_NV_Certify of the whole index by the key ``ak``, and its public area; None where there is nothing in it."""
    if not is_defined(link, WORKLOAD.index):
        return None
    handle = link.esys.tr_from_tpmpublic(WORKLOAD.index)
    try:
        public = _public(link, handle)
        read = NvPublic.from_bytes(public)
        if not read.attributes & WRITTEN:
            return None
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        attest, signature = link.esys.nv_certify(ak, handle, qualifying, scheme, read.size, 0, ESYS_TR.OWNER)
        return public, Attested(bytes(attest), signature.marshal())
    finally:
        link.esys.tr_close(handle)


def _public(link: _Link, handle: Any) -> bytes:
    public, _ = link.esys.nv_read_public(handle)
    return bytes(public.nvPublic.marshal())
