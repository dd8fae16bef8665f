"""What one connection, its losses or its peer may not do to others, or to its own tighter steps."""

import pytest
from node.lanes import Lanes

from odsi_proto.node.send_queue import Rank
from odsi_proto.units import ConnectionId

ONE, TWO, THREE = ConnectionId(1), ConnectionId(2), ConnectionId(3)
PACKET = 1_180
"""Bytes of a message that fills a packet."""


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
