"""What a TPM has to see before it uses a key or an object of Interlock: policy digests, computed without a TPM.

Source: TCG TPM 2.0 Library rev 1.59, Part 3, 23.7 (PolicyPCR), 23.10 (PolicyCounterTimer), 23.13 (PolicyCpHash), 23.16
(PolicyAuthorize), 20.2 (Sign); Part 1, 18.7 (cpHash), 16 (Names). Every policy is of SHA-256.

The TPM-enforced lease: the holder key's authorisation policy is PolicyAuthorize by the verifier's *policy key*
(:func:`holder_auth_policy`). It never changes, and permits nothing by itself. For each lease the policy key signs
:class:`Terms`: these PCR values, before this time, in this boot. A permit is the same without PCRs, for one signature
over one digest (:func:`sign_cp_hash`). The signature also covers `policy_ref`, which names the node's attestation key:
what was signed for one TPM is void on every other.

Outside of such terms the TPM itself answers TPM_RC_POLICY. `Terms.digest` and the commands that the agent gives the
TPM (agent.tpm_policy) are the same list in the same order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from attestation.errors import Untrusted
from attestation.keys import ES256, PublicKey
from attestation.tpm.attest import PcrSelection
from attestation.tpm.structures import (
    ALG_ECC,
    ALG_ECDSA,
    ALG_SHA256,
    ECC_P256,
    SIGN,
    USER_WITH_AUTH,
    EccParameters,
    Public,
    Scheme,
    Symmetric,
    sized,
)

# TPM_CC (Part 2, 6.5.2), TPM_EO (6.8), offsets in TPMS_TIME_INFO (10.11.2: time u64, then TPMS_CLOCK_INFO)
CC_SIGN, CC_POLICY_AUTHORIZE = 0x015D, 0x016A
CC_POLICY_COUNTER_TIMER, CC_POLICY_CP_HASH, CC_POLICY_PCR = 0x016D, 0x016E, 0x017F
EO_EQ, EO_UNSIGNED_LT = 0x0000, 0x0005
CLOCK_OFFSET, RESET_COUNT_OFFSET = 8, 16
ST_HASHCHECK, RH_NULL = 0x8024, 0x40000007

EMPTY_POLICY = bytes(32)
HOLDER_REF = b"interlock/holder/1"


@dataclass(frozen=True, slots=True)
class CounterTimer:
    """One TPM2_PolicyCounterTimer: TPMS_TIME_INFO from `offset` on, compared with `operand` by `operation`."""

    operand: bytes
    offset: int
    operation: int

    def extend(self, policy: bytes) -> bytes:
        """The policy digest after this command."""
        args = _sha256(self.operand + self.offset.to_bytes(2, "big") + self.operation.to_bytes(2, "big"))
        return _extend(policy, CC_POLICY_COUNTER_TIMER, args)


@dataclass(frozen=True, slots=True)
class PcrTerm:
    """One TPM2_PolicyPCR: `digest` is SHA-256 over the values of `pcrs` (rising) in `bank` (TPM_ALG_ID)."""

    bank: int
    pcrs: tuple[int, ...]
    digest: bytes

    def extend(self, policy: bytes) -> bytes:
        """The policy digest after this command."""
        selection = (1).to_bytes(4, "big") + PcrSelection.of(self.bank, self.pcrs).to_bytes()
        return _extend(policy, CC_POLICY_PCR, selection + self.digest)


@dataclass(frozen=True, slots=True)
class Terms:
    """When a key may be used: PCRs as they were proven (if any), the TPM's clock below `until` (ms), in the boot
    `resets`.`restarts` (resetCount, restartCount), and, where `cp_hash` is given, for that one command only.

    A reboot that was announced with TPM2_Shutdown(STATE) is a TPM Restart: it leaves resetCount as it is."""

    until: int
    resets: int
    restarts: int
    pcrs: PcrTerm | None = None
    cp_hash: bytes | None = None

    @property
    def timers(self) -> tuple[CounterTimer, CounterTimer]:
        """The two comparisons of TPM time, in their order: clock < until, both counts == resets, restarts."""
        boot = self.resets.to_bytes(4, "big") + self.restarts.to_bytes(4, "big")
        return (
            CounterTimer(self.until.to_bytes(8, "big"), CLOCK_OFFSET, EO_UNSIGNED_LT),
            CounterTimer(boot, RESET_COUNT_OFFSET, EO_EQ),
        )

    @property
    def digest(self) -> bytes:
        """The policy digest that PolicyPCR, PolicyCounterTimer twice and PolicyCpHash lead to: what is approved."""
        policy = EMPTY_POLICY if self.pcrs is None else self.pcrs.extend(EMPTY_POLICY)
        for timer in self.timers:
            policy = timer.extend(policy)
        return policy if self.cp_hash is None else _extend(policy, CC_POLICY_CP_HASH, self.cp_hash)


def lease_policy(
    *, bank: int, pcrs: tuple[int, ...], pcr_digest: bytes, until: int, resets: int, restarts: int
) -> Terms:
    """The terms of a lease. Without any PCR there is no PolicyPCR."""
    return Terms(until, resets, restarts, PcrTerm(bank, pcrs, pcr_digest) if pcrs else None)


def permit_policy(*, until: int, resets: int, restarts: int, digest: bytes, key_name: bytes) -> Terms:
    """The terms of a permit: one TPM2_Sign of the SHA-256 `digest` by the key with this Name."""
    return Terms(until, resets, restarts, cp_hash=sign_cp_hash(key_name, digest))


def sign_cp_hash(key_name: bytes, digest: bytes) -> bytes:
    """cpHash, H(commandCode || Name || parameters), of TPM2_Sign over `digest` by the key with this Name, scheme
    ECDSA with SHA-256, NULL ticket."""
    ticket = ST_HASHCHECK.to_bytes(2, "big") + RH_NULL.to_bytes(4, "big") + sized(b"")
    scheme = Scheme(ALG_ECDSA, ALG_SHA256).to_bytes()
    return _sha256(CC_SIGN.to_bytes(4, "big") + key_name + sized(digest) + scheme + ticket)


@lru_cache(maxsize=64)
def policy_public(key: PublicKey) -> Public:
    """The public area under which a TPM loads the verifier's policy key (TPM2_LoadExternal).

    Raises Untrusted("tpm.policy.key") for a key that is not ES256.
    """
    if key.alg != ES256:
        raise Untrusted("tpm.policy.key", f"a policy key is of algorithm {ES256}, not {key.alg}")
    x, y = key.spki[-64:-32], key.spki[-32:]
    parameters = EccParameters(Symmetric(), Scheme(ALG_ECDSA, ALG_SHA256), ECC_P256, Scheme(), x, y)
    return Public(ALG_ECC, ALG_SHA256, SIGN | USER_WITH_AUTH, b"", parameters)


def policy_ref(ak_name: bytes) -> bytes:
    """policyRef of everything that is approved for the TPM whose attestation key has this Name."""
    return _sha256(HOLDER_REF + ak_name)


def approval(terms: Terms, ak_name: bytes) -> bytes:
    """The bytes that the policy key signs (ES256) to approve `terms`: approvedPolicy || policyRef."""
    return terms.digest + policy_ref(ak_name)


@lru_cache(maxsize=4096)
def holder_auth_policy(policy_key: PublicKey, ak_name: bytes) -> bytes:
    """The authorisation policy of a holder key, or of a sealed secret: PolicyAuthorize(policy_key, policy_ref).

    Raises as :func:`policy_public`.
    """
    named = _extend(EMPTY_POLICY, CC_POLICY_AUTHORIZE, policy_public(policy_key).name)
    return _sha256(named + policy_ref(ak_name))


def _extend(policy: bytes, command: int, rest: bytes) -> bytes:
    return _sha256(policy + command.to_bytes(4, "big") + rest)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
