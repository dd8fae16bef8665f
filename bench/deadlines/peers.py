"""aioquic connections without sockets: configurations, and the receiving ends.

Nothing random about them reaches the wire as a size, so a run can be repeated: one certificate, of a
fixed key and number.
"""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from bench.deadlines.messages import Part, Reader
from odsi_proto.node.credit import CONNECTION_BYTES, STREAM_BYTES
from odsi_proto.wire.codepoints import ALPN

Address = tuple[str, int]

IDLE_S = 3600.0
"""No connection of a run may give up: what is late is measured as late."""


def configuration(*, is_client: bool, congestion: str, datagram_bytes: int) -> QuicConfiguration:
    """As the node's, with what is varied."""
    made = QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        connection_id_length=8,
        idle_timeout=IDLE_S,
        max_data=CONNECTION_BYTES,
        max_stream_data=STREAM_BYTES,
        max_datagram_size=datagram_bytes,
        congestion_control_algorithm=congestion,
        verify_mode=ssl.CERT_NONE,
    )
    if not is_client:
        made.certificate, made.private_key = _identity()
    return made


def sender_address(number: int) -> Address:
    """Where the dialling end of a connection is."""
    return (f"10.0.{number >> 8}.{number & 255}", 4433)


def receiver_address(number: int) -> Address:
    """Where its accepting end is."""
    return (f"10.1.{number >> 8}.{number & 255}", 4433)


class Receiver:
    """The far end of a connection: acknowledges, and reads the messages. Stock aioquic in every run."""

    def __init__(self, number: int, original_cid: bytes, datagram_bytes: int) -> None:
        self.is_connected = False
        self.quic = QuicConnection(
            configuration=configuration(is_client=False, congestion="reno", datagram_bytes=datagram_bytes),
            original_destination_connection_id=original_cid,
        )
        self._from = sender_address(number)
        self._readers: dict[int, Reader] = {}

    def receive(self, datagram: bytes, now_s: float) -> Iterator[tuple[int, Part]]:
        """Take a datagram; what it completed in order, with the stream that it came on."""
        self.quic.receive_datagram(datagram, self._from, now_s)
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                yield from self._read(event)
            elif isinstance(event, events.HandshakeCompleted):
                self.is_connected = True
            elif isinstance(event, events.ConnectionTerminated):
                raise AssertionError(f"a connection of the run ended: {event.reason_phrase}")

    def _read(self, event: events.StreamDataReceived) -> Iterator[tuple[int, Part]]:
        reader = self._readers.get(event.stream_id)
        if reader is None:
            reader = self._readers[event.stream_id] = Reader()
        for part in reader.feed(event.data):
            yield event.stream_id, part
        if event.end_stream:
            del self._readers[event.stream_id]


@cache
def _identity() -> tuple[x509.Certificate, Ed25519PrivateKey]:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .sign(key, None)
    )
    return certificate, key
