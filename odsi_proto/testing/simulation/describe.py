"""One line of plain words for an effect or for bytes on a stream; for people, never for checks."""

from dataclasses import fields, is_dataclass
from enum import Enum

from odsi_proto.errors import OdsiError
from odsi_proto.statemachine.effects import (
    Close,
    Established,
    Release,
    RequestFailed,
    Reserve,
    RowsArrived,
    Run,
    SendControl,
    SendStep,
    StatusArrived,
    StopStream,
)
from odsi_proto.wire.codepoints import ErrorCode, StreamType
from odsi_proto.wire.frames import Frame, UnknownFrame, decode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor

FRAME_BYTES_MAX = 1 << 20
"""Of a frame that is only described."""
TEXT_CHARACTERS_MAX = 200
"""A line that people read."""


def describe(about: object) -> str:
    """One line, the same in every process."""
    match about:
        case str():
            text = about
        case SendControl():
            text = control_text(about.data)
        case SendStep():
            text = step_text(about.header)
        case Reserve() | Run() | Release():
            text = _execution_text(about)
        case RowsArrived():
            text = f"rows of {_short(about.request)} {about.position}-{about.end}"
        case StatusArrived():
            text = f"status of {_short(about.request)}: {len(about.records)} records"
        case RequestFailed():
            where = "" if about.stage is None else f" at stage {about.stage}"
            text = f"{_short(about.request)} failed{where}, {ErrorCode.name_of(about.code)}: {about.reason}"
        case StopStream() | Close() | Established():
            text = _connection_text(about)
        case _:
            text = _plain(about)
    return " ".join(text.split())[:TEXT_CHARACTERS_MAX]


def control_text(data: bytes) -> str:
    """The frames in bytes that one effect put on a control stream."""
    cursor = Cursor(data)
    if data[:1] == bytes([StreamType.CONTROL]) and len(data) > 1:
        # HELLO begins with the same byte as the stream does: only the first bytes have both.
        try:
            decode_frame(Cursor(data, 1), payload_bytes_max=FRAME_BYTES_MAX)
            cursor = Cursor(data, 1)
        except OdsiError:
            pass
    texts: list[str] = []
    try:
        while cursor.at < len(data):
            texts.append(frame_text(decode_frame(cursor, payload_bytes_max=FRAME_BYTES_MAX)))
    except OdsiError as error:
        texts.append(f"{len(data)} bytes, {error}")
    return "; ".join(texts)


def frame_text(frame: Frame) -> str:
    """A frame by its name and its numbers."""
    if isinstance(frame, UnknownFrame):
        return f"frame {frame.type:#x}"
    parts = [type(frame).__name__.removesuffix("Frame").upper()]
    for field in fields(frame):
        value = getattr(frame, field.name)
        match value:
            case bytes() if field.name == "request_id":
                parts.append(_short(value))
            case bytes():
                pass
            case tuple():
                parts.append(f"{len(value)} {field.name}")
            case int() if field.name == "code":
                parts.append(ErrorCode.name_of(value))
            case _:
                parts.append(f"{field.name} {value}")
    return " ".join(parts)


def step_text(header: bytes) -> str:
    """A step by its header."""
    try:
        step = StepHeader.decode(Cursor(header, 1))
    except OdsiError as error:
        return f"STEP of {len(header)} bytes, {error}"
    again = f" attempt {step.attempt}" if step.attempt else ""
    left = f"{step.remaining_us / 1000:g} ms left"
    return f"STEP handle {step.handle} {step.position}+{step.count}{again}, {left}"


def _execution_text(effect: Reserve | Run | Release) -> str:
    name = _short(effect.request)
    match effect:
        case Reserve():
            return f"reserve {effect.positions_max} positions for {name}"
        case Run():
            return f"run {name} {effect.position}+{effect.count}"
        case Release():
            return f"release {name}"


def _connection_text(effect: StopStream | Close | Established) -> str:
    match effect:
        case StopStream():
            return f"stop stream {effect.stream}, {ErrorCode.name_of(effect.code)}"
        case Close():
            code = ErrorCode.name_of(effect.code)
            return f"close connection {effect.connection}, {code}: {effect.reason}"
        case Established():
            return f"connection {effect.connection} established"


def _short(request: bytes) -> str:
    return request.hex()[:8]


def _plain(about: object) -> str:
    if is_dataclass(about) and not isinstance(about, type):
        values = (f"{field.name}={_value(getattr(about, field.name))}" for field in fields(about))
        return f"{type(about).__name__} {' '.join(values)}"
    if isinstance(about, tuple):
        return " ".join(_value(value) for value in about)
    return _value(about)


def _value(value: object) -> str:
    match value:
        case Enum():
            return value.name
        case bytes() | memoryview():
            return bytes(value).hex()[:8]
        case dict():
            return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
        case tuple():
            return "/".join(_value(inner) for inner in value)
        case _:
            return str(value)
