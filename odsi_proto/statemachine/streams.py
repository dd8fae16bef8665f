"""The peer's unidirectional streams of one connection: bytes in, frames and whole steps out.

A step's payload length is known as soon as its header is. A payload that came in one piece is
passed on as a view of that piece; pieces are joined as they come, small ones with small ones, so
that a drip of single bytes neither piles up objects nor is copied more than log2(length) times.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, assert_never

from odsi_proto.errors import Incomplete, Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.frozen import FrozenMap
from odsi_proto.units import Micros
from odsi_proto.wire.codepoints import ErrorCode, StreamType, is_ignorable
from odsi_proto.wire.frames import Frame, decode_frame
from odsi_proto.wire.step import STEP_HEADER_BYTES_MAX, StepHeader
from odsi_proto.wire.varint import Cursor


class ArrivedStep(NamedTuple):
    """A step whose last byte is here."""

    header: StepHeader
    payload: memoryview
    first_byte_us: Micros
    arrived_us: Micros


class UnwantedStream(NamedTuple):
    """A stream that nobody reads on: of an unknown odd type, or of a step that was not admitted."""

    stream: int


Admit: TypeAlias = Callable[[StepHeader], int | None]
"""From a step's header to the bytes its payload must have, or None to read no more of it."""

OnFrame: TypeAlias = Callable[[Frame], None]
"""Takes a frame; whatever is wrong with it is raised, and the rest is not read."""


class _Untyped(NamedTuple):
    """A stream whose type is not complete."""

    head: bytes


class _Control(NamedTuple):
    """The control stream: what came of a frame that is not whole."""

    pending: bytes = b""
    is_first_frame: bool = True


class _StepHead(NamedTuple):
    """A step stream whose header is not whole."""

    first_byte_us: Micros
    head: bytes = b""


class _StepBody(NamedTuple):
    """A step stream of which rows are awaited."""

    first_byte_us: Micros
    header: StepHeader
    expected_bytes: int
    filled_bytes: int = 0
    pieces: tuple[memoryview, ...] = ()

    def filled(self, piece: memoryview) -> "_StepBody":
        filled_bytes = self.filled_bytes + len(piece)
        if filled_bytes > self.expected_bytes:
            raise Malformed(f"a step payload longer than {self.expected_bytes} bytes", spec="WIRE-021")
        pieces = self.pieces
        while pieces and len(pieces[-1]) <= len(piece):
            piece = memoryview(b"".join((pieces[-1], piece)))
            pieces = pieces[:-1]
        return self._replace(filled_bytes=filled_bytes, pieces=(*pieces, piece))

    @property
    def payload(self) -> memoryview:
        return self.pieces[0] if len(self.pieces) == 1 else memoryview(b"".join(self.pieces))


class _Unwanted(NamedTuple):
    """A stream whose bytes are dropped until it ends."""

    is_unwanted: bool = True


_Typed: TypeAlias = _Control | _StepHead | _StepBody | _Unwanted


class IncomingStreams(NamedTuple):
    """All unidirectional streams that the peer of one connection opened and has not finished."""

    limits: Limits
    pending: FrozenMap[int, _Untyped | _Typed] = FrozenMap()
    control: int | None = None
    incoming_bytes: int = 0
    """What the admitted steps that are not finished will take."""

    def receive(
        self, stream: int, data: bytes, *, fin: bool, on_frame: OnFrame, admit: Admit, now: Micros
    ) -> tuple["IncomingStreams", ArrivedStep | UnwantedStream | None]:
        """Take bytes of one stream; a step that is whole, or that nobody wants, is returned.

        Raises ``Malformed`` or ``RemoteProtocolError``.
        """
        streams, state, body = self, self.pending.get(stream), memoryview(data)
        if state is None or isinstance(state, _Untyped):
            streams, state, body = self._open(stream, state, data, fin=fin, now=now)
        match state:
            case None:
                return streams, None
            case _Unwanted():
                is_new = stream not in self.pending or isinstance(self.pending[stream], _Untyped)
                return (streams._ended(stream) if fin else streams), (
                    UnwantedStream(stream) if is_new else None
                )
            case _Control():
                if fin:
                    raise RemoteProtocolError(
                        ErrorCode.ORDER_VIOLATION, "the control stream was finished", spec="WIRE-010"
                    )
                state = self._frames(state, body, on_frame)
                return streams._replace(pending=streams.pending.put(stream, state)), None
            case _StepHead():
                return streams._head(stream, state, body, fin=fin, admit=admit, now=now)
            case _StepBody():
                return streams._body(stream, state, body, fin=fin, now=now)
            case _:
                assert_never(state)

    def reset(self, stream: int) -> "IncomingStreams":
        """The peer gave a stream up; the control stream can not be."""
        if stream == self.control:
            raise RemoteProtocolError(
                ErrorCode.ORDER_VIOLATION, "the control stream was reset", spec="WIRE-010"
            )
        return self._ended(stream)

    def _open(
        self, stream: int, untyped: _Untyped | None, data: bytes, *, fin: bool, now: Micros
    ) -> tuple["IncomingStreams", _Typed | None, memoryview]:
        """Read the stream type; None while it is incomplete."""
        if untyped is None and len(self.pending) >= self.limits.streams_per_connection_max:
            raise RemoteProtocolError(
                ErrorCode.LIMIT_EXCEEDED, "too many streams are open at once", spec="WIRE-011"
            )
        head = untyped.head + data if untyped is not None else data
        cursor = Cursor(head)
        try:
            stream_type = cursor.varint()
        except Incomplete:
            if fin:
                return self._ended(stream), None, cursor.rest()
            return self._replace(pending=self.pending.put(stream, _Untyped(head))), None, cursor.rest()
        match stream_type:
            case StreamType.CONTROL:
                if self.control is not None:
                    raise RemoteProtocolError(
                        ErrorCode.ORDER_VIOLATION, "a second control stream", spec="WIRE-010"
                    )
                return self._replace(control=stream), _Control(), cursor.rest()
            case StreamType.STEP:
                return self, _StepHead(now), cursor.rest()
            case _:
                if not is_ignorable(stream_type):
                    raise RemoteProtocolError(
                        ErrorCode.UNSUPPORTED, f"a stream of type {stream_type:#x}", spec="WIRE-012"
                    )
                unwanted = _Unwanted()
                return self._replace(pending=self.pending.put(stream, unwanted)), unwanted, cursor.rest()

    def _frames(self, control: _Control, data: memoryview, on_frame: OnFrame) -> _Control:
        whole, at, is_first = control.pending + data, 0, control.is_first_frame
        while at < len(whole):
            bound = self.limits.hello_bytes_max if is_first else self.limits.control_frame_bytes_max
            cursor = Cursor(whole, at)
            try:
                frame = decode_frame(cursor, payload_bytes_max=bound)
            except Incomplete:
                break
            at, is_first = cursor.at, False
            on_frame(frame)
        return _Control(whole[at:], is_first)

    def _head(
        self, stream: int, step: _StepHead, body: memoryview, *, fin: bool, admit: Admit, now: Micros
    ) -> tuple["IncomingStreams", ArrivedStep | UnwantedStream | None]:
        """Read the header once it is whole, ask for the payload's length, go on with what follows."""
        head = memoryview(step.head + body) if step.head else body
        cursor = Cursor(head)
        try:
            header = StepHeader.decode(cursor)
        except Incomplete as error:
            if fin or len(head) > STEP_HEADER_BYTES_MAX:
                raise Malformed("a step stream that ends inside its header", spec="WIRE-020") from error
            waiting = step._replace(head=bytes(head))
            return self._replace(pending=self.pending.put(stream, waiting)), None
        expected_bytes = admit(header)
        if expected_bytes is None:
            streams = self._ended(stream)
            if not fin:
                streams = streams._replace(pending=streams.pending.put(stream, _Unwanted()))
            return streams, UnwantedStream(stream)
        incoming_bytes = self.incoming_bytes + expected_bytes
        if incoming_bytes > self.limits.incoming_bytes_max:
            what = f"unfinished steps announce {incoming_bytes} bytes"
            raise RemoteProtocolError(ErrorCode.LIMIT_EXCEEDED, what, spec="WIRE-023")
        admitted = _StepBody(step.first_byte_us, header, expected_bytes)
        return self._replace(incoming_bytes=incoming_bytes)._body(
            stream, admitted, cursor.rest(), fin=fin, now=now
        )

    def _body(
        self, stream: int, step: _StepBody, body: memoryview, *, fin: bool, now: Micros
    ) -> tuple["IncomingStreams", ArrivedStep | None]:
        if body:  # else the header came alone, or FIN did
            step = step.filled(body)
        streams = self._replace(pending=self.pending.put(stream, step))
        if not fin:
            return streams, None
        if step.filled_bytes != step.expected_bytes:
            what = f"a step payload of {step.filled_bytes} bytes, expected {step.expected_bytes}"
            raise Malformed(what, spec="WIRE-021")
        arrived = ArrivedStep(step.header, step.payload, step.first_byte_us, now)
        return streams._ended(stream), arrived

    def _ended(self, stream: int) -> "IncomingStreams":
        """Forget a stream that is over."""
        ended = self.pending.get(stream)
        announced_bytes = ended.expected_bytes if isinstance(ended, _StepBody) else 0
        return self._replace(
            pending=self.pending.drop(stream), incoming_bytes=self.incoming_bytes - announced_bytes
        )
