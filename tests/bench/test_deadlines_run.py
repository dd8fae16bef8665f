"""A run in virtual time: known traffic over a known path gives the figures that arithmetic gives."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is no part of the installation

from bench.deadlines.contenders import CONTENDERS
from bench.deadlines.measures import Outcome, jain, quantile
from bench.deadlines.messages import Part, Reader, message
from bench.deadlines.runner import Run
from bench.deadlines.scenario import Queue, Scenario

SHORT = Scenario(group="test", rate_mbit=5, depth_ms=40, duration_s=2, start_s=0.5, bulk=4, period_ms=50)

BEST_EFFORT = [name for name in CONTENDERS if not name.startswith("odsi")]


def run(scenario: Scenario, transport: str = "stock-reno") -> Outcome:
    return Run(scenario, CONTENDERS[transport]).run()


def test_messages_are_found_however_the_stream_is_cut() -> None:
    stream = message(0, 7, 100) + message(3, 0, 50) + message(0, 8, 12)

    for cut in range(1, len(stream)):
        reader = Reader()
        parts = [part for begin in range(0, len(stream), cut) for part in reader.feed(stream[begin:][:cut])]
        assert sum(part.size_bytes for part in parts) == len(stream)
        complete = [part._replace(size_bytes=0) for part in parts if part.is_complete]
        assert complete == [
            Part(0, 7, 0, 0, 100, True),
            Part(3, 0, 0, 100, 150, True),
            Part(0, 8, 0, 150, 162, True),
        ]


@pytest.mark.parametrize("transport", CONTENDERS)
def test_alone_on_a_free_path_every_activation_takes_what_the_path_takes(transport: str) -> None:
    # 8,192 bytes are seven packets, together 8,640 bytes with all headers: 13.8 ms at 5 Mbit/s, and
    # 10 ms on the way. Pacing adds a little: only 16 packets may leave at once.
    outcome = run(replace(SHORT, bulk=0), transport)

    assert (outcome.misses, outcome.undelivered, outcome.dropped_packets) == (0, 0, 0)
    assert outcome.activations in {29, 30}
    assert 23.7 <= outcome.p50_ms < 24.5
    assert outcome.bulk_mbit == 0


@pytest.mark.parametrize("transport", BEST_EFFORT)
def test_bulk_fills_the_link_and_best_effort_misses_the_deadlines(transport: str) -> None:
    outcome = run(SHORT, transport)

    assert 0.9 < outcome.bulk_share <= 1.01
    assert outcome.misses > 0.9 * outcome.activations
    assert outcome.queue_p99_ms <= 40 + 2.1  # the depth and the packet being accepted


def test_the_same_run_is_the_same_twice_and_another_seed_another() -> None:
    lossy = replace(SHORT, loss=0.02, jitter_ms=2, reorders=True, elsewhere=2, competitors=1)

    first, again, other = run(lossy), run(lossy), run(replace(lossy, seed=2))

    assert replace(first, cpu_s=0) == replace(again, cpu_s=0)
    assert replace(first, cpu_s=0) != replace(other, cpu_s=0)


def test_an_activation_that_lost_a_packet_is_known() -> None:
    outcome = run(replace(SHORT, bulk=0, loss=0.05, duration_s=5, start_s=0))

    # Seven packets each: a third of the activations loses one or more.
    assert 0.15 < outcome.retransmitted / outcome.activations < 0.5
    # A repair takes a round trip of 20 ms more, and there are only 6 to spare. Others are late too: those
    # that reno has no window for after a loss.
    assert outcome.misses == outcome.retransmitted + outcome.misses_unexplained


def test_competitors_get_their_share_of_the_bottleneck_and_it_is_told_apart() -> None:
    outcome = run(replace(SHORT, competitors=2, bulk=1, duration_s=6))

    assert len(outcome.competitors_mbit) == 2
    assert 3 < outcome.bulk_mbit + sum(outcome.competitors_mbit) < 4.75
    assert 1 / 3 <= outcome.jain <= 1


@pytest.mark.parametrize("queue", [Queue.CODEL, Queue.POLICER])
def test_bulk_on_other_connections_goes_through_the_same_bottleneck(queue: Queue) -> None:
    outcome = run(replace(SHORT, elsewhere=3, queue=queue))

    assert 0.5 < outcome.bulk_share <= 1.1  # activations that are late leave room
    assert outcome.dropped_packets > 0


def test_after_a_change_the_link_carries_what_it_then_can() -> None:
    slower = replace(SHORT, change_at_s=0.5, rate_after_mbit=2.5, rtt_after_ms=60, duration_s=3)

    outcome = run(slower)

    assert slower.mean_rate_bps(0, 1) == pytest.approx(3.75e6)
    assert 0.8 < outcome.bulk_share <= 1.1


def test_quantiles_and_fairness_are_those_of_the_definitions() -> None:
    assert [quantile([1, 2, 3, 4], part) for part in (0, 0.25, 0.5, 0.99, 1)] == [1, 1, 2, 4, 4]
    assert (jain([1, 1, 1]), jain([1, 0, 0, 0])) == (pytest.approx(1), pytest.approx(0.25))
