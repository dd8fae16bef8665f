"""The clock that one process sees: offset, rate and jumps against virtual time. Integers only."""

from odsi_proto.units import Micros

MILLION = 1_000_000


class Clock:
    """Monotonic: whatever happens to it, what it shows never goes back."""

    def __init__(self, *, at_us: int, shows_us: int, rate_ppm: int, unix_s_at_zero: int) -> None:
        self._since_us = at_us
        self._shown_us = shows_us
        self.rate_ppm = rate_ppm
        """How much faster than virtual time it runs, in millionths."""
        self.unix_s_at_zero = unix_s_at_zero
        """The wall clock when it showed zero, as the process believes."""

    def shows(self, at_us: int) -> Micros:
        """What the clock shows at a virtual instant that is not before the last change."""
        return Micros(self._shown_us + (at_us - self._since_us) * (MILLION + self.rate_ppm) // MILLION)

    def when(self, shows_us: int) -> int:
        """The first virtual instant at which the clock shows at least ``shows_us``."""
        missing_us = shows_us - self._shown_us
        if missing_us <= 0:
            return self._since_us
        return self._since_us - (-missing_us * MILLION // (MILLION + self.rate_ppm))

    def set_rate(self, at_us: int, rate_ppm: int) -> None:
        """Run at another rate from now on."""
        self._shown_us, self._since_us = self.shows(at_us), at_us
        self.rate_ppm = rate_ppm

    def jump(self, at_us: int, by_us: int) -> None:
        """Skip ``by_us``, as after a suspend that the monotonic clock counted."""
        assert by_us >= 0, "a monotonic clock"
        self._shown_us, self._since_us = self.shows(at_us) + by_us, at_us
