"""What is left of a budget and what the rest of the path will take of it: pure arithmetic on durations.

A stage knows its own part of the plan and that of every stage after it (``budget_us`` in the OPEN), the
way to its successor (half the least round trip), and what later stages have reported. The slack of a
step is what is left once all of them have taken their expected time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from odsi_proto.units import Micros, Slack


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorLoad:
    """What an executor can take now, as its driver measured it."""

    queue_us: Micros
    """Until a step taken now would start."""
    decode_us: Micros | None
    """Expected compute of one decode step; None while none has run."""
    credit_steps: int
    """Steps that it takes now beyond those it holds."""
    credit_bytes: int
    """Their payload bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What one stage takes of a budget: the way of the input to it, and its own time."""

    transfer_us: Micros
    stage_us: Micros
    """From the arrival of the input to the hand-over of the output."""


def slack_us(left_us: int, rest: Iterable[StageTime]) -> Slack:
    """``left_us`` less all that is still to come; negative if that takes longer than what is left."""
    return Slack(left_us - sum(time.transfer_us + time.stage_us for time in rest))
