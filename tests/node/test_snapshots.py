"""Connections and what waits to be sent, read from the outside; and the aioquic internals this rests on."""

import inspect
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.recovery import QuicPacketRecovery

from odsi_proto.node.connection import OrderedConnection
from odsi_proto.node.send_queue import SendQueue
from odsi_proto.node.snapshots import LossCount, waiting_of, way_of
from odsi_proto.node.urgency import Rank
from odsi_proto.units import ConnectionId


class Packet:
    """A packet as loss detection sees it."""

    sent_bytes = 1_200


class Recovery:
    """Notes what was declared lost."""

    def __init__(self) -> None:
        self.declared: list[dict[str, Any]] = []

    def _on_packets_lost(self, **arguments: Any) -> None:
        self.declared.append(arguments)


def test_lost_packets_are_counted_and_probes_are_not() -> None:
    recovery: Any = Recovery()
    losses = LossCount(recovery)
    packets = [Packet(), Packet()]

    recovery._on_packets_lost(packets=iter(packets), now=1.0, space="space")
    recovery._on_packets_lost(packets=iter(packets), now=2.0, space="space", congestion_event=False)

    assert (losses.packets, losses.bytes) == (2, 2_400)
    assert recovery.declared[0] == {
        "packets": tuple(packets),
        "congestion_event": True,
        "now": 1.0,
        "space": "space",
    }
    assert recovery.declared[1]["congestion_event"] is False


def test_aioquic_declares_losses_where_they_are_counted() -> None:
    parameters = inspect.signature(QuicPacketRecovery._on_packets_lost).parameters

    assert parameters["packets"].kind is parameters["congestion_event"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["congestion_event"].default is True
    source = inspect.getsource(QuicPacketRecovery)
    assert source.count("self._on_packets_lost(") >= 3


def test_a_way_that_was_never_measured_has_no_round_trip() -> None:
    way = way_of(QuicConnection(configuration=QuicConfiguration(is_client=True)))

    assert (way.rtt_us, way.rtt_min_us, way.in_flight_bytes) == (0, 0, 0)
    assert way.window_bytes > 0


def test_what_waits_is_listed_by_urgency_and_each_message_once() -> None:
    queue = SendQueue()
    for number in (1, 2):
        quic = OrderedConnection(configuration=QuicConfiguration(is_client=True))
        queue.add(ConnectionId(number), quic)
    bulk = queue.push(ConnectionId(1), bytes(1_000), rank=Rank.BULK)
    slow = queue.push(ConnectionId(2), bytes(100), rank=Rank.STEP, deadline_s=2.0)
    fast = queue.push(ConnectionId(1), bytes(10), rank=Rank.STEP, deadline_s=1.0)

    waiting = waiting_of(queue, 2)
    assert (waiting.messages, waiting.unsent_bytes) == (3, 1_110)
    assert waiting.tightest == (fast, slow)

    queue.hasten(bulk, 0.5)  # its old entry stays in the heap
    hastened = waiting_of(queue, 9)
    assert (hastened.messages, hastened.tightest) == (3, (bulk, fast, slow))
    queue.remove(ConnectionId(1))
    assert waiting_of(queue, 9).tightest == (slow,)
