"""Budgets from what an application asks: the parts never exceed the whole."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odsi_proto.errors import ConfigError
from odsi_proto.routing.budget import (
    NO_PART,
    BudgetPlan,
    StageEstimate,
    Targets,
    plan_budgets,
    plan_from_reports,
)
from odsi_proto.statemachine.budget import (
    KINDS,
    StageTime,
    plan_flags,
    shortfall,
)
from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Micros
from odsi_proto.wire.frames import StatusFlag
from odsi_proto.wire.messages import Deadline, Open

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


TEN_MS = Targets(first_token_us=Micros(10_000), per_token_us=Micros(10_000))


@pytest.mark.parametrize(
    ("reports", "has_plan"),
    [
        ([StageTime(500, 3_000), StageTime(200, 4_000)], True),
        ([StageTime(500, 3_000), None], False),
        ([StageTime(500, 3_000), StageTime(200, 40_000)], False),
    ],
    ids=["known", "a stage is unknown", "a busy hour"],
)
def test_reports_make_a_plan_where_they_leave_time_and_none_of_them_shuts_the_door(
    reports: list[StageTime | None], has_plan: bool
) -> None:
    plan = plan_from_reports(
        TEN_MS, reports, to_first_us=Micros(600), return_us=Micros(400), stage_us_min=MIN_US
    )
    assert (plan.first_token_us, plan.per_token_us) == (10_000, 10_000)
    assert (plan.stages != (NO_PART, NO_PART)) is has_plan


def test_what_the_ways_alone_rule_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="the stages take 100 us at least, and the way 9901 us"):
        plan_from_reports(
            TEN_MS, [None, None], to_first_us=Micros(9_501), return_us=Micros(400), stage_us_min=MIN_US
        )


def test_targets_that_can_not_be_met_are_refused_with_the_numbers() -> None:
    asked = Targets(first_token_us=Micros(9_000), per_token_us=Micros(5_000))
    path = [StageEstimate(way_us=Micros(400), decode_us=Micros(us)) for us in (3_000, 2_000)]
    with pytest.raises(ConfigError, match="the stages take 5000 us at least, and the way 900"):
        plan_budgets(asked, path, return_us=Micros(100), stage_us_min=MIN_US)
