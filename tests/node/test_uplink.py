"""What may leave all connections together: a configured rate, and one learned from what steps meet."""

from math import inf

from odsi_proto.node.send_queue import Rank
from odsi_proto.node.uplink import Uplink

RTT_S = 0.02


def intervals(uplink: Uplink, count: int, *, queue_s: float, bulk_bytes_s: float, start_s: float) -> float:
    """So many round trips with steps among them, that meet a queue, beside bulk; returns the time after."""
    now = start_s
    for _ in range(count):
        now += RTT_S
        uplink.spent(Rank.STEP, 8_192, 7, now)
        rate = min(bulk_bytes_s, uplink.bulk_bytes_s)
        uplink.spent(Rank.BULK, int(rate * RTT_S), 0, now)
        uplink.queue_seen(queue_s, RTT_S, now)
    return now


def test_without_a_rate_and_without_learning_nothing_is_limited() -> None:
    uplink = Uplink(learns=False)
    intervals(uplink, 10, queue_s=0.1, bulk_bytes_s=1e6, start_s=0)
    assert uplink.allowance(Rank.BULK, 1.0) == inf


def test_a_configured_rate_limits_every_class_but_signalling() -> None:
    uplink = Uplink(1e6)
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


def test_bulk_is_cut_while_steps_meet_a_long_queue_and_grows_again_after() -> None:
    uplink = Uplink()
    now = intervals(uplink, 2, queue_s=0.03, bulk_bytes_s=1e7, start_s=0)
    cut = uplink.bulk_bytes_s
    assert cut < 1e7
    now = intervals(uplink, 3, queue_s=0.03, bulk_bytes_s=1e7, start_s=now)
    assert uplink.bulk_bytes_s < 0.5 * cut
    low = uplink.bulk_bytes_s
    intervals(uplink, 20, queue_s=0.001, bulk_bytes_s=1e7, start_s=now)
    assert uplink.bulk_bytes_s > 1.5 * low


def test_steps_are_not_limited_by_what_is_learned() -> None:
    uplink = Uplink()
    now = intervals(uplink, 10, queue_s=0.03, bulk_bytes_s=1e7, start_s=0)
    assert uplink.allowance(Rank.STEP, now) == inf


def test_without_deadline_work_bulk_is_free() -> None:
    uplink = Uplink()
    now = intervals(uplink, 10, queue_s=0.03, bulk_bytes_s=1e7, start_s=0)
    assert uplink.allowance(Rank.BULK, now) < inf
    assert uplink.allowance(Rank.BULK, now + 2) == inf


def test_a_queue_that_stays_although_bulk_has_the_least_rate_is_not_bulks_fault() -> None:
    uplink = Uplink()
    now = intervals(uplink, 200, queue_s=0.03, bulk_bytes_s=1e7, start_s=0)
    assert uplink.bulk_bytes_s == inf
    intervals(uplink, 100, queue_s=0.03, bulk_bytes_s=1e7, start_s=now)
    assert uplink.bulk_bytes_s == inf


def test_bulk_always_keeps_the_least_rate() -> None:
    uplink = Uplink()
    now = 0.0
    for _ in range(60):
        now = intervals(uplink, 1, queue_s=0.5, bulk_bytes_s=1e7, start_s=now)
        assert uplink.bulk_bytes_s >= 16_000
