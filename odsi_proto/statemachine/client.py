"""A client: signs the OPEN, checks every COMMIT, sends the first stage rows, takes the last one's.

The client is where a request is rooted: it draws the id, the secret of the coherence tags and the
return token; no stage learns a token from any of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from odsi_proto.errors import LocalProtocolError, Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import is_commit_to
from odsi_proto.statemachine.budget import Credit, shortfall
from odsi_proto.statemachine.claim import Awaited, Claim, Failure, RequestSpec, is_answer, open_body
from odsi_proto.statemachine.effects import (
    Effect,
    PathReady,
    RequestFailed,
    RowsArrived,
    SendStep,
    StatusArrived,
)
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.frozen import FrozenMap, TimerKey, Timers
from odsi_proto.statemachine.session import Choices, SelfDescription, Session
from odsi_proto.statemachine.streams import ArrivedStep
from odsi_proto.statemachine.table import Cell, Verdict
from odsi_proto.statemachine.tables import CLAIM, ClaimInput, ClaimState
from odsi_proto.units import ConnectionId, Handle, Micros, Position, RequestId, Slack, StageIndex
from odsi_proto.wire.codepoints import DeadlineKind, ErrorCode, Setting
from odsi_proto.wire.frames import (
    RETURN_TOKEN_BYTES,
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
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import REQUEST_ID_BYTES, Cancel
from odsi_proto.wire.step import DURATION_US_MAX, StepHeader
from odsi_proto.wire.tag import root_tag, tag_after
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

SECRET_BYTES = 32


class ClientState(NamedTuple):
    """The whole state of a client: hashable, equal where behaviour is equal."""

    sessions: FrozenMap[ConnectionId, Session]
    timers: Timers
    is_draining: bool
    claims: FrozenMap[RequestId, Claim]


class ClientEndpoint(Endpoint):
    """The client's side of every request it makes."""

    def __init__(
        self, *, about: SelfDescription, limits: Limits, choices: Choices, unix_s_at_zero: int
    ) -> None:
        super().__init__(about=about, limits=limits, choices=choices, unix_s_at_zero=unix_s_at_zero)
        self._claims: FrozenMap[RequestId, Claim] = FrozenMap()

    @property
    def state(self) -> ClientState:
        """Everything that this endpoint remembers; to store, compare, or go back to."""
        return ClientState(self._sessions, self._timers, self._is_draining, self._claims)

    @state.setter
    def state(self, state: ClientState) -> None:
        self._sessions, self._timers, self._is_draining, self._claims = state

    def step_positions_max(self, connection: ConnectionId, default: int) -> int:
        """How many positions of a step the peer takes, at most ``default``."""
        limit = self._established(connection).peer_limit(Setting.STEP_POSITIONS_MAX, default)
        return max(1, min(limit, default))

    def one_way_us(self, connection: ConnectionId) -> Micros:
        """The one-way delay of a connection, half its least round trip; 0 until one was measured."""
        return self._established(connection).owd_us

    def new_request_id(self) -> RequestId:
        """A fresh id to :meth:`open` a request under."""
        return RequestId(self._choices(REQUEST_ID_BYTES))

    def open(
        self,
        request: RequestId,
        spec: RequestSpec,
        *,
        first: ConnectionId,
        last: ConnectionId,
        now: Micros,
    ) -> tuple[Effect, ...]:
        """Sign an OPEN, send it to the first stage, and attach to the last."""
        out: list[Effect] = []
        first_session = self._established(first)
        self._established(last)
        if request in self._claims:
            raise LocalProtocolError("this request is open already")
        token = self._choices(RETURN_TOKEN_BYTES)
        opened = open_body(request, spec, token, unix_s=self._unix_s(now))
        way_us = first_session.owd_us + self._sessions[last].owd_us
        lacking = shortfall(opened, [self.limits.stage_us_min] * len(opened.stages), way_us=way_us)
        if lacking is not None:
            raise LocalProtocolError(f"this can not be done in time: {lacking} (TIME-009)")
        message = SignedMessage.sign(self.about.signer, "open", opened.encode())
        claim = Claim(
            message=message,
            open=opened,
            secret=self._choices(SECRET_BYTES),
            first=first,
            first_handle=first_session.next_handle,
            last=last,
            tag=root_tag(request),
            opened_us=now,
        )
        self._hold(claim)
        first_session = self._keep(first_session.allocated(request))
        self._timers = self._timers.set("path", request, now + self.limits.open_us_max)
        if spec.total_us is not None:
            self._timers = self._timers.set("total", request, now + spec.total_us)
        frame = OpenFrame(handle=claim.first_handle, stage=StageIndex(0), message=message.encode())
        self._send(first_session, frame, out)
        self._send(self._sessions[last], AttachFrame(request_id=request, return_token=token), out)
        return tuple(out)

    def send_step(
        self, request: RequestId, tokens: Sequence[int], payload: memoryview, *, now: Micros
    ) -> tuple[Effect, ...]:
        """Send the rows of ``tokens``, which follow those sent before; ``payload`` is encoded already."""
        claim = self._claims.get(request)
        if claim is None or claim.state is not ClaimState.READY:
            raise LocalProtocolError("steps are sent once the path is ready and until the request ends")
        layout = ActivationLayout(codec=ActivationCodec(claim.open.codecs[0]), width=claim.open.width)
        if not tokens or len(payload) != layout.payload_bytes(len(tokens)):
            raise LocalProtocolError(f"{len(payload)} bytes are not {len(tokens)} rows")
        if claim.position + len(tokens) > claim.open.positions_max:
            raise LocalProtocolError(f"the request is open for {claim.open.positions_max} positions")
        session = self._established(claim.first)
        if len(tokens) > session.peer_limit(Setting.STEP_POSITIONS_MAX, len(tokens)):
            raise LocalProtocolError(f"the first stage takes no step of {len(tokens)} positions")
        if not claim.may_send(len(payload)):
            raise LocalProtocolError("the first stage has given no credit for a further step (TIME-041)")
        if not claim.position:
            claim = claim._replace(started_us=now)
        own_us, budget_us = claim.budget_us(now)
        header = StepHeader(
            handle=claim.first_handle,
            lineage=claim.open.lineage,
            attempt=0,
            position=claim.position,
            count=len(tokens),
            remaining_us=Micros(min(max(0, budget_us - session.owd_us), DURATION_US_MAX)),
            owd_us=session.owd_us,
            tag_before=claim.tag,
            tag_after=tag_after(claim.tag, claim.secret, claim.position, tokens),
        )
        awaited = claim.awaited.put(header.position, Awaited(header))
        sent = Credit(claim.sent.steps + 1, claim.sent.payload_bytes + len(payload))
        self._hold(claim._replace(position=header.end, tag=header.tag_after, awaited=awaited, sent=sent))
        self._timers = self._timers.set("result", (request, header.position), now + own_us)
        stages_us = sum(plan.budget_us for plan in claim.open.stages)
        step = SendStep(
            connection=claim.first,
            header=header.encode(),
            payload=payload,
            remaining_us=header.remaining_us,
            slack_us=Slack(header.remaining_us - stages_us),
        )
        return (step,)

    def credit(self, request: RequestId) -> Credit:
        """How many steps more, and payload bytes, the first stage takes of a request; 0 of one that ended."""
        claim = self._claims.get(request)
        return Credit(0, 0) if claim is None else claim.credit

    def may_send(self, request: RequestId, payload_bytes: int) -> bool:
        """Whether a step of so many bytes may be sent now: credit allows it, or nothing is under way."""
        claim = self._claims.get(request)
        return claim is not None and claim.may_send(payload_bytes)

    def cancel(self, request: RequestId, code: ErrorCode, *, now: Micros) -> tuple[Effect, ...]:
        """End a request, finished (NO_ERROR) or not; of one that has ended, nothing."""
        out: list[Effect] = []
        claim = self._claims.get(request)
        if claim is not None:
            self._advance(claim, ClaimInput.CANCEL, out)
            self._end(claim, code, out)
        return tuple(out)

    def _on_frame(self, session: Session, frame: Frame, now: Micros, out: list[Effect]) -> None:
        match frame:
            case CommitFrame():
                self._on_commit(session, frame, out)
            case AttachedFrame():
                self._on_attached(session, frame, out)
            case StatusFrame():
                self._on_status(session, frame, out)
            case RefuseFrame():
                claim = self._by_handle(session, frame.handle)
                if claim is not None and frame.stage >= len(claim.open.stages):
                    what = f"a REFUSE of stage {frame.stage} of {len(claim.open.stages)}"
                    raise RemoteProtocolError(ErrorCode.ORDER_VIOLATION, what, spec="REQ-065")
                if claim is not None and frame.code != ErrorCode.STALE:
                    position = frame.position if claim.state is ClaimState.READY else None
                    failure = Failure(frame.stage, frame.code, frame.reason, position, frame.queue_us)
                    self._fail(claim, ClaimInput.REFUSE, failure, now, out)
            case AbandonFrame():
                claim = self._by_return(session, frame.handle)
                if claim is not None and claim.abandoned is None:
                    # The last stage is seldom the cause; whoever is says so by REFUSE, along the path.
                    self._hold(claim._replace(abandoned=frame))
                    at = now + self.limits.abandoned_us_max
                    self._timers = self._timers.set("abandoned", claim.id, at)
            case _:
                raise RemoteProtocolError(
                    ErrorCode.ORDER_VIOLATION, f"{type(frame).__name__} sent to a client", spec="REQ-012"
                )

    def _on_commit(self, session: Session, frame: CommitFrame, out: list[Effect]) -> None:
        claim = self._by_handle(session, frame.handle)
        if claim is None:
            return
        message = SignedMessage.decode("commit", frame.message)
        if frame.stage >= len(claim.open.stages) or not is_commit_to(
            message, claim.message, claim.open, frame.stage
        ):
            raise Malformed("a COMMIT to something else than the OPEN it answers", spec="REQ-014")
        if self._advance(claim, ClaimInput.COMMIT, out).verdict is not Verdict.IGNORED:
            self._check_ready(claim._replace(commits=claim.commits.put(frame.stage, message)), out)

    def _on_attached(self, session: Session, frame: AttachedFrame, out: list[Effect]) -> None:
        claim = self._claims.get(frame.request_id)
        if claim is None:
            # Under way when the request ended: the handle is known from now on, and has ended.
            self._keep(session._replace(last_handle_in=max(session.last_handle_in, frame.handle)))
            return
        if session.connection != claim.last:
            return
        self._advance(claim, ClaimInput.ATTACHED, out)
        if claim.return_handle is not None:
            return
        self._keep(session.announced(frame.handle, frame.request_id))
        self._check_ready(claim._replace(return_handle=frame.handle), out)

    def _check_ready(self, claim: Claim, out: list[Effect]) -> None:
        if len(claim.commits) == len(claim.open.stages) and claim.return_handle is not None:
            claim = claim._replace(state=self._advance(claim, ClaimInput.PATH_READY, out).to)
            self._timers = self._timers.cancel("path", claim.id)
            out.append(PathReady(request=claim.id))
        self._hold(claim)

    def _on_status(self, session: Session, frame: StatusFrame, out: list[Effect]) -> None:
        claim = self._by_handle(session, frame.handle)
        if claim is None:
            return
        self._advance(claim, ClaimInput.STATUS, out)
        claim = claim._replace(granted=Credit(frame.credit_steps, frame.credit_bytes))
        for record in frame.records:
            step = claim.awaited.get(record.position)
            if step is not None and record.stage < len(claim.open.stages):
                suspect = StageIndex(min(max(step.suspect, record.stage + 1), claim.last_stage))
                awaited = claim.awaited.put(record.position, step._replace(suspect=suspect))
                claim = claim._replace(awaited=awaited)
        self._hold(claim)
        out.append(StatusArrived(request=claim.id, records=frame.records))

    def _admit(self, session: Session, header: StepHeader, now: Micros, out: list[Effect]) -> int | None:
        if header.handle > session.last_handle_in:
            return None  # a stage between made a step up early, and its rows overtook ATTACHED
        claim = self._by_return(session, header.handle)
        if claim is None:
            return None
        awaited = claim.awaited.get(header.position)
        if awaited is None and header.end <= claim.position:
            return None  # answered already: a retry along the path may be answered twice
        if awaited is None or not is_answer(header, awaited.header):
            # Not the last stage's fault alone: any stage before it can make up a step.
            what = f"rows for position {header.position} that answer no step sent"
            failure = Failure(None, None, what, header.position)
            self._fail(claim, ClaimInput.ROWS_OF_NO_STEP, failure, now, out)
            return None
        self._advance(claim, ClaimInput.ROWS, out)
        layout = ActivationLayout(codec=ActivationCodec(claim.open.codecs[-1]), width=claim.open.width)
        return layout.payload_bytes(min(header.count, claim.open.rows_returned_max))

    def _on_step(self, session: Session, step: ArrivedStep, now: Micros, out: list[Effect]) -> None:
        claim = self._by_return(session, step.header.handle)
        if claim is None or step.header.position not in claim.awaited:
            return
        position, answered = step.header.position, max(claim.answered, step.header.end)
        self._hold(claim._replace(awaited=claim.awaited.drop(position), answered=answered))
        self._timers = self._timers.cancel("result", (claim.id, position))
        arrived = RowsArrived(
            request=claim.id,
            position=position,
            end=step.header.end,
            payload=step.payload,
            transfer_us=Micros(step.header.owd_us + step.arrived_us - step.first_byte_us),
        )
        out.append(arrived)

    def _on_session_lost(self, session: Session, reason: str, now: Micros, out: list[Effect]) -> None:
        for claim in tuple(self._claims.values()):
            if session.connection in {claim.first, claim.last}:
                is_first = session.connection == claim.first
                stage = StageIndex(0) if is_first else claim.last_stage
                failure = Failure(stage, ErrorCode.PEER_LOST, reason)
                self._fail(claim, ClaimInput.PEER_LOST, failure, now, out)

    def _on_timer(self, key: TimerKey, now: Micros, out: list[Effect]) -> None:
        reason, subject = key
        claim = self._claims[subject[0] if reason == "result" else subject]
        why, code, position = ClaimInput.OVERDUE, int(ErrorCode.EXPIRED), None
        match reason:
            case "path":
                stage = claim.slowest
                what = f"the path was not ready within {self.limits.open_us_max} us"
            case "total":
                stage, position = claim.slowest, claim.oldest
                where = "between two steps" if position is None else f"while position {position} was awaited"
                where = "before the path was ready" if claim.state is ClaimState.OPENING else where
                what = f"the TOTAL budget of {claim.open.budget_us(DeadlineKind.TOTAL)} us ran out {where}"
            case "abandoned":
                assert claim.abandoned is not None
                why, stage, code = ClaimInput.REFUSE, None, claim.abandoned.code
                what = f"the last stage gave up: {claim.abandoned.reason}"
            case "result":
                position = Position(subject[1])
                stage = claim.awaited[position].suspect
                what = f"no rows for position {position} within the budget"
            case _:
                raise LocalProtocolError(f"no timer is called {reason!r}")
        self._fail(claim, why, Failure(stage, code, what, position), now, out)

    def _fail(self, claim: Claim, why: ClaimInput, failure: Failure, now: Micros, out: list[Effect]) -> None:
        """End a request without all its rows."""
        cell = self._advance(claim, why, out)
        self._end(claim, ErrorCode.CANCELLED, out)
        code = cell.code if failure.code is None else failure.code
        out.append(
            RequestFailed(
                request=claim.id,
                stage=failure.stage,
                code=code,
                reason=failure.reason,
                position=failure.position,
                queue_us=failure.queue_us,
                is_reroutable=claim.is_reroutable(failure.stage, code, now=now, unix_s=self._unix_s(now)),
            )
        )

    def _end(self, claim: Claim, code: ErrorCode, out: list[Effect]) -> None:
        """Tell the path, and forget the request with its timers and handles."""
        cancel = Cancel(request_id=claim.id, lineage=claim.open.lineage, code=code)
        message = SignedMessage.sign(self.about.signer, "cancel", cancel.encode()).encode()
        for connection in {claim.first: None, claim.last: None}:
            session = self._sessions.get(connection)
            if session is not None:
                self._send(session, CancelFrame(message=message), out)
        first = self._sessions.get(claim.first)
        if first is not None:
            self._keep(first.returned(claim.first_handle))
        last = self._sessions.get(claim.last)
        if last is not None and claim.return_handle is not None:
            self._keep(last.buried(claim.return_handle))
        for why in ("path", "abandoned", "total"):
            self._timers = self._timers.cancel(why, claim.id)
        for position in claim.awaited:
            self._timers = self._timers.cancel("result", (claim.id, position))
        self._claims = self._claims.drop(claim.id)

    def _hold(self, claim: Claim) -> None:
        self._claims = self._claims.put(claim.id, claim)

    def _advance(self, claim: Claim, received: ClaimInput, out: list[Effect]) -> Cell[ClaimState]:
        """Apply one input; a claim that ends is forgotten, so that only PATH_READY has a state to keep."""
        return self._step(CLAIM, claim.id, claim.state, received, out)

    def _established(self, connection: ConnectionId) -> Session:
        session = self._sessions.get(connection)
        if session is None or not session.is_open:
            raise LocalProtocolError(f"connection {connection} is not established")
        return session

    def _by_handle(self, session: Session, handle: Handle) -> Claim | None:
        """The request that our own handle names; None if it has ended."""
        request = session.requests_out.get(handle)
        return None if request is None else self._claims.get(request)

    def _by_return(self, session: Session, handle: Handle) -> Claim | None:
        """The request that the last stage's handle names; None if it has ended."""
        request = session.request_of(handle)
        return None if request is None else self._claims.get(request)
