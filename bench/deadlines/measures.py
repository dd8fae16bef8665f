"""What a run showed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

QUANTILES = 200
"""Points of a distribution that are kept for a plot."""


@dataclass(frozen=True, slots=True)
class Activation:
    """What became of one message with a deadline."""

    sent_ms: float
    latency_ms: float
    """Until all of it was there; until the end of the run if it was not there by then."""
    arrived: bool
    lost_packets: bool
    """A packet with bytes of it was dropped on the way, so that it needed a retransmission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The measures of a run, from the end of its first part on unless said otherwise."""

    activations: int
    misses: int
    retransmitted: int
    """Activations of which a packet was lost."""
    misses_unexplained: int
    """Misses of activations of which no packet was lost."""
    undelivered: int
    start_activations: int
    start_misses: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    bulk_mbit: float
    bulk_share: float
    """Of what fits the link beside the activations."""
    competitors_mbit: tuple[float, ...]
    jain: float
    """Of the node and its competitors; 1 without any."""
    sent_packets: int
    dropped_packets: int
    """Of the node, in the direction of its data."""
    queue_p50_ms: float
    queue_p99_ms: float
    queue_ms: tuple[float, ...] = field(repr=False)
    """Over time, one every :data:`bench.deadlines.runner.QUEUE_PERIOD_NS`."""
    latency_quantiles_ms: tuple[float, ...] = field(repr=False)
    simulated_packets: int
    """Of everybody, in both directions."""
    cpu_s: float

    @property
    def miss_rate(self) -> float:
        """Part of the activations that were not there in time."""
        return self.misses / self.activations if self.activations else math.nan


def quantile(ordered: Sequence[float], part: float) -> float:
    """The least value that at least this part of ``ordered`` does not exceed."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def quantiles(ordered: Sequence[float]) -> tuple[float, ...]:
    """Evenly spaced, the least and the greatest among them."""
    if not ordered:
        return ()
    return tuple(round(quantile(ordered, step / QUANTILES), 3) for step in range(QUANTILES + 1))


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 if all are equal, 1/n if one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else math.nan
