"""Whatever can be said reads back as it was said, and every strategy yields only what can be said."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from properties.profile import share

from odsi_proto.errors import Incomplete
from odsi_proto.limits import Limits
from odsi_proto.testing import strategies as odsi
from odsi_proto.units import LayerRange, ParticipantId
from odsi_proto.wire.codepoints import StreamType, is_ignorable
from odsi_proto.wire.frames import FRAMES, Frame, StatusRecord, UnknownFrame, decode_frame, encode_frame
from odsi_proto.wire.identity import Delegation, SignedMessage
from odsi_proto.wire.messages import Cancel, Commit, Hello, Open
from odsi_proto.wire.step import STEP_HEADER_BYTES_MAX, StepHeader
from odsi_proto.wire.tensor import ActivationLayout
from odsi_proto.wire.varint import VARINT_MAX, Cursor, encode_varint

FRAME_BYTES_MAX = Limits().control_frame_bytes_max


@given(odsi.varints())
def test_a_varint_reads_back_and_is_as_short_as_it_can_be(number: int) -> None:
    raw = encode_varint(number)
    assert Cursor(raw).varint() == number
    assert len(raw) == next(size for size in (1, 2, 4, 8) if number < 1 << (8 * size - 2))


@given(odsi.varints(), st.sampled_from([1, 2, 4, 8]))
def test_a_varint_of_any_length_is_read(number: int, size: int) -> None:
    number %= 1 << (8 * size - 2)
    prefix = {1: 0, 2: 1, 4: 2, 8: 3}[size] << (8 * size - 2)
    assert Cursor((prefix | number).to_bytes(size, "big")).varint() == number


@given(odsi.step_headers())
def test_a_step_header_reads_back(header: StepHeader) -> None:
    cursor = Cursor(header.encode() + b"rows")
    assert cursor.varint() == StreamType.STEP
    assert StepHeader.decode(cursor) == header
    assert bytes(cursor.rest()) == b"rows"
    assert len(header.encode()) <= STEP_HEADER_BYTES_MAX + 1


@given(odsi.frames())
def test_a_frame_reads_back(frame: Frame) -> None:
    cursor = Cursor(encode_frame(frame) + b"next")
    assert decode_frame(cursor, payload_bytes_max=FRAME_BYTES_MAX) == frame
    assert bytes(cursor.rest()) == b"next"


@given(odsi.unknown_frames(ignorable=True), odsi.unknown_frames(ignorable=False))
def test_unknown_frames_are_unknown(odd: UnknownFrame, even: UnknownFrame) -> None:
    assert is_ignorable(odd.type)
    assert not is_ignorable(even.type)
    assert not {odd.type, even.type} & set(FRAMES)
    assert max(odd.type, even.type) <= VARINT_MAX


@given(odsi.status_records())
def test_a_status_record_reads_back(record: StatusRecord) -> None:
    assert StatusRecord.read(Cursor(record.encode())) == record


@given(odsi.bodies())
def test_a_body_reads_back(body: Hello | Open | Commit | Cancel) -> None:
    assert type(body).decode(body.encode()) == body


@given(odsi.delegations())
def test_a_delegation_reads_back_verified(delegation: Delegation) -> None:
    assert Delegation.decode(delegation.encode()) == delegation


@given(odsi.signed_messages())
@share(50)
def test_a_signed_message_reads_back_verified(message: SignedMessage) -> None:
    assert SignedMessage.decode(message.domain, message.encode()) == message


@given(odsi.layouts(), st.integers(1, 512))
def test_rows_take_the_same_bytes_one_by_one_as_together(layout: ActivationLayout, count: int) -> None:
    assert layout.payload_bytes(count) == sum(layout.payload_bytes(1) for _ in range(count))


@given(odsi.limits())
def test_limits_are_valid(limits: Limits) -> None:
    assert limits.hello_bytes_max <= limits.control_frame_bytes_max
    assert limits.parked_us_max > 0


@given(st.data(), st.lists(odsi.participants(), min_size=1, max_size=4, unique=True))
def test_a_drawn_request_follows_the_order_of_layers(
    data: st.DataObject, participants: list[ParticipantId]
) -> None:
    stages = odsi.stage_plans_of(participants)
    spec = data.draw(odsi.request_specs(stages, model_root=bytes(32), width=4))
    ends = [stage.layers.end for stage in spec.stages]
    assert [stage.layers for stage in spec.stages] == [
        LayerRange(first, end) for first, end in zip([0, *ends], ends, strict=False)
    ]


@given(st.data(), st.binary(min_size=1, max_size=50))
def test_chunks_are_the_bytes_again(data: st.DataObject, raw: bytes) -> None:
    chunks = data.draw(odsi.chunkings(raw))
    assert b"".join(chunks) == raw
    assert all(chunks)


@given(odsi.frames())
def test_a_frame_that_is_not_all_here_is_incomplete(frame: Frame) -> None:
    raw = encode_frame(frame)
    for size in {0, 1, len(raw) // 2, len(raw) - 1} - {len(raw)}:
        try:
            decode_frame(Cursor(raw[:size]), payload_bytes_max=FRAME_BYTES_MAX)
        except Incomplete:
            continue
        raise AssertionError(f"{size} bytes of {len(raw)} were a frame")


def test_without_hypothesis_the_helpers_import_and_the_strategies_name_the_extra() -> None:
    program = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "import odsi_proto.testing\n"
        "try:\n"
        "    import odsi_proto.testing.strategies\n"
        "except ImportError as error:\n"
        "    assert 'odsi-proto[testing]' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('imported')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
