"""A step that waits, and the line of those of one request: what the policy of the execution queue orders."""

from collections import deque
from dataclasses import dataclass, field

from odsi_proto.node.compute_time import Work
from odsi_proto.node.ranking import Rank
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import RequestId

SHORT_POSITIONS_MAX = 16
"""A step of at most so many positions is never cut, and may run beside others: a row of kernel tiles."""


@dataclass(slots=True, eq=False)
class QueuedStep:
    """A step from its arrival until its last piece is done."""

    run: Run
    line: "Line"
    arrival: int
    """Counts up over all steps."""
    slack_us: int
    """That it came with."""
    expires_us: int
    """When nothing is left of what remained."""
    expected_us: int
    """Of compute, alone."""
    finish_us: int
    """The latest instant for its output."""
    work_before_us: int
    """Expected of the request's steps before it."""
    ran: int = 0
    """Positions that are done."""

    @property
    def left(self) -> int:
        """Positions that are not done."""
        return self.run.count - self.ran

    @property
    def rest_us(self) -> int:
        """Expected of what is not done."""
        return self.expected_us * self.left // self.run.count

    @property
    def is_short(self) -> bool:
        """Whether it is never cut, and may run beside others."""
        return self.run.count <= SHORT_POSITIONS_MAX

    def work(self, positions: int) -> Work:
        """The next so many of its positions."""
        return Work.of(self.run.position + self.ran, positions)


@dataclass(slots=True, eq=False)
class Line:
    """The steps of one request, in their order."""

    request: RequestId
    steps: deque[QueuedStep] = field(default_factory=deque)
    tight: deque[tuple[int, QueuedStep]] = field(default_factory=deque)
    """What may decide the latest start: latest finish less all work up to there, ascending; the first
    holds now, each other one once those before it are gone."""
    work_us: int = 0
    """Expected of all steps that ever came."""
    spent_us: int = 0
    """The part of it that is done."""
    is_running: bool = False
    is_stopped: bool = False
    """A step failed or expired: the request is about to end, and the rest does not run."""

    @property
    def latest_start_us(self) -> int:
        """For the first step, so that it and all that wait behind it are in time."""
        return self.tight[0][0] + self.spent_us

    @property
    def rank(self) -> Rank:
        """The order of lines: the earliest latest start, and of equals the first to arrive."""
        return self.latest_start_us, self.steps[0].arrival

    @property
    def rest_us(self) -> int:
        """Expected of all that waits."""
        return self.work_us - self.spent_us

    def append(self, step: QueuedStep) -> None:
        """Put a step behind the others."""
        self.steps.append(step)
        self.work_us += step.expected_us
        start_us = step.finish_us - self.work_us
        while self.tight and self.tight[-1][0] >= start_us:
            self.tight.pop()
        self.tight.append((start_us, step))

    def advance(self, positions: int) -> None:
        """Count positions of the first step as done."""
        step = self.steps[0]
        step.ran += positions
        self.spent_us = step.work_before_us + step.expected_us - step.rest_us

    def pop(self) -> QueuedStep:
        """Take the first step out."""
        step = self.steps.popleft()
        self.spent_us = step.work_before_us + step.expected_us
        if self.tight[0][1] is step:
            self.tight.popleft()
        return step
