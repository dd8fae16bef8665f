"""The send queue: the most urgent bytes first, over all connections; nothing lost, nobody starved."""

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node.lanes import Lanes

from odsi_proto.node.congestion import TARGET_S
from odsi_proto.node.send_queue import DATAGRAM_BYTES, STEPS_TARGET_S
from odsi_proto.node.uplink import Uplink
from odsi_proto.node.urgency import Rank
from odsi_proto.units import ConnectionId

ONE, TWO, THREE = ConnectionId(1), ConnectionId(2), ConnectionId(3)
PACKET = 1_180
"""Bytes of a message that fills a packet."""


def step(lanes: Lanes, connection: ConnectionId, name: bytes, *, within_s: float, size: int = PACKET) -> None:
    lanes.queue.push(connection, name.ljust(size, b"."), rank=Rank.STEP, deadline_s=lanes.now + within_s)


def names(messages: list[bytes]) -> list[bytes]:
    return [message.rstrip(b".") for message in messages]


def test_of_two_steps_on_one_connection_the_tighter_leaves_first() -> None:
    lanes = Lanes(1)
    step(lanes, ONE, b"loose", within_s=0.5)
    step(lanes, ONE, b"tight", within_s=0.1)
    lanes.ticks(5)
    assert names(lanes.arrived(1)) == [b"tight", b"loose"]


def test_of_steps_on_several_connections_the_tightest_leaves_first() -> None:
    lanes = Lanes(3)
    step(lanes, ONE, b"", within_s=0.3)
    step(lanes, TWO, b"", within_s=0.1)
    step(lanes, THREE, b"", within_s=0.2)
    assert lanes.transmit() == [TWO, THREE, ONE]


def test_steps_of_several_packets_do_not_mix_with_looser_ones_elsewhere() -> None:
    lanes = Lanes(2)
    lanes.window(1, 10)
    lanes.window(2, 10)
    step(lanes, ONE, b"", within_s=0.2, size=4 * PACKET)
    step(lanes, TWO, b"", within_s=0.1, size=3 * PACKET)
    assert lanes.transmit() == [TWO] * 3 + [ONE] * 4


def test_equal_deadlines_leave_in_the_order_of_their_arrival() -> None:
    lanes = Lanes(3)
    for connection in (TWO, THREE, ONE):
        lanes.queue.push(connection, bytes(PACKET), rank=Rank.STEP, deadline_s=1.0)
    assert lanes.transmit() == [TWO, THREE, ONE]


def test_steps_leave_before_records_and_records_before_bulk() -> None:
    lanes = Lanes(3)
    lanes.queue.push(ONE, bytes(PACKET), rank=Rank.BULK)
    lanes.queue.push(TWO, bytes(PACKET), rank=Rank.RECORD)
    lanes.queue.push(THREE, bytes(PACKET), rank=Rank.STEP, deadline_s=lanes.now + 9)
    assert lanes.transmit() == [THREE, TWO, ONE]


def test_bulk_that_has_begun_gives_way_to_a_step_on_its_own_connection() -> None:
    lanes = Lanes(1)
    lanes.window(1, 4)
    lanes.queue.push(ONE, bytes(1 << 18), rank=Rank.BULK)
    lanes.ticks(2)
    step(lanes, ONE, b"step", within_s=0.03, size=2 * PACKET)
    lanes.window(1, 4)
    lanes.ticks(4)
    assert names(lanes.arrived(1)) == [b"step"]


def test_a_stream_is_opened_only_when_its_first_packet_can_leave() -> None:
    lanes = Lanes(1)
    lanes.window(1, 0)
    opened = lanes.quics[ONE].get_next_available_stream_id(is_unidirectional=True)
    step(lanes, ONE, b"loose", within_s=0.5)
    assert lanes.transmit() == []
    step(lanes, ONE, b"tight", within_s=0.1, size=3 * PACKET)
    assert lanes.quics[ONE].get_next_available_stream_id(is_unidirectional=True) == opened
    lanes.window(1, 2)
    lanes.queue.touch(ONE, lanes.now)
    lanes.transmit()
    assert lanes.quics[ONE].get_next_available_stream_id(is_unidirectional=True) == opened + 4
    lanes.window(1, 10)
    lanes.ticks(5)
    assert names(lanes.arrived(1)) == [b"tight", b"loose"]


def test_a_step_that_is_late_gives_way_to_those_that_are_not() -> None:
    """Else one that is late makes the next one late, and so on."""
    lanes = Lanes(1)
    step(lanes, ONE, b"late", within_s=-0.001)
    step(lanes, ONE, b"in time", within_s=0.1)
    lanes.ticks(5)
    assert names(lanes.arrived(1)) == [b"in time", b"late"]


def test_what_a_deadline_waits_for_inherits_it() -> None:
    lanes = Lanes(3)
    message = lanes.queue.push(ONE, bytes(PACKET), rank=Rank.BULK)
    lanes.queue.push(TWO, bytes(PACKET), rank=Rank.BULK)
    step(lanes, THREE, b"", within_s=0.2)
    lanes.queue.hasten(message, lanes.now + 0.1)
    assert lanes.transmit() == [ONE, THREE, TWO]


def test_nothing_is_hastened_to_a_later_deadline() -> None:
    lanes = Lanes(2)
    message = lanes.queue.push(ONE, bytes(PACKET), rank=Rank.STEP, deadline_s=lanes.now + 0.1)
    step(lanes, TWO, b"", within_s=0.2)
    lanes.queue.hasten(message, lanes.now + 0.3)
    assert lanes.transmit() == [ONE, TWO]


@pytest.mark.parametrize(("rank", "part"), [(Rank.BULK, 1 / 16), (Rank.RECORD, 1 / 16), (Rank.LATE, 1 / 4)])
def test_a_class_that_waits_gets_its_floor_while_steps_fill_the_window(rank: Rank, part: float) -> None:
    lanes = Lanes(1)
    pushed = Rank.STEP if rank is Rank.LATE else rank
    deadline_s = lanes.now - 1 if rank is Rank.LATE else inf
    waiting = [lanes.queue.push(ONE, bytes(PACKET), rank=pushed, deadline_s=deadline_s) for _ in range(400)]
    steps = 0
    for _ in range(100):
        for _ in range(10):
            step(lanes, ONE, b"", within_s=5)
        steps += 10
        lanes.window(1, 10)
        lanes.ticks(1)
    served = sum(not message.unsent_bytes for message in waiting)
    assert 0.6 * part * len(lanes.left) <= served <= 1.4 * part * len(lanes.left)


def test_a_configured_uplink_bounds_what_leaves_all_connections_together() -> None:
    lanes = Lanes(3, uplink=Uplink(1_000_000.0))
    for connection in (ONE, TWO, THREE):
        lanes.queue.push(connection, bytes(1 << 20), rank=Rank.BULK)
    before = sum(lane.sent_bytes for lane in lanes.queue.lanes)
    lanes.ticks(200)
    sent = sum(lane.sent_bytes for lane in lanes.queue.lanes) - before
    assert 0.9 * 200_000 <= sent <= 1.05 * 200_000
    assert lanes.queue.next_time(lanes.now) is not None


def test_a_connection_that_the_uplink_holds_still_acknowledges() -> None:
    """Its timer for that used to stay due, and the loop turned without pause."""
    lanes = Lanes(1, uplink=Uplink(1_000.0))
    lanes.queue.push(ONE, bytes(1 << 20), rank=Rank.BULK)
    lanes.ticks(5)
    far = lanes.peers[ONE].quic
    far.send_stream_data(far.get_next_available_stream_id(is_unidirectional=True), b"x", end_stream=True)
    lanes.ticks(10)
    timer = lanes.quics[ONE].get_timer()
    assert timer is not None
    assert timer > lanes.now
    assert far._streams == {}


def test_under_a_configured_uplink_a_step_waits_for_one_packet_at_most() -> None:
    lanes = Lanes(2, uplink=Uplink(1_000_000.0))
    lanes.queue.push(ONE, bytes(1 << 20), rank=Rank.BULK)
    lanes.ticks(50)
    step(lanes, TWO, b"step", within_s=0.03)
    before = len(lanes.left)
    lanes.ticks(4)
    assert lanes.left[before:].index(TWO) <= 1
    assert names(lanes.arrived(2)) == [b"step"]


def test_a_peer_that_grants_no_credit_holds_up_nobody_else_and_loses_nothing() -> None:
    lanes = Lanes(2, credit_bytes=8_192)
    lanes.peers[ONE].quic._write_connection_limits = lambda **_: None  # type: ignore[method-assign]
    lanes.queue.push(ONE, bytes(3 << 20), rank=Rank.BULK)
    step(lanes, TWO, b"step", within_s=0.03)
    lanes.ticks(400)
    assert names(lanes.arrived(2)) == [b"step"]
    assert lanes.queue.waiting_bytes(ONE) >= 1 << 20
    del lanes.peers[ONE].quic._write_connection_limits
    lanes.ticks(400)
    assert lanes.arrived(1) == [bytes(3 << 20)]


def test_more_messages_than_the_peer_allows_streams_all_arrive() -> None:
    lanes = Lanes(1)
    for number in range(1_000):
        step(lanes, ONE, str(number).encode(), within_s=1 + number, size=40)
    lanes.ticks(600)
    assert names(lanes.arrived(1)) == [str(number).encode() for number in range(1_000)]
    assert lanes.quics[ONE]._streams == {}


def test_what_waits_on_a_removed_connection_is_forgotten() -> None:
    lanes = Lanes(2)
    lanes.queue.push(ONE, bytes(1 << 20), rank=Rank.BULK)
    lanes.queue.remove(ONE)
    step(lanes, TWO, b"", within_s=1)
    assert lanes.transmit() == [TWO]
    assert lanes.queue.waiting_bytes(ONE) == 0


def test_an_exception_names_the_connection_and_leaves_the_others_ready() -> None:
    lanes = Lanes(2)
    step(lanes, ONE, b"", within_s=0.1)
    step(lanes, TWO, b"", within_s=0.2)
    lanes.quics[ONE].datagrams_to_send = None  # type: ignore[assignment,method-assign]
    with pytest.raises(TypeError):
        lanes.transmit()
    assert lanes.queue.turn == ONE
    lanes.queue.remove(ONE)
    assert lanes.transmit() == [TWO]


def test_a_packet_is_about_the_streams_that_have_something_however_many_are_open() -> None:
    """aioquic alone looks at every open stream for every packet."""
    lanes = Lanes(1)
    for number in range(100):
        step(lanes, ONE, b"", within_s=1 + number)
    lanes.window(1, 200)
    assert 100 <= len(lanes.transmit()) <= 102
    quic = lanes.quics[ONE]
    assert len(quic._streams) >= 100
    assert len(quic._service._waiting) <= 1


@given(
    messages=st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(Rank), st.integers(0, 9_000), st.integers(-5, 200)),
        max_size=30,
    ),
    loss_percent=st.sampled_from([0, 0, 10, 30]),
    rate=st.sampled_from([None, 300_000.0]),
    seed=st.integers(0, 2**32),
)
def test_every_message_arrives_whole_and_once_whatever_is_lost(
    messages: list[tuple[int, Rank, int, int]], loss_percent: int, rate: float | None, seed: int
) -> None:
    lanes, choice = Lanes(3, uplink=Uplink(rate, learns=True)), random.Random(seed)
    lanes.is_lost = lambda: choice.randrange(100) < loss_percent
    expected: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
    for connection, rank, size, within_ms in messages:
        data = choice.randbytes(size + 1)
        deadline_s = lanes.now + within_ms / 1_000 if rank is Rank.STEP else inf
        lanes.queue.push(ConnectionId(connection), data, rank=rank, deadline_s=deadline_s)
        expected[connection].append(data)
        lanes.ticks(choice.randrange(3))
    for _ in range(60):
        lanes.ticks(100)
        if all(len(lanes.arrived(each)) == len(sent) for each, sent in expected.items()):
            break
    assert {each: sorted(lanes.arrived(each)) for each in expected} == {
        each: sorted(sent) for each, sent in expected.items()
    }
    assert all(lane.waiting_bytes == 0 for lane in lanes.queue.lanes)
    assert DATAGRAM_BYTES * len(lanes.left) >= sum(len(data) for sent in expected.values() for data in sent)


def test_a_connection_without_bulk_gives_way_to_a_queue_last() -> None:
    """Each for itself, steps on one of nine connections get a ninth of a bottleneck that bulk fills."""
    lanes = Lanes(2, congestion="delay")
    step(lanes, ONE, b"", within_s=1)
    lanes.queue.push(TWO, bytes(PACKET), rank=Rank.BULK)
    lanes.ticks(2)
    targets = {connection: quic._loss._cc.target_s for connection, quic in lanes.quics.items()}  # type: ignore[attr-defined]
    assert targets == {ONE: STEPS_TARGET_S, TWO: TARGET_S}
    lanes.queue.push(ONE, bytes(PACKET), rank=Rank.BULK)
    lanes.ticks(2)
    assert lanes.quics[ONE]._loss._cc.target_s == TARGET_S  # type: ignore[attr-defined]
