"""A QUIC connection whose streams leave in the order of their urgency, at a cost without idle ones.

Theory of operation. For every packet, aioquic looks at all streams that are not finished, most of which
only wait for an acknowledgement, in an order that its use of a set leaves to chance: 32 us a packet
with one stream, 584 us with a thousand. Its two collections are replaced here by ones that yield the
few that a packet can be about:

- ``_streams_queue`` becomes a :class:`_Service`, the streams with something to send or to discard, the
  most urgent first. A stream enters when its sender or receiver says so (:class:`_Sender`,
  :class:`_Receiver`) and leaves when it is seen to be idle.
- ``_streams`` becomes a :class:`_Streams`, a mapping whose ``values()`` are those that may need more
  credit: streams that came near their limit, none of which a step is.

What is used of aioquic is named in ``tests/node/test_aioquic_contract.py``.
"""

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import Any

from aioquic.quic import events
from aioquic.quic.connection import NetworkAddress, QuicNetworkPath
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketPacer
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

from odsi_proto.node.congestion import DelayCongestionControl
from odsi_proto.node.credit import CreditedConnection
from odsi_proto.node.urgency import FIRST, Urgency

_BURST_PACKETS, _BURST_S = 4, 0.0015
"""What may leave at once after a pause: as much as a timer that is late by a millisecond makes up for, or so
many packets."""

_FRAME_BYTES_MIN = 24
"""A packet with less room than this takes no further stream's data: a frame's header and a few bytes."""


class OrderedConnection(CreditedConnection):
    """A QUIC connection that sends by urgency, as much as it is asked to at once."""

    def __init__(self, **configuration: Any) -> None:
        self._service = _Service(self)
        self._table = _Streams()
        self._flight_bytes_max: int | None = None
        self.builder: QuicPacketBuilder | None = None
        super().__init__(**configuration)
        self._loss._pacer = _Pacer(max_datagram_size=self._max_datagram_size)

    # aioquic assigns to both names: what it puts there is replaced by ours.

    @property
    def _streams(self) -> "_Streams":
        return self._table

    @_streams.setter
    def _streams(self, _: object) -> None:
        pass

    @property  # type: ignore[override]  # what aioquic does with its list, this can do
    def _streams_queue(self) -> "_Service":
        return self._service

    @_streams_queue.setter
    def _streams_queue(self, _: object) -> None:
        self._service.is_serving = False

    @property
    def urgency(self) -> Urgency | None:
        """Of the most urgent stream that has something to send, retransmissions included."""
        return self._service.urgency

    def room_bytes(self, now: float) -> int:
        """What may leave now: nothing while the pacer asks to wait."""
        return 0 if self._loss._pacer.next_send_time(now) is not None else self.window_left_bytes

    @property
    def window_left_bytes(self) -> int:
        """What the congestion window has left."""
        return self._loss.congestion_window - self._loss.bytes_in_flight

    @property
    def can_open(self) -> bool:
        """Whether the peer lets us open one more unidirectional stream, and write to it."""
        has_place = self._local_next_stream_id_uni // 4 < self._remote_max_streams_uni
        return has_place and self._remote_max_stream_data_uni > 0

    def inside_bytes(self, up_to: Urgency) -> int:
        """What streams as urgent as this have that did not leave yet, retransmissions included."""
        return self._service.pending_bytes(up_to)

    @property
    def credit_bytes(self) -> int:
        """What the peer's flow control of the connection has left."""
        return self._remote_max_data - self._remote_max_data_used

    def stream_credit_bytes(self, stream: int) -> int:
        """What the peer takes more of one of our streams, of a new one too."""
        known = self._streams.get(stream)
        if known is None:
            return self._remote_max_stream_data_uni
        return known.max_stream_data_remote - known.sender._buffer_stop

    def is_over(self, stream: int) -> bool:
        """Whether nothing more can be written to a stream that was opened: its peer stopped it."""
        known = self._streams.get(stream)
        if known is None:
            return self._stream_is_discarded(stream)
        return known.sender._reset_error_code is not None

    @property
    def rtt_s(self) -> float:
        """The latest round trip; at least a millisecond to aioquic, 0 before there is one."""
        return self._loss._rtt_latest

    @property
    def queue_delay_s(self) -> float:
        """How much longer than the shortest round trip the latest one took: the queue on the way.

        A congestion controller that keeps an estimate of its own is believed instead.
        """
        controller = self._loss._cc
        if isinstance(controller, DelayCongestionControl):
            return controller.queue_delay_s
        return max(0.0, self._loss._rtt_latest - self._loss._rtt_min)

    def give_way_at(self, queue_s: float) -> None:
        """Let the congestion controller cut at a queue of ``queue_s``, if it is one that cuts at a queue."""
        controller = self._loss._cc
        if isinstance(controller, DelayCongestionControl):
            controller.target_s = queue_s

    @property
    def datagram_bytes(self) -> int:
        """UDP payload of a full datagram."""
        return self._max_datagram_size

    def rank(self, stream: int, urgency: Urgency) -> None:
        """Give a stream of ours its urgency, before or after data was written to it."""
        self._service.rank(stream, urgency)

    def datagrams_within(self, now: float, flight_bytes: int) -> list[tuple[bytes, NetworkAddress]]:
        """As ``datagrams_to_send``, with at most ``flight_bytes`` that count as in flight."""
        self._flight_bytes_max = flight_bytes
        try:
            return self.datagrams_to_send(now)
        finally:
            self._flight_bytes_max = None

    def signals(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """What is not stream data: acknowledgements, credit, pings."""
        self._service.is_muted = True
        try:
            return self.datagrams_within(now, self.datagram_bytes)
        finally:
            self._service.is_muted = False

    def _write_application(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> None:
        limit = self._flight_bytes_max
        if limit is not None and not self._probe_pending and builder.max_flight_bytes is not None:
            builder.max_flight_bytes = min(builder.max_flight_bytes, limit)
        self.builder = builder
        super()._write_application(builder, network_path, now)


class _Pacer(QuicPacketPacer):
    """aioquic's, with shorter bursts.

    After a pause aioquic sends 16 packets at once: 8 ms at 20 Mbit/s, which a shallow queue does not take.
    The eight packets of a step were the losses that kept the window small.
    """

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window=congestion_window, smoothed_rtt=smoothed_rtt)
        assert self.packet_time is not None
        self.bucket_max = min(self.bucket_max, max(_BURST_PACKETS * self.packet_time, _BURST_S))
        self.bucket_time = min(self.bucket_time, self.bucket_max)


class _Service:
    """The streams that the next packet may be about, in the order in which it should serve them.

    aioquic iterates twice for a packet: to serve, and to make a new order, which is not its business here.
    """

    def __init__(self, connection: OrderedConnection) -> None:
        self.is_serving = False
        self.is_muted = False
        """No stream is served; those that are over are discarded, which lets the peer open others."""
        self.connection = connection
        self._waiting: list[tuple[Urgency, int, QuicStream]] = []
        self._known: dict[int, Urgency] = {}
        """Urgency of each of the waiting, to find it again."""
        self._given: dict[int, Urgency] = {}
        """Urgency that our own streams were given; forgotten with the stream."""

    @property
    def urgency(self) -> Urgency | None:
        for urgency, _, stream in self._waiting:
            if not stream.is_finished and _has_something(stream):
                return urgency
        return None

    def pending_bytes(self, up_to: Urgency) -> int:
        """Of those that wait, up to there: few, unless many packets were lost."""
        pending_bytes = 0
        for urgency, _, stream in self._waiting:
            if urgency > up_to:
                break
            pending_bytes += sum(part.stop - part.start for part in stream.sender._pending)
        return pending_bytes

    def append(self, stream: QuicStream) -> None:
        """A stream is new: from now on both its ends say when it needs service."""
        # Both get a class of ours, without new slots' worth of objects: this runs for every step.
        sender, receiver = stream.sender, stream.receiver
        sender.__class__, receiver.__class__ = _Sender, _Receiver
        sender.service = receiver.service = self  # type: ignore[attr-defined]  # they have become ours
        self.wake(stream.stream_id)

    def extend(self, sent: Iterable[QuicStream]) -> None:
        """Streams that were served keep their place."""

    def rank(self, stream_id: int, urgency: Urgency) -> None:
        self._given[stream_id] = urgency
        stream = self.connection._streams.get(stream_id)
        if stream is not None and stream_id in self._known:
            self._waiting.remove((self._known.pop(stream_id), stream_id, stream))
            self.wake(stream_id)

    def __iter__(self) -> Iterator[QuicStream]:
        if self.is_serving:
            return iter(())
        self.is_serving = True
        return self._serve()

    def _serve(self) -> Iterator[QuicStream]:
        builder = self.connection.builder
        assert builder is not None, "streams are served while a packet is written"
        for entry in tuple(self._waiting):
            stream = entry[2]
            if stream.is_finished:
                self._drop(entry)
                self._given.pop(entry[1], None)
                yield stream  # to be discarded
                continue
            if self.is_muted:
                continue
            if _has_something(stream):
                if builder.remaining_flight_space < _FRAME_BYTES_MIN:
                    return
                yield stream
            if not _has_something(stream):
                self._drop(entry)

    def wake(self, stream_id: int | None) -> None:
        """A stream may have something for the next packet."""
        # By id: an end that knew its stream would be garbage that only the collector finds.
        if stream_id is None or stream_id in self._known:
            return
        stream = self.connection._streams.get(stream_id)
        if stream is not None:
            self._known[stream_id] = urgency = self._given.get(stream_id, FIRST)
            insort(self._waiting, (urgency, stream_id, stream))

    def _drop(self, entry: tuple[Urgency, int, QuicStream]) -> None:
        if self._known.pop(entry[1], None) is not None:
            self._waiting.remove(entry)


def _has_something(stream: QuicStream) -> bool:
    sender = stream.sender
    # To aioquic a buffer of which all was sent is empty once it has been asked for more.
    has_data = not sender.buffer_is_empty and (len(sender._pending) > 0 or sender._pending_eof)
    return has_data or sender.reset_pending or stream.receiver.stop_pending


class _Streams(dict[int, QuicStream]):
    """All streams by id; its values, for aioquic's look at limits, are those near theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.near_limit: dict[int, QuicStream] = {}

    def is_near_limit(self, stream_id: int | None) -> None:
        """A stream may need more credit."""
        if stream_id is not None and stream_id in self:
            self.near_limit[stream_id] = self[stream_id]

    def values(self) -> Any:
        return self.near_limit.values()

    def pop(self, stream_id: int, *default: Any) -> Any:
        self.near_limit.pop(stream_id, None)
        return super().pop(stream_id, *default)


class _Sender(QuicStreamSender):
    """A sender that says when there is something to send again, or nothing any more."""

    service: _Service

    def write(self, data: bytes, end_stream: bool = False) -> None:
        super().write(data, end_stream=end_stream)
        self.service.wake(self._stream_id)

    def reset(self, error_code: int) -> None:
        super().reset(error_code)
        self.service.wake(self._stream_id)

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        super().on_data_delivery(delivery, start, stop, fin)
        if delivery != QuicDeliveryState.ACKED or self.is_finished:
            self.service.wake(self._stream_id)

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        self.service.wake(self._stream_id)


class _Receiver(QuicStreamReceiver):
    """A receiver that says when it is done, wants the peer to stop, or nears the end of its credit."""

    service: _Service

    def handle_frame(self, frame: QuicStreamFrame) -> events.StreamDataReceived | None:
        event = super().handle_frame(frame)
        if self.is_finished:
            self.service.wake(self._stream_id)
        elif self.highest_offset > self.service.connection.credit_plenty_bytes:
            self.service.connection._streams.is_near_limit(self._stream_id)
        return event

    def handle_reset(self, *, final_size: int, error_code: int = 0) -> events.StreamReset | None:
        event = super().handle_reset(final_size=final_size, error_code=error_code)
        self.service.wake(self._stream_id)
        return event

    def stop(self, error_code: int = 0) -> None:
        super().stop(error_code)
        self.service.wake(self._stream_id)

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_stop_sending_delivery(delivery)
        self.service.wake(self._stream_id)
