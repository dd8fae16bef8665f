"""aioquic's own asyncio endpoints: a stream for each activation and one for each bulk transfer."""

import asyncio
from contextlib import AsyncExitStack

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic import events

from bench.deadlines.messages import ACTIVATION, message
from bench.deadlines.peers import configuration
from bench.deadlines.realtime.traffic import CHUNK_BYTES, PORT, UNSENT_BYTES_MIN, Arrivals, feed_for_ever
from odsi_proto.node.send_queue import DATAGRAM_BYTES


class StockSender:
    """Messages on aioquic as it is."""

    def __init__(self, congestion: str) -> None:
        self._made = configuration(is_client=True, congestion=congestion, datagram_bytes=DATAGRAM_BYTES)
        self._open = AsyncExitStack()
        self._protocols: list[QuicConnectionProtocol] = []
        self._transfers: list[tuple[int, int]] = []
        self._streams: dict[int, int] = {}
        self._feeding: asyncio.Task[None] | None = None

    async def connect(self, host: str, connections: int) -> None:
        """Open the connections."""
        for _ in range(connections):
            opening = connect(host, PORT, configuration=self._made)
            self._protocols.append(await self._open.enter_async_context(opening))

    def send_activation(self, number: int, size_bytes: int, deadline_s: float) -> None:
        """On a stream of its own."""
        protocol = self._protocols[0]
        stream = protocol._quic.get_next_available_stream_id(is_unidirectional=True)
        protocol._quic.send_stream_data(stream, message(ACTIVATION, number, size_bytes), end_stream=True)
        protocol.transmit()

    def send_bulk(self, connection: int, flow: int) -> None:
        """On one stream for the whole transfer."""
        quic = self._protocols[connection]._quic
        self._streams[flow] = quic.get_next_available_stream_id(is_unidirectional=True)
        quic.send_stream_data(self._streams[flow], message(flow, 0, CHUNK_BYTES))
        self._transfers.append((connection, flow))
        if self._feeding is None:
            self._feeding = asyncio.create_task(feed_for_ever(self._transfers, self))

    def feed(self, transfers: list[tuple[int, int]]) -> None:
        """Append to streams that have little left."""
        least_bytes = max(CHUNK_BYTES, UNSENT_BYTES_MIN // len(transfers))
        for connection, flow in transfers:
            protocol = self._protocols[connection]
            stream = self._streams[flow]
            sending = protocol._quic._streams[stream].sender
            if sending._buffer_stop - sending.highest_offset < least_bytes:
                protocol._quic.send_stream_data(stream, message(flow, 0, CHUNK_BYTES))
                protocol.transmit()


class StockReceiver:
    """aioquic's server."""

    def __init__(self, congestion: str) -> None:
        self._made = configuration(is_client=False, congestion=congestion, datagram_bytes=DATAGRAM_BYTES)

    async def listen(self, host: str, arrivals: Arrivals) -> None:
        """Accept connections."""

        class Reading(QuicConnectionProtocol):
            def quic_event_received(self, event: events.QuicEvent) -> None:
                if isinstance(event, events.StreamDataReceived):
                    stream = (id(self), event.stream_id)
                    arrivals.stream_data(stream, event.data, is_end=event.end_stream)

        await serve(host, PORT, configuration=self._made, create_protocol=Reading)
