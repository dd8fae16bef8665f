"""Flow control between two connections in memory: what a peer can make us hold is bounded."""

import ssl

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.rangeset import RangeSet

from odsi_proto.node.certificate import make_certificate
from odsi_proto.node.credit import STRANGER_BYTES, STREAM_BYTES, CreditedConnection
from odsi_proto.testing import make_signer

CLIENT, SERVER = ("10.0.0.1", 1), ("10.0.0.2", 2)


class Pair:
    """A sender and a credited receiver; time moves by a millisecond a round."""

    def __init__(self) -> None:
        certificate = make_certificate(make_signer(1))
        common = {"alpn_protocols": ["odsi/1"], "max_data": STRANGER_BYTES, "max_stream_data": STRANGER_BYTES}
        dials = QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, **common)  # type: ignore[arg-type]
        accepts = QuicConfiguration(is_client=False, **common)  # type: ignore[arg-type]
        accepts.certificate, accepts.private_key = certificate.x509, certificate.private_key
        self.now = 0.0
        self.sender = QuicConnection(configuration=dials)
        self.sender.connect(SERVER, now=self.now)
        self.receiver = CreditedConnection(
            configuration=accepts,
            original_destination_connection_id=self.sender.original_destination_connection_id,
        )
        self.received_bytes = 0
        self.rounds(20)

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.now += 0.001
            for one, other, address in (
                (self.sender, self.receiver, CLIENT),
                (self.receiver, self.sender, SERVER),
            ):
                timer = one.get_timer()
                if timer is not None and timer <= self.now:
                    one.handle_timer(self.now)
                for datagram, _ in one.datagrams_to_send(self.now):
                    other.receive_datagram(datagram, address, self.now)
            while (event := self.receiver.next_event()) is not None:
                if isinstance(event, StreamDataReceived):
                    self.received_bytes += len(event.data)
            while self.sender.next_event() is not None:
                pass


def send_byte_at_the_end_of_the_window(pair: Pair, stream: int) -> None:
    """One byte at the largest offset that the receiver allows, and nothing before it."""
    state = pair.sender._streams[stream]
    offset = min(state.max_stream_data_remote, pair.sender._remote_max_data) - 1
    sender = state.sender
    sender._buffer, sender._buffer_start, sender._buffer_stop = bytearray(b"x"), offset, offset + 1
    sender._pending = RangeSet()
    sender._pending.add(offset, offset + 1)
    sender.buffer_is_empty = False
    pair.sender._remote_max_data_used = 0
    if state not in pair.sender._streams_queue:
        pair.sender._streams_queue.append(state)


def test_sparse_frames_get_no_further_credit() -> None:
    """aioquic alone doubles the window by the highest offset seen: a dozen bytes took 0.5 GB."""
    pair = Pair()
    stream = pair.sender.get_next_available_stream_id(is_unidirectional=True)
    pair.sender.send_stream_data(stream, b"")
    for _ in range(12):
        send_byte_at_the_end_of_the_window(pair, stream)
        pair.rounds(5)
    held = pair.receiver._streams[stream].receiver
    assert held.highest_offset == STRANGER_BYTES
    assert len(held._buffer) <= STRANGER_BYTES
    assert pair.receiver._local_max_data.value <= 2 * STRANGER_BYTES


def test_what_is_delivered_is_credited_again_without_end() -> None:
    pair = Pair()
    sent = 0
    for _ in range(4):
        stream = pair.sender.get_next_available_stream_id(is_unidirectional=True)
        pair.sender.send_stream_data(stream, bytes(STRANGER_BYTES), end_stream=True)
        sent += STRANGER_BYTES
        pair.rounds(1_500)
    assert pair.received_bytes == sent


def test_a_trusted_peer_gets_the_larger_windows() -> None:
    pair = Pair()
    pair.receiver.trust()
    stream = pair.sender.get_next_available_stream_id(is_unidirectional=True)
    pair.sender.send_stream_data(stream, bytes(STRANGER_BYTES // 2 + 1))
    pair.rounds(1_000)
    assert pair.sender._streams[stream].max_stream_data_remote >= STREAM_BYTES


def test_a_stream_that_needs_no_more_credit_costs_no_frame_for_it() -> None:
    """Every stream of a trusted peer used to be granted the larger window, an extra frame for each step."""
    pair = Pair()
    pair.receiver.trust()
    stream = pair.sender.get_next_available_stream_id(is_unidirectional=True)
    pair.sender.send_stream_data(stream, bytes(1_000))
    pair.rounds(5)
    assert pair.sender._streams[stream].max_stream_data_remote == STRANGER_BYTES
