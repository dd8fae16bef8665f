"""First come, first served: what the execution queue was, as one to compare the policy with."""

from collections import deque
from collections.abc import Collection

from odsi_proto.node.compute_time import NOTHING, ComputeTimes, Work
from odsi_proto.node.piece import BATCH_ROWS_MAX, Part, Piece
from odsi_proto.node.queued_step import Line, QueuedStep
from odsi_proto.node.step_queue import StepQueue, Turn
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, RequestId


class FirstCome(StepQueue):
    """Steps in the order of their arrival, whole; alone, or with those that came right after them."""

    def __init__(self, *, batches: bool) -> None:
        super().__init__(
            ComputeTimes(), steps_max=1 << 20, bytes_max=1 << 40, can_batch=batches, can_cut=False
        )
        self._waiting: deque[QueuedStep] = deque()
        self._batches = batches

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def add(self, run: Run, *, now: Micros) -> None:
        self._waiting.append(
            QueuedStep(
                run=run,
                line=Line(run.request),
                arrival=0,
                slack_us=run.slack_us,
                expires_us=now + run.remaining_us,
                expected_us=0,
                finish_us=now + run.slack_us,
                work_before_us=0,
            )
        )

    def forget(self, request: RequestId) -> tuple[Run, ...]:
        dropped = tuple(step.run for step in self._waiting if step.run.request == request)
        self._waiting = deque(step for step in self._waiting if step.run.request != request)
        return dropped

    def next(self, *, now: Micros) -> Turn:
        if not self._waiting:
            return Turn((), None)
        parts, work = [], NOTHING
        requests: set[RequestId] = set()
        while self._waiting and (not parts or self._joins(self._waiting[0], work, requests)):
            step = self._waiting.popleft()
            parts.append(Part(step, 0, step.run.count))
            requests.add(step.run.request)
            work = work.beside(Work.of(step.run.position, step.run.count))
        self.running = Piece(tuple(parts), work, self.times.safe_us(work))
        self.counts.pieces += 1
        self.counts.steps_per_piece[len(parts)] += 1
        return Turn((), self.running)

    def done(
        self, *, took_us: Micros, now: Micros, failed: Collection[QueuedStep] = ()
    ) -> tuple[QueuedStep, ...]:
        assert self.running is not None
        piece, self.running = self.running, None
        if not failed:
            self.times.observe(piece.work, took_us)
        return tuple(part.step for part in piece.parts)

    def _joins(self, step: QueuedStep, work: Work, requests: set[RequestId]) -> bool:
        return (
            self._batches
            and step.is_short
            and step.run.request not in requests
            and work.rows + step.run.count <= BATCH_ROWS_MAX
        )
