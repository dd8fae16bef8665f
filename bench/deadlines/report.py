"""What was measured, for people and for programs."""

import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from typing import Any

from rich.table import Table

from bench.deadlines.contenders import CONTENDERS
from bench.deadlines.goals import Verdict
from bench.deadlines.matrix import Row
from bench.deadlines.measures import Outcome
from bench.provenance import commit

FORMAT = 1
LEGEND = (
    "alone: what an activation takes on the empty path. late: part of the activations not complete at "
    "their deadline, those of the first part of the run (start) by themselves; no loss: how many were "
    "late although no packet of theirs was lost. p50, p99, max: latency in ms. bulk: payload, and its "
    "part of what fits the link beside the activations. lost: of all packets of the node. queue: of the "
    "bottleneck, ms, seen every 10 ms. Over several seeds: late and no loss of all, the median of p50 and "
    "bulk, the worst p99 and max."
)


def machine() -> dict[str, Any]:
    """Where and when."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "aioquic": version("aioquic"),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One for each scenario."""
    for scenario, found in groupby(rows, key=lambda row: row.scenario):
        title = f"{scenario.group}: {scenario.label()}; {scenario.floor_ms:.1f} ms alone"
        table = Table(title=title, title_justify="left")
        table.add_column("", no_wrap=True)
        heads = ["late", "start", "no loss", "p50", "p99", "max", "bulk Mbit/s", "share", "lost"]
        heads += ["queue p50", "p99"]
        if scenario.competitors:
            heads += ["others Mbit/s", "Jain"]
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        for row in found:
            table.add_row(row.transport, *_figures(row))
        yield table


def goal_table(verdicts: Sequence[Verdict]) -> Table:
    """Each goal, passed or failed."""
    table = Table(title="goals", title_justify="left")
    for head in ("", "scenario", "goal", "found"):
        table.add_column(head, overflow="fold")
    for verdict in verdicts:
        word = "[green]pass[/]" if verdict.passed else "[red]FAIL[/]"
        table.add_row(word, verdict.scenario.label(), verdict.goal, verdict.found)
    return table


def as_json(rows: Sequence[Row], verdicts: Sequence[Verdict], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, every run by itself."""
    return {
        "format": FORMAT,
        **facts,
        "transports": {name: contender.title for name, contender in CONTENDERS.items()},
        "runs": [
            {
                "scenario": {**asdict(row.scenario), "label": row.scenario.label()},
                "transport": row.transport,
                "seeds": [{**_finite(asdict(outcome))} for outcome in row.outcomes],
            }
            for row in rows
        ],
        "goals": [
            {
                "scenario": verdict.scenario.label(),
                "transport": verdict.transport,
                "goal": verdict.goal,
                "passed": verdict.passed,
                "found": verdict.found,
            }
            for verdict in verdicts
        ],
    }


def _figures(row: Row) -> list[str]:
    starts = row.total(lambda outcome: outcome.start_activations)
    sent = row.total(lambda outcome: outcome.sent_packets)
    figures = [
        _part(row.miss_rate),
        _part(row.total(lambda outcome: outcome.start_misses) / starts if starts else math.nan),
        f"{row.total(lambda outcome: outcome.misses_unexplained):.0f}",
        _ms(row.median(lambda outcome: outcome.p50_ms)),
        _ms(row.worst(lambda outcome: outcome.p99_ms)),
        _ms(row.worst(lambda outcome: outcome.max_ms)),
        f"{row.median(lambda outcome: outcome.bulk_mbit):.2f}",
        f"{row.median(lambda outcome: outcome.bulk_share):.1%}",
        _part(row.total(lambda outcome: outcome.dropped_packets) / sent if sent else math.nan),
        _ms(row.median(lambda outcome: outcome.queue_p50_ms)),
        _ms(row.worst(lambda outcome: outcome.queue_p99_ms)),
    ]
    if row.scenario.competitors:
        figures += [_mean_of_competitors(row.outcomes), f"{row.median(lambda outcome: outcome.jain):.2f}"]
    return figures


def _mean_of_competitors(outcomes: Sequence[Outcome]) -> str:
    rates = [rate for outcome in outcomes for rate in outcome.competitors_mbit]
    return f"{sum(rates) / len(rates):.2f} each"


def _part(part: float) -> str:
    if math.isnan(part):
        return "-"
    return "0" if part == 0 else f"{part:.2%}"


def _ms(milliseconds: float) -> str:
    return "-" if math.isnan(milliseconds) else f"{milliseconds:.1f}"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no word for what is not a number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
