"""The CoDel queue of RFC 8289, its pseudocode over a queue in virtual time.

It drops at the head, when a packet leaves, once every packet for a whole interval has waited longer
than the target; the interval between drops shrinks with the square root of their number.
"""

import math
from collections import deque
from typing import Any, NamedTuple

TARGET_NS = 5_000_000
INTERVAL_NS = 100_000_000
"""RFC 8289 sections 4.2 and 4.3."""

PACKET_BYTES_MAX = 1500
"""No more than this in the queue is not standing (section 4.4: one packet of the greatest size)."""

_RECENT_INTERVALS = 16
"""A dropping state that ended less than this ago is taken up where it was (section 5.4)."""


class Queued(NamedTuple):
    """A packet that waits."""

    since_ns: int
    size_bytes: int
    item: Any


class CodelQueue:
    """Packets in order of arrival, some of them dropped when they would leave."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._packets: deque[Queued] = deque()
        self._first_above_ns = 0
        self._drop_next_ns = 0
        self._count = 0
        self._count_before = 0
        self._is_dropping = False

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def oldest_ns(self) -> int:
        """When the packet at the head arrived; there has to be one."""
        return self._packets[0].since_ns

    def push(self, packet: Queued) -> None:
        """Append a packet."""
        self._packets.append(packet)
        self.size_bytes += packet.size_bytes

    def pop(self, now_ns: int) -> tuple[Queued | None, list[Queued]]:
        """The packet that leaves now, if any is left, and those dropped before it."""
        dropped: list[Queued] = []
        packet, may_drop = self._take(now_ns)
        if self._is_dropping:
            self._is_dropping = may_drop
            while self._is_dropping and now_ns >= self._drop_next_ns and packet is not None:
                dropped.append(packet)
                self._count += 1
                packet, may_drop = self._take(now_ns)
                if may_drop:
                    self._drop_next_ns = self._after(self._drop_next_ns)
                else:
                    self._is_dropping = False
        elif may_drop and packet is not None:
            dropped.append(packet)
            packet, _ = self._take(now_ns)
            self._begin_dropping(now_ns)
        return packet, dropped

    def _begin_dropping(self, now_ns: int) -> None:
        self._is_dropping = True
        more = self._count - self._count_before
        is_recent = now_ns - self._drop_next_ns < _RECENT_INTERVALS * INTERVAL_NS
        self._count = more if more > 1 and is_recent else 1
        self._drop_next_ns = self._after(now_ns)
        self._count_before = self._count

    def _after(self, time_ns: int) -> int:
        return time_ns + int(INTERVAL_NS / math.sqrt(self._count))

    def _take(self, now_ns: int) -> tuple[Queued | None, bool]:
        """The head, and whether the queue has stood for an interval."""
        if not self._packets:
            self._first_above_ns = 0
            return None, False
        packet = self._packets.popleft()
        self.size_bytes -= packet.size_bytes
        if now_ns - packet.since_ns < TARGET_NS or self.size_bytes <= PACKET_BYTES_MAX:
            self._first_above_ns = 0
            return packet, False
        if self._first_above_ns == 0:
            self._first_above_ns = now_ns + INTERVAL_NS
            return packet, False
        return packet, now_ns >= self._first_above_ns
