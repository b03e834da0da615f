"""What a leaf certificate says of its firmware: both generations of the DICE extension, and the DER they are in."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import Malformed, Untrusted
from attestation.gpu import der, dice, path
from attestation.gpu.device import verify_device
from attestation.reasons import explain
from tests.attestation.gpu import pki
from tests.attestation.gpu.pki import AT, forms, honest, refusal

BROM_SPKI = pki.spki(pki.key("GH100 brom 1").public_key())
OTHER_SPKI = pki.spki(pki.key("GH100 brom 2").public_key())
Changes = Mapping[str, pki.Change]

# --- Hopper and LS10 ---

DICE: dict[str, tuple[Changes, str]] = {
    "no DICE extension": ({"leaf": pki.lacking(x509.UnrecognizedExtension)}, "gpu.device.dice"),
    "two DICE extensions": (
        {"leaf": pki.extended(x509.UnrecognizedExtension(pki.TCB_INFO, pki.tcb_info()))},
        "gpu.device.dice",
    ),
    "device key of another device": ({"leaf": pki.diced(pki.composite(OTHER_SPKI))}, "gpu.device.key"),
    "device key that is the leaf's own": (
        {"leaf": pki.diced(pki.composite(pki.spki(pki.key("GH100 leaf 1").public_key())))},
        "gpu.device.key",
    ),
    "DICE of another version": (
        {"leaf": pki.diced(pki.tlv(0x30, pki.tlv(0x02, b"\x02"), BROM_SPKI, pki.fwid()))},
        "gpu.device.dice.form",
    ),
    "DICE without a firmware": (
        {"leaf": pki.diced(pki.tlv(0x30, pki.tlv(0x02, b"\x01"), BROM_SPKI))},
        "gpu.device.dice.form",
    ),
    "DICE with more in it": (
        {"leaf": pki.diced(pki.tlv(0x30, pki.tlv(0x02, b"\x01"), BROM_SPKI, pki.fwid(), pki.fwid()))},
        "gpu.device.dice.form",
    ),
    "DICE with something behind it": (
        {"leaf": pki.diced(pki.composite(BROM_SPKI) + b"\x05\0")},
        "gpu.chain.der.trailing",
    ),
    "DICE with a byte behind it": ({"leaf": pki.diced(pki.composite(BROM_SPKI) + b"\0")}, "gpu.chain.der.truncated"),
    "DICE cut short": ({"leaf": pki.diced(pki.composite(BROM_SPKI)[:-1])}, "gpu.chain.der.truncated"),
    "DICE in a set": ({"leaf": pki.diced(b"\x31" + pki.composite(BROM_SPKI)[1:])}, "gpu.chain.der"),
    "empty DICE": ({"leaf": pki.diced(b"")}, "gpu.chain.der.truncated"),
    "firmware of 32 bytes": ({"leaf": pki.diced(pki.composite(BROM_SPKI, bytes(32)))}, "gpu.device.dice.form"),
    "firmware by SHA-256": (
        {
            "leaf": pki.diced(
                pki.tlv(
                    0x30,
                    pki.tlv(0x02, b"\x01"),
                    BROM_SPKI,
                    pki.fwid(algorithm=bytes.fromhex("0609608648016503040201")),
                )
            )
        },
        "gpu.device.dice.form",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), DICE.values(), ids=DICE)
def test_extensions_that_are_no_composite_are_refused(changes: Changes, reason: str) -> None:
    made = pki.built(changes)
    assert refusal(made.pem, [made.anchor]).reason == reason


# --- Blackwell's TcbInfo ---


def tcb_device(body: bytes) -> bytes:
    """The chain of a Blackwell GPU that says this."""
    return pki.built({"leaf": pki.diced(body, pki.TCB_INFO)}, "GB100").pem


def flags(*numbers: int) -> bytes:
    value = sum(1 << 31 - number for number in numbers)
    return b"\0" + value.to_bytes(4, "big")


def without(tag: int) -> bytes:
    return pki.tcb_info({number: value for number, value in pki.TCB_FIELDS.items() if number != tag})


def swapped() -> bytes:
    items = list(pki.TCB_FIELDS.items())
    items[3], items[4] = items[4], items[3]
    return pki.tcb_info(dict(items))


def primitive_list() -> bytes:
    """With a primitive [6] before the one there is."""
    items = [(tag, value) for tag, value in pki.TCB_FIELDS.items()]
    return pki.tcb_info(dict([*items[:6], (0x86, b""), *items[6:]]))


TCB: dict[str, tuple[bytes, str]] = {
    "not secure": (pki.tcb_info(x87=flags(0, 1, 31)), "gpu.device.flags"),
    "recovery": (pki.tcb_info(x87=flags(0, 2, 31)), "gpu.device.flags"),
    "debug": (pki.tcb_info(x87=flags(0, 3, 31)), "gpu.device.flags"),
    "all of it": (pki.tcb_info(x87=flags(*range(32))), "gpu.device.flags"),
    "debug, in a short string": (pki.tcb_info(x87=b"\x04\x10"), "gpu.device.flags"),
    "no svn": (without(0x83), "gpu.device.dice.form"),
    "no firmware": (without(0xA6), "gpu.device.dice.form"),
    "no flags": (without(0x87), "gpu.device.dice.form"),
    "a field that is not known": (pki.tcb_info(x8a=b"\0\0\0\0\0"), "gpu.device.dice.form"),
    "another type of a field": (pki.tcb_info({**pki.TCB_FIELDS, 0xA8: b""}), "gpu.device.dice.form"),
    "a list that is none": (primitive_list(), "gpu.device.dice.form"),
    "an unknown field in front": (pki.tlv(0x30, pki.tlv(0x8A, b"\0"), pki.tcb_info()[3:]), "gpu.device.dice.form"),
    "out of order": (swapped(), "gpu.device.dice.form"),
    "twice": (pki.tlv(0x30, pki.tcb_info()[3:], pki.tlv(0x89, b"\0")), "gpu.device.dice.form"),
    "flags without a count": (pki.tcb_info(x87=b""), "gpu.chain.der"),
    "flags with nine unused bits": (pki.tcb_info(x87=b"\x09\x80\0\0\0"), "gpu.chain.der"),
    "flags with unused bits set": (pki.tcb_info(x87=b"\x01\x80\0\0\1"), "gpu.chain.der"),
    "no flags, one bit unused": (pki.tcb_info(x87=b"\x01"), "gpu.chain.der"),
    "a negative svn": (pki.tcb_info(x83=b"\x81"), "gpu.chain.der"),
    "an svn with a leading zero": (pki.tcb_info(x83=b"\x00\x01"), "gpu.chain.der"),
    "an empty svn": (pki.tcb_info(x83=b""), "gpu.chain.der"),
    "an svn beyond any number": (pki.tcb_info(x83=b"\x01" + bytes(8)), "gpu.chain.der"),
    "an svn with more digits than text has": (pki.tcb_info(x83=b"\x7f" * 2000), "gpu.chain.der"),
    "an empty list of firmware": (pki.tcb_info(xa6=b""), "gpu.device.dice.form"),
    "a list of something else": (pki.tcb_info(xa6=b"\x05\x00"), "gpu.device.dice.form"),
    "a second firmware of another size": (pki.tcb_info(xa6=pki.fwid() + pki.fwid(bytes(32))), "gpu.device.dice.form"),
}


@pytest.mark.parametrize(("body", "reason"), TCB.values(), ids=TCB)
def test_a_tcb_info_that_says_something_else_is_refused(body: bytes, reason: str) -> None:
    assert refusal(tcb_device(body)).reason == reason


@pytest.mark.parametrize(("bit", "name"), [(1, "notSecure"), (2, "recovery"), (3, "debug")])
def test_a_refused_flag_is_named(bit: int, name: str) -> None:
    assert refusal(tcb_device(pki.tcb_info(x87=flags(bit)))).detail == name


@pytest.mark.parametrize(
    ("body", "svn", "names"),
    [
        (pki.tcb_info(x83=b"\x00\xff", x87=b"\0"), 255, set()),
        (pki.tcb_info(x87=flags(4, 5, 6, 7, 8)), 1, set(list(dice.FLAGS.values())[4:9])),
        (pki.tcb_info({tag: pki.TCB_FIELDS[tag] for tag in (0x83, 0xA6, 0x87)}), 1, {"notConfigured", "fixedWidth"}),
        (pki.tcb_info(x83=b"\x7f" + b"\xff" * 7), 2**63 - 1, {"notConfigured", "fixedWidth"}),
        (without(0x80), 1, {"notConfigured", "fixedWidth"}),
    ],
)
def test_other_flags_are_told_and_not_refused(body: bytes, svn: int, names: set[str]) -> None:
    device = verify_device(tcb_device(body), [honest().anchor], at=AT)
    assert device.tcb_flags is not None
    assert ({name for name, value in device.tcb_flags.items() if value}, device.svn) == (names, svn)


# --- DER ---

NOT_DER = {
    "a long tag": "1f0100",
    "a longer tag": "bf8101 00",
    "an indefinite length": "3080 0000",
    "a long form of a short length": "04817f" + "00" * 127,
    "a length with a leading zero": "04820080" + "00" * 128,
}


@pytest.mark.parametrize("text", NOT_DER.values(), ids=NOT_DER)
def test_another_encoding_is_not_der(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        der.elements(bytes.fromhex(text))
    assert caught.value.reason == "gpu.chain.der"


@given(st.lists(st.tuples(st.sampled_from([0x02, 0x04, 0x0C, 0x30, 0x83, 0xA6]), st.binary(max_size=600)), max_size=5))
@settings(max_examples=50)
def test_what_is_der_is_read_as_it_was_written(values: list[tuple[int, bytes]]) -> None:
    found = der.elements(b"".join(pki.tlv(tag, value) for tag, value in values))
    assert [(element.tag, element.contents) for element in found] == values
    assert [element.whole for element in found] == [pki.tlv(tag, value) for tag, value in values]


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_der_is_read_back_or_refused(data: bytes) -> None:
    try:
        found = der.elements(data)
    except Malformed:
        return
    assert b"".join(element.whole for element in found) == data


@given(st.sets(st.integers(0, 40)))
def test_bits_are_counted_from_the_first(numbers: set[int]) -> None:
    size = 48
    value = sum(1 << size - 1 - number for number in numbers)
    assert der.bits(b"\0" + value.to_bytes(size // 8, "big")) == numbers


@given(st.sampled_from([pki.COMPOSITE, pki.TCB_INFO]), st.binary(max_size=200), st.integers(0, 190))
@settings(max_examples=60, deadline=None)
def test_a_changed_dice_extension_is_refused_and_nothing_else_happens(
    oid: x509.ObjectIdentifier, noise: bytes, position: int
) -> None:
    body = bytearray(pki.composite(BROM_SPKI) if oid == pki.COMPOSITE else pki.tcb_info())
    body[position : position + len(noise)] = noise
    leaf = replace(forms()["leaf"], extensions=((x509.UnrecognizedExtension(oid, bytes(body)), False),))
    try:
        dice.read_dice(path.read_certificate(honest().brom.issue(leaf).der))
    except (Malformed, Untrusted) as error:
        explain(error.reason)
