"""How long a piece of compute will take, learned from those that ran.

A piece is so many positions, each of which reads the state of all before it. Its time is nearly a
straight line in both: a fixed cost (weights are read once, whatever the batch), a cost for each position
and one for each position of state that is read. The line bends where kernels change their way to work,
so the cost by positions is a table of means in steps of two, between which it is interpolated; the cost
of reading state is one slope for each kind.

Whole microseconds come in and go out; the means between are floats, as means of noisy measurements may
be. No clock, no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from odsi_proto.units import Micros

FIRST_GUESS_US = 20_000
FIRST_GUESS_ROW_US = 1_000
"""For a piece of which nothing is known, and for each of its positions: too long for the event loop, and
one step corrects it."""

WEIGHT_LEAST = 1 / 8
"""Of the newest measurement in a mean; the first eight weigh the same. A load that comes and goes on the
machine is followed within ten steps."""

OUTLIER_RATIO = 4
"""A measurement counts as at most so many times what was expected, and at least as the inverse: one
stall of the machine moves a mean by less than half."""

DEVIATIONS = 2
"""Mean absolute deviations that a piece may take longer than expected where the event loop waits for it."""

_RIDGE = 0.1
"""How far, as variance over squared mean, the state that was read must have varied before a slope is
believed: extrapolated from contexts that were nearly the same, a slope is noise."""


class Work(NamedTuple):
    """What a piece of compute consists of."""

    rows: int
    """Positions that are computed."""
    reads: int
    """Positions of state that are read, over all rows."""
    is_decode: bool
    """Whether every row is of another request."""

    @classmethod
    def of(cls, first: int, count: int) -> "Work":
        """``count`` positions of one request from ``first`` on."""
        return cls(count, count * first + count * (count + 1) // 2, count == 1)

    def beside(self, other: "Work") -> "Work":
        """Both in one piece."""
        return Work(self.rows + other.rows, self.reads + other.reads, self.is_decode and other.is_decode)


NOTHING = Work(0, 0, True)


class ComputeTimes:
    """Expected times of pieces on one engine."""

    def __init__(self) -> None:
        self._kinds = {True: _Kind(), False: _Kind()}

    def knows(self, *, is_decode: bool) -> bool:
        """Whether a piece of this kind has been measured."""
        return bool(self._kinds[is_decode].means)

    def observe(self, work: Work, took_us: Micros) -> None:
        """A piece ran and did what it should."""
        kind = self._kinds[work.is_decode]
        expected_us = self.expected_us(work)
        if kind.is_known_near(work.rows):
            least_us, most_us = expected_us / OUTLIER_RATIO, expected_us * OUTLIER_RATIO
            kind.add(work, min(max(took_us, least_us), most_us), expected_us)
        else:
            kind.add(work, took_us, took_us)

    def expected_us(self, work: Work) -> Micros:
        """What a piece will take; of something of which nothing is known, a guess on the long side."""
        kind = self._kinds[work.is_decode]
        if not kind.means:
            kind = self._kinds[not work.is_decode]
        if not kind.means:
            return Micros(FIRST_GUESS_US + FIRST_GUESS_ROW_US * work.rows)
        return Micros(max(1, round(kind.expected_us(work))))

    def safe_us(self, work: Work) -> Micros:
        """What a piece will hardly pass."""
        kind = self._kinds[work.is_decode]
        spread_us = kind.deviation_us(work.rows) if kind.means else 0.0
        return Micros(self.expected_us(work) + round(DEVIATIONS * spread_us))

    def rows_within(self, first: int, rows_max: int, beside: Work, limit_us: int) -> int:
        """How many positions from ``first`` on fit into ``limit_us`` beside other work; 0 if not one does."""
        least, most = 0, rows_max
        while least < most:  # at most as often as ``rows_max`` has bits
            middle = (least + most + 1) // 2
            if self.expected_us(beside.beside(Work.of(first, middle))) <= limit_us:
                least = middle
            else:
                most = middle - 1
        return least


@dataclass(slots=True)
class _Mean:
    """Pieces of about the same number of rows."""

    rows: float = 0.0
    reads: float = 0.0
    took_us: float = 0.0
    deviation_us: float = 0.0
    """Mean distance from what was expected."""
    reads_variance: float = 0.0
    covariance: float = 0.0
    """Of reads and time."""
    count: int = 0

    def add(self, work: Work, took_us: float, expected_us: float) -> None:
        self.count += 1
        weight = max(1 / self.count, WEIGHT_LEAST)
        reads_off, took_off = work.reads - self.reads, took_us - self.took_us
        self.rows += weight * (work.rows - self.rows)
        self.reads += weight * reads_off
        self.took_us += weight * took_off
        self.deviation_us += weight * (abs(took_us - expected_us) - self.deviation_us)
        kept = 1 - weight
        self.reads_variance = kept * (self.reads_variance + weight * reads_off * reads_off)
        self.covariance = kept * (self.covariance + weight * reads_off * took_off)


@dataclass(slots=True)
class _Kind:
    """Decode batches, or everything else."""

    means: dict[int, _Mean] = field(default_factory=dict)
    """By the bits of rows - 1: 1, 2, 3-4, 5-8 and so on, in ascending order."""
    slope_us: float = 0.0
    """For each position of state that is read: one line through the means' own points."""

    def is_known_near(self, rows: int) -> bool:
        return (rows - 1).bit_length() in self.means

    def add(self, work: Work, took_us: float, expected_us: float) -> None:
        bits = (work.rows - 1).bit_length()
        if bits not in self.means:
            self.means = dict(sorted({**self.means, bits: _Mean()}.items()))
        self.means[bits].add(work, took_us, expected_us)
        self.slope_us = self._slope_us()

    def expected_us(self, work: Work) -> float:
        slope_us = self.slope_us
        points = [(mean.rows, max(0.0, mean.took_us - slope_us * mean.reads)) for mean in self.means.values()]
        return _on_line(points, work.rows) + slope_us * work.reads

    def deviation_us(self, rows: int) -> float:
        """Of the nearest mean from above, or the largest."""
        for mean in self.means.values():
            if mean.rows >= rows:
                return mean.deviation_us
        return mean.deviation_us

    def _slope_us(self) -> float:
        covariance = sum(mean.covariance for mean in self.means.values())
        spread = sum(mean.reads_variance + _RIDGE * mean.reads**2 for mean in self.means.values())
        if covariance <= 0 or spread <= 0:
            return 0.0
        # Nowhere more than the whole time that was measured there.
        return min(
            covariance / spread, *(mean.took_us / max(mean.reads, 1.0) for mean in self.means.values())
        )


def _on_line(points: Sequence[tuple[float, float]], rows: int) -> float:
    """What so many rows cost on the line through the nearest points; ascending, at least one.

    Below all that ran, and where only one size did, half of the cost is taken to be fixed. Beyond, a row
    costs at most what one does in the largest, and at least a quarter of that, however noisy the last are.
    """
    first_rows, first_us = points[0]
    if rows <= first_rows or len(points) == 1:
        return first_us * (1 + rows / first_rows) / 2
    for index in range(1, len(points)):
        (low_rows, low_us), (high_rows, high_us) = points[index - 1], points[index]
        if rows <= high_rows:
            return low_us + (high_us - low_us) * (rows - low_rows) / (high_rows - low_rows)
    whole_us = high_us / high_rows
    row_us = min(max((high_us - low_us) / (high_rows - low_rows), whole_us / 4), whole_us)
    return high_us + row_us * (rows - high_rows)
