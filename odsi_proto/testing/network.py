"""Endpoints on a perfect network in virtual time: no sockets, no threads, no wall clock.

Bytes sent at t arrive at t + delay, streams keep their own order only, and the executor of every
node runs the given function at once. Same endpoints, same seed: same run.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from nacl.signing import SigningKey

from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    Release,
    Reserve,
    Run,
    SendControl,
    SendStep,
    StopStream,
)
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.session import Binding
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.units import ConnectionId, Micros, ParticipantId
from odsi_proto.wire.identity import Delegation, Signer

Compute = Callable[[Run], bytes | None]
"""What a node's executor answers to a step: the encoded output rows, or nothing ever."""


def make_signer(seed: int) -> Signer:
    """A participant with a hot key, the same for the same seed."""
    source = random.Random(seed)
    cold, hot = SigningKey(source.randbytes(32)), SigningKey(source.randbytes(32))
    delegation = Delegation.issue(
        cold, hot_key=bytes(hot.verify_key), epoch=1, not_before_s=0, not_after_s=1 << 40
    )
    return Signer(hot_key=hot, delegation=delegation)


@dataclass(slots=True)
class _Port:
    """One end of a connection."""

    endpoint: Endpoint
    connection: ConnectionId
    peer: "_Port | None" = None
    next_stream: int = 2
    is_open: bool = True


@dataclass(slots=True, kw_only=True)
class _Node:
    compute: Compute | None
    ports: dict[ConnectionId, _Port] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)


class MemoryNetwork:
    """Connects endpoints, carries out their effects, and keeps all of them for assertions."""

    CONTROL_STREAM = 0
    STEPS_MAX = 100_000
    """Events that one :meth:`run` may take: a loop of two endpoints ends as an error."""

    def __init__(self, *, delay_us: int = 1_000) -> None:
        self.now = Micros(1_000_000)
        self.delay_us = delay_us
        self._nodes: dict[int, _Node] = {}
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._connections = count(1)

    def add(self, endpoint: Endpoint, *, compute: Compute | None = None) -> None:
        """Let an endpoint take part; ``compute`` is a stage's executor."""
        self._nodes[id(endpoint)] = _Node(compute=compute)

    def effects(self, endpoint: Endpoint) -> list[Effect]:
        """Everything that an endpoint has asked for so far."""
        return self._nodes[id(endpoint)].effects

    def connect(
        self,
        dialler: Endpoint,
        acceptor: Endpoint,
        *,
        acceptor_key: bytes,
        expected: ParticipantId | None = None,
    ) -> tuple[ConnectionId, ConnectionId]:
        """Connect two endpoints, as if TLS had proved ``acceptor_key``; both say HELLO."""
        certificate = bytes(32)
        ends = []
        for endpoint, is_dialler in ((dialler, True), (acceptor, False)):
            port = _Port(endpoint, ConnectionId(next(self._connections)))
            self._nodes[id(endpoint)].ports[port.connection] = port
            binding = Binding(
                is_dialler=is_dialler,
                acceptor_certificate_sha256=certificate,
                acceptor_key=acceptor_key,
                expected=expected if is_dialler else None,
            )
            ends.append((port, binding))
        (one, _), (other, _) = ends
        one.peer, other.peer = other, one
        for port, binding in ends:
            self.perform(port.endpoint, port.endpoint.connection_made(port.connection, binding, now=self.now))
        return one.connection, other.connection

    def perform(self, endpoint: Endpoint, effects: tuple[Effect, ...]) -> None:
        """Carry out what a mutator returned."""
        node = self._nodes[id(endpoint)]
        node.effects.extend(effects)
        for effect in effects:
            match effect:
                case SendControl():
                    self._send(node.ports[effect.connection], self.CONTROL_STREAM, effect.data, fin=False)
                case SendStep():
                    port = node.ports[effect.connection]
                    port.next_stream += 4
                    self._send(port, port.next_stream, effect.header + bytes(effect.payload), fin=True)
                case Close():
                    self._close(node.ports[effect.connection], effect.reason)
                case Reserve() | Run() | Release():
                    self._execute(endpoint, node, effect)
                case StopStream():
                    pass
                case _:
                    pass  # events for the caller

    def deliver(
        self, endpoint: Endpoint, connection: ConnectionId, stream: int, data: bytes, *, fin: bool
    ) -> None:
        """Hand bytes to an endpoint as its peer's: for tests that play the peer themselves."""
        self.perform(endpoint, endpoint.stream_data(connection, stream, data, fin=fin, now=self.now))

    def set_compute(self, endpoint: Endpoint, compute: Compute) -> None:
        """Change a stage's executor."""
        self._nodes[id(endpoint)].compute = compute

    def cut(self, endpoint: Endpoint, connection: ConnectionId, reason: str = "cut") -> None:
        """Lose a connection: both ends notice now."""
        port = self._nodes[id(endpoint)].ports[connection]
        self._lose(port, reason)
        if port.peer is not None:
            self._lose(port.peer, reason)

    def run(self, *, until: Micros | None = None) -> None:
        """Let time pass until nothing is under way (timers beyond ``until`` do not fire)."""
        for _ in range(self.STEPS_MAX):
            due = self._due()
            if due is None or (until is not None and due > until):
                self.now = max(self.now, until or self.now)
                return
            self.now = Micros(max(self.now, due))
            if self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            elif not self._fire_timers():
                return
        raise AssertionError(f"still busy after {self.STEPS_MAX} events")

    def _due(self) -> Micros | None:
        """The next event; timers count only while bytes are under way or ``until`` bounds them."""
        times = [at for at, _, _ in self._queue[:1]]
        for node in self._nodes.values():
            for port in node.ports.values():
                deadline = port.endpoint.next_deadline
                if deadline is not None:
                    times.append(deadline[0])
        return Micros(min(times)) if times else None

    def _fire_timers(self) -> bool:
        fired = False
        endpoints = {id(p.endpoint): p.endpoint for node in self._nodes.values() for p in node.ports.values()}
        for endpoint in endpoints.values():
            deadline = endpoint.next_deadline
            if deadline is not None and deadline[0] <= self.now:
                self.perform(endpoint, endpoint.timer(now=self.now))
                fired = True
        return fired

    def _send(self, port: _Port, stream: int, data: bytes, *, fin: bool) -> None:
        peer = port.peer
        if not port.is_open or peer is None:
            return

        def arrive() -> None:
            if peer.is_open:
                self.deliver(peer.endpoint, peer.connection, stream, data, fin=fin)

        self._later(self.delay_us, arrive)

    def _close(self, port: _Port, reason: str) -> None:
        port.is_open = False
        peer = port.peer
        if peer is not None:
            self._later(self.delay_us, lambda: self._lose(peer, f"closed by the peer: {reason}"))

    def _lose(self, port: _Port, reason: str) -> None:
        if port.is_open:
            port.is_open = False
            self.perform(port.endpoint, port.endpoint.connection_lost(port.connection, reason, now=self.now))

    def _execute(self, endpoint: Endpoint, node: _Node, effect: Reserve | Run | Release) -> None:
        assert isinstance(endpoint, StageEndpoint)
        assert node.compute is not None, "add() a stage with its compute"
        match effect:
            case Reserve():
                self.perform(endpoint, endpoint.reserved(effect.request, now=self.now))
            case Run():
                rows = node.compute(effect)
                if rows is None:
                    return
                answer = endpoint.output(
                    effect.request,
                    effect.position,
                    memoryview(rows),
                    started_us=self.now,
                    finished_us=self.now,
                    now=self.now,
                )
                self.perform(endpoint, answer)
            case Release():
                pass

    def _later(self, delay_us: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay_us, next(self._order), action))
