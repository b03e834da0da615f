"""Reason codes of the TPM: its attestations, its keys, its clock, and the device itself.

Rows as in :mod:`attestation.reasons`: ``"code": (what, fix, retry, ask)``.
"""

_DEV = "developer"
_ADMIN = "host admin"
_OPERATOR = "operator"
_FORGED = "Treat the host as hostile until somebody can say who sent this."
_ENROL = "If the change is legitimate, enrol the host again."
_SAME_RELEASE = "Use agent and verifier of one release."
_KEY = "Use the agent's own templates; if it did, treat the host as hostile."
_DEVICE = "Look at the host: interlock-agent doctor, journalctl -k, the TPM's firmware."

_QUOTE = {
    "tpm.attest.truncated": ("A TPM attestation is cut short.", _SAME_RELEASE, False, _DEV),
    "tpm.attest.trailing": ("Bytes follow a TPM attestation.", _SAME_RELEASE, False, _DEV),
    "tpm.attest.value": ("A TPM attestation has a value that no TPM writes.", _SAME_RELEASE, False, _DEV),
    "tpm.signature.truncated": ("A TPM signature is cut short.", _SAME_RELEASE, False, _DEV),
    "tpm.signature.trailing": ("Bytes follow a TPM signature.", _SAME_RELEASE, False, _DEV),
    "tpm.quote.magic": ("The quote was not made by a TPM.", _FORGED, False, _ADMIN),
    "tpm.quote.type": ("What was presented as a quote attests something else.", _FORGED, False, _ADMIN),
    "tpm.quote.scheme": ("The quote is signed with another scheme than its key has.", _FORGED, False, _ADMIN),
    "tpm.quote.signature": ("The quote is not signed by the enrolled attestation key.", _FORGED, False, _ADMIN),
    "tpm.quote.signer": ("The quote names another key than the enrolled one as signer.", _FORGED, False, _ADMIN),
    "tpm.quote.nonce": ("The quote answers another question, or an old one.", "Ask again.", True, _ADMIN),
    "tpm.pcr.empty": ("The quote covers no PCR.", "Configure the PCRs to be quoted.", False, _OPERATOR),
    "tpm.pcr.selection": ("The quote covers other PCRs than were asked for.", _SAME_RELEASE, False, _ADMIN),
    "tpm.pcr.resettable": (
        "A PCR that can be reset while the system runs was to prove something.",
        "Ask for PCRs 0 to 15 only.",
        False,
        _OPERATOR,
    ),
    "tpm.pcr.bank": ("The PCR bank is not the one asked for, or too weak.", "Use sha256 or sha384.", False, _OPERATOR),
    "tpm.pcr.uncovered": ("PCR values were sent that the quote does not cover.", _SAME_RELEASE, False, _ADMIN),
    "tpm.pcr.digest": (
        "The PCR values are not those that were quoted.",
        "Ask again; a PCR may have changed between reading and quoting.",
        True,
        _ADMIN,
    ),
}

_CLOCK = {
    "tpm.clock.reset": ("The TPM's reset counter went back: it was cleared or exchanged.", _ENROL, False, _OPERATOR),
    "tpm.clock.backwards": ("The TPM's clock did not go on.", "Ask again; then look at the TPM.", True, _ADMIN),
    "tpm.clock.rebooted": ("The TPM was reset since the job was granted.", "Submit the job again.", True, _ADMIN),
    "tpm.clock.unsafe": ("The TPM's clock became unsafe without a reboot.", _DEVICE, False, _ADMIN),
    "tpm.firmware.vulnerable": (
        "The TPM's firmware is one that its manufacturer has withdrawn.",
        "Update the TPM's firmware, clear the TPM and enrol the host again.",
        False,
        _ADMIN,
    ),
    "tpm.firmware.changed": ("The TPM's firmware is not the enrolled one.", _ENROL, False, _OPERATOR),
}

_KEYS = {
    "tpm.public.truncated": ("A TPM public area is cut short.", _SAME_RELEASE, False, _DEV),
    "tpm.public.trailing": ("Bytes follow a TPM public area.", _SAME_RELEASE, False, _DEV),
    "tpm.public.unsupported": ("A TPM key is of a kind that is not used here.", _KEY, False, _DEV),
    "tpm.hash": ("A TPM key is named by a hash that is not accepted.", _KEY, False, _DEV),
    "tpm.key.type": ("A TPM key is neither RSA nor ECC.", "Use another TPM.", False, _ADMIN),
    "tpm.key.size": ("An RSA key is of a size that is not accepted.", "Use RSA of 2048 bits or P-256.", False, _ADMIN),
    "tpm.key.exponent": ("An RSA key has an exponent that proves nothing.", _FORGED, False, _ADMIN),
    "tpm.key.curve": ("An ECC key is on a curve that is not accepted.", "Use P-256 or P-384.", False, _ADMIN),
    "tpm.key.roca": (
        "An RSA key of the TPM can be computed from its public half (CVE-2017-15361).",
        "Update the TPM's firmware and make new keys; its EK and certificate have to be exchanged by the vendor.",
        False,
        _ADMIN,
    ),
    "tpm.key.point": ("An ECC key is not a point of its curve.", _FORGED, False, _ADMIN),
    "tpm.ek.certificate": (
        "The EK certificate cannot be read.",
        "See interlock-agent doctor; some vendors write certificates that are not DER.",
        False,
        _ADMIN,
    ),
    "tpm.ek.certificate.truncated": ("The EK certificate is cut short inside.", _SAME_RELEASE, False, _ADMIN),
    "tpm.ek.usage": ("The certificate is not that of an endorsement key.", _FORGED, False, _ADMIN),
    "tpm.ek.software": (
        "The TPM is software, and its root is one that stands for hardware.",
        "Use a host with a TPM of its own, or give the root of virtual TPMs the assurance test.",
        False,
        _OPERATOR,
    ),
    "tpm.ek.manufacturer": (
        "Nobody says who made the TPM: neither its certificate nor its root.",
        "Ask the vendor; give its root the assurance test until then.",
        False,
        _OPERATOR,
    ),
    "tpm.ek.mismatch": ("The endorsement key is not the one in its certificate.", _FORGED, False, _ADMIN),
    "tpm.ek.attributes": ("The endorsement key may do what an endorsement key may not.", _KEY, False, _ADMIN),
    "tpm.ek.template": ("The endorsement key was not made from a standard template.", _KEY, False, _ADMIN),
    "tpm.ak.name-alg": ("The attestation key is not named by SHA-256.", _KEY, False, _ADMIN),
    "tpm.ak.attributes": ("The attestation key is not confined to attesting in one TPM.", _KEY, False, _ADMIN),
    "tpm.ak.policy": ("The attestation key can be used by a policy nobody knows.", _KEY, False, _ADMIN),
    "tpm.ak.scheme": ("The attestation key has another signing scheme than is accepted.", _KEY, False, _ADMIN),
    "tpm.holder.name-alg": ("The holder key is not named by SHA-256.", _KEY, False, _ADMIN),
    "tpm.holder.attributes": ("The holder key could leave its TPM, or do more than sign.", _KEY, False, _ADMIN),
    "tpm.holder.scheme": ("The holder key is not a P-256 signing key.", _KEY, False, _ADMIN),
    "tpm.holder.name": ("The certification is for another key than the holder key.", _FORGED, False, _ADMIN),
    "tpm.holder.hierarchy": ("The holder key is not a primary key of the TPM's owner.", _KEY, False, _ADMIN),
    "tpm.holder.policy": (
        "The holder key does not obey this verifier's leases in this TPM.",
        "Enrol the host again; the holder key is made for one verifier's policy key.",
        False,
        _ADMIN,
    ),
    "tpm.holder.creation": ("The holder key was made otherwise than the host says.", _FORGED, False, _ADMIN),
    "tpm.creation.truncated": ("The creation data of a TPM key are cut short.", _SAME_RELEASE, False, _DEV),
    "tpm.creation.trailing": ("Bytes follow the creation data of a TPM key.", _SAME_RELEASE, False, _DEV),
    "tpm.creation.value": ("The creation data of a TPM key have a value no TPM writes.", _SAME_RELEASE, False, _DEV),
    "tpm.policy.key": (
        "The verifier's policy key is not a P-256 key, which every TPM knows.",
        "Make keys with interlock-verifier init.",
        False,
        _OPERATOR,
    ),
    "tpm.certify.magic": ("The certification of the holder key was not made by a TPM.", _FORGED, False, _ADMIN),
    "tpm.certify.type": ("What should certify the holder key attests something else.", _FORGED, False, _ADMIN),
    "tpm.certify.scheme": ("The certification has another scheme than its key.", _FORGED, False, _ADMIN),
    "tpm.certify.signature": ("The holder key is not certified by the enrolled key.", _FORGED, False, _ADMIN),
    "tpm.certify.signer": ("The certification names another key as signer.", _FORGED, False, _ADMIN),
    "tpm.credential.secret": (
        "The host did not open the credential that only its TPM can open.",
        "Ask for a new enrolment token and run interlock-agent enrol again.",
        False,
        _ADMIN,
    ),
}

_DEVICE_CODES = {
    "tpm.device.open": ("The TPM cannot be opened.", _DEVICE, False, _ADMIN),
    "tpm.device.io": ("The connection to the TPM broke.", _DEVICE, True, _ADMIN),
    "tpm.device.timeout": ("The TPM did not answer in time.", _DEVICE, True, _ADMIN),
    "tpm.device.refused": ("The TPM refused a command.", _DEVICE, False, _ADMIN),
    "tpm.device.unsteady": (
        "PCR values change faster than they can be quoted.",
        "See what is measured again and again, in the kernel's measurement list; ask again.",
        True,
        _ADMIN,
    ),
    "tpm.device.unexpected": ("The TPM answered with what is no quote.", _DEVICE, False, _ADMIN),
    "tpm.device.policy": (
        "The TPM itself refuses the holder key: no lease is in force in it.",
        "Nothing, while the verifier answers: the next signature is made by a permit. Else see why no lease comes.",
        True,
        _ADMIN,
    ),
    "tpm.device.closed": ("The agent is stopping and has given the TPM back.", "Start the agent.", True, _ADMIN),
    "tpm.device.no-ek-certificate": (
        "The TPM holds no EK certificate.",
        "Use a TPM whose manufacturer or operator wrote one to its NV memory.",
        False,
        _ADMIN,
    ),
}

TPM = (_QUOTE, _CLOCK, _KEYS, _DEVICE_CODES)
