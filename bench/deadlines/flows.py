"""Congestion controllers over one bottleneck, packet by packet, without connections.

Drives controller objects (ours, and aioquic's reno and cubic) as ``aioquic.quic.recovery`` and
``connection`` of aioquic 1.7.2 do, in virtual time and without QUIC itself: some 10^5 packets a second.

What is kept of aioquic: the peer acknowledges 1 ms after the first packet that it has not acknowledged;
one RTT sample for each acknowledgement, peer's delay included; losses by packet threshold 3 and time
threshold 9/8; probe time-outs with back-off, that retransmit without a congestion event; persistent
congestion; the pacer with its bucket; packets cut to what is left of the window. The bottleneck is the
sender's uplink, so one delay follows it, and packets keep their order.

A flow sends messages by their deadline first (they all have the same, so in order), then bulk.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf

from aioquic.quic.congestion import cubic, reno  # noqa: F401  # they register themselves
from aioquic.quic.congestion.base import QuicCongestionControl, create_congestion_control

from bench.deadlines.bottleneck import Bottleneck, Path

PACKET_BYTES = 1232
"""As ``odsi_proto.node.quic``."""

ACK_DELAY_S = 0.001
MAX_ACK_DELAY_S = 0.025
RUNT_BYTES_MIN = 32
"""Short header, stream frame header, tag: what is left of a window below it carries nothing."""

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
        self.packet_time: float | None = None
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
        if not source.start_s <= now < source.stop_s:
            return False
        if source.bulk_on_s == inf:
            return True
        return (now - source.start_s) % (source.bulk_on_s + source.bulk_off_s) < source.bulk_on_s

    def next_bulk(self, now: float) -> float:
        """When there is bulk again, of a source that takes turns."""
        turn = self.source.bulk_on_s + self.source.bulk_off_s
        return now + turn - (now - self.source.start_s) % turn + EPSILON_S

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


_ACK, _WAKE, _TIMER, _MESSAGE, _SAMPLE = range(5)


class Simulation:
    """Flows over one bottleneck, until a time."""

    def __init__(
        self, path: Path, sources: Sequence[Source], *, seed: int = 1, sample_s: float = 0.1
    ) -> None:
        self.link = Bottleneck(path, random.Random(seed))
        self.flows = [Flow(source) for source in sources]
        self._sample_s = sample_s
        self._order = count()
        self._events: list[tuple[float, int, int, Flow, float]] = []
        for flow in self.flows:
            source = flow.source
            if source.bulk:
                self._wake(flow, source.start_s)
            if source.message_bytes:
                self._push(source.start_s + source.period_s, _MESSAGE, flow)
            self._push(source.start_s + sample_s, _SAMPLE, flow)

    def run(self, until_s: float) -> list[FlowResult]:
        """Go on until ``until_s``, and say what each flow has got by then."""
        events = self._events
        while events and events[0][0] <= until_s:
            now, _, kind, flow, value = heappop(events)
            if kind == _ACK:
                self._acked(flow, now, value)
            elif kind == _WAKE:
                if flow.wake_at != now:
                    continue  # another time took its place
                flow.wake_at = inf
            elif kind == _TIMER:
                self._timer(flow, now)
            elif kind == _MESSAGE:
                self._message(flow, now)
            else:
                self._sample(flow, now)
                continue
            self._send(flow, now)
        for flow in self.flows:
            flow.judge(until_s)
        return [flow.result for flow in self.flows]

    def _push(self, at: float, kind: int, flow: Flow, value: float = 0.0) -> None:
        heappush(self._events, (at, next(self._order), kind, flow, value))

    def _wake(self, flow: Flow, at: float) -> None:
        flow.wake_at = at
        heappush(self._events, (at, next(self._order), _WAKE, flow, 0.0))

    def _sample(self, flow: Flow, now: float) -> None:
        cc, result = flow.cc, flow.result
        mode = getattr(cc, "mode", "")
        queue_s = self.link.queue_s(now)
        result.samples.append(Sample(now, queue_s, cc.congestion_window, result.delivered_bytes, mode))
        self._push(now + self._sample_s, _SAMPLE, flow)

    def _message(self, flow: Flow, now: float) -> None:
        source = flow.source
        if now < source.stop_s:
            size = source.message_bytes
            message = Message(now, now + source.deadline_s, size, size)
            flow.messages.append(message)
            flow.unsent.append(message)
            self._push(now + source.period_s, _MESSAGE, flow)

    def _send(self, flow: Flow, now: float) -> None:
        """``QuicConnection.datagrams_to_send``: as much as pacer, window and source allow."""
        cc, source = flow.cc, flow.source
        free = cc.congestion_window - cc.bytes_in_flight
        if flow.probing and free < PACKET_BYTES:
            free = PACKET_BYTES
        has_bulk = source.bulk and flow.has_bulk(now)
        while free >= RUNT_BYTES_MIN:
            if flow.packet_time is not None:
                if now > flow.evaluated:
                    bucket = flow.bucket_time + now - flow.evaluated
                    flow.bucket_time = min(flow.bucket_max, bucket)
                    flow.evaluated = now
                if flow.bucket_time <= 0:
                    if flow.again or flow.unsent or has_bulk or flow.probing:
                        self._wake(flow, now + flow.packet_time)
                    return
            size = min(PACKET_BYTES, free)
            message: Message | None = None
            if flow.again:
                message, size = flow.again[0]
                if size > free:
                    break
                flow.again.popleft()
            elif flow.unsent:
                message = flow.unsent[0]
                if message.unsent_bytes <= size:
                    size = message.unsent_bytes
                    flow.unsent.popleft()
                message.unsent_bytes -= size
            elif not has_bulk and not flow.probing:
                if flow.source.bulk and now < source.stop_s and flow.wake_at == inf:
                    self._wake(flow, flow.next_bulk(now))
                return
            flow.probing = False
            self._put(flow, now, size, message)
            free -= size
            if flow.packet_time is not None:
                left = flow.bucket_time - flow.packet_time
                flow.bucket_time = left if left > 0 else 0.0
        # aioquic forgets a pacing time that no longer holds anything back.
        flow.wake_at = inf

    def _put(self, flow: Flow, now: float, size: int, message: Message | None) -> None:
        flow.number += 1
        packet = Packet(flow.number, now, size, message)
        arrival = self.link.offer(now, size, flow.extra_s)
        if arrival is None:
            flow.dropped.append(packet)
        else:
            packet.arrival = arrival
            flow.coming.append(packet)
            if arrival > flow.ack_due:
                flow.ack_due = due = arrival + ACK_DELAY_S
                self._push(due + self.link.delay_s + flow.extra_s, _ACK, flow, due)
            if message is not None:
                message.missing_bytes -= size
                message.done = max(message.done, arrival)
        flow.result.sent_packets += 1
        flow.last_sent = now
        flow.cc.on_packet_sent(packet=packet)
        if flow.timer_at == inf:
            self._arm(flow, now)

    def _acked(self, flow: Flow, now: float, due: float) -> None:
        """An acknowledgement of all that had arrived at ``due``: ``QuicPacketRecovery.on_ack_received``."""
        coming, acked, packet = flow.coming, flow.cc.on_packet_acked, None
        delivered = 0
        while coming and coming[0].arrival <= due:
            packet = coming.popleft()
            if packet.expired:
                continue
            acked(now=now, packet=packet)
            delivered += packet.sent_bytes
        if packet is None:
            return
        flow.result.delivered_bytes += delivered
        flow.largest = packet.number
        flow.measure(now, now - packet.sent_time, due - packet.arrival)
        flow.pto_count = 0
        self._detect_loss(flow, now)

    def _detect_loss(self, flow: Flow, now: float) -> None:
        flow.loss_time = inf
        if not flow.dropped:
            return
        delay = 1.125 * max(flow.rtt_latest, flow.smoothed)
        number_max, sent_max = flow.largest - 3, now - delay
        lost = []
        dropped = flow.dropped
        while dropped and dropped[0].number < flow.largest:
            packet = dropped[0]
            if packet.number > number_max and packet.sent_time > sent_max:
                flow.loss_time = packet.sent_time + delay
                break
            lost.append(dropped.popleft())
        if not lost:
            return
        flow.result.lost_packets += len(lost)
        flow.send_again(lost)
        flow.cc.on_packets_lost(now=now, packets=lost)
        if flow.is_persistent(lost):
            flow.cc.on_persistent_congestion()
        flow.repace()

    def _arm(self, flow: Flow, now: float) -> None:
        """One timer for each flow, that looks again when it was too early."""
        if flow.loss_time != inf:
            at = flow.loss_time
        elif flow.coming or flow.dropped:
            at = flow.last_sent + flow.probe_timeout() * 2**flow.pto_count
        else:
            return
        flow.timer_at = at = max(at, now + EPSILON_S)
        self._push(at, _TIMER, flow)

    def _timer(self, flow: Flow, now: float) -> None:
        flow.timer_at = inf
        if flow.loss_time <= now:
            self._detect_loss(flow, now)
        elif flow.loss_time == inf and (flow.coming or flow.dropped):
            if flow.last_sent + flow.probe_timeout() * 2**flow.pto_count <= now:
                flow.pto_count += 1
                flow.probe()
        self._arm(flow, now)


def fairness(shares: Sequence[float]) -> float:
    """Jain's index: 1 if all are equal, 1 / n if one has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
