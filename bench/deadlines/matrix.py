"""All runs that were asked for, over the cores; and their figures over the seeds."""

import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bench.deadlines.contenders import CONTENDERS
from bench.deadlines.measures import Outcome
from bench.deadlines.runner import Run
from bench.deadlines.scenario import Scenario


class Cell(NamedTuple):
    """A run to be done."""

    scenario: Scenario
    transport: str

    @property
    def weight(self) -> float:
        """Proportional to the time that it takes, roughly: the longest begin first."""
        scenario = self.scenario
        packets = scenario.duration_s * max(scenario.rate_mbit, scenario.rate_after_mbit)
        return packets * (1 + 0.03 * scenario.bulk * (self.transport.startswith("stock")))


@dataclass(frozen=True, slots=True)
class Row:
    """One transport in one scenario, over all seeds."""

    scenario: Scenario
    """With the first seed."""
    transport: str
    outcomes: tuple[Outcome, ...]
    """One for each seed."""

    def total(self, figure: Callable[[Outcome], float]) -> float:
        """Summed over the seeds."""
        return sum(map(figure, self.outcomes))

    def median(self, figure: Callable[[Outcome], float]) -> float:
        """Over the seeds."""
        return statistics.median(map(figure, self.outcomes))

    def worst(self, figure: Callable[[Outcome], float]) -> float:
        """The greatest of the seeds; not a number if one is."""
        values = [figure(outcome) for outcome in self.outcomes]
        return math.nan if any(map(math.isnan, values)) else max(values)

    @property
    def miss_rate(self) -> float:
        """Of all activations of all seeds."""
        activations = self.total(lambda outcome: outcome.activations)
        return self.total(lambda outcome: outcome.misses) / activations if activations else math.nan


def run_cell(cell: Cell) -> tuple[Cell, Outcome]:
    """One run, in this process."""
    return cell, Run(cell.scenario, CONTENDERS[cell.transport]).run()


def run_all(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Outcome]]:
    """Every run, as each is done; whoever stops listening ends those that are under way."""
    if jobs == 1:
        yield from map(run_cell, cells)
        return
    heaviest_first = sorted(cells, key=lambda cell: -cell.weight)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run_cell, heaviest_first)


def rows(found: dict[Cell, Outcome], scenarios: Sequence[Scenario], transports: Sequence[str]) -> list[Row]:
    """What was found, by scenario and transport, in the order that was asked for."""
    seedless = dict.fromkeys(replace(scenario, seed=0) for scenario in scenarios)
    made = []
    for key in seedless:
        seeds = [scenario for scenario in scenarios if replace(scenario, seed=0) == key]
        for transport in transports:
            cells = [Cell(scenario, transport) for scenario in seeds]
            if outcomes := tuple(found[cell] for cell in cells if cell in found):
                made.append(Row(seeds[0], transport, outcomes))
    return made
