"""Reason codes of the boot event log, and the names of what is odd about one.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``. Those in ``QUIRKS`` are findings: their
verdicts are in :mod:`attestation.tpm.boot.findings`, and only the ones that are refused ever become the reason of a
denial.
"""

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_FORGED = "Treat the host as hostile until somebody can say who wrote this log."
_LOG = "Send /sys/kernel/security/tpm0/binary_bios_measurements as the kernel gives it; then look at the firmware."
_NOTHING = "Nothing: nothing rests on it."
_FIRMWARE = "Look for a firmware update; then accept the finding in the boot policy, knowing what it means."
_NO_FACT = "Nothing, unless the boot policy wants the fact: then use other firmware, or do not ask for it."
_POLICY = "If this is meant to boot, add it to the boot policy; if not, treat the host as hostile."
_SETTINGS = "Change it in the firmware's settings and reboot."

LOG_FORM = {
    "tpm.log.empty": ("The boot event log is empty.", _LOG, False, _ADMIN),
    "tpm.log.size": ("The boot event log, or an event in it, is larger than any real one.", _LOG, False, _ADMIN),
    "tpm.log.truncated": ("The boot event log is cut short.", _LOG, False, _ADMIN),
    "tpm.log.spec-id": (
        "The first event of the boot log does not describe a format that is known.",
        _LOG,
        False,
        _ADMIN,
    ),
    "tpm.log.digests": ("An event has digests that the log's first event does not announce.", _LOG, False, _ADMIN),
    "tpm.log.register": ("An event is of a PCR that does not exist.", _LOG, False, _ADMIN),
    "tpm.log.no-action": ("An event that extends nothing carries a digest.", _FORGED, False, _ADMIN),
    "tpm.log.locality": (
        "The start value of PCR 0 is told late, twice, or in a way that is not known.",
        _FORGED,
        False,
        _ADMIN,
    ),
    "tpm.log.unquoted": (
        "The boot event log proves nothing: the policy asks for none of the PCRs that it explains.",
        "Add PCRs of the boot, 0 to 9, to pcrs in settings.toml.",
        False,
        _OPERATOR,
    ),
    "tpm.log.bank": (
        "The boot event log does not have the PCR bank that was quoted.",
        "Ask for a bank that the firmware measures into: sha256, on most machines.",
        False,
        _OPERATOR,
    ),
    "tpm.log.missing": ("PCRs were quoted, and no log says how they came about.", _LOG, False, _ADMIN),
    "tpm.log.mismatch": (
        "The boot event log does not lead to the quoted PCR: it is of another boot, or was changed.",
        _LOG,
        False,
        _ADMIN,
    ),
}

QUIRKS = {
    "tpm.log.banks-fewer": ("Events carry digests of fewer banks than the log announces.", _NOTHING, False, _ADMIN),
    "tpm.log.no-register": ("An event that extends nothing names no PCR.", _NOTHING, False, _ADMIN),
    "tpm.log.no-spec-id": ("The log is of the SHA-1 form and does not say its version.", _NOTHING, False, _ADMIN),
    "tpm.log.padding": ("The log is padded at its end.", _NOTHING, False, _ADMIN),
    "tpm.boot.authority-early": ("An authority was used before the firmware's separator.", _NOTHING, False, _ADMIN),
    "tpm.boot.authority-padded": (
        "An old shim (before 15.3) logged a byte that it did not measure.",
        _NOTHING,
        False,
        _ADMIN,
    ),
    "tpm.boot.call-missing": ("The firmware does not say that it started a boot option.", _NOTHING, False, _ADMIN),
    "tpm.boot.secure-boot-empty": ("A switch of Secure Boot has no value; it counts as off.", _NOTHING, False, _ADMIN),
    "tpm.boot.separator-ones": ("A separator is of ones, as BIOS firmware writes it.", _NOTHING, False, _ADMIN),
    "tpm.boot.type-unknown": ("An event is of a type that no specification names.", _NOTHING, False, _ADMIN),
    "tpm.boot.mode-late": (
        "Audit or deployed mode was measured after the firmware's separator.",
        _NO_FACT,
        False,
        _ADMIN,
    ),
    "tpm.boot.tagged": ("A tagged event has lengths that do not agree.", _NO_FACT, False, _ADMIN),
    "tpm.boot.text-unproven": ("The digest of a command or command line is not of its text.", _NO_FACT, False, _ADMIN),
    "tpm.boot.variable-malformed": ("A variable or a signature database cannot be read.", _NO_FACT, False, _ADMIN),
    "tpm.boot.variable-register": (
        "A variable of Secure Boot was measured elsewhere than in PCR 7.",
        _NO_FACT,
        False,
        _ADMIN,
    ),
    "tpm.boot.variable-unnamed": ("The firmware measures a variable without its name.", _NO_FACT, False, _ADMIN),
    "tpm.boot.version-unproven": ("The version of the firmware is not what was measured.", _NO_FACT, False, _ADMIN),
    "tpm.boot.application-early": (
        "An EFI application ran before the firmware had finished.",
        "See which it is (agents against theft do so); accept the finding in the boot policy, or remove it.",
        False,
        _ADMIN,
    ),
    "tpm.boot.exit-missing": (
        "The log does not say that the firmware handed over: its list of what was started may not be complete.",
        _FIRMWARE,
        False,
        _ADMIN,
    ),
    "tpm.boot.separator-type": (
        "A separator stands under another type, or something else hashes like one.",
        _FIRMWARE,
        False,
        _ADMIN,
    ),
    "tpm.boot.unexplained": ("Something in PCR 7 is not explained by the log.", _FIRMWARE, False, _ADMIN),
    "tpm.boot.separator-missing": ("A PCR of the firmware has no separator.", _FORGED, False, _ADMIN),
    "tpm.boot.separator-duplicate": ("A PCR of the firmware has more than one separator.", _FORGED, False, _ADMIN),
    "tpm.boot.separator-value": ("A separator has a value that no separator has.", _FORGED, False, _ADMIN),
    "tpm.boot.separator-digest": ("The digest of a separator is not of its value.", _FORGED, False, _ADMIN),
    "tpm.boot.separator-error": (
        "The firmware says that it failed to measure.",
        "Reboot; then look for a firmware update.",
        False,
        _ADMIN,
    ),
    "tpm.boot.variable-late": ("A variable of Secure Boot was measured after the separator.", _FORGED, False, _ADMIN),
    "tpm.boot.variable-duplicate": ("A variable of Secure Boot was measured twice.", _FORGED, False, _ADMIN),
    "tpm.boot.variable-guid": (
        "A variable has the name of one of Secure Boot, and another owner.",
        _FORGED,
        False,
        _ADMIN,
    ),
    "tpm.boot.variable-value": (
        "A switch of Secure Boot, or shim's SBAT level, has an odd value.",
        _FORGED,
        False,
        _ADMIN,
    ),
}

BOOT = {
    "tpm.boot.variable.truncated": ("A UEFI variable in the log is cut short.", _LOG, False, _ADMIN),
    "tpm.boot.variable.trailing": ("Bytes follow a UEFI variable in the log.", _LOG, False, _ADMIN),
    "tpm.boot.variable.name": ("The name of a UEFI variable in the log is not text.", _LOG, False, _ADMIN),
    "tpm.boot.database": ("A signature database in the log has lengths that do not agree.", _LOG, False, _ADMIN),
    "tpm.boot.policy": (
        "The boot policy asks for what does not exist.",
        "Correct the boot policy; docs/boot-log.md lists facts and findings.",
        False,
        _OPERATOR,
    ),
    "tpm.boot.absent": (
        "The boot policy demands something that nothing in the log proves.",
        "Quote the PCR that would show it, use firmware that measures it, or do not demand it.",
        False,
        _OPERATOR,
    ),
    "tpm.boot.secure-boot": ("Secure Boot is off.", _SETTINGS, False, _ADMIN),
    "tpm.boot.mode": ("The platform is in setup or audit mode, or not in deployed mode.", _SETTINGS, False, _ADMIN),
    "tpm.boot.dbx": (
        "The list of revoked boot images is older than the policy demands.",
        "Update it: fwupdmgr update, or the distribution's package.",
        False,
        _ADMIN,
    ),
    "tpm.boot.db": (
        "Secure Boot believes a certificate or an image that the policy does not list.",
        _POLICY,
        False,
        _ADMIN,
    ),
    "tpm.boot.authority": (
        "An image was believed for a certificate that the policy does not list.",
        _POLICY,
        False,
        _ADMIN,
    ),
    "tpm.boot.sbat": (
        "The SBAT level of shim is below what the policy demands.",
        "Update shim, and reboot.",
        False,
        _ADMIN,
    ),
    "tpm.boot.mok": ("A list of keys of shim that the policy does not list.", _POLICY, False, _ADMIN),
    "tpm.boot.dma": ("Memory was not protected from devices while the machine booted.", _SETTINGS, False, _ADMIN),
    "tpm.boot.debug": ("A debugger was enabled while the machine booted.", _SETTINGS, False, _ADMIN),
    "tpm.boot.firmware": ("The firmware or platform is none that the policy lists.", _POLICY, False, _ADMIN),
    "tpm.boot.application": ("An EFI application was started that the policy does not list.", _POLICY, False, _ADMIN),
    "tpm.boot.driver": (
        "An EFI driver or option ROM was loaded that the policy does not list.",
        _POLICY,
        False,
        _ADMIN,
    ),
    "tpm.boot.text": (
        "Beside commands and command lines, something was measured that is neither.",
        _POLICY,
        False,
        _ADMIN,
    ),
    "tpm.boot.command-line": ("The kernel's command line matches no pattern of the policy.", _POLICY, False, _ADMIN),
    "tpm.boot.command": ("A command of the boot loader matches no pattern of the policy.", _POLICY, False, _ADMIN),
    "tpm.boot.file": ("The boot loader read a file that the policy does not list.", _POLICY, False, _ADMIN),
    "tpm.boot.section": ("A section of the kernel image is not one that the policy lists.", _POLICY, False, _ADMIN),
}

TPM_LOG = (LOG_FORM, QUIRKS, BOOT)
