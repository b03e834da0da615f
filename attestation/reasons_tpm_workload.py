"""Reason codes of the workload measurement: what a host's TPM says of the jobs that it was let start.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``.
"""

_DEV = "developer"
_ADMIN = "host admin"
_FORGED = "Treat the host as hostile until somebody can say who sent this."
_SAME_RELEASE = "Use agent and verifier of one release."
_INDEX = "Find out who uses NV index 0x01800100 beside the agent; restart the host to begin a new sequence."
_RESTART = "Find out who changed the TPM's NV memory or the agent's state; restart the host to begin a new sequence."

TPM_WORKLOAD = {
    "tpm.nv.truncated": ("The public area of an NV index is cut short.", _SAME_RELEASE, False, _DEV),
    "tpm.nv.trailing": ("Bytes follow the public area of an NV index.", _SAME_RELEASE, False, _DEV),
    "tpm.workload.absent": (
        "The host does not show the jobs that were measured into its TPM.",
        _RESTART,
        False,
        _ADMIN,
    ),
    "tpm.workload.index": ("Another NV index was shown than the one jobs are measured into.", _INDEX, False, _ADMIN),
    "tpm.workload.attributes": (
        "The NV index that jobs are measured into could be written, kept or removed otherwise.",
        _INDEX,
        False,
        _ADMIN,
    ),
    "tpm.workload.magic": ("The certification of the measured jobs was not made by a TPM.", _FORGED, False, _ADMIN),
    "tpm.workload.type": ("What should certify the measured jobs attests something else.", _FORGED, False, _ADMIN),
    "tpm.workload.scheme": ("The measured jobs are certified with another scheme.", _FORGED, False, _ADMIN),
    "tpm.workload.signature": ("The measured jobs are not certified by the enrolled key.", _FORGED, False, _ADMIN),
    "tpm.workload.signer": ("The certification of the jobs names another key as signer.", _FORGED, False, _ADMIN),
    "tpm.workload.nonce": (
        "The certification of the measured jobs answers another question, or an old one.",
        "Ask again.",
        True,
        _ADMIN,
    ),
    "tpm.workload.boot": ("The measured jobs were certified in another boot.", "Ask again.", True, _ADMIN),
    "tpm.workload.name": ("The certification is of another NV index than the one shown.", _FORGED, False, _ADMIN),
    "tpm.workload.partial": ("Only a part of the NV index was certified.", _FORGED, False, _ADMIN),
    "tpm.workload.entries.truncated": ("An entry of a measured job is cut short.", _SAME_RELEASE, False, _DEV),
    "tpm.workload.entries.trailing": ("Bytes follow the entries of measured jobs.", _SAME_RELEASE, False, _DEV),
    "tpm.workload.start": ("The measured jobs are not shown from where they have to be.", _RESTART, False, _ADMIN),
    "tpm.workload.rollback": ("The host shows fewer jobs than it has shown before.", _RESTART, False, _ADMIN),
    "tpm.workload.rewritten": (
        "The host shows other jobs than it has shown before in this boot.",
        _RESTART,
        False,
        _ADMIN,
    ),
    "tpm.workload.contents": (
        "The TPM holds something else than the jobs that the host shows.",
        _RESTART,
        False,
        _ADMIN,
    ),
    "tpm.workload.repeated": ("A grant has started more than one job.", _FORGED, False, _ADMIN),
    "tpm.workload.missing": ("The job was started without being measured into the TPM.", _FORGED, False, _ADMIN),
    "tpm.workload.broken": (
        "The NV index that jobs are measured into holds something else than this agent measured.",
        _RESTART,
        False,
        _ADMIN,
    ),
    "tpm.workload.full": (
        "More jobs were started since the host's last start than a verifier reads.",
        "Restart the host.",
        False,
        _ADMIN,
    ),
    "tpm.workload.unknown": (
        "The TPM holds a job for which this host had no grant, or other code than its grant is for.",
        _RESTART,
        False,
        _ADMIN,
    ),
    "tpm.workload.measured": (
        "Code or environment that was measured is not what was granted.",
        _FORGED,
        False,
        _ADMIN,
    ),
}
