"""The execution queue: one worker thread that runs steps, so that the event loop never computes.

torch releases the interpreter lock inside its operators; QUIC keeps being served meanwhile. Jobs
run in the order they were given, which keeps the steps of a request in order. Reservations are no
jobs: the loop makes them, and the worker only looks them up.
"""

import asyncio
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import structlog
import torch

from odsi_proto.errors import CapacityError, OdsiError
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.node.driver import now_us
from odsi_proto.statemachine.effects import Release, Reserve, Run
from odsi_proto.units import Micros

log = structlog.get_logger(__name__)

T = TypeVar("T")


class ExecutionQueue:
    """Carries out :class:`Reserve`, :class:`Run` and :class:`Release` on one engine."""

    def __init__(self, engine: StageEngine, *, threads: int) -> None:
        self.engine = engine
        self._loop = asyncio.get_running_loop()
        # OpenMP keeps the number of compute threads for each thread that starts some: it is set here,
        # in the thread that computes. Set elsewhere, every operator would use all cores and spin.
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="odsi-execution", initializer=torch.set_num_threads, initargs=(threads,)
        )

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

    def run(self, effect: Run, answer: Callable[["Outcome"], None]) -> None:
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

        self._submit(job, answer)

    def release(self, effect: Release) -> None:
        """Give state back; of a request that holds none, nothing. Its queued steps end unrun."""
        if self.engine.is_open(effect.request):
            self.engine.close(effect.request)

    def shut_down(self) -> None:
        """Finish the job under way and drop the rest."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _submit(self, job: Callable[[], T], answer: Callable[[T], None]) -> None:
        def work() -> None:
            result = job()
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waits
                self._loop.call_soon_threadsafe(answer, result)

        with suppress(RuntimeError):  # the queue is shut down
            self._worker.submit(work)


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
