"""The simulated link in real time: IP packets from one TUN device to another, late, dropped, in order.

Whatever the packets carry, QUIC over UDP or TCP, meets the same queue, rate and losses, and TCP's own
recovery and congestion control are the kernel's.
"""

import os
import select
import time
from collections.abc import Callable, Sequence

from bench.deadlines.link import NS_PER_S, Link

_READS_MAX = 64
"""Packets taken from a device before the other one and what is due get their turn."""
_PACKET_BYTES_MAX = 65_536
_IPV4 = 4
QUEUE_PERIOD_NS = 10_000_000


class Relay:
    """Carries packets between two devices, and says how well it kept up."""

    def __init__(self, forward: Link, back: Link) -> None:
        self.forward = forward
        self.packets = self.dropped = 0
        """Offered to the forward link, and dropped there."""
        self.late_ns: list[int] = []
        """By how much each delivery was later than the link says."""
        self.queued_bytes: list[int] = []
        """In front of the bottleneck, seen every :data:`QUEUE_PERIOD_NS` or when the relay next woke."""
        self._back = back
        self._look_ns = 0

    def run(
        self,
        sender_tun: int,
        receiver_tun: int,
        channels: Sequence[int],
        is_done: Callable[[list[int]], bool],
    ) -> None:
        """Carry until ``is_done``, which is given those of the channels that can be read."""
        ways = ((sender_tun, receiver_tun, self.forward), (receiver_tun, sender_tun, self._back))
        files = [sender_tun, receiver_tun, *channels]
        while True:
            for _, target, link in ways:
                self._deliver(target, link)
            times_ns = [link.next_ns for _, _, link in ways if link.next_ns is not None]
            wait_s = max(0.0, (min(times_ns) - time.monotonic_ns()) / NS_PER_S) if times_ns else None
            ready, _, _ = select.select(files, [], [], wait_s)
            now_ns = time.monotonic_ns()
            for source, _, link in ways:
                if source in ready:
                    self._take(source, link, now_ns)
            if now_ns >= self._look_ns:
                self.queued_bytes.append(self.forward.queued_bytes(now_ns))
                self._look_ns = now_ns + QUEUE_PERIOD_NS
            readable = [channel for channel in channels if channel in ready]
            if readable and is_done(readable):
                return

    def _take(self, source: int, link: Link, now_ns: int) -> None:
        for _ in range(_READS_MAX):
            try:
                packet = os.read(source, _PACKET_BYTES_MAX)
            except BlockingIOError:
                break
            if packet[0] >> 4 == _IPV4:
                link.offer(now_ns, len(packet), packet)
                self.packets += link is self.forward

    def _deliver(self, target: int, link: Link) -> None:
        now_ns, due_ns = time.monotonic_ns(), link.next_ns
        if due_ns is not None and due_ns <= now_ns:
            for packet in link.take(now_ns):
                os.write(target, packet)
            self.late_ns.append(now_ns - due_ns)
        if link is self.forward:
            self.dropped += len(link.dropped)
        link.dropped.clear()
