"""How many activations are late beside bulk, and what bulk still gets: this transport and others.

    python -m bench.deadlines --scenarios quick
    python -m bench.deadlines --scenarios depth,loss --seeds 1,2,3 --rates 20,100 --json found.json

In virtual time: real aioquic connections over a simulated link. docs/benchmarks.md says what is measured.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import command
from bench.command import check_folders, guarded, names, numbers, write_json
from bench.deadlines import plots, report
from bench.deadlines.contenders import CONTENDERS, OURS, OURS_WITH_RENO, STOCK
from bench.deadlines.goals import verdicts
from bench.deadlines.groups import ALL, GROUPS, scenarios
from bench.deadlines.matrix import Cell, Row, rows, run_all
from bench.deadlines.measures import Outcome
from bench.deadlines.options import add_activations, scenario_of
from odsi_proto.node.send_queue import DATAGRAM_BYTES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for: 0, 1 if a goal failed and ``--strict``, 2 for what can not be done."""
    options = _parser().parse_args(arguments)
    return guarded("bench.deadlines", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    groups = names(options.scenarios, GROUPS, "scenarios", {"all": ALL})
    transports = names(options.transports, CONTENDERS, "transport", {"all": tuple(CONTENDERS)})
    (judge,) = names(options.judge, CONTENDERS, "transport")
    wanted = [
        scenario
        for rate_mbit in numbers("--rates", options.rates, float)
        for rtt_ms in numbers("--rtts", options.rtts, float)
        for seed in numbers("--seeds", options.seeds, int)
        for scenario in scenarios(
            groups,
            scenario_of(
                options,
                group="",
                rate_mbit=rate_mbit,
                rtt_ms=rtt_ms,
                datagram_bytes=options.datagram,
                seed=seed,
            ),
        )
    ]
    check_folders(options.json, options.plots)
    plt = plots.load_pyplot() if options.plots is not None else None
    facts = {"machine": report.machine(), "arguments": {"jobs": options.jobs}}
    cells = [Cell(scenario, transport) for scenario in wanted for transport in transports]
    found = _measure(cells, options.jobs)
    made = rows(found, wanted, transports)
    judged = list(verdicts(made, ours=judge, ours_with_reno=OURS_WITH_RENO, reno=STOCK))
    # Piped output has no width of its own; a table is not cut.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    _show(console, made, facts, found)
    if judged:
        console.print(report.goal_table(judged))
        console.print(f"{sum(each.passed for each in judged)} of {len(judged)} goals passed")
    if options.json is not None:
        write_json(options.json, report.as_json(made, judged, facts))
    if plt is not None:
        console.print(f"{len(plots.write(options.plots, made, plt))} plots are in {options.plots}")
    return 1 if options.strict and not all(each.passed for each in judged) else 0


def _show(console: Console, made: Sequence[Row], facts: dict[str, Any], found: dict[Cell, Outcome]) -> None:
    machine = facts["machine"]
    console.print(
        f"{machine['at']}, commit {machine['commit'] or 'unknown'}, aioquic {machine['aioquic']}, "
        f"Python {machine['python']}, virtual time",
        highlight=False,
    )
    for name in dict.fromkeys(row.transport for row in made):
        console.print(f"  {name}: {CONTENDERS[name].title}", highlight=False)
    for table in report.tables(made):
        console.print(table)
    console.print(report.LEGEND, highlight=False)
    packets, cpu_s = (
        sum(outcome.simulated_packets for outcome in found.values()),
        sum(outcome.cpu_s for outcome in found.values()),
    )
    console.print(f"{packets} packets simulated, {packets / cpu_s:.0f} per second of CPU", highlight=False)


def _measure(cells: Sequence[Cell], jobs: int) -> dict[Cell, Outcome]:
    """Everything, with a line of progress for each run on standard error."""
    began_s = time.monotonic()
    whole = sum(cell.weight for cell in cells)
    found: dict[Cell, Outcome] = {}
    done = 0.0
    for cell, outcome in _until_interrupted(run_all(cells, jobs)):
        found[cell] = outcome
        done += cell.weight
        took_s = time.monotonic() - began_s
        left_s = took_s * (whole - done) / done
        late = "-" if math.isnan(outcome.miss_rate) else f"{outcome.miss_rate:.1%}"
        sys.stderr.write(
            f"{len(found)}/{len(cells)}, {left_s:.0f} s left: {cell.transport}, {cell.scenario.label()}, "
            f"seed {cell.scenario.seed}: {late} late, bulk {outcome.bulk_mbit:.2f} Mbit/s\n"
        )
        sys.stderr.flush()
    return found


def _until_interrupted(outcomes: Iterator[tuple[Cell, Outcome]]) -> Iterator[tuple[Cell, Outcome]]:
    """What is interrupted shows what it has."""
    try:
        yield from outcomes
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what follows is of the runs before\n")


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("bench.deadlines", __doc__)
    add = parser.add_argument
    add("--scenarios", default="all", help=f"of {', '.join(GROUPS)}, by comma; all: every one but quick")
    add("--transports", default="all", help=f"of {', '.join(CONTENDERS)}, by comma")
    add("--seeds", default="1", help="by comma; default 1")
    add("--rates", default="20", metavar="MBIT/S", help="by comma; default 20")
    add("--rtts", default="20", metavar="MS", help="round trips of an empty path, by comma; default 20")
    add("--bulk", type=int, default=16, help="transfers, where the group does not vary them; default 16")
    add("--depth", type=float, default=20.0, metavar="MS", help="of the FIFO, likewise; default 20")
    add_activations(parser)
    add("--duration", type=float, default=60.0, metavar="S", help="of a run; default 60, quick at most 10")
    add("--start", type=float, default=1.0, metavar="S", help="of it reported by itself; default 1")
    add("--datagram", type=int, default=DATAGRAM_BYTES, metavar="BYTES", help="UDP payload; default 1232")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time; default: the cores")
    add("--json", type=Path, metavar="FILE", help="write everything, each seed by itself")
    add("--plots", type=Path, metavar="DIR", help="write SVG files; needs matplotlib")
    add(
        "--judge",
        default=OURS,
        metavar="TRANSPORT",
        help=f"the one that has to reach the goals; default {OURS}",
    )
    add("--strict", action="store_true", help="end with 1 if a goal failed")
    return parser
