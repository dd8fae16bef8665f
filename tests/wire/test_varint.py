"""Variable-length integers and the cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire.samples import varints

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.wire.varint import VARINT_MAX, Cursor, encode_varint

# RFC 9000, appendix A.1.
RFC_9000 = [
    ("c2197c5eff14e88c", 151_288_809_941_952_652),
    ("9d7f3e7d", 494_878_333),
    ("7bbd", 15_293),
    ("25", 37),
]


@pytest.mark.parametrize(("encoded", "value"), RFC_9000)
def test_the_examples_of_rfc_9000_read_and_write(encoded: str, value: int) -> None:
    assert Cursor(bytes.fromhex(encoded)).varint() == value
    assert encode_varint(value).hex() == encoded


@pytest.mark.spec("WIRE-002")
@pytest.mark.parametrize("encoded", ["25", "4025", "80000025", "c000000000000025"])
def test_a_longer_encoding_is_accepted(encoded: str) -> None:
    assert Cursor(bytes.fromhex(encoded)).varint() == 0x25


@pytest.mark.spec("WIRE-001")
@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 1),
        (0x3F, 1),
        (0x40, 2),
        (0x3FFF, 2),
        (0x4000, 4),
        (0x3FFF_FFFF, 4),
        (0x4000_0000, 8),
        (VARINT_MAX, 8),
    ],
)
def test_the_shortest_size_is_written(value: int, size: int) -> None:
    encoded = encode_varint(value)
    assert len(encoded) == size
    assert Cursor(encoded).varint() == value


# 2**62 was once written as 0.
@pytest.mark.parametrize("value", [-1, -64, VARINT_MAX + 1, 2**64])
def test_what_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_varint(value)


@given(varints, st.binary(max_size=3))
def test_a_varint_reads_back_and_leaves_the_rest(value: int, after: bytes) -> None:
    cursor = Cursor(encode_varint(value) + after)
    assert cursor.varint() == value
    assert bytes(cursor.rest()) == after


@pytest.mark.spec("WIRE-015")
@given(varints)
def test_every_proper_prefix_is_incomplete_and_moves_nothing(value: int) -> None:
    encoded = encode_varint(value)
    for size in range(len(encoded)):
        cursor = Cursor(b"x" + encoded[:size], 1)
        with pytest.raises(Incomplete):
            cursor.varint()
        assert cursor.at == 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_read(kind: type) -> None:
    cursor = Cursor(kind(b"\x7b\xbdabc"))
    assert (cursor.varint(), bytes(cursor.take(2)), cursor.left) == (15_293, b"ab", 1)


def test_taking_more_than_is_there_is_incomplete_and_moves_nothing() -> None:
    cursor = Cursor(b"abc")
    with pytest.raises(Incomplete):
        cursor.take(4)
    assert bytes(cursor.take(3)) == b"abc"


def test_what_is_taken_is_a_view_and_no_copy() -> None:
    buffer = bytearray(b"abc")
    assert Cursor(buffer, 1).take(2).obj is buffer


def test_an_end_with_bytes_left_is_malformed_and_says_how_many() -> None:
    cursor = Cursor(b"abc")
    with pytest.raises(Malformed, match="3 bytes after the thing"):
        cursor.end("thing")
    cursor.rest()
    cursor.end("thing")
