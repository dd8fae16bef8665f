"""The step header."""

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire.samples import step_headers

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.units import Handle, Micros, Position, Tag
from odsi_proto.wire.step import (
    DURATION_US_MAX,
    POSITIONS_MAX,
    STEP_EXTENSION_BYTES_MAX,
    STEP_HEADER_BYTES_MAX,
    StepHeader,
)
from odsi_proto.wire.varint import VARINT_MAX, Cursor, encode_varint

HEADER = StepHeader(
    handle=Handle(3),
    lineage=0,
    attempt=0,
    position=Position(700),
    count=1,
    remaining_us=Micros(180_000),
    owd_us=Micros(12_000),
    tag_before=Tag(b"\x11" * 8),
    tag_after=Tag(b"\x22" * 8),
)


def decoded(raw: bytes) -> StepHeader:
    """The header after the stream type."""
    return StepHeader.decode(Cursor(raw, 1))


def changed(**values: object) -> bytes:
    return dataclasses.replace(HEADER, **values).encode()  # type: ignore[arg-type]


def test_a_typical_header_takes_thirty_bytes() -> None:
    assert HEADER.encode().hex() == "0203000042bc018002bf206ee0" + "11" * 8 + "22" * 8 + "00"
    assert len(HEADER.encode()) == 30


@given(step_headers())
def test_a_header_reads_back_as_it_was_written(header: StepHeader) -> None:
    cursor = Cursor(header.encode() + b"payload", 1)
    assert StepHeader.decode(cursor) == header
    assert bytes(cursor.rest()) == b"payload"


@given(step_headers(), st.sampled_from((bytes, bytearray, memoryview)))
def test_a_decoded_header_is_as_good_as_a_constructed_one(header: StepHeader, kind: type) -> None:
    found = StepHeader.decode(Cursor(kind(header.encode()), 1))
    assert type(found) is StepHeader
    assert hash(found) == hash(header)
    assert pickle.loads(pickle.dumps(found)) == header
    assert (found.end, repr(found)) == (header.position + header.count, repr(header))


def test_a_decoded_header_can_not_be_changed() -> None:
    header = decoded(HEADER.encode())
    with pytest.raises(dataclasses.FrozenInstanceError):
        header.count = 2  # type: ignore[misc]


@pytest.mark.spec("WIRE-015")
@given(step_headers())
def test_every_proper_prefix_of_a_header_is_incomplete(header: StepHeader) -> None:
    raw = header.encode()
    for size in range(1, len(raw)):
        cursor = Cursor(raw[:size], 1)
        with pytest.raises(Incomplete):
            StepHeader.decode(cursor)
        assert cursor.at == 1


@given(step_headers())
def test_no_header_is_longer_than_its_bound(header: StepHeader) -> None:
    assert len(header.encode()) - 1 <= STEP_HEADER_BYTES_MAX


def test_the_longest_header_has_exactly_the_bound() -> None:
    size = lambda: b"\xc0" + bytes(7)  # noqa: E731
    raw = (
        b"".join(size() for _ in range(4))
        + b"\xc0\0\0\0\0\0\0\x01"
        + size() * 2
        + bytes(16)
        + b"\xc0\0\0\0\0\0\0\x40"
        + bytes(64)
    )
    cursor = Cursor(raw)
    assert len(StepHeader.decode(cursor).extension) == STEP_EXTENSION_BYTES_MAX
    assert cursor.at == len(raw) == STEP_HEADER_BYTES_MAX


@pytest.mark.parametrize("value", [0x3F, 0x40, 0x3FFF, 0x4000, 0x3FFF_FFFF, 0x4000_0000, VARINT_MAX])
@pytest.mark.parametrize("field", ["handle", "lineage", "attempt"])
def test_a_number_of_any_size_reads_back(field: str, value: int) -> None:
    assert getattr(decoded(changed(**{field: value})), field) == value


@pytest.mark.parametrize("value", [0, 0x40, 0x4000, 0x3FFF_FFFF, 0x4000_0000, DURATION_US_MAX])
@pytest.mark.parametrize("field", ["remaining_us", "owd_us"])
def test_a_duration_of_any_size_reads_back(field: str, value: int) -> None:
    assert getattr(decoded(changed(**{field: value})), field) == value


# The sum of the two once wrapped around when a stage passed it on.
@pytest.mark.parametrize("field", ["remaining_us", "owd_us"])
def test_a_duration_above_its_bound_is_malformed(field: str) -> None:
    with pytest.raises(Malformed, match="duration"):
        decoded(changed(**{field: DURATION_US_MAX + 1}))


def test_a_step_of_no_positions_is_malformed() -> None:
    with pytest.raises(Malformed, match="no positions"):
        decoded(changed(count=0))


def test_a_step_may_end_at_the_last_position() -> None:
    assert decoded(changed(position=POSITIONS_MAX - 2, count=2)).end == POSITIONS_MAX


def test_a_step_that_ends_one_past_the_last_position_is_malformed() -> None:
    with pytest.raises(Malformed, match="past position"):
        decoded(changed(position=POSITIONS_MAX - 1, count=2))


def test_an_extension_of_one_byte_too_many_is_malformed_before_it_is_here() -> None:
    head = HEADER.encode()[:-1] + encode_varint(STEP_EXTENSION_BYTES_MAX + 1)
    with pytest.raises(Malformed, match="extension"):
        decoded(head)
