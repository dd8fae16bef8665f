"""Congestion controllers over one bottleneck, packet by packet, without connections.

Drives controller objects, ours and those of aioquic, as ``aioquic.quic.recovery`` and ``connection`` of
aioquic 1.7.2 do, in virtual time and without QUIC itself: some 10^5 packets in a second, so that minutes of
many flows can be tried. What is kept of aioquic:

- the peer acknowledges 1 ms after the first packet that it has not acknowledged, all it has by then;
- one sample for each acknowledgement, with the peer's delay in it, after the packets and before losses;
- losses by packet threshold 3 and time threshold 9/8, persistent congestion, probe time-outs that
  retransmit without a congestion event;
- the pacer with its bucket, and packets cut to what is left of the window.

The bottleneck is the sender's uplink; packets keep their order. A flow sends messages with deadlines
before bulk, as a send queue by deadline does.
"""

import random
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

from bench.deadlines.bottleneck import Bottleneck, Path
from bench.deadlines.flow import EPSILON_S, PACKET_BYTES, Flow, FlowResult, Message, Packet, Sample, Source

ACK_DELAY_S = 0.001
RUNT_BYTES_MIN = 32
"""Short header, stream frame header, tag: what is left of a window below it carries nothing."""

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
        cc = flow.cc
        free = cc.congestion_window - cc.bytes_in_flight
        if flow.probing and free < PACKET_BYTES:
            free = PACKET_BYTES
        has_bulk = flow.has_bulk(now)
        while free >= RUNT_BYTES_MIN:
            if flow.is_paced(now):
                if flow.again or flow.unsent or has_bulk or flow.probing:
                    self._wake(flow, now + flow.packet_time)
                return
            size, message = flow.next_payload(min(PACKET_BYTES, free))
            if size > free:
                break
            if message is None and not has_bulk and not flow.probing:
                if flow.wake_at == inf and (at := flow.next_bulk(now)) is not None:
                    self._wake(flow, at)
                return
            if message is not None:
                flow.take(message, size)
            flow.probing = False
            self._put(flow, now, size, message)
            free -= size
            flow.spend()
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
            at = flow.probe_at()
        else:
            return
        flow.timer_at = at = max(at, now + EPSILON_S)
        self._push(at, _TIMER, flow)

    def _timer(self, flow: Flow, now: float) -> None:
        flow.timer_at = inf
        if flow.loss_time <= now:
            self._detect_loss(flow, now)
        elif flow.loss_time == inf and flow.is_overdue(now):
            flow.pto_count += 1
            flow.probe()
        self._arm(flow, now)


def fairness(shares: Sequence[float]) -> float:
    """Jain's index: 1 if all are equal, 1 / n if one has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
