"""Real aioquic connections over simulated links, in virtual time.

    transport of a node ──► forward link (shared by all senders) ──► receivers
                     ▲                                                  │
                     └──────────── way back ◄───────────────────────────┘

Time jumps from one event to the next. What happens at one time is handled in a fixed order: arrivals
forward, arrivals backward, receivers, nodes.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.stream import QuicStreamSender
from aioquic.tls import Epoch

from bench.deadlines.link import NS_PER_S, Link
from bench.deadlines.messages import Part
from bench.deadlines.peers import Receiver
from bench.deadlines.scenario import HEADERS_BYTES
from bench.deadlines.transports import Transport

ACK_DELAY_NS = 1_000_000
"""aioquic acknowledges within a millisecond: a timer that is due before then needs no earlier one."""

NEVER_NS = 1 << 62


class Flight(NamedTuple):
    """A datagram on its way forward."""

    end: int
    datagram: bytes
    packet: QuicSentPacket | None
    """What the sender's aioquic knows of it, while packets are followed."""


class Node:
    """A sender with its connections, whose ends are numbered over the whole network."""

    def __init__(self, transport: Transport, first_end: int) -> None:
        self.transport = transport
        self.first_end = first_end
        self.wakes_ns = 0
        self.is_dirty = True
        """Something happened since it last transmitted."""


PartHandler = Callable[[int, int, Part, int], None]
"""Told of each end, stream, part of a message, and the time in nanoseconds."""


class Network:
    """Nodes, their receivers and the links between."""

    def __init__(self, forward: Link, back: Link, datagram_bytes: int, on_part: PartHandler) -> None:
        self.forward = forward
        self.nodes: list[Node] = []
        self.lost: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        """By end and stream, the byte ranges that were in dropped packets."""
        self.sent_packets: list[int] = []
        self.dropped_packets: list[int] = []
        """By end, in the direction of the data, since packets are followed."""
        self.packets = 0
        """Offered to either link."""
        self._back = back
        self._datagram_bytes = datagram_bytes
        self._on_part = on_part
        self._receivers: list[Receiver] = []
        self._node_of: list[Node] = []
        self._timers_ns: list[int] = []
        self._numbers: list[int] = []
        """The next packet number of each end, while packets are followed."""

    def add(self, transport: Transport) -> Node:
        """A node, and a receiver for each of its connections."""
        node = Node(transport, len(self._receivers))
        self.nodes.append(node)
        for peer, quic in enumerate(transport.connections):
            cid = quic.original_destination_connection_id
            self._receivers.append(Receiver(peer, cid, self._datagram_bytes))
            self._node_of.append(node)
            self._timers_ns.append(NEVER_NS)
            self.sent_packets.append(0)
            self.dropped_packets.append(0)
        return node

    @property
    def is_connected(self) -> bool:
        """Whether every handshake is done."""
        return all(receiver.is_connected for receiver in self._receivers)

    def follow_packets(self) -> None:
        """From now on know what is in which datagram: handshakes are over, and each holds one packet."""
        self._numbers = [quic._packet_number for node in self.nodes for quic in node.transport.connections]

    def next_ns(self) -> int:
        """When something happens by itself."""
        times_ns = [min(node.wakes_ns for node in self.nodes), min(self._timers_ns)]
        links_ns = (self.forward.next_ns, self._back.next_ns)
        return min(*times_ns, *(link_ns for link_ns in links_ns if link_ns is not None))

    def turn(self, now_ns: int) -> None:
        """Do what is due."""
        now_s = now_ns / NS_PER_S
        self._arrive_forward(now_ns, now_s)
        for end, datagram in self._back.take(now_ns):
            node = self._node_of[end]
            node.transport.received(end - node.first_end, datagram, now_s)
            node.is_dirty = True
        self._back.dropped.clear()
        for end, timer_ns in enumerate(self._timers_ns):
            if timer_ns <= now_ns:
                self._answer(end, now_ns, now_s)
        for node in self.nodes:
            if node.is_dirty or node.wakes_ns <= now_ns:
                self._transmit(node, now_ns, now_s)
        if self.forward.dropped:
            self._note_dropped()

    def _arrive_forward(self, now_ns: int, now_s: float) -> None:
        for end, datagram, _ in self.forward.take(now_ns):
            receiver = self._receivers[end]
            for stream, part in receiver.receive(datagram, now_s):
                self._on_part(end, stream, part, now_ns)
            if self._timers_ns[end] > now_ns + ACK_DELAY_NS:
                self._timers_ns[end] = _in_ns(receiver.quic.get_timer())

    def _answer(self, end: int, now_ns: int, now_s: float) -> None:
        quic = self._receivers[end].quic
        quic.handle_timer(now_s)
        for datagram, _ in quic.datagrams_to_send(now_s):
            self._back.offer(now_ns, len(datagram) + HEADERS_BYTES, (end, datagram))
            self.packets += 1
        self._timers_ns[end] = _in_ns(quic.get_timer())

    def _transmit(self, node: Node, now_ns: int, now_s: float) -> None:
        node.is_dirty = False
        connections = node.transport.connections
        for peer, datagram in node.transport.transmit(now_s):
            end = node.first_end + peer
            packet = None
            if self._numbers:
                number = self._numbers[end]
                self._numbers[end] += 1
                packet = connections[peer]._spaces[Epoch.ONE_RTT].sent_packets[number]
                self.sent_packets[end] += 1
            self.forward.offer(now_ns, len(datagram) + HEADERS_BYTES, Flight(end, datagram, packet))
            self.packets += 1
        node.wakes_ns = _in_ns(node.transport.next_time_s())

    def _note_dropped(self) -> None:
        for end, _, packet in self.forward.dropped:
            if packet is None:
                continue
            self.dropped_packets[end] += 1
            for handler, arguments in packet.delivery_handlers:
                sender = getattr(handler, "__self__", None)
                if isinstance(sender, QuicStreamSender) and len(arguments) == 3:
                    begin, stop, _ = arguments
                    self.lost[end, sender._stream_id or 0].append((begin, stop))
        self.forward.dropped.clear()


def _in_ns(time_s: float | None) -> int:
    """A time of aioquic, rounded up so that its timer is due then."""
    if time_s is None or time_s > 1e9:
        return NEVER_NS
    return int(time_s * NS_PER_S) + 1
