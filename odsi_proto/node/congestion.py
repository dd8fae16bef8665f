"""draft"""

from collections.abc import Iterable
from math import inf

from aioquic.quic.congestion.base import K_MINIMUM_WINDOW, QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

TARGET_S = 0.004
GROWTH = 0.5
MARGIN = 0.95
FUTILE = 4
LOSS_MAX = 0.02
BETA = 0.85
NEAR = 0.93
LEARN = 1 / 512
BASE_S = 5.0
QUIET = 3
KAPPA = 4.0
CAP = 6.0


class DelayCongestionControl(QuicCongestionControl):
    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._packet = max_datagram_size
        self._floor = K_MINIMUM_WINDOW * max_datagram_size
        self._window = float(self.congestion_window)
        self._fresh = 0
        self._acked = 0
        self._sent_time = 0.0
        self._recovery = -1.0
        # rounds
        self._round_at = 0.0
        self._round_bytes = 0
        self._flight_max = 0
        self._limited = True
        self._loud = False
        self._quiet = 0
        self._v = 1.0
        self._rate = 0.0
        # rtt
        self._base = self._base_cur = self._base_prev = inf
        self._base_at = 0.0
        self._cur = self._prev = inf
        self._bucket_end = 0.0
        self._queue = 0.0
        # futility
        self._chain = 0
        self._chain_queue = 0.0
        self._undo = 0.0
        self._competing = False
        self._recheck = 0.0
        self._recheck_s = 1.0
        # loss
        self._high = inf
        self._excess = 0.0
        self._background = 0.0
        self._last_window = self._window
        self._gentle = 0.3
        self._count = 0
        self._spread = self._jit = self._jit_prev = 0.0
        self._best = self._best_prev = max_datagram_size / 0.002
        self._delivered = inf
        self._held = 0
        self._shown = self._window
        self._part = 0.0

    @property
    def mode(self) -> str:
        if self._competing:
            return "compete"
        return "startup" if self.ssthresh is None else "delay"

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        self.bytes_in_flight = flight = self.bytes_in_flight + packet.sent_bytes
        if flight > self._flight_max:
            self._flight_max = flight

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        size = packet.sent_bytes
        self.bytes_in_flight -= size
        self._acked += size
        sent = packet.sent_time
        if sent > self._recovery:
            self._fresh += size
        self._sent_time = sent
        if sent >= self._round_at:
            self._end_round(now)

    def _end_round(self, now: float) -> None:
        self._limited = self._flight_max >= 0.5 * self.congestion_window
        self._flight_max = self.bytes_in_flight
        if now > self._round_at and self._limited:
            rate = (self._acked + self._round_bytes) / (now - self._round_at)
            self._rate = rate if self._rate == 0 else 0.5 * (self._rate + rate)
            if rate > self._best:
                self._best = rate
        self._delivered = self._acked + self._round_bytes
        self._round_bytes = -self._acked
        self._round_at = now
        if self._loud or not self._limited:
            self._quiet, self._v = 0, 1.0
        else:
            self._quiet += 1
            if self._quiet > QUIET:
                self._v = max(1.0, min(2 * self._v, self._window / (16 * self._packet)))
        self._loud = False

    def _in_startup(self) -> bool:
        return self.ssthresh is None or self._window < self.ssthresh

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        # base
        if rtt < self._base_cur:
            self._base_cur = rtt
            if rtt < self._base:
                self._base = rtt
        drain = False
        if now - self._base_at > BASE_S:
            drain = self._base_cur > self._base + TARGET_S / 4
            self._base_prev, self._base_cur = self._base_cur, rtt
            self._base = min(self._base_prev, rtt)
            self._base_at = now
            self._best_prev, self._best = self._best, self._rate
            self._jit_prev, self._jit = self._jit, self._spread
        # standing
        self._count += 1
        if now >= self._bucket_end and self._count >= 4:
            self._count = 0
            self._prev, self._cur = self._cur, rtt
            self._bucket_end = now + max(self._base / 4, 0.002)
        elif rtt < self._cur:
            self._cur = rtt
        standing = self._cur if self._cur < self._prev else self._prev
        self._queue = queue = standing - self._base
        self._spread += (rtt - standing - self._spread) / 64
        if self._spread > self._jit:
            self._jit = self._spread
        acked, fresh = self._acked, self._fresh
        self._round_bytes += acked
        self._acked = self._fresh = 0
        held = self._held + acked
        held = max(0, held - max(8 * self._packet, held >> 1))
        if held or self._held:
            self._held = held
            self._publish()
        if self._excess > 0:
            self._excess = max(0.0, self._excess - LOSS_MAX * acked)
        if self._background:
            packets = self._window / self._packet
            self._background -= self._background * min(1.0, 1.33 * acked / self._packet / packets**2)
        if queue > TARGET_S / 4:
            self._loud = True
        if self._part:
            self._shown -= self._part * acked
            if self._shown <= self._window or self.bytes_in_flight < self._window:
                self._part = 0.0
                self._recovery = now
            self._publish()
            return
        if not fresh or not self._limited:
            return
        if self._competing:
            if queue < TARGET_S / 2:
                self._competing = False
                self._recheck_s = 1.0
                self._chain = 0
            elif now > self._recheck:
                self._competing = False
                self._chain = 0
                self._recheck_s = min(8.0, 2 * self._recheck_s)
            else:
                self._window += self._packet * fresh / self._window
                self._publish()
                return
        pace = self._packet / max(self._best, self._best_prev, 1.0)
        target = TARGET_S + pace + 4 * max(0.0, max(self._jit, self._jit_prev) - 0.001 - pace)
        startup = self._in_startup()
        if startup and queue > target / 2:
            self._cut(now, self._window / (1 + GROWTH) * self._base / standing)
            return
        if queue > target:
            if self._chain == 0 or queue < 0.75 * self._chain_queue:
                self._undo = self._window
                self._chain = 0
                self._chain_queue = queue
            self._chain += 1
            if self._chain > FUTILE and self._undo >= 8 * self._packet:
                self._competing = True
                self._recheck = now + self._recheck_s
                self._window = max(self._window, self._undo)
                self._publish()
                return
            self._cut(now, self._window * MARGIN * self._base / standing)
            return
        self._chain = 0
        if drain:
            back = self._window * MARGIN * self._base / standing
            self._cut(now, self._window * 0.75 * self._base / standing)
            self.ssthresh = int(back)
            return
        self._grow(fresh, startup)

    def _grow(self, fresh: int, startup: bool) -> None:
        if startup:
            self._window += GROWTH * fresh
        else:
            window, high = self._window, self._high
            step = self._v
            if window > 1.05 * high:
                self._high = inf
                self._v = 1.0
            elif window >= BETA * high and not self._tolerant():
                step = max(self._gentle, 2 * self._packet / window) if window < NEAR * high else 1.0
            self._window += step * self._packet * fresh / window
        self._publish()

    def _publish(self) -> None:
        packet = self._packet
        if self._part == 0.0:
            self._shown = self._window
        self.congestion_window = int((self._shown - self._held) / packet) * packet

    def _cut(self, now: float, window: float) -> None:
        self._window = max(self._floor, window)
        self.ssthresh = int(self._window)
        self._recovery = inf
        self._shown = max(self._window, min(self._shown, self.bytes_in_flight))
        self._part = max(0.0, 1 - self._window / self._shown)
        if self._part == 0.0:
            self._recovery = now
        self._quiet, self._v = 0, 1.0
        self._publish()

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        lost = new = 0
        for packet in packets:
            lost += packet.sent_bytes
            if packet.sent_time > self._recovery:
                new += packet.sent_bytes
        self.bytes_in_flight -= lost
        window, size = self._window, self._packet
        startup = self._in_startup()
        hard = 5 * size if startup else max(3 * size, 0.06 * window)
        self._excess = min(2 * hard, self._excess + lost)
        if self._excess > 0.5 * hard:
            self._quiet, self._v = 0, 1.0
        flight = window / (1 + GROWTH) if startup else window
        if self._excess > hard and (new or self._last_cut_mild):
            self._high = flight if new else self._high
            self._cut(now, min(window, min(window / 2, max(self._delivered, window / 8)) if startup else self._high / 2))
            self._last_cut_mild = False
            self._gentle = 1.0
            self._background = 0.0
        elif new:
            tolerant = startup or self._tolerant()
            self._background = min(CAP, self._background + (new / size if tolerant else 1.0))
            if not tolerant:
                self._high = flight
                self._last_cut_mild = True
                self._gentle = 1.0 if self._competing else 0.1
                self._cut(now, flight * (0.5 if self._competing else BETA))
            elif self._queue > TARGET_S / 2 and not self._competing and not startup:
                self._cut(now, flight * self._base / (self._base + self._queue))

    def _tolerant(self) -> bool:
        return self._background > KAPPA

    _last_cut_mild = False

    def on_persistent_congestion(self) -> None:
        self._part = 0.0
        self._window = self._floor
        self._recovery = -1.0
        self._publish()


def _make(max_datagram_size: int) -> DelayCongestionControl:
    return DelayCongestionControl(max_datagram_size=max_datagram_size)


register_congestion_control("delay", DelayCongestionControl)
