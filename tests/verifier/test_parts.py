"""The small parts of the verifier: clock, throttle, watch, keys, settings, anchors."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.cose import EDDSA, ES256, ES384, SoftwareSigner
from attestation.errors import InterlockError, Malformed, Untrusted
from fixtures.ca import TestCa
from verifier.anchors import AnchorEntry, Anchors, load_anchors
from verifier.clock import TOLERANCE, Clock
from verifier.keys import KeyRing, create_keys
from verifier.settings import CollateralSettings, ServiceSettings, read_settings, write_settings
from verifier.throttle import Throttle
from verifier.watch import Watch

# --- clock ------------------------------------------------------------------------------------------------------------


class Hands:
    def __init__(self) -> None:
        self.wall, self.boot = 1000.0, 5.0

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.boot)

    def pass_(self, boot: float, wall: float | None = None) -> None:
        self.boot += boot
        self.wall += boot if wall is None else wall


@pytest.mark.parametrize("step", [-86_400.0, -TOLERANCE - 1, -1.0, TOLERANCE + 1, 86_400.0])
def test_a_step_of_the_wall_clock_is_seen_and_not_followed(step: float) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_(10, 10 + step)
    assert clock.now() == 1010
    assert clock.drift() == pytest.approx(step)


def test_a_small_correction_forward_is_followed() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_(10, 11)
    assert clock.seconds() == 1011
    assert clock.drift() == 0


def test_time_never_goes_back() -> None:
    hands = Hands()
    clock = hands.clock()
    seen = []
    for wall in (1.5, 0.2, -1.0, 3.0, -5.0):
        hands.pass_(1, wall)
        seen.append(clock.seconds())
    assert seen == sorted(seen)


# --- throttle ---------------------------------------------------------------------------------------------------------


def test_strangers_are_bounded_by_address() -> None:
    now = [100.0]
    throttle = Throttle(3, lambda: now[0])
    for _ in range(3):
        assert not throttle.is_exhausted("a")
        throttle.charge("a")
    assert throttle.is_exhausted("a")
    assert not throttle.is_exhausted("b")
    now[0] += 0.4
    assert not throttle.is_exhausted("a")


def test_the_table_of_strangers_is_bounded() -> None:
    throttle = Throttle(1, lambda: 100.0)
    for number in range(16384 + 10):
        throttle.charge(str(number))
    assert not throttle.is_exhausted("0")  # forgotten
    assert throttle.is_exhausted("16390")


# --- watch ------------------------------------------------------------------------------------------------------------


def test_a_watcher_is_woken_and_only_that_one() -> None:
    async def go() -> tuple[int, int]:
        watch = Watch(limit=10, start=100)
        waiting = [asyncio.create_task(watch.wait(name, 100, 0.2)) for name in ("a", "b")]
        await asyncio.sleep(0)
        watch.notify("a")
        one, two = await asyncio.gather(*waiting)
        return one, two

    assert asyncio.run(go()) == (101, 100)


def test_a_watcher_who_is_behind_is_answered_at_once() -> None:
    watch = Watch(limit=0, start=100)
    assert asyncio.run(watch.wait("a", 7, 60)) == 100


def test_watchers_are_bounded_and_their_places_return() -> None:
    async def go() -> None:
        watch = Watch(limit=1, start=0)
        first = asyncio.create_task(watch.wait("a", 0, 60))
        await asyncio.sleep(0)
        with pytest.raises(Untrusted, match=r"watch\.full"):
            await watch.wait("b", 0, 60)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await watch.wait("b", 0, 0.01) == 0

    asyncio.run(go())


def test_closing_wakes_everybody() -> None:
    async def go() -> list[int]:
        watch = Watch(limit=10, start=0)
        waiting = [asyncio.create_task(watch.wait(name, 0, 60)) for name in "aab"]
        await asyncio.sleep(0)
        watch.close()
        return await asyncio.gather(*waiting)

    assert asyncio.run(go()) == [1, 1, 1]


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return create_keys(tmp_path / "keys", ["127.0.0.1", "::1", "verifier.example"], at=datetime.now(UTC))


def test_keys_are_for_their_owner_only(ring: KeyRing) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in ring.directory.iterdir()}
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {"tls.crt": 0o644, "root.pem": 0o644}
    assert ring.directory.stat().st_mode & 0o777 == 0o700


def test_the_certificate_is_for_every_host(ring: KeyRing) -> None:
    certificate = x509.load_pem_x509_certificate((ring.directory / "tls.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["verifier.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_loading_gives_the_same_keys(ring: KeyRing) -> None:
    again = KeyRing.load(ring.directory)
    assert again.public("i", "o") == ring.public("i", "o")
    assert (ring.directory / "root.pem").read_bytes() == again.root


def test_keys_are_never_overwritten(ring: KeyRing) -> None:
    before = {path.name: path.read_bytes() for path in ring.directory.iterdir()}
    with pytest.raises(FileExistsError):
        create_keys(ring.directory, ["x"], at=datetime.now(UTC))
    assert {path.name: path.read_bytes() for path in ring.directory.iterdir()} == before


def put(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda keys: (keys / name).write_bytes(data)


KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "group can read": (lambda k: (k / "grant.pem").chmod(0o640), "service.key-readable"),
    "others can read": (lambda k: (k / "log.pem").chmod(0o604), "service.key-readable"),
    "others can write": (lambda k: (k / "tls.pem").chmod(0o602), "service.key-readable"),
    "missing": (lambda k: (k / "grant.pem").unlink(), "service.key"),
    "no policy key": (lambda k: (k / "policy.pem").unlink(), "service.policy-key"),
    "others can read the policy key": (lambda k: (k / "policy.pem").chmod(0o644), "service.key-readable"),
    "policy key of another curve": (put("policy.pem", SoftwareSigner.generate(ES384).to_pem()), "service.key"),
    "policy key of another kind": (put("policy.pem", SoftwareSigner.generate(EDDSA).to_pem()), "service.key"),
    "not a key": (put("grant.pem", b"hello"), "key.encoding"),
    "another curve": (put("grant.pem", SoftwareSigner.generate(ES384).to_pem()), "service.key"),
    "keys swapped": (put("log.pem", SoftwareSigner.generate(ES256).to_pem()), "service.key"),
    "tls key of another kind": (put("tls.pem", SoftwareSigner.generate(EDDSA).to_pem()), "service.key"),
}


@pytest.mark.parametrize(("spoil", "reason"), KEYS.values(), ids=KEYS)
def test_a_verifier_does_not_start_with_bad_keys(ring: KeyRing, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(ring.directory)
    with pytest.raises(InterlockError) as caught:
        KeyRing.load(ring.directory)
    assert caught.value.reason == reason


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_read_as_written(tmp_path: Path) -> None:
    made = ServiceSettings(tmp_path, 'a"b\\c', "o/log", "https://h:1", "::", 1, 2, 3, 4)
    write_settings(made)
    assert read_settings(tmp_path) == made


def test_settings_of_collateral_read_as_written(tmp_path: Path) -> None:
    collateral = CollateralSettings(
        fetch=False,
        rim_url="https://mirror.example/rim",
        ocsp_url="http://mirror.example:8080",
        crl_hosts=("a.example", "b.example:8080"),
        timeout=20,
        proxy="http://proxy.example:3128",
    )
    made = ServiceSettings(tmp_path, "i", "o", "u", "b", 1, collateral=collateral)
    write_settings(made)
    assert read_settings(tmp_path) == made


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1/rim", "http://localhost/x", "http://[::1]:7/", "https://m/x"])
def test_rims_come_over_tls_or_from_this_machine(tmp_path: Path, url: str) -> None:
    (tmp_path / "settings.toml").write_text(f'{GOOD}[collateral]\nrim_url = "{url}"\n')
    assert read_settings(tmp_path).collateral.rim_url == url


GOOD = 'issuer = "i"\norigin = "o"\nurl = "u"\nbind = "b"\nport = 1\n'

SETTINGS: dict[str, tuple[bytes, str]] = {
    "not TOML": (b"issuer", "service.syntax"),
    "not UTF-8": (b"\xff", "service.syntax"),
    "too large": (b"#" * 70_000, "service.file"),
    "unknown name": (GOOD.encode() + b"colour = 1\n", "service.name"),
    "name missing": (GOOD.replace('url = "u"\n', "").encode(), "service.name"),
    "port as text": (GOOD.replace("port = 1", 'port = "1"').encode(), "service.value"),
    "port as yes": (GOOD.replace("port = 1", "port = true").encode(), "service.value"),
    "no such port": (GOOD.replace("port = 1", "port = 70000").encode(), "service.value"),
    "issuer with a space": (GOOD.replace('"i"', '"i j"').encode(), "service.value"),
    "the directory": (GOOD.encode() + b'directory = "/"\n', "service.name"),
    "collateral as a word": (GOOD.encode() + b'collateral = "no"\n', "service.value"),
    "unknown name of collateral": (GOOD.encode() + b"[collateral]\nfetsch = true\n", "service.name"),
    "fetch as a word": (GOOD.encode() + b'[collateral]\nfetch = "no"\n', "service.value"),
    "hosts as a word": (GOOD.encode() + b'[collateral]\ncrl_hosts = "x"\n', "service.value"),
    "hosts as numbers": (GOOD.encode() + b"[collateral]\ncrl_hosts = [1]\n", "service.value"),
    "an empty host": (GOOD.encode() + b'[collateral]\ncrl_hosts = [""]\n', "service.value"),
    "RIMs without TLS": (GOOD.encode() + b'[collateral]\nrim_url = "http://m.example/"\n', "service.value"),
    "RIMs from a file": (GOOD.encode() + b'[collateral]\nrim_url = "file:///x"\n', "service.value"),
    "RIMs from nowhere": (GOOD.encode() + b'[collateral]\nrim_url = "https:///x"\n', "service.value"),
    "a responder over FTP": (GOOD.encode() + b'[collateral]\nocsp_url = "ftp://m/"\n', "service.value"),
    "no time": (GOOD.encode() + b"[collateral]\ntimeout = 0\n", "service.value"),
    "too much time": (GOOD.encode() + b"[collateral]\ntimeout = 21\n", "service.value"),
    "time as a float": (GOOD.encode() + b"[collateral]\ntimeout = 1.5\n", "service.value"),
    "empty origin": (GOOD.replace('"o"', '""').encode(), "service.value"),
}


@pytest.mark.parametrize(("data", "reason"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "settings.toml").write_bytes(data)
    with pytest.raises(Malformed) as caught:
        read_settings(tmp_path)
    assert caught.value.reason == reason


def test_no_settings(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=r"service\.file"):
        read_settings(tmp_path)


# --- anchors ----------------------------------------------------------------------------------------------------------


def anchors_directory(tmp_path: Path, text: str) -> Path:
    (tmp_path / "anchors").mkdir()
    root = TestCa("some").root.certificate
    (tmp_path / "anchors" / "some.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (tmp_path / "anchors" / "broken.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "anchors" / "large.pem").write_bytes(b" " * 70_000)
    (tmp_path / "anchors" / "anchors.toml").write_text(text)
    return tmp_path


def entry(**changes: Any) -> str:
    values = {"name": "some", "file": "some.pem", "assurance": "test"} | changes
    return "[[anchor]]\n" + "".join(f'{k} = "{v}"\n' for k, v in values.items() if v)


def test_anchors_are_read(tmp_path: Path) -> None:
    (anchor,) = load_anchors(anchors_directory(tmp_path, entry())).to_anchors()
    assert (anchor.name, anchor.assurance) == ("some", "test")


def test_no_anchors_is_none(tmp_path: Path) -> None:
    assert load_anchors(tmp_path) == Anchors(entries=())


ANCHORS: dict[str, tuple[str, str]] = {
    "unknown assurance": (entry(assurance="best"), "anchor.assurance"),
    "no name": (entry(name=""), "anchor.file"),
    "another member": (entry(url="https://x"), "anchor.file"),
    "no such file": (entry(file="none.pem"), "anchor.file"),
    "outside the directory": (entry(file="../anchors/../../some.pem.key"), "anchor.file"),
    "not a certificate": (entry(file="broken.pem"), "anchor.file"),
    "far too large": (entry(file="large.pem"), "anchor.file"),
    "twice": (entry() + entry(), "anchor.file"),
    "another table": ("[other]\n", "anchor.file"),
    "not a list": ("anchor = 1\n", "anchor.file"),
}


@pytest.mark.parametrize(("text", "reason"), ANCHORS.values(), ids=ANCHORS)
def test_anchors_that_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        load_anchors(anchors_directory(tmp_path, text))
    assert caught.value.reason == reason


def test_anchors_read_back() -> None:
    made = Anchors(entries=(AnchorEntry(name="a", certificate=b"c", assurance="hardware"),))
    assert Anchors.from_bytes(made.to_bytes()) == made
    assert made.digest != replace(made, entries=()).digest
