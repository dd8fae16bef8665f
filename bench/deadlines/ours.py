"""This project's transport for the comparison: the node's send queue, its controller and its uplink budget.

What the node does with sockets and a clock is done here with simulated ones; the queue, the connections
and the controller are those of :mod:`odsi_proto.node`.
"""

from collections.abc import Iterable

from aioquic.quic.connection import QuicConnection

from bench.deadlines.messages import ACTIVATION, message
from bench.deadlines.peers import receiver_address
from bench.deadlines.transports import NEVER_S, open_connection, take_datagram, timer_of
from odsi_proto.node.connection import OrderedConnection
from odsi_proto.node.send_queue import SendQueue
from odsi_proto.node.uplink import Uplink
from odsi_proto.node.urgency import Rank
from odsi_proto.units import ConnectionId


class QueueTransport:
    """Everything that the node sends in one order of deadlines, over all its connections."""

    def __init__(self, peers: int, *, congestion: str, datagram_bytes: int, uplink: Uplink) -> None:
        self._queue = SendQueue(uplink)
        self._connections: list[OrderedConnection] = []
        self._peer_at = {receiver_address(peer): peer for peer in range(peers)}
        for peer in range(peers):
            quic = open_connection(OrderedConnection, peer, congestion, datagram_bytes)
            quic.trust()
            self._connections.append(quic)
            self._queue.add(ConnectionId(peer), quic)
        self._timers_s = [0.0] * peers
        self._uplink_s = NEVER_S

    @property
    def connections(self) -> list[QuicConnection]:
        """By the number of the peer."""
        return [*self._connections]

    def received(self, peer: int, datagram: bytes, now_s: float) -> None:
        """A datagram came from a peer."""
        take_datagram(self._connections[peer], datagram, receiver_address(peer), now_s)
        self._queue.touch(ConnectionId(peer), now_s)
        self._timers_s[peer] = now_s  # to be looked at again

    def send_activation(self, peer: int, number: int, size_bytes: int, deadline_s: float) -> None:
        """Queue a step; as the node does, with half of the least round trip taken off for the way."""
        data = message(ACTIVATION, number, size_bytes)
        leaves_s = deadline_s - self._connections[peer]._loss._rtt_min / 2
        self._queue.push(ConnectionId(peer), data, rank=Rank.STEP, deadline_s=leaves_s)

    def send_bulk(self, peer: int, flow: int, size_bytes: int) -> None:
        """Queue bytes that no deadline waits for."""
        self._queue.push(ConnectionId(peer), message(flow, 0, size_bytes), rank=Rank.BULK)

    def transmit(self, now_s: float) -> Iterable[tuple[int, bytes]]:
        """What the queue lets go."""
        for peer, timer_s in enumerate(self._timers_s):
            if timer_s <= now_s:
                self._connections[peer].handle_timer(now_s)
                self._queue.touch(ConnectionId(peer), now_s)
        for datagram, address in self._queue.transmit(now_s):
            yield self._peer_at[address[0], address[1]], datagram
        uplink_s = self._queue.next_time(now_s)
        self._uplink_s = NEVER_S if uplink_s is None else uplink_s
        for peer in self._queue.served:
            self._timers_s[peer] = timer_of(self._connections[peer])
        self._queue.served.clear()

    def next_time_s(self) -> float:
        """The first timer of a connection, or when the uplink has room again."""
        return min(*self._timers_s, self._uplink_s)
