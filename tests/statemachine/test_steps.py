"""What becomes of a step at a stage: in order, early, again, with the wrong tag, too long, too late."""

import pytest
from statemachine.protocol_path import Path, make_path, rows

from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    Release,
    RequestFailed,
    Run,
    SendStep,
    StopStream,
)
from odsi_proto.units import Handle, Micros, Tag
from odsi_proto.wire.codepoints import ErrorCode, LateAction


def opened(limits: Limits | None = None, **changes: object) -> Path:
    """A path of two stages with an open request."""
    path = make_path(2, limits or Limits())
    path.open(**changes)
    path.network.set_compute(path.stages[1], lambda run: None)  # the client awaits none of these steps
    return path


def at_first(path: Path, kind: type[Effect]) -> list[Effect]:
    return path.seen(kind, at=path.stages[0])


def positions_run(path: Path) -> list[int]:
    return [run.position for run in at_first(path, Run)]  # type: ignore[attr-defined]


def failure(path: Path) -> tuple[int | None, int]:
    (failed,) = path.seen(RequestFailed)
    return failed.stage, failed.code  # type: ignore[attr-defined]


@pytest.mark.spec("STEP-002")
def test_early_steps_wait_and_run_in_order_when_the_missing_one_comes() -> None:
    path = opened()
    path.forge(path.header(2))
    path.forge(path.header(1))
    assert positions_run(path) == []
    path.forge(path.header(0))
    assert positions_run(path) == [0, 1, 2]


@pytest.mark.spec("STEP-009")
def test_an_early_step_whose_predecessor_never_comes_is_refused_with_the_missing_position() -> None:
    path = opened()
    path.forge(path.header(3))
    path.settle(3_000_000)
    assert failure(path) == (0, ErrorCode.MISSING_STEP)
    assert "position 0 is missing" in path.seen(RequestFailed)[0].reason  # type: ignore[attr-defined]


@pytest.mark.spec("STEP-003")
@pytest.mark.parametrize(("parked", "is_refused"), [(2, False), (3, True)])
def test_as_many_steps_are_parked_as_the_limit_says_and_no_more(parked: int, is_refused: bool) -> None:
    path = opened(Limits(parked_steps_max=2))
    for position in range(1, parked + 1):
        path.forge(path.header(position))
    assert bool(path.seen(RequestFailed)) is is_refused
    assert not is_refused or failure(path) == (0, ErrorCode.OVERLOADED)


@pytest.mark.spec("STEP-003")
def test_parked_bytes_are_bounded_too() -> None:
    path = opened(Limits(parked_bytes_max=2 * 16))
    path.forge(path.header(1))
    path.forge(path.header(2))
    assert not path.seen(RequestFailed)
    path.forge(path.header(3))
    assert failure(path) == (0, ErrorCode.OVERLOADED)


@pytest.mark.spec("STEP-012")
def test_a_repeated_step_is_answered_from_the_retained_output_without_compute() -> None:
    path = opened()
    path.forge(path.header(0))
    path.forge(path.header(0, attempt=1))
    assert positions_run(path) == [0]
    first, second = at_first(path, SendStep)
    assert bytes(first.payload) == bytes(second.payload)  # type: ignore[attr-defined]


@pytest.mark.spec("STEP-012")
def test_a_step_that_was_acknowledged_long_ago_changes_nothing_when_it_comes_again() -> None:
    path = opened(Limits(retained_outputs_max=1))
    for position in range(3):
        path.forge(path.header(position))
    sent = len(at_first(path, SendStep))
    path.forge(path.header(0, attempt=1))
    assert len(at_first(path, SendStep)) == sent
    assert not path.seen(RequestFailed)


@pytest.mark.spec("STEP-013")
def test_the_same_step_with_another_input_is_refused() -> None:
    path = opened()
    path.forge(path.header(0), fill=1)
    path.forge(path.header(0, attempt=1), fill=2)
    assert failure(path) == (0, ErrorCode.STATE_MISMATCH)


@pytest.mark.spec("STEP-004")
def test_a_step_of_another_history_is_refused_before_compute() -> None:
    path = opened()
    path.forge(path.header(0, tag_before=Tag(bytes(8))))
    assert positions_run(path) == []
    assert failure(path) == (0, ErrorCode.STATE_MISMATCH)


@pytest.mark.spec("STEP-004")
def test_a_parked_step_of_another_history_is_refused_when_its_turn_comes() -> None:
    path = opened()
    path.forge(path.header(1, tag_before=Tag(bytes(8))))
    path.forge(path.header(0))
    assert positions_run(path) == [0]
    assert failure(path) == (0, ErrorCode.STATE_MISMATCH)


@pytest.mark.spec("STEP-005")
def test_a_step_that_starts_inside_one_that_ran_is_refused() -> None:
    path = opened()
    path.forge(path.header(0, count=3))
    path.forge(path.header(1, count=3))
    assert failure(path) == (0, ErrorCode.STATE_MISMATCH)


@pytest.mark.spec("STEP-006")
def test_a_step_of_a_lineage_not_opened_is_refused() -> None:
    path = opened()
    path.forge(path.header(0, lineage=1))
    assert failure(path) == (0, ErrorCode.STATE_MISMATCH)


@pytest.mark.spec("STEP-007")
@pytest.mark.parametrize(("count", "is_refused"), [(32, False), (33, True)])
def test_a_step_may_end_at_the_last_position_reserved_and_not_beyond(count: int, is_refused: bool) -> None:
    path = opened(positions_max=32)
    path.forge(path.header(0, count=count))
    assert bool(path.seen(RequestFailed)) is is_refused
    assert not is_refused or failure(path) == (0, ErrorCode.LIMIT_EXCEEDED)


@pytest.mark.spec("STEP-008")
@pytest.mark.parametrize(("late_action", "runs"), [(LateAction.CONTINUE, [0]), (LateAction.FAIL, [])])
def test_a_late_step_runs_or_is_refused_before_compute_as_the_client_asked(
    late_action: LateAction, runs: list[int]
) -> None:
    path = opened(late_action=late_action)
    path.forge(path.header(0, remaining_us=Micros(0)))
    assert positions_run(path) == runs
    assert bool(path.seen(RequestFailed)) is (not runs)


@pytest.mark.spec("STEP-016")
@pytest.mark.parametrize(("count", "closes"), [(4, False), (5, True)])
def test_a_step_of_more_positions_than_negotiated_closes_the_connection(count: int, closes: bool) -> None:
    path = opened(Limits(step_positions_max=4))
    path.forge(path.header(0, count=count))
    assert [c.code for c in at_first(path, Close)] == [ErrorCode.LIMIT_EXCEEDED] * closes  # type: ignore[attr-defined]


@pytest.mark.spec("WIRE-021")
@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_payload_of_another_length_closes_the_connection(surplus: int) -> None:
    path = opened()
    path.forge(path.header(0), payload=bytes(len(rows(1)) + surplus))
    assert [c.code for c in at_first(path, Close)] == [ErrorCode.MALFORMED]  # type: ignore[attr-defined]


@pytest.mark.spec("REQ-016")
def test_a_handle_that_was_never_announced_closes_the_connection() -> None:
    path = opened()
    path.forge(path.header(0, handle=Handle(9)))
    assert [c.code for c in at_first(path, Close)] == [ErrorCode.ORDER_VIOLATION]  # type: ignore[attr-defined]


@pytest.mark.spec("REQ-016")
def test_a_late_step_of_an_ended_request_is_dropped_in_silence() -> None:
    path = opened()
    path.network.perform(
        path.client, path.client.cancel(path.request, ErrorCode.NO_ERROR, now=path.network.now)
    )
    path.settle()
    path.forge(path.header(0))
    assert not at_first(path, Close)
    assert len(at_first(path, StopStream)) == 1


@pytest.mark.spec("STEP-011")
def test_a_step_that_can_not_be_computed_fails_the_request_and_names_the_stage() -> None:
    path = opened()
    second = path.stages[1]
    path.forge(path.header(0))
    failed = second.failed(path.request, path.header(0).position, "no", now=path.network.now)
    path.network.perform(second, failed)
    path.settle()
    assert failure(path) == (1, ErrorCode.COMPUTE_FAILED)
    assert [len(path.seen(Release, at=stage)) for stage in path.stages] == [1, 1]


@pytest.mark.spec("REQ-005")
def test_a_step_before_the_path_is_ready_is_refused() -> None:
    path = make_path(2, Limits())
    path.last = path.first  # the client attaches to the wrong stage, so the last one is never ready
    path.open()
    path.forge(path.header(0))
    assert failure(path) == (1, ErrorCode.ORDER_VIOLATION)


@pytest.mark.parametrize("cut", range(1, 46))
def test_a_step_may_arrive_in_any_two_pieces(cut: int) -> None:
    path = opened()
    data = path.header(0).encode() + bytes(rows(1))
    deliver = path.network.deliver
    deliver(path.stages[0], path.first_at_stage, 4_002, data[:cut], fin=False)
    deliver(path.stages[0], path.first_at_stage, 4_002, data[cut:], fin=True)
    assert positions_run(path) == [0]
    assert bytes(at_first(path, Run)[0].payload) == bytes(rows(1))  # type: ignore[attr-defined]
