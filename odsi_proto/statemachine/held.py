"""The requests that an execution node holds: their places, their reports, their refusals, their end.

What ``steps`` and ``stage`` both build on: it decides nothing about a step or an OPEN.
"""

from odsi_proto.limits import Limits
from odsi_proto.statemachine.budget import Credit, ExecutorLoad
from odsi_proto.statemachine.effects import Effect, Release, SendControl, Trace
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.frozen import FrozenMap
from odsi_proto.statemachine.request import StageRequest, Step
from odsi_proto.statemachine.session import Choices, SelfDescription, Session
from odsi_proto.statemachine.table import Cell
from odsi_proto.statemachine.tables import REQUEST, STEP, RequestInput, RequestState, StepInput, StepState
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import (
    STATUS_RECORDS_MAX,
    AbandonFrame,
    Frame,
    RefuseFrame,
    StatusFrame,
    StatusRecord,
    encode_frame,
)

_HELD = frozenset({StepState.PARKED, StepState.RUNNING})
"""Where a step takes room."""


class StageRequests(Endpoint):
    """The requests of an execution node.

    A method that changes a request takes one and returns the new one; it is in its place again
    when :meth:`_hold` has put it there, which the caller that began the change does last.
    """

    def __init__(
        self, *, about: SelfDescription, limits: Limits, choices: Choices, unix_s_at_zero: int
    ) -> None:
        super().__init__(about=about, limits=limits, choices=choices, unix_s_at_zero=unix_s_at_zero)
        self._requests: FrozenMap[RequestId, StageRequest] = FrozenMap()
        self._unanswered: FrozenMap[RequestId, int] = FrozenMap()
        """Ended requests, and how many answers the executor still owes for each: until they are in,
        the id can not be opened again, so that no answer is taken for another request's."""
        self._load: ExecutorLoad | None = None
        """What the executor takes; None while nobody has measured, and then ``limits`` alone bound it."""

    def _answered(self, request: RequestId) -> None:
        """The executor has answered for a request that has ended."""
        owed = self._unanswered.get(request, 0) - 1
        self._unanswered = self._unanswered.put(request, owed) if owed > 0 else self._unanswered.drop(request)

    def _report(self, record: StageRequest, status: StatusRecord, now: Micros) -> StageRequest:
        if len(record.records) >= STATUS_RECORDS_MAX:
            return record
        if not record.records:
            self._timers = self._timers.set("status", record.id, now + self.limits.status_delay_us)
        return record._replace(records=(*record.records, status))

    def _flush_status(self, record: StageRequest, out: list[Effect]) -> StageRequest:
        if record.records:
            steps, payload_bytes = self._credit(record)
            frame = StatusFrame(
                handle=record.upstream_handle,
                credit_steps=steps,
                credit_bytes=payload_bytes,
                records=record.records,
            )
            self._send_upstream(record, frame, out)
        self._timers = self._timers.cancel("status", record.id)
        return record._replace(records=())

    def _credit(self, record: StageRequest) -> Credit:
        """How far the request's steps may go, for this stage and for those after it. Spec: TIME-040.

        What the executor takes is shared out among the requests that are open; the parts of those that
        do not use theirs are told to nobody, so that a burst of all of them mostly fits.
        """
        held = [step.payload_bytes for step in record.steps.values() if step.state in _HELD]
        steps = self.limits.queued_steps_max - len(held)
        payload_bytes = self.limits.queued_bytes_max - sum(held)
        if self._load is not None:
            sharing = max(1, len(self._requests))
            steps = min(steps, -(-self._load.credit_steps // sharing))
            payload_bytes = min(payload_bytes, -(-self._load.credit_bytes // sharing))
        steps, payload_bytes = max(0, steps), max(0, payload_bytes)
        own = Credit(record.taken.steps + steps, record.taken.payload_bytes + payload_bytes)
        if record.is_last:
            return own
        rows = record.onward_credit.payload_bytes // record.layout_out.row_bytes
        return Credit(
            min(own.steps, record.onward_credit.steps),
            min(own.payload_bytes, rows * record.layout_in.row_bytes),
        )

    def _refuse(
        self,
        record: StageRequest,
        code: int,
        reason: str,
        out: list[Effect],
        *,
        position: Position | None = None,
        stage: StageIndex | None = None,
        queue_us: Micros = Micros(0),
        release: bool = True,
    ) -> None:
        """Tell the predecessor why, and end the request here."""
        record = self._flush_status(record, out)
        session = self._sessions.get(record.upstream)
        if session is not None:
            where = record.position if position is None else position
            self._send_refusal(session, record, code, reason, where, out, stage=stage, queue_us=queue_us)
        self._end(record, code, reason, out, release=release)

    def _send_refusal(
        self,
        session: Session,
        record: StageRequest,
        code: int,
        reason: str,
        position: Position,
        out: list[Effect],
        *,
        stage: StageIndex | None = None,
        queue_us: Micros = Micros(0),
    ) -> None:
        refusal = RefuseFrame(
            handle=record.upstream_handle,
            stage=record.stage if stage is None else stage,
            code=code,
            lineage=record.open.lineage,
            position=position,
            queue_us=queue_us,
            reason=reason,
        )
        self._send(session, refusal, out)
        fields: dict[str, int | str | bytes] = {
            "code": ErrorCode.name_of(code),
            "reason": reason,
            "request": record.id,
        }
        out.append(Trace(event="refused", connection=session.connection, fields={**fields}))

    def _end(
        self,
        record: StageRequest,
        code: int,
        reason: str,
        out: list[Effect],
        *,
        tell_onward: bool = True,
        release: bool = True,
    ) -> None:
        """Forget a request: its state, its timers, its handles; and tell whoever awaits its steps."""
        assert record.state is RequestState.ENDED, "only the table ends a request"
        self._flush_status(record, out)
        owed = sum(step.is_with_executor for step in record.steps.values()) + record.is_reserving
        if owed:
            self._unanswered = self._unanswered.put(record.id, owed)
        for step in record.steps.values():
            if step.state is not StepState.DONE:
                self._advance_step(record, step, StepInput.ENDED, out)
        for why in ("status", "path", "idle", "parked"):
            self._timers = self._timers.cancel(why, record.id)
        upstream = self._sessions.get(record.upstream)
        if upstream is not None:
            self._keep(upstream.buried(record.upstream_handle))
        onward = self._onward_session(record)
        if onward is not None and record.onward_handle is not None:
            self._keep(onward.returned(record.onward_handle))
            if tell_onward:
                self._send(onward, AbandonFrame(handle=record.onward_handle, code=code, reason=reason), out)
        self._requests = self._requests.drop(record.id)
        if release:
            out.append(Release(request=record.id))

    def _hold(self, record: StageRequest) -> None:
        self._requests = self._requests.put(record.id, record)

    def _advance(
        self, record: StageRequest, received: RequestInput, out: list[Effect]
    ) -> tuple[StageRequest, Cell[RequestState]]:
        cell = self._step(REQUEST, record.id, record.state, received, out)
        return (record if cell.to is record.state else record._replace(state=cell.to)), cell

    def _advance_step(
        self, record: StageRequest, step: Step, received: StepInput, out: list[Effect]
    ) -> tuple[Step, Cell[StepState]]:
        cell = self._step(STEP, (record.id, step.header.position), step.state, received, out)
        return (step if cell.to is step.state else step._replace(state=cell.to)), cell

    def _by_upstream(self, session: Session, handle: Handle) -> StageRequest | None:
        """The request that the peer's handle names; None if it has ended."""
        request = session.request_of(handle)
        return None if request is None else self._requests.get(request)

    def _by_onward(self, session: Session, handle: Handle) -> StageRequest | None:
        """The request that our own handle names; None if it has ended."""
        request = session.requests_out.get(handle)
        return None if request is None else self._requests.get(request)

    def _onward_session(self, record: StageRequest) -> Session | None:
        return None if record.onward is None else self._sessions.get(record.onward)

    def _send_upstream(self, record: StageRequest, frame: Frame, out: list[Effect]) -> None:
        if record.upstream in self._sessions:
            out.append(SendControl(connection=record.upstream, data=encode_frame(frame)))
