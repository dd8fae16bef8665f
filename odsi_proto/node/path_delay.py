"""What round-trip samples say of a path: how long it is, and how much of a sample is a queue.

Three figures, each from O(1) state and samples alone:

- *standing*, the least sample of the last quarter to half round trip. One sample has the peer's
  acknowledgement delay (1 ms in aioquic) and the sender's own bursts in it, a queue that stands is in all
  of them.
- *base*, the least sample of the last 5 to 10 s. A minimum for ever would take a route that became longer
  for a queue; one that is simply forgotten would take a standing queue for the route. So the caller is
  told when a whole window has passed without the base being seen again, and drains the queue once.
- *spread*, how far the samples of a quarter round trip lie above the least of them, the greatest mean of
  the last windows. Where the path itself varies (radio, a busy peer), delay of a few times this is no
  queue. A queue that grows or a step leaves no trace in it: they vary from one quarter to the next.
"""

from math import inf

WINDOW_S = 5.0
"""Half of what a base lives at least; RFC 6817 keeps minutes, BBR 10 s. A route change is noticed within
10 s, and a drain every 5 s costs under 1 % of the throughput where it is needed at all."""

SEEN_S = 0.001
"""A sample this near the base has seen the path without queue: the peer's acknowledgement delay."""

BUCKET_S_MIN = 0.002
BUCKET_SAMPLES_MIN = 4
"""Standing is the least of at least four samples: at a window of a few packets two of them, far apart,
say nothing of a path that varies."""

SPREAD_GAIN = 1 / 16
"""A quarter round trip each: four round trips, as RFC 6298 has for the variation."""


class PathDelay:
    """Give it each round-trip sample; read the rest."""

    __slots__ = (
        "_bucket_ends_s",
        "_least_before_s",
        "_least_s",
        "_mean_spread_s",
        "_recent_before_s",
        "_recent_s",
        "_samples",
        "_samples_s",
        "_spread_before_s",
        "_spread_s",
        "_window_began_s",
        "base_s",
        "is_stale",
        "queue_s",
        "standing_s",
    )

    def __init__(self) -> None:
        self.base_s = inf
        """The path without queue; infinite before the first sample."""
        self.standing_s = inf
        self.queue_s = 0.0
        """``standing_s`` less ``base_s``."""
        self.is_stale = False
        """No sample has been near the base for a whole window."""
        self._least_s = self._least_before_s = inf
        self._window_began_s: float | None = None
        self._recent_s = self._recent_before_s = inf
        self._bucket_ends_s = 0.0
        self._samples = 0
        self._samples_s = 0.0
        self._mean_spread_s = self._spread_s = self._spread_before_s = 0.0

    @property
    def spread_s(self) -> float:
        """How far samples lie above the least of their quarter, at worst in the last 5 to 10 s."""
        return max(self._spread_s, self._spread_before_s)

    def add(self, now_s: float, rtt_s: float) -> bool:
        """Take a sample; true where a window of :data:`WINDOW_S` ended with it."""
        if rtt_s < self._least_s:
            self._least_s = rtt_s
            self.base_s = min(self.base_s, rtt_s)
            if rtt_s < self.base_s + SEEN_S:
                self.is_stale = False
        is_window_over = False
        if self._window_began_s is None:
            self._window_began_s = now_s
        elif now_s - self._window_began_s > WINDOW_S:
            is_window_over = True
            self._next_window(now_s, rtt_s)
        if now_s >= self._bucket_ends_s and self._samples >= BUCKET_SAMPLES_MIN:
            self._next_bucket(now_s)
        self._samples += 1
        self._samples_s += rtt_s
        self._recent_s = min(self._recent_s, rtt_s)
        self.standing_s = min(self._recent_s, self._recent_before_s)
        self.queue_s = self.standing_s - self.base_s
        return is_window_over

    def _next_bucket(self, now_s: float) -> None:
        spread_s = self._samples_s / self._samples - self._recent_s
        self._mean_spread_s += (spread_s - self._mean_spread_s) * SPREAD_GAIN
        self._spread_s = max(self._spread_s, self._mean_spread_s)
        self._recent_before_s, self._recent_s = self._recent_s, inf
        self._samples, self._samples_s = 0, 0.0
        self._bucket_ends_s = now_s + max(self.base_s / 4, BUCKET_S_MIN)

    def _next_window(self, now_s: float, rtt_s: float) -> None:
        # After an idle time only one window has passed: one sample alone never becomes the base.
        self.is_stale = self._least_s > self.base_s + SEEN_S
        self._least_before_s, self._least_s = self._least_s, rtt_s
        self.base_s = min(self._least_before_s, rtt_s)
        self._spread_before_s, self._spread_s = self._spread_s, self._mean_spread_s
        self._window_began_s = now_s
