"""A snapshot as Prometheus metrics: names, units and labels as its conventions have them.

Series of connections have the peer's short id as label. They are there for authenticated peers only
and go with their connection, so there are never more than connections; of two with the same short id
counts are summed and the newer one says the rest.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from odsi_proto.node.histogram import Buckets
from odsi_proto.node.status import ConnectionStatus, NodeStatus
from odsi_proto.node.vitals import Snapshot

SHORT_CHARS = 8
"""Of a participant id, as ``participant_short`` has it."""


def exposition(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The metrics as text, and its content type: what the ``Accept`` header asks for."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshot))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known only here, and nothing else is registered beside them."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, one after the other."""
        for family in families(self._snapshot):
            # The interpreter lock goes round: a scrape of many connections takes milliseconds, and the
            # event loop would wait for it as long as a switch interval.
            time.sleep(0)
            yield family


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Every metric of a node."""
    status = snapshot.status
    build = InfoMetricFamily("odsi_build", "What runs here.")
    build.add_metric(
        (),
        {
            "version": status.version,
            "layers": status.layers,
            "profile": status.profile,
            "backend": status.backend,
            "model_root": status.model_root,
        },
    )
    yield build
    yield from _steps(snapshot)
    yield from _requests(status)
    yield _gauge("odsi_uptime_seconds", "Time since the node started.", status.uptime_us / 1e6)
    yield _gauge("odsi_draining", "Whether the node takes no new requests.", float(status.is_draining))
    yield _gauge("odsi_kv_blocks", "Blocks of state there are.", status.kv_blocks)
    yield _gauge("odsi_kv_blocks_used", "Blocks of state reserved by requests.", status.kv_blocks_used)
    yield _gauge("odsi_kv_block_bytes", "Size of a block of state.", snapshot.kv_block_bytes)
    yield _gauge("odsi_execution_queue_steps", "Steps the executor has not answered.", status.waiting_steps)
    expected = "Until a short step taken now would start."
    yield _gauge("odsi_execution_queue_expected_seconds", expected, status.queue_expected_us / 1e6)
    yield _gauge("odsi_send_queue_messages", "Messages not sent entirely.", status.sending_messages)
    yield _gauge("odsi_send_queue_bytes", "Bytes that wait to be sent.", status.sending_bytes)
    yield _gauge(
        "odsi_connections_open", "Connections, unauthenticated ones included.", status.connections_open
    )
    if status.uplink_bytes_per_s is not None:
        configured = "Configured rate of what leaves."
        yield _gauge("odsi_uplink_bytes_per_second", configured, status.uplink_bytes_per_s)
    if status.bulk_bytes_per_s is not None:
        held = "What bulk is held to now, beside steps."
        yield _gauge("odsi_bulk_bytes_per_second", held, status.bulk_bytes_per_s)
    yield _by_label(
        "odsi_connections_closed", "Connections that this node closed, by code.", "code", snapshot.closes
    )
    yield from _connections(status.connections)


def _steps(snapshot: Snapshot) -> Iterator[Metric]:
    status = snapshot.status
    yield _by_label("odsi_steps", "Steps by what became of them.", "outcome", status.steps)
    misses = "Steps whose budget was spent: those that ran late, and those that were not run for it."
    yield CounterMetricFamily("odsi_deadline_misses", misses, value=status.deadline_misses)
    deviations = "Steps that were not as planned in their OPEN, by how."
    yield _by_label("odsi_plan_deviations", deviations, "kind", snapshot.deviations)
    yield CounterMetricFamily("odsi_positions", "Positions run.", value=snapshot.positions)
    for name, what, buckets in (
        ("queue", "Time that a step waited for its turn.", snapshot.queue_us),
        ("compute", "Time of a step in the layers.", snapshot.compute_us),
        ("transfer", "Time that the input of a step was on the way.", snapshot.transfer_us),
        ("coordination", "Time of a step in this node beside queue and compute.", snapshot.coordination_us),
        ("slack", "What a step can spare when its output leaves.", snapshot.slack_us),
    ):
        yield _histogram(f"odsi_step_{name}_seconds", what, buckets, 1e6)
    yield _histogram("odsi_batch_steps", "Steps that were computed together.", snapshot.batches, 1)
    yield _by_label("odsi_pieces", "Pieces of compute, by the thread they ran in.", "thread", snapshot.pieces)
    yield CounterMetricFamily("odsi_cuts", "Pieces that left a rest of their step.", value=snapshot.cuts)
    aside = "Times that a step was put behind those that could be in time."
    yield CounterMetricFamily("odsi_steps_set_aside", aside, value=snapshot.set_aside)
    busy = "Time that the executor has computed."
    yield CounterMetricFamily("odsi_busy_seconds", busy, value=status.busy_us / 1e6)


def _requests(status: NodeStatus) -> Iterator[Metric]:
    yield _gauge("odsi_requests_open", "Requests that hold state.", len(status.requests))
    opened = "Requests whose path became ready."
    yield CounterMetricFamily("odsi_requests_opened", opened, value=status.requests_opened)
    finished = "Requests that their client ended."
    yield CounterMetricFamily("odsi_requests_finished", finished, value=status.requests_finished)
    yield _by_label("odsi_refusals", "Requests and steps refused, by code.", "code", status.refusals)


def _connections(connections: Sequence[ConnectionStatus]) -> Iterator[Metric]:
    peers: dict[str, list[ConnectionStatus]] = {}
    for connection in connections:
        peers.setdefault(connection.participant[:SHORT_CHARS], []).append(connection)
    for name, what, gauge in _CONNECTION_GAUGES:
        family = GaugeMetricFamily(f"odsi_connection_{name}", what, labels=("peer",))
        for peer, same in peers.items():
            family.add_metric((peer,), gauge(same[-1]))
        yield family
    for name, what, counter in _CONNECTION_COUNTERS:
        counts = CounterMetricFamily(f"odsi_connection_{name}", what, labels=("peer",))
        for peer, same in peers.items():
            counts.add_metric((peer,), sum(map(counter, same)))
        yield counts


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _by_label(name: str, what: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, what, labels=(label,))
    for key, count in counts.items():
        family.add_metric((key,), count)
    return family


def _histogram(name: str, what: str, buckets: Buckets, per_unit: float) -> Metric:
    """``per_unit``: how much of what was counted is one of the metric's unit."""
    cumulative, pairs = 0, []
    for bound, count in zip((*buckets.bounds, None), buckets.counts, strict=True):
        cumulative += count
        pairs.append(("+Inf" if bound is None else str(bound / per_unit), float(cumulative)))
    return HistogramMetricFamily(name, what, buckets=pairs, sum_value=buckets.total / per_unit)


_Measure = Callable[[ConnectionStatus], float]

_CONNECTION_GAUGES: Sequence[tuple[str, str, _Measure]] = (
    ("rtt_seconds", "Smoothed round trip.", lambda c: c.rtt_us / 1e6),
    ("rtt_min_seconds", "Least round trip.", lambda c: c.rtt_min_us / 1e6),
    ("queue_delay_seconds", "Smoothed round trip above the least one.", lambda c: c.queue_delay_us / 1e6),
    ("congestion_window_bytes", "What may be in flight.", lambda c: c.window_bytes),
    ("in_flight_bytes", "What is in flight.", lambda c: c.in_flight_bytes),
)

_CONNECTION_COUNTERS: Sequence[tuple[str, str, _Measure]] = (
    ("sent_bytes", "UDP payload sent.", lambda c: c.sent_bytes),
    ("sent_packets", "Datagrams sent.", lambda c: c.sent_packets),
    ("received_bytes", "UDP payload received.", lambda c: c.received_bytes),
    ("received_packets", "Datagrams received.", lambda c: c.received_packets),
    ("lost_bytes", "Bytes of lost packets.", lambda c: c.lost_bytes),
    ("lost_packets", "Packets taken for lost.", lambda c: c.lost_packets),
)
