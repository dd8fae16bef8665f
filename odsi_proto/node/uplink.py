"""What may leave a node over all its connections together.

Connections that share an uplink share its queue: bulk on one makes a step on another wait, whatever the
order inside each. Two remedies. A *configured* rate is a token bucket for everything but signalling: the
queue then forms in the node, where it has an order. Without one the node *learns* what bulk may take:
while steps are being sent and the queue that their packets meet is long, bulk gets less; while it is
short, more. Bulk that steps do not suffer from is left alone: where the least rate does not shorten the
queue, somebody else fills it.

No I/O; time is an argument in seconds.
"""

from math import inf

_BURST_S = 0.001
"""A configured rate's bucket: what a timer that is late by as much still makes up for."""

_BURST_BYTES_MIN = 2 * 1_260
"""Two datagrams."""

_HEADERS_BYTES = 28
"""IPv4 and UDP: the link carries them, too."""

_BULK = 3
"""The class that is throttled: ``Rank.BULK`` and above."""

_TARGET_S = 0.005
"""Queue that steps may meet: a receiver's acknowledgement delay and a burst are within it."""

STEPS_GO_ON_S = 1.0
"""So long after the last step, deadline work goes on: more than the pause between two tokens."""

_INTERVAL_S_MIN = 0.01
_CUT, _GROWTH = 0.7, 1.05
"""A cut empties a queue of the target's size in a round trip or two; growth doubles in 14 of them."""

_RATE_MIN = 16_000.0
"""Bytes a second that bulk keeps: a floor, and what shows whether bulk was to blame."""

_BLAME_S, _RELEASE_S = 1.0, 10.0
"""A queue that outlasts the least rate by the first is not bulk's, which then is free for the second."""


class Uplink:
    """Tells how many bytes of a class may leave now."""

    def __init__(self, rate_bytes_s: float | None = None, *, learns: bool = True) -> None:
        """With ``rate_bytes_s`` it is configured; else it learns, or with ``learns`` False never limits."""
        self.rate_bytes_s = rate_bytes_s
        self._learns = learns and rate_bytes_s is None
        self._tokens = 0.0
        self._filled_s = 0.0
        self._step_s = -inf
        """When a step was sent last."""
        self.bulk_bytes_s = inf
        """Learned: what bulk may take while there is deadline work."""
        self._bulk_sent_bytes = 0
        self._interval_s = -inf
        """When the current interval of learning began."""
        self._worst_s = 0.0
        """The longest queue that a step's connection has met in it."""
        self._least_since_s = inf
        """Since when the rate is the least."""
        self._free_until_s = -inf

    def allowance(self, rank: int, now: float) -> float:
        """Bytes of a class that may leave now; infinite where nothing limits it.

        A class may send while this is positive, a whole datagram at least: what it sends too much, it owes.
        """
        rate = self._rate(rank, now)
        if rate == inf or rank < 0:
            return inf
        self._fill(rate, now)
        return self._tokens

    def next_time(self, now: float) -> float | None:
        """When what was held may leave."""
        rate = self._rate(_BULK, now)
        return now if rate == inf else now + max(0.0, (_burst_bytes(rate) / 2 - self._tokens) / rate)

    def spent(self, rank: int, sent_bytes: int, packets: int, now: float) -> None:
        """Bytes of a class have left."""
        if rank in {0, 1}:
            self._step_s = now
        link_bytes = sent_bytes + packets * _HEADERS_BYTES
        if rank >= _BULK:
            self._bulk_sent_bytes += link_bytes
        if self.rate_bytes_s is not None or rank >= _BULK:
            self._tokens -= link_bytes

    def queue_seen(self, queue_s: float, rtt_s: float, now: float) -> None:
        """A connection that carries steps has met a queue of ``queue_s`` on a round trip of ``rtt_s``."""
        if not self._learns:
            return
        self._worst_s = max(self._worst_s, queue_s)
        since_s = now - self._interval_s
        if since_s < max(rtt_s, _INTERVAL_S_MIN):
            return
        if since_s < STEPS_GO_ON_S:  # an older interval says nothing of now
            self._learn(self._bulk_sent_bytes / since_s, now)
        self._interval_s, self._worst_s, self._bulk_sent_bytes = now, 0.0, 0

    def _learn(self, bulk_bytes_s: float, now: float) -> None:
        if now < self._free_until_s:
            return
        if self._worst_s <= _TARGET_S:
            self._least_since_s = inf
            if bulk_bytes_s > 0.7 * self.bulk_bytes_s:  # else something else bounds it
                self.bulk_bytes_s *= _GROWTH
            return
        self.bulk_bytes_s = max(_RATE_MIN, _CUT * min(bulk_bytes_s, self.bulk_bytes_s))
        if self.bulk_bytes_s > _RATE_MIN:
            self._least_since_s = inf
        elif now - min(self._least_since_s, now) > _BLAME_S:
            self.bulk_bytes_s, self._least_since_s = inf, inf
            self._free_until_s = now + _RELEASE_S
        else:
            self._least_since_s = min(self._least_since_s, now)

    def _rate(self, rank: int, now: float) -> float:
        if self.rate_bytes_s is not None:
            return self.rate_bytes_s
        return self.bulk_bytes_s if rank >= _BULK and now - self._step_s < STEPS_GO_ON_S else inf

    def _fill(self, rate: float, now: float) -> None:
        self._tokens = min(_burst_bytes(rate), self._tokens + rate * (now - self._filled_s))
        self._filled_s = now


def _burst_bytes(rate: float) -> float:
    return max(_BURST_BYTES_MIN, rate * _BURST_S)
