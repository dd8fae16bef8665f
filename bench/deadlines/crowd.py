"""Clients of one execution queue: each sends a step, waits for it, thinks, and sends the next."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from odsi_proto.kernels.codecs import encode_rows
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.node.compute import Outcome
from odsi_proto.node.execution import ExecutionQueue
from odsi_proto.node.step_queue import StepQueue
from odsi_proto.statemachine.effects import Release, Reserve, Run
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.tensor import ActivationCodec


@dataclass(frozen=True, slots=True)
class Tightness:
    """What a class of clients asks of this stage for a step."""

    name: str
    budget_us: int


TIGHT, MIDDLE, LOOSE = Tightness("tight", 50_000), Tightness("middle", 150_000), Tightness("loose", 500_000)
PROMPT = Tightness("prompt", 5_000_000)
MIX = (TIGHT, LOOSE, MIDDLE, LOOSE)
"""Client by client: a quarter tight, a quarter middle, half loose."""

THINK_S = 0.1
"""From an answer to the next step, by and large: the rest of the path and the client."""

PROMPT_POSITIONS = 256
PROMPT_PAUSE_S = 0.5
"""One client beside the others only has prompts read."""


@dataclass(slots=True)
class Seen:
    """What the clients of one class saw."""

    latencies_us: list[int] = field(default_factory=list)
    misses: int = 0

    def add(self, took_us: int, budget_us: int) -> None:
        self.latencies_us.append(took_us)
        self.misses += took_us > budget_us


@dataclass(slots=True)
class Result:
    """One run of a crowd."""

    by_class: dict[str, Seen]
    seconds: float
    queue_ns: int
    """Spent in the queue's own methods."""
    steps: int
    pieces: int


class TimedQueue:
    """A step queue that counts the nanoseconds spent in it."""

    def __init__(self, queue: StepQueue) -> None:
        self.queue = queue
        self.spent_ns = 0

    def __getattr__(self, name: str) -> object:
        found = getattr(self.queue, name)
        if name not in {"add", "next", "done"}:
            return found

        def timed(*values: object, **named: object) -> object:
            started_ns = time.perf_counter_ns()
            try:
                return found(*values, **named)
            finally:
                self.spent_ns += time.perf_counter_ns() - started_ns

        return timed


class Crowd:
    """So many decoding clients, and one with prompts, on one engine."""

    def __init__(self, engine: StageEngine, clients: int, seconds: float, seed: int) -> None:
        self._engine = engine
        self._clients = clients
        self._seconds = seconds
        self._seed = seed
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(PROMPT_POSITIONS, engine.config.width, generator=generator)
        self._payload = bytes(encode_rows(ActivationCodec.F32, rows))

    def run(self, queue: StepQueue) -> Result:
        """Run all of them for a while on one queue."""
        return asyncio.run(self._run(queue))

    async def _run(self, queue: StepQueue) -> Result:
        self._execution = ExecutionQueue(self._engine, threads=1)
        timed = TimedQueue(queue)
        self._execution._queue = timed  # type: ignore[assignment]  # a benchmark alone reaches inside
        self._seen = {each.name: Seen() for each in (TIGHT, MIDDLE, LOOSE, PROMPT)}
        # One step of each kind, so that nobody's first guess is measured.
        for count in (1, PROMPT_POSITIONS):
            await self._client(0, PROMPT, count, 0.0, 0.0)
        self._seen[PROMPT.name] = Seen()
        timed.spent_ns = 0
        pieces_before = queue.counts.pieces
        started_s = time.perf_counter()
        self._until_s = started_s + self._seconds
        chance = random.Random(self._seed)
        await asyncio.gather(
            self._client(0, PROMPT, PROMPT_POSITIONS, PROMPT_PAUSE_S, self._seconds),
            *(
                self._client(number + 1, MIX[number % len(MIX)], 1, THINK_S, self._seconds, chance.random())
                for number in range(self._clients)
            ),
        )
        seconds = time.perf_counter() - started_s
        steps = sum(len(seen.latencies_us) for seen in self._seen.values())
        pieces = queue.counts.pieces - pieces_before
        await asyncio.to_thread(self._execution.shut_down)
        return Result(self._seen, seconds, timed.spent_ns, steps, pieces)

    async def _client(
        self, number: int, kind: Tightness, count: int, pause_s: float, seconds: float, phase: float = 0.0
    ) -> None:
        """Send steps for so long, at least one, each after the answer to the one before."""
        chance = random.Random(self._seed * 1_000 + number)
        request = RequestId(number.to_bytes(16, "big"))
        ends_s = time.perf_counter() + seconds
        await asyncio.sleep(phase * pause_s)
        positions_max = min(self._engine.config.context, 512)
        position = positions_max
        while True:
            if position + count > positions_max:  # a new request: state is bounded
                self._execution.release(Release(request=request))
                problem = self._execution.reserve(Reserve(request=request, positions_max=positions_max))
                assert problem is None, problem
                position = 0
            await self._step(request, position, count, kind)
            position += count
            await asyncio.sleep(pause_s * (0.5 + chance.random()))
            if time.perf_counter() >= ends_s:
                break
        self._execution.release(Release(request=request))

    async def _step(self, request: RequestId, position: int, count: int, kind: Tightness) -> None:
        row_bytes = len(self._payload) // PROMPT_POSITIONS
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        own_us = self._execution.load().decode_us or 0
        sent_s = time.perf_counter()
        run = Run(
            request=request,
            position=Position(position),
            count=count,
            payload=memoryview(self._payload)[: count * row_bytes],
            codec_in=ActivationCodec.F32,
            codec_out=ActivationCodec.F32,
            rows_out_max=1,
            remaining_us=Micros(kind.budget_us),
            slack_us=Slack(kind.budget_us - own_us),
            is_droppable=False,
        )
        self._execution.run(run, answer.set_result)
        outcome = await answer
        assert outcome.rows is not None, outcome.reason
        self._seen[kind.name].add(int((time.perf_counter() - sent_s) * 1e6), kind.budget_us)


def percentile_us(values: Sequence[int], share: float) -> int:
    """The value below which so large a share of them lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0
