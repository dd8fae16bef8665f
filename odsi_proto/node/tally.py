"""Counts and times of one generation, as its client sees them: the source of its result."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from odsi_proto.node.result import ClientReport, FinishReason, GenerationResult, StageReport
from odsi_proto.routing.path import Peer
from odsi_proto.units import Micros, Position
from odsi_proto.wire.frames import StatusRecord


class Mean:
    """A running mean of whole numbers."""

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._count = 0
        self._total = 0

    def add(self, value: int) -> None:
        """Take one more value."""
        self._total += value
        self._count += 1

    @contextmanager
    def timed_us(self) -> Iterator[None]:
        """Take how long the block runs."""
        start_ns = time.monotonic_ns()
        yield
        self.add((time.monotonic_ns() - start_ns) // 1_000)

    def __int__(self) -> int:
        return self._total // self._count if self._count else 0


class _Stage:
    """Means over one stage's status records."""

    __slots__ = ("compute_us", "output_bytes", "position", "queue_us", "transfer_us")

    def __init__(self) -> None:
        self.compute_us, self.queue_us, self.transfer_us = Mean(), Mean(), Mean()
        self.output_bytes = Mean()
        self.position = Position(-1)
        """The furthest step that it has reported."""


class Tally:
    """What one generation took, where. Means are over the decode steps; the prompt is apart."""

    def __init__(self, path: Sequence[Peer]) -> None:
        self.token_ids: list[int] = []
        self.embed_us, self.head_us, self.sample_us = Mean(), Mean(), Mean()
        self.sent_bytes = Mean()
        self._path = path
        self._stages = [_Stage() for _ in path]
        self._prompt_positions = 0
        self._replayed_positions = 0
        """The prompt, or more where it was run again with what followed it."""
        self._started_ns = 0
        self._first_ns = 0
        self._last_ns = 0
        self._reported = asyncio.Event()

    def start(self, prompt_positions: int) -> None:
        """The first prompt rows are about to be sent."""
        self._prompt_positions = self._replayed_positions = prompt_positions
        self._started_ns = time.monotonic_ns()

    def reroute(self, path: Sequence[Peer], positions: int) -> None:
        """Go on along another path, which runs what there is, so many positions, as a prompt first."""
        self._path = path
        self._stages = [_Stage() for _ in path]
        self._replayed_positions = positions

    def token(self, token_id: int) -> None:
        """A token was sampled."""
        self._last_ns = time.monotonic_ns()
        if not self.token_ids:
            self._first_ns = self._last_ns
            self.embed_us, self.head_us, self.sample_us = Mean(), Mean(), Mean()
            self.sent_bytes = Mean()
        self.token_ids.append(token_id)

    def add_status(self, records: Iterable[StatusRecord]) -> None:
        """Stages have reported steps."""
        for record in records:
            if record.stage >= len(self._stages):
                continue
            stage = self._stages[record.stage]
            stage.position = max(stage.position, record.position)
            if record.position >= self._replayed_positions:
                stage.compute_us.add(record.compute_us)
                stage.queue_us.add(record.queue_us)
                stage.transfer_us.add(record.transfer_us)
                stage.output_bytes.add(record.output_bytes)
        self._reported.set()

    async def wait_reported(self, position: Position) -> None:
        """Wait until every stage has reported the step that starts at ``position``."""
        while any(stage.position < position for stage in self._stages):
            self._reported.clear()
            await self._reported.wait()

    def result(
        self, text: str, finish_reason: FinishReason, *, reroutes: int, is_exact: bool
    ) -> GenerationResult:
        """The finished generation."""
        decode_s = (self._last_ns - self._first_ns) / 1e9
        decode_steps = len(self.token_ids) - 1
        return GenerationResult(
            text=text,
            token_ids=tuple(self.token_ids),
            prompt_positions=self._prompt_positions,
            finish_reason=finish_reason,
            reroutes=reroutes,
            is_exact=is_exact,
            first_token_us=Micros((self._first_ns - self._started_ns) // 1_000),
            tokens_per_second=decode_steps / decode_s if decode_steps else 0.0,
            stages=tuple(
                StageReport(
                    participant=peer.participant,
                    layers=peer.layers,
                    compute_us=Micros(int(stage.compute_us)),
                    queue_us=Micros(int(stage.queue_us)),
                    transfer_us=Micros(int(stage.transfer_us)),
                    bytes_per_token=int(stage.output_bytes),
                )
                for peer, stage in zip(self._path, self._stages, strict=True)
                if peer.layers is not None
            ),
            client=ClientReport(
                embed_us=Micros(int(self.embed_us)),
                head_us=Micros(int(self.head_us)),
                sample_us=Micros(int(self.sample_us)),
                bytes_per_token=int(self.sent_bytes),
            ),
        )
