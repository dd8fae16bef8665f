"""A status of a node that never ran, with something in every place."""

from odsi_proto.node.histogram import BATCH_BOUNDS, DURATION_BOUNDS_US, SLACK_BOUNDS_US, Buckets, Histogram
from odsi_proto.node.status import (
    ConnectionStatus,
    History,
    NodeStatus,
    RequestStatus,
    WaitingMessage,
    WaitingStep,
)
from odsi_proto.node.vitals import Snapshot
from odsi_proto.testing import make_signer
from odsi_proto.wire.identity import participant_text


def who(seed: int) -> str:
    """A participant's id."""
    return participant_text(make_signer(seed).participant)


def connection(seed: int, *, sent_bytes: int = 1_234_567, rtt_us: int = 12_300) -> ConnectionStatus:
    """A connection with a peer."""
    return ConnectionStatus(
        participant=who(seed),
        address=f"192.0.2.{seed}:4433",
        is_dialler=seed % 2 == 0,
        controller="reno",
        rtt_us=rtt_us,
        rtt_min_us=9_000,
        queue_delay_us=max(0, rtt_us - 9_000),
        window_bytes=253_000,
        in_flight_bytes=1_232,
        sent_bytes=sent_bytes,
        sent_packets=1_000,
        received_bytes=7_654_321,
        received_packets=6_000,
        lost_bytes=12_320,
        lost_packets=10 * seed,
        sent_bytes_per_s=54_500,
        received_bytes_per_s=999,
    )


def request(number: int, *, is_ready: bool = True) -> RequestStatus:
    """An open request."""
    return RequestStatus(
        request=f"{number:032x}",
        client=who(90 + number),
        stage=1,
        stages=3,
        is_ready=is_ready,
        age_us=75_000_000,
        steps=182,
        positions=216,
        late=number,
        transfer_us=500,
        queue_us=712,
        compute_us=17_900,
        coordination_us=119,
    )


def history() -> History:
    """Half a minute that gets slower."""
    seconds = range(30)
    return History(
        interval_us=1_000_000,
        rtt_us=tuple(9_000 + 110 * second for second in seconds),
        queue_us=tuple(0 if second % 3 else 700 + second for second in seconds),
        steps=tuple(40 for _ in seconds),
        late=tuple(second // 29 for second in seconds),
        busy_us=tuple(420_000 for _ in seconds),
    )


def status(**changes: object) -> NodeStatus:
    """A busy node."""
    fields: dict[str, object] = {
        "participant": who(1),
        "version": "0.1.0",
        "host": "192.0.2.1",
        "port": 4433,
        "model": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "model_root": "3d" * 32,
        "layers": "10-20",
        "profile": "FLOAT32",
        "backend": "native, AVX-512, float32",
        "is_draining": False,
        "uptime_us": 3_723_000_000,
        "busy_us": 42_000_000,
        "steps": {"done": 1_234, "late": 3, "expired": 0, "refused": 1, "failed": 0, "dropped": 2},
        "deadline_misses": 3,
        "refusals": {"OVERLOADED": 1},
        "requests_opened": 14,
        "requests_finished": 12,
        "kv_blocks": 1_456,
        "kv_blocks_used": 34,
        "connections_open": 3,
        "connections": (connection(2), connection(3, rtt_us=80_000)),
        "requests": (request(0), request(1), request(2, is_ready=False)),
        "uplink_bytes_per_s": 12_500_000,
        "bulk_bytes_per_s": 2_400_000,
        "queue_expected_us": 5_100,
        "running_steps": 1,
        "waiting_steps": 2,
        "waiting": (
            WaitingStep(request=f"{1:032x}", position=217, count=1, slack_us=-1_500, waited_us=9_000),
            WaitingStep(request=f"{0:032x}", position=128, count=128, slack_us=88_000, waited_us=200),
        ),
        "sending_messages": 3,
        "sending_bytes": 402_000,
        "sending": (
            WaitingMessage(kind="step", participant=who(2), slack_us=4_200, unsent_bytes=1_183),
            WaitingMessage(kind="bulk", participant=who(3), slack_us=None, unsent_bytes=400_000),
        ),
        "history": history(),
    }
    return NodeStatus(**(fields | changes))  # type: ignore[arg-type]  # the tests say what goes where


def buckets(*values_us: int, bounds: tuple[int, ...] = DURATION_BOUNDS_US) -> Buckets:
    """A histogram of these."""
    histogram = Histogram(bounds)
    for value_us in values_us:
        histogram.add(value_us)
    return histogram.frozen()


def snapshot(of: NodeStatus | None = None) -> Snapshot:
    """What a scrape gets."""
    return Snapshot(
        status=of or status(),
        queue_us=buckets(100, 101, 20_000_000),
        compute_us=buckets(5_000, 6_000),
        transfer_us=buckets(500),
        coordination_us=buckets(),
        slack_us=buckets(0, 0, 1, bounds=SLACK_BOUNDS_US),
        batches=buckets(1, 1, 3, bounds=BATCH_BOUNDS),
        pieces={"loop": 2, "worker": 1},
        cuts=1,
        set_aside=4,
        deviations={"over_budget": 5},
        closes={"ORDER_VIOLATION": 2},
        positions=4_321,
        kv_block_bytes=737_280,
    )
