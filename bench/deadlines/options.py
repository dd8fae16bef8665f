"""What the command lines in virtual and in real time ask alike: the traffic on a path."""

import argparse
from typing import Any

from bench.deadlines.scenario import Scenario


def add_activations(parser: argparse.ArgumentParser) -> None:
    """What is sent with a deadline."""
    add = parser.add_argument
    add("--size", type=int, default=8192, metavar="BYTES", help="of an activation; default 8192")
    add("--period", type=float, default=20.0, metavar="MS", help="from one to the next; default 20")
    add("--deadline", type=float, default=30.0, metavar="MS", help="of each; default 30")


def scenario_of(options: argparse.Namespace, **others: Any) -> Scenario:
    """The scenario that was asked for, with ``others`` of its fields; raises ``ConfigError``."""
    scenario = Scenario(
        bulk=options.bulk,
        depth_ms=options.depth,
        size_bytes=options.size,
        period_ms=options.period,
        deadline_ms=options.deadline,
        duration_s=options.duration,
        start_s=options.start,
        **others,
    )
    scenario.check()
    return scenario
