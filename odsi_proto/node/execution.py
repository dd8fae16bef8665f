"""The execution queue: steps run in the order of ``step_queue``, piece by piece, while QUIC is served.

Whenever the engine is free the next piece is formed, of what waits then. Kernels let go of the interpreter
lock, so a piece runs in a worker thread beside the loop. But the way to another thread and back costs a
decode step some 0.5 ms, because whoever has the lock goes on for a while; that is more than a stage of a
small model computes. So a piece that is known to be short, and with nothing behind it, runs in the event
loop, where packets wait for it less than they wait for a timer (docs/decisions/0012-compute-thread.md).

Reservations do not wait: the loop makes them, and a piece only looks them up.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import structlog
import torch

from odsi_proto.errors import CapacityError
from odsi_proto.kernels.backend import usable_threads
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.limits import Limits
from odsi_proto.node.compute import Answer, Job, Outcome, compute
from odsi_proto.node.compute_time import ComputeTimes
from odsi_proto.node.driver import now_us
from odsi_proto.node.piece import Part, Piece
from odsi_proto.node.step_queue import StepQueue, Waiting
from odsi_proto.statemachine.budget import ExecutorLoad
from odsi_proto.statemachine.effects import Release, Reserve, Run
from odsi_proto.units import Micros, Position, RequestId

log = structlog.get_logger(__name__)

INLINE_US_MAX = 10_000
"""What a piece may take in the event loop: well within an ACK delay (25 ms) and a keep-alive (50 ms)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSnapshot:
    """What the execution queue holds and has done."""

    waiting: Waiting
    running: int
    """Steps of the piece that runs."""
    queue_us: Micros
    """Until a short step taken now would start."""
    decode_us: Micros | None
    """Expected compute of one decode step alone; None while none has run."""
    steps: int
    """That ran to their end; this and the rest since the node started."""
    busy_us: int
    """Time that pieces took, each once however many steps it had."""
    pieces: int
    pieces_inline: int
    """That ran in the event loop."""
    steps_per_piece: tuple[tuple[int, int], ...]
    """How many pieces had so many steps, by that number."""
    cuts: int
    """Pieces that left a rest of their step."""
    late: int
    """Steps that ended after the latest finish that the queue knew of."""
    set_aside: int
    """Times that a step was put behind those that could be in time."""
    expired: int
    refused: int
    """Steps that found the queue full."""


class ExecutionQueue:
    """Carries out :class:`Reserve`, :class:`Run` and :class:`Release` on one engine."""

    def __init__(self, engine: StageEngine, *, threads: int, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.engine = engine
        stability = engine.backend.stability
        self._queue = StepQueue(
            ComputeTimes(),
            steps_max=limits.executor_steps_max,
            bytes_max=limits.executor_bytes_max,
            can_batch=stability.batch,
            can_cut=stability.batch and stability.chunks,
        )
        self._jobs: dict[tuple[RequestId, Position], Job] = {}
        self._loop = asyncio.get_running_loop()
        threads = usable_threads(threads)
        # OpenMP keeps the number of compute threads for each thread that starts some: it is set in both
        # that compute. Set elsewhere, every operator would use all cores and spin.
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="odsi-execution", initializer=torch.set_num_threads, initargs=(threads,)
        )
        torch.set_num_threads(threads)
        self._is_woken = False
        self._pieces_inline = 0
        self._busy_us = 0

    def reserve(self, effect: Reserve) -> str | None:
        """Set state aside, at once: nobody's OPEN waits for compute. None, or why it does not fit."""
        try:
            self.engine.open(effect.request, effect.positions_max)
        except CapacityError as error:
            return str(error)
        except (MemoryError, RuntimeError) as error:  # what torch raises where memory is short
            log.error("reserve failed", positions=effect.positions_max, reason=str(error))
            return f"no memory for {effect.positions_max} positions: {type(error).__name__}"
        return None

    def run(self, effect: Run, answer: Answer) -> None:
        """Run a step when its turn comes; ``answer`` gets its rows or its failure, never at once."""
        job = Job(effect, answer)
        try:
            self._queue.add(effect, now=now_us())
        except CapacityError as error:
            job.fail(error)
            self._loop.call_soon(answer, job.outcome(now_us()))
            return
        self._jobs[effect.request, effect.position] = job
        self._wake()

    def release(self, effect: Release) -> None:
        """Give state back; of a request that holds none, nothing. Its queued steps end unrun."""
        if self.engine.is_open(effect.request):
            self.engine.close(effect.request)
        for run in self._queue.forget(effect.request):
            job = self._jobs.pop((run.request, run.position))
            self._loop.call_soon(job.answer, job.outcome(now_us()))

    def load(self) -> ExecutorLoad:
        """What it takes now."""
        queue = self._queue
        return ExecutorLoad(
            queue_us=queue.queue_us(now_us()),
            decode_us=queue.decode_us,
            credit_steps=queue.credit_steps,
            credit_bytes=queue.credit_bytes,
        )

    def snapshot(self) -> QueueSnapshot:
        """For people and monitors; looks at each waiting step."""
        queue, now = self._queue, now_us()
        counts = queue.counts
        return QueueSnapshot(
            waiting=queue.waiting(now),
            running=0 if queue.running is None else len(queue.running.parts),
            queue_us=queue.queue_us(now),
            decode_us=queue.decode_us,
            steps=counts.steps,
            busy_us=self._busy_us,
            pieces=counts.pieces,
            pieces_inline=self._pieces_inline,
            steps_per_piece=tuple(sorted(counts.steps_per_piece.items())),
            cuts=counts.cuts,
            late=counts.late,
            set_aside=counts.set_aside,
            expired=counts.expired,
            refused=counts.refused,
        )

    def shut_down(self) -> None:
        """Finish the piece under way and drop the rest."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _wake(self) -> None:
        """Form a piece later in this turn of the loop: what else comes in it may join."""
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._woken)

    def _woken(self) -> None:
        self._is_woken = False
        self._start(has_answers=False)

    def _start(self, *, has_answers: bool) -> None:
        """Form the next piece and run it, if none runs: in the loop only if no answer waits behind it."""
        if self._queue.running is not None:
            return
        turn = self._queue.next(now=now_us())
        for run in turn.expired:
            job = self._jobs.pop((run.request, run.position))
            now = now_us()
            outcome = Outcome(now, now, None, "nothing is left of its budget", is_expired=True)
            self._loop.call_soon(job.answer, outcome)
        if turn.piece is None:
            return
        jobs = [
            (self._jobs[part.step.run.request, part.step.run.position], part) for part in turn.piece.parts
        ]
        if not has_answers and self._is_short(turn.piece):
            self._pieces_inline += 1
            self._done(jobs, *self._timed(jobs))
        else:
            self._submit(jobs)

    def _is_short(self, piece: Piece) -> bool:
        """Whether packets may wait for it: a decode of a known time, with nothing behind it."""
        return (
            piece.work.is_decode
            and piece.safe_us <= INLINE_US_MAX
            and self._queue.times.knows(is_decode=True)
            and not self._queue.has_waiting
        )

    def _submit(self, jobs: Sequence[tuple[Job, Part]]) -> None:
        def work() -> None:
            started_us, finished_us = self._timed(jobs)
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waits
                self._loop.call_soon_threadsafe(self._done, jobs, started_us, finished_us)

        with suppress(RuntimeError):  # the queue is shut down
            self._worker.submit(work)

    def _timed(self, jobs: Sequence[tuple[Job, Part]]) -> tuple[Micros, Micros]:
        started_us = now_us()
        compute(self.engine, jobs)
        return started_us, now_us()

    def _done(self, jobs: Sequence[tuple[Job, Part]], started_us: Micros, finished_us: Micros) -> None:
        took_us = Micros(finished_us - started_us)
        self._busy_us += took_us
        for job, _ in jobs:
            job.took_us += took_us
        failed = [part.step for job, part in jobs if job.reason]
        over = self._queue.done(took_us=took_us, now=finished_us, failed=failed)
        if self._queue.has_waiting:
            self._start(has_answers=True)  # the engine goes on before anybody reads what is done
        for step in over:
            job = self._jobs.pop((step.run.request, step.run.position))
            job.answer(job.outcome(finished_us))
