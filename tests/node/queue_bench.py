"""A step queue on a machine whose times are known, in virtual time; and first come, first served."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from odsi_proto.node.compute_time import ComputeTimes, Work
from odsi_proto.node.piece import Piece
from odsi_proto.node.step_queue import StepQueue
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.tensor import ActivationCodec

FIXED_US, ROW_US = 4_000, 500
"""What a piece takes here, and each row of it."""
ONE_US = FIXED_US + ROW_US


def machine_us(work: Work) -> Micros:
    return Micros(FIXED_US + ROW_US * work.rows)


def taught() -> ComputeTimes:
    """What a queue knows that has seen pieces of every size."""
    times = ComputeTimes()
    for bits in range(10):
        times.observe(Work(1 << bits, 0, is_decode=True), machine_us(Work(1 << bits, 0, is_decode=True)))
        times.observe(Work(1 << bits, 0, is_decode=False), machine_us(Work(1 << bits, 0, is_decode=False)))
    return times


def make_queue(
    *, steps_max: int = 1_000, bytes_max: int = 1 << 30, can_batch: bool = True, can_cut: bool = True
) -> StepQueue:
    return StepQueue(taught(), steps_max=steps_max, bytes_max=bytes_max, can_batch=can_batch, can_cut=can_cut)


def run(
    request: int,
    position: int = 0,
    *,
    count: int = 1,
    slack_us: int = 100_000,
    remaining_us: int | None = None,
    droppable: bool = False,
    payload_bytes: int = 4,
) -> Run:
    """A step; by default as much is left of its budget as its slack and its own time are."""
    return Run(
        request=RequestId(request.to_bytes(16, "big")),
        position=Position(position),
        count=count,
        payload=memoryview(bytes(payload_bytes)),
        codec_in=ActivationCodec.F32,
        codec_out=ActivationCodec.F32,
        rows_out_max=1,
        remaining_us=Micros(max(0, slack_us + ONE_US) if remaining_us is None else remaining_us),
        slack_us=Slack(slack_us),
        is_droppable=droppable,
    )


def name(request: Run) -> int:
    return int.from_bytes(request.request, "big")


@dataclass
class Machine:
    """Runs what its queue says, one piece after the other, and notes when each step was over."""

    queue: StepQueue
    now: int = 0
    finished_us: dict[tuple[int, int], int] = field(default_factory=dict)
    """By request and position."""
    expired: list[tuple[int, int]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def add(self, *runs: Run) -> None:
        for each in runs:
            self.queue.add(each, now=Micros(self.now))

    def turn(self) -> Piece | None:
        """Run one piece."""
        turn = self.queue.next(now=Micros(self.now))
        self.expired += [(name(each), each.position) for each in turn.expired]
        if turn.piece is None:
            return None
        took_us = machine_us(turn.piece.work)
        self.now += took_us
        self.pieces.append(turn.piece)
        for step in self.queue.done(took_us=took_us, now=Micros(self.now)):
            self.finished_us[name(step.run), step.run.position] = self.now
        return turn.piece

    def drain(self) -> list[list[int]]:
        """Run all that waits; the requests in each piece."""
        pieces = []
        while (piece := self.turn()) is not None:
            pieces.append([name(part.step.run) for part in piece.parts])
        return pieces

    def serve(self, arrivals: Iterable[tuple[int, Run]]) -> None:
        """Run steps that come at such times, in ascending order."""
        for at_us, each in arrivals:
            while self.now < at_us and self.turn() is not None:
                pass
            self.now = max(self.now, at_us)
            self.add_at(at_us, each)
        self.drain()

    def add_at(self, at_us: int, each: Run) -> None:
        """A step that came while a piece ran: its slack counts from then."""
        self.queue.add(each, now=Micros(at_us))


def missed(finished_us: dict[tuple[int, int], int], arrivals: Iterable[tuple[int, Run]]) -> dict[int, int]:
    """How many steps ended too late, by the slack that they came with."""
    late: dict[int, int] = defaultdict(int)
    for at_us, each in arrivals:
        if finished_us[name(each), each.position] > at_us + each.slack_us + ONE_US:
            late[each.slack_us] += 1
    return late


def first_come_first_served(arrivals: Iterable[tuple[int, Run]]) -> dict[tuple[int, int], int]:
    """When each step is over if they run one by one as they come."""
    now, finished_us = 0, {}
    for at_us, each in arrivals:
        now = max(now, at_us) + machine_us(Work(each.count, 0, is_decode=True))
        finished_us[name(each), each.position] = now
    return finished_us
