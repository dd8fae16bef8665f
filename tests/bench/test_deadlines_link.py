"""The simulated link: what is offered arrives or is dropped, in time, in order, and the same way twice."""

import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is no part of the installation

from bench.deadlines.link import NS_PER_S, Change, Link, LinkConfig

MS = 1_000_000
PACKET_BYTES = 1000
RATE_BPS = 8_000_000
"""A packet takes a millisecond."""


def config(**changes: object) -> LinkConfig:
    plain = {"rate_bps": RATE_BPS, "delay_ns": 10 * MS, "depth_bytes": 10 * PACKET_BYTES}
    return LinkConfig(**{**plain, **changes})  # type: ignore[arg-type]  # a test names its fields


class Fate(NamedTuple):
    """What became of packets that were numbered in order of offering."""

    arrivals: list[tuple[int, int]]
    """Time and number."""
    dropped: list[int]

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.arrivals]


def carry(link: Link, offers_ns: list[int], size_bytes: int = PACKET_BYTES) -> Fate:
    """Offer packets at these times, and call the link whenever it asks for it."""
    arrivals: list[tuple[int, int]] = []
    waiting = list(enumerate(offers_ns))
    while waiting or link.next_ns is not None:
        offer_ns = waiting[0][1] if waiting else 1 << 62
        now_ns = min(offer_ns, 1 << 62 if link.next_ns is None else link.next_ns)
        arrivals += [(now_ns, number) for number in link.take(now_ns)]
        if now_ns == offer_ns:
            link.offer(now_ns, size_bytes, waiting.pop(0)[0])
    return Fate(arrivals, link.dropped)


def steady(count: int, every_ns: int) -> list[int]:
    return [index * every_ns for index in range(count)]


configs = st.builds(
    config,
    depth_bytes=st.integers(0, 20_000),
    codel=st.booleans(),
    policer_burst_bytes=st.none() | st.integers(0, 20_000),
    loss=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    burst_packets=st.sampled_from([1.0, 4.0]),
    jitter_ns=st.sampled_from([0, 5 * MS]),
    reorders=st.booleans(),
    changes=st.sampled_from([(), (Change(at_ns=20 * MS, rate_bps=2_000_000, delay_ns=3 * MS),)]),
)
offers = st.lists(st.integers(0, 3 * MS), max_size=60).map(
    lambda gaps: [sum(gaps[: index + 1]) for index in range(len(gaps))]
)


@given(configs, offers, st.integers(0, 9))
def test_every_packet_arrives_or_is_dropped_once_and_the_same_again(
    config: LinkConfig, offers_ns: list[int], seed: int
) -> None:
    fate = carry(Link(config, str(seed)), offers_ns)

    assert sorted(fate.numbers + fate.dropped) == list(range(len(offers_ns)))
    assert carry(Link(config, str(seed)), offers_ns) == fate
    if not config.reorders:
        assert fate.numbers == sorted(fate.numbers)


@given(configs.filter(lambda config: not config.changes), offers)
def test_no_two_packets_leave_faster_than_the_line_sends(config: LinkConfig, offers_ns: list[int]) -> None:
    if config.jitter_ns:
        return
    fate = carry(Link(config, "1"), offers_ns)

    packet_ns = MS if config.policer_burst_bytes is None else MS // 10
    assert all(late - early >= packet_ns for (early, _), (late, _) in pairwise(fate.arrivals))
    assert all(at_ns >= offers_ns[number] + packet_ns + 10 * MS for at_ns, number in fate.arrivals)


def test_a_packet_takes_its_time_on_the_line_and_the_delay() -> None:
    assert carry(Link(config(), "1"), [5 * MS]).arrivals == [(16 * MS, 0)]


def test_a_queue_of_a_packet_at_its_depth_is_the_last_that_is_accepted() -> None:
    # At one time: one on the line and ten behind it, the last with exactly the depth in front of it.
    fate = carry(Link(config(), "1"), [0] * 13)

    assert fate.numbers == list(range(11))
    assert fate.dropped == [11, 12]


def test_an_idle_link_without_depth_accepts_a_packet() -> None:
    assert carry(Link(config(depth_bytes=0), "1"), [0, 0, MS]).numbers == [0, 2]


def test_queued_bytes_are_what_is_in_front() -> None:
    link = Link(config(), "1")
    for _ in range(3):
        link.offer(0, PACKET_BYTES, None)

    assert [link.queued_bytes(at_ns) for at_ns in (0, MS // 2, 3 * MS)] == [3000, 2500, 0]


def test_a_change_of_rate_and_delay_holds_from_its_time_on() -> None:
    # Half of the second packet is sent at 8 Mbit/s, the other half at 2 Mbit/s.
    change = Change(at_ns=1_500_000, rate_bps=2_000_000, delay_ns=20 * MS)

    fate = carry(Link(config(changes=(change,)), "1"), [0, 0, 0])

    assert [at_ns for at_ns, _ in fate.arrivals] == [11 * MS, 23_500_000, 27_500_000]


def test_a_policer_drops_what_is_above_its_rate_and_queues_nothing() -> None:
    # Twice the rate: the bucket of five is used up, then every second packet passes.
    fate = carry(Link(config(policer_burst_bytes=5 * PACKET_BYTES), "1"), steady(1000, MS // 2))

    assert len(fate.arrivals) == pytest.approx(505, abs=2)
    assert all(at_ns == number * MS // 2 + MS // 10 + 10 * MS for at_ns, number in fate.arrivals)


@pytest.mark.parametrize("burst_packets", [1.0, 8.0])
def test_the_mean_loss_is_what_was_asked_for_in_runs_of_the_length_asked_for(burst_packets: float) -> None:
    fate = carry(Link(config(loss=0.05, burst_packets=burst_packets), "1"), steady(40_000, MS))

    runs = 1 + sum(late > early + 1 for early, late in pairwise(fate.dropped))
    assert len(fate.dropped) == pytest.approx(2_000, rel=0.25)
    assert len(fate.dropped) / runs == pytest.approx(max(burst_packets, 1 / 0.95), rel=0.1)


def test_jitter_reorders_only_where_it_may() -> None:
    jittery = config(jitter_ns=5 * MS, reorders=True)

    fate = carry(Link(jittery, "1"), steady(200, MS))

    assert fate.numbers != sorted(fate.numbers)
    delays_ns = [at_ns - number * MS - 11 * MS for at_ns, number in fate.arrivals]
    assert min(delays_ns) >= 0
    assert max(delays_ns) <= 5 * MS


def test_codel_keeps_a_standing_queue_near_its_target_where_a_fifo_fills() -> None:
    # A twentieth above the rate for six seconds; 200 ms of room.
    offers_ns = steady(6_000, 95 * MS // 100)

    def waits_ms(codel: bool) -> list[float]:
        link = Link(config(depth_bytes=200 * PACKET_BYTES, delay_ns=0, codel=codel), "1")
        return [(at_ns - offers_ns[number]) / MS for at_ns, number in carry(link, offers_ns).arrivals]

    assert waits_ms(codel=False)[-1] > 195
    assert min(waits_ms(codel=True)[-500:]) < 60


def test_codel_drops_nothing_of_a_burst_that_ends_within_its_interval() -> None:
    burst = [*[0] * 40, *steady(100, 2 * MS)]

    assert carry(Link(config(codel=True, depth_bytes=10**6), "1"), sorted(burst)).dropped == []


def test_codel_drops_more_often_the_longer_the_queue_stands() -> None:
    link = Link(config(codel=True, depth_bytes=10**9), "1")

    fate = carry(link, steady(2 * NS_PER_S // (MS // 2), MS // 2))

    # Numbers stand for time here: offered every half millisecond.
    assert len(fate.dropped) > 20
    assert fate.dropped[-1] - fate.dropped[-2] < fate.dropped[1] - fate.dropped[0]
