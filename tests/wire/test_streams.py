"""Bytes of streams through the core: payloads are passed on, not copied, and lengths are bounded."""

import pytest
from wire.test_step import HEADER

from odsi_proto.errors import Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.streams import ArrivedStep, IncomingStreams, UnwantedStream
from odsi_proto.units import Micros
from odsi_proto.wire.frames import Frame, GoawayFrame, UnknownFrame, encode_frame
from odsi_proto.wire.step import STEP_HEADER_BYTES_MAX, StepHeader

PAYLOAD = bytes(range(256)) * 5
HEAD = HEADER.encode()


class Streams:
    """The streams of one connection, and what has come out of them."""

    def __init__(self, limits: Limits) -> None:
        self.value = IncomingStreams(limits)

    def receive(
        self, stream: int, data: bytes, *, fin: bool, payload_bytes: int | None
    ) -> list[Frame | ArrivedStep | UnwantedStream]:
        found: list[Frame | ArrivedStep | UnwantedStream] = []

        def admit(header: StepHeader) -> int | None:
            assert header == HEADER
            return payload_bytes

        before = hash(self.value)
        old = self.value
        self.value, arrival = old.receive(
            stream, data, fin=fin, on_frame=found.append, admit=admit, now=Micros(7)
        )
        assert hash(old) == before
        return found if arrival is None else [*found, arrival]

    def reset(self, stream: int) -> None:
        self.value = self.value.reset(stream)


def receive(
    streams: Streams,
    data: bytes,
    *,
    stream: int = 2,
    fin: bool = False,
    payload_bytes: int | None = len(PAYLOAD),
) -> list[Frame | ArrivedStep | UnwantedStream]:
    return streams.receive(stream, data, fin=fin, payload_bytes=payload_bytes)


def arrived_in(pieces: list[bytes]) -> ArrivedStep:
    streams = Streams(Limits())
    *before, last = pieces
    for piece in before:
        assert receive(streams, piece) == []
    (step,) = receive(streams, last, fin=True)
    assert isinstance(step, ArrivedStep)
    return step


def test_a_step_in_one_piece_is_handed_on_as_a_view_of_it() -> None:
    piece = HEAD + PAYLOAD
    step = arrived_in([piece])
    assert step.payload.obj is piece
    assert step.payload == PAYLOAD


def test_a_payload_in_one_piece_behind_its_header_is_never_copied() -> None:
    piece = bytes(bytearray(PAYLOAD))
    assert arrived_in([HEAD, piece]).payload.obj is piece


def test_a_payload_in_pieces_is_put_together_in_one_buffer_of_its_size() -> None:
    step = arrived_in([HEAD + PAYLOAD[:10], PAYLOAD[10:500], PAYLOAD[500:]])
    assert isinstance(step.payload.obj, bytes)
    assert len(step.payload.obj) == len(PAYLOAD)
    assert step.payload == PAYLOAD


def test_a_drip_of_single_bytes_is_held_in_few_pieces() -> None:
    """Every byte used to be copied into one buffer; a list of single bytes would take a hundredfold."""
    streams = Streams(Limits())
    receive(streams, HEAD)
    for at in range(len(PAYLOAD) - 1):
        receive(streams, PAYLOAD[at : at + 1])
        body = streams.value.pending[2]
        assert len(body.pieces) <= 11  # type: ignore[union-attr]  # log2(1280) + 1
    (step,) = receive(streams, PAYLOAD[-1:], fin=True)
    assert step.payload == PAYLOAD  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [1, 2, 7, 31])
def test_a_step_may_come_in_any_pieces(size: int) -> None:
    raw = HEAD + PAYLOAD
    step = arrived_in([raw[at : at + size] for at in range(0, len(raw), size)])
    assert (step.header, step.payload) == (HEADER, PAYLOAD)


@pytest.mark.spec("WIRE-021")
def test_one_byte_too_many_is_malformed_before_fin() -> None:
    with pytest.raises(Malformed, match="longer than"):
        receive(Streams(Limits()), HEAD + PAYLOAD + b"x")


@pytest.mark.spec("WIRE-021")
def test_one_byte_too_few_is_malformed_at_fin() -> None:
    with pytest.raises(Malformed, match="expected"):
        receive(Streams(Limits()), HEAD + PAYLOAD[:-1], fin=True)


@pytest.mark.spec("WIRE-020")
@pytest.mark.parametrize("size", [1, 2, len(HEAD) - 1])
def test_a_stream_that_ends_inside_its_header_is_malformed(size: int) -> None:
    with pytest.raises(Malformed, match="header"):
        receive(Streams(Limits()), HEAD[:size], fin=True)


@pytest.mark.spec("WIRE-041")
def test_a_header_is_never_buffered_beyond_its_bound() -> None:
    longest = b"\x02" + (b"\xc0" + bytes(7)) * 7 + bytes(16) + b"\xc0" + bytes(6)
    streams = Streams(Limits())
    assert len(longest) < STEP_HEADER_BYTES_MAX
    assert receive(streams, longest) == []


@pytest.mark.spec("WIRE-013")
def test_a_stream_that_ends_before_its_type_is_complete_is_ignored() -> None:
    streams = Streams(Limits())
    assert receive(streams, b"\x40") == []
    assert receive(streams, b"", fin=True) == []
    assert receive(streams, b"", stream=6, fin=True) == []


@pytest.mark.spec("WIRE-012")
def test_a_stream_of_an_unknown_odd_type_is_read_no_further() -> None:
    streams = Streams(Limits())
    assert receive(streams, b"\x1b") == [UnwantedStream(stream=2)]
    assert receive(streams, b"more", fin=True) == []


@pytest.mark.spec("WIRE-012")
def test_a_stream_of_an_unknown_even_type_is_a_breach() -> None:
    with pytest.raises(RemoteProtocolError, match="0x1a"):
        receive(Streams(Limits()), b"\x1a")


@pytest.mark.spec("WIRE-010")
def test_a_second_control_stream_is_a_breach() -> None:
    streams = Streams(Limits())
    receive(streams, b"\x00")
    with pytest.raises(RemoteProtocolError, match="second control"):
        receive(streams, b"\x00", stream=6)


@pytest.mark.spec("WIRE-010")
@pytest.mark.parametrize("end", ["fin", "reset"])
def test_the_end_of_the_control_stream_is_a_breach(end: str) -> None:
    streams = Streams(Limits())
    receive(streams, b"\x00")
    with pytest.raises(RemoteProtocolError, match="control stream"):
        streams.reset(2) if end == "reset" else receive(streams, b"", fin=True)


def test_frames_come_out_one_by_one_however_they_came_in() -> None:
    sent = [
        GoawayFrame(code=0, reason="bye"),
        UnknownFrame(type=27, body=b"g"),
        GoawayFrame(code=1, reason=""),
    ]
    raw = b"\x00" + b"".join(map(encode_frame, sent))
    streams = Streams(Limits())
    found = [frame for at in range(len(raw)) for frame in receive(streams, raw[at : at + 1])]
    assert found == sent


@pytest.mark.spec("WIRE-005")
def test_the_first_frame_gets_less_room_than_later_ones() -> None:
    limits = Limits(hello_bytes_max=8)
    small, large = UnknownFrame(type=27, body=bytes(8)), UnknownFrame(type=27, body=bytes(9))
    found = receive(Streams(limits), b"\x00" + encode_frame(small) + encode_frame(large))
    assert found == [small, large]
    with pytest.raises(Malformed, match="at most 8"):
        receive(Streams(limits), b"\x00" + encode_frame(large))


@pytest.mark.spec("WIRE-011")
def test_streams_are_taken_up_to_the_limit_and_not_one_more() -> None:
    streams = Streams(Limits(streams_per_connection_max=2))
    receive(streams, b"\x02")
    receive(streams, b"\x1b", stream=6)
    with pytest.raises(RemoteProtocolError, match="too many"):
        receive(streams, b"\x02", stream=10)


@pytest.mark.spec("WIRE-022")
def test_a_step_that_is_not_admitted_is_read_no_further() -> None:
    streams = Streams(Limits())
    assert receive(streams, HEAD + b"abc", payload_bytes=None) == [UnwantedStream(stream=2)]
    assert receive(streams, b"def", fin=True) == []


@pytest.mark.spec("WIRE-016")
def test_a_step_that_is_reset_is_forgotten() -> None:
    streams = Streams(Limits(streams_per_connection_max=1))
    receive(streams, HEAD + b"abc")
    streams.reset(2)
    (step,) = receive(streams, HEAD + PAYLOAD, fin=True)
    assert isinstance(step, ArrivedStep)


@pytest.mark.spec("WIRE-023")
@pytest.mark.parametrize(("streams_count", "is_refused"), [(2, False), (3, True)])
def test_what_unfinished_steps_announce_is_bounded(streams_count: int, is_refused: bool) -> None:
    streams = Streams(Limits(incoming_bytes_max=2 * len(PAYLOAD)))

    def announce() -> None:
        for index in range(streams_count):
            receive(streams, HEAD, stream=2 + 4 * index)

    if is_refused:
        with pytest.raises(RemoteProtocolError, match="announce"):
            announce()
    else:
        announce()


@pytest.mark.spec("WIRE-023")
def test_finished_and_reset_steps_no_longer_count() -> None:
    streams = Streams(Limits(incoming_bytes_max=len(PAYLOAD)))
    for index in range(4):
        receive(streams, HEAD + PAYLOAD, stream=2 + 8 * index, fin=True)
        receive(streams, HEAD, stream=6 + 8 * index)
        streams.reset(6 + 8 * index)
