"""What every role shares: connections, their handshakes, timers, and one place for peers' faults.

Theory of operation. A mutator opens a list of effects, lets the session advance, and hands what
arrived to the role (:class:`StageEndpoint`, :class:`ClientEndpoint`). Whatever a peer did wrong
surfaces as ``Malformed`` or ``RemoteProtocolError`` in :meth:`Endpoint._deliver` and becomes a Close
effect there; nothing a peer sends raises out of an endpoint.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from odsi_proto.errors import LocalProtocolError, Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import Close, Effect, Established, SendControl, StopStream, Trace
from odsi_proto.statemachine.session import Binding, Choices, SelfDescription, Session
from odsi_proto.statemachine.streams import ArrivedStep, UnwantedStream
from odsi_proto.statemachine.tables import SessionInput, SessionState
from odsi_proto.units import ConnectionId, Micros, ParticipantId
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import AuthFrame, Frame, GoawayFrame, HelloFrame, UnknownFrame, encode_frame
from odsi_proto.wire.step import StepHeader

TimerKey = tuple[str, Any]
"""Why a timer was set, and for what."""


class Endpoint(ABC):
    """One participant in one role, over any number of connections."""

    def __init__(
        self, *, about: SelfDescription, limits: Limits, choices: Choices, unix_s_at_zero: int
    ) -> None:
        self.limits = limits
        self.about = about
        self._choices = choices
        self._unix_s_at_zero = unix_s_at_zero
        self._sessions: dict[ConnectionId, Session] = {}
        self._timers: dict[TimerKey, Micros] = {}
        self.is_draining = False
        """Whether new requests are refused on every connection, those to come included."""

    @property
    def next_deadline(self) -> tuple[Micros, str] | None:
        """When :meth:`timer` must be called next, and the reason."""
        if not self._timers:
            return None
        (reason, _), at = min(self._timers.items(), key=lambda item: item[1])
        return at, reason

    def connection_made(
        self, connection: ConnectionId, binding: Binding, *, now: Micros
    ) -> tuple[Effect, ...]:
        """TLS is done; say HELLO."""
        if connection in self._sessions:
            raise LocalProtocolError(f"connection {connection} exists")
        session = Session(
            connection,
            about=self.about,
            binding=binding,
            limits=self.limits,
            choices=self._choices,
            unix_s=self._unix_s(now),
        )
        self._sessions[connection] = session
        self._timers["handshake", connection] = Micros(now + self.limits.handshake_us_max)
        return (SendControl(connection=connection, data=session.start()),)

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
                session.streams.reset(stream)
            except RemoteProtocolError as error:
                self._breach(session, error.code, str(error), now, out)
        return tuple(out)

    def connection_lost(self, connection: ConnectionId, reason: str, *, now: Micros) -> tuple[Effect, ...]:
        """The connection is gone, by whatever cause; ``reason`` is for people."""
        out: list[Effect] = []
        session = self._sessions.get(connection)
        if session is not None:
            session.advance(SessionInput.LOST)
            self._forget(session, reason, now, out)
        return tuple(out)

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        """The least round trip seen on a connection so far."""
        session = self._sessions.get(connection)
        if session is not None:
            session.rtt_min_us = rtt_min_us

    def drain(self, reason: str, *, now: Micros) -> tuple[Effect, ...]:
        """Take no new requests; tell every peer."""
        out: list[Effect] = []
        self.is_draining = True
        for session in tuple(self._sessions.values()):
            was_open = session.is_open
            session.advance(SessionInput.DRAIN)
            if was_open:
                self._send(session, GoawayFrame(code=ErrorCode.GOING_AWAY, reason=reason), out)
            elif session.state is SessionState.CLOSED:
                out.append(Close(connection=session.connection, code=ErrorCode.GOING_AWAY, reason=reason))
                self._forget(session, reason, now, out)
        return tuple(out)

    def timer(self, *, now: Micros) -> tuple[Effect, ...]:
        """Act on every timer that is due."""
        out: list[Effect] = []
        due = [key for key, at in self._timers.items() if at <= now]
        for key in due:
            if self._timers.pop(key, None) is None:
                continue  # an earlier one of this round disarmed it
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
        def admit(header: StepHeader) -> int | None:
            session.advance(SessionInput.TRAFFIC, "a step")
            return self._admit(session, header, now, out)

        try:
            arrivals = session.streams.receive(
                stream, data, fin=fin, hello_seen=session.peer is not None, admit=admit, now=now
            )
            for arrival in arrivals:
                match arrival:
                    case ArrivedStep():
                        self._on_step(session, arrival, now, out)
                    case UnwantedStream():
                        self._stop(session, arrival.stream, out)
                    case _:
                        self._receive_frame(session, arrival, now, out)
                if session.state is SessionState.CLOSED:
                    return
        except Malformed as error:
            self._breach(session, ErrorCode.MALFORMED, str(error), now, out)
        except RemoteProtocolError as error:
            self._breach(session, error.code, str(error), now, out)

    def _receive_frame(self, session: Session, frame: Frame, now: Micros, out: list[Effect]) -> None:
        answer = session.receive(frame)
        if answer is not None:
            out.append(SendControl(connection=session.connection, data=answer + self._grease()))
        match frame:
            case AuthFrame():
                del self._timers["handshake", session.connection]
                assert session.peer is not None
                out.append(
                    Established(
                        connection=session.connection,
                        participant=session.participant,
                        offers=session.peer.offers,
                    )
                )
            case HelloFrame() | UnknownFrame():
                pass
            case GoawayFrame():
                fields: dict[str, Any] = {"code": ErrorCode.name_of(frame.code), "reason": frame.reason}
                out.append(Trace(event="goaway", connection=session.connection, fields=fields))
            case _:
                self._on_frame(session, frame, now, out)

    def _handshake_overdue(self, connection: ConnectionId, now: Micros, out: list[Effect]) -> None:
        session = self._sessions[connection]
        try:
            session.advance(SessionInput.OVERDUE)
        except RemoteProtocolError as error:
            what = f"the handshake took longer than {self.limits.handshake_us_max / 1e6:g} s"
            self._breach(session, error.code, what, now, out)

    def _breach(self, session: Session, code: int, what: str, now: Micros, out: list[Effect]) -> None:
        """The peer broke a rule: close, and end what hangs on the connection."""
        session.advance(SessionInput.BREACH)
        out.append(Close(connection=session.connection, code=code, reason=what))
        self._forget(session, what, now, out)

    def _forget(self, session: Session, reason: str, now: Micros, out: list[Effect]) -> None:
        self._sessions.pop(session.connection, None)
        self._timers.pop(("handshake", session.connection), None)
        self._on_session_lost(session, reason, now, out)

    def _send(self, session: Session, frame: Frame, out: list[Effect]) -> None:
        out.append(SendControl(connection=session.connection, data=encode_frame(frame)))

    def _stop(self, session: Session, stream: int, out: list[Effect]) -> None:
        out.append(StopStream(connection=session.connection, stream=stream, code=ErrorCode.NO_ERROR))

    def _sessions_with(self, participant: ParticipantId) -> Iterable[Session]:
        """Newest first: of two connections with one participant, the older may be dead already."""
        sessions = reversed(self._sessions.values())
        return (s for s in sessions if s.is_open and s.participant == participant)

    def _grease(self) -> bytes:
        """A frame of a reserved type that every receiver ignores."""
        choice = self._choices(2)
        return encode_frame(UnknownFrame(type=62 * choice[0] + 27, body=choice[1:]))

    def _unix_s(self, now: Micros) -> int:
        return self._unix_s_at_zero + now // 1_000_000
