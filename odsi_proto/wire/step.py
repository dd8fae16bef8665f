"""The step header: everything that a stage must know before it runs one step.

It leads a unidirectional stream of type STEP and is followed by activation rows up to FIN. Layers,
codec, row width and budgets come from the handle, so the payload's length is known here. A header
is typically 30 bytes, so that a decode step of a 576-wide model in f16 fits one 1,232-byte packet.
"""

import struct
from dataclasses import dataclass
from typing import cast

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.units import Handle, Micros, Position, Tag
from odsi_proto.wire.codepoints import StreamType
from odsi_proto.wire.tag import TAG_BYTES
from odsi_proto.wire.varint import Buffer, Cursor, encode_varint, read_varint

STEP_EXTENSION_BYTES_MAX = 64
"""Room for extensions in a header; none are defined in version 1."""

STEP_HEADER_BYTES_MAX = 8 * 8 + 2 * TAG_BYTES + STEP_EXTENSION_BYTES_MAX
"""Stream type not counted: eight varints at their longest, two tags, the extension."""

POSITIONS_MAX = 1 << 30
"""A position beyond this is no model's; it also keeps its varint within 4 bytes."""

DURATION_US_MAX = (1 << 60) - 1
"""36,000 years: nobody means it, and the sum of two such durations still fits a varint. All bits set,
so that one comparison checks several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHeader:
    """One step: ``count`` positions from ``position`` on, of one request, on one hop."""

    handle: Handle
    """The request, as the sender of this step named it on this connection."""
    lineage: int
    """Counts rollbacks and new generations; an older one is refused as STALE."""
    attempt: int
    """A delivery label, 0 the first time; never part of what a step is."""
    position: Position
    """The first position; the state before it holds exactly positions 0 to ``position`` - 1."""
    count: int
    """Positions in the step, at least 1."""
    remaining_us: Micros
    """What is left of the token's budget when this header was written."""
    owd_us: Micros
    """The sender's estimate of this hop's one-way delay, already taken out of ``remaining_us``."""
    tag_before: Tag
    """The coherence tag of the state that the step runs on."""
    tag_after: Tag
    """The coherence tag of the state that the step leaves."""
    extension: bytes = b""

    @property
    def end(self) -> Position:
        """The position after the last."""
        return Position(self.position + self.count)

    # Both directions run for every token at every stage. What is usual (numbers of one byte, a position
    # and a delay of two, a budget of four) is done in place; only the rest costs a call.

    def encode(self) -> bytes:
        """The header as it travels, stream type included."""
        extension = self.extension
        return b"".join(
            (
                _STREAM_TYPE,
                _ONE_BYTE[h] if 0 <= (h := self.handle) < 0x40 else encode_varint(h),
                _ONE_BYTE[n] if 0 <= (n := self.lineage) < 0x40 else encode_varint(n),
                _ONE_BYTE[n] if 0 <= (n := self.attempt) < 0x40 else encode_varint(n),
                _pack_u16(p | 0x4000) if 0x40 <= (p := self.position) < 0x4000 else encode_varint(p),
                _ONE_BYTE[n] if 0 <= (n := self.count) < 0x40 else encode_varint(n),
                _pack_u32(us | _U32_SIZE)
                if 0x4000 <= (us := self.remaining_us) < 0x4000_0000
                else encode_varint(us),
                _pack_u16(us | 0x4000) if 0x40 <= (us := self.owd_us) < 0x4000 else encode_varint(us),
                self.tag_before,
                self.tag_after,
                encode_varint(len(extension)) + extension if extension else b"\0",
            )
        )

    @classmethod
    def decode(cls, cursor: Cursor) -> "StepHeader":  # noqa: PLR0912  # unrolled, see above
        """Read a header (stream type already read); ``Incomplete`` or ``Malformed`` otherwise."""
        buffer, at = cursor.buffer, cursor.at
        draft = _Draft()
        try:
            if (number := buffer[at]) < 0x40:
                draft.handle, at = number, at + 1
            else:
                draft.handle, at = read_varint(buffer, at)
            if (number := buffer[at]) < 0x40:
                draft.lineage, at = number, at + 1
            else:
                draft.lineage, at = read_varint(buffer, at)
            if (number := buffer[at]) < 0x40:
                draft.attempt, at = number, at + 1
            else:
                draft.attempt, at = read_varint(buffer, at)
            if 0x40 <= (position := buffer[at]) < 0x80:
                position, at = (position & 0x3F) << 8 | buffer[at + 1], at + 2
            else:
                position, at = read_varint(buffer, at)
            if (count := buffer[at]) < 0x40:
                at += 1
            else:
                count, at = read_varint(buffer, at)
            if 0x80 <= buffer[at] < 0xC0:
                remaining_us, at = _unpack_u32(buffer, at)[0] & 0x3FFF_FFFF, at + 4
            else:
                remaining_us, at = read_varint(buffer, at)
            if 0x40 <= (owd_us := buffer[at]) < 0x80:
                owd_us, at = (owd_us & 0x3F) << 8 | buffer[at + 1], at + 2
            else:
                owd_us, at = read_varint(buffer, at)
            draft.tag_before, draft.tag_after, length = _unpack_tags_and_length(buffer, at)
        except (IndexError, struct.error):
            raise Incomplete("a step header") from None
        at += 2 * TAG_BYTES + 1
        draft.extension = b""
        if length:
            draft.extension, at = _extension(buffer, at - 1)
        draft.position, draft.count = position, count
        draft.remaining_us, draft.owd_us = remaining_us, owd_us
        if not count or position + count > POSITIONS_MAX or (remaining_us | owd_us) > DURATION_US_MAX:
            raise _wrong(draft)
        cursor.at = at
        draft.__class__ = StepHeader  # type: ignore[assignment]  # equal slots, see _Draft
        return cast(StepHeader, draft)


class _Draft:
    """A header that is not checked yet, and so not guarded.

    A frozen dataclass fills its slots through ``object.__setattr__``: more than half of the time
    that decoding took. A draft has the same slots, and becomes a header by a change of class.
    """

    __slots__ = StepHeader.__slots__

    handle: int
    lineage: int
    attempt: int
    position: int
    count: int
    remaining_us: int
    owd_us: int
    tag_before: bytes
    tag_after: bytes
    extension: bytes


_STREAM_TYPE = encode_varint(StreamType.STEP)
_ONE_BYTE = tuple(bytes([number]) for number in range(0x40))
_U32_SIZE = 0x8000_0000
"""The two highest bits of a varint of four bytes."""

_pack_u16, _pack_u32 = struct.Struct(">H").pack, struct.Struct(">I").pack
_unpack_u32 = struct.Struct(">I").unpack_from
_unpack_tags_and_length = struct.Struct(f"{TAG_BYTES}s{TAG_BYTES}sB").unpack_from


def _extension(buffer: Buffer, at: int) -> tuple[bytes, int]:
    """The extension whose length is at ``at``, and where it ends."""
    length, at = read_varint(buffer, at)
    if length > STEP_EXTENSION_BYTES_MAX:
        raise Malformed(f"a step extension of {length} bytes, at most {STEP_EXTENSION_BYTES_MAX}")
    end = at + length
    if end > len(buffer):
        raise Incomplete("a step extension")
    return bytes(buffer[at:end]), end


def _wrong(draft: _Draft) -> Malformed:
    """What is wrong with a header that can be read but not meant."""
    if not draft.count:
        return Malformed("a step of no positions")
    if draft.position + draft.count > POSITIONS_MAX:
        return Malformed(f"a step that ends past position {POSITIONS_MAX}")
    return Malformed(f"a step with a duration above {DURATION_US_MAX} us")
