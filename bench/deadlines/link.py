"""One direction of a path, in virtual time: a queue in front of a bottleneck, a delay, and what goes wrong.

    offer ──► policer ──► FIFO or CoDel ──► rate ──► loss ──► delay, jitter ──► take

Pure and deterministic: no clock and no global randomness. The same packets offered at the same times
with the same seed have the same fate. A packet that is offered is taken at the other end or is listed
as dropped, once. Times are integer nanoseconds: at 100 Mbit/s a packet takes some hundred
microseconds, and whole microseconds would be an error of a hundredth.
"""

import heapq
import random
from dataclasses import dataclass
from itertools import count
from typing import Any

from bench.deadlines.codel import CodelQueue, Queued

NS_PER_S = 1_000_000_000

POLICED_LINE_FACTOR = 10
"""A policer stands in front of a faster line: it never queues, it drops what comes too early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the path is from some time on."""

    at_ns: int
    rate_bps: int
    delay_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """What a link does."""

    rate_bps: int
    delay_ns: int
    """From the last bit sent to the last bit received."""
    depth_bytes: int
    """What may be in front of a packet that arrives at the queue; more, and it is dropped. An idle
    link accepts a packet of any size."""
    codel: bool = False
    """The queue is CoDel, with ``depth_bytes`` as its hard limit."""
    policer_burst_bytes: int | None = None
    """A token bucket of this size, filled at the rate, in front of a line that is ten times as fast."""
    loss: float = 0.0
    """Part of the packets that are lost behind the bottleneck."""
    burst_packets: float = 1.0
    """Mean length of a run of losses: above 1 a Gilbert-Elliott process, at 1 each packet by itself."""
    jitter_ns: int = 0
    """Added delay, uniform from 0 to this."""
    reorders: bool = False
    """Jitter, and a route that becomes shorter, may let a packet overtake another."""
    changes: tuple[Change, ...] = ()
    """In order of time. A packet is timed by what holds while it is sent."""


class Link:
    """``offer`` packets, ``take`` those that arrived; ``next_ns`` says when to call again."""

    def __init__(self, config: LinkConfig, seed: str) -> None:
        self.dropped: list[Any] = []
        """Items dropped since the caller last emptied this."""
        self._depth_bytes = config.depth_bytes
        self._codel = CodelQueue() if config.codel else None
        self._policer = None
        factor = 1
        if config.policer_burst_bytes is not None:
            self._policer = _Policer(config, config.policer_burst_bytes)
            factor = POLICED_LINE_FACTOR
        self._rates = _Schedule(
            [(0, config.rate_bps), *((c.at_ns, c.rate_bps) for c in config.changes)], factor
        )
        self._delays = [(0, config.delay_ns), *((c.at_ns, c.delay_ns) for c in config.changes)]
        self._losses = _Losses(config, random.Random(f"{seed}/loss"))
        self._jitter_ns = config.jitter_ns
        self._jitter = random.Random(f"{seed}/jitter")
        self._reorders = config.reorders
        self._free_ns = 0
        self._last_arrival_ns = 0
        self._flying: list[tuple[int, int, Any]] = []
        self._numbers = count()

    @property
    def next_ns(self) -> int | None:
        """When something arrives or the queue has to be looked at; ``None``: only after an offer."""
        at_ns = self._flying[0][0] if self._flying else None
        if self._codel is not None and len(self._codel):
            return self._free_ns if at_ns is None else min(at_ns, self._free_ns)
        return at_ns

    def queued_bytes(self, now_ns: int) -> int:
        """What is in front of a packet that would be offered now, the one being sent included."""
        sending_bytes = self._rates.bytes_between(now_ns, self._free_ns)
        return sending_bytes if self._codel is None else sending_bytes + self._codel.size_bytes

    def offer(self, now_ns: int, size_bytes: int, item: Any) -> None:
        """Put a packet in front of the link."""
        if self._policer is not None and not self._policer.passes(now_ns, size_bytes):
            self.dropped.append(item)
            return
        if self._codel is not None:
            self._serve(now_ns)
        if self.queued_bytes(now_ns) > self._depth_bytes:
            self.dropped.append(item)
        elif self._codel is None:
            self._send(max(now_ns, self._free_ns), size_bytes, item)
        else:
            self._codel.push(Queued(now_ns, size_bytes, item))
            self._serve(now_ns)

    def take(self, now_ns: int) -> list[Any]:
        """What has arrived by now, in order of arrival."""
        if self._codel is not None:
            self._serve(now_ns)
        arrived = []
        while self._flying and self._flying[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._flying)[2])
        return arrived

    def _serve(self, now_ns: int) -> None:
        """Let what CoDel passes leave the queue, as long as the link is free."""
        assert self._codel is not None
        while len(self._codel) and self._free_ns <= now_ns:
            start_ns = max(self._free_ns, self._codel.oldest_ns)
            packet, dropped = self._codel.pop(start_ns)
            self.dropped.extend(each.item for each in dropped)
            if packet is not None:
                self._send(start_ns, packet.size_bytes, packet.item)

    def _send(self, start_ns: int, size_bytes: int, item: Any) -> None:
        self._free_ns = sent_ns = self._rates.end_ns(start_ns, size_bytes)
        if self._losses.loses():
            self.dropped.append(item)
            return
        arrival_ns = sent_ns + _value_at(self._delays, sent_ns)
        if self._jitter_ns:
            arrival_ns += self._jitter.randrange(self._jitter_ns + 1)
        if not self._reorders:
            arrival_ns = max(arrival_ns, self._last_arrival_ns)
            self._last_arrival_ns = arrival_ns
        heapq.heappush(self._flying, (arrival_ns, next(self._numbers), item))


class _Schedule:
    """A rate that may change, and how long bytes take at it."""

    def __init__(self, rates_bps: list[tuple[int, int]], factor: int) -> None:
        self._starts_ns = [at_ns for at_ns, _ in rates_bps]
        self._rates_bps = [rate_bps * factor for _, rate_bps in rates_bps]

    def end_ns(self, start_ns: int, size_bytes: int) -> int:
        """When the last bit of a packet is sent, whose first is sent at ``start_ns``."""
        bits_ns = size_bytes * 8 * NS_PER_S
        for index in range(self._index(start_ns), len(self._rates_bps)):
            rate_bps = self._rates_bps[index]
            end_ns = start_ns - (-bits_ns // rate_bps)
            if index + 1 == len(self._rates_bps) or end_ns <= self._starts_ns[index + 1]:
                break
            bits_ns -= (self._starts_ns[index + 1] - start_ns) * rate_bps
            start_ns = self._starts_ns[index + 1]
        return end_ns

    def bytes_between(self, start_ns: int, end_ns: int) -> int:
        """What is sent from one time to another; 0 if they are not in this order."""
        bits_ns, index = 0, self._index(start_ns)
        while start_ns < end_ns:
            is_last = index + 1 == len(self._rates_bps)
            until_ns = end_ns if is_last else min(end_ns, self._starts_ns[index + 1])
            bits_ns += (until_ns - start_ns) * self._rates_bps[index]
            start_ns, index = until_ns, index + 1
        return bits_ns // (8 * NS_PER_S)

    def _index(self, at_ns: int) -> int:
        index = len(self._starts_ns) - 1
        while self._starts_ns[index] > at_ns:
            index -= 1
        return index


class _Policer:
    """A token bucket: what finds too few tokens is dropped."""

    def __init__(self, config: LinkConfig, burst_bytes: int) -> None:
        self._rates = _Schedule([(0, config.rate_bps), *((c.at_ns, c.rate_bps) for c in config.changes)], 1)
        self._burst_bytes = burst_bytes
        self._tokens_bytes = burst_bytes
        self._filled_ns = 0

    def passes(self, now_ns: int, size_bytes: int) -> bool:
        """Whether there are tokens for a packet, which are then gone."""
        came_bytes = self._rates.bytes_between(self._filled_ns, now_ns)
        if came_bytes:
            self._tokens_bytes = min(self._burst_bytes, self._tokens_bytes + came_bytes)
            # The part of a byte that came too is kept: time goes on only as far as bytes were counted.
            self._filled_ns = self._rates.end_ns(self._filled_ns, came_bytes)
        if size_bytes > self._tokens_bytes:
            return False
        self._tokens_bytes -= size_bytes
        return True


class _Losses:
    """Which packets are lost: each by itself, or in runs (Gilbert-Elliott; the bad state loses all)."""

    def __init__(self, config: LinkConfig, draws: random.Random) -> None:
        self._draws = draws
        self._is_bad = False
        self._loss = config.loss
        self._is_bursty = config.burst_packets > 1
        self._ends = 1 / config.burst_packets
        self._begins = self._ends * config.loss / (1 - config.loss) if config.loss < 1 else 1.0

    def loses(self) -> bool:
        """Whether the next packet is lost."""
        if not self._loss:
            return False
        draw = self._draws.random()
        if not self._is_bursty:
            return draw < self._loss
        self._is_bad = draw >= self._ends if self._is_bad else draw < self._begins
        return self._is_bad


def _value_at(steps: list[tuple[int, int]], at_ns: int) -> int:
    for start_ns, value in reversed(steps):
        if start_ns <= at_ns:
            return value
    return steps[0][1]
