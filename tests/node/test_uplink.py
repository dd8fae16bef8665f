"""What may leave all connections together: a configured rate, and one learned from what steps meet."""

from math import inf

import pytest

from odsi_proto.node.uplink import Uplink
from odsi_proto.node.urgency import Rank

RTT_S = 0.02


CAPACITY = 2_500_000.0
STEPS = 400_000.0
"""Bytes a second that a simulated uplink carries, and that steps take of it."""


def carry(
    uplink: Uplink, seconds: float, *, bulk_bytes_s: float, start_s: float = 0.0, capacity: float = CAPACITY
) -> tuple[float, float, float]:
    """Steps and bulk over an uplink with a queue without end.

    Returns when it ended, and the mean bulk rate and the longest queue of the last half.
    """
    now, queued, bulk, longest = start_s, 0.0, 0.0, 0.0
    for tick in range(int(seconds / RTT_S)):
        now += RTT_S
        uplink.spent(Rank.STEP, int(STEPS * RTT_S), 0, now)
        rate = min(bulk_bytes_s, uplink.bulk_bytes_s)
        uplink.spent(Rank.BULK, int(rate * RTT_S), 0, now)
        uplink.queue_seen(queued / capacity, RTT_S, now)  # of what was sent a round trip ago
        queued = max(0.0, queued + (STEPS + rate - capacity) * RTT_S)
        if tick >= seconds / RTT_S / 2:
            bulk += rate * RTT_S / (seconds / 2)
            longest = max(longest, queued / capacity)
    return now, bulk, longest


def test_without_a_rate_and_without_learning_nothing_is_limited() -> None:
    uplink = Uplink(learns=False)
    now, _, _ = carry(uplink, 1.0, bulk_bytes_s=1e7)
    assert uplink.allowance(Rank.BULK, now) == inf


def test_a_configured_rate_limits_every_class_but_signalling() -> None:
    uplink = Uplink(1e6)
    assert uplink.bulk_limit_bytes_s(0.0) == inf
    uplink.spent(Rank.STEP, 5_000, 4, 0.0)
    assert uplink.allowance(Rank.STEP, 0.0) <= 0
    assert uplink.allowance(Rank.BULK, 0.0) <= 0
    assert uplink.allowance(-1, 0.0) == inf
    assert uplink.allowance(Rank.STEP, 0.02) > 0


def test_what_was_not_used_of_a_configured_rate_is_no_burst_later() -> None:
    uplink = Uplink(1e6)
    uplink.allowance(Rank.STEP, 0.0)
    assert uplink.allowance(Rank.STEP, 60.0) <= 2_520


def test_the_next_time_of_a_configured_rate_is_when_something_may_leave() -> None:
    uplink = Uplink(1e6)
    uplink.spent(Rank.STEP, 50_000, 40, 0.0)
    at = uplink.next_time(0.0)
    assert at is not None
    assert uplink.allowance(Rank.STEP, at - 0.002) <= 0
    assert uplink.allowance(Rank.STEP, at) > 0


@pytest.mark.parametrize("capacity", [300_000.0 + STEPS, CAPACITY, 40e6])
def test_bulk_learns_to_leave_a_short_queue_and_most_of_the_rest(capacity: float) -> None:
    _, bulk, longest = carry(Uplink(), 20.0, bulk_bytes_s=2 * capacity, capacity=capacity)
    assert longest < 0.012
    assert bulk > 0.93 * (capacity - STEPS)


def test_bulk_that_fits_is_not_slowed_down() -> None:
    _, bulk, longest = carry(Uplink(), 5.0, bulk_bytes_s=0.8 * (CAPACITY - STEPS))
    assert longest == 0.0
    assert bulk > 0.79 * (CAPACITY - STEPS)


def test_a_rate_is_learned_anew_when_the_uplink_becomes_slower_or_faster() -> None:
    uplink = Uplink()
    now, _, _ = carry(uplink, 5.0, bulk_bytes_s=1e7)
    now, bulk, longest = carry(uplink, 10.0, bulk_bytes_s=1e7, start_s=now, capacity=CAPACITY / 2)
    assert longest < 0.012
    assert bulk > 0.9 * (CAPACITY / 2 - STEPS)
    _, bulk, _ = carry(uplink, 10.0, bulk_bytes_s=1e7, start_s=now, capacity=2 * CAPACITY)
    assert bulk > 0.9 * (2 * CAPACITY - STEPS)


def test_steps_are_not_limited_by_what_is_learned() -> None:
    uplink = Uplink()
    now, _, _ = carry(uplink, 2.0, bulk_bytes_s=1e7)
    assert uplink.allowance(Rank.STEP, now) == inf


def test_without_deadline_work_bulk_is_free() -> None:
    uplink = Uplink()
    now, _, _ = carry(uplink, 2.0, bulk_bytes_s=1e7)
    assert uplink.allowance(Rank.BULK, now) < inf
    assert uplink.bulk_limit_bytes_s(now) == uplink.bulk_bytes_s < inf
    assert uplink.allowance(Rank.BULK, now + 2) == uplink.bulk_limit_bytes_s(now + 2) == inf


def test_a_queue_that_stays_although_bulk_has_the_least_rate_is_not_bulks_fault() -> None:
    uplink = Uplink()
    now = 0.0
    for _ in range(200):
        now += RTT_S
        uplink.spent(Rank.STEP, 8_192, 7, now)
        uplink.spent(Rank.BULK, int(min(1e6, uplink.bulk_bytes_s) * RTT_S), 0, now)
        uplink.queue_seen(0.08, RTT_S, now)
        assert uplink.bulk_bytes_s >= 16_000
    assert uplink.allowance(Rank.BULK, now) == inf
