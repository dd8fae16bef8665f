"""Slack is signed, counts what is planned and seen, and a plan is left beyond its bounds only."""

from dataclasses import replace

import pytest

from odsi_proto.statemachine.budget import StageTime, plan_flags, rest_of_path_us, slack_us
from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Micros, StageIndex
from odsi_proto.wire.frames import StatusFlag
from odsi_proto.wire.messages import StagePlan

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
