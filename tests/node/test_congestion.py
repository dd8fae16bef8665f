"""The delay controller by itself, then over a simulated bottleneck, in virtual time."""

import sys
from dataclasses import dataclass
from pathlib import Path as FilePath

import pytest
from aioquic.quic.congestion.base import create_congestion_control

sys.path.append(str(FilePath(__file__).resolve().parents[2]))  # bench is no part of the installation

from bench.deadlines.bottleneck import HEADER_BYTES, Path
from bench.deadlines.flow import PACKET_BYTES, FlowResult, Source
from bench.deadlines.flows import Simulation, fairness
from odsi_proto.node.congestion import NAME, TARGET_S, DelayCongestionControl
from odsi_proto.node.delivery_rounds import DeliveryRounds
from odsi_proto.node.loss_signal import LossSignal
from odsi_proto.node.path_delay import WINDOW_S, PathDelay

MBIT_S = 125_000
"""Bytes a second."""

BASE_S = 0.020


@dataclass(slots=True)
class Sent:
    """What a controller reads of a packet."""

    sent_time: float
    sent_bytes: int = PACKET_BYTES


class Link:
    """A controller whose window is always full, and whose round trips are as told."""

    def __init__(self) -> None:
        self.now_s = 1.0
        self.controller = DelayCongestionControl(max_datagram_size=PACKET_BYTES)

    @property
    def window_packets(self) -> int:
        return self.controller.congestion_window // PACKET_BYTES

    def fill(self, packets: int | None = None) -> list[Sent]:
        """Send what the window allows, or fewer packets."""
        free = (self.controller.congestion_window - self.controller.bytes_in_flight) // PACKET_BYTES
        sent = [Sent(self.now_s) for _ in range(free if packets is None else packets)]
        for packet in sent:
            self.controller.on_packet_sent(packet=packet)
        return sent

    def round(self, rtt_s: float = BASE_S, *, lose: int = 0, packets: int | None = None) -> None:
        """Send a window, and have all of it but the first few acknowledged, four packets at a time."""
        sent = self.fill(packets)
        self.now_s += rtt_s
        lost, arrived = sent[:lose], sent[lose:]
        for start in range(0, len(arrived), 4):
            for packet in arrived[start : start + 4]:
                self.controller.on_packet_acked(now=self.now_s, packet=packet)
            self.controller.on_rtt_measurement(now=self.now_s, rtt=rtt_s)
        if lost:
            self.controller.on_packets_lost(now=self.now_s, packets=lost)

    def settle(self, packets: int) -> None:
        """Startup over, at about this window, without a queue or a loss to remember."""
        for _ in range(40):
            if self.window_packets >= packets:
                break
            self.round()
        self.controller.ssthresh = self.controller.congestion_window


def run(path: Path, *sources: Source, seconds: float, seed: int = 1) -> list[FlowResult]:
    return Simulation(path, sources, seed=seed, sample_s=0.02).run(seconds)


def use(path: Path, results: list[FlowResult], start_s: float, end_s: float) -> float:
    """Part of what the link can carry."""
    most = path.rate_bytes_s * (end_s - start_s) * PACKET_BYTES / (PACKET_BYTES + HEADER_BYTES)
    return sum(result.delivered_between(start_s, end_s) for result in results) / most


def queue_s(result: FlowResult, start_s: float, part: float) -> float:
    """What the queue is below for this part of the time."""
    queues = sorted(sample.queue_s for sample in result.samples if sample.at_s >= start_s)
    return queues[int(part * (len(queues) - 1))]


MESSAGES = {"message_bytes": 8192}
BOTH = Source(**MESSAGES)


def lossy(controller: str, path: Path, seconds: float = 15) -> tuple[float, FlowResult]:
    """Bulk and messages of one connection: the link's use, and the result."""
    results = run(path, Source(controller=controller, **MESSAGES), seconds=seconds)
    return use(path, results, 0, seconds), results[0]


# The figures it decides on.


def test_the_controller_is_selected_by_its_name() -> None:
    made = create_congestion_control(NAME, max_datagram_size=PACKET_BYTES)
    assert isinstance(made, DelayCongestionControl)
    assert made.mode == "startup"
    assert made.rate_bytes_s == 0


@pytest.mark.parametrize(("every", "is_excess"), [(51, False), (49, True)])
def test_excess_counts_loss_above_two_percent_only(every: int, is_excess: bool) -> None:
    losses, window = LossSignal(PACKET_BYTES), 200.0 * PACKET_BYTES
    highest = 0.0
    for _ in range(2000):
        losses.acked((every - 1) * PACKET_BYTES, window)
        highest = max(highest, losses.lost(PACKET_BYTES, window, is_startup=False))
    assert (highest > 1) == is_excess


@pytest.mark.parametrize(("packets", "is_excess"), [(12, False), (13, True)])
def test_a_burst_is_excess_above_six_percent_of_the_window(packets: int, is_excess: bool) -> None:
    losses = LossSignal(PACKET_BYTES)
    excess = losses.lost(packets * PACKET_BYTES, 200.0 * PACKET_BYTES, is_startup=False)
    assert (excess > 1) == is_excess


@pytest.mark.parametrize(("events", "is_background"), [(4, False), (5, True)])
def test_more_than_four_losses_at_once_are_background(events: int, is_background: bool) -> None:
    losses = LossSignal(PACKET_BYTES)
    for _ in range(events):
        losses.event(1)
    assert losses.is_background == is_background


def test_losses_as_rare_as_renos_sawtooth_are_never_background() -> None:
    losses, packets = LossSignal(PACKET_BYTES), 100
    for _ in range(50):
        losses.event(1)
        losses.acked(packets * packets // 2 * PACKET_BYTES, packets * PACKET_BYTES)
        assert not losses.is_background


def test_a_base_that_is_not_seen_for_a_window_is_stale_and_then_forgotten() -> None:
    path = PathDelay()
    path.add(0, 0.020)
    for step in range(1, 2101):
        path.add(step / 200, 0.024)
        if step == WINDOW_S * 200 + 1:
            assert path.base_s == 0.020
        if step == 2 * WINDOW_S * 200 + 2:
            assert path.is_stale
    assert path.base_s == 0.024


def test_a_base_that_is_seen_stays() -> None:
    path = PathDelay()
    for step in range(4000):
        path.add(step / 200, 0.0201 if step % 400 == 0 else 0.024)
        assert not path.is_stale
    assert path.base_s == 0.0201


def test_one_sample_after_an_idle_hour_is_no_base() -> None:
    path = PathDelay()
    path.add(0, 0.020)
    path.add(3600, 0.300)
    assert path.base_s == 0.020


def test_single_high_samples_are_no_standing_queue() -> None:
    path = PathDelay()
    for step in range(400):
        path.add(step / 1000, 0.020 if step % 3 == 0 else 0.030)
    assert path.queue_s == 0
    assert path.spread_s > 0.004


@pytest.mark.parametrize(("flight_bytes", "is_limited"), [(49, False), (50, True)])
def test_a_round_that_uses_half_of_the_window_is_limited_by_it(flight_bytes: int, is_limited: bool) -> None:
    rounds = DeliveryRounds()
    ends = rounds.add(1, acked_bytes=40, sent_s=0.5, flight_bytes=flight_bytes, window_bytes=100)
    assert ends
    assert rounds.is_limited == is_limited
    assert bool(rounds.rate_bytes_s) == is_limited


# What it does with them.


def test_startup_grows_by_a_third_each_round_trip() -> None:
    link = Link()
    windows = []
    for _ in range(6):
        link.round()
        windows.append(link.window_packets)
    assert windows == [13, 17, 23, 31, 41, 54]


def test_an_unused_window_does_not_grow() -> None:
    link = Link()
    link.settle(40)
    before = link.window_packets
    for _ in range(50):
        link.round(packets=10)
    assert link.window_packets == before


@pytest.mark.parametrize(("above_s", "is_cut"), [(-0.0005, False), (0.0005, True)])
def test_only_a_queue_above_the_target_is_cut(above_s: float, is_cut: bool) -> None:
    link = Link()
    link.settle(100)
    pace_s = BASE_S / link.window_packets
    before = link.controller.ssthresh
    for _ in range(3):
        link.round(BASE_S + TARGET_S + pace_s + above_s)
    assert (link.controller.ssthresh != before) == is_cut


def test_a_cut_gives_back_the_queue_and_little_more() -> None:
    link = Link()
    link.settle(100)
    before = link.controller.ssthresh
    while link.controller.ssthresh == before:
        window = link.controller.congestion_window
        link.round(BASE_S * 1.5)
    assert link.controller.ssthresh / window == pytest.approx(0.95 / 1.5, rel=0.02)
    assert link.controller.queue_delay_s == pytest.approx(BASE_S / 2)
    assert link.controller.base_rtt_s == BASE_S


@pytest.mark.parametrize(("lost", "part"), [(1, 0.85), (12, 0.5)])
def test_a_single_loss_costs_a_seventh_and_excess_half(lost: int, part: float) -> None:
    link = Link()
    link.settle(100)
    link.fill()
    window = link.controller.congestion_window
    packets = [Sent(link.now_s)] * lost
    for packet in packets:
        link.controller.on_packet_sent(packet=packet)
    link.controller.on_packets_lost(now=link.now_s + BASE_S, packets=packets)
    assert link.controller.ssthresh / window == pytest.approx(part, rel=0.03)


def test_losses_of_one_window_are_one_event() -> None:
    link = Link()
    link.settle(100)
    sent = link.fill()
    link.now_s += BASE_S
    for first in range(0, 60, 20):
        link.controller.on_packets_lost(now=link.now_s, packets=sent[first : first + 20])
    assert link.controller.congestion_window == pytest.approx(PACKET_BYTES * len(sent) / 2, rel=0.05)


def test_a_probe_is_no_congestion() -> None:
    link = Link()
    sent = link.fill()
    link.controller.on_packets_expired(packets=sent[:3])
    assert link.window_packets == 10
    assert link.controller.bytes_in_flight == 7 * PACKET_BYTES


def test_persistent_congestion_leaves_two_packets_and_grows_again() -> None:
    link = Link()
    link.settle(100)
    link.round(lose=99)
    link.controller.on_persistent_congestion()
    assert link.window_packets == 2
    for _ in range(10):
        link.round()
    assert link.window_packets > 20


def test_what_one_acknowledgement_frees_is_not_sent_as_one_burst() -> None:
    link = Link()
    link.settle(100)
    sent = link.fill()
    link.now_s += BASE_S
    for packet in sent[:20]:
        link.controller.on_packet_acked(now=link.now_s, packet=packet)
    link.controller.on_rtt_measurement(now=link.now_s, rtt=BASE_S)
    assert len(link.fill()) <= 12  # half of them, and what the window grew by
    for packet in sent[20:24]:
        link.controller.on_packet_acked(now=link.now_s, packet=packet)
    link.controller.on_rtt_measurement(now=link.now_s, rtt=BASE_S)
    assert len(link.fill()) >= 8


def test_a_stale_base_is_looked_for_by_a_short_drain() -> None:
    link = Link()
    link.settle(100)
    link.round()
    windows = []
    for _ in range(300):
        link.round(BASE_S + 0.002)  # above what counts as seen, below the target
        windows.append(link.window_packets)
    drained = min(windows[200:])
    assert drained < 0.8 * max(windows)
    assert windows[-1] > 0.9 * max(windows)


# Over a bottleneck.


@pytest.mark.parametrize("bulk_connections", [1, 8])
@pytest.mark.parametrize("buffer_ms", [10, 40])
def test_deadlines_beside_bulk_of_other_connections_are_met(bulk_connections: int, buffer_ms: int) -> None:
    path = Path(buffer_bytes=100 * MBIT_S * buffer_ms / 1000)
    sources = [Source(bulk=False, **MESSAGES)] + [Source(start_s=2.0)] * bulk_connections
    messages, *bulk = run(path, *sources, seconds=15)
    assert messages.missed == 0
    assert use(path, [messages, *bulk], 3, 15) > 0.95


def test_deadlines_beside_bulk_are_met_for_a_minute() -> None:
    path = Path()
    results = run(path, BOTH, seconds=60)
    assert results[0].missed == 0
    assert results[0].messages > 2990
    assert use(path, results, 0, 60) > 0.95


def test_a_minute_at_ten_megabits_does_not_drift() -> None:
    # The base was once set to the current sample every 10 s: it took the queue for the path, 21 to 34 ms.
    simulation = Simulation(Path(rate_bytes_s=10 * MBIT_S), [Source()], sample_s=0.02)
    (result,) = simulation.run(60)
    assert simulation.flows[0].cc.base_rtt_s < 0.0235  # type: ignore[attr-defined]
    assert queue_s(result, 30, 0.95) < 0.008


@pytest.mark.parametrize(("before_s", "after_s"), [(0.020, 0.060), (0.060, 0.020)])
def test_another_route_is_used_in_full_after_ten_seconds(before_s: float, after_s: float) -> None:
    path = Path(rtt_s=before_s, changes=((5.0, 100 * MBIT_S, after_s),))
    results = run(path, Source(), seconds=30)
    assert use(path, results, 20, 30) > 0.93
    assert queue_s(results[0], 20, 0.95) < 0.008


def test_capacity_that_becomes_free_is_taken_within_a_second() -> None:
    path = Path(rate_bytes_s=20 * MBIT_S, changes=((4.0, 100 * MBIT_S, BASE_S),))
    results = run(path, Source(), seconds=8)
    full = Path()
    assert use(full, results, 5, 8) > 0.93


def test_startup_leaves_a_shallow_queue_almost_dry() -> None:
    (result,) = run(Path(), Source(), seconds=1)
    assert max(sample.queue_s for sample in result.samples) < 0.012
    reno = run(Path(buffer_bytes=60_000), Source(controller="reno"), seconds=1)[0]
    ours = run(Path(buffer_bytes=60_000), Source(), seconds=1)[0]
    assert ours.lost_packets < reno.lost_packets / 2


@pytest.mark.parametrize("buffer_ms", [2, 4, 8])
def test_a_shallow_buffer_loses_and_misses_less_than_with_reno(buffer_ms: int) -> None:
    path = Path(buffer_bytes=100 * MBIT_S * buffer_ms / 1000)
    ours, result = lossy(NAME, path)
    reno, other = lossy("reno", path)
    assert ours > reno
    assert result.lost_packets < other.lost_packets
    assert result.missed <= other.missed


def test_codel_never_drops() -> None:
    path = Path(codel=True)
    ours, result = lossy(NAME, path)
    reno, _ = lossy("reno", path)
    assert result.lost_packets == 0
    assert result.missed == 0
    assert ours > reno


def test_a_policer_is_used_better_and_hit_less_than_with_reno() -> None:
    path = Path(policer_bytes=60_000)
    ours, result = lossy(NAME, path)
    reno, other = lossy("reno", path)
    assert ours > reno
    assert result.lost_packets < other.lost_packets


def test_loss_below_the_threshold_costs_next_to_nothing() -> None:
    path = Path(loss=0.01)
    ours, _ = lossy(NAME, path)
    reno, _ = lossy("reno", path)
    assert reno < 0.1
    assert ours > 0.9


def test_loss_above_the_threshold_is_answered_as_by_reno() -> None:
    path = Path(loss=0.04)
    ours, _ = lossy(NAME, path)
    reno, _ = lossy("reno", path)
    assert ours < 1.25 * reno


@pytest.mark.parametrize("flows", [2, 4, 8])
def test_late_comers_get_their_share(flows: int) -> None:
    sources = [Source(start_s=1.0 * each) for each in range(flows)]
    results = run(Path(), *sources, seconds=flows + 10)
    shares = [result.delivered_between(flows + 4, flows + 10) for result in results]
    assert fairness(shares) > 0.9


@pytest.mark.parametrize("rate_mbit_s", [10, 50])
def test_several_of_ours_keep_the_queue_short_on_slower_links(rate_mbit_s: int) -> None:
    sources = [Source(start_s=0.5 * each) for each in range(5)]
    results = run(Path(rate_bytes_s=rate_mbit_s * MBIT_S), *sources, seconds=20)
    assert queue_s(results[0], 8, 0.5) < 0.012
    assert fairness([result.delivered_between(8, 20) for result in results]) > 0.9


@pytest.mark.parametrize("other", ["reno", "cubic"])
def test_a_flow_that_fills_the_queue_does_not_starve_ours(other: str) -> None:
    path = Path(buffer_bytes=250_000)
    ours, theirs = run(path, Source(), Source(controller=other), seconds=30)
    share = ours.delivered_bytes / (ours.delivered_bytes + theirs.delivered_bytes)
    assert 0.3 < share < 0.6


def test_the_queue_is_short_again_when_a_competitor_has_left() -> None:
    (ours, _) = run(Path(), Source(), Source(controller="reno", stop_s=10), seconds=25)
    assert queue_s(ours, 20, 0.95) < 0.008


def test_delay_that_varies_by_itself_is_no_queue() -> None:
    path = Path(jitter_s=0.005)
    results = run(path, Source(), seconds=10)
    assert use(path, results, 2, 10) > 0.8


def test_a_pause_changes_no_estimate() -> None:
    source = Source(bulk_on_s=1.0, bulk_off_s=7.0)
    simulation = Simulation(Path(), [source])
    controller = simulation.flows[0].cc
    simulation.run(1.5)
    window, base_s = controller.congestion_window, controller.base_rtt_s  # type: ignore[attr-defined]
    simulation.run(7.9)
    assert controller.congestion_window == window
    assert controller.base_rtt_s == base_s  # type: ignore[attr-defined]
    (result,) = simulation.run(9.0)
    assert result.lost_packets == 0


def test_the_same_run_is_the_same_to_the_byte() -> None:
    path = Path(loss=0.005, jitter_s=0.002)
    first, second = (run(path, BOTH, Source(start_s=1.0), seconds=3, seed=7) for _ in range(2))
    assert [result.samples for result in first] == [result.samples for result in second]
