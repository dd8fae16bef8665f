"""Overhears the frames of one of the peer's streams, beside the endpoint that reads it."""

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.wire.codepoints import StreamType
from odsi_proto.wire.frames import Frame, decode_frame
from odsi_proto.wire.varint import Cursor


class Ear:
    """Whole frames out of the bytes of one stream; deaf to streams that carry none."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._pending = b""
        self._is_control: bool | None = None
        """None until the stream's type is here."""

    def hear(self, data: bytes) -> list[Frame]:
        """What the new bytes complete; nothing more after bytes that can not be read."""
        if self._is_control is False:
            return []
        cursor = Cursor(self._pending + data)
        frames: list[Frame] = []
        at = 0
        try:
            if self._is_control is None:
                self._is_control = cursor.varint() == StreamType.CONTROL
                at = cursor.at
            while self._is_control and cursor.left:
                frames.append(decode_frame(cursor, payload_bytes_max=self._frame_bytes_max))
                at = cursor.at
        except Incomplete:
            pass
        except Malformed:
            self._is_control = False
        self._pending = bytes(cursor.buffer[at:]) if self._is_control is not False else b""
        return frames
