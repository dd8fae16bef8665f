"""One simulated connection: what it has to send, its loss detection and pacer, and what it got.

The estimates and the pacer are those of aioquic 1.7.2, method by method; ``flows`` runs them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from aioquic.quic.congestion import cubic, reno  # noqa: F401  # they register themselves
from aioquic.quic.congestion.base import QuicCongestionControl, create_congestion_control

PACKET_BYTES = 1232
"""As ``odsi_proto.node.quic``."""

MAX_ACK_DELAY_S = 0.025
EPSILON_S = 1e-9


@dataclass(frozen=True, kw_only=True)
class Source:
    """What one connection has to send, and by which controller."""

    controller: str | Callable[[int], QuicCongestionControl] = "delay"
    """A registered name, or what makes one for a datagram size."""
    start_s: float = 0.0
    stop_s: float = inf
    bulk: bool = True
    """Always something to send, from start to stop."""
    bulk_on_s: float = inf
    """Bulk comes in turns: this long something to send ..."""
    bulk_off_s: float = 0.0
    """... then this long nothing."""
    message_bytes: int = 0
    """Size of periodic messages, 0 for none."""
    period_s: float = 0.020
    deadline_s: float = 0.030
    extra_rtt_s: float = 0.0


@dataclass(slots=True, eq=False)
class Message:
    """One message with a deadline: what is unsent, what is not underway, when its last byte comes."""

    born: float
    due: float
    unsent_bytes: int
    missing_bytes: int
    done: float = 0.0
    was_lost: bool = False


class Packet:
    """What controllers see of ``QuicSentPacket``, and its fate."""

    __slots__ = ("arrival", "expired", "message", "number", "sent_bytes", "sent_time")

    def __init__(self, number: int, sent_time: float, sent_bytes: int, message: Message | None) -> None:
        self.number = number
        self.sent_time = sent_time
        self.sent_bytes = sent_bytes
        self.message = message
        self.arrival = inf
        self.expired = False
        """A probe time-out gave it up, though it will arrive."""


@dataclass(slots=True)
class Sample:
    """The state of a flow at one moment."""

    at_s: float
    queue_s: float
    """What a packet would wait in the bottleneck."""
    window_bytes: int
    delivered_bytes: int
    mode: str


@dataclass(slots=True)
class FlowResult:
    """What one flow got."""

    delivered_bytes: int = 0
    sent_packets: int = 0
    lost_packets: int = 0
    latencies_s: list[float] = field(default_factory=list)
    messages: int = 0
    """Due within the run ..."""
    missed: int = 0
    """... and late or never there ..."""
    missed_unlost: int = 0
    """... though none of its packets was lost."""
    samples: list[Sample] = field(default_factory=list)

    def delivered_between(self, start_s: float, end_s: float) -> int:
        """Bytes acknowledged between two times, as exact as the samples are dense."""
        taken = [each.delivered_bytes for each in self.samples if start_s <= each.at_s <= end_s]
        return taken[-1] - taken[0] if taken else 0


class Flow:
    """One connection's sender and its peer."""

    def __init__(self, source: Source) -> None:
        self.source = source
        make = source.controller
        self.cc = (
            create_congestion_control(make, max_datagram_size=PACKET_BYTES)
            if isinstance(make, str)
            else make(PACKET_BYTES)
        )
        self.extra_s = source.extra_rtt_s / 2
        self.result = FlowResult()
        self.coming: deque[Packet] = deque()
        """In flight, and will arrive."""
        self.dropped: deque[Packet] = deque()
        """In flight for all that the sender knows."""
        self.messages: deque[Message] = deque()
        self.unsent: deque[Message] = deque()
        self.again: deque[tuple[Message, int]] = deque()
        self.number = self.largest = -1
        self.ack_due = -1.0
        self.timer_at = self.wake_at = self.loss_time = inf
        self.last_sent = 0.0
        self.probing = False
        self.pto_count = 0
        self.smoothed = self.variance = self.rtt_latest = self.first_sample = 0.0
        self.rtt_min = inf
        self.packet_time = 0.0
        """0 before the first sample, when nothing is paced."""
        self.bucket_max = self.bucket_time = self.evaluated = 0.0

    def repace(self) -> None:
        """``QuicPacketPacer.update_rate``."""
        if self.smoothed == 0.0:
            return
        window = self.cc.congestion_window
        rate = window / max(self.smoothed, 1e-6)
        self.packet_time = max(1e-6, min(PACKET_BYTES / rate, 1.0))
        self.bucket_max = max(2 * PACKET_BYTES, min(window // 4, 16 * PACKET_BYTES)) / rate
        self.bucket_time = min(self.bucket_time, self.bucket_max)

    def is_paced(self, now: float) -> bool:
        """``QuicPacketPacer.next_send_time``: whether the next packet has to wait."""
        if not self.packet_time:
            return False
        if now > self.evaluated:
            self.bucket_time = min(self.bucket_time + now - self.evaluated, self.bucket_max)
            self.evaluated = now
        return self.bucket_time <= 0

    def spend(self) -> None:
        """``QuicPacketPacer.update_after_send``."""
        self.bucket_time = max(0.0, self.bucket_time - self.packet_time)

    def next_payload(self, room_bytes: int) -> tuple[int, Message | None]:
        """What the next packet of at most so many bytes carries: lost parts, then messages, then bulk."""
        if self.again:
            message, size = self.again[0]
            return size, message
        if self.unsent:
            message = self.unsent[0]
            return min(room_bytes, message.unsent_bytes), message
        return room_bytes, None

    def take(self, message: Message, size: int) -> None:
        """Those bytes are sent."""
        if self.again:
            self.again.popleft()
            return
        message.unsent_bytes -= size
        if not message.unsent_bytes:
            self.unsent.popleft()

    def measure(self, now: float, rtt: float, ack_delay: float) -> None:
        """The estimates of ``QuicPacketRecovery.on_ack_received``."""
        latest = max(0.001, rtt)
        self.rtt_min = min(self.rtt_min, latest)
        if latest > self.rtt_min + ack_delay:
            latest -= ack_delay
        self.rtt_latest = latest
        if self.smoothed == 0.0:
            self.first_sample = now
            self.variance, self.smoothed = rtt / 2, rtt
        else:
            self.variance = 0.75 * self.variance + 0.25 * abs(self.rtt_min - latest)
            self.smoothed = 0.875 * self.smoothed + 0.125 * latest
        self.cc.on_rtt_measurement(now=now, rtt=rtt)
        self.repace()

    def probe_timeout(self) -> float:
        """How long after the last packet a probe follows, without back-off."""
        if self.smoothed == 0.0:
            return 0.2
        return self.smoothed + max(4 * self.variance, 0.001) + MAX_ACK_DELAY_S

    def probe_at(self) -> float:
        """When a probe follows, if nothing is acknowledged before."""
        return self.last_sent + self.probe_timeout() * 2.0**self.pto_count

    def is_overdue(self, now: float) -> bool:
        """Whether it is time for a probe."""
        return bool(self.coming or self.dropped) and self.probe_at() <= now

    def is_persistent(self, lost: Sequence[Packet]) -> bool:
        """Whether these losses are persistent congestion (RFC 9002 section 7.6.2)."""
        duration = 3 * self.probe_timeout()
        start, previous = None, None
        for packet in lost:
            if packet.number - 1 != previous:
                start = None
            previous = packet.number
            if packet.sent_time > self.first_sample:
                if start is None:
                    start = packet.sent_time
                elif packet.sent_time - start > duration:
                    return True
        return False

    def send_again(self, lost: Sequence[Packet]) -> None:
        """Queue what lost packets carried of messages; bulk has enough to send anyhow."""
        for packet in lost:
            if packet.message is not None:
                packet.message.was_lost = True
                self.again.append((packet.message, packet.sent_bytes))

    def probe(self) -> None:
        """Give up the oldest packet without a congestion event, and send one beyond the window."""
        oldest = self.dropped[0] if self.dropped else None
        if oldest is not None and (not self.coming or oldest.number < self.coming[0].number):
            self.dropped.popleft()
            self.send_again([oldest])
        else:
            live = next((packet for packet in self.coming if not packet.expired), None)
            if live is None:
                return
            live.expired = True
            oldest = live
        self.cc.on_packets_expired(packets=[oldest])
        self.probing = True

    def has_bulk(self, now: float) -> bool:
        """Whether there is bulk to send."""
        source = self.source
        if not source.bulk or not source.start_s <= now < source.stop_s:
            return False
        if source.bulk_on_s == inf:
            return True
        return (now - source.start_s) % (source.bulk_on_s + source.bulk_off_s) < source.bulk_on_s

    def next_bulk(self, now: float) -> float | None:
        """When there is bulk again, of a source that takes turns."""
        source = self.source
        if not source.bulk or now >= source.stop_s:
            return None
        turn = source.bulk_on_s + source.bulk_off_s
        return now + turn - (now - source.start_s) % turn + EPSILON_S

    def judge(self, now: float) -> None:
        """Move what is due by now from messages to the result."""
        result = self.result
        while self.messages and self.messages[0].due <= now:
            message = self.messages.popleft()
            result.messages += 1
            arrived = message.missing_bytes == 0
            if arrived:
                result.latencies_s.append(message.done - message.born)
            if not arrived or message.done > message.due:
                result.missed += 1
                result.missed_unlost += not message.was_lost
