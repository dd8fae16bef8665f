"""The step header: everything that a stage must know before it runs one step.

It leads a unidirectional stream of type STEP and is followed by activation rows up to FIN. Layers,
codec, row width and budgets come from the handle, so the payload's length is known here. A header
is typically 30 bytes, so that a decode step of a 576-wide model in f16 fits one 1,232-byte packet.
"""

from dataclasses import dataclass

from odsi_proto.errors import Malformed
from odsi_proto.units import Handle, Micros, Position, Tag
from odsi_proto.wire.codepoints import StreamType
from odsi_proto.wire.tag import TAG_BYTES
from odsi_proto.wire.varint import Cursor, encode_varint

STEP_EXTENSION_BYTES_MAX = 64
"""Room for extensions in a header; none are defined in version 1."""

STEP_HEADER_BYTES_MAX = 8 * 8 + 2 * TAG_BYTES + STEP_EXTENSION_BYTES_MAX
"""Stream type not counted: eight varints at their longest, two tags, the extension."""

POSITIONS_MAX = 1 << 30
"""A position beyond this is no model's; it also keeps its varint within 4 bytes."""


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

    def encode(self) -> bytes:
        """The header as it travels, stream type included."""
        return b"".join(
            (
                encode_varint(StreamType.STEP),
                encode_varint(self.handle),
                encode_varint(self.lineage),
                encode_varint(self.attempt),
                encode_varint(self.position),
                encode_varint(self.count),
                encode_varint(self.remaining_us),
                encode_varint(self.owd_us),
                self.tag_before,
                self.tag_after,
                encode_varint(len(self.extension)),
                self.extension,
            )
        )

    @classmethod
    def decode(cls, cursor: Cursor) -> "StepHeader":
        """Read a header (stream type already read); ``Incomplete`` or ``Malformed`` otherwise."""
        header = cls(
            handle=Handle(cursor.varint()),
            lineage=cursor.varint(),
            attempt=cursor.varint(),
            position=Position(cursor.varint()),
            count=cursor.varint(),
            remaining_us=Micros(cursor.varint()),
            owd_us=Micros(cursor.varint()),
            tag_before=Tag(bytes(cursor.take(TAG_BYTES))),
            tag_after=Tag(bytes(cursor.take(TAG_BYTES))),
            extension=_extension(cursor),
        )
        if not header.count:
            raise Malformed("a step of no positions")
        if header.position + header.count > POSITIONS_MAX:
            raise Malformed(f"a step that ends past position {POSITIONS_MAX}")
        return header


def _extension(cursor: Cursor) -> bytes:
    length = cursor.varint()
    if length > STEP_EXTENSION_BYTES_MAX:
        raise Malformed(f"a step extension of {length} bytes, at most {STEP_EXTENSION_BYTES_MAX}")
    return bytes(cursor.take(length))
