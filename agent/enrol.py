"""Enrolment, the host's side: prove to a verifier which TPM this is, and pin that verifier's keys.

1. The token is read; it names the verifier, the fingerprint of its keys, and a secret that works once.
2. The certificate that the verifier shows is taken, without belief.
3. The keys it names must have the token's fingerprint, and the connection must end at one of them. From here on only
   this certificate is accepted, and only now is the secret sent.
4. The TPM makes a holder key and certifies it with its attestation key. The key obeys the leases of the verifier's
   policy key, which was learnt in (3); a plain key, which obeys nobody, is made where the settings say so.
5. The credential that the verifier made opens in this TPM only.
6. A quote over the verifier's nonce shows the counters and the firmware.
7. What is kept is written after the verifier has answered, so a failed attempt changes nothing.

Source: TPM 2.0 Part 1, section 24 (credential protection); attestation.enrol.
"""

import hashlib

from agent.client import Pinned, Verifier, see_certificate
from agent.devices import HolderKey, Tpm
from agent.state import Enrolment, State
from attestation.cose import PublicKey
from attestation.enrol import EnrolChallenge, Enrolled, EnrolProof, EnrolRequest, EnrolToken, VerifierKeys, verify_keys


def enrol(text: str, url: str | None, tpm: Tpm, state: State, *, tpm_lease: bool = True) -> tuple[Enrolment, Enrolled]:
    """Enrol this host with the one-time token ``text``; ``url`` replaces the token's where the route differs.

    ``tpm_lease``: whether the TPM itself is to enforce leases.

    Raises ``Malformed``/``Untrusted`` by the checks above, ``Unreachable``, ``Rejected`` and ``Denied`` from the
    verifier, ``DeviceError`` from the TPM.
    """
    token = EnrolToken.from_text(text)  # (1)
    pinned = see_certificate(url or token.url)  # (2)
    verifier = Verifier(pinned)
    try:
        keys = verify_keys(verifier.keys(), fingerprint=token.fingerprint, tls=pinned.spki)  # (3)
        holder = tpm.create_holder(PublicKey.from_spki(keys.policy) if tpm_lease else None)
        challenge = verifier.enrol(_request(token, tpm, holder))  # (4)
        enrolled = verifier.prove(_proof(challenge, tpm))  # (5) (6)
    finally:
        verifier.close()
    enrolment = _enrolment(pinned, keys, holder, enrolled)
    state.save(enrolment)  # (7)
    return enrolment, enrolled


def _request(token: EnrolToken, tpm: Tpm, holder: HolderKey) -> EnrolRequest:
    ak = tpm.create_ak()
    certified = tpm.certify_holder(hashlib.sha256(token.secret).digest())
    return EnrolRequest(
        secret=token.secret,
        ek_certificate=tpm.ek_certificate(),
        ek_public=tpm.ek_public(),
        ak_public=ak.public,
        holder_public=holder.public,
        certify=certified.attest,
        certify_signature=certified.signature,
        intermediates=tuple(tpm.ek_chain()),
        creation=holder.creation,
    )


def _proof(challenge: EnrolChallenge, tpm: Tpm) -> EnrolProof:
    secret = tpm.activate_credential(challenge.id_object, challenge.encrypted_secret)
    quote = tpm.quote(challenge.nonce, challenge.bank, challenge.pcrs)
    return EnrolProof(
        session=challenge.session,
        secret=secret,
        quote=quote.attest,
        signature=quote.signature,
        bank=challenge.bank,
        pcrs=dict(tpm.read_pcrs(challenge.bank, challenge.pcrs)),
    )


def _enrolment(pinned: Pinned, keys: VerifierKeys, holder: HolderKey, enrolled: Enrolled) -> Enrolment:
    return Enrolment(
        node=enrolled.node,
        pool=enrolled.pool,
        url=pinned.url,
        certificate=pinned.certificate,
        keys=keys,
        holder_public=holder.public,
        holder_blob=holder.blob,
    )
