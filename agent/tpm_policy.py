"""Using what obeys a TPM-enforced lease: policy sessions in which the TPM sees that the terms of a lease hold.

How to use it, on the owner thread of `agent.tpm`:

    with authorised(link, approved) as session:
        link.esys.sign(handle, digest, scheme, ticket, session1=session)      # or unseal, ...

`approved` is what the verifier has signed (`agent.devices.Approved`): the terms of a lease for anything that obeys
`attestation.tpm.policy.holder_auth_policy`, or a permit for one signature. A session is good for one command. Inside
and before, DeviceError("tpm.device.policy") says that the TPM refuses: the time is over, it was reset, a PCR changed,
the signature is not the policy key's for this TPM, or the command is not the permitted one. Nothing is left loaded
in any path; at most one object and one session are loaded beside what the caller holds.

The order of the commands is that of `attestation.tpm.policy.Terms`. The TPM's ticket for a signature that it has
verified is kept for the last few approvals, so that each is verified once (TPM 2.0 Part 3, 20.1, 23.16).

Source: TCG TPM 2.0 Library, Part 1, 19.7 (enhanced authorization); Part 3, 23; rev 1.59.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from tpm2_pytss import (  # type: ignore[import-untyped]  # tpm2-pytss ships no types
    ESYS_TR,
    TPM2_ALG,
    TPM2_RC,
    TPM2_SE,
    TPM2B_PUBLIC,
    TPML_PCR_SELECTION,
    TPMT_SIGNATURE,
    TPMT_SYM_DEF,
    TSS2_Exception,
)

from agent.devices import Approved, DeviceError
from attestation.tpm.attest import PcrSelection
from attestation.tpm.policy import Terms, approval, policy_public, policy_ref
from attestation.tpm.structures import ALG_ECDSA, ALG_SHA256, Signature, sized

TICKETS = 4
REFUSALS = frozenset(
    {
        int(code)
        for code in (
            TPM2_RC.POLICY,
            TPM2_RC.PCR_CHANGED,
            TPM2_RC.POLICY_FAIL,
            TPM2_RC.VALUE,
            TPM2_RC.TICKET,
            TPM2_RC.SIGNATURE,
        )
    }
)
"""What a TPM answers where terms do not hold, without the number of the parameter or session that it complains of."""


class Link(Protocol):
    """What is used of an open TPM (agent.tpm)."""

    esys: Any
    tickets: dict[Approved, Any]

    @property
    def failure(self) -> DeviceError | None:
        """Why the connection is dead, where it is."""
        ...

    @property
    def ak_name(self) -> bytes:
        """Name of the attestation key."""
        ...

    def flushed(self, handle: Any) -> AbstractContextManager[Any]:
        """Flush `handle` at the end of a block."""
        ...


@contextmanager
def authorised(link: Link, approved: Approved) -> Iterator[Any]:
    """A session that authorises one use of what obeys the verifier's policy key. See the module."""
    try:
        ticket = _ticket(link, approved)
        null = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
        session = link.esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, null, TPM2_ALG.SHA256)
        with link.flushed(session):
            _assert(link, session, approved.terms)
            link.esys.policy_authorize(
                session,
                approved_policy=approved.terms.digest,
                key_sign=policy_public(approved.key).name,
                check_ticket=ticket,
                policy_ref=policy_ref(link.ak_name),
            )
            yield session
    except TSS2_Exception as error:
        if link.failure is None and int(error.error) in REFUSALS:
            raise DeviceError("tpm.device.policy", f"{error} (0x{error.rc:x})") from error
        raise


def _assert(link: Link, session: Any, terms: Terms) -> None:
    """Have the TPM see for itself that `terms` hold: each command fails where one does not, or fails the use later."""
    if terms.pcrs is not None:
        selection = (1).to_bytes(4, "big") + PcrSelection.of(terms.pcrs.bank, terms.pcrs.pcrs).to_bytes()
        link.esys.policy_pcr(session, terms.pcrs.digest, TPML_PCR_SELECTION.unmarshal(selection)[0])
    for timer in terms.timers:
        link.esys.policy_counter_timer(session, timer.operand, timer.operation, timer.offset)
    if terms.cp_hash is not None:
        link.esys.policy_cp_hash(session, terms.cp_hash)


def _ticket(link: Link, approved: Approved) -> Any:
    """The TPM's word that the policy key has signed `approved` for this TPM."""
    held = link.tickets.get(approved)
    if held is not None:
        return held
    message = approval(approved.terms, link.ak_name)
    r, s = approved.signature[:32], approved.signature[32:]
    signature = TPMT_SIGNATURE.unmarshal(Signature(ALG_ECDSA, ALG_SHA256, (r, s)).to_bytes())[0]
    public = TPM2B_PUBLIC.unmarshal(sized(policy_public(approved.key).to_bytes()))[0]
    with link.flushed(link.esys.load_external(public, hierarchy=ESYS_TR.OWNER)) as key:
        ticket = link.esys.verify_signature(key, hashlib.sha256(message).digest(), signature)
    while len(link.tickets) >= TICKETS:
        del link.tickets[next(iter(link.tickets))]
    link.tickets[approved] = ticket
    return ticket
