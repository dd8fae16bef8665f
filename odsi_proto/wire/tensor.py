"""How activation rows lie in a step's payload: which codecs exist and how many bytes a row takes.

The arithmetic of a codec is in ``odsi_proto.kernels.codecs``; the sizes are here, because a
receiver must know a payload's length from handle, codec and count before it buffers a byte.
"""

from dataclasses import dataclass
from enum import IntEnum

F16_SCALE_BYTES = 2
"""A signed little-endian power of two before each f16 row: residual streams reach past 65,504."""


class ActivationCodec(IntEnum):
    """How one activation row is encoded. Negotiated per hop; an unknown one is refused."""

    F32 = 1
    """``width`` IEEE 754 binary32 values, little-endian."""

    F16 = 2
    """A signed 16-bit exponent e, then ``width`` binary16 values v, little-endian; the row is v * 2**e."""


class NumericProfile(IntEnum):
    """How a stage computes. Everything that a replay or an audit may compare hangs on it."""

    FLOAT32 = 1
    """IEEE 754 binary32 throughout; equal bits only on one host with one build, close elsewhere."""

    FAST = 2
    """Packed weights, rows rounded inside products; close to FLOAT32, compared by nobody bit by bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationLayout:
    """The shape of the activation rows on one hop of one request."""

    codec: ActivationCodec
    width: int
    """Values in a row: the model's embedding length."""

    @property
    def row_bytes(self) -> int:
        """Bytes that one row takes on the wire."""
        match self.codec:
            case ActivationCodec.F32:
                return 4 * self.width
            case ActivationCodec.F16:  # pragma: no branch - the enumeration has no third
                return F16_SCALE_BYTES + 2 * self.width

    def payload_bytes(self, count: int) -> int:
        """Bytes that ``count`` rows take on the wire."""
        return count * self.row_bytes
