"""A verifier with everything real but the hardware: keys, SQLite, log, policies of the product, and hosts in software.

:class:`Hall` opens a verifier in a directory and administers it through the same functions as the command line;
:class:`Host` is a :class:`fixtures.attester.SoftTpm` that speaks the agent's side of the protocol.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.api import AuthorizationRequest
from attestation.challenge import Challenge
from attestation.cose import ES256, SoftwareSigner
from attestation.enrol import EnrolProof, EnrolRequest, EnrolToken
from attestation.evidence import TPM, TPM_TYPE, Cmw, Evidence, TpmRecord, gpu_nonce, qualifying_data, sign_evidence
from attestation.grant import Authorization, Grant
from attestation.intent import Children, GpuRequest, Intent, Limits, sign_intent
from attestation.lease import Lease
from attestation.problem import Denial
from attestation.progress import boot_of
from attestation.report import Report, sign_report
from fixtures.attester import CREATION, Permitted, SoftTpm
from fixtures.ca import TestCa
from fixtures.gpu.host import MockHost
from fixtures.gpu.records import Records, records
from fixtures.lab import lab_policies
from fixtures.measured import Measured
from fixtures.workload import Jobs
from verifier import enrol
from verifier.anchors import load_anchors
from verifier.authorize import authorize
from verifier.clock import Clock
from verifier.commands import run_command
from verifier.keys import create_keys
from verifier.policyfiles import load
from verifier.renew import renew
from verifier.reports import report
from verifier.service import Service, opened
from verifier.settings import CollateralSettings, ServiceSettings, write_settings
from verifier.state import Verifier

CA = TestCa("hall")
IMPORTED = CollateralSettings(fetch=False)
"""No collateral but what is imported."""
T = TypeVar("T")
CODE, ENVIRONMENT = (hashlib.sha256(name).digest() for name in (b"code", b"environment"))


def digest(text: str) -> bytes:
    """A recognisable 32-byte digest."""
    return hashlib.sha256(text.encode()).digest()


class Hands:
    """A clock that stands still until a test moves its hands: ``time`` on both clocks, ``step`` on the wall only."""

    def __init__(self) -> None:
        self.time, self.step = float(int(time.time())), 0.0

    def clock(self) -> Clock:
        return Clock(lambda: self.time + self.step, lambda: self.time)


@dataclass(eq=False)
class Host:
    """A host in software: asks for challenges, collects, renews, reports."""

    hall: "Hall"
    name: str
    tpm: SoftTpm
    devices: MockHost | None = None
    """Its GPUs and switches, if it has any."""
    logs: Measured | None = None
    """Its boot event log and measurement list, if it has any; what a challenge asks for of them is sent."""

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.tpm)

    @property
    def holder(self) -> Permitted:
        return Permitted(self.tpm, self.hall.verifier.keys.policy)

    def evidence(self, challenge: Challenge, asked: Intent, /, **changes: Any) -> bytes:
        """Honest evidence; ``changes`` are made to the payload before it is signed."""
        gpus = self.gpu_records(challenge, asked)
        record = self.record(challenge, asked, gpus, changes.get("grant"))
        collection = {TPM: Cmw(TPM_TYPE, record.to_bytes()), **dict(gpus)}
        made = Evidence(collection=collection, nonce=challenge.nonce, intent=asked.digest)
        return sign_evidence(replace(made, **changes), self.holder)

    def gpu_records(self, challenge: Challenge, intent: Intent) -> Records:
        """What its devices say."""
        if self.devices is None:
            return []
        nonce = gpu_nonce(nonce=challenge.nonce, ak_name=self.tpm.ak.name, intent=intent.digest)
        return records(self.devices, nonce)

    def record(
        self, challenge: Challenge, intent: Intent, gpus: Records | None = None, grant: bytes | None = None
    ) -> TpmRecord:
        """The TPM's part of it; the job of ``grant``, where there is one, was measured."""
        if grant is not None:
            self.jobs.ensure(grant, intent.code, intent.environment)
        log, start, listed = self.asked(challenge)
        qualifying = qualifying_data(
            nonce=challenge.nonce,
            intent=intent.digest,
            holder=self.holder.public.thumbprint,
            gpus=tuple(sorted(gpus or [])),
            logs=(log, listed),
        )
        quote = self.tpm.quote(qualifying, challenge.bank, challenge.pcrs)
        certified = self.tpm.certify_holder(b"")
        return TpmRecord(
            quote=quote.attest,
            signature=quote.signature,
            bank=challenge.bank,
            pcrs=dict(self.tpm.read_pcrs(challenge.bank, challenge.pcrs)),
            holder_public=self.holder_public,
            certify=certified.attest,
            certify_signature=certified.signature,
            event_log=log,
            ima=listed,
            ima_start=start,
            workload=self.jobs.record(qualifying),
            creation=CREATION,
        )

    def asked(self, challenge: Challenge) -> tuple[bytes | None, int | None, bytes | None]:
        """Event log, first entry and measurement list, as an honest agent sends them."""
        if self.logs is None:
            return None, None, None
        known = challenge.known_log == hashlib.sha256(self.logs.log).digest()
        log = self.logs.log if "event-log" in challenge.wants and not known else None
        if "ima" not in challenge.wants:
            return log, None, None
        here = boot_of(self.tpm.reset_count, self.tpm.restart_count)
        start = challenge.ima_next or 0 if challenge.ima_boot == here else 0
        return log, start, self.logs.list(start)

    @property
    def holder_public(self) -> bytes:
        if self.tpm.holder is None:
            raise ValueError("no holder key")
        return self.tpm.holders[self.tpm.holder][1].to_bytes()

    def request(self, token: str) -> EnrolRequest:
        """What this host sends to be enrolled."""
        if self.tpm.holder is None:
            self.tpm.create_holder(self.hall.verifier.keys.policy.public)
        certified = self.tpm.certify_holder(b"")
        return EnrolRequest(
            secret=EnrolToken.from_text(token).secret,
            ek_certificate=self.tpm.ek_certificate(),
            ek_public=self.tpm.ek_public(),
            ak_public=self.tpm.create_ak().public,
            holder_public=self.holder_public,
            certify=certified.attest,
            certify_signature=certified.signature,
            intermediates=tuple(self.tpm.ek_chain()),
            creation=CREATION,
        )

    def proof(self, asked: Any) -> EnrolProof:
        """The answer to an enrolment challenge."""
        quote = self.tpm.quote(asked.nonce, asked.bank, asked.pcrs)
        return EnrolProof(
            session=asked.session,
            secret=self.tpm.activate_credential(asked.id_object, asked.encrypted_secret),
            quote=quote.attest,
            signature=quote.signature,
            bank=asked.bank,
            pcrs=dict(self.tpm.read_pcrs(asked.bank, asked.pcrs)),
        )

    async def enrol(self, token: str) -> Any:
        """Both steps."""
        asked = await enrol.begin(self.hall.verifier, self.request(token))
        return await enrol.finish(self.hall.verifier, self.proof(asked))

    async def ask(self, intent: Intent, *, key: SoftwareSigner | None = None, **changes: Any) -> Authorization | Denial:
        """Ask for a grant; ``changes`` are made to the evidence."""
        challenge = await self.hall.verifier.challenge(self.name)
        evidence = self.evidence(challenge, intent, **changes)
        token = sign_intent(intent, key or self.hall.person)
        return await authorize(self.hall.verifier, AuthorizationRequest(intent=token, evidence=evidence))

    async def renew(self, grant: Grant, intent: Intent, **changes: Any) -> bytes | Denial:
        """Ask for the next lease."""
        challenge = await self.hall.verifier.challenge(self.name)
        return await renew(self.hall.verifier, self.evidence(challenge, intent, grant=grant.id, **changes))

    async def report(self, grant: Grant, **changes: Any) -> bytes:
        """Report the end of a job."""
        return await report(self.hall.verifier, sign_report(ended(grant, **changes), self.holder))


class Hall:
    """One verifier. A context manager; ``reopen`` is a restart."""

    def __init__(
        self,
        directory: Path,
        *,
        lease_seconds: int = 30,
        hold_seconds: int = 60,
        collateral: CollateralSettings = IMPORTED,
    ) -> None:
        self.directory = directory / "verifier"
        self.policies = directory / "policies"
        self.hands = Hands()
        self.person = SoftwareSigner.generate(ES256)
        lab_policies(self.policies, CA, lease_seconds=lease_seconds, hold_seconds=hold_seconds)
        self.directory.mkdir()
        self.settings = ServiceSettings(
            self.directory, "hall", "hall/log", "https://127.0.0.1:1", "127.0.0.1", 0, collateral=collateral
        )
        write_settings(self.settings)
        create_keys(self.settings.keys, ["127.0.0.1", "localhost"], at=datetime.now(UTC))
        self._stack = ExitStack()
        self.service: Service

    def __enter__(self) -> Self:
        self.service = self._stack.enter_context(opened(self.settings, clock=self.hands.clock()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reopen(self) -> None:
        """Stop and start again."""
        self._stack.close()
        self.__enter__()

    @property
    def verifier(self) -> Verifier:
        return self.service.verifier

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine."""
        return asyncio.run(act)

    async def command(self, command: str, **arguments: Any) -> Any:
        """An administration command."""
        return await run_command(self.verifier, self.service.health, command, arguments)

    async def load(self) -> Any:
        """Policies and anchors."""
        policy, anchors = load(self.policies).to_bytes(), load_anchors(self.policies).to_bytes()
        encoded = {"policy": base64.b64encode(policy).decode(), "anchors": base64.b64encode(anchors).decode()}
        return await self.command("policy.load", **encoded)

    def demand(self, devices: MockHost, **changes: Any) -> None:
        """From the next :meth:`load` on the policy knows the vendor of ``devices`` and expects hosts with as many."""
        write_gpu_toml(self.policies, devices, **changes)

    async def ask_for(self, *pcrs: int) -> Any:
        """Load the policies once more, asking for these PCRs."""
        settings = self.policies / "settings.toml"
        lines = settings.read_text(encoding="utf-8").splitlines()
        changed = [f"pcrs = {list(pcrs)}" if line.startswith("pcrs =") else line for line in lines]
        settings.write_text("\n".join(changed) + "\n", encoding="utf-8")
        return await self.load()

    async def furnish(self) -> Host:
        """Policies, a submitter, an active host with its baseline, approved code and environment."""
        await self.load()
        await self.add_person(self.person)
        host = await self.add_host("host")
        await self.command("refs.from-node", node="host", name="boot", activate=True)
        for kind, value in (("code", CODE), ("environment", ENVIRONMENT)):
            await self.command("refs.approve", kind=kind, digest=value.hex(), name=kind)
        return host

    async def add_person(self, key: SoftwareSigner, name: str = "ada", roles: tuple[str, ...] = ("trainer",)) -> Any:
        """Register a submitter."""
        pem = key.public.to_pem().decode()
        return await self.command("submitter.add", name=name, tenant="lab", roles=list(roles), key=pem)

    async def add_host(self, name: str, tpm: SoftTpm | None = None, *, activate: bool = True) -> Host:
        """Enrol a host."""
        made = await self.command("token.create", node=name, pool="lab", activate=activate)
        host = Host(self, name, tpm or SoftTpm(CA))
        await host.enrol(made["token"])
        return host

    def intent(self, **changes: Any) -> Intent:
        """A request that is allowed, with a nonce of its own."""
        made = Intent(
            job="digits",
            tenant="lab",
            code=CODE,
            argv=("python", "train.py"),
            environment=ENVIRONMENT,
            environment_variables={},
            inputs={},
            outputs=(),
            gpus=GpuRequest(count=0, mode="none", memory_mb=0),
            limits=Limits(seconds=600, memory_mb=4096, processes=64, renewals=1000),
            secrets=(),
            children=Children(depth=0, count=0),
            nonce=self.verifier.entropy(32),
            issued=self.verifier.clock.now(),
        )
        return replace(made, **changes)


def write_gpu_toml(policies: Path, devices: MockHost, **changes: Any) -> None:
    """A gpu.toml that knows the vendor of ``devices`` alone; ``changes`` are values of [revocation] and [rim_pins]."""
    lines = [f"stale_hours = {changes.pop('stale_hours', 0)}"]
    lines += [f'{name} = "{changes.pop(name, "deny")}"' for name in ("hold", "unknown", "missing", "stale")]
    text = ""
    for use, anchor in zip(("device", "rim"), devices.roots, strict=True):
        pem = x509.load_der_x509_certificate(anchor.der).public_bytes(Encoding.PEM)
        (policies / "gpu" / f"mock-{use}.pem").write_bytes(pem)
        text += f'[[anchor]]\nname = "{anchor.name}"\nfile = "mock-{use}.pem"\nuse = "{use}"\nassurance = "test"\n\n'
    gpus, switches, mode = len(devices.gpus), len(devices.switches), devices.gpus[0].profile.feature
    text += f'[[pool]]\nname = "lab"\ngpus = {gpus}\nswitches = {switches}\nmode = "{mode}"\n\n[revocation]\n'
    text += "\n".join(lines) + "\n\n[rim_pins]\n"
    text += "".join(f'"{name}" = ["{pin}"]\n' for name, pin in changes.pop("pins", {}).items())
    head = "".join(f"{name} = {value}\n" for name, value in changes.items())
    (policies / "gpu.toml").write_text(head + text, encoding="utf-8")


def allowed(answer: Authorization | Denial) -> tuple[Grant, Lease]:
    """Grant and lease of an answer that must be an allow."""
    assert not isinstance(answer, Denial), f"denied: {[(r.code, r.detail) for r in answer.reasons]}"
    return Grant.from_bytes(payload(answer.grant)), Lease.from_bytes(payload(answer.lease))


def denied(answer: Authorization | Denial | bytes) -> Denial:
    """The denial that an answer must be."""
    assert isinstance(answer, Denial), "allowed"
    return answer


def leased(answer: bytes | Denial) -> Lease:
    """The lease that an answer must be."""
    assert not isinstance(answer, Denial), f"denied: {[(r.code, r.detail) for r in answer.reasons]}"
    return Lease.from_bytes(payload(answer))


def payload(token: bytes) -> bytes:
    """The payload of a token, unverified."""
    from attestation import cbor

    value = cbor.decode(token, max_size=1 << 22, tags=frozenset({18}))
    return value.value[2]  # type: ignore[union-attr, no-any-return]


def ended(grant: Grant, **changes: Any) -> Report:
    """A report of a job that went well."""
    made = Report(
        started=grant.issued,
        ended=grant.issued + 10,
        exit_code=0,
        halts=(),
        outputs={},
        applied=(),
        grant=grant.id,
        leases=1,
        cgroup_empty=True,
        code=CODE,
    )
    return replace(made, **changes)
