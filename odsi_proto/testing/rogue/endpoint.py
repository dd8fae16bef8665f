"""A rogue: an honest endpoint, and somebody at its mouth who deviates once.

The endpoint inside completes handshakes, signs and commits as it should, and never learns of the
deviation: frames and steps that it sends pass by here and are replaced, held back or added to. So a
rogue gets as deep into a conversation as an honest participant does before it breaks a rule.

It has the mutators of the endpoint that it wraps. A driver carries out its effects as it does those
of any other, and three more: :class:`StreamBytes`, :class:`StreamReset` and :class:`ControlEnd`.
"""

from collections.abc import Iterable, Sequence
from typing import overload

from odsi_proto.errors import ConfigError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.budget import Credit, ExecutorLoad
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import Close, Effect, Established, Run, SendControl, SendStep
from odsi_proto.statemachine.session import Binding, Choices, SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.rogue.ear import Ear
from odsi_proto.testing.rogue.values import (
    ControlEnd,
    Deviation,
    Memory,
    Moment,
    Part,
    RogueEffect,
    Scene,
    StreamBytes,
    StreamReset,
)
from odsi_proto.units import ConnectionId, Micros, Position, RequestId
from odsi_proto.wire.codepoints import ErrorCode, FrameType
from odsi_proto.wire.frames import Frame, decode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor

_SAYS: dict[int, Moment] = {
    FrameType.HELLO: Moment.SAYS_HELLO,
    FrameType.AUTH: Moment.SAYS_AUTH,
    FrameType.OPEN: Moment.SAYS_OPEN,
    FrameType.COMMIT: Moment.SAYS_COMMIT,
    FrameType.ATTACH: Moment.SAYS_ATTACH,
    FrameType.ATTACHED: Moment.SAYS_ATTACHED,
    FrameType.STATUS: Moment.SAYS_STATUS,
    FrameType.CANCEL: Moment.SAYS_CANCEL,
}
_HEARS: dict[int, Moment] = {
    FrameType.OPEN: Moment.HEARS_OPEN,
    FrameType.COMMIT: Moment.HEARS_COMMIT,
    FrameType.ATTACHED: Moment.HEARS_ATTACHED,
}


class Rogue:
    """An endpoint that deviates; what both roles share."""

    def __init__(
        self, deviation: Deviation, endpoint: ClientEndpoint | StageEndpoint, choices: Choices
    ) -> None:
        self.deviation = deviation
        self.endpoint = endpoint
        """The honest one inside."""
        self.acted: list[tuple[Micros, ConnectionId]] = []
        """When and where it deviated so far."""
        self._choices = choices
        self._memory = Memory()
        self._now = Micros(0)
        self._greeted: set[ConnectionId] = set()
        self._lost: set[ConnectionId] = set()
        self._ears: dict[tuple[ConnectionId, int], Ear] = {}
        self._spoken_to = ConnectionId(0)
        """Where the bytes came from that the endpoint inside acts on."""

    @property
    def limits(self) -> Limits:
        """Those of the endpoint inside."""
        return self.endpoint.limits

    @property
    def about(self) -> SelfDescription:
        """What it says of itself, where it does not lie."""
        return self.endpoint.about

    @property
    def is_draining(self) -> bool:
        """Whether it was told to leave."""
        return self.endpoint.is_draining

    @property
    def next_deadline(self) -> tuple[Micros, str] | None:
        """When :meth:`timer` must be called next, and the reason."""
        return self.endpoint.next_deadline

    def connection_made(
        self, connection: ConnectionId, binding: Binding, *, now: Micros
    ) -> tuple[RogueEffect, ...]:
        """TLS is done; say HELLO, or not."""
        return self._twist(self.endpoint.connection_made(connection, binding, now=now), now)

    def stream_data(
        self, connection: ConnectionId, stream: int, data: bytes, *, fin: bool, now: Micros
    ) -> tuple[RogueEffect, ...]:
        """Bytes of one of the peer's unidirectional streams, in order."""
        self._spoken_to = connection
        ear = self._ears.setdefault((connection, stream), Ear(self.limits.control_frame_bytes_max))
        heard = ear.hear(data)
        self._memory.heard.extend((connection, frame) for frame in heard)
        out = list(self._twist(self.endpoint.stream_data(connection, stream, data, fin=fin, now=now), now))
        for frame in heard:
            moment = _HEARS.get(frame.type)
            if moment is not None:
                out += self._play(moment, connection, (), frame=frame)
        return tuple(out)

    def stream_reset(self, connection: ConnectionId, stream: int, *, now: Micros) -> tuple[RogueEffect, ...]:
        """The peer gave up one of its streams."""
        return self._twist(self.endpoint.stream_reset(connection, stream, now=now), now)

    def connection_lost(
        self, connection: ConnectionId, reason: str, *, now: Micros
    ) -> tuple[RogueEffect, ...]:
        """The connection is gone, by whatever cause."""
        self._lost.add(connection)
        return self._twist(self.endpoint.connection_lost(connection, reason, now=now), now)

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        """The least round trip seen on a connection so far."""
        self.endpoint.rtt_measured(connection, rtt_min_us)

    def drain(self, reason: str, *, now: Micros) -> tuple[RogueEffect, ...]:
        """Take no new requests; tell every peer."""
        return self._twist(self.endpoint.drain(reason, now=now), now)

    def timer(self, *, now: Micros) -> tuple[RogueEffect, ...]:
        """Act on every timer that is due."""
        return self._twist(self.endpoint.timer(now=now), now)

    def _twist(self, effects: Iterable[Effect], now: Micros) -> tuple[RogueEffect, ...]:
        """What goes out in place of what the endpoint inside asked for."""
        self._now = now
        out: list[RogueEffect] = []
        for effect in effects:
            match effect:
                case SendControl():
                    out += self._twist_control(effect)
                case SendStep():
                    out += self._twist_step(effect)
                case Established():
                    out.append(effect)
                    out += self._play(Moment.ESTABLISHED, effect.connection, ())
                case Run():
                    out.append(effect)
                    out += self._play(Moment.TAKES_STEP, self._spoken_to, ())
                case _:
                    out.append(effect)
        return tuple(out)

    def _twist_control(self, effect: SendControl) -> list[RogueEffect]:
        connection = effect.connection
        out: list[RogueEffect] = []
        cursor = Cursor(effect.data)
        if connection not in self._greeted:
            self._greeted.add(connection)
            cursor.varint()
            out += self._pass([SendControl(connection=connection, data=effect.data[: cursor.at])])
        while cursor.left:
            began = cursor.at
            frame = decode_frame(cursor, payload_bytes_max=len(effect.data))
            original = (SendControl(connection=connection, data=effect.data[began : cursor.at]),)
            moment = _SAYS.get(frame.type, Moment.SAYS_OTHER)
            out += self._play(moment, connection, original, frame=frame)
            self._memory.said.append((connection, frame))
        return out

    def _twist_step(self, effect: SendStep) -> list[RogueEffect]:
        cursor = Cursor(effect.header)
        cursor.varint()
        header, payload = StepHeader.decode(cursor), bytes(effect.payload)
        out = self._play(Moment.SENDS_STEP, effect.connection, (effect,), header=header, payload=payload)
        self._memory.steps.append((effect.connection, header, payload))
        return out

    def _play(
        self,
        moment: Moment,
        connection: ConnectionId,
        original: tuple[Effect, ...],
        *,
        frame: Frame | None = None,
        header: StepHeader | None = None,
        payload: bytes = b"",
    ) -> list[RogueEffect]:
        """Let the deviation act, if this is its moment; otherwise what would have gone out goes out."""
        deviation = self.deviation
        if moment not in deviation.moments or (self.acted and not deviation.is_constant):
            return self._pass(original)
        scene = Scene(
            moment=moment,
            connection=connection,
            now=self._now,
            signer=self.about.signer,
            limits=self.limits,
            choices=self._choices,
            memory=self._memory,
            original=original,
            frame=frame,
            header=header,
            payload=payload,
        )
        muted_before = set(self._memory.muted)
        effects = deviation.act(scene)
        if effects is None:
            return self._pass(original)
        self.acted.append((self._now, connection))
        return self._pass(effects, muted=muted_before)

    def _pass(
        self, effects: Sequence[RogueEffect], *, muted: set[ConnectionId] | None = None
    ) -> list[RogueEffect]:
        """What may still be sent: nothing where the rogue keeps silent, nothing after the end."""
        out: list[RogueEffect] = []
        silent = self._lost | (self._memory.muted if muted is None else muted)
        for effect in effects:
            match effect:
                case SendControl() | SendStep() | StreamBytes() | StreamReset() | ControlEnd():
                    if effect.connection not in silent:
                        out.append(effect)
                case Close():
                    out.append(effect)
                    reason = "closed by the rogue itself"
                    out += self.connection_lost(effect.connection, reason, now=self._now)
                case _:
                    out.append(effect)
        return out


class RogueClient(Rogue):
    """A client that deviates."""

    endpoint: ClientEndpoint

    def step_positions_max(self, connection: ConnectionId, default: int) -> int:
        """How many positions of a step the peer takes, at most ``default``."""
        return self.endpoint.step_positions_max(connection, default)

    def new_request_id(self) -> RequestId:
        """A fresh id to :meth:`open` a request under."""
        return self.endpoint.new_request_id()

    def open(
        self,
        request: RequestId,
        spec: RequestSpec,
        *,
        first: ConnectionId,
        last: ConnectionId,
        now: Micros,
    ) -> tuple[RogueEffect, ...]:
        """Sign an OPEN, send it to the first stage, and attach to the last."""
        return self._twist(self.endpoint.open(request, spec, first=first, last=last, now=now), now)

    def send_step(
        self, request: RequestId, tokens: Sequence[int], payload: memoryview, *, now: Micros
    ) -> tuple[RogueEffect, ...]:
        """Send the rows of ``tokens``."""
        return self._twist(self.endpoint.send_step(request, tokens, payload, now=now), now)

    def credit(self, request: RequestId) -> Credit:
        """How many steps more, and payload bytes, the first stage takes of a request."""
        return self.endpoint.credit(request)

    def may_send(self, request: RequestId, payload_bytes: int) -> bool:
        """Whether a step of so many bytes may be sent now."""
        return self.endpoint.may_send(request, payload_bytes)

    def cancel(self, request: RequestId, code: ErrorCode, *, now: Micros) -> tuple[RogueEffect, ...]:
        """End a request."""
        return self._twist(self.endpoint.cancel(request, code, now=now), now)


class RogueStage(Rogue):
    """An execution node that deviates."""

    endpoint: StageEndpoint

    @property
    def requests_open(self) -> int:
        """Requests that hold state here."""
        return self.endpoint.requests_open

    def reserved(self, request: RequestId, *, now: Micros) -> tuple[RogueEffect, ...]:
        """The state asked for is set aside."""
        return self._twist(self.endpoint.reserved(request, now=now), now)

    def reserve_failed(self, request: RequestId, reason: str, *, now: Micros) -> tuple[RogueEffect, ...]:
        """The state asked for does not fit."""
        return self._twist(self.endpoint.reserve_failed(request, reason, now=now), now)

    def output(
        self,
        request: RequestId,
        position: Position,
        rows: memoryview,
        *,
        started_us: Micros,
        finished_us: Micros,
        now: Micros,
    ) -> tuple[RogueEffect, ...]:
        """The executor ran a step."""
        effects = self.endpoint.output(
            request, position, rows, started_us=started_us, finished_us=finished_us, now=now
        )
        return self._twist(effects, now)

    def failed(
        self, request: RequestId, position: Position, reason: str, *, now: Micros
    ) -> tuple[RogueEffect, ...]:
        """The executor could not run a step."""
        return self._twist(self.endpoint.failed(request, position, reason, now=now), now)

    def expired(self, request: RequestId, position: Position, *, now: Micros) -> tuple[RogueEffect, ...]:
        """The executor found nothing left of a step."""
        return self._twist(self.endpoint.expired(request, position, now=now), now)

    def executor_measured(self, load: ExecutorLoad) -> None:
        """What the executor takes now."""
        self.endpoint.executor_measured(load)


@overload
def make_rogue(deviation: Deviation, endpoint: ClientEndpoint, choices: Choices) -> RogueClient: ...
@overload
def make_rogue(deviation: Deviation, endpoint: StageEndpoint, choices: Choices) -> RogueStage: ...
def make_rogue(
    deviation: Deviation, endpoint: ClientEndpoint | StageEndpoint, choices: Choices
) -> RogueClient | RogueStage:
    """Wrap an endpoint that has no connection yet; raises ``ConfigError`` if its part is another's."""
    part = Part.CLIENT if isinstance(endpoint, ClientEndpoint) else Part.STAGE
    if part not in deviation.parts:
        parts = " or ".join(one.value for one in deviation.parts)
        raise ConfigError(f"{deviation.name} is a deviation of a {parts}, not of a {part.value}")
    if isinstance(endpoint, ClientEndpoint):
        return RogueClient(deviation, endpoint, choices)
    return RogueStage(deviation, endpoint, choices)
