"""What connections and their send queue are at one moment: plain values, read from the outside.

Where aioquic keeps what people want to see of a way, and does not keep, is known here.
"""

from collections.abc import Iterable
from heapq import nsmallest
from math import inf
from typing import Any, NamedTuple

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketRecovery

from odsi_proto.node.send_queue import Message, SendQueue
from odsi_proto.units import ConnectionId, Micros


class LinkSnapshot(NamedTuple):
    """What one connection has done, and how its way is. Bytes are UDP payload, packets are datagrams."""

    connection: ConnectionId
    address: str
    is_dialler: bool
    controller: str
    """What chooses the window."""
    rtt_us: Micros
    """Smoothed; 0 before there is one, as is the next."""
    rtt_min_us: Micros
    window_bytes: int
    in_flight_bytes: int
    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int
    lost_packets: int
    """QUIC packets, as the loss detection counts them; a datagram has one, but for a handshake's."""
    lost_bytes: int


class SendSnapshot(NamedTuple):
    """What waits to be sent, over all connections."""

    messages: int
    unsent_bytes: int
    tightest: tuple[Message, ...]
    """The most urgent ones, in their order."""


class LossCount:
    """Counts the packets of one connection that were lost, whatever its congestion controller does.

    aioquic keeps no count, and controllers are exchanged; so it listens where packets are declared lost.
    """

    __slots__ = ("bytes", "packets")

    def __init__(self, recovery: QuicPacketRecovery) -> None:
        self.packets = 0
        self.bytes = 0
        declare = recovery._on_packets_lost

        def counted(
            *, packets: Iterable[QuicSentPacket], congestion_event: bool = True, **others: Any
        ) -> None:
            every = tuple(packets)
            if congestion_event:  # else a probe repeats data that may have arrived
                self.packets += len(every)
                self.bytes += sum(packet.sent_bytes for packet in every)
            declare(packets=every, congestion_event=congestion_event, **others)

        recovery._on_packets_lost = counted  # type: ignore[method-assign]  # of this connection only


class WayFacts(NamedTuple):
    """What aioquic knows of the way to a peer."""

    rtt_us: Micros
    rtt_min_us: Micros
    window_bytes: int
    in_flight_bytes: int


def way_of(quic: QuicConnection) -> WayFacts:
    """How the way is now."""
    recovery = quic._loss
    return WayFacts(
        rtt_us=Micros(int(recovery._rtt_smoothed * 1e6)),
        rtt_min_us=Micros(0 if recovery._rtt_min == inf else int(recovery._rtt_min * 1e6)),
        window_bytes=recovery.congestion_window,
        in_flight_bytes=recovery.bytes_in_flight,
    )


def waiting_of(queue: SendQueue, listed_max: int) -> SendSnapshot:
    """What waits in a queue; the most urgent ``listed_max`` one by one."""
    messages = queue.messages()
    return SendSnapshot(
        messages=len(messages),
        unsent_bytes=sum(message.unsent_bytes for message in messages),
        tightest=tuple(nsmallest(listed_max, messages, key=lambda message: message.urgency)),
    )
