"""The execution queue: one worker thread that runs steps, so that QUIC is served meanwhile.

Kernels let go of the interpreter lock. But the way to another thread and back costs a decode step some
0.5 ms, because whoever has the lock goes on for a while; that is more than a stage of a small model
computes. So a step that is known to be short runs in the event loop, where packets wait for it less
than they wait for a timer. Jobs start in the order they were given, and one at a time, which keeps the
steps of a request in order. Reservations are no jobs: the loop makes them, and a job only looks them up.
"""

import asyncio
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeAlias

import structlog
import torch

from odsi_proto.errors import CapacityError, OdsiError
from odsi_proto.kernels.backend import usable_threads
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.node.driver import now_us
from odsi_proto.statemachine.effects import Release, Reserve, Run
from odsi_proto.units import Micros

log = structlog.get_logger(__name__)

INLINE_US_MAX = 10_000
"""What a step may take in the event loop: well within an ACK delay (25 ms) and a keep-alive (50 ms)."""


class ExecutionQueue:
    """Carries out :class:`Reserve`, :class:`Run` and :class:`Release` on one engine."""

    def __init__(self, engine: StageEngine, *, threads: int) -> None:
        self.engine = engine
        self._loop = asyncio.get_running_loop()
        threads = usable_threads(threads)
        # OpenMP keeps the number of compute threads for each thread that starts some: it is set in both
        # that compute. Set elsewhere, every operator would use all cores and spin.
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="odsi-execution", initializer=torch.set_num_threads, initargs=(threads,)
        )
        torch.set_num_threads(threads)
        self._with_worker = 0
        self._scheduled = 0
        """Jobs that start in this turn of the loop: of several, none runs in it."""
        self._decode_us = INLINE_US_MAX + 1
        """What a step of one position took last; unknown at first."""

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

    def run(self, effect: Run, answer: "Answer") -> None:
        """Run a step; ``answer`` gets its rows or its failure, with the times of both ends."""

        def job() -> Outcome:
            started_us = now_us()
            try:
                rows = self.engine.step(
                    effect.request,
                    first_position=effect.position,
                    payload=effect.payload,
                    codec_in=effect.codec_in,
                    codec_out=effect.codec_out,
                    rows_out_max=effect.rows_out_max,
                )
            except OdsiError as error:
                return Outcome(started_us, now_us(), None, str(error))
            except Exception as error:
                reason = f"internal error: {type(error).__name__}"
                return Outcome(started_us, now_us(), None, reason, bug=traceback.format_exc())
            # Bytes: an endpoint retains them, and what it holds never changes.
            return Outcome(started_us, now_us(), memoryview(bytes(rows)), "")

        # Not here: the effects that came with this one go first, and jobs start in their order.
        self._scheduled += 1
        self._loop.call_soon(self._start, job, effect.count, answer)

    def release(self, effect: Release) -> None:
        """Give state back; of a request that holds none, nothing. Its queued steps end unrun."""
        if self.engine.is_open(effect.request):
            self.engine.close(effect.request)

    def shut_down(self) -> None:
        """Finish the job under way and drop the rest."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _start(self, job: "Job", count: int, answer: "Answer") -> None:
        self._scheduled -= 1
        is_alone = not self._with_worker and not self._scheduled
        if count == 1 and is_alone and self._decode_us <= INLINE_US_MAX:
            self._done(job(), count, answer)
        else:
            self._submit(job, count, answer)

    def _submit(self, job: "Job", count: int, answer: "Answer") -> None:
        def work() -> None:
            outcome = job()
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waits
                self._loop.call_soon_threadsafe(back, outcome)

        def back(outcome: Outcome) -> None:
            self._with_worker -= 1
            self._done(outcome, count, answer)

        with suppress(RuntimeError):  # the queue is shut down
            self._worker.submit(work)
            self._with_worker += 1

    def _done(self, outcome: "Outcome", count: int, answer: "Answer") -> None:
        if count == 1 and outcome.rows is not None:  # one that failed says nothing of one that runs
            self._decode_us = outcome.finished_us - outcome.started_us
        answer(outcome)


class Outcome:
    """How a step ended."""

    __slots__ = ("bug", "finished_us", "reason", "rows", "started_us")

    def __init__(
        self, started_us: Micros, finished_us: Micros, rows: memoryview | None, reason: str, *, bug: str = ""
    ) -> None:
        self.started_us = started_us
        self.finished_us = finished_us
        self.rows = rows
        self.reason = reason
        self.bug = bug
        """A traceback, where the failure is our own; logged by the loop, once the request has its answer."""


Job: TypeAlias = Callable[[], Outcome]
Answer: TypeAlias = Callable[[Outcome], None]
