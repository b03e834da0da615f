"""Reason codes of the IMA measurement list: its form, its proof, what the policy refuses, and the policy's own form.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``.
"""

_ADMIN = "host admin"
_OPERATOR = "operator"
_SEND_AGAIN = "Read the list again, whole and unchanged, from securityfs; if it stays so, report the kernel's version."
_FORGED = "Treat the host as hostile until somebody can say who changed the list."
_REBOOT = "Start from the first entry: the next challenge asks for the whole list."
_LIST = "If the file is legitimate, add it to the reference values; else look at what put it there."
_SIGN = "Sign the file with a key that the policy knows, or list its digest."
_POLICY = "Correct the IMA policy document."

_FORM = {
    "tpm.ima.size": ("A measurement list, or a line of it, is larger than is read.", _SEND_AGAIN, False, _ADMIN),
    "tpm.ima.entry": ("A measurement list has an entry that no kernel writes.", _SEND_AGAIN, False, _ADMIN),
    "tpm.ima.truncated": ("A measurement list ends inside an entry.", _SEND_AGAIN, False, _ADMIN),
    "tpm.ima.template": (
        "A measurement list has an entry of a template that is not known.",
        "Boot with ima_template=ima-ng or ima-sig, or use a release that knows the template.",
        False,
        _ADMIN,
    ),
    "tpm.ima.pcr": (
        "A measurement list has an entry of another PCR than 10.",
        "Take pcr= out of the IMA policy of the host.",
        False,
        _ADMIN,
    ),
    "tpm.ima.bank": ("The measurement list is to be proven in a bank that is not known.", _POLICY, False, _OPERATOR),
}

_PROOF = {
    "tpm.ima.template-digest": ("An entry's template digest is not that of its fields.", _FORGED, False, _ADMIN),
    "tpm.ima.mismatch": ("The measurement list does not lead to the quoted PCR 10.", _FORGED, False, _ADMIN),
    "tpm.ima.rollback": ("The host shows fewer measurements than it has shown before.", _FORGED, False, _ADMIN),
    "tpm.ima.no-progress": (
        "PCR 10 does not prove measurements that the host has shown before.",
        "Look at the kernel's log for errors of the TPM; a host that lost a measurement must be restarted.",
        True,
        _ADMIN,
    ),
    "tpm.ima.start": ("The measurement list starts at another entry than was asked for.", _REBOOT, True, _ADMIN),
    "tpm.ima.boot": ("The host was restarted since its measurements were proven.", _REBOOT, True, _ADMIN),
    "tpm.ima.progress": (
        "What is kept of a host's measurements is damaged, or of another bank or policy.",
        _REBOOT,
        True,
        _OPERATOR,
    ),
    "tpm.ima.missing": (
        "The host did not send its measurement list.",
        "Let the agent read it (ima = true in its settings), and boot a kernel with IMA and an ima_policy.",
        False,
        _ADMIN,
    ),
    "tpm.ima.unquoted": (
        "The measurement list cannot be proven: the policy does not ask for PCR 10.",
        "Add 10 to pcrs in settings.toml.",
        False,
        _OPERATOR,
    ),
    "tpm.ima.policy.missing": (
        "The list of files that the reference value names is not at hand.",
        "Load the IMA reference again, with its list.",
        False,
        _OPERATOR,
    ),
    "tpm.ima.inactive": (
        "The host measures nothing: IMA has not extended PCR 10.",
        "Boot with ima_policy=tcb, or load an IMA policy.",
        False,
        _ADMIN,
    ),
    "tpm.ima.padded": (
        "The kernel extends SHA-1 into the bank that was quoted.",
        "Boot Linux 5.8 or later, with the bank's hash built in; or let the policy say unsafe_padded.",
        False,
        _ADMIN,
    ),
    "tpm.ima.cmdline": (
        "The kernel was not started with the IMA policy that is wanted.",
        "Correct the kernel's command line and restart the host.",
        False,
        _ADMIN,
    ),
}

_JUDGED = {
    "tpm.ima.boot-aggregate": (
        "The measurement list does not begin with what this boot measured.",
        "Quote the boot PCRs in the bank of ima_hash=; if they were, the list is of another boot.",
        False,
        _ADMIN,
    ),
    "tpm.ima.kexec": (
        "The host has booted by kexec more often than the policy allows.",
        "Restart the host through its firmware, or raise most_kexecs.",
        False,
        _ADMIN,
    ),
    "tpm.ima.violation": (
        "A file was written while it was measured: what was read is not known.",
        "Find out what writes to it; a rule can excuse paths, and their names are then not proven.",
        False,
        _ADMIN,
    ),
    "tpm.ima.unlisted": ("A file was used that nothing in the policy speaks of.", _LIST, False, _OPERATOR),
    "tpm.ima.digest": ("A file was used that is not the listed one.", _LIST, False, _OPERATOR),
    "tpm.ima.denied": (
        "A file was used that is known to be bad.",
        "Update the host and restart it.",
        False,
        _ADMIN,
    ),
    "tpm.ima.algorithm": (
        "A file was measured with a digest that does not count.",
        "Boot with ima_hash=sha256.",
        False,
        _ADMIN,
    ),
    "tpm.ima.signature": ("A file's signature is not a signature of it.", _SIGN, False, _ADMIN),
    "tpm.ima.signature.form": ("A file's signature is in no form that is known.", _SIGN, False, _ADMIN),
    "tpm.ima.signature.algorithm": ("A file's signature is of another digest than was measured.", _SIGN, False, _ADMIN),
    "tpm.ima.signature.key": (
        "A file is signed with a key that is not known, or not loaded yet.",
        _SIGN,
        False,
        _ADMIN,
    ),
    "tpm.ima.buffer": ("The kernel measured a buffer that the policy does not list.", _LIST, False, _OPERATOR),
    "tpm.ima.buffer-digest": ("A measured buffer is not what its digest says.", _FORGED, False, _ADMIN),
    "tpm.ima.keyring": (
        "A key was loaded that the policy does not know.",
        "If the key is legitimate, add it to the policy.",
        False,
        _OPERATOR,
    ),
}

_DOCUMENT = {
    "tpm.ima.policy.word": ("An IMA policy has a word that is not known.", _POLICY, False, _OPERATOR),
    "tpm.ima.policy.files": ("An IMA policy has a list of files that is not one.", _POLICY, False, _OPERATOR),
    "tpm.ima.policy.rule": ("An IMA policy has a rule that is not one, or too wide.", _POLICY, False, _OPERATOR),
    "tpm.ima.policy.key": ("An IMA policy has a key that cannot sign files.", _POLICY, False, _OPERATOR),
    "tpm.ima.policy.buffer": ("An IMA policy lists a buffer without saying which.", _POLICY, False, _OPERATOR),
    "tpm.ima.policy.duplicate": ("An IMA policy answers one question twice.", _POLICY, False, _OPERATOR),
}

TPM_IMA = (_FORM, _PROOF, _JUDGED, _DOCUMENT)
