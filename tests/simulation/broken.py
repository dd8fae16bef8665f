"""Endpoints that break one rule each, for the checks that are to notice."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from odsi_proto.limits import Limits
from odsi_proto.statemachine.budget import Credit, ExecutorLoad
from odsi_proto.statemachine.claim import Claim
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    Established,
    PathReady,
    Release,
    RequestFailed,
    RowsArrived,
    Run,
    SendControl,
    SendStep,
)
from odsi_proto.statemachine.request import StageRequest
from odsi_proto.statemachine.session import Session
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.units import Handle, Micros, Position, RequestId, Slack
from odsi_proto.wire.codepoints import ErrorCode, FrameType
from odsi_proto.wire.frames import AbandonFrame, OpenFrame, RefuseFrame, decode_frame, encode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor

E = TypeVar("E", StageEndpoint, ClientEndpoint)

MUTATORS = (
    *("connection_made", "stream_data", "stream_reset", "connection_lost", "drain", "timer"),
    *("reserved", "reserve_failed", "output", "failed", "expired"),
    *("open", "send_step", "cancel"),
)
LONG_US = 10_000_000


def twisted(base: type[E], twist: Callable[[Any, Effect], Iterable[Effect]]) -> type[E]:
    """An endpoint that asks for what ``twist`` makes of each effect."""

    def passing(name: str) -> Callable[..., tuple[Effect, ...]]:
        def mutator(self: Any, *arguments: Any, **more: Any) -> tuple[Effect, ...]:
            effects = getattr(base, name)(self, *arguments, **more)
            return tuple(other for effect in effects for other in twist(self, effect))

        return mutator

    names = [name for name in MUTATORS if hasattr(base, name)]
    return type(f"Twisted{base.__name__}", (base,), {name: passing(name) for name in names})


def runs_twice(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    return (effect, effect) if isinstance(effect, Run) else (effect,)


def skips_a_position(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, Run):
        return (replace(effect, position=Position(effect.position + 1)),)
    return (effect,)


def changes_rows(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, SendStep):
        return (replace(effect, payload=memoryview(bytes(len(effect.payload)))),)
    return (effect,)


def fails_twice(_self: ClientEndpoint, effect: Effect) -> Iterable[Effect]:
    return (effect, effect) if isinstance(effect, RequestFailed) else (effect,)


def tells_its_caller_nothing(_self: ClientEndpoint, effect: Effect) -> Iterable[Effect]:
    return () if isinstance(effect, PathReady | RowsArrived | RequestFailed) else (effect,)


def runs_without_budget(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, Run):
        return (replace(effect, remaining_us=Micros(0), slack_us=Slack(0)),)
    return (effect,)


def gives_budget(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, SendStep):
        return (_with_remaining(effect, _header(effect).remaining_us + LONG_US),)
    return (effect,)


def takes_no_time_off(self: Any, effect: Effect) -> Iterable[Effect]:
    """What came goes on."""
    if isinstance(effect, Run):
        self.__dict__.setdefault("came", {})[effect.position] = effect.remaining_us
    if isinstance(effect, SendStep):
        return (_with_remaining(effect, self.came[_header(effect).position]),)
    return (effect,)


def may_be_dropped(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    return (replace(effect, is_droppable=True),) if isinstance(effect, Run) else (effect,)


def spares_more(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, Run):
        return (replace(effect, slack_us=Slack(effect.remaining_us + 1)),)
    return (effect,)


def blames_nobody(_self: ClientEndpoint, effect: Effect) -> Iterable[Effect]:
    return (replace(effect, stage=None),) if isinstance(effect, RequestFailed) else (effect,)


def refuses_somewhere(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    return _refusing(effect, position=Position(1_000))


def refuses_without_queue(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    return _refusing(effect, queue_us=Micros(0))


def keeps_state(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    return () if isinstance(effect, Release) else (effect,)


def gives_back_twice(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    return (effect, effect) if isinstance(effect, Release) else (effect,)


def chooses_one_handle(_self: ClientEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, SendControl) and effect.data[0] == FrameType.OPEN:
        frame = decode_frame(Cursor(effect.data), payload_bytes_max=len(effect.data))
        assert isinstance(frame, OpenFrame)
        return (replace(effect, data=encode_frame(replace(frame, handle=Handle(0)))),)
    return (effect,)


def refuses_twice(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    is_refusal = isinstance(effect, SendControl) and effect.data[0] == FrameType.REFUSE
    return (effect, effect) if is_refusal else (effect,)


def sends_what_it_abandons(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, SendStep):
        farewell = AbandonFrame(handle=_header(effect).handle, code=ErrorCode.CANCELLED, reason="")
        return (SendControl(connection=effect.connection, data=encode_frame(farewell)), effect)
    return (effect,)


def closes_twice(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, Established):
        close = Close(connection=effect.connection, code=ErrorCode.NO_ERROR, reason="")
        return (effect, close, close)
    return (effect,)


def closes_for_nothing(_self: StageEndpoint, effect: Effect) -> Iterable[Effect]:
    if isinstance(effect, Established):
        return (effect, Close(connection=effect.connection, code=ErrorCode.ORDER_VIOLATION, reason=""))
    return (effect,)


class Uncapped(StageEndpoint):
    """Takes what a step says to be left, and more."""

    def _remaining_on_arrival(self, session: Session, record: StageRequest, header: StepHeader) -> Micros:
        return Micros(header.remaining_us + LONG_US)


class Deaf(StageEndpoint):
    """Does not listen to what its executor takes."""

    def executor_measured(self, load: ExecutorLoad) -> None:
        pass


class Flooding(ClientEndpoint):
    """Sends as if it had all the credit in the world."""

    def _hold(self, claim: Claim) -> None:
        super()._hold(claim._replace(granted=Credit(1 << 30, 1 << 40)))


class Roomy(StageEndpoint):
    """Keeps to the limits of another configuration, which are ample."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "limits": Limits(clock_skew_s=1_000)})


class Failing(StageEndpoint):
    """Says of every step that it could not be run."""

    def output(self, request: RequestId, position: Position, *_rest: Any, now: Micros, **_more: Any) -> Any:
        return self.failed(request, position, "no reason", now=now)


class Remembering(StageEndpoint):
    """Waits for ever for what the executor has answered."""

    def _answered(self, request: RequestId) -> None:
        pass


class Patient(StageEndpoint):
    """Never gives up a request that is ready."""

    def _await_step(self, record: StageRequest, now: Micros) -> None:
        pass


class Raising(StageEndpoint):
    """Has a bug."""

    def output(self, *_arguments: Any, **_more: Any) -> Any:
        raise ZeroDivisionError("planted")


class Late(ClientEndpoint):
    """Looks at its timers long after they are due."""

    @property
    def next_deadline(self) -> tuple[Micros, str] | None:
        deadline = super().next_deadline
        return None if deadline is None else (Micros(deadline[0] + LONG_US), deadline[1])


class Idle(ClientEndpoint):
    """Does nothing about a timer, which therefore stays due."""

    def timer(self, *, now: Micros) -> tuple[Effect, ...]:
        return ()


def _refusing(effect: Effect, **changes: Any) -> Iterable[Effect]:
    if isinstance(effect, SendControl) and effect.data[0] == FrameType.REFUSE:
        frame = decode_frame(Cursor(effect.data), payload_bytes_max=len(effect.data))
        assert isinstance(frame, RefuseFrame)
        return (replace(effect, data=encode_frame(replace(frame, **changes))),)
    return (effect,)


def _header(effect: SendStep) -> StepHeader:
    return StepHeader.decode(Cursor(effect.header, 1))


def _with_remaining(effect: SendStep, remaining_us: int) -> SendStep:
    return replace(effect, header=replace(_header(effect), remaining_us=Micros(remaining_us)).encode())
