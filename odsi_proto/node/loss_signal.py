"""What losses say: too many, the end of a buffer, or a background that no window of ours causes.

*Excess* is a cumulative sum: lost bytes, less 2 % of acknowledged ones, never below 0. It stays near 0 for
ever while loss is below 2 % and rises without end above, so it tells the two apart in about as many
packets as that takes, for any rate.

*Events* counts losses that forget themselves with 0.75 W^2 packets, W the window in packets, or the one
that the path has carried in the last seconds if that was larger. Additive increase and multiplicative
decrease make about one event in that time, whatever the rate of the link: loss that is several times as
frequent does not depend on the window.
"""

LOSS_MAX = 0.02
"""As BBRv2: reno is at 8 packets a round trip there, and no healthy path loses that much."""

EXCESS_WINDOWS = 0.06
EXCESS_PACKETS_MIN = 3
"""Random loss of 1 % passes 6 % of 200 packets once in many hours; 10 % loss does in one round trip."""

EXCESS_ABOVE = 0.25

STARTUP_EXCESS_PACKETS = 5
"""While the window grows by a third each round trip, waiting costs more."""

EVENTS_MAX = 4.0
EVENTS_KEPT_MAX = 6.0
"""Four in the time of one are rare with independent flows, and do not happen with flows that cut together.
Not many more are kept, so that the belief ends when the losses do."""

MEMORY = 0.75
"""Of the window in packets, squared."""


class LossSignal:
    """Counts of one controller; its caller says what packets it sent at which window."""

    __slots__ = ("_events", "_excess_bytes", "_packet_bytes")

    def __init__(self, packet_bytes: int) -> None:
        self._packet_bytes = packet_bytes
        self._excess_bytes = 0.0
        self._events = 0.0

    @property
    def is_background(self) -> bool:
        """Losses come too often to be caused by the window."""
        return self._events > EVENTS_MAX

    @property
    def is_silent(self) -> bool:
        """There is nothing to forget."""
        return not self._excess_bytes and not self._events

    def acked(self, acked_bytes: int, window_bytes: float) -> None:
        """Forget, as far as acknowledged bytes allow."""
        self._excess_bytes = max(0.0, self._excess_bytes - LOSS_MAX * acked_bytes)
        memory_bytes = MEMORY * window_bytes * window_bytes / self._packet_bytes
        self._events *= max(0.0, 1 - acked_bytes / memory_bytes)

    def lost(self, lost_bytes: int, window_bytes: float, *, is_startup: bool) -> float:
        """Count lost bytes; above 1 there is more than 2 % of them, above 1/2 it looks like it."""
        packet_bytes = self._packet_bytes
        limit_bytes = max(EXCESS_PACKETS_MIN * packet_bytes, EXCESS_WINDOWS * window_bytes)
        if is_startup:
            limit_bytes = STARTUP_EXCESS_PACKETS * packet_bytes
        # Kept near the limit, or loss of 1 % after a burst would be halved upon for many round trips.
        most_bytes = limit_bytes + max(packet_bytes, EXCESS_ABOVE * limit_bytes)
        self._excess_bytes = min(most_bytes, self._excess_bytes + lost_bytes)
        return self._excess_bytes / limit_bytes

    def event(self, packets: float) -> None:
        """A loss below the threshold: how many events it counts for."""
        self._events = min(EVENTS_KEPT_MAX, self._events + packets)

    def disbelieve(self) -> None:
        """Whatever was taken for background was not."""
        self._events = 0.0
