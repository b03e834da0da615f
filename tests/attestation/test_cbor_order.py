"""attestation.cbor.in_order: the order of map keys is the order of their encodings, found without encoding them."""

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import cbor
from attestation.cbor import Unencodable

INTEGERS = st.integers(-(2**64), 2**64 - 1)
KEYS = st.one_of(
    st.sets(INTEGERS, max_size=12),
    st.sets(st.text(st.characters(codec="utf-8"), max_size=40), max_size=12),
    st.sets(st.binary(max_size=40), max_size=12),
    st.sets(st.one_of(INTEGERS, st.text(st.characters(codec="utf-8")), st.binary()), max_size=12),
)


@given(KEYS)
def test_keys_are_ordered_as_their_encodings(keys: set[Any]) -> None:
    assert cbor.in_order(keys) == sorted(keys, key=cbor2.dumps)


@given(KEYS)
def test_what_is_in_order_is_encoded_without_another_look(keys: set[Any]) -> None:
    value = dict.fromkeys(cbor.in_order(keys), 0)
    assert cbor.encode_in_order(value) == cbor.encode(dict.fromkeys(keys, 0))


@pytest.mark.parametrize("keys", [{2**64}, {-(2**64) - 1}, {1, 2**64}, {0, -(2**65)}, {"a", 2**64}])
def test_an_integer_beyond_64_bits_is_no_key(keys: set[Any]) -> None:
    with pytest.raises(Unencodable, match=r"cbor\.range"):
        cbor.in_order(keys)
