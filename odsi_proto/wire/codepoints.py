# Written by tools/generate_codepoints.py from specs/registries/*.toml; edit those.
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
    """The first frame in each direction: who the sender is and what it can do."""
    AUTH = 0x02
    """The second frame in each direction: the sender's signature over both HELLOs."""
    OPEN = 0x04
    """A signed request for a path, on its way down the path."""
    COMMIT = 0x06
    """A stage's signed promise, on its way up to the client."""
    ATTACH = 0x08
    """A client claims the results of its request on this connection."""
    ATTACHED = 0x0A
    """The last stage names the handle under which the results will come."""
    REFUSE = 0x0C
    """A request or a step of it will not be done: who, why, and where in the sequence."""
    STATUS = 0x0E
    """Where the time of steps went."""
    CANCEL = 0x10
    """A client's signed end of a request."""
    GOAWAY = 0x12
    """The sender takes no new requests."""
    ABANDON = 0x14
    """The sender will send no more steps of a request."""


class ErrorCode(IntEnum):
    """Why a connection was closed, a stream reset or a request refused. An unknown code is generic."""

    NO_ERROR = 0x00
    """Nothing is wrong: a close or an end that was wanted."""
    INTERNAL = 0x01
    """A fault of the sender's own."""
    MALFORMED = 0x02
    """Bytes that no conforming peer sends."""
    ORDER_VIOLATION = 0x03
    """A message that this state does not allow."""
    VERSION_MISMATCH = 0x04
    """No version in common."""
    IDENTITY_MISMATCH = 0x05
    """The peer is not who was dialled, or its keys do not belong together."""
    HANDSHAKE_TIMEOUT = 0x06
    """No verified AUTH in time."""
    UNSUPPORTED = 0x07
    """A critical type, codec, profile or hash suite that the sender does not know."""
    OVERLOADED = 0x08
    """A bound would be passed: requests, memory, queue."""
    NO_ROUTE = 0x09
    """The sender is not connected to the next stage."""
    MODEL_MISMATCH = 0x0A
    """The request is for another model."""
    LAYERS_MISMATCH = 0x0B
    """The request is for other layers."""
    EXPIRED = 0x0C
    """The request, a delegation in it or the budget of a step is past its end."""
    NOT_AUTHORISED = 0x0D
    """The signer may not ask for this."""
    MISSING_STEP = 0x0E
    """A step waited too long for the one before it."""
    STATE_MISMATCH = 0x0F
    """Equal position, different tag: not this request's history."""
    STALE = 0x10
    """An older lineage."""
    COMPUTE_FAILED = 0x11
    """The executor could not run a step."""
    PEER_LOST = 0x12
    """The next stage went silent or closed its connection."""
    CANCELLED = 0x13
    """The client ended the request before its last token."""
    GOING_AWAY = 0x14
    """The sender is leaving and takes no new requests."""
    LIMIT_EXCEEDED = 0x15
    """More than the limits that the HELLO exchange or the OPEN fixed."""
    BUDGET_IMPOSSIBLE = 0x16
    """A budget of the OPEN is less than the path, or the stage, takes at least."""

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
    """SHA-256 (FIPS 180-4)."""


class Setting(IntEnum):
    """What a HELLO says about its sender's limits; odd ignorable, even critical."""

    STEP_POSITIONS_MAX = 0x02
    """Positions in one step."""
    STEP_PAYLOAD_BYTES_MAX = 0x04
    """Payload bytes of one step."""
    REQUESTS_MAX = 0x06
    """Requests open at once at the sender."""


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
    """Refuse it before compute; the client goes on along another path."""
    FAIL = 3
    """Refuse it before compute."""
