"""QUIC variable-length integers (RFC 9000 section 16) and a cursor that reads them."""

import struct
from typing import TypeAlias

from odsi_proto.errors import Incomplete, Malformed

VARINT_MAX = (1 << 62) - 1

Buffer: TypeAlias = bytes | bytearray | memoryview

_ONE_BYTE = tuple(bytes([value]) for value in range(0x40))
_U16, _U32, _U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")


def encode_varint(value: int) -> bytes:
    """1, 2, 4 or 8 bytes; the shortest that holds ``value``."""
    if 0 <= value < 0x40:
        return _ONE_BYTE[value]
    if 0 <= value < 0x4000:
        return _U16.pack(value | 0x4000)
    if 0 <= value < 0x4000_0000:
        return _U32.pack(value | 0x8000_0000)
    if 0 <= value <= VARINT_MAX:
        return _U64.pack(value | 0xC000_0000_0000_0000)
    raise ValueError(f"{value} does not fit a varint")


def read_varint(buffer: Buffer, at: int) -> tuple[int, int]:
    """The integer at ``at`` and where it ends; ``Incomplete`` if it is not all there."""
    try:
        first: int = buffer[at]
        if first < 0x40:
            return first, at + 1
        if first < 0x80:
            return (first & 0x3F) << 8 | buffer[at + 1], at + 2
        if first < 0xC0:
            return _U32.unpack_from(buffer, at)[0] & 0x3FFF_FFFF, at + 4
        return _U64.unpack_from(buffer, at)[0] & VARINT_MAX, at + 8
    except (IndexError, struct.error):
        raise Incomplete("a varint") from None


class Cursor:
    """Reads from a buffer that may not be complete yet; never past its end."""

    __slots__ = ("at", "buffer")

    def __init__(self, buffer: Buffer, at: int = 0) -> None:
        self.buffer = buffer
        self.at = at
        """Where the next read begins."""

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.buffer) - self.at

    def varint(self) -> int:
        """The next integer; ``Incomplete`` if it is not all there."""
        value, self.at = read_varint(self.buffer, self.at)
        return value

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes, not copied; ``Incomplete`` if they are not all there."""
        if count > self.left:
            raise Incomplete(f"{count} bytes")
        taken = memoryview(self.buffer)[self.at : self.at + count]
        self.at += count
        return taken

    def rest(self) -> memoryview:
        """Everything that is left, not copied."""
        taken = memoryview(self.buffer)[self.at :]
        self.at = len(self.buffer)
        return taken

    def end(self, what: str) -> None:
        """There is nothing left; ``Malformed`` otherwise."""
        if self.left:
            raise Malformed(f"{self.left} bytes after the {what}")
