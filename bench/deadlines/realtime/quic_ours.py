"""This project's endpoint: the node's own sockets, send queue, controller and uplink budget."""

import asyncio
from itertools import cycle

from bench.deadlines.messages import ACTIVATION, HEADER_BYTES, message
from bench.deadlines.realtime.traffic import CHUNK_BYTES, PORT, UNSENT_BYTES_MIN, Arrivals, feed_for_ever
from odsi_proto.limits import Limits
from odsi_proto.node.certificate import make_certificate
from odsi_proto.node.config import TransportConfig
from odsi_proto.node.quic import QuicEndpoint
from odsi_proto.statemachine.session import Binding
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, Micros, Slack


class _Handler:
    """Trusts every peer, and reads what comes."""

    def __init__(self, arrivals: Arrivals | None) -> None:
        self.endpoint: QuicEndpoint
        self.rtt_min_us = 0
        self.connected_any = asyncio.Event()
        self._arrivals = arrivals

    def connected(self, connection: ConnectionId, binding: Binding) -> None:
        self.endpoint.authenticated(connection)
        self.connected_any.set()

    def stream_data(self, connection: ConnectionId, stream: int, data: bytes, fin: bool) -> None:
        if self._arrivals is not None:
            self._arrivals.stream_data((connection, stream), data, is_end=fin)

    def stream_reset(self, connection: ConnectionId, stream: int) -> None:
        pass

    def lost(self, connection: ConnectionId, reason: str) -> None:
        raise AssertionError(f"a connection of the run ended: {reason}")

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        self.rtt_min_us = int(rtt_min_us)


class OurSender:
    """Steps and bulk on the node's endpoint."""

    def __init__(self, congestion: str) -> None:
        self._handler = _Handler(None)
        self._endpoint = _open(self._handler, 1, congestion)
        self._connections: list[ConnectionId] = []
        self._transfers: list[tuple[int, int]] = []
        self._feeding: asyncio.Task[None] | None = None

    async def connect(self, host: str, connections: int) -> None:
        """Open the connections, one after the other."""
        for _ in range(connections):
            self._handler.connected_any.clear()
            self._connections.append(await self._endpoint.dial(host, PORT, None))
            await self._handler.connected_any.wait()

    def send_activation(self, number: int, size_bytes: int, deadline_s: float) -> None:
        """As a step."""
        data = memoryview(message(ACTIVATION, number, size_bytes))
        header, payload = bytes(data[:HEADER_BYTES]), data[HEADER_BYTES:]
        slack_us = Slack(int(deadline_s * 1e6) - self._handler.rtt_min_us // 2)
        self._endpoint.send_step(self._connections[0], header, payload, slack_us)
        self._endpoint.flush()

    def send_bulk(self, connection: int, flow: int) -> None:
        """In pieces of bulk."""
        self._transfers.append((connection, flow))
        if self._feeding is None:
            self._feeding = asyncio.create_task(feed_for_ever(self._transfers, self))

    def feed(self, transfers: list[tuple[int, int]]) -> None:
        """Push pieces, the transfers of a connection in turn, where little waits."""
        for connection in {connection for connection, _ in transfers}:
            flows = cycle(flow for of, flow in transfers if of == connection)
            while self._endpoint.queue.waiting_bytes(self._connections[connection]) < UNSENT_BYTES_MIN:
                data = message(next(flows), 0, CHUNK_BYTES)
                self._endpoint.send_bulk(self._connections[connection], data)
        self._endpoint.flush()


class OurReceiver:
    """The node's endpoint, reading."""

    def __init__(self, congestion: str) -> None:
        self._congestion = congestion
        self._endpoint: QuicEndpoint | None = None

    async def listen(self, host: str, arrivals: Arrivals) -> None:
        """Accept connections."""
        self._endpoint = _open(_Handler(arrivals), 2, self._congestion)
        await self._endpoint.bind(host, PORT)


def _open(handler: _Handler, seed: int, congestion: str) -> QuicEndpoint:
    handler.endpoint = QuicEndpoint(
        handler,
        certificate=make_certificate(make_signer(seed)),
        limits=Limits(),
        transport=TransportConfig(congestion=congestion),
    )
    return handler.endpoint
