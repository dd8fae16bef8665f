"""A stage's steps: taken in order, handed to the executor, answered, retained, reported, refused.

The half of the execution node that runs for every token; opening and ending requests is in
``stage``. What kind of arrival a step is says ``request``, what becomes of it says ``tables``.
"""

from odsi_proto.errors import LocalProtocolError, RemoteProtocolError
from odsi_proto.statemachine.budget import ExecutorLoad, plan_flags, rest_of_path_us, slack_us
from odsi_proto.statemachine.effects import Effect, Run, SendStep, Trace
from odsi_proto.statemachine.held import StageRequests
from odsi_proto.statemachine.request import StageRequest, Step, input_digest
from odsi_proto.statemachine.session import Session
from odsi_proto.statemachine.streams import ArrivedStep
from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import STEP, RequestInput, StepInput, StepState
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import StatusFlag, StatusRecord
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


_EVENTS = {
    StatusFlag.LATE: "step_late",
    StatusFlag.BELOW_PLAN: "step_off_plan",
    StatusFlag.ABOVE_PLAN: "step_off_plan",
    StatusFlag.OVER_BUDGET: "step_over_budget",
}
"""The trace event that says what a flag says."""


class StageSteps(StageRequests):
    """Everything that happens to the steps of an execution node's requests."""

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
        flags = self._flags(record, step, sent, now, out)
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
                flags=flags,
            ),
            now,
        )
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

    def _slack_us(self, record: StageRequest, step: Step, now: Micros, *, own_us: Micros | None) -> Slack:
        """What the step can spare if this stage still takes ``own_us`` (None: its part of the plan)."""
        onward = self._onward_session(record)
        rest_us = rest_of_path_us(
            record.open.stages,
            record.stage,
            own_us=own_us,
            way_us=Micros(0) if onward is None else onward.owd_us,
            seen=record.seen,
        )
        budget_max_us = record.open.budget_max_us(step.header.position)
        return slack_us(step.spare_us(now), rest_us, budget_max_us=budget_max_us)

    def _classify(
        self, record: StageRequest, header: StepHeader, digest: bytes | None, remaining_us: int
    ) -> StepInput:
        """What kind of arrival a step is, what the executor takes included."""
        kind = record.classify(header, digest, remaining_us, self.limits)
        if kind is StepInput.NEXT and not self._takes(record.layout_in.payload_bytes(header.count)):
            return StepInput.QUEUE_FULL
        return kind

    def _takes(self, payload_bytes: int) -> bool:
        """Whether the executor takes one step more, as far as is known."""
        return self._load is None or self._load.takes(payload_bytes)

    def _flags(
        self, record: StageRequest, step: Step, sent: SendStep | None, now: Micros, out: list[Effect]
    ) -> StatusFlag:
        """What is to be said of a step that was run, in its record and in the log. Spec: TIME-025."""
        flags = StatusFlag(0)
        taken_us = now - step.arrived_us
        if step.is_planned:
            flags = plan_flags(record.plan, step.remaining_us, taken_us)
        if sent is not None and not sent.remaining_us:
            flags |= StatusFlag.LATE
        for flag in flags or ():
            fields = {
                "position": int(step.header.position),
                "remaining_us": int(step.remaining_us),
                "taken_us": taken_us,
            }
            out.append(Trace(event=_EVENTS[flag], fields={"request": record.id, **fields}))
        return flags

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
        kind = self._classify(record, header, None, header.remaining_us)
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
        kind = self._classify(record, header, digest, remaining_us)
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
                    is_planned=kind is StepInput.NEXT and record.is_decode(header),
                )
                record = record.taking(len(step.payload))
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
                slack_us=self._slack_us(
                    record, step, now, own_us=None if self._load is None else self._load.decode_us
                ),
                is_droppable=record.is_droppable,
            )
        )
        if self._load is not None:
            self._load = self._load.less(step.payload_bytes)
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
            if kind is StepInput.NEXT and not self._takes(step.payload_bytes):
                kind = StepInput.QUEUE_FULL
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
        queue_us = Micros(0)
        if kind is StepInput.QUEUE_FULL and self._load is not None:
            queue_us = self._load.queue_us
            reason += f"; a step taken now would wait {queue_us} us"
        if held is not None:
            record = record.with_step(held._replace(state=cell.to))
        record, _ = self._advance(record, RequestInput.STEP_REFUSED, out)
        self._refuse(record, cell.code, reason, out, position=header.position, queue_us=queue_us)

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
            slack_us=self._slack_us(record, step, now, own_us=Micros(0)),
        )
        out.append(send)
        return send

    def _remaining_on_arrival(self, session: Session, record: StageRequest, header: StepHeader) -> Micros:
        """The budget as it arrived, never above what the client can have given. Spec: TIME-008.

        Of the sender's estimate of the way, what is above our own least round trip is given back.
        """
        given_back_us = 0 if session.rtt_min_us is None else max(0, header.owd_us - session.rtt_min_us)
        largest_us = record.open.budget_max_us(header.position)
        remaining_us = min(header.remaining_us + given_back_us, DURATION_US_MAX)
        return Micros(remaining_us if largest_us is None else min(remaining_us, largest_us))

    def _await_step(self, record: StageRequest, now: Micros) -> None:
        """A ready request is given up when no step comes for long."""
        self._timers = self._timers.set("idle", record.id, now + self.limits.request_idle_us_max)

    def _step_with_executor(self, record: StageRequest, position: Position) -> Step:
        step = record.steps.get(position)
        if step is None or step.state is not StepState.RUNNING:
            raise LocalProtocolError(f"no step at position {position} is with the executor")
        return step
