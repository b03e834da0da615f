"""Opening sealed secrets with the TPM that they were sealed to: TPM2_Import, TPM2_Load, TPM2_Unseal.

Rules (attestation.tpm.sealing says what is sealed, and how):
1. The endorsement key is the parent, made once for all secrets: on some TPMs that takes seconds. At most three objects
   are loaded: the holder key gives its place up, and the lease is tried before the parent is made, because the policy
   key is loaded for that once.
2. Each secret is asked for in a session that satisfies the lease policy, which the TPM checks at that moment. Another
   session, whose key only this endorsement key can recover, encrypts the TPM's answers: no secret is on the bus to the
   TPM, or in any buffer of this process but the one that is returned.
3. What was loaded is flushed in every path. The TPM library keeps the last answer it read, decrypted: a longer one,
   about nothing, takes its place. The copies that are left are the caller's, to be overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from tpm2_pytss import (  # type: ignore[import-untyped]  # tpm2-pytss ships no types
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_SE,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPMA_SESSION,
    TPMT_SYM_DEF,
    TPMT_SYM_DEF_OBJECT,
)

from attestation.tpm.sealing import SealedSecret
from attestation.tpm.structures import Public, sized

Session: TypeAlias = AbstractContextManager[Any]


class Link(Protocol):
    """What is used of an open TPM (agent.tpm)."""

    esys: Any

    def primary(self, hierarchy: Any, template: Public) -> tuple[Any, bytes]:
        """Create a primary key: handle and public area."""
        ...

    def drop(self, hierarchy: Any) -> None:
        """Flush the key that is kept loaded in `hierarchy`."""
        ...

    def flushed(self, handle: Any) -> AbstractContextManager[Any]:
        """Flush `handle` at the end of a block."""
        ...


def unseal(
    link: Link,
    ek: Public,
    sealed: Sequence[SealedSecret],
    *,
    parent: Callable[[], Session],
    lease: Callable[[], Session],
) -> list[bytearray]:
    """The secrets, all or none. TSS2_Exception where the TPM refuses: one is another TPM's, or was changed; and what
    `lease` raises where none is in force.

    `ek`: the endorsement key's template; `parent` and `lease`: sessions that authorise the endorsement key and satisfy
    the policy of a lease, each for one command.
    """
    opened = list[bytearray]()
    link.drop(ESYS_TR.OWNER)  # (1)
    with lease():
        pass
    try:
        with (
            link.flushed(link.primary(ESYS_TR.ENDORSEMENT, ek)[0]) as key,
            link.flushed(_encrypting(link, key)) as answers,
        ):
            for each in sealed:
                with link.flushed(_load(link, key, each, parent)) as loaded, lease() as session:  # (2)
                    opened.append(_taken(link.esys.unseal(loaded, session1=session, session2=answers)))
                    link.esys.get_capability(TPM2_CAP.COMMANDS, 0, 64)  # (3)
    except BaseException:
        for secret in opened:
            secret[:] = bytes(len(secret))  # (3)
        raise
    return opened


def _taken(data: Any) -> bytearray:
    """The contents of a TPM2B, which is overwritten."""
    view = data.buffer
    try:
        return bytearray(view)
    finally:
        view[:] = bytes(len(view))  # (3)


def _load(link: Link, key: Any, sealed: SealedSecret, parent: Callable[[], Session]) -> Any:
    """Import and load below `key`; the handle of the sealed object."""
    public = TPM2B_PUBLIC.unmarshal(sized(sealed.public))[0]
    none = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
    duplicate, seed = TPM2B_PRIVATE(sealed.duplicate), TPM2B_ENCRYPTED_SECRET(sealed.seed)
    with parent() as session:
        private = link.esys.import_(key, b"", public, duplicate, seed, none, session1=session)
    with parent() as session:
        return link.esys.load(key, private, public, session1=session)


def _encrypting(link: Link, key: Any) -> Any:
    """A session that encrypts what the TPM answers, under a key that is sent to it encrypted for `key`."""
    aes = TPMT_SYM_DEF(algorithm=TPM2_ALG.AES)
    aes.keyBits.sym, aes.mode.sym = 128, TPM2_ALG.CFB
    session = link.esys.start_auth_session(key, ESYS_TR.NONE, TPM2_SE.HMAC, aes, TPM2_ALG.SHA256)
    link.esys.trsess_set_attributes(session, TPMA_SESSION.ENCRYPT | TPMA_SESSION.CONTINUESESSION)
    return session
