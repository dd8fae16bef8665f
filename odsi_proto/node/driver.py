"""Joins an endpoint of the protocol core to QUIC and to the clock: bytes in, effects out, timers.

Everything runs on the event loop's thread. Effects that are not about bytes (compute, state,
events) go to the role: :class:`Role`.
"""

import asyncio
import os
import time
from typing import Protocol

import structlog

from odsi_proto.node.certificate import make_certificate
from odsi_proto.node.config import DEFAULT_TRANSPORT, TransportConfig
from odsi_proto.node.observe import Observer
from odsi_proto.node.quic import QuicEndpoint
from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    Established,
    SendControl,
    SendStep,
    StopStream,
    Trace,
    Transition,
)
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.session import Binding
from odsi_proto.statemachine.table import Verdict
from odsi_proto.units import ConnectionId, Micros

log = structlog.get_logger(__name__)

choices = os.urandom
"""Where endpoints outside tests draw their nonces, ids and secrets."""


def now_us() -> Micros:
    """The monotonic clock that endpoints are told."""
    return Micros(time.monotonic_ns() // 1_000)


def unix_s_at_zero() -> int:
    """The wall-clock second at which the monotonic clock stood at zero."""
    return int(time.time() - time.monotonic())


class Role(Protocol):
    """What a node or a client adds to the driver."""

    def perform(self, effect: Effect) -> None:
        """Carry out an effect that is not about bytes."""

    def gone(self, connection: ConnectionId, reason: str) -> None:
        """A connection is gone, lost or closed by either side."""


class Driver:
    """One endpoint on one QUIC endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        role: Role,
        transport: TransportConfig = DEFAULT_TRANSPORT,
        *,
        observer: Observer | None = None,
    ) -> None:
        """``observer`` is told of what passes."""
        self.endpoint = endpoint
        self._observer = observer or Observer(now_us)
        self._role = role
        self._loop = asyncio.get_running_loop()
        signer = endpoint.about.signer
        self.quic = QuicEndpoint(
            self, certificate=make_certificate(signer), limits=endpoint.limits, transport=transport
        )
        self._timer: asyncio.TimerHandle | None = None

    def act(self, effects: tuple[Effect, ...]) -> None:
        """Carry out what a mutator returned, then send and re-arm."""
        self._perform(effects)
        self.quic.flush()
        self._arm()

    def shut_down(self) -> None:
        """Close everything; no callback comes after this."""
        if self._timer is not None:
            self._timer.cancel()
        self.quic.shut_down()

    def connected(self, connection: ConnectionId, binding: Binding) -> None:
        """TLS is done: say HELLO."""
        self._perform(self.endpoint.connection_made(connection, binding, now=now_us()))
        self._arm()

    def stream_data(self, connection: ConnectionId, stream: int, data: bytes, fin: bool) -> None:
        """Bytes of a peer's stream."""
        self._perform(self.endpoint.stream_data(connection, stream, data, fin=fin, now=now_us()))
        self._arm()

    def stream_reset(self, connection: ConnectionId, stream: int) -> None:
        """A peer's stream was given up."""
        self._perform(self.endpoint.stream_reset(connection, stream, now=now_us()))
        self._arm()

    def lost(self, connection: ConnectionId, reason: str) -> None:
        """A connection is gone."""
        self._perform(self.endpoint.connection_lost(connection, reason, now=now_us()))
        self._observer.gone(connection)
        self._role.gone(connection, reason)
        self._arm()

    def rtt_measured(self, connection: ConnectionId, rtt_min_us: Micros) -> None:
        """A new least round trip."""
        self.endpoint.rtt_measured(connection, rtt_min_us)

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        observer = self._observer
        for effect in effects:
            match effect:
                case SendControl():
                    self.quic.send_control(effect.connection, effect.data)
                case SendStep():
                    step = effect
                    self.quic.send_step(step.connection, step.header, step.payload, step.slack_us)
                    observer.step_sent(step.slack_us)
                case StopStream():
                    self.quic.stop_stream(effect.connection, effect.stream, effect.code)
                case Close():
                    where = self.quic.address_of(effect.connection)
                    log.info("closed", peer=where, code=effect.code, reason=effect.reason)
                    self.quic.close(effect.connection, effect.code, effect.reason)
                    observer.closed(effect.connection, effect.code)
                    self._role.gone(effect.connection, effect.reason)
                case Established():
                    self.quic.authenticated(effect.connection)
                    observer.established(effect.connection, effect.participant)
                    self._role.perform(effect)
                case Transition():
                    # Here, not there: a step makes half a dozen of them, and a call costs more than they do.
                    if effect.verdict is Verdict.REFUSED or (
                        effect.after is not effect.before and effect.machine == "request"
                    ):
                        observer.transition(effect)
                case Trace():
                    write = log.debug if observer.trace(effect) else log.info
                    write(effect.event, connection=effect.connection, **_plain(effect))
                case _:
                    self._role.perform(effect)

    def _arm(self) -> None:
        deadline = self.endpoint.next_deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline[0] / 1e6, self._timer_due)

    def _timer_due(self) -> None:
        self._timer = None
        self.act(self.endpoint.timer(now=now_us()))


def _plain(trace: Trace) -> dict[str, int | str]:
    fields: dict[str, int | str] = {}
    for name, value in trace.fields.items():
        match value:
            case bytes():
                fields[name] = value.hex()
            case int():
                fields[name] = value
            case _:
                fields[name] = str(value)
    return fields
