"""Counts and times of one generation, as its client sees them: the source of its result.

A record for every step, up to a bound; everything in the result is made from them at the end. What
stages report is taken once for each step and stage, and only of steps that were sent.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from odsi_proto.node.result import (
    Budgets,
    ClientReport,
    FinishReason,
    GenerationResult,
    HopTimes,
    Spread,
    StageReport,
    StepTimes,
)
from odsi_proto.routing.path import Peer
from odsi_proto.units import Micros, Position
from odsi_proto.wire.frames import StatusRecord

STEPS_MAX = 8_192
"""Steps of one generation that are kept: a full context."""

HOPS_MAX = 1 << 17
"""Records of stages that are kept, some 25 MB: on a long path fewer steps are."""


class _Step:
    """A step under way, and then what is kept of it."""

    __slots__ = (
        "arrived_us",
        "begun_us",
        "count",
        "done_us",
        "embed_us",
        "head_us",
        "hops",
        "position",
        "return_us",
        "sample_us",
        "send_us",
        "sent_bytes",
    )

    def __init__(self, position: Position, count: int, begun_us: int, stages_count: int) -> None:
        self.position = position
        self.count = count
        self.begun_us = begun_us
        self.hops: list[HopTimes | None] = [None] * stages_count
        self.arrived_us = -1
        self.embed_us = self.send_us = self.sent_bytes = self.return_us = 0
        self.head_us = self.sample_us = self.done_us = 0

    def frozen(self) -> StepTimes:
        """What it has become."""
        return StepTimes(
            position=self.position,
            positions=self.count,
            begun_us=self.begun_us,
            embed_us=self.embed_us,
            send_us=self.send_us,
            sent_bytes=self.sent_bytes,
            hops=tuple(self.hops),
            return_us=self.return_us,
            arrived_us=self.arrived_us,
            head_us=self.head_us,
            sample_us=self.sample_us,
            done_us=self.done_us or self.arrived_us,
        )


class Tally:
    """What one generation took, where. Call in the order of a step's life."""

    def __init__(self, path: Sequence[Peer], *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.token_ids: list[int] = []
        self.budgets: Budgets | None = None
        """What is asked of the path."""
        self._clock_ns = clock_ns
        self._prompt_positions = 0
        self._take_path(path, 0)
        self._started_ns = 0
        self._first_us = 0
        self._last_us = 0
        self._mark_us = 0
        self._news = asyncio.Event()

    def _take_path(self, path: Sequence[Peer], replayed_positions: int) -> None:
        self._path = path
        self._replayed_positions = replayed_positions
        """The prompt, or more where it was run again with what followed it."""
        self._next = Position(0)
        self._steps_max = min(STEPS_MAX, HOPS_MAX // max(1, len(path)))
        self._steps: dict[Position, _Step] = {}
        self._current = _Step(Position(0), 0, 0, 0)
        """The step that is being sent, or sampled from; it may be one that is not kept."""
        self._steps_left_out = 0
        self._reported = [Position(-1)] * len(path)
        """The furthest step that each stage has reported."""

    @property
    def is_started(self) -> bool:
        """Whether prompt rows were sent, on the last path or one before."""
        return self._prompt_positions > 0

    def start(self, prompt_positions: int) -> None:
        """The first prompt rows are about to be sent."""
        self._prompt_positions = self._replayed_positions = prompt_positions
        self._started_ns = self._clock_ns()

    def reroute(self, path: Sequence[Peer], positions: int) -> None:
        """Go on along another path, which runs what there is, so many positions, as a prompt first.

        Parts and steps are of the last path alone.
        """
        self._take_path(path, positions)

    def begin(self, count: int) -> None:
        """A step of so many positions, after those before, is about to be embedded."""
        position, self._next = self._next, Position(self._next + count)
        self._mark_us = self._now_us()
        self._current = _Step(position, count, self._mark_us, len(self._path))
        if len(self._steps) < self._steps_max:
            self._steps[position] = self._current
        else:
            self._steps_left_out += 1

    def embedded(self) -> None:
        """Its rows are encoded."""
        self._current.embed_us = self._lap_us()

    def sent(self, count_bytes: int) -> None:
        """It is about to be given to QUIC, with so many bytes."""
        self._current.send_us = self._lap_us()
        self._current.sent_bytes = count_bytes

    def arrived(self, position: Position, transfer_us: Micros) -> None:
        """Its rows are here."""
        step = self._steps.get(position)
        if step is not None and step.arrived_us < 0:
            step.arrived_us = self._now_us()
            step.return_us = transfer_us

    def begin_head(self) -> None:
        """The head is about to be applied to the rows of the step that was sent last."""
        self._mark_us = self._now_us()

    def headed(self) -> None:
        """The logits are there."""
        self._current.head_us = self._lap_us()

    def sampled(self, token_id: int) -> None:
        """A token was sampled."""
        self._current.sample_us = self._lap_us()
        self._current.done_us = self._last_us = self._mark_us
        if not self.token_ids:
            self._first_us = self._mark_us
        self.token_ids.append(token_id)

    def add_status(self, records: Iterable[StatusRecord]) -> None:
        """Stages have reported steps."""
        for record in records:
            if record.stage >= len(self._path):
                continue
            self._reported[record.stage] = max(self._reported[record.stage], record.position)
            step = self._steps.get(record.position)
            if step is None or step.hops[record.stage] is not None:
                continue
            step.hops[record.stage] = HopTimes(
                transfer_us=record.transfer_us,
                queue_us=record.queue_us,
                compute_us=record.compute_us,
                coordination_us=record.coordination_us,
                remaining_us=record.remaining_us,
                output_bytes=record.output_bytes,
                flags=record.flags,
            )
        self._news.set()

    async def wait_reported(self, position: Position) -> None:
        """Wait until every stage has reported the step that starts at ``position``."""
        while any(reported < position for reported in self._reported):
            self._news.clear()
            await self._news.wait()

    def result(
        self, text: str, finish_reason: FinishReason, *, reroutes: int, is_exact: bool
    ) -> GenerationResult:
        """The finished generation."""
        decode_us = self._last_us - self._first_us
        decode_steps = len(self.token_ids) - 1
        steps = tuple(step.frozen() for step in self._steps.values())
        prompt = [step for step in steps if step.position < self._replayed_positions]
        decode = [step for step in steps[len(prompt) :] if step.arrived_us >= 0]
        # A token's time begins where the one before it was sampled.
        pairs = list(pairwise([*prompt[-1:], *decode]))
        tokens_us = [step.done_us - before.done_us for before, step in pairs]
        callers_us = [max(0, step.begun_us - before.done_us) for before, step in pairs]
        rest_us = (t - c - s.known_us for t, c, (_, s) in zip(tokens_us, callers_us, pairs, strict=True))
        return GenerationResult(
            text=text,
            token_ids=tuple(self.token_ids),
            prompt_positions=self._prompt_positions,
            finish_reason=finish_reason,
            reroutes=reroutes,
            is_exact=is_exact,
            first_token_us=Micros(self._first_us),
            tokens_per_second=decode_steps * 1e6 / max(1, decode_us) if decode_steps else 0.0,
            token=Spread.of(tokens_us),
            unaccounted=Spread.of(rest_us),
            stages=tuple(
                _stage_report(peer, [hop for step in decode if (hop := step.hops[index]) is not None])
                for index, peer in enumerate(self._path)
            ),
            client=ClientReport(
                caller=Spread.of(callers_us),
                embed=Spread.of(step.embed_us for step in decode),
                send=Spread.of(step.send_us for step in decode),
                returned=Spread.of(step.return_us for step in decode),
                head=Spread.of(step.head_us for step in decode),
                sample=Spread.of(step.sample_us for step in decode),
                bytes_per_token=_mean(step.sent_bytes for step in decode),
            ),
            budgets=self.budgets,
            steps=steps,
            replayed_positions=self._replayed_positions,
            steps_left_out=self._steps_left_out,
        )

    def _now_us(self) -> int:
        return (self._clock_ns() - self._started_ns) // 1_000

    def _lap_us(self) -> int:
        """Since the last mark, which is now."""
        before_us, self._mark_us = self._mark_us, self._now_us()
        return self._mark_us - before_us


def _stage_report(peer: Peer, hops: Sequence[HopTimes]) -> StageReport:
    assert peer.layers is not None, "a path has the layers of every stage"
    return StageReport(
        participant=peer.participant,
        layers=peer.layers,
        transfer=Spread.of(hop.transfer_us for hop in hops),
        queue=Spread.of(hop.queue_us for hop in hops),
        compute=Spread.of(hop.compute_us for hop in hops),
        coordination=Spread.of(hop.coordination_us for hop in hops),
        total=Spread.of(hop.total_us for hop in hops),
        bytes_per_token=_mean(hop.output_bytes for hop in hops),
    )


def _mean(values: Iterable[int]) -> int:
    every = tuple(values)
    return sum(every) // len(every) if every else 0
