"""What the send queue orders by: the classes of what a node sends, and a deadline within each."""

from enum import IntEnum
from typing import TypeAlias


class Rank(IntEnum):
    """Classes of messages: a lower one is sent first."""

    STEP = 0
    """An activation, or whatever its deadline waits for."""
    LATE = 1
    """A step whose deadline is past; nobody pushes one, a waiting step becomes it."""
    RECORD = 2
    """Commitments and other small statements that no token waits for."""
    BULK = 3
    """State and model transfer that no deadline waits for."""


Urgency: TypeAlias = tuple[int, float, int]
"""Class, deadline in seconds on the loop's clock, order of arrival: the least is sent first."""

FIRST: Urgency = (-1, 0.0, 0)
"""Of control streams and of whatever nobody gave an urgency: tiny, and before all else."""
