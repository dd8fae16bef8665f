"""What is left of a budget and what the rest of the path will take of it: pure arithmetic on durations.

A stage knows its own part of the plan and that of every stage after it (``budget_us`` in the OPEN), the
way to its successor (half the least round trip), and what later stages have reported. The slack of a
step is what is left once all of them have taken their expected time.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from odsi_proto.units import Micros, Slack, StageIndex
from odsi_proto.wire.codepoints import DeadlineKind
from odsi_proto.wire.frames import StatusFlag
from odsi_proto.wire.messages import Open, StagePlan

CREDIT_STEPS_INITIAL = 4
"""Steps of a request before its first STATUS: enough for each stage of a short path to have one."""

CREDIT_BYTES_INITIAL = 4 << 20
"""Their payload bytes: four chunks of 128 positions of 4,096 values in f16."""

KINDS = (DeadlineKind.FIRST_TOKEN, DeadlineKind.PER_TOKEN, DeadlineKind.TOTAL)
"""Every deadline that a pass down the path must fit in: no prompt takes less than one token."""

_GAIN = 4
"""A new observation counts for a quarter: a change is followed in a few tokens, a single stutter is not."""


class ExecutorLoad(NamedTuple):
    """What an executor can take now, as its driver measured it."""

    queue_us: Micros
    """Until a step taken now would start."""
    decode_us: Micros | None
    """What one decode step takes when nothing is in its way; None while none has run.

    An OPEN with less is refused: the least of the last ones is right, where one slow step would shut
    the door for good.
    """
    credit_steps: int
    """Steps that it takes now beyond those it holds."""
    credit_bytes: int
    """Their payload bytes."""

    def takes(self, payload_bytes: int) -> bool:
        """Whether it takes one step more."""
        return self.credit_steps > 0 and payload_bytes <= self.credit_bytes

    def less(self, payload_bytes: int) -> "ExecutorLoad":
        """With a step handed over since it was measured."""
        return self._replace(
            credit_steps=self.credit_steps - 1,
            credit_bytes=self.credit_bytes - payload_bytes,
        )


class Credit(NamedTuple):
    """How far the steps of a request may go: totals from its first step on, or what is left of them."""

    steps: int = CREDIT_STEPS_INITIAL
    payload_bytes: int = CREDIT_BYTES_INITIAL


class StageTime(NamedTuple):
    """What one stage takes of a budget."""

    transfer_us: int
    """The way of the input to it."""
    stage_us: int
    """From the arrival of the input to the hand-over of the output."""

    def followed_by(self, newer: "StageTime") -> "StageTime":
        """Moved towards a newer observation."""
        return StageTime(
            self.transfer_us + (newer.transfer_us - self.transfer_us) // _GAIN,
            self.stage_us + (newer.stage_us - self.stage_us) // _GAIN,
        )


def rest_of_path_us(
    plans: Sequence[StagePlan],
    stage: StageIndex,
    *,
    own_us: Micros | None,
    way_us: Micros,
    seen: Mapping[StageIndex, StageTime],
) -> int:
    """What ``stage`` and all that comes after it are expected to take of one decode step.

    Of a stage that has reported counts what it reported, of another its part of the plan. ``own_us``
    is this stage's own measurement, ``way_us`` its estimate of the next hop.
    """
    rest_us = way_us + (plans[stage].budget_us if own_us is None else own_us)
    for later in range(stage + 1, len(plans)):
        time = seen.get(StageIndex(later))
        if time is None:
            rest_us += plans[later].budget_us
        else:
            rest_us += time.stage_us + (time.transfer_us if later > stage + 1 else 0)
    return rest_us


def slack_us(left_us: int, rest_us: int, *, budget_max_us: Micros | None) -> Slack:
    """``left_us`` less what is still to come; negative if that takes longer than what is left.

    What later stages report counts up to the largest budget of the request: who exaggerates gains no
    more urgency for its requests than a client may ask for.
    """
    return Slack(left_us - (rest_us if budget_max_us is None else min(rest_us, budget_max_us)))


def shortfall(opened: Open, stages_us: Sequence[int], *, way_us: int) -> str | None:
    """Why some budget can not be met where each stage takes at least ``stages_us`` for one token."""
    for index, (plan, us) in enumerate(zip(opened.stages, stages_us, strict=True)):
        if 0 < plan.budget_us < us:
            return f"stage {index} is given {plan.budget_us} us for a decode step, which takes {us} us there"
    stages_sum_us = sum(max(p.budget_us, us) for p, us in zip(opened.stages, stages_us, strict=True))
    for kind in KINDS:
        budget_us = opened.budget_us(kind)
        if budget_us is not None and budget_us < stages_sum_us + way_us:
            way = f" and the way {way_us} us" if way_us else ""
            return (
                f"the {kind.name} budget is {budget_us} us, the stages take {stages_sum_us} us{way} at least"
            )
    return None


def plan_flags(plan: StagePlan, arrived_with_us: int, taken_us: int) -> StatusFlag:
    """Where a decode step left its plan: on arrival at a stage, and by what the stage took."""
    flags = StatusFlag(0)
    if arrived_with_us < plan.remaining_min_us:
        flags |= StatusFlag.BELOW_PLAN
    if plan.remaining_max_us and arrived_with_us > plan.remaining_max_us:
        flags |= StatusFlag.ABOVE_PLAN
    if plan.budget_us and taken_us > plan.budget_us:
        flags |= StatusFlag.OVER_BUDGET
    return flags
