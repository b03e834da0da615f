"""attestation.der: one way to write an element, whoever asks; lengths of any size, each in its shortest form."""

import pytest

from attestation import der
from attestation.der import OCTET_STRING, Element
from attestation.errors import Malformed

READ = {
    "nothing": (b"", []),
    "an empty element": (b"\x05\x00", [(5, b"")]),
    "two": (b"\x02\x01\x07\x04\x02ab", [(2, b"\7"), (4, b"ab")]),
    "127 bytes": (b"\x04\x7f" + bytes(127), [(4, bytes(127))]),
    "128 bytes": (b"\x04\x81\x80" + bytes(128), [(4, bytes(128))]),
    "65,536 bytes": (b"\x04\x83\x01\x00\x00" + bytes(65536), [(4, bytes(65536))]),
}
REFUSED = {
    "a tag alone": (b"\x04", "x.truncated"),
    "a length that is not there": (b"\x04\x82\x01", "x.truncated"),
    "contents that are not there": (b"\x04\x02a", "x.truncated"),
    "an indefinite length": (b"\x30\x80\0\0", "x"),
    "a long form of a short length": (b"\x04\x81\x7f" + bytes(127), "x"),
    "a length with a leading zero": (b"\x04\x82\x00\x80" + bytes(128), "x"),
    "a tag number above 30": (b"\x1f\x01\x00", "x"),
    "something behind the last one": (b"\x05\x00\x05", "x.truncated"),
}


@pytest.mark.parametrize("name", READ)
def test_elements_are_read_as_they_stand_there(name: str) -> None:
    data, wanted = READ[name]
    found = der.elements(data, "x", "x.truncated")
    assert [(element.tag, element.contents) for element in found] == wanted
    assert b"".join(element.whole for element in found) == data


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_as_the_caller_says(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(Malformed) as caught:
        der.elements(data, "x", "x.truncated")
    assert caught.value.reason == reason


def test_an_element_can_be_taken_apart() -> None:
    (element,) = der.elements(b"\x04\x01a", "x", "x.truncated")
    tag, contents, whole = element
    assert element == Element(OCTET_STRING, b"a", b"\x04\x01a") == (tag, contents, whole)
