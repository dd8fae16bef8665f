"""Budgets from what an application asks: parts never exceed the whole, and slack is signed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odsi_proto.errors import ConfigError
from odsi_proto.routing.budget import NO_PART, BudgetPlan, StageEstimate, Targets, plan_budgets
from odsi_proto.statemachine.budget import (
    KINDS,
    StageTime,
    plan_flags,
    rest_of_path_us,
    shortfall,
    slack_us,
)
from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Micros, StageIndex
from odsi_proto.wire.frames import StatusFlag
from odsi_proto.wire.messages import Deadline, Open, StagePlan

MIN_US = Micros(50)
times = st.integers(0, 50_000).map(Micros)
targets = st.builds(
    Targets,
    first_token_us=st.integers(1, 10_000_000).map(Micros),
    per_token_us=st.integers(1, 1_000_000).map(Micros),
    total_us=st.none() | st.integers(1, 100_000_000).map(Micros),
)
paths = st.lists(st.builds(StageEstimate, way_us=times, decode_us=times), min_size=1, max_size=6)


def planned(asked: Targets, path: list[StageEstimate], return_us: Micros) -> BudgetPlan | None:
    try:
        return plan_budgets(asked, path, return_us=return_us, stage_us_min=MIN_US)
    except ConfigError:
        return None


def needed_us(path: list[StageEstimate], return_us: int) -> int:
    return return_us + sum(s.way_us + max(s.decode_us or 0, MIN_US) for s in path)


def smallest_us(asked: Targets) -> int:
    stated = [asked.first_token_us, asked.per_token_us]
    return min(stated if asked.total_us is None else [*stated, asked.total_us])


def opened(plan: BudgetPlan) -> Open:
    """An OPEN that says what the plan says."""
    given_us = (plan.first_token_us, plan.per_token_us, plan.total_us)
    stages = stage_plans_of([signer_of(1).participant] * len(plan.stages))
    return Open(
        request_id=b"r" * 16,  # type: ignore[arg-type]
        lineage=0,
        model_root=bytes(32),
        profile=1,
        hash_suite=1,
        width=1,
        stages=tuple(
            replace(
                stage,
                budget_us=part.budget_us,
                remaining_min_us=part.remaining_min_us,
                remaining_max_us=part.remaining_max_us,
            )
            for stage, part in zip(stages, plan.stages, strict=True)
        ),
        codecs=(1,) * (len(stages) + 1),
        deadlines=tuple(
            Deadline(kind=kind, budget_us=us)
            for kind, us in zip(KINDS, given_us, strict=True)
            if us is not None
        ),
        late_action=1,
        price_cap=0,
        positions_max=1,
        rows_returned_max=1,
        return_token_sha256=bytes(32),
        expiry_s=0,
    )


@given(targets, paths, times)
def test_targets_are_met_exactly_where_the_path_leaves_the_time(
    asked: Targets, path: list[StageEstimate], return_us: Micros
) -> None:
    is_possible = needed_us(path, return_us) <= smallest_us(asked)
    assert (planned(asked, path, return_us) is not None) is is_possible


@given(targets, paths, times)
def test_the_parts_never_exceed_the_whole(
    asked: Targets, path: list[StageEstimate], return_us: Micros
) -> None:
    plan = planned(asked, path, return_us)
    if plan is None:
        return
    parts_us = sum(part.budget_us for part in plan.stages)
    assert parts_us + sum(stage.way_us for stage in path) + return_us <= smallest_us(asked)
    for part, stage in zip(plan.stages, path, strict=True):
        assert part.budget_us >= max(stage.decode_us or 0, MIN_US)


@given(targets, paths, times)
def test_what_should_be_left_shrinks_along_the_path_and_suffices_for_the_rest(
    asked: Targets, path: list[StageEstimate], return_us: Micros
) -> None:
    plan = planned(asked, path, return_us)
    if plan is None:
        return
    rest_us = [
        sum(part.budget_us for part in plan.stages[index:])
        + sum(s.way_us for s in path[index + 1 :])
        + return_us
        for index in range(len(path))
    ]
    for part, rest in zip(plan.stages, rest_us, strict=True):
        assert rest <= part.remaining_min_us <= part.remaining_max_us <= asked.per_token_us
    for before, after in zip(plan.stages, plan.stages[1:], strict=False):
        assert after.remaining_min_us <= before.remaining_min_us
        assert after.remaining_max_us <= before.remaining_max_us


@given(targets, paths, times)
def test_a_plan_is_one_that_client_and_stages_accept(
    asked: Targets, path: list[StageEstimate], return_us: Micros
) -> None:
    plan = planned(asked, path, return_us)
    if plan is not None:
        way_us = path[0].way_us + return_us
        taken_us = [max(stage.decode_us or 0, MIN_US) for stage in path]
        assert shortfall(opened(plan), taken_us, way_us=way_us) is None


@given(targets, paths, times)
def test_a_step_that_goes_as_planned_is_inside_every_envelope(
    asked: Targets, path: list[StageEstimate], return_us: Micros
) -> None:
    plan = planned(asked, path, return_us)
    if plan is None:
        return
    left_us: int = asked.per_token_us
    for stage, planned_stage in zip(path, opened(plan).stages, strict=True):
        left_us -= stage.way_us
        taken_us = max(stage.decode_us or 0, MIN_US)
        assert plan_flags(planned_stage, left_us, taken_us) == StatusFlag(0)
        left_us -= taken_us
    assert left_us >= return_us


def test_a_path_with_a_stage_that_nobody_knows_has_deadlines_and_no_plan() -> None:
    asked = Targets(first_token_us=Micros(9_000), per_token_us=Micros(9_000))
    path = [StageEstimate(way_us=Micros(10), decode_us=us) for us in (Micros(100), None)]
    plan = plan_budgets(asked, path, return_us=Micros(10), stage_us_min=MIN_US)
    assert plan.stages == (NO_PART, NO_PART)


def test_targets_that_can_not_be_met_are_refused_with_the_numbers() -> None:
    asked = Targets(first_token_us=Micros(9_000), per_token_us=Micros(5_000))
    path = [StageEstimate(way_us=Micros(400), decode_us=Micros(us)) for us in (3_000, 2_000)]
    with pytest.raises(ConfigError, match="the stages take 5000 us at least, and the way 900"):
        plan_budgets(asked, path, return_us=Micros(100), stage_us_min=MIN_US)


PLANS = tuple(
    replace(stage, budget_us=Micros(us))
    for stage, us in zip(
        stage_plans_of([signer_of(index).participant for index in range(3)]),
        (5_000, 4_000, 3_000),
        strict=True,
    )
)


@pytest.mark.parametrize(
    ("stage", "own_us", "seen", "rest_us"),
    [
        (0, None, {}, 5_000 + 100 + 4_000 + 3_000),
        (0, 1_000, {}, 1_000 + 100 + 4_000 + 3_000),
        (0, None, {1: StageTime(300, 600)}, 5_000 + 100 + 600 + 3_000),
        (0, None, {2: StageTime(300, 600)}, 5_000 + 100 + 4_000 + 300 + 600),
        (2, None, {}, 3_000 + 100),
    ],
)
@pytest.mark.spec("TIME-023")
def test_the_rest_of_the_path_is_what_was_planned_corrected_by_what_was_seen(
    stage: int, own_us: int | None, seen: dict[int, StageTime], rest_us: int
) -> None:
    found = rest_of_path_us(
        PLANS,
        StageIndex(stage),
        own_us=None if own_us is None else Micros(own_us),
        way_us=Micros(100),
        seen={StageIndex(index): time for index, time in seen.items()},
    )
    assert found == rest_us


def test_slack_is_negative_where_the_rest_takes_longer_than_what_is_left() -> None:
    assert slack_us(5_000, 7_000, budget_max_us=None) == -2_000


def test_a_stage_that_reports_for_ever_makes_a_step_no_more_urgent_than_its_whole_budget() -> None:
    assert slack_us(5_000, 1 << 60, budget_max_us=Micros(9_000)) == -4_000


def test_an_observation_moves_what_is_expected_by_a_quarter() -> None:
    assert StageTime(400, 800).followed_by(StageTime(800, 0)) == StageTime(500, 600)


@pytest.mark.parametrize(
    ("plan", "arrived_us", "taken_us", "flags"),
    [
        ((0, 0, 0), 0, 1 << 40, StatusFlag(0)),
        ((500, 0, 0), 0, 500, StatusFlag(0)),
        ((500, 0, 0), 0, 501, StatusFlag.OVER_BUDGET),
        ((0, 100, 0), 99, 0, StatusFlag.BELOW_PLAN),
        ((0, 100, 200), 100, 0, StatusFlag(0)),
        ((0, 0, 200), 200, 0, StatusFlag(0)),
        ((500, 0, 200), 201, 501, StatusFlag.ABOVE_PLAN | StatusFlag.OVER_BUDGET),
    ],
)
@pytest.mark.spec("TIME-024")
def test_a_step_is_off_its_plan_beyond_its_bounds_and_not_at_them(
    plan: tuple[int, int, int], arrived_us: int, taken_us: int, flags: StatusFlag
) -> None:
    budget_us, least_us, most_us = map(Micros, plan)
    stage: StagePlan = replace(
        PLANS[0], budget_us=budget_us, remaining_min_us=least_us, remaining_max_us=most_us
    )
    assert plan_flags(stage, arrived_us, taken_us) == flags
