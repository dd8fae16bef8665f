"""Counts of durations by size: what a scrape reads, at the price of a search in a short tuple."""

from bisect import bisect_left
from collections.abc import Sequence

DURATION_BOUNDS_US = (
    *(100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000),
    *(1_000_000, 2_000_000, 5_000_000, 10_000_000),
)
"""Upper bounds: three in each decade, from a tenth of what a hop may cost to the budget of a step."""

SLACK_BOUNDS_US = (0, *DURATION_BOUNDS_US, 30_000_000, 60_000_000, 120_000_000)
"""Nothing left has a bucket of its own; the largest are what a long prompt may take."""

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Steps that were computed together."""


class Histogram:
    """How many values were at most each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Per bucket, not cumulative; the last is of those above every bound."""
        self.total = 0

    def add(self, value: int, times: int = 1) -> None:
        """Take a value, once or more often."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def frozen(self) -> "Buckets":
        """The values so far, which no later one changes."""
        return Buckets(self.bounds, tuple(self.counts), self.total)


class Buckets:
    """What a histogram held at one moment."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...], counts: tuple[int, ...], total: int) -> None:
        self.bounds = bounds
        self.counts = counts
        self.total = total

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)
