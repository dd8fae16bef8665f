"""Does compute starve the event loop that serves QUIC? A worker thread beside a process of its own.

One loop echoes steps that a peer process sends every 10 ms over QUIC, while prompts of 256 positions are run
one after the other: not at all; in the worker thread of the execution queue; in a child process, with rows
in shared memory. The first table has how late timers of the loop fire (a keep-alive is one), how long an echo
takes, and how much is computed meanwhile. The second has what it costs to hand over one decode step, beside
its compute: in the loop itself, to the thread, to the process.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which counts cores when it starts

from bench import command
from bench.command import check_folders, guarded, say, show, write_json
from bench.deadlines.compute_child import ComputeChild
from bench.deadlines.crowd import percentile_us
from bench.deadlines.echo import Echo, PeerProcess
from bench.deadlines.virtual_crowd import step
from bench.kernels.report import machine
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.model_path import default_model_path, open_source
from odsi_proto.node import execution
from odsi_proto.node.compute import Outcome
from odsi_proto.node.execution import ExecutionQueue
from odsi_proto.statemachine.effects import Release, Reserve
from odsi_proto.units import LayerRange, RequestId

PROMPT_POSITIONS = 256
PIECE_POSITIONS = 64
"""What the child is given at once; the thread's queue cuts for itself."""
POSITIONS_MAX = 512
PROBE_S = 0.002
REQUEST = RequestId(bytes(16))
FORMAT = 1

NOTHING, THREAD, PROCESS = "nothing computes", "worker thread", "child process"
LOOP = "event loop"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0 if it went well, 2 for what can not be done."""
    options = _parser().parse_args(arguments)
    return guarded("bench.deadlines.compute_thread", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    check_folders(options.json)
    before = machine()
    model = options.model or default_model_path()
    with open_source(model) as source:
        width, count = read_config(source).width, read_config(source).layers_count
        layers = LayerRange(0, min(options.layers, count))
        engine = StageEngine.load(source, None, layers)
    child = ComputeChild(model, layers, width, POSITIONS_MAX)
    try:
        found = asyncio.run(Bench(engine, child, options.rounds, options.seconds).run())
    finally:
        child.stop()
    _show(before, len(layers), engine.backend.name, options, found)
    write_json(options.json, {"format": FORMAT, "machine": before, "layers": len(layers), **found})


class Bench:
    """The ways to compute take turns."""

    def __init__(self, engine: StageEngine, child: ComputeChild, rounds: int, seconds: float) -> None:
        self._engine = engine
        self._child = child
        self._rounds = rounds
        self._seconds = seconds
        self._payload = bytes(PROMPT_POSITIONS * engine.config.width * 4)
        self._row = memoryview(self._payload)[: engine.config.width * 4]
        self._position = POSITIONS_MAX

    async def run(self) -> dict[str, Any]:
        """Everything."""
        self._queue = ExecutionQueue(self._engine, threads=1)
        echo = Echo()
        _, port = await echo.quic.bind("127.0.0.1", 0)
        peer = PeerProcess(port)
        ways: dict[str, Callable[[], Awaitable[int]]] = {
            NOTHING: self._pause,
            THREAD: self._prompt_in_thread,
            PROCESS: self._prompt_in_process,
        }
        seen: dict[str, dict[str, list[Any]]] = {
            way: {"lags": [], "windows": [], "rates": []} for way in ways
        }
        for prompt in ways.values():
            await prompt()  # what is first is not like the others
        for number in range(self._rounds):
            say(f"round {number + 1} of {self._rounds}")
            for way, prompt in ways.items():
                await self._turn(prompt, seen[way])
        hand_over = await self._hand_overs()
        echoes = await asyncio.to_thread(peer.stop)
        echo.quic.shut_down()
        await asyncio.to_thread(self._queue.shut_down)
        return {"loop": {way: _loop_summary(each, echoes) for way, each in seen.items()}, "decode": hand_over}

    async def _turn(self, prompt: Callable[[], Awaitable[int]], seen: dict[str, list[Any]]) -> None:
        stopped = asyncio.Event()
        probe = asyncio.create_task(_probe(stopped, seen["lags"]))
        started_s, positions = time.monotonic(), 0
        while (now_s := time.monotonic()) - started_s < self._seconds:
            positions += await prompt()
        stopped.set()
        await probe
        seen["windows"].append((started_s, now_s))
        seen["rates"].append(positions / (now_s - started_s))

    async def _pause(self) -> int:
        await asyncio.sleep(0.1)
        return 0

    async def _prompt_in_thread(self) -> int:
        self._open_again()
        await self._step(0, memoryview(self._payload))
        self._position = PROMPT_POSITIONS
        return PROMPT_POSITIONS

    async def _prompt_in_process(self) -> int:
        size = PIECE_POSITIONS * len(self._row)
        for first in range(0, PROMPT_POSITIONS, PIECE_POSITIONS):
            begin = first * len(self._row)
            await self._child.run(first, memoryview(self._payload)[begin : begin + size])
        return PROMPT_POSITIONS

    async def _hand_overs(self) -> dict[str, dict[str, float]]:
        """Decode steps one at a time: the whole time of each, and that less its compute."""
        spent: dict[str, list[tuple[int, int]]] = {LOOP: [], THREAD: [], PROCESS: []}
        inline_us_max = execution.INLINE_US_MAX
        for number in range(4 * self._rounds):
            for way, took in spent.items():
                execution.INLINE_US_MAX = 10**9 if way == LOOP else -1
                self._open_again()
                for position in range(16):
                    started_ns = time.perf_counter_ns()
                    if way == PROCESS:
                        _, compute_us = await self._child.run(position, self._row)
                    else:
                        compute_us = await self._step(position, self._row)
                    if number and position:  # the first of each are not like the others
                        took.append(((time.perf_counter_ns() - started_ns) // 1_000, compute_us))
                    await asyncio.sleep(0.003)
        execution.INLINE_US_MAX = inline_us_max
        return {
            way: {
                "whole_us": statistics.median(whole for whole, _ in took),
                "hand_over_us": statistics.median(whole - compute for whole, compute in took),
                "hand_over_p99_us": percentile_us([whole - compute for whole, compute in took], 0.99),
            }
            for way, took in spent.items()
        }

    def _open_again(self) -> None:
        self._queue.release(Release(request=REQUEST))
        problem = self._queue.reserve(Reserve(request=REQUEST, positions_max=POSITIONS_MAX))
        assert problem is None, problem

    async def _step(self, position: int, payload: memoryview) -> int:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        run = step(0, position, len(payload) // len(self._row), 5_000_000, 0, payload=payload)
        self._queue.run(run, answer.set_result)
        outcome = await answer
        assert outcome.rows is not None, outcome.reason
        return outcome.finished_us - outcome.started_us


async def _probe(stopped: asyncio.Event, lags_us: list[int]) -> None:
    """How late a timer fires, again and again."""
    loop = asyncio.get_running_loop()
    while not stopped.is_set():
        due_s = loop.time() + PROBE_S
        await asyncio.sleep(PROBE_S)
        lags_us.append(int((loop.time() - due_s) * 1e6))


def _loop_summary(seen: dict[str, list[Any]], echoes: Sequence[tuple[float, int]]) -> dict[str, float]:
    took = [us for sent_s, us in echoes if any(start <= sent_s < end for start, end in seen["windows"])]
    return {
        "timer_p50_us": percentile_us(seen["lags"], 0.5),
        "timer_p99_us": percentile_us(seen["lags"], 0.99),
        "timer_max_us": max(seen["lags"], default=0),
        "echo_p50_us": percentile_us(took, 0.5),
        "echo_p99_us": percentile_us(took, 0.99),
        "echo_max_us": max(took, default=0),
        "echoes": len(took),
        "positions_per_second": statistics.median(seen["rates"]),
    }


def _show(
    before: dict[str, Any], layers: int, backend: str, options: argparse.Namespace, found: dict[str, Any]
) -> None:
    lines = [
        f"{before['at']}, {before['processor']}, {before['cores']} cores, commit {before['commit']}",
        f"{layers} layers, {backend}, one thread; {options.rounds} rounds of {options.seconds:g} s; load "
        f"average {before['load'][0]:.2f} before and {os.getloadavg()[0]:.2f} after",
        "",
        f"  {'ms':<20}{'timer late by':>24}{'echo of a step':>27}{'positions':>12}",
        f"  {'':<20}{'p50':>8}{'p99':>8}{'max':>8}{'p50':>11}{'p99':>8}{'max':>8}{'/s':>12}",
    ]
    for way, each in found["loop"].items():
        timer = "".join(f"{each[f'timer_{key}_us'] / 1e3:>8.1f}" for key in ("p50", "p99", "max"))
        echo = "".join(f"{each[f'echo_{key}_us'] / 1e3:>8.1f}" for key in ("p50", "p99", "max"))
        lines.append(f"  {way:<20}{timer}   {echo}{each['positions_per_second']:>12.0f}")
    lines += ["", f"  {'one decode step, ms':<20}{'whole':>8}{'hand-over':>12}{'p99':>8}"]
    for way, each in found["decode"].items():
        costs = f"{each['hand_over_us'] / 1e3:>12.2f}{each['hand_over_p99_us'] / 1e3:>8.2f}"
        lines.append(f"  {way:<20}{each['whole_us'] / 1e3:>8.2f}{costs}")
    show(lines)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("bench.deadlines.compute_thread", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each way in each round")
    parser.add_argument("--layers", type=int, default=10, help="how many of the model's, from the first on")
    parser.add_argument("--model", type=Path, help="default: the model of the installation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    return parser


if __name__ == "__main__":
    sys.exit(main())
