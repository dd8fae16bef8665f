"""The QUIC binding: aioquic connections over our sockets, events to a handler. No protocol rules.

One endpoint dials and accepts over the same port, so a node behind NAT is reached on the path it
opened. Nothing is sent until :meth:`QuicEndpoint.flush`, which drivers call once per turn: what a
turn produced shares packets, and :class:`~odsi_proto.node.send_queue.SendQueue` orders it over all
connections.
"""

import asyncio
import ssl
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Protocol

import structlog
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import QuicPacketType, encode_quic_version_negotiation, pull_quic_header

from odsi_proto.errors import PeerError
from odsi_proto.limits import Limits
from odsi_proto.node.certificate import Certificate, certificate_key, certificate_sha256
from odsi_proto.node.config import DEFAULT_TRANSPORT, TransportConfig
from odsi_proto.node.connection import OrderedConnection
from odsi_proto.node.credit import STRANGER_BYTES
from odsi_proto.node.send_queue import DATAGRAM_BYTES, SendQueue
from odsi_proto.node.snapshots import LinkSnapshot, LossCount, way_of
from odsi_proto.node.sockets import SocketAddress, UdpSockets
from odsi_proto.node.uplink import Uplink
from odsi_proto.node.urgency import Rank
from odsi_proto.statemachine.session import Binding
from odsi_proto.units import ConnectionId, Micros, ParticipantId, Slack
from odsi_proto.wire.codepoints import ALPN, ErrorCode

log = structlog.get_logger(__name__)

_UNSENT_BYTES_MAX = 8 << 20
"""Control bytes that wait for a peer who grants no credit; more closes the connection."""

_WAITING_BYTES_MAX = 256 << 20
"""Bytes of steps that wait for it; as much as a peer may announce to us (``Limits.incoming_bytes_max``)."""

_ACK_DELAY_S_MAX = 0.025
"""A peer may announce seconds, and the silence after which it is lost would grow with them."""

_CID_BYTES = 8
CLOSE_REASON_BYTES_MAX = 256
"""A close must fit one packet."""

_UNIDIRECTIONAL = 0x02
"""The bit of a stream id that says so (RFC 9000 section 2.1)."""


class QuicHandler(Protocol):
    """Whom a :class:`QuicEndpoint` tells."""

    def connected(self, connection: ConnectionId, binding: Binding) -> None:
        """TLS is done on a connection, dialled or accepted."""

    def stream_data(self, connection: ConnectionId, stream: int, data: bytes, fin: bool) -> None:
        """Bytes of one of the peer's unidirectional streams."""

    def stream_reset(self, connection: ConnectionId, stream: int) -> None:
        """The peer gave up one of its streams."""

    def lost(self, connection: ConnectionId, reason: str) -> None:
        """A connection is gone; nothing more is told of it."""

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        """A new least round trip."""


@dataclass(slots=True, eq=False)
class _Link:
    """One QUIC connection and what the endpoint keeps beside it."""

    id: ConnectionId
    quic: OrderedConnection
    is_dialler: bool
    expected: ParticipantId | None
    control_stream: int | None = None
    is_ready: bool = False
    rtt_min_s: float = float("inf")
    timer: asyncio.TimerHandle | None = None
    pinger: asyncio.TimerHandle | None = None
    deadline: asyncio.TimerHandle | None = None
    """Ends the connection unless its peer is authenticated before."""
    received_packets: int = 0
    received_bytes: int = 0
    losses: LossCount = field(init=False)

    def __post_init__(self) -> None:
        self.losses = LossCount(self.quic._loss)


class QuicEndpoint:
    """All QUIC connections of one participant in one process."""

    def __init__(
        self,
        handler: QuicHandler,
        *,
        certificate: Certificate,
        limits: Limits,
        alpn: str = ALPN,
        transport: TransportConfig = DEFAULT_TRANSPORT,
    ) -> None:
        self._handler = handler
        self._certificate = certificate
        self._limits = limits
        self._alpn = alpn
        self._loop = asyncio.get_running_loop()
        self._sockets = UdpSockets(self._datagram_received, self.flush)
        self._links: dict[ConnectionId, _Link] = {}
        self._by_cid: dict[bytes, _Link] = {}
        self._dirty: dict[ConnectionId, _Link] = {}
        """Links that something happened on since the last flush."""
        self._congestion = transport.congestion
        self.queue = SendQueue(Uplink(transport.uplink_bytes_s))
        self._uplink_timer: asyncio.TimerHandle | None = None
        self._ids = count(1)
        self._is_shut_down = False
        self._accepting = self._configuration(is_client=False)

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address; raises ``ConfigError`` where that can not be."""
        return await self._sockets.bind(host, port)

    async def dial(self, host: str, port: int, expected: ParticipantId | None) -> ConnectionId:
        """Start to connect; the handler is told the outcome. Raises ``PeerError`` for an unknown host."""
        address = await self._sockets.resolve(host, port)
        if self._is_shut_down:
            raise PeerError("this side is shutting down")
        quic = OrderedConnection(configuration=self._configuration(is_client=True))
        quic.connect(address, now=self._loop.time())
        link = self._add(quic, is_dialler=True, expected=expected)
        self._by_cid[quic.host_cid] = link
        self.flush()
        return link.id

    def authenticated(self, connection: ConnectionId) -> None:
        """The peer has proved who it is: no deadline any more, and more credit."""
        link = self._links.get(connection)
        if link is not None:
            link.quic.trust()
            if link.deadline is not None:
                link.deadline.cancel()

    def send_control(self, connection: ConnectionId, data: bytes) -> None:
        """Append to our control stream, the first stream that we open."""
        link = self._links.get(connection)
        if link is None:
            return
        if link.control_stream is None:
            link.control_stream = link.quic.get_next_available_stream_id(is_unidirectional=True)
        elif link.quic.is_over(link.control_stream):
            return  # the event that says so is not handled yet; it closes the connection
        link.quic.send_stream_data(link.control_stream, data)
        self._dirty[connection] = link
        if len(link.quic._streams[link.control_stream].sender._buffer) > _UNSENT_BYTES_MAX:
            self._give_up(link, ErrorCode.OVERLOADED, "the peer does not read what it is sent")

    def send_step(
        self, connection: ConnectionId, header: bytes, payload: memoryview, slack_us: Slack
    ) -> None:
        """Queue a step that can spare ``slack_us``: a stream with header and payload."""
        self._send(connection, (header, payload), Rank.STEP, self._loop.time() + slack_us / 1e6)

    def send_bulk(self, connection: ConnectionId, data: bytes | memoryview) -> None:
        """Queue bytes that no deadline waits for, as a stream of their own."""
        self._send(connection, (data,), Rank.BULK, inf)

    def _send(
        self, connection: ConnectionId, parts: tuple[bytes | memoryview, ...], rank: Rank, deadline_s: float
    ) -> None:
        link = self._links.get(connection)
        if link is None:
            return
        self.queue.push(connection, *parts, rank=rank, deadline_s=deadline_s)
        self._dirty[connection] = link
        if self.queue.waiting_bytes(connection) > _WAITING_BYTES_MAX:
            self._give_up(link, ErrorCode.OVERLOADED, "the peer does not take the steps it is sent")

    def stop_stream(self, connection: ConnectionId, stream: int, code: int) -> None:
        """Ask the peer to stop sending on one of its streams; of one that has ended, nothing."""
        link = self._links.get(connection)
        if link is not None and stream in link.quic._streams:
            link.quic.stop_stream(stream, code)
            self._dirty[connection] = link

    def close(self, connection: ConnectionId, code: int, reason: str) -> None:
        """Close after what was sent before; the handler is not told of it."""
        link = self._links.get(connection)
        if link is None:
            return
        phrase = reason.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
        try:
            self._transmit(link)
            link.quic.close(error_code=code, reason_phrase=phrase)
            self._transmit(link)
        except Exception:  # what raised when it sent raises again; the peer will notice the silence
            log.error("bug", peer=self.address_of(connection), traceback=traceback.format_exc())
        self._remove(link)

    def shut_down(self) -> None:
        """Close every connection and the sockets; nothing is dialled any more."""
        self._is_shut_down = True
        for link in tuple(self._links.values()):
            self.close(link.id, ErrorCode.NO_ERROR, "")
        if self._uplink_timer is not None:
            self._uplink_timer.cancel()
        self._sockets.close()

    def flush(self) -> None:
        """Send what is due, over all connections in the order of its urgency."""
        touched: set[ConnectionId] = set()
        while self._dirty:
            connection, link = self._dirty.popitem()
            touched.add(connection)
            self._guarded(self._drain_events, link)
        now = self._loop.time()
        for connection in touched:
            self.queue.touch(connection, now)
        self._transmit_all()

    def address_of(self, connection: ConnectionId) -> str:
        """Where the peer is, for messages."""
        link = self._links.get(connection)
        address = link.quic.get_peer_address() if link is not None else None
        return f"{address[0]}:{address[1]}" if address else "unknown"

    @property
    def connections_open(self) -> int:
        """Connections there are, those whose peer is unknown yet included."""
        return len(self._links)

    def snapshot(self) -> tuple[LinkSnapshot, ...]:
        """Every connection as it is now, the oldest first."""
        lanes = {lane.connection: lane for lane in self.queue.lanes}
        return tuple(
            LinkSnapshot(
                connection=link.id,
                address=self.address_of(link.id),
                is_dialler=link.is_dialler,
                controller=self._congestion,
                **way_of(link.quic)._asdict(),
                sent_packets=lanes[link.id].sent_packets,
                sent_bytes=lanes[link.id].sent_bytes,
                received_packets=link.received_packets,
                received_bytes=link.received_bytes,
                lost_packets=link.losses.packets,
                lost_bytes=link.losses.bytes,
            )
            for link in self._links.values()
            if link.id in lanes
        )

    def _guarded(self, action: Callable[[_Link], None], link: _Link) -> None:
        """Run what a peer's bytes set off."""
        try:
            action(link)
        except Exception:
            self._bug(link)

    def _bug(self, link: _Link) -> None:
        """An exception was raised by what a peer's bytes set off: our bug, which costs one connection."""
        # Logged as text: a renderer that shows local variables would show keys.
        bug, peer = traceback.format_exc(), self.address_of(link.id)
        self._give_up(link, ErrorCode.INTERNAL, "an internal error of this side; please report its log")
        log.error("bug", peer=peer, traceback=bug)

    def _give_up(self, link: _Link, code: ErrorCode, reason: str) -> None:
        """Close a connection on our own account, and tell the handler."""
        if link.id in self._links:
            self.close(link.id, code, reason)
            self._handler.lost(link.id, reason)

    def _handshake_overdue(self, link: _Link) -> None:
        if link.is_ready:
            what = f"the handshake took longer than {self._limits.handshake_us_max / 1e6:g} s"
        else:
            what = f"no answer within {self._limits.answer_us_max / 1e6:g} s"
        self._give_up(link, ErrorCode.HANDSHAKE_TIMEOUT, what)

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        configuration = QuicConfiguration(
            is_client=is_client,
            alpn_protocols=[self._alpn],
            connection_id_length=_CID_BYTES,
            idle_timeout=self._limits.silence_us_max / 1e6,
            max_data=STRANGER_BYTES,
            max_stream_data=STRANGER_BYTES,
            max_datagram_size=DATAGRAM_BYTES,
            congestion_control_algorithm=self._congestion,
            verify_mode=ssl.CERT_NONE,  # the session pins the key and the certificate
        )
        if not is_client:
            configuration.certificate = self._certificate.x509
            configuration.private_key = self._certificate.private_key
        return configuration

    def _add(self, quic: OrderedConnection, *, is_dialler: bool, expected: ParticipantId | None) -> _Link:
        link = _Link(ConnectionId(next(self._ids)), quic, is_dialler, expected)
        limit_us = self._limits.answer_us_max if is_dialler else self._limits.handshake_us_max
        seconds = limit_us / 1e6
        link.deadline = self._loop.call_later(seconds, self._handshake_overdue, link)
        self._links[link.id] = link
        self._dirty[link.id] = link
        self.queue.add(link.id, quic)
        return link

    def _datagram_received(self, datagram: bytes, address: SocketAddress) -> None:
        link = self._route(datagram, address)
        if link is None:
            return
        link.received_packets += 1
        link.received_bytes += len(datagram)
        now = self._loop.time()
        self._guarded(lambda link: link.quic.receive_datagram(datagram, address, now=now), link)
        if link.quic.get_peer_address() is None:
            self._remove(link)  # an Initial that did not decrypt opens nothing
        elif link.id in self._links:
            self._dirty[link.id] = link

    def _route(self, datagram: bytes, address: SocketAddress) -> _Link | None:
        """The connection a datagram belongs to; a fitting Initial opens one."""
        if datagram and not datagram[0] & 0x80:  # short header: the connection id is at a fixed place
            return self._by_cid.get(datagram[1 : 1 + _CID_BYTES])
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=_CID_BYTES)
        except ValueError:
            return None
        link = self._by_cid.get(header.destination_cid)
        if link is not None or header.packet_type == QuicPacketType.VERSION_NEGOTIATION:
            return link
        if header.version not in self._accepting.supported_versions:
            if len(datagram) >= SMALLEST_MAX_DATAGRAM_SIZE:
                answer = encode_quic_version_negotiation(
                    source_cid=header.destination_cid,
                    destination_cid=header.source_cid,
                    supported_versions=self._accepting.supported_versions,
                )
                self._sockets.send(answer, address)
            return None
        is_opening = (
            header.packet_type == QuicPacketType.INITIAL and len(datagram) >= SMALLEST_MAX_DATAGRAM_SIZE
        )
        if not is_opening or len(self._links) >= self._limits.connections_max:
            return None
        quic = OrderedConnection(
            configuration=self._accepting, original_destination_connection_id=header.destination_cid
        )
        link = self._add(quic, is_dialler=False, expected=None)
        self._by_cid[header.destination_cid] = self._by_cid[quic.host_cid] = link
        return link

    def _drain_events(self, link: _Link) -> None:
        while link.id in self._links and (event := link.quic.next_event()) is not None:
            match event:
                case events.HandshakeCompleted():
                    self._connected(link)
                case events.StreamDataReceived() if event.stream_id & _UNIDIRECTIONAL:
                    self._handler.stream_data(link.id, event.stream_id, event.data, event.end_stream)
                case events.StreamDataReceived():
                    self._give_up(link, ErrorCode.ORDER_VIOLATION, "version 1 has no bidirectional streams")
                case events.StreamReset() if event.stream_id & _UNIDIRECTIONAL:
                    self._handler.stream_reset(link.id, event.stream_id)
                case events.StopSendingReceived() if event.stream_id == link.control_stream:
                    what = "the peer reads no more of the control stream"
                    self._give_up(link, ErrorCode.ORDER_VIOLATION, what)
                case events.ConnectionIdIssued():
                    self._by_cid[event.connection_id] = link
                case events.ConnectionIdRetired():
                    self._by_cid.pop(event.connection_id, None)
                case events.ConnectionTerminated():
                    reason = self._why_terminated(link, event)
                    self._remove(link)
                    self._handler.lost(link.id, reason)
                case _:
                    pass  # acknowledged pings, stop-sending of a step that is not wanted
        if link.is_ready and link.quic._loss._rtt_min < link.rtt_min_s:
            link.rtt_min_s = link.quic._loss._rtt_min
            self._handler.rtt_measured(link.id, Micros(int(link.rtt_min_s * 1e6)))

    def _connected(self, link: _Link) -> None:
        link.is_ready = True
        if link.is_dialler and link.deadline is not None:
            link.deadline.cancel()
            rest_s = (self._limits.handshake_us_max - self._limits.answer_us_max) / 1e6
            link.deadline = self._loop.call_later(rest_s, self._handshake_overdue, link)
        link.quic._loss.max_ack_delay = min(link.quic._loss.max_ack_delay, _ACK_DELAY_S_MAX)
        certificate = link.quic.tls._peer_certificate if link.is_dialler else self._certificate.x509
        assert certificate is not None, "TLS 1.3 has no acceptor without a certificate"
        binding = Binding(
            is_dialler=link.is_dialler,
            acceptor_certificate_sha256=certificate_sha256(certificate),
            acceptor_key=certificate_key(certificate),
            expected=link.expected,
        )
        self._ping(link)
        self._handler.connected(link.id, binding)

    def _ping(self, link: _Link) -> None:
        """Keep the connection alive, and notice within the silence limit when the peer is not."""
        link.quic.send_ping(0)
        self._dirty[link.id] = link
        link.pinger = self._loop.call_later(self._limits.keep_alive_us / 1e6, self._ping_again, link)

    def _ping_again(self, link: _Link) -> None:
        self._ping(link)
        self.flush()

    def _why_terminated(self, link: _Link, event: events.ConnectionTerminated) -> str:
        if event.reason_phrase == "Idle timeout":
            within = f"{self._limits.silence_us_max / 1e6:.1f} s"
            return f"no packet for {within}" if link.is_ready else f"no answer within {within}"
        if event.frame_type is not None:
            what = event.reason_phrase or f"QUIC error {event.error_code:#x}"
            return f"QUIC handshake or transport failed: {what}"
        if event.error_code == ErrorCode.NO_ERROR:
            return "closed by the peer"
        said = f": {event.reason_phrase}" if event.reason_phrase else ""
        return f"closed by the peer, {ErrorCode.name_of(event.error_code)}{said}"

    def _transmit_all(self) -> None:
        now = self._loop.time()
        while True:
            try:
                for datagram, address in self.queue.transmit(now):
                    self._sockets.send(datagram, address)
                break
            except Exception:
                link = self._links.get(self.queue.turn)
                if link is None:
                    raise
                self._bug(link)
        for connection in self.queue.served:
            if connection in self._links:
                self._arm(self._links[connection])
        self.queue.served.clear()
        if self._uplink_timer is not None:
            self._uplink_timer.cancel()
        at = self.queue.next_time(now)
        self._uplink_timer = None if at is None else self._loop.call_at(at, self._transmit_all)

    def _transmit(self, link: _Link) -> None:
        for datagram, address in link.quic.datagrams_to_send(now=self._loop.time()):
            self._sockets.send(datagram, address)

    def _arm(self, link: _Link) -> None:
        at = link.quic.get_timer()
        if link.timer is not None:
            if link.timer.when() == at and not link.timer.cancelled():
                return
            link.timer.cancel()
        link.timer = None if at is None else self._loop.call_at(at, self._timer_due, link)

    def _timer_due(self, link: _Link) -> None:
        link.timer = None
        now = self._loop.time()
        self._guarded(lambda link: link.quic.handle_timer(now=now), link)
        self._dirty[link.id] = link
        self.flush()

    def _remove(self, link: _Link) -> None:
        self._links.pop(link.id, None)
        self._dirty.pop(link.id, None)
        self.queue.remove(link.id)
        for cid in [cid for cid, other in self._by_cid.items() if other is link]:
            del self._by_cid[cid]
        for handle in (link.timer, link.pinger, link.deadline):
            if handle is not None:
                handle.cancel()
