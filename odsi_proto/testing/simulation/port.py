"""One end of one connection: streams that leave it, credit, silence, and how it ends."""

from collections import deque
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

from odsi_proto.statemachine.effects import SendControl, SendStep
from odsi_proto.testing.rogue import ControlEnd, StreamBytes, StreamReset
from odsi_proto.testing.simulation.streams import Piece, Stream, cut
from odsi_proto.units import ConnectionId

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.link import Link
    from odsi_proto.testing.simulation.process import Process
    from odsi_proto.testing.simulation.world import World

CONTROL_STREAM = 2
STREAMS_APART = 4
"""Stream ids of one kind are so far apart, as in QUIC."""


class Port:
    """The transport at one end; ``link`` carries what it sends."""

    def __init__(
        self, world: "World", process: "Process", connection: ConnectionId, link: "Link", random: Random
    ) -> None:
        self.world = world
        self.process = process
        self.incarnation = process.incarnation
        self.connection = connection
        self.link = link
        self.peer: Port
        """The other end; set once, right after both are made."""
        self.is_open = True
        """Whether this end still sends and reads."""
        self.is_closed_here = False
        """Whether its endpoint closed it."""
        self.made_us: int | None = None
        """When its endpoint was told of it; bytes that arrive earlier wait."""
        self.streams: dict[int, Stream] = {}
        """Those of this end's that are not over."""
        self.waiting: deque[SendStep] = deque()
        """Steps that wait for the peer to take one more stream."""
        self.is_deaf = False
        """Fault: the connection is lost and nobody is told; nothing arrives any more."""
        self.reset_next: int | None = None
        """Fault: reset the next step's stream after so many bytes."""
        self._by_hand: dict[int, Stream] = {}
        self._random = random
        self._unread_bytes = 0
        self._next_stream = CONTROL_STREAM + STREAMS_APART
        self._muted_by: dict[str, None] = {}
        self._silences = 0

    def __str__(self) -> str:
        return f"{self.process.name}#{self.connection}"

    @property
    def is_alive(self) -> bool:
        """Whether the process that had it still runs, and has it."""
        return self.is_open and self.process.incarnation == self.incarnation and self.process.is_up

    # Sending

    def send_control(self, effect: SendControl) -> None:
        """Append to this end's control stream."""
        stream = self.streams.get(CONTROL_STREAM)
        if stream is None:
            stream = self.streams[CONTROL_STREAM] = Stream(CONTROL_STREAM)
        self._send(stream, effect.data, effect, fin=False)

    def send_step(self, effect: SendStep) -> None:
        """Open a stream for a step, once the peer takes one more."""
        self.waiting.append(effect)
        self._open_waiting()

    def by_hand(self, effect: StreamBytes | StreamReset | ControlEnd) -> None:
        """A rogue's own streams; it heeds no limit on their number."""
        match effect:
            case ControlEnd():
                stream = self.streams.setdefault(CONTROL_STREAM, Stream(CONTROL_STREAM))
                self._queue(Piece(stream, b"", fin=not effect.is_reset, reset=effect.is_reset))
            case StreamBytes():
                named = self._by_hand.get(effect.name)
                if named is None:
                    named = self._by_hand[effect.name] = self.streams[self._next_stream] = Stream(
                        self._next_stream
                    )
                    self._next_stream += STREAMS_APART
                self._queue(Piece(named, effect.data, fin=effect.fin))
            case StreamReset():
                self._queue(Piece(self._by_hand[effect.name], b"", fin=False, reset=True))

    def stop(self, stream_id: int) -> None:
        """The peer reads no more of a stream of ours: give it up, or let what was sent arrive."""
        stream = self.streams.get(stream_id)
        if stream is None or not self.is_alive or self._random.random() < 0.5:
            return
        stream.blocked.clear()
        self.transmit(Piece(stream, b"", fin=False, reset=True))

    def transmit(self, piece: Piece) -> None:
        """Put a piece on the way; never before one of the same stream that was sent earlier."""
        stream, size = piece.stream, len(piece.data)
        stream.unread_bytes += size
        self._unread_bytes += size
        self.link.carry(self, piece)

    def _send(self, stream: Stream, data: bytes, about: SendControl | SendStep, *, fin: bool) -> None:
        world, options = self.world, self.world.options
        world.flows += 1
        flow, target = world.flows, self.peer.process.name
        brief = f"{self.connection}.{stream.id} {len(data)} {crc32(data)}"
        world.log.note(
            world.heap.now_us, self.process.name, "send", brief, about=about, peer=target, flow=flow
        )
        size_max = min(options.window_bytes, options.stream_window_bytes)
        parts = cut(data, options.chunking, size_max, self._random)
        fin_alone = fin and options.chunking != "whole" and self._random.random() < 0.3
        last = len(parts) - 1
        for index, part in enumerate(parts):
            is_last = index == last
            self._queue(
                Piece(
                    stream,
                    part,
                    fin=fin and is_last and not fin_alone,
                    flow=flow if is_last and not fin_alone else 0,
                    text=about if is_last else None,
                )
            )
        if fin_alone:
            self._queue(Piece(stream, b"", fin=True, flow=flow, text=about))

    def _queue(self, piece: Piece) -> None:
        if piece.stream.blocked or not self._has_credit(piece):
            piece.stream.blocked.append(piece)
        else:
            self.transmit(piece)

    def _has_credit(self, piece: Piece) -> bool:
        options, size = self.world.options, len(piece.data)
        return (
            self._unread_bytes + size <= options.window_bytes
            and piece.stream.unread_bytes + size <= options.stream_window_bytes
        )

    def _open_waiting(self) -> None:
        """Start steps for which there is a stream; the control stream takes one of the number."""
        streams_max = self.world.limits.streams_per_connection_max
        while self.waiting and len(self.streams) < streams_max and self.is_alive:
            index = 0
            if self.world.options.orders_steps:
                index = min(range(len(self.waiting)), key=lambda i: self.waiting[i].remaining_us)
            effect = self.waiting[index]
            del self.waiting[index]
            stream = self.streams[self._next_stream] = Stream(self._next_stream)
            self._next_stream += STREAMS_APART
            data = effect.header + bytes(effect.payload)
            if self.reset_next is None:
                self._send(stream, data, effect, fin=True)
            else:
                self._send(stream, data[: self.reset_next % len(data)], effect, fin=False)
                self._queue(Piece(stream, b"", fin=False, reset=True))
                self.reset_next = None

    # Arriving: called on the sender's port, by the link, when a piece has reached the other end

    def arrived(self, piece: Piece) -> None:
        """A piece is at the peer's door."""
        peer = self.peer
        if peer.is_deaf or piece.stream.is_over or not (peer.is_open or peer.is_closed_here):
            return
        peer.process.bytes_arrived(self, piece)

    def read(self, piece: Piece) -> None:
        """The peer's process takes a piece: tell its endpoint, give back credit."""
        stream, peer, world = piece.stream, self.peer, self.world
        if stream.is_over or peer.incarnation != peer.process.incarnation:
            return
        if not peer.is_open:
            if peer.is_closed_here and world.options.late_bytes and peer.process.is_up:
                peer.process.feed(peer, piece)
            return
        size = len(piece.data)
        stream.unread_bytes -= size
        self._unread_bytes -= size
        if piece.fin or piece.reset:
            stream.is_over = True
            # The peer's transport grants one more stream: the news takes its way back.
            world.heap.after(peer.link.delay_us, self._stream_over, stream)
        elif any(other.blocked for other in self.streams.values()):
            world.heap.after(peer.link.delay_us, self._credit)
        peer.process.feed(peer, piece)

    def _stream_over(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is not None:
            self._open_waiting()
            self._credit()

    def _credit(self) -> None:
        """Send what credit allows, streams in any order."""
        while self.is_alive:
            ready = [
                stream
                for stream in self.streams.values()
                if stream.blocked and self._has_credit(stream.blocked[0])
            ]
            if not ready:
                return
            stream = ready[0] if len(ready) == 1 else self._random.choice(ready)
            self.transmit(stream.blocked.popleft())

    # Ending

    def close(self, reason: str) -> None:
        """Our endpoint closed it; the news may overtake what was sent before, or follow it."""
        if not self.is_open:
            return
        self.is_open, self.is_closed_here = False, True
        follows = self._random.random() < 0.5
        # Bytes without credit are not sent any more: a transport closes at once.
        last_us = max((stream.last_arrival_us for stream in self.streams.values()), default=0)
        self.link.carry_close(self, f"closed by the peer: {reason}", after_us=last_us if follows else 0)
        self.peer.mute("closed")

    def lose(self, reason: str) -> None:
        """The connection is gone for this end; its endpoint learns when its process runs."""
        if self.is_open and self.process.incarnation == self.incarnation:
            self.process.deliver(self._lost, reason)

    def _lost(self, reason: str) -> None:
        if self.is_open:
            self.is_open = False
            self.peer.mute("peer gone")
            self.process.connection_lost(self, reason)

    def mute(self, cause: str) -> None:
        """From now on nothing reaches this end; after ``silence_us_max`` it gives up."""
        if not self._muted_by:
            self._silences += 1
            clock, now_us = self.process.clock, self.world.heap.now_us
            at_us = clock.when(clock.shows(now_us) + self.world.limits.silence_us_max)
            self.world.heap.at(at_us, self._silent, self._silences)
        self._muted_by[cause] = None

    def unmute(self, cause: str) -> None:
        """One reason less for silence."""
        self._muted_by.pop(cause, None)

    def _silent(self, silence: int) -> None:
        if silence == self._silences and self._muted_by:
            self.lose("nothing heard")
