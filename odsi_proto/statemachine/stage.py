"""An execution node: answers OPEN with COMMIT, runs steps in order, sends outputs on.

Composition only: which request a frame belongs to, which table row applies, which effect follows.
The checks of an OPEN are in ``admission``, a request's own facts in ``request``.
"""

from dataclasses import replace
from hashlib import sha256

from odsi_proto.errors import LocalProtocolError, Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import Refusal, StageOffer, check_open, commit_to, is_commit_to
from odsi_proto.statemachine.effects import Effect, Release, Reserve, Trace
from odsi_proto.statemachine.endpoint import TimerKey
from odsi_proto.statemachine.request import StageRequest
from odsi_proto.statemachine.session import Choices, SelfDescription, Session
from odsi_proto.statemachine.steps import StageSteps
from odsi_proto.statemachine.tables import (
    RequestInput,
    RequestState,
    SessionState,
    StepInput,
)
from odsi_proto.units import Micros, ParticipantId, Position, RequestId, StageIndex
from odsi_proto.wire.codepoints import ErrorCode, Role, Setting
from odsi_proto.wire.frames import (
    AbandonFrame,
    AttachedFrame,
    AttachFrame,
    CancelFrame,
    CommitFrame,
    Frame,
    OpenFrame,
    RefuseFrame,
    StatusFrame,
)
from odsi_proto.wire.identity import SignedMessage, participant_short
from odsi_proto.wire.messages import Cancel, Open
from odsi_proto.wire.tensor import ActivationLayout


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
    def requests_open(self) -> int:
        """Requests that hold state here."""
        return len(self._requests)

    def reserved(self, request: RequestId, *, now: Micros) -> tuple[Effect, ...]:
        """The state asked for by :class:`Reserve` is set aside: commit, and open the way on."""
        out: list[Effect] = []
        record = self._requests.get(request)
        if record is None:
            self._answered(request)
            return (Release(request=request),)  # it ended while the driver was at work
        record.is_reserving = False
        self._advance(record, RequestInput.RESERVED)
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
            record.is_reserving = False
            cell = self._advance(record, RequestInput.RESERVE_FAILED)
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
                record = self._by_onward(session, frame.handle)
                for status in frame.records if record is not None else ():
                    if record is not None and record.stage < status.stage < len(record.open.stages):
                        self._report(record, status, now)
            case RefuseFrame():
                self._on_refuse(session, frame, out)
            case CancelFrame():
                self._on_cancel(frame, out)
            case AbandonFrame():
                record = self._by_upstream(session, frame.handle)
                if record is not None:
                    self._advance(record, RequestInput.UPSTREAM_LOST)
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
        )
        session.announce(handle, opened.request_id)
        refusal = self._check(session, record, now)
        if refusal is not None:
            session.bury(handle)
            self._send_refusal(session, record, refusal.code, refusal.reason, Position(0), out)
            return
        self._requests[opened.request_id] = record
        self._timers["path", opened.request_id] = Micros(now + self.limits.open_us_max)
        out.append(Reserve(request=opened.request_id, positions_max=opened.positions_max))

    def _check(self, session: Session, record: StageRequest, now: Micros) -> Refusal | None:
        if self.is_draining or session.state is SessionState.DRAINING:
            return Refusal(ErrorCode.GOING_AWAY, "this node is leaving and takes no new requests")
        if record.id in self._requests or record.id in self._unanswered:
            return Refusal(ErrorCode.NOT_AUTHORISED, "a request of this id is open here, or just ended")
        if len(self._requests) >= self.limits.requests_max:
            return Refusal(
                ErrorCode.OVERLOADED, f"{self.limits.requests_max} requests are open here, no more are taken"
            )
        return check_open(
            record,
            offer=self._offer,
            own=self.about.signer.participant,
            predecessor=session.participant,
            unix_s=self._unix_s(now),
            limits=self.limits,
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
        record.onward = session.connection
        record.onward_handle = session.allocate(record.id)
        stage = StageIndex(record.stage + 1)
        message = record.message.encode()
        self._send(session, OpenFrame(handle=record.onward_handle, stage=stage, message=message), out)

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
            self._onward_is_ready(record, now)
        self._send_upstream(record, replace(frame, handle=record.upstream_handle), out)

    def _on_attach(self, session: Session, frame: AttachFrame, now: Micros, out: list[Effect]) -> None:
        """Hold a claim on results until its request is here; each connection's claims are its own."""
        if len(session.attaches) >= self.limits.requests_max and frame.request_id not in session.attaches:
            out.append(Trace(event="attach_dropped", connection=session.connection))
            return
        session.attaches[frame.request_id] = frame.return_token
        self._timers["attach", (session.connection, frame.request_id)] = Micros(now + self.limits.open_us_max)
        record = self._requests.get(frame.request_id)
        if record is not None and record.is_last and record.state is RequestState.COMMITTED:
            self._attach_if_here(record, now, out)

    def _attach_if_here(self, record: StageRequest, now: Micros, out: list[Effect]) -> None:
        """Give the results to the client that showed the return token, if it has come already."""
        for session in self._sessions_with(record.message.signer):
            token = session.attaches.get(record.id)
            if token is None or sha256(token).digest() != record.open.return_token_sha256:
                continue
            if not self._fits(record, session):
                what = "the client takes no steps as large as its answers"
                self._refuse_onward(record, ErrorCode.LIMIT_EXCEEDED, what, out)
                return
            del session.attaches[record.id]
            self._timers.pop(("attach", (session.connection, record.id)), None)
            record.onward = session.connection
            record.onward_handle = session.allocate(record.id)
            self._onward_is_ready(record, now)
            self._send(session, AttachedFrame(request_id=record.id, handle=record.onward_handle), out)
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
        self._advance(record, RequestInput.ONWARD_LOST)
        self._refuse(record, code, reason, out)

    def _onward_is_ready(self, record: StageRequest, now: Micros) -> None:
        self._advance(record, RequestInput.ONWARD_READY)
        self._timers.pop(("path", record.id), None)
        self._await_step(record, now)

    def _on_refuse(self, session: Session, frame: RefuseFrame, out: list[Effect]) -> None:
        record = self._by_onward(session, frame.handle)
        if record is None:
            return
        if not record.stage < frame.stage < len(record.open.stages):
            what = f"a REFUSE of stage {frame.stage} from the stage after {record.stage}"
            raise RemoteProtocolError(ErrorCode.ORDER_VIOLATION, what, spec="REQ-065")
        self._send_upstream(record, replace(frame, handle=record.upstream_handle), out)
        if frame.code != ErrorCode.STALE:
            self._advance(record, RequestInput.ONWARD_REFUSED)
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
        self._advance(record, RequestInput.CANCEL)
        onward = self._onward_session(record)
        if onward is not None and not record.is_last:
            self._send(onward, frame, out)
        self._end(record, cancel.code, "cancelled by the client", out, tell_onward=False)

    def _on_timer(self, key: TimerKey, now: Micros, out: list[Effect]) -> None:
        reason, subject = key
        match reason:
            case "status":
                self._flush_status(self._requests[subject], out)
            case "path":
                record = self._requests[subject]
                cell = self._advance(record, RequestInput.OVERDUE)
                what = "the client did not attach" if record.is_last else "the next stage did not commit"
                self._refuse(record, cell.code, f"{what} within {self.limits.open_us_max} us", out)
            case "idle":
                record = self._requests[subject]
                self._advance(record, RequestInput.STEP_REFUSED)
                what = f"no step for {self.limits.request_idle_us_max / 1e6:g} s"
                self._refuse(record, ErrorCode.EXPIRED, what, out)
            case "attach":
                session = self._sessions.get(subject[0])
                if session is not None:
                    session.attaches.pop(subject[1], None)
            case "parked":
                record = self._requests[subject[0]]
                code = self._advance_step(record.steps[subject[1]], StepInput.OVERDUE).code
                self._advance(record, RequestInput.STEP_REFUSED)
                waited = f"position {subject[1]} waited {self.limits.parked_us_max} us for it"
                what = f"position {record.position} is missing; {waited}"
                self._refuse(record, code, what, out, position=record.position)
            case _:
                raise LocalProtocolError(f"no timer is called {reason!r}")

    def _on_session_lost(self, session: Session, reason: str, now: Micros, out: list[Effect]) -> None:
        for waiting in session.attaches:
            self._timers.pop(("attach", (session.connection, waiting)), None)
        for request in (*session.requests_in.values(), *session.requests_out.values()):
            record = self._requests.get(request)
            if record is None:
                continue
            if record.upstream == session.connection:
                self._advance(record, RequestInput.UPSTREAM_LOST)
                self._end(record, ErrorCode.PEER_LOST, f"the predecessor is gone: {reason}", out)
            else:
                cell = self._advance(record, RequestInput.ONWARD_LOST)
                gone = StageIndex(record.stage + (not record.is_last))
                who = "the client" if record.is_last else f"stage {gone}"
                self._refuse(record, cell.code, f"{who} is gone: {reason}", out, stage=gone)

    def _predecessor(self, record: StageRequest) -> ParticipantId:
        session = self._sessions.get(record.upstream)
        assert session is not None, "a request ends with its upstream connection"
        return session.participant
