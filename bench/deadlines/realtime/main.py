"""Activations beside bulk between processes, in real time: this transport, stock aioquic and gRPC over TCP.

    python -m bench.deadlines.realtime --rounds 3 --json found.json

Both processes have a network of their own, and all packets between pass one seeded, simulated link.
Contenders take turns in every round. docs/benchmarks.md says what is measured and how to read it.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import command
from bench.command import check_folders, guarded, names, numbers, write_json
from bench.deadlines import report
from bench.deadlines.options import add_activations, scenario_of
from bench.deadlines.realtime.contenders import BASE, CONTENDERS
from bench.deadlines.realtime.rounds import RealOutcome, run_once
from bench.deadlines.scenario import Scenario
from odsi_proto.errors import ConfigError
from odsi_proto.node.send_queue import DATAGRAM_BYTES

FORMAT = 1
RELAY_LATE_MS_MAX = 1.0
LEGEND = (
    "late: of all rounds. p50 and ratio: median, least and most of the rounds; p99, max: the worst round. "
    f"ratio: of the p50 to that of {BASE} in the same round. bulk, share: the median. relay: by how much "
    "the simulated link was behind its own clock at most, in 99 of 100 deliveries of the worst round; above "
    f"{RELAY_LATE_MS_MAX:g} ms (marked) the machine was too busy for the figures to mean much."
)

Found = dict[tuple[Scenario, str], list[RealOutcome]]
"""By scenario, with the seed of the first round, and transport: an outcome for each round."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 2 for what can not be done."""
    options = _parser().parse_args(arguments)
    return guarded("bench.deadlines.realtime", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    wanted = names(options.transports, CONTENDERS, "transport", {"all": tuple(CONTENDERS)})
    if options.rounds < 1:
        raise ConfigError(f"{options.rounds} rounds asked for, expected at least 1")
    check_folders(options.json)
    scenarios = [
        _scenario(options, elsewhere, loss)
        for elsewhere in numbers("--elsewhere", options.elsewhere, int)
        for loss in numbers("--losses", options.losses, float)
    ]
    machine = {**report.machine(), "load": os.getloadavg()}
    found, why_not = _measure(scenarios, wanted, options.rounds)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(
        f"{machine['at']}, commit {machine['commit'] or 'unknown'}, aioquic {machine['aioquic']}, real time, "
        f"rounds: {options.rounds}, load before {machine['load'][0]:.2f}, after {os.getloadavg()[0]:.2f}",
        highlight=False,
    )
    for name in wanted:
        reason = f": not measured: {why_not[name]}" if name in why_not else ""
        console.print(f"  {name}: {CONTENDERS[name].title}{reason}", highlight=False)
    for scenario in scenarios:
        console.print(_table(scenario, found))
    console.print(LEGEND, highlight=False)
    facts = {"machine": machine, "load_after": os.getloadavg()}
    write_json(options.json, _as_json(found, why_not, facts))


def _measure(
    scenarios: Sequence[Scenario], wanted: Sequence[str], rounds: int
) -> tuple[Found, dict[str, str]]:
    """Every contender once in every round; what can not be had is left out, with the reason."""
    found: Found = {}
    why_not: dict[str, str] = {}
    for number in range(rounds):
        for scenario in scenarios:
            for name in wanted:
                if name in why_not:
                    continue
                try:
                    outcome = run_once(replace(scenario, seed=scenario.seed + number), CONTENDERS[name])
                except ConfigError as error:
                    why_not[name] = str(error)
                    continue
                found.setdefault((scenario, name), []).append(outcome)
                sys.stderr.write(
                    f"round {number + 1}, {scenario.label()}: {name} {outcome.miss_rate:.1%} late, "
                    f"p50 {outcome.p50_ms:.1f} ms, bulk {outcome.bulk_mbit:.2f} Mbit/s\n"
                )
    if not found:
        raise ConfigError(next(iter(why_not.values())))
    return found, why_not


def _table(scenario: Scenario, found: Found) -> Table:
    table = Table(title=scenario.label(), title_justify="left")
    table.add_column("", no_wrap=True)
    heads = ["late", "p50", "least", "most", "p99", "max", "ratio", "least", "most"]
    for head in [*heads, "bulk Mbit/s", "share", "lost", "queue p50", "p99", "relay"]:
        table.add_column(head, justify="right", no_wrap=True)
    base = found.get((scenario, BASE), [])
    for name in CONTENDERS:
        rounds = found.get((scenario, name))
        if rounds:
            table.add_row(name, *_figures(rounds, base))
    return table


def _figures(rounds: Sequence[RealOutcome], base: Sequence[RealOutcome]) -> list[str]:
    def total(figure: Callable[[RealOutcome], float]) -> float:
        return sum(map(figure, rounds))

    def middle(figure: Callable[[RealOutcome], float]) -> float:
        return statistics.median(map(figure, rounds))

    def worst(figure: Callable[[RealOutcome], float]) -> float:
        return max(map(figure, rounds))

    p50s_ms = [outcome.p50_ms for outcome in rounds]
    ratios = [outcome.p50_ms / other.p50_ms for outcome, other in zip(rounds, base, strict=False)]
    late_ms = worst(lambda outcome: outcome.relay_late_p99_ms)
    return [
        f"{total(lambda outcome: outcome.misses) / total(lambda outcome: outcome.activations):.2%}",
        *(f"{value:.1f}" for value in _spread(p50s_ms)),
        f"{worst(lambda outcome: outcome.p99_ms):.1f}",
        f"{worst(lambda outcome: outcome.max_ms):.1f}",
        *([f"{value:.2f}" for value in _spread(ratios)] if ratios else ["-"] * 3),
        f"{middle(lambda outcome: outcome.bulk_mbit):.2f}",
        f"{middle(lambda outcome: outcome.bulk_share):.1%}",
        f"{total(lambda outcome: outcome.dropped_packets) / total(lambda outcome: outcome.packets):.2%}",
        f"{middle(lambda outcome: outcome.queue_p50_ms):.1f}",
        f"{worst(lambda outcome: outcome.queue_p99_ms):.1f}",
        f"{late_ms:.2f}" + ("*" if late_ms > RELAY_LATE_MS_MAX else ""),
    ]


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _as_json(found: Found, why_not: dict[str, str], facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **facts,
        "transports": {name: contender.title for name, contender in CONTENDERS.items()},
        "not_measured": why_not,
        "runs": [
            {
                "scenario": {**asdict(scenario), "label": scenario.label()},
                "transport": name,
                "rounds": [asdict(outcome) for outcome in rounds],
            }
            for (scenario, name), rounds in found.items()
        ],
    }


def _scenario(options: argparse.Namespace, elsewhere: int, loss: float) -> Scenario:
    return scenario_of(
        options,
        group="real time",
        rate_mbit=options.rate,
        rtt_ms=options.rtt,
        loss=loss,
        elsewhere=elsewhere,
        datagram_bytes=DATAGRAM_BYTES,
        seed=options.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("bench.deadlines.realtime", __doc__)
    add = parser.add_argument
    add("--transports", default="all", help=f"of {', '.join(CONTENDERS)}, by comma")
    add("--rounds", type=int, default=3, help="turns of every contender; default 3")
    add("--seed", type=int, default=1, help="of the first round, the next has the next; default 1")
    add("--elsewhere", default="0,1,4", help="connections that bulk is on, by comma; 0: the activations' own")
    add("--losses", default="0", help="part of the packets, by comma; default 0")
    add("--rate", type=float, default=20.0, metavar="MBIT/S", help="default 20")
    add("--rtt", type=float, default=20.0, metavar="MS", help="of the empty path; default 20")
    add("--depth", type=float, default=20.0, metavar="MS", help="of the FIFO; default 20")
    add("--bulk", type=int, default=4, help="transfers; default 4")
    add_activations(parser)
    add("--duration", type=float, default=15.0, metavar="S", help="of a run; default 15")
    add("--start", type=float, default=2.0, metavar="S", help="of it that is left out; default 2")
    add("--json", type=Path, metavar="FILE", help="write everything, each round by itself")
    return parser
