"""Which steps a stage runs next, and which of them together: the policy of the execution queue.

It owns the steps that wait. It never runs one, reads a clock or knows an engine: ``now`` is an argument.

Order. The steps of a request run one after the other, so each request stands in the queue with its first
step alone. Requests are ordered by their *latest start*: the instant, fixed when a step comes, after which
the rest of the path would not get its time. A later step of the request that is tighter lends its own, less
what the steps before it take. So the order does not change while steps wait, and equals go by arrival.

Lateness. A request whose latest start has passed can not be in time any more, and others still can: it is
*set aside*, runs where a piece has room, and has every fourth turn, so that it goes on however full the
stage is. A droppable step of which nothing is left is not run at all.

Pieces. What runs is a *piece*: the most urgent step, and short steps of other requests for as long as the
piece is expected to end in time for each of them. Weights are read once for all of them, so sixteen steps
cost less than three do one by one. If a step is kept out by one that is no tighter, and would be late for it,
the looser one is set aside instead: a stage that has too much to do misses its loosest deadlines first, and
does not fall back to pieces of one step when time is short.

Prompts. A long step runs in pieces, between which others have their turn. A piece takes at most half of the
least slack that steps of the open requests come with, and ends before the next one has to start; it takes
sixteen positions at least.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from odsi_proto.errors import CapacityError
from odsi_proto.node.compute_time import ComputeTimes, Work
from odsi_proto.node.piece import PIECE_ROWS_MIN, Draft, Piece
from odsi_proto.node.queued_step import Line, QueuedStep
from odsi_proto.node.ranking import Ranking
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, RequestId

SLACK_US_MAX = 10_000_000
"""More slack counts as so much: a step without a deadline is not overtaken for ever."""

PIECE_US_MAX = 50_000
"""What a piece of more than the least rows may take, however much slack there is: those who decode wait."""

PIECE_ALONE_US_MAX = 200_000
"""The same while no open request has decoded: only a first prompt of somebody else can come meanwhile."""

FIXED_TIMES = 2
"""But a piece may always take so many times what one row takes alone: where reading the weights is most of
the time, shorter pieces would read them for little."""

LATE_TURNS = 4
"""One turn in so many begins with a step that was set aside, if one waits."""

LATE_TURNS_MAX = 16
"""Where steps run alone, a late one gives way to one that it would make late; but not for more turns."""

SLACK_BUCKETS_US = (0, 5_000, 20_000, 100_000, 1_000_000)
"""Bounds between the groups in which waiting steps are counted: late, below 5 ms and so on."""


PROMPT_SHARE = 4
"""A prompt counts on one part in so many of a busy stage: it begins to lead so much earlier than it would
have to with the stage to itself, as long as nobody is late for it."""

_READS_GAIN = 8
"""A new decode batch counts for an eighth in what one reads."""


class Turn(NamedTuple):
    """What is next."""

    expired: tuple[Run, ...]
    """Droppable steps of which nothing is left; they are forgotten."""
    piece: Piece | None
    """None if nothing waits."""


class Waiting(NamedTuple):
    """Steps that wait."""

    steps: int
    payload_bytes: int
    by_slack: tuple[int, ...]
    """How many in each of the groups of :data:`SLACK_BUCKETS_US`."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What has happened since the queue was made."""

    steps: int = 0
    """That ran to their end."""
    pieces: int = 0
    steps_per_piece: Counter[int] = field(default_factory=Counter)
    """How many pieces had so many steps."""
    cuts: int = 0
    """Pieces that left a rest of their step."""
    late: int = 0
    """Steps that ended after their latest finish."""
    set_aside: int = 0
    """Times that a step was put behind those that can be in time."""
    expired: int = 0
    refused: int = 0
    """Steps that found the queue full."""


class StepQueue:
    """The steps that wait for one engine."""

    def __init__(
        self, times: ComputeTimes, *, steps_max: int, bytes_max: int, can_batch: bool, can_cut: bool
    ) -> None:
        """``can_batch``: a row keeps its bits in company; ``can_cut``: and however a prompt is cut."""
        self.times = times
        self.counts = Counts()
        self.credit_steps = steps_max
        """Steps that it takes beyond those it holds."""
        self.credit_bytes = bytes_max
        """Payload bytes of the same."""
        self.running: Piece | None = None
        self._can_batch = can_batch
        self._can_cut = can_cut
        self._lines: dict[RequestId, Line] = {}
        self._short, self._long = (_Lines(Ranking(), Ranking()) for _ in range(2))
        """By whether the first step is short."""
        self._expiries: Ranking[Line] = Ranking()
        """Of the waiting lines whose first step is droppable and has not begun."""
        self._tight: Ranking[Line] = Ranking()
        """Of the waiting lines that can be in time, by the slack that the first step came with; where steps
        run together, those of short steps."""
        self._slacks: Ranking[Line] = Ranking()
        """What the last short step of each open request came with, unless it was late."""
        self._arrivals = count()
        self._turns_since_late = 0
        self._short_steps = 0
        """Short steps that are not done."""
        self._long_us = 0
        """Expected of the long ones."""
        self._ends_us = 0
        """When the piece that runs is expected to end."""
        self._decode_reads = 0
        """Positions of state that a decode step reads, by and large."""

    @property
    def has_waiting(self) -> bool:
        """Whether there is a next piece."""
        return any(len(ranking) for waiting in (self._short, self._long) for ranking in waiting)

    def add(self, run: Run, *, now: Micros) -> None:
        """Take a step after those of its request; raises ``CapacityError`` if there is no room."""
        if not self.credit_steps or len(run.payload) > self.credit_bytes:
            self.counts.refused += 1
            raise CapacityError(f"the execution queue is full, for {self.queue_us(now)} us or so")
        line = self._lines.setdefault(run.request, Line(run.request))
        slack_us = min(run.slack_us, SLACK_US_MAX)
        step = QueuedStep(
            run=run,
            line=line,
            arrival=next(self._arrivals),
            slack_us=slack_us,
            expires_us=now + run.remaining_us,
            expected_us=self.times.expected_us(Work.of(run.position, run.count)),
            # The slack is what is left beyond the stage's own time for a step of one position.
            finish_us=now + slack_us + self.times.expected_us(Work.of(run.position, 1)),
            work_before_us=line.work_us,
        )
        line.append(step)
        self.credit_steps -= 1
        self.credit_bytes -= len(run.payload)
        if step.is_short:
            self._short_steps += 1
        else:
            self._long_us += step.expected_us
        if step.is_short and slack_us >= 0:
            self._slacks.put(line, (slack_us, step.arrival))
        self._rank(line, now)

    def forget(self, request: RequestId) -> tuple[Run, ...]:
        """A request has ended: its waiting steps, which will not run. One that runs ends with its piece."""
        line = self._lines.pop(request, None)
        if line is None:
            return ()
        self._unrank(line)
        self._slacks.drop(line)
        line.is_stopped = True
        dropped = []
        while len(line.steps) > line.is_running:
            step = line.steps.pop()
            self._let_go(step)
            dropped.append(step.run)
        return tuple(reversed(dropped))

    def next(self, *, now: Micros) -> Turn:
        """Form the next piece, which runs until :meth:`done`: nobody asks before."""
        assert self.running is None, "one piece at a time"
        expired = tuple(self._expire(now))
        self._set_late_aside(now)
        chosen = self._lead(now)
        if chosen is None:
            return Turn(expired, None)
        lead, is_late = chosen
        step, draft = lead.steps[0], Draft(self.times, now)
        is_cut = self._is_cut(step)
        draft.lead(lead, PIECE_ROWS_MIN if is_cut else step.left, is_late=is_late)
        if self._can_batch and (step.is_short or is_cut):
            self._gather(draft)
        if is_cut:
            self._extend(draft)
        self.running = piece = draft.piece()
        self._ends_us = now + self.times.expected_us(piece.work)
        for part in piece.parts:
            part.step.line.is_running = True
        self.counts.set_aside += draft.set_aside
        self.counts.pieces += 1
        self.counts.steps_per_piece[len(piece.parts)] += 1
        return Turn(expired, piece)

    def done(
        self, *, took_us: Micros, now: Micros, failed: Collection[QueuedStep] = ()
    ) -> tuple[QueuedStep, ...]:
        """The piece has run: the steps that are over, being complete, failed or of an ended request."""
        assert self.running is not None, "nothing runs"
        piece, self.running = self.running, None
        if not failed:  # one that failed says nothing of how long one takes
            self.times.observe(piece.work, took_us)
            if piece.work.is_decode:
                self._decode_reads += (
                    piece.work.reads // piece.work.rows - self._decode_reads
                ) // _READS_GAIN
        over = []
        for step, _, positions in piece.parts:
            line = step.line
            line.is_running = False
            line.is_stopped |= step in failed
            rest_us = step.rest_us
            line.advance(positions)
            if not step.is_short:
                self._long_us -= rest_us - step.rest_us
            if not step.left and step not in failed:
                self.counts.steps += 1
                self.counts.late += now > step.finish_us
            self.counts.cuts += step.left > 0
            if line.is_stopped or not step.left:
                line.pop()
                self._let_go(step)
                over.append(step)
            self._rank(line, now)
        return tuple(over)

    @property
    def decode_us(self) -> Micros | None:
        """Expected compute of a decode step alone; None while none has run."""
        if not self.times.knows(is_decode=True):
            return None
        return self.times.expected_us(Work(1, self._decode_reads, is_decode=True))

    def queue_us(self, now: Micros) -> Micros:
        """Until a short step taken now would start: roughly, and rather too long than too short.

        What runs comes first, then short steps by sixteens, and before each of these a piece of a prompt.
        """
        batch_us = self.times.expected_us(Work(PIECE_ROWS_MIN, 0, is_decode=True))
        batches = self._short_steps // PIECE_ROWS_MIN
        prompts_us = min(self._long_us, (batches + 1) * max(batch_us, self._piece_us_max()))
        running_us = max(0, self._ends_us - now) if self.running is not None else 0
        return Micros(running_us + batches * batch_us + prompts_us)

    def waiting(self, now: Micros) -> Waiting:
        """Count the steps that wait; looks at each."""
        by_slack, payload_bytes = [0] * (len(SLACK_BUCKETS_US) + 1), 0
        for line in self._lines.values():
            for step in line.steps:
                if line.is_running and step is line.steps[0]:
                    continue
                slack_us = step.finish_us - step.expected_us - now
                by_slack[sum(slack_us >= bound_us for bound_us in SLACK_BUCKETS_US)] += 1
                payload_bytes += len(step.run.payload)
        return Waiting(sum(by_slack), payload_bytes, tuple(by_slack))

    def _rank(self, line: Line, now: Micros) -> None:
        """Put a line where it belongs; one that runs or has stopped, nowhere."""
        self._unrank(line)
        if not line.steps or line.is_running or line.is_stopped:
            return
        first = line.steps[0]
        waiting = self._short if first.is_short else self._long
        if line.latest_start_us < now:
            waiting.late.put(line, line.rank)
        else:
            waiting.timely.put(line, line.rank)
            if first.is_short or not self._can_batch:
                self._tight.put(line, (first.slack_us, first.arrival))
        if first.run.is_droppable and not first.ran:
            self._expiries.put(line, (first.expires_us, first.arrival))

    def _unrank(self, line: Line) -> None:
        for ranking in (*self._short, *self._long, self._tight, self._expiries):
            ranking.drop(line)

    def _let_go(self, step: QueuedStep) -> None:
        """A step is done, dropped or expired."""
        self.credit_steps += 1
        self.credit_bytes += len(step.run.payload)
        if step.is_short:
            self._short_steps -= 1
        else:
            self._long_us -= step.rest_us

    def _expire(self, now: Micros) -> Iterator[Run]:
        while (first := self._expiries.first()) is not None and first[0][0] <= now:
            line = first[1]
            self._unrank(line)
            line.is_stopped = True
            step = line.pop()
            self._let_go(step)
            self.counts.expired += 1
            yield step.run

    def _set_late_aside(self, now: Micros) -> None:
        for waiting in (self._short, self._long):
            while (first := waiting.timely.first()) is not None and first[0][0] < now:
                self._set_aside(first[1], waiting)

    def _set_aside(self, line: Line, waiting: "_Lines") -> None:
        waiting.timely.drop(line)
        self._tight.drop(line)
        waiting.late.put(line, line.rank)
        self.counts.set_aside += 1

    def _lead(self, now: Micros) -> tuple[Line, bool] | None:
        """The most urgent line, taken out, and whether it is a late one, which has its turn now and then."""
        timely = self._lead_in_time(now)
        late = _most_urgent(self._short.late, self._long.late)
        self._turns_since_late = 0 if late is None else self._turns_since_late + 1
        is_late = late is not None and (
            timely is None
            or self._turns_since_late >= LATE_TURNS_MAX
            or (self._turns_since_late >= LATE_TURNS and not self._harms_a_tighter(late, now))
        )
        lead = late if is_late else timely
        if lead is None:
            return None
        if is_late:
            self._turns_since_late = 0
        self._unrank(lead)
        return lead, is_late

    def _lead_in_time(self, now: Micros) -> Line | None:
        """The most urgent of the lines that can be in time, or a prompt before it is too late for that."""
        while (timely := _most_urgent(self._short.timely, self._long.timely)) is not None:
            if not self._harms_a_tighter(timely, now):
                break
            self._set_aside(timely, self._short if timely.steps[0].is_short else self._long)
        prompt = self._long.timely.first()
        if timely is None or prompt is None or not self._can_cut:
            return timely
        piece_us = self.times.expected_us(Work(PIECE_ROWS_MIN, 0, is_decode=False))
        hurry_us = prompt[0][0] - (PROMPT_SHARE - 1) * prompt[1].rest_us
        is_harmless = timely.latest_start_us >= now + piece_us
        return prompt[1] if is_harmless and hurry_us < timely.latest_start_us else timely

    def _harms_a_tighter(self, line: Line, now: Micros) -> bool:
        """Whether a tighter step would be late after this one; where steps run together, it can join."""
        tightest, step = self._tight.first(), line.steps[0]
        if self._can_batch or tightest is None or tightest[0][0] >= step.slack_us:
            return False
        rows = PIECE_ROWS_MIN if self._is_cut(step) else step.left
        return tightest[1].latest_start_us < now + self.times.expected_us(step.work(rows))

    def _is_cut(self, step: QueuedStep) -> bool:
        return self._can_cut and not step.is_short and step.left > PIECE_ROWS_MIN

    def _gather(self, draft: Draft) -> None:
        """Let short steps of other requests join.

        There may be room for fewer than are in a hurry: first come the tightest of those that would be late
        after this piece, then all that can be in time by their latest start, then late ones.
        """
        limit_us = self._piece_us_max()
        full_us = max(limit_us, self.times.expected_us(Work(PIECE_ROWS_MIN, 0, is_decode=True)))
        while (first := self._tight.first()) is not None:
            line = first[1]
            if line.latest_start_us >= draft.now + full_us:
                break
            if not draft.invite(line, limit_us, is_late=False):
                break
            self._unrank(line)
        for ranking, is_late in ((self._short.timely, False), (self._short.late, True)):
            while (first := ranking.first()) is not None:
                if not draft.invite(first[1], limit_us, is_late=is_late):
                    break
                self._unrank(first[1])

    def _extend(self, draft: Draft) -> None:
        """Let the prompt that leads have as many positions as make nobody late who waits."""
        limit_us = self._piece_us_max()
        waiting = _most_urgent(self._short.timely, self._long.timely)
        if waiting is not None:
            limit_us = min(limit_us, waiting.latest_start_us - draft.now)
        draft.extend(limit_us)

    def _piece_us_max(self) -> int:
        """What a piece may take, for the sake of steps that are not here yet."""
        slack = self._slacks.first()
        if slack is None:
            return PIECE_ALONE_US_MAX
        one_us = self.times.expected_us(Work(1, self._decode_reads, is_decode=True))
        return max(FIXED_TIMES * one_us, min(PIECE_US_MAX, slack[0][0] // 2))


class _Lines(NamedTuple):
    """Lines that wait."""

    timely: Ranking[Line]
    late: Ranking[Line]
    """Set aside."""


def _most_urgent(*rankings: Ranking[Line]) -> Line | None:
    firsts = [first for ranking in rankings if (first := ranking.first()) is not None]
    return min(firsts, key=lambda first: first[0])[1] if firsts else None
