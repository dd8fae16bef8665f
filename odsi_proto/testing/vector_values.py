"""Values of the protocol as JSON that any language reads, and back."""

from dataclasses import fields, is_dataclass
from typing import Any

from odsi_proto.units import LayerRange
from odsi_proto.wire.codepoints import FrameType
from odsi_proto.wire.frames import FRAMES, UnknownFrame

SAFE_INTEGER_MAX = 2**53 - 1
"""What every JSON reader keeps exactly; larger integers are text."""

FRAME_NAMES: dict[type, str] = {
    UnknownFrame: "unknown",
    **{frame_class: FrameType(number).name for number, frame_class in FRAMES.items()},
}


def plain(value: object) -> Any:
    """Bytes as hexadecimal digits, records as objects, frames with their name, tuples as arrays."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value) if value <= SAFE_INTEGER_MAX else str(int(value))
        case bytes() | memoryview():
            return value.hex()
        case tuple() | list():
            return [plain(item) for item in value]
        case LayerRange():
            return {"first": value.first, "end": value.end}
    assert is_dataclass(value), f"{type(value).__name__} has no JSON form"
    record = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    frame = FRAME_NAMES.get(type(value))
    return record if frame is None else {"frame": frame, **record}
