"""What is to happen, by virtual instant; of equal instants what was asked for first goes first."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class EventHeap:
    """The only source of progress in a run."""

    def __init__(self) -> None:
        self.now_us = 0
        """Virtual microseconds since the run began."""
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()

    def at(self, at_us: int, action: Callable[..., None], *args: Any) -> None:
        """Call ``action`` at an instant, at once after what is under way if it has passed."""
        heapq.heappush(self._events, (max(at_us, self.now_us), next(self._order), action, args))

    def after(self, delay_us: int, action: Callable[..., None], *args: Any) -> None:
        """Call ``action`` that much later."""
        self.at(self.now_us + delay_us, action, *args)

    @property
    def next_us(self) -> int | None:
        """The instant of the next event; None if there is none."""
        return self._events[0][0] if self._events else None

    def step(self) -> None:
        """Let the next event happen."""
        at_us, _, action, args = heapq.heappop(self._events)
        self.now_us = at_us
        action(*args)
