"""A piece of compute: what an executor runs in one go, and how one is put together.

A piece has *bounds*: instants by which it must have ended for those of its steps that can be in time.
"""

from heapq import heappop, heappush
from typing import NamedTuple

from odsi_proto.node.compute_time import NOTHING, ComputeTimes, Work
from odsi_proto.node.queued_step import Line, QueuedStep
from odsi_proto.units import Micros

BATCH_ROWS_MAX = 64
"""Rows of steps that run together: beyond 32 a row costs within a twentieth of what it costs there."""

PIECE_ROWS_MIN = 16
"""What a piece may always have. 16 rows together cost a sixth more for each than 64 do, one alone six times
as much: this keeps a stage going whose clients all ask for less time than it has."""


class Part(NamedTuple):
    """What a piece runs of one step."""

    step: QueuedStep
    offset: int
    """Positions of the step that ran before."""
    positions: int
    """That it runs."""

    @property
    def is_last(self) -> bool:
        """Whether the step is complete with it."""
        return self.offset + self.positions == self.step.run.count


class Piece(NamedTuple):
    """What the executor runs in one go."""

    parts: tuple[Part, ...]
    work: Work
    safe_us: Micros
    """What it will hardly pass."""


class Draft:
    """A piece that is being put together; its first step leads."""

    def __init__(self, times: ComputeTimes, now: Micros) -> None:
        self.now = now
        self.set_aside = 0
        """Members that the piece will be late for, because tighter ones would have been otherwise."""
        self._times = times
        self._members: list[tuple[Line, int]] = []
        self._lead_work = self._beside = NOTHING
        self._bounds: list[tuple[int, int, QueuedStep]] = []
        """A heap of instants, the arrival of the step, and the step."""

    @property
    def work(self) -> Work:
        """Of all members."""
        return self._lead_work.beside(self._beside)

    def lead(self, line: Line, positions: int, *, is_late: bool) -> None:
        """Begin with the most urgent step."""
        self._lead_work = line.steps[0].work(positions)
        self._members.append((line, positions))
        if not is_late:
            self._bind(line, line.latest_start_us + self._times.expected_us(self._lead_work))

    def invite(self, line: Line, limit_us: int, *, is_late: bool) -> bool:
        """Let a short step join if the piece then still ends in time for it and for every member.

        ``limit_us`` is what a piece of more than ``PIECE_ROWS_MIN`` rows may take. A member that keeps out
        a step which is no looser, and would be late after this piece, loses its say.
        """
        step = line.steps[0]
        own = step.work(step.left)
        both = self.work.beside(own)
        ends_us = self.now + self._times.expected_us(both)
        if both.rows > BATCH_ROWS_MAX or (both.rows > PIECE_ROWS_MIN and ends_us > self.now + limit_us):
            return False
        if not is_late:
            own_us = self._times.expected_us(own)
            bound_us = line.latest_start_us + own_us
            if ends_us > bound_us:
                return False
            after_us = self.now + self._times.expected_us(self.work) + own_us
            if not self._give_way(ends_us, step.slack_us if after_us > bound_us else None):
                return False
            self._bind(line, bound_us)
        elif not self._give_way(ends_us, None):
            return False
        self._beside = self._beside.beside(own)
        self._members.append((line, step.left))
        return True

    def extend(self, limit_us: int) -> None:
        """Let the long step that leads have as many positions as fit into the limit and the bounds."""
        line, least = self._members[0]
        step = line.steps[0]
        others = (bound_us - self.now for bound_us, _, bound in self._bounds if bound is not step)
        limit_us = min(limit_us, *others, limit_us)
        first = step.run.position + step.ran
        positions = max(least, self._times.rows_within(first, step.left, self._beside, limit_us))
        if positions < step.left:
            positions -= positions % PIECE_ROWS_MIN
        self._lead_work = step.work(positions)
        self._members[0] = (line, positions)

    def piece(self) -> Piece:
        """As it is to run."""
        parts = tuple(Part(line.steps[0], line.steps[0].ran, positions) for line, positions in self._members)
        return Piece(parts, self.work, self._times.safe_us(self.work))

    def _bind(self, line: Line, bound_us: int) -> None:
        heappush(self._bounds, (bound_us, line.steps[0].arrival, line.steps[0]))

    def _give_way(self, ends_us: int, slack_us: int | None) -> bool:
        """Whether the piece may end then: at the cost of members that are no tighter than ``slack_us``."""
        passed = []
        while self._bounds and self._bounds[0][0] < ends_us:
            passed.append(heappop(self._bounds))
        if slack_us is not None and all(step.slack_us >= slack_us for _, _, step in passed):
            self.set_aside += len(passed)
            return True
        for bound in passed:
            heappush(self._bounds, bound)
        return not passed
