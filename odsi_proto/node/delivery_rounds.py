"""What a connection delivers in each round: from a packet sent to its acknowledgement.

A round counts as *limited* if half of the window was in flight in it (RFC 7661 section 4.3): then the
path, not the application, decided what was delivered, and the window was tried. All other rounds say
nothing of the path.
"""

LIMITED = 0.5


class DeliveryRounds:
    """Give it each acknowledgement; read the rest."""

    __slots__ = (
        "_began_s",
        "_best_before_bytes_s",
        "_best_bytes_s",
        "_flight_bytes_max",
        "_since_bytes",
        "delivered_bytes",
        "is_limited",
        "rate_bytes_s",
    )

    def __init__(self) -> None:
        self.is_limited = True
        """The last round was."""
        self.delivered_bytes = 0
        """In the last round."""
        self.rate_bytes_s = 0.0
        """Mean of the last limited rounds, the latest counting half; 0 before there is one."""
        self._began_s = 0.0
        self._since_bytes = 0
        self._flight_bytes_max = 0
        self._best_bytes_s = self._best_before_bytes_s = 1.0

    @property
    def best_bytes_s(self) -> float:
        """The best of the last limited rounds, as far as :meth:`forget_best` lets it last."""
        return max(self._best_bytes_s, self._best_before_bytes_s)

    def forget_best(self) -> None:
        """Forget the best but one time."""
        self._best_before_bytes_s, self._best_bytes_s = self._best_bytes_s, max(1.0, self.rate_bytes_s)

    def add(
        self, now_s: float, *, acked_bytes: int, sent_s: float, flight_bytes: int, window_bytes: int
    ) -> bool:
        """Take an acknowledgement of bytes, the last sent at ``sent_s``; true where a round ends with it.

        ``flight_bytes`` is what was in flight just before it, when it was most: nothing is sent meanwhile.
        """
        self._since_bytes += acked_bytes
        if flight_bytes > self._flight_bytes_max:  # noqa: PLR1730  # at each acknowledgement: a call costs
            self._flight_bytes_max = flight_bytes
        if sent_s < self._began_s:
            return False
        self.is_limited = self._flight_bytes_max >= LIMITED * window_bytes
        self.delivered_bytes = self._since_bytes
        if self.is_limited and now_s > self._began_s:
            rate_bytes_s = self.delivered_bytes / (now_s - self._began_s)
            before_bytes_s = self.rate_bytes_s
            self.rate_bytes_s = (before_bytes_s + rate_bytes_s) / 2 if before_bytes_s else rate_bytes_s
            self._best_bytes_s = max(self._best_bytes_s, rate_bytes_s)
        self._flight_bytes_max = flight_bytes - acked_bytes
        self._since_bytes = 0
        self._began_s = now_s
        return True
