"""A small network for rogues: what MemoryNetwork does, streams written by hand, and a serial executor.

Reserving and computing take time here, so that something can arrive meanwhile. Every client works
through its jobs by itself: it opens, sends a prompt in one step and then token after token, and
cancels. Effects of every node are kept for the judge.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine import effects as fx
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.invariants import violations
from odsi_proto.statemachine.session import Binding
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.rogue import ControlEnd, Rogue, RogueEffect, StreamBytes, StreamReset
from odsi_proto.units import ConnectionId, Micros, ParticipantId, RequestId
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

WIDTH = 4
LAYOUT = ActivationLayout(codec=ActivationCodec.F32, width=WIDTH)
DELAY_US, RESERVE_US, COMPUTE_US = 1_000, 2_000, 2_000
PROMPT_TOKENS = 3
EVENTS_MAX = 200_000
NEVER_US = 1 << 62
WATCHED_US = 50_000
"""How long after a deviation invariants are asked for after every call: what it breaks, it breaks soon."""
CONTROL_STREAM = 0


@dataclass
class Job:
    """One request of one client."""

    client: "Node"
    spec: RequestSpec
    first: "Node"
    last: "Node"
    tokens: int
    """Steps after the prompt's."""
    pause_us: int
    request: RequestId | None = None
    is_refused_locally: bool = False
    """Whether there was no session to open it on."""
    rows: int = 0
    is_done: bool = False
    failed: fx.RequestFailed | None = None


@dataclass
class Port:
    """One end of a connection."""

    node: "Node"
    connection: ConnectionId
    peer: "Port | None" = None
    is_open: bool = True
    next_stream: int = CONTROL_STREAM
    streams: dict[int, int] = field(default_factory=dict)
    """Those that a rogue writes by hand."""


@dataclass
class Node:
    """One participant."""

    name: str
    endpoint: Any
    """A client, a stage or a rogue."""
    effects: list[RogueEffect] = field(default_factory=list)
    ports: dict[ConnectionId, Port] = field(default_factory=dict)
    busy_until_us: int = 0
    due_us: int = NEVER_US
    """When its next timer is due; asked for anew after every call of a mutator."""

    @property
    def is_rogue(self) -> bool:
        return isinstance(self.endpoint, Rogue)

    @property
    def participant(self) -> ParticipantId:
        participant: ParticipantId = self.endpoint.about.signer.participant
        return participant

    def seen(self, kind: type) -> list[Any]:
        """Its effects of one class."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def peer_of(self, connection: ConnectionId) -> "Node":
        peer = self.ports[connection].peer
        assert peer is not None
        return peer.node

    def connection_to(self, other: "Node") -> ConnectionId | None:
        """The open connection between the two."""
        return next(
            (p.connection for p in self.ports.values() if p.is_open and p.peer and p.peer.node is other), None
        )


class Room:
    """All nodes and what is under way between them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.now = Micros(0)
        self.nodes: list[Node] = []
        self.jobs: list[Job] = []
        self.violations: list[str] = []
        """Invariants that an honest endpoint broke soon after the rogue acted."""
        self._watched_until_us = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order, self._connections = count(), count(1)

    def add(self, name: str, endpoint: ClientEndpoint | StageEndpoint | Rogue) -> Node:
        node = Node(name=name, endpoint=endpoint)
        self.nodes.append(node)
        return node

    def connect(self, dialler: Node, acceptor: Node) -> None:
        """TLS between two nodes; both say HELLO."""
        key = bytes(acceptor.endpoint.about.signer.hot_key.verify_key)
        ends = []
        for node, is_dialler in ((dialler, True), (acceptor, False)):
            port = Port(node, ConnectionId(next(self._connections)))
            node.ports[port.connection] = port
            binding = Binding(
                is_dialler=is_dialler,
                acceptor_certificate_sha256=bytes(32),
                acceptor_key=key,
                expected=acceptor.participant if is_dialler else None,
            )
            ends.append((port, binding))
        ends[0][0].peer, ends[1][0].peer = ends[1][0], ends[0][0]
        for port, binding in ends:
            self.do(port.node, port.node.endpoint.connection_made(port.connection, binding, now=self.now))

    def start(self, job: Job) -> None:
        """Open a job's request, if its client is connected as it must be."""
        self.jobs.append(job)
        client = job.client
        first, last = client.connection_to(job.first), client.connection_to(job.last)
        job.request = client.endpoint.new_request_id()
        try:
            if first is None or last is None:
                raise LocalProtocolError("not connected")
            opened = client.endpoint.open(job.request, job.spec, first=first, last=last, now=self.now)
        except LocalProtocolError:
            job.is_refused_locally = True
            return
        self.do(client, opened)

    def cut(self, node: Node) -> None:
        """Lose every connection of a node."""
        for port in tuple(node.ports.values()):
            for end in (port, port.peer):
                assert end is not None
                self._lose(end, "cut")

    def run(self, us: int) -> None:
        """Let time pass."""
        until = self.now + us
        for _ in range(EVENTS_MAX):
            first = min(self.nodes, key=lambda node: node.due_us)
            arrives_us = self._queue[0][0] if self._queue else NEVER_US
            if min(first.due_us, arrives_us) > until:
                self.now = Micros(until)
                return
            self.now = Micros(max(self.now, min(first.due_us, arrives_us)))
            if arrives_us <= first.due_us:
                heapq.heappop(self._queue)[2]()
            else:
                self.do(first, first.endpoint.timer(now=self.now))
        raise AssertionError("the room never comes to rest")

    def do(self, node: Node, effects: tuple[RogueEffect, ...]) -> None:
        """Carry out what a mutator returned."""
        node.effects.extend(effects)
        for effect in effects:
            match effect:
                case fx.Close():
                    self._close(node.ports[effect.connection], effect.reason)
                case fx.Reserve():
                    self._reserve(node, effect)
                case fx.Run():
                    self._compute(node, effect)
                case fx.PathReady() | fx.RowsArrived() | fx.RequestFailed():
                    self._work(node, effect)
                case _:
                    self._write(node, effect)
        if node.is_rogue:
            self._watched_until_us = max((at + WATCHED_US for at, _ in node.endpoint.acted[-1:]), default=0)
        elif self.now <= self._watched_until_us:
            self.violations += violations(node.endpoint)
        deadline = node.endpoint.next_deadline
        node.due_us = NEVER_US if deadline is None else deadline[0]

    def _write(self, node: Node, effect: RogueEffect) -> None:
        """Bytes on streams."""
        match effect:
            case fx.SendControl():
                self._send(node.ports[effect.connection], CONTROL_STREAM, effect.data)
            case fx.SendStep():
                port = node.ports[effect.connection]
                port.next_stream += 4
                data = effect.header + bytes(effect.payload)
                self._send(port, port.next_stream, data, fin=True)
            case StreamBytes():
                port = node.ports[effect.connection]
                if effect.name not in port.streams:
                    port.next_stream += 4
                    port.streams[effect.name] = port.next_stream
                self._send(port, port.streams[effect.name], effect.data, fin=effect.fin)
            case StreamReset():
                port = node.ports[effect.connection]
                self._reset(port, port.streams[effect.name])
            case ControlEnd() if effect.is_reset:
                self._reset(node.ports[effect.connection], CONTROL_STREAM)
            case ControlEnd():
                self._send(node.ports[effect.connection], CONTROL_STREAM, b"", fin=True)
            case _:
                pass  # for the judge

    def _send(self, port: Port, stream: int, data: bytes, *, fin: bool = False) -> None:
        def arrive(peer: Port) -> None:
            endpoint = peer.node.endpoint
            self.do(peer.node, endpoint.stream_data(peer.connection, stream, data, fin=fin, now=self.now))

        self._to_peer(port, arrive)

    def _reset(self, port: Port, stream: int) -> None:
        def arrive(peer: Port) -> None:
            self.do(peer.node, peer.node.endpoint.stream_reset(peer.connection, stream, now=self.now))

        self._to_peer(port, arrive)

    def _to_peer(self, port: Port, arrive: Callable[[Port], None]) -> None:
        peer = port.peer
        assert peer is not None

        def on_arrival() -> None:
            if peer.is_open:
                arrive(peer)

        if port.is_open:
            self._later(DELAY_US, on_arrival)

    def _close(self, port: Port, reason: str) -> None:
        port.is_open = False
        peer = port.peer
        assert peer is not None
        self._later(DELAY_US, lambda: self._lose(peer, f"closed by the peer: {reason}"))

    def _lose(self, port: Port, reason: str) -> None:
        if port.is_open:
            port.is_open = False
            self.do(port.node, port.node.endpoint.connection_lost(port.connection, reason, now=self.now))

    def _reserve(self, node: Node, effect: fx.Reserve) -> None:
        def answer() -> None:
            self.do(node, node.endpoint.reserved(effect.request, now=self.now))

        self._later(RESERVE_US, answer)

    def _compute(self, node: Node, effect: fx.Run) -> None:
        rows = bytes((byte + 1) % 256 for byte in effect.payload)[
            -LAYOUT.payload_bytes(effect.rows_out_max) :
        ]
        started = Micros(max(self.now, node.busy_until_us))
        node.busy_until_us = started + COMPUTE_US

        def answer() -> None:
            out = node.endpoint.output(
                effect.request,
                effect.position,
                memoryview(rows),
                started_us=started,
                finished_us=self.now,
                now=self.now,
            )
            self.do(node, out)

        self._later(node.busy_until_us - self.now, answer)

    def _work(self, node: Node, effect: fx.PathReady | fx.RowsArrived | fx.RequestFailed) -> None:
        job = next(j for j in self.jobs if j.client is node and j.request == effect.request)
        match effect:
            case fx.PathReady():
                self._step(job, PROMPT_TOKENS)
            case fx.RowsArrived():
                job.rows += 1
                if job.rows > job.tokens:
                    job.is_done = True
                    ended = node.endpoint.cancel(job.request, ErrorCode.NO_ERROR, now=self.now)
                    self.do(node, ended)
                else:
                    self._later(job.pause_us, lambda: self._step(job, 1))
            case fx.RequestFailed():
                job.failed = effect

    def _step(self, job: Job, tokens: int) -> None:
        if job.failed is None:
            rows = memoryview(bytes([1 + job.rows]) * LAYOUT.payload_bytes(tokens))
            out = job.client.endpoint.send_step(job.request, [7] * tokens, rows, now=self.now)
            self.do(job.client, out)

    def _later(self, delay_us: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay_us, next(self._order), action))
