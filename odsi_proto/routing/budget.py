"""What an application asks for, as budgets: deadlines, each stage's part, what should be left at each.

Pure arithmetic on what is known of a path: the time of a decode step at each stage and the ways
between them. Slack itself is computed in ``statemachine.budget``, where stages need it too.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate

from odsi_proto.errors import ConfigError
from odsi_proto.statemachine.budget import StageTime
from odsi_proto.units import Micros

STAGES_SHARE = (3, 4)
"""Of what is to spare, the part that stages may take: queues vary more than ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What an application asks of a generation."""

    first_token_us: Micros
    per_token_us: Micros
    total_us: Micros | None = None
    """From the request to the last token; None for no such bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEstimate:
    """What is known of one stage of a path."""

    way_us: Micros
    """One way from whoever is before it."""
    decode_us: Micros | None
    """From the arrival of a decode step to its output; None if nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBudget:
    """A stage's part in the plan of an OPEN."""

    budget_us: Micros
    remaining_min_us: Micros
    remaining_max_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlan:
    """All durations of an OPEN."""

    first_token_us: Micros
    per_token_us: Micros
    total_us: Micros | None
    stages: tuple[StageBudget, ...]


NO_PART = StageBudget(budget_us=Micros(0), remaining_min_us=Micros(0), remaining_max_us=Micros(0))


def plan_budgets(
    targets: Targets, stages: Sequence[StageEstimate], *, return_us: Micros, stage_us_min: Micros
) -> BudgetPlan:
    """Budgets that meet ``targets`` on a path; ``ConfigError`` with the numbers if none do.

    ``return_us`` is the way back from the last stage. The parts of the stages and the ways never add
    up to more than the smallest target. Where a stage is unknown there is a deadline but no plan: a
    schedule with a hole would blame whoever comes after it.
    """
    targets_us = [targets.first_token_us, targets.per_token_us]
    whole_us = min(targets_us if targets.total_us is None else [*targets_us, targets.total_us])
    times_us = [max(stage.decode_us or 0, stage_us_min) for stage in stages]
    ways_us = [*(stage.way_us for stage in stages), return_us]
    spare_us = whole_us - sum(times_us) - sum(ways_us)
    if spare_us < 0:
        raise ConfigError(
            f"a token can not be there in {whole_us} us: the stages take {sum(times_us)} us at least, "
            f"and the way {sum(ways_us)} us"
        )
    is_known = all(stage.decode_us is not None for stage in stages)
    return BudgetPlan(
        first_token_us=targets.first_token_us,
        per_token_us=targets.per_token_us,
        total_us=targets.total_us,
        stages=_parts(targets.per_token_us, times_us, ways_us, spare_us)
        if is_known
        else (NO_PART,) * len(stages),
    )


def plan_from_reports(
    targets: Targets,
    reports: Sequence[StageTime | None],
    *,
    to_first_us: Micros,
    return_us: Micros,
    stage_us_min: Micros,
) -> BudgetPlan:
    """A plan from what the stages of a path reported of earlier requests, or deadlines alone.

    Where a report is missing, or reports leave no time, there is no plan: what was seen may have been
    a busy hour, which a client that does not ask would never see the end of. Only what the two ways
    and ``stage_us_min`` rule out is refused here (``ConfigError``); each stage knows better.
    """
    unknown = [
        StageEstimate(way_us=to_first_us if index == 0 else Micros(0), decode_us=None)
        for index in range(len(reports))
    ]
    known = [
        StageEstimate(way_us=Micros(max(stage.way_us, report.transfer_us)), decode_us=Micros(report.stage_us))
        for stage, report in zip(unknown, reports, strict=True)
        if report is not None
    ]
    if len(known) == len(reports):
        with suppress(ConfigError):
            return plan_budgets(targets, known, return_us=return_us, stage_us_min=stage_us_min)
    return plan_budgets(targets, unknown, return_us=return_us, stage_us_min=stage_us_min)


def _parts(
    per_token_us: int, times_us: Sequence[int], ways_us: Sequence[int], spare_us: int
) -> tuple[StageBudget, ...]:
    """Each stage's own time and a share of what is to spare; on arrival at the least what is left if
    everybody before took all of theirs, at the most if all were twice as fast as known."""
    numerator, denominator = STAGES_SHARE
    of_stages_us = spare_us * numerator // denominator
    of_a_way_us = (spare_us - of_stages_us) // len(ways_us)
    budgets_us = [us + of_stages_us * us // sum(times_us) for us in times_us]
    slow_us = accumulate(
        way_us + of_a_way_us + before_us for way_us, before_us in zip(ways_us, [0, *budgets_us], strict=True)
    )
    fast_us = accumulate(
        (way_us + before_us) // 2 for way_us, before_us in zip(ways_us, [0, *times_us], strict=True)
    )
    return tuple(
        StageBudget(
            budget_us=Micros(budget_us),
            remaining_min_us=Micros(per_token_us - slow),
            remaining_max_us=Micros(per_token_us - fast),
        )
        for budget_us, slow, fast in zip(budgets_us, slow_us, fast_us, strict=False)
    )
