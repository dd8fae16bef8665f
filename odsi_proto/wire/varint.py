"""QUIC variable-length integers (RFC 9000 section 16) and a cursor that reads them."""

from odsi_proto.errors import Incomplete, Malformed

VARINT_MAX = (1 << 62) - 1


def encode_varint(value: int) -> bytes:
    """1, 2, 4 or 8 bytes; the shortest that holds ``value``."""
    if value < 0x40:
        return value.to_bytes(1, "big")
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


class Cursor:
    """Reads from a buffer that may not be complete yet; never past its end."""

    __slots__ = ("at", "buffer")

    def __init__(self, buffer: bytes | bytearray | memoryview, at: int = 0) -> None:
        self.buffer = memoryview(buffer)
        self.at = at
        """Where the next read begins."""

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.buffer) - self.at

    def varint(self) -> int:
        """The next integer; ``Incomplete`` if it is not all there."""
        if not self.left:
            raise Incomplete("a varint")
        size = 1 << (self.buffer[self.at] >> 6)
        raw = self.take(size)
        return int.from_bytes(raw, "big") & ((1 << (8 * size - 2)) - 1)

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes, not copied; ``Incomplete`` if they are not all there."""
        if count > self.left:
            raise Incomplete(f"{count} bytes")
        taken = self.buffer[self.at : self.at + count]
        self.at += count
        return taken

    def rest(self) -> memoryview:
        """Everything that is left."""
        return self.take(self.left)

    def end(self, what: str) -> None:
        """There is nothing left; ``Malformed`` otherwise."""
        if self.left:
            raise Malformed(f"{self.left} bytes after the {what}")
