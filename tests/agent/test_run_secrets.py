"""Secrets from the verifier's store to the job, and away from it: everything real but the TPM."""

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.devices import Approved, DeviceError
from agent.secrets import Secrets
from attestation.errors import Malformed, Untrusted
from attestation.grant import Authorization
from attestation.tpm.sealing import SealedSecret
from fixtures.attester import SoftTpm
from tests.agent.house import House, Submission
from tests.verifier.hall import CA

pytestmark = pytest.mark.root

VALUE = b"the key of the weights, 32 bytes"
READ = """
import os, signal
given = dict(each.split(":") for each in os.environ["INTERLOCK_SECRETS"].split(","))
print(os.environ["INTERLOCK_SECRETS"], os.pread(int(given["weights"]), 128, 0).decode(), flush=True)
"""
WAIT = """
def tell(*_):
    print(os.pread(3, 128, 0).decode(), flush=True)
    os._exit(0)
signal.signal(10, tell)
while True: signal.pause()
"""


class Watched(SoftTpm):
    """Keeps what it gave out, to see what becomes of it; refuses as often as it is told."""

    def __init__(self) -> None:
        super().__init__(CA)
        self.given: list[bytearray] = []
        self.refusals = 0

    def unseal(self, sealed: Sequence[SealedSecret], approved: Approved) -> list[bytearray]:  # type: ignore[explicit-override]
        if self.refusals:
            self.refusals -= 1
            raise DeviceError("tpm.device.policy", "policy check failed (0x126)")
        values = super().unseal(sealed, approved)
        assert all(any(value) for value in values)
        self.given += values
        return values


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"))
    made.tpm = Watched()
    with made:
        made.operate("add_person", made.person, "ada", ("any-command", "trainer", "secret-reader"))
        encoded = base64.b64encode(VALUE).decode()
        made.command("secret.add", name="weights", tenant="lab", value=encoded)
        yield made


def tpm(house: House) -> Watched:
    assert isinstance(house.tpm, Watched)
    return house.tpm


def memory_files() -> list[str]:
    """The secrets' memory files that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except FileNotFoundError:
            continue
    return [each for each in found if each.startswith("/memfd:interlock:")]


def submit(house: House, source: str, *names: str) -> Submission:
    """A run of an approved script."""
    house.write_code({"train.py": source})
    return house.submit(argv=("python", "-I", "-u", "train.py"), secrets=names or ("weights",))


def test_a_job_reads_what_was_released_and_nothing_is_left(house: House) -> None:
    tpm(house).given.clear()
    job = submit(house, READ)
    assert "secrets weights" in job.until("granted").text
    ended = job.end()
    assert (ended.exit_code, ended.reason) == (0, None)
    assert job.output == f"weights:3 {VALUE.decode()}\n"
    assert [bytes(value) for value in tpm(house).given] == [bytes(len(VALUE))]
    assert memory_files() == []


def test_a_job_without_secrets_is_given_none(house: House) -> None:
    job = house.submit("import os; print('INTERLOCK_SECRETS' in os.environ, os.path.exists('/proc/self/fd/3'))")
    assert "secrets" not in job.until("granted").text
    assert job.end().exit_code == 0
    assert job.output == "False False\n"


def test_where_the_tpm_refuses_the_job_does_not_start(house: House) -> None:
    tpm(house).refusals = 1
    job = submit(house, READ)
    ended = job.end()
    assert (ended.exit_code, ended.reason) == (77, "tpm.device.policy")
    assert job.output == ""
    assert "started" not in job.events
    assert memory_files() == []


ANSWERS: dict[str, Callable[[Authorization], Mapping[str, SealedSecret]]] = {
    "none comes with the grant": lambda _: {},
    "one more comes": lambda answer: {**answer.secrets, "more": answer.secrets["weights"]},
    "another one comes": lambda answer: {"dataset": answer.secrets["weights"]},
}


@pytest.mark.parametrize("change", ANSWERS.values(), ids=ANSWERS)
def test_what_comes_is_what_is_granted(
    house: House, change: Callable[[Authorization], Mapping[str, SealedSecret]], monkeypatch: pytest.MonkeyPatch
) -> None:
    authorize = house.host.verifier.authorize

    def altered(*arguments: Any) -> Authorization:
        answer = authorize(*arguments)
        return replace(answer, secrets=change(answer))

    monkeypatch.setattr(house.host.verifier, "authorize", altered)
    ended = submit(house, READ).end()
    assert (ended.exit_code, ended.reason) == (77, "grant.secrets")


@pytest.mark.parametrize("field", ["public", "duplicate", "seed"])
def test_a_sealed_secret_that_was_changed_on_its_way_starts_nothing(
    house: House, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorize = house.host.verifier.authorize

    def altered(*arguments: Any) -> Authorization:
        answer = authorize(*arguments)
        sealed = answer.secrets["weights"]
        data = bytearray(getattr(sealed, field))
        data[-1] ^= 1
        return replace(answer, secrets={"weights": replace(sealed, **{field: bytes(data)})})

    monkeypatch.setattr(house.host.verifier, "authorize", altered)
    job = submit(house, READ)
    assert job.end().exit_code == 77
    assert job.output == ""


@pytest.mark.parametrize(("name", "reason"), [("dataset", "secret.unknown"), ("theirs", "secret.tenant")])
def test_a_denial_says_why(house: House, name: str, reason: str) -> None:
    if name == "theirs" and not any(each["name"] == name for each in house.command("secret.list")):
        house.command("secret.add", name=name, tenant="vision", value=base64.b64encode(VALUE).decode())
    ended = submit(house, READ, name).end()
    assert (ended.exit_code, ended.reason) == (71, reason)
    assert ended.fix


def test_a_command_beside_the_approved_code_is_given_none(house: House) -> None:
    ended = house.submit(READ, secrets=("weights",)).end()
    assert (ended.exit_code, ended.reason) == (71, "authz.secret-command")


def test_a_removed_secret_drains_the_job_at_once(house: House) -> None:
    encoded = base64.b64encode(VALUE).decode()
    house.command("secret.add", name="short-lived", tenant="lab", value=encoded)
    job = submit(house, "import signal\nsignal.sigwait([15])", "short-lived")
    job.until("started")
    assert len(house.command("secret.remove", name="short-lived")["stops"]) == 1
    for running in house.host.jobs.all():  # nobody listens for the verifier's word in this house
        assert running.governed is not None
        running.governed.hurry()
    ended = job.end()
    assert (ended.exit_code, ended.reason) == (73, "secret.unknown")
    assert memory_files() == []


@pytest.mark.slow
def test_they_are_gone_while_frozen_and_back_before_the_thaw(house: House) -> None:
    """The verifier is silent; it comes back, but at first the TPM does not open the secret under the new lease."""
    job = submit(house, READ + WAIT)
    job.until("started")
    with os.fdopen(os.dup(job._read)) as output:
        assert output.readline().startswith("weights:3 ")
        house.close_verifier()
        job.until("frozen")
        (running,) = house.host.jobs.all()
        assert running.governed is not None
        (descriptor,) = running.governed._secrets.files.values()
        assert os.pread(descriptor, 128, 0) == b""
        tpm(house).refusals = 1
        house.open_verifier()
        assert "tpm.device.policy" in job.until("secrets").text
        assert os.pread(descriptor, 128, 0) == b""
        job.until("thawed")
        running.governed.signal(10)
        assert output.readline() == f"{VALUE.decode()}\n"
    ended = job.end()
    assert (ended.exit_code, ended.event) == (0, "finished")
    assert memory_files() == []


# --- agent.secrets by itself ------------------------------------------------------------------------------------------


def test_without_a_lease_that_the_tpm_enforces_nothing_is_opened(house: House) -> None:
    sealed = SealedSecret(public=b"", duplicate=b"", seed=b"")
    with Secrets(house.tpm, {"weights": sealed}) as secrets, pytest.raises(Untrusted, match=r"secret\.lease"):
        secrets.fill(None)
    with Secrets(house.tpm, {}) as none:
        none.fill(None)


def test_after_its_end_nothing_is_filled_any_more() -> None:
    device = Watched()
    with Secrets(device, {"weights": SealedSecret(public=b"", duplicate=b"", seed=b"")}) as secrets:
        assert list(secrets.files) == ["weights"]
    secrets.fill(None)
    assert (device.given, secrets.files) == ([], {})


def test_a_file_that_cannot_be_filled_leaves_no_value(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    value = bytearray(VALUE)
    monkeypatch.setattr(house.tpm, "unseal", lambda *_: [value])
    sealed = SealedSecret(public=b"", duplicate=b"", seed=b"")
    with Secrets(house.tpm, {"weights": sealed}) as secrets:
        (descriptor,) = secrets.files.values()
        os.close(descriptor)
        null = os.open("/dev/null", os.O_RDONLY)
        assert null == descriptor
        with pytest.raises(OSError, match="Bad file descriptor"):
            secrets.fill(object())  # type: ignore[arg-type]  # only that there is a lease
        secrets.files = {}
        os.close(null)
    assert value == bytes(len(VALUE))


def test_the_command_line_puts_them_into_the_intent() -> None:
    from agent.request import Options, make_intent

    options = Options(("python",), "job", "lab", 0, "none", 60, 64, 4, (), {}, secrets=("b", "a", "b"))
    assert make_intent(options, code=bytes(32), environment=bytes(32)).secrets == ("a", "b")
    assert json.dumps(options.secrets)


def test_a_value_in_place_of_a_name_is_neither_signed_nor_echoed() -> None:
    from agent.request import Options, make_intent

    options = Options(("python",), "job", "lab", 0, "none", 60, 64, 4, (), {}, secrets=("weights=hunter2",))
    with pytest.raises(Malformed, match=r"secret\.name") as refused:
        make_intent(options, code=bytes(32), environment=bytes(32)).to_bytes()
    assert "hunter2" not in str(refused.value)
