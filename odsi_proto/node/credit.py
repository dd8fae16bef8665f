"""Flow-control credit that follows what was delivered.

aioquic doubles a window once half of it was *seen*, by highest offset: ten sparse frames of a few
bytes make a receiver allocate half a gigabyte. Here a window begins at what the application has, so
the bytes that a peer can make us hold are bounded by the window whatever it sends.
"""

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

STRANGER_BYTES = 1 << 20
"""Window of a connection, and of each stream on it, before its peer is authenticated."""

CONNECTION_BYTES = 16 << 20
"""Window of an authenticated peer's connection: a prompt's chunks, while earlier ones are computed."""

STREAM_BYTES = 4 << 20
"""Window of one of its streams: a chunk of a large model in two round trips."""


class CreditedConnection(QuicConnection):
    """A QUIC connection whose peer is granted credit by bytes delivered."""

    connection_window = STRANGER_BYTES
    stream_window = STRANGER_BYTES

    def trust(self) -> None:
        """The peer is authenticated: it gets the larger windows."""
        self.connection_window, self.stream_window = CONNECTION_BYTES, STREAM_BYTES

    @property
    def credit_plenty_bytes(self) -> int:
        """A stream that has not come this far needs no more credit.

        Most steps never do, and cost no frame for it.
        """
        return self._local_max_stream_data_uni // 2

    @property
    def held_bytes(self) -> int:
        """Bytes up to each stream's highest offset that were not delivered yet."""
        # Not self._streams.values(), which a subclass may narrow to the streams near their limit.
        receivers = (stream.receiver for stream in dict.values(self._streams))
        return sum(r.highest_offset - r.starting_offset() for r in receivers if not r.is_finished)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        limit = self._local_max_data
        used = limit.used
        if limit.value - used < self.connection_window // 2:
            limit.value = max(limit.value, used - self.held_bytes + self.connection_window)
        limit.used = 0  # keeps the inherited method from doubling; it only reads it
        super()._write_connection_limits(builder, space)
        limit.used = used

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        receiver = stream.receiver
        seen = receiver.highest_offset
        if stream.max_stream_data_local:
            granted = stream.max_stream_data_local - receiver.starting_offset()
            if seen > self.credit_plenty_bytes and granted < self.stream_window // 2:
                stream.max_stream_data_local = receiver.starting_offset() + self.stream_window
        receiver.highest_offset = 0  # as above
        super()._write_stream_limits(builder, space, stream)
        receiver.highest_offset = seen
