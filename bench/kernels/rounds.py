"""Contenders that take turns, and what came of it.

Each round runs every contender once, one after the other, so that whatever disturbs the machine
disturbs all of them, and a ratio is of two runs that were seconds apart. Figures are medians over the
rounds; ratios are taken round by round, and then the median.
"""

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.command import say
from odsi_proto.errors import OdsiError


class Unavailable(OdsiError):
    """What can not be measured here; its row says why, and the rest goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How far from float32 the answers are that came at this speed, over all positions of all texts."""

    kl_mean: float
    kl_max: float
    top1: float
    """The share of positions where the likeliest token is the same."""
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Whoever takes a turn in each round."""

    name: str
    sample: Callable[[], float]
    """One turn; what it returns is in the group's unit. Raises ``OdsiError`` where it can not be had."""
    accuracy: Accuracy | None = None
    warms_itself: bool = False
    """A process that is new in every round; others run once before it counts."""


@dataclass(slots=True, kw_only=True)
class Series:
    """What one contender did, round by round."""

    name: str
    accuracy: Accuracy | None = None
    samples: list[float] = field(default_factory=list)
    why_not: str = ""
    """Why there are no samples."""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def ratios(self, baseline: "Series") -> list[float]:
        """To ``baseline``, round by round; empty if either has no samples."""
        if self.why_not or baseline.why_not:
            return []
        return [mine / its for mine, its in zip(self.samples, baseline.samples, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Contenders for one figure."""

    key: str
    """Names the group in JSON and its plot."""
    title: str
    """With what a figure includes."""
    baseline: str
    """The series that the ratios are to."""
    series: Sequence[Series]
    loads: Sequence[float] = ()
    """The load average at the beginning of each round."""

    @property
    def base(self) -> Series:
        return next(series for series in self.series if series.name == self.baseline)


def take_turns(
    key: str, title: str, contenders: Sequence[Contender | Series], *, baseline: str, rounds: int
) -> Group:
    """Let the contenders run; a ``Series`` among them is somebody who can not, and keeps its place."""
    rows = [
        each if isinstance(each, Series) else Series(name=each.name, accuracy=each.accuracy)
        for each in contenders
    ]
    turns = [(each, row) for each, row in zip(contenders, rows, strict=True) if isinstance(each, Contender)]
    loads = []
    for each, row in turns:
        if not each.warms_itself:
            _turn(each, row)
            row.samples.clear()
    for number in range(1, rounds + 1):
        say(f"{key}, round {number} of {rounds}")
        loads.append(os.getloadavg()[0])
        for each, row in turns:
            if not row.why_not:
                _turn(each, row)
    return Group(key=key, title=title, baseline=baseline, series=rows, loads=loads)


def _turn(contender: Contender, row: Series) -> None:
    try:
        row.samples.append(contender.sample())
    except OdsiError as error:
        row.samples.clear()
        row.why_not = str(error)
        say(f"{row.name}: {error}")
