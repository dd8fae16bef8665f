"""Reading the fields of an array."""

from collections.abc import Callable

import pytest

from odsi_proto.errors import Malformed
from odsi_proto.wire.cbor import Value
from odsi_proto.wire.fields import Reader


def reader(*items: Value) -> Reader:
    return Reader(items, "thing")


def test_fields_come_in_order_and_with_their_types() -> None:
    fields = reader(1, b"ab", "text", 7, (1, 2), ((3,), (4,)))
    assert fields.unsigned() == 1
    assert fields.octets() == b"ab"
    assert fields.text(max_bytes=4) == "text"
    fields.constant(7)
    assert fields.array(max_items=2) == (1, 2)
    assert fields.records(lambda r: r.unsigned(), max_items=2) == (3, 4)
    fields.end()


@pytest.mark.parametrize(
    ("item", "read"),
    [
        (b"1", lambda r: r.unsigned()),
        (8, lambda r: r.unsigned(maximum=7)),
        ("a", lambda r: r.octets()),
        (b"abc", lambda r: r.octets(max_bytes=2)),
        (b"abc", lambda r: r.octets(exactly=2)),
        (b"abc", lambda r: r.octets(exactly=4)),
        (b"a", lambda r: r.text(max_bytes=9)),
        ("é", lambda r: r.text(max_bytes=1)),
        (8, lambda r: r.constant(7)),
        ("7", lambda r: r.constant(7)),
        (1, lambda r: r.array(max_items=9)),
        ((1, 2), lambda r: r.array(max_items=1)),
        ((1,), lambda r: r.records(lambda one: one.unsigned(), max_items=1)),
        (((1, 2),), lambda r: r.records(lambda one: one.unsigned(), max_items=1)),
        (((),), lambda r: r.records(lambda one: one.unsigned(), max_items=1)),
    ],
)
def test_a_field_of_another_type_or_above_its_bound_is_malformed(
    item: Value, read: Callable[[Reader], object]
) -> None:
    with pytest.raises(Malformed, match="thing"):
        read(reader(item))


@pytest.mark.parametrize(
    ("item", "read"),
    [
        (7, lambda r: r.unsigned(maximum=7)),
        (b"ab", lambda r: r.octets(max_bytes=2)),
        (b"ab", lambda r: r.octets(exactly=2)),
        ("é", lambda r: r.text(max_bytes=2)),
        ((1, 2), lambda r: r.array(max_items=2)),
    ],
)
def test_a_field_at_its_bound_is_read(item: Value, read: Callable[[Reader], object]) -> None:
    assert read(reader(item)) == item


def test_a_field_too_few_is_malformed() -> None:
    fields = reader(1)
    fields.unsigned()
    with pytest.raises(Malformed, match="ends after 1 fields"):
        fields.unsigned()


def test_a_field_too_many_is_malformed() -> None:
    with pytest.raises(Malformed, match="1 fields, expected 0"):
        reader(1).end()


def test_what_is_not_an_array_is_malformed() -> None:
    with pytest.raises(Malformed, match="thing is not an array"):
        Reader(1, "thing")
