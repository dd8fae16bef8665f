"""What became of the traffic of a run in real time, from the times that both ends noted."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.deadlines.realtime.traffic import BUCKET_NS
from bench.deadlines.scenario import Scenario


class Judged(NamedTuple):
    """Of the activations that were sent after the first part of a run, and whose deadline is within it."""

    activations: int
    misses: int
    undelivered: int
    latencies_ms: list[float]
    """In order; of one that did not arrive, the time to the end of the run."""
    bulk_mbit: float


def judge(
    scenario: Scenario,
    sent_ns: Sequence[int],
    arrived: Sequence[tuple[int, int]],
    bulk_bytes: Sequence[tuple[int, int]],
) -> Judged:
    """From when each was sent, number and time of what arrived, and bulk by bucket of the clock."""
    arrived_ns = dict(arrived)
    start_ns, end_ns = sent_ns[0] + int(scenario.start_s * 1e9), sent_ns[-1]
    judged = [
        (number, at_ns)
        for number, at_ns in enumerate(sent_ns)
        if start_ns <= at_ns <= end_ns - scenario.deadline_ms * 1e6
    ]
    delivered = [(number, at_ns) for number, at_ns in judged if number in arrived_ns]
    in_time = sum(arrived_ns[number] - at_ns <= scenario.deadline_ms * 1e6 for number, at_ns in delivered)
    first, last = start_ns // BUCKET_NS + 1, end_ns // BUCKET_NS
    counted_bytes = sum(size_bytes for bucket, size_bytes in bulk_bytes if first <= bucket < last)
    return Judged(
        activations=len(judged),
        misses=len(judged) - in_time,
        undelivered=len(judged) - len(delivered),
        latencies_ms=sorted((arrived_ns.get(number, end_ns) - at_ns) / 1e6 for number, at_ns in judged),
        bulk_mbit=counted_bytes * 8e3 / ((last - first) * BUCKET_NS),
    )
