"""The host's TPM 2.0 through ESAPI: `agent.devices.Tpm` for a real TPM or an emulator.

How it stays alive and closed (docs of tpm2-tss; measured on swtpm 0.7.1):
1. ESAPI is not thread-safe: one thread owns it, callers queue, each with a deadline (`DeviceTimeout`).
2. After an I/O error the ESAPI object is dead: it is dropped, and the next call opens a new one and makes its
   keys again.
3. Keys are primary keys, so nothing secret is stored: the AK is the same after every start, the holder key is made
   again from its template, whose random `unique` field makes it a new key at each `create_holder`.
4. Structures are marshalled while the object that owns them lives: a field of a tpm2-pytss 3.0 object that was freed
   reads freed memory.
5. At most three objects and one session are loaded; what a call loads it flushes, also when it fails.
6. RETRY, YIELDED, TESTING, NV_RATE and NV_UNAVAILABLE are waited out within the deadline; everything else is an error.

Endorsement and owner hierarchies are used with an empty authorisation.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

os.environ.setdefault("TSS2_LOG", "all+NONE")  # read by the C library when it is loaded

from tpm2_pytss import (  # type: ignore[import-untyped]  # tpm2-pytss ships no types
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_RC,
    TPM2_RH,
    TPM2_SE,
    TPM2_ST,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMT_SIG_SCHEME,
    TPMT_TK_HASHCHECK,
    TSS2_Exception,
)

from agent import tpm_nv, tpm_seal
from agent.devices import AkPublic, Approved, Attested, DeviceError, DeviceTimeout, HolderKey, NvIndex
from agent.tcti import StreamTcti, open_stream
from agent.tpm_policy import authorised
from agent.tpm_templates import AK, EK_CHAIN, EKS, holder_template
from attestation.keys import PublicKey
from attestation.tpm.attest import PcrSelection
from attestation.tpm.clock import ClockInfo
from attestation.tpm.ekcert import split_der
from attestation.tpm.policy import holder_auth_policy
from attestation.tpm.sealing import SealedSecret
from attestation.tpm.structures import Codes, Public, Signature, sized

T = TypeVar("T")
DEADLINE = 10.0
NV_CHUNK = 512
PCRS_PER_READ = 8
BACKOFF = 0.02
BUSY = (TPM2_RC.RETRY, TPM2_RC.YIELDED, TPM2_RC.TESTING, TPM2_RC.NV_RATE, TPM2_RC.NV_UNAVAILABLE)


SIGN_CODES = Codes(*["tpm.device.refused"] * 5)
NULL_SCHEME, SIGN_SCHEME = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL), TPMT_SIG_SCHEME(scheme=TPM2_ALG.ECDSA)
SIGN_SCHEME.details.ecdsa.hashAlg = TPM2_ALG.SHA256
NO_TICKET = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
"""What `attestation.tpm.policy.sign_cp_hash` says that a signature is asked for with."""


class Primary(NamedTuple):
    """A primary key that is loaded: handle, TPMT_PUBLIC, TPMS_CREATION_DATA, their hash and the TPM's ticket for it."""

    handle: Any
    public: bytes
    creation: bytes
    creation_hash: bytes
    ticket: Any


class _Link:
    """One open ESAPI with the keys loaded in it. Used by the owner thread only."""

    def __init__(self, tcti: str, deadline: float) -> None:
        self.tcti = StreamTcti(open_stream(tcti), deadline)
        self.esys = ESAPI(self.tcti)
        self.tickets: dict[Approved, Any] = {}
        self._keys: dict[int, tuple[Public, Primary]] = {}

    @property
    def failure(self) -> DeviceError | None:
        """Why this link is dead, where it is."""
        return self.tcti.failure

    @property
    def ak_name(self) -> bytes:
        """Name of the attestation key."""
        return Public.from_bytes(self.key(ESYS_TR.ENDORSEMENT, AK).public).name

    def primary(self, hierarchy: Any, template: Public) -> tuple[Any, bytes]:
        """Create a primary key; returns its handle and TPMT_PUBLIC."""
        return self._create(hierarchy, template)[:2]

    def key(self, hierarchy: Any, template: Public) -> Primary:
        """The key of `template`, created once per hierarchy: another template takes the place of the first."""
        held = self._keys.get(hierarchy)
        if held is None or held[0] != template:
            self.drop(hierarchy)
            held = self._keys[hierarchy] = (template, self._create(hierarchy, template))
        return held[1]

    def drop(self, hierarchy: Any) -> None:
        """Flush the key of `hierarchy`, if one is loaded."""
        held = self._keys.pop(hierarchy, None)
        if held is not None:
            self.esys.flush_context(held[1].handle)

    def _create(self, hierarchy: Any, template: Public) -> Primary:
        public = TPM2B_PUBLIC.unmarshal(sized(template.to_bytes()))[0]
        handle, made, data, digest, ticket = self.esys.create_primary(TPM2B_SENSITIVE_CREATE(), public, hierarchy)
        return Primary(handle, made.publicArea.marshal(), data.creationData.marshal(), bytes(digest), ticket)

    @contextmanager
    def flushed(self, handle: Any) -> Iterator[Any]:
        """Flush `handle` at the end, whatever happens, unless the link itself has failed."""
        try:
            yield handle
        finally:
            if self.tcti.failure is None:
                self.esys.flush_context(handle)

    def close(self) -> None:
        """Flush the keys where the link still works, and close it."""
        try:
            for hierarchy in list(self._keys):
                if self.tcti.failure is None:
                    self.drop(hierarchy)
        finally:
            self.esys.close()
            self.tcti.finalize()


class EsysTpm:
    """`agent.devices.Tpm` over ESAPI.

    `tcti` is `device:/dev/tpmrm0` or `unix:/path/to/emulator`; `deadline` the seconds that a call may take. Every
    method raises DeviceTimeout("tpm.device.timeout"), or DeviceError with "tpm.device.open" (cannot be opened), ".io"
    (the connection broke), ".refused" (the TPM answered with an error) or ".closed".
    """

    def __init__(self, tcti: str, *, deadline: float = DEADLINE) -> None:
        self._tcti = tcti
        self._deadline = deadline
        self._link: _Link | None = None
        self._holder: Public | None = None
        self._closing = threading.Event()
        self._owner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tpm")

    def ek_certificate(self) -> bytes:
        return self._call(lambda link: _read_nv(link, _ek_index(link)))

    def ek_chain(self) -> Sequence[bytes]:
        return split_der(
            self._call(lambda link: _read_nv(link, EK_CHAIN) if tpm_nv.is_defined(link, EK_CHAIN) else b"")
        )

    def ek_public(self) -> bytes:
        def work(link: _Link) -> bytes:
            handle, public = link.primary(ESYS_TR.ENDORSEMENT, EKS[_ek_index(link)])
            with link.flushed(handle):
                return public

        return self._call(work)

    def create_ak(self) -> AkPublic:
        public = self._call(lambda link: link.key(ESYS_TR.ENDORSEMENT, AK).public)
        return AkPublic(public, Public.from_bytes(public).name)

    def create_holder(self, policy: PublicKey | None = None) -> HolderKey:
        authority = b"" if policy is None else holder_auth_policy(policy, self.create_ak().name)
        return self.load_holder(holder_template(os.urandom(32), authority).to_bytes())

    def load_holder(self, blob: bytes) -> HolderKey:
        template = Public.from_bytes(blob)
        made = self._call(lambda link: link.key(ESYS_TR.OWNER, template))
        self._holder = template
        return HolderKey(made.public, blob, made.creation)

    def certify_holder(self, qualifying: bytes) -> Attested:
        def work(link: _Link) -> Attested:
            holder, ak = self._holder_key(link), link.key(ESYS_TR.ENDORSEMENT, AK)
            attest, signature = link.esys.certify_creation(
                ak.handle, holder.handle, qualifying, holder.creation_hash, NULL_SCHEME, holder.ticket
            )
            return Attested(bytes(attest), signature.marshal())

        return self._call(work)

    def activate_credential(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        blob, secret = TPM2B_ID_OBJECT(id_object), TPM2B_ENCRYPTED_SECRET(encrypted_secret)

        def work(link: _Link) -> bytes:
            ak = link.key(ESYS_TR.ENDORSEMENT, AK).handle
            template = EKS[_ek_index(link)]
            with (
                link.flushed(link.primary(ESYS_TR.ENDORSEMENT, template)[0]) as ek,
                _ek_session(link, template) as auth,
            ):
                return bytes(link.esys.activate_credential(ak, ek, blob, secret, session2=auth))

        return self._call(work)

    def quote(self, qualifying: bytes, bank: int, pcrs: Sequence[int]) -> Attested:
        selection = _selection(bank, pcrs)

        def work(link: _Link) -> Attested:
            ak = link.key(ESYS_TR.ENDORSEMENT, AK).handle
            attest, signature = link.esys.quote(ak, selection, qualifying)
            return Attested(bytes(attest), signature.marshal())

        return self._call(work)

    def read_pcrs(self, bank: int, pcrs: Sequence[int]) -> Mapping[int, bytes]:
        def work(link: _Link) -> dict[int, bytes]:
            values: dict[int, bytes] = {}
            for start in range(0, len(pcrs), PCRS_PER_READ):
                part = sorted(pcrs)[start : start + PCRS_PER_READ]
                _, _, digests = link.esys.pcr_read(_selection(bank, part))
                values |= zip(part, map(bytes, digests), strict=False)
            return values

        values = self._call(work)
        if len(values) != len(pcrs):
            raise DeviceError("tpm.device.refused", f"the TPM has no bank 0x{bank:04x} for these PCRs")
        return values

    def sign_as_holder(self, digest: bytes, approved: Approved | None = None) -> bytes:
        def sign(link: _Link, session: Any) -> bytes:
            key = self._holder_key(link).handle
            return bytes(link.esys.sign(key, digest, SIGN_SCHEME, NO_TICKET, session1=session).marshal())

        def work(link: _Link) -> bytes:
            if approved is None:
                return sign(link, ESYS_TR.PASSWORD)
            with authorised(link, approved) as session:
                return sign(link, session)

        r, s = Signature.from_bytes(self._call(work), SIGN_CODES).values
        return r.rjust(32, b"\0") + s.rjust(32, b"\0")

    def unseal(self, sealed: Sequence[SealedSecret], approved: Approved) -> list[bytearray]:
        def work(link: _Link) -> list[bytearray]:
            template = EKS[_ek_index(link)]
            return tpm_seal.unseal(
                link,
                template,
                sealed,
                parent=lambda: _ek_session(link, template),
                lease=lambda: authorised(link, approved),
            )

        return self._call(work)

    def workload(self) -> NvIndex | None:
        return self._call(tpm_nv.read_workload)

    def define_workload(self) -> None:
        self._call(tpm_nv.define_workload)

    def extend_workload(self, measurement: bytes) -> None:
        self._call(lambda link: tpm_nv.extend_workload(link, measurement))

    def certify_workload(self, qualifying: bytes) -> tuple[bytes, Attested] | None:
        return self._call(
            lambda link: tpm_nv.certify_workload(link, link.key(ESYS_TR.ENDORSEMENT, AK).handle, qualifying)
        )

    def clock(self) -> ClockInfo:
        def work(link: _Link) -> ClockInfo:
            time_info = link.esys.read_clock()
            info = time_info.clockInfo
            return ClockInfo(int(info.clock), int(info.resetCount), int(info.restartCount), bool(info.safe))

        return self._call(work)

    def close(self) -> None:
        """Flush what is loaded and end the owner thread. Waits for the call in progress, at most its deadline."""
        if not self._closing.is_set():
            self._closing.set()
            self._owner.submit(self._drop_link)
        self._owner.shutdown(wait=True)

    def _call(self, work: Callable[[_Link], T]) -> T:
        """Run `work` on the owner thread and wait for it, at most the deadline."""
        try:
            future = self._owner.submit(self._run, work, time.monotonic() + self._deadline)
        except RuntimeError as error:
            raise DeviceError("tpm.device.closed", "the TPM was closed") from error
        try:
            return future.result(self._deadline)
        except TimeoutError as error:
            future.cancel()
            future.add_done_callback(_forget)
            raise DeviceTimeout("tpm.device.timeout", f"no answer within {self._deadline:g} s") from error

    def _run(self, work: Callable[[_Link], T], end: float) -> T:
        """On the owner thread: open a link if there is none, wait while the TPM is busy, drop it if it fails."""
        pause = BACKOFF
        while True:
            if self._link is None:
                self._link = _Link(self._tcti, self._deadline)
            link = self._link
            try:
                return work(link)
            except TSS2_Exception as error:
                if link.tcti.failure is not None:
                    self._drop_link()
                    raise link.tcti.failure from error
                if error.rc not in BUSY or time.monotonic() + pause > end:
                    raise DeviceError("tpm.device.refused", f"{error} (0x{error.rc:x})") from error
            self._closing.wait(pause)
            pause *= 2

    def _drop_link(self) -> None:
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    def _holder_key(self, link: _Link) -> Primary:
        if self._holder is None:
            raise DeviceError("tpm.device.refused", "there is no holder key: create or load one first")
        return link.key(ESYS_TR.OWNER, self._holder)


def _forget(late: Future[Any]) -> None:
    """Overwrite secrets that came when nobody waited for them any more."""
    if not late.cancelled() and late.exception() is None and isinstance(late.result(), list):
        for secret in late.result():
            secret[:] = bytes(len(secret))


def _selection(bank: int, pcrs: Sequence[int]) -> Any:
    wire = (1).to_bytes(4, "big") + PcrSelection.of(bank, tuple(pcrs)).to_bytes()
    return TPML_PCR_SELECTION.unmarshal(wire)[0]


def _ek_index(link: _Link) -> int:
    """The NV index of the EK certificate to use: the first one present, in the order of `EKS`."""
    for index in EKS:
        if tpm_nv.is_defined(link, index):
            return index
    raise DeviceError("tpm.device.no-ek-certificate", "no EK certificate in NV at " + ", ".join(map(hex, EKS)))


def _read_nv(link: _Link, index: int) -> bytes:
    handle = link.esys.tr_from_tpmpublic(index)
    try:
        public, _ = link.esys.nv_read_public(handle)
        size = int(public.nvPublic.dataSize)
        chunks = [
            bytes(link.esys.nv_read(handle, min(NV_CHUNK, size - start), start, handle))
            for start in range(0, size, NV_CHUNK)
        ]
    finally:
        link.esys.tr_close(handle)
    return b"".join(chunks)


@contextmanager
def _ek_session(link: _Link, template: Public) -> Iterator[Any]:
    """The authorisation to use an EK: its own empty one, or the default policy PolicySecret(endorsement)."""
    if template.has_user_auth:
        yield ESYS_TR.PASSWORD
        return
    session = link.esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, None, TPM2_ALG.SHA256)
    with link.flushed(session):
        link.esys.policy_secret(ESYS_TR.ENDORSEMENT, session)
        yield session
