"""Whatever comes and whatever ends: every step runs once and in order, and the queue keeps its bounds."""

from collections import defaultdict
from itertools import accumulate
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from node.queue_bench import (
    ONE_US,
    Machine,
    first_come_first_served,
    machine_us,
    make_queue,
    missed,
    name,
    run,
)
from properties.profile import share

from odsi_proto.errors import CapacityError
from odsi_proto.node.piece import Piece
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, RequestId

STEPS_MAX = 12
BYTES_MAX = 300

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(0, 5),
            st.sampled_from([1, 1, 1, 5, 16, 17, 60]),
            st.sampled_from([-5_000, 0, 500, 4_000, 20_000, 90_000, 10**12]),
            st.booleans(),
        ),
        st.tuples(st.just("start")),
        st.tuples(st.just("end"), st.integers(0, 9)),
        st.tuples(st.just("forget"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(0, 30_000)),
    ),
    max_size=80,
)
"""Steps that come, pieces that begin and end (one in ten with a failure), requests that end, and time."""


class Log(NamedTuple):
    """What became of each step, in order."""

    over: list[tuple[int, int]]
    expired: list[tuple[int, int]]
    dropped: list[tuple[int, int]]
    refused: list[tuple[int, int]]
    pieces: list[list[tuple[int, int, int, int]]]
    """Request, position, offset and positions of each part."""


class Driver:
    """Does operations on a queue, and holds it to its promises meanwhile."""

    def __init__(self, *, can_batch: bool, can_cut: bool) -> None:
        self.queue = make_queue(
            steps_max=STEPS_MAX, bytes_max=BYTES_MAX, can_batch=can_batch, can_cut=can_cut
        )
        self.can_batch, self.can_cut = can_batch, can_cut
        self.now = 0
        self.log = Log([], [], [], [], [])
        self.held: dict[tuple[int, int], Run] = {}
        self.taken_us: dict[tuple[int, int], int] = {}
        self.positions: dict[int, int] = defaultdict(int)
        self.done: dict[tuple[int, int], int] = defaultdict(int)
        self.failed: set[int] = set()

    def do(self, operation: tuple[object, ...]) -> None:
        match operation:
            case ("add", int(request), int(count), int(slack_us), bool(droppable)):
                self.add(request, count, slack_us, droppable=droppable)
            case ("start",) if self.queue.running is None:
                self.start()
            case ("end", int(chance)) if self.queue.running is not None:
                self.end(fails=chance == 0)
            case ("forget", int(request)):
                self.forget(request)
            case ("wait", int(wait_us)):
                self.now += wait_us
        assert self.queue.credit_steps == STEPS_MAX - len(self.held)
        assert self.queue.credit_bytes == BYTES_MAX - sum(len(each.payload) for each in self.held.values())
        assert self.queue.queue_us(Micros(self.now)) >= 0
        for line in self.queue._lines.values():
            ends_us = accumulate(step.rest_us for step in line.steps)
            starts_us = [step.finish_us - end for step, end in zip(line.steps, ends_us, strict=True)]
            assert not starts_us or line.latest_start_us == min(starts_us)
        parts = () if self.queue.running is None else self.queue.running.parts
        assert self.queue.waiting(Micros(self.now)).steps == len(self.held) - len(
            [part for part in parts if (name(part.step.run), part.step.run.position) in self.held]
        )

    def add(self, request: int, count: int, slack_us: int, *, droppable: bool) -> None:
        if request in self.failed:
            return  # it has ended
        step = run(
            request,
            self.positions[request],
            count=count,
            slack_us=slack_us,
            droppable=droppable,
            payload_bytes=count,
        )
        key = request, step.position
        has_room = len(self.held) < STEPS_MAX and count <= self.queue.credit_bytes
        try:
            self.queue.add(step, now=Micros(self.now))
        except CapacityError:
            assert not has_room
            self.log.refused.append(key)
            return
        assert has_room
        self.held[key], self.taken_us[key] = step, self.now
        self.positions[request] += count

    def start(self) -> None:
        turn = self.queue.next(now=Micros(self.now))
        for each in turn.expired:
            key = name(each), int(each.position)
            assert self.held.pop(key).is_droppable
            assert not self.done[key]
            assert self.now - self.taken_us[key] >= each.remaining_us
            self.log.expired.append(key)
            self.failed.add(name(each))
        if turn.piece is None:
            return
        self.check(turn.piece)
        self.log.pieces.append(
            [(name(p.step.run), p.step.run.position, p.offset, p.positions) for p in turn.piece.parts]
        )

    def check(self, piece: Piece) -> None:
        requests = [name(part.step.run) for part in piece.parts]
        assert len(set(requests)) == len(requests)
        assert len(requests) == 1 or self.can_batch
        assert piece.work.rows == sum(part.positions for part in piece.parts)
        for part in piece.parts:
            key = name(part.step.run), int(part.step.run.position)
            assert key in self.held
            assert part.offset == self.done[key]
            assert key[1] == min(position for request, position in self.held if request == key[0])
            assert part.positions == part.step.run.count or self.can_cut
            assert not (part.step.run.is_droppable and not part.offset) or (
                self.now - self.taken_us[key] < part.step.run.remaining_us
            )

    def end(self, *, fails: bool) -> None:
        piece = self.queue.running
        assert piece is not None
        took_us = machine_us(piece.work)
        self.now += took_us
        failed = [piece.parts[0].step] if fails else []
        over = self.queue.done(took_us=took_us, now=Micros(self.now), failed=failed)
        self.failed |= {name(step.run) for step in failed}
        for part in piece.parts:
            key = name(part.step.run), int(part.step.run.position)
            self.done[key] += part.positions
            is_over = part.is_last or part.step in failed or key not in self.held
            assert (part.step in over) == is_over or name(part.step.run) in self.failed
        for step in over:
            key = name(step.run), int(step.run.position)
            self.log.over.append(key)
            self.held.pop(key)

    def forget(self, request: int) -> None:
        dropped = self.queue.forget(RequestId(request.to_bytes(16, "big")))
        for each in dropped:
            self.held.pop((name(each), each.position))
            self.log.dropped.append((name(each), each.position))
        self.failed.add(request)

    def finish(self) -> None:
        """End what has failed and run the rest."""
        for _ in range(1_000):
            if self.queue.running is not None:
                self.end(fails=False)
            for request in sorted(self.failed):
                self.forget(request)
            self.start()
            if self.queue.running is None and not self.failed & {request for request, _ in self.held}:
                break
        assert not self.held, "nothing is lost"
        ended = [*self.log.over, *self.log.expired, *self.log.dropped]
        assert len(set(ended)) == len(ended), "nothing ends twice"
        assert (self.queue.credit_steps, self.queue.credit_bytes) == (STEPS_MAX, BYTES_MAX)
        assert not self.queue.has_waiting
        assert self.queue.queue_us(Micros(self.now)) == 0


@given(operations=OPERATIONS, can_batch=st.booleans(), can_cut=st.booleans())
@share(300)
def test_every_step_runs_once_and_in_order_or_ends_unrun_for_a_reason(
    operations: list[tuple[object, ...]], can_batch: bool, can_cut: bool
) -> None:
    driver = Driver(can_batch=can_batch, can_cut=can_cut)
    for operation in operations:
        driver.do(operation)
    driver.finish()


@given(operations=OPERATIONS)
@share(50)
def test_the_same_events_give_the_same_pieces(operations: list[tuple[object, ...]]) -> None:
    logs = []
    for _ in range(2):
        driver = Driver(can_batch=True, can_cut=True)
        for operation in operations:
            driver.do(operation)
        driver.finish()
        logs.append(driver.log)
    assert logs[0] == logs[1]


def arrivals(gaps_and_slacks: list[tuple[int, int]]) -> list[tuple[int, Run]]:
    """Steps of one position, each of a request of its own."""
    at_us = accumulate(gap_us for gap_us, _ in gaps_and_slacks)
    return [
        (at, run(index, slack_us=slack))
        for index, (at, (_, slack)) in enumerate(zip(at_us, gaps_and_slacks, strict=True))
    ]


STREAMS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1_000, ONE_US - 500, ONE_US, 2 * ONE_US]),
        st.sampled_from([1_000, ONE_US, 2 * ONE_US, 10_000, 20_000, 50_000]),
    ),
    max_size=30,
).map(arrivals)


@given(STREAMS)
@share(200)
def test_one_by_one_nothing_is_late_that_first_come_first_served_would_have_in_time(
    stream: list[tuple[int, Run]],
) -> None:
    # Work-conserving orders of equal steps use the same slots, and by latest start is the best of them.
    if any(missed(first_come_first_served(stream), stream).values()):
        return
    machine = Machine(make_queue(can_batch=False))
    machine.serve(stream)
    assert not any(missed(machine.finished_us, stream).values())


@given(STREAMS)
@share(200)
def test_together_nothing_is_late_either(stream: list[tuple[int, Run]]) -> None:
    if any(missed(first_come_first_served(stream), stream).values()):
        return
    machine = Machine(make_queue())
    machine.serve(stream)
    assert not any(missed(machine.finished_us, stream).values())
