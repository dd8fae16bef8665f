"""One stage under 1 to 200 clients at once: who misses deadlines, and what a step costs the queue itself.

Clients of three tightnesses decode, each sending its next step some 100 ms after an answer, beside one that
has prompts of 256 positions read. The project's own execution queue takes turns with one that serves first
come, first served: one step at a time, as it used to be, and in batches as full as they get. A miss is a step
whose answer came after the budget of its class at this stage.

virtual  in virtual time, on a machine whose times are given; the same figures at every run
queue    the queue alone: nanoseconds of add, next and done for each step while so many requests wait
real     in real time, with the model; means something only where nothing else runs
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which counts cores when it starts

from bench import command
from bench.command import check_folders, guarded, names, numbers, say, show, write_json
from bench.deadlines.crowd import LOOSE, MIDDLE, MIX, PROMPT, TIGHT, Crowd, Result, percentile_us
from bench.deadlines.first_come import FirstCome
from bench.deadlines.virtual_crowd import VirtualCrowd, VirtualMachine, step
from bench.kernels.report import machine
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.model_path import default_model_path, open_source
from odsi_proto.kernels.select import BackendKind
from odsi_proto.node.compute_time import ComputeTimes, Work
from odsi_proto.node.step_queue import StepQueue
from odsi_proto.units import LayerRange, Micros

CLIENTS = (1, 8, 32, 64, 128, 200)
WAITING = (1, 8, 32, 64, 128, 200, 1_000)
CLASSES = (TIGHT, MIDDLE, LOOSE, PROMPT)
FORMAT = 1

SECTIONS = ("virtual", "queue", "real")


def own() -> StepQueue:
    """The project's policy, with room for everything."""
    return StepQueue(ComputeTimes(), steps_max=1 << 20, bytes_max=1 << 40, can_batch=True, can_cut=True)


CONTENDERS: dict[str, Callable[[], StepQueue]] = {
    "by latest start": own,
    "first come, in batches": lambda: FirstCome(batches=True),
    "first come, one by one": lambda: FirstCome(batches=False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0 if it went well, 2 for what can not be done."""
    options = _parser().parse_args(arguments)
    return guarded("bench.deadlines.concurrency", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    wanted = names(options.only, SECTIONS, "section")
    clients = numbers("--clients", options.clients, int)
    check_folders(options.json)
    content: dict[str, Any] = {"format": FORMAT, "machine": machine()}
    at, processor, cores, commit = (content["machine"][key] for key in ("at", "processor", "cores", "commit"))
    budgets = ", ".join(f"{kind.name} {kind.budget_us / 1e3:g} ms" for kind in CLASSES)
    show([f"{at}, {processor}, {cores} cores, commit {commit}", f"budgets at this stage: {budgets}"])
    if "virtual" in wanted:
        virtual = VirtualMachine(fixed_us=options.fixed_us, row_us=options.row_us)
        content["virtual"] = _turns(
            clients,
            options.rounds,
            lambda count, seed, queue: VirtualCrowd(virtual, count, options.virtual_seconds, seed).run(queue),
        )
        title = f"virtual time: a piece takes {options.fixed_us} us and {options.row_us} us for each row"
        show(_lines(title, content["virtual"]))
    if "queue" in wanted:
        content["policy_ns"] = {count: policy_ns(count, options.cycles) for count in WAITING}
        show(_policy_lines(content["policy_ns"]))
    if "real" in wanted:
        with open_source(options.model or default_model_path()) as source:
            layers = min(options.layers, read_config(source).layers_count)
            engine = StageEngine.load(source, None, LayerRange(0, layers), kv_bytes_max=options.kv_bytes)
        if engine.choice.kind is not BackendKind.NATIVE:
            say(f"{engine.choice.kind.value} layers are neither batched nor cut: {engine.choice.reason}")
        content["real"] = _turns(
            clients,
            options.rounds,
            lambda count, seed, queue: Crowd(engine, count, options.seconds, seed).run(queue),
        )
        show(_lines(f"real time: {layers} layers, {engine.backend.name}, one thread", content["real"]))
    write_json(options.json, content)


def _turns(
    clients: Sequence[int], rounds: int, run: Callable[[int, int, StepQueue], Result]
) -> list[dict[str, Any]]:
    found = []
    for count in clients:
        results: dict[str, list[Result]] = {name: [] for name in CONTENDERS}
        for number in range(rounds):
            say(f"{count} clients, round {number + 1} of {rounds}")
            for name, make in CONTENDERS.items():
                results[name].append(run(count, number, make()))
        found.append({"clients": count, **{name: _summary(each) for name, each in results.items()}})
    return found


def policy_ns(waiting: int, cycles: int) -> dict[str, float]:
    """Nanoseconds that the queue takes for a step while so many requests wait: median of five tries."""
    tries = [_policy_try(waiting, cycles) for _ in range(5)]
    return {key: statistics.median(each[key] for each in tries) for key in tries[0]}


def _policy_try(waiting: int, cycles: int) -> dict[str, float]:
    queue, virtual, now = own(), VirtualMachine(), 0
    for bits in range(8):
        work = Work(1 << bits, 0, is_decode=True)
        queue.times.observe(work, Micros(virtual.takes_us(work)))
    spent_ns, steps, pieces = 0, 0, 0
    position = 1
    runs = [step(number, position, 1, MIX[number % len(MIX)].budget_us, 0) for number in range(waiting)]
    while steps < cycles:
        started_ns = time.perf_counter_ns()
        for run in runs:
            queue.add(run, now=Micros(now))
        piece = queue.next(now=Micros(now)).piece
        assert piece is not None
        took_us = virtual.takes_us(piece.work)
        now += took_us
        over = queue.done(took_us=Micros(took_us), now=Micros(now))
        spent_ns += time.perf_counter_ns() - started_ns
        steps, pieces, position = steps + len(over), pieces + 1, position + 1
        numbers = [int.from_bytes(each.run.request, "big") for each in over]
        runs = [step(number, position, 1, MIX[number % len(MIX)].budget_us, 0) for number in numbers]
    return {"ns_per_step": spent_ns / steps, "steps_per_piece": steps / pieces}


def _summary(results: Sequence[Result]) -> dict[str, Any]:
    """Of all rounds together; speeds are medians over the rounds."""
    classes = {}
    for kind in CLASSES:
        latencies = [us for result in results for us in result.by_class[kind.name].latencies_us]
        misses = sum(result.by_class[kind.name].misses for result in results)
        classes[kind.name] = {
            "budget_us": kind.budget_us,
            "steps": len(latencies),
            "misses": misses,
            "missed_percent": 100 * misses / max(1, len(latencies)),
            "p50_us": percentile_us(latencies, 0.5),
            "p99_us": percentile_us(latencies, 0.99),
        }
    return {
        "classes": classes,
        "steps_per_second": statistics.median(result.steps / result.seconds for result in results),
        "steps_per_piece": statistics.median(result.steps / max(1, result.pieces) for result in results),
        "queue_us_per_step": statistics.median(
            result.queue_ns / 1e3 / max(1, result.steps) for result in results
        ),
    }


def _lines(title: str, found: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield title
    heads = "".join(f"{kind.name:>8}" for kind in CLASSES)
    units = f"{'tight p99':>11}{'steps/s':>9}{'per piece':>11}{'queue us':>10}"
    yield f"  {'':<34}{'missed, %':>20}{'':>12}{units}"
    yield f"  {'clients':<34}{heads}{'ms':>11}{'':>20}{'per step':>10}"
    for row in found:
        for name in CONTENDERS:
            each = row[name]
            missed = "".join(f"{each['classes'][kind.name]['missed_percent']:>8.1f}" for kind in CLASSES)
            tight_ms = each["classes"][TIGHT.name]["p99_us"] / 1e3
            spent = f"{each['queue_us_per_step']:.1f}" if each["queue_us_per_step"] else "-"
            yield (
                f"  {row['clients']:>7}  {name:<25}{missed}{tight_ms:>11.1f}{each['steps_per_second']:>9.0f}"
                f"{each['steps_per_piece']:>11.1f}{spent:>10}"
            )


def _policy_lines(policy: dict[int, dict[str, float]]) -> Iterator[str]:
    yield ""
    yield "the queue alone"
    yield f"  {'requests that wait':<22}{'ns for a step':>16}{'steps in a piece':>18}"
    for count, cost in policy.items():
        yield f"  {count:<22}{cost['ns_per_step']:>16.0f}{cost['steps_per_piece']:>18.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("bench.deadlines.concurrency", __doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by comma; default: all")
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)), help="numbers of clients, by comma")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contender in each round")
    parser.add_argument("--virtual-seconds", type=float, default=20.0, help="the same in virtual time")
    parser.add_argument("--fixed-us", type=int, default=VirtualMachine().fixed_us, help="of a virtual piece")
    parser.add_argument("--row-us", type=int, default=VirtualMachine().row_us, help="and of each row of it")
    parser.add_argument("--layers", type=int, default=10, help="how many of the model's, from the first on")
    parser.add_argument("--model", type=Path, help="default: the model of the installation")
    parser.add_argument("--kv-bytes", type=int, default=2 << 30, help="memory for keys and values")
    parser.add_argument("--cycles", type=int, default=20_000, help="steps of the queue alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    return parser


if __name__ == "__main__":
    sys.exit(main())
