"""One process: an endpoint, its clock, its connections, and what a real node does around them.

Every call of the endpoint goes through :meth:`Process.act`: the log, the checkers and the coverage see
it there, its effects are carried out in order, and the timer is armed again. An exception of a call
is a failure of the run: nothing that a peer or the network does may raise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING
from zlib import crc32

from odsi_proto.statemachine.client import ClientEndpoint
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
from odsi_proto.statemachine.session import Binding
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.rogue import (
    ControlEnd,
    Rogue,
    RogueEffect,
    StreamBytes,
    StreamReset,
)
from odsi_proto.testing.simulation.clock import Clock
from odsi_proto.testing.simulation.streams import Piece
from odsi_proto.units import ConnectionId, Micros

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.port import Port
    from odsi_proto.testing.simulation.world import World

REDIAL_FIRST_US = 100_000
REDIAL_MAX_US = 5_000_000
"""A peer that is down is dialled again after a pause that doubles up to this, as ``odsi node`` does."""


class Process(ABC):
    """What every node of a run is."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.incarnation = 0
        """Counts crashes."""
        self.is_up = True
        self.is_paused = False
        self.deviation = world.deviations.get(name, "")
        """Of a rogue; empty where the process is honest."""
        self.read_late_us = 0
        """Fault: bytes are read so much later."""
        self.duplicates: list[int] = []
        """Fault: the delays after which the next steps are sent again."""
        self.disturbed_us = 0
        """When it last stood still or its clock jumped: timers that were due then may come after bytes."""
        self.is_reading = False
        """Whether bytes are being handed to its endpoint."""
        self.rtts_us: dict[str, int] = {}
        """By peer, the least round trip that its endpoint was told of."""
        self.ports: dict[ConnectionId, Port] = {}
        """Connections that its endpoint knows."""
        self.connected: dict[str, ConnectionId] = {}
        """Established connections by the name of the peer that was dialled."""
        self.random = world.stream(f"process {name}")
        self.clock = self._new_clock()
        self.endpoint = self.make_endpoint()
        self._inbox: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._armed: tuple[int, int] | None = None
        self._timers = 0
        self._acted = 0
        """How often its rogue has deviated, as far as the log has shown it."""
        self._read_until_us = 0
        self._dialled: dict[ConnectionId, tuple[str, int]] = {}
        """Whom each connection leads to, and since when."""
        self._pauses_us: dict[str, int] = {}

    # What a role adds

    @abstractmethod
    def make_endpoint(self) -> StageEndpoint | ClientEndpoint | Rogue:
        """A fresh endpoint, as after a start."""

    @abstractmethod
    def perform(self, effect: Effect) -> None:
        """Carry out an effect that is not about bytes."""

    @abstractmethod
    def forget(self) -> None:
        """The process has crashed: drop what only memory held."""

    @property
    @abstractmethod
    def dials(self) -> tuple[str, ...]:
        """The names of those whom it dials and stays connected to."""

    @property
    def is_honest(self) -> bool:
        """Whether it keeps to the protocol."""
        return not self.deviation

    # Time

    @property
    def now(self) -> Micros:
        """What its clock shows."""
        return self.clock.shows(self.world.heap.now_us)

    @property
    def unix_s(self) -> int:
        """What it takes for the time of day, in seconds since 1970."""
        return self.clock.unix_s_at_zero + self.now // 1_000_000

    def rearm(self) -> None:
        """Wake when the endpoint's next deadline has come, by the process's own clock."""
        deadline = self.endpoint.next_deadline
        if deadline is None:
            self._armed = None
            return
        at_us = self.clock.when(deadline[0])
        if self._armed is not None and self._armed[0] == at_us:
            return
        self._timers += 1
        self._armed = (at_us, self._timers)
        lateness_us = self.world.options.lateness_us
        late_us = self.random.randint(0, lateness_us) if lateness_us else 0
        self.world.heap.at(at_us + late_us, self._wake, self._timers)

    def _wake(self, timer: int) -> None:
        if self._armed is not None and self._armed[1] == timer:
            self.deliver(self._timer_due, timer)

    def _timer_due(self, timer: int) -> None:
        if self._armed is None or self._armed[1] != timer:
            return  # a call that came while the process stood still has moved it
        self._armed = None
        deadline = self.endpoint.next_deadline
        if deadline is None or deadline[0] > self.now:
            self.rearm()
            return
        if self.is_honest:
            self.world.coverage.timer_reasons.add(deadline[1])
        self.world.log.note(self.world.heap.now_us, self.name, "timer", deadline[1])
        self.act("timer", lambda: self.endpoint.timer(now=self.now))

    def set_clock_rate(self, rate_ppm: int) -> None:
        """Fault: its clock goes faster or slower from now on."""
        self.clock.set_rate(self.world.heap.now_us, rate_ppm)
        if self.is_up:
            self.rearm()

    def jump_clock(self, by_us: int) -> None:
        """Fault: its clock skips forward."""
        self.clock.jump(self.world.heap.now_us, by_us)
        self.disturbed_us = self.world.heap.now_us
        if self.is_up:
            self.rearm()

    # Life

    def start(self) -> None:
        """Begin to dial."""
        for peer in self.dials:
            self._dial_soon(peer)

    def crash(self) -> None:
        """End at once: nobody is told."""
        self.is_up, self.is_paused = False, False
        self.incarnation += 1
        for port in self.ports.values():
            port.is_open = False
            port.peer.mute("crash")
        self.ports.clear()
        self.connected.clear()
        self._dialled.clear()
        self._pauses_us.clear()
        self._inbox.clear()
        self.duplicates.clear()
        self._armed = None
        self.forget()

    def restart(self) -> None:
        """Come back with nothing of before."""
        self.is_up = True
        self.clock = self._new_clock()
        self.endpoint = self.make_endpoint()
        self.start()

    def pause(self) -> None:
        """Stand still: neither bytes nor timers."""
        self.is_paused = True
        for port in self.ports.values():
            port.peer.mute("pause")

    def resume(self) -> None:
        """Go on: what came meanwhile is handled now, in any order of timers and bytes."""
        if not self.is_paused:
            return
        self.is_paused = False
        self.disturbed_us = self.world.heap.now_us
        for port in self.ports.values():
            port.peer.unmute("pause")
        inbox, self._inbox = self._inbox, []
        for action, arguments in inbox:
            if not self.is_paused and self.is_up:
                action(*arguments)

    def deliver(self, action: Callable[..., None], *arguments: object) -> None:
        """Do something in this process: now, or when it goes on."""
        if self.is_paused:
            self._inbox.append((action, arguments))
        elif self.is_up:
            action(*arguments)

    def later(self, delay_us: int, action: Callable[..., None], *arguments: object) -> None:
        """Do something later, unless the process has crashed by then."""
        self.world.heap.after(delay_us, self._if_alive, self.incarnation, action, *arguments)

    def _if_alive(self, incarnation: int, action: Callable[..., None], *arguments: object) -> None:
        if incarnation == self.incarnation:
            self.deliver(action, *arguments)

    # Bytes

    def bytes_arrived(self, port: "Port", piece: Piece) -> None:
        """A piece is here; ``port`` is its sender's end."""
        if self.read_late_us or self._read_until_us > self.world.heap.now_us:
            # In the order of arrival, also once it reads in time again.
            at_us = max(self.world.heap.now_us + self.read_late_us, self._read_until_us)
            self._read_until_us = at_us
            self.later(at_us - self.world.heap.now_us, port.read, piece)
        else:
            self.deliver(port.read, piece)

    def feed(self, port: "Port", piece: Piece) -> None:
        """Hand a piece to the endpoint; ``port`` is this side's end."""
        world, stream, connection = self.world, piece.stream.id, port.connection
        if piece.reset:
            self.act(
                f"stream_reset {connection}.{stream}",
                lambda: self.endpoint.stream_reset(connection, stream, now=self.now),
            )
            return
        if piece.flow:
            sender = port.peer.process.name
            brief = f"{connection}.{stream}"
            at_us = world.heap.now_us
            world.log.note(at_us, self.name, "receive", brief, about=piece.text, peer=sender, flow=piece.flow)
        data, fin = piece.data, piece.fin
        self.is_reading = True
        self.act(
            f"stream_data {connection}.{stream} {len(data)} {crc32(data)}{' fin' if fin else ''}",
            lambda: self.endpoint.stream_data(connection, stream, data, fin=fin, now=self.now),
        )
        self.is_reading = False

    def connection_lost(self, port: "Port", reason: str) -> None:
        """Tell the endpoint, and dial again."""
        self.ports.pop(port.connection, None)
        self.act(
            f"connection_lost {port.connection} {reason}",
            lambda: self.endpoint.connection_lost(port.connection, reason, now=self.now),
        )
        self._gone(port.connection)

    def connection_made(self, port: "Port", binding: Binding) -> None:
        """TLS is done on one side."""
        if not port.is_open:
            return
        self.ports[port.connection] = port
        self.act(
            f"connection_made {port.connection}",
            lambda: self.endpoint.connection_made(port.connection, binding, now=self.now),
        )

    def rtt_measured(self, port: "Port", rtt_us: int) -> None:
        """A new least round trip, by this process's clock."""
        if port.is_open:
            self.world.log.note(
                self.world.heap.now_us, self.name, "call", f"rtt_measured {port.connection} {rtt_us}"
            )
            peer = port.peer.process.name
            self.rtts_us[peer] = min(rtt_us, self.rtts_us.get(peer, rtt_us))
            self.endpoint.rtt_measured(port.connection, Micros(rtt_us))

    # The one place where an endpoint is called

    def act(self, what: str, mutate: Callable[[], tuple[RogueEffect, ...]]) -> bool:
        """Call a mutator and carry out what it returns; False if it raised, which fails the run."""
        world = self.world
        now_us = world.heap.now_us
        world.log.note(now_us, self.name, "call", what)
        try:
            effects = mutate()
        except Exception as error:
            world.checks.bug(self, what, error)
            return False
        if isinstance(self.endpoint, Rogue):
            self._note_deviation(self.endpoint)
        if effects:
            world.checks.called(self, effects)
            for effect in effects:
                self._perform(effect)
        world.checks.after_call(self)
        if self.is_up:
            self.rearm()
        return True

    def _note_deviation(self, rogue: Rogue) -> None:
        """Show when its moment comes: the fault itself is shown where the plan has it."""
        if len(rogue.acted) > self._acted:
            self.world.coverage.deviations.add(self.deviation)
            self.world.log.show(self.world.heap.now_us, self.name, "effect", f"deviates: {self.deviation}")
        self._acted = len(rogue.acted)

    def _perform(self, effect: RogueEffect) -> None:
        world = self.world
        match effect:
            case Transition():
                if self.is_honest:
                    cell = (effect.machine, effect.before.name, effect.received.name)
                    world.coverage.transitions.add(cell)
                world.log.show(world.heap.now_us, self.name, "transition", effect)
            case SendControl() | StopStream() | StreamBytes() | StreamReset() | ControlEnd():
                self._send(effect)
            case SendStep():
                self._send_step(effect)
            case Close():
                self._close(effect)
            case Trace():
                world.log.show(world.heap.now_us, self.name, "effect", effect)
            case _:
                world.log.note(world.heap.now_us, self.name, "effect", type(effect).__name__, about=effect)
                if isinstance(effect, Established):
                    self._established(effect)
                self.perform(effect)

    def _send(self, effect: SendControl | StopStream | StreamBytes | StreamReset | ControlEnd) -> None:
        world, port = self.world, self.ports.get(effect.connection)
        if port is None or not port.is_open:
            return
        if not isinstance(effect, SendControl):
            world.log.note(world.heap.now_us, self.name, "effect", type(effect).__name__, about=effect)
        match effect:
            case SendControl():
                port.send_control(effect)
            case StopStream():
                world.heap.after(port.link.delay_us, port.peer.stop, effect.stream)
            case _:
                port.by_hand(effect)

    def _send_step(self, effect: SendStep) -> None:
        port = self.ports.get(effect.connection)
        if port is None or not port.is_open:
            return
        port.send_step(effect)
        if self.duplicates:
            again = self.world.again(effect)
            self.later(self.duplicates.pop(0), self._send_again, port, again)

    def _send_again(self, port: "Port", effect: SendStep) -> None:
        if port.is_open:
            port.send_step(effect)

    def _close(self, effect: Close) -> None:
        self.world.log.note(self.world.heap.now_us, self.name, "effect", f"Close {effect.code}", about=effect)
        port = self.ports.pop(effect.connection, None)
        if port is not None:
            port.close(effect.reason)
            self._gone(effect.connection)

    # Staying connected

    def _established(self, effect: Established) -> None:
        name, _ = self._dialled.get(effect.connection, ("", 0))
        if name:
            self.connected[name] = effect.connection

    def _gone(self, connection: ConnectionId) -> None:
        name, since_us = self._dialled.pop(connection, ("", 0))
        if not name:
            return
        if self.connected.get(name) == connection:
            del self.connected[name]
        if self.world.heap.now_us - since_us >= REDIAL_MAX_US:
            self._pauses_us.pop(name, None)
        self._dial_soon(name)

    def _dial_soon(self, name: str) -> None:
        pause_us = self._pauses_us.get(name, 0)
        self._pauses_us[name] = min(max(2 * pause_us, REDIAL_FIRST_US), REDIAL_MAX_US)
        self.later(pause_us, self._dial, name)

    def _dial(self, name: str) -> None:
        if self.world.is_over:
            return

        def made(connection: ConnectionId) -> None:
            self._dialled[connection] = (name, self.world.heap.now_us)

        def failed() -> None:
            self.later(0, self._dial_soon, name)

        self.world.dial(self, name, made, failed)

    def _new_clock(self) -> Clock:
        options, heap = self.world.options, self.world.heap
        wall_s = self.random.randint(-options.wall_s, options.wall_s)
        shows_us = self.random.randrange(1, 1 << 40)
        unix_s = self.world.UNIX_S + wall_s + heap.now_us // 1_000_000 - shows_us // 1_000_000
        return Clock(
            at_us=heap.now_us,
            shows_us=shows_us,
            rate_ppm=self.random.randint(-options.clock_ppm, options.clock_ppm),
            unix_s_at_zero=unix_s,
        )
