"""What a deviation is: who deviates, when, how, and what the one who meets it owes.

A deviation is data with one function, its ``act``. When the wrapped endpoint says or hears what the
deviation waits for, ``act`` is given the :class:`Scene` and answers what goes out instead (or, of
what was heard, besides). None means *not now*: everything goes on as it would, and the deviation
waits for the next such moment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import Close, Effect, SendControl, SendStep
from odsi_proto.statemachine.session import Choices
from odsi_proto.units import ConnectionId, Micros, Slack
from odsi_proto.wire.codepoints import ErrorCode, LateAction
from odsi_proto.wire.frames import Frame, encode_frame
from odsi_proto.wire.identity import Signer
from odsi_proto.wire.step import StepHeader


class Part(Enum):
    """Which participant is the rogue."""

    CLIENT = "client"
    STAGE = "stage"


class Seat(Enum):
    """Where on its path a rogue stage sits; what it can do to whom depends on it."""

    FIRST = "first"
    """Its predecessor is the client."""
    MIDDLE = "middle"
    """Both neighbours are stages."""
    LAST = "last"
    """Its outputs go to the client."""


class Moment(Enum):
    """When a deviation can act."""

    SAYS_HELLO = "its HELLO goes out"
    SAYS_AUTH = "its AUTH goes out"
    SAYS_OPEN = "an OPEN goes out"
    SAYS_COMMIT = "its own COMMIT, or one that it passes on, goes out"
    SAYS_ATTACH = "an ATTACH goes out"
    SAYS_ATTACHED = "an ATTACHED goes out"
    SAYS_STATUS = "a STATUS goes out"
    SAYS_CANCEL = "a CANCEL goes out"
    SAYS_OTHER = "any other frame goes out"
    SENDS_STEP = "a step goes out"
    HEARS_OPEN = "an OPEN was heard"
    HEARS_COMMIT = "a COMMIT was heard"
    HEARS_ATTACHED = "an ATTACHED was heard"
    TAKES_STEP = "a step was taken from the predecessor"
    ESTABLISHED = "a session is established"


SAYS = frozenset(moment for moment in Moment if moment.name.startswith("SAYS"))
"""Moments at which a frame goes out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBytes:
    """Append to a unidirectional stream of this side's, opened by its first bytes."""

    connection: ConnectionId
    name: int
    """Tells the streams of one connection apart that a rogue writes by hand; never on the wire."""
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """Give up a stream: what was sent of it may or may not be read."""

    connection: ConnectionId
    name: int
    code: int = ErrorCode.INTERNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEnd:
    """Finish this side's control stream, or reset it: no endpoint of ours ever does."""

    connection: ConnectionId
    is_reset: bool


RogueEffect: TypeAlias = Effect | StreamBytes | StreamReset | ControlEnd
"""What a rogue asks of its driver: three things more than an honest endpoint."""


class Where(Enum):
    """Whom a failed request names, as seen from the rogue stage."""

    ROGUE = 0
    NEXT = 1
    """The stage after it."""
    BEFORE = -1
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Closes:
    """The peer closes the connection with ``code``; its reason names ``spec``, if that is not empty."""

    code: ErrorCode
    spec: str = ""


@dataclass(frozen=True, slots=True)
class Refuses:
    """The peer refuses with ``code`` and the connection lives on."""

    code: ErrorCode
    request_lives: bool = False
    """Whether the request that the deviation belongs to is served to its end all the same."""


@dataclass(frozen=True, slots=True)
class Ignores:
    """Nothing comes of it: no close, no refusal."""

    own_request: bool = True
    """Whether the request that the deviation belongs to is served to its end."""


@dataclass(frozen=True, slots=True)
class Fails:
    """No rule of the connection is broken; the request ends at its client, which names a stage."""

    code: int
    where: Where
    closes: tuple[ErrorCode, ...] = ()
    """With what honest neighbours of the rogue close on it besides."""


Expectation: TypeAlias = Closes | Refuses | Ignores | Fails


@dataclass(slots=True, kw_only=True)
class Memory:
    """What a rogue remembers of its own conversation: the stuff that replays are made of."""

    said: list[tuple[ConnectionId, Frame]] = field(default_factory=list)
    steps: list[tuple[ConnectionId, StepHeader, bytes]] = field(default_factory=list)
    heard: list[tuple[ConnectionId, Frame]] = field(default_factory=list)
    muted: set[ConnectionId] = field(default_factory=set)
    """Connections on which nothing goes out any more, though they stay open."""
    streams: int = 0
    """Streams written by hand so far."""

    def said_of(self, kind: type[Frame], connection: ConnectionId | None = None) -> list[Frame]:
        """Frames of one class that went out, oldest first; of one connection, or of all."""
        return [f for c, f in self.said if isinstance(f, kind) and connection in {None, c}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that an ``act`` may look at, and the words to answer with."""

    moment: Moment
    connection: ConnectionId
    now: Micros
    signer: Signer
    limits: Limits
    """The rogue's own; a peer's may differ, and a bound is passed only where they agree."""
    choices: Choices
    memory: Memory
    original: tuple[Effect, ...]
    """What would have gone out; nothing at moments of hearing."""
    frame: Frame | None = None
    header: StepHeader | None = None
    payload: bytes = b""

    @property
    def step(self) -> StepHeader:
        """The header of the step that goes out; only at ``SENDS_STEP``."""
        assert self.header is not None
        return self.header

    def say(self, *frames: Frame, on: ConnectionId | None = None) -> list[RogueEffect]:
        """Frames on the control stream."""
        return self.raw(b"".join(map(encode_frame, frames)), on=on)

    def raw(self, data: bytes, *, on: ConnectionId | None = None) -> list[RogueEffect]:
        """Bytes on the control stream."""
        return [SendControl(connection=self.connection if on is None else on, data=data)]

    def send(
        self, header: StepHeader, payload: bytes, *, on: ConnectionId | None = None
    ) -> list[RogueEffect]:
        """A whole step."""
        connection = self.connection if on is None else on
        rows = memoryview(payload)
        us = header.remaining_us
        return [
            SendStep(
                connection=connection,
                header=header.encode(),
                payload=rows,
                remaining_us=us,
                slack_us=Slack(us),
            )
        ]

    def stream(self, data: bytes, *, fin: bool = True, reset: bool = False) -> list[RogueEffect]:
        """A unidirectional stream of one's own, left open, finished or reset after ``data``."""
        self.memory.streams += 1
        name = self.memory.streams
        out: list[RogueEffect] = [
            StreamBytes(connection=self.connection, name=name, data=data, fin=fin and not reset)
        ]
        if reset:
            out.append(StreamReset(connection=self.connection, name=name))
        return out

    def close(self, code: ErrorCode, reason: str) -> list[RogueEffect]:
        """The connection, closed by the rogue."""
        return [Close(connection=self.connection, code=code, reason=reason)]

    def mute(self) -> None:
        """Say nothing more on this connection."""
        self.memory.muted.add(self.connection)


Act: TypeAlias = Callable[[Scene], Sequence[RogueEffect] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One documented way to break the protocol, or to strain it."""

    name: str
    """Stable, in kebab case: scenarios and reports name it."""
    parts: tuple[Part, ...]
    """Who can do it."""
    moments: frozenset[Moment]
    does: str
    """One sentence."""
    expects: Expectation
    """What whoever meets it owes."""
    specs: tuple[str, ...]
    """The requirements that say so."""
    act: Act
    aims: frozenset[str] = frozenset()
    """Cells ``machine STATE INPUT`` of the honest side's tables that it drives into."""
    seats: tuple[Seat, ...] = (Seat.MIDDLE,)
    """Where a rogue stage can do it."""
    is_constant: bool = False
    """Whether it acts at every such moment, not at the first alone."""
    late_action: LateAction | None = None
    """What the request must say of late steps for the deviation to be seen; None: anything."""
