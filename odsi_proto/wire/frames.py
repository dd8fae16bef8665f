"""Frames of the control stream: type, length, payload.

Adding a frame is one class and one line in :data:`FRAMES`. A frame of an unknown type is kept as
:class:`UnknownFrame`: whether it may be ignored is the state machine's business.
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import ClassVar, Protocol, TypeAlias

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex
from odsi_proto.wire.codepoints import FrameType
from odsi_proto.wire.identity import SIGNATURE_BYTES
from odsi_proto.wire.messages import LIST_ITEMS_MAX, REQUEST_ID_BYTES
from odsi_proto.wire.varint import Cursor, encode_varint

MESSAGE_BYTES_MAX = 65_500
"""A signed message in a frame: with the longest handle and stage before it, the frame still fits
``control_frame_bytes_max``, so whoever forwards one never sends what the next may not take."""

REASON_BYTES_MAX = 512
RETURN_TOKEN_BYTES = 16
STATUS_RECORDS_MAX = 256
LEAF_BYTES_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloFrame:
    """The first frame in each direction."""

    type: ClassVar[FrameType] = FrameType.HELLO
    body: bytes
    """An encoded :class:`~odsi_proto.wire.messages.Hello`; kept as sent because AUTH hashes it."""

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return self.body

    @classmethod
    def read(cls, cursor: Cursor) -> "HelloFrame":
        """From the bytes after type and length."""
        return cls(body=bytes(cursor.rest()))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFrame:
    """The second frame in each direction: the sender's signature over both HELLOs."""

    type: ClassVar[FrameType] = FrameType.AUTH
    signature: bytes

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return self.signature

    @classmethod
    def read(cls, cursor: Cursor) -> "AuthFrame":
        """From the bytes after type and length."""
        return cls(signature=bytes(cursor.take(SIGNATURE_BYTES)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFrame:
    """A signed OPEN on its way down the path."""

    type: ClassVar[FrameType] = FrameType.OPEN
    handle: Handle
    """The name under which the sender will send steps of this request."""
    stage: StageIndex
    """Which stage of the path the receiver is."""
    message: bytes
    """An encoded :class:`~odsi_proto.wire.identity.SignedMessage`, forwarded as received."""

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return encode_varint(self.handle) + encode_varint(self.stage) + self.message

    @classmethod
    def read(cls, cursor: Cursor) -> "OpenFrame":
        """From the bytes after type and length."""
        return cls(handle=Handle(cursor.varint()), stage=_stage(cursor), message=_message(cursor))


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFrame:
    """A stage's signed COMMIT on its way up to the client."""

    type: ClassVar[FrameType] = FrameType.COMMIT
    handle: Handle
    """The handle of the OPEN on this connection."""
    stage: StageIndex
    """Who made it."""
    message: bytes

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return encode_varint(self.handle) + encode_varint(self.stage) + self.message

    @classmethod
    def read(cls, cursor: Cursor) -> "CommitFrame":
        """From the bytes after type and length."""
        return cls(handle=Handle(cursor.varint()), stage=_stage(cursor), message=_message(cursor))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachFrame:
    """A client claims the results of its request on this connection."""

    type: ClassVar[FrameType] = FrameType.ATTACH
    request_id: RequestId
    return_token: bytes

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return self.request_id + self.return_token

    @classmethod
    def read(cls, cursor: Cursor) -> "AttachFrame":
        """From the bytes after type and length."""
        return cls(
            request_id=RequestId(bytes(cursor.take(REQUEST_ID_BYTES))),
            return_token=bytes(cursor.take(RETURN_TOKEN_BYTES)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedFrame:
    """The last stage names the handle under which the results will come."""

    type: ClassVar[FrameType] = FrameType.ATTACHED
    request_id: RequestId
    handle: Handle

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return self.request_id + encode_varint(self.handle)

    @classmethod
    def read(cls, cursor: Cursor) -> "AttachedFrame":
        """From the bytes after type and length."""
        return cls(request_id=RequestId(bytes(cursor.take(REQUEST_ID_BYTES))), handle=Handle(cursor.varint()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseFrame:
    """A request or a step of it will not be done: says who, why, and where in the sequence."""

    type: ClassVar[FrameType] = FrameType.REFUSE
    handle: Handle
    stage: StageIndex
    """Which stage of the path refuses, or was found to be gone."""
    code: int
    lineage: int
    position: Position
    """The position that is missing or was refused; 0 before the first step."""
    queue_us: Micros = Micros(0)
    """With OVERLOADED, until a step taken now would start; 0 with other codes, or where nobody knows."""
    reason: str

    def payload(self) -> bytes:
        """The bytes after type and length."""
        numbers = (self.handle, self.stage, self.code, self.lineage, self.position, self.queue_us)
        return b"".join(map(encode_varint, numbers)) + encode_reason(self.reason)

    @classmethod
    def read(cls, cursor: Cursor) -> "RefuseFrame":
        """From the bytes after type and length."""
        return cls(
            handle=Handle(cursor.varint()),
            stage=_stage(cursor),
            code=cursor.varint(),
            lineage=cursor.varint(),
            position=Position(cursor.varint()),
            queue_us=Micros(cursor.varint()),
            reason=_reason(cursor),
        )


class StatusFlag(IntFlag):
    """What a record says of a step beside its times; a receiver passes over those it does not know."""

    LATE = 1
    """Nothing was left of the budget when the output was handed over."""
    BELOW_PLAN = 2
    """It arrived with less left than ``remaining_min_us`` of the OPEN."""
    ABOVE_PLAN = 4
    """It arrived with more left than ``remaining_max_us``."""
    OVER_BUDGET = 8
    """The stage had it for longer than its own ``budget_us``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord:
    """Where the time of one step at one stage went."""

    stage: StageIndex
    lineage: int
    position: Position
    count: int
    remaining_us: Micros
    """What was left of the budget on arrival."""
    transfer_us: Micros
    """The sender's one-way estimate, and from the first to the last byte of the input."""
    queue_us: Micros
    """From the last byte of the input to the start of compute."""
    compute_us: Micros
    coordination_us: Micros
    """Parked for an earlier step, and from the end of compute to the output's hand-over."""
    output_bytes: int
    """Header and payload of the step that carried the output on."""
    flags: int = 0
    """Of :class:`StatusFlag`."""
    leaf: bytes = b""
    """Digest of the step's accountability leaf; empty from a stage that makes none."""
    extension: bytes = b""

    def encode(self) -> bytes:
        """The record as it travels."""
        numbers = (
            self.stage,
            self.lineage,
            self.position,
            self.count,
            self.remaining_us,
            self.transfer_us,
            self.queue_us,
            self.compute_us,
            self.coordination_us,
            self.output_bytes,
            self.flags,
        )
        tail = encode_varint(len(self.leaf)) + self.leaf + encode_varint(len(self.extension)) + self.extension
        return b"".join(map(encode_varint, numbers)) + tail

    @classmethod
    def read(cls, cursor: Cursor) -> "StatusRecord":
        """The next record."""
        return cls(
            stage=_stage(cursor),
            lineage=cursor.varint(),
            position=Position(cursor.varint()),
            count=cursor.varint(),
            remaining_us=Micros(cursor.varint()),
            transfer_us=Micros(cursor.varint()),
            queue_us=Micros(cursor.varint()),
            compute_us=Micros(cursor.varint()),
            coordination_us=Micros(cursor.varint()),
            output_bytes=cursor.varint(),
            flags=cursor.varint(),
            leaf=_bounded(cursor, LEAF_BYTES_MAX),
            extension=_bounded(cursor, LEAF_BYTES_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFrame:
    """What the stage takes, and records of steps that were forwarded, its own and those of later stages."""

    type: ClassVar[FrameType] = FrameType.STATUS
    handle: Handle
    credit_steps: int = 0
    """Steps of the request that may have been sent in all, from the first on, as things stand now."""
    credit_bytes: int = 0
    """Payload bytes of those steps."""
    records: tuple[StatusRecord, ...]

    def payload(self) -> bytes:
        """The bytes after type and length."""
        head = map(encode_varint, (self.handle, self.credit_steps, self.credit_bytes))
        return b"".join((*head, *(record.encode() for record in self.records)))

    @classmethod
    def read(cls, cursor: Cursor) -> "StatusFrame":
        """From the bytes after type and length."""
        handle, credit_steps, credit_bytes = Handle(cursor.varint()), cursor.varint(), cursor.varint()
        records: list[StatusRecord] = []
        while cursor.left:
            if len(records) == STATUS_RECORDS_MAX:
                raise Malformed(f"more than {STATUS_RECORDS_MAX} records in a STATUS", spec="WIRE-004")
            records.append(StatusRecord.read(cursor))
        return cls(
            handle=handle, credit_steps=credit_steps, credit_bytes=credit_bytes, records=tuple(records)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelFrame:
    """A signed CANCEL: the client sends it to every stage it reaches, each passes it down the path."""

    type: ClassVar[FrameType] = FrameType.CANCEL
    message: bytes

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return self.message

    @classmethod
    def read(cls, cursor: Cursor) -> "CancelFrame":
        """From the bytes after type and length."""
        return cls(message=_message(cursor))


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonFrame:
    """The sender will send no more steps of a request; unlike CANCEL it needs no client's word."""

    type: ClassVar[FrameType] = FrameType.ABANDON
    handle: Handle
    code: int
    reason: str

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return encode_varint(self.handle) + encode_varint(self.code) + encode_reason(self.reason)

    @classmethod
    def read(cls, cursor: Cursor) -> "AbandonFrame":
        """From the bytes after type and length."""
        return cls(handle=Handle(cursor.varint()), code=cursor.varint(), reason=_reason(cursor))


@dataclass(frozen=True, slots=True, kw_only=True)
class GoawayFrame:
    """The sender takes no new requests and closes when the open ones have ended."""

    type: ClassVar[FrameType] = FrameType.GOAWAY
    code: int
    reason: str

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return encode_varint(self.code) + encode_reason(self.reason)

    @classmethod
    def read(cls, cursor: Cursor) -> "GoawayFrame":
        """From the bytes after type and length."""
        return cls(code=cursor.varint(), reason=_reason(cursor))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownFrame:
    """A frame of a type that this version does not define."""

    type: int
    body: bytes

    def payload(self) -> bytes:
        """The bytes after type and length."""
        return self.body


KnownFrame: TypeAlias = (
    HelloFrame
    | AuthFrame
    | OpenFrame
    | CommitFrame
    | AttachFrame
    | AttachedFrame
    | RefuseFrame
    | StatusFrame
    | CancelFrame
    | GoawayFrame
    | AbandonFrame
)
Frame: TypeAlias = KnownFrame | UnknownFrame


class _FrameClass(Protocol):
    type: ClassVar[FrameType]

    @classmethod
    def read(cls, cursor: Cursor) -> KnownFrame: ...


_CLASSES: tuple[type[_FrameClass], ...] = (
    HelloFrame,
    AuthFrame,
    OpenFrame,
    CommitFrame,
    AttachFrame,
    AttachedFrame,
    RefuseFrame,
    StatusFrame,
    CancelFrame,
    GoawayFrame,
    AbandonFrame,
)
FRAMES: dict[int, type[_FrameClass]] = {frame_class.type: frame_class for frame_class in _CLASSES}
"""From frame type to the class that reads it."""


def encode_frame(frame: Frame) -> bytes:
    """Type, length, payload."""
    payload = frame.payload()
    return encode_varint(frame.type) + encode_varint(len(payload)) + payload


def decode_frame(cursor: Cursor, *, payload_bytes_max: int) -> Frame:
    """The next frame; ``Incomplete`` if it is not all there, ``Malformed`` if it never can be."""
    frame_type, length = cursor.varint(), cursor.varint()
    if length > payload_bytes_max:
        raise Malformed(
            f"a frame of type {frame_type:#x} with {length} bytes, at most {payload_bytes_max}",
            spec="WIRE-013",
        )
    payload = Cursor(cursor.take(length))
    frame_class = FRAMES.get(frame_type)
    if frame_class is None:
        return UnknownFrame(type=frame_type, body=bytes(payload.rest()))
    name = FrameType(frame_type).name
    try:
        frame = frame_class.read(payload)
    except Incomplete as error:
        raise Malformed(f"a {name} frame ends inside a field", spec="WIRE-004") from error
    payload.end(f"{name} frame")
    return frame


def encode_reason(reason: str) -> bytes:
    """Length and UTF-8, cut to :data:`REASON_BYTES_MAX` at a character."""
    raw = reason.encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    return encode_varint(len(raw)) + raw


def _reason(cursor: Cursor) -> str:
    try:
        return _bounded(cursor, REASON_BYTES_MAX).decode()
    except UnicodeDecodeError as error:
        raise Malformed("a reason that is not UTF-8", spec="WIRE-004") from error


def _message(cursor: Cursor) -> bytes:
    if cursor.left > MESSAGE_BYTES_MAX:
        raise Malformed(
            f"a signed message of {cursor.left} bytes, at most {MESSAGE_BYTES_MAX}", spec="WIRE-007"
        )
    return bytes(cursor.rest())


def _bounded(cursor: Cursor, max_bytes: int) -> bytes:
    length = cursor.varint()
    if length > max_bytes:
        raise Malformed(f"a field of {length} bytes, at most {max_bytes}", spec="WIRE-004")
    return bytes(cursor.take(length))


def _stage(cursor: Cursor) -> StageIndex:
    stage = cursor.varint()
    if stage >= LIST_ITEMS_MAX:
        raise Malformed(f"stage {stage} of at most {LIST_ITEMS_MAX}", spec="WIRE-004")
    return StageIndex(stage)
