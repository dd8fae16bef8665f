"""A node's whole state at one moment, put together from its parts; and the tick behind its history.

Runs in the event loop's thread: some tens of microseconds and a few for each connection.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from math import isinf
from typing import NamedTuple

from odsi_proto import __version__
from odsi_proto.kernels.cache import BLOCK_POSITIONS
from odsi_proto.node.driver import Driver, now_us
from odsi_proto.node.execution import ExecutionQueue, QueueSnapshot
from odsi_proto.node.histogram import BATCH_BOUNDS, Buckets, Histogram
from odsi_proto.node.observe import HISTORY_INTERVAL_US, Observer
from odsi_proto.node.send_queue import Message
from odsi_proto.node.snapshots import LinkSnapshot, waiting_of
from odsi_proto.node.status import LISTED_MAX, ConnectionStatus, NodeStatus, WaitingMessage
from odsi_proto.units import ConnectionId, ParticipantId
from odsi_proto.wire.identity import participant_text


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change while a node runs."""

    participant: ParticipantId
    host: str
    port: int
    model: str
    model_root: bytes
    layers: str
    profile: str
    backend: str


class Snapshot(NamedTuple):
    """The status, and beside it what only ``/metrics`` has."""

    status: NodeStatus
    queue_us: Buckets
    compute_us: Buckets
    transfer_us: Buckets
    coordination_us: Buckets
    slack_us: Buckets
    batches: Buckets
    """Steps that were computed together."""
    pieces: Mapping[str, int]
    """Pieces of compute, by where they ran: ``loop`` or ``worker``."""
    cuts: int
    """Pieces that left a rest of their step."""
    set_aside: int
    """Times that a step was put behind those that could be in time."""
    deviations: Mapping[str, int]
    """Steps that were not as planned, by how."""
    closes: Mapping[str, int]
    positions: int
    kv_block_bytes: int


class Vitals:
    """Reads a running node."""

    def __init__(
        self, facts: NodeFacts, *, observer: Observer, driver: Driver, execution: ExecutionQueue
    ) -> None:
        self._facts = facts
        self._observer = observer
        self._driver = driver
        self._execution = execution
        self._loop = asyncio.get_running_loop()
        self._tick: asyncio.TimerHandle | None = None
        self._bytes: dict[ConnectionId, tuple[int, int]] = {}
        """Sent and received by each connection at the last tick."""
        self._rates: dict[ConnectionId, tuple[int, int]] = {}
        """Bytes sent and received in the last interval."""
        self._ticked_us = now_us()

    def start(self) -> None:
        """Sample from now on, until :meth:`stop`."""
        self._tick = self._loop.call_later(HISTORY_INTERVAL_US / 1e6, self._sample)

    def stop(self) -> None:
        """No further sample is taken."""
        if self._tick is not None:
            self._tick.cancel()

    def snapshot(self) -> Snapshot:
        """Everything, now."""
        seen, queue = self._observer, self._execution.snapshot()
        block_bytes = self._execution.engine.kv_bytes(BLOCK_POSITIONS)
        return Snapshot(
            status=self._status(queue, block_bytes),
            batches=_batches(queue),
            pieces={"loop": queue.pieces_inline, "worker": queue.pieces - queue.pieces_inline},
            cuts=queue.cuts,
            set_aside=queue.set_aside,
            queue_us=seen.queue_us.frozen(),
            compute_us=seen.compute_us.frozen(),
            transfer_us=seen.transfer_us.frozen(),
            coordination_us=seen.coordination_us.frozen(),
            slack_us=seen.slack_us.frozen(),
            deviations=dict(seen.deviations),
            closes=dict(seen.closes),
            positions=seen.positions,
            kv_block_bytes=block_bytes,
        )

    def _status(self, queue: QueueSnapshot, block_bytes: int) -> NodeStatus:
        facts, seen, quic = self._facts, self._observer, self._driver.quic
        engine, now = self._execution.engine, now_us()
        unsent = waiting_of(quic.queue, LISTED_MAX)
        return NodeStatus(
            participant=participant_text(facts.participant),
            version=__version__,
            host=facts.host,
            port=facts.port,
            model=facts.model,
            model_root=facts.model_root.hex(),
            layers=facts.layers,
            profile=facts.profile,
            backend=facts.backend,
            is_draining=self._driver.endpoint.is_draining,
            uptime_us=now - seen.started_us,
            busy_us=queue.busy_us,
            steps=seen.steps,
            deadline_misses=seen.deadline_misses,
            refusals=dict(seen.refusals),
            requests_opened=seen.requests_opened,
            requests_finished=seen.requests_finished,
            kv_blocks=engine.kv_bytes_max // block_bytes,
            kv_blocks_used=engine.kv_bytes_used // block_bytes,
            uplink_bytes_per_s=_whole(quic.queue.uplink.rate_bytes_s),
            bulk_bytes_per_s=_whole(quic.queue.uplink.bulk_limit_bytes_s(self._loop.time())),
            connections_open=quic.connections_open,
            connections=tuple(
                self._connection(link, seen.peers[link.connection])
                for link in quic.snapshot()
                if link.connection in seen.peers
            ),
            requests=seen.requests(),
            queue_expected_us=queue.queue_us,
            running_steps=queue.running,
            waiting_steps=seen.steps_queued,
            waiting=seen.waiting(),
            sending_messages=unsent.messages,
            sending_bytes=unsent.unsent_bytes,
            sending=tuple(self._message(message) for message in unsent.tightest),
            history=seen.history(),
        )

    def _connection(self, link: LinkSnapshot, participant: ParticipantId) -> ConnectionStatus:
        sent, received = self._rates.get(link.connection, (0, 0))
        return ConnectionStatus(
            participant=participant_text(participant),
            address=link.address,
            is_dialler=link.is_dialler,
            controller=link.controller,
            rtt_us=link.rtt_us,
            rtt_min_us=link.rtt_min_us,
            queue_delay_us=max(0, link.rtt_us - link.rtt_min_us),
            window_bytes=link.window_bytes,
            in_flight_bytes=link.in_flight_bytes,
            sent_bytes=link.sent_bytes,
            sent_packets=link.sent_packets,
            received_bytes=link.received_bytes,
            received_packets=link.received_packets,
            lost_bytes=link.lost_bytes,
            lost_packets=link.lost_packets,
            sent_bytes_per_s=sent,
            received_bytes_per_s=received,
        )

    def _message(self, message: Message) -> WaitingMessage:
        participant = self._observer.peers.get(message.connection)
        slack_us = None if isinf(message.deadline_s) else int((message.deadline_s - self._loop.time()) * 1e6)
        return WaitingMessage(
            kind=message.rank.name.lower(),
            participant="" if participant is None else participant_text(participant),
            slack_us=slack_us,
            unsent_bytes=message.unsent_bytes,
        )

    def _sample(self) -> None:
        self.start()
        now = now_us()
        elapsed_us = max(1, now - self._ticked_us)
        self._ticked_us = now
        links = [link for link in self._driver.quic.snapshot() if link.connection in self._observer.peers]
        self._rates = {link.connection: self._rate(link, elapsed_us) for link in links}
        self._bytes = {link.connection: (link.sent_bytes, link.received_bytes) for link in links}
        busy_us = self._execution.snapshot().busy_us
        self._observer.sample((link.rtt_us for link in links), busy_us)

    def _rate(self, link: LinkSnapshot, elapsed_us: int) -> tuple[int, int]:
        sent, received = self._bytes.get(link.connection, (0, 0))
        return (
            (link.sent_bytes - sent) * 1_000_000 // elapsed_us,
            (link.received_bytes - received) * 1_000_000 // elapsed_us,
        )


def _batches(queue: QueueSnapshot) -> Buckets:
    histogram = Histogram(BATCH_BOUNDS)
    for steps, pieces in queue.steps_per_piece:
        histogram.add(steps, pieces)
    return histogram.frozen()


def _whole(bytes_per_s: float | None) -> int | None:
    return None if bytes_per_s is None or isinf(bytes_per_s) else int(bytes_per_s)
