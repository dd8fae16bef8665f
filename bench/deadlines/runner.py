"""A run: connect, then activations and bulk together for the scenario's duration, and what came of it."""

import random
import time

from bench.deadlines.contenders import Contender
from bench.deadlines.link import NS_PER_S, Link
from bench.deadlines.measures import Activation, Outcome, jain, quantile, quantiles
from bench.deadlines.messages import ACTIVATION, Part
from bench.deadlines.network import Network, Node
from bench.deadlines.scenario import TRAFFIC_S, Scenario
from bench.deadlines.transports import StockTransport

HANDSHAKE_S_MAX = 60
QUEUE_PERIOD_NS = 10_000_000
"""How often the bottleneck's queue is looked at."""
CHUNK_BYTES = 65_536
"""What a bulk transfer is written in."""
SPREAD_S = 1.0
"""Competitors begin within this time of the node, drawn by seed."""


class _Bulk:
    """A transfer that never runs dry."""

    def __init__(self, node: Node, peer: int, flow: int, waiting_bytes_min: int) -> None:
        self.node = node
        self.delivered_bytes = 0
        self._peer, self._flow = peer, flow
        self._waiting_bytes_min = waiting_bytes_min
        self._waiting_bytes = 0

    def feed(self) -> None:
        """Hand over more if little is left that was not delivered."""
        while self._waiting_bytes < self._waiting_bytes_min:
            self.node.transport.send_bulk(self._peer, self._flow, CHUNK_BYTES)
            self.node.is_dirty = True
            self._waiting_bytes += CHUNK_BYTES

    def deliver(self, size_bytes: int, *, counts: bool) -> None:
        """Bytes of it are there."""
        self._waiting_bytes -= size_bytes
        self.delivered_bytes += size_bytes * counts
        self.feed()


class Run:
    """One scenario with one transport; :meth:`run` once."""

    def __init__(self, scenario: Scenario, contender: Contender) -> None:
        self._scenario = scenario
        seed = str(scenario.seed)
        self._draws = random.Random(f"{seed}/phase")
        forward, back = Link(scenario.link(), f"{seed}/forward"), Link(scenario.way_back(), f"{seed}/back")
        self._network = Network(forward, back, scenario.datagram_bytes, self._part_came)
        self._node = self._network.add(contender.open(scenario))
        for _ in range(scenario.competitors):
            stock = StockTransport(1, congestion=scenario.competing, datagram_bytes=scenario.datagram_bytes)
            self._network.add(stock)
        self._bulks: dict[tuple[int, int], _Bulk] = {}
        self._sent_ns: list[int] = []
        self._done: dict[int, tuple[int, bool]] = {}
        self._queue_bytes: list[int] = []
        self._start_ns = self._counts_ns = self._end_ns = 0

    def run(self) -> Outcome:
        """Everything."""
        began_s = time.process_time()
        self._connect()
        self._carry_traffic()
        return self._outcome(time.process_time() - began_s)

    def _connect(self) -> None:
        network, now_ns = self._network, 0
        network.turn(now_ns)
        while not network.is_connected or network.next_ns() < TRAFFIC_S * NS_PER_S:
            now_ns = network.next_ns()
            network.turn(now_ns)
            assert now_ns < HANDSHAKE_S_MAX * NS_PER_S, "no connection within a minute of virtual time"
        network.follow_packets()
        self._start_ns = max(now_ns, TRAFFIC_S * NS_PER_S)
        self._counts_ns = self._start_ns + int(self._scenario.start_s * NS_PER_S)
        self._end_ns = self._start_ns + int(self._scenario.duration_s * NS_PER_S)

    def _carry_traffic(self) -> None:
        scenario, network = self._scenario, self._network
        period_ns = int(scenario.period_ms * 1e6)
        self._add_bulk()
        tick_ns = self._start_ns + self._draws.randrange(period_ns)
        look_ns = self._start_ns
        starts = sorted(
            (self._start_ns + int(self._draws.random() * SPREAD_S * NS_PER_S), index + 1)
            for index in range(scenario.competitors)
        )
        while True:
            now_ns = min(network.next_ns(), tick_ns, look_ns, starts[0][0] if starts else self._end_ns)
            if now_ns >= self._end_ns:
                break
            if now_ns == look_ns:
                self._queue_bytes.append(network.forward.queued_bytes(now_ns))
                look_ns += QUEUE_PERIOD_NS
            if now_ns == tick_ns:
                self._send_activation(now_ns)
                tick_ns += period_ns
            while starts and starts[0][0] <= now_ns:
                self._begin_bulk(network.nodes[starts.pop(0)[1]], 0, 1, scenario.pipe_bytes)
            network.turn(now_ns)

    def _add_bulk(self) -> None:
        scenario = self._scenario
        for index in range(scenario.transfers):
            peer = 1 + index % scenario.elsewhere if scenario.elsewhere else 0
            self._begin_bulk(self._node, peer, index + 1, scenario.pipe_bytes // scenario.transfers)

    def _begin_bulk(self, node: Node, peer: int, flow: int, share_bytes: int) -> None:
        bulk = _Bulk(node, peer, flow, share_bytes + CHUNK_BYTES)
        self._bulks[node.first_end + peer, flow] = bulk
        bulk.feed()

    def _send_activation(self, now_ns: int) -> None:
        scenario = self._scenario
        deadline_s = (now_ns + scenario.deadline_ms * 1e6) / NS_PER_S
        self._node.transport.send_activation(0, len(self._sent_ns), scenario.size_bytes, deadline_s)
        self._node.is_dirty = True
        self._sent_ns.append(now_ns)

    def _part_came(self, end: int, stream: int, part: Part, now_ns: int) -> None:
        if part.flow != ACTIVATION:
            self._bulks[end, part.flow].deliver(part.size_bytes, counts=now_ns >= self._counts_ns)
        elif part.is_complete:
            self._done[part.number] = now_ns, self._lost_any(end, stream, part)

    def _lost_any(self, end: int, stream: int, part: Part) -> bool:
        """Whether a packet with bytes of a message was dropped; what is before it is forgotten."""
        ranges = self._network.lost.get((end, stream))
        if not ranges:
            return False
        ranges[:] = [each for each in ranges if each[1] > part.begin or each[0] >= part.begin]
        return any(begin < part.end for begin, _ in ranges)

    def _activations(self) -> list[Activation]:
        """All whose deadline is within the run."""
        judged_ns = self._end_ns - int(self._scenario.deadline_ms * 1e6)
        found = []
        for number, sent_ns in enumerate(self._sent_ns):
            if sent_ns <= judged_ns:
                arrived_ns, lost = self._done.get(number, (self._end_ns, False))
                found.append(
                    Activation(
                        sent_ms=(sent_ns - self._start_ns) / 1e6,
                        latency_ms=(arrived_ns - sent_ns) / 1e6,
                        arrived=number in self._done,
                        lost_packets=lost,
                    )
                )
        return found

    def _outcome(self, cpu_s: float) -> Outcome:
        scenario, network = self._scenario, self._network
        everything = self._activations()
        start_ms = scenario.start_s * 1e3
        started = [each for each in everything if each.sent_ms < start_ms]
        judged = [each for each in everything if each.sent_ms >= start_ms]
        late = [each for each in judged if _is_miss(each, scenario)]
        latencies_ms = sorted(each.latency_ms for each in judged)
        counted_s = scenario.duration_s - scenario.start_s
        mbit = [0.0] * len(network.nodes)
        for bulk in self._bulks.values():
            mbit[network.nodes.index(bulk.node)] += bulk.delivered_bytes * 8 / counted_s / 1e6
        bps_max = scenario.bulk_bps_max(scenario.start_s, scenario.duration_s)
        queue_ms = [size_bytes * 8 / scenario.rate_mbit / 1e3 for size_bytes in self._queue_bytes]
        queued_ms = sorted(queue_ms[int(scenario.start_s * NS_PER_S) // QUEUE_PERIOD_NS :])
        ends = range(scenario.peers)
        return Outcome(
            activations=len(judged),
            misses=len(late),
            retransmitted=sum(each.lost_packets for each in judged),
            misses_unexplained=sum(not each.lost_packets for each in late),
            undelivered=sum(not each.arrived for each in judged),
            start_activations=len(started),
            start_misses=sum(_is_miss(each, scenario) for each in started),
            p50_ms=quantile(latencies_ms, 0.5),
            p99_ms=quantile(latencies_ms, 0.99),
            max_ms=quantile(latencies_ms, 1.0),
            bulk_mbit=mbit[0],
            bulk_share=mbit[0] * 1e6 / bps_max if bps_max else 0.0,
            competitors_mbit=tuple(mbit[1:]),
            jain=jain(mbit),
            sent_packets=sum(network.sent_packets[end] for end in ends),
            dropped_packets=sum(network.dropped_packets[end] for end in ends),
            queue_p50_ms=quantile(queued_ms, 0.5),
            queue_p99_ms=quantile(queued_ms, 0.99),
            queue_ms=tuple(round(each, 2) for each in queue_ms),
            latency_quantiles_ms=quantiles(latencies_ms),
            simulated_packets=network.packets,
            cpu_s=cpu_s,
        )


def _is_miss(activation: Activation, scenario: Scenario) -> bool:
    return not activation.arrived or activation.latency_ms > scenario.deadline_ms
