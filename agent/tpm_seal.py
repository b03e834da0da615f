"""Opening a sealed secret with the TPM that it was sealed to: TPM2_Import, TPM2_Load, TPM2_Unseal.

Rules (attestation.tpm.sealing says what is sealed, and how):
1. The endorsement key is the parent. It is used twice, each time in a session of its own, and flushed before the secret
   is asked for. The holder key gives its place up meanwhile: at most three objects are loaded.
2. The secret is asked for in a session that satisfies the lease policy, which the TPM checks at that moment. A second
   session, whose key only this endorsement key can recover, encrypts the TPM's answer: the secret is not on the bus to
   the TPM, and in no buffer of this process but the one that is returned.
3. What was loaded is flushed in every path. The one copy that is left is the caller's `bytearray`, to be overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, TypeAlias

from tpm2_pytss import (  # type: ignore[import-untyped]  # tpm2-pytss ships no types
    ESYS_TR,
    TPM2_ALG,
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
    sealed: SealedSecret,
    *,
    parent: Callable[[], Session],
    lease: Callable[[], Session],
) -> bytearray:
    """The secret. TSS2_Exception where the TPM refuses: it is another TPM's, was changed, or no lease is in force.

    `ek`: the endorsement key's template; `parent` and `lease`: sessions that authorise the endorsement key and satisfy
    the policy of a lease, each for one command.
    """
    link.drop(ESYS_TR.OWNER)  # (1)
    with ExitStack() as opened:
        with link.flushed(link.primary(ESYS_TR.ENDORSEMENT, ek)[0]) as key:
            loaded = opened.enter_context(link.flushed(_load(link, key, sealed, parent)))
            answers = opened.enter_context(link.flushed(_encrypting(link, key)))
        with lease() as session:  # (2)
            data = link.esys.unseal(loaded, session1=session, session2=answers)
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
