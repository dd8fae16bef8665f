"""A send queue and its peers in memory and in virtual time: what left, in which order, what arrived."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived

from odsi_proto.node.certificate import make_certificate
from odsi_proto.node.connection import OrderedConnection
from odsi_proto.node.send_queue import DATAGRAM_BYTES, SendQueue
from odsi_proto.node.uplink import Uplink
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId

CERTIFICATE = make_certificate(make_signer(1))
NODE = ("10.0.0.1", 1)
TICK_S = 0.001
"""One way takes a tick: a packet sent at one is received at the next."""


@dataclass
class Peer:
    """The far end of one connection."""

    quic: OrderedConnection
    address: tuple[str, int]
    streams: dict[int, bytearray] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)


class Lanes:
    """One node with a connection to each of ``count`` peers."""

    def __init__(
        self,
        count: int,
        *,
        uplink: Uplink | None = None,
        credit_bytes: int = 1 << 26,
        congestion: str = "reno",
    ) -> None:
        self._congestion = congestion
        self.now = 0.0
        self.queue = SendQueue(uplink or Uplink(learns=False))
        self.peers: dict[ConnectionId, Peer] = {}
        self.quics: dict[ConnectionId, OrderedConnection] = {}
        self.left: list[ConnectionId] = []
        """The connection of every datagram that left, in order."""
        self.is_lost: Callable[[], bool] = lambda: False
        self._under_way: list[tuple[ConnectionId, bytes]] = []
        for number in range(1, count + 1):
            self._connect(ConnectionId(number), credit_bytes)
        self.transmit()
        self.ticks(20)
        self.left.clear()

    def _connect(self, connection: ConnectionId, credit_bytes: int) -> None:
        dials, accepts = (
            QuicConfiguration(
                is_client=is_client,
                alpn_protocols=["odsi/1"],
                max_data=credit_bytes,
                max_stream_data=credit_bytes,
                max_datagram_size=DATAGRAM_BYTES,
                verify_mode=ssl.CERT_NONE,
                congestion_control_algorithm=self._congestion,
            )
            for is_client in (True, False)
        )
        accepts.certificate, accepts.private_key = CERTIFICATE.x509, CERTIFICATE.private_key
        address = ("10.0.1.1", int(connection))
        quic = OrderedConnection(configuration=dials)
        quic.connect(address, now=self.now)
        far = OrderedConnection(
            configuration=accepts, original_destination_connection_id=quic.original_destination_connection_id
        )
        self.quics[connection], self.peers[connection] = quic, Peer(far, address)
        self.queue.add(connection, quic)

    def window(self, connection: int, packets: int) -> None:
        """Let a connection have so many packets in flight, without pacing."""
        loss = self.quics[ConnectionId(connection)]._loss
        loss._cc.congestion_window = packets * DATAGRAM_BYTES
        loss._pacer.packet_time = None

    def transmit(self) -> list[ConnectionId]:
        """What may leave now leaves; the connections of the datagrams in their order."""
        left = []
        numbers = {peer.address: connection for connection, peer in self.peers.items()}
        for datagram, address in self.queue.transmit(self.now):
            connection = numbers[address]  # type: ignore[index]
            left.append(connection)
            if not self.is_lost():
                self._under_way.append((connection, datagram))
        self.left += left
        return left

    def ticks(self, count: int) -> None:
        """Let time pass."""
        for _ in range(count):
            self.now += TICK_S
            arriving, self._under_way = self._under_way, []
            for connection, datagram in arriving:
                self.peers[connection].quic.receive_datagram(datagram, NODE, self.now)
            for connection, peer in self.peers.items():
                self._answer(connection, peer)
            self.transmit()

    def _answer(self, connection: ConnectionId, peer: Peer) -> None:
        quic = self.quics[connection]
        for each in (peer.quic, quic):
            timer = each.get_timer()
            if timer is not None and timer <= self.now:
                each.handle_timer(self.now)
        while (event := peer.quic.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                peer.streams.setdefault(event.stream_id, bytearray()).extend(event.data)
                if event.end_stream:
                    peer.finished.append(event.stream_id)
        for datagram, _ in peer.quic.datagrams_to_send(self.now):
            quic.receive_datagram(datagram, peer.address, self.now)
        while quic.next_event() is not None:
            pass
        self.queue.touch(connection, self.now)

    def arrived(self, connection: int) -> list[bytes]:
        """Whole messages at a peer, in the order in which they were complete."""
        peer = self.peers[ConnectionId(connection)]
        return [bytes(peer.streams[stream]) for stream in peer.finished]
