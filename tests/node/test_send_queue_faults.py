"""What one connection, its losses or its peer may not do to others, or to its own tighter steps."""

import pytest
from node.lanes import Lanes

from odsi_proto.node.uplink import Uplink
from odsi_proto.node.urgency import Rank
from odsi_proto.units import ConnectionId

ONE, TWO, THREE = ConnectionId(1), ConnectionId(2), ConnectionId(3)
PACKET = 1_180
"""Bytes of a message that fills a packet."""


def lose(lanes: Lanes, packets: int) -> None:
    """Bulk on the first connection, of which ``packets`` left and were all lost."""
    lanes.queue.push(ONE, bytes(1 << 18), rank=Rank.BULK)
    lanes.window(1, packets)
    lanes.is_lost = lambda: True
    lanes.transmit()
    lanes.is_lost = lambda: False
    for _ in range(2_000):
        if lanes.quics[ONE].inside_bytes((9, 0.0, 0)) >= (packets - 4) * PACKET:
            return
        lanes.window(1, 0)
        lanes.ticks(1)
    raise AssertionError("nothing was declared lost")


@pytest.mark.parametrize("is_discarded", [False, True])
def test_a_peer_that_wants_no_more_of_a_message_costs_nobody_anything(is_discarded: bool) -> None:
    """The rest of it was written to a stream that was reset, and the exception closed the connection."""
    lanes = Lanes(1)
    lanes.window(1, 4)
    lanes.queue.push(ONE, bytes(1 << 18), rank=Rank.BULK)
    lanes.ticks(2)
    (stream,) = lanes.peers[ONE].streams
    lanes.peers[ONE].quic.stop_stream(stream, 0)
    lanes.window(1, 0 if is_discarded else 4)
    lanes.ticks(3)
    lanes.queue.push(ONE, b"after", rank=Rank.BULK)
    lanes.window(1, 4)
    lanes.ticks(5)
    assert lanes.arrived(1) == [b"after"]
    assert lanes.queue.waiting_bytes(ONE) == 0
    assert lanes.queue.messages() == []


def test_a_step_does_not_wait_for_bulk_that_is_sent_again() -> None:
    """What was lost filled the connection's turns until nothing of it was left."""
    lanes = Lanes(1)
    lose(lanes, 40)
    lanes.queue.push(ONE, b"step".ljust(PACKET, b"."), rank=Rank.STEP, deadline_s=lanes.now + 0.03)
    lanes.window(1, 2)
    lanes.ticks(3)
    assert [message.rstrip(b".") for message in lanes.arrived(1)] == [b"step"]


def test_bulk_that_is_sent_again_does_not_go_before_a_step_of_another_connection() -> None:
    """A control frame made the whole turn urgent: lost bulk left with it, and free of charge."""
    lanes = Lanes(2)
    lose(lanes, 40)
    quic = lanes.quics[ONE]
    quic.send_stream_data(quic.get_next_available_stream_id(is_unidirectional=True), b"control")
    lanes.queue.push(TWO, bytes(PACKET), rank=Rank.STEP, deadline_s=lanes.now + 0.03)
    lanes.window(1, 30)
    lanes.queue.touch(ONE, lanes.now)
    assert lanes.transmit()[:2] == [ONE, TWO]


def test_a_class_gets_its_floor_on_connections_that_can_send_whoever_came_first() -> None:
    """Four messages of a connection without room, the oldest of their class, kept it from all others."""
    lanes = Lanes(2)
    lanes.window(1, 0)
    for _ in range(8):
        lanes.queue.push(ONE, bytes(PACKET), rank=Rank.BULK)
    for _ in range(50):
        lanes.queue.push(TWO, bytes(PACKET), rank=Rank.BULK)
    for _ in range(60):
        for _ in range(10):
            lanes.queue.push(TWO, b"step".ljust(PACKET, b"."), rank=Rank.STEP, deadline_s=lanes.now + 9)
        lanes.window(2, 10)
        lanes.ticks(1)
    bulk = [message for message in lanes.arrived(2) if not message.startswith(b"step")]
    assert len(bulk) >= 0.8 * len(lanes.left) / 16


def test_what_has_begun_goes_on_while_the_peer_allows_no_further_stream() -> None:
    """A peer that counts streams until they end gave no more, and waited for what waited for one."""
    lanes = Lanes(1)
    quic = lanes.quics[ONE]
    lanes.window(1, 2)
    lanes.queue.push(ONE, b"bulk".ljust(20 * PACKET, b"."), rank=Rank.BULK)
    lanes.ticks(2)
    quic._remote_max_streams_uni = 1
    lanes.queue.push(ONE, b"step".ljust(PACKET, b"."), rank=Rank.STEP, deadline_s=lanes.now + 0.03)
    lanes.window(1, 4)
    lanes.ticks(50)
    assert [message.rstrip(b".") for message in lanes.arrived(1)] == [b"bulk"]
    quic._remote_max_streams_uni = 2
    lanes.ticks(5)
    assert [message.rstrip(b".") for message in lanes.arrived(1)] == [b"bulk", b"step"]


def test_an_exception_while_a_floor_is_paid_names_its_own_connection() -> None:
    """It named whoever had the last turn: an innocent peer's connection was closed, one after the other."""
    lanes = Lanes(2)
    lanes.queue.push(ONE, bytes(1 << 20), rank=Rank.BULK)
    lanes.window(1, 0)
    lanes.ticks(1)
    lanes.window(1, 10)
    lanes.queue._owed_bytes[Rank.BULK], lanes.queue.turn = 2_000.0, TWO
    lanes.queue.push(TWO, bytes(PACKET), rank=Rank.STEP, deadline_s=lanes.now + 9)
    lanes.quics[ONE].datagrams_to_send = None  # type: ignore[assignment,method-assign]
    with pytest.raises(TypeError):
        lanes.transmit()
    assert lanes.queue.turn == ONE


def test_a_connection_that_the_uplink_holds_still_grants_credit() -> None:
    """It waited for the turn of its bulk, at 32 such peers 5 s: their steps for this node had no streams."""
    lanes = Lanes(32, uplink=Uplink(16_000.0))
    for connection in lanes.quics:
        lanes.queue.push(connection, bytes(1 << 20), rank=Rank.BULK)
    lanes.ticks(50)
    quic = lanes.peers[ONE].quic
    allowed = quic._remote_max_streams_uni
    for _ in range(100):
        stream = quic.get_next_available_stream_id(is_unidirectional=True)
        quic.send_stream_data(stream, b"x", end_stream=True)
    lanes.ticks(10)
    assert quic._remote_max_streams_uni > allowed
    assert lanes.queue.waiting_bytes(ONE) > (1 << 20) - 20_000
