"""Frames of the control stream."""

from contextlib import suppress

import pytest
from hypothesis import given
from wire.samples import any_frames, known_frames, status_records, unknown_frames

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.wire import frames
from odsi_proto.wire.codepoints import FrameType
from odsi_proto.wire.frames import MESSAGE_BYTES_MAX, Frame, decode_frame, encode_frame
from odsi_proto.wire.messages import LIST_ITEMS_MAX
from odsi_proto.wire.varint import Cursor, encode_varint

BOUND = 65_536


def decoded(raw: bytes, bound: int = BOUND) -> Frame:
    return decode_frame(Cursor(raw), payload_bytes_max=bound)


def framed(frame_type: int, payload: str) -> bytes:
    body = bytes.fromhex(payload)
    return encode_varint(frame_type) + encode_varint(len(body)) + body


@given(any_frames)
def test_a_frame_reads_back_as_it_was_written(frame: Frame) -> None:
    cursor = Cursor(encode_frame(frame) + b"next")
    assert decode_frame(cursor, payload_bytes_max=BOUND) == frame
    assert bytes(cursor.rest()) == b"next"


@pytest.mark.spec("WIRE-015")
@given(any_frames)
def test_every_proper_prefix_of_a_frame_is_incomplete(frame: Frame) -> None:
    raw = encode_frame(frame)
    for size in range(len(raw)):
        with pytest.raises(Incomplete):
            decoded(raw[:size])


@pytest.mark.spec("WIRE-004")
@given(known_frames)
def test_a_payload_is_a_frame_or_malformed_at_every_length(frame: Frame) -> None:
    payload = frame.payload()
    for size in range(len(payload)):
        cut = encode_varint(frame.type) + encode_varint(size) + payload[:size]
        with suppress(Malformed):
            assert encode_frame(decoded(cut)) == cut


def test_every_frame_type_has_a_class() -> None:
    assert set(frames.FRAMES) == set(FrameType)


@pytest.mark.spec("WIRE-006")
@given(unknown_frames)
def test_an_unknown_frame_is_kept_as_it_was(frame: Frame) -> None:
    found = decoded(encode_frame(frame))
    assert isinstance(found, frames.UnknownFrame)
    assert found.payload() == frame.payload()


@pytest.mark.spec("WIRE-004")
@pytest.mark.parametrize(
    ("frame_type", "payload"),
    [
        (FrameType.AUTH, "11" * 64),
        (FrameType.ATTACH, "11" * 32),
        (FrameType.ATTACHED, "11" * 16 + "05"),
        (FrameType.GOAWAY, "0000"),
    ],
)
def test_bytes_after_the_last_field_are_malformed(frame_type: FrameType, payload: str) -> None:
    assert decoded(framed(frame_type, payload)).type == frame_type
    with pytest.raises(Malformed, match=f"1 bytes after the {frame_type.name} frame"):
        decoded(framed(frame_type, payload + "00"))


@pytest.mark.spec("WIRE-004")
def test_a_payload_that_ends_inside_a_field_is_malformed() -> None:
    with pytest.raises(Malformed, match="REFUSE frame ends inside a field"):
        decoded(framed(FrameType.REFUSE, "0001"))


@pytest.mark.spec("WIRE-005")
def test_a_frame_at_the_bound_is_read() -> None:
    assert decoded(framed(1, "00" * 9), bound=9).payload() == bytes(9)


@pytest.mark.spec("WIRE-005")
def test_a_frame_above_the_bound_is_malformed_as_soon_as_its_length_is_here() -> None:
    with pytest.raises(Malformed, match="10 bytes, at most 9"):
        decoded(framed(1, "00" * 10)[:2], bound=9)


def test_the_last_stage_that_a_path_can_have_is_read() -> None:
    stage = LIST_ITEMS_MAX - 1
    frame = decoded(encode_varint(4) + b"\x02\x00" + bytes([stage]))
    assert isinstance(frame, frames.OpenFrame)
    assert frame.stage == stage


@pytest.mark.parametrize("frame_type", [FrameType.OPEN, FrameType.COMMIT])
def test_a_stage_beyond_any_path_is_malformed(frame_type: FrameType) -> None:
    with pytest.raises(Malformed, match="stage 64"):
        decoded(framed(frame_type, "00" + encode_varint(LIST_ITEMS_MAX).hex()))


def test_a_reason_is_cut_at_a_character() -> None:
    long = "é" * frames.REASON_BYTES_MAX
    frame = decoded(encode_frame(frames.GoawayFrame(code=0, reason="x" + long)))
    assert isinstance(frame, frames.GoawayFrame)
    assert frame.reason == "x" + long[: (frames.REASON_BYTES_MAX - 1) // 2]


# A file name that is not UTF-8 reaches a reason as a lone surrogate; this once raised.
def test_a_reason_with_a_lone_surrogate_is_written_without_it() -> None:
    assert frames.encode_reason("a\udc80b") == b"\x03a?b"


def test_a_reason_at_its_bound_is_read() -> None:
    raw = encode_varint(frames.REASON_BYTES_MAX) + b"r" * frames.REASON_BYTES_MAX
    frame = decoded(framed(FrameType.GOAWAY, "00" + raw.hex()))
    assert isinstance(frame, frames.GoawayFrame)
    assert len(frame.reason) == frames.REASON_BYTES_MAX


def test_a_reason_of_one_byte_too_many_is_malformed() -> None:
    raw = encode_varint(frames.REASON_BYTES_MAX + 1) + b"r" * (frames.REASON_BYTES_MAX + 1)
    with pytest.raises(Malformed, match="at most 512"):
        decoded(framed(FrameType.GOAWAY, "00" + raw.hex()))


@pytest.mark.spec("WIRE-004")
def test_a_reason_that_is_not_utf_8_is_malformed() -> None:
    with pytest.raises(Malformed, match="UTF-8"):
        decoded(framed(FrameType.GOAWAY, "0001ff"))


RECORD = "00" * 13
HEAD = "070000"


def test_a_status_holds_records_up_to_the_limit() -> None:
    frame = decoded(framed(FrameType.STATUS, HEAD + RECORD * frames.STATUS_RECORDS_MAX))
    assert isinstance(frame, frames.StatusFrame)
    assert len(frame.records) == frames.STATUS_RECORDS_MAX


def test_a_status_of_one_record_too_many_is_malformed() -> None:
    with pytest.raises(Malformed, match="more than 256 records"):
        decoded(framed(FrameType.STATUS, HEAD + RECORD * (frames.STATUS_RECORDS_MAX + 1)))


def test_a_leaf_of_one_byte_too_many_is_malformed() -> None:
    ends = encode_varint(frames.LEAF_BYTES_MAX + 1).hex() + "00" * (frames.LEAF_BYTES_MAX + 1) + "00"
    with pytest.raises(Malformed, match="65 bytes, at most 64"):
        decoded(framed(FrameType.STATUS, HEAD + "00" * 11 + ends))


@given(status_records)
def test_a_status_record_reads_back(record: frames.StatusRecord) -> None:
    assert frames.StatusRecord.read(Cursor(record.encode())) == record


@pytest.mark.spec("WIRE-007")
@pytest.mark.parametrize("frame_type", [FrameType.OPEN, FrameType.COMMIT, FrameType.CANCEL])
@pytest.mark.parametrize("surplus", [0, 1])
def test_a_signed_message_may_be_as_long_as_its_bound_and_no_longer(
    frame_type: FrameType, surplus: int
) -> None:
    prefix = b"" if frame_type is FrameType.CANCEL else b"\x00\x00"
    payload = prefix + bytes(MESSAGE_BYTES_MAX + surplus)
    raw = encode_varint(frame_type) + encode_varint(len(payload)) + payload
    if surplus:
        with pytest.raises(Malformed, match="signed message"):
            decode_frame(Cursor(raw), payload_bytes_max=1 << 17)
    else:
        assert encode_frame(decode_frame(Cursor(raw), payload_bytes_max=1 << 17)) == raw
