"""The order in which waiting steps run, which of them run together, and how prompts are cut between them."""

import pytest
from node.queue_bench import ONE_US, Machine, machine_us, make_queue, missed, run

from odsi_proto.errors import CapacityError
from odsi_proto.node.compute_time import ComputeTimes, Work
from odsi_proto.node.piece import BATCH_ROWS_MAX, PIECE_ROWS_MIN
from odsi_proto.node.step_queue import LATE_TURNS, PIECE_ALONE_US_MAX, PIECE_US_MAX, SLACK_US_MAX, StepQueue
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, RequestId


def one_by_one(*, can_cut: bool = True) -> Machine:
    return Machine(make_queue(can_batch=False, can_cut=can_cut))


def request(number: int) -> RequestId:
    return RequestId(number.to_bytes(16, "big"))


# Order


def test_the_step_with_the_least_slack_runs_first() -> None:
    machine = one_by_one()
    machine.add(run(1, slack_us=90_000), run(2, slack_us=30_000), run(3, slack_us=60_000))
    assert machine.drain() == [[2], [3], [1]]


def test_steps_of_equal_slack_run_as_they_came() -> None:
    machine = one_by_one()
    machine.add(*(run(number) for number in (3, 1, 2)))
    assert machine.drain() == [[3], [1], [2]]


def test_waiting_counts_an_older_step_is_before_a_newer_one_of_a_little_less_slack() -> None:
    machine = one_by_one()
    machine.add(run(1, slack_us=60_000))
    machine.now = 20_000
    machine.add(run(2, slack_us=50_000))
    assert machine.drain() == [[1], [2]]


def test_a_later_step_of_a_request_lends_its_deadline_to_the_one_before_it() -> None:
    machine = one_by_one()
    machine.add(run(1, 0, slack_us=90_000), run(2, slack_us=60_000), run(1, 1, slack_us=30_000))
    assert machine.drain() == [[1], [1], [2]]


def test_a_step_has_its_own_deadline_again_once_the_tighter_one_of_its_request_is_gone() -> None:
    machine = one_by_one()
    machine.add(run(1, 0, slack_us=20_000), run(1, 1, slack_us=90_000), run(2, slack_us=50_000))
    assert machine.drain() == [[1], [2], [1]]


def test_steps_before_a_tight_one_start_early_enough_for_all_of_them() -> None:
    # By slack alone the chain of four would begin after the other one, and its last step would be late.
    machine = one_by_one()
    machine.add(run(2, slack_us=3 * ONE_US - 1_000))
    machine.add(*(run(1, position, slack_us=4 * ONE_US) for position in range(4)))
    assert machine.drain()[0] == [1]


def test_a_step_counts_the_work_behind_it_even_where_that_decides_by_little() -> None:
    machine = one_by_one()
    machine.add(run(1, 0, slack_us=10_000), run(1, 1, slack_us=14_000), run(2, slack_us=9_700))
    assert machine.drain()[0] == [1], "the two of them have to start at 9,500"


def test_a_step_without_a_deadline_is_overtaken_for_a_bounded_time() -> None:
    machine = one_by_one()
    machine.add(run(1, slack_us=10**15))
    machine.now = SLACK_US_MAX - 50_000
    machine.add(run(2, slack_us=60_000))
    assert machine.drain() == [[1], [2]]


# Late and droppable


def test_a_step_that_can_not_be_in_time_goes_behind_those_that_can() -> None:
    machine = one_by_one()
    machine.add(run(1, slack_us=-1), run(2, slack_us=90_000))
    assert machine.drain() == [[2], [1]]


def test_a_late_step_has_every_fourth_turn() -> None:
    machine = one_by_one()
    machine.add(run(1, slack_us=-1), *(run(number, slack_us=200_000) for number in range(2, 8)))
    assert [pieces[0] for pieces in machine.drain()].index(1) == LATE_TURNS - 1


def test_a_droppable_step_with_nothing_left_never_runs() -> None:
    machine = one_by_one()
    machine.add(run(1, slack_us=9_000), run(2, slack_us=9_000, remaining_us=ONE_US, droppable=True))
    machine.drain()
    assert machine.expired == [(2, 0)]
    assert machine.queue.counts.expired == 1


def test_a_droppable_step_with_a_microsecond_left_runs() -> None:
    machine = one_by_one()
    machine.add(run(1, slack_us=9_000), run(2, slack_us=9_000, remaining_us=ONE_US + 1, droppable=True))
    assert machine.drain() == [[1], [2]]


def test_a_late_step_that_is_not_droppable_runs() -> None:
    machine = one_by_one()
    machine.add(run(1), run(2, slack_us=-9, remaining_us=0))
    assert machine.drain() == [[1], [2]]


def test_after_an_expired_step_the_rest_of_its_request_waits_for_the_end() -> None:
    machine = one_by_one()
    machine.add(run(1, 0, remaining_us=0, droppable=True), run(1, 1))
    assert machine.drain() == []
    assert [each.position for each in machine.queue.forget(request(1))] == [1]
    assert machine.queue.credit_steps == 1_000


def test_after_a_failed_step_the_rest_of_its_request_does_not_run() -> None:
    queue = make_queue()
    queue.add(run(1, 0), now=Micros(0))
    queue.add(run(1, 1), now=Micros(0))
    piece = queue.next(now=Micros(0)).piece
    assert piece is not None
    step = piece.parts[0].step
    assert queue.done(took_us=Micros(1), now=Micros(1), failed=[step]) == (step,)
    assert queue.next(now=Micros(1)).piece is None
    assert len(queue.forget(request(1))) == 1


def test_steps_of_an_ended_request_vanish_and_the_one_that_runs_ends_with_its_piece() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, 0, count=128), run(1, 128))
    assert machine.queue.next(now=Micros(0)).piece is not None
    assert [each.position for each in machine.queue.forget(request(1))] == [128]
    assert [step.run.position for step in machine.queue.done(took_us=Micros(1), now=Micros(1))] == [0]
    assert not machine.queue.has_waiting
    assert machine.queue.credit_steps == 1_000


# Bounds


def test_a_full_queue_refuses_with_the_queue_time() -> None:
    queue = make_queue(steps_max=2)
    queue.add(run(1), now=Micros(0))
    queue.add(run(2), now=Micros(0))
    with pytest.raises(CapacityError, match=r"full, for \d+ us"):
        queue.add(run(3), now=Micros(0))
    assert queue.counts.refused == 1


@pytest.mark.parametrize(("payload_bytes", "is_taken"), [(100, True), (101, False)])
def test_bytes_are_bounded(payload_bytes: int, is_taken: bool) -> None:
    queue = make_queue(bytes_max=100)
    if is_taken:
        queue.add(run(1, payload_bytes=payload_bytes), now=Micros(0))
        assert queue.credit_bytes == 0
    else:
        with pytest.raises(CapacityError):
            queue.add(run(1, payload_bytes=payload_bytes), now=Micros(0))


# Batches


def test_decode_steps_of_different_requests_run_together() -> None:
    machine = Machine(make_queue())
    machine.add(*(run(number) for number in range(8)))
    assert machine.drain() == [list(range(8))]
    assert machine.queue.counts.steps_per_piece == {8: 1}


def test_steps_of_one_request_never_run_together() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, 0), run(1, 1), run(2, 0))
    assert machine.drain() == [[1, 2], [1]]


def test_where_rows_do_not_keep_their_bits_in_company_each_step_runs_alone() -> None:
    machine = one_by_one()
    machine.add(*(run(number) for number in range(3)))
    assert machine.drain() == [[0], [1], [2]]


def test_a_step_does_not_join_if_the_first_would_then_be_late() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, slack_us=2 * machine_us_more(1) - 1), *(run(n, slack_us=90_000) for n in (2, 3, 4)))
    assert machine.drain() == [[1, 2], [3, 4]]


def test_a_step_that_would_be_late_in_company_does_not_join() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, count=15, slack_us=machine_us_more(14) + 1_000), run(2, slack_us=2_000))
    assert machine.drain()[0] == [1]


def machine_us_more(rows: int) -> int:
    """What so many rows more make a piece longer by."""
    return 500 * rows


def test_a_batch_has_at_most_so_many_rows() -> None:
    machine = Machine(make_queue())
    machine.add(*(run(number, slack_us=5_000_000) for number in range(BATCH_ROWS_MAX + 8)))
    assert [len(piece) for piece in machine.drain()] == [BATCH_ROWS_MAX, 8]


def test_a_larger_batch_takes_at_most_half_of_the_least_slack_that_open_requests_come_with() -> None:
    machine = Machine(make_queue())
    machine.add(run(99, slack_us=40_000))
    machine.drain()
    machine.add(*(run(number, slack_us=5_000_000) for number in range(60)))
    machine.turn()
    assert 18_000 < machine_us(machine.pieces[-1].work) <= 20_000


def test_a_client_that_always_asks_for_too_much_does_not_stop_batches() -> None:
    machine = Machine(make_queue())
    machine.add(run(99, slack_us=0))
    machine.drain()
    machine.add(*(run(number, slack_us=5_000_000) for number in range(60)))
    machine.turn()
    assert len(machine.pieces[-1].parts) == PIECE_ROWS_MIN


def test_a_step_that_keeps_a_tighter_one_out_is_set_aside_and_runs_with_it() -> None:
    # The loose one has 200 us left, so nothing fits beside it, and after it the tight one would be late.
    machine = Machine(make_queue())
    machine.add(run(1, slack_us=60_000))
    machine.now = 59_800
    machine.add(run(2, slack_us=3_000))
    assert machine.drain() == [[1, 2]]
    assert machine.queue.counts.set_aside == 1


def test_a_tight_step_keeps_a_looser_one_out() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, slack_us=60_000))
    machine.now = 57_000
    machine.add(run(2, slack_us=200))
    assert machine.drain() == [[2], [1]]
    assert machine.queue.counts.set_aside == 1, "of the looser one, once it was too late"


# Prompts


def test_a_long_prompt_runs_in_pieces_and_is_over_once() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, count=400, slack_us=5_000_000))
    machine.drain()
    offsets = [(part.offset, part.positions) for piece in machine.pieces for part in piece.parts]
    assert [offset for offset, _ in offsets] == [
        sum(n for _, n in offsets[:at]) for at in range(len(offsets))
    ]
    assert sum(positions for _, positions in offsets) == 400
    assert len(machine.pieces) == 2
    assert all(machine_us(piece.work) <= PIECE_ALONE_US_MAX for piece in machine.pieces)
    assert list(machine.finished_us) == [(1, 0)]


def test_pieces_of_a_prompt_are_shorter_once_somebody_decodes_with_however_much_slack() -> None:
    machine = Machine(make_queue())
    machine.add(run(2, slack_us=9_000_000))
    machine.drain()
    machine.add(run(1, count=512, slack_us=5_000_000))
    machine.drain()
    assert 40_000 < max(machine_us(piece.work) for piece in machine.pieces) <= PIECE_US_MAX


def test_where_one_row_takes_long_a_piece_may_take_twice_that() -> None:
    """A stage that reads its weights for 500 ms ran prompts by 16 positions, and read them 32 times."""
    times = ComputeTimes()
    for rows in (1, 16, 512):
        times.observe(Work(rows, 0, is_decode=rows == 1), Micros(500_000 + 1_000 * rows))
    queue = StepQueue(times, steps_max=9, bytes_max=99, can_batch=True, can_cut=True)
    queue.add(run(2, slack_us=100_000), now=Micros(0))
    queue.add(run(1, count=512, slack_us=9_000_000), now=Micros(0))
    rows = []
    while (piece := queue.next(now=Micros(0)).piece) is not None:
        rows.append(piece.work.rows)
        queue.done(took_us=Micros(500_000 + 1_000 * piece.work.rows), now=Micros(0))
    assert max(rows) >= 128


def test_pieces_of_a_prompt_take_half_of_the_least_slack_of_open_requests() -> None:
    machine = Machine(make_queue())
    machine.add(run(2, slack_us=30_000))
    machine.drain()
    machine.add(run(1, count=512, slack_us=5_000_000))
    machine.drain()
    assert max(machine_us(piece.work) for piece in machine.pieces) <= 15_000
    assert {part.positions for piece in machine.pieces[1:] for part in piece.parts} == {PIECE_ROWS_MIN}


def test_a_tighter_step_has_its_turn_between_the_pieces_of_a_prompt() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, count=512, slack_us=5_000_000))
    machine.turn()
    machine.add(run(2, slack_us=60_000))
    machine.turn()
    assert (2, 0) in machine.finished_us
    assert (1, 0) not in machine.finished_us


def test_a_piece_of_a_prompt_ends_before_the_next_step_has_to_start() -> None:
    machine = Machine(make_queue(can_batch=False))
    machine.add(run(2, slack_us=100_000))
    machine.now = 80_000
    machine.add(run(1, count=256, slack_us=130_000))  # it has to start first
    assert machine.drain()[0] == [1]
    assert machine.finished_us[2, 0] <= 100_000 + ONE_US


def test_a_prompt_is_not_starved_by_steps_of_clients_that_ask_for_less_than_there_is() -> None:
    machine = Machine(make_queue())
    machine.add(run(1, count=64, slack_us=1_000))
    for position in range(60):
        machine.add(run(2, position, slack_us=2_000))
        machine.turn()
    assert (1, 0) in machine.finished_us


def test_where_rows_depend_on_how_a_prompt_is_cut_it_runs_at_once() -> None:
    machine = Machine(make_queue(can_cut=False))
    machine.add(run(1, count=512))
    assert machine.drain() == [[1]]


# Under load


def crowd(load: float) -> list[tuple[int, Run]]:
    """Two classes that together ask for so many times what a machine has that runs one by one."""
    gap_us = int(ONE_US / load)
    return [(at * gap_us, run(at, slack_us=20_000 if at % 4 == 0 else 200_000)) for at in range(800)]


@pytest.mark.parametrize("load", [1.2, 2.0])
def test_a_machine_with_too_much_to_do_misses_its_loosest_deadlines_first(load: float) -> None:
    machine = one_by_one()
    arrivals = crowd(load)
    machine.serve(arrivals)
    late = missed(machine.finished_us, arrivals)
    assert late[200_000] > 100
    assert late[20_000] <= 10


@pytest.mark.parametrize("load", [2.0, 4.0])
def test_batches_carry_more_than_one_by_one_could(load: float) -> None:
    machine = Machine(make_queue())
    arrivals = crowd(load)
    machine.serve(arrivals)
    assert sum(missed(machine.finished_us, arrivals).values()) == 0


# Figures


def test_the_queue_time_grows_with_what_waits() -> None:
    queue = make_queue()
    assert queue.queue_us(Micros(0)) == 0
    for number in range(40):
        queue.add(run(number), now=Micros(0))
    some_us = queue.queue_us(Micros(0))
    queue.add(run(40, count=512), now=Micros(0))
    assert 0 < some_us < queue.queue_us(Micros(0))


def test_the_queue_time_counts_what_runs_for_as_long_as_it_still_takes() -> None:
    queue = make_queue()
    queue.add(run(1), now=Micros(0))
    queue.next(now=Micros(0))
    assert queue.queue_us(Micros(1_000)) == ONE_US - 1_000
    assert queue.queue_us(Micros(60_000)) == 0


def test_waiting_steps_are_counted_by_what_is_to_spare() -> None:
    queue = StepQueue(ComputeTimes(), steps_max=9, bytes_max=99, can_batch=True, can_cut=True)
    for number, slack_us in enumerate((-1, 0, 4_999, 5_000, 2_000_000)):
        queue.add(run(number, slack_us=slack_us), now=Micros(0))
    waiting = queue.waiting(Micros(0))
    assert (waiting.steps, waiting.payload_bytes) == (5, 20)
    assert waiting.by_slack == (1, 2, 1, 0, 0, 1)
