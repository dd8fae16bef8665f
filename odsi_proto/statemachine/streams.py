"""The peer's unidirectional streams of one connection: bytes in, frames and whole steps out.

A step's payload length is known as soon as its header is; the buffer is allocated once and a
payload that came in one piece is passed on as a view of that piece.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from odsi_proto.errors import Incomplete, Malformed, RemoteProtocolError
from odsi_proto.limits import Limits
from odsi_proto.units import Micros
from odsi_proto.wire.codepoints import ErrorCode, StreamType, is_ignorable
from odsi_proto.wire.frames import Frame, decode_frame
from odsi_proto.wire.step import STEP_HEADER_BYTES_MAX, StepHeader
from odsi_proto.wire.varint import Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivedStep:
    """A step whose last byte is here."""

    header: StepHeader
    payload: memoryview
    first_byte_us: Micros
    arrived_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwantedStream:
    """A stream that nobody reads on: of an unknown odd type, or of a step that was not admitted."""

    stream: int


Arrival: TypeAlias = Frame | ArrivedStep | UnwantedStream
Admit: TypeAlias = Callable[[StepHeader], int | None]
"""From a step's header to the bytes its payload must have, or None to read no more of it."""


class _Control:
    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer = bytearray()


class _Step:
    """A step stream; ``head`` collects bytes until the header is whole."""

    __slots__ = ("expected_bytes", "filled_bytes", "first_byte_us", "head", "header", "payload")

    def __init__(self, now: Micros) -> None:
        self.first_byte_us = now
        self.head = b""
        self.header: StepHeader | None = None
        self.payload: memoryview | None = None
        self.expected_bytes = 0
        self.filled_bytes = 0


class IncomingStreams:
    """All unidirectional streams that the peer of one connection opened."""

    __slots__ = ("_control", "_incoming_bytes", "_limits", "_streams", "_unwanted")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, bytearray | _Control | _Step] = {}
        self._unwanted: set[int] = set()
        self._control: int | None = None
        self._incoming_bytes = 0
        """What the admitted steps that are not finished will take."""

    def receive(
        self, stream: int, data: bytes, *, fin: bool, hello_seen: bool, admit: Admit, now: Micros
    ) -> Iterator[Arrival]:
        """What the new bytes complete. Raises ``Malformed`` or ``RemoteProtocolError``."""
        if stream in self._unwanted:
            if fin:
                self._unwanted.discard(stream)
            return
        state, body = self._streams.get(stream), memoryview(data)
        if state is None or isinstance(state, bytearray):
            state, body = self._open(stream, state, data, fin=fin, now=now)
        match state:
            case None:
                if stream in self._unwanted:
                    yield UnwantedStream(stream=stream)
            case _Control():
                if fin:
                    raise RemoteProtocolError(
                        ErrorCode.ORDER_VIOLATION, "the control stream was finished", spec="WIRE-010"
                    )
                yield from self._frames(state, body, hello_seen=hello_seen)
            case _Step():
                arrived = self._step(stream, state, body, fin=fin, admit=admit, now=now)
                if arrived is not None:
                    yield arrived

    def reset(self, stream: int) -> None:
        """The peer gave a stream up; the control stream can not be."""
        self._unwanted.discard(stream)
        self._drop(stream)
        if stream == self._control:
            raise RemoteProtocolError(
                ErrorCode.ORDER_VIOLATION, "the control stream was reset", spec="WIRE-010"
            )

    def _open(
        self, stream: int, pending: bytearray | None, data: bytes, *, fin: bool, now: Micros
    ) -> tuple[_Control | _Step | None, memoryview]:
        """Read the stream type; None while it is incomplete or where nobody wants the stream."""
        if (
            pending is None
            and len(self._streams) + len(self._unwanted) >= self._limits.streams_per_connection_max
        ):
            raise RemoteProtocolError(
                ErrorCode.LIMIT_EXCEEDED, "too many streams are open at once", spec="WIRE-011"
            )
        head = bytes(pending) + data if pending else data
        cursor = Cursor(head)
        try:
            stream_type = cursor.varint()
        except Incomplete:
            if fin:
                self._streams.pop(stream, None)
            else:
                self._streams[stream] = bytearray(head)
            return None, cursor.rest()
        rest = cursor.rest()
        match stream_type:
            case StreamType.CONTROL:
                if self._control is not None:
                    raise RemoteProtocolError(
                        ErrorCode.ORDER_VIOLATION, "a second control stream", spec="WIRE-010"
                    )
                self._control = stream
                opened: _Control | _Step = _Control()
            case StreamType.STEP:
                opened = _Step(now)
            case _:
                if not is_ignorable(stream_type):
                    raise RemoteProtocolError(
                        ErrorCode.UNSUPPORTED, f"a stream of type {stream_type:#x}", spec="WIRE-012"
                    )
                self._streams.pop(stream, None)
                if not fin:
                    self._unwanted.add(stream)
                return None, rest
        self._streams[stream] = opened
        return opened, rest

    def _frames(self, control: _Control, data: memoryview, *, hello_seen: bool) -> Iterator[Frame]:
        control.buffer += data
        whole, at = bytes(control.buffer), 0
        while at < len(whole):
            bound = self._limits.control_frame_bytes_max if hello_seen else self._limits.hello_bytes_max
            cursor = Cursor(whole, at)
            try:
                frame = decode_frame(cursor, payload_bytes_max=bound)
            except Incomplete:
                break
            at = cursor.at
            hello_seen = True
            yield frame
        del control.buffer[:at]

    def _step(
        self, stream: int, step: _Step, body: memoryview, *, fin: bool, admit: Admit, now: Micros
    ) -> ArrivedStep | UnwantedStream | None:
        if step.header is None:
            header, body = self._read_header(step, body, fin=fin)
            if header is None:
                return None
            step.header = header
            expected = admit(header)
            if expected is None:
                del self._streams[stream]
                if not fin:
                    self._unwanted.add(stream)
                return UnwantedStream(stream=stream)
            self._expect(step, expected)
        self._fill(step, body)
        if not fin:
            return None
        self._drop(stream)
        if step.payload is None or step.filled_bytes != step.expected_bytes:
            what = f"a step payload of {step.filled_bytes} bytes, expected {step.expected_bytes}"
            raise Malformed(what, spec="WIRE-021")
        return ArrivedStep(
            header=step.header, payload=step.payload, first_byte_us=step.first_byte_us, arrived_us=now
        )

    def _read_header(
        self, step: _Step, body: memoryview, *, fin: bool
    ) -> tuple[StepHeader | None, memoryview]:
        """The header once it is whole, and what follows it."""
        head = memoryview(step.head + body) if step.head else body
        cursor = Cursor(head)
        try:
            return StepHeader.decode(cursor), cursor.rest()
        except Incomplete as error:
            if fin or len(head) > STEP_HEADER_BYTES_MAX:
                raise Malformed("a step stream that ends inside its header", spec="WIRE-020") from error
            step.head = bytes(head)
            return None, body

    def _expect(self, step: _Step, payload_bytes: int) -> None:
        step.expected_bytes = payload_bytes
        self._incoming_bytes += payload_bytes
        if self._incoming_bytes > self._limits.incoming_bytes_max:
            what = f"unfinished steps announce {self._incoming_bytes} bytes"
            raise RemoteProtocolError(ErrorCode.LIMIT_EXCEEDED, what, spec="WIRE-023")

    def _drop(self, stream: int) -> None:
        """Forget a stream that has ended."""
        ended = self._streams.pop(stream, None)
        if isinstance(ended, _Step):
            self._incoming_bytes -= ended.expected_bytes

    def _fill(self, step: _Step, body: memoryview) -> None:
        if not body:
            return  # the header came alone, or FIN did
        end = step.filled_bytes + len(body)
        if end > step.expected_bytes:
            raise Malformed(f"a step payload longer than {step.expected_bytes} bytes", spec="WIRE-021")
        if step.payload is None:
            if len(body) == step.expected_bytes:
                step.payload = body
            else:
                step.payload = memoryview(bytearray(step.expected_bytes))
                step.payload[: len(body)] = body
        else:
            step.payload[step.filled_bytes : end] = body
        step.filled_bytes = end
