"""aioquic is pinned because the binding builds on its internals: a new version must pass these first."""

import inspect

from aioquic._buffer import Buffer
from aioquic.quic import connection as aioquic_connection
from aioquic.quic import recovery, stream
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Context

CONNECTION = inspect.getsource(aioquic_connection)


def test_the_attributes_that_the_binding_reads_are_there() -> None:
    quic = QuicConnection(configuration=QuicConfiguration(is_client=True))
    assert quic._streams == {}
    assert quic._loss._rtt_min == float("inf")
    assert quic._loss._rtt_latest == 0.0
    assert quic._loss._pacer.next_send_time(0.0) is None
    assert quic._loss._cc.congestion_window > 0
    assert quic._remote_max_data == quic._remote_max_data_used == 0
    assert quic._remote_max_streams_uni == quic._remote_max_stream_data_uni == 0
    assert quic._local_next_stream_id_uni == 2
    assert quic._stream_is_discarded(2) is False
    assert quic._probe_pending is False
    assert "_peer_certificate" in inspect.getsource(Context)
    assert 'reason_phrase="Idle timeout"' in CONNECTION
    assert "max(latest_rtt, 0.001)" in inspect.getsource(recovery)  # so owd is at least 500 us
    assert Buffer(data=b"x").eof() is False


def test_the_stream_queue_is_used_where_its_replacement_expects_it() -> None:
    """Made once, appended to twice, and for a packet: iterated, rebuilt, extended."""
    uses = [line.strip() for line in CONNECTION.splitlines() if "_streams_queue" in line]
    assert uses == [
        "self._streams_queue: list[QuicStream] = []",
        "self._streams_queue.append(stream)",
        "self._streams_queue.append(stream)",
        "for stream in self._streams_queue:",
        "self._streams_queue = [",
        "for stream in self._streams_queue",
        "self._streams_queue.extend(sent)",
    ]


def test_the_values_of_the_streams_are_only_looked_at_for_their_limits() -> None:
    uses = [line.strip() for line in CONNECTION.splitlines() if "self._streams." in line]
    assert [use for use in uses if ".values()" in use or ".items()" in use or ".keys()" in use] == [
        "for stream in self._streams.values():"
    ]
    after = CONNECTION.split("for stream in self._streams.values():")[1].splitlines()[1]
    assert "self._write_stream_limits(" in after


def test_the_ends_of_a_stream_are_plain_objects_whose_class_can_be_replaced() -> None:
    made = stream.QuicStream(stream_id=2, readable=False)
    assert "__slots__" not in vars(type(made.sender))
    assert "__slots__" not in vars(type(made.receiver))
    assert made.sender._stream_id == made.receiver._stream_id == 2
    assert made.sender._buffer_stop == 0
    assert made.sender._reset_error_code is None
    assert len(made.sender._pending) == 0
    assert made.sender._pending_eof is False
    assert made.receiver.highest_offset == 0
