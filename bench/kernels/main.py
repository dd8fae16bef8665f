"""The speed of our engine beside llama.cpp and transformers, with how far each is from float32.

    python -m bench.kernels [--only decode,prefill,batch,stages,nodes] [--rounds N] [--json FILE]

One thread each, contenders in turn round after round, medians, and ratios taken within a round.
docs/benchmarks.md says what is measured and how to read it.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import command
from bench.command import check_folders, guarded, names, say, show, write_json
from bench.kernels import report
from bench.kernels.nodes import Breakdown
from bench.kernels.rounds import Group
from bench.kernels.sections import SECTIONS, Bench
from bench.kernels.workload import FULL, QUICK
from odsi_proto.errors import ConfigError
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.model_path import default_model_path, open_source

ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 2 for what can not be done."""
    options = _parser().parse_args(arguments)
    return guarded("bench.kernels", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    wanted = names(options.only, SECTIONS, "section")
    if options.rounds is not None and options.rounds < 1:
        raise ConfigError(f"{options.rounds} rounds asked for, expected at least 1")
    if options.llama_bench is not None and not options.llama_bench.is_file():
        raise ConfigError(f"{options.llama_bench}: no such program; leave --llama-bench out to have it built")
    check_folders(options.json, options.plots)
    work = QUICK if options.quick else FULL
    cpus = _pin(options.pin)
    torch.set_num_threads(1)
    with open_source(options.model or default_model_path()) as source:
        context = read_config(source).context
        if context < work.positions_max:
            hint = "" if options.quick else "; --quick needs fewer"
            raise ConfigError(
                f"{source.path}: a context of {context} positions, {work.positions_max} are needed{hint}"
            )
        rounds = options.rounds or (1 if options.quick else ROUNDS)
        bench = Bench(
            source=source,
            work=work,
            rounds=rounds,
            peers=not options.ours,
            llama_bench=options.llama_bench,
            cpus=cpus,
        )
        before = report.machine()
        facts: dict[str, Any] = {
            "model": source.path.name,
            "rounds": rounds,
            "quick": options.quick,
            "pinned_to": options.pin,
            "positions_judged": sum(len(text.answer) for text in bench.fed),
        }
        show([*_heading(before, facts)])
        measured: list[Group | Breakdown] = []
        for name in SECTIONS:
            if name in wanted:
                for each in SECTIONS[name](bench):
                    measured.append(each)
                    show(report.lines(each))
    show(["", f"load average at the end: {_loads(os.getloadavg())}"])
    if options.json is not None:
        write_json(options.json, report.as_json(before, measured, facts))
    if options.plots is not None:
        report.write_plots(options.plots, measured)
        say(f"plots are in {options.plots}")


def _heading(before: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    pinned = "" if facts["pinned_to"] is None else f", pinned to CPU {facts['pinned_to']} (not the nodes)"
    quick = "quick, so the figures mean nothing; " if facts["quick"] else ""
    return [
        f"{facts['model']}, one thread each, {quick}rounds: {facts['rounds']}{pinned}",
        f"{before['at']}, {before['processor']}, {before['cores']} cores, {before['system']}",
        f"commit {before['commit'] or 'unknown'}, torch {before['torch']}, "
        f"load average at the beginning: {_loads(before['load'])}",
        f"KL to float32 in nats, mean and greatest of {facts['positions_judged']} positions with the "
        "reference fed in; top-1: the same likeliest token",
    ]


def _loads(loads: Sequence[float]) -> str:
    return " ".join(f"{load:.2f}" for load in loads)


def _pin(cpu: int | None) -> set[int]:
    """Pin this process and what it starts; what it could run on before."""
    if cpu is None:
        return set()
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("--pin needs Linux")
    cpus = os.sched_getaffinity(0)
    if cpu not in cpus:
        raise ConfigError(f"there is no CPU {cpu} here: {', '.join(map(str, sorted(cpus)))}")
    os.sched_setaffinity(0, {cpu})
    return cpus


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("bench.kernels", __doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by comma; default: all")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}; 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs")
    parser.add_argument("--model", type=Path, help="default: the model of the installation")
    parser.add_argument("--ours", action="store_true", help="leave the other engines out")
    parser.add_argument("--llama-bench", type=Path, help="one that exists; default: built once, five minutes")
    parser.add_argument("--pin", type=int, metavar="CPU", help="run on this one (the nodes on all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, every sample included")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write an SVG file for each table")
    return parser
