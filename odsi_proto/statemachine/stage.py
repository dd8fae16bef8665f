"""An execution node: answers OPEN with COMMIT, runs steps in order, sends outputs on.

Composition only: which request a frame belongs to, which table row applies, which effect follows.
The checks of an OPEN are in ``admission``, a request's own facts in ``request``.
"""

from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from odsi_proto.errors import LocalProtocolError, Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import Refusal, StageOffer, check_open, commit_to, is_commit_to
from odsi_proto.statemachine.budget import Credit, ExecutorLoad
from odsi_proto.statemachine.effects import Effect, Release, Reserve, Trace
from odsi_proto.statemachine.frozen import FrozenMap, TimerKey, Timers
from odsi_proto.statemachine.request import StageRequest
from odsi_proto.statemachine.session import Attach, Choices, SelfDescription, Session
from odsi_proto.statemachine.steps import StageSteps
from odsi_proto.statemachine.table import Verdict
from odsi_proto.statemachine.tables import (
    RequestInput,
    RequestState,
    SessionState,
    StepInput,
    StepState,
)
from odsi_proto.units import ConnectionId, Micros, ParticipantId, Position, RequestId, StageIndex
from odsi_proto.wire.codepoints import ErrorCode, Role, Setting
from odsi_proto.wire.frames import (
    STATUS_RECORDS_MAX,
    AbandonFrame,
    AttachedFrame,
    AttachFrame,
    CancelFrame,
    CommitFrame,
    Frame,
    OpenFrame,
    RefuseFrame,
    StatusFrame,
    StatusRecord,
)
from odsi_proto.wire.identity import SignedMessage, participant_short
from odsi_proto.wire.messages import Cancel, Open
from odsi_proto.wire.tag import root_tag
from odsi_proto.wire.tensor import ActivationLayout

FORWARDED_RECORDS_MAX = STATUS_RECORDS_MAX // 2
"""Records of later stages that wait for a flush: a flood of theirs must not drown this stage's own."""


class StageState(NamedTuple):
    """The whole state of an execution node: hashable, equal where behaviour is equal."""

    sessions: FrozenMap[ConnectionId, Session]
    timers: Timers
    is_draining: bool
    requests: FrozenMap[RequestId, StageRequest]
    unanswered: FrozenMap[RequestId, int]
    load: ExecutorLoad | None


class StageEndpoint(StageSteps):
    """The execution node's side of every request it serves."""

    def __init__(
        self,
        *,
        about: SelfDescription,
        offer: StageOffer,
        limits: Limits,
        choices: Choices,
        unix_s_at_zero: int,
    ) -> None:
        super().__init__(about=about, limits=limits, choices=choices, unix_s_at_zero=unix_s_at_zero)
        assert Role.EXECUTION_NODE in about.roles
        self._offer = offer

    @property
    def state(self) -> StageState:
        """Everything that this endpoint remembers; to store, compare, or go back to."""
        return StageState(
            self._sessions, self._timers, self._is_draining, self._requests, self._unanswered, self._load
        )

    @state.setter
    def state(self, state: StageState) -> None:
        self._sessions, self._timers, self._is_draining, self._requests, self._unanswered, self._load = state

    @property
    def requests_open(self) -> int:
        """Requests that hold state here."""
        return len(self._requests)

    def reported(self, request: RequestId, position: Position) -> StatusRecord | None:
        """The last record of an open request, if it is of the step at ``position`` and not sent yet."""
        record = self._requests.get(request)
        if record is None or not record.records:
            return None
        last = record.records[-1]
        return last if last.position == position and last.stage == record.stage else None

    def reserved(self, request: RequestId, *, now: Micros) -> tuple[Effect, ...]:
        """The state asked for by :class:`Reserve` is set aside: commit, and open the way on."""
        out: list[Effect] = []
        record = self._requests.get(request)
        if record is None:
            self._answered(request)
            return (Release(request=request),)  # it ended while the driver was at work
        _check_is_reserving(record)
        record, _ = self._advance(record._replace(is_reserving=False), RequestInput.RESERVED, out)
        self._hold(record)
        commit = commit_to(record, self._offer, self._predecessor(record), self.limits)
        message = SignedMessage.sign(self.about.signer, "commit", commit.encode()).encode()
        self._send_upstream(
            record, CommitFrame(handle=record.upstream_handle, stage=record.stage, message=message), out
        )
        if record.is_last:
            self._attach_if_here(record, now, out)
        else:
            self._open_onward(record, out)
        return tuple(out)

    def reserve_failed(self, request: RequestId, reason: str, *, now: Micros) -> tuple[Effect, ...]:
        """The state asked for does not fit."""
        out: list[Effect] = []
        record = self._requests.get(request)
        if record is None:
            self._answered(request)
        else:
            _check_is_reserving(record)
            record, cell = self._advance(
                record._replace(is_reserving=False), RequestInput.RESERVE_FAILED, out
            )
            self._refuse(record, cell.code, reason, out, release=False)
        return tuple(out)

    def _on_frame(self, session: Session, frame: Frame, now: Micros, out: list[Effect]) -> None:
        match frame:
            case OpenFrame():
                self._on_open(session, frame, now, out)
            case AttachFrame():
                self._on_attach(session, frame, now, out)
            case CommitFrame():
                self._on_commit(session, frame, now, out)
            case StatusFrame():
                self._on_status(session, frame, now)
            case RefuseFrame():
                self._on_refuse(session, frame, out)
            case CancelFrame():
                self._on_cancel(frame, out)
            case AbandonFrame():
                record = self._by_upstream(session, frame.handle)
                if record is not None:
                    record, _ = self._advance(record, RequestInput.UPSTREAM_LOST, out)
                    self._end(record, frame.code, frame.reason, out)
            case _:
                raise RemoteProtocolError(
                    ErrorCode.ORDER_VIOLATION,
                    f"{type(frame).__name__} sent to an execution node",
                    spec="REQ-012",
                )

    def _on_open(self, session: Session, frame: OpenFrame, now: Micros, out: list[Effect]) -> None:
        handle = frame.handle
        message = SignedMessage.decode("open", frame.message)
        opened = Open.decode(message.body)
        record = StageRequest(
            message=message,
            open=opened,
            stage=frame.stage,
            upstream=session.connection,
            upstream_handle=handle,
            tag=root_tag(opened.request_id),
        )
        session = self._keep(session.announced(handle, opened.request_id))
        refusal = self._check(session, record, now)
        if refusal is not None:
            session = self._keep(session.buried(handle))
            self._send_refusal(
                session, record, refusal.code, refusal.reason, Position(0), out, queue_us=refusal.queue_us
            )
            return
        self._hold(record)
        self._timers = self._timers.set("path", record.id, now + self.limits.open_us_max)
        out.append(Reserve(request=opened.request_id, positions_max=opened.positions_max))

    def _check(self, session: Session, record: StageRequest, now: Micros) -> Refusal | None:
        if self._is_draining or session.state is SessionState.DRAINING:
            return Refusal(ErrorCode.GOING_AWAY, "this node is leaving and takes no new requests")
        if record.id in self._requests or record.id in self._unanswered:
            return Refusal(ErrorCode.NOT_AUTHORISED, "a request of this id is open here, or just ended")
        if len(self._requests) + len(self._unanswered) >= self.limits.requests_max:
            what = f"{self.limits.requests_max} requests are open or ending here, no more are taken"
            return Refusal(ErrorCode.OVERLOADED, what)
        return check_open(
            record,
            offer=self._offer,
            own=self.about.signer.participant,
            predecessor=session.participant,
            unix_s=self._unix_s(now),
            limits=self.limits,
            load=self._load,
        )

    def _open_onward(self, record: StageRequest, out: list[Effect]) -> None:
        """Forward the OPEN, as it was signed, to the successor."""
        successor = record.open.stages[record.stage + 1].participant
        session = next(iter(self._sessions_with(successor)), None)
        if session is None:
            name = participant_short(successor)
            reason = f"no connection to the next stage, {name}: start this node with --peer {name}…@HOST:PORT"
            self._refuse_onward(record, ErrorCode.NO_ROUTE, reason, out)
            return
        if not self._fits(record, session):
            what = "the next stage takes no steps as large as this one does"
            self._refuse_onward(record, ErrorCode.LIMIT_EXCEEDED, what, out)
            return
        handle, stage = session.next_handle, StageIndex(record.stage + 1)
        self._keep(session.allocated(record.id))
        self._hold(record._replace(onward=session.connection, onward_handle=handle))
        frame = OpenFrame(handle=handle, stage=stage, message=record.message.encode())
        self._send(session, frame, out)

    def _on_commit(self, session: Session, frame: CommitFrame, now: Micros, out: list[Effect]) -> None:
        record = self._by_onward(session, frame.handle)
        if record is None:
            return
        if frame.stage <= record.stage or frame.stage >= len(record.open.stages):
            raise RemoteProtocolError(
                ErrorCode.ORDER_VIOLATION, f"a COMMIT of stage {frame.stage}", spec="REQ-014"
            )
        message = SignedMessage.decode("commit", frame.message)
        if not is_commit_to(message, record.message, record.open, frame.stage):
            raise Malformed("a COMMIT to something else than the OPEN it answers", spec="REQ-014")
        if frame.stage == record.stage + 1:
            self._hold(self._onward_is_ready(record, now, out))
        self._send_upstream(record, replace(frame, handle=record.upstream_handle), out)

    def _on_attach(self, session: Session, frame: AttachFrame, now: Micros, out: list[Effect]) -> None:
        """Hold a claim on results until its request is here; each connection's claims are its own."""
        if len(session.attaches) >= self.limits.requests_max and frame.request_id not in session.attaches:
            out.append(Trace(event="attach_dropped", connection=session.connection))
            return
        attach = Attach(frame.return_token, Micros(now + self.limits.open_us_max))
        self._keep_attaches(session, session.attaches.put(frame.request_id, attach))
        record = self._requests.get(frame.request_id)
        if record is not None and record.is_last and record.state is RequestState.COMMITTED:
            self._attach_if_here(record, now, out)

    def _keep_attaches(self, session: Session, attaches: FrozenMap[RequestId, Attach]) -> None:
        """One timer for all of a connection's claims: a stranger can not make the table of timers long."""
        until_us = min((attach.until_us for attach in attaches.values()), default=None)
        if until_us is None:
            self._timers = self._timers.cancel("attach", session.connection)
        else:
            self._timers = self._timers.set("attach", session.connection, until_us)
        self._keep(session._replace(attaches=attaches))

    def _attach_if_here(self, record: StageRequest, now: Micros, out: list[Effect]) -> None:
        """Give the results to the client that showed the return token, if it has come already."""
        for session in self._sessions_with(record.message.signer):
            attach = session.attaches.get(record.id)
            if attach is None or sha256(attach.token).digest() != record.open.return_token_sha256:
                continue
            if not self._fits(record, session):
                what = "the client takes no steps as large as its answers"
                self._refuse_onward(record, ErrorCode.LIMIT_EXCEEDED, what, out)
                return
            handle = session.next_handle
            self._keep_attaches(session.allocated(record.id), session.attaches.drop(record.id))
            attached = record._replace(onward=session.connection, onward_handle=handle)
            self._hold(self._onward_is_ready(attached, now, out))
            self._send(session, AttachedFrame(request_id=record.id, handle=handle), out)
            return

    def _fits(self, record: StageRequest, session: Session) -> bool:
        """Whether whoever comes next takes the output of every step that this stage takes."""
        count = self.limits.step_positions_max
        layout = ActivationLayout(codec=record.codec_out, width=record.open.width)
        payload_bytes = layout.payload_bytes(record.rows_out(count))
        positions_fit = record.is_last or count <= session.peer_limit(Setting.STEP_POSITIONS_MAX, count)
        return positions_fit and payload_bytes <= session.peer_limit(
            Setting.STEP_PAYLOAD_BYTES_MAX, Limits().step_payload_bytes_max
        )

    def _refuse_onward(self, record: StageRequest, code: ErrorCode, reason: str, out: list[Effect]) -> None:
        """There is no way on for this request."""
        record, _ = self._advance(record, RequestInput.ONWARD_LOST, out)
        self._refuse(record, code, reason, out)

    def _onward_is_ready(self, record: StageRequest, now: Micros, out: list[Effect]) -> StageRequest:
        record, cell = self._advance(record, RequestInput.ONWARD_READY, out)
        if cell.verdict is Verdict.LEGAL:
            self._timers = self._timers.cancel("path", record.id)
            self._await_step(record, now)
        return record

    def _on_status(self, session: Session, frame: StatusFrame, now: Micros) -> None:
        """Pass on what later stages report; what is not theirs to report is dropped."""
        record = self._by_onward(session, frame.handle)
        if record is None or record.is_last:
            return
        record = record._replace(onward_credit=Credit(frame.credit_steps, frame.credit_bytes))
        for status in frame.records:
            if record.stage < status.stage < len(record.open.stages):
                record = record.observing(status)
                if len(record.records) < FORWARDED_RECORDS_MAX:  # the rest of the room is for its own
                    record = self._report(record, status, now)
        self._hold(record)

    def _on_refuse(self, session: Session, frame: RefuseFrame, out: list[Effect]) -> None:
        record = self._by_onward(session, frame.handle)
        if record is None:
            return
        if not record.stage < frame.stage < len(record.open.stages):
            what = f"a REFUSE of stage {frame.stage} from the stage after {record.stage}"
            raise RemoteProtocolError(ErrorCode.ORDER_VIOLATION, what, spec="REQ-065")
        record = self._flush_status(record, out)
        self._hold(record)
        self._send_upstream(record, replace(frame, handle=record.upstream_handle), out)
        if frame.code != ErrorCode.STALE:
            record, _ = self._advance(record, RequestInput.ONWARD_REFUSED, out)
            self._end(record, frame.code, frame.reason, out, tell_onward=False)

    def _on_cancel(self, frame: CancelFrame, out: list[Effect]) -> None:
        message = SignedMessage.decode("cancel", frame.message)
        cancel = Cancel.decode(message.body)
        record = self._requests.get(cancel.request_id)
        if record is None:
            return
        if message.signer != record.message.signer:
            # Not the neighbour's fault: it may have been asked for the same id by another client.
            out.append(Trace(event="cancel_ignored", fields={"request": record.id}))
            return
        record, _ = self._advance(record, RequestInput.CANCEL, out)
        onward = self._onward_session(record)
        if onward is not None and not record.is_last:
            self._send(onward, frame, out)
        self._end(record, cancel.code, "cancelled by the client", out, tell_onward=False)

    def _on_timer(self, key: TimerKey, now: Micros, out: list[Effect]) -> None:
        reason, subject = key
        match reason:
            case "status":
                self._hold(self._flush_status(self._requests[subject], out))
            case "path":
                record, cell = self._advance(self._requests[subject], RequestInput.OVERDUE, out)
                what = "the client did not attach" if record.is_last else "the next stage did not commit"
                self._refuse(record, cell.code, f"{what} within {self.limits.open_us_max} us", out)
            case "idle":
                record, _ = self._advance(self._requests[subject], RequestInput.STEP_REFUSED, out)
                what = f"no step for {self.limits.request_idle_us_max / 1e6:g} s"
                self._refuse(record, ErrorCode.EXPIRED, what, out)
            case "attach":
                session = self._sessions[subject]
                waiting = {r: attach for r, attach in session.attaches.items() if attach.until_us > now}
                self._keep_attaches(session, FrozenMap(waiting))
            case "parked":
                record = self._requests[subject]
                first = min(record.in_state(StepState.PARKED), key=lambda step: step.arrived_us)
                step, parked = self._advance_step(record, first, StepInput.OVERDUE, out)
                record, _ = self._advance(record.with_step(step), RequestInput.STEP_REFUSED, out)
                waited = f"position {step.header.position} waited {self.limits.parked_us_max} us for it"
                what = f"position {record.position} is missing; {waited}"
                self._refuse(record, parked.code, what, out, position=record.position)
            case _:
                raise LocalProtocolError(f"no timer is called {reason!r}")

    def _on_session_lost(self, session: Session, reason: str, now: Micros, out: list[Effect]) -> None:
        self._timers = self._timers.cancel("attach", session.connection)
        for request in (*session.requests_in.values(), *session.requests_out.values()):
            record = self._requests.get(request)
            if record is None:
                continue
            if record.upstream == session.connection:
                record, _ = self._advance(record, RequestInput.UPSTREAM_LOST, out)
                self._end(record, ErrorCode.PEER_LOST, f"the predecessor is gone: {reason}", out)
            else:
                record, cell = self._advance(record, RequestInput.ONWARD_LOST, out)
                gone = StageIndex(record.stage + (not record.is_last))
                who = "the client" if record.is_last else f"stage {gone}"
                self._refuse(record, cell.code, f"{who} is gone: {reason}", out, stage=gone)

    def _predecessor(self, record: StageRequest) -> ParticipantId:
        session = self._sessions.get(record.upstream)
        assert session is not None, "a request ends with its upstream connection"
        return session.participant


def _check_is_reserving(record: StageRequest) -> None:
    if not record.is_reserving:
        raise LocalProtocolError("no reservation was asked for, or it was answered already")
