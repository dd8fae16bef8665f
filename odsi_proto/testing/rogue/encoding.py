"""Deviations of frames and streams in an established session: sizes, types, cuts, grease."""

from collections.abc import Sequence

from odsi_proto.testing.rogue.values import (
    SAYS,
    Act,
    Closes,
    ControlEnd,
    Deviation,
    Expectation,
    Ignores,
    Moment,
    Part,
    RogueEffect,
    Scene,
)
from odsi_proto.testing.rogue.words import (
    EVEN_FRAME,
    GREASE,
    ODD_FRAME,
    UNKNOWN_EVEN,
    frame_head,
    raw_frame,
    raw_then,
    stream_then,
    then,
)
from odsi_proto.units import Micros, Position, StageIndex
from odsi_proto.wire.codepoints import ErrorCode, FrameType, StreamType
from odsi_proto.wire.frames import (
    MESSAGE_BYTES_MAX,
    REASON_BYTES_MAX,
    STATUS_RECORDS_MAX,
    HelloFrame,
    StatusRecord,
    UnknownFrame,
)
from odsi_proto.wire.varint import encode_varint

_MALFORMED = Closes(ErrorCode.MALFORMED, "WIRE-004")
_CONTROL, _STEP = encode_varint(StreamType.CONTROL), encode_varint(StreamType.STEP)

EMPTY_RECORD = StatusRecord(
    stage=StageIndex(0),
    lineage=0,
    position=Position(0),
    count=1,
    remaining_us=Micros(0),
    transfer_us=Micros(0),
    queue_us=Micros(0),
    compute_us=Micros(0),
    coordination_us=Micros(0),
    output_bytes=0,
)


def _bytes(
    name: str,
    does: str,
    act: Act,
    expects: Expectation,
    spec: str,
    *aims: str,
    moment: Moment = Moment.ESTABLISHED,
) -> Deviation:
    return Deviation(
        name=name,
        parts=(Part.CLIENT, Part.STAGE),
        moments=frozenset({moment}),
        does=does,
        expects=expects,
        specs=(spec,),
        act=act,
        aims=frozenset(f"session {aim}" for aim in aims),
    )


def _frame_too_large(scene: Scene) -> Sequence[RogueEffect]:
    return scene.raw(frame_head(FrameType.GOAWAY, scene.limits.control_frame_bytes_max + 1))


def _too_many_streams(scene: Scene) -> Sequence[RogueEffect]:
    """The control stream counts too: one more than fits."""
    streams = (
        scene.stream(encode_varint(GREASE), fin=False) for _ in range(scene.limits.streams_per_connection_max)
    )
    return [effect for stream in streams for effect in stream]


def _grease(scene: Scene) -> Sequence[RogueEffect] | None:
    """Frames, streams and numbers that mean nothing, around everything but the greeting."""
    if isinstance(scene.frame, HelloFrame):
        return None
    body = scene.choices(1)
    frame = encode_varint(62 * body[0] + GREASE) + b"\x40\x01" + body
    return [
        *scene.raw(frame),
        *scene.original,
        *scene.say(UnknownFrame(type=GREASE, body=bytes(1_000))),
        *scene.stream(encode_varint(62 * body[0] + GREASE) + body),
        *scene.stream(b""),
        *scene.stream(b"\xc0"),
    ]


def _grease_streams(scene: Scene) -> Sequence[RogueEffect]:
    """Around each step: streams of unknown types that are reset, and one that ends inside its type."""
    return [
        *scene.stream(encode_varint(GREASE) + bytes(3), reset=True),
        *scene.original,
        *scene.stream(b"\x80\x00"),
        *scene.stream(_STEP, reset=True),
    ]


FRAMES = (
    _bytes(
        "even-frame",
        "Sends a frame of an unknown even type.",
        then(EVEN_FRAME),
        Closes(ErrorCode.UNSUPPORTED, "SESS-006"),
        "SESS-006",
        "ESTABLISHED UNKNOWN_CRITICAL",
    ),
    _bytes(
        "odd-frame",
        "Sends a frame of an unknown odd type.",
        then(ODD_FRAME),
        Ignores(),
        "SESS-006",
        "ESTABLISHED UNKNOWN_IGNORABLE",
    ),
    _bytes(
        "frame-too-large",
        "Announces a frame one byte above control_frame_bytes_max.",
        _frame_too_large,
        Closes(ErrorCode.MALFORMED, "WIRE-013"),
        "WIRE-013",
        "ESTABLISHED BREACH",
    ),
    _bytes(
        "frame-ends-inside-a-field",
        "Sends a GOAWAY without its reason.",
        raw_then(raw_frame(FrameType.GOAWAY, b"\x00")),
        _MALFORMED,
        "WIRE-004",
        "ESTABLISHED BREACH",
    ),
    _bytes(
        "frame-with-a-tail",
        "Sends a GOAWAY with a byte after its last field.",
        raw_then(raw_frame(FrameType.GOAWAY, b"\x00\x00\x00")),
        Closes(ErrorCode.MALFORMED),
        "WIRE-004",
        "ESTABLISHED BREACH",
    ),
    _bytes(
        "reason-too-long",
        "Gives a reason one byte above REASON_BYTES_MAX.",
        raw_then(
            raw_frame(
                FrameType.GOAWAY,
                b"\x00" + encode_varint(REASON_BYTES_MAX + 1) + b"x" * (REASON_BYTES_MAX + 1),
            )
        ),
        _MALFORMED,
        "WIRE-004",
        "ESTABLISHED BREACH",
    ),
    _bytes(
        "reason-not-utf-8",
        "Gives a reason that is no text.",
        raw_then(raw_frame(FrameType.GOAWAY, b"\x00\x01\xff")),
        _MALFORMED,
        "WIRE-004",
        "ESTABLISHED BREACH",
    ),
    _bytes(
        "status-of-too-many-records",
        "Sends a STATUS of one record above STATUS_RECORDS_MAX.",
        raw_then(raw_frame(FrameType.STATUS, b"\x00" + EMPTY_RECORD.encode() * (STATUS_RECORDS_MAX + 1))),
        _MALFORMED,
        "WIRE-004",
        "ESTABLISHED BREACH",
    ),
    _bytes(
        "message-too-large",
        "Sends a signed message one byte above MESSAGE_BYTES_MAX.",
        raw_then(raw_frame(FrameType.CANCEL, bytes(MESSAGE_BYTES_MAX + 1))),
        Closes(ErrorCode.MALFORMED, "WIRE-007"),
        "WIRE-007",
        "ESTABLISHED BREACH",
    ),
    _bytes(
        "stage-index-too-large",
        "Names stage 64.",
        raw_then(raw_frame(FrameType.COMMIT, b"\x00" + encode_varint(64))),
        _MALFORMED,
        "WIRE-004",
        "ESTABLISHED BREACH",
    ),
)

STREAMS = (
    _bytes(
        "second-control-stream",
        "Opens a second control stream.",
        stream_then(_CONTROL, fin=False),
        Closes(ErrorCode.ORDER_VIOLATION, "WIRE-010"),
        "WIRE-010",
    ),
    _bytes(
        "control-stream-finished",
        "Finishes its control stream and keeps the connection.",
        lambda scene: [ControlEnd(connection=scene.connection, is_reset=False)],
        Closes(ErrorCode.ORDER_VIOLATION, "WIRE-010"),
        "WIRE-010",
    ),
    _bytes(
        "control-stream-reset",
        "Resets its control stream and keeps the connection.",
        lambda scene: [ControlEnd(connection=scene.connection, is_reset=True)],
        Closes(ErrorCode.ORDER_VIOLATION, "WIRE-010"),
        "WIRE-010",
    ),
    _bytes(
        "even-stream",
        "Opens a stream of an unknown even type.",
        stream_then(encode_varint(UNKNOWN_EVEN)),
        Closes(ErrorCode.UNSUPPORTED, "WIRE-012"),
        "WIRE-012",
    ),
    _bytes(
        "odd-stream",
        "Opens a stream of an unknown odd type and goes on writing.",
        stream_then(encode_varint(GREASE) + bytes(1_000), fin=False),
        Ignores(),
        "WIRE-012",
    ),
    _bytes(
        "too-many-streams",
        "Leaves one stream more open than streams_per_connection_max.",
        _too_many_streams,
        Closes(ErrorCode.LIMIT_EXCEEDED, "WIRE-011"),
        "WIRE-011",
    ),
    _bytes(
        "step-stream-ends-in-its-header",
        "Finishes a step stream inside the header.",
        stream_then(_STEP + b"\x00\x00"),
        Closes(ErrorCode.MALFORMED, "WIRE-020"),
        "WIRE-020",
    ),
    Deviation(
        name="grease-everywhere",
        parts=(Part.CLIENT, Part.STAGE),
        moments=SAYS,
        does="Sends frames and streams that mean nothing, in varints longer than need be, around each frame.",
        expects=Ignores(),
        specs=("WIRE-002", "WIRE-005", "WIRE-012", "SESS-006"),
        act=_grease,
        is_constant=True,
    ),
    Deviation(
        name="grease-streams",
        parts=(Part.CLIENT, Part.STAGE),
        moments=frozenset({Moment.SENDS_STEP}),
        does="Sends streams around every step that mean nothing, are reset or end inside their type.",
        expects=Ignores(),
        specs=("WIRE-005", "WIRE-012", "WIRE-016"),
        act=_grease_streams,
        is_constant=True,
    ),
)

DEVIATIONS = FRAMES + STREAMS
