"""One direction between two nodes: delay, jitter, and cuts during which everything waits."""

from random import Random
from typing import TYPE_CHECKING

from odsi_proto.testing.simulation.heap import EventHeap
from odsi_proto.testing.simulation.streams import Piece

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.port import Port

REPAIR_US = 1_000
"""After a cut is healed, what waited is sent again within so much."""


class Link:
    """Carries what the ports of one node send to another's."""

    def __init__(self, heap: EventHeap, *, delay_us: int, jitter_us: int, random: Random) -> None:
        self.delay_us = delay_us
        self.ports: list[Port] = []
        """The sending ends."""
        self._heap = heap
        self._jitter_us = jitter_us
        self._random = random
        self._cuts = 0
        self._held: list[tuple[Port, Piece | str]] = []

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through now."""
        return self._cuts > 0

    def carry(self, port: "Port", piece: Piece) -> None:
        """Take a piece to the other end."""
        if self._cuts:
            self._held.append((port, piece))
            return
        stream = piece.stream
        arrival_us = max(
            self._heap.now_us + self._travel_us(), stream.last_arrival_us, port.peer.made_us or 0
        )
        stream.last_arrival_us = arrival_us
        self._heap.at(arrival_us, port.arrived, piece)

    def carry_close(self, port: "Port", reason: str, *, after_us: int) -> None:
        """Take the news of a close to the other end, not before ``after_us``."""
        if self._cuts:
            self._held.append((port, reason))
        else:
            self._heap.at(max(self._heap.now_us + self._travel_us(), after_us), port.peer.lose, reason)

    def cut(self, cause: str) -> None:
        """Let nothing through until :meth:`heal`; receivers hear nothing."""
        self._cuts += 1
        for port in self.ports:
            port.peer.mute(cause)

    def heal(self, cause: str) -> None:
        """End one cut; what waited is on its way again."""
        self._cuts -= 1
        for port in self.ports:
            port.peer.unmute(cause)
        if self._cuts:
            return
        held, self._held = self._held, []
        for port, what in held:
            match what:
                case Piece():
                    repaired_us = self._heap.now_us + self._random.randint(0, REPAIR_US)
                    what.stream.last_arrival_us = max(what.stream.last_arrival_us, repaired_us)
                    self.carry(port, what)
                case str():
                    self.carry_close(port, what, after_us=0)

    def _travel_us(self) -> int:
        if self._jitter_us:
            return self.delay_us + self._random.randint(0, self._jitter_us)
        return self.delay_us
