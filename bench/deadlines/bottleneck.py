"""A bottleneck whose packets' fate is known when they are offered: FIFO, CoDel or policer, then delay.

Packets leave in the order in which they came, so all of them (CoDel's drops too, which depend on earlier
packets alone) follow from one clock, the time at which the link is free. That saves an event for each.
"""

import random
from dataclasses import dataclass
from math import inf, sqrt

HEADER_BYTES = 28
"""IPv4 and UDP."""

CODEL_TARGET_S = 0.005
CODEL_INTERVAL_S = 0.100


@dataclass(frozen=True, kw_only=True)
class Path:
    """A path from the sender's uplink on."""

    rate_bytes_s: float = 12.5e6
    rtt_s: float = 0.020
    """Without queue, both ways together."""
    buffer_bytes: float = 500_000
    """What may be in front of a packet that joins the queue, CoDel's too."""
    codel: bool = False
    policer_bytes: float = 0
    """Size of the token bucket of a policer that stands in for the queue; 0 for none."""
    loss: float = 0.0
    """Part of the packets that is lost anywhere, without a reason."""
    loss_run: float = 1.0
    """Mean number of packets lost in a row, at the same part in all."""
    jitter_s: float = 0.0
    """At most so much more delay, evenly drawn, order kept."""
    changes: tuple[tuple[float, float, float], ...] = ()
    """(time, rate, rtt): from then on."""


class Bottleneck:
    """Offer packets in order of time, and learn when each arrives."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._draw = rng.random
        self.rate = path.rate_bytes_s
        self.delay_s = path.rtt_s / 2
        self._changes = list(path.changes)
        self._change_at = path.changes[0][0] if path.changes else inf
        self._free = 0.0
        self._last_arrival = 0.0
        self._tokens = path.policer_bytes
        self._tokens_at = 0.0
        self._in_run = False
        # CoDel (RFC 8289 section 5)
        self._above_at = 0.0
        self._drop_next = 0.0
        self._drops = 0
        self._drops_before = 0
        self._dropping = False

    def queue_s(self, now: float) -> float:
        """What a packet offered now would wait."""
        return max(0.0, self._free - now)

    def offer(self, now: float, size_bytes: int, extra_s: float) -> float | None:
        """When the packet arrives, or ``None`` if it never does."""
        if now >= self._change_at:
            self._change(now)
        path = self._path
        size_bytes += HEADER_BYTES
        if path.policer_bytes:
            self._tokens = min(path.policer_bytes, self._tokens + (now - self._tokens_at) * self.rate)
            self._tokens_at = now
            if self._tokens < size_bytes:
                return None
            self._tokens -= size_bytes
            leaves = now
        else:
            start = self._free
            if start < now:
                start = now
            elif (start - now) * self.rate > path.buffer_bytes:
                return None
            if path.codel and self._codel_drops(start, start - now):
                return None
            self._free = leaves = start + size_bytes / self.rate
        if path.loss and self._is_lost():
            return None
        arrival = leaves + self.delay_s + extra_s
        if path.jitter_s:
            arrival += self._draw() * path.jitter_s
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        return arrival

    def _change(self, now: float) -> None:
        _, rate, rtt = self._changes.pop(0)
        self._free = now + max(0.0, self._free - now) * self.rate / rate
        self.rate, self.delay_s = rate, rtt / 2
        self._change_at = self._changes[0][0] if self._changes else inf

    def _is_lost(self) -> bool:
        path = self._path
        if path.loss_run <= 1:
            return self._draw() < path.loss
        ends = 1 / path.loss_run
        begins = ends * path.loss / (1 - path.loss)
        self._in_run = self._draw() >= ends if self._in_run else self._draw() < begins
        return self._in_run

    def _codel_drops(self, now: float, waited: float) -> bool:
        if waited < CODEL_TARGET_S:
            self._above_at = 0.0
            self._dropping = False
            return False
        if self._above_at == 0.0:
            self._above_at = now + CODEL_INTERVAL_S
            return False
        if now < self._above_at:
            return False
        if not self._dropping:
            self._dropping = True
            more = self._drops - self._drops_before
            recent = now - self._drop_next < 16 * CODEL_INTERVAL_S
            self._drops = self._drops_before = more if more > 1 and recent else 1
            self._drop_next = now + CODEL_INTERVAL_S / sqrt(self._drops)
            return True
        if now >= self._drop_next:
            self._drops += 1
            self._drop_next += CODEL_INTERVAL_S / sqrt(self._drops)
            return True
        return False
