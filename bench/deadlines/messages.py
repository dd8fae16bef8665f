"""What the streams carry: messages with a header, so that any transport may cut and mix them."""

import struct
from typing import NamedTuple

_HEADER = struct.Struct("!III")
HEADER_BYTES = _HEADER.size

ACTIVATION = 0
"""The flow number of activations; bulk transfers are numbered from 1."""

_zeros = bytes(1 << 20)


def message(flow: int, number: int, size_bytes: int) -> bytes:
    """A message of ``size_bytes``, its header included."""
    body_bytes = size_bytes - HEADER_BYTES
    body = _zeros[:body_bytes] if body_bytes <= len(_zeros) else bytes(body_bytes)
    return _HEADER.pack(flow, number, size_bytes) + body


class Part(NamedTuple):
    """Bytes of one message that a stream brought."""

    flow: int
    number: int
    size_bytes: int
    begin: int
    """Offset in its stream of the message's first byte."""
    end: int
    """And of the byte after its last."""
    is_complete: bool


class Reader:
    """Finds the messages in the bytes of one stream."""

    def __init__(self) -> None:
        self._head = b""
        self._offset = 0
        self._flow = self._number = self._begin = self._end = 0

    def feed(self, data: bytes) -> list[Part]:
        """What of which messages came; header bytes count too."""
        parts = []
        position = before_bytes = 0
        while position < len(data):
            if self._offset == self._end:
                taken = data[position : position + HEADER_BYTES - len(self._head)]
                self._head += taken
                if len(self._head) < HEADER_BYTES:
                    break
                self._flow, self._number, size_bytes = _HEADER.unpack(self._head)
                self._begin, self._end = self._offset, self._offset + size_bytes
                before_bytes = HEADER_BYTES - len(taken)  # of a header that came in pieces
                self._offset += before_bytes
                self._head = b""
            size_bytes = min(len(data) - position, self._end - self._offset)
            position += size_bytes
            self._offset += size_bytes
            is_complete = self._offset == self._end
            came_bytes, before_bytes = size_bytes + before_bytes, 0
            parts.append(Part(self._flow, self._number, came_bytes, self._begin, self._end, is_complete))
        return parts
