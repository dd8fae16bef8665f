"""What is compared: ways of getting the same messages from one node to its peers.

A transport owns the sending ends of a node's connections and decides what leaves when. Those of stock
aioquic are here, this project's is in :mod:`bench.deadlines.ours`, their names in
:mod:`bench.deadlines.contenders`.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from aioquic.quic.connection import QuicConnection
from aioquic.quic.stream import QuicStream

from bench.deadlines.messages import ACTIVATION, message
from bench.deadlines.peers import configuration, receiver_address

NEVER_S = float("inf")

Connection = TypeVar("Connection", bound=QuicConnection)


class Transport(Protocol):
    """The sending side of one node. Times are seconds, as aioquic counts them."""

    @property
    def connections(self) -> Sequence[QuicConnection]:
        """By the number of the peer."""

    def received(self, peer: int, datagram: bytes, now_s: float) -> None:
        """A datagram came from a peer."""

    def send_activation(self, peer: int, number: int, size_bytes: int, deadline_s: float) -> None:
        """Send a message that has a deadline."""

    def send_bulk(self, peer: int, flow: int, size_bytes: int) -> None:
        """Send more of a bulk transfer; it has no deadline."""

    def transmit(self, now_s: float) -> Iterable[tuple[int, bytes]]:
        """The datagrams that leave now, each with its peer."""

    def next_time_s(self) -> float:
        """When to call :meth:`transmit` again though nothing happened; infinite for never."""


class StockTransport:
    """aioquic as it is: a stream for each message with a deadline and one for each bulk transfer."""

    def __init__(self, peers: int, *, congestion: str, datagram_bytes: int) -> None:
        self.connections = [
            open_connection(RepeatableConnection, peer, congestion, datagram_bytes) for peer in range(peers)
        ]
        self._timers_s = [0.0] * peers
        self._dirty = set(range(peers))
        self._bulk_streams: dict[tuple[int, int], int] = {}

    def received(self, peer: int, datagram: bytes, now_s: float) -> None:
        """A datagram came from a peer."""
        take_datagram(self.connections[peer], datagram, receiver_address(peer), now_s)
        self._dirty.add(peer)

    def send_activation(self, peer: int, number: int, size_bytes: int, deadline_s: float) -> None:
        """Open a stream for it; aioquic knows no deadlines."""
        quic = self.connections[peer]
        stream = quic.get_next_available_stream_id(is_unidirectional=True)
        quic.send_stream_data(stream, message(ACTIVATION, number, size_bytes), end_stream=True)
        self._dirty.add(peer)

    def send_bulk(self, peer: int, flow: int, size_bytes: int) -> None:
        """Append to the transfer's stream."""
        quic = self.connections[peer]
        stream = self._bulk_streams.get((peer, flow))
        if stream is None:
            stream = quic.get_next_available_stream_id(is_unidirectional=True)
            self._bulk_streams[peer, flow] = stream
        quic.send_stream_data(stream, message(flow, 0, size_bytes))
        self._dirty.add(peer)

    def transmit(self, now_s: float) -> Iterable[tuple[int, bytes]]:
        """Every connection for itself."""
        for peer, timer_s in enumerate(self._timers_s):
            if timer_s <= now_s:
                self.connections[peer].handle_timer(now_s)
                self._dirty.add(peer)
        for peer in sorted(self._dirty):
            quic = self.connections[peer]
            for datagram, _ in quic.datagrams_to_send(now_s):
                yield peer, datagram
            self._timers_s[peer] = timer_of(quic)
        self._dirty.clear()

    def next_time_s(self) -> float:
        """The first timer of any connection."""
        return min(self._timers_s)


class OrderedTransport(StockTransport):
    """One stream to each peer, in order, as TCP or gRPC over it: what is written first is read first.

    It is not made worse than it has to be: bulk transfers take turns in pieces, and are written only
    while few bytes wait, so an activation waits for those and for what is in flight, not for whole files.
    """

    PIECE_BYTES = 16_384
    """An HTTP/2 frame of the default greatest size."""
    UNSENT_BYTES_MAX = 16_384
    """Written and not yet sent, below which bulk is written: far less than a socket's buffer."""

    def __init__(self, peers: int, *, congestion: str, datagram_bytes: int) -> None:
        super().__init__(peers, congestion=congestion, datagram_bytes=datagram_bytes)
        self._streams: dict[int, int] = {}
        self._waiting: list[deque[list[int]]] = [deque() for _ in range(peers)]

    def send_activation(self, peer: int, number: int, size_bytes: int, deadline_s: float) -> None:
        """Append to the stream."""
        self._write(peer, message(ACTIVATION, number, size_bytes))

    def send_bulk(self, peer: int, flow: int, size_bytes: int) -> None:
        """Have it written when the stream has room."""
        for waiting in self._waiting[peer]:
            if waiting[0] == flow:
                waiting[1] += size_bytes
                return
        self._waiting[peer].append([flow, size_bytes])
        self._dirty.add(peer)

    def transmit(self, now_s: float) -> Iterable[tuple[int, bytes]]:
        """Fill the streams first, and again as long as that lets more leave."""
        is_more = True
        while is_more:
            is_more = False
            for peer in range(len(self.connections)):
                self._fill(peer)
            for peer, datagram in super().transmit(now_s):
                is_more = True
                self._dirty.add(peer)
                yield peer, datagram

    def _fill(self, peer: int) -> None:
        waiting = self._waiting[peer]
        while waiting and self._unsent_bytes(peer) < self.UNSENT_BYTES_MAX:
            flow, size_bytes = waiting.popleft()
            piece_bytes = min(size_bytes, self.PIECE_BYTES)
            self._write(peer, message(flow, 0, piece_bytes))
            if size_bytes > piece_bytes:
                waiting.append([flow, size_bytes - piece_bytes])

    def _write(self, peer: int, data: bytes) -> None:
        quic = self.connections[peer]
        stream = self._streams.get(peer)
        if stream is None:
            stream = self._streams[peer] = quic.get_next_available_stream_id(is_unidirectional=True)
        quic.send_stream_data(stream, data)
        self._dirty.add(peer)

    def _unsent_bytes(self, peer: int) -> int:
        stream = self._streams.get(peer)
        if stream is None:
            return 0
        sender = self.connections[peer]._streams[stream].sender
        return sender._buffer_stop - sender.highest_offset


class _OrderedQueue(list[QuicStream]):
    """aioquic's stream queue, that what one packet carried is appended to in order of stream numbers.

    aioquic appends a set, whose order is that of addresses in memory: two runs would differ.
    """

    def extend(self, streams: Iterable[QuicStream]) -> None:
        super().extend(sorted(streams, key=lambda stream: stream.stream_id or 0))


class RepeatableConnection(QuicConnection):
    """aioquic, and the same run is the same twice."""

    @property
    def _streams_queue(self) -> list[QuicStream]:
        return self._ordered_queue

    @_streams_queue.setter
    def _streams_queue(self, streams: list[QuicStream]) -> None:
        self._ordered_queue = _OrderedQueue(streams)


def open_connection(kind: type[Connection], peer: int, congestion: str, datagram_bytes: int) -> Connection:
    """Start to dial a peer at time 0."""
    made = configuration(is_client=True, congestion=congestion, datagram_bytes=datagram_bytes)
    quic = kind(configuration=made)
    quic.connect(receiver_address(peer), now=0.0)
    return quic


def take_datagram(quic: QuicConnection, datagram: bytes, source: tuple[str, int], now_s: float) -> None:
    """Give a sender's connection what came, and forget its events: it only sends."""
    quic.receive_datagram(datagram, source, now_s)
    while quic.next_event() is not None:
        pass


def timer_of(quic: QuicConnection) -> float:
    """When a connection wants to be called."""
    timer_s = quic.get_timer()
    return NEVER_S if timer_s is None else timer_s
