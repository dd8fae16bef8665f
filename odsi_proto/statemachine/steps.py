"""A stage's steps: taken in order, handed to the executor, answered, retained, reported, refused.

The half of the execution node that runs for every token; opening and ending requests is in
``stage``. What kind of arrival a step is says ``request``, what becomes of it says ``tables``.
"""

from odsi_proto.errors import LocalProtocolError, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.budget import ExecutorLoad, StageTime, slack_us
from odsi_proto.statemachine.effects import Effect, Release, Run, SendControl, SendStep, Trace
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.frozen import FrozenMap
from odsi_proto.statemachine.request import StageRequest, Step, input_digest
from odsi_proto.statemachine.session import Choices, SelfDescription, Session
from odsi_proto.statemachine.streams import ArrivedStep
from odsi_proto.statemachine.table import Cell, Verdict
from odsi_proto.statemachine.tables import (
    REQUEST,
    STEP,
    RequestInput,
    RequestState,
    StepInput,
    StepState,
)
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
from odsi_proto.wire.step import DURATION_US_MAX, StepHeader

_REFUSED_ON_ARRIVAL = frozenset(
    {
        StepInput.STALE,
        StepInput.MISMATCH,
        StepInput.EQUIVOCAL,
        StepInput.BEYOND,
        StepInput.OVERLAP,
        StepInput.EARLY_FULL,
        StepInput.QUEUE_FULL,
        StepInput.LONG_AGO,
    }
)
"""Kinds that a header alone decides: their payload is never buffered."""


class StageSteps(Endpoint):
    """The requests of an execution node and everything that happens to their steps.

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

    def output(
        self,
        request: RequestId,
        position: Position,
        rows: memoryview,
        *,
        started_us: Micros,
        finished_us: Micros,
        now: Micros,
    ) -> tuple[Effect, ...]:
        """The executor ran a step: send its rows on, record where the time went."""
        out: list[Effect] = []
        if not rows.readonly:
            raise LocalProtocolError("rows that may still change can not be retained")
        record = self._requests.get(request)
        if record is None:
            self._answered(request)
            return ()
        step = self._step_with_executor(record, position)
        record, _ = self._advance(record, RequestInput.OUTPUT, out)
        step = self._advance_step(record, step, StepInput.OUTPUT, out)[0]._replace(output=rows)
        record = record.with_step(step)
        sent = self._send_output(record, step, 0, now, out)
        header = step.header
        record = self._report(
            record,
            StatusRecord(
                stage=record.stage,
                lineage=header.lineage,
                position=position,
                count=header.count,
                remaining_us=step.remaining_us,
                transfer_us=Micros(header.owd_us + step.arrived_us - step.first_byte_us),
                queue_us=Micros(started_us - step.ready_us),
                compute_us=Micros(finished_us - started_us),
                coordination_us=Micros(step.ready_us - step.arrived_us + now - finished_us),
                output_bytes=0 if sent is None else len(sent.header) + len(sent.payload),
            ),
            now,
        )
        if sent is not None and not sent.remaining_us:
            fields = {"position": int(position), "budget_us": int(step.remaining_us)}
            out.append(Trace(event="step_late", fields={"request": request, **fields}))
        retained = record.in_state(StepState.SENT)
        for oldest in retained[: max(0, len(retained) - self.limits.retained_outputs_max)]:
            self._advance_step(record, oldest, StepInput.ACKNOWLEDGED, out)
            record = record.without_step(oldest)
        self._hold(record)
        return tuple(out)

    def failed(
        self, request: RequestId, position: Position, reason: str, *, now: Micros
    ) -> tuple[Effect, ...]:
        """The executor could not run a step."""
        out: list[Effect] = []
        record = self._requests.get(request)
        if record is None:
            self._answered(request)
        else:
            step = self._step_with_executor(record, position)
            record, _ = self._advance(record, RequestInput.OUTPUT, out)
            _, cell = self._advance_step(record, step, StepInput.FAILED, out)
            record, _ = self._advance(record.without_step(step), RequestInput.STEP_REFUSED, out)
            self._refuse(record, cell.code, reason, out, position=position)
        return tuple(out)

    def expired(self, request: RequestId, position: Position, *, now: Micros) -> tuple[Effect, ...]:
        """The executor found nothing left of a droppable step when it would have started it."""
        out: list[Effect] = []
        record = self._requests.get(request)
        if record is None:
            self._answered(request)
            return ()
        step = self._step_with_executor(record, position)
        if not record.is_droppable or step.left_us(now):
            raise LocalProtocolError("only a droppable step of which nothing is left expires")
        record, _ = self._advance(record, RequestInput.OUTPUT, out)
        _, cell = self._advance_step(record, step, StepInput.EXPIRED, out)
        record, _ = self._advance(record.without_step(step), RequestInput.STEP_REFUSED, out)
        waited_us = now - step.ready_us
        what = f"nothing was left of its {step.remaining_us} us after {waited_us} us in the queue"
        reason = f"step at position {position}: expired; {what}"
        self._refuse(record, cell.code, reason, out, position=position)
        return tuple(out)

    def executor_measured(self, load: ExecutorLoad) -> None:
        """What the executor takes now; holds until the next measurement, less the steps handed over since."""
        self._load = load

    def _rest_of_path(self, record: StageRequest) -> tuple[StageTime, ...]:
        """What this stage, the later ones and the hops between are expected to take of a step."""
        way_us = 0 if (onward := self._onward_session(record)) is None else onward.owd_us
        plans = record.open.stages[record.stage :]
        return (
            *(StageTime(transfer_us=Micros(0), stage_us=plan.budget_us) for plan in plans),
            StageTime(transfer_us=Micros(way_us), stage_us=Micros(0)),
        )

    def _admit(self, session: Session, header: StepHeader, now: Micros, out: list[Effect]) -> int | None:
        record = self._by_upstream(session, header.handle)
        if record is None:
            return None
        if header.count > self.limits.step_positions_max:
            raise RemoteProtocolError(
                ErrorCode.LIMIT_EXCEEDED, f"a step of {header.count} positions", spec="STEP-016"
            )
        payload_bytes = record.layout_in.payload_bytes(header.count)
        if payload_bytes > self.limits.step_payload_bytes_max:
            raise RemoteProtocolError(
                ErrorCode.LIMIT_EXCEEDED, f"a step of {payload_bytes} bytes", spec="STEP-016"
            )
        record, cell = self._advance(record, RequestInput.STEP, out)
        if cell.verdict is Verdict.REFUSED:
            self._refuse(
                record, cell.code, "a step came before the path was ready", out, position=header.position
            )
            return None
        if self._unix_s(now) > record.open.expiry_s + self.limits.clock_skew_s:
            record, _ = self._advance(record, RequestInput.STEP_REFUSED, out)
            what = "the request is past its end"
            self._refuse(record, ErrorCode.EXPIRED, what, out, position=header.position)
            return None
        kind = record.classify(header, None, header.remaining_us, self.limits)
        if session.streams.incoming_bytes + payload_bytes > self.limits.incoming_bytes_max:
            if kind is StepInput.DUPLICATE:
                return None
            kind = kind if kind in _REFUSED_ON_ARRIVAL else StepInput.QUEUE_FULL
        if kind in _REFUSED_ON_ARRIVAL:
            self._refuse_step(session, record, header, kind, out)
            return None
        self._await_step(record, now)
        return payload_bytes

    def _on_step(self, session: Session, step: ArrivedStep, now: Micros, out: list[Effect]) -> None:
        header = step.header
        record = self._by_upstream(session, header.handle)
        if record is None:
            return
        digest = input_digest(step.payload)
        remaining_us = self._remaining_on_arrival(session, record, header)
        kind = record.classify(header, digest, remaining_us, self.limits)
        match kind:
            case StepInput.NEXT | StepInput.EARLY:
                arrived = Step(
                    header=header,
                    input_digest=digest,
                    payload=step.payload,
                    payload_bytes=len(step.payload),
                    remaining_us=remaining_us,
                    first_byte_us=step.first_byte_us,
                    arrived_us=step.arrived_us,
                    ready_us=now,
                )
                arrived, _ = self._advance_step(record, arrived, kind, out)
                if kind is StepInput.NEXT:
                    self._run_parked(session, self._run(record, arrived, now, out), now, out)
                else:
                    self._hold(self._await_parked(record.with_step(arrived)))
            case StepInput.DUPLICATE:
                held, _ = self._advance_step(record, record.steps[header.position], kind, out)
                if held.state is StepState.SENT:
                    self._send_output(record, held, header.attempt, now, out)
            case _:
                self._refuse_step(session, record, header, kind, out)

    def _run(self, record: StageRequest, step: Step, now: Micros, out: list[Effect]) -> StageRequest:
        """Hand a step to the executor; the state counts as holding its positions from here on."""
        assert step.payload is not None
        header = step.header
        out.append(
            Run(
                request=record.id,
                position=header.position,
                count=header.count,
                payload=step.payload,
                codec_in=record.layout_in.codec,
                codec_out=record.codec_out,
                rows_out_max=record.rows_out(header.count),
                remaining_us=step.left_us(now),
                slack_us=slack_us(step.spare_us(now), self._rest_of_path(record)),
                is_droppable=record.is_droppable,
            )
        )
        running = step._replace(payload=None, ready_us=now)
        return record.with_step(running)._replace(position=header.end, tag=header.tag_after)

    def _run_parked(self, session: Session, record: StageRequest, now: Micros, out: list[Effect]) -> None:
        """Run what waited for the state to come to its position; bounded by the parked steps.

        A parked step that the state has passed contradicts the one that covers it.
        """
        for _ in range(len(record.steps)):
            step = record.steps.get(record.position)
            if step is None:
                break
            kind = record.classify_reached(step.header, step.left_us(now))
            if kind is not StepInput.NEXT:
                self._refuse_step(session, record, step.header, kind, out)
                return
            step, _ = self._advance_step(record, step, StepInput.REACHED, out)
            record = self._run(record, step, now, out)
        for step in record.in_state(StepState.PARKED):
            if step.header.position < record.position:
                self._refuse_step(session, record, step.header, StepInput.OVERLAP, out)
                return
        self._hold(self._await_parked(record))

    def _await_parked(self, record: StageRequest) -> StageRequest:
        """The first to have been parked is the first to wait too long: one timer for all of a request's."""
        arrived_us = min((step.arrived_us for step in record.in_state(StepState.PARKED)), default=None)
        if arrived_us is None:
            self._timers = self._timers.cancel("parked", record.id)
        else:
            self._timers = self._timers.set("parked", record.id, arrived_us + self.limits.parked_us_max)
        return record

    def _refuse_step(
        self,
        session: Session,
        record: StageRequest,
        header: StepHeader,
        kind: StepInput,
        out: list[Effect],
    ) -> None:
        """Refuse a step by the table, and the request with it unless the code is STALE."""
        held = record.steps.get(header.position) if header.lineage == record.open.lineage else None
        before = STEP.initial if held is None else held.state
        cell = self._step(STEP, (record.id, header.position), before, kind, out)
        if cell.verdict is not Verdict.REFUSED:
            return
        holds = f"this stage holds {record.position} positions"
        reason = f"step at position {header.position}: {kind.value}; {holds}"
        if cell.code == ErrorCode.STALE:
            self._send_refusal(session, record, cell.code, reason, header.position, out)
            return
        if held is not None:
            record = record.with_step(held._replace(state=cell.to))
        record, _ = self._advance(record, RequestInput.STEP_REFUSED, out)
        self._refuse(record, cell.code, reason, out, position=header.position)

    def _send_output(
        self, record: StageRequest, step: Step, attempt: int, now: Micros, out: list[Effect]
    ) -> SendStep | None:
        """Send a step's output on, with what is left of its budget; None if there is nowhere to."""
        session, header = self._onward_session(record), step.header
        if session is None or record.onward_handle is None or step.output is None:
            return None
        remaining_us = Micros(max(0, step.left_us(now) - session.owd_us))
        onward = StepHeader(
            handle=record.onward_handle,
            lineage=header.lineage,
            attempt=attempt,
            position=header.position,
            count=header.count,
            remaining_us=remaining_us,
            owd_us=session.owd_us,
            tag_before=header.tag_before,
            tag_after=header.tag_after,
        )
        send = SendStep(
            connection=session.connection,
            header=onward.encode(),
            payload=step.output,
            remaining_us=remaining_us,
        )
        out.append(send)
        return send

    def _remaining_on_arrival(self, session: Session, record: StageRequest, header: StepHeader) -> Micros:
        """The budget as it arrived, never above what the client gave.

        Of the sender's estimate of the way, what is above our own least round trip is given back.
        """
        given_back_us = 0 if session.rtt_min_us is None else max(0, header.owd_us - session.rtt_min_us)
        return Micros(
            min(header.remaining_us + given_back_us, record.open.largest_budget_us, DURATION_US_MAX)
        )

    def _await_step(self, record: StageRequest, now: Micros) -> None:
        """A ready request is given up when no step comes for long."""
        self._timers = self._timers.set("idle", record.id, now + self.limits.request_idle_us_max)

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
            frame = StatusFrame(handle=record.upstream_handle, records=record.records)
            self._send_upstream(record, frame, out)
        self._timers = self._timers.cancel("status", record.id)
        return record._replace(records=())

    def _refuse(
        self,
        record: StageRequest,
        code: int,
        reason: str,
        out: list[Effect],
        *,
        position: Position | None = None,
        stage: StageIndex | None = None,
        release: bool = True,
    ) -> None:
        """Tell the predecessor why, and end the request here."""
        record = self._flush_status(record, out)
        session = self._sessions.get(record.upstream)
        if session is not None:
            where = record.position if position is None else position
            self._send_refusal(session, record, code, reason, where, out, stage=stage)
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
    ) -> None:
        refusal = RefuseFrame(
            handle=record.upstream_handle,
            stage=record.stage if stage is None else stage,
            code=code,
            lineage=record.open.lineage,
            position=position,
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

    def _step_with_executor(self, record: StageRequest, position: Position) -> Step:
        step = record.steps.get(position)
        if step is None or step.state is not StepState.RUNNING:
            raise LocalProtocolError(f"no step at position {position} is with the executor")
        return step

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
