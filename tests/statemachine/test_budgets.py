"""Budgets at a stage: what is left, what is to spare, and what is dropped before compute."""

from dataclasses import replace

import pytest
from statemachine.protocol_path import Path, make_path, rows

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import Release, RequestFailed, Run, SendStep
from odsi_proto.units import Micros
from odsi_proto.wire.codepoints import ErrorCode, LateAction


def opened(late_action: LateAction = LateAction.FAIL, budgets_us: tuple[int, ...] = (0, 0)) -> Path:
    """A path of two stages with an open request; the executor of the first never answers."""
    path = make_path(2, Limits())
    stages = path.spec().stages
    planned = tuple(
        replace(s, budget_us=Micros(us), remaining_max_us=Micros(0))
        for s, us in zip(stages, budgets_us, strict=True)
    )
    path.network.set_compute(path.stages[0], lambda run: None)
    path.open(stages=planned, late_action=late_action)
    return path


def run_of(path: Path) -> Run:
    (run,) = path.seen(Run, at=path.stages[0])
    assert isinstance(run, Run)
    return run


def failure(path: Path) -> RequestFailed:
    (failed,) = path.seen(RequestFailed)
    assert isinstance(failed, RequestFailed)
    return failed


@pytest.mark.spec("TIME-020", "STEP-008")
def test_a_step_with_nothing_left_when_the_executor_would_start_it_is_refused_with_step_and_hop() -> None:
    path = opened()
    path.forge(path.header(0, remaining_us=Micros(5_000)))
    stage, run = path.stages[0], run_of(path)
    path.network.perform(stage, stage.expired(run.request, run.position, now=path.network.now))
    path.settle()
    failed = failure(path)
    assert (failed.stage, failed.code) == (0, ErrorCode.EXPIRED)
    assert "position 0: expired; nothing was left of its 5000 us after 100000 us" in failed.reason
    assert len(path.seen(Release, at=stage)) == 1


@pytest.mark.parametrize(
    ("late_action", "remaining_us"), [(LateAction.CONTINUE, 5_000), (LateAction.FAIL, 200_000)]
)
def test_a_step_that_must_run_or_has_time_left_can_not_expire(
    late_action: LateAction, remaining_us: int
) -> None:
    path = opened(late_action)
    path.forge(path.header(0, remaining_us=Micros(remaining_us)))
    stage, run = path.stages[0], run_of(path)
    before = stage.state
    with pytest.raises(LocalProtocolError, match="nothing is left"):
        stage.expired(run.request, run.position, now=path.network.now)
    assert stage.state == before


def test_a_step_that_expires_after_its_request_has_ended_changes_nothing_more() -> None:
    path = opened()
    path.forge(path.header(0))
    stage, run = path.stages[0], run_of(path)
    path.network.perform(
        path.client, path.client.cancel(path.request, ErrorCode.NO_ERROR, now=path.network.now)
    )
    path.settle()
    assert stage.expired(run.request, run.position, now=path.network.now) == ()
    assert not stage.state.unanswered


@pytest.mark.parametrize(
    ("late_action", "is_droppable"), [(LateAction.CONTINUE, False), (LateAction.FAIL, True)]
)
def test_the_executor_is_told_whether_a_step_may_be_dropped(
    late_action: LateAction, is_droppable: bool
) -> None:
    path = opened(late_action)
    path.forge(path.header(0))
    assert run_of(path).is_droppable is is_droppable


@pytest.mark.parametrize(("remaining_us", "slack_us"), [(1_000_000, 993_000), (5_000, -2_000)])
def test_slack_is_what_is_left_less_the_planned_time_of_this_stage_and_those_after_it(
    remaining_us: int, slack_us: int
) -> None:
    path = opened(LateAction.CONTINUE, budgets_us=(4_000, 3_000))
    path.forge(path.header(0, remaining_us=Micros(remaining_us)))
    assert (run_of(path).remaining_us, run_of(path).slack_us) == (remaining_us, slack_us)


@pytest.mark.spec("TIME-023")
def test_a_step_that_is_sent_on_can_spare_what_the_stages_after_it_do_not_take() -> None:
    path = opened(LateAction.CONTINUE, budgets_us=(4_000, 3_000))
    payload = rows(1)
    (sent,) = path.client.send_step(path.request, [5], payload, now=path.network.now)
    assert isinstance(sent, SendStep)
    assert sent.slack_us == sent.remaining_us - 7_000
    path.network.perform(path.client, (sent,))
    path.settle()
    stage, run, now = path.stages[0], run_of(path), path.network.now
    effects = stage.output(run.request, run.position, payload, started_us=now, finished_us=now, now=now)
    (onward,) = [effect for effect in effects if isinstance(effect, SendStep)]
    assert onward.slack_us == onward.remaining_us - 3_000
