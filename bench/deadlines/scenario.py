"""What is run: a path, the traffic on it and who else uses it. Values only."""

from dataclasses import dataclass, replace
from enum import StrEnum

from bench.deadlines.link import NS_PER_S, Change, LinkConfig
from odsi_proto.errors import ConfigError
from odsi_proto.node.send_queue import DATAGRAM_BYTES

HEADERS_BYTES = 28
"""IPv4 and UDP, which a link carries too."""

PACKET_OVERHEAD_BYTES = 36
"""Of a QUIC datagram full of stream data: short header 11, tag 16, STREAM frame header 9."""

TRAFFIC_S = 1
"""When traffic begins, at the earliest: connections are opened before."""

CODEL_LIMIT_MS = 1000
"""A CoDel queue has room: it is CoDel that keeps it short."""


_LEAST = {
    "rate_mbit": 0.1,
    "rtt_ms": 0.0,
    "depth_ms": 0.0,
    "bulk": 0,
    "size_bytes": 64,
    "period_ms": 0.1,
    "deadline_ms": 0.1,
    "duration_s": 0.1,
    "start_s": 0.0,
    "datagram_bytes": 1200,
}
"""Smallest values that make sense; QUIC has no datagrams below 1,200 bytes."""


class Queue(StrEnum):
    """What stands in front of the bottleneck."""

    FIFO = "fifo"
    CODEL = "codel"
    POLICER = "policer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run, except for the transport."""

    group: str
    rate_mbit: float = 20.0
    rtt_ms: float = 20.0
    queue: Queue = Queue.FIFO
    depth_ms: float = 20.0
    """Of the FIFO, or the burst of a policer, as time at the rate."""
    loss: float = 0.0
    burst_packets: float = 1.0
    jitter_ms: float = 0.0
    reorders: bool = False
    change_at_s: float = 0.0
    """When rate and round trip become what the next two say; 0: they stay."""
    rate_after_mbit: float = 0.0
    rtt_after_ms: float = 0.0
    bulk: int = 16
    """Bulk transfers of the node."""
    elsewhere: int = 0
    """Connections to other peers that bulk is spread over; 0: it shares the activations' connection."""
    competitors: int = 0
    """Other hosts, each with one bulk transfer over stock aioquic, through the same bottleneck."""
    competing: str = "reno"
    size_bytes: int = 8192
    period_ms: float = 20.0
    deadline_ms: float = 30.0
    duration_s: float = 60.0
    start_s: float = 1.0
    """Traffic of this first part is reported by itself: everybody begins with an empty queue."""
    datagram_bytes: int = DATAGRAM_BYTES
    seed: int = 1

    def check(self) -> None:
        """Raise ``ConfigError`` for what can not be simulated."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise ConfigError(f"{name} is {value:g}, expected {least:g} or more")
        if not 0 <= self.start_s < self.duration_s - self.deadline_ms / 1e3:
            raise ConfigError(
                f"a run of {self.duration_s:g} s is too short: its first {self.start_s:g} s and the last "
                "deadline are not judged"
            )

    @property
    def floor_ms(self) -> float:
        """What an activation takes on an empty path, at the rates of the beginning; nothing is faster."""
        full_bytes = self.datagram_bytes - PACKET_OVERHEAD_BYTES
        packets = -(-self.size_bytes // full_bytes)
        link_bytes = self.size_bytes + packets * (PACKET_OVERHEAD_BYTES + HEADERS_BYTES)
        return self.rtt_ms / 2 + link_bytes * 8 / self.rate_mbit / 1e3

    @property
    def peers(self) -> int:
        """Connections of the node."""
        return 1 + self.elsewhere

    @property
    def transfers(self) -> int:
        """Bulk transfers of the node: every connection that is to carry bulk has one."""
        return max(self.bulk, self.elsewhere) if self.bulk else 0

    @property
    def has_loss(self) -> bool:
        """Whether packets are lost that no sender caused."""
        return self.loss > 0

    def label(self) -> str:
        """What differs from one scenario to another, for a row of a table."""
        parts = [f"{self.rate_mbit:g} Mbit/s", f"{self.rtt_ms:g} ms", self._queue_label()]
        if self.loss:
            runs = f" in runs of {self.burst_packets:g}" if self.burst_packets > 1 else ""
            parts.append(f"loss {self.loss:.1%}{runs}")
        if self.jitter_ms:
            parts.append(f"jitter {self.jitter_ms:g} ms" + (" reordering" if self.reorders else ""))
        if self.change_at_s:
            after = f"{self.rate_after_mbit:g} Mbit/s {self.rtt_after_ms:g} ms"
            parts.append(f"from {self.change_at_s:g} s {after}")
        where = f" on {self.elsewhere} other" if self.elsewhere else ""
        parts.append(f"bulk {self.transfers}{where}")
        if self.competitors:
            parts.append(f"against {self.competitors} {self.competing}")
        return ", ".join(parts)

    def _queue_label(self) -> str:
        match self.queue:
            case Queue.FIFO:
                return f"FIFO {self.depth_ms:g} ms"
            case Queue.CODEL:
                return "CoDel"
            case Queue.POLICER:
                return f"policer, burst {self.depth_ms:g} ms"

    def link(self) -> LinkConfig:
        """The direction that the node sends in."""
        rate_bps = _bps(self.rate_mbit)
        depth_ms = CODEL_LIMIT_MS if self.queue is Queue.CODEL else self.depth_ms
        depth_bytes = int(rate_bps * depth_ms / 8000)
        changes: tuple[Change, ...] = ()
        if self.change_at_s:
            changes = (
                Change(
                    at_ns=int((TRAFFIC_S + self.change_at_s) * NS_PER_S),
                    rate_bps=_bps(self.rate_after_mbit),
                    delay_ns=_one_way_ns(self.rtt_after_ms),
                ),
            )
        return LinkConfig(
            rate_bps=rate_bps,
            delay_ns=_one_way_ns(self.rtt_ms),
            depth_bytes=depth_bytes,
            codel=self.queue is Queue.CODEL,
            policer_burst_bytes=depth_bytes if self.queue is Queue.POLICER else None,
            loss=self.loss,
            burst_packets=self.burst_packets,
            jitter_ns=int(self.jitter_ms * 1e6),
            reorders=self.reorders,
            changes=changes,
        )

    def way_back(self) -> LinkConfig:
        """The direction of the acknowledgements: never full, but as lossy and as long."""
        forward = self.link()
        fast_bps = 100 * forward.rate_bps
        return replace(
            forward,
            rate_bps=fast_bps,
            depth_bytes=fast_bps // 8,
            codel=False,
            policer_burst_bytes=None,
            changes=tuple(replace(change, rate_bps=fast_bps) for change in forward.changes),
        )

    @property
    def pipe_bytes(self) -> int:
        """What is always waiting of bulk: twice what queue, path and a lost packet's repair can hold."""
        rate_mbit = max(self.rate_mbit, self.rate_after_mbit)
        held_ms = max(self.rtt_ms, self.rtt_after_ms) + self.depth_ms + self.jitter_ms
        return 2 * int(rate_mbit * 1e3 * held_ms / 8) + (256 << 10)

    def mean_rate_bps(self, from_s: float, to_s: float) -> float:
        """Of the bottleneck, over a part of the run."""
        if not self.change_at_s:
            return self.rate_mbit * 1e6
        before_s = min(max(self.change_at_s - from_s, 0), to_s - from_s)
        after_s = to_s - from_s - before_s
        return 1e6 * (before_s * self.rate_mbit + after_s * self.rate_after_mbit) / (to_s - from_s)

    def bulk_bps_max(self, from_s: float, to_s: float) -> float:
        """Bulk bits per second that fit the link beside the activations, headers and losses taken off."""
        full_bytes = self.datagram_bytes - PACKET_OVERHEAD_BYTES
        packets = -(-self.size_bytes // full_bytes)
        each_bytes = self.size_bytes + packets * (PACKET_OVERHEAD_BYTES + HEADERS_BYTES)
        activations_bps = each_bytes * 8 / (self.period_ms / 1e3)
        rest_bps = self.mean_rate_bps(from_s, to_s) - activations_bps
        return max(0.0, rest_bps * (1 - self.loss) * full_bytes / (self.datagram_bytes + HEADERS_BYTES))


def _bps(rate_mbit: float) -> int:
    return int(rate_mbit * 1e6)


def _one_way_ns(rtt_ms: float) -> int:
    return int(rtt_ms * 1e6 / 2)
