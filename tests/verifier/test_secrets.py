"""Secrets at the verifier: kept encrypted, given to whom they belong, sealed to one TPM, and seen nowhere else."""

import asyncio
import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from typing_extensions import override

from agent.devices import Approved, DeviceError
from attestation.audit import verify_bundle
from attestation.bundle import Root
from attestation.cose import ES256, SoftwareSigner
from attestation.errors import InterlockError, Malformed, Untrusted
from attestation.grant import Authorization, Grant
from attestation.intent import Intent
from attestation.lease import approval_of, read_lease
from attestation.log import Record
from attestation.problem import DRAIN, Denial
from attestation.tpm.enforced import terms_of
from attestation.tpm.sealing import MOST
from fixtures.attester import SoftTpm
from fixtures.tpm_signer import TpmSigner
from tests.verifier.hall import CA, Hall, Host, allowed, denied, leased
from verifier.bundles import make_bundle
from verifier.changes import Unit
from verifier.cli import app
from verifier.secrets import KEY, disclose, enclose, read_key
from verifier.state import Unwell
from verifier.store import Secret, Unavailable

VALUE = b"\x80 the key of the weights \xff not text"
OTHER = b"another value altogether, of some length"


@dataclass
class Reader:
    """A hall with a submitter who may ask for secrets, and a host whose leases are enforced by its TPM."""

    hall: Hall
    host: Host
    key: SoftwareSigner

    def intent(self, *names: str) -> Intent:
        return self.hall.intent(secrets=tuple(sorted(names)))

    def ask(self, *names: str, host: Host | None = None, key: SoftwareSigner | None = None) -> Authorization | Denial:
        return self.hall.run((host or self.host).ask(self.intent(*names), key=key or self.key))

    def add(self, name: str = "weights", value: bytes = VALUE, *, tenant: str = "lab", **more: Any) -> Any:
        encoded = base64.b64encode(value).decode()
        return self.hall.run(self.hall.command("secret.add", name=name, tenant=tenant, value=encoded, **more))

    def command(self, command: str, **arguments: Any) -> Any:
        return self.hall.run(self.hall.command(command, **arguments))

    def opened(self, answer: Authorization | Denial, name: str = "weights", host: Host | None = None) -> bytes:
        """What the host's TPM makes of a released secret under the first lease."""
        assert isinstance(answer, Authorization)
        keys = self.hall.verifier.keys
        signed, (_, lease) = read_lease(answer.lease, keys.grant.public), allowed(answer)
        approval = approval_of(signed)
        assert lease.tpm is not None
        assert approval is not None
        approved = Approved(terms_of(lease.tpm), approval, keys.policy.public)
        return bytes((host or self.host).tpm.unseal([answer.secrets[name]], approved)[0])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Hall(tmp_path) as hall:
        host, key = hall.run(hall.furnish()), SoftwareSigner.generate(ES256)
        hall.run(hall.add_person(key, "grace", ("trainer", "secret-reader")))
        yield Reader(hall, host, key)


def records(hall: Hall) -> list[Record]:
    store = hall.verifier.store
    return [Record.from_bytes(entry.record) for entry in store.records(0, store.head().size)]


# --- what is given ----------------------------------------------------------------------------------------------------


def test_a_secret_is_released_to_the_host_of_the_grant(reader: Reader) -> None:
    reader.add()
    answer = reader.ask("weights")
    grant, _ = allowed(answer)
    assert grant.secrets == ("weights",)
    assert reader.opened(answer) == VALUE


def test_sixteen_secrets_of_the_greatest_size_are_released(reader: Reader) -> None:
    names = tuple(f"s{number:02}" for number in range(16))
    values = {name: os.urandom(MOST) for name in names}
    for name, value in values.items():
        reader.add(name, value)
    answer = reader.ask(*names)
    assert allowed(answer)[0].secrets == names
    assert isinstance(answer, Authorization)
    assert Authorization.from_bytes(answer.to_bytes()) == answer
    assert {name: reader.opened(answer, name) for name in names} == values


def test_nothing_is_released_that_was_not_asked_for(reader: Reader) -> None:
    reader.add()
    answer = reader.ask()
    assert allowed(answer)[0].secrets == ()
    assert isinstance(answer, Authorization)
    assert answer.secrets == {}


def test_another_host_does_not_open_it(reader: Reader) -> None:
    reader.add()
    answer = reader.ask("weights")
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
        reader.opened(answer, host=replace(reader.host, tpm=SoftTpm(CA)))


CLOSES: dict[str, Callable[[SoftTpm], object]] = {
    "the lease is over": lambda tpm: setattr(tpm, "clock_ms", tpm.clock_ms + 31_000),
    "the TPM was reset": lambda tpm: tpm.reboot(),
    "a PCR changed": lambda tpm: tpm.extend(4, bytes(32)),
}


@pytest.mark.parametrize("close", CLOSES.values(), ids=CLOSES)
def test_the_host_itself_does_not_open_it_out_of_lease(reader: Reader, close: Callable[[SoftTpm], object]) -> None:
    reader.add()
    answer = reader.ask("weights")
    close(reader.host.tpm)
    with pytest.raises(DeviceError, match=r"tpm\.device\.policy"):
        reader.opened(answer)


def test_a_replaced_value_is_what_the_next_job_gets(reader: Reader) -> None:
    reader.add()
    first = reader.ask("weights")
    assert reader.add(value=OTHER, replace=True)["replaced"]
    assert reader.opened(first) == VALUE
    assert reader.opened(reader.ask("weights")) == OTHER


def test_they_outlive_a_restart(reader: Reader) -> None:
    reader.add()
    reader.hall.reopen()
    assert reader.opened(reader.ask("weights")) == VALUE


# --- what is denied ---------------------------------------------------------------------------------------------------


class Plain(Host):
    """A host whose holder key obeys nobody."""

    @property
    @override
    def holder(self) -> TpmSigner:  # type: ignore[override]  # another signer
        return TpmSigner(self.tpm, self.holder_public)


def plain_host(reader: Reader) -> Host:
    settings = reader.hall.policies / "settings.toml"
    text = settings.read_text(encoding="utf-8").replace('tpm-lease = "required"', 'tpm-lease = "unchecked"')
    settings.write_text(text, encoding="utf-8")
    reader.hall.run(reader.hall.load())
    tpm = SoftTpm(CA)
    tpm.create_holder()
    reader.hall.run(reader.hall.add_host("plain", tpm))
    return Plain(reader.hall, "plain", tpm)


DENIED: dict[str, tuple[str, Callable[[Reader], Authorization | Denial]]] = {
    "a secret that nobody keeps": ("secret.unknown", lambda r: r.ask("weights")),
    "one of two": ("secret.unknown", lambda r: (r.add(), r.ask("dataset", "weights"))[1]),
    "one that was removed": (
        "secret.unknown",
        lambda r: (r.add(), r.command("secret.remove", name="weights"), r.ask("weights"))[2],
    ),
    "another tenant's": ("secret.tenant", lambda r: (r.add(tenant="vision"), r.ask("weights"))[1]),
    "without the role": ("authz.secrets", lambda r: (r.add(), r.ask("weights", key=r.hall.person))[1]),
    "of a host whose TPM enforces nothing": (
        "secret.lease",
        lambda r: (r.add(), r.ask("weights", host=plain_host(r)))[1],
    ),
}


@pytest.mark.parametrize(("reason", "act"), DENIED.values(), ids=DENIED)
def test_denied(reader: Reader, reason: str, act: Callable[[Reader], Authorization | Denial]) -> None:
    denial = denied(act(reader))
    assert denial.codes == (reason,)
    assert records(reader.hall)[-1].outcome == "deny"


def test_who_may_not_ask_is_not_told_what_there_is(reader: Reader) -> None:
    before = denied(reader.ask("weights", key=reader.hall.person))
    reader.add(tenant="vision")
    assert denied(reader.ask("weights", key=reader.hall.person)).codes == before.codes == ("authz.secrets",)


def test_a_request_names_sixteen_secrets_at_most() -> None:
    from tests.attestation.examples import INTENT

    names = tuple(f"s{number:02}" for number in range(17))
    assert Intent.from_bytes(replace(INTENT, secrets=names[:16]).to_bytes()).secrets == names[:16]
    with pytest.raises(Malformed, match=r"intent\.many-secrets"):
        Intent.from_bytes(replace(INTENT, secrets=names).to_bytes())


def test_a_secret_that_changes_before_the_decision_is_durable_is_looked_at_again(reader: Reader) -> None:
    """The value that goes out is the one that is kept when the grant comes into being."""
    reader.add()
    verifier = reader.hall.verifier
    commit, changed = verifier.commit, asyncio.Event()

    async def meanwhile(unit: Unit) -> Any:
        if not changed.is_set() and any(record.kind == "decision" for record in unit.records):
            changed.set()
            value = base64.b64encode(OTHER).decode()
            await reader.hall.command("secret.add", name="weights", tenant="lab", value=value, replace=True)
        return await commit(unit)

    verifier.commit = meanwhile  # type: ignore[method-assign]
    assert reader.opened(reader.ask("weights")) == OTHER
    changed.clear()

    async def removed(unit: Unit) -> Any:
        if not changed.is_set() and any(record.kind == "decision" for record in unit.records):
            changed.set()
            await reader.hall.command("secret.remove", name="weights")
        return await commit(unit)

    verifier.commit = removed  # type: ignore[method-assign]
    assert denied(reader.ask("weights")).codes == ("secret.unknown",)


def test_nothing_goes_out_where_the_log_fails(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.add()

    async def broken(unit: Unit) -> Any:
        if unit.records:
            raise Unavailable("log.unavailable", "the disk is full")
        return ()

    challenge = reader.hall.run(reader.hall.verifier.challenge("host"))
    monkeypatch.setattr(reader.hall.verifier, "challenge", lambda *_: answered(challenge))
    monkeypatch.setattr(reader.hall.verifier, "commit", broken)
    with pytest.raises(Unavailable):
        reader.ask("weights")


async def answered(value: Any) -> Any:
    return value


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "the key is gone": lambda path: path.unlink(),
    "the key is another": lambda path: path.write_bytes(os.urandom(32)),
    "the key is cut short": lambda path: path.write_bytes(path.read_bytes()[:31]),
}


@pytest.mark.parametrize("spoil", UNREADABLE.values(), ids=UNREADABLE)
def test_a_verifier_that_cannot_read_a_secret_denies_nobody_and_grants_nothing(
    reader: Reader, spoil: Callable[[Path], object]
) -> None:
    reader.add()
    spoil(reader.hall.settings.keys / KEY)
    before = len(records(reader.hall))
    with pytest.raises(Unwell, match=r"secret\.unreadable"):
        reader.ask("weights")
    assert len(records(reader.hall)) == before
    allowed(reader.ask())
    if not (reader.hall.settings.keys / KEY).exists():
        with pytest.raises(Unwell, match=r"secret\.unreadable"):
            reader.add("another")


# --- renewals ---------------------------------------------------------------------------------------------------------


def running(reader: Reader) -> tuple[Grant, Intent]:
    reader.add()
    intent = reader.intent("weights")
    return allowed(reader.hall.run(reader.host.ask(intent, key=reader.key)))[0], intent


def test_a_running_job_goes_on_with_its_secrets(reader: Reader) -> None:
    grant, intent = running(reader)
    reader.add(value=OTHER, replace=True)
    assert leased(reader.hall.run(reader.host.renew(grant, intent))).sequence == 1


def test_a_removed_secret_drains_the_jobs_that_hold_it(reader: Reader) -> None:
    grant, intent = running(reader)
    assert reader.command("secret.list")[0]["jobs"] == 1
    assert reader.command("secret.remove", name="weights")["stops"] == [grant.id.hex()]
    denial = denied(reader.hall.run(reader.host.renew(grant, intent)))
    assert (denial.codes, denial.klass) == (("secret.unknown",), DRAIN)


def test_a_role_that_was_taken_away_drains_the_job(reader: Reader) -> None:
    grant, intent = running(reader)
    reader.hall.run(reader.hall.add_person(reader.key, "grace", ("trainer",)))
    denial = denied(reader.hall.run(reader.host.renew(grant, intent)))
    assert (denial.codes, denial.klass) == (("authz.secrets",), DRAIN)


# --- keeping ----------------------------------------------------------------------------------------------------------


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "no name": ("secret.name", {"name": ""}),
    "a name with a colon": ("secret.name", {"name": "a:b"}),
    "a name with a comma": ("secret.name", {"name": "a,b"}),
    "a name with a space": ("secret.name", {"name": "a b"}),
    "a name with a line": ("secret.name", {"name": "a\n"}),
    "a name that begins with a dash": ("secret.name", {"name": "-a"}),
    "a name that is too long": ("secret.name", {"name": "a" * 65}),
    "no tenant": ("secret.name", {"tenant": ""}),
    "nothing": ("secret.size", {"value": b""}),
    "129 bytes": ("secret.size", {"value": bytes(129)}),
}


@pytest.mark.parametrize(("reason", "changes"), BAD.values(), ids=BAD)
def test_what_is_not_kept(reader: Reader, reason: str, changes: dict[str, Any]) -> None:
    before = len(records(reader.hall))
    with pytest.raises(Malformed) as refused:
        reader.add(**{"name": "weights", "value": VALUE, "tenant": "lab", **changes})
    assert refused.value.reason == reason
    assert reader.hall.verifier.store.secrets() == []
    assert len(records(reader.hall)) == before


def test_a_value_that_is_no_base64_is_not_echoed(reader: Reader) -> None:
    with pytest.raises(Malformed) as refused:
        reader.command("secret.add", name="weights", tenant="lab", value="secret password!")
    assert refused.value.reason == "secret.size"
    assert "password" not in refused.value.detail
    assert refused.value.__cause__ is None


def test_a_name_is_one_tenants(reader: Reader) -> None:
    reader.add()
    with pytest.raises(Untrusted, match=r"secret\.exists: 'weights' is kept already"):
        reader.add()
    for replaced in (False, True):
        with pytest.raises(Untrusted, match=r"secret\.tenant"):
            reader.add(tenant="vision", replace=replaced)
    with pytest.raises(Untrusted, match=r"secret\.unknown: no secret is called 'dataset'"):
        reader.command("secret.remove", name="dataset")


def test_every_change_is_in_the_log_by_name(reader: Reader) -> None:
    reader.add()
    reader.add(value=OTHER, replace=True)
    reader.command("secret.remove", name="weights")
    found = [(r.outcome, r.detail, r.digests) for r in records(reader.hall)[-3:]]
    assert found == [
        ("secret added", "weights for tenant lab", {}),
        ("secret replaced", "weights for tenant lab", {}),
        ("secret removed", "weights", {}),
    ]


def test_what_is_kept_opens_as_itself_only() -> None:
    key, nonce = os.urandom(32), os.urandom(12)
    kept = Secret("weights", "lab", enclose(key, "weights", "lab", VALUE, nonce), 0)
    assert disclose(key, kept) == VALUE
    bad = {
        "another name": replace(kept, name="dataset"),
        "another tenant": replace(kept, tenant="vision"),
        "the boundary moved": replace(kept, name="weightsl", tenant="ab"),
        "changed": replace(kept, sealed=kept.sealed[:-1] + bytes([kept.sealed[-1] ^ 1])),
        "cut short": replace(kept, sealed=kept.sealed[:20]),
        "nothing": replace(kept, sealed=b""),
    }
    for each in bad.values():
        with pytest.raises(Unwell, match=r"secret\.unreadable"):
            disclose(key, each)
    with pytest.raises(Unwell, match=r"secret\.unreadable"):
        disclose(os.urandom(32), kept)


def test_the_key_is_its_owners(reader: Reader) -> None:
    reader.add()
    path = reader.hall.settings.keys / KEY
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_key(path)) == 32
    path.chmod(0o640)
    with pytest.raises(Untrusted, match=r"service\.key-readable"):
        reader.ask("weights")


# --- nowhere else -----------------------------------------------------------------------------------------------------


def traces(value: bytes) -> set[bytes]:
    """Forms in which a value, or what stands for it, could turn up."""
    digests = {hashlib.new(name, value).digest() for name in ("sha256", "sha384", "sha512", "sha1", "md5")}
    plain = {value, *digests}
    return plain | {each.hex().encode() for each in plain} | {base64.b64encode(each) for each in plain}


def test_a_value_is_nowhere_but_in_the_sealed_form(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """Store, log, archive, bundle, metrics, answers, messages: none has a trace of it, nor a digest."""
    caplog.set_level("DEBUG")
    said: list[Any] = [reader.add(), reader.command("secret.list")]
    intent = reader.intent("weights")
    answer = reader.hall.run(reader.host.ask(intent, key=reader.key))
    grant, _ = allowed(answer)
    leased(reader.hall.run(reader.host.renew(grant, intent)))
    said += [denied(reader.ask("weights", key=reader.hall.person)).reasons, reader.command("status")]
    for name in ("weights", "a b"):  # messages of refusals
        with pytest.raises(InterlockError) as refused:
            reader.add(name)
        said.append(str(refused.value))
    reader.hall.run(reader.host.report(grant))
    verifier = reader.hall.verifier
    root = Root.from_pem(verifier.keys.root)
    assert all(check.ok for check in verify_bundle(make_bundle(verifier, grant.id), root))
    places = {
        "answer": answer.to_bytes(),
        "bundle": make_bundle(verifier, grant.id),
        "metrics": verifier.metrics.text(),
        "said": repr(said).encode() + caplog.text.encode(),
        **{f"record {r.kind} {n}": r.to_bytes() for n, r in enumerate(records(reader.hall))},
        **{str(path): path.read_bytes() for path in reader.hall.directory.rglob("*") if path.is_file()},
    }
    assert any("store.sqlite" in name for name in places)
    found = {name for name, data in places.items() for trace in traces(VALUE) if trace in data}
    assert not found


def test_releases_and_refusals_are_counted(reader: Reader) -> None:
    reader.add()
    reader.ask("weights")
    reader.ask("weights", key=reader.hall.person)
    text = reader.hall.verifier.metrics.text().decode()
    assert 'interlock_secrets_total{outcome="released"} 1.0' in text
    assert 'interlock_secrets_total{outcome="refused"} 1.0' in text


# --- the command line -------------------------------------------------------------------------------------------------


def cli(reader: Reader, *words: str, given: bytes | None = None) -> Any:
    """The result of a command in the hall's directory, whose service does not run meanwhile."""
    reader.hall.__exit__()
    try:
        return CliRunner().invoke(app, ["secret", *words, "--dir", str(reader.hall.directory)], input=given)
    finally:
        reader.hall.__enter__()


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_a_value_comes_from_a_file_or_standard_input(reader: Reader, tmp_path: Path, source: str) -> None:
    path = tmp_path / "value"
    path.write_bytes(VALUE)
    file = "-" if source == "stdin" else str(path)
    done = cli(reader, "add", "weights", "--tenant", "lab", "--file", file, "--json", given=VALUE)
    assert done.exit_code == 0, done.output
    assert VALUE not in done.stdout_bytes
    assert reader.opened(reader.ask("weights")) == VALUE
    done = cli(reader, "list")
    assert "weights" in done.stdout
    assert "UTC" in done.stdout
    done = cli(reader, "remove", "weights", "--json")
    assert '"stops"' in done.stdout
    assert reader.hall.verifier.store.secrets() == []


@pytest.mark.parametrize(("file", "reason"), [("missing", "secret.file"), ("long", "secret.size")])
def test_a_file_that_cannot_be_a_secret(reader: Reader, tmp_path: Path, file: str, reason: str) -> None:
    (tmp_path / "long").write_bytes(bytes(5000))
    done = cli(reader, "add", "weights", "--tenant", "lab", "--file", str(tmp_path / file))
    assert isinstance(done.exception, Malformed)
    assert done.exception.reason == reason
