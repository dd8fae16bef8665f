"""What every role shares: connections, their handshakes, timers, and one place for peers' faults.

Theory of operation. A mutator opens a list of effects, lets the session advance, and hands what
arrived to the role (:class:`StageEndpoint`, :class:`ClientEndpoint`). Whatever a peer did wrong
surfaces as ``Malformed`` or ``RemoteProtocolError`` in :meth:`Endpoint._deliver` and becomes a Close
effect there; nothing a peer sends raises out of an endpoint.

All state is in frozen values. A method that changes a session takes one and returns the new one,
which :meth:`Endpoint._keep` has put in its place; whoever holds an older one holds the past.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import Enum
from typing import Any, TypeVar

from odsi_proto.errors import LocalProtocolError, Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    Established,
    SendControl,
    StopStream,
    Trace,
    Transition,
)
from odsi_proto.statemachine.frozen import FrozenMap, TimerKey, Timers
from odsi_proto.statemachine.session import (
    Binding,
    Choices,
    SelfDescription,
    Session,
    own_hello,
    session_input,
)
from odsi_proto.statemachine.streams import ArrivedStep, IncomingStreams, UnwantedStream
from odsi_proto.statemachine.table import Cell, Table, Verdict
from odsi_proto.statemachine.tables import SESSION, SessionInput, SessionState
from odsi_proto.units import ConnectionId, Micros, ParticipantId, Position, RequestId
from odsi_proto.wire.codepoints import ErrorCode, StreamType
from odsi_proto.wire.frames import AuthFrame, Frame, GoawayFrame, HelloFrame, UnknownFrame, encode_frame
from odsi_proto.wire.messages import NONCE_BYTES
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import encode_varint

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741 - the field's letter for an input alphabet


class Endpoint(ABC):
    """One participant in one role, over any number of connections."""

    def __init__(
        self, *, about: SelfDescription, limits: Limits, choices: Choices, unix_s_at_zero: int
    ) -> None:
        self.limits = limits
        self.about = about
        self._choices = choices
        self._unix_s_at_zero = unix_s_at_zero
        self._sessions: FrozenMap[ConnectionId, Session] = FrozenMap()
        self._timers = Timers()
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused on every connection, those to come included."""
        return self._is_draining

    @property
    def next_deadline(self) -> tuple[Micros, str] | None:
        """When :meth:`timer` must be called next, and the reason."""
        return self._timers.earliest

    def connection_made(
        self, connection: ConnectionId, binding: Binding, *, now: Micros
    ) -> tuple[Effect, ...]:
        """TLS is done; say HELLO."""
        if connection in self._sessions:
            raise LocalProtocolError(f"connection {connection} exists")
        session = Session(
            connection=connection,
            binding=binding,
            limits=self.limits,
            unix_s=self._unix_s(now),
            hello=own_hello(self.about, binding, self.limits, self._choices(NONCE_BYTES)),
            streams=IncomingStreams(self.limits),
        )
        self._keep(session)
        self._timers = self._timers.set("handshake", connection, now + self.limits.handshake_us_max)
        first = encode_varint(StreamType.CONTROL) + encode_frame(HelloFrame(body=session.hello))
        return (SendControl(connection=connection, data=first),)

    def stream_data(
        self, connection: ConnectionId, stream: int, data: bytes, *, fin: bool, now: Micros
    ) -> tuple[Effect, ...]:
        """Bytes of one of the peer's unidirectional streams, in order."""
        out: list[Effect] = []
        session = self._sessions.get(connection)
        if session is not None:
            self._deliver(session, stream, data, fin, now, out)
        return tuple(out)

    def stream_reset(self, connection: ConnectionId, stream: int, *, now: Micros) -> tuple[Effect, ...]:
        """The peer gave up one of its streams."""
        out: list[Effect] = []
        session = self._sessions.get(connection)
        if session is not None:
            try:
                self._keep(session._replace(streams=session.streams.reset(stream)))
            except RemoteProtocolError as error:
                self._breach(connection, error.code, str(error), now, out)
        return tuple(out)

    def connection_lost(self, connection: ConnectionId, reason: str, *, now: Micros) -> tuple[Effect, ...]:
        """The connection is gone, by whatever cause; ``reason`` is for people."""
        out: list[Effect] = []
        session = self._sessions.get(connection)
        if session is not None:
            self._advance_session(session, SessionInput.LOST, out)
            self._forget(connection, reason, now, out)
        return tuple(out)

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        """The least round trip seen on a connection so far."""
        session = self._sessions.get(connection)
        if session is not None:
            self._keep(session._replace(rtt_min_us=rtt_min_us))

    def drain(self, reason: str, *, now: Micros) -> tuple[Effect, ...]:
        """Take no new requests, on connections to come neither; tell every peer."""
        out: list[Effect] = []
        self._is_draining = True
        for session in tuple(self._sessions.values()):
            self._advance_session(session, SessionInput.DRAIN, out)
            if session.is_open:
                self._send(session, GoawayFrame(code=ErrorCode.GOING_AWAY, reason=reason), out)
            else:
                out.append(Close(connection=session.connection, code=ErrorCode.GOING_AWAY, reason=reason))
                self._forget(session.connection, reason, now, out)
        return tuple(out)

    def timer(self, *, now: Micros) -> tuple[Effect, ...]:
        """Act on every timer that is due."""
        out: list[Effect] = []
        for key in self._timers.due(now):
            if key not in self._timers.at:
                continue  # an earlier one of this round disarmed it
            self._timers = self._timers.cancel(*key)
            if key[0] == "handshake":
                self._handshake_overdue(key[1], now, out)
            else:
                self._on_timer(key, now, out)
        return tuple(out)

    @abstractmethod
    def _admit(self, session: Session, header: StepHeader, now: Micros, out: list[Effect]) -> int | None:
        """The payload bytes of a step whose header is here, or None to read no more of it."""

    @abstractmethod
    def _on_step(self, session: Session, step: ArrivedStep, now: Micros, out: list[Effect]) -> None:
        """A whole step is here."""

    @abstractmethod
    def _on_frame(self, session: Session, frame: Frame, now: Micros, out: list[Effect]) -> None:
        """A frame of a request is here."""

    @abstractmethod
    def _on_session_lost(self, session: Session, reason: str, now: Micros, out: list[Effect]) -> None:
        """A connection is gone; it is no longer among the sessions."""

    @abstractmethod
    def _on_timer(self, key: TimerKey, now: Micros, out: list[Effect]) -> None:
        """A timer of the role is due."""

    def _deliver(
        self, session: Session, stream: int, data: bytes, fin: bool, now: Micros, out: list[Effect]
    ) -> None:
        connection = session.connection

        def admit(header: StepHeader) -> int | None:
            moved = self._advance_session(session, SessionInput.TRAFFIC, out, "a step")
            return self._admit(moved, header, now, out)

        def on_frame(frame: Frame) -> None:
            self._receive_frame(self._sessions[connection], frame, now, out)

        try:
            streams, arrival = session.streams.receive(
                stream, data, fin=fin, on_frame=on_frame, admit=admit, now=now
            )
            current = self._keep(self._sessions[connection]._replace(streams=streams))
            match arrival:
                case ArrivedStep():
                    self._on_step(current, arrival, now, out)
                case UnwantedStream():
                    out.append(
                        StopStream(connection=connection, stream=arrival.stream, code=ErrorCode.NO_ERROR)
                    )
                case None:
                    pass
        except Malformed as error:
            self._breach(connection, ErrorCode.MALFORMED, str(error), now, out)
        except RemoteProtocolError as error:
            self._breach(connection, error.code, str(error), now, out)

    def _receive_frame(self, session: Session, frame: Frame, now: Micros, out: list[Effect]) -> None:
        received = session_input(frame)
        what = f"frame type {frame.type:#x}" if isinstance(frame, UnknownFrame) else ""
        if received is SessionInput.TRAFFIC:
            what = type(frame).__name__
        session = self._advance_session(session, received, out, what)
        connection = session.connection
        match frame:
            case HelloFrame():
                session = self._keep(session.with_hello(frame.body))
                body = session.auth_body(is_dialler=session.binding.is_dialler)
                auth = encode_frame(AuthFrame(signature=self.about.signer.sign("auth", body)))
                out.append(SendControl(connection=connection, data=auth + self._grease()))
            case AuthFrame():
                session.check_auth(frame.signature)
                self._timers = self._timers.cancel("handshake", connection)
                assert session.peer is not None
                out.append(
                    Established(
                        connection=connection,
                        participant=session.participant,
                        offers=session.peer.offers,
                    )
                )
            case UnknownFrame():
                pass
            case GoawayFrame():
                fields: dict[str, Any] = {"code": ErrorCode.name_of(frame.code), "reason": frame.reason}
                out.append(Trace(event="goaway", connection=connection, fields=fields))
            case _:
                self._on_frame(session, frame, now, out)

    def _handshake_overdue(self, connection: ConnectionId, now: Micros, out: list[Effect]) -> None:
        try:
            self._advance_session(self._sessions[connection], SessionInput.OVERDUE, out)
        except RemoteProtocolError as error:
            what = f"the handshake took longer than {self.limits.handshake_us_max / 1e6:g} s"
            self._breach(connection, error.code, what, now, out)

    def _breach(self, connection: ConnectionId, code: int, what: str, now: Micros, out: list[Effect]) -> None:
        """The peer broke a rule: close, and end what hangs on the connection."""
        session = self._sessions[connection]
        if session.state is not SessionState.CLOSED:
            self._advance_session(session, SessionInput.BREACH, out)
        out.append(Close(connection=connection, code=code, reason=what))
        self._forget(connection, what, now, out)

    def _forget(self, connection: ConnectionId, reason: str, now: Micros, out: list[Effect]) -> None:
        session = self._sessions[connection]
        self._sessions = self._sessions.drop(connection)
        self._timers = self._timers.cancel("handshake", connection)
        self._on_session_lost(session, reason, now, out)

    def _keep(self, session: Session) -> Session:
        self._sessions = self._sessions.put(session.connection, session)
        return session

    def _advance_session(
        self, session: Session, received: SessionInput, out: list[Effect], what: str = ""
    ) -> Session:
        """Apply one input to the table; an illegal one raises what the peer did wrong."""
        cell = self._step(SESSION, session.connection, session.state, received, out)
        moved = session if cell.to is session.state else self._keep(session._replace(state=cell.to))
        if cell.verdict is Verdict.ILLEGAL and received is not SessionInput.BREACH:
            done = what or received.value
            raise RemoteProtocolError(cell.code, f"{done} while {session.state.value}", spec=cell.spec)
        return moved

    def _step(
        self,
        table: Table[S, I],
        subject: ConnectionId | RequestId | tuple[RequestId, Position],
        before: S,
        received: I,
        out: list[Effect],
    ) -> Cell[S]:
        """The one place where a table is applied; every step of every machine is among the effects."""
        cell = table.step(before, received)
        out.append(Transition(table.name, subject, before, received, cell.verdict, cell.to))
        return cell

    def _send(self, session: Session, frame: Frame, out: list[Effect]) -> None:
        out.append(SendControl(connection=session.connection, data=encode_frame(frame)))

    def _sessions_with(self, participant: ParticipantId) -> Iterable[Session]:
        """Newest first: of two connections with one participant, the older may be dead already."""
        sessions = (self._sessions[connection] for connection in sorted(self._sessions, reverse=True))
        return (s for s in sessions if s.is_open and s.participant == participant)

    def _grease(self) -> bytes:
        """A frame of a reserved type that every receiver ignores."""
        choice = self._choices(2)
        return encode_frame(UnknownFrame(type=62 * choice[0] + 27, body=choice[1:]))

    def _unix_s(self, now: Micros) -> int:
        return self._unix_s_at_zero + now // 1_000_000
