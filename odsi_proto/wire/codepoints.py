"""The numbers of version 1.

Stream, frame and extension types are odd where a receiver that does not know them ignores them,
and even where it must not go on without understanding them. Numbers of the form 62 N + 27 (all of
them odd) mean nothing and are sent at random, so that receivers which break on unknown numbers
are found early ("grease").
"""

from enum import IntEnum

ALPN = "odsi/1"
VERSION = 1


def is_ignorable(number: int) -> bool:
    """Whether a receiver that does not know the type may ignore it."""
    return number % 2 == 1


class StreamType(IntEnum):
    """The first varint of a unidirectional stream."""

    CONTROL = 0x00
    """Frames, HELLO first; one in each direction, open as long as the connection."""
    STEP = 0x02
    """One step: a header, then activation rows up to FIN."""


class FrameType(IntEnum):
    """The first varint of a frame on a control stream."""

    HELLO = 0x00
    AUTH = 0x02
    OPEN = 0x04
    COMMIT = 0x06
    ATTACH = 0x08
    ATTACHED = 0x0A
    REFUSE = 0x0C
    STATUS = 0x0E
    CANCEL = 0x10
    GOAWAY = 0x12
    ABANDON = 0x14


class ErrorCode(IntEnum):
    """Why a connection was closed, a stream reset or a request refused. An unknown code is generic."""

    NO_ERROR = 0x00
    INTERNAL = 0x01
    """A fault of the sender's own."""
    MALFORMED = 0x02
    """Bytes that no conforming peer sends."""
    ORDER_VIOLATION = 0x03
    """A message that this state does not allow."""
    VERSION_MISMATCH = 0x04
    IDENTITY_MISMATCH = 0x05
    """The peer is not who was dialled, or its keys do not belong together."""
    HANDSHAKE_TIMEOUT = 0x06
    UNSUPPORTED = 0x07
    """A critical type, codec, profile or hash suite that the sender does not know."""
    OVERLOADED = 0x08
    """A bound would be passed: requests, memory, queue."""
    NO_ROUTE = 0x09
    """The sender is not connected to the next stage."""
    MODEL_MISMATCH = 0x0A
    LAYERS_MISMATCH = 0x0B
    EXPIRED = 0x0C
    """The request or a delegation in it is past its end."""
    NOT_AUTHORISED = 0x0D
    """The signer may not ask for this."""
    MISSING_STEP = 0x0E
    """A step waited too long for the one before it."""
    STATE_MISMATCH = 0x0F
    """Equal position, different tag: not this request's history."""
    STALE = 0x10
    """An older lineage."""
    COMPUTE_FAILED = 0x11
    PEER_LOST = 0x12
    """The next stage went silent or closed its connection."""
    CANCELLED = 0x13
    GOING_AWAY = 0x14
    LIMIT_EXCEEDED = 0x15
    """More than the limits that the HELLO exchange or the OPEN fixed."""

    @classmethod
    def name_of(cls, number: int) -> str:
        """The code's name, or its number where this version does not know it."""
        try:
            return cls(number).name
        except ValueError:
            return f"error {number:#x}"


class Role(IntEnum):
    """What a participant does on a connection; any number of them at once."""

    CLIENT = 1
    EXECUTION_NODE = 2
    COORDINATION_NODE = 3


class HashSuite(IntEnum):
    """The hash function of digests and tags."""

    SHA256 = 1


class Setting(IntEnum):
    """What a HELLO says about its sender's limits; odd ignorable, even critical."""

    STEP_POSITIONS_MAX = 0x02
    STEP_PAYLOAD_BYTES_MAX = 0x04
    REQUESTS_MAX = 0x06


class DeadlineKind(IntEnum):
    """What a budget in an OPEN bounds."""

    FIRST_TOKEN = 1
    """From the first prompt chunk to the first result; shared by all chunks."""
    PER_TOKEN = 2
    """From one decode step to its result."""
    TOTAL = 3
    """From OPEN to the last result."""


class LateAction(IntEnum):
    """What a stage does with a step whose budget is used up."""

    CONTINUE = 1
    """Run it and mark it late: the next token needs it."""
    REROUTE = 2
    FAIL = 3
