"""Reading, replaying and proving boot event logs: synthetic ones of both formats, and every rule of the parser."""

import hashlib
import struct
from collections.abc import Callable

import pytest

from attestation.errors import Malformed, Untrusted
from attestation.tpm.boot import kinds
from attestation.tpm.eventlog import (
    MAX_DATA,
    MAX_EVENTS,
    MAX_LOG,
    SIZES,
    EventLog,
    banks,
    is_ccel,
    prove,
    read_event_log,
    replay,
)
from tests.attestation.tpm.logs import (
    SHA1,
    SHA256,
    SHA384,
    ZEROES,
    LogMaker,
    confidential,
    honest,
    new_event,
    old_event,
    spec_id,
)

FIRST = LogMaker().first()
ONE = [(SHA256, bytes(32))]
LOCALITY = b"StartupLocality\0"


def first(spec: bytes, pcr: int = 0) -> bytes:
    return old_event(pcr, kinds.NO_ACTION, bytes(20), spec)


def agile(*events: bytes) -> bytes:
    return FIRST + b"".join(events)


def locality(value: bytes, pcr: int = 0) -> bytes:
    return new_event(pcr, kinds.NO_ACTION, ONE, LOCALITY + value)


EXTENDED = new_event(0, kinds.POST_CODE, ONE, b"x")
FINE = ((SHA256, 32),)

MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "tpm.log.empty"),
    "too large": (bytes(MAX_LOG + 1), "tpm.log.size"),
    "a text": (b"not a log, but long enough for an event", "tpm.log.size"),
    "shorter than an event": (FIRST[:31], "tpm.log.truncated"),
    "the first event cut short": (FIRST[:-1], "tpm.log.truncated"),
    "an event cut short in its head": (agile(EXTENDED[:11]), "tpm.log.truncated"),
    "an event cut short in its digests": (agile(EXTENDED[:30]), "tpm.log.truncated"),
    "an event cut short in an algorithm": (agile(EXTENDED[:13]), "tpm.log.truncated"),
    "an event cut short in its size": (agile(EXTENDED[:47]), "tpm.log.truncated"),
    "an event cut short in its data": (agile(EXTENDED[:-1]), "tpm.log.truncated"),
    "a SHA-1 event cut short": (honest((SHA1,), agile=False).to_bytes()[:-1], "tpm.log.truncated"),
    "data larger than the log": (agile(new_event(0, 1, ONE, b"", size=200)), "tpm.log.truncated"),
    "3 GB of data": (agile(new_event(0, 1, ONE, b"", size=3 << 30)), "tpm.log.size"),
    "data larger than any event": (agile(new_event(0, 1, ONE, bytes(MAX_DATA + 1))), "tpm.log.size"),
    "more events than any boot": (agile(EXTENDED * MAX_EVENTS), "tpm.log.size"),
    "Spec ID of another version": (first(spec_id(FINE, version=(1, 2))), "tpm.log.spec-id"),
    "Spec ID of version 2.1": (first(spec_id(FINE, version=(2, 1))), "tpm.log.spec-id"),
    "Spec ID of version 3.0": (first(spec_id(FINE, version=(3, 0))), "tpm.log.spec-id"),
    "Spec ID without an algorithm": (first(spec_id(())), "tpm.log.spec-id"),
    "Spec ID with 0xffffffff algorithms": (first(spec_id(FINE, count=0xFFFFFFFF)), "tpm.log.spec-id"),
    "Spec ID with one algorithm too many": (first(spec_id(FINE, count=2)), "tpm.log.spec-id"),
    "Spec ID with an algorithm twice": (first(spec_id((*FINE, *FINE))), "tpm.log.spec-id"),
    "Spec ID with an unknown algorithm": (first(spec_id(((0x7777, 32),))), "tpm.log.spec-id"),
    "Spec ID with a size that is not the algorithm's": (first(spec_id(((SHA256, 20),))), "tpm.log.spec-id"),
    "Spec ID with more vendor data than there is": (first(spec_id(FINE)[:-1] + b"\4"), "tpm.log.spec-id"),
    "Spec ID with less vendor data than there is": (first(spec_id(FINE) + b"x"), "tpm.log.spec-id"),
    "Spec ID that ends before its list": (first(spec_id(FINE)[:27]), "tpm.log.spec-id"),
    "Spec ID that ends with its list": (first(spec_id(FINE)[:-1]), "tpm.log.spec-id"),
    "Spec ID of a PCR": (first(spec_id(FINE), pcr=1), "tpm.log.spec-id"),
    "Spec ID of a later format": (first(b"Spec ID Event04\0" + bytes(20)), "tpm.log.spec-id"),
    "Spec ID with a digest": (
        old_event(0, kinds.NO_ACTION, b"\1" * 20, spec_id(FINE)),
        "tpm.log.no-action",
    ),
    "no digest": (agile(new_event(0, 1, [], b"")), "tpm.log.digests"),
    "0xffffffff digests": (agile(new_event(0, 1, ONE, b"", count=0xFFFFFFFF)), "tpm.log.digests"),
    "more digests than banks": (agile(new_event(0, 1, ONE * 2, b"")), "tpm.log.digests"),
    "a digest of another bank": (agile(new_event(0, 1, [(SHA1, bytes(20))], b"")), "tpm.log.digests"),
    "a digest twice": (
        LogMaker((SHA1, SHA256)).first() + new_event(0, 1, ONE * 2, b""),
        "tpm.log.digests",
    ),
    "PCR 24": (agile(new_event(24, 1, ONE, b"")), "tpm.log.register"),
    "PCR 24, extending nothing": (agile(new_event(24, kinds.NO_ACTION, ONE, b"")), "tpm.log.register"),
    "PCR -1 extended": (agile(new_event(0xFFFFFFFF, 1, ONE, b"")), "tpm.log.register"),
    "no action with a digest": (agile(new_event(0, kinds.NO_ACTION, [(SHA256, b"\1" * 32)], b"")), "tpm.log.no-action"),
    "a startup locality of 1": (agile(locality(b"\1")), "tpm.log.locality"),
    "a startup locality of no value": (agile(locality(b"")), "tpm.log.locality"),
    "a startup locality of two values": (agile(locality(b"\3\3")), "tpm.log.locality"),
    "a startup locality twice": (agile(locality(b"\3"), locality(b"\3")), "tpm.log.locality"),
    "a startup locality of 0, then of 3": (agile(locality(b"\0"), locality(b"\3")), "tpm.log.locality"),
    "a startup locality too late": (agile(EXTENDED, locality(b"\3")), "tpm.log.locality"),
    "a startup locality of PCR 7": (agile(locality(b"\3", pcr=7)), "tpm.log.locality"),
    "H-CRTM too late": (agile(EXTENDED, new_event(0, kinds.HCRTM, ONE, b"HCRTM")), "tpm.log.locality"),
    "H-CRTM of PCR 1": (agile(new_event(1, kinds.HCRTM, ONE, b"HCRTM")), "tpm.log.locality"),
    "padding of zeroes, then a byte": (agile(EXTENDED, bytes(40) + b"\1"), "tpm.log.digests"),
    "padding of ones, then a byte": (agile(EXTENDED, b"\xff" * 40 + b"\1"), "tpm.log.digests"),
    "padding of ones, then zeroes": (agile(EXTENDED, b"\xff" * 40 + bytes(40)), "tpm.log.digests"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    data, reason = MALFORMED[name]
    with pytest.raises(Malformed) as caught:
        read_event_log(data)
    assert caught.value.reason == reason


CCEL_FIRST = confidential().first()
SHA384_ONE = [(SHA384, bytes(48))]
MALFORMED_CCEL = {
    "no Spec ID event": (old_event(1, kinds.POST_CODE, bytes(20), b""), "tpm.log.spec-id"),
    "a Spec ID event of PCR 0": (LogMaker().first(), "tpm.log.spec-id"),
    "register 0": (CCEL_FIRST + new_event(0, 1, SHA384_ONE, b""), "tpm.log.register"),
    "register 5": (CCEL_FIRST + new_event(5, 1, SHA384_ONE, b""), "tpm.log.register"),
    "the table that points to the log": (b"CCEL" + bytes(52), "tpm.log.spec-id"),
}


@pytest.mark.parametrize("name", MALFORMED_CCEL)
def test_malformed_ccel(name: str) -> None:
    data, reason = MALFORMED_CCEL[name]
    with pytest.raises(Malformed) as caught:
        read_event_log(data, ccel=True)
    assert caught.value.reason == reason


@pytest.mark.parametrize("algs", [(SHA256,), (SHA1, SHA256), (SHA1, SHA256, SHA384)])
def test_every_bank_of_a_crypto_agile_log_replays(algs: tuple[int, ...]) -> None:
    maker = honest(algs)
    log = read_event_log(maker.to_bytes())
    assert (log.format, log.algs, log.startup_locality, log.padding) == ("crypto-agile", algs, 0, 0)
    assert len(log.events) == len(maker.rows) + 1
    assert banks(log) == algs
    for bank in algs:
        values = replay(log, bank)
        assert values == {pcr: value for pcr, value in maker.values(bank).items() if any(value)}
        assert prove(log, bank, maker.values(bank)).pcrs == frozenset(range(16))


def test_a_sha1_log_replays() -> None:
    maker = honest((SHA1,), agile=False)
    log = read_event_log(maker.to_bytes())
    assert (log.format, log.algs) == ("sha1", (SHA1,))
    assert [finding.name for finding in log.findings] == ["tpm.log.no-spec-id"]
    assert prove(log, SHA1, maker.values()).unproven == frozenset()


def test_a_sha1_log_may_say_its_version() -> None:
    maker = honest((SHA1,), agile=False)
    maker.insert(0, 0, kinds.NO_ACTION, b"Spec ID Event02\0" + bytes(13))
    log = read_event_log(maker.to_bytes())
    assert (log.format, log.findings) == ("sha1", ())


def test_events_say_where_they_are() -> None:
    data = agile(EXTENDED, locality(b"\0", pcr=1).replace(b"Startup", b"Restart"))
    log = read_event_log(data)
    assert [(event.number, event.offset) for event in log.events] == [
        (0, 0),
        (1, len(FIRST)),
        (2, len(FIRST + EXTENDED)),
    ]
    assert [event.extends for event in log.events] == [False, True, False]
    assert (log.events[1].data, log.events[1].digests) == (b"x", {SHA256: bytes(32)})


@pytest.mark.parametrize("value", [0, 3, 4])
def test_the_startup_locality_is_where_pcr_0_begins(value: int) -> None:
    maker = honest()
    maker.locality = value
    maker.insert(0, 0, kinds.NO_ACTION, LOCALITY + bytes([value]))
    log = read_event_log(maker.to_bytes())
    assert log.startup_locality == value
    assert 0 in prove(log, SHA256, maker.values()).pcrs


def test_an_h_crtm_event_comes_first() -> None:
    maker = honest().insert(0, 0, kinds.HCRTM, b"HCRTM", b"the H-CRTM")
    maker.locality = 4
    maker.insert(0, 0, kinds.NO_ACTION, LOCALITY + b"\4")
    assert 0 in prove(read_event_log(maker.to_bytes()), SHA256, maker.values()).pcrs


def test_no_action_of_no_register_extends_nothing() -> None:
    log = read_event_log(agile(new_event(0xFFFFFFFF, kinds.NO_ACTION, ONE, b"a trust point")))
    assert replay(log, SHA256) == {}
    assert [finding.name for finding in log.findings] == ["tpm.log.no-register"]
    log = read_event_log(CCEL_FIRST + new_event(0, kinds.NO_ACTION, SHA384_ONE, b"SP800-155 Event3"), ccel=True)
    assert replay(log, SHA384) == {}


@pytest.mark.parametrize(("platform", "width"), [(1, 2), (0, 1), (2, 0)])
def test_classes_and_widths_of_platforms_do_not_matter(platform: int, width: int) -> None:
    assert read_event_log(first(spec_id(FINE, platform=platform, width=width))).algs == (SHA256,)


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
@pytest.mark.parametrize("count", [1, 31, 456, 70_000])
@pytest.mark.parametrize("old", [False, True], ids=["crypto-agile", "sha1"])
def test_padding(byte: bytes, count: int, old: bool) -> None:
    maker = honest((SHA1,), agile=not old)
    log = read_event_log(maker.to_bytes() + byte * count)
    assert (log.padding, len(log.events)) == (count, len(maker.rows) + (not old))
    assert log.findings[-1].text == f"{count} bytes"


def test_a_log_of_confidential_computing() -> None:
    maker = confidential()
    data = maker.to_bytes() + b"\xff" * 5000
    assert is_ccel(data)
    assert not is_ccel(honest().to_bytes())
    log = read_event_log(data, ccel=True)
    assert (log.ccel, log.padding) == (True, 5000)
    assert prove(log, SHA384, maker.values()).pcrs == {1, 2, 3}


def test_a_bank_that_some_events_lack_cannot_be_replayed() -> None:
    data = LogMaker((SHA1, SHA256)).first() + new_event(0, 1, ONE, b"x") + new_event(1, 1, ONE, b"x")
    log = read_event_log(data)
    assert (log.algs, banks(log)) == ((SHA1, SHA256), (SHA256,))
    assert [(finding.name, finding.event) for finding in log.findings] == [("tpm.log.banks-fewer", 1)]
    assert replay(log, SHA256)
    with pytest.raises(Untrusted, match=r"^tpm\.log\.bank: event 1 has no digest"):
        replay(log, SHA1)


def test_a_bank_that_we_cannot_compute_is_passed_over() -> None:
    data = LogMaker((SHA256, 0x12)).first() + new_event(0, 1, [*ONE, (0x12, bytes(32))], b"x")
    assert banks(read_event_log(data)) == (SHA256,)


@pytest.mark.parametrize("bank", [SHA1, SHA384, 0x12, 0x7777], ids=hex)
def test_a_bank_that_the_log_lacks(bank: int) -> None:
    for data in (honest().to_bytes(), FIRST):
        with pytest.raises(Untrusted, match=r"^tpm\.log\.bank"):
            replay(read_event_log(data), bank)


def test_a_bank_that_the_log_has_and_nobody_computes() -> None:
    log = read_event_log(LogMaker((SHA256, 0x12)).first())
    assert replay(log, SHA256) == {}
    with pytest.raises(Untrusted, match=r"^tpm\.log\.bank"):
        replay(log, 0x12)


def test_what_is_as_large_as_it_may_be() -> None:
    assert read_event_log(FIRST + bytes(MAX_LOG - len(FIRST))).padding == MAX_LOG - len(FIRST)
    assert len(read_event_log(agile(new_event(0, 1, ONE, bytes(MAX_DATA)))).events[1].data) == MAX_DATA
    assert len(read_event_log(agile(EXTENDED * (MAX_EVENTS - 1))).events) == MAX_EVENTS
    assert (MAX_LOG, MAX_DATA, MAX_EVENTS) == (1048576, 262144, 8192)
    every = tuple(SIZES.items())
    assert read_event_log(first(spec_id(every, vendor=bytes(255)))).algs == tuple(SIZES)


# --- proving ----------------------------------------------------------------------------------------------------------


def swapped(log: LogMaker) -> LogMaker:
    at = log.index(b"set root")
    log.rows[at], log.rows[at + 1] = log.rows[at + 1], log.rows[at]
    return log


def moved(log: LogMaker) -> LogMaker:
    log.find(b"set root").pcr = 9
    return log


def silenced(log: LogMaker) -> LogMaker:
    log.find("shimx64").type = kinds.NO_ACTION
    return log


def emptied(log: LogMaker) -> LogMaker:
    log.rows.clear()
    return log


def cropped(log: LogMaker) -> LogMaker:
    log.rows = [row for row in log.rows if row.pcr == 7]
    return log


CHANGED: dict[str, tuple[Callable[[LogMaker], object], int]] = {
    "an event less at the end": (lambda log: log.remove(-1), 5),
    "an event less in the middle": (lambda log: log.remove(log.index(b"linux /vmlinuz")), 8),
    "an event more": (lambda log: log.add(4, kinds.BOOT_APPLICATION, b"", b"another image"), 4),
    "an event twice": (lambda log: log.insert(3, 0, kinds.POST_CODE, b"ACPI DATA", b"tables"), 0),
    "two events in another order": (swapped, 8),
    "an event in another PCR": (moved, 8),
    "an event that extends nothing any more": (silenced, 4),
    "another startup locality": (lambda log: log.insert(0, 0, kinds.NO_ACTION, LOCALITY + b"\3"), 0),
    "no event left": (emptied, 0),
    "only one PCR's events": (cropped, 0),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_log_does_not_explain_the_quote(name: str) -> None:
    change, pcr = CHANGED[name]
    quoted = honest().values()
    maker = honest()
    change(maker)
    log = read_event_log(maker.to_bytes())
    with pytest.raises(Untrusted) as caught:
        prove(log, SHA256, quoted)
    assert caught.value.reason == "tpm.log.mismatch"
    assert caught.value.detail.startswith(f"PCR {pcr}: the log's ")
    assert quoted[pcr].hex() in caught.value.detail
    count = sum(row.pcr == pcr and row.type != kinds.NO_ACTION for row in maker.rows)
    assert f"the log's {count} events" in caught.value.detail


def test_no_log_explains_nothing() -> None:
    with pytest.raises(Untrusted, match=r"^tpm\.log\.missing: no log explains PCR 0, quoted") as caught:
        prove(None, SHA256, honest().values())
    assert honest().values()[0].hex() in caught.value.detail
    with pytest.raises(Untrusted, match=r"^tpm\.log\.missing: no log explains PCR 9"):
        prove(None, SHA256, {0: bytes(32), 9: b"\1" * 32})


def test_what_was_not_extended_needs_no_log() -> None:
    proof = prove(None, SHA256, {0: bytes(32), 8: bytes(32), 10: b"\1" * 32, 16: b"\1" * 32}, assume_exit=True)
    assert proof.pcrs == {0, 8}
    assert proof.unproven == {10}
    assert not proof.exit_assumed
    with pytest.raises(Untrusted, match=r"^tpm\.log\.bank"):
        prove(None, 0x12, {0: bytes(32)})


def test_the_register_that_a_confidential_guest_extends_itself() -> None:
    maker = confidential()
    proof = prove(read_event_log(maker.to_bytes(), ccel=True), SHA384, maker.values() | {4: b"\1" * 48})
    assert proof.pcrs == {1, 2, 3}
    assert proof.unproven == {4}
    with pytest.raises(Untrusted, match=r"^tpm\.log\.mismatch: PCR 3"):
        prove(read_event_log(maker.to_bytes(), ccel=True), SHA384, {3: bytes(48), 5: bytes(48)}, assume_exit=True)


def test_what_the_operating_system_extends_is_not_proven_and_not_refused() -> None:
    maker = honest()
    quoted = maker.values() | {10: b"\1" * 32, 15: b"\2" * 32, 16: b"\3" * 32, 23: b"\4" * 32}
    proof = prove(read_event_log(maker.to_bytes()), SHA256, quoted)
    assert proof.unproven == {10, 15}
    assert proof.pcrs == frozenset(range(16)) - {10, 15}
    with pytest.raises(Untrusted, match=r"^tpm\.log\.mismatch: PCR 14"):
        prove(read_event_log(maker.to_bytes()), SHA256, quoted | {14: b"\1" * 32})


def test_a_register_that_begins_with_ones() -> None:
    data = agile(new_event(17, 1, ONE, b"x"))
    expected = hashlib.sha256(b"\xff" * 32 + bytes(32)).digest()
    assert replay(read_event_log(data), SHA256) == {17: expected}


def forgetful() -> tuple[EventLog, dict[int, bytes]]:
    """Firmware that measures ExitBootServices and does not log it."""
    maker = honest()
    quoted = maker.values()
    maker.remove(-1).remove(-1)
    return read_event_log(maker.to_bytes()), quoted


def test_events_that_were_measured_and_not_logged_are_only_assumed_when_asked() -> None:
    log, quoted = forgetful()
    with pytest.raises(Untrusted, match=r"^tpm\.log\.mismatch: PCR 5"):
        prove(log, SHA256, quoted)
    proof = prove(log, SHA256, quoted, assume_exit=True)
    assert (proof.exit_assumed, 5 in proof.pcrs) == (True, True)
    assert not prove(read_event_log(honest().to_bytes()), SHA256, quoted, assume_exit=True).exit_assumed


NOT_ASSUMED: dict[str, Callable[[LogMaker], object]] = {
    "one of the two is logged": lambda log: log.remove(-1),
    "other events are missing": lambda log: log.remove(-1).remove(-1).remove(log.index(b"EFI PART")),
    "another PCR is wrong": lambda log: log.remove(-1).remove(-1).remove(0),
}


@pytest.mark.parametrize("name", NOT_ASSUMED)
def test_nothing_else_is_assumed(name: str) -> None:
    quoted = honest().values()
    maker = honest()
    NOT_ASSUMED[name](maker)
    with pytest.raises(Untrusted, match=r"^tpm\.log\.mismatch"):
        prove(read_event_log(maker.to_bytes()), SHA256, quoted, assume_exit=True)


def test_the_maker_agrees_with_the_layout_in_the_specification() -> None:
    row = honest((SHA1,), agile=False).rows[0]
    assert old_event(0, 8, row.digest(SHA1), b"ab") == struct.pack("<II", 0, 8) + row.digest(SHA1) + b"\2\0\0\0ab"
    assert (
        new_event(4, 5, [(SHA256, bytes(32))], ZEROES).hex()
        == "0400000005000000" + "01000000" + "0b00" + "00" * 32 + "0400000000000000"
    )
