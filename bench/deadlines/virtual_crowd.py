"""The same clients in virtual time, on a machine whose times are given: the same figures at every run."""

import random
from dataclasses import dataclass
from heapq import heappop, heappush

from bench.deadlines.crowd import (
    MIX,
    PROMPT,
    PROMPT_PAUSE_S,
    PROMPT_POSITIONS,
    THINK_S,
    Result,
    Seen,
    Tightness,
)
from odsi_proto.node.compute_time import Work
from odsi_proto.node.step_queue import StepQueue
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.tensor import ActivationCodec

NO_PAYLOAD = memoryview(b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachine:
    """What a piece takes: the defaults are ten layers of the 135M model in float32 on one idle core."""

    fixed_us: int = 4_400
    row_us: int = 680
    jitter: float = 0.1
    """Each piece takes up to this share more or less."""

    def takes_us(self, work: Work) -> int:
        """Without jitter."""
        return self.fixed_us + self.row_us * work.rows


def step(
    number: int,
    position: int,
    count: int,
    budget_us: int,
    own_us: int,
    *,
    payload: memoryview = NO_PAYLOAD,
) -> Run:
    """A step as the state machine hands it over: its slack has the stage's own time taken off."""
    return Run(
        request=RequestId(number.to_bytes(16, "big")),
        position=Position(position),
        count=count,
        payload=payload,
        codec_in=ActivationCodec.F32,
        codec_out=ActivationCodec.F32,
        rows_out_max=1,
        remaining_us=Micros(budget_us),
        slack_us=Slack(budget_us - own_us),
        is_droppable=False,
    )


class VirtualCrowd:
    """So many decoding clients and one with prompts, for so many seconds."""

    def __init__(self, machine: VirtualMachine, clients: int, seconds: float, seed: int) -> None:
        self._machine = machine
        self._ends_us = int(seconds * 1e6)
        self._chance = random.Random(seed)
        self._kinds: list[Tightness] = [MIX[number % len(MIX)] for number in range(clients)] + [PROMPT]
        self._events: list[tuple[int, int]] = []
        """When which client sends its next step."""
        self._sent_us: dict[int, int] = {}
        self._positions = [0] * len(self._kinds)
        self._seen = {kind.name: Seen() for kind in (*MIX, PROMPT)}

    def run(self, queue: StepQueue) -> Result:
        """Let all of them use one queue."""
        for bits in range(9):  # so that nobody's first guess is measured
            for is_decode in (True, False):
                work = Work(1 << bits, 0, is_decode)
                queue.times.observe(work, Micros(self._machine.takes_us(work)))
        for number in range(len(self._kinds)):
            heappush(self._events, (int(self._chance.random() * THINK_S * 1e6), number))
        now = 0
        while now < self._ends_us:
            while self._events and self._events[0][0] <= now:
                self._send(queue, *heappop(self._events))
            piece = queue.next(now=Micros(now)).piece
            if piece is None:
                now = self._events[0][0]
                continue
            off = 1 + self._machine.jitter * (2 * self._chance.random() - 1)
            took_us = int(self._machine.takes_us(piece.work) * off)
            now += took_us
            for each in queue.done(took_us=Micros(took_us), now=Micros(now)):
                self._answered(int.from_bytes(each.run.request, "big"), now)
        steps = sum(len(seen.latencies_us) for seen in self._seen.values())
        return Result(self._seen, now / 1e6, 0, steps, queue.counts.pieces)

    def _send(self, queue: StepQueue, at_us: int, number: int) -> None:
        kind = self._kinds[number]
        count = PROMPT_POSITIONS if kind is PROMPT else 1
        run = step(number, self._positions[number], count, kind.budget_us, queue.decode_us or 0)
        self._positions[number] += count
        self._sent_us[number] = at_us
        queue.add(run, now=Micros(at_us))

    def _answered(self, number: int, now: int) -> None:
        kind = self._kinds[number]
        self._seen[kind.name].add(now - self._sent_us[number], kind.budget_us)
        pause_s = PROMPT_PAUSE_S if kind is PROMPT else THINK_S
        heappush(self._events, (now + int(pause_s * 1e6 * (0.5 + self._chance.random())), number))
