"""What may leave a node over all its connections together.

Connections that share an uplink share its queue: bulk on one makes a step on another wait, whatever the
order inside each. Two remedies. A *configured* rate is a token bucket for everything but signalling: the
queue then forms in the node, where it has an order. Without one the node *learns* what bulk may take:
while steps are being sent, it gets what the uplink carries beside them, and a little less or more as the
queue that steps meet is longer or shorter than a small target. Bulk that steps do not suffer from is left
alone: where the least rate does not shorten the queue, somebody else fills it.

The law of learning. Once in a round trip: what was sent a round trip ago, and by how much the queue grew,
give the capacity C; bulk then gets C (1 + (target - queue) / horizon) less what steps take, which brings
the queue to the target within the horizon. Without a queue C is only known to be more than what was sent,
and grows by a few percent.

No I/O; time is an argument in seconds.
"""

from math import inf

from odsi_proto.node.urgency import Rank

_BURST_S = 0.001
"""A configured rate's bucket: what a timer that is late by as much still makes up for."""

_BURST_BYTES_MIN = 2 * 1_260
"""Two datagrams."""

_HEADERS_BYTES = 28
"""IPv4 and UDP: the link carries them, too."""

_TARGET_S = 0.004
"""Standing queue that steps may meet: more than a receiver's acknowledgement delay, a small part of any
deadline that a wide-area path can meet."""

_NO_QUEUE_S = 0.002
"""Below this there is none to speak of: a late acknowledgement, a burst's own packets."""

_HORIZON = 3
"""Intervals in which the queue comes to the target: fewer than two overshoot, because a round trip passes
before a change is seen."""

_GROWTH = 1.03
"""Of a capacity that is not reached, in an interval: twice the rate in half a second at 20 ms."""

_SMOOTH = 0.25
"""Weight of a new sample of the capacity."""

STEPS_GO_ON_S = 1.0
"""So long after the last step, deadline work goes on: more than the pause between two tokens."""

_INTERVAL_S_MIN = 0.01

_RATE_MIN = 16_000.0
"""Bytes a second that bulk keeps: a floor, and what shows whether bulk was to blame."""

_BLAME_S, _RELEASE_S = 1.0, 10.0
"""A queue that outlasts the least rate by the first is not bulk's, which then is free for the second."""


class Uplink:
    """Tells how many bytes of a class may leave now."""

    def __init__(self, rate_bytes_s: float | None = None, *, learns: bool = True) -> None:
        """With ``rate_bytes_s`` it is configured; else it learns, or with ``learns`` False never limits."""
        self.rate_bytes_s = rate_bytes_s
        self.bulk_bytes_s = inf
        """Learned: what bulk may take while there is deadline work."""
        self._learns = learns and rate_bytes_s is None
        self._tokens = 0.0
        self._filled_s = 0.0
        self._step_s = -inf
        """When a step was sent last."""
        self._capacity_bytes_s = inf
        """Learned; infinite until the queue has been too long once."""
        self._interval_s = -inf
        """When the current interval of learning began."""
        self._sent_bytes = self._step_bytes = 0
        """In the current interval: all, and those of other classes than bulk."""
        self._sent_before_bytes_s = 0.0
        """In the interval before: what the queue that is seen now is of."""
        self._queue_s = inf
        """The shortest queue that steps have met in the current interval: one that stands, no burst's own."""
        self._queue_before_s = 0.0
        self._least_since_s = inf
        """Since when the rate is the least."""
        self._free_until_s = -inf

    def allowance(self, rank: int, now: float) -> float:
        """Bytes of a class that may leave now; infinite where nothing limits it.

        A class may send while this is positive, a whole datagram at least: what it sends too much, it owes.
        """
        rate = self._rate(rank, now)
        if rate == inf or rank < Rank.STEP:
            return inf
        self._tokens = min(_burst_bytes(rate), self._tokens + rate * (now - self._filled_s))
        self._filled_s = now
        return self._tokens

    def next_time(self, now: float) -> float | None:
        """When what was held may leave."""
        rate = self._rate(Rank.BULK, now)
        return now if rate == inf else now + max(0.0, (_burst_bytes(rate) / 2 - self._tokens) / rate)

    def bulk_limit_bytes_s(self, now: float) -> float:
        """What bulk is held to at this moment for the sake of steps; infinite where it is not."""
        return inf if self.rate_bytes_s is not None else self._rate(Rank.BULK, now)

    def spent(self, rank: int, sent_bytes: int, packets: int, now: float) -> None:
        """Bytes of a class have left."""
        if rank in {Rank.STEP, Rank.LATE}:
            self._step_s = now
        link_bytes = sent_bytes + packets * _HEADERS_BYTES
        self._sent_bytes += link_bytes
        if rank < Rank.BULK:
            self._step_bytes += link_bytes
        if self.rate_bytes_s is not None or rank >= Rank.BULK:
            self._tokens -= link_bytes

    def queue_seen(self, queue_s: float, rtt_s: float, now: float) -> None:
        """A connection that carries steps has met a queue of ``queue_s`` on a round trip of ``rtt_s``."""
        if not self._learns:
            return
        self._queue_s = min(self._queue_s, queue_s)
        since_s = now - self._interval_s
        if since_s < max(rtt_s, _INTERVAL_S_MIN):
            return
        sent_bytes_s = self._sent_bytes / since_s
        if since_s < STEPS_GO_ON_S and now >= self._free_until_s:  # an older interval says nothing of now
            steps_bytes_s = self._step_bytes / since_s
            self._learn(steps_bytes_s, sent_bytes_s - steps_bytes_s, since_s, now)
        self._sent_before_bytes_s, self._queue_before_s = sent_bytes_s, self._queue_s
        self._interval_s, self._queue_s, self._sent_bytes, self._step_bytes = now, inf, 0, 0

    def _learn(self, steps_bytes_s: float, bulk_bytes_s: float, interval_s: float, now: float) -> None:
        queue_s, before_s, sent = self._queue_s, self._queue_before_s, self._sent_before_bytes_s
        if self._capacity_bytes_s == inf:
            if queue_s < _TARGET_S or not sent:
                return
            self._capacity_bytes_s = sent / (1 + max(0.0, queue_s - before_s) / interval_s)
        elif min(queue_s, before_s) > _NO_QUEUE_S:  # it was never empty: what came out is the capacity
            sample = sent / max(0.5, 1 + (queue_s - before_s) / interval_s)
            self._capacity_bytes_s += _SMOOTH * (sample - self._capacity_bytes_s)
        elif queue_s <= _NO_QUEUE_S and bulk_bytes_s > 0.7 * self.bulk_bytes_s:
            self._capacity_bytes_s *= _GROWTH
        part = 1 + (_TARGET_S - queue_s) / (_HORIZON * interval_s)
        rate = self._capacity_bytes_s * part - steps_bytes_s
        self.bulk_bytes_s = max(_RATE_MIN, rate)
        self._blame(queue_s, now)

    def _blame(self, queue_s: float, now: float) -> None:
        """Let bulk go where having none of it does not help."""
        if self.bulk_bytes_s > _RATE_MIN or queue_s < _TARGET_S:
            self._least_since_s = inf
        elif self._least_since_s == inf:
            self._least_since_s = now
        elif now - self._least_since_s > _BLAME_S:
            self.bulk_bytes_s = self._capacity_bytes_s = self._least_since_s = inf
            self._free_until_s = now + _RELEASE_S

    def _rate(self, rank: int, now: float) -> float:
        if self.rate_bytes_s is not None:
            return self.rate_bytes_s
        return self.bulk_bytes_s if rank >= Rank.BULK and now - self._step_s < STEPS_GO_ON_S else inf


def _burst_bytes(rate: float) -> float:
    return max(_BURST_BYTES_MIN, rate * _BURST_S)
