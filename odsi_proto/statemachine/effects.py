"""What an endpoint asks of its driver. A mutator returns them; none is ever queued elsewhere."""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from odsi_proto.statemachine.table import Verdict
from odsi_proto.units import (
    ConnectionId,
    LayerRange,
    Micros,
    ParticipantId,
    Position,
    RequestId,
    Slack,
    StageIndex,
)
from odsi_proto.wire.frames import StatusRecord
from odsi_proto.wire.messages import Offer
from odsi_proto.wire.tensor import ActivationCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class SendControl:
    """Append ``data`` to this side's control stream."""

    connection: ConnectionId
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SendStep:
    """Open a unidirectional stream, send ``header`` and ``payload``, finish it."""

    connection: ConnectionId
    header: bytes
    payload: memoryview
    remaining_us: Micros
    """What the header says is left of the step's budget."""
    slack_us: Slack
    """Less the expected time of the rest of the path: what the send queue orders by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopStream:
    """Read no more of a stream that the peer opened."""

    connection: ConnectionId
    stream: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Close the connection after what was sent before."""

    connection: ConnectionId
    code: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Set aside KV state; answer with ``reserved`` or ``reserve_failed``."""

    request: RequestId
    positions_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run one step, after those of the same request asked for before; answer ``output``, ``failed`` or
    ``expired``."""

    request: RequestId
    position: Position
    count: int
    payload: memoryview
    codec_in: ActivationCodec
    codec_out: ActivationCodec
    rows_out_max: int
    """Only this many last rows of the output are wanted."""
    remaining_us: Micros
    """What is left of the step's budget now."""
    slack_us: Slack
    """Less the expected time of the rest of the path, this stage included: what the execution queue
    orders by. Negative where the rest is expected to take longer than what is left."""
    is_droppable: bool
    """The late action is FAIL or REROUTE: not to be started once nothing is left of ``remaining_us``;
    answer ``expired`` instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Give back the KV state of a request."""

    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """Both sides are who they say; what the peer said of itself."""

    connection: ConnectionId
    participant: ParticipantId
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathReady:
    """The client holds every COMMIT and the return is attached: steps may be sent."""

    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsArrived:
    """The last stage's output for one step."""

    request: RequestId
    position: Position
    """Of the step's first input."""
    end: Position
    """After its last."""
    payload: memoryview
    """Its last rows, as many as the request asked for at most."""
    transfer_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusArrived:
    """Where the time of steps went at the stages."""

    request: RequestId
    records: tuple[StatusRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed:
    """A client's request ended without its tokens."""

    request: RequestId
    stage: StageIndex | None
    """Who refused, was lost or stayed silent; None where nobody in particular did."""
    code: int
    reason: str
    position: Position | None = None
    """The first position of the step that was refused or is overdue; None where it was none."""
    queue_us: Micros = Micros(0)
    """With OVERLOADED, how long a step would have waited there."""
    is_reroutable: bool = False
    """The late action is REROUTE, and a path without ``stage`` may still do it in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Something worth a line in the log. ``fields`` are plain values."""

    event: str
    connection: ConnectionId | None = None
    fields: dict[str, int | str | bytes | LayerRange] = field(default_factory=dict)


class Transition(NamedTuple):
    """A step of a state machine: what checkers, coverage and traces read; drivers pass it over."""

    machine: str
    """The table's name."""
    subject: ConnectionId | RequestId | tuple[RequestId, Position]
    before: Enum
    received: Enum
    verdict: Verdict
    after: Enum


Effect: TypeAlias = (
    SendControl
    | SendStep
    | StopStream
    | Close
    | Reserve
    | Run
    | Release
    | Established
    | PathReady
    | RowsArrived
    | StatusArrived
    | RequestFailed
    | Trace
    | Transition
)
