"""What may happen to an endpoint from outside, as values: sequences of them shrink to the few that matter.

What an endpoint's own driver does (reserve, run, open, send) depends on what it was asked for; whoever
applies the operations answers its effects between them.
"""

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from hypothesis import strategies as st

from odsi_proto.statemachine.effects import Effect
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.testing.strategies.frames import frames
from odsi_proto.testing.strategies.numbers import step_headers
from odsi_proto.units import ConnectionId, Micros
from odsi_proto.wire.codepoints import StreamType
from odsi_proto.wire.frames import encode_frame
from odsi_proto.wire.varint import encode_varint


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """Bytes of one of the peer's streams."""

    connection: ConnectionId
    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The peer gives a stream up."""

    connection: ConnectionId
    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A connection is gone."""

    connection: ConnectionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The transport knows a connection's least round trip."""

    connection: ConnectionId
    rtt_min_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """Time goes by, and every timer that is due fires when it is due."""

    us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The node is told to leave."""


Operation: TypeAlias = Bytes | Reset | Lost | Measured | Passed | Drained

TIMERS_MAX = 10_000
"""Timers that one :class:`Passed` may fire: an endpoint that arms one anew for ever ends as an error."""


def perform(endpoint: Endpoint, operation: Operation, *, now: Micros) -> tuple[tuple[Effect, ...], Micros]:
    """Do it to ``endpoint``; the effects, and the time after it. Raises what the endpoint raises."""
    match operation:
        case Bytes(connection=connection, stream=stream, data=data, fin=fin):
            return endpoint.stream_data(connection, stream, data, fin=fin, now=now), now
        case Reset(connection=connection, stream=stream):
            return endpoint.stream_reset(connection, stream, now=now), now
        case Lost(connection=connection):
            return endpoint.connection_lost(connection, "lost", now=now), now
        case Measured(connection=connection, rtt_min_us=rtt_min_us):
            endpoint.rtt_measured(connection, rtt_min_us)
            return (), now
        case Passed(us=us):
            return _pass(endpoint, now, Micros(now + us))
        case Drained():
            return endpoint.drain("leaving", now=now), now
        case _:
            assert_never(operation)


def _pass(endpoint: Endpoint, now: Micros, until: Micros) -> tuple[tuple[Effect, ...], Micros]:
    effects: list[Effect] = []
    for _ in range(TIMERS_MAX):
        deadline = endpoint.next_deadline
        if deadline is None or deadline[0] > until:
            return tuple(effects), until
        now = Micros(max(now, deadline[0]))
        effects += endpoint.timer(now=now)
    raise AssertionError(f"{TIMERS_MAX} timers fired within {until - now} us")


def stream_bytes() -> st.SearchStrategy[bytes]:
    """The bytes of a stream: noise, frames, step headers and rows, or any of them spoilt at one place."""
    control = st.lists(frames().map(encode_frame), max_size=3).map(b"".join)
    step = st.tuples(step_headers().map(lambda header: header.encode()), st.binary(max_size=40))
    typed = st.tuples(st.sampled_from(StreamType).map(encode_varint), control)
    whole = st.one_of(control, step.map(b"".join), typed.map(b"".join))
    spoilt = st.builds(_spoil, whole, st.integers(0, 1 << 16), st.integers(1, 255))
    return st.one_of(st.binary(max_size=60), whole, spoilt)


def _spoil(data: bytes, at: int, change: int) -> bytes:
    if not data:
        return data
    at %= len(data)
    return data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]


def operations(
    connections: tuple[ConnectionId, ...], *, streams: tuple[int, ...] = (2, 6, 10, 14), length_max: int = 12
) -> st.SearchStrategy[list[Operation]]:
    """Sequences of what peers and time may do to an endpoint with these connections."""
    connection, stream = st.sampled_from(connections), st.sampled_from(streams)
    one: st.SearchStrategy[Operation] = st.one_of(
        st.builds(Bytes, connection=connection, stream=stream, data=stream_bytes(), fin=st.booleans()),
        st.builds(Passed, us=st.integers(0, 5_000_000).map(Micros)),
        st.builds(Reset, connection=connection, stream=stream),
        st.builds(Measured, connection=connection, rtt_min_us=st.integers(0, 1_000_000).map(Micros)),
        st.builds(Lost, connection=connection),
        st.builds(Drained),
    )
    return st.lists(one, max_size=length_max)
