"""Runs pieces on an engine: rows out of payloads, through the layers, and into payloads again.

It runs in the thread that computes, touches no queue and no loop, and never raises: what goes wrong with
a step becomes that step's failure and leaves the others of the piece alone.
"""

import traceback
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from odsi_proto.errors import LocalProtocolError, OdsiError
from odsi_proto.kernels.codecs import decode_rows, encode_rows
from odsi_proto.kernels.engine import StageEngine, StageStep
from odsi_proto.node.piece import Part
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros


class Outcome:
    """How a step ended."""

    __slots__ = ("bug", "finished_us", "is_expired", "reason", "rows", "started_us")

    def __init__(
        self,
        started_us: Micros,
        finished_us: Micros,
        rows: memoryview | None,
        reason: str,
        *,
        bug: str = "",
        is_expired: bool = False,
    ) -> None:
        self.started_us = started_us
        """``finished_us`` less what its pieces took: while others had their turn, it was in the queue."""
        self.finished_us = finished_us
        self.rows = rows
        self.reason = reason
        self.bug = bug
        """A traceback, where the failure is our own; logged by the loop, once the request has its answer."""
        self.is_expired = is_expired
        """It never began, because nothing was left of its budget."""


Answer: TypeAlias = Callable[[Outcome], None]


class Job:
    """A step that the executor has taken, and what of it is computed."""

    __slots__ = ("_outputs", "_rows", "answer", "bug", "output", "reason", "run", "took_us")

    def __init__(self, run: Run, answer: Answer) -> None:
        self.run = run
        self.answer = answer
        self.took_us = 0
        """All its pieces; a piece counts in full for each of its steps."""
        self.output: memoryview | None = None
        """The payload, once the step is complete."""
        self.reason = ""
        """Why there will be none."""
        self.bug = ""
        self._rows: Tensor | None = None
        self._outputs: list[Tensor] = []

    def outcome(self, finished_us: Micros) -> Outcome:
        """How it ended; without rows or a reason, its request had ended."""
        reason = self.reason if self.reason or self.output is not None else "the request has ended"
        return Outcome(Micros(finished_us - self.took_us), finished_us, self.output, reason, bug=self.bug)

    def rows(self, part: Part, width: int) -> Tensor:
        """The input of a part. The whole payload is decoded and checked before any of it is run."""
        if self._rows is None:
            self._rows = decode_rows(self.run.codec_in, self.run.payload, width)
        return self._rows[part.offset : part.offset + part.positions]

    def take(self, part: Part, rows: Tensor) -> None:
        """Keep what is wanted of a part's output, and encode all of it after the last: the codecs know
        each row for itself, so the payload does not show how the step was cut."""
        unwanted = self.run.count - self.run.rows_out_max - part.offset
        self._outputs.append(rows[max(0, unwanted) :])
        if part.is_last:
            # Bytes: an endpoint retains them, and what it holds never changes.
            self.output = memoryview(bytes(encode_rows(self.run.codec_out, torch.cat(self._outputs))))

    def fail(self, error: Exception) -> None:
        """It can not be run; call this where the error is handled."""
        if isinstance(error, OdsiError):
            self.reason = str(error)
        else:
            self.reason, self.bug = f"internal error: {type(error).__name__}", traceback.format_exc()


def compute(engine: StageEngine, jobs: Sequence[tuple[Job, Part]]) -> None:
    """Run a piece."""
    steps, able = [], []
    for job, part in jobs:
        try:
            rows = job.rows(part, engine.config.width)
        except Exception as error:
            job.fail(error)
        else:
            steps.append(StageStep(job.run.request, job.run.position + part.offset, rows))
            able.append((job, part))
    try:
        results = engine.run_each(steps)
    except Exception as error:
        for job, _ in able:
            job.fail(error)
        return
    for (job, part), result in zip(able, results, strict=True):
        try:
            if isinstance(result, LocalProtocolError):
                raise result
            job.take(part, result)
        except Exception as error:
            job.fail(error)
