"""The goals, judged on what was measured: each a line that says passed or failed, and by how much."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.deadlines.matrix import Row
from bench.deadlines.measures import Outcome
from bench.deadlines.scenario import Queue, Scenario

DEEP_MS = 10.0
BULK_SHARE_MIN = 0.95
SAME_BULK = 0.99
"""No less bulk than another, but for a hundredth: two runs of one transport differ by as much."""


class Verdict(NamedTuple):
    """One goal in one scenario."""

    scenario: Scenario
    transport: str
    goal: str
    passed: bool
    found: str


def verdicts(rows: Sequence[Row], ours: str, ours_with_reno: str, reno: str) -> Iterator[Verdict]:
    """All goals that the rows can be judged by; for want of a row to compare with, none."""
    by_key = {(row.scenario, row.transport): row for row in rows}
    for row in rows:
        if row.transport != ours:
            continue
        others = by_key.get((row.scenario, ours_with_reno)), by_key.get((row.scenario, reno))
        yield from _of_scenario(row, *others)


def _of_scenario(row: Row, ours_with_reno: Row | None, reno: Row | None) -> Iterator[Verdict]:
    scenario = row.scenario
    is_plain = not (scenario.jitter_ms or scenario.change_at_s or scenario.competitors)
    is_fifo = scenario.queue is Queue.FIFO
    misses = int(row.total(_misses))
    share = min(outcome.bulk_share for outcome in row.outcomes)

    def verdict(goal: str, passed: bool, found: str) -> Verdict:
        return Verdict(scenario, row.transport, goal, passed, found)

    if is_fifo and is_plain and not scenario.has_loss and scenario.depth_ms >= DEEP_MS:
        activations = int(row.total(lambda outcome: outcome.activations))
        yield verdict("no activation is late", misses == 0, f"{misses} of {activations} late")
        if scenario.bulk:
            found = f"{share:.1%}, least of the seeds"
            yield verdict(f"bulk gets {BULK_SHARE_MIN:.0%} of the link", share >= BULK_SHARE_MIN, found)
        return
    if scenario.has_loss:
        needed = int(row.total(lambda outcome: outcome.retransmitted))
        found = f"{misses} late, {needed} lost a packet"
        yield verdict("no more are late than lost a packet", misses <= needed, found)
    if ours_with_reno is not None:
        most = int(ours_with_reno.total(_misses))
        found = f"{misses} late, {most} with reno"
        yield verdict("no more are late than with reno in place of the controller", misses <= most, found)
    if reno is not None and scenario.bulk:
        least_mbit, mbit = reno.median(_bulk), row.median(_bulk)
        found = f"{mbit:.2f} Mbit/s, stock reno {least_mbit:.2f}"
        yield verdict("no less bulk than stock reno", mbit >= SAME_BULK * least_mbit, found)


def _misses(outcome: Outcome) -> float:
    return outcome.misses


def _bulk(outcome: Outcome) -> float:
    return outcome.bulk_mbit
