"""The CBOR subset, against cbor2 as an oracle."""

import io

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odsi_proto.errors import Malformed
from odsi_proto.wire import cbor

values = st.recursive(
    st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=40), st.text(max_size=40)),
    lambda items: st.lists(items, max_size=5).map(tuple),
    max_leaves=12,
)


def depth(value: object) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, tuple) else 0


def nested(levels: int) -> bytes:
    """An empty array inside ``levels`` - 1 others."""
    return b"\x81" * (levels - 1) + b"\x80"


def cbor2_reencodes(data: bytes) -> bool:
    """Whether cbor2 reads exactly one value of the subset's types and writes the same bytes."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
        return stream.read() == b"" and in_subset(value) and cbor2.dumps(value) == data
    except Exception:
        return False


def in_subset(value: object) -> bool:
    if isinstance(value, list):
        return all(map(in_subset, value))
    return isinstance(value, bytes | str) or (type(value) is int and 0 <= value < 2**64)


@given(values.filter(lambda value: depth(value) <= cbor.DEPTH_MAX))
def test_a_value_reads_back_as_it_was_written(value: cbor.Value) -> None:
    assert cbor.decode(cbor.encode(value)) == value


@given(values.filter(lambda value: depth(value) <= cbor.DEPTH_MAX))
def test_every_proper_prefix_is_malformed(value: cbor.Value) -> None:
    encoded = cbor.encode(value)
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            cbor.decode(encoded[:size])


@given(
    st.one_of(st.binary(max_size=24), values.map(cbor.encode), values.map(lambda v: cbor2.dumps(v) + b"\0"))
)
def test_what_is_accepted_is_what_cbor2_reads_and_writes_back_the_same(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except Malformed:
        assert not cbor2_reencodes(data) or depth(value_of(data)) > cbor.DEPTH_MAX
    else:
        assert cbor2_reencodes(data)
        assert cbor.encode(value) == data


def value_of(data: bytes) -> object:
    return tuplify(cbor2.loads(data))


def tuplify(value: object) -> object:
    return tuple(map(tuplify, value)) if isinstance(value, list) else value


@pytest.mark.parametrize(
    "encoded",
    [
        "1817",  # 23 in two bytes
        "190001",
        "1a0000ffff",
        "1b00000000ffffffff",
        "5800",  # a byte string whose length is longer than it need be
        "780161",
        "9800",
        "1c",  # reserved
        "1f",
        "5f4161ff",  # indefinite
        "7f6161ff",
        "9f00ff",
        "20",  # -1
        "a0",  # a map
        "c000",  # a tag
        "f4",  # false
        "f6",  # null
        "f90000",  # a float
        "0000",  # two items
        "61ff",  # text that is not UTF-8
        "62c080",  # overlong
        "63eda080",  # a surrogate
        "64f4908080",  # beyond Unicode
        "4261",  # ends early
        "8200",
        "1901",
        "9bffffffffffffffff",
        "5bffffffffffffffff",
        "",
    ],
)
def test_anything_but_the_one_encoding_is_malformed(encoded: str) -> None:
    with pytest.raises(Malformed):
        cbor.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize("value", [0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1])
def test_integers_at_every_change_of_size_read_back(value: int) -> None:
    assert cbor.decode(cbor.encode(value)) == value


def test_arrays_nest_up_to_the_limit() -> None:
    assert depth(cbor.decode(nested(cbor.DEPTH_MAX))) == cbor.DEPTH_MAX


def test_arrays_that_nest_one_deeper_are_malformed() -> None:
    with pytest.raises(Malformed, match="deeper"):
        cbor.decode(nested(cbor.DEPTH_MAX + 1))


def test_a_body_holds_items_up_to_the_limit() -> None:
    value = cbor.decode(cbor.encode([0] * (cbor.ITEMS_MAX - 1)))
    assert value == (0,) * (cbor.ITEMS_MAX - 1)


def test_a_body_of_one_item_too_many_is_malformed() -> None:
    with pytest.raises(Malformed, match="more than"):
        cbor.decode(cbor.encode([0] * cbor.ITEMS_MAX))


def test_a_view_is_read_as_bytes_are() -> None:
    assert cbor.decode(memoryview(b"\x82\x01\x41\x61")) == (1, b"a")
