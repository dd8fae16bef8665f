"""Congestion control that keeps the bottleneck's queue short: ``congestion_control_algorithm="delay"``.

A deadline decided at the sender is worth nothing behind 40 ms of its own bulk in somebody's FIFO. Reno and
cubic fill that FIFO by design. This controller is additive increase and multiplicative decrease as they
are, with two differences: *what* it takes for congestion, and that a cut gives back what stands in the
queue and hardly more.

**Two signals, one answer.** Congestion is (1) a queue above a target of 4 ms, or (2) loss. Each begins one
*reduction*: the window goes to a lower value within one round trip, in proportion to what is
acknowledged (RFC 6937), and nothing is decided until packets sent after it are acknowledged. Flows at one
bottleneck see one delay, cut together by the same factor and empty the queue together: that makes them
fair (Chiu and Jain), and shows all of them, late-comers too, the path without queue several times a
second. So the base round trip stays true without separate probing (Copa's observation); where it was not
seen for 5 s (``path_delay``), one deeper cut shows it.

**Growth** is one packet a round trip. After three rounds without any queue the step doubles each round, up
to a sixteenth of the window: capacity that became free is taken in tens of round trips. A new connection
grows by a third each round trip until the queue stands at a third of the target; it then goes back to the
window whose packets have seen that queue, as acknowledgements are one round trip old (RFC 9406 slows down
for the same reason).

**Loss** (``loss_signal``). Above 2 % it halves the window once a round trip, as reno does, whatever the
delay is. A single loss below that counts as the end of a buffer too shallow to be seen as delay, or of a
policer's bucket: the window goes to 0.85 and remembers where loss began (BBRv2's inflight_hi). It waits
below 0.93 of that mark for 0.8 W round trips, reno's own sawtooth taking 0.5 W, then passes it at reno's
pace. So such losses are rarer than reno's, and the buffer is rarely full when a deadline packet comes.
Only when loss is several times as frequent as that sawtooth would make it at this window, it can not be
our doing: it is *background*, and costs no more than what stands in the queue. A halving ends that belief.

**Competition.** If five reductions in a row bring the queue down by less than a tenth, it is somebody
else's: the window is restored and grows and halves as reno's for 1 s (then 2, 4, 8), or until the queue
drains. Where packets were lost from a queue far beyond the target, which none of ours lets grow, five
reductions that never empty it suffice: reno takes what is given up. Without such a loss that would be
wrong, as several of ours on a slow link do not always empty the queue either. A route that became longer
looks the same until the base is 5 to 10 s old, and fares no worse.

**Bursts.** aioquic's pacer lets 16 packets go at once, and bursts stay together for ever, acknowledged as
one and sent as one. What an acknowledgement frees beyond eight packets waits for the next one.

Everything is O(1) for each packet and acknowledgement, deterministic, and in bytes and seconds of the
caller's clock. Figures and what falls short: ``docs/decisions/0010-delay-controller.md``.
"""

from collections.abc import Iterable
from math import inf

from aioquic.quic.congestion.base import (
    K_MINIMUM_WINDOW,
    QuicCongestionControl,
    register_congestion_control,
)
from aioquic.quic.packet_builder import QuicSentPacket

from odsi_proto.node.delivery_rounds import DeliveryRounds
from odsi_proto.node.loss_signal import LossSignal
from odsi_proto.node.path_delay import PathDelay

NAME = "delay"

TARGET_S = 0.004
"""Above the peer's acknowledgement delay (1 ms) and an own burst of 16 packets at 100 Mbit/s (1.6 ms);
below CoDel's target of 5 ms, so that CoDel never drops. One packet's own time comes on top."""

CUT = 0.95
"""Of the window without its queue: a little below, so that the queue empties and the base is seen."""

DRAIN = 0.75
"""The same where the base was not seen for a window: below it even if it is a third too high."""

STARTUP_GROWTH = 1 / 3
"""Of what is acknowledged. It is noticed one round trip late that the path is full; doubling would leave a
queue of a whole round trip then, this a third: 7 ms at 20 ms, which a deadline of 30 ms survives and a FIFO
of 10 ms takes. 250 kB are reached after 10 round trips instead of 4."""

STARTUP_TARGETS = 1 / 3
"""Part of the target that ends startup: above the spread of a quiet path, and early enough."""

QUIET_ROUNDS = 3
QUIET_S = TARGET_S / 4
STEP_WINDOWS_MAX = 1 / 16
"""Two round trips pass until a queue is seen: an eighth of the window at most is too much then."""

FUTILE_CUTS = 5
FUTILE_PART = 0.9
FUTILE_PACKETS_MIN = 8
"""Smaller windows may be those of several of our own flows on a slow link, which can not cut further."""

FULL_S = 30.0
"""Longer than a sawtooth of reno: 300 round trips of 60 ms at 100 Mbit/s and 40 ms of queue."""

COMPETE_S_MIN, COMPETE_S_MAX = 1.0, 8.0

HALF = 0.5
SOFT_CUT = 0.85
NEAR = 0.93
PASSED = 1.05
WAIT_STEP_PACKETS = 0.1
WAIT_STEP_WINDOWS = 2.0
"""The step from 0.85 to 0.93 of the mark: a tenth of a packet a round trip, more at small windows, where
0.8 W round trips would be few anyway."""

SPREAD_FREE_S = 0.001
SPREAD_FACTOR = 8
"""What spreads by 1 ms is acknowledgement delay. Beyond, the target rises: packets keep their order, so the
few samples of a quarter round trip are alike, and their mean spread is an eighth of what delay varies by."""

BURST_PACKETS = 8


class DelayCongestionControl(QuicCongestionControl):
    """See the module. Called as aioquic 1.7.2 does: packets, then the sample, then losses."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._packet_bytes = max_datagram_size
        self._floor_bytes = K_MINIMUM_WINDOW * max_datagram_size
        self._path = PathDelay()
        self.target_s = TARGET_S
        """The queue that is too long; more for who is to give way last at a shared bottleneck."""
        self._window_bytes = float(self.congestion_window)
        """What is aimed at; ``congestion_window`` follows in whole packets, since aioquic would fill the
        rest of the window with packets of a few bytes."""

        # Since the last sample.
        self._acked_bytes = 0
        self._acked_sent_s = 0.0
        """When the last acknowledged packet was sent."""
        self._held_bytes = 0

        # A reduction on its way.
        self._reduced_s = -inf
        """Packets sent later count as new; infinite during a reduction."""
        self._shown_bytes = self._window_bytes
        self._reduction = 0.0
        """Part of what is acknowledged that is not sent again; 0 when no reduction is on its way."""

        # Growth.
        self._rounds = DeliveryRounds()
        self._is_quiet = True
        self._quiet_rounds = 0
        self._step_packets = 1.0

        # Competition.
        self._full_until_s = -inf
        """Until then a loss from a queue beyond the target is remembered: somebody fills it."""
        self._cuts = 0
        self._cuts_queue_s = 0.0
        self._cuts_window_bytes = 0.0
        self._is_competing = False
        self._compete_until_s = 0.0
        self._compete_s = COMPETE_S_MIN

        # Loss.
        self._losses = LossSignal(max_datagram_size)
        self._mark_bytes = inf
        """The window at which loss began."""
        self._is_mark_hard = False

    @property
    def queue_delay_s(self) -> float:
        """How long packets wait in the bottleneck, as far as can be seen."""
        return self._path.queue_s

    @property
    def base_rtt_s(self) -> float:
        """The round trip without queue; infinite before there is a sample."""
        return self._path.base_s

    @property
    def rate_bytes_s(self) -> float:
        """What rounds that used the window delivered; the window's own rate before, 0 at first."""
        rate_bytes_s = self._rounds.rate_bytes_s
        if rate_bytes_s or self._path.standing_s == inf:
            return rate_bytes_s
        return self._window_bytes / self._path.standing_s

    @property
    def mode(self) -> str:
        """``startup``, ``steady`` or ``competing``."""
        if self._is_competing:
            return "competing"
        return "startup" if self.ssthresh is None else "steady"

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """A packet is in flight."""
        self.bytes_in_flight += packet.sent_bytes

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """A packet has arrived; all else waits for the sample that follows the last of them."""
        sent_bytes = packet.sent_bytes
        self.bytes_in_flight -= sent_bytes
        self._acked_bytes += sent_bytes
        self._acked_sent_s = packet.sent_time  # type: ignore[assignment]  # it was sent

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """A probe time-out gave packets up: no congestion."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_persistent_congestion(self) -> None:
        """The least window, and startup's growth up to where loss had put it (RFC 9002 section 7.6)."""
        self._window_bytes = self._floor_bytes
        self._reduction = 0.0
        self._held_bytes = 0
        self._reduced_s = -inf
        self._publish()

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """One acknowledgement is taken in: estimate, then cut or grow."""
        path, rounds = self._path, self._rounds
        acked_bytes, self._acked_bytes = self._acked_bytes, 0
        if path.add(now, rtt):
            rounds.forget_best()
        if path.queue_s > QUIET_S:
            self._is_quiet = False
        if rounds.add(
            now,
            acked_bytes=acked_bytes,
            sent_s=self._acked_sent_s,
            flight_bytes=self.bytes_in_flight + acked_bytes,
            window_bytes=self.congestion_window,
        ):
            self._end_round()
        if not self._losses.is_silent:
            # Seen from a window that losses have made small, losses are as rare as its own would be.
            self._losses.acked(acked_bytes, max(self._window_bytes, rounds.best_bytes_s * path.base_s))
        if acked_bytes + self._held_bytes > BURST_PACKETS * self._packet_bytes or self._held_bytes:
            self._hold(acked_bytes)
        if self._reduction:
            self._go_on_reducing(now, acked_bytes)
        elif rounds.is_limited and self._acked_sent_s > self._reduced_s:
            self._steer(now, acked_bytes)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Losses were declared."""
        lost_bytes = new_bytes = 0
        for packet in packets:
            lost_bytes += packet.sent_bytes
            if packet.sent_time > self._reduced_s:  # type: ignore[operator]  # it was sent
                new_bytes += packet.sent_bytes
        self.bytes_in_flight -= lost_bytes
        if self._path.queue_s > 2 * TARGET_S:
            self._full_until_s = now + FULL_S
        window_bytes = self._window_bytes
        is_startup = self._is_startup()
        # In startup the packets that were lost left one round trip ago, at a smaller window.
        at_bytes = window_bytes / (1 + STARTUP_GROWTH) if is_startup else window_bytes
        excess = self._losses.lost(lost_bytes, window_bytes, is_startup=is_startup)
        if excess > 0.5:
            self._quiet_rounds, self._step_packets = 0, 1.0
        is_softly_cut = self._reduction > 0 and not self._is_mark_hard
        if excess > 1 and (new_bytes or is_softly_cut):
            if new_bytes:
                self._mark_bytes = at_bytes
            self._losses.disbelieve()
            self._halve(now, is_startup)
        elif new_bytes:
            self._single_loss(now, at_bytes, new_bytes, is_startup)

    def _halve(self, now: float, is_startup: bool) -> None:
        window_bytes = self._window_bytes
        if is_startup:
            # Far above a policer's rate half would be lost again and again; a round shows the rate.
            to_bytes = min(HALF * window_bytes, max(self._rounds.delivered_bytes, window_bytes / 8))
        else:
            to_bytes = min(window_bytes, HALF * self._mark_bytes)
        self._is_mark_hard = True
        self._reduce(now, to_bytes, at_once=True)

    def _single_loss(self, now: float, at_bytes: float, new_bytes: int, is_startup: bool) -> None:
        """Loss below the threshold: the end of a shallow buffer, or background."""
        is_background = is_startup or self._losses.is_background
        self._losses.event(new_bytes / self._packet_bytes if is_background else 1.0)
        path = self._path
        if not is_background:
            self._mark_bytes = at_bytes
            self._is_mark_hard = self._is_competing
            self._reduce(now, at_bytes * (HALF if self._is_competing else SOFT_CUT))
        elif path.queue_s > self.target_s / 2 and not self._is_competing and not is_startup:
            self._reduce(now, at_bytes * path.base_s / path.standing_s)

    def _is_startup(self) -> bool:
        return self.ssthresh is None or self._window_bytes < self.ssthresh

    def _end_round(self) -> None:
        """Step further after rounds that showed no queue at all."""
        if self._is_quiet and self._rounds.is_limited:
            self._quiet_rounds += 1
            if self._quiet_rounds > QUIET_ROUNDS:
                most_packets = self._window_bytes * STEP_WINDOWS_MAX / self._packet_bytes
                self._step_packets = max(1.0, min(2 * self._step_packets, most_packets))
        else:
            self._quiet_rounds, self._step_packets = 0, 1.0
        self._is_quiet = True

    def _steer(self, now: float, acked_bytes: int) -> None:
        """Outside a reduction, in a round that used the window: what the queue asks for."""
        path, window_bytes = self._path, self._window_bytes
        if self._is_competing and not self._ends_competing(now):
            self._window_bytes += self._packet_bytes * acked_bytes / window_bytes
            self._publish()
            return
        target_s = self._target_s()
        queue_s = path.queue_s
        if queue_s > STARTUP_TARGETS * target_s and self._is_startup():
            self._reduce(now, window_bytes / (1 + STARTUP_GROWTH) * path.base_s / path.standing_s)
        elif queue_s > target_s:
            self._cut(now)
        elif path.is_stale:
            path.is_stale = False
            drained_bytes = window_bytes * path.base_s / path.standing_s
            self._reduce(now, DRAIN * drained_bytes)
            self.ssthresh = int(CUT * drained_bytes)  # and back at startup's pace
        else:
            if queue_s < QUIET_S or now > self._full_until_s:
                self._cuts = 0
            self._grow(acked_bytes)

    def _target_s(self) -> float:
        pace_s = self._packet_bytes / self._rounds.best_bytes_s
        spread_s = self._path.spread_s - SPREAD_FREE_S - pace_s
        return self.target_s + pace_s + (SPREAD_FACTOR * spread_s if spread_s > 0 else 0.0)

    def _cut(self, now: float) -> None:
        """Give back the queue, unless that was of no use several times."""
        path = self._path
        has_fallen = path.queue_s < FUTILE_PART * self._cuts_queue_s and now > self._full_until_s
        if self._cuts == 0 or has_fallen:
            self._cuts = 0
            self._cuts_queue_s, self._cuts_window_bytes = path.queue_s, self._window_bytes
        self._cuts += 1
        has_share = self._cuts_window_bytes >= FUTILE_PACKETS_MIN * self._packet_bytes
        if self._cuts > FUTILE_CUTS and has_share:
            self._is_competing = True
            self._compete_until_s = now + self._compete_s
            self._window_bytes = max(self._window_bytes, self._cuts_window_bytes)
            self._publish()
        else:
            self._reduce(now, CUT * self._window_bytes * path.base_s / path.standing_s)

    def _ends_competing(self, now: float) -> bool:
        if self._path.queue_s < self.target_s / 2:
            self._compete_s = COMPETE_S_MIN
        elif now > self._compete_until_s:
            self._compete_s = min(COMPETE_S_MAX, 2 * self._compete_s)
        else:
            return False
        self._is_competing = False
        self._cuts = 0
        return True

    def _grow(self, acked_bytes: int) -> None:
        window_bytes, mark_bytes, packet_bytes = self._window_bytes, self._mark_bytes, self._packet_bytes
        if self._is_startup():
            self._window_bytes += STARTUP_GROWTH * acked_bytes
        else:
            step_packets = self._step_packets
            if window_bytes > PASSED * mark_bytes:
                self._mark_bytes = inf
                self._step_packets = 1.0
            elif mark_bytes < inf and not self._losses.is_background:
                step_packets = 1.0
                if SOFT_CUT <= window_bytes / mark_bytes < NEAR and not self._is_mark_hard:
                    step_packets = max(WAIT_STEP_PACKETS, WAIT_STEP_WINDOWS * packet_bytes / window_bytes)
            self._window_bytes += step_packets * packet_bytes * acked_bytes / window_bytes
        self._publish()

    def _reduce(self, now: float, window_bytes: float, *, at_once: bool = False) -> None:
        """Begin a reduction to a window; one that is made at once is over with it."""
        self._window_bytes = max(self._floor_bytes, window_bytes)
        self.ssthresh = int(self._window_bytes)
        # What is in flight bounds it: after many losses less is sent, not the lost amount again.
        shown_bytes = 0.0 if at_once else min(self._shown_bytes, self.bytes_in_flight)
        self._shown_bytes = max(self._window_bytes, shown_bytes)
        self._reduction = max(0.0, 1 - self._window_bytes / self._shown_bytes)
        self._reduced_s = inf if self._reduction else now
        self._quiet_rounds, self._step_packets = 0, 1.0
        self._publish()

    def _go_on_reducing(self, now: float, acked_bytes: int) -> None:
        self._shown_bytes -= self._reduction * acked_bytes
        if self._shown_bytes <= self._window_bytes or self.bytes_in_flight < self._window_bytes:
            self._reduction = 0.0
            self._reduced_s = now
        self._publish()

    def _hold(self, acked_bytes: int) -> None:
        """Let eight packets or half of what waits go, while enough is in flight to release the rest."""
        held_bytes = self._held_bytes + acked_bytes
        held_bytes -= max(BURST_PACKETS * self._packet_bytes, held_bytes >> 1)
        self._held_bytes = max(0, min(held_bytes, self.bytes_in_flight >> 1))
        self._publish()

    def _publish(self) -> None:
        if not self._reduction:
            self._shown_bytes = self._window_bytes
        packet_bytes = self._packet_bytes
        self.congestion_window = int((self._shown_bytes - self._held_bytes) / packet_bytes) * packet_bytes


register_congestion_control(NAME, DelayCongestionControl)
