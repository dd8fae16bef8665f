"""Runs in real time: two processes and the relay between them, contenders in turn."""

import math
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from os import close
from typing import Any, NamedTuple

from bench.deadlines.link import Link
from bench.deadlines.measures import quantile
from bench.deadlines.realtime.channel import Channel
from bench.deadlines.realtime.judge import Judged, judge
from bench.deadlines.realtime.relay import Relay
from bench.deadlines.scenario import HEADERS_BYTES, Scenario

SILENCE_S_MAX = 30.0
"""A process that says nothing for so long, the run's own time aside, is given up."""


class Contender(NamedTuple):
    """A transport in real time."""

    title: str
    kind: str
    """Of :data:`bench.deadlines.realtime.endpoint.KINDS`."""
    congestion: str
    """Of QUIC in this process, or of the kernel's TCP."""
    tcp_unsent_bytes: int | None = None
    """What may wait in a TCP socket unsent; None: what the kernel thinks fit, some megabytes."""

    @property
    def is_quic(self) -> bool:
        """Whether the controller is aioquic's business."""
        return not self.kind.startswith("grpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealOutcome:
    """What a run in real time showed, its first part left out."""

    activations: int
    misses: int
    undelivered: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    bulk_mbit: float
    bulk_share: float
    packets: int
    dropped_packets: int
    queue_p50_ms: float
    queue_p99_ms: float
    relay_late_p99_ms: float
    """By how much the relay was behind: what is wrong with every latency of the run."""

    @property
    def miss_rate(self) -> float:
        """Part of the activations that were not there in time."""
        return self.misses / self.activations if self.activations else math.nan


def run_once(scenario: Scenario, contender: Contender) -> RealOutcome:
    """One run; raises ``ConfigError`` where it can not be done."""
    with ExitStack() as stack:
        receiver = _start(stack, "receiver", scenario, contender)
        sender = _start(stack, "sender", scenario, contender)
        sender_tun, receiver_tun = sender.receive_file(), receiver.receive_file()
        stack.callback(close, sender_tun)
        stack.callback(close, receiver_tun)
        # The links' time is the clock's; what changes in the middle of a run is not done here.
        seed = str(scenario.seed)
        relay = Relay(Link(scenario.link(), f"{seed}/forward"), Link(scenario.way_back(), f"{seed}/back"))

        def carry_until_heard(child: Channel) -> dict[str, Any]:
            relay.run(sender_tun, receiver_tun, [child.fileno()], lambda _: True)
            return child.hear()

        carry_until_heard(receiver)
        sender.tell(go="connect")
        carry_until_heard(sender)
        relay.packets = relay.dropped = 0
        relay.late_ns.clear()
        relay.queued_bytes.clear()
        sender.tell(go="send")
        sent = carry_until_heard(sender)
        receiver.tell(go="report")
        heard = carry_until_heard(receiver)
        return _outcome(
            scenario, judge(scenario, sent["sent_ns"], heard["at_ns"], heard["bulk_bytes"]), relay
        )


def _start(stack: ExitStack, role: str, scenario: Scenario, contender: Contender) -> Channel:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "bench.deadlines.realtime.endpoint", str(theirs.fileno())]
        child = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    stack.callback(_end, child)
    channel = Channel(ours)
    stack.callback(channel.close)
    channel.tell(
        role=role,
        kind=contender.kind,
        congestion=contender.congestion,
        tcp_congestion="reno" if contender.is_quic else contender.congestion,
        tcp_unsent_bytes=contender.tcp_unsent_bytes,
        mtu_bytes=scenario.datagram_bytes + HEADERS_BYTES,
        transfers=scenario.transfers,
        elsewhere=scenario.elsewhere,
        duration_s=scenario.duration_s,
        size_bytes=scenario.size_bytes,
        period_ms=scenario.period_ms,
        deadline_ms=scenario.deadline_ms,
    )
    return channel


def _end(child: "subprocess.Popen[bytes]") -> None:
    """The socket is closed: the child ends by itself, or is ended."""
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _outcome(scenario: Scenario, judged: Judged, relay: Relay) -> RealOutcome:
    bps_max = scenario.bulk_bps_max(scenario.start_s, scenario.duration_s)
    queued_ms = sorted(size_bytes * 8 / scenario.rate_mbit / 1e3 for size_bytes in relay.queued_bytes)
    return RealOutcome(
        activations=judged.activations,
        misses=judged.misses,
        undelivered=judged.undelivered,
        p50_ms=quantile(judged.latencies_ms, 0.5),
        p99_ms=quantile(judged.latencies_ms, 0.99),
        max_ms=quantile(judged.latencies_ms, 1.0),
        bulk_mbit=judged.bulk_mbit,
        bulk_share=judged.bulk_mbit * 1e6 / bps_max if bps_max else 0.0,
        packets=relay.packets,
        dropped_packets=relay.dropped,
        queue_p50_ms=quantile(queued_ms, 0.5),
        queue_p99_ms=quantile(queued_ms, 0.99),
        relay_late_p99_ms=quantile(sorted(late_ns / 1e6 for late_ns in relay.late_ns), 0.99),
    )
